/* Pieces of layers, forward above backward, in the names of simd256.h or simd512.h, one of which
 * the including file has included. Sums as in vec_body.h. */
#ifndef QSI_KERN_LAYER_BODY_H
#define QSI_KERN_LAYER_BODY_H

#include <math.h>
#include <stddef.h>

#include "kern/kern.h"

#define ZERO4                                                                                      \
    {                                                                                              \
        zero(), zero(), zero(), zero()                                                             \
    }

QSI_INLINE float sum4(const vf s[4]) {
    return hsum(vadd(vadd(s[0], s[1]), vadd(s[2], s[3])));
}

/* exp: x = n ln2 + r, |r| <= ln2/2; exp(r) = 1 + r + r^2 q(r), q of degree 4 interpolated at
 * Chebyshev nodes (relative error of the polynomial 1.1e-8); at most about 1 unit in the last place
 * off. Overflow gives infinity, underflow denormals, NaN stays. */
QSI_INLINE vf vexp(vf x) {
    x = vmin(all(89.0f), x); /* the second operand wins on NaN */
    x = vmax(all(-105.0f), x);
    vf n = nearest(vmul(x, all(1.44269504f)));
    vf r = vfnma(n, all(0.693359375f), x);
    r = vfnma(n, all(-0.000212194442f), r);
    vf q = all(0.00139263261f);
    q = vfma(q, r, all(0.00836329255f));
    q = vfma(q, r, all(0.0416665524f));
    q = vfma(q, r, all(0.166665763f));
    q = vfma(q, r, all(0.5f));
    vf p = vfma(vmul(r, r), q, r);
    return scale2(vadd(p, all(1.0f)), n);
}

QSI_INLINE vf vsigmoid(vf x) {
    return vdiv(all(1.0f), vadd(all(1.0f), vexp(vsub(zero(), x))));
}

static float rmsnorm(const float *x, const float *w, float *y, int64_t n, float eps) {
    vf s[4] = ZERO4;
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (int j = 0; j < 4; j++) s[j] = vfma(ldu(x + i + W * j), ldu(x + i + W * j), s[j]);
    for (int j = 0; j < 4 && i < n; j++, i += W) {
        vf v = ld(lanes(n - i), x + i);
        s[j] = vfma(v, v, s[j]);
    }
    float r = 1.0f / sqrtf(sum4(s) / (float)n + eps);
    vf vr = all(r);
    for (i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        st(m, y + i, vmul(ld(m, w + i), vmul(ld(m, x + i), vr)));
    }
    return r;
}

/* y_i = w_i x_i r, dr/dx_j = -r^3 x_j / n:
 * dx_j = r (w_j dy_j - x_j r^2 / n * sum_i dy_i w_i x_i). */
static void rmsnorm_bwd(const float *dy, const float *x, const float *w, float r, float *dx,
                        float *dw, int64_t n) {
    vf s[4] = ZERO4;
    for (int64_t i = 0, j = 0; i < n; i += W, j = (j + 1) % 4) {
        vm m = lanes(n - i);
        s[j] = vfma(vmul(ld(m, dy + i), ld(m, w + i)), ld(m, x + i), s[j]);
    }
    vf c = all(sum4(s) * r * r / (float)n), vr = all(r);
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        vf vdy = ld(m, dy + i), vx = ld(m, x + i), t = vmul(ld(m, w + i), vdy);
        st(m, dw + i, vfma(vdy, vmul(vx, vr), ld(m, dw + i)));
        st(m, dx + i, vfma(vr, vfnma(vx, c, t), ld(m, dx + i)));
    }
}

static void swiglu(const float *g, const float *u, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        vf vg = ld(m, g + i);
        st(m, y + i, vmul(vmul(vg, vsigmoid(vg)), ld(m, u + i)));
    }
}

/* silu'(g) = s (1 + g (1 - s)), s = sigmoid(g). */
static void swiglu_bwd(const float *dy, const float *g, const float *u, float *dg, float *du,
                       int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        vf vg = ld(m, g + i), vu = ld(m, u + i), vdy = ld(m, dy + i), s = vsigmoid(vg);
        vf t = vmul(s, vfma(vg, vsub(all(1.0f), s), all(1.0f)));
        st(m, dg + i, vmul(vmul(vdy, vu), t));
        st(m, du + i, vmul(vdy, vmul(vg, s)));
    }
}

/* Largest of x * a; NaN is passed over (it comes back in the sums). */
QSI_INLINE float max_scaled(const float *x, int64_t n, float a) {
    const vf low = all(-INFINITY), va = all(a);
    vf m0 = low, m1 = low;
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        m0 = vmax(vmul(ldu(x + i), va), m0);
        m1 = vmax(vmul(ldu(x + i + W), va), m1);
    }
    for (; i < n; i += W) {
        vm m = lanes(n - i);
        m0 = vmax(choose(m, vmul(ld(m, x + i), va), low), m0);
    }
    return hmax(vmax(m0, m1));
}

/* exp(x * a - top), kept in x when asked for; returns the sum. */
QSI_INLINE float exp_scaled(float *x, int64_t n, float a, float top, bool keep) {
    const vf va = all(a), vt = all(top);
    vf s[4] = ZERO4;
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (int j = 0; j < 4; j++) {
            float *p = x + i + W * j;
            vf e = vexp(vsub(vmul(ldu(p), va), vt));
            s[j] = vadd(s[j], e);
            if (keep) stu(p, e);
        }
    for (int j = 0; j < 4 && i < n; j++, i += W) {
        vm m = lanes(n - i);
        vf e = vexp(vsub(vmul(ld(m, x + i), va), vt));
        s[j] = vadd(s[j], choose(m, e, zero()));
        if (keep) st(m, x + i, e);
    }
    return sum4(s);
}

static float softmax_exp(float *x, int64_t n, float scale, float *out_max) {
    float top = max_scaled(x, n, scale);
    if (out_max != NULL) *out_max = top;
    return exp_scaled(x, n, scale, top, true);
}

/* Pairs lie together: x * c + swapped x * s, s negated at even places. */
static void rope(float *x, const float *cs, int64_t n, float sign) {
    const vf vs = vmul(all(sign), minus_plus());
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        vf v = ld(m, x + i), t = ld(m, cs + i);
        st(m, x + i, vfma(v, evens(t), vmul(swap_pairs(v), vmul(odds(t), vs))));
    }
}

static double cross_entropy(float *x, int64_t n, int32_t t, float grad_scale) {
    double top = max_scaled(x, n, 1.0f), at = x[t];
    bool keep = grad_scale != 0.0f;
    float sum = keep ? exp_scaled(x, n, 1.0f, (float)top, true)
                     : exp_scaled(x, n, 1.0f, (float)top, false);
    if (keep) {
        const vf c = all(grad_scale / sum);
        for (int64_t i = 0; i < n; i += W) {
            vm m = lanes(n - i);
            st(m, x + i, vmul(ld(m, x + i), c));
        }
        x[t] -= grad_scale;
    }
    return top + log((double)sum) - at;
}

/* ---- attention ---- */

QSI_INLINE vf kv_load(const char *p, bool f16, vm m) {
    if (f16) return ld_f16(m, (const uint16_t *)(const void *)p);
    return ld(m, (const float *)(const void *)p);
}

/* W positions at a time, their sums in one vector. */
QSI_INLINE void scores(const float *q, const char *k, bool f16, int64_t ld_k, int64_t n_pos,
                       int64_t d, float *s) {
    const int64_t size = f16 ? 2 : 4;
    for (int64_t p = 0; p < n_pos; p += W) {
        int64_t np = n_pos - p < W ? n_pos - p : W;
        vf v[W];
        for (int j = 0; j < W; j++) v[j] = zero();
        for (int64_t i = 0; i < d; i += W) {
            vm m = lanes(d - i);
            vf vq = ld(m, q + i);
            const char *row = k + (p * ld_k + i) * size;
            if (np == W) {
#pragma GCC unroll 16
                for (int j = 0; j < W; j++)
                    v[j] = vfma(vq, kv_load(row + j * ld_k * size, f16, m), v[j]);
            } else {
#pragma GCC unroll 16
                for (int j = 0; j < W; j++)
                    if (j < np) v[j] = vfma(vq, kv_load(row + j * ld_k * size, f16, m), v[j]);
            }
        }
        st(lanes(np), s + p, sums_of(v));
    }
}

static void attn_scores(const float *q, const void *k, bool kf16, int64_t ld_k, int64_t n_pos,
                        int64_t d, float *s) {
    if (kf16)
        scores(q, k, true, ld_k, n_pos, d, s);
    else
        scores(q, k, false, ld_k, n_pos, d, s);
}

/* Four vectors of o at a time stay in registers over all positions. */
QSI_INLINE void values(const float *w, const char *v, bool f16, int64_t ld_v, int64_t n_pos,
                       int64_t d, float *o) {
    const int64_t size = f16 ? 2 : 4;
    for (int64_t i = 0; i < d; i += 4 * W) {
        vm m[4];
        vf s[4];
        for (int j = 0; j < 4; j++) {
            m[j] = lanes(d - i - W * j);
            s[j] = ld(m[j], o + i + W * j);
        }
        for (int64_t p = 0; p < n_pos; p++) {
            vf vw = all(w[p]);
            const char *row = v + (p * ld_v + i) * size;
            for (int j = 0; j < 4; j++)
                s[j] = vfma(vw, kv_load(row + W * j * size, f16, m[j]), s[j]);
        }
        for (int j = 0; j < 4; j++) st(m[j], o + i + W * j, s[j]);
    }
}

static void attn_values(const float *w, const void *v, bool vf16, int64_t ld_v, int64_t n_pos,
                        int64_t d, float *o) {
    if (vf16)
        values(w, v, true, ld_v, n_pos, d, o);
    else
        values(w, v, false, ld_v, n_pos, d, o);
}

QSI_INLINE void fill_layer(qsi_kern *t) {
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

#endif
