/* What the voices share: lines of a stream, usage, timings. See call_impl.h. */
#include <stdio.h>
#include <string.h>

#include "serve/call_impl.h"
#include "sys/file.h"

static void fail(qsi_api_call *c, qs_status st) {
    if (c->st == QS_OK) c->st = st;
}

void qsi_say_line(qsi_api_call *c) {
    if (c->out != NULL && c->st == QS_OK && c->line.len > 0)
        fail(c, qsi_stream_write(c->out, c->line.data, c->line.len));
    qsi_str_clear(&c->line);
    c->said_ns = qsi_now_ns();
}

void qsi_say(qsi_api_call *c, const char *z) {
    fail(c, qsi_str_puts(&c->line, z));
    qsi_say_line(c);
}

qsi_jw qsi_sse_begin(qsi_api_call *c, const char *event) {
    qsi_jw w = { .s = &c->line };
    if (event != NULL) w.st = qsi_str_printf(&c->line, "event: %s\n", event);
    if (w.st == QS_OK) w.st = qsi_str_puts(&c->line, "data: ");
    return w;
}

void qsi_sse_end(qsi_api_call *c, const qsi_jw *w) {
    fail(c, w->st);
    qsi_say(c, "\n\n");
}

void qsi_say_ping(qsi_api_call *c) {
    const qsi_run *r = NULL;
    if (strcmp(c->voice->stream_type, "text/event-stream") != 0) return; /* its form has no comments */
    for (size_t i = 0; i < c->n_runs && r == NULL; i++)
        if (c->runs[i].live && !c->runs[i].computed) r = &c->runs[i];
    if (r == NULL) return;
    qs_status st;
    if (r->started)
        st = qsi_str_printf(&c->line, ": prompt %lld/%lld\n\n", (long long)r->n_done,
                            (long long)r->n_all);
    else
        st = qsi_str_printf(&c->line, ": queue %d\n\n", r->job != NULL ? (int)qsi_job_ahead(r->job) : 0);
    fail(c, st);
    qsi_say_line(c);
}

void qsi_put_usage(qsi_jw *w, const qsi_usage *u) {
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "prompt_tokens", u->n_prompt);
    qsi_jw_key_i64(w, "completion_tokens", u->n_generated);
    qsi_jw_key_i64(w, "total_tokens", u->n_prompt + u->n_generated);
    qsi_jw_key(w, "prompt_tokens_details");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "cached_tokens", u->n_cached);
    qsi_jw_end_obj(w);
    qsi_jw_end_obj(w);
}

/* Milliseconds, and what follows from them. */
static void put_pace(qsi_jw *w, const char *what, int64_t n, int64_t ns) {
    char key[40];
    double ms = (double)ns / 1e6;
    snprintf(key, sizeof key, "%s_n", what);
    qsi_jw_key_i64(w, key, n);
    snprintf(key, sizeof key, "%s_ms", what);
    qsi_jw_key_f64(w, key, ms);
    snprintf(key, sizeof key, "%s_per_token_ms", what);
    qsi_jw_key_f64(w, key, n > 0 ? ms / (double)n : 0);
    snprintf(key, sizeof key, "%s_per_second", what);
    qsi_jw_key_f64(w, key, ns > 0 ? (double)n * 1e9 / (double)ns : 0);
}

void qsi_put_timings(qsi_jw *w, const qsi_usage *u) {
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "cache_n", u->n_cached);
    put_pace(w, "prompt", u->n_prompt - u->n_cached, u->prompt_ns);
    put_pace(w, "predicted", u->n_generated, u->gen_ns);
    qsi_jw_key_i64(w, "draft_n", u->n_drafts);
    qsi_jw_key_i64(w, "draft_n_accepted", u->n_hits);
    qsi_jw_end_obj(w);
}

void qsi_put_truncation(qsi_jw *w, const qsi_ask *ask) {
    if (ask->n_cut == 0) return;
    qsi_jw_key(w, "truncation");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "dropped_tokens", ask->n_cut);
    qsi_jw_key_i64(w, "dropped_messages", ask->n_cut_turns);
    qsi_jw_end_obj(w);
}

const char *qsi_fingerprint(const qsi_api_call *c, char out[40]) {
    const qsi_backend *b = c->b;
    int64_t facts[] = { b->n_params, b->n_bytes, b->n_vocab, b->d_model, b->n_ctx };
    uint64_t h = qsi_hash_seed(facts, sizeof facts, qsi_hash(b->id, strlen(b->id)));
    snprintf(out, 40, "qiusuo-" QSI_VERSION "-%08x", (unsigned)(h & 0xffffffff));
    return out;
}

/* ---- OpenAI's two voices ---- */

void qsi_openai_head(qsi_api_call *c, qsi_jw *w, const char *object) {
    char print[40];
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "id", c->name);
    qsi_jw_key_z(w, "object", object);
    qsi_jw_key_i64(w, "created", c->wall_s);
    qsi_jw_key_z(w, "model", c->b->id);
    qsi_jw_key_z(w, "system_fingerprint", qsi_fingerprint(c, print));
}

void qsi_openai_tail(qsi_api_call *c, qsi_jw *w, const qsi_usage *u) {
    qsi_jw_key(w, "timings");
    qsi_put_timings(w, u);
    qsi_put_truncation(w, &c->ask);
    qsi_jw_end_obj(w);
}

void qsi_openai_whole_tail(qsi_api_call *c, qsi_jw *w) {
    qsi_usage u = qsi_runs_usage(c);
    qsi_jw_key(w, "usage");
    qsi_put_usage(w, &u);
    qsi_openai_tail(c, w, &u);
}

void qsi_openai_finish(qsi_jw *w, const char *reason) {
    qsi_jw_key(w, "finish_reason");
    if (reason != NULL) qsi_jw_z(w, reason);
    else qsi_jw_null(w);
    qsi_jw_end_obj(w);
}

void qsi_openai_shut(qsi_api_call *c, const char *object) {
    if (c->ask.usage) {
        qsi_usage u = qsi_runs_usage(c);
        qsi_jw w = qsi_sse_begin(c, NULL);
        qsi_openai_head(c, &w, object);
        qsi_jw_key(&w, "choices");
        qsi_jw_arr(&w);
        qsi_jw_end_arr(&w);
        qsi_jw_key(&w, "usage");
        qsi_put_usage(&w, &u);
        qsi_jw_end_obj(&w);
        qsi_sse_end(c, &w);
    }
    qsi_say(c, "data: [DONE]\n\n");
}

void qsi_openai_fail(qsi_api_call *c, const qsi_refusal *no) {
    qsi_jw w = qsi_sse_begin(c, NULL);
    if (w.st == QS_OK) w.st = qsi_refusal_write(w.s, no, QSI_API_OPENAI);
    qsi_sse_end(c, &w);
}
