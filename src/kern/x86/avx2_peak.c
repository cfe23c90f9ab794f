/* Twelve chains of AVX2 multiply-adds, more than latency times throughput; a plain read loop. Bytes
 * go into 16-bit sums: two instructions for 32 products, which is all that a product can hope for. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

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

static int64_t peak_int8(int64_t rounds, float *out) {
    __m256i s[CHAINS], x = _mm256_set1_epi8(*out > 0.25f ? 3 : 5);
    for (int j = 0; j < CHAINS; j++) s[j] = _mm256_set1_epi32(j);
    for (int64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++)
            s[j] = _mm256_add_epi16(s[j], _mm256_maddubs_epi16(x, s[j]));
    }
    for (int j = 1; j < CHAINS; j++) s[0] = _mm256_add_epi32(s[0], s[j]);
    uint32_t t[8], sum = 0;
    memcpy(t, &s[0], 32);
    for (int j = 0; j < 8; j++) sum += t[j];
    *out = (float)sum;
    return rounds * CHAINS * 64;
}

static uint64_t read_all(const void *p, size_t n) {
    const char *q = p;
    __m256i s[8];
    for (int j = 0; j < 8; j++) s[j] = _mm256_setzero_si256();
    for (size_t i = 0; i + 256 <= n; i += 256)
        for (size_t j = 0; j < 8; j++)
            s[j] = _mm256_xor_si256(
                s[j], _mm256_load_si256((const __m256i *)(const void *)(q + i + 32 * j)));
    uint64_t t[4], sum = 0;
    for (int j = 0; j < 8; j++) {
        memcpy(t, &s[j], 32);
        sum += t[0] ^ t[1] ^ t[2] ^ t[3];
    }
    return sum;
}

void qsi_kern_fill_avx2_peak(qsi_kern *t) {
    t->peak_f32 = t->peak_bf16 = peak_f32;
    t->peak_int8 = peak_int8;
    t->read_all = read_all;
}
