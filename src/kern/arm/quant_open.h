/* Blocks of quantised weights opened into bytes, NEON. Layouts: quant.h. */
#ifndef QSI_KERN_QUANT_OPEN_H
#define QSI_KERN_QUANT_OPEN_H

#include <stddef.h>

#include "kern/arm/simdneon.h"
#include "kern/kern.h"
#include "quant/quant.h"

/* Value i is d * sc[i/16] * q[i] - m * mn of its group; minima stand in the order of qsi_actk's sums
 * (16 of Q2_K, 8 of Q4_K and Q5_K). Blocks of 32 use q, d and m alone. */
typedef struct opened {
    int8_t q[256];
    int16_t sc[16], mn[16];
    float d, m;
} opened;

typedef struct qtype {
    int n, bytes; /* values and bytes of a block */
    int minima;   /* sums that meet minima: 0, 1, 8 or 16 */
    void (*open)(const uint8_t *s, opened *o);
} qtype;

/* X(NAME, name, n, minima) */
#define QUANT_TYPES(X)                                                                             \
    X(Q8_0, q8_0, 32, 0) X(Q4_0, q4_0, 32, 0) X(Q4_1, q4_1, 32, 1) X(Q5_0, q5_0, 32, 0)            \
    X(Q5_1, q5_1, 32, 1) X(IQ4_NL, iq4_nl, 32, 0) X(MXFP4, mxfp4, 32, 0)                          \
    X(Q2_K, q2_k, 256, 16) X(Q3_K, q3_k, 256, 0)                                                  \
    X(Q4_K, q4_k, 256, 8) X(Q5_K, q5_k, 256, 8) X(Q6_K, q6_k, 256, 0)      \
    X(IQ4_XS, iq4_xs, 256, 0)

QSI_INLINE float half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return vgetq_lane_f32(widen_f16(vdupq_n_u16(h)).a, 0);
}

QSI_INLINE void put(int8_t *q, uint8x16_t v) { vst1q_s8(q, vreinterpretq_s8_u8(v)); }

/* 16 where the bit of a value is set, values 16 part .. 16 part + 15. */
QSI_INLINE uint8x16_t fifth(const uint8_t *qh, int part) {
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t b = vcombine_u8(vdup_n_u8(qh[2 * part]), vdup_n_u8(qh[2 * part + 1]));
    return vandq_u8(vtstq_u8(b, vld1q_u8(bits)), vdupq_n_u8(16));
}

/* Nibbles at qs, with the fifth bits where there are some, less `less`. */
QSI_INLINE void nibbles(const uint8_t *qs, const uint8_t *qh, int less, int8_t *q) {
    uint8x16_t v = vld1q_u8(qs), l = vdupq_n_u8((uint8_t)less);
    uint8x16_t lo = vandq_u8(v, vdupq_n_u8(15)), hi = vshrq_n_u8(v, 4);
    if (qh) {
        lo = vorrq_u8(lo, fifth(qh, 0));
        hi = vorrq_u8(hi, fifth(qh, 1));
    }
    put(q, vsubq_u8(lo, l));
    put(q + 16, vsubq_u8(hi, l));
}

QSI_INLINE void open_q8_0(const uint8_t *s, opened *o) {
    o->d = half_at(s);
    memcpy(o->q, s + offsetof(qsi_q8_0, qs), 32);
}

QSI_INLINE void open_q4_0(const uint8_t *s, opened *o) {
    o->d = half_at(s);
    nibbles(s + offsetof(qsi_q4_0, qs), NULL, 8, o->q);
}

QSI_INLINE void open_q4_1(const uint8_t *s, opened *o) {
    o->d = half_at(s);
    o->m = -half_at(s + 2);
    nibbles(s + offsetof(qsi_q4_1, qs), NULL, 0, o->q);
}

QSI_INLINE void open_q5_0(const uint8_t *s, opened *o) {
    o->d = half_at(s);
    nibbles(s + offsetof(qsi_q5_0, qs), s + offsetof(qsi_q5_0, qh), 16, o->q);
}

QSI_INLINE void open_q5_1(const uint8_t *s, opened *o) {
    o->d = half_at(s);
    o->m = -half_at(s + 2);
    nibbles(s + offsetof(qsi_q5_1, qs), s + offsetof(qsi_q5_1, qh), 0, o->q);
}

QSI_INLINE void open_iq4_nl(const uint8_t *s, opened *o) {
    int8x16_t table = vld1q_s8(qsi_iq4_values);
    uint8x16_t v = vld1q_u8(s + offsetof(qsi_iq4_nl, qs));
    o->d = half_at(s);
    vst1q_s8(o->q, vqtbl1q_s8(table, vandq_u8(v, vdupq_n_u8(15))));
    vst1q_s8(o->q + 16, vqtbl1q_s8(table, vshrq_n_u8(v, 4)));
}

QSI_INLINE void open_mxfp4(const uint8_t *s, opened *o) {
    int8x16_t table = vld1q_s8(qsi_mxfp4_values);
    uint8x16_t v = vld1q_u8(s + offsetof(qsi_mxfp4, qs));
    o->d = qsi_mxfp4_scale(s[0]);
    vst1q_s8(o->q, vqtbl1q_s8(table, vandq_u8(v, vdupq_n_u8(15))));
    vst1q_s8(o->q + 16, vqtbl1q_s8(table, vshrq_n_u8(v, 4)));
}

/* Where the sum of group g stands among those of its four. */
QSI_INLINE int pair_place(int g) { return (g & ~3) + (g & 1) * 2 + (g >> 1 & 1); }

/* The two bits at 2 s of 16 bytes. */
QSI_INLINE uint8x16_t pair(const uint8_t *p, int s) {
    return vandq_u8(vshlq_u8(vld1q_u8(p), vdupq_n_s8((int8_t)(-2 * s))), vdupq_n_u8(3));
}

QSI_INLINE void open_q2_k(const uint8_t *s, opened *o) {
    const uint8_t *sc = s + offsetof(qsi_q2_k, scales), *qs = s + offsetof(qsi_q2_k, qs);
    o->d = half_at(s + offsetof(qsi_q2_k, d));
    o->m = half_at(s + offsetof(qsi_q2_k, dmin));
    for (int g = 0; g < 16; g++) {
        o->sc[g] = sc[g] & 15;
        o->mn[pair_place(g)] = sc[g] >> 4;
        put(o->q + 16 * g, pair(qs + 32 * (g / 8) + 16 * (g & 1), g % 8 / 2));
    }
}

QSI_INLINE void open_q3_k(const uint8_t *s, opened *o) {
    const uint8_t *hm = s + offsetof(qsi_q3_k, hmask), *qs = s + offsetof(qsi_q3_k, qs);
    int8_t sc[16];
    qsi_q3k_scales(s + offsetof(qsi_q3_k, scales), sc);
    o->d = half_at(s + offsetof(qsi_q3_k, d));
    for (int g = 0; g < 16; g++) {
        uint8x16_t bit = vtstq_u8(vld1q_u8(hm + 16 * (g & 1)), vdupq_n_u8((uint8_t)(1 << g / 2)));
        uint8x16_t v = vorrq_u8(pair(qs + 32 * (g / 8) + 16 * (g & 1), g % 8 / 2),
                                vandq_u8(bit, vdupq_n_u8(4)));
        o->sc[g] = sc[g];
        put(o->q + 16 * g, vsubq_u8(v, vdupq_n_u8(4)));
    }
}

QSI_INLINE void scales_of_32(const uint8_t *s, opened *o) {
    uint8_t sc[8], mn[8];
    qsi_q4k_scales(s, sc, mn);
    for (int g = 0; g < 8; g++) {
        o->sc[2 * g] = o->sc[2 * g + 1] = sc[g];
        o->mn[pair_place(g)] = mn[g];
    }
}

QSI_INLINE void open_q4_k(const uint8_t *s, opened *o) {
    const uint8_t *qs = s + offsetof(qsi_q4_k, qs);
    o->d = half_at(s);
    o->m = half_at(s + 2);
    scales_of_32(s + offsetof(qsi_q4_k, scales), o);
    for (int g = 0; g < 8; g++) {
        uint8x16_t v = vld1q_u8(qs + 16 * g);
        int8_t *q = o->q + 64 * (g / 2) + 16 * (g & 1);
        put(q, vandq_u8(v, vdupq_n_u8(15)));
        put(q + 32, vshrq_n_u8(v, 4));
    }
}

QSI_INLINE void open_q5_k(const uint8_t *s, opened *o) {
    const uint8_t *qs = s + offsetof(qsi_q5_k, qs), *qh = s + offsetof(qsi_q5_k, qh);
    o->d = half_at(s);
    o->m = half_at(s + 2);
    scales_of_32(s + offsetof(qsi_q5_k, scales), o);
    for (int g = 0; g < 16; g++) { /* sixteens; g / 2 is the group */
        uint8x16_t v = vld1q_u8(qs + 32 * (g / 4) + 16 * (g & 1));
        uint8x16_t h = vtstq_u8(vld1q_u8(qh + 16 * (g & 1)), vdupq_n_u8((uint8_t)(1 << g / 2)));
        v = g / 2 & 1 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
        put(o->q + 16 * g, vorrq_u8(v, vandq_u8(h, vdupq_n_u8(16))));
    }
}

QSI_INLINE void open_q6_k(const uint8_t *s, opened *o) {
    const uint8_t *ql = s + offsetof(qsi_q6_k, ql), *qh = s + offsetof(qsi_q6_k, qh);
    int16x8_t none = vdupq_n_s16(0);
    const int8_t *sc = (const int8_t *)s + offsetof(qsi_q6_k, scales);
    vst1q_s16(o->sc, vaddw_s8(none, vld1_s8(sc)));
    vst1q_s16(o->sc + 8, vaddw_s8(none, vld1_s8(sc + 8)));
    o->d = half_at(s + offsetof(qsi_q6_k, d));
    for (int g = 0; g < 16; g++) {
        int h = g / 8, quarter = g % 8 / 2, at = 16 * (g & 1);
        uint8x16_t v = vld1q_u8(ql + 64 * h + 32 * (quarter & 1) + at);
        v = quarter < 2 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
        v = vorrq_u8(v, vshlq_n_u8(pair(qh + 32 * h + at, quarter), 4));
        put(o->q + 16 * g, vsubq_u8(v, vdupq_n_u8(32)));
    }
}

QSI_INLINE void open_iq4_xs(const uint8_t *s, opened *o) {
    const uint8_t *qs = s + offsetof(qsi_iq4_xs, qs);
    int8x16_t table = vld1q_s8(qsi_iq4_values);
    uint16_t high;
    int8_t sc[8];
    memcpy(&high, s + offsetof(qsi_iq4_xs, scales_h), 2);
    qsi_iq4xs_scales(high, s + offsetof(qsi_iq4_xs, scales_l), sc);
    o->d = half_at(s);
    for (int g = 0; g < 8; g++) {
        uint8x16_t v = vld1q_u8(qs + 16 * g);
        o->sc[2 * g] = o->sc[2 * g + 1] = sc[g];
        vst1q_s8(o->q + 32 * g, vqtbl1q_s8(table, vandq_u8(v, vdupq_n_u8(15))));
        vst1q_s8(o->q + 32 * g + 16, vqtbl1q_s8(table, vshrq_n_u8(v, 4)));
    }
}

#endif
