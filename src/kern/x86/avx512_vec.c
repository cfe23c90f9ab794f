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

/* Scale and its reciprocal of a block whose largest magnitude has these bits (as integers: NaN above
 * infinity above numbers). A block with NaN or infinity keeps that as its scale and is zero
 * otherwise, so that products of it are NaN. */
QSI_INLINE float act_scale(uint32_t top, __m512 *inv) {
    float amax;
    memcpy(&amax, &top, 4);
    float d = top >= 0x7f800000u ? amax : amax < QSI_ACT8_MIN ? 0.0f : amax / 127.0f;
    *inv = _mm512_set1_ps(top >= 0x7f800000u || d == 0.0f ? 0.0f : 1.0f / d);
    return d;
}

/* Rounds half away from zero; what is not finite is zero. */
QSI_INLINE __m512i act_round(__m512 x, __m512 inv, bool finite) {
    /* largest below 0.5: trunc(x + half) rounds half away from zero, for |x| < 2^22 */
    const __m512 half = _mm512_set1_ps(0.49999997f);
    __m512 s = _mm512_mul_ps(x, inv);
    __m512 h = _mm512_or_ps(half, _mm512_and_ps(s, _mm512_set1_ps(-0.0f)));
    return finite ? _mm512_cvttps_epi32(_mm512_add_ps(s, h)) : _mm512_setzero_si512();
}

QSI_INLINE __m512i magnitude(const float *x) {
    return _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)),
                            _mm512_set1_epi32(0x7fffffff));
}

static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        uint32_t top = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(x), magnitude(x + 16)));
        __m512 inv;
        float d = act_scale(top, &inv);
        __m512i sum = _mm512_setzero_si512();
        for (int i = 0; i < 2; i++) {
            __m512i q = act_round(_mm512_loadu_ps(x + 16 * i), inv, top < 0x7f800000u);
            sum = _mm512_add_epi32(sum, q);
            _mm_storeu_si128((__m128i *)(void *)(y->qs + 16 * i), _mm512_cvtepi32_epi8(q));
        }
        y->d = d;
        y->z = -128 * _mm512_reduce_add_epi32(sum);
    }
}

/* Of every four 32-bit lanes the order 0 2 1 3, as 16-bit integers. */
QSI_INLINE __m256i pair_order(__m512i v) {
    return _mm512_cvtepi32_epi16(_mm512_shuffle_epi32(v, _MM_PERM_DBCA));
}

static void f32_to_actk(const float *x, qsi_actk *y, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, x += 256, y++) {
        __m512i m = magnitude(x), q[16];
        for (int i = 1; i < 16; i++) m = _mm512_max_epu32(m, magnitude(x + 16 * i));
        uint32_t top = _mm512_reduce_max_epu32(m);
        __m512 inv;
        float d = act_scale(top, &inv);
        for (int i = 0; i < 16; i++) {
            q[i] = act_round(_mm512_loadu_ps(x + 16 * i), inv, top < 0x7f800000u);
            _mm_storeu_si128((__m128i *)(void *)(y->qs + 16 * i), _mm512_cvtepi32_epi8(q[i]));
        }
        transpose16(q); /* sums of groups are sums of vectors now */
        __m512i s = q[0];
        for (int i = 1; i < 16; i++) s = _mm512_add_epi32(s, q[i]);
        _mm512_storeu_si512(y->z16, _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), s), 7));
        _mm256_storeu_si256((__m256i *)(void *)y->s16, pair_order(s));
        /* pairs of groups: sums in the even lanes */
        s = _mm512_add_epi32(s, _mm512_srli_epi64(s, 32));
        s = _mm512_zextsi256_si512(_mm512_cvtepi64_epi32(s));
        _mm_storeu_si128((__m128i *)(void *)y->s32, _mm256_castsi256_si128(pair_order(s)));
        y->d = d;
        memset(y->pad, 0, sizeof y->pad);
    }
}

void qsi_kern_fill_avx512_vec(qsi_kern *t) {
    fill_vec(t);
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_actk = f32_to_actk;
    t->f32_to_bf16_t = f32_to_bf16_t;
}
