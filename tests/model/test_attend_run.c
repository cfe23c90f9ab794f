/* Blocks of every kind at once (a long prompt's rows, generated rows at several depths): the same bits
 * from one worker and several, with and without room for spans computed apart; and each row as
 * attention over its block alone gives it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/layer.h"

enum { N_KV = 2, GROUP = 2, HD = 16, HQ = N_KV * GROUP * HD, HK = N_KV * HD, SEQS = 4 };

typedef struct block {
    int32_t seq, pos0, n, row0;
} block;
/* rows of a sequence at its end; the first is prompt-like, the others have one row */
static const block blocks[] = {{0, 536, 64, 0}, {1, 899, 1, 64}, {2, 3, 1, 65}, {3, 255, 1, 66},
                               {3, 254, 4, 67}};
enum { ROWS = 71, N_BLOCKS = QSI_COUNT(blocks) };

typedef struct setup {
    qsi_kv *kv;
    qsi_kv_table tables[SEQS];
    float *q, *out;
    qsi_fwd f;
    qsi_attend_set set;
    qsi_op_shared sh;
    char *scratch;
    size_t scratch_bytes;
    const qsi_kern *k;
} setup;

static void block_at(const void *arg, int64_t i, qsi_kv_view *v, qsi_attend_rows *r) {
    const setup *s = arg;
    const block *b = &blocks[i];
    *v = qsi_kv_layer(s->kv, &s->tables[b->seq], 1, s->f.bf16, s->f.bytes);
    *r = (qsi_attend_rows){.n_rows = b->n, .pos0 = b->pos0, .q = s->q + b->row0 * HQ, .ldq = HQ,
                           .out = s->out + b->row0 * HQ, .ldo = HQ};
}

static void start(setup *s, qsi_type type) {
    qsi_config c = {.n_layer = 2, .n_kv_head = N_KV, .head_dim = HD};
    qsi_rng r;
    qsi_rng_init(&r, 5);
    *s = (setup){.k = qsi_kern_get(qsi_cpu_isa())};
    assert_int_equal(qsi_kv_create(&s->kv, &c, type, 64, NULL), QS_OK);
    for (int i = 0; i < SEQS; i++) {
        assert_int_equal(qsi_kv_reserve(s->kv, &s->tables[i], 960, NULL), QS_OK);
        for (int p = 0; p < 960; p++) {
            float kv[2 * HK];
            for (int j = 0; j < 2 * HK; j++) kv[j] = (float)qsi_rng_normal(&r);
            qsi_kv_store(s->kv, s->k, &s->tables[i], 1, p, 0, N_KV, kv, kv + HK);
        }
    }
    s->q = qsi_alloc(ROWS * HQ, sizeof *s->q);
    s->out = qsi_calloc(ROWS * HQ, sizeof *s->out);
    for (int j = 0; j < ROWS * HQ; j++) s->q[j] = (float)qsi_rng_normal(&r);
    s->scratch_bytes = (qsi_attend_scratch(GROUP, HD, HD) + 63) / 64 * 64;
    s->set = (qsi_attend_set){.n_blocks = N_BLOCKS, .n_kv = N_KV, .group = GROUP, .scale = 0.25f,
                              .block = block_at, .arg = s};
}

static void work(const qsi_worker *w, void *arg) {
    setup *s = arg;
    qsi_op o;
    qsi_op_init(&o, w, s->k, &s->sh, s->scratch + (size_t)w->index * s->scratch_bytes,
                s->scratch_bytes);
    qsi_op_end(&o);
    qsi_attend_run(&o, &s->f, &s->set);
    qsi_attend_run(&o, &s->f, &s->set); /* tickets start anew */
}

static void run(setup *s, int threads, int64_t n_parts) {
    qsi_pool *pool = NULL;
    assert_int_equal(qsi_pool_create(&pool, threads, NULL), QS_OK);
    s->f.n_parts = n_parts;
    s->f.parts = qsi_alloc((size_t)n_parts + 1, sizeof(float));
    s->scratch = qsi_alloc((size_t)threads, s->scratch_bytes);
    memset(s->out, 0xff, ROWS * HQ * sizeof *s->out);
    qsi_pool_run(pool, work, s);
    qsi_free(s->scratch);
    qsi_free(s->f.parts);
    qsi_pool_free(pool);
}

static void check(qsi_type type, bool narrow) {
    setup s;
    start(&s, type);
    s.f.bf16 = s.f.bytes = narrow;
    float *want = qsi_alloc(ROWS * HQ, sizeof *want);
    char *scratch = qsi_alloc(s.scratch_bytes, 1);
    for (int64_t i = 0; i < N_BLOCKS; i++) {
        qsi_kv_view v;
        qsi_attend_rows r;
        block_at(&s, i, &v, &r);
        for (int64_t h = 0; h < N_KV; h++) qsi_attend(s.k, &v, &r, h, GROUP, 0.25f, scratch);
    }
    memcpy(want, s.out, ROWS * HQ * sizeof *want);
    for (int threads = 1; threads < 5; threads++)
        for (int64_t parts = 0; parts < 1 << 18; parts = parts * 9 + 4000) {
            for (s.f.n = 1; s.f.n < 2000; s.f.n += 1000) { /* heads of one's own, and none */
                run(&s, threads, parts);
                assert_memory_equal(want, s.out, ROWS * HQ * sizeof *want);
            }
        }
    for (int i = 0; i < SEQS; i++) qsi_kv_table_release(s.kv, &s.tables[i]);
    qsi_kv_free(s.kv);
    qsi_free(want);
    qsi_free(scratch);
    qsi_free(s.q);
    qsi_free(s.out);
}

static void test_bits(void **state) {
    (void)state;
    check(QSI_F32, false);
    check(QSI_F16, false);
    check(QSI_Q8_0, false);
    check(QSI_F16, true);
    check(QSI_Q8_0, true);
    check(QSI_BF16, false);
    check(QSI_BF16, true);
    check(QSI_Q4_0, false);
    check(QSI_Q4_0, true);
}

/* Room for a row of all heads at the model's context, within bounds. */
static void test_room(void **state) {
    (void)state;
    qsi_config c = {.n_head = 16, .head_dim = 128, .n_ctx = 16384};
    assert_true(qsi_attend_parts(&c) >= 16 * 64 * qsi_attend_part_floats(128));
    c = (qsi_config){.n_head = 128, .head_dim = 192, .kv_rank = 512, .n_ctx = 163840};
    assert_true(qsi_attend_parts(&c) <= 1 << 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
