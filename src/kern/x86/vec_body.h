/* Vectors and the optimizer, in the names of simd256.h or simd512.h, one of which the including
 * file has included. Sums use four accumulators of W lanes and one fixed tree, so they depend on n
 * and the level alone. */
#ifndef QSI_KERN_VEC_BODY_H
#define QSI_KERN_VEC_BODY_H

#include <math.h>

#include "kern/kern.h"

QSI_INLINE float sum4(const vf s[4]) {
    return hsum(vadd(vadd(s[0], s[1]), vadd(s[2], s[3])));
}

#define ZERO4                                                                                      \
    {                                                                                              \
        zero(), zero(), zero(), zero()                                                             \
    }

static void f32_to_bf16(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        st_bf16(m, y + i, ld(m, x + i));
    }
}

static void bf16_to_f32(const uint16_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        st(m, y + i, ld_bf16(m, x + i));
    }
}

static void f32_to_f16(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        st_f16(m, y + i, ld(m, x + i));
    }
}

static void f16_to_f32(const uint16_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += W) {
        vm m = lanes(n - i);
        st(m, y + i, ld_f16(m, x + i));
    }
}

static float dot(const float *x, const float *y, int64_t n) {
    vf s[4] = ZERO4;
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (int j = 0; j < 4; j++) s[j] = vfma(ldu(x + i + W * j), ldu(y + i + W * j), s[j]);
    for (int j = 0; j < 4 && i < n; j++, i += W) {
        vm m = lanes(n - i);
        s[j] = vfma(ld(m, x + i), ld(m, y + i), s[j]);
    }
    return sum4(s);
}

static double sum_sq(const float *x, int64_t n) {
    vd s = vd_zero();
    for (int64_t i = 0; i < n; i += W) s = vd_add_sq(s, ld(lanes(n - i), x + i));
    return vd_sum(s);
}

static void axpy(float a, const float *x, float *y, int64_t n) {
    vf va = all(a);
    int64_t i = 0;
    for (; i + W <= n; i += W) stu(y + i, vfma(va, ldu(x + i), ldu(y + i)));
    if (i < n) {
        vm m = lanes(n - i);
        st(m, y + i, vfma(va, ld(m, x + i), ld(m, y + i)));
    }
}

static void scale(float a, float *x, int64_t n) {
    vf va = all(a);
    int64_t i = 0;
    for (; i + W <= n; i += W) stu(x + i, vmul(va, ldu(x + i)));
    if (i < n) st(lanes(n - i), x + i, vmul(va, ld(lanes(n - i), x + i)));
}

static void add(const float *x, float *y, int64_t n) {
    int64_t i = 0;
    for (; i + W <= n; i += W) stu(y + i, vadd(ldu(x + i), ldu(y + i)));
    if (i < n) {
        vm m = lanes(n - i);
        st(m, y + i, vadd(ld(m, x + i), ld(m, y + i)));
    }
}

static float max(const float *x, int64_t n) {
    vf low = all(-INFINITY), m0 = low, m1 = low;
    int64_t i = 0;
    for (; i + 2 * W <= n; i += 2 * W) {
        m0 = vmax(ldu(x + i), m0);
        m1 = vmax(ldu(x + i + W), m1);
    }
    for (; i < n; i += W) {
        vm m = lanes(n - i);
        m0 = vmax(choose(m, ld(m, x + i), low), m0);
    }
    return hmax(vmax(m0, m1));
}

/* A step over W elements or more runs between vectors, the others within one: there lanes whose
 * partner stands below them are subtracted from it. A product with 1 or -1 is exact: one addition
 * rounds. */
static void hadamard(float *x, int64_t n) {
    static const float sign[4][16] = {{1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
                                      {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
                                      {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
                                      {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};
    const vm k = lanes(n);
    const vf s1 = ldu(sign[0]), s2 = ldu(sign[1]), s4 = ldu(sign[2]), s8 = ldu(sign[3]);
    const vf r = all(1.0f / sqrtf((float)n));
    for (int64_t i = 0; i < n; i += W) {
        vf a = ld(k, x + i);
        if (n > 1) a = vfma(s1, a, swap_lanes(a, 1));
        if (n > 2) a = vfma(s2, a, swap_lanes(a, 2));
        if (n > 4) a = vfma(s4, a, swap_lanes(a, 4));
        if (n > 8 && W > 8) a = vfma(s8, a, swap_lanes(a, 8));
        st(k, x + i, n > W ? a : vmul(a, r));
    }
    for (int64_t h = W; h < n; h *= 2)
        for (int64_t i = 0; i < n; i += 2 * h)
            for (int64_t j = i; j < i + h; j += W) {
                vf a = ldu(x + j), b = ldu(x + j + h), sum = vadd(a, b), rest = vsub(a, b);
                bool last = 2 * h == n;
                stu(x + j, last ? vmul(sum, r) : sum);
                stu(x + j + h, last ? vmul(rest, r) : rest);
            }
}

static void adamw(float *p, const float *g, float *m, float *v, int64_t n, float clip, float lr,
                  float b1, float b2, float c1, float c2, float eps, float decay) {
    const vf vclip = all(clip), vlr = all(lr), vb1 = all(b1), va1 = all(1.0f - b1), vb2 = all(b2);
    const vf va2 = all(1.0f - b2), vc1 = all(c1), vc2 = all(c2), veps = all(eps);
    const vf vdecay = all(decay);
    for (int64_t i = 0; i < n; i += W) {
        vm k = lanes(n - i);
        vf gi = vmul(ld(k, g + i), vclip);
        vf mi = vfma(vb1, ld(k, m + i), vmul(va1, gi));
        vf vn = vfma(vb2, ld(k, v + i), vmul(va2, vmul(gi, gi)));
        st(k, m + i, mi);
        st(k, v + i, vn);
        vf den = vadd(vsqrt(vdiv(vn, vc2)), veps);
        vf pi = ld(k, p + i), step = vdiv(vdiv(mi, vc1), den);
        st(k, p + i, vfnma(vlr, vfma(vdecay, pi, step), pi));
    }
}

QSI_INLINE void fill_vec(qsi_kern *t) {
    t->f32_to_bf16 = f32_to_bf16;
    t->bf16_to_f32 = bf16_to_f32;
    t->f32_to_f16 = f32_to_f16;
    t->f16_to_f32 = f16_to_f32;
    t->hadamard = hadamard;
    t->dot = dot;
    t->sum_sq = sum_sq;
    t->axpy = axpy;
    t->scale = scale;
    t->add = add;
    t->max = max;
    t->adamw = adamw;
}

#endif
