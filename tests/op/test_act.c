/* Activations put by runs of columns are those put whole, in every form; runs cover every column
 * once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "op/op.h"
#include "sys/cpu.h"

enum { ROWS = 3, MASK = QSI_ACT_F32 | QSI_ACT_BF16 | QSI_ACT_Q8 | QSI_ACT_K8, MOST = 16 * 1024 };

static qsi_act make(qsi_arena *ar, int64_t k, unsigned mask) {
    qsi_act a;
    assert_int_equal(qsi_act_init(&a, ar, ROWS, k, mask, NULL), QS_OK);
    return a;
}

static void same(const qsi_act *a, const qsi_act *b) {
    assert_memory_equal(a->f32, b->f32, (size_t)(ROWS * a->ld) * sizeof *a->f32);
    assert_memory_equal(a->bf16, b->bf16, (size_t)(ROWS * a->ld) * sizeof *a->bf16);
    assert_memory_equal(a->q8, b->q8, (size_t)(ROWS * a->ld8) * sizeof *a->q8);
    if (a->k8) assert_memory_equal(a->k8, b->k8, (size_t)(ROWS * a->ldk) * sizeof *a->k8);
}

static void put_cols(int64_t k, int64_t cols) {
    const qsi_kern *kern = qsi_kern_get(qsi_cpu_isa());
    static float x[ROWS * MOST];
    qsi_arena ar;
    qsi_rng r;
    unsigned mask = k % 256 ? MASK & ~(unsigned)QSI_ACT_K8 : MASK;
    qsi_arena_init(&ar);
    qsi_act whole = make(&ar, k, mask), parts = make(&ar, k, mask);
    qsi_rng_init(&r, (uint64_t)k);
    for (int64_t i = 0; i < ROWS * k; i++) x[i] = (float)qsi_rng_normal(&r);
    for (int64_t t = 0; t < ROWS; t++) {
        qsi_act_put(kern, &whole, t, x + t * k);
        for (int64_t c = 0; c < k; c += cols)
            qsi_act_put_cols(kern, &parts, t, c, qsi_min64(c + cols, k), x + t * k + c);
    }
    same(&whole, &parts);
    assert_true(whole.f32[(ROWS - 1) * whole.ld + k - 1] == x[ROWS * k - 1]);
    qsi_arena_release(&ar);
}

static void test_columns(void **state) {
    (void)state;
    put_cols(11008, 1536);
    put_cols(1024, 256);
    put_cols(1408, 256); /* no whole block of 256 at the end */
    put_cols(96, 256);
}

static void test_cut(void **state) {
    (void)state;
    static const int64_t k[] = {1, 255, 256, 257, 4096, 11008};
    for (int workers = 1; workers < 9; workers++)
        for (int64_t n = 0; n < 70; n++)
            for (size_t j = 0; j < QSI_COUNT(k); j++) {
                qsi_worker w = {.count = workers};
                qsi_op o = {.w = &w};
                qsi_cut cut = qsi_op_cut(&o, n, k[j]);
                int64_t row = 0, at = 0;
                for (int64_t i = 0; i < cut.items; i++) {
                    int64_t c0, c1, t = qsi_cut_at(&cut, i, &c0, &c1);
                    assert_true(t == row && c0 == at && c1 > c0 && c1 <= k[j]);
                    assert_true(c0 % 256 == 0 && (c1 % 256 == 0 || c1 == k[j]));
                    at = c1 == k[j] ? 0 : c1;
                    row += c1 == k[j];
                }
                assert_true(row == n && at == 0);
                if (n >= 4 * workers) assert_int_equal(cut.items, n);
                if (n == 1 && k[j] == 11008) assert_true(cut.items >= workers);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
