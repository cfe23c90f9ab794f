/* Helpers of the ARM files: the names of simd256.h, 8 lanes in two registers, so that the bodies
 * written for 8 lanes serve here too. Static inline only. */
#ifndef QSI_KERN_SIMDNEON_H
#define QSI_KERN_SIMDNEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define QSI_INLINE static inline __attribute__((always_inline, unused))

#define W 8
typedef struct vf {
    float32x4_t a, b;
} vf;
typedef struct vm {
    int n; /* lanes, 0..8 */
} vm;

#define BOTH(op, x) ((vf){op((x).a), op((x).b)})
#define BOTH2(op, x, y) ((vf){op((x).a, (y).a), op((x).b, (y).b)})

QSI_INLINE vm lanes(int64_t n) { return (vm){n >= W ? W : n <= 0 ? 0 : (int)n}; }
QSI_INLINE vf ldu(const float *p) { return (vf){vld1q_f32(p), vld1q_f32(p + 4)}; }
QSI_INLINE void stu(float *p, vf v) {
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
}
QSI_INLINE vf ld(vm m, const float *p) {
    if (m.n == W) return ldu(p);
    float t[W] = {0};
    memcpy(t, p, (size_t)m.n * 4);
    return ldu(t);
}
QSI_INLINE void st(vm m, float *p, vf v) {
    if (m.n == W) {
        stu(p, v);
        return;
    }
    float t[W];
    stu(t, v);
    memcpy(p, t, (size_t)m.n * 4);
}

QSI_INLINE uint16x8_t ld_u16(vm m, const uint16_t *p) {
    uint16_t t[W] = {0};
    memcpy(t, p, (size_t)m.n * 2);
    return vld1q_u16(t);
}
QSI_INLINE void st_u16(vm m, uint16_t *p, uint16x8_t v) {
    uint16_t t[W];
    vst1q_u16(t, v);
    memcpy(p, t, (size_t)m.n * 2);
}
QSI_INLINE vf widen_f16(uint16x8_t h) {
    float16x8_t f = vreinterpretq_f16_u16(h);
    return (vf){vcvt_f32_f16(vget_low_f16(f)), vcvt_high_f32_f16(f)};
}
QSI_INLINE vf ld_f16(vm m, const uint16_t *p) { return widen_f16(ld_u16(m, p)); }
/* A quiet NaN keeps its payload, as in quant/half.c. */
QSI_INLINE void st_f16(vm m, uint16_t *p, vf v) {
    float16x8_t h = vcvt_high_f16_f32(vcvt_f16_f32(v.a), v.b);
    st_u16(m, p, vreinterpretq_u16_f16(h));
}
QSI_INLINE vf ld_bf16(vm m, const uint16_t *p) {
    uint16x8_t h = ld_u16(m, p);
    return (vf){vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(h), 16)),
                vreinterpretq_f32_u32(vshll_high_n_u16(h, 16))};
}
QSI_INLINE uint16x4_t bf16_of4(float32x4_t x) {
    uint32x4_t u = vreinterpretq_u32_f32(x);
    uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    uint32x4_t r = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    uint32x4_t q = vorrq_u32(u, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), r, q), 16);
}
/* Eight floats to bfloat16: round to nearest even, NaN kept quiet. */
QSI_INLINE uint16x8_t bf16_of(vf x) { return vcombine_u16(bf16_of4(x.a), bf16_of4(x.b)); }
QSI_INLINE void st_bf16(vm m, uint16_t *p, vf v) { st_u16(m, p, bf16_of(v)); }

QSI_INLINE vf all(float x) { return (vf){vdupq_n_f32(x), vdupq_n_f32(x)}; }
QSI_INLINE vf zero(void) { return all(0); }
QSI_INLINE vf vadd(vf x, vf y) { return BOTH2(vaddq_f32, x, y); }
QSI_INLINE vf vsub(vf x, vf y) { return BOTH2(vsubq_f32, x, y); }
QSI_INLINE vf vmul(vf x, vf y) { return BOTH2(vmulq_f32, x, y); }
QSI_INLINE vf vdiv(vf x, vf y) { return BOTH2(vdivq_f32, x, y); }
QSI_INLINE vf vsqrt(vf x) { return BOTH(vsqrtq_f32, x); }
QSI_INLINE vf vfma(vf x, vf y, vf c) {
    return (vf){vfmaq_f32(c.a, x.a, y.a), vfmaq_f32(c.b, x.b, y.b)};
}
QSI_INLINE vf vfnma(vf x, vf y, vf c) {
    return (vf){vfmsq_f32(c.a, x.a, y.a), vfmsq_f32(c.b, x.b, y.b)};
}
QSI_INLINE vf select(uint32x4_t a, uint32x4_t b, vf x, vf y) {
    return (vf){vbslq_f32(a, x.a, y.a), vbslq_f32(b, x.b, y.b)};
}
/* The second operand wins on NaN. */
QSI_INLINE vf vmin(vf x, vf y) {
    return select(vcltq_f32(x.a, y.a), vcltq_f32(x.b, y.b), x, y);
}
QSI_INLINE vf vmax(vf x, vf y) {
    return select(vcgtq_f32(x.a, y.a), vcgtq_f32(x.b, y.b), x, y);
}
QSI_INLINE vf choose(vm m, vf x, vf y) {
    static const uint32_t index[W] = {0, 1, 2, 3, 4, 5, 6, 7};
    uint32x4_t n = vdupq_n_u32((uint32_t)m.n);
    return select(vcltq_u32(vld1q_u32(index), n), vcltq_u32(vld1q_u32(index + 4), n), x, y);
}
QSI_INLINE vf nearest(vf x) { return BOTH(vrndnq_f32, x); }
QSI_INLINE float32x4_t scale2_4(float32x4_t p, float32x4_t n) {
    int32x4_t k = vcvtnq_s32_f32(n), h = vshrq_n_s32(k, 1), bias = vdupq_n_s32(127);
    int32x4_t a = vshlq_n_s32(vaddq_s32(h, bias), 23);
    int32x4_t b = vshlq_n_s32(vaddq_s32(vsubq_s32(k, h), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(a)), vreinterpretq_f32_s32(b));
}
/* p * 2^n in two factors; only the second product rounds. */
QSI_INLINE vf scale2(vf p, vf n) { return BOTH2(scale2_4, p, n); }
QSI_INLINE float32x4_t evens4(float32x4_t x) { return vtrn1q_f32(x, x); }
QSI_INLINE float32x4_t odds4(float32x4_t x) { return vtrn2q_f32(x, x); }
QSI_INLINE vf swap_pairs(vf x) { return BOTH(vrev64q_f32, x); }
QSI_INLINE float32x4_t swap_twos(float32x4_t x) { return vextq_f32(x, x, 2); }
/* Lane i is lane i ^ h; h 1, 2, 4. */
QSI_INLINE vf swap_lanes(vf x, int h) {
    return h == 1 ? swap_pairs(x) : h == 2 ? BOTH(swap_twos, x) : (vf){x.b, x.a};
}
QSI_INLINE vf evens(vf x) { return BOTH(evens4, x); }
QSI_INLINE vf odds(vf x) { return BOTH(odds4, x); }
QSI_INLINE vf minus_plus(void) {
    static const float s[W] = {-1, 1, -1, 1, -1, 1, -1, 1};
    return ldu(s);
}
QSI_INLINE float hsum(vf x) {
    float32x4_t s = vaddq_f32(x.a, x.b);
    float32x2_t h = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
QSI_INLINE float hmax(vf x) { return vmaxvq_f32(vmaxq_f32(x.a, x.b)); }
typedef struct vd {
    float64x2_t v[4];
} vd;
QSI_INLINE vd vd_zero(void) {
    float64x2_t z = vdupq_n_f64(0);
    return (vd){{z, z, z, z}};
}
QSI_INLINE vd vd_add_sq(vd s, vf x) {
    float64x2_t d[4] = {vcvt_f64_f32(vget_low_f32(x.a)), vcvt_high_f64_f32(x.a),
                        vcvt_f64_f32(vget_low_f32(x.b)), vcvt_high_f64_f32(x.b)};
    for (int i = 0; i < 4; i++) s.v[i] = vfmaq_f64(s.v[i], d[i], d[i]);
    return s;
}
QSI_INLINE double vd_sum(vd s) {
    float64x2_t t = vaddq_f64(vaddq_f64(s.v[0], s.v[1]), vaddq_f64(s.v[2], s.v[3]));
    return vgetq_lane_f64(t, 0) + vgetq_lane_f64(t, 1);
}

/* Sums of the lanes of 8 vectors, all by the same tree. */
QSI_INLINE vf sums_of(const vf v[W]) {
    float32x4_t t[W];
    for (int i = 0; i < W; i++) t[i] = vaddq_f32(v[i].a, v[i].b);
    return (vf){vpaddq_f32(vpaddq_f32(t[0], t[1]), vpaddq_f32(t[2], t[3])),
                vpaddq_f32(vpaddq_f32(t[4], t[5]), vpaddq_f32(t[6], t[7]))};
}

/* Rows of 8 words in r, columns out. */
QSI_INLINE void transpose8(vf r[W]) {
    float t[W][W];
    for (int i = 0; i < W; i += 4)
        for (int h = 0; h < 2; h++) {
            float32x4_t x[4];
            for (int j = 0; j < 4; j++) x[j] = h ? r[i + j].b : r[i + j].a;
            float32x4_t p = vtrn1q_f32(x[0], x[1]), q = vtrn2q_f32(x[0], x[1]);
            float32x4_t u = vtrn1q_f32(x[2], x[3]), v = vtrn2q_f32(x[2], x[3]);
            vst1q_f32(&t[4 * h][i], vcombine_f32(vget_low_f32(p), vget_low_f32(u)));
            vst1q_f32(&t[4 * h + 1][i], vcombine_f32(vget_low_f32(q), vget_low_f32(v)));
            vst1q_f32(&t[4 * h + 2][i], vcombine_f32(vget_high_f32(p), vget_high_f32(u)));
            vst1q_f32(&t[4 * h + 3][i], vcombine_f32(vget_high_f32(q), vget_high_f32(v)));
        }
    for (int i = 0; i < W; i++) r[i] = ldu(t[i]);
}

#endif
