/* POST /v1/embeddings: the normalised mean of the last layer's states. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

#define MAX_INPUTS 2048

static void put_base64(qsi_jw *w, const unsigned char *p, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    qsi_str s = { 0 };
    qs_status st = QS_OK;
    for (size_t i = 0; i < n && st == QS_OK; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t x = (uint32_t)p[i] << 16;
        if (have > 1) x |= (uint32_t)p[i + 1] << 8;
        if (have > 2) x |= p[i + 2];
        char four[4] = { digits[x >> 18], digits[x >> 12 & 63], have > 1 ? digits[x >> 6 & 63] : '=',
                         have > 2 ? digits[x & 63] : '=' };
        st = qsi_str_append(&s, four, 4);
    }
    if (w->st == QS_OK) w->st = st;
    qsi_jw_str(w, s.data, s.len);
    qsi_str_release(&s);
}

/* base64: the floats' bytes, the lowest first. */
static void put_vector(qsi_api_call *c, qsi_jw *w, const qsi_run *r) {
    size_t n = (size_t)r->n_embedding;
    if (!c->ask.base64) {
        qsi_jw_arr(w);
        for (size_t i = 0; i < n; i++) qsi_jw_f32(w, r->embedding[i]);
        qsi_jw_end_arr(w);
        return;
    }
    unsigned char *bytes = qsi_alloc(n, 4);
    if (bytes == NULL) {
        w->st = QS_E_NOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t x;
        memcpy(&x, &r->embedding[i], 4);
        for (size_t k = 0; k < 4; k++) bytes[4 * i + k] = (unsigned char)(x >> 8 * k);
    }
    put_base64(w, bytes, 4 * n);
    qsi_free(bytes);
}

static void whole(qsi_api_call *c, qsi_jw *w) {
    qsi_usage u = qsi_runs_usage(c);
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "object", "list");
    qsi_jw_key(w, "data");
    qsi_jw_arr(w);
    for (size_t i = 0; i < c->n_runs; i++) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "object", "embedding");
        qsi_jw_key_i64(w, "index", (int64_t)i);
        qsi_jw_key(w, "embedding");
        put_vector(c, w, &c->runs[i]);
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_arr(w);
    qsi_jw_key_z(w, "model", c->b->id);
    qsi_jw_key(w, "usage");
    qsi_jw_obj(w);
    qsi_jw_key_i64(w, "prompt_tokens", u.n_prompt);
    qsi_jw_key_i64(w, "total_tokens", u.n_prompt);
    qsi_jw_end_obj(w);
    qsi_put_truncation(w, &c->ask);
    qsi_jw_end_obj(w);
}

static const qsi_voice voice = { .whole = whole };

static void read_input(qsi_api_call *c, const qsi_in *in, size_t i, const qsi_json *j) {
    const qsi_vocab *v = c->b->vocab;
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    const char *s = qsi_json_as_str(j);
    if (s != NULL && s[0] == '\0') {
        qsi_in_refuse(in, "input", "holds an empty string");
    } else if (s != NULL) {
        unsigned bos = qsi_vocab_add_bos(v) ? QSI_ENC_BOS : 0;
        qs_status st = qsi_encode(v, s, strlen(s), bos | QSI_ENC_PERSON, &ids, &err);
        if (st != QS_OK) qsi_refuse_err(in->no, "input", st, &err);
    } else if (qsi_json_kind_of(j) != QSI_JSON_ARRAY) {
        qsi_in_refuse(in, "input", "holds something that is neither a string nor ids (place %zu)", i);
    } else {
        qsi_prompt_read_ids(in, "input", j, c->b->n_vocab, &ids);
    }
    if (in->no->status == 0) qsi_prompt_ids(c, i, ids.data, ids.len, "input", in->no);
    qsi_ids_release(&ids);
}

static void read_inputs(qsi_api_call *c, const qsi_in *in) {
    const qsi_json *j = qsi_json_get(in->j, "input");
    qsi_json_kind kind = qsi_json_kind_of(j);
    if (!qsi_in_need(in, "input")) return;
    if (kind != QSI_JSON_STR && kind != QSI_JSON_ARRAY) {
        qsi_in_refuse(in, "input", "is neither a string nor an array of strings or ids");
        return;
    }
    bool one = kind == QSI_JSON_STR || qsi_json_kind_of(qsi_json_at(j, 0)) == QSI_JSON_INT;
    size_t n = one ? 1 : qsi_json_size(j);
    if (n == 0 || n > MAX_INPUTS) {
        qsi_in_refuse(in, "input", n == 0 ? "is empty" : "has more than 2048 texts");
        return;
    }
    if (!qsi_runs_create(c, n, in->no)) return;
    for (size_t i = 0; i < n && in->no->status == 0; i++)
        read_input(c, in, i, one ? j : qsi_json_at(j, i));
}

void qsi_embeddings(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    static const char *const formats[] = { "float", "base64", NULL };
    static const char *const ways[] = { "disabled", "auto", NULL };
    qsi_in in = qsi_in_root(j, no);
    int64_t n;
    if (no->status != 0) return;
    c->voice = &voice;
    qsi_ask_init(c);
    c->ask.o.embed = true;
    c->ask.max_tokens = 0;
    qsi_ask_model(c, &in);
    qsi_in_text(&in, "user");
    c->ask.base64 = qsi_in_word(&in, "encoding_format", formats) == 1;
    c->ask.truncate = qsi_in_word(&in, "truncation", ways) == 1;
    if (qsi_in_i64(&in, "dimensions", 1, INT32_MAX, &n) && n != c->b->d_model)
        qsi_in_refuse(&in, "dimensions", "is %lld; this model gives %d", (long long)n,
                      (int)c->b->d_model);
    if (no->status == 0) read_inputs(c, &in);
}
