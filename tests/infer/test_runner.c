/* infer/runner: a real model behind the engine. Its chunks, batches and reused beginnings give the
 * bits of a plain run, for both architectures and both types of cache. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/hash.h"
#include "base/mem.h"
#include "infer/engine.h"
#include "tiny_model.h"

#define MODEL "runner_model.gguf"

typedef struct bench {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    qsi_model_runner r;
    qsi_engine *e;
} bench;

static void set_up(bench *b, qsi_arch arch, int threads, int max_rows, qsi_type kv) {
    tiny_model_opts o = { .arch = arch, .type = QSI_Q8_0, .seed = 3 };
    qs_err err;
    assert_int_equal(tiny_model_write(MODEL, &o, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&b->g, MODEL, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&b->pool, threads, &err), QS_OK);
    qsi_model_opts mo = { .pool = b->pool, .isa = qsi_cpu_isa(), .max_rows = max_rows };
    assert_int_equal(qsi_model_open(&b->m, b->g, &mo, &err), QS_OK);
    assert_int_equal(qsi_model_runner_init(&b->r, b->m, 256, kv, 4, &err), QS_OK);
    assert_int_equal(qsi_engine_create(&b->e, &b->r.runner, 4, &err), QS_OK);
}

static void tear_down(bench *b) {
    qsi_engine_free(b->e);
    qsi_model_runner_release(&b->r);
    qsi_model_close(&b->m);
    qsi_pool_free(b->pool);
    qsi_gguf_close(&b->g);
    unlink(MODEL);
}

static void random_ids(uint64_t seed, int32_t n_vocab, int32_t *ids, size_t n) {
    qsi_rng rng;
    qsi_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)qsi_rng_below(&rng, (uint64_t)n_vocab);
}

/* The logits after ids, from an empty cache, one sequence, big steps. */
static void plain(bench *b, const int32_t *ids, size_t n, float *out) {
    qsi_seq s;
    assert_int_equal(qsi_seq_init(&s, b->e, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&s, ids, n, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    assert_int_equal(qsi_engine_run(b->e, list, 1, NULL, NULL), QS_OK);
    memcpy(out, s.logits, (size_t)b->r.runner.n_vocab * sizeof *out);
    qsi_seq_release(&s);
}

static void check_same_bits(qsi_arch arch, qsi_type kv) {
    enum { N = 130, SEQS = 4 };
    size_t len[SEQS] = { 130, 1, 65, 90 };
    int32_t ids[SEQS][N];
    bench big = { 0 }, small = { 0 };
    qsi_seq s[SEQS], *list[SEQS];
    set_up(&big, arch, 1, 256, kv);
    set_up(&small, arch, 2, 9, kv);
    int32_t n_vocab = big.r.runner.n_vocab;
    size_t bytes = (size_t)n_vocab * sizeof(float);
    float *want = qsi_alloc((size_t)n_vocab, sizeof *want);
    /* four sequences of different lengths in steps of nine rows on two threads */
    for (int i = 0; i < SEQS; i++) {
        random_ids((uint64_t)i, n_vocab, ids[i], N);
        assert_int_equal(qsi_seq_init(&s[i], small.e, NULL), QS_OK);
        assert_int_equal(qsi_seq_push(&s[i], ids[i], len[i], NULL), QS_OK);
        list[i] = &s[i];
    }
    assert_int_equal(qsi_engine_run(small.e, list, SEQS, NULL, NULL), QS_OK);
    for (int i = 0; i < SEQS; i++) {
        plain(&big, ids[i], len[i], want);
        assert_memory_equal(s[i].logits, want, bytes);
    }
    /* going back and on another way equals a cold run of that way */
    size_t kept;
    memcpy(ids[1], ids[0], sizeof ids[0]);
    ids[1][70] = (ids[0][70] + 1) % n_vocab;
    assert_int_equal(qsi_seq_set(&s[0], ids[1], N, &kept, NULL), QS_OK);
    assert_int_equal(kept, 70);
    assert_int_equal(qsi_engine_run(small.e, list, 1, NULL, NULL), QS_OK);
    plain(&big, ids[1], N, want);
    assert_memory_equal(s[0].logits, want, bytes);
    for (int i = 0; i < SEQS; i++) qsi_seq_release(&s[i]);
    qsi_free(want);
    tear_down(&big);
    tear_down(&small);
}

static void test_dense(void **state) { check_same_bits(QSI_ARCH_LLAMA, QSI_F16); }
static void test_moe(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK, QSI_F16); }
static void test_latent(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK2, QSI_F16); }
static void test_dense_bf16(void **state) { check_same_bits(QSI_ARCH_LLAMA, QSI_BF16); }
static void test_latent_bf16(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK2, QSI_BF16); }
static void test_dense_q4(void **state) { check_same_bits(QSI_ARCH_LLAMA, QSI_Q4_0); }
static void test_latent_q4(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK2, QSI_Q4_0); }
static void test_sparse(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK32, QSI_F16); }
static void test_sparse_q8(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK32, QSI_Q8_0); }
static void test_f32_cache(void **state) { check_same_bits(QSI_ARCH_DEEPSEEK, QSI_F32); }

static void test_limits(void **state) {
    bench b = { 0 };
    qsi_model_runner r;
    qs_err err;
    set_up(&b, QSI_ARCH_LLAMA, 1, 16, QSI_F16);
    assert_int_equal(qsi_model_runner_init(&r, b.m, -1, QSI_F16, 1, &err), QS_E_ARG);
    qsi_seq s[5] = { 0 }, *list[5];
    int32_t ids[256] = { 0 };
    for (int i = 0; i < 5; i++) {
        assert_int_equal(qsi_seq_init(&s[i], b.e, NULL), QS_OK);
        list[i] = &s[i];
    }
    assert_int_equal(qsi_engine_run(b.e, list, 5, NULL, &err), QS_E_ARG);
    /* the cache has pages for four sequences of full length; the fifth finds none */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(qsi_seq_push(&s[i], ids, 256, NULL), QS_OK);
        assert_int_equal(qsi_engine_run(b.e, &list[i], 1, NULL, &err),
                         i < 4 ? QS_OK : QS_E_LIMIT);
    }
    qsi_seq_truncate(&s[1], 0);
    assert_int_equal(qsi_engine_run(b.e, &list[4], 1, NULL, &err), QS_OK);
    for (int i = 0; i < 5; i++) qsi_seq_release(&s[i]);
    tear_down(&b);
}

/* Under a limit of memory, caches take of what is left for them, and give it back. */
static void test_room_for_caches(void **state) {
    tiny_model_opts o = { .arch = QSI_ARCH_LLAMA, .type = QSI_Q8_0, .seed = 3 };
    qsi_model_runner a, b;
    uint64_t two = 0;
    bench x = { 0 };
    qs_err err;
    assert_int_equal(tiny_model_write(MODEL, &o, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&x.g, MODEL, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&x.pool, 1, &err), QS_OK);
    qsi_model_opts mo = { .pool = x.pool, .isa = qsi_cpu_isa(), .max_rows = 8,
                          .memory_bytes = (uint64_t)1 << 30 };
    assert_int_equal(qsi_model_open(&x.m, x.g, &mo, &err), QS_OK);
    const qsi_config *c = qsi_model_config(x.m);
    uint64_t room = qsi_model_cache_room(x.m);
    assert_true(room > 0 && room < mo.memory_bytes);
    assert_int_equal(qsi_kv_need(c, QSI_F16, 2, &two, &err), QS_OK);
    qsi_model_cache_take(x.m, (int64_t)(room - two)); /* as if another cache had the rest */
    assert_int_equal(qsi_model_runner_init(&a, x.m, 129, QSI_F16, 1, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "which hold 128"));
    qsi_model_runner_release(&a);
    assert_int_equal(qsi_model_cache_room(x.m), two);
    /* room for one sequence is enough, and without a wish there is as much as fits */
    assert_int_equal(qsi_model_runner_init(&a, x.m, 64, QSI_F16, 4, &err), QS_OK);
    qsi_model_runner_release(&a);
    assert_int_equal(qsi_model_runner_init(&a, x.m, 0, QSI_F16, 2, &err), QS_OK);
    assert_int_equal(a.runner.n_ctx, 128);
    assert_true(c->n_ctx > 128);
    assert_int_equal(qsi_model_cache_room(x.m), 0);
    assert_int_equal(qsi_model_runner_init(&b, x.m, 64, QSI_F16, 1, &err), QS_E_LIMIT);
    qsi_model_runner_release(&b);
    qsi_model_runner_release(&a);
    assert_int_equal(qsi_model_cache_room(x.m), two);
    tear_down(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_latent),
        cmocka_unit_test(test_dense_bf16),
        cmocka_unit_test(test_latent_bf16),
        cmocka_unit_test(test_dense_q4), cmocka_unit_test(test_latent_q4), cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_sparse_q8),
        cmocka_unit_test(test_f32_cache),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_room_for_caches),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
