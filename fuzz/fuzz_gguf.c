/* GGUF files: whatever opens keeps its promises; every value and every tensor byte can be read, and a
 * configuration that is read has a list of tensors. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "fmt/gguf.h"
#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void read_value(const qsi_gguf *g, const qsi_gguf_kv *kv) {
    int64_t n = 0;
    double x = 0;
    bool b = false;
    qsi_slice s = {0};
    if (qsi_gguf_i64(g, kv->key, &n, NULL) == QS_OK) sink += (uint64_t)n;
    if (qsi_gguf_f64(g, kv->key, &x, NULL) == QS_OK) sink += x > 0;
    if (qsi_gguf_bool(g, kv->key, &b, NULL) == QS_OK) sink += b;
    if (qsi_gguf_str(g, kv->key, &s, NULL) == QS_OK && s.n > 0) sink += (uint8_t)s.p[s.n - 1];
    for (uint64_t i = 0; kv->type == QSI_GV_ARR && i < kv->count; i++) {
        if (kv->elem == QSI_GV_STR) {
            s = qsi_gguf_arr_str(kv, i);
            if (s.n > 0) sink += (uint8_t)s.p[0] + (uint8_t)s.p[s.n - 1];
        } else {
            sink += qsi_gguf_arr_f64(kv, i) > 0;
        }
    }
}

static void read_tensor(const qsi_gguf *g, const qsi_gguf_tensor *t) {
    const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
    size_t row = 0;
    QS_CHECK(qsi_gguf_tensor_find(g, t->name) == t && ti != NULL);
    QS_CHECK(qsi_row_bytes(ti, t->ne[0], &row));
    QS_CHECK(row * (size_t)(t->ne[1] * t->ne[2] * t->ne[3]) == t->bytes);
    QS_CHECK(t->offset <= qsi_gguf_size(g) && t->bytes <= qsi_gguf_size(g) - t->offset);
    for (size_t i = 0; i < t->bytes; i++) sink += t->data[i];
}

static void read_config(const qsi_gguf *g) {
    qsi_config c;
    qs_err err = {0};
    if (qsi_config_from_gguf(&c, g, &err) != QS_OK) {
        QS_CHECK(err.text[0] != '\0');
        return;
    }
    size_t n = qsi_config_n_tensors(&c);
    int64_t active = 0;
    QS_CHECK(qsi_config_params(&c, &active) > 0 && active > 0);
    for (size_t i = 0; i < n; i += 1 + n / 64) {
        qsi_tensor_spec t;
        qsi_config_tensor(&c, i, &t);
        QS_CHECK(strlen(t.name) > 0 && t.ne[0] > 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_gguf *g = NULL;
    qs_err err = {0};
    if (qsi_gguf_open_mem(&g, data, size, &err) != QS_OK) {
        QS_CHECK(g == NULL && err.text[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) read_value(g, qsi_gguf_kv_at(g, i));
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) read_tensor(g, qsi_gguf_tensor_at(g, i));
    read_config(g);
    qsi_gguf_close(&g);
    return 0;
}
