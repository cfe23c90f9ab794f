/* Twelve chains of byte dot products. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define CHAINS 12

static int64_t peak_int8(int64_t rounds, float *out) {
    __m512i s[CHAINS], x = _mm512_set1_epi8(*out > 0.25f ? 3 : 5);
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) s[j] = _mm512_set1_epi32(j);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) s[j] = _mm512_dpbusd_epi32(s[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) s[0] = _mm512_add_epi32(s[0], s[j]);
    *out = (float)_mm512_reduce_add_epi32(s[0]);
    return rounds * CHAINS * 128;
}

void qsi_kern_fill_vnni_peak(qsi_kern *t) { t->peak_int8 = peak_int8; }
