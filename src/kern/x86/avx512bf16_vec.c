/* Conversions to bfloat16 with the CPU's instruction. It rounds as the type's definition does but
 * takes denormals as zero: vectors that hold one go the other way. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define DENORMAL 0x20 /* class of vfpclassps */

QSI_INLINE bool denormal(__m512 a) { return _mm512_fpclass_ps_mask(a, DENORMAL) != 0; }

static void f32_to_bf16(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i += 32) {
        __mmask16 m0 = mask16(n - i), m1 = mask16(n - i - 16);
        __m512 a = _mm512_maskz_loadu_ps(m0, x + i), b = _mm512_maskz_loadu_ps(m1, x + i + 16);
        __m512i r = (__m512i)_mm512_cvtne2ps_pbh(b, a);
        if (__builtin_expect(denormal(a) || denormal(b), 0)) {
            r = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(bf16_words(a)));
            r = _mm512_inserti64x4(r, _mm512_cvtepi32_epi16(bf16_words(b)), 1);
        }
        _mm512_mask_storeu_epi16(y + i, mask32(n - i), r);
    }
}

/* Words of a (low) and b (high): order takes element j of both side by side. */
QSI_INLINE __m512i pair_words(__m512 a, __m512 b, __m512i order) {
    if (__builtin_expect(denormal(a) || denormal(b), 0))
        return _mm512_or_si512(bf16_words(a), _mm512_slli_epi32(bf16_words(b), 16));
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

/* Sixteen columns x 32 rows at a time: two rows make words, words are transposed. */
static void f32_to_bf16_t(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy) {
    uint16_t idx[32];
    for (int j = 0; j < 16; j++) {
        idx[2 * j] = (uint16_t)j;
        idx[2 * j + 1] = (uint16_t)(16 + j);
    }
    const __m512i order = _mm512_loadu_si512(idx);
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
                v[i] = pair_words(a, b, order);
            }
            transpose16(v);
            uint16_t *q = y + c * ldy + r;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (i < nc) _mm512_mask_storeu_epi16(q + i * ldy, mr, v[i]);
        }
    }
}

void qsi_kern_fill_avx512bf16_vec(qsi_kern *t) {
    t->f32_to_bf16 = f32_to_bf16;
    t->f32_to_bf16_t = f32_to_bf16_t;
}
