/* What there is: /v1/models, /props, Ollama's /api/tags, /api/show and /api/version. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "serve/call_impl.h"

static void put_meta(const qsi_backend *b, qsi_jw *w) {
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "n_ctx", b->n_ctx);
    qsi_jw_key_i64(w, "n_ctx_train", b->n_ctx_train);
    qsi_jw_key_i64(w, "n_vocab", b->n_vocab);
    qsi_jw_key_i64(w, "n_embd", b->d_model);
    qsi_jw_key_i64(w, "n_params", b->n_params);
    qsi_jw_key_i64(w, "size", b->n_bytes);
    if (b->can_think && b->can_choose) qsi_jw_key_z(w, "thinking", "choice");
    else qsi_jw_key_bool(w, "thinking", b->can_think);
    qsi_jw_end_obj(w);
}

static void put_model(const qsi_backend *b, qsi_jw *w) {
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "id", b->id);
    qsi_jw_key_z(w, "object", "model");
    qsi_jw_key_i64(w, "created", b->created);
    qsi_jw_key_z(w, "owned_by", "qiusuo");
    qsi_jw_key(w, "aliases");
    qsi_jw_arr(w);
    if (b->alias != NULL) qsi_jw_z(w, b->alias);
    qsi_jw_end_arr(w);
    qsi_jw_key_i64(w, "max_model_len", b->n_ctx);
    qsi_jw_key(w, "meta");
    put_meta(b, w);
    qsi_jw_end_obj(w);
}

void qsi_models(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_jw w = { .s = &c->reply.body };
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "object", "list");
    qsi_jw_key(&w, "data");
    qsi_jw_arr(&w);
    put_model(c->b, &w);
    qsi_jw_end_arr(&w);
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}

void qsi_model_one(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    const char *name = c->path_tail;
    bool known = strcmp(name, c->b->id) == 0 ||
                 (c->b->alias != NULL && strcmp(name, c->b->alias) == 0);
    if (!known) {
        qsi_refuse(no, 404, "model_not_found", "model",
                   "there is no such model here; the one there is: %s", c->b->id);
        return;
    }
    qsi_jw w = { .s = &c->reply.body };
    put_model(c->b, &w);
    qsi_call_body(c, &w, no);
}

static void put_sampling(const qsi_sampling *s, qsi_jw *w) {
    qsi_jw_obj(w);
    qsi_jw_key_f64(w, "temperature", s->temp);
    qsi_jw_key_i64(w, "top_k", s->top_k);
    qsi_jw_key_f64(w, "top_p", s->top_p);
    qsi_jw_key_f64(w, "min_p", s->min_p);
    qsi_jw_key_f64(w, "repeat_penalty", s->repeat_penalty);
    qsi_jw_key_f64(w, "presence_penalty", s->presence_penalty);
    qsi_jw_key_f64(w, "frequency_penalty", s->frequency_penalty);
    qsi_jw_key_i64(w, "repeat_last_n", s->penalty_last_n);
    qsi_jw_end_obj(w);
}

static void put_token(const qsi_backend *b, qsi_jw *w, const char *key, int32_t id) {
    qsi_slice s = { "", 0 };
    if (id >= 0) s = qsi_vocab_text(b->vocab, id);
    qsi_jw_key(w, key);
    qsi_jw_str(w, s.p, s.n);
}

void qsi_props(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    const qsi_backend *b = c->b;
    qsi_jw w = { .s = &c->reply.body };
    qsi_jw_obj(&w);
    qsi_jw_key(&w, "default_generation_settings");
    qsi_jw_obj(&w);
    qsi_jw_key_i64(&w, "n_ctx", b->n_ctx);
    qsi_jw_key(&w, "params");
    put_sampling(&b->sampling, &w);
    qsi_jw_end_obj(&w);
    qsi_jw_key_z(&w, "model_alias", b->alias != NULL ? b->alias : b->id);
    qsi_jw_key_z(&w, "chat_template", b->chat != NULL ? qsi_chat_jinja(b->chat) : "");
    put_token(b, &w, "bos_token", qsi_vocab_bos(b->vocab));
    put_token(b, &w, "eos_token", qsi_vocab_eos(b->vocab));
    qsi_jw_key(&w, "modalities");
    qsi_jw_raw(&w, "{\"vision\":false,\"audio\":false}", 30);
    qsi_jw_key_z(&w, "build_info", "qiusuo " QSI_VERSION);
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}

/* ---- Ollama ---- */

static void put_date(qsi_jw *w, const char *key, int64_t seconds) {
    char text[40] = "1970-01-01T00:00:00Z";
    time_t t = (time_t)seconds;
    struct tm parts;
    if (gmtime_r(&t, &parts) != NULL) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    qsi_jw_key_z(w, key, text);
}

static void put_details(const qsi_backend *b, qsi_jw *w) {
    char size[32];
    snprintf(size, sizeof size, "%.1f%c", (double)b->n_params / (b->n_params >= 1000000000 ? 1e9 : 1e6),
             b->n_params >= 1000000000 ? 'B' : 'M');
    qsi_jw_key(w, "details");
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "format", "gguf");
    qsi_jw_key_z(w, "family", "deepseek");
    qsi_jw_key_z(w, "parameter_size", size);
    qsi_jw_end_obj(w);
}

void qsi_ollama_tags(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    const qsi_backend *b = c->b;
    qsi_jw w = { .s = &c->reply.body };
    qsi_jw_obj(&w);
    qsi_jw_key(&w, "models");
    qsi_jw_arr(&w);
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "name", b->id);
    qsi_jw_key_z(&w, "model", b->id);
    put_date(&w, "modified_at", b->created);
    qsi_jw_key_i64(&w, "size", b->n_bytes);
    qsi_jw_key_z(&w, "digest", "");
    put_details(b, &w);
    qsi_jw_end_obj(&w);
    qsi_jw_end_arr(&w);
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}

void qsi_ollama_show(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    const qsi_backend *b = c->b;
    qsi_in in = qsi_in_root(j, no);
    qsi_jw w = { .s = &c->reply.body };
    if (no->status == 0) qsi_ask_model(c, &in);
    if (no->status != 0) return;
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "template", b->chat != NULL ? qsi_chat_jinja(b->chat) : "");
    put_date(&w, "modified_at", b->created);
    put_details(b, &w);
    qsi_jw_key(&w, "model_info");
    put_meta(b, &w);
    qsi_jw_key(&w, "capabilities");
    qsi_jw_arr(&w);
    qsi_jw_z(&w, "completion");
    qsi_jw_z(&w, "embedding");
    if (b->chat != NULL) qsi_jw_z(&w, "tools");
    if (b->can_think) qsi_jw_z(&w, "thinking");
    qsi_jw_end_arr(&w);
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}

void qsi_ollama_version(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_jw w = { .s = &c->reply.body };
    qsi_jw_obj(&w);
    qsi_jw_key_z(&w, "version", QSI_VERSION);
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}
