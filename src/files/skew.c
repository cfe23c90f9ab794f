/* Routers with a skew. A token's normalised state u has a fixed length, so the logit of an expert
 * whose router row is random with deviation a is, over tokens, a normal number of deviation
 * proportional to a. Were the bar for being among the k best the same for every token, an expert of
 * share p would have to pass it with probability p: a = 1 / z(p), z the upper quantile of the normal
 * distribution. The bar moves from token to token with the number of experts that do well; that is
 * allowed for by a fixed-point iteration over drawn tokens. No scale gets an expert beyond half of the
 * tokens (its logits are as often negative as positive), hence the bound on shares. */
#include "files/skew.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"

#define SQRT_HALF 0.70710678118654752440
enum { ROUNDS = 10, TOKENS = 2000 };

/* z with P(X > z) = p for a standard normal X. */
static double upper_quantile(double p) {
    double lo = -40, hi = 40;
    for (int i = 0; i < 64; i++) {
        double mid = 0.5 * (lo + hi);
        if (0.5 * erfc(mid * SQRT_HALF) > p) lo = mid;
        else hi = mid;
    }
    return 0.5 * (lo + hi);
}

qs_status qsi_skew_shares(double s, int n, int k, double *share, qs_err *err) {
    qs_status st = QS_OK;
    if (!(s >= 0 && s <= 10)) QS_FAIL(err, QS_E_ARG, "a router skew of %g; 0 to 10 are possible", s);
    if (k < 1 || k >= QSI_SKEW_MOST * n) {
        QS_FAIL(err, QS_E_ARG, "routers that choose %d of %d experts cannot be skewed: an expert gets "
                "at most %g of the tokens", k, n, QSI_SKEW_MOST);
    }
    double lo = 0, hi = k * pow(n, s); /* of the factor c in c (r + 1)^-s */
    for (int i = 0; i < 200; i++) {
        double c = 0.5 * (lo + hi), sum = 0;
        for (int r = 0; r < n; r++) {
            share[r] = fmin(QSI_SKEW_MOST, c * pow(r + 1, -s));
            sum += share[r];
        }
        if (sum < k) lo = c;
        else hi = c;
    }
done:
    return st;
}

/* Adds one to seen[r] for the k largest of the logits. */
static void count_best(const double *logit, int n, int k, double *seen, double *work) {
    memcpy(work, logit, (size_t)n * sizeof *work);
    for (int i = 0; i < k; i++) {
        int best = 0;
        for (int r = 1; r < n; r++) best = work[r] > work[best] ? r : best;
        seen[best]++;
        work[best] = -INFINITY;
    }
}

/* The deviations a[r] that give shares share[r]. work: 3 n. */
static void solve(const double *share, int n, int k, double *a, double *work) {
    double *seen = work, *logit = work + n, *left = work + 2 * n;
    for (int r = 0; r < n; r++) a[r] = 1 / upper_quantile(share[r]);
    for (int round = 0; round < ROUNDS; round++) {
        qsi_rng rng;
        qsi_rng_init_stream(&rng, 1, (uint64_t)n << 32 | (uint64_t)k); /* the same draws each time */
        memset(seen, 0, (size_t)n * sizeof *seen);
        for (int t = 0; t < TOKENS; t++) {
            for (int r = 0; r < n; r++) logit[r] = a[r] * qsi_rng_normal(&rng);
            count_best(logit, n, k, seen, left);
        }
        for (int r = 0; r < n; r++) { /* towards the deviation that passes as often as it should */
            double is = fmin(fmax((seen[r] + 1) / (TOKENS + 2), 1e-3), 0.49);
            double ratio = upper_quantile(is) / upper_quantile(share[r]);
            a[r] *= fmin(fmax(ratio, 0.5), 2);
        }
    }
}

qs_status qsi_skew_factors(double s, int n, int k, float *by_rank, qs_err *err) {
    qs_status st = QS_OK;
    double squares = 0, *share = NULL, *a = NULL;
    if (n < 1 || !(share = qsi_alloc((size_t)n * 5, sizeof *share)))
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    a = share + n;
    QS_TRY(qsi_skew_shares(s, n, k, share, err));
    solve(share, n, k, a, share + 2 * n);
    for (int r = 0; r < n; r++) squares += a[r] * a[r];
    for (int r = 0; r < n; r++) by_rank[r] = (float)(a[r] / sqrt(squares / n));
done:
    qsi_free(share);
    return st;
}

void qsi_skew_deal(const float *by_rank, int n, uint64_t seed, uint64_t stream, float *by_expert) {
    qsi_rng rng;
    qsi_rng_init_stream(&rng, seed, stream);
    for (int r = 0; r < n; r++) { /* rank r takes a random place among r + 1, whose holder moves up */
        int place = (int)qsi_rng_below(&rng, (uint64_t)r + 1);
        if (place < r) by_expert[r] = by_expert[place];
        by_expert[place] = by_rank[r];
    }
}
