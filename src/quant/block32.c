/* Blocks of 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4.
 * Encoding equals ggml's reference quantisers bit for bit on finite input, but for IQ4_NL, where
 * ggml searches and this does not. A NaN or infinity in a block gives a block scale that is not
 * finite, so that damage stays visible; so do values too large for a binary16 scale. */
#include <math.h>
#include <string.h>

#include "quant/blocks.h"

#define BLOCK 32
#define HALF 16

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

/* Smallest and largest value; false, and both NaN, when a value is not finite. */
static bool range_of(const float *x, float *min, float *max) {
    float lo = x[0], hi = x[0];
    bool finite = true;
    for (int j = 0; j < BLOCK; j++) {
        finite = finite && isfinite(x[j]);
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    *min = finite ? lo : NAN;
    *max = finite ? hi : NAN;
    return finite;
}

/* 1/d, or 0 where that is no usable factor: d zero or so small that its reciprocal overflows (its
 * binary16 is zero then, and the quants mean nothing), or not finite. */
static float reciprocal(float d) {
    float r = d != 0 && isfinite(d) ? 1.0f / d : 0.0f;
    return isfinite(r) ? r : 0.0f;
}

/* trunc(x + half) as 0 .. top; 0 for what is no number. */
static uint8_t quant_of(float x, float half, int top) {
    float v = x + half;
    int q = v > 0 ? (v < (float)top ? (int)v : top) : 0;
    return (uint8_t)q;
}

static void put_nibbles(uint8_t qs[HALF], const uint8_t q[BLOCK]) {
    for (int j = 0; j < HALF; j++) qs[j] = (uint8_t)((q[j] & 15) | (q[j + HALF] & 15) << 4);
}

static void get_nibbles(uint8_t q[BLOCK], const uint8_t qs[HALF]) {
    for (int j = 0; j < HALF; j++) {
        q[j] = qs[j] & 15;
        q[j + HALF] = qs[j] >> 4;
    }
}

static void put_fifth_bits(uint8_t qh[4], const uint8_t q[BLOCK]) {
    for (int b = 0; b < 4; b++) {
        unsigned bits = 0;
        for (int j = 0; j < 8; j++) bits |= (unsigned)(q[8 * b + j] >> 4 & 1) << j;
        qh[b] = (uint8_t)bits;
    }
}

static void add_fifth_bits(uint8_t q[BLOCK], const uint8_t qh[4]) {
    for (int j = 0; j < BLOCK; j++) q[j] |= (uint8_t)((qh[j / 8] >> j % 8 & 1) << 4);
}

/* ---- Q8_0: d = max|x| / 127, q = round half away from zero (x / d) ---- */

void qsi_encode_q8_0(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q8_0)) {
        float d = fabsf(extreme_of(src + i)) / 127.0f;
        float id = reciprocal(d);
        qsi_store16(out, qsi_f32_to_f16(d));
        for (int j = 0; j < BLOCK; j++) {
            float q = isfinite(src[i + j]) ? roundf(src[i + j] * id) : 0.0f;
            out[2 + j] = (uint8_t)(int8_t)q;
        }
    }
}

void qsi_decode_q8_0(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q8_0)) {
        qsi_q8_0 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        for (int j = 0; j < BLOCK; j++) dst[i + j] = (float)b.qs[j] * d;
    }
}

/* ---- Q4_0, Q5_0: d = (signed value of largest magnitude) / -half, q = trunc(x / d + half + 0.5),
 * at most 2 half - 1 ---- */

static float encode_signed(const float *x, int half, uint8_t q[BLOCK]) {
    float d = extreme_of(x) / -(float)half;
    float id = reciprocal(d);
    for (int j = 0; j < BLOCK; j++) {
        float v = isfinite(x[j]) ? x[j] * id : 0.0f;
        q[j] = quant_of(v, (float)half + 0.5f, 2 * half - 1);
    }
    return d;
}

void qsi_pack_q4_0(const qsi_parts *p, void *dst) {
    qsi_q4_0 b;
    qsi_store16(&b.d, p->d);
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q4_0(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q4_0)) {
        qsi_parts p;
        p.d = qsi_f32_to_f16(encode_signed(src + i, 8, p.q));
        qsi_pack_q4_0(&p, out);
    }
}

void qsi_decode_q4_0(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q4_0)) {
        qsi_q4_0 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        get_nibbles(q, b.qs);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = (float)(q[j] - 8) * d;
    }
}

void qsi_pack_q5_0(const qsi_parts *p, void *dst) {
    qsi_q5_0 b;
    qsi_store16(&b.d, p->d);
    put_fifth_bits(b.qh, p->q);
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q5_0(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q5_0)) {
        qsi_parts p;
        p.d = qsi_f32_to_f16(encode_signed(src + i, 16, p.q));
        qsi_pack_q5_0(&p, out);
    }
}

void qsi_decode_q5_0(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q5_0)) {
        qsi_q5_0 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        get_nibbles(q, b.qs);
        add_fifth_bits(q, b.qh);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = (float)(q[j] - 16) * d;
    }
}

/* ---- Q4_1, Q5_1: m = min x, d = (max - min) / top, q = trunc((x - m) / d + 0.5) ---- */

static void encode_affine(const float *x, int top, qsi_parts *p) {
    float min, max;
    bool finite = range_of(x, &min, &max);
    float d = (max - min) / (float)top;
    float id = reciprocal(d);
    p->d = qsi_f32_to_f16(d);
    p->dmin = qsi_f32_to_f16(min);
    for (int j = 0; j < BLOCK; j++)
        p->q[j] = finite ? quant_of((x[j] - min) * id, 0.5f, top) : 0;
}

void qsi_pack_q4_1(const qsi_parts *p, void *dst) {
    qsi_q4_1 b;
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.m, p->dmin);
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q4_1(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q4_1)) {
        qsi_parts p;
        encode_affine(src + i, 15, &p);
        qsi_pack_q4_1(&p, out);
    }
}

void qsi_decode_q4_1(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q4_1)) {
        qsi_q4_1 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d)), m = qsi_f16_to_f32(qsi_load16(&b.m));
        get_nibbles(q, b.qs);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = (float)q[j] * d + m;
    }
}

void qsi_pack_q5_1(const qsi_parts *p, void *dst) {
    qsi_q5_1 b;
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.m, p->dmin);
    put_fifth_bits(b.qh, p->q);
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q5_1(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q5_1)) {
        qsi_parts p;
        encode_affine(src + i, 31, &p);
        qsi_pack_q5_1(&p, out);
    }
}

void qsi_decode_q5_1(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q5_1)) {
        qsi_q5_1 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d)), m = qsi_f16_to_f32(qsi_load16(&b.m));
        get_nibbles(q, b.qs);
        add_fifth_bits(q, b.qh);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = (float)q[j] * d + m;
    }
}

/* ---- IQ4_NL: sixteen uneven steps. The value of largest magnitude takes step -127, the others the
 * nearest; then the scale that fits all of them best (least squares) ---- */

const int8_t qsi_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

/* Half way between neighbours. */
static const float between[15] = {-115.5f, -93.5f, -74, -57,   -42,   -28.5f, -16, -4.5f,
                                  7,       19,     31.5f, 45.5f, 61,  79,     101};

uint8_t qsi_iq4_step(float v) {
    int q = 8 * (v > between[7]);
    q += 4 * (v > between[q + 3]);
    q += 2 * (v > between[q + 1]);
    q += v > between[q];
    return (uint8_t)q;
}

void qsi_pack_iq4_nl(const qsi_parts *p, void *dst) {
    qsi_iq4_nl b;
    qsi_store16(&b.d, p->d);
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_iq4_nl(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_iq4_nl)) {
        qsi_parts p;
        float d = extreme_of(src + i) / -127.0f, xt = 0, tt = 0;
        float id = reciprocal(d);
        for (int j = 0; j < BLOCK; j++) {
            float v = isfinite(d) ? src[i + j] * id : 0.0f;
            p.q[j] = qsi_iq4_step(v);
            float t = (float)qsi_iq4_values[p.q[j]];
            xt += v * t;
            tt += t * t;
        }
        if (id != 0) d *= xt / tt; /* tt >= 1: no step is 0 */
        p.d = qsi_f32_to_f16(d);
        qsi_pack_iq4_nl(&p, out);
    }
}

void qsi_decode_iq4_nl(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_iq4_nl)) {
        qsi_iq4_nl b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        get_nibbles(q, b.qs);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = d * (float)qsi_iq4_values[q[j]];
    }
}

/* ---- MXFP4: the numbers of one sign, two exponent and one fraction bits, times a power of two. The
 * exponent is that of the largest magnitude, which falls on the two largest steps (4 .. 6 in E2M1); of
 * equally near steps the smaller counts. A NaN or infinity makes the scale so large, and the codes
 * with it, that all values decode to infinity ---- */

const int8_t qsi_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float qsi_mxfp4_scale(uint8_t e) {
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint8_t qsi_mxfp4_step(float x, float d) {
    static const float half_way[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
    int q = 0;
    for (int i = 0; i < 7; i++) q += fabsf(x) > half_way[i] * d; /* exact: d is a power of two */
    return (uint8_t)(q | (x < 0 && q > 0 ? 8 : 0));
}

/* The exponent of a block; -1 where a value is no number. */
static int mxfp4_exponent(const float *x) {
    float mag = fabsf(extreme_of(x));
    int e = 0;
    if (!isfinite(mag)) return -1;
    if (mag == 0) return 0;
    (void)frexpf(mag, &e); /* 2^(e - 1) <= mag */
    e += 127 - 3;
    return e < 0 ? 0 : e;
}

void qsi_pack_mxfp4(const qsi_parts *p, void *dst) {
    qsi_mxfp4 b = {.e = (uint8_t)p->d};
    put_nibbles(b.qs, p->q);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_mxfp4(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_mxfp4)) {
        qsi_parts p = {.d = 255};
        int e = mxfp4_exponent(src + i);
        memset(p.q, 7, BLOCK);
        if (e >= 0) {
            p.d = (uint16_t)e;
            float d = qsi_mxfp4_scale((uint8_t)e);
            for (int j = 0; j < BLOCK; j++) p.q[j] = qsi_mxfp4_step(src[i + j], d);
        }
        qsi_pack_mxfp4(&p, out);
    }
}

void qsi_decode_mxfp4(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_mxfp4)) {
        qsi_mxfp4 b;
        memcpy(&b, in, sizeof b);
        float d = qsi_mxfp4_scale(b.e);
        get_nibbles(q, b.qs);
        for (int j = 0; j < BLOCK; j++) dst[i + j] = d * (float)qsi_mxfp4_values[q[j]];
    }
}
