/* POST /v1/chat/completions. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

/* ---- the answer ---- */

static const char *finish_reason(const qsi_choice *h) {
    if (h->finish == QSI_JOB_LENGTH || h->finish == QSI_JOB_CONTEXT) return "length";
    return h->n_calls > 0 ? "tool_calls" : "stop";
}

static void put_logprobs(qsi_api_call *c, qsi_jw *w, const qsi_lp *lp) {
    qsi_jw_key(w, "logprobs");
    if (!c->ask.o.logprobs) {
        qsi_jw_null(w);
        return;
    }
    qsi_jw_obj(w);
    qsi_jw_key(w, "content");
    qsi_jw_arr(w);
    qsi_jw_raw(w, lp->column[0].data, lp->column[0].len);
    qsi_jw_end_arr(w);
    qsi_jw_key_null(w, "refusal");
    qsi_jw_end_obj(w);
}

static void put_calls(qsi_jw *w, const qsi_choice *h) {
    qsi_jw_key(w, "tool_calls");
    qsi_jw_arr(w);
    for (size_t i = 0; i < h->n_calls; i++) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "id", h->calls[i].id);
        qsi_jw_key_z(w, "type", "function");
        qsi_jw_key(w, "function");
        qsi_jw_obj(w);
        qsi_jw_key_str(w, "name", &h->calls[i].name);
        qsi_jw_key_str(w, "arguments", &h->calls[i].args);
        qsi_jw_end_obj(w);
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_arr(w);
}

static void put_choice(qsi_api_call *c, qsi_jw *w, size_t i) {
    const qsi_choice *h = &c->choices[i];
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "index", (int64_t)i);
    qsi_jw_key(w, "message");
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "role", "assistant");
    if (h->text.len == 0 && h->n_calls > 0) qsi_jw_key_null(w, "content");
    else qsi_jw_key_str(w, "content", &h->text);
    qsi_jw_key_null(w, "refusal");
    if (h->reasoning.len > 0) qsi_jw_key_str(w, "reasoning_content", &h->reasoning);
    if (h->n_calls > 0) put_calls(w, h);
    qsi_jw_end_obj(w);
    put_logprobs(c, w, &h->lp);
    qsi_openai_finish(w, finish_reason(h));
}

static void whole(qsi_api_call *c, qsi_jw *w) {
    qsi_openai_head(c, w, "chat.completion");
    qsi_jw_key(w, "choices");
    qsi_jw_arr(w);
    for (size_t i = 0; i < c->n_choices; i++) put_choice(c, w, i);
    qsi_jw_end_arr(w);
    qsi_openai_whole_tail(c, w);
}

/* ---- streams ---- */

/* An event up to its choice's delta, which is open. */
static qsi_jw begin_delta(qsi_api_call *c, const qsi_choice *h) {
    qsi_jw w = qsi_sse_begin(c, NULL);
    qsi_openai_head(c, &w, "chat.completion.chunk");
    qsi_jw_key(&w, "choices");
    qsi_jw_arr(&w);
    qsi_jw_obj(&w);
    qsi_jw_key_i64(&w, "index", h - c->choices);
    qsi_jw_key(&w, "delta");
    qsi_jw_obj(&w);
    return w;
}

static void end_choice(qsi_api_call *c, qsi_jw *w, const qsi_lp *lp, const char *reason) {
    static const qsi_lp none = { 0 };
    qsi_jw_end_obj(w);
    put_logprobs(c, w, lp != NULL ? lp : &none);
    qsi_openai_finish(w, reason);
    qsi_jw_end_arr(w);
    if (c->ask.usage) qsi_jw_key_null(w, "usage");
}

static void end_delta(qsi_api_call *c, qsi_jw *w, const qsi_lp *lp) {
    end_choice(c, w, lp, NULL);
    qsi_jw_end_obj(w);
    qsi_sse_end(c, w);
}

static void say_role(qsi_api_call *c, const qsi_choice *h) {
    if (h->begun) return;
    qsi_jw w = begin_delta(c, h);
    qsi_jw_key_z(&w, "role", "assistant");
    qsi_jw_key_z(&w, "content", "");
    end_delta(c, &w, NULL);
}

static void put_call_piece(qsi_jw *w, const qsi_choice *h, const qsi_event *e) {
    const qsi_out_call *call = &h->calls[h->n_calls - 1];
    bool first = e->part == QSI_PART_CALL;
    qsi_jw_key(w, "tool_calls");
    qsi_jw_arr(w);
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "index", (int64_t)h->n_calls - 1);
    if (first) {
        qsi_jw_key_z(w, "id", call->id);
        qsi_jw_key_z(w, "type", "function");
    }
    qsi_jw_key(w, "function");
    qsi_jw_obj(w);
    if (first) qsi_jw_key_str(w, "name", &call->name);
    qsi_jw_key(w, "arguments");
    qsi_jw_str(w, first ? "" : e->text, first ? 0 : e->n_text);
    qsi_jw_end_obj(w);
    qsi_jw_end_obj(w);
    qsi_jw_end_arr(w);
}

static void part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    say_role(c, h);
    qsi_jw w = begin_delta(c, h);
    if (e->part == QSI_PART_CALL || e->part == QSI_PART_ARGS) {
        put_call_piece(&w, h, e);
    } else {
        qsi_jw_key(&w, e->part == QSI_PART_REASONING ? "reasoning_content" : "content");
        qsi_jw_str(&w, e->text, e->n_text);
    }
    end_delta(c, &w, &h->lp);
}

static void over(qsi_api_call *c, qsi_run *r, qsi_choice *h) {
    say_role(c, h);
    qsi_jw w = begin_delta(c, h);
    end_choice(c, &w, &h->lp, finish_reason(h));
    qsi_openai_tail(c, &w, &r->usage);
    qsi_sse_end(c, &w);
}

static void shut(qsi_api_call *c) { qsi_openai_shut(c, "chat.completion.chunk"); }

static const qsi_voice voice = { .stream_type = "text/event-stream", .part = part, .over = over,
                                 .close = shut, .fail = qsi_openai_fail, .whole = whole };

/* ---- the request ---- */

static void read_logprobs(qsi_api_call *c, const qsi_in *in) {
    int64_t top = 0;
    qsi_in_bool(in, "logprobs", &c->ask.o.logprobs);
    if (!qsi_in_i64(in, "top_logprobs", 0, 20, &top)) return;
    if (!c->ask.o.logprobs && top > 0)
        qsi_in_refuse(in, "top_logprobs", "needs \"logprobs\": true");
    c->ask.o.top_logprobs = (int32_t)top;
}

static void read_parallel(qsi_api_call *c, const qsi_in *in) {
    bool many = true;
    qsi_in_bool(in, "parallel_tool_calls", &many);
    c->ask.one_call = !many;
}

void qsi_chat_completions(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    if (no->status != 0) return;
    c->voice = &voice;
    qsi_draw_name(c->name, "chatcmpl-");
    qsi_ask_init(c);
    qsi_ask_limit(c, &in, "n_predict", -1);
    qsi_ask_limit(c, &in, "max_tokens", 1);
    qsi_ask_limit(c, &in, "max_completion_tokens", 1);
    qsi_ask_common(c, &in);
    read_logprobs(c, &in);
    read_parallel(c, &in);
    if (no->status == 0) qsi_talk_messages(&t, &in, "messages");
    if (no->status == 0 && c->b->chat == NULL)
        qsi_refuse(no, 400, "no_chat_template", NULL, "this model has no chat template: %s",
                   c->b->chat_why != NULL ? c->b->chat_why : "use /v1/completions");
    if (no->status == 0) qsi_talk_thinking(&t, &in);
    if (no->status == 0) qsi_talk_tools(&t, &in, QSI_TOOLS_CHAT);
    if (no->status == 0) qsi_talk_choice(&t, &in, QSI_TOOLS_CHAT);
    if (no->status == 0) qsi_talk_check(&t, &in);
    qsi_prompt_talk(c, &t, "messages", no);
}
