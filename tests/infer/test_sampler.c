/* infer/sampler: against a plain reference that sorts everything, against exact distributions
 * (chi-square), and its properties. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/sampler.h"

#define N 40

static const float *sort_logits;

static int by_logit(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_logits[x] != sort_logits[y]) return sort_logits[x] > sort_logits[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* The distribution that settings and history ask for, written down as the definitions say. */
static void reference(const qsi_sampling *s, const float *logits, const int32_t *hist, size_t n_hist,
                      double p[N]) {
    float x[N];
    for (int i = 0; i < N; i++) x[i] = logits[i];
    for (size_t i = 0; i < s->n_bias; i++) x[s->bias[i].id] += s->bias[i].bias;
    size_t from = s->penalty_last_n >= 0 && (size_t)s->penalty_last_n < n_hist
                      ? n_hist - (size_t)s->penalty_last_n : 0;
    for (int i = 0; i < N; i++) {
        int count = 0;
        for (size_t j = from; j < n_hist; j++) count += hist[j] == i;
        if (count == 0) continue;
        double v = x[i];
        v = v <= 0 ? v * s->repeat_penalty : v / s->repeat_penalty;
        x[i] = (float)(v - (count * s->frequency_penalty + s->presence_penalty));
    }
    int32_t order[N];
    for (int i = 0; i < N; i++) order[i] = i;
    sort_logits = x;
    qsort(order, N, sizeof order[0], by_logit);
    int n = s->top_k > 0 && s->top_k < N ? s->top_k : N;
    double total = 0, cum = 0, sum = 0;
    for (int i = 0; i < n; i++) total += exp((double)x[order[i]] - x[order[0]]);
    if (s->top_p < 1)
        for (int i = 0; i < n; i++) {
            cum += exp((double)x[order[i]] - x[order[0]]) / total;
            if (cum >= s->top_p - 1e-12) n = i + 1;
        }
    if (s->min_p > 0)
        while (n > 1 && exp((double)x[order[n - 1]] - x[order[0]]) < s->min_p) n--;
    for (int i = 0; i < N; i++) p[i] = 0;
    for (int i = 0; i < n; i++) {
        p[order[i]] = exp(((double)x[order[i]] - x[order[0]]) / s->temp);
        sum += p[order[i]];
    }
    for (int i = 0; i < N; i++) p[i] /= sum;
}

static void random_logits(qsi_rng *rng, float *x) {
    for (int i = 0; i < N; i++) x[i] = (float)(2 * qsi_rng_normal(rng));
}

/* Draws often; ids of probability zero must never come, the rest must pass a chi-square test (cells
 * of fewer than 5 expected draws are joined). With df <= 39 the bound 85 has p below 1e-4. */
static void check_distribution(const qsi_sampling *s, uint64_t seed) {
    enum { DRAWS = 20000 };
    float logits[N];
    int32_t hist[30];
    double p[N], chi2 = 0, rest_p = 0;
    int count[N] = { 0 }, rest = 0, cells = 0;
    qsi_rng rng;
    qsi_rng_init(&rng, seed);
    random_logits(&rng, logits);
    for (int i = 0; i < 30; i++) hist[i] = (int32_t)qsi_rng_below(&rng, N);
    reference(s, logits, hist, 30, p);
    qsi_sampler *sm;
    assert_int_equal(qsi_sampler_create(&sm, N, NULL), QS_OK);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id;
        assert_int_equal(qsi_sampler_pick(sm, s, logits, hist, 30, &rng, &id, NULL), QS_OK);
        assert_in_range(id, 0, N - 1);
        count[id]++;
    }
    qsi_sampler_free(sm);
    for (int i = 0; i < N; i++) {
        if (p[i] == 0) assert_int_equal(count[i], 0);
        if (p[i] * DRAWS < 5) {
            rest += count[i];
            rest_p += p[i];
            continue;
        }
        double d = count[i] - p[i] * DRAWS;
        chi2 += d * d / (p[i] * DRAWS);
        cells++;
    }
    if (rest_p * DRAWS >= 5) chi2 += pow(rest - rest_p * DRAWS, 2) / (rest_p * DRAWS);
    assert_true(cells >= 1);
    assert_true(chi2 < 85);
}

static void test_distributions(void **state) {
    qsi_logit_bias bias[] = { { 3, 2.5f }, { 7, -INFINITY }, { 3, -0.5f } };
    qsi_sampling base = { .temp = 1, .top_p = 1, .repeat_penalty = 1, .penalty_last_n = 64 };
    for (uint64_t seed = 1; seed <= 3; seed++) {
        qsi_sampling s = base;
        check_distribution(&s, seed);
        s.temp = 0.6;
        check_distribution(&s, seed);
        s.top_k = 7;
        check_distribution(&s, seed);
        s.top_p = 0.8; /* a share of what top-k kept */
        check_distribution(&s, seed);
        s.top_k = 0;
        check_distribution(&s, seed);
        s.min_p = 0.15;
        check_distribution(&s, seed);
        s.top_p = 1;
        check_distribution(&s, seed);
        s = base;
        s.repeat_penalty = 1.3;
        s.frequency_penalty = 0.4;
        s.presence_penalty = 0.2;
        check_distribution(&s, seed);
        s.penalty_last_n = 6;
        s.top_p = 0.9;
        check_distribution(&s, seed);
        s.penalty_last_n = -1;
        s.bias = bias;
        s.n_bias = 3;
        check_distribution(&s, seed);
        qsi_sampling_default(&s);
        check_distribution(&s, seed);
    }
}

/* The heap's order must be that of a full sort for any input, ties included. */
static void test_support(void **state) {
    qsi_rng rng;
    qsi_rng_init(&rng, 11);
    qsi_sampler *sm;
    assert_int_equal(qsi_sampler_create(&sm, N, NULL), QS_OK);
    for (int round = 0; round < 500; round++) {
        float logits[N];
        for (int i = 0; i < N; i++) logits[i] = (float)qsi_rng_below(&rng, 9) * 0.5f;
        qsi_logprob top[N];
        int32_t order[N];
        for (int i = 0; i < N; i++) order[i] = i;
        sort_logits = logits;
        qsort(order, N, sizeof order[0], by_logit);
        int32_t k = 1 + (int32_t)qsi_rng_below(&rng, N);
        assert_int_equal(qsi_logprob_top(sm, logits, k, top), k);
        double sum = 0;
        for (int i = 0; i < N; i++) sum += exp(logits[i]);
        for (int32_t i = 0; i < k; i++) {
            assert_int_equal(top[i].id, order[i]);
            assert_true(fabs(top[i].logprob - (logits[order[i]] - log(sum))) < 1e-12);
            assert_true(top[i].logprob == qsi_logprob_of(logits, N, top[i].id));
        }
        /* greedy: the first of that order, whatever the cuts, and no draw */
        qsi_sampling s = { .temp = 0, .top_k = 3, .top_p = 0.1, .repeat_penalty = 1 };
        qsi_rng before = rng;
        int32_t id;
        assert_int_equal(qsi_sampler_pick(sm, &s, logits, NULL, 0, &rng, &id, NULL), QS_OK);
        assert_int_equal(id, order[0]);
        assert_memory_equal(&before, &rng, sizeof rng);
        /* top-k of 1 is greedy too */
        s = (qsi_sampling){ .temp = 5, .top_k = 1, .top_p = 1, .repeat_penalty = 1 };
        assert_int_equal(qsi_sampler_pick(sm, &s, logits, NULL, 0, &rng, &id, NULL), QS_OK);
        assert_int_equal(id, order[0]);
    }
    qsi_sampler_free(sm);
}

static void test_same_seed(void **state) {
    qsi_sampling s;
    qsi_sampling_default(&s);
    s.repeat_penalty = 1.1;
    float logits[N];
    qsi_rng rng;
    qsi_rng_init(&rng, 5);
    random_logits(&rng, logits);
    int32_t first[200], hist[200];
    for (int run = 0; run < 3; run++) {
        qsi_sampler *sm;
        assert_int_equal(qsi_sampler_create(&sm, N, NULL), QS_OK);
        qsi_rng_init(&rng, run == 2 ? 43 : 42);
        int differ = 0;
        for (int i = 0; i < 200; i++) {
            assert_int_equal(qsi_sampler_pick(sm, &s, logits, hist, (size_t)i, &rng, &hist[i], NULL),
                             QS_OK);
            if (run == 0) first[i] = hist[i];
            differ += hist[i] != first[i];
        }
        if (run < 2) assert_int_equal(differ, 0);
        else assert_true(differ > 0);
        qsi_sampler_free(sm);
    }
}

static void test_bad(void **state) {
    qs_err err;
    qsi_sampling s;
    qsi_logit_bias bias = { N, 1 };
    qsi_sampling_default(&s);
    assert_int_equal(qsi_sampling_check(&s, N, &err), QS_OK);
    s.temp = NAN;
    assert_int_equal(qsi_sampling_check(&s, N, &err), QS_E_ARG);
    qsi_sampling_default(&s);
    s.top_p = -1;
    assert_int_equal(qsi_sampling_check(&s, N, &err), QS_E_ARG);
    qsi_sampling_default(&s);
    s.repeat_penalty = 0;
    assert_int_equal(qsi_sampling_check(&s, N, &err), QS_E_ARG);
    qsi_sampling_default(&s);
    s.bias = &bias;
    s.n_bias = 1;
    assert_int_equal(qsi_sampling_check(&s, N, &err), QS_E_ARG);

    /* everything forbidden */
    qsi_sampler *sm;
    float logits[N];
    int32_t id;
    qsi_rng rng;
    qsi_rng_init(&rng, 1);
    for (int i = 0; i < N; i++) logits[i] = -INFINITY;
    qsi_sampling_default(&s);
    assert_int_equal(qsi_sampler_create(&sm, N, NULL), QS_OK);
    assert_int_equal(qsi_sampler_pick(sm, &s, logits, NULL, 0, &rng, &id, &err), QS_E_NUMERIC);
    /* all but one */
    logits[17] = -3;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(qsi_sampler_pick(sm, &s, logits, NULL, 0, &rng, &id, &err), QS_OK);
        assert_int_equal(id, 17);
    }
    qsi_sampler_free(sm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions),
        cmocka_unit_test(test_support),
        cmocka_unit_test(test_same_seed),
        cmocka_unit_test(test_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
