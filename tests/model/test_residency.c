/* Models that do not fit: with room for a part of their weights they give the same bits as in memory,
 * read what the plan says and nothing else, and failures of the disk end a step with a message. */
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

enum { PROMPT = 12, STEPS = 5, ROWS = 8 };

typedef struct shape {
    bool moe, mla;
    qsi_type type;
} shape;

static qsi_config config_of(const shape *s) {
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

static void write_model(const qsi_config *c, const char *path, qsi_type type) {
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

static void run_close(run *r) {
    if (r->kv) qsi_kv_table_release(r->kv, &r->t);
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
    qsi_pool_free(r->pool);
    qsi_gguf_close(&r->g);
    qsi_free(r->z);
    *r = (run){0};
}

static qs_status run_open(run *r, const char *path, int threads, uint64_t room, qs_err *err) {
    *r = (run){0};
    assert_int_equal(qsi_pool_create(&r->pool, threads, err), QS_OK);
    if (qsi_gguf_open(&r->g, path, err) != QS_OK) fail_msg("%s", err->text);
    qsi_model_opts o = {.pool = r->pool, .isa = qsi_cpu_isa(), .max_rows = ROWS,
                        .weight_room = room};
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

/* n rows from position `from`, all their logits; ids depend on the position alone. */
static qs_status feed(run *r, int from, int n, bool logits, qs_err *err) {
    qsi_row rows[ROWS];
    int32_t V = qsi_model_config(r->m)->n_vocab;
    for (int i = 0; i < n; i++)
        rows[i] = (qsi_row){.id = (from + i) * 97 % V, .pos = from + i, .logits = logits};
    qsi_step s = {.rows = rows, .n_rows = n, .kv = r->kv, .tables = &r->t, .n_tables = 1,
                  .logits = r->z + (size_t)from * (size_t)V};
    return qsi_model_step(r->m, &s, err);
}

/* A prompt in two chunks, the first without logits, then single rows. */
static qs_status whole(run *r, qs_err *err) {
    qs_status st = feed(r, 0, ROWS, false, err);
    if (st == QS_OK) st = feed(r, ROWS, PROMPT - ROWS, true, err);
    for (int i = 0; i < STEPS && st == QS_OK; i++) st = feed(r, PROMPT + i, 1, true, err);
    return st;
}

static void path_of(char *out, size_t cap) {
    snprintf(out, cap, "/tmp/qsi_test_residency_%ld.gguf", (long)getpid());
}

/* Bytes of all weights but the embedding, roughly. */
static uint64_t weights(const char *path) {
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

static void check(const shape *s) {
    qsi_config c = config_of(s);
    qs_err err = {0};
    char path[64];
    path_of(path, sizeof path);
    write_model(&c, path, s->type);
    uint64_t all = weights(path);
    size_t n = (size_t)(PROMPT + STEPS) * (size_t)c.n_vocab;
    run want, got;
    int streamed = 0, cached = 0;
    if (run_open(&want, path, 1, 0, &err) != QS_OK) fail_msg("%s", err.text);
    if (whole(&want, &err) != QS_OK) fail_msg("%s", err.text);
    for (int threads = 1; threads <= 2; threads++)
        for (int part = 0; part < 4; part++) {
            /* from little to almost all; buffers of the crew count too */
            static const int percent[] = {40, 50, 60, 95};
            qs_status st = run_open(&got, path, threads, all * (uint64_t)percent[part] / 100, &err);
            if (st == QS_E_LIMIT && part < 2) continue;
            if (st != QS_OK) fail_msg("%s", err.text);
            qsi_model_io io;
            if (whole(&got, &err) != QS_OK) fail_msg("%s", err.text);
            assert_memory_equal(got.z, want.z, n * sizeof *got.z);
            qsi_model_io_stats(got.m, &io, false);
            streamed += io.stream_bytes > 0;
            cached += io.slots > 0;
            if (io.on && io.slots == 0) {
                /* each step reads every streamed weight once, and the next one's are on their way;
                 * whole blocks of 4096 bytes at both ends of a piece */
                assert_true(io.read_bytes >= io.stream_bytes * (uint64_t)io.steps);
                assert_int_equal(io.steps, 2 + STEPS);
                assert_true(io.read_bytes <=
                            (io.resident_bytes + io.stream_bytes * (uint64_t)(io.steps + 1)) * 5 / 4);
            }
            run_close(&got);
        }
    print_message("%s %s: %d runs streamed, %d with a cache of experts\n",
                  qsi_type_get(s->type)->name, s->moe ? "moe" : "dense", streamed, cached);
    run_close(&want);
    unlink(path);
    assert_true(streamed >= 4);
    assert_true(!s->moe || cached >= 4);
}

static void test_dense(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__ /* slow, and the types change nothing for it */
    const qsi_type types[] = {QSI_Q8_0};
#else
    const qsi_type types[] = {QSI_F32, QSI_F16, QSI_BF16, QSI_Q8_0, QSI_Q4_K};
#endif
    for (size_t i = 0; i < QSI_COUNT(types); i++) check(&(shape){.type = types[i]});
}

static void test_moe(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    const qsi_type types[] = {QSI_Q8_0};
#else
    const qsi_type types[] = {QSI_BF16, QSI_Q8_0};
#endif
    for (size_t i = 0; i < QSI_COUNT(types); i++)
        check(&(shape){.moe = true, .type = types[i]});
}

/* Experts that are used again are hits; the best fixed choice is no worse than chance. */
static void test_statistics(void **state) {
    (void)state;
    qsi_config c = config_of(&(shape){.moe = true});
    qs_err err = {0};
    qsi_model_io io;
    char path[64];
    run r;
    path_of(path, sizeof path);
    write_model(&c, path, QSI_F32);
    if (run_open(&r, path, 1, weights(path) * 9 / 10, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, false);
    assert_true(io.on && io.slots > 0 && io.slots < io.experts);
    assert_int_equal(io.experts, 3 * 8);
    if (feed(&r, 0, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, true);
    assert_int_equal(io.uses, 3 * 2);
    assert_int_equal(io.hits, 0);
    assert_int_equal(io.fixed_hits, 3 * 2);
    uint64_t cold = io.read_bytes;
    if (feed(&r, 0, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, false);
    assert_int_equal(io.uses, 3 * 2);
    assert_int_equal(io.hits, 3 * 2); /* the same row uses the same experts */
    assert_int_equal(io.steps, 1);
    assert_true(io.read_bytes < cold);
    run_close(&r);
    unlink(path);
}

static void test_too_little(void **state) {
    (void)state;
    char path[64];
    qs_err err = {0};
    run r;
    path_of(path, sizeof path);
    qsi_config c = config_of(&(shape){0});
    write_model(&c, path, QSI_F32);
    assert_int_equal(run_open(&r, path, 1, 1000, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "too little"));
    unlink(path);
}

/* The file is cut short while it is in use. */
static void test_truncated(void **state) {
    (void)state;
    char path[64];
    qs_err err = {0};
    run r;
    path_of(path, sizeof path);
    for (int moe = 0; moe < 2; moe++)
        for (int threads = 1; threads <= 2; threads++) {
            qsi_config c = config_of(&(shape){.moe = moe});
            write_model(&c, path, QSI_F32);
            if (run_open(&r, path, threads, weights(path) * 9 / 10, &err) != QS_OK)
                fail_msg("%s", err.text);
            long size = (long)qsi_gguf_size(r.g);
            assert_int_equal(truncate(path, size * 6 / 10), 0);
            qs_status st = QS_OK;
            for (int i = 0; i < PROMPT + STEPS && st == QS_OK; i++) st = feed(&r, i, 1, false, &err);
            assert_int_equal(st, QS_E_IO);
            assert_non_null(strstr(err.text, "cut short"));
            assert_int_equal(feed(&r, 0, 1, true, &err), QS_E_IO); /* for good */
            run_close(&r);
        }
    unlink(path);
}

#ifdef QS_DEBUG
/* Every read in turn fails, while loading or in a step: an error each time. */
static void test_disk_fails(void **state) {
    (void)state;
    char path[64];
    run r;
    path_of(path, sizeof path);
    for (int moe = 0; moe < 2; moe++) {
        qsi_config c = config_of(&(shape){.moe = moe});
        write_model(&c, path, QSI_Q8_0);
        uint64_t room = weights(path) * 12 / 10;
        for (int at = 1; at < 60; at += 3) {
            qs_err err = {0};
            qsi_direct_fail_after(at);
            qs_status st = run_open(&r, path, 2, room, &err);
            if (st == QS_OK) st = whole(&r, &err);
            qsi_direct_fail_after(-1);
            if (st == QS_OK) break; /* fewer reads than that */
            assert_int_equal(st, QS_E_IO);
            assert_non_null(strstr(err.text, "cannot read"));
            run_close(&r);
            assert_true(at < 58);
        }
        run_close(&r);
    }
    unlink(path);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_too_little),
        cmocka_unit_test(test_truncated),
#ifdef QS_DEBUG
        cmocka_unit_test(test_disk_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
