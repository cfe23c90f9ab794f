/* Anthropic's POST /v1/messages and /v1/messages/count_tokens. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

enum { NONE, THINKING, TEXT, TOOL }; /* qsi_choice.block: the kind of block that is open */

/* ---- the answer ---- */

static const char *stop_reason(const qsi_choice *h) {
    if (h->finish == QSI_JOB_LENGTH || h->finish == QSI_JOB_CONTEXT) return "max_tokens";
    if (h->n_calls > 0) return "tool_use";
    return h->finish == QSI_JOB_STOP ? "stop_sequence" : "end_turn";
}

static void put_stop(qsi_jw *w, const qsi_choice *h) {
    const char *reason = h != NULL ? stop_reason(h) : NULL;
    qsi_jw_key(w, "stop_reason");
    if (reason != NULL) qsi_jw_z(w, reason);
    else qsi_jw_null(w);
    qsi_jw_key(w, "stop_sequence");
    if (reason != NULL && h->finish == QSI_JOB_STOP && h->stop != NULL) qsi_jw_z(w, h->stop);
    else qsi_jw_null(w);
}

static void put_usage(qsi_jw *w, const qsi_usage *u) {
    qsi_jw_key(w, "usage");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "input_tokens", u->n_prompt - u->n_cached);
    qsi_jw_key_i64(w, "cache_creation_input_tokens", 0);
    qsi_jw_key_i64(w, "cache_read_input_tokens", u->n_cached);
    qsi_jw_key_i64(w, "output_tokens", u->n_generated);
    qsi_jw_end_obj(w);
}

/* Arguments that are no object (an answer that was cut) come as Anthropic's clients know them. */
static void put_input(qsi_jw *w, const qsi_str *args) {
    qsi_json *j = NULL;
    const char *text = args->data != NULL ? args->data : "";
    qs_status st = qsi_json_parse(&j, text, args->len, QSI_JSON_SMALL, NULL);
    qsi_jw_key(w, "input");
    if (st == QS_OK && qsi_json_kind_of(j) == QSI_JSON_OBJECT) {
        qsi_jw_raw(w, args->data, args->len);
    } else {
        qsi_jw_obj(w);
        if (args->len > 0) qsi_jw_key_str(w, "INVALID_JSON", args);
        qsi_jw_end_obj(w);
    }
    qsi_json_free(&j);
}

static void put_content(qsi_jw *w, const qsi_choice *h) {
    qsi_jw_key(w, "content");
    qsi_jw_arr(w);
    if (h->reasoning.len > 0) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "type", "thinking");
        qsi_jw_key_str(w, "thinking", &h->reasoning);
        qsi_jw_key_z(w, "signature", "");
        qsi_jw_end_obj(w);
    }
    if (h->text.len > 0) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "type", "text");
        qsi_jw_key_str(w, "text", &h->text);
        qsi_jw_end_obj(w);
    }
    for (size_t i = 0; i < h->n_calls; i++) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "type", "tool_use");
        qsi_jw_key_z(w, "id", h->calls[i].id);
        qsi_jw_key_str(w, "name", &h->calls[i].name);
        put_input(w, &h->calls[i].args);
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_arr(w);
}

/* h NULL: nothing of it is there yet. */
static void put_message(qsi_api_call *c, qsi_jw *w, const qsi_choice *h, const qsi_usage *u) {
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "id", c->name);
    qsi_jw_key_z(w, "type", "message");
    qsi_jw_key_z(w, "role", "assistant");
    qsi_jw_key_z(w, "model", c->b->id);
    if (h != NULL) {
        put_content(w, h);
    } else {
        qsi_jw_key(w, "content");
        qsi_jw_arr(w);
        qsi_jw_end_arr(w);
    }
    put_stop(w, h);
    put_usage(w, u);
    qsi_put_truncation(w, &c->ask);
    qsi_jw_end_obj(w);
}

static void whole(qsi_api_call *c, qsi_jw *w) {
    qsi_usage u = qsi_runs_usage(c);
    put_message(c, w, &c->choices[0], &u);
}

/* ---- streams ---- */

/* An event that is open: its type is written. */
static qsi_jw begin(qsi_api_call *c, const char *type) {
    qsi_jw w = qsi_sse_begin(c, type);
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "type", type);
    return w;
}

static void end(qsi_api_call *c, qsi_jw *w) {
    qsi_jw_end_obj(w);
    qsi_sse_end(c, w);
}

static void open(qsi_api_call *c) {
    qsi_usage u = { .n_prompt = (int64_t)c->runs[0].n_ids };
    qsi_jw w = begin(c, "message_start");
    qsi_jw_key(&w, "message");
    put_message(c, &w, NULL, &u);
    end(c, &w);
    w = begin(c, "ping");
    end(c, &w);
}

static void close_block(qsi_api_call *c, qsi_choice *h) {
    if (h->block == NONE) return;
    qsi_jw w = begin(c, "content_block_stop");
    qsi_jw_key_i64(&w, "index", h->n_blocks - 1);
    end(c, &w);
    h->block = NONE;
}

static void open_block(qsi_api_call *c, qsi_choice *h, int kind) {
    close_block(c, h);
    qsi_jw w = begin(c, "content_block_start");
    qsi_jw_key_i64(&w, "index", h->n_blocks);
    qsi_jw_key(&w, "content_block");
    qsi_jw_obj(&w);
    if (kind == THINKING) {
        qsi_jw_key_z(&w, "type", "thinking");
        qsi_jw_key_z(&w, "thinking", "");
        qsi_jw_key_z(&w, "signature", "");
    } else if (kind == TEXT) {
        qsi_jw_key_z(&w, "type", "text");
        qsi_jw_key_z(&w, "text", "");
    } else {
        qsi_jw_key_z(&w, "type", "tool_use");
        qsi_jw_key_z(&w, "id", h->calls[h->n_calls - 1].id);
        qsi_jw_key_str(&w, "name", &h->calls[h->n_calls - 1].name);
        qsi_jw_key(&w, "input");
        qsi_jw_obj(&w);
        qsi_jw_end_obj(&w);
    }
    qsi_jw_end_obj(&w);
    end(c, &w);
    h->block = kind;
    h->n_blocks++;
}

static void part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    static const char *const types[] = { NULL, "thinking_delta", "text_delta", "input_json_delta" };
    static const char *const keys[] = { NULL, "thinking", "text", "partial_json" };
    int kind = e->part == QSI_PART_REASONING ? THINKING : e->part == QSI_PART_TEXT ? TEXT : TOOL;
    if (h->block != kind || e->part == QSI_PART_CALL) open_block(c, h, kind);
    if (e->part == QSI_PART_CALL) return;
    qsi_jw w = begin(c, "content_block_delta");
    qsi_jw_key_i64(&w, "index", h->n_blocks - 1);
    qsi_jw_key(&w, "delta");
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "type", types[kind]);
    qsi_jw_key(&w, keys[kind]);
    qsi_jw_str(&w, e->text, e->n_text);
    qsi_jw_end_obj(&w);
    end(c, &w);
}

static void over(qsi_api_call *c, qsi_run *r, qsi_choice *h) { close_block(c, h); }

static void shut(qsi_api_call *c) {
    qsi_usage u = qsi_runs_usage(c);
    qsi_jw w = begin(c, "message_delta");
    qsi_jw_key(&w, "delta");
    qsi_jw_obj(&w);
    put_stop(&w, &c->choices[0]);
    qsi_jw_end_obj(&w);
    put_usage(&w, &u);
    end(c, &w);
    w = begin(c, "message_stop");
    end(c, &w);
}

static void fail(qsi_api_call *c, const qsi_refusal *no) {
    qsi_jw w = qsi_sse_begin(c, "error");
    if (w.st == QS_OK) w.st = qsi_refusal_write(w.s, no, QSI_API_ANTHROPIC);
    qsi_sse_end(c, &w);
}

static const qsi_voice voice = { .stream_type = "text/event-stream", .open = open, .part = part,
                                 .over = over, .close = shut, .fail = fail, .whole = whole };

/* ---- the conversation ---- */

static const char *keep(qsi_talk *t, const char *s, qsi_refusal *no) {
    char *copy = s != NULL ? qsi_arena_strndup(&t->c->arena, s, strlen(s)) : NULL;
    if (s != NULL && copy == NULL) qsi_refuse_memory(no);
    return copy;
}

/* What the blocks of one message are, in order. */
typedef struct blocks {
    qsi_str text, reasoning;
    qsi_call *calls;
    const char **ids;
    size_t n_calls;
} blocks;

static void add_line(qsi_str *s, const char *z, qsi_refusal *no) {
    qs_status st = s->len > 0 ? qsi_str_putc(s, '\n') : QS_OK;
    if (st == QS_OK) st = qsi_str_puts(s, z != NULL ? z : "");
    if (st != QS_OK) qsi_refuse_memory(no);
}

static void read_use(qsi_talk *t, const qsi_in *b, blocks *k) {
    const char *name = qsi_in_need(b, "name") ? qsi_in_text(b, "name") : NULL;
    const char *id = qsi_in_need(b, "id") ? qsi_in_text(b, "id") : NULL;
    const qsi_json *input = qsi_in_object(b, "input");
    size_t n = 2;
    if (name == NULL || id == NULL || b->no->status != 0) return;
    const char *args = input != NULL ? qsi_arena_json(t->c, input, &n, b->no) : "{}";
    qsi_call *call = &k->calls[k->n_calls];
    *call = (qsi_call){ keep(t, name, b->no), args, strlen(name), n };
    k->ids[k->n_calls++] = keep(t, id, b->no);
}

static void read_result(qsi_talk *t, const qsi_in *b) {
    const char *id = qsi_in_need(b, "tool_use_id") ? qsi_in_text(b, "tool_use_id") : NULL;
    size_t n = 0;
    bool error;
    const char *text = qsi_in_has(b, "content") ? qsi_talk_text(t, b, "content", &n) : "";
    qsi_in_bool(b, "is_error", &error);
    if (b->no->status == 0) qsi_talk_result(t, id, text, n, b, "tool_use_id");
}

static void read_block(qsi_talk *t, const qsi_in *b, bool assistant, blocks *k) {
    const char *type = qsi_in_need(b, "type") ? qsi_in_text(b, "type") : NULL;
    if (type == NULL) return;
    if (strcmp(type, "text") == 0) {
        if (qsi_in_need(b, "text")) add_line(&k->text, qsi_in_text(b, "text"), b->no);
    } else if (strcmp(type, "tool_use") == 0 && assistant) {
        read_use(t, b, k);
    } else if (strcmp(type, "tool_result") == 0 && !assistant) {
        read_result(t, b);
    } else if (strcmp(type, "thinking") == 0 && assistant) {
        if (qsi_in_need(b, "thinking")) add_line(&k->reasoning, qsi_in_text(b, "thinking"), b->no);
    } else if (strcmp(type, "redacted_thinking") != 0 || !assistant) {
        qsi_in_refuse(b, "type", "is no block that this model reads here (text; of the assistant "
                                 "tool_use and thinking; of the user tool_result)");
    }
}

/* Results come first in a user's message, so that its text follows them. */
static void add_turn(qsi_talk *t, const qsi_in *m, bool assistant, blocks *k) {
    size_t n = k->text.len;
    const char *text = qsi_arena_strndup(&t->c->arena, n > 0 ? k->text.data : "", n);
    if (text == NULL) qsi_refuse_memory(m->no);
    if (m->no->status != 0) return;
    bool results = t->n_turns > 0 && t->turns[t->n_turns - 1].role == QSI_TOOL;
    if (!assistant && n == 0 && results) return;
    qsi_turn *turn = qsi_talk_add(t, assistant ? QSI_ASSISTANT : QSI_USER, text, n, m->no);
    if (turn == NULL || !assistant) return;
    turn->n_reasoning = k->reasoning.len;
    if (k->reasoning.len > 0)
        turn->reasoning = qsi_arena_strndup(&t->c->arena, k->reasoning.data, k->reasoning.len);
    if (k->n_calls > 0) qsi_talk_calls(t, turn, k->calls, k->ids, k->n_calls, m->no);
}

static void read_message(qsi_talk *t, const qsi_in *m) {
    static const char *const roles[] = { "user", "assistant", NULL };
    int role = qsi_in_need(m, "role") ? qsi_in_word(m, "role", roles) : -1;
    const qsi_json *content = qsi_json_get(m->j, "content");
    blocks k = { 0 };
    if (role < 0 || !qsi_in_need(m, "content")) return;
    if (qsi_json_kind_of(content) == QSI_JSON_STR) {
        add_line(&k.text, qsi_json_as_str(content), m->no);
    } else if (qsi_in_array(m, "content") != NULL) {
        size_t n = qsi_json_size(content);
        k.calls = qsi_arena_calloc(&t->c->arena, n + 1, sizeof *k.calls);
        k.ids = qsi_arena_calloc(&t->c->arena, n + 1, sizeof *k.ids);
        if (k.calls == NULL || k.ids == NULL) qsi_refuse_memory(m->no);
        for (size_t i = 0; i < n && m->no->status == 0; i++) {
            qsi_in b = qsi_in_element(m, "content", i);
            if (m->no->status == 0) read_block(t, &b, role == 1, &k);
        }
    }
    if (m->no->status == 0) add_turn(t, m, role == 1, &k);
    qsi_str_release(&k.text);
    qsi_str_release(&k.reasoning);
}

static void read_messages(qsi_talk *t, const qsi_in *in) {
    size_t n_text;
    if (qsi_in_has(in, "system")) {
        const char *system = qsi_talk_text(t, in, "system", &n_text);
        if (system != NULL) qsi_talk_add(t, QSI_SYSTEM, system, n_text, in->no);
    }
    const qsi_json *list = qsi_in_need(in, "messages") ? qsi_in_array(in, "messages") : NULL;
    size_t n = qsi_json_size(list);
    if (in->no->status == 0 && n == 0) qsi_in_refuse(in, "messages", "is empty");
    for (size_t i = 0; i < n && in->no->status == 0; i++) {
        qsi_in m = qsi_in_element(in, "messages", i);
        if (in->no->status == 0) read_message(t, &m);
    }
}

static void read_thinking(qsi_talk *t, const qsi_in *in) {
    static const char *const types[] = { "disabled", "enabled", "adaptive", NULL };
    const qsi_backend *b = t->c->b;
    int64_t budget;
    if (qsi_in_object(in, "thinking") == NULL) return;
    qsi_in o = qsi_in_member(in, "thinking");
    int type = qsi_in_need(&o, "type") ? qsi_in_word(&o, "type", types) : -1;
    qsi_in_i64(&o, "budget_tokens", 1, INT64_MAX, &budget);
    if (type == 1 && !b->can_think)
        qsi_in_refuse(&o, "type", "asks for reasoning, which this model does not do");
    else if (type == 0 && b->can_think && !b->can_choose)
        qsi_in_refuse(&o, "type", "asks for no reasoning; this model always reasons");
    t->think = type == 1 ? QSI_THINK_ON : type == 0 && b->can_think ? QSI_THINK_OFF : QSI_THINK_AUTO;
    t->think_asked = type == 1;
}

static void read_choice(qsi_talk *t, const qsi_in *in) {
    static const char *const types[] = { "auto", "none", "any", "tool", NULL };
    bool single = false;
    if (qsi_in_object(in, "tool_choice") == NULL) return;
    qsi_in o = qsi_in_member(in, "tool_choice");
    int type = qsi_in_need(&o, "type") ? qsi_in_word(&o, "type", types) : -1;
    qsi_in_bool(&o, "disable_parallel_tool_use", &single);
    t->c->ask.one_call = single;
    if (type == 1) t->n_tools = 0;
    if (type == 2) qsi_talk_force(t, NULL, in, "tool_choice");
    if (type != 3) return;
    const char *name = qsi_in_need(&o, "name") ? qsi_in_text(&o, "name") : NULL;
    if (name != NULL) qsi_talk_force(t, name, in, "tool_choice");
}

/* The last message is the assistant's: it is the beginning of the answer. */
static void prefill(qsi_talk *t, const qsi_in *in) {
    const qsi_turn *last = t->n_turns > 0 ? &t->turns[t->n_turns - 1] : NULL;
    qsi_begin begin;
    if (last == NULL || last->role != QSI_ASSISTANT) return;
    bool plain = qsi_chat_begin(t->c->b->chat, t->think, &begin, NULL) == QS_OK &&
                 begin == QSI_BEGIN_ANSWER;
    if (!plain || last->n_calls > 0 || t->c->ask.forced)
        qsi_in_refuse(in, "messages", "ends with the assistant's turn, which cannot be gone on with "
                                      "where the model reasons or calls");
    else t->prefilled = true;
}

static void read_talk(qsi_talk *t, const qsi_in *in) {
    qsi_refusal *no = in->no;
    if (no->status == 0) read_messages(t, in);
    if (no->status == 0 && t->c->b->chat == NULL)
        qsi_refuse(no, 400, NULL, NULL, "this model has no chat template");
    if (no->status == 0) read_thinking(t, in);
    if (no->status == 0) qsi_talk_tools(t, in, QSI_TOOLS_ANTHROPIC);
    if (no->status == 0) read_choice(t, in);
    if (no->status == 0) qsi_talk_check(t, in);
    if (no->status == 0) prefill(t, in);
}

void qsi_messages(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    static const char *const ways[] = { "disabled", "auto", NULL };
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    if (no->status != 0) return;
    c->voice = &voice;
    qsi_draw_name(c->name, "msg_");
    qsi_ask_init(c);
    qsi_ask_model(c, &in);
    if (qsi_in_need(&in, "max_tokens")) qsi_ask_limit(c, &in, "max_tokens", 1);
    qsi_ask_sampling(c, &in);
    qsi_in_bool(&in, "stream", &c->ask.stream);
    qsi_in_array(&in, "stop_sequences");
    qsi_ask_stops(c, &in, "stop_sequences", 16);
    qsi_in_object(&in, "metadata");
    c->ask.truncate = qsi_in_word(&in, "truncation", ways) == 1;
    if (c->ask.o.n_stops > 1) c->ask.keep_raw = c->ask.o.logprobs = true;
    read_talk(&t, &in);
    qsi_prompt_talk(c, &t, "messages", no);
}

void qsi_count_tokens(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    if (no->status != 0) return;
    qsi_ask_init(c);
    qsi_ask_model(c, &in);
    read_talk(&t, &in);
    if (no->status == 0) {
        qs_status st = qsi_prompt_render(&t, 0, &ids, &err);
        if (st != QS_OK) qsi_refuse_err(no, "messages", st, &err);
    }
    if (no->status == 0) {
        qsi_jw w = { .s = &c->reply.body };
        qsi_jw_obj(&w);
        qsi_jw_key_i64(&w, "input_tokens", (int64_t)ids.len);
        qsi_jw_end_obj(&w);
        qsi_call_body(c, &w, no);
    }
    qsi_ids_release(&ids);
}
