/* Twelve chains of bfloat16 dot products. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define CHAINS 12

static int64_t peak_bf16(int64_t rounds, float *out) {
    __m512 s[CHAINS];
    __m512bh x = (__m512bh)bf16_words(all(*out));
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) s[j] = all((float)j);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) s[j] = _mm512_dpbf16_ps(s[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) s[0] = vadd(s[0], s[j]);
    *out = hsum(s[0]);
    return rounds * CHAINS * 64;
}

void qsi_kern_fill_avx512bf16_peak(qsi_kern *t) { t->peak_bf16 = peak_bf16; }
