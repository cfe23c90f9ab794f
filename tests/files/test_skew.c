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
#include "op/op.h"

enum { N = 64, K = 6, TOKENS = 3000, MOST = 256 };

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

/* Share of the tokens that each expert serves, when tokens are random directions: logits are
 * independent, of the factors' deviations. Other draws than those the factors were fitted to. */
static void serve(const qsi_skew_router *r, const float *factor, double *use) {
    float logit[MOST], work[2 * MOST], wt[MOST];
    int32_t idx[MOST];
    const qsi_route route = {.n = r->n, .n_used = r->k, .n_group = r->n_group,
                             .n_group_used = r->n_group_used, .sigmoid = r->sigmoid, .scale = 1};
    qsi_rng rng;
    qsi_rng_init(&rng, 99);
    for (int e = 0; e < r->n; e++) use[e] = 0;
    for (int t = 0; t < TOKENS; t++) {
        for (int e = 0; e < r->n; e++)
            logit[e] = (float)(r->deviation * (double)factor[e] * qsi_rng_normal(&rng));
        qsi_route_row_chosen(qsi_kern_get(QSI_ISA_REF), &route, logit, idx, wt, work);
        for (int k = 0; k < r->k; k++) use[idx[k]] += 1.0 / TOKENS;
    }
}

/* The published routers: DeepSeekMoE 16B, V2, V3. */
static const qsi_skew_router routers[] = {
    {.n = 64, .k = 6, .deviation = 0.27},
    {.n = 160, .k = 6, .n_group = 8, .n_group_used = 3, .deviation = 0.43},
    {.n = 256, .k = 8, .n_group = 8, .n_group_used = 4, .sigmoid = true, .deviation = 0.51},
};

static void experts_are_chosen_in_their_shares(void **state) {
    static const double exponents[] = {0.5, 1.5};
    for (size_t j = 0; j < QSI_COUNT(routers); j++)
        for (size_t i = 0; i < QSI_COUNT(exponents); i++) {
            const qsi_skew_router *r = &routers[j];
            float f[MOST], dealt[MOST];
            double p[MOST], use[MOST], squares = 0;
            assert_int_equal(qsi_skew_shares(exponents[i], r->n, r->k, p, NULL), QS_OK);
            assert_int_equal(qsi_skew_factors(exponents[i], r, f, NULL), QS_OK);
            for (int e = 0; e < r->n; e++) squares += (double)f[e] * (double)f[e];
            assert_true(fabs(squares / r->n - 1) < 1e-5);
            qsi_skew_deal(r, f, 5, 3, dealt);
            serve(r, dealt, use);
            qsort(use, (size_t)r->n, sizeof *use, downwards);
            double most = 0;
            for (int e = 0; e < r->n; e++) {
                /* the fit sees 2,000 tokens: five standard errors of both; and sorting by what was
                 * seen pulls equals apart */
                double error = sqrt(p[e] * (1 / 2000.0 + 1.0 / TOKENS));
                double off = fabs(use[e] - p[e]) / (5 * error + 0.02 * p[e]);
                if (off > most) most = off;
            }
            print_message("%d experts, exponent %g: %.2f of the tolerance\n", r->n, exponents[i], most);
            assert_true(most < 1);
        }
}

static void groups_that_make_no_sense_are_refused(void **state) {
    float f[MOST];
    qsi_skew_router r = routers[1];
    r.n_group = 7;
    assert_int_equal(qsi_skew_factors(1, &r, f, NULL), QS_E_ARG);
    r.n_group = 8;
    r.n_group_used = 9;
    assert_int_equal(qsi_skew_factors(1, &r, f, NULL), QS_E_ARG);
}

static void the_seed_deals_the_ranks(void **state) {
    for (size_t j = 0; j < QSI_COUNT(routers); j++) {
        const qsi_skew_router *r = &routers[j];
        float rank[MOST], a[MOST], b[MOST], c[MOST];
        size_t n = (size_t)r->n * sizeof *a;
        for (int i = 0; i < r->n; i++) rank[i] = (float)i;
        qsi_skew_deal(r, rank, 7, 3, a);
        qsi_skew_deal(r, rank, 7, 3, b);
        qsi_skew_deal(r, rank, 7, 4, c);
        assert_memory_equal(a, b, n);
        assert_true(memcmp(a, c, n) != 0);
        bool there[MOST] = {false};
        for (int i = 0; i < r->n; i++) there[(int)a[i]] = true;
        for (int i = 0; i < r->n; i++) assert_true(there[i]);
        /* every group has one of the n_group best, and so on */
        for (int g = 0; g < r->n_group; g++) {
            int per = r->n / r->n_group, sum = 0;
            for (int i = 0; i < per; i++) sum += 1 << (int)a[g * per + i] / r->n_group % 30;
            assert_int_equal(sum, per < 30 ? (1 << per) - 1 : (1 << 30) - 1 + (1 << (per - 30)) - 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_follow_the_law),
        cmocka_unit_test(impossible_laws_are_refused),
        cmocka_unit_test(experts_are_chosen_in_their_shares),
        cmocka_unit_test(groups_that_make_no_sense_are_refused),
        cmocka_unit_test(the_seed_deals_the_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
