/* The table of types: what GGML calls them, how big a block is, and the scalar encode and decode of
 * those this program computes with. Types without decode are known so that a file that holds them
 * can be described. Rows are little-endian; src and dst of encode and decode need no alignment.
 * Source: block layouts of ggml (deepseek-facts 4.2). Encoding equals ggml's reference quantisers
 * bit for bit on finite input; a NaN or infinity in a block gives a block scale that is not finite,
 * so that damage stays visible. */
#include <math.h>
#include <string.h>

#include "quant/quant.h"

#define BLOCK 32

static uint16_t load16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void store16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void decode_f32(const void *src, float *dst, int64_t n) {
    if (n > 0) memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void encode_f32(const float *src, void *dst, int64_t n) {
    if (n > 0) memcpy(dst, src, (size_t)n * sizeof *src);
}

static void decode_f16(const void *src, float *dst, int64_t n) {
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = qsi_f16_to_f32(load16(s + 2 * i));
}

static void encode_f16(const float *src, void *dst, int64_t n) {
    uint8_t *d = dst;
    for (int64_t i = 0; i < n; i++) store16(d + 2 * i, qsi_f32_to_f16(src[i]));
}

static void decode_bf16(const void *src, float *dst, int64_t n) {
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = qsi_bf16_to_f32(load16(s + 2 * i));
}

static void encode_bf16(const float *src, void *dst, int64_t n) {
    uint8_t *d = dst;
    for (int64_t i = 0; i < n; i++) store16(d + 2 * i, qsi_f32_to_bf16(src[i]));
}

/* The value of largest magnitude of a block (the first of equals), or a NaN or infinity if one is
 * there. */
static float extreme_of(const float *x) {
    float best = 0, mag = 0;
    for (int j = 0; j < BLOCK; j++) {
        float a = fabsf(x[j]);
        if (!isfinite(a)) {
            return x[j];
        }
        if (a > mag) {
            mag = a;
            best = x[j];
        }
    }
    return best;
}

/* 1/d, or 0 where that is no usable factor: d zero or so small that its reciprocal overflows (its
 * binary16 is zero then, and the quants mean nothing), or not finite. */
static float reciprocal(float d) {
    float r = d != 0 && isfinite(d) ? 1.0f / d : 0.0f;
    return isfinite(r) ? r : 0.0f;
}

/* Q8_0: d = max|x| / 127, q = round half away from zero (x / d). */
static void encode_q8_0(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q8_0)) {
        float d = fabsf(extreme_of(src + i)) / 127.0f;
        float id = reciprocal(d);
        store16(out, qsi_f32_to_f16(d));
        for (int j = 0; j < BLOCK; j++) {
            float q = isfinite(src[i + j]) ? roundf(src[i + j] * id) : 0.0f;
            out[2 + j] = (uint8_t)(int8_t)q;
        }
    }
}

static void decode_q8_0(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q8_0)) {
        float d = qsi_f16_to_f32(load16(in));
        for (int j = 0; j < BLOCK; j++) {
            int8_t q;
            memcpy(&q, in + 2 + j, 1);
            dst[i + j] = (float)q * d;
        }
    }
}

static uint8_t nibble_of(float x, float id) {
    float v = isfinite(x) ? x * id + 8.5f : 8.0f; /* in [0.5, 16.5] by the choice of d */
    int q = (int)v;
    return (uint8_t)(q > 15 ? 15 : q);
}

/* Q4_0: d = (signed value of largest magnitude) / -8, q = min(15, trunc(x / d + 8.5)). */
static void encode_q4_0(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q4_0)) {
        float d = extreme_of(src + i) / -8.0f;
        float id = reciprocal(d);
        store16(out, qsi_f32_to_f16(d));
        for (int j = 0; j < BLOCK / 2; j++) {
            uint8_t lo = nibble_of(src[i + j], id), hi = nibble_of(src[i + j + BLOCK / 2], id);
            out[2 + j] = (uint8_t)(lo | hi << 4);
        }
    }
}

static void decode_q4_0(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q4_0)) {
        float d = qsi_f16_to_f32(load16(in));
        for (int j = 0; j < BLOCK / 2; j++) {
            uint8_t b = in[2 + j];
            dst[i + j] = (float)((b & 15) - 8) * d;
            dst[i + j + BLOCK / 2] = (float)((b >> 4) - 8) * d;
        }
    }
}

#define COMPUTED(id, name, block, bytes, fn)                                                       \
    { id, name, block, bytes, true, decode_##fn, encode_##fn }
#define NAMED(id, name, block, bytes) {(qsi_type)(id), name, block, bytes, false, NULL, NULL}

static const qsi_type_info types[] = {
    COMPUTED(QSI_F32, "F32", 1, 4, f32),
    COMPUTED(QSI_F16, "F16", 1, 2, f16),
    COMPUTED(QSI_Q4_0, "Q4_0", BLOCK, 18, q4_0),
    NAMED(3, "Q4_1", 32, 20),
    NAMED(6, "Q5_0", 32, 22),
    NAMED(7, "Q5_1", 32, 24),
    COMPUTED(QSI_Q8_0, "Q8_0", BLOCK, 34, q8_0),
    NAMED(9, "Q8_1", 32, 36),
    NAMED(10, "Q2_K", 256, 84),
    NAMED(11, "Q3_K", 256, 110),
    NAMED(12, "Q4_K", 256, 144),
    NAMED(13, "Q5_K", 256, 176),
    NAMED(14, "Q6_K", 256, 210),
    NAMED(15, "Q8_K", 256, 292),
    NAMED(16, "IQ2_XXS", 256, 66),
    NAMED(17, "IQ2_XS", 256, 74),
    NAMED(18, "IQ3_XXS", 256, 98),
    NAMED(19, "IQ1_S", 256, 50),
    NAMED(20, "IQ4_NL", 32, 18),
    NAMED(21, "IQ3_S", 256, 110),
    NAMED(22, "IQ2_S", 256, 82),
    NAMED(23, "IQ4_XS", 256, 136),
    NAMED(QSI_I8, "I8", 1, 1),
    NAMED(QSI_I16, "I16", 1, 2),
    NAMED(QSI_I32, "I32", 1, 4),
    NAMED(QSI_I64, "I64", 1, 8),
    NAMED(QSI_F64, "F64", 1, 8),
    NAMED(29, "IQ1_M", 256, 56),
    COMPUTED(QSI_BF16, "BF16", 1, 2, bf16),
    NAMED(34, "TQ1_0", 256, 54),
    NAMED(35, "TQ2_0", 256, 66),
    NAMED(39, "MXFP4", 32, 17),
    NAMED(40, "NVFP4", 64, 36),
};

const qsi_type_info *qsi_type_get(int32_t type) {
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        if ((int32_t)types[i].type == type) {
            return &types[i];
        }
    }
    return NULL;
}

static int lower(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

const qsi_type_info *qsi_type_find(const char *name) {
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        const char *a = types[i].name, *b = name;
        while (*a && lower(*a) == lower(*b)) {
            a++;
            b++;
        }
        if (!*a && !*b) {
            return &types[i];
        }
    }
    return NULL;
}

bool qsi_row_bytes(const qsi_type_info *ti, int64_t n, size_t *out) {
    if (n < 0 || n % ti->block != 0) {
        return false;
    }
    uint64_t blocks = (uint64_t)(n / ti->block), most = SIZE_MAX / (size_t)ti->bytes;
    if (blocks > most) {
        return false;
    }
    *out = (size_t)blocks * (size_t)ti->bytes;
    return true;
}
