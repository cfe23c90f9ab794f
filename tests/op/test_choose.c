/* The k largest of scores: against a sort that keeps the order of equal ones, on random scores, scores
 * with many ties, of both signs and of every size; and what is not finite. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "op/op.h"

enum { N = 700 };

static const float *sorted;

static int by_score(const void *a, const void *b) {
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sorted[i] != sorted[j]) return sorted[i] < sorted[j] ? 1 : -1;
    return i - j;
}

static int by_index(const void *a, const void *b) {
    return *(const int32_t *)a - *(const int32_t *)b;
}

static void check(const float *s, int32_t n, int32_t k) {
    int32_t want[N], got[N + 1];
    for (int32_t i = 0; i < n; i++) want[i] = i;
    sorted = s;
    qsort(want, (size_t)n, sizeof *want, by_score);
    qsort(want, (size_t)k, sizeof *want, by_index);
    got[k] = -7;
    assert_true(qsi_choose_top(s, n, k, got));
    assert_memory_equal(want, got, (size_t)k * sizeof *got);
    assert_int_equal(got[k], -7);
}

static void check_all(const float *s) {
    static const int32_t n[] = {2, 3, 64, 257, N};
    for (size_t i = 0; i < QSI_COUNT(n); i++)
        for (int32_t k = 1; k < n[i]; k += 1 + k / 3) check(s, n[i], k);
}

static void test_order(void **state) {
    (void)state;
    float s[N];
    qsi_rng r;
    qsi_rng_init(&r, 5);
    for (int i = 0; i < N; i++) s[i] = (float)qsi_rng_normal(&r);
    check_all(s);
    for (int i = 0; i < N; i++) s[i] = (float)((int)qsi_rng_below(&r, 7) - 3); /* ties */
    check_all(s);
    for (int i = 0; i < N; i++) s[i] = i % 2 ? 0.0f : -0.0f; /* all equal */
    check_all(s);
    for (int i = 0; i < N; i++) /* every exponent, denormals too */
        s[i] = ldexpf((float)qsi_rng_normal(&r), (int)qsi_rng_below(&r, 250) - 140);
    check_all(s);
}

static void test_not_finite(void **state) {
    (void)state;
    float s[] = {1, 2, 3, 4};
    int32_t out[2] = {-1, -1};
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        s[1] = bad[i];
        assert_false(qsi_choose_top(s, 4, 2, out));
        assert_int_equal(out[0], -1);
    }
}

/* Each place of every length, among finite values of the largest size. */
static void test_finite(void **state) {
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN, -NAN};
    float x[70];
    for (int n = 0; n < 70; n++) {
        for (int i = 0; i < n; i++) x[i] = i % 3 ? FLT_MAX : i % 2 ? -FLT_MAX : FLT_TRUE_MIN;
        assert_true(qsi_all_finite(x, n));
        for (int i = 0; i < n; i++)
            for (size_t j = 0; j < QSI_COUNT(bad); j++) {
                float was = x[i];
                x[i] = bad[j];
                assert_false(qsi_all_finite(x, n));
                x[i] = was;
            }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finite),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
