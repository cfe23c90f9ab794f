/* api/api_tensor: shapes, views and operations against plain loops in double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "qiusuo/tensor.h"

#define OK(call) assert_int_equal((call), QS_OK)
#define DIMS(...) (int64_t[]){ __VA_ARGS__ }
#define ORDER(...) (int[]){ __VA_ARGS__ }

static qs_tensor *randoms(int n_dims, const int64_t *dims, uint64_t stream) {
    qs_tensor *t;
    OK(qs_tensor_create(&t, n_dims, dims, NULL));
    qs_tensor_random(t, 7, stream, -2, 3);
    return t;
}

static void near(double a, double b) { assert_true(fabs(a - b) <= 1e-4 * (1 + fabs(b))); }

static void test_create(void **state) {
    qs_tensor *t = NULL;
    qs_err err;
    char buf[64];
    const float values[] = { 1, 2, 3, 4, 5, 6 };
    OK(qs_tensor_from(&t, 2, DIMS(2, 3), values, NULL));
    assert_string_equal(qs_tensor_shape(t, buf, sizeof buf), "(2, 3)");
    assert_true(qs_tensor_at(t, DIMS(1, 0)) == 4);
    assert_true(qs_tensor_sum(t) == 21);
    assert_int_equal(qs_tensor_n_dims(t), 2);
    assert_int_equal(qs_tensor_size(t), 6);
    qs_tensor_free(t);
    t = NULL;
    assert_int_equal(qs_tensor_create(&t, 0, NULL, &err), QS_E_ARG);
    assert_int_equal(qs_tensor_create(&t, 7, DIMS(1, 1, 1, 1, 1, 1, 1), &err), QS_E_ARG);
    assert_int_equal(qs_tensor_create(&t, 2, DIMS(3, 0), &err), QS_E_ARG);
    assert_int_equal(qs_tensor_create(&t, 3, DIMS(1 << 30, 1 << 30, 1 << 30), &err), QS_E_LIMIT);
    assert_null(t);
    qs_tensor_free(NULL);
}

static void test_random(void **state) {
    /* the documented generator is the library's: the same numbers as base/hash.h */
    qs_tensor *t = randoms(2, DIMS(5, 9), 3), *again = randoms(2, DIMS(5, 9), 3);
    qsi_rng rng;
    qsi_rng_init_stream(&rng, 7, 3);
    for (int64_t i = 0; i < 45; i++) {
        float want = 5.0f * qsi_rng_f32(&rng);
        want = -2.0f + want;
        assert_true(qs_tensor_at(t, DIMS(i / 9, i % 9)) == want);
        assert_true(qs_tensor_at(again, DIMS(i / 9, i % 9)) == want);
    }
    qs_tensor_free(t);
    qs_tensor_free(again);
}

static void test_views(void **state) {
    qs_tensor *t = randoms(3, DIMS(2, 3, 4), 1), *p, *r, *flat;
    qs_err err;
    float want[24], got[24];
    OK(qs_tensor_permute(&p, t, ORDER(2, 0, 1), NULL));
    for (int64_t i = 0; i < 2; i++)
        for (int64_t j = 0; j < 3; j++)
            for (int64_t k = 0; k < 4; k++) {
                float x = qs_tensor_at(t, DIMS(i, j, k));
                assert_true(qs_tensor_at(p, DIMS(k, i, j)) == x);
                want[(k * 2 + i) * 3 + j] = x;
            }
    qs_tensor_read(p, got);
    assert_memory_equal(got, want, sizeof want);
    /* a reshape of values that do not lie row-major copies them in their order */
    OK(qs_tensor_reshape(&r, p, 2, DIMS(6, 4), NULL));
    qs_tensor_read(r, got);
    assert_memory_equal(got, want, sizeof want);
    /* a view outlives what it came from, and shares its values */
    OK(qs_tensor_reshape(&flat, t, 1, DIMS(24), NULL));
    qs_tensor_scale(t, 2);
    assert_true(qs_tensor_at(flat, DIMS(23)) == qs_tensor_at(t, DIMS(1, 2, 3)));
    assert_true(qs_tensor_at(p, DIMS(3, 1, 2)) == qs_tensor_at(t, DIMS(1, 2, 3)));
    assert_true(qs_tensor_at(r, DIMS(0, 0)) * 2 == qs_tensor_at(t, DIMS(0, 0, 0)));
    assert_int_equal(qs_tensor_reshape(&p, t, 1, DIMS(23), &err), QS_E_ARG);
    assert_int_equal(qs_tensor_permute(&p, t, ORDER(0, 1, 1), &err), QS_E_ARG);
    qs_tensor_free(t);
    assert_true(isfinite(qs_tensor_sum(flat)));
    qs_tensor_free(flat);
    qs_tensor_free(p);
    qs_tensor_free(r);
}

static void test_linear(void **state) {
    static const int64_t shapes[][3] = { { 1, 1, 1 }, { 2, 3, 5 }, { 7, 40, 33 }, { 5, 17, 64 } };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t m = shapes[s][0], k = shapes[s][1], n = shapes[s][2];
        qs_tensor *x = randoms(3, DIMS(2, m, k), 1), *w = randoms(2, DIMS(n, k), 2),
                  *b = randoms(1, DIMS(n), 3), *y, *z, *wt, *twice;
        OK(qs_tensor_linear(&y, x, w, b, NULL));
        OK(qs_tensor_linear(&z, x, w, NULL, NULL));
        assert_int_equal(qs_tensor_dim(y, 2), n);
        for (int64_t h = 0; h < 2; h++)
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (int64_t c = 0; c < k; c++)
                        sum += (double)qs_tensor_at(x, DIMS(h, i, c)) * qs_tensor_at(w, DIMS(j, c));
                    near(qs_tensor_at(z, DIMS(h, i, j)), sum);
                    near(qs_tensor_at(y, DIMS(h, i, j)), sum + qs_tensor_at(b, DIMS(j)));
                }
        /* a matrix given as a view of its transpose is the same matrix */
        OK(qs_tensor_permute(&wt, w, ORDER(1, 0), NULL));
        OK(qs_tensor_reshape(&twice, wt, 2, DIMS(k, n), NULL));
        qs_tensor *back;
        OK(qs_tensor_permute(&back, twice, ORDER(1, 0), NULL));
        qs_tensor_free(y);
        OK(qs_tensor_linear(&y, x, back, NULL, NULL));
        for (int64_t j = 0; j < n; j++)
            assert_true(qs_tensor_at(y, DIMS(1, 0, j)) == qs_tensor_at(z, DIMS(1, 0, j)));
        qs_tensor_free(x);
        qs_tensor_free(w);
        qs_tensor_free(b);
        qs_tensor_free(y);
        qs_tensor_free(z);
        qs_tensor_free(wt);
        qs_tensor_free(twice);
        qs_tensor_free(back);
    }
}

static void test_matmul(void **state) {
    qs_tensor *a = randoms(4, DIMS(2, 3, 5, 7), 1), *b = randoms(4, DIMS(2, 3, 7, 4), 2), *c, *at, *d;
    qs_err err;
    OK(qs_tensor_matmul(&c, a, b, NULL));
    for (int64_t g = 0; g < 6; g++)
        for (int64_t i = 0; i < 5; i++)
            for (int64_t j = 0; j < 4; j++) {
                double sum = 0;
                for (int64_t k = 0; k < 7; k++)
                    sum += (double)qs_tensor_at(a, DIMS(g / 3, g % 3, i, k)) *
                           qs_tensor_at(b, DIMS(g / 3, g % 3, k, j));
                near(qs_tensor_at(c, DIMS(g / 3, g % 3, i, j)), sum);
            }
    /* both factors as views with the last two dims swapped: (BᵀAᵀ)ᵀ = AB */
    qs_tensor *bt;
    OK(qs_tensor_permute(&at, a, ORDER(0, 1, 3, 2), NULL));
    OK(qs_tensor_permute(&bt, b, ORDER(0, 1, 3, 2), NULL));
    OK(qs_tensor_matmul(&d, bt, at, NULL));
    for (int64_t i = 0; i < 5; i++)
        for (int64_t j = 0; j < 4; j++)
            near(qs_tensor_at(d, DIMS(1, 2, j, i)), qs_tensor_at(c, DIMS(1, 2, i, j)));
    qs_tensor *none = NULL;
    assert_int_equal(qs_tensor_matmul(&none, a, a, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "(2, 3, 5, 7)"));
    assert_null(none);
    qs_tensor_free(a);
    qs_tensor_free(b);
    qs_tensor_free(c);
    qs_tensor_free(d);
    qs_tensor_free(at);
    qs_tensor_free(bt);
}

static void test_masks_and_softmax(void **state) {
    qs_tensor *t = randoms(3, DIMS(2, 3, 6), 1), *p, *copy, *mask, *sum, *bias = NULL;
    qs_err err;
    float open[6] = { 1, 0, 1, 1, 0, 1 };
    OK(qs_tensor_from(&mask, 2, DIMS(1, 6), open, NULL));
    OK(qs_tensor_add(&copy, t, mask, NULL)); /* broadcast over the rows */
    near(qs_tensor_at(copy, DIMS(1, 2, 1)), qs_tensor_at(t, DIMS(1, 2, 1)));
    near(qs_tensor_at(copy, DIMS(1, 2, 2)), qs_tensor_at(t, DIMS(1, 2, 2)) + 1);
    OK(qs_tensor_masked_fill(t, mask, -1e20f, NULL));
    assert_true(qs_tensor_at(t, DIMS(0, 1, 4)) == -1e20f);
    OK(qs_tensor_softmax(t, NULL));
    for (int64_t i = 0; i < 6; i++) {
        double total = 0, want = 0;
        for (int64_t j = 0; j < 6; j++) {
            float x = qs_tensor_at(t, DIMS(i / 3, i % 3, j));
            if (open[j] == 0) assert_true(x == 0);
            total += x;
            if (open[j] != 0) want += exp(qs_tensor_at(copy, DIMS(i / 3, i % 3, j)));
        }
        near(total, 1);
        near(qs_tensor_at(t, DIMS(i / 3, i % 3, 3)),
             exp(qs_tensor_at(copy, DIMS(i / 3, i % 3, 3))) / want);
    }
    /* along a dimension that is not contiguous */
    OK(qs_tensor_permute(&p, copy, ORDER(0, 2, 1), NULL));
    OK(qs_tensor_softmax(p, NULL));
    near(qs_tensor_at(copy, DIMS(0, 0, 5)) + qs_tensor_at(copy, DIMS(0, 1, 5)) +
             qs_tensor_at(copy, DIMS(0, 2, 5)), 1);
    OK(qs_tensor_create(&bias, 1, DIMS(5), NULL));
    assert_int_equal(qs_tensor_add(&sum, t, bias, &err), QS_E_ARG);
    assert_int_equal(qs_tensor_masked_fill(bias, mask, 0, &err), QS_E_ARG);
    qs_tensor_free(bias);
    qs_tensor_free(t);
    qs_tensor_free(p);
    qs_tensor_free(copy);
    qs_tensor_free(mask);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create), cmocka_unit_test(test_random),
        cmocka_unit_test(test_views),  cmocka_unit_test(test_linear),
        cmocka_unit_test(test_matmul), cmocka_unit_test(test_masks_and_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
