/* Row-wise pieces of positions and routing: rotary angles (Su et al. 2021) and the router of
 * DeepSeekMoE (arXiv:2401.06066, equations 3 to 5: softmax over all routed experts, top-k). */
#include "op/op.h"

#include <math.h>

void qsi_rope_freq(double *freq, int64_t hd, double theta, double factor) {
    for (int64_t i = 0; i < hd / 2; i++)
        freq[i] = pow(theta, -2.0 * (double)i / (double)hd) / factor;
}

void qsi_rope_freq_yarn(double *freq, int64_t hd, double theta, double factor, double orig_ctx,
                        double beta_fast, double beta_slow) {
    /* the pair that turns n times in the original context */
    double per_turn = (double)hd / (2 * log(theta)), turns = orig_ctx / (2 * acos(-1.0));
    double low = fmax(floor(per_turn * log(turns / beta_fast)), 0);
    double high = fmin(ceil(per_turn * log(turns / beta_slow)), (double)hd - 1);
    for (int64_t i = 0; i < hd / 2; i++) {
        double f = pow(theta, -2.0 * (double)i / (double)hd);
        double ramp = fmin(fmax(((double)i - low) / fmax(high - low, 1e-3), 0), 1);
        freq[i] = f * (1 - ramp) + f / factor * ramp;
    }
}

void qsi_rope_row(float *cs, const double *freq, int64_t hd, double pos) {
    for (int64_t i = 0; i < hd / 2; i++) {
        cs[2 * i] = (float)cos(pos * freq[i]);
        cs[2 * i + 1] = (float)sin(pos * freq[i]);
    }
}

void qsi_rope_halves(float *x, const float *cs, int64_t n) {
    float *y = x + n / 2;
    for (int64_t i = 0; i < n / 2; i++) {
        float a = x[i], b = y[i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = a * c - b * s;
        y[i] = b * c + a * s;
    }
}

/* The n_used largest of s, ids ascending. A larger score, or at the same score a lower id, wins. */
static void top_ids(const float *s, int64_t n, int64_t n_used, int32_t *idx) {
    int64_t have = 0; /* idx[0..have) is ordered best first */
    for (int64_t e = 0; e < n; e++) {
        int64_t at = have;
        while (at > 0 && s[e] > s[idx[at - 1]]) at--;
        if (at >= n_used) continue;
        if (have < n_used) have++;
        for (int64_t j = have - 1; j > at; j--) idx[j] = idx[j - 1];
        idx[at] = (int32_t)e;
    }
    for (int64_t i = 1; i < n_used; i++) {
        int32_t id = idx[i];
        int64_t j = i;
        for (; j > 0 && idx[j - 1] > id; j--) idx[j] = idx[j - 1];
        idx[j] = id;
    }
}

/* wt from the scores of the chosen. */
static void weights_of(const float *s, int64_t n_used, bool norm, float scale, const int32_t *idx,
                       float *wt) {
    float sum = 0.0f;
    for (int64_t j = 0; j < n_used; j++) sum += s[idx[j]];
    float f = norm ? scale / (sum + 1e-20f) : scale;
    for (int64_t j = 0; j < n_used; j++) wt[j] = s[idx[j]] * f;
}

static void softmax(const qsi_kern *k, float *x, int64_t n) {
    float m = 0.0f, l = k->softmax_exp(x, n, 1.0f, &m);
    k->scale(1.0f / l, x, n);
}

void qsi_route_row(const qsi_kern *k, float *logits, int64_t n, int64_t n_used, bool norm,
                   float scale, int32_t *idx, float *wt) {
    softmax(k, logits, n);
    top_ids(logits, n, n_used, idx);
    weights_of(logits, n_used, norm, scale, idx, wt);
}

/* What a group of n choices counts: its largest, or its two largest together. */
static float group_worth(const float *c, int64_t n, bool two) {
    float first = -INFINITY, second = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (c[i] > first) {
            second = first;
            first = c[i];
        } else if (c[i] > second) {
            second = c[i];
        }
    }
    return two ? first + second : first;
}

/* Choices outside the best groups become -inf; at the same worth the lower group wins. */
static void mask_groups(const qsi_route *r, float *c, float *worth) {
    int64_t per = r->n / r->n_group;
    for (int64_t g = 0; g < r->n_group; g++) worth[g] = group_worth(c + g * per, per, r->sigmoid);
    for (int64_t g = 0; g < r->n_group; g++) {
        int64_t better = 0;
        for (int64_t o = 0; o < r->n_group; o++)
            better += worth[o] > worth[g] || (worth[o] == worth[g] && o < g);
        if (better < r->n_group_used) continue;
        for (int64_t i = g * per; i < (g + 1) * per; i++) c[i] = -INFINITY;
    }
}

void qsi_route_row_chosen(const qsi_kern *k, const qsi_route *r, float *logits, int32_t *idx,
                          float *wt, float *tmp) {
    if (r->sigmoid)
        for (int64_t e = 0; e < r->n; e++) logits[e] = 1.0f / (1.0f + expf(-logits[e]));
    else
        softmax(k, logits, r->n);
    for (int64_t e = 0; e < r->n; e++) tmp[e] = logits[e] + (r->bias ? r->bias[e] : 0.0f);
    if (r->n_group > 1) mask_groups(r, tmp, tmp + r->n);
    top_ids(tmp, r->n, r->n_used, idx);
    weights_of(logits, r->n_used, r->norm, r->scale, idx, wt);
}

/* Without norm w_j = c s_j. With norm w_j = c s_j / S, S = sum of the chosen s:
 *     ds_j = c (dw_j - sum_i dw_i s_i / S) / S.
 * Softmax: dlogit_e = s_e (ds_e - sum_i ds_i s_i). */
void qsi_route_row_bwd(const float *s, int64_t n, int64_t n_used, bool norm, float scale,
                       const int32_t *idx, const float *dwt, const float *ds, float *dlogits) {
    float sum = 0.0f, dot = 0.0f, f = scale, mean = 0.0f;
    for (int64_t j = 0; j < n_used; j++) sum += s[idx[j]];
    if (norm) {
        f = scale / (sum + 1e-20f);
        for (int64_t j = 0; j < n_used; j++) mean += dwt[j] * s[idx[j]] / (sum + 1e-20f);
    }
    for (int64_t e = 0; e < n; e++) dlogits[e] = ds ? ds[e] : 0.0f;
    for (int64_t j = 0; j < n_used; j++) dlogits[idx[j]] += f * (dwt[j] - mean);
    for (int64_t e = 0; e < n; e++) dot += dlogits[e] * s[e];
    for (int64_t e = 0; e < n; e++) dlogits[e] = s[e] * (dlogits[e] - dot);
}
