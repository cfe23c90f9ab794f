/* Blocks of 256 values (K-quants): Q2_K, Q3_K, Q4_K, Q5_K, Q6_K. Groups of 16 or 32 values have
 * small integer scales, and the block one or two binary16 factors for them.
 *
 * The encoders are plain: a group's scale spans its values, the block's factors span the scales,
 * every value takes the nearest step of what was stored. They are fast, and random weights need no more;
 * fit.c searches for better scales. A NaN or infinity in a
 * block makes its factors NaN, values too large for them make them infinite: damage stays visible.
 * Source: block layouts of ggml (deepseek-facts 4.2). */
#include <math.h>
#include <string.h>

#include "quant/blocks.h"

#define BLOCK 256

/* ---- packed scales ---- */

void qsi_q4k_scales(const uint8_t s[12], uint8_t sc[8], uint8_t mn[8]) {
    for (int j = 0; j < 4; j++) {
        sc[j] = s[j] & 63;
        mn[j] = s[j + 4] & 63;
        sc[j + 4] = (uint8_t)((s[j + 8] & 15) | s[j] >> 6 << 4);
        mn[j + 4] = (uint8_t)(s[j + 8] >> 4 | s[j + 4] >> 6 << 4);
    }
}

static void put_q4k_scales(uint8_t s[12], const int8_t sc[8], const uint8_t mn[8]) {
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(sc[j] | sc[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(mn[j] | mn[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((sc[j + 4] & 15) | (mn[j + 4] & 15) << 4);
    }
}

void qsi_q3k_scales(const uint8_t s[12], int8_t sc[16]) {
    for (int j = 0; j < 16; j++) {
        int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        int high = s[8 + j % 4] >> 2 * (j / 4) & 3;
        sc[j] = (int8_t)((low | high << 4) - 32);
    }
}

static void put_q3k_scales(uint8_t s[12], const int8_t sc[16]) {
    memset(s, 0, 12);
    for (int j = 0; j < 16; j++) {
        int v = sc[j] + 32;
        s[j % 8] |= (uint8_t)(j < 8 ? v & 15 : (v & 15) << 4);
        s[8 + j % 4] |= (uint8_t)(v >> 4 << 2 * (j / 4));
    }
}

/* ---- what a block spans ---- */

static bool all_finite(const float x[BLOCK]) {
    uint32_t worst = 0;
    for (int j = 0; j < BLOCK; j++) {
        uint32_t u;
        memcpy(&u, x + j, sizeof u);
        u &= 0x7fffffff;
        worst = u > worst ? u : worst;
    }
    return worst < 0x7f800000;
}

/* 1/d, or 0 where that is no usable factor. */
static float reciprocal(float d) {
    float r = d != 0 && isfinite(d) ? 1.0f / d : 0.0f;
    return isfinite(r) ? r : 0.0f;
}

/* The stored factor, as it will be read: NaN for damaged blocks. */
static float put_factor(uint16_t *where, float d, bool finite) {
    *where = finite ? qsi_f32_to_f16(d) : 0x7e00;
    return qsi_f16_to_f32(*where);
}

/* The whole number next to v, within lo .. hi. */
static int nearest(float v, int lo, int hi) {
    float w = v < (float)lo ? (float)lo : v > (float)hi ? (float)hi : v;
    return (int)(w + (w < 0 ? -0.5f : 0.5f));
}

/* q[j] = the step next to x[j] * id + zero, from 0 to top. */
static void steps(const float *x, int n, float id, float zero, int top, uint8_t *q) {
    for (int j = 0; j < n; j++) {
        float v = x[j] * id + (zero + 0.5f);
        v = v > 0 ? v : 0;
        q[j] = (uint8_t)(int)(v < (float)top ? v : (float)top);
    }
}

/* Groups of `group` values between -min and top * scale - min, min >= 0; scales of 0 .. scale_top.
 * Writes
 * all of p. */
static void encode_affine(const float x[BLOCK], int group, int top, int scale_top, qsi_parts *p) {
    float scale[BLOCK / 16], min[BLOCK / 16], most = 0, deepest = 0;
    int n_groups = BLOCK / group;
    bool finite = all_finite(x);
    for (int g = 0; g < n_groups; g++) {
        float lo = 0, hi = 0;
        for (int j = g * group; j < (g + 1) * group; j++) {
            lo = x[j] < lo ? x[j] : lo;
            hi = x[j] > hi ? x[j] : hi;
        }
        scale[g] = (hi - lo) / (float)top;
        min[g] = -lo;
        most = scale[g] > most ? scale[g] : most;
        deepest = min[g] > deepest ? min[g] : deepest;
    }
    float d = put_factor(&p->d, most / (float)scale_top, finite);
    float dmin = put_factor(&p->dmin, deepest / (float)scale_top, finite);
    float id = reciprocal(d), idmin = reciprocal(dmin);
    bool sound = isfinite(d) && isfinite(dmin);
    for (int g = 0; g < n_groups; g++) {
        p->sc[g] = (int8_t)(sound ? nearest(scale[g] * id, 0, scale_top) : 0);
        p->mn[g] = (uint8_t)(sound ? nearest(min[g] * idmin, 0, scale_top) : 0);
        float back = sound ? reciprocal(d * (float)p->sc[g]) : 0;
        uint8_t *q = p->q + g * group;
        if (back == 0) memset(q, 0, (size_t)group);
        else steps(x + g * group, group, back, dmin * (float)p->mn[g] * back, top, q);
    }
}

/* Groups of 16 values of -half .. half - 1 steps, scales of -scale_half .. scale_half - 1; q is the
 * step plus half. The value of largest magnitude decides a group's scale, and gets step -half. */
static void encode_signed(const float x[BLOCK], int half, int scale_half, qsi_parts *p) {
    float scale[16], most = 0, mag = 0;
    bool finite = all_finite(x);
    for (int g = 0; g < 16; g++) {
        float best = 0, size = 0;
        for (int j = 16 * g; j < 16 * g + 16; j++) {
            float a = fabsf(x[j]);
            best = a > size ? x[j] : best;
            size = a > size ? a : size;
        }
        scale[g] = best / -(float)half;
        if (fabsf(scale[g]) > mag) {
            mag = fabsf(scale[g]);
            most = scale[g];
        }
    }
    float d = put_factor(&p->d, most / -(float)scale_half, finite), id = reciprocal(d);
    bool sound = isfinite(d);
    for (int g = 0; g < 16; g++) {
        p->sc[g] = (int8_t)(sound ? nearest(scale[g] * id, -scale_half, scale_half - 1) : 0);
        float back = sound ? reciprocal(d * (float)p->sc[g]) : 0;
        if (back == 0) memset(p->q + 16 * g, half, 16);
        else steps(x + 16 * g, 16, back, (float)half, 2 * half - 1, p->q + 16 * g);
    }
}

/* ---- Q2_K ---- */

/* Two-bit fields: see quant.h. */
static void put_pairs(uint8_t qs[64], const uint8_t q[BLOCK]) {
    for (int h = 0; h < 2; h++) {
        const uint8_t *v = q + 128 * h;
        for (int l = 0; l < 32; l++) {
            qs[32 * h + l] = (uint8_t)((v[l] & 3) | (v[32 + l] & 3) << 2 | (v[64 + l] & 3) << 4 |
                                       (v[96 + l] & 3) << 6);
        }
    }
}

static void get_pairs(uint8_t q[BLOCK], const uint8_t qs[64]) {
    for (int h = 0; h < 2; h++) {
        for (int s = 0; s < 4; s++) {
            for (int l = 0; l < 32; l++)
                q[128 * h + 32 * s + l] = qs[32 * h + l] >> 2 * s & 3;
        }
    }
}

void qsi_pack_q2_k(const qsi_parts *p, void *dst) {
    qsi_q2_k b;
    for (int g = 0; g < 16; g++) b.scales[g] = (uint8_t)(p->sc[g] | p->mn[g] << 4);
    put_pairs(b.qs, p->q);
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.dmin, p->dmin);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q2_k(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q2_k)) {
        qsi_parts p;
        encode_affine(src + i, 16, 3, 15, &p);
        qsi_pack_q2_k(&p, out);
    }
}

void qsi_decode_q2_k(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q2_k)) {
        qsi_q2_k b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d)), dmin = qsi_f16_to_f32(qsi_load16(&b.dmin));
        get_pairs(q, b.qs);
        for (int g = 0; g < 16; g++) {
            float dl = d * (float)(b.scales[g] & 15), ml = dmin * (float)(b.scales[g] >> 4);
            for (int j = 16 * g; j < 16 * g + 16; j++) dst[i + j] = dl * (float)q[j] - ml;
        }
    }
}

/* ---- Q3_K ---- */

void qsi_pack_q3_k(const qsi_parts *p, void *dst) {
    qsi_q3_k b;
    put_q3k_scales(b.scales, p->sc);
    put_pairs(b.qs, p->q);
    for (int l = 0; l < 32; l++) {
        unsigned bits = 0;
        for (int s = 0; s < 8; s++) bits |= (unsigned)(p->q[32 * s + l] >> 2) << s;
        b.hmask[l] = (uint8_t)bits;
    }
    qsi_store16(&b.d, p->d);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q3_k(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q3_k)) {
        qsi_parts p;
        encode_signed(src + i, 4, 32, &p);
        qsi_pack_q3_k(&p, out);
    }
}

void qsi_decode_q3_k(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    int8_t sc[16];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q3_k)) {
        qsi_q3_k b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        qsi_q3k_scales(b.scales, sc);
        get_pairs(q, b.qs);
        for (int g = 0; g < 16; g++) {
            float dl = d * (float)sc[g];
            for (int j = 16 * g; j < 16 * g + 16; j++) {
                int high = b.hmask[j % 32] >> j / 32 & 1;
                dst[i + j] = dl * (float)(q[j] + 4 * high - 4);
            }
        }
    }
}

/* ---- Q4_K, Q5_K ---- */

static void put_nibbles(uint8_t qs[128], const uint8_t q[BLOCK]) {
    for (int c = 0; c < 4; c++) {
        const uint8_t *v = q + 64 * c;
        for (int l = 0; l < 32; l++)
            qs[32 * c + l] = (uint8_t)((v[l] & 15) | (v[32 + l] & 15) << 4);
    }
}

static void get_nibbles(uint8_t q[BLOCK], const uint8_t qs[128]) {
    for (int c = 0; c < 4; c++) {
        for (int l = 0; l < 32; l++) {
            q[64 * c + l] = qs[32 * c + l] & 15;
            q[64 * c + 32 + l] = qs[32 * c + l] >> 4;
        }
    }
}

static void decode_affine32(const uint8_t q[BLOCK], float d, float dmin, const uint8_t scales[12],
                            float *dst) {
    uint8_t sc[8], mn[8];
    qsi_q4k_scales(scales, sc, mn);
    for (int g = 0; g < 8; g++) {
        float dl = d * (float)sc[g], ml = dmin * (float)mn[g];
        for (int j = 32 * g; j < 32 * g + 32; j++) dst[j] = dl * (float)q[j] - ml;
    }
}

void qsi_pack_q4_k(const qsi_parts *p, void *dst) {
    qsi_q4_k b;
    put_q4k_scales(b.scales, p->sc, p->mn);
    put_nibbles(b.qs, p->q);
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.dmin, p->dmin);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q4_k(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q4_k)) {
        qsi_parts p;
        encode_affine(src + i, 32, 15, 63, &p);
        qsi_pack_q4_k(&p, out);
    }
}

void qsi_decode_q4_k(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q4_k)) {
        qsi_q4_k b;
        memcpy(&b, in, sizeof b);
        get_nibbles(q, b.qs);
        decode_affine32(q, qsi_f16_to_f32(qsi_load16(&b.d)),
                        qsi_f16_to_f32(qsi_load16(&b.dmin)), b.scales, dst + i);
    }
}

void qsi_pack_q5_k(const qsi_parts *p, void *dst) {
    qsi_q5_k b;
    put_q4k_scales(b.scales, p->sc, p->mn);
    put_nibbles(b.qs, p->q);
    for (int l = 0; l < 32; l++) {
        unsigned bits = 0;
        for (int g = 0; g < 8; g++) bits |= (unsigned)(p->q[32 * g + l] >> 4) << g;
        b.qh[l] = (uint8_t)bits;
    }
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.dmin, p->dmin);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q5_k(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q5_k)) {
        qsi_parts p;
        encode_affine(src + i, 32, 31, 63, &p);
        qsi_pack_q5_k(&p, out);
    }
}

void qsi_decode_q5_k(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    uint8_t q[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q5_k)) {
        qsi_q5_k b;
        memcpy(&b, in, sizeof b);
        get_nibbles(q, b.qs);
        for (int j = 0; j < BLOCK; j++) q[j] |= (uint8_t)((b.qh[j % 32] >> j / 32 & 1) << 4);
        decode_affine32(q, qsi_f16_to_f32(qsi_load16(&b.d)),
                        qsi_f16_to_f32(qsi_load16(&b.dmin)), b.scales, dst + i);
    }
}

/* ---- Q6_K ---- */

void qsi_pack_q6_k(const qsi_parts *p, void *dst) {
    qsi_q6_k b;
    memcpy(b.scales, p->sc, sizeof b.scales);
    for (int h = 0; h < 2; h++) {
        const uint8_t *v = p->q + 128 * h;
        for (int l = 0; l < 32; l++) {
            b.ql[64 * h + l] = (uint8_t)((v[l] & 15) | (v[64 + l] & 15) << 4);
            b.ql[64 * h + 32 + l] = (uint8_t)((v[32 + l] & 15) | (v[96 + l] & 15) << 4);
            b.qh[32 * h + l] = (uint8_t)(v[l] >> 4 | v[32 + l] >> 4 << 2 | v[64 + l] >> 4 << 4 |
                                         v[96 + l] >> 4 << 6);
        }
    }
    qsi_store16(&b.d, p->d);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_q6_k(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_q6_k)) {
        qsi_parts p;
        encode_signed(src + i, 32, 128, &p);
        qsi_pack_q6_k(&p, out);
    }
}

void qsi_decode_q6_k(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_q6_k)) {
        qsi_q6_k b;
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        for (int j = 0; j < BLOCK; j++) {
            int h = j / 128, s = j / 32 % 4, l = j % 32;
            int low = b.ql[64 * h + 32 * (s & 1) + l] >> (s < 2 ? 0 : 4) & 15;
            int high = b.qh[32 * h + l] >> 2 * s & 3;
            float dl = d * (float)b.scales[j / 16];
            dst[i + j] = dl * (float)((low | high << 4) - 32);
        }
    }
}

/* ---- IQ4_XS: eight groups of IQ4_NL's steps with scales of six bits ---- */

void qsi_iq4xs_scales(uint16_t high, const uint8_t low[4], int8_t sc[8]) {
    for (int g = 0; g < 8; g++) {
        int l = low[g / 2] >> 4 * (g & 1) & 15;
        sc[g] = (int8_t)((l | (high >> 2 * g & 3) << 4) - 32);
    }
}

/* Codes of a group for the factor 1 / id; *score is how well the best scale for them fits: that scale
 * is xt / tt, and xt^2 / tt of the group's square sum is met. */
static float fit_group(const float x[32], float id, uint8_t q[32], float *scale) {
    float xt = 0, tt = 0;
    for (int j = 0; j < 32; j++) {
        q[j] = qsi_iq4_step(x[j] * id);
        float t = (float)qsi_iq4_values[q[j]];
        xt += x[j] * t;
        tt += t * t;
    }
    *scale = xt / tt; /* tt >= 1: no step is 0 */
    return xt * xt / tt;
}

/* The scale of a group: of some factors round the one that puts the extreme value on a step's end, the
 * one whose steps fit best (least squares). */
static float group_scale(const float x[32]) {
    float best = 0, mag = 0, most = -1;
    uint8_t q[32];
    for (int j = 0; j < 32; j++) {
        if (fabsf(x[j]) > mag) {
            mag = fabsf(x[j]);
            best = x[j];
        }
    }
    if (reciprocal(best) == 0) return 0;
    float found = best / -127; /* also where squares overflow */
    for (int k = -7; k <= 7; k++) {
        float scale = 0, fit = fit_group(x, ((float)k - 127) / best, q, &scale);
        if (fit > most && isfinite(fit)) {
            most = fit;
            found = scale;
        }
    }
    return found;
}

void qsi_pack_iq4_xs(const qsi_parts *p, void *dst) {
    qsi_iq4_xs b = {0};
    unsigned high = 0;
    for (int g = 0; g < 8; g++) {
        int sc = p->sc[g] + 32;
        b.scales_l[g / 2] |= (uint8_t)(sc % 16 << 4 * (g & 1));
        high |= (unsigned)(sc / 16) << 2 * g;
        const uint8_t *q = p->q + 32 * g;
        for (int j = 0; j < 16; j++) b.qs[16 * g + j] = (uint8_t)(q[j] | q[j + 16] << 4);
    }
    qsi_store16(&b.d, p->d);
    qsi_store16(&b.scales_h, (uint16_t)high);
    memcpy(dst, &b, sizeof b);
}

void qsi_encode_iq4_xs(const float *src, void *dst, int64_t n) {
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += BLOCK, out += sizeof(qsi_iq4_xs)) {
        qsi_parts p;
        float scale[8] = {0}, most = 0;
        bool finite = all_finite(src + i);
        for (int g = 0; g < 8 && finite; g++) {
            scale[g] = group_scale(src + i + 32 * g);
            if (fabsf(scale[g]) > fabsf(most)) most = scale[g];
        }
        float d = put_factor(&p.d, most / -32, finite), id = isfinite(d) ? reciprocal(d) : 0;
        for (int g = 0; g < 8; g++) {
            p.sc[g] = (int8_t)(id != 0 ? nearest(scale[g] * id, -32, 31) : 0);
            float back = reciprocal(d * (float)p.sc[g]);
            const float *x = src + i + 32 * g;
            if (!isfinite(back) || !finite) back = 0;
            for (int j = 0; j < 32; j++)
                p.q[32 * g + j] = qsi_iq4_step(back != 0 ? x[j] * back : 0);
        }
        qsi_pack_iq4_xs(&p, out);
    }
}

void qsi_decode_iq4_xs(const void *src, float *dst, int64_t n) {
    const uint8_t *in = src;
    for (int64_t i = 0; i < n; i += BLOCK, in += sizeof(qsi_iq4_xs)) {
        qsi_iq4_xs b;
        int8_t sc[8];
        memcpy(&b, in, sizeof b);
        float d = qsi_f16_to_f32(qsi_load16(&b.d));
        qsi_iq4xs_scales(qsi_load16(&b.scales_h), b.scales_l, sc);
        for (int g = 0; g < 8; g++) {
            float dl = d * (float)sc[g];
            for (int j = 0; j < 16; j++) {
                uint8_t v = b.qs[16 * g + j];
                dst[i + 32 * g + j] = dl * (float)qsi_iq4_values[v & 15];
                dst[i + 32 * g + 16 + j] = dl * (float)qsi_iq4_values[v >> 4];
            }
        }
    }
}
