/* Twelve chains of byte dot products of 256 bits. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define CHAINS 12

static int64_t peak_int8(int64_t rounds, float *out) {
    __m256i s[CHAINS], x = _mm256_set1_epi8(*out > 0.25f ? 3 : 5);
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) s[j] = _mm256_set1_epi32(j);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) s[j] = _mm256_dpbusd_avx_epi32(s[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) s[0] = _mm256_add_epi32(s[0], s[j]);
    int32_t t[8];
    memcpy(t, &s[0], sizeof t);
    int64_t sum = 0;
    for (int j = 0; j < 8; j++) sum += t[j];
    *out = (float)sum;
    return rounds * CHAINS * 64;
}

void qsi_kern_fill_avxvnni_peak(qsi_kern *t) { t->peak_int8 = peak_int8; }
