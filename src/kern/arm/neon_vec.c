/* Vectors and the optimizer, NEON (the shared body, vec_body.h); here the int8 activations. The
 * transposed conversion is ref's. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"
#include "kern/x86/vec_body.h"

/* Bits of the largest magnitude of n values (n % 8 == 0), as integers: NaN above infinity above
 * numbers. */
QSI_INLINE uint32_t act_top(const float *x, int n) {
    uint32x4_t top = vdupq_n_u32(0), mask = vdupq_n_u32(0x7fffffff);
    for (int i = 0; i < n; i += 4)
        top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), mask));
    return vmaxvq_u32(top);
}

/* Scale and its reciprocal. A block with NaN or infinity keeps that as its scale and is zero
 * otherwise, so that products of it are NaN. */
QSI_INLINE float act_scale(uint32_t top, float *inv) {
    float amax;
    memcpy(&amax, &top, 4);
    float d = top >= 0x7f800000u ? amax : amax < QSI_ACT8_MIN ? 0.0f : amax / 127.0f;
    *inv = top >= 0x7f800000u || d == 0.0f ? 0.0f : 1.0f / d;
    return d;
}

/* 16 values to bytes at qs, rounded half away from zero; returns their sum. */
QSI_INLINE int32_t act_bytes(const float *x, float inv, bool finite, int8_t *qs) {
    int32x4_t q[4];
    for (int i = 0; i < 4; i++) q[i] = vcvtaq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inv));
    int16x8_t lo = vcombine_s16(vmovn_s32(q[0]), vmovn_s32(q[1]));
    int16x8_t hi = vcombine_s16(vmovn_s32(q[2]), vmovn_s32(q[3]));
    int8x16_t b = vcombine_s8(vmovn_s16(lo), vmovn_s16(hi));
    if (!finite) b = vdupq_n_s8(0);
    vst1q_s8(qs, b);
    return vaddlvq_s8(b);
}

static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        float inv;
        uint32_t top = act_top(x, 32);
        bool finite = top < 0x7f800000u;
        y->d = act_scale(top, &inv);
        int32_t sum = act_bytes(x, inv, finite, y->qs);
        y->z = -128 * (sum + act_bytes(x + 16, inv, finite, y->qs + 16));
    }
}

static void f32_to_actk(const float *x, qsi_actk *y, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, x += 256, y++) {
        float inv;
        uint32_t top = act_top(x, 256);
        y->d = act_scale(top, &inv);
        for (int g = 0; g < 16; g += 2) {
            int f = g % 4; /* groups f and f + 1 of four stand at 0, 2 or 1, 3 */
            int32_t lo = act_bytes(x + 16 * g, inv, top < 0x7f800000u, y->qs + 16 * g);
            int32_t hi = act_bytes(x + 16 * g + 16, inv, top < 0x7f800000u, y->qs + 16 * g + 16);
            int h = g / 2;
            y->z16[g] = -128 * lo;
            y->z16[g + 1] = -128 * hi;
            y->s16[g - f + f / 2] = (int16_t)lo;
            y->s16[g - f + f / 2 + 2] = (int16_t)hi;
            y->s32[(h & ~3) + (h & 1) * 2 + (h >> 1 & 1)] = (int16_t)(lo + hi);
        }
        memset(y->pad, 0, sizeof y->pad);
    }
}

void qsi_kern_fill_neon_vec(qsi_kern *t) {
    fill_vec(t);
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_actk = f32_to_actk;
}
