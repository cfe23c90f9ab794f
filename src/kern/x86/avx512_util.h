/* Helpers of the AVX-512 files. Static inline only: every file that includes this is compiled with
 * at least -mavx512f -mavx512bw -mavx512vl -mavx512dq and keeps its own copies. */
#ifndef QSI_KERN_AVX512_UTIL_H
#define QSI_KERN_AVX512_UTIL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define QSI_INLINE static inline __attribute__((always_inline, unused))

/* The first n lanes of 16 (n may be outside 0..16). */
QSI_INLINE __mmask16 mask16(int64_t n)
{
    if (n >= 16) return 0xffff;
    return n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

QSI_INLINE __mmask32 mask32(int64_t n)
{
    if (n >= 32) return 0xffffffffu;
    return n <= 0 ? 0 : ((__mmask32)1 << n) - 1;
}

QSI_INLINE int32_t word(const char *p)
{
    int32_t w;
    memcpy(&w, p, 4);
    return w;
}

/* Rows of 16 words in r, columns out: t[c][i] = r[i][c]. */
QSI_INLINE void transpose16(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 4) {
        __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        __m512i b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]);
        __m512i d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c);
        t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d);
        t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
        __m512i b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
        __m512i d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* Sixteen floats to bfloat16 in the low halves of words: round to nearest even, NaN kept quiet.
 * (The CPU's own conversion flushes denormals; this does not.) */
QSI_INLINE __m512i bf16_words(__m512 x)
{
    __m512i u = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_srli_epi32(r, 16);
}

/* exp: x = n ln2 + r, |r| <= ln2/2; exp(r) = 1 + r + r^2 q(r), q of degree 4 interpolated at
 * Chebyshev nodes (relative error of the polynomial 1.1e-8); at most 1 unit in the last place off.
 * Overflow gives infinity, underflow denormals, NaN stays. */
QSI_INLINE __m512 exp16(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(89.0f), x); /* the second operand wins on NaN */
    x = _mm512_max_ps(_mm512_set1_ps(-105.0f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0.000212194442f), r);
    __m512 q = _mm512_set1_ps(0.00139263261f);
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.00836329255f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.0416665524f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.166665763f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.5f));
    __m512 p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r);
    return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

QSI_INLINE __m512 sigmoid16(__m512 x)
{
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 e = exp16(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(one, _mm512_add_ps(one, e));
}

/* Sum of four accumulators' lanes, in one fixed tree. */
QSI_INLINE float sum4(const __m512 s[4])
{
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(s[0], s[1]), _mm512_add_ps(s[2], s[3])));
}

#endif
