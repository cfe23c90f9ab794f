/* Helpers of the AVX-512 files. Static inline only: every file that includes this is compiled with
 * at least -mavx512f -mavx512bw -mavx512vl -mavx512dq and keeps its own copies. */
#ifndef QSI_KERN_AVX512_UTIL_H
#define QSI_KERN_AVX512_UTIL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define QSI_INLINE static inline __attribute__((always_inline, unused))

/* The first n lanes of 16 (n may be outside 0..16). */
QSI_INLINE __mmask16 mask16(int64_t n) {
    if (n >= 16) return 0xffff;
    return n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

QSI_INLINE __mmask32 mask32(int64_t n) {
    if (n >= 32) return 0xffffffffu;
    return n <= 0 ? 0 : ((__mmask32)1 << n) - 1;
}

QSI_INLINE int32_t word(const char *p) {
    int32_t w;
    memcpy(&w, p, 4);
    return w;
}

/* Rows of 16 words in r, columns out: t[c][i] = r[i][c]. */
QSI_INLINE void transpose16(__m512i r[16]) {
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
QSI_INLINE __m512i bf16_words(__m512 x) {
    __m512i u = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, u, _mm512_set1_epi32(0x400000));
    return _mm512_srli_epi32(r, 16);
}

/* ---- the names the shared bodies use; the same in simd256.h ---- */

#define W 16
typedef __m512 vf;
typedef __mmask16 vm;

/* The first n lanes. */
QSI_INLINE vm lanes(int64_t n) { return mask16(n); }
/* Outside the mask: nothing is read, zero comes; nothing is written. */
QSI_INLINE vf ld(vm m, const float *p) { return _mm512_maskz_loadu_ps(m, p); }
QSI_INLINE void st(vm m, float *p, vf v) { _mm512_mask_storeu_ps(p, m, v); }
QSI_INLINE vf ldu(const float *p) { return _mm512_loadu_ps(p); }
QSI_INLINE void stu(float *p, vf v) { _mm512_storeu_ps(p, v); }
QSI_INLINE vf ld_f16(vm m, const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
}
QSI_INLINE void st_f16(vm m, uint16_t *p, vf v) {
    _mm256_mask_storeu_epi16(
        p, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
QSI_INLINE vf ld_bf16(vm m, const uint16_t *p) {
    __m512i w = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
QSI_INLINE void st_bf16(vm m, uint16_t *p, vf v) {
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtepi32_epi16(bf16_words(v)));
}

QSI_INLINE vf zero(void) { return _mm512_setzero_ps(); }
QSI_INLINE vf all(float x) { return _mm512_set1_ps(x); }
QSI_INLINE vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
QSI_INLINE vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
QSI_INLINE vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
QSI_INLINE vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
QSI_INLINE vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
QSI_INLINE vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }   /* a b + c */
QSI_INLINE vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
/* On NaN the second operand. */
QSI_INLINE vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
QSI_INLINE vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
/* a inside the mask, b outside. */
QSI_INLINE vf choose(vm m, vf a, vf b) { return _mm512_mask_mov_ps(b, m, a); }
QSI_INLINE vf nearest(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* p * 2^n for 1/2 < p < 2 and whole n in [-152, 129]. */
QSI_INLINE vf scale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }
/* (x1, x0, x3, x2, ...), (x0, x0, x2, x2, ...), (x1, x1, x3, x3, ...) and -1 at even places */
QSI_INLINE vf swap_pairs(vf a) { return _mm512_permute_ps(a, 0xb1); }
/* Lane i is lane i ^ h; h 1, 2, 4, 8. */
QSI_INLINE vf swap_lanes(vf a, int h) {
    return h == 1 ? swap_pairs(a) : h == 2 ? _mm512_permute_ps(a, 0x4e)
           : h == 4 ? _mm512_shuffle_f32x4(a, a, 0xb1) : _mm512_shuffle_f32x4(a, a, 0x4e);
}
QSI_INLINE vf evens(vf a) { return _mm512_moveldup_ps(a); }
QSI_INLINE vf odds(vf a) { return _mm512_movehdup_ps(a); }
QSI_INLINE vf minus_plus(void) {
    return _mm512_castsi512_ps(_mm512_set1_epi64(0x3f800000bf800000ll));
}
QSI_INLINE float hsum(vf a) { return _mm512_reduce_add_ps(a); }
QSI_INLINE float hmax(vf a) { return _mm512_reduce_max_ps(a); }
/* s + squares of v in double; the lanes of s add up to the sum. */
typedef struct vd {
    __m512d a, b;
} vd;
QSI_INLINE vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
QSI_INLINE vd vd_add_sq(vd s, vf v) {
    __m512d a = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    __m512d b = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    return (vd){_mm512_fmadd_pd(a, a, s.a), _mm512_fmadd_pd(b, b, s.b)};
}
QSI_INLINE double vd_sum(vd s) { return _mm512_reduce_add_pd(_mm512_add_pd(s.a, s.b)); }

/* ---- words: W lanes of 32 bits ---- */
typedef __m512i vi;
QSI_INLINE vi ldi(const char *p) { return _mm512_load_si512(p); } /* aligned */
/* A load that stays one, and in its order among such: compilers else repeat it as an operand of every
 * use, and loads are what products wait for; and they load the lines of a block in an order of their
 * own, which the CPU's prefetch follows less well (docs/kernels.md). Sanitizers do not see it: they
 * have the plain load. */
QSI_INLINE vi ldi_once(const char *p) {
#ifdef QSI_SMALL_TILES
    return ldi(p);
#else
    vi v;
    __asm__ volatile("vmovdqa64 %1, %0" : "=v"(v) : "m"(*(const __m512i *)(const void *)p));
    return v;
#endif
}
QSI_INLINE void sti(char *p, vi v) { _mm512_store_si512(p, v); }
QSI_INLINE vf ldf(const char *p) { return _mm512_load_ps(p); }
QSI_INLINE void stf(char *p, vf v) { _mm512_store_ps(p, v); }
QSI_INLINE vi alli(int32_t x) { return _mm512_set1_epi32(x); }
QSI_INLINE vi iand(vi a, vi b) { return _mm512_and_si512(a, b); }
QSI_INLINE vi ior(vi a, vi b) { return _mm512_or_si512(a, b); }
QSI_INLINE vi ixor(vi a, vi b) { return _mm512_xor_si512(a, b); }
QSI_INLINE vi and_or(vi a, vi b, vi c) { /* (a & b) | c */
    return _mm512_ternarylogic_epi32(a, b, c, 0xea);
}
QSI_INLINE vi shl(vi a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
QSI_INLINE vi shr(vi a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
/* The low (n 0) or high (1) nibbles of bytes. */
QSI_INLINE vi nibbles(vi a, int n) { return iand(shr(a, 4 * n), alli(0x0f0f0f0f)); }
QSI_INLINE vi sar(vi a, int n) { return _mm512_srai_epi32(a, (unsigned)n); }
QSI_INLINE vi shl16(vi a, int n) { return _mm512_slli_epi16(a, (unsigned)n); } /* halves of words */
QSI_INLINE vi shr16(vi a, int n) { return _mm512_srli_epi16(a, (unsigned)n); }
QSI_INLINE vi sar16(vi a, int n) { return _mm512_srai_epi16(a, (unsigned)n); }
/* The low half of words from lo, the high half from hi; from the low half of hi. */
QSI_INLINE vi halves(vi lo, vi hi) { return _mm512_mask_mov_epi16(lo, 0xaaaaaaaau, hi); }
QSI_INLINE vi low_pair(vi lo, vi hi) {
    return _mm512_mask_alignr_epi8(lo, 0xccccccccccccccccull, hi, hi, 14);
}
QSI_INLINE vi iadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
QSI_INLINE vi isub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
QSI_INLINE vi imul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
QSI_INLINE vf to_float(vi a) { return _mm512_cvtepi32_ps(a); }
/* Bytes of a 16-byte table, chosen by the bytes (0..15) of i. */
QSI_INLINE vi choose_bytes(const int8_t table[16], vi i) {
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), i);
}
/* Halves: W of them at p (aligned to 2 W); those in the low and in the high half of words. */
QSI_INLINE vf ld_halves(const char *p) {
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)p));
}
/* The same of bfloat16. */
QSI_INLINE vf ld_upper_halves(const char *p) {
    __m512i v = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
QSI_INLINE vf low_halves(vi v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
QSI_INLINE vf high_halves(vi v) { return low_halves(_mm512_srli_epi32(v, 16)); }

/* Sums of the lanes of 16 vectors, all by the same tree. */
QSI_INLINE vf sums_of(const vf v[W]) {
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

#endif
