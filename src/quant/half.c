/* The two 16-bit floats: IEEE 754 binary16 and bfloat16, by integer arithmetic only, so that every
 * machine agrees bit for bit. NaN follows the x86 F16C instructions: quiet, upper payload kept. */
#include <string.h>

#include "quant/quant.h"

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float qsi_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = (h >> 10) & 31, man = h & 0x3ff;
    if (exp == 31) {
        return float_of(sign | 0x7f800000u | (man << 13) | (man ? 0x400000u : 0));
    }
    if (exp != 0) {
        return float_of(sign | ((exp + 112) << 23) | (man << 13));
    }
    if (man == 0) {
        return float_of(sign);
    }
    /* A denormal is man * 2^-24: shift the leading bit up to the implicit place. */
    uint32_t e = 113;
    while (!(man & 0x400)) {
        man <<= 1;
        e--;
    }
    return float_of(sign | (e << 23) | ((man & 0x3ff) << 13));
}

uint16_t qsi_f32_to_f16(float f) {
    uint32_t u = bits_of(f);
    uint32_t sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00 | ((a >> 13) & 0x3ff));
    }
    if (a >= 0x47800000) { /* 2^16 and above, infinity */
        return (uint16_t)(sign | 0x7c00);
    }
    if (a >= 0x38800000) { /* normal in binary16: 2^-14 and above; a carry may reach infinity */
        uint32_t r = a - 0x38000000;
        return (uint16_t)(sign | ((r + 0xfff + ((r >> 13) & 1)) >> 13));
    }
    if (a < 0x33000000) { /* below 2^-25: zero (2^-25 itself is a tie and rounds to even, zero) */
        return (uint16_t)sign;
    }
    uint32_t shift = 126 - (a >> 23); /* 14 .. 24 */
    uint32_t man = (a & 0x7fffff) | 0x800000;
    uint32_t half = 1u << (shift - 1), rest = man & ((1u << shift) - 1), q = man >> shift;
    if (rest > half || (rest == half && (q & 1))) {
        q++;
    }
    return (uint16_t)(sign | q);
}

float qsi_bf16_to_f32(uint16_t h) {
    return float_of((uint32_t)h << 16);
}

uint16_t qsi_f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000) {
        return (uint16_t)((u >> 16) | 64);
    }
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
