/* Conversations of the public API: turns kept with the ids that were generated, so that the cache of
 * earlier turns stays good; answers; tools. */
#include <string.h>

#include "api/api.h"
#include "base/log.h"
#include "base/mem.h"
#include "fmt/json.h"

#define MAX_TOOLS_TEXT ((size_t)4 << 20)

static const char *const role_names[] = { "system", "user", "assistant", "developer", "tool" };
_Static_assert((int)QS_TOOL == (int)QSI_TOOL, "roles have one order");
_Static_assert((int)QS_THINK_OFF == (int)QSI_THINK_OFF, "so have the ways of thinking");
_Static_assert((int)QS_PART_ARGUMENTS == (int)QSI_PART_ARGS, "and the parts of answers");

const char *qsi_api_role_name(qs_role role) { return role_names[role]; }

int qsi_api_role_of(const char *name) {
    for (size_t i = 0; name && i < QSI_COUNT(role_names); i++)
        if (strcmp(name, role_names[i]) == 0) return (int)i;
    return -1;
}

static void release_turn(qsi_api_turn *t) {
    for (size_t i = 0; i < t->n_calls; i++) {
        qsi_str_release(&t->calls[i].name);
        qsi_str_release(&t->calls[i].args);
    }
    qsi_free(t->calls);
    qsi_str_release(&t->text);
    qsi_str_release(&t->reasoning);
    qsi_free(t->ids);
    *t = (qsi_api_turn){ 0 };
}

void qsi_api_drop_turns(qs_session *s, size_t from) {
    while (s->n_turns > from) release_turn(&s->turns[--s->n_turns]);
}

static qs_status make_turn(qsi_api_turn *t, qs_role role, const char *text, size_t n,
                           const int32_t *ids, size_t n_ids, qs_err *err) {
    qs_status st = QS_OK;
    *t = (qsi_api_turn){ .role = role };
    if (qsi_str_append(&t->text, text, n) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (n_ids > 0) {
        t->ids = qsi_alloc(n_ids, sizeof *ids);
        if (!t->ids) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        memcpy(t->ids, ids, n_ids * sizeof *ids);
        t->n_ids = n_ids;
    }
done:
    if (st != QS_OK) release_turn(t);
    return st;
}

qs_status qsi_api_add_turn(qs_session *s, qs_role role, const char *text, size_t n,
                           const int32_t *ids, size_t n_ids, qs_err *err) {
    qs_status st = QS_OK;
    if (qsi_grow((void **)&s->turns, &s->cap_turns, s->n_turns + 1, sizeof *s->turns) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a turn");
    QS_TRY(make_turn(&s->turns[s->n_turns], role, text, n, ids, n_ids, err));
    s->n_turns++;
done:
    return st;
}

qs_status qsi_api_add_call(qsi_api_turn *t, const char *name, size_t n_name, const char *args,
                           size_t n_args, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    size_t cap = t->n_calls;
    if (qsi_grow((void **)&t->calls, &cap, t->n_calls + 1, sizeof *t->calls) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a call");
    qsi_answer_call *c = &t->calls[t->n_calls++];
    *c = (qsi_answer_call){ .whole = false };
    if (qsi_str_append(&c->name, name, n_name) != QS_OK ||
        qsi_str_append(&c->args, args, n_args) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a call");
    const qsi_json_limits limits = { MAX_TOOLS_TEXT, 1u << 18 };
    c->whole = n_name > 0 && qsi_json_parse(&j, args, n_args, limits, NULL) == QS_OK &&
               qsi_json_kind_of(j) == QSI_JSON_OBJECT;
done:
    qsi_json_free(&j);
    return st;
}

static qs_status check_text(const char *text, size_t n, qs_err *err) {
    size_t bad;
    if (qsi_utf8_valid(text, n, &bad)) return QS_OK;
    return qsi_err_at(err, QS_E_FORMAT, (int64_t)bad,
                      "the text is not UTF-8: byte 0x%02x at offset %zu", (uint8_t)text[bad], bad);
}

qs_status qs_chat_add(qs_session *s, qs_role role, const char *text, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if ((unsigned)role >= QSI_COUNT(role_names)) QS_FAIL(err, QS_E_ARG, "unknown role %d", role);
    if (role == QS_SYSTEM && s->n_turns > 0)
        QS_FAIL(err, QS_E_STATE, "a system turn can only be the first (qs_chat_system replaces it)");
    QS_TRY(check_text(text, n, err));
    QS_TRY(qsi_api_add_turn(s, role, text, n, NULL, 0, err));
done:
    return st;
}

int64_t qs_chat_n_turns(const qs_session *s) { return (int64_t)s->n_turns; }

qs_turn qs_chat_turn(const qs_session *s, int64_t i) {
    if (i < 0 || (uint64_t)i >= s->n_turns) return (qs_turn){ .text = "", .reasoning = "" };
    const qsi_api_turn *t = &s->turns[i];
    return (qs_turn){ .role = t->role, .text = t->text.data ? t->text.data : "",
                      .n = t->text.len, .n_reasoning = t->reasoning.len,
                      .reasoning = t->reasoning.data ? t->reasoning.data : "",
                      .n_calls = (int64_t)t->n_calls };
}

qs_call qs_chat_call(const qs_session *s, int64_t turn, int64_t i) {
    if (turn < 0 || (uint64_t)turn >= s->n_turns) return (qs_call){ 0 };
    const qsi_api_turn *t = &s->turns[turn];
    if (i < 0 || (uint64_t)i >= t->n_calls) return (qs_call){ 0 };
    const qsi_answer_call *c = &t->calls[i];
    return (qs_call){ .name = c->name.data ? c->name.data : "", .n_name = c->name.len,
                      .arguments = c->args.data ? c->args.data : "", .n_arguments = c->args.len,
                      .whole = c->whole };
}

void qs_chat_truncate(qs_session *s, int64_t n) {
    qsi_api_drop_turns(s, n > 0 ? (size_t)n : 0);
}

qs_status qs_chat_system(qs_session *s, const char *text, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    bool has = s->n_turns > 0 && s->turns[0].role == QS_SYSTEM;
    qsi_api_turn turn = { 0 };
    QS_TRY(check_text(text, n, err));
    if (n > 0) {
        QS_TRY(make_turn(&turn, QS_SYSTEM, text, n, NULL, 0, err));
        if (!has) {
            QS_TRY(qsi_api_add_turn(s, QS_SYSTEM, "", 0, NULL, 0, err));
            qsi_api_turn empty = s->turns[s->n_turns - 1];
            memmove(s->turns + 1, s->turns, (s->n_turns - 1) * sizeof *s->turns);
            s->turns[0] = empty;
        }
        release_turn(&s->turns[0]);
        s->turns[0] = turn;
        turn = (qsi_api_turn){ 0 };
    } else if (has) {
        release_turn(&s->turns[0]);
        memmove(s->turns, s->turns + 1, --s->n_turns * sizeof *s->turns);
    }
done:
    release_turn(&turn);
    return st;
}

/* ---- tools ------------------------------------------------------------------------------------ */

qs_status qs_chat_template_check(const char *name, qs_err *err) {
    const qsi_chat_template *t;
    return qsi_chat_by_name(&t, name, err);
}

qs_status qs_chat_check(const qs_model *m, qs_err *err) {
    if (m->chat != NULL) return QS_OK;
    if (err != NULL) *err = m->chat_err;
    return QS_E_UNSUPPORTED;
}

static qs_status read_tool(const qsi_json *j, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *function = qsi_json_get(j, "function");
    const char *type = qsi_json_as_str(qsi_json_get(j, "type"));
    if (function != NULL && type != NULL && strcmp(type, "function") == 0) j = function;
    const char *name = qsi_json_as_str(qsi_json_get(j, "name"));
    qsi_json_kind parameters = qsi_json_kind_of(qsi_json_get(j, "parameters"));
    if (name == NULL || name[0] == '\0') QS_FAIL(err, QS_E_FORMAT, "it has no \"name\"");
    if (parameters != QSI_JSON_MISSING && parameters != QSI_JSON_OBJECT)
        QS_FAIL(err, QS_E_FORMAT, "\"parameters\" of '%.60s' is no object", name);
    if (qsi_chat_dump(out, j) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory for a tool");
done:
    return st;
}

qs_status qsi_api_read_tools(const char *json, size_t n, qsi_str **list, size_t *n_list,
                             qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    *list = NULL;
    *n_list = 0;
    QS_TRY(qsi_json_parse(&j, json, n, (qsi_json_limits){ MAX_TOOLS_TEXT, 1u << 18 }, err));
    if (qsi_json_kind_of(j) != QSI_JSON_ARRAY)
        QS_FAIL(err, QS_E_FORMAT, "tools are a JSON array of functions");
    *list = qsi_calloc(qsi_json_size(j), sizeof **list);
    if (*list == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for tools");
    for (size_t i = 0; i < qsi_json_size(j); i++) {
        st = read_tool(qsi_json_at(j, i), &(*list)[(*n_list)++], err);
        if (st != QS_OK) {
            qsi_err_prefix(err, "tool %zu", i + 1);
            goto done;
        }
    }
done:
    qsi_json_free(&j);
    return st;
}

static void drop_list(qsi_str *list, size_t n) {
    for (size_t i = 0; i < n; i++) qsi_str_release(&list[i]);
    qsi_free(list);
}

void qsi_api_drop_tools(qs_session *s) {
    drop_list(s->tools, s->n_tools);
    s->tools = NULL;
    s->n_tools = 0;
}

qs_status qs_chat_tools(qs_session *s, const char *json, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str *list = NULL;
    size_t n_list = 0;
    if (n > 0) QS_TRY(qsi_api_read_tools(json, n, &list, &n_list, err));
    qsi_api_drop_tools(s);
    s->tools = list;
    s->n_tools = n_list;
    list = NULL;
    n_list = 0;
done:
    drop_list(list, n_list);
    return st;
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* What a session's conversation and tools are to the templates; pointers into the session. */
typedef struct view {
    qsi_turn *turns;
    qsi_call *calls;
    qsi_tool *tools;
} view;

static void release_view(view *v) {
    qsi_free(v->turns);
    qsi_free(v->calls);
    qsi_free(v->tools);
    *v = (view){ 0 };
}

static qs_status look(const qs_session *s, view *v, qs_err *err) {
    qs_status st = QS_OK;
    size_t n_calls = 0;
    for (size_t i = 0; i < s->n_turns; i++) n_calls += s->turns[i].n_calls;
    v->turns = qsi_calloc(s->n_turns, sizeof *v->turns);
    v->calls = qsi_calloc(n_calls, sizeof *v->calls);
    v->tools = qsi_calloc(s->n_tools, sizeof *v->tools);
    if (!v->turns || !v->calls || !v->tools)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the conversation");
    qsi_call *call = v->calls;
    for (size_t i = 0; i < s->n_turns; i++) {
        const qsi_api_turn *t = &s->turns[i];
        v->turns[i] = (qsi_turn){ .role = (qsi_role)t->role, .n = t->text.len,
                                  .text = t->text.data ? t->text.data : "", .ids = t->ids,
                                  .n_ids = t->n_ids, .reasoning = t->reasoning.data,
                                  .n_reasoning = t->reasoning.len, .calls = call };
        for (size_t k = 0; k < t->n_calls; k++) {
            const qsi_answer_call *c = &t->calls[k];
            if (!c->whole && t->n_ids == 0) continue; /* it cannot be written down again */
            *call++ = (qsi_call){ .name = c->name.data ? c->name.data : "", .n_name = c->name.len,
                                  .args = c->args.data ? c->args.data : "", .n_args = c->args.len };
            v->turns[i].n_calls++;
        }
    }
    for (size_t i = 0; i < s->n_tools; i++)
        v->tools[i] = (qsi_tool){ s->tools[i].data, s->tools[i].len };
done:
    return st;
}

static int hear_part(void *user, qsi_part part, const char *p, size_t n) {
    const qs_gen_opts *o = user;
    int end = 0;
    if (part == QSI_PART_TEXT && o->on_text) end |= o->on_text(o->user, p, n);
    if (o->on_part) end |= o->on_part(o->user, (qs_part)part, p, n);
    return end;
}

/* Adds the answer as a turn, with its parts. */
static qs_status keep(qs_session *s, qsi_answer *a, const int32_t *made, int64_t exact,
                      qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_api_add_turn(s, QS_ASSISTANT, s->text.data ? s->text.data : "", s->text.len, made,
                            exact > 0 ? (size_t)exact : 0, err));
    qsi_api_turn *t = &s->turns[s->n_turns - 1];
    t->reasoning = a->reasoning;
    t->calls = a->calls;
    t->n_calls = a->n_calls;
    a->reasoning = (qsi_str){ 0 };
    a->calls = NULL;
    a->n_calls = a->cap_calls = 0;
done:
    return st;
}

/* The prompt for an answer, in the session's sequence. */
static qs_status ask(qs_session *s, const view *v, qsi_think think, size_t *n_prompt,
                     size_t *n_cached, qs_err *err) {
    qs_status st = QS_OK;
    qsi_ids ids = { 0 };
    const qsi_chat_opts o = { .think = think, .generate = true, .tools = v->tools,
                              .n_tools = s->n_tools };
    QS_TRY(qsi_chat_write(s->model->chat, s->model->tok.vocab, v->turns, s->n_turns, &o, &ids, NULL,
                          err));
    if (ids.len >= (uint64_t)s->runner.runner.n_ctx)
        QS_FAIL(err, QS_E_LIMIT, "the conversation has %zu tokens, the context %lld: start a new "
                "one, or take a larger context (-c N)", ids.len,
                (long long)s->runner.runner.n_ctx);
    QS_TRY(qsi_seq_set(&s->seq, ids.data, ids.len, n_cached, err));
    *n_prompt = ids.len;
done:
    qsi_ids_release(&ids);
    return st;
}

void qsi_api_tell_template(qs_model *m) {
    if (m->tell_template)
        qsi_log(QSI_LOG_NOTE, "the model carries no chat template; that of %s is used",
                qsi_chat_name(m->chat));
    m->tell_template = false;
}

qs_status qs_chat_answer(qs_session *s, const qs_gen_opts *opts, qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    qs_gen_opts o;
    view v = { 0 };
    qsi_answer a = { 0 };
    size_t n_cached = 0, n_prompt = 0;
    int64_t exact = 0;
    qs_model *m = s->model;
    atomic_store(&s->cancel, 0);
    qs_gen_opts_init(&o, sizeof o, m);
    qsi_api_opts(&o, sizeof o, opts);
    QS_TRY(qs_chat_check(m, err));
    if ((uint32_t)o.think > QS_THINK_OFF) QS_FAIL(err, QS_E_ARG, "unknown way of thinking: %d", o.think);
    qsi_api_tell_template(m);
    QS_TRY(look(s, &v, err));
    QS_TRY(qsi_answer_init(&a, &(qsi_answer_opts){ .chat = m->chat, .vocab = m->tok.vocab,
                                                   .think = (qsi_think)o.think, .tools = v.tools,
                                                   .n_tools = s->n_tools, .on_part = hear_part,
                                                   .user = &o }, err));
    QS_TRY(ask(s, &v, (qsi_think)o.think, &n_prompt, &n_cached, err));
    QS_TRY(qsi_api_generate(s, &o, qsi_chat_strip_space(m->chat), o.show_special ? NULL : &a,
                            n_cached, stats, &exact, err));
    if (s->seq.n_ids == n_prompt && atomic_load(&s->cancel)) goto done;
    QS_TRY(keep(s, &a, s->seq.ids + n_prompt, exact, err));
done:
    qsi_answer_release(&a);
    release_view(&v);
    return st;
}
