/* The two dots of AVX-VNNI by instructions of AVX2, for CPUs without it; included before a kernel's own
 * lines (-include). Neither saturates. */
#ifndef AVXVNNI_EMUL_H
#define AVXVNNI_EMUL_H

#include <immintrin.h>

static inline __m256i avxvnni_emul_dpwssd(__m256i s, __m256i a, __m256i b) {
    return _mm256_add_epi32(s, _mm256_madd_epi16(a, b));
}

/* w unsigned, x signed: the even bytes as 16-bit words, then the odd ones. */
static inline __m256i avxvnni_emul_dpbusd(__m256i s, __m256i w, __m256i x) {
    __m256i even = _mm256_and_si256(w, _mm256_set1_epi16(255)), odd = _mm256_srli_epi16(w, 8);
    s = avxvnni_emul_dpwssd(s, even, _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
    return avxvnni_emul_dpwssd(s, odd, _mm256_srai_epi16(x, 8));
}

#define _mm256_dpbusd_avx_epi32 avxvnni_emul_dpbusd
#define _mm256_dpwssd_avx_epi32 avxvnni_emul_dpwssd

#endif
