/* Pieces of layers, AVX-512, forward above backward. Sums as in avx512_vec.c. */
#include <math.h>
#include <stddef.h>

#include "kern/kern_levels.h"
#include "kern/x86/avx512_util.h"

#define ZERO4                                                                                      \
    {                                                                                              \
        _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()         \
    }

static float rmsnorm(const float *x, const float *w, float *y, int64_t n, float eps)
{
    __m512 s[4] = ZERO4;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 4; j++) {
            __m512 v = _mm512_loadu_ps(x + i + 16 * j);
            s[j] = _mm512_fmadd_ps(v, v, s[j]);
        }
    for (int j = 0; j < 4 && i < n; j++, i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(mask16(n - i), x + i);
        s[j] = _mm512_fmadd_ps(v, v, s[j]);
    }
    float r = 1.0f / sqrtf(sum4(s) / (float)n + eps);
    __m512 vr = _mm512_set1_ps(r);
    for (i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), vr);
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, w + i), v));
    }
    return r;
}

/* y_i = w_i x_i r, dr/dx_j = -r^3 x_j / n:
 * dx_j = r (w_j dy_j - x_j r^2 / n * sum_i dy_i w_i x_i). */
static void rmsnorm_bwd(const float *dy, const float *x, const float *w, float r, float *dx,
                        float *dw, int64_t n)
{
    __m512 s[4] = ZERO4;
    for (int64_t i = 0, j = 0; i < n; i += 16, j = (j + 1) % 4) {
        __mmask16 m = mask16(n - i);
        __m512 wd = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, dy + i),
                                  _mm512_maskz_loadu_ps(m, w + i));
        s[j] = _mm512_fmadd_ps(wd, _mm512_maskz_loadu_ps(m, x + i), s[j]);
    }
    __m512 c = _mm512_set1_ps(sum4(s) * r * r / (float)n), vr = _mm512_set1_ps(r);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 vdy = _mm512_maskz_loadu_ps(m, dy + i), vx = _mm512_maskz_loadu_ps(m, x + i);
        __m512 vdw = _mm512_maskz_loadu_ps(m, dw + i), vdx = _mm512_maskz_loadu_ps(m, dx + i);
        vdw = _mm512_fmadd_ps(vdy, _mm512_mul_ps(vx, vr), vdw);
        __m512 t = _mm512_mul_ps(_mm512_maskz_loadu_ps(m, w + i), vdy);
        vdx = _mm512_fmadd_ps(vr, _mm512_fnmadd_ps(vx, c, t), vdx);
        _mm512_mask_storeu_ps(dw + i, m, vdw);
        _mm512_mask_storeu_ps(dx + i, m, vdx);
    }
}

static void swiglu(const float *g, const float *u, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 vg = _mm512_maskz_loadu_ps(m, g + i);
        __m512 silu = _mm512_mul_ps(vg, sigmoid16(vg));
        _mm512_mask_storeu_ps(y + i, m, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, u + i)));
    }
}

/* silu'(g) = s (1 + g (1 - s)), s = sigmoid(g). */
static void swiglu_bwd(const float *dy, const float *g, const float *u, float *dg, float *du,
                       int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 vg = _mm512_maskz_loadu_ps(m, g + i), vu = _mm512_maskz_loadu_ps(m, u + i);
        __m512 vd = _mm512_maskz_loadu_ps(m, dy + i), s = sigmoid16(vg);
        __m512 t = _mm512_mul_ps(s, _mm512_fmadd_ps(vg, _mm512_sub_ps(one, s), one));
        _mm512_mask_storeu_ps(dg + i, m, _mm512_mul_ps(_mm512_mul_ps(vd, vu), t));
        _mm512_mask_storeu_ps(du + i, m, _mm512_mul_ps(vd, _mm512_mul_ps(vg, s)));
    }
}

/* Largest of x * a; NaN is passed over (it comes back in the sums). */
QSI_INLINE float max_scaled(const float *x, int64_t n, float a)
{
    const __m512 low = _mm512_set1_ps(-INFINITY), va = _mm512_set1_ps(a);
    __m512 m0 = low, m1 = low;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        m0 = _mm512_max_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), va), m0);
        m1 = _mm512_max_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16), va), m1);
    }
    for (; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 v = _mm512_mask_mul_ps(low, m, _mm512_maskz_loadu_ps(m, x + i), va);
        m0 = _mm512_max_ps(v, m0);
    }
    return _mm512_reduce_max_ps(_mm512_max_ps(m0, m1));
}

/* x <- exp(x * a - top), returns the sum. */
QSI_INLINE float exp_scaled(float *x, int64_t n, float a, float top)
{
    const __m512 va = _mm512_set1_ps(a), vt = _mm512_set1_ps(top);
    __m512 s[4] = ZERO4;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 4; j++) {
            float *p = x + i + 16 * j;
            __m512 e = exp16(_mm512_sub_ps(_mm512_mul_ps(_mm512_loadu_ps(p), va), vt));
            s[j] = _mm512_add_ps(s[j], e);
            _mm512_storeu_ps(p, e);
        }
    for (int j = 0; j < 4 && i < n; j++, i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 e = exp16(_mm512_sub_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), va), vt));
        s[j] = _mm512_mask_add_ps(s[j], m, s[j], e);
        _mm512_mask_storeu_ps(x + i, m, e);
    }
    return sum4(s);
}

static float softmax_exp(float *x, int64_t n, float scale, float *out_max)
{
    float top = max_scaled(x, n, scale);
    if (out_max != NULL) *out_max = top;
    return exp_scaled(x, n, scale, top);
}

/* Pairs lie together: x * c + swapped x * s, s negated at even places. */
static void rope(float *x, const float *cs, int64_t n, float sign)
{
    const __m512 flip = _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000ll));
    const __m512 vs = _mm512_xor_ps(_mm512_set1_ps(sign), flip);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512 v = _mm512_maskz_loadu_ps(m, x + i), t = _mm512_maskz_loadu_ps(m, cs + i);
        __m512 c = _mm512_moveldup_ps(t), s = _mm512_mul_ps(_mm512_movehdup_ps(t), vs);
        __m512 r = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmadd_ps(v, c, r));
    }
}

static double cross_entropy(float *x, int64_t n, int32_t t, float grad_scale)
{
    float top = max_scaled(x, n, 1.0f);
    double at = x[t];
    if (grad_scale == 0.0f) {
        __m512 s[4] = ZERO4;
        const __m512 vt = _mm512_set1_ps(top);
        for (int64_t i = 0, j = 0; i < n; i += 16, j = (j + 1) % 4) {
            __mmask16 m = mask16(n - i);
            __m512 e = exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + i), vt));
            s[j] = _mm512_mask_add_ps(s[j], m, s[j], e);
        }
        return (double)top + log((double)sum4(s)) - at;
    }
    float sum = exp_scaled(x, n, 1.0f, top);
    const __m512 c = _mm512_set1_ps(grad_scale / sum);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), c));
    }
    x[t] -= grad_scale;
    return (double)top + log((double)sum) - at;
}

/* ---- attention ---- */

QSI_INLINE __m512 kv_load(const void *p, bool f16, int64_t i, __mmask16 m)
{
    if (f16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, (const uint16_t *)p + i));
    return _mm512_maskz_loadu_ps(m, (const float *)p + i);
}

/* Sums of the lanes of 16 vectors, all by the same tree. */
QSI_INLINE __m512 reduce16(const __m512 v[16])
{
    __m512 t[8], u[4], w[2];
    for (int i = 0; i < 8; i++)
        t[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(t[2 * i]), b = _mm512_castps_pd(t[2 * i + 1]);
        u[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; i++)
        w[i] = _mm512_add_ps(_mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(u[2 * i], u[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(w[0], w[1], 0x88),
                         _mm512_shuffle_f32x4(w[0], w[1], 0xdd));
}

QSI_INLINE void scores(const float *q, const void *k, bool f16, int64_t ld_k, int64_t n_pos,
                       int64_t d, float *s)
{
    int64_t size = f16 ? 2 : 4;
    for (int64_t p = 0; p < n_pos; p += 16) {
        int64_t np = n_pos - p < 16 ? n_pos - p : 16;
        __m512 v[16];
        for (int j = 0; j < 16; j++) v[j] = _mm512_setzero_ps();
        for (int64_t i = 0; i < d; i += 16) {
            __mmask16 m = mask16(d - i);
            __m512 vq = _mm512_maskz_loadu_ps(m, q + i);
            const char *row = (const char *)k + (p * ld_k + i) * size;
            if (np == 16) {
#pragma GCC unroll 16
                for (int j = 0; j < 16; j++)
                    v[j] = _mm512_fmadd_ps(vq, kv_load(row + j * ld_k * size, f16, 0, m), v[j]);
            } else {
#pragma GCC unroll 16
                for (int j = 0; j < 16; j++)
                    if (j < np)
                        v[j] = _mm512_fmadd_ps(vq, kv_load(row + j * ld_k * size, f16, 0, m),
                                               v[j]);
            }
        }
        _mm512_mask_storeu_ps(s + p, mask16(np), reduce16(v));
    }
}

static void attn_scores(const float *q, const void *k, bool kf16, int64_t ld_k, int64_t n_pos,
                        int64_t d, float *s)
{
    if (kf16)
        scores(q, k, true, ld_k, n_pos, d, s);
    else
        scores(q, k, false, ld_k, n_pos, d, s);
}

/* 64 values of o at a time stay in registers over all positions. */
QSI_INLINE void values(const float *w, const void *v, bool f16, int64_t ld_v, int64_t n_pos,
                       int64_t d, float *o)
{
    int64_t size = f16 ? 2 : 4;
    for (int64_t i = 0; i < d; i += 64) {
        __mmask16 m[4];
        __m512 s[4];
        for (int j = 0; j < 4; j++) {
            m[j] = mask16(d - i - 16 * j);
            s[j] = _mm512_maskz_loadu_ps(m[j], o + i + 16 * j);
        }
        for (int64_t p = 0; p < n_pos; p++) {
            __m512 vw = _mm512_set1_ps(w[p]);
            const char *row = (const char *)v + (p * ld_v + i) * size;
            for (int j = 0; j < 4; j++)
                s[j] = _mm512_fmadd_ps(vw, kv_load(row, f16, 16 * j, m[j]), s[j]);
        }
        for (int j = 0; j < 4; j++) _mm512_mask_storeu_ps(o + i + 16 * j, m[j], s[j]);
    }
}

static void attn_values(const float *w, const void *v, bool vf16, int64_t ld_v, int64_t n_pos,
                        int64_t d, float *o)
{
    if (vf16)
        values(w, v, true, ld_v, n_pos, d, o);
    else
        values(w, v, false, ld_v, n_pos, d, o);
}

void qsi_kern_fill_avx512_layer(qsi_kern *t)
{
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
