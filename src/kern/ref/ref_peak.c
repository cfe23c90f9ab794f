/* What plain C reaches: eight chains of multiply-adds. */
#include <string.h>

#include "kern/kern_levels.h"

#define CHAINS 8

static int64_t peak_f32(int64_t rounds, float *out) {
    float s[CHAINS], x = *out;
    for (int j = 0; j < CHAINS; j++) s[j] = (float)j;
    for (int64_t i = 0; i < rounds; i++)
        for (int j = 0; j < CHAINS; j++) s[j] = s[j] * x + x;
    for (int j = 1; j < CHAINS; j++) s[0] += s[j];
    *out = s[0];
    return rounds * CHAINS * 2;
}

static int64_t peak_int8(int64_t rounds, float *out) {
    uint32_t s[CHAINS], x = *out > 0.25f ? 3 : 5;
    for (int j = 0; j < CHAINS; j++) s[j] = (uint32_t)j;
    for (int64_t i = 0; i < rounds; i++)
        for (int j = 0; j < CHAINS; j++) s[j] = s[j] * x + x;
    for (int j = 1; j < CHAINS; j++) s[0] += s[j];
    *out = (float)s[0];
    return rounds * CHAINS * 2;
}

static uint64_t read_all(const void *p, size_t n) {
    const char *q = p;
    uint64_t s[4] = {0}, v[4];
    for (size_t i = 0; i + sizeof v <= n; i += sizeof v) {
        memcpy(v, q + i, sizeof v);
        for (int j = 0; j < 4; j++) s[j] ^= v[j];
    }
    return s[0] ^ s[1] ^ s[2] ^ s[3];
}

void qsi_kern_fill_ref_peak(qsi_kern *t) {
    t->peak_f32 = t->peak_bf16 = peak_f32;
    t->peak_int8 = peak_int8;
    t->read_all = read_all;
}
