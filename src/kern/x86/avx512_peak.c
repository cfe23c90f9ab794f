/* Twelve chains of AVX-512 multiply-adds, more than latency times throughput; a plain read loop. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define CHAINS 12

static int64_t peak_f32(int64_t rounds, float *out) {
    vf s[CHAINS], x = all(*out);
#pragma GCC unroll 12
    for (int j = 0; j < CHAINS; j++) s[j] = all((float)j);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) s[j] = vfma(s[j], x, x);
    }
    for (int j = 1; j < CHAINS; j++) s[0] = vadd(s[0], s[j]);
    *out = hsum(s[0]);
    return rounds * CHAINS * W * 2;
}

static uint64_t read_all(const void *p, size_t n) {
    const char *q = p;
    __m512i s[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                    _mm512_setzero_si512()};
    for (size_t i = 0; i + 256 <= n; i += 256)
        for (size_t j = 0; j < 4; j++)
            s[j] = _mm512_xor_si512(s[j], _mm512_load_si512(q + i + 64 * j));
    s[0] = _mm512_xor_si512(_mm512_xor_si512(s[0], s[1]), _mm512_xor_si512(s[2], s[3]));
    return (uint64_t)_mm512_reduce_add_epi64(s[0]);
}

void qsi_kern_fill_avx512_peak(qsi_kern *t) {
    t->peak_f32 = t->peak_bf16 = peak_f32;
    t->read_all = read_all;
}
