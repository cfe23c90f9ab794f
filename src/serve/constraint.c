/* What the answer's text has to keep to: a JSON Schema, a grammar, a regular expression or a list of
 * choices, in the spellings of OpenAI, vLLM and llama-server. What cannot be enforced is refused with
 * the grammar's own words. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

/* What came of compiling; one request has one form. */
static void take(qsi_api_call *c, const qsi_in *in, const char *key, qs_status st, qsi_grammar *g,
                 const qs_err *err) {
    if (st != QS_OK) {
        if (st == QS_E_NOMEM) qsi_refuse_memory(in->no);
        else qsi_in_refuse(in, key, "cannot be enforced: %s", err->text);
        return;
    }
    if (c->ask.o.grammar != NULL || in->no->status != 0) {
        if (c->ask.o.grammar != NULL)
            qsi_in_refuse(in, key, "is a second form that the answer should have; one is possible");
        qsi_grammar_release(g);
        return;
    }
    c->ask.o.grammar = g;
}

void qsi_ask_schema_text(qsi_api_call *c, const qsi_in *in, const char *key, const char *json,
                         size_t n) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    qs_status st = qsi_grammar_from_schema(&g, json, n, NULL, &err);
    take(c, in, key, st, g, &err);
}

void qsi_ask_any_json(qsi_api_call *c, const qsi_in *in, const char *key) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    qs_status st = qsi_grammar_json_object(&g, NULL, &err);
    take(c, in, key, st, g, &err);
}

void qsi_ask_schema(qsi_api_call *c, const qsi_in *in, const char *key) {
    const qsi_json *j = qsi_json_get(in->j, key);
    qsi_json_kind kind = qsi_json_kind_of(j);
    size_t n;
    if (!qsi_in_has(in, key)) return;
    if (kind == QSI_JSON_STR) { /* vLLM's clients send a schema's text, too */
        const char *s = qsi_json_as_str(j);
        qsi_ask_schema_text(c, in, key, s, strlen(s));
        return;
    }
    if (kind != QSI_JSON_OBJECT && kind != QSI_JSON_BOOL) {
        qsi_in_refuse(in, key, "is no JSON Schema");
        return;
    }
    const char *text = qsi_arena_json(c, j, &n, in->no);
    if (text != NULL) qsi_ask_schema_text(c, in, key, text, n);
}

static void read_gbnf(qsi_api_call *c, const qsi_in *in, const char *key) {
    const char *s = qsi_in_text(in, key);
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (s == NULL || s[0] == '\0') return; /* llama-server's clients send an empty one for none */
    qs_status st = qsi_grammar_from_gbnf(&g, s, strlen(s), NULL, &err);
    take(c, in, key, st, g, &err);
}

static void read_regex(qsi_api_call *c, const qsi_in *in, const char *key) {
    const char *s = qsi_in_text(in, key);
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (s == NULL) return;
    qs_status st = qsi_grammar_from_regex(&g, s, strlen(s), NULL, &err);
    take(c, in, key, st, g, &err);
}

static void read_choices(qsi_api_call *c, const qsi_in *in, const char *key) {
    const qsi_json *list = qsi_in_array(in, key);
    size_t n = qsi_json_size(list);
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (list == NULL) return;
    const char **texts = qsi_arena_calloc(&c->arena, n + 1, sizeof *texts);
    if (texts == NULL) {
        qsi_refuse_memory(in->no);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        texts[i] = qsi_json_as_str(qsi_json_at(list, i));
        if (texts[i] == NULL || texts[i][0] == '\0') {
            qsi_in_refuse(in, key, "holds something that is no string, or an empty one (place %zu)", i);
            return;
        }
    }
    if (n == 0) {
        qsi_in_refuse(in, key, "is empty");
        return;
    }
    qs_status st = qsi_grammar_from_choices(&g, texts, n, NULL, &err);
    take(c, in, key, st, g, &err);
}

/* {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}; llama-server takes "schema"
 * beside "type", too. */
static void read_format(qsi_api_call *c, const qsi_in *in) {
    static const char *const types[] = { "text", "json_object", "json_schema", NULL };
    if (qsi_in_object(in, "response_format") == NULL) return;
    qsi_in f = qsi_in_member(in, "response_format");
    int type = qsi_in_need(&f, "type") ? qsi_in_word(&f, "type", types) : -1;
    bool strict;
    if (type == 1) {
        if (qsi_in_has(&f, "schema")) qsi_ask_schema(c, &f, "schema");
        else qsi_ask_any_json(c, in, "response_format");
    }
    if (type != 2) return;
    if (!qsi_in_has(&f, "json_schema") && qsi_in_has(&f, "schema")) {
        qsi_ask_schema(c, &f, "schema");
        return;
    }
    if (!qsi_in_need(&f, "json_schema") || qsi_in_object(&f, "json_schema") == NULL) return;
    qsi_in s = qsi_in_member(&f, "json_schema");
    qsi_in_text(&s, "name");
    qsi_in_text(&s, "description");
    qsi_in_bool(&s, "strict", &strict);
    if (qsi_in_need(&s, "schema")) qsi_ask_schema(c, &s, "schema");
}

static void read_structured(qsi_api_call *c, const qsi_in *in) {
    if (qsi_in_object(in, "structured_outputs") == NULL) return;
    qsi_in s = qsi_in_member(in, "structured_outputs");
    bool any = false;
    qsi_ask_schema(c, &s, "json");
    read_regex(c, &s, "regex");
    read_choices(c, &s, "choice");
    read_gbnf(c, &s, "grammar");
    qsi_in_bool(&s, "json_object", &any);
    if (any) qsi_ask_any_json(c, &s, "json_object");
    if (qsi_in_has(&s, "structural_tag"))
        qsi_in_refuse(&s, "structural_tag", "is not supported");
}

void qsi_ask_constraint(qsi_api_call *c, const qsi_in *in) {
    if (in->no->status != 0) return;
    read_format(c, in);
    qsi_ask_schema(c, in, "json_schema");
    read_gbnf(c, in, "grammar");
    qsi_ask_schema(c, in, "guided_json");
    read_regex(c, in, "guided_regex");
    read_choices(c, in, "guided_choice");
    read_gbnf(c, in, "guided_grammar");
    read_structured(c, in);
}
