/* Routers with a skew. A token's normalised state u has a fixed length, so the logit of an expert
 * whose router row is random with deviation a is, over tokens, a normal number of deviation
 * proportional to a. Were the bar for being among the k best the same for every token, an expert of
 * share p would have to pass it with probability p: a = 1 / z(p), z the upper quantile of the normal
 * distribution. The bar moves from token to token with the number of experts that do well; that is
 * allowed for by a fixed-point iteration over drawn tokens, which the true router (op/route.c)
 * serves: so groups, and sums of two sigmoids, are allowed for as well. No scale gets an expert beyond
 * half of the tokens (its logits are as often negative as positive), hence the bound on shares. */
#include "files/skew.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "op/op.h"

#define SQRT_HALF 0.70710678118654752440
enum { ROUNDS = 12, TOKENS = 2000 };

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

/* Where the expert of a rank stands before experts are dealt: its group times their size, and its place
 * there. Groups take ranks in turns, to and fro. */
static int place_of(const qsi_skew_router *r, int rank) {
    if (r->n_group <= 1) return rank;
    int slot = rank / r->n_group, turn = rank % r->n_group;
    int group = slot % 2 == 0 ? turn : r->n_group - 1 - turn;
    return group * (r->n / r->n_group) + slot;
}

typedef struct solver {
    const qsi_skew_router *r;
    const qsi_kern *k;
    const double *share; /* by rank, as a and seen */
    double *a, *seen;
    float *logit, *work, *wt; /* [n], [2 n], [k] */
    int32_t *idx;             /* [k] */
} solver;

static double root_mean_square(const double *a, int n) {
    double squares = 0;
    for (int i = 0; i < n; i++) squares += a[i] * a[i];
    return sqrt(squares / n);
}

/* Counts who serves TOKENS drawn tokens; the same ones each time. */
static void draw(solver *x) {
    const qsi_skew_router *r = x->r;
    const qsi_route route = {.n = r->n, .n_used = r->k, .n_group = r->n_group,
                             .n_group_used = r->n_group_used, .sigmoid = r->sigmoid, .scale = 1};
    double unit = r->deviation / root_mean_square(x->a, r->n);
    qsi_rng rng;
    qsi_rng_init_stream(&rng, 1, (uint64_t)r->n << 32 | (uint64_t)r->k);
    memset(x->seen, 0, (size_t)r->n * sizeof *x->seen);
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < r->n; i++)
            x->logit[place_of(r, i)] = (float)(unit * x->a[i] * qsi_rng_normal(&rng));
        qsi_route_row_chosen(x->k, &route, x->logit, x->idx, x->wt, x->work);
        for (int i = 0; i < r->k; i++) x->work[x->idx[i]] = INFINITY; /* a mark */
        for (int i = 0; i < r->n; i++) x->seen[i] += x->work[place_of(r, i)] == INFINITY;
    }
}

/* The deviations a[rank] that give the shares. */
static void solve(solver *x) {
    for (int i = 0; i < x->r->n; i++) x->a[i] = 1 / upper_quantile(x->share[i]);
    for (int round = 0; round < ROUNDS; round++) {
        draw(x);
        for (int i = 0; i < x->r->n; i++) { /* to the deviation that passes as often as it should */
            double is = fmin(fmax((x->seen[i] + 1) / (TOKENS + 2), 1e-3), 0.49);
            double ratio = upper_quantile(is) / upper_quantile(x->share[i]);
            x->a[i] *= fmin(fmax(ratio, 0.5), 2);
        }
    }
}

qs_status qsi_skew_factors(double s, const qsi_skew_router *r, float *by_rank, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = r->n > 0 ? (size_t)r->n : 0, k = r->k > 0 ? (size_t)r->k : 0;
    double *share = NULL;
    solver x = {.r = r, .k = qsi_kern_get(QSI_ISA_REF)}; /* the same on every machine */
    if (r->n_group > 1 && (r->n % r->n_group || r->n_group_used < 1 || r->n_group_used > r->n_group))
        QS_FAIL(err, QS_E_ARG, "%d of %d groups of %d experts", r->n_group_used, r->n_group, r->n);
    if (!n || !(share = qsi_alloc(3 * n, sizeof *share)) ||
        !(x.logit = qsi_alloc(3 * n + k, sizeof *x.logit)) ||
        !(x.idx = qsi_alloc(k + 1, sizeof *x.idx)))
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    x.share = share;
    x.a = share + n;
    x.seen = share + 2 * n;
    x.work = x.logit + n;
    x.wt = x.logit + 3 * n;
    for (size_t i = 0; i < n; i++) by_rank[i] = 1;
    if (s == 0) goto done; /* any number of them */
    QS_TRY(qsi_skew_shares(s, r->n, r->k, share, err));
    solve(&x);
    double unit = root_mean_square(x.a, r->n);
    for (size_t i = 0; i < n; i++) by_rank[i] = (float)(x.a[i] / unit);
done:
    qsi_free(share);
    qsi_free(x.logit);
    qsi_free(x.idx);
    return st;
}

/* Swaps runs of n values. */
static void swap(float *a, float *b, int n) {
    for (int i = 0; i < n; i++) {
        float t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

static void deal_groups(const qsi_skew_router *r, qsi_rng *rng, float *by_expert) {
    int per = r->n / r->n_group;
    for (int g = 0; g < r->n_group; g++)
        for (int i = per - 1; i > 0; i--) {
            int j = (int)qsi_rng_below(rng, (uint64_t)i + 1);
            if (j != i) swap(by_expert + g * per + i, by_expert + g * per + j, 1);
        }
    for (int g = r->n_group - 1; g > 0; g--) {
        int o = (int)qsi_rng_below(rng, (uint64_t)g + 1);
        if (o != g) swap(by_expert + g * per, by_expert + o * per, per);
    }
}

void qsi_skew_deal(const qsi_skew_router *r, const float *by_rank, uint64_t seed, uint64_t stream,
                   float *by_expert) {
    qsi_rng rng;
    qsi_rng_init_stream(&rng, seed, stream);
    if (r->n_group > 1) {
        for (int i = 0; i < r->n; i++) by_expert[place_of(r, i)] = by_rank[i];
        deal_groups(r, &rng, by_expert);
        return;
    }
    for (int i = 0; i < r->n; i++) { /* rank i takes a random place among i + 1, whose holder moves up */
        int place = (int)qsi_rng_below(&rng, (uint64_t)i + 1);
        if (place < i) by_expert[i] = by_expert[place];
        by_expert[place] = by_rank[i];
    }
}
