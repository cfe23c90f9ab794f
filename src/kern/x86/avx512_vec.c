/* Vectors and the optimizer, AVX-512 (vec_body.h); here the transposed conversion and the int8
 * activations. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"
#include "kern/x86/vec_body.h"

/* Sixteen columns x 32 rows at a time: two rows make words, words are transposed. */
static void f32_to_bf16_t(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy) {
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
static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
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

void qsi_kern_fill_avx512_vec(qsi_kern *t) {
    fill_vec(t);
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_bf16_t = f32_to_bf16_t;
}
