/* Products of quantised weights, AVX-512 without VNNI: products of bytes as pairs in 16 bits (codes
 * below 128, so that two products never saturate), then pairs of those. Signed codes: the product
 * |w| * (x with the sign of w), at most 2 * 128 * 127. */
#include "kern/x86/simd512.h"

#define BIASED 0
#ifdef QSI_SMALL_TILES /* sanitizers: the same code, compiled in a tenth of the time */
#define MR 2
#define FEW 2
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2)
#else
#define FEW 4
#define MR 6
#define NP 2
#define ALL_ROWS(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4) X(name, 5) X(name, 6)
#endif

QSI_INLINE __m512i dot4(__m512i s, __m512i w, __m512i x) {
    __m512i two = _mm512_maddubs_epi16(w, x);
    return _mm512_add_epi32(s, _mm512_madd_epi16(two, _mm512_set1_epi16(1)));
}
QSI_INLINE __m512i dot4s(__m512i s, __m512i w, __m512i x) {
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    return dot4(s, _mm512_abs_epi8(w), x);
}
QSI_INLINE __m512i dot2(__m512i s, __m512i w, __m512i x) {
    return _mm512_add_epi32(s, _mm512_madd_epi16(w, x));
}

#include "kern/x86/mm_quant.h"

ALL_TILES
QSI_MM_QUANT_LIST(QUANT_FUNCTIONS)

void qsi_kern_fill_avx512_mm_quant(qsi_kern *t) { QSI_MM_QUANT_LIST(QUANT_FILL) }
