/* Conversions, vectors and the optimizer, AVX-512. Sums use four accumulators of 16 lanes and one
 * fixed tree, so they depend on n alone. Tails are masked. */
#include <math.h>

#include "kern/kern_levels.h"
#include "kern/x86/avx512_util.h"

static void f32_to_bf16(const float *x, uint16_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512i w = bf16_words(_mm512_maskz_loadu_ps(m, x + i));
        _mm256_mask_storeu_epi16(y + i, m, _mm512_cvtepi32_epi16(w));
    }
}

static void bf16_to_f32(const uint16_t *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, x + i));
        _mm512_mask_storeu_epi32(y + i, m, _mm512_slli_epi32(w, 16));
    }
}

static void f32_to_f16(const float *x, uint16_t *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        __m256i h = _mm512_cvtps_ph(_mm512_maskz_loadu_ps(m, x + i),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_mask_storeu_epi16(y + i, m, h);
    }
}

static void f16_to_f32(const uint16_t *x, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = mask16(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, x + i)));
    }
}

/* Sixteen columns x 32 rows at a time: two rows make words, words are transposed. */
static void f32_to_bf16_t(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy)
{
    for (int64_t c = 0; c < cols; c += 16) {
        __mmask16 mc = mask16(cols - c);
        int64_t nc = cols - c < 16 ? cols - c : 16;
        for (int64_t r = 0; r < rows; r += 32) {
            __mmask32 mr = mask32(rows - r);
            __m512i v[16];
            const float *p = x + r * ldx + c;
            for (int i = 0; i < 16; i++) {
                __m512 a = _mm512_setzero_ps(), b = a;
                if (r + 2 * i < rows) a = _mm512_maskz_loadu_ps(mc, p + 2 * i * ldx);
                if (r + 2 * i + 1 < rows) b = _mm512_maskz_loadu_ps(mc, p + (2 * i + 1) * ldx);
                v[i] = _mm512_or_si512(bf16_words(a), _mm512_slli_epi32(bf16_words(b), 16));
            }
            transpose16(v);
            uint16_t *q = y + c * ldy + r;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (i < nc) _mm512_mask_storeu_epi16(q + i * ldy, mr, v[i]);
        }
    }
}

/* A block with NaN or infinity keeps that in d, so that products of it are NaN. */
static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n)
{
    const __m512i abs_bits = _mm512_set1_epi32(0x7fffffff);
    const __m512 half = _mm512_set1_ps(0.49999997f); /* largest below 0.5: trunc(x + half) rounds
                                                        half away from zero, for |x| < 2^22 */
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        __m512 v[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)};
        /* as integers: NaN above infinity above numbers */
        uint32_t top = _mm512_reduce_max_epu32(
            _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(v[0]), abs_bits),
                             _mm512_and_si512(_mm512_castps_si512(v[1]), abs_bits)));
        union {
            uint32_t u;
            float f;
        } amax = {top};
        float d = top >= 0x7f800000u ? amax.f : amax.f < QSI_ACT8_MIN ? 0.0f : amax.f / 127.0f;
        __m512 inv = _mm512_set1_ps(top >= 0x7f800000u || d == 0.0f ? 0.0f : 1.0f / d);
        __m512i sum = _mm512_setzero_si512();
        for (int i = 0; i < 2; i++) {
            __m512 s = _mm512_mul_ps(v[i], inv);
            __m512 h = _mm512_or_ps(half, _mm512_and_ps(s, _mm512_set1_ps(-0.0f)));
            __m512i q = _mm512_cvttps_epi32(_mm512_add_ps(s, h));
            if (top >= 0x7f800000u) q = _mm512_setzero_si512();
            sum = _mm512_add_epi32(sum, q);
            _mm_storeu_si128((__m128i *)(void *)(y->qs + 16 * i), _mm512_cvtepi32_epi8(q));
        }
        y->d = d;
        y->sum = _mm512_reduce_add_epi32(sum);
    }
}

static float dot(const float *x, const float *y, int64_t n)
{
    __m512 s[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                   _mm512_setzero_ps()};
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (int j = 0; j < 4; j++)
            s[j] = _mm512_fmadd_ps(_mm512_loadu_ps(x + i + 16 * j),
                                   _mm512_loadu_ps(y + i + 16 * j), s[j]);
    for (int j = 0; j < 4 && i < n; j++, i += 16) {
        __mmask16 m = mask16(n - i);
        s[j] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i),
                               s[j]);
    }
    return sum4(s);
}

static double sum_sq(const float *x, int64_t n)
{
    __m512d s0 = _mm512_setzero_pd(), s1 = s0;
    for (int64_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(mask16(n - i), x + i);
        __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        s0 = _mm512_fmadd_pd(a, a, s0);
        s1 = _mm512_fmadd_pd(b, b, s1);
    }
    return _mm512_reduce_add_pd(_mm512_add_pd(s0, s1));
}

static void axpy(float a, const float *x, float *y, int64_t n)
{
    __m512 va = _mm512_set1_ps(a);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(va, _mm512_loadu_ps(x + i),
                                                _mm512_loadu_ps(y + i)));
    if (i < n) {
        __mmask16 m = mask16(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_fmadd_ps(va, _mm512_maskz_loadu_ps(m, x + i),
                                                        _mm512_maskz_loadu_ps(m, y + i)));
    }
}

static void scale(float a, float *x, int64_t n)
{
    __m512 va = _mm512_set1_ps(a);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(x + i, _mm512_mul_ps(va, _mm512_loadu_ps(x + i)));
    if (i < n) {
        __mmask16 m = mask16(n - i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(va, _mm512_maskz_loadu_ps(m, x + i)));
    }
}

static void add(const float *x, float *y, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i)));
    if (i < n) {
        __mmask16 m = mask16(n - i);
        _mm512_mask_storeu_ps(y + i, m, _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i),
                                                      _mm512_maskz_loadu_ps(m, y + i)));
    }
}

static float max(const float *x, int64_t n)
{
    __m512 low = _mm512_set1_ps(-INFINITY), m0 = low, m1 = low;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        m0 = _mm512_max_ps(_mm512_loadu_ps(x + i), m0);
        m1 = _mm512_max_ps(_mm512_loadu_ps(x + i + 16), m1);
    }
    for (; i < n; i += 16)
        m0 = _mm512_max_ps(_mm512_mask_loadu_ps(low, mask16(n - i), x + i), m0);
    return _mm512_reduce_max_ps(_mm512_max_ps(m0, m1));
}

static void adamw(float *p, const float *g, float *m, float *v, int64_t n, float clip, float lr,
                  float b1, float b2, float c1, float c2, float eps, float decay)
{
    const __m512 vclip = _mm512_set1_ps(clip), vlr = _mm512_set1_ps(lr);
    const __m512 vb1 = _mm512_set1_ps(b1), va1 = _mm512_set1_ps(1.0f - b1);
    const __m512 vb2 = _mm512_set1_ps(b2), va2 = _mm512_set1_ps(1.0f - b2);
    const __m512 vc1 = _mm512_set1_ps(c1), vc2 = _mm512_set1_ps(c2);
    const __m512 veps = _mm512_set1_ps(eps), vdecay = _mm512_set1_ps(decay);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 k = mask16(n - i);
        __m512 gi = _mm512_mul_ps(_mm512_maskz_loadu_ps(k, g + i), vclip);
        __m512 mi = _mm512_mul_ps(va1, gi);
        mi = _mm512_fmadd_ps(vb1, _mm512_maskz_loadu_ps(k, m + i), mi);
        __m512 vi = _mm512_mul_ps(va2, _mm512_mul_ps(gi, gi));
        vi = _mm512_fmadd_ps(vb2, _mm512_maskz_loadu_ps(k, v + i), vi);
        _mm512_mask_storeu_ps(m + i, k, mi);
        _mm512_mask_storeu_ps(v + i, k, vi);
        __m512 den = _mm512_add_ps(_mm512_sqrt_ps(_mm512_div_ps(vi, vc2)), veps);
        __m512 step = _mm512_div_ps(_mm512_div_ps(mi, vc1), den);
        __m512 pi = _mm512_maskz_loadu_ps(k, p + i);
        step = _mm512_fmadd_ps(vdecay, pi, step);
        _mm512_mask_storeu_ps(p + i, k, _mm512_fnmadd_ps(vlr, step, pi));
    }
}

void qsi_kern_fill_avx512_vec(qsi_kern *t)
{
    t->f32_to_bf16 = f32_to_bf16;
    t->bf16_to_f32 = bf16_to_f32;
    t->f32_to_f16 = f32_to_f16;
    t->f16_to_f32 = f16_to_f32;
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_bf16_t = f32_to_bf16_t;
    t->dot = dot;
    t->sum_sq = sum_sq;
    t->axpy = axpy;
    t->scale = scale;
    t->add = add;
    t->max = max;
    t->adamw = adamw;
}
