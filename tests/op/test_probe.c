/* Limits are what they claim: positive, ordered as the instructions are, and no loop is left out by
 * the compiler (a peak beyond what any core can issue would show that). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kern/kern.h"
#include "op/probe.h"
#include "sys/file.h"

/* Operations a cycle that no core reaches: 4 instructions of 64 bytes, 2 operations a value. */
#define MOST_F32 (4 * 16 * 2.0)
#define MOST_TILE (16 * 16 * 64 * 2 / 4.0) /* where bytes are multiplied in tiles, one in 4 cycles */
#define FASTEST_GHZ 8.0

static void test_probe(void **state) {
    qsi_pool *pool = NULL;
    qs_err err;
    qsi_limits l;
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    assert_int_equal(qsi_probe(pool, qsi_cpu_isa(), &l, &err), QS_OK);
    assert_true(l.read_gb_s > 0.01 && l.read_gb_s < 2000);
    assert_true(l.fp32_gflop_s > 0.1 && l.fp32_gflop_s < MOST_F32 * FASTEST_GHZ);
    double most = strcmp(qsi_isa_name(qsi_cpu_isa()), "amx") == 0 ? MOST_TILE : 4 * MOST_F32;
    assert_true(l.bf16_gflop_s > 0.1 && l.bf16_gflop_s < most / 2 * FASTEST_GHZ);
    assert_true(l.int8_gop_s > 0.1 && l.int8_gop_s < most * FASTEST_GHZ);
    qsi_pool_free(pool);
}

/* Twice the rounds take twice the time: nothing was folded away. The quickest of several. */
static void test_linear(void **state) {
    const int64_t rounds = 20000;
    for (int level = 0; level < QSI_ISA_COUNT; level++) {
        if (!qsi_cpu_has((qsi_isa)level)) continue;
        const qsi_kern *k = qsi_kern_get((qsi_isa)level);
        int64_t (*peaks[])(int64_t, float *) = {k->peak_f32, k->peak_bf16, k->peak_int8};
        for (size_t i = 0; i < QSI_COUNT(peaks); i++) {
            int64_t best[2] = {INT64_MAX, INT64_MAX};
            for (int r = 0; r < 40; r++)
                for (int twice = 0; twice < 2; twice++) {
                    float x = 0.5f;
                    int64_t t = qsi_now_ns(), n = rounds << twice, ops = peaks[i](n, &x);
                    t = qsi_now_ns() - t;
                    assert_true(ops % n == 0 && ops >= 2 * n);
                    if (t < best[twice]) best[twice] = t;
                }
            assert_true(best[1] > best[0] + best[0] / 2);
        }
    }
}

static void test_read_all(void **state) {
    _Alignas(64) static unsigned char buf[4096];
    for (int level = 0; level < QSI_ISA_COUNT; level++) {
        if (!qsi_cpu_has((qsi_isa)level)) continue;
        const qsi_kern *k = qsi_kern_get((qsi_isa)level);
        for (size_t i = 0; i < sizeof buf; i++) buf[i] = (unsigned char)(i * 7);
        uint64_t before = k->read_all(buf, sizeof buf);
        assert_true(before == k->read_all(buf, sizeof buf));
        for (size_t i = 0; i < sizeof buf; i += 509) { /* every part of it counts */
            buf[i] ^= 1;
            assert_true(before != k->read_all(buf, sizeof buf));
            buf[i] ^= 1;
        }
    }
}

static void test_differ(void **state) {
    qsi_limits a = {10, 20, 30, 40}, b = {10, 20, 33, 40};
    assert_true(qsi_limits_differ(&a, &a) == 0);
    assert_float_equal(qsi_limits_differ(&a, &b), 3.0 / 33, 1e-12);
    assert_float_equal(qsi_limits_differ(&b, &a), 3.0 / 33, 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
