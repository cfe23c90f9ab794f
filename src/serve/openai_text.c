/* POST /v1/completions: a text or ids are continued. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

/* ---- the answer ---- */

static const char *finish_reason(const qsi_choice *h) {
    return h->finish == QSI_JOB_LENGTH || h->finish == QSI_JOB_CONTEXT ? "length" : "stop";
}

static const qsi_run *run_of(const qsi_api_call *c, size_t choice) {
    return &c->runs[choice / (size_t)c->ask.o.n];
}

static void put_column(qsi_jw *w, const char *key, const qsi_str *a, const qsi_str *b) {
    qsi_jw_key(w, key);
    qsi_jw_arr(w);
    if (a != NULL) qsi_jw_raw(w, a->data, a->len);
    if (b != NULL) qsi_jw_raw(w, b->data, b->len);
    qsi_jw_end_arr(w);
}

/* Entries of the prompt (NULL: not now), then of the answer. */
static void put_logprobs(qsi_api_call *c, qsi_jw *w, const qsi_lp *echo, const qsi_lp *lp) {
    static const char *const keys[] = { "tokens", "token_logprobs", "top_logprobs", "text_offset" };
    qsi_jw_key(w, "logprobs");
    if (!c->ask.o.logprobs) {
        qsi_jw_null(w);
        return;
    }
    qsi_jw_obj(w);
    for (size_t i = 0; i < QSI_COUNT(keys); i++)
        put_column(w, keys[i], echo != NULL ? &echo->column[i] : NULL, &lp->column[i]);
    qsi_jw_end_obj(w);
}

static void put_text(qsi_api_call *c, qsi_jw *w, const qsi_run *r, const char *p, size_t n) {
    qsi_str s = { 0 };
    qs_status st = QS_OK;
    if (r != NULL && c->ask.echo) st = qsi_str_append(&s, r->echo_text, r->n_echo_text);
    if (st == QS_OK) st = qsi_str_append(&s, p != NULL ? p : "", n);
    if (w->st == QS_OK) w->st = st;
    qsi_jw_key_str(w, "text", &s);
    qsi_str_release(&s);
}

static void whole(qsi_api_call *c, qsi_jw *w) {
    qsi_openai_head(c, w, "text_completion");
    qsi_jw_key(w, "choices");
    qsi_jw_arr(w);
    for (size_t i = 0; i < c->n_choices; i++) {
        const qsi_choice *h = &c->choices[i];
        const qsi_run *r = run_of(c, i);
        qsi_jw_obj(w);
        qsi_jw_key_i64(w, "index", (int64_t)i);
        put_text(c, w, r, h->text.data, h->text.len);
        put_logprobs(c, w, &r->echo, &h->lp);
        qsi_openai_finish(w, finish_reason(h));
    }
    qsi_jw_end_arr(w);
    qsi_openai_whole_tail(c, w);
}

/* ---- streams ---- */

/* A piece; with what is echoed in front of the first one. Leaves the object open. */
static qsi_jw put_piece(qsi_api_call *c, const qsi_run *r, const qsi_choice *h, const char *p, size_t n,
                        const char *reason) {
    bool echo = !h->begun && c->ask.echo;
    qsi_jw w = qsi_sse_begin(c, NULL);
    qsi_openai_head(c, &w, "text_completion");
    qsi_jw_key(&w, "choices");
    qsi_jw_arr(&w);
    qsi_jw_obj(&w);
    qsi_jw_key_i64(&w, "index", h - c->choices);
    put_text(c, &w, echo ? r : NULL, p, n);
    put_logprobs(c, &w, echo ? &r->echo : NULL, &h->lp);
    qsi_openai_finish(&w, reason);
    qsi_jw_end_arr(&w);
    if (c->ask.usage) qsi_jw_key_null(&w, "usage");
    return w;
}

static void part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    qsi_jw w = put_piece(c, r, h, e->text, e->n_text, NULL);
    qsi_jw_end_obj(&w);
    qsi_sse_end(c, &w);
}

static void over(qsi_api_call *c, qsi_run *r, qsi_choice *h) {
    qsi_jw w = put_piece(c, r, h, "", 0, finish_reason(h));
    qsi_openai_tail(c, &w, &r->usage);
    qsi_sse_end(c, &w);
}

static void shut(qsi_api_call *c) { qsi_openai_shut(c, "text_completion"); }

static const qsi_voice voice = { .stream_type = "text/event-stream", .legacy = true, .part = part,
                                 .over = over, .close = shut, .fail = qsi_openai_fail, .whole = whole };

/* ---- the request ---- */

static void keep_echo(qsi_api_call *c, qsi_run *r, const char *p, size_t n, qsi_refusal *no) {
    r->echo_text = qsi_arena_strndup(&c->arena, p, n);
    r->n_echo_text = n;
    if (r->echo_text == NULL) qsi_refuse_memory(no);
}

static void text_prompt(qsi_api_call *c, const qsi_in *in, size_t i, const char *text,
                        const char *suffix) {
    const qsi_vocab *v = c->b->vocab;
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    bool special = true, markers = false;
    qs_status st;
    qsi_in_bool(in, "add_special_tokens", &special);
    qsi_in_bool(in, "parse_special", &markers);
    unsigned flags = (special && qsi_vocab_add_bos(v) ? QSI_ENC_BOS : 0) |
                     (markers ? QSI_ENC_SPECIAL : QSI_ENC_PERSON);
    if (suffix != NULL) st = qsi_encode_fim(v, text, strlen(text), suffix, strlen(suffix), &ids, &err);
    else st = qsi_encode(v, text, strlen(text), flags, &ids, &err);
    if (st != QS_OK) qsi_refuse_err(in->no, suffix != NULL ? "suffix" : "prompt", st, &err);
    else qsi_prompt_ids(c, i, ids.data, ids.len, "prompt", in->no);
    if (in->no->status == 0 && c->ask.echo) keep_echo(c, &c->runs[i], text, strlen(text), in->no);
    qsi_ids_release(&ids);
}

static void ids_prompt(qsi_api_call *c, const qsi_in *in, size_t i, const qsi_json *list) {
    qsi_ids ids = { 0 };
    qsi_str text = { 0 };
    if (qsi_prompt_read_ids(in, "prompt", list, c->b->n_vocab, &ids))
        qsi_prompt_ids(c, i, ids.data, ids.len, "prompt", in->no);
    if (in->no->status == 0 && c->ask.echo) {
        qs_status st = qsi_decode_known(c->b->vocab, ids.data, ids.len, c->ask.o.special, &text);
        if (st != QS_OK) qsi_refuse_memory(in->no);
        else keep_echo(c, &c->runs[i], text.data != NULL ? text.data : "", text.len, in->no);
    }
    qsi_ids_release(&ids);
    qsi_str_release(&text);
}

/* A text, ids, or a list of either. */
static void read_prompts(qsi_api_call *c, const qsi_in *in) {
    const qsi_json *j = qsi_json_get(in->j, "prompt"), *first = qsi_json_at(j, 0);
    const char *suffix = qsi_in_text(in, "suffix");
    qsi_json_kind kind = qsi_json_kind_of(j);
    if (!qsi_in_need(in, "prompt")) return;
    if (kind != QSI_JSON_STR && kind != QSI_JSON_ARRAY) {
        qsi_in_refuse(in, "prompt", "is neither a string nor an array of ids, strings or arrays of ids");
        return;
    }
    bool one = kind == QSI_JSON_STR || qsi_json_kind_of(first) == QSI_JSON_INT;
    size_t n = one ? 1 : qsi_json_size(j);
    if (n == 0 || n > 2048) {
        qsi_in_refuse(in, "prompt", n == 0 ? "is empty" : "has more than 2048 prompts");
        return;
    }
    if (!qsi_runs_create(c, n, in->no)) return;
    for (size_t i = 0; i < n && in->no->status == 0; i++) {
        const qsi_json *p = one ? j : qsi_json_at(j, i);
        if (qsi_json_kind_of(p) == QSI_JSON_STR) {
            text_prompt(c, in, i, qsi_json_as_str(p), suffix);
        } else if (qsi_json_kind_of(p) != QSI_JSON_ARRAY) {
            qsi_in_refuse(in, "prompt", "holds something that is neither text nor ids (place %zu)", i);
        } else if (suffix != NULL) {
            qsi_in_refuse(in, "suffix", "goes with a text, not with ids");
        } else {
            ids_prompt(c, in, i, p);
        }
    }
}

static void read_logprobs(qsi_api_call *c, const qsi_in *in) {
    int64_t top;
    qsi_job_opts *o = &c->ask.o;
    qsi_in_bool(in, "echo", &c->ask.echo);
    if (!qsi_in_i64(in, "logprobs", 0, 50, &top)) return;
    o->logprobs = true;
    o->top_logprobs = (int32_t)top;
    o->echo = c->ask.echo;
}

void qsi_text_completions(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    if (no->status != 0) return;
    c->voice = &voice;
    qsi_draw_name(c->name, "cmpl-");
    qsi_ask_init(c);
    qsi_ask_limit(c, &in, "n_predict", -1);
    qsi_ask_limit(c, &in, "max_tokens", 0);
    qsi_ask_common(c, &in);
    read_logprobs(c, &in);
    if (c->ask.max_tokens == 0 && !c->ask.echo)
        qsi_in_refuse(&in, "max_tokens", "is 0, which makes sense with \"echo\": true only");
    if (no->status == 0) read_prompts(c, &in);
}
