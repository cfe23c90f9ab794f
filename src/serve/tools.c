/* Functions that may be called: read from the request, and a call made certain where that is asked. A
 * forced call is begun for the model (job's n_lead), and a grammar of its parameters holds from there; a
 * template that writes calls as bare JSON is given a grammar of the whole answer instead.
 * See call_impl.h. */
#include <stdio.h>
#include <string.h>

#include "serve/call_impl.h"

#define MAX_TOOLS 512
#define MAX_NAME 64

static bool good_name(const char *s) {
    size_t n = strlen(s);
    if (n == 0 || n > MAX_NAME) return false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-' || c == '.';
        if (!ok) return false;
    }
    return true;
}

/* {"name": .., "description": .., "parameters": ..} in this order, as templates write it. */
static void read_tool(qsi_talk *t, const qsi_in *in, const char *schema_key, qsi_tool *out) {
    qsi_api_call *c = t->c;
    qsi_str s = { 0 };
    qsi_jw w = { .s = &s };
    size_t n;
    const char *name = qsi_in_need(in, "name") ? qsi_in_text(in, "name") : NULL;
    const char *about = qsi_in_text(in, "description");
    const qsi_json *schema = qsi_in_object(in, schema_key);
    bool strict;
    qsi_in_bool(in, "strict", &strict);
    if (in->no->status != 0) return;
    if (!good_name(name)) {
        qsi_in_refuse(in, "name", "is no name of 1 to %d letters, digits, '_', '-' or '.'", MAX_NAME);
        return;
    }
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "name", name);
    if (about != NULL) qsi_jw_key_z(&w, "description", about);
    if (schema != NULL) {
        const char *text = qsi_arena_json(c, schema, &n, in->no);
        qsi_jw_key(&w, "parameters");
        if (text != NULL) qsi_jw_raw(&w, text, n);
    }
    qsi_jw_end_obj(&w);
    char *copy = w.st == QS_OK ? qsi_arena_strndup(&c->arena, s.data, s.len) : NULL;
    if (copy == NULL) qsi_refuse_memory(in->no);
    *out = (qsi_tool){ copy, s.len };
    qsi_str_release(&s);
}

static void read_one(qsi_talk *t, const qsi_in *in, size_t i, qsi_tool_form form, qsi_tool *out) {
    static const char *const function[] = { "function", NULL };
    qsi_in e = qsi_in_element(in, "tools", i);
    if (in->no->status != 0) return;
    if (form == QSI_TOOLS_ANTHROPIC) {
        const char *type = qsi_in_text(&e, "type");
        if (type != NULL && strcmp(type, "custom") != 0)
            qsi_in_refuse(&e, "type", "is a tool of Anthropic's own, which this server does not have");
        read_tool(t, &e, "input_schema", out);
        return;
    }
    if (qsi_in_need(&e, "type")) qsi_in_word(&e, "type", function);
    if (form == QSI_TOOLS_RESPONSES) {
        read_tool(t, &e, "parameters", out);
        return;
    }
    if (!qsi_in_need(&e, "function") || qsi_in_object(&e, "function") == NULL) return;
    qsi_in f = qsi_in_member(&e, "function");
    read_tool(t, &f, "parameters", out);
}

/* The name in a tool's text; owned by *j, which the caller frees. */
static const char *name_of(const qsi_tool *tool, qsi_json **j) {
    *j = NULL;
    if (qsi_json_parse(j, tool->json, tool->n, (qsi_json_limits){ tool->n, tool->n }, NULL) != QS_OK)
        return "";
    const char *s = qsi_json_as_str(qsi_json_get(*j, "name"));
    return s != NULL ? s : "";
}

static void refuse_twins(qsi_talk *t, const qsi_in *in) {
    for (size_t i = 0; i < t->n_tools && in->no->status == 0; i++)
        for (size_t k = 0; k < i && in->no->status == 0; k++) {
            qsi_json *a, *b;
            const char *x = name_of(&t->tools[i], &a), *y = name_of(&t->tools[k], &b);
            if (strcmp(x, y) == 0) qsi_in_refuse(in, "tools", "has two functions of one name");
            qsi_json_free(&a);
            qsi_json_free(&b);
        }
}

void qsi_talk_tools(qsi_talk *t, const qsi_in *in, qsi_tool_form form) {
    const qsi_json *list = qsi_in_array(in, "tools");
    size_t n = qsi_json_size(list);
    if (n == 0) return;
    if (n > MAX_TOOLS) {
        qsi_in_refuse(in, "tools", "has %zu functions; at most %d", n, MAX_TOOLS);
        return;
    }
    t->tools = qsi_arena_calloc(&t->c->arena, n, sizeof *t->tools);
    if (t->tools == NULL) {
        qsi_refuse_memory(in->no);
        return;
    }
    for (size_t i = 0; i < n && in->no->status == 0; i++) read_one(t, in, i, form, &t->tools[i]);
    t->n_tools = n;
    if (in->no->status == 0 && n < 64) refuse_twins(t, in);
}

/* ---- forced calls ---- */

static const qsi_tool *find_tool(const qsi_talk *t, const char *name) {
    for (size_t i = 0; i < t->n_tools; i++) {
        qsi_json *j;
        bool same = strcmp(name_of(&t->tools[i], &j), name) == 0;
        qsi_json_free(&j);
        if (same) return &t->tools[i];
    }
    return NULL;
}

static void set_lead(qsi_talk *t, qsi_refusal *no, const char *a, const char *b, const char *c,
                     const char *d) {
    qsi_str s = { 0 };
    const char *parts[] = { a, b, c, d };
    qs_status st = QS_OK;
    for (size_t i = 0; i < QSI_COUNT(parts) && st == QS_OK; i++) st = qsi_str_puts(&s, parts[i]);
    if (st == QS_OK) t->lead = qsi_arena_strndup(&t->c->arena, s.data, s.len);
    if (t->lead == NULL) qsi_refuse_memory(no);
    qsi_str_release(&s);
}

/* The markers stand in tok/chat_table.h too, which knows the templates from inside. */
#define CALLS "<｜tool▁calls▁begin｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define SEP "<｜tool▁sep｜>"
#define DSML "｜DSML｜"

/* How the answer begins: an empty reasoning where the prompt has opened one, then the call up to the
 * parameters of `name`, or (NULL) up to the name. */
static void write_lead(qsi_talk *t, const char *name, qsi_refusal *no) {
    const qsi_chat_template *chat = t->c->b->chat;
    qsi_begin begin;
    qs_err err = { 0 };
    qs_status st = qsi_chat_begin(chat, t->think, &begin, &err);
    if (st != QS_OK) {
        qsi_refuse_err(no, NULL, st, &err);
        return;
    }
    const char *shut = begin == QSI_BEGIN_REASONING ? "</think>" : "";
    switch (qsi_chat_calls(chat)) {
    case QSI_CALLS_FENCED:
        set_lead(t, no, shut, CALLS CALL "function" SEP, name != NULL ? name : "",
                 name != NULL ? "\n```json\n" : "");
        break;
    case QSI_CALLS_PLAIN:
        set_lead(t, no, shut, CALLS CALL, name != NULL ? name : "", name != NULL ? SEP : "");
        break;
    case QSI_CALLS_DSML:
        set_lead(t, no, shut, "<" DSML "function_calls>\n<" DSML "invoke name=\"",
                 name != NULL ? name : "", name != NULL ? "\">\n" : "");
        break;
    default: break;
    }
}

/* JSON with every "$ref": "#..." led below `prefix`, for a schema that becomes part of another. */
static qs_status put_moved(qsi_jw *w, const qsi_json *j, const char *prefix) {
    qs_status st = QS_OK;
    const char *key;
    const qsi_json *value;
    qsi_json_kind kind = qsi_json_kind_of(j);
    qsi_str s = { 0 };
    if (kind == QSI_JSON_OBJECT) {
        qsi_jw_obj(w);
        for (void *it = qsi_json_next(j, NULL, &key, &value); it != NULL;
             it = qsi_json_next(j, it, &key, &value)) {
            const char *ref = strcmp(key, "$ref") == 0 ? qsi_json_as_str(value) : NULL;
            qsi_jw_key(w, key);
            if (ref != NULL && (strcmp(ref, "#") == 0 || strncmp(ref, "#/", 2) == 0)) {
                QS_TRY(qsi_str_printf(&s, "#%s%s", prefix, ref + 1));
                qsi_jw_str(w, s.data, s.len);
                qsi_str_clear(&s);
            } else {
                QS_TRY(put_moved(w, value, prefix));
            }
        }
        qsi_jw_end_obj(w);
    } else if (kind == QSI_JSON_ARRAY) {
        qsi_jw_arr(w);
        for (size_t i = 0; i < qsi_json_size(j); i++) QS_TRY(put_moved(w, qsi_json_at(j, i), prefix));
        qsi_jw_end_arr(w);
    } else {
        QS_TRY(qsi_chat_dump(&s, j));
        qsi_jw_raw(w, s.data, s.len);
    }
    QS_TRY(w->st);
done:
    qsi_str_release(&s);
    return st;
}

/* The schema of a call written as {"name": .., "arguments": ..}. */
static void put_call_schema(qsi_jw *w, const qsi_tool *tool, size_t i) {
    char prefix[64];
    qsi_json *j;
    const char *name = name_of(tool, &j);
    const qsi_json *parameters = qsi_json_get(j, "parameters");
    snprintf(prefix, sizeof prefix, "/anyOf/%zu/properties/arguments", i);
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "type", "object");
    qsi_jw_key(w, "properties");
    qsi_jw_obj(w);
    qsi_jw_key(w, "name");
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "const", name);
    qsi_jw_end_obj(w);
    qsi_jw_key(w, "arguments");
    if (parameters != NULL) {
        qs_status st = put_moved(w, parameters, prefix);
        if (w->st == QS_OK) w->st = st;
    } else {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "type", "object");
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_obj(w);
    qsi_jw_key(w, "required");
    qsi_jw_raw(w, "[\"name\",\"arguments\"]", 20);
    qsi_jw_key_bool(w, "additionalProperties", false);
    qsi_jw_end_obj(w);
    qsi_json_free(&j);
}

static void force_json(qsi_talk *t, const qsi_tool *only, const qsi_in *in, const char *key) {
    qsi_str s = { 0 };
    qsi_jw w = { .s = &s };
    size_t n = 0;
    qsi_jw_obj(&w);
    qsi_jw_key(&w, "anyOf");
    qsi_jw_arr(&w);
    for (size_t i = 0; i < t->n_tools; i++)
        if (only == NULL || only == &t->tools[i]) put_call_schema(&w, &t->tools[i], n++);
    qsi_jw_end_arr(&w);
    qsi_jw_end_obj(&w);
    if (w.st != QS_OK) qsi_refuse_memory(in->no);
    else qsi_ask_schema_text(t->c, in, key, s.data, s.len);
    qsi_str_release(&s);
}

static void force_parameters(qsi_talk *t, const qsi_tool *tool, const qsi_in *in, const char *key) {
    qsi_json *j;
    size_t n;
    name_of(tool, &j);
    const qsi_json *parameters = qsi_json_get(j, "parameters");
    const char *text = parameters != NULL ? qsi_arena_json(t->c, parameters, &n, in->no) : NULL;
    if (parameters == NULL) qsi_ask_schema_text(t->c, in, key, "{\"type\":\"object\"}", 17);
    else if (text != NULL) qsi_ask_schema_text(t->c, in, key, text, n);
    qsi_json_free(&j);
}

void qsi_talk_force(qsi_talk *t, const char *name, const qsi_in *in, const char *key) {
    const qsi_tool *tool = NULL;
    qsi_call_form form = qsi_chat_calls(t->c->b->chat);
    if (in->no->status != 0) return;
    if (t->n_tools == 0) {
        qsi_in_refuse(in, key, "asks for a call, but there are no tools");
        return;
    }
    if (name != NULL && (tool = find_tool(t, name)) == NULL) {
        qsi_in_refuse(in, key, "names a function that is not among the tools");
        return;
    }
    if (t->c->ask.o.grammar != NULL) {
        qsi_in_refuse(in, key, "asks for a call; the answer's form is asked for as well");
        return;
    }
    if (t->think_asked) {
        qsi_in_refuse(in, key, "begins the answer with a call; it cannot reason before it");
        return;
    }
    if (t->c->b->can_choose && t->think == QSI_THINK_AUTO) t->think = QSI_THINK_OFF;
    if (tool == NULL && t->n_tools == 1) tool = &t->tools[0];
    t->c->ask.forced = true;
    if (form == QSI_CALLS_JSON) {
        force_json(t, tool, in, key);
        return;
    }
    qsi_json *j = NULL;
    write_lead(t, tool != NULL ? name_of(tool, &j) : NULL, in->no);
    qsi_json_free(&j);
    /* parameters that are no JSON, or of a function that the model still has to name, stay its own */
    if (tool != NULL && form != QSI_CALLS_DSML) force_parameters(t, tool, in, key);
}

void qsi_talk_choice(qsi_talk *t, const qsi_in *in, qsi_tool_form form) {
    static const char *const words[] = { "auto", "none", "required", NULL };
    static const char *const function[] = { "function", NULL };
    if (!qsi_in_has(in, "tool_choice")) return;
    if (qsi_json_kind_of(qsi_json_get(in->j, "tool_choice")) == QSI_JSON_STR) {
        int word = qsi_in_word(in, "tool_choice", words);
        if (word == 1) t->n_tools = 0;
        if (word == 2) qsi_talk_force(t, NULL, in, "tool_choice");
        return;
    }
    if (qsi_in_object(in, "tool_choice") == NULL) return;
    qsi_in o = qsi_in_member(in, "tool_choice"), f = o;
    if (qsi_in_need(&o, "type")) qsi_in_word(&o, "type", function);
    if (form == QSI_TOOLS_CHAT) {
        if (in->no->status != 0 || !qsi_in_need(&o, "function")) return;
        if (qsi_in_object(&o, "function") == NULL) return;
        f = qsi_in_member(&o, "function");
    }
    const char *name = qsi_in_need(&f, "name") ? qsi_in_text(&f, "name") : NULL;
    if (name != NULL) qsi_talk_force(t, name, in, "tool_choice");
}

void qsi_talk_check(qsi_talk *t, const qsi_in *in) {
    if (t->n_tools > 0 && t->c->ask.o.grammar != NULL && !t->c->ask.forced)
        qsi_in_refuse(in, "tools", "may be called, but the answer has to keep to another form; set "
                                   "\"tool_choice\": \"none\", or ask for one of both");
}
