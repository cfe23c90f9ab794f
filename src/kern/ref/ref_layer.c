/* Pieces of layers, scalar, forward above backward. Sums that are one number run in double. */
#include <math.h>
#include <string.h>

#include "kern/kern_levels.h"
#include "quant/quant.h"

static float rmsnorm(const float *x, const float *w, float *y, int64_t n, float eps) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    float r = (float)(1.0 / sqrt(s / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) y[i] = w[i] * (x[i] * r);
    return r;
}

/* y_i = w_i x_i r, dr/dx_j = -r^3 x_j / n:
 * dx_j = r (w_j dy_j - x_j r^2 / n * sum_i dy_i w_i x_i). */
static void rmsnorm_bwd(const float *dy, const float *x, const float *w, float r, float *dx,
                        float *dw, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)(dy[i] * w[i]) * x[i];
    float c = (float)(s * r * r / (double)n);
    for (int64_t i = 0; i < n; i++) {
        dw[i] += dy[i] * (x[i] * r);
        dx[i] += r * (w[i] * dy[i] - x[i] * c);
    }
}

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static void swiglu(const float *g, const float *u, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = g[i] * sigmoid(g[i]) * u[i];
}

/* silu'(g) = s (1 + g (1 - s)), s = sigmoid(g). */
static void swiglu_bwd(const float *dy, const float *g, const float *u, float *dg, float *du,
                       int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float gi = g[i], ui = u[i], s = sigmoid(gi), d = dy[i];
        dg[i] = d * ui * (s * (1.0f + gi * (1.0f - s)));
        du[i] = d * (gi * s);
    }
}

static float softmax_exp(float *x, int64_t n, float scale, float *out_max) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (x[i] * scale > m) m = x[i] * scale;
    double s = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] * scale - m);
        s += x[i];
    }
    if (out_max != NULL) *out_max = m;
    return (float)s;
}

static void rope(float *x, const float *cs, int64_t n, float sign) {
    for (int64_t i = 0; i + 1 < n; i += 2) {
        float c = cs[i], s = cs[i + 1] * sign, a = x[i], b = x[i + 1];
        x[i] = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

static double cross_entropy(float *x, int64_t n, int32_t t, float grad_scale) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += expf(x[i] - m);
    double loss = (double)m + log(s) - (double)x[t];
    if (grad_scale != 0.0f) {
        float c = (float)(grad_scale / s);
        for (int64_t i = 0; i < n; i++) x[i] = expf(x[i] - m) * c;
        x[t] -= grad_scale;
    }
    return loss;
}

static float kv_load(const void *p, bool f16, int64_t i) {
    if (f16) {
        uint16_t h;
        memcpy(&h, (const char *)p + i * 2, 2);
        return qsi_f16_to_f32(h);
    }
    float f;
    memcpy(&f, (const char *)p + i * 4, 4);
    return f;
}

static void attn_scores(const float *q, const void *k, bool kf16, int64_t ld_k, int64_t n_pos,
                        int64_t d, float *s) {
    for (int64_t p = 0; p < n_pos; p++) {
        double sum = 0;
        for (int64_t i = 0; i < d; i++) sum += (double)q[i] * kv_load(k, kf16, p * ld_k + i);
        s[p] = (float)sum;
    }
}

static void attn_values(const float *w, const void *v, bool vf16, int64_t ld_v, int64_t n_pos,
                        int64_t d, float *o) {
    for (int64_t p = 0; p < n_pos; p++)
        for (int64_t i = 0; i < d; i++) o[i] += w[p] * kv_load(v, vf16, p * ld_v + i);
}

void qsi_kern_fill_ref_layer(qsi_kern *t) {
    t->rmsnorm = rmsnorm;
    t->rmsnorm_bwd = rmsnorm_bwd;
    t->swiglu = swiglu;
    t->swiglu_bwd = swiglu_bwd;
    t->softmax_exp = softmax_exp;
    t->rope = rope;
    t->cross_entropy = cross_entropy;
    t->attn_scores = attn_scores;
    t->attn_values = attn_values;
}
