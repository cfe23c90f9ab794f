/* Products of quantised weights, AVX2: as avx512_mm_quant.c with panels of 8 columns. */
#include "kern/x86/simd256.h"

#define BIASED 0
#ifdef QSI_SMALL_TILES /* sanitizers: the same code, compiled in a tenth of the time */
#define MR 2
#define FEW 2
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2)
#else
#define FEW 2
#define MR 4
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4)
#endif

QSI_INLINE __m256i dot4(__m256i s, __m256i w, __m256i x) {
    __m256i two = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(s, _mm256_madd_epi16(two, _mm256_set1_epi16(1)));
}
QSI_INLINE __m256i dot4s(__m256i s, __m256i w, __m256i x) {
    return dot4(s, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
QSI_INLINE __m256i dot2(__m256i s, __m256i w, __m256i x) {
    return _mm256_add_epi32(s, _mm256_madd_epi16(w, x));
}

#include "kern/x86/mm_quant.h"

ALL_TILES
QSI_MM_QUANT_LIST(QUANT_FUNCTIONS)

void qsi_kern_fill_avx2_mm_quant(qsi_kern *t) { QSI_MM_QUANT_LIST(QUANT_FILL) }
