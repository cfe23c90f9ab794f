/* What the tests of models that run from disk share: small random models, runs with room for a part of
 * the weights. */
#ifndef QSI_TEST_FROM_DISK_H
#define QSI_TEST_FROM_DISK_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/model.h"
#include "sys/cpu.h"
#include "sys/direct.h"
#include "../sys/tmpdir.h"

enum { PROMPT = 12, STEPS = 5, ROWS = 8 };

typedef struct shape {
    bool moe, mla;
    qsi_type type;
} shape;

static inline qsi_config config_of(const shape *s) {
    qsi_config c = {.arch = QSI_ARCH_LLAMA, .n_vocab = 150, .n_layer = 4, .d_model = 256,
                    .n_head = 4, .n_kv_head = 2, .head_dim = 64, .d_ff = 256, .n_ctx = 64,
                    .rms_eps = 1e-6f, .rope_theta = 10000.0f, .rope_factor = 1.0f,
                    .expert_scale = 1.0f};
    if (s->moe) {
        c.arch = QSI_ARCH_DEEPSEEK;
        c.n_kv_head = 4;
        c.n_dense = 1;
        c.n_expert = 8;
        c.n_expert_used = 2;
        c.n_shared = 1;
        c.d_expert = 256;
    }
    return c;
}

/* Of the weights of layers, routers left out: with 0 the residual stream stays what it is. */
static float layer_scale = 1.0f;

static inline void write_model(const qsi_config *c, const char *path, qsi_type type) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_tensor_spec t;
    qsi_rng rng;
    qsi_rng_init(&rng, 7);
    if (qsi_gguf_writer_open(&w, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_config_put_gguf(c, w), QS_OK);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < qsi_config_n_tensors(c); i++) {
            qsi_config_tensor(c, i, &t);
            bool plain = t.role == QSI_ROLE_NORM || t.role == QSI_ROLE_ROUTER;
            qsi_type own = plain ? QSI_F32 : type;
            if (!pass) {
                assert_int_equal(qsi_gguf_declare(w, t.name, own, t.n_dims, t.ne, &err), QS_OK);
                continue;
            }
            size_t n = (size_t)(t.ne[0] * t.ne[1] * t.ne[2]);
            float *x = qsi_alloc(n, sizeof *x), *y = qsi_alloc(n, sizeof *y);
            for (size_t j = 0; j < n; j++)
                x[j] = t.role == QSI_ROLE_NORM ? 1.0f : (qsi_rng_f32(&rng) - 0.5f) * 0.3f;
            for (size_t j = 0; j < n && !plain && t.layer >= 0; j++) x[j] *= layer_scale;
            const qsi_type_info *ti = qsi_type_get(own);
            ti->encode(x, y, (int64_t)n);
            size_t bytes = n / (size_t)ti->block * (size_t)ti->bytes;
            if (qsi_gguf_write(w, y, bytes, &err) != QS_OK) fail_msg("%s", err.text);
            qsi_free(x);
            qsi_free(y);
        }
    if (qsi_gguf_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

typedef struct run {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    qsi_kv *kv;
    qsi_kv_table t;
    float *z; /* [PROMPT + STEPS, n_vocab] */
} run;

static inline void run_close(run *r) {
    if (r->kv) qsi_kv_table_release(r->kv, &r->t);
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
    qsi_pool_free(r->pool);
    qsi_gguf_close(&r->g);
    qsi_free(r->z);
    *r = (run){0};
}

static inline qs_status run_open_packed(run *r, const char *path, int threads, uint64_t room,
                                        const char *packed, qs_err *err) {
    *r = (run){0};
    assert_int_equal(qsi_pool_create(&r->pool, threads, err), QS_OK);
    if (qsi_gguf_open(&r->g, path, err) != QS_OK) fail_msg("%s", err->text);
    qsi_model_opts o = {.pool = r->pool, .isa = qsi_cpu_isa(), .max_rows = ROWS,
                        .weight_room = room, .packed_path = packed};
    qs_status st = qsi_model_open(&r->m, r->g, &o, err);
    if (st != QS_OK) {
        run_close(r);
        return st;
    }
    const qsi_config *c = qsi_model_config(r->m);
    r->z = qsi_calloc((size_t)(PROMPT + STEPS) * (size_t)c->n_vocab, sizeof *r->z);
    assert_int_equal(qsi_kv_create(&r->kv, c, QSI_F16, 1, err), QS_OK);
    assert_int_equal(qsi_kv_reserve(r->kv, &r->t, PROMPT + STEPS, err), QS_OK);
    return QS_OK;
}

static inline qs_status run_open(run *r, const char *path, int threads, uint64_t room, qs_err *err) {
    return run_open_packed(r, path, threads, room, NULL, err);
}

/* n rows from position `from`, all their logits; ids depend on the position alone. */
static inline qs_status feed(run *r, int from, int n, bool logits, qs_err *err) {
    qsi_row rows[ROWS];
    int32_t V = qsi_model_config(r->m)->n_vocab;
    for (int i = 0; i < n; i++)
        rows[i] = (qsi_row){.id = (from + i) * 97 % V, .pos = from + i, .logits = logits};
    qsi_step s = {.rows = rows, .n_rows = n, .kv = r->kv, .tables = &r->t, .n_tables = 1,
                  .logits = r->z + (size_t)from * (size_t)V};
    return qsi_model_step(r->m, &s, err);
}

static inline void path_of(char *out, size_t cap) {
    snprintf(out, cap, "%s", tmp_path("residency.gguf"));
}

/* Bytes of all weights but the embedding, roughly. */
static inline uint64_t weights(const char *path) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    if (qsi_gguf_open(&g, path, &err) != QS_OK) fail_msg("%s", err.text);
    uint64_t n = 0;
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++)
        if (strcmp(qsi_gguf_tensor_at(g, i)->name, "token_embd.weight") != 0)
            n += qsi_gguf_tensor_at(g, i)->bytes;
    qsi_gguf_close(&g);
    return n;
}

/* Opens a model with room for nine tenths of its weights. */
static inline void run_open_part(run *r, const char *path, int threads) {
    qs_err err = {0};
    if (run_open(r, path, threads, weights(path) * 9 / 10, &err) != QS_OK) fail_msg("%s", err.text);
}

#endif
