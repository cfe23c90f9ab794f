/* Running a file's ids in pieces, and its golden log-probabilities. */
#ifndef QSI_TESTS_MLA_TESTING_H
#define QSI_TESTS_MLA_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "base/mem.h"
#include "model/layer.h"

typedef struct runner {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    qsi_kv *kv;
} runner;

/* rows: a step has at most so many, the cache room for so many positions of two sequences. */
static inline void runner_open_with(runner *r, const char *path, int threads, qsi_isa isa,
                                    qsi_type kv, int rows, bool mtp) {
    qs_err err = {0};
    *r = (runner){0};
    if (qsi_gguf_open(&r->g, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_pool_create(&r->pool, threads, &err), QS_OK);
    qsi_model_opts o = {.pool = r->pool, .isa = isa, .max_rows = rows, .mtp = mtp};
    if (qsi_model_open(&r->m, r->g, &o, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_kv_create(&r->kv, qsi_model_config(r->m), kv,
                      2 * qsi_ceil_div(rows, QSI_KV_PAGE), &err) != QS_OK)
        fail_msg("%s", err.text);
}

static inline void runner_open(runner *r, const char *path, int threads, qsi_isa isa, qsi_type kv,
                               int rows) {
    runner_open_with(r, path, threads, isa, kv, rows, false);
}

static inline void runner_close(runner *r) {
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
    qsi_pool_free(r->pool);
    qsi_gguf_close(&r->g);
}

/* Logits [n, V] of n ids: the first n_prompt as a prompt in steps of at most `first`, the others as
 * generated ones in steps of `chunk`. */
static inline void run_in(runner *r, const int32_t *ids, int32_t n, int32_t n_prompt, int32_t first,
                          int32_t chunk, float *logits) {
    qs_err err = {0};
    int64_t V = qsi_model_config(r->m)->n_vocab;
    qsi_kv_table t = {0};
    qsi_row *rows = qsi_alloc((size_t)n, sizeof *rows);
    if (qsi_kv_reserve(r->kv, &t, n, &err) != QS_OK) fail_msg("%s", err.text);
    for (int32_t at = 0, k = 0; at < n; at += k) {
        k = at < n_prompt ? (int32_t)qsi_min64(first, n_prompt - at) : chunk;
        if (k > n - at) k = n - at;
        for (int32_t i = 0; i < k; i++)
            rows[i] = (qsi_row){.id = ids[at + i], .pos = at + i, .logits = true,
                                .generated = at + i >= n_prompt};
        qsi_step st = {.rows = rows, .n_rows = k, .kv = r->kv, .tables = &t, .n_tables = 1,
                       .logits = logits + at * V};
        if (qsi_model_step(r->m, &st, &err) != QS_OK) fail_msg("%s", err.text);
    }
    qsi_kv_table_release(r->kv, &t);
    qsi_free(rows);
}

/* The prompt in one step. */
static inline void run(runner *r, const int32_t *ids, int32_t n, int32_t n_prompt, int32_t chunk,
                       float *logits) {
    run_in(r, ids, n, n_prompt, n_prompt, chunk, logits);
}

static inline const void *data_of(const runner *r, const char *name) {
    const qsi_gguf_tensor *x = qsi_gguf_tensor_find(r->g, name);
    if (!x) fail_msg("no tensor %s", name);
    return x->data;
}

/* The largest difference of log-probabilities [n, V] from those of logits z. */
static inline double worst_logprob(const float *z, const double *want, int64_t n, int64_t V) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++, z += V, want += V) {
        double sum = 0, m = -INFINITY;
        for (int64_t j = 0; j < V; j++) m = fmax(m, (double)z[j]);
        for (int64_t j = 0; j < V; j++) sum += exp((double)z[j] - m);
        for (int64_t j = 0; j < V; j++)
            worst = fmax(worst, fabs((double)z[j] - m - log(sum) - want[j]));
    }
    return worst;
}

#endif
