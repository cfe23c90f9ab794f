/* Skewed routers: shares, and experts chosen by drawn tokens in those shares. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "files/skew.h"

enum { N = 64, K = 6, TOKENS = 10000 };

static void shares_follow_the_law(void **state) {
    static const double exponents[] = {0, 0.5, 1, 2};
    for (size_t i = 0; i < QSI_COUNT(exponents); i++) {
        double p[N], sum = 0;
        assert_int_equal(qsi_skew_shares(exponents[i], N, K, p, NULL), QS_OK);
        for (int r = 0; r < N; r++) sum += p[r];
        assert_true(fabs(sum - K) < 1e-9);
        for (int r = 1; r < N; r++) {
            assert_true(p[r] <= p[r - 1] && p[r] <= QSI_SKEW_MOST);
            if (p[r - 1] < QSI_SKEW_MOST)
                assert_true(fabs(p[r] / p[r - 1] - pow((r + 1.0) / r, -exponents[i])) < 1e-9);
        }
    }
}

static void impossible_laws_are_refused(void **state) {
    double p[N];
    assert_int_equal(qsi_skew_shares(-1, N, K, p, NULL), QS_E_ARG);
    assert_int_equal(qsi_skew_shares(NAN, N, K, p, NULL), QS_E_ARG);
    assert_int_equal(qsi_skew_shares(11, N, K, p, NULL), QS_E_ARG);
    assert_int_equal(qsi_skew_shares(1, 4, 2, p, NULL), QS_E_ARG);
    assert_int_equal(qsi_skew_shares(1, N, 0, p, NULL), QS_E_ARG);
}

static int downwards(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Tokens are random directions: logits are independent, of the factors' deviations. Other draws than
 * those the factors were fitted to. */
static void experts_are_chosen_in_their_shares(void **state) {
    static const double exponents[] = {0.5, 1, 1.5};
    for (size_t i = 0; i < QSI_COUNT(exponents); i++) {
        float f[N];
        double p[N], use[N] = {0}, squares = 0;
        qsi_rng rng;
        qsi_rng_init(&rng, 99);
        assert_int_equal(qsi_skew_shares(exponents[i], N, K, p, NULL), QS_OK);
        assert_int_equal(qsi_skew_factors(exponents[i], N, K, f, NULL), QS_OK);
        for (int e = 0; e < N; e++) squares += (double)f[e] * (double)f[e];
        assert_true(fabs(squares / N - 1) < 1e-5);
        for (int t = 0; t < TOKENS; t++) {
            double logit[N];
            for (int e = 0; e < N; e++) logit[e] = (double)f[e] * qsi_rng_normal(&rng);
            for (int k = 0; k < K; k++) {
                int best = 0;
                for (int e = 1; e < N; e++) best = logit[e] > logit[best] ? e : best;
                use[best] += 1.0 / TOKENS;
                logit[best] = -INFINITY;
            }
        }
        qsort(use, N, sizeof *use, downwards);
        for (int r = 0; r < N; r++) { /* the fit sees 2,000 tokens: five standard errors of both */
            double error = sqrt(p[r] * (1 / 2000.0 + 1.0 / TOKENS));
            assert_true(fabs(use[r] - p[r]) < 5 * error + 0.02 * p[r]);
        }
    }
}

static void the_seed_deals_the_ranks(void **state) {
    float rank[N], a[N], b[N], c[N];
    for (int r = 0; r < N; r++) rank[r] = (float)r;
    qsi_skew_deal(rank, N, 7, 3, a);
    qsi_skew_deal(rank, N, 7, 3, b);
    qsi_skew_deal(rank, N, 7, 4, c);
    assert_memory_equal(a, b, sizeof a);
    assert_true(memcmp(a, c, sizeof a) != 0);
    bool there[N] = {false};
    for (int e = 0; e < N; e++) there[(int)a[e]] = true;
    for (int r = 0; r < N; r++) assert_true(there[r]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_the_law),
        cmocka_unit_test(impossible_laws_are_refused),
        cmocka_unit_test(experts_are_chosen_in_their_shares),
        cmocka_unit_test(the_seed_deals_the_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
