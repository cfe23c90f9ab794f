/* Helpers of the AVX2 files: the same names as simd512.h, 8 lanes. Static inline only: every file
 * that includes this is compiled with -mavx2 -mfma -mf16c and keeps its own copies. */
#ifndef QSI_KERN_SIMD256_H
#define QSI_KERN_SIMD256_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define QSI_INLINE static inline __attribute__((always_inline, unused))

#define W 8
typedef __m256 vf;
/* Masked moves are slow where all lanes are in, so that is known apart. */
typedef struct vm {
    __m256i v;
    int n; /* lanes, 0..8 */
} vm;

QSI_INLINE int32_t word(const char *p) {
    int32_t w;
    memcpy(&w, p, 4);
    return w;
}

QSI_INLINE vm lanes(int64_t n) {
    int k = n >= W ? W : n <= 0 ? 0 : (int)n;
    return (vm){_mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                k};
}
QSI_INLINE vf ldu(const float *p) { return _mm256_loadu_ps(p); }
QSI_INLINE void stu(float *p, vf v) { _mm256_storeu_ps(p, v); }
QSI_INLINE vf ld(vm m, const float *p) {
    return m.n == W ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, m.v);
}
QSI_INLINE void st(vm m, float *p, vf v) {
    if (m.n == W)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, m.v, v);
}

QSI_INLINE __m128i ld_u16(vm m, const uint16_t *p) {
    if (m.n == W) return _mm_loadu_si128((const __m128i *)(const void *)p);
    uint16_t t[W] = {0};
    memcpy(t, p, (size_t)m.n * 2);
    return _mm_loadu_si128((const __m128i *)(const void *)t);
}
QSI_INLINE void st_u16(vm m, uint16_t *p, __m128i v) {
    if (m.n == W) {
        _mm_storeu_si128((__m128i *)(void *)p, v);
        return;
    }
    uint16_t t[W];
    _mm_storeu_si128((__m128i *)(void *)t, v);
    memcpy(p, t, (size_t)m.n * 2);
}
QSI_INLINE vf ld_f16(vm m, const uint16_t *p) { return _mm256_cvtph_ps(ld_u16(m, p)); }
QSI_INLINE void st_f16(vm m, uint16_t *p, vf v) {
    st_u16(m, p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
QSI_INLINE vf ld_bf16(vm m, const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(ld_u16(m, p)), 16));
}
/* Eight floats to bfloat16: round to nearest even, NaN kept quiet. */
QSI_INLINE __m128i bf16_of(vf x) {
    __m256i u = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i q = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    r = _mm256_srli_epi32(_mm256_blendv_epi8(r, q, nan), 16);
    r = _mm256_packus_epi32(r, r);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(r, 0x08));
}
QSI_INLINE void st_bf16(vm m, uint16_t *p, vf v) { st_u16(m, p, bf16_of(v)); }

QSI_INLINE vf zero(void) { return _mm256_setzero_ps(); }
QSI_INLINE vf all(float x) { return _mm256_set1_ps(x); }
QSI_INLINE vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
QSI_INLINE vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
QSI_INLINE vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
QSI_INLINE vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
QSI_INLINE vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
QSI_INLINE vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
QSI_INLINE vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
QSI_INLINE vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
QSI_INLINE vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
QSI_INLINE vf choose(vm m, vf a, vf b) {
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m.v));
}
QSI_INLINE vf nearest(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* In two factors, so that 2^n itself never leaves the exponents there are; only the second product
 * rounds. */
QSI_INLINE vf scale2(vf p, vf n) {
    __m256i k = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(h, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, h), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}
QSI_INLINE vf swap_pairs(vf a) { return _mm256_permute_ps(a, 0xb1); }
/* Lane i is lane i ^ h; h 1, 2, 4. */
QSI_INLINE vf swap_lanes(vf a, int h) {
    return h == 1 ? swap_pairs(a) : h == 2 ? _mm256_permute_ps(a, 0x4e)
                                           : _mm256_permute2f128_ps(a, a, 1);
}
QSI_INLINE vf evens(vf a) { return _mm256_moveldup_ps(a); }
QSI_INLINE vf odds(vf a) { return _mm256_movehdup_ps(a); }
QSI_INLINE vf minus_plus(void) {
    return _mm256_castsi256_ps(_mm256_set1_epi64x(0x3f800000bf800000ll));
}
QSI_INLINE float hsum(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
QSI_INLINE float hmax(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
typedef struct vd {
    __m256d a, b;
} vd;
QSI_INLINE vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
QSI_INLINE vd vd_add_sq(vd s, vf v) {
    __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    return (vd){_mm256_fmadd_pd(a, a, s.a), _mm256_fmadd_pd(b, b, s.b)};
}
QSI_INLINE double vd_sum(vd s) {
    double t[4];
    _mm256_storeu_pd(t, _mm256_add_pd(s.a, s.b));
    return (t[0] + t[1]) + (t[2] + t[3]);
}

/* ---- words: W lanes of 32 bits ---- */
typedef __m256i vi;
QSI_INLINE vi ldi(const char *p) { return _mm256_load_si256((const __m256i *)(const void *)p); }
/* A load that stays one, and in its order among such (simd512.h). */
QSI_INLINE vi ldi_once(const char *p) {
#ifdef QSI_SMALL_TILES
    return ldi(p);
#else
    vi v;
    __asm__ volatile("vmovdqa %1, %0" : "=x"(v) : "m"(*(const __m256i *)(const void *)p));
    return v;
#endif
}
QSI_INLINE void sti(char *p, vi v) { _mm256_store_si256((__m256i *)(void *)p, v); }
QSI_INLINE vf ldf(const char *p) { return _mm256_load_ps((const float *)(const void *)p); }
QSI_INLINE void stf(char *p, vf v) { _mm256_store_ps((float *)(void *)p, v); }
QSI_INLINE vi alli(int32_t x) { return _mm256_set1_epi32(x); }
QSI_INLINE vi iand(vi a, vi b) { return _mm256_and_si256(a, b); }
QSI_INLINE vi ior(vi a, vi b) { return _mm256_or_si256(a, b); }
QSI_INLINE vi ixor(vi a, vi b) { return _mm256_xor_si256(a, b); }
QSI_INLINE vi and_or(vi a, vi b, vi c) { /* (a & b) | c */
    return _mm256_or_si256(_mm256_and_si256(a, b), c);
}
QSI_INLINE vi shl(vi a, int n) { return _mm256_slli_epi32(a, n); }
QSI_INLINE vi shr(vi a, int n) { return _mm256_srli_epi32(a, n); }
QSI_INLINE vi sar(vi a, int n) { return _mm256_srai_epi32(a, n); }
QSI_INLINE vi shl16(vi a, int n) { return _mm256_slli_epi16(a, n); } /* halves of words */
QSI_INLINE vi shr16(vi a, int n) { return _mm256_srli_epi16(a, n); }
QSI_INLINE vi sar16(vi a, int n) { return _mm256_srai_epi16(a, n); }
/* The low half of words from lo, the high half from hi; from the low half of hi. */
QSI_INLINE vi halves(vi lo, vi hi) { return _mm256_blend_epi16(lo, hi, 0xaa); }
QSI_INLINE vi low_pair(vi lo, vi hi) { return halves(lo, _mm256_slli_epi32(hi, 16)); }
QSI_INLINE vi iadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
QSI_INLINE vi isub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
QSI_INLINE vi imul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
QSI_INLINE vf to_float(vi a) { return _mm256_cvtepi32_ps(a); }
/* Bytes of a 16-byte table, chosen by the bytes (0..15) of i. */
QSI_INLINE vi choose_bytes(const int8_t table[16], vi i) {
    __m128i t = _mm_loadu_si128((const __m128i *)(const void *)table);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), i);
}
/* Halves: W of them at p (aligned to 2 W); those in the low and in the high half of words. */
QSI_INLINE vf ld_halves(const char *p) {
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)p));
}
/* The same of bfloat16. */
QSI_INLINE vf ld_upper_halves(const char *p) {
    __m256i v = _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}
QSI_INLINE vf low_halves(vi v) {
    v = _mm256_and_si256(v, _mm256_set1_epi32(0xffff));
    v = _mm256_permute4x64_epi64(_mm256_packus_epi32(v, v), 0x08);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(v));
}
QSI_INLINE vf high_halves(vi v) { return low_halves(_mm256_srli_epi32(v, 16)); }

/* Sums of the lanes of 8 vectors, all by the same tree. */
QSI_INLINE vf sums_of(const vf v[W]) {
    __m256 t[4], u[2];
    for (int i = 0; i < 4; i++)
        t[i] = _mm256_add_ps(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 2; i++) {
        __m256d a = _mm256_castps_pd(t[2 * i]), b = _mm256_castps_pd(t[2 * i + 1]);
        u[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                             _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return _mm256_add_ps(_mm256_permute2f128_ps(u[0], u[1], 0x20),
                         _mm256_permute2f128_ps(u[0], u[1], 0x31));
}

/* Rows of 8 words in r, columns out. */
QSI_INLINE void transpose8(__m256i r[8]) {
    __m256i t[8];
    for (int i = 0; i < 8; i += 4) {
        __m256i a = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        __m256i b = _mm256_unpackhi_epi32(r[i], r[i + 1]);
        __m256i c = _mm256_unpacklo_epi32(r[i + 2], r[i + 3]);
        __m256i d = _mm256_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm256_unpacklo_epi64(a, c);
        t[i + 1] = _mm256_unpackhi_epi64(a, c);
        t[i + 2] = _mm256_unpacklo_epi64(b, d);
        t[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x31);
    }
}

#endif
