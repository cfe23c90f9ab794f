/* OpenAI's POST /v1/responses. Nothing is stored: previous_response_id is refused. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

enum { ITEM_NONE, ITEM_REASONING, ITEM_MESSAGE, ITEM_CALL };

/* A piece of the output: reasoning, a message or a call. Log-probabilities of what was sent are gathered
 * in the choice's `raw`. */
typedef struct item {
    int kind;
    char name[40];
    size_t from, n;       /* of the choice's text or reasoning */
    size_t call;          /* which */
    bool whole;
} item;

typedef struct own {
    item *items;
    size_t n, cap;
    int64_t sequence;     /* of events */
    /* what the answer repeats of the request, as JSON; NULL: its default */
    const char *instructions, *tools, *choice, *format, *metadata, *effort;
} own;

/* ---- items ---- */

static item *new_item(qsi_api_call *c, int kind) {
    static const char *const prefixes[] = { "", "rs_", "msg_", "fc_" };
    own *o = c->own;
    const qsi_choice *h = &c->choices[0];
    if (o->n == o->cap) {
        size_t cap = o->cap * 2 + 4;
        item *grown = qsi_arena_calloc(&c->arena, cap, sizeof *grown);
        if (grown == NULL) {
            c->st = QS_E_NOMEM;
            return NULL;
        }
        if (o->n > 0) memcpy(grown, o->items, o->n * sizeof *grown);
        o->items = grown;
        o->cap = cap;
    }
    item *i = &o->items[o->n++];
    *i = (item){ .kind = kind, .call = h->n_calls > 0 ? h->n_calls - 1 : 0 };
    qsi_draw_name(i->name, prefixes[kind]);
    return i;
}

static const qsi_str *text_of(const qsi_api_call *c, const item *i) {
    const qsi_choice *h = &c->choices[0];
    if (i->kind == ITEM_REASONING) return &h->reasoning;
    return i->kind == ITEM_MESSAGE ? &h->text : &h->calls[i->call].args;
}

static void put_text(const qsi_api_call *c, qsi_jw *w, const item *i) {
    const qsi_str *s = text_of(c, i);
    qsi_jw_str(w, s->len > 0 ? s->data + i->from : "", i->n);
}

static void put_text_part(const qsi_api_call *c, qsi_jw *w, const item *i, const qsi_str *lp) {
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "type", i->kind == ITEM_MESSAGE ? "output_text" : "reasoning_text");
    qsi_jw_key(w, "text");
    put_text(c, w, i);
    if (i->kind == ITEM_MESSAGE) {
        qsi_jw_key(w, "annotations");
        qsi_jw_arr(w);
        qsi_jw_end_arr(w);
        qsi_jw_key(w, "logprobs");
        qsi_jw_arr(w);
        if (lp != NULL) qsi_jw_raw(w, lp->data, lp->len);
        qsi_jw_end_arr(w);
    }
    qsi_jw_end_obj(w);
}

/* begun: without what it will hold. */
static void put_item(const qsi_api_call *c, qsi_jw *w, const item *i, bool begun, const qsi_str *lp) {
    static const char *const types[] = { "", "reasoning", "message", "function_call" };
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "id", i->name);
    qsi_jw_key_z(w, "type", types[i->kind]);
    qsi_jw_key_z(w, "status", begun ? "in_progress" : i->whole ? "completed" : "incomplete");
    if (i->kind == ITEM_CALL) {
        const qsi_out_call *call = &c->choices[0].calls[i->call];
        qsi_jw_key_z(w, "call_id", call->id);
        qsi_jw_key_str(w, "name", &call->name);
        qsi_jw_key(w, "arguments");
        if (begun) qsi_jw_z(w, "");
        else put_text(c, w, i);
    } else {
        if (i->kind == ITEM_MESSAGE) qsi_jw_key_z(w, "role", "assistant");
        if (i->kind == ITEM_REASONING) {
            qsi_jw_key(w, "summary");
            qsi_jw_arr(w);
            qsi_jw_end_arr(w);
        }
        qsi_jw_key(w, "content");
        qsi_jw_arr(w);
        if (!begun) put_text_part(c, w, i, lp);
        qsi_jw_end_arr(w);
    }
    qsi_jw_end_obj(w);
}

/* ---- the response object ---- */

static bool is_cut(const qsi_choice *h) {
    return h->over && (h->finish == QSI_JOB_LENGTH || h->finish == QSI_JOB_CONTEXT);
}

static void put_or(qsi_jw *w, const char *key, const char *json, const char *otherwise) {
    const char *s = json != NULL ? json : otherwise;
    qsi_jw_key(w, key);
    qsi_jw_raw(w, s, strlen(s));
}

static void put_request(qsi_api_call *c, qsi_jw *w) {
    const own *o = c->own;
    put_or(w, "instructions", o->instructions, "null");
    qsi_jw_key(w, "max_output_tokens");
    if (c->ask.max_tokens >= 0) qsi_jw_i64(w, c->ask.max_tokens);
    else qsi_jw_null(w);
    qsi_jw_key_bool(w, "parallel_tool_calls", !c->ask.one_call);
    qsi_jw_key_null(w, "previous_response_id");
    qsi_jw_key(w, "reasoning");
    qsi_jw_obj(w);
    put_or(w, "effort", o->effort, "null");
    qsi_jw_key_null(w, "summary");
    qsi_jw_end_obj(w);
    qsi_jw_key_bool(w, "store", false);
    qsi_jw_key_f64(w, "temperature", c->ask.o.sampling.temp);
    qsi_jw_key(w, "text");
    qsi_jw_obj(w);
    put_or(w, "format", o->format, "{\"type\":\"text\"}");
    qsi_jw_end_obj(w);
    put_or(w, "tool_choice", o->choice, "\"auto\"");
    put_or(w, "tools", o->tools, "[]");
    qsi_jw_key_f64(w, "top_p", c->ask.o.sampling.top_p);
    qsi_jw_key_z(w, "truncation", c->ask.truncate ? "auto" : "disabled");
    if (c->ask.n_cut > 0) qsi_jw_key_i64(w, "truncated_tokens", c->ask.n_cut);
    put_or(w, "metadata", o->metadata, "{}");
}

static void put_usage(qsi_api_call *c, qsi_jw *w) {
    qsi_usage u = qsi_runs_usage(c);
    qsi_jw_key(w, "usage");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "input_tokens", u.n_prompt);
    qsi_jw_key(w, "input_tokens_details");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "cached_tokens", u.n_cached);
    qsi_jw_end_obj(w);
    qsi_jw_key_i64(w, "output_tokens", u.n_generated);
    qsi_jw_key(w, "output_tokens_details");
    qsi_jw_obj(w);
    qsi_ids ids = { 0 };
    const qsi_str *r = &c->choices[0].reasoning;
    /* reasoning as the vocabulary would write it: which ids the model chose is not kept */
    if (r->len > 0) w->st = qsi_encode(c->b->vocab, r->data, r->len, QSI_ENC_PERSON, &ids, NULL);
    qsi_jw_key_i64(w, "reasoning_tokens", (int64_t)ids.len);
    qsi_ids_release(&ids);
    qsi_jw_end_obj(w);
    qsi_jw_key_i64(w, "total_tokens", u.n_prompt + u.n_generated);
    qsi_jw_end_obj(w);
}

static void put_error(qsi_jw *w, const qsi_refusal *no) {
    qsi_jw_key(w, "error");
    if (no == NULL) {
        qsi_jw_null(w);
        return;
    }
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "code", no->code != NULL ? no->code : "server_error");
    qsi_jw_key_z(w, "message", no->text);
    qsi_jw_end_obj(w);
}

static const char *status_of(const qsi_api_call *c, const qsi_refusal *no) {
    const qsi_choice *h = &c->choices[0];
    if (no != NULL) return "failed";
    if (!h->over) return "in_progress";
    return is_cut(h) ? "incomplete" : "completed";
}

static void put_response(qsi_api_call *c, qsi_jw *w, const qsi_refusal *no) {
    own *o = c->own;
    const qsi_choice *h = &c->choices[0];
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "id", c->name);
    qsi_jw_key_z(w, "object", "response");
    qsi_jw_key_i64(w, "created_at", c->wall_s);
    qsi_jw_key_z(w, "status", status_of(c, no));
    put_error(w, no);
    put_or(w, "incomplete_details", is_cut(h) ? "{\"reason\":\"max_output_tokens\"}" : NULL, "null");
    qsi_jw_key_z(w, "model", c->b->id);
    qsi_jw_key(w, "output");
    qsi_jw_arr(w);
    for (size_t i = 0; i < o->n; i++) put_item(c, w, &o->items[i], false, &c->choices[0].raw);
    qsi_jw_end_arr(w);
    put_request(c, w);
    if (h->over) put_usage(c, w);
    else qsi_jw_key_null(w, "usage");
    qsi_jw_end_obj(w);
}

/* Of an answer in one: what came, in the usual order. */
static void whole(qsi_api_call *c, qsi_jw *w) {
    own *o = c->own;
    const qsi_choice *h = &c->choices[0];
    if (h->reasoning.len > 0) {
        item *i = new_item(c, ITEM_REASONING);
        if (i != NULL) i->n = h->reasoning.len;
    }
    if (h->text.len > 0 || h->n_calls == 0) {
        item *i = new_item(c, ITEM_MESSAGE);
        if (i != NULL) i->n = h->text.len;
    }
    for (size_t k = 0; k < h->n_calls; k++) {
        item *i = new_item(c, ITEM_CALL);
        if (i == NULL) break;
        i->call = k;
        i->n = h->calls[k].args.len;
    }
    for (size_t i = 0; i < o->n; i++) o->items[i].whole = i + 1 < o->n || !is_cut(h);
    w->st = c->st;
    const qsi_str *lp = &h->lp.column[0];
    if (w->st == QS_OK) w->st = qsi_str_append(&c->choices[0].raw, lp->data, lp->len);
    put_response(c, w, NULL);
}

/* ---- streams ---- */

static qsi_jw begin(qsi_api_call *c, const char *type) {
    own *o = c->own;
    qsi_jw w = qsi_sse_begin(c, type);
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "type", type);
    qsi_jw_key_i64(&w, "sequence_number", o->sequence++);
    return w;
}

static void end(qsi_api_call *c, qsi_jw *w) {
    qsi_jw_end_obj(w);
    qsi_sse_end(c, w);
}

static void say_response(qsi_api_call *c, const char *type, const qsi_refusal *no) {
    qsi_jw w = begin(c, type);
    qsi_jw_key(&w, "response");
    put_response(c, &w, no);
    end(c, &w);
}

static void open(qsi_api_call *c) {
    say_response(c, "response.created", NULL);
    say_response(c, "response.in_progress", NULL);
}

static void say_item(qsi_api_call *c, const char *type, const item *i, bool begun) {
    own *o = c->own;
    qsi_jw w = begin(c, type);
    qsi_jw_key_i64(&w, "output_index", i - o->items);
    qsi_jw_key(&w, "item");
    put_item(c, &w, i, begun, &c->choices[0].raw);
    end(c, &w);
}

/* An event about an item's content. */
static qsi_jw about(qsi_api_call *c, const char *type, const item *i) {
    own *o = c->own;
    qsi_jw w = begin(c, type);
    qsi_jw_key_z(&w, "item_id", i->name);
    qsi_jw_key_i64(&w, "output_index", i - o->items);
    if (i->kind != ITEM_CALL) qsi_jw_key_i64(&w, "content_index", 0);
    return w;
}

static void say_content_part(qsi_api_call *c, const char *type, const item *i) {
    qsi_jw w = about(c, type, i);
    qsi_jw_key(&w, "part");
    put_text_part(c, &w, i, &c->choices[0].raw);
    end(c, &w);
}

static item *open_item(qsi_api_call *c) {
    own *o = c->own;
    item *last = o->n > 0 ? &o->items[o->n - 1] : NULL;
    return last != NULL && !last->whole ? last : NULL;
}

static void close_item(qsi_api_call *c, bool whole_one) {
    static const char *const done[] = { "", "response.reasoning_text.done", "response.output_text.done",
                                        "response.function_call_arguments.done" };
    item *i = open_item(c);
    if (i == NULL) return;
    qsi_jw w = about(c, done[i->kind], i);
    if (i->kind == ITEM_CALL) qsi_jw_key_str(&w, "name", &c->choices[0].calls[i->call].name);
    qsi_jw_key(&w, i->kind == ITEM_CALL ? "arguments" : "text");
    put_text(c, &w, i);
    if (i->kind == ITEM_MESSAGE) {
        qsi_jw_key(&w, "logprobs");
        qsi_jw_arr(&w);
        qsi_jw_raw(&w, c->choices[0].raw.data, c->choices[0].raw.len);
        qsi_jw_end_arr(&w);
    }
    end(c, &w);
    i->whole = whole_one;
    if (i->kind != ITEM_CALL) say_content_part(c, "response.content_part.done", i);
    say_item(c, "response.output_item.done", i, false);
}

static item *start_item(qsi_api_call *c, int kind, size_t from) {
    close_item(c, true);
    item *i = new_item(c, kind);
    if (i == NULL) return NULL;
    i->from = from;
    say_item(c, "response.output_item.added", i, true);
    if (kind != ITEM_CALL) say_content_part(c, "response.content_part.added", i);
    return i;
}

static void part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    static const char *const deltas[] = { "", "response.reasoning_text.delta",
                                          "response.output_text.delta",
                                          "response.function_call_arguments.delta" };
    int kind = e->part == QSI_PART_REASONING ? ITEM_REASONING
               : e->part == QSI_PART_TEXT    ? ITEM_MESSAGE : ITEM_CALL;
    item *i = open_item(c);
    if (i == NULL || i->kind != kind || e->part == QSI_PART_CALL) {
        size_t len = kind == ITEM_REASONING ? h->reasoning.len : h->text.len;
        i = start_item(c, kind, kind == ITEM_CALL ? 0 : len - e->n_text);
    }
    if (i == NULL || e->part == QSI_PART_CALL) return;
    i->n += e->n_text;
    qsi_jw w = about(c, deltas[kind], i);
    qsi_jw_key(&w, "delta");
    qsi_jw_str(&w, e->text, e->n_text);
    if (kind == ITEM_MESSAGE) {
        const qsi_str *lp = &h->lp.column[0];
        qsi_jw_key(&w, "logprobs");
        qsi_jw_arr(&w);
        qsi_jw_raw(&w, lp->data, lp->len);
        qsi_jw_end_arr(&w);
        qs_status st = h->raw.len > 0 && lp->len > 0 ? qsi_str_putc(&h->raw, ',') : QS_OK;
        if (st == QS_OK && lp->len > 0) st = qsi_str_append(&h->raw, lp->data, lp->len);
        if (w.st == QS_OK) w.st = st;
    }
    end(c, &w);
}

static void over(qsi_api_call *c, qsi_run *r, qsi_choice *h) {
    own *o = c->own;
    if (o->n == 0) start_item(c, ITEM_MESSAGE, 0);
    close_item(c, !is_cut(h));
}

static void shut(qsi_api_call *c) {
    say_response(c, is_cut(&c->choices[0]) ? "response.incomplete" : "response.completed", NULL);
}

static void fail(qsi_api_call *c, const qsi_refusal *no) {
    say_response(c, "response.failed", no);
}

static const qsi_voice voice = { .stream_type = "text/event-stream", .open = open, .part = part,
                                 .over = over, .close = shut, .fail = fail, .whole = whole };

/* ---- the request ---- */

static const char *keep(qsi_talk *t, const char *s, qsi_refusal *no) {
    char *copy = qsi_arena_strndup(&t->c->arena, s, strlen(s));
    if (copy == NULL) qsi_refuse_memory(no);
    return copy;
}

/* Calls that follow one another are of one answer. */
static void read_call(qsi_talk *t, const qsi_in *m) {
    const char *name = qsi_in_need(m, "name") ? qsi_in_text(m, "name") : NULL;
    const char *id = qsi_in_need(m, "call_id") ? qsi_in_text(m, "call_id") : NULL;
    const char *args = qsi_in_need(m, "arguments") ? qsi_in_text(m, "arguments") : NULL;
    qsi_json *j = NULL;
    if (name == NULL || id == NULL || args == NULL) return;
    qs_status st = qsi_json_parse(&j, args, strlen(args), QSI_JSON_SMALL, NULL);
    if (st != QS_OK || qsi_json_kind_of(j) != QSI_JSON_OBJECT)
        qsi_in_refuse(m, "arguments", "is not the text of a JSON object");
    qsi_json_free(&j);
    qsi_turn *turn = t->n_turns > 0 ? &t->turns[t->n_turns - 1] : NULL;
    if (m->no->status == 0 && (turn == NULL || turn->role != QSI_ASSISTANT))
        turn = qsi_talk_add(t, QSI_ASSISTANT, "", 0, m->no);
    if (m->no->status != 0) return;
    size_t n = turn->n_calls;
    qsi_call *calls = qsi_arena_calloc(&t->c->arena, n + 1, sizeof *calls);
    const char **ids = qsi_arena_calloc(&t->c->arena, n + 1, sizeof *ids);
    if (calls == NULL || ids == NULL) {
        qsi_refuse_memory(m->no);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        calls[i] = turn->calls[i];
        ids[i] = t->call_ids[i];
    }
    calls[n] = (qsi_call){ keep(t, name, m->no), keep(t, args, m->no), strlen(name), strlen(args) };
    ids[n] = keep(t, id, m->no);
    qsi_talk_calls(t, turn, calls, ids, n + 1, m->no);
}

static void read_output(qsi_talk *t, const qsi_in *m) {
    const char *id = qsi_in_need(m, "call_id") ? qsi_in_text(m, "call_id") : NULL;
    size_t n = 0;
    const char *text = qsi_talk_text(t, m, "output", &n);
    if (text != NULL && id != NULL) qsi_talk_result(t, id, text, n, m, "call_id");
}

static void read_message(qsi_talk *t, const qsi_in *m) {
    static const char *const roles[] = { "system", "user", "assistant", "developer", NULL };
    int role = qsi_in_need(m, "role") ? qsi_in_word(m, "role", roles) : -1;
    size_t n = 0;
    const char *text = role >= 0 ? qsi_talk_text(t, m, "content", &n) : NULL;
    if (text != NULL) qsi_talk_add(t, (qsi_role)role, text, n, m->no);
}

static void read_item(qsi_talk *t, const qsi_in *m) {
    const char *type = qsi_in_has(m, "type") ? qsi_in_text(m, "type") : "message";
    if (type == NULL) return;
    if (strcmp(type, "message") == 0) read_message(t, m);
    else if (strcmp(type, "function_call") == 0) read_call(t, m);
    else if (strcmp(type, "function_call_output") == 0) read_output(t, m);
    else if (strcmp(type, "reasoning") != 0) /* that of earlier answers is not given back to a model */
        qsi_in_refuse(m, "type", "is none of message, function_call, function_call_output, reasoning");
}

static void read_input(qsi_talk *t, const qsi_in *in) {
    size_t n;
    if (qsi_in_has(in, "instructions")) {
        const char *s = qsi_talk_text(t, in, "instructions", &n);
        if (s != NULL) qsi_talk_add(t, QSI_SYSTEM, s, n, in->no);
    }
    if (in->no->status != 0 || !qsi_in_need(in, "input")) return;
    if (qsi_json_kind_of(qsi_json_get(in->j, "input")) == QSI_JSON_STR) {
        const char *s = qsi_talk_text(t, in, "input", &n);
        if (s != NULL) qsi_talk_add(t, QSI_USER, s, n, in->no);
        return;
    }
    const qsi_json *list = qsi_in_array(in, "input");
    if (in->no->status == 0 && qsi_json_size(list) == 0) qsi_in_refuse(in, "input", "is empty");
    for (size_t i = 0; i < qsi_json_size(list) && in->no->status == 0; i++) {
        qsi_in m = qsi_in_element(in, "input", i);
        if (in->no->status == 0) read_item(t, &m);
    }
}

static void read_format(qsi_api_call *c, const qsi_in *in) {
    static const char *const types[] = { "text", "json_object", "json_schema", NULL };
    own *o = c->own;
    size_t n;
    if (qsi_in_object(in, "text") == NULL) return;
    qsi_in text = qsi_in_member(in, "text");
    if (qsi_in_object(&text, "format") == NULL) return;
    qsi_in f = qsi_in_member(&text, "format");
    int type = qsi_in_need(&f, "type") ? qsi_in_word(&f, "type", types) : -1;
    if (type == 1) qsi_ask_any_json(c, &text, "format");
    if (type == 2 && qsi_in_need(&f, "schema")) qsi_ask_schema(c, &f, "schema");
    if (in->no->status == 0) o->format = qsi_arena_json(c, f.j, &n, in->no);
}

/* What would need a store, or a service that is not here. */
static void refuse_others(const qsi_in *in) {
    static const char *const keys[] = { "previous_response_id", "conversation", "prompt" };
    bool later = false;
    for (size_t i = 0; i < QSI_COUNT(keys); i++)
        if (qsi_in_has(in, keys[i]))
            qsi_in_refuse(in, keys[i], "needs answers that are stored; this server stores none: send "
                                       "the whole conversation as input");
    qsi_in_bool(in, "background", &later);
    if (later) qsi_in_refuse(in, "background", "is not supported: answers are not stored");
}

static void read_settings(qsi_api_call *c, const qsi_in *in) {
    static const char *const ways[] = { "disabled", "auto", NULL };
    int64_t top;
    bool many = true;
    qsi_ask_model(c, in);
    qsi_ask_limit(c, in, "max_output_tokens", 1);
    qsi_ask_sampling(c, in);
    qsi_in_bool(in, "stream", &c->ask.stream);
    c->ask.truncate = qsi_in_word(in, "truncation", ways) == 1;
    qsi_in_bool(in, "parallel_tool_calls", &many);
    c->ask.one_call = !many;
    qsi_in_bool(in, "store", &many);
    qsi_in_text(in, "user");
    const qsi_json *include = qsi_in_array(in, "include");
    for (size_t i = 0; i < qsi_json_size(include); i++) {
        const char *s = qsi_json_as_str(qsi_json_at(include, i));
        if (s == NULL) qsi_in_refuse(in, "include", "holds something that is no string");
        else if (strcmp(s, "message.output_text.logprobs") == 0) c->ask.o.logprobs = true;
    }
    if (qsi_in_i64(in, "top_logprobs", 0, 20, &top)) {
        c->ask.o.top_logprobs = (int32_t)top;
        c->ask.o.logprobs = c->ask.o.logprobs || top > 0;
    }
}

static void read_reasoning(qsi_talk *t, const qsi_in *in) {
    static const char *const efforts[] = { "none", "minimal", "low", "medium", "high", "xhigh", NULL };
    own *o = t->c->own;
    const qsi_backend *b = t->c->b;
    size_t n;
    qsi_talk_thinking(t, in);
    if (qsi_in_object(in, "reasoning") == NULL) return;
    qsi_in r = qsi_in_member(in, "reasoning");
    int effort = qsi_in_word(&r, "effort", efforts);
    if (effort < 0) return;
    if (effort > 0 && !b->can_think)
        qsi_in_refuse(&r, "effort", "asks for reasoning, which this model does not do");
    else if (effort == 0 && b->can_think && !b->can_choose)
        qsi_in_refuse(&r, "effort", "asks for no reasoning; this model always reasons");
    t->think = effort > 0 ? QSI_THINK_ON : b->can_think ? QSI_THINK_OFF : QSI_THINK_AUTO;
    t->think_asked = effort > 0;
    if (in->no->status == 0) o->effort = qsi_arena_json(t->c, qsi_json_get(r.j, "effort"), &n, in->no);
}

/* JSON of what the answer repeats. */
static const char *repeat(qsi_api_call *c, const qsi_in *in, const char *key) {
    size_t n;
    if (in->no->status != 0 || !qsi_in_has(in, key)) return NULL;
    return qsi_arena_json(c, qsi_json_get(in->j, key), &n, in->no);
}

void qsi_responses(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    own *o = qsi_arena_calloc(&c->arena, 1, sizeof *o);
    if (o == NULL) qsi_refuse_memory(no);
    if (no->status != 0) return;
    c->voice = &voice;
    c->own = o;
    qsi_draw_name(c->name, "resp_");
    qsi_ask_init(c);
    read_settings(c, &in);
    refuse_others(&in);
    qsi_in_object(&in, "metadata");
    if (no->status == 0) read_format(c, &in);
    if (no->status == 0) read_input(&t, &in);
    if (no->status == 0 && c->b->chat == NULL)
        qsi_refuse(no, 400, "no_chat_template", NULL, "this model has no chat template");
    if (no->status == 0) read_reasoning(&t, &in);
    if (no->status == 0) qsi_talk_tools(&t, &in, QSI_TOOLS_RESPONSES);
    if (no->status == 0) qsi_talk_choice(&t, &in, QSI_TOOLS_RESPONSES);
    if (no->status == 0) qsi_talk_check(&t, &in);
    o->instructions = repeat(c, &in, "instructions");
    o->tools = repeat(c, &in, "tools");
    o->choice = repeat(c, &in, "tool_choice");
    o->metadata = repeat(c, &in, "metadata");
    qsi_prompt_talk(c, &t, "input", no);
}
