/* Conversions, vectors, optimizer: scalar. Sums that are one number run in double. */
#include <math.h>
#include <string.h>

#include "kern/kern_levels.h"
#include "quant/quant.h"

static void f32_to_bf16(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = qsi_f32_to_bf16(x[i]);
}

static void bf16_to_f32(const uint16_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = qsi_bf16_to_f32(x[i]);
}

static void f32_to_f16(const float *x, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = qsi_f32_to_f16(x[i]);
}

static void f16_to_f32(const uint16_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = qsi_f16_to_f32(x[i]);
}

static void f32_to_bf16_t(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) y[c * ldy + r] = qsi_f32_to_bf16(x[r * ldx + c]);
}

static void hadamard(float *x, int64_t n) {
    for (int64_t h = 1; h < n; h *= 2)
        for (int64_t i = 0; i < n; i++)
            if (!(i & h)) {
                float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
    float r = 1.0f / sqrtf((float)n);
    for (int64_t i = 0; i < n; i++) x[i] *= r;
}

/* A block with NaN or infinity keeps that in d, so that products of it are NaN. */
static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        float amax = 0;
        for (int i = 0; i < 32; i++) {
            float a = fabsf(x[i]);
            if (!(a <= amax)) amax = a;
            if (isnan(amax)) break;
        }
        memset(y, 0, sizeof *y);
        if (!isfinite(amax)) {
            y->d = amax;
            continue;
        }
        if (amax < QSI_ACT8_MIN) continue;
        y->d = amax / 127.0f;
        float inv = 1.0f / y->d;
        for (int i = 0; i < 32; i++) {
            y->qs[i] = (int8_t)roundf(x[i] * inv);
            y->z -= 128 * y->qs[i];
        }
    }
}

/* Where the sum of group g stands among those of its four. */
static int pair_place(int g) { return (g & ~3) + (g & 1) * 2 + (g >> 1 & 1); }

static void f32_to_actk(const float *x, qsi_actk *y, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, x += 256, y++) {
        float amax = 0;
        for (int i = 0; i < 256; i++) {
            float a = fabsf(x[i]);
            if (!(a <= amax)) amax = a;
            if (isnan(amax)) break;
        }
        memset(y, 0, sizeof *y);
        if (!isfinite(amax)) {
            y->d = amax;
            continue;
        }
        if (amax < QSI_ACT8_MIN) continue;
        y->d = amax / 127.0f;
        float inv = 1.0f / y->d;
        for (int i = 0; i < 256; i++) {
            int8_t q = (int8_t)roundf(x[i] * inv);
            y->qs[i] = q;
            y->z16[i / 16] -= 128 * q;
            y->s16[pair_place(i / 16)] = (int16_t)(y->s16[pair_place(i / 16)] + q);
            y->s32[pair_place(i / 32)] = (int16_t)(y->s32[pair_place(i / 32)] + q);
        }
    }
}

static float dot(const float *x, const float *y, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * y[i];
    return (float)s;
}

static double sum_sq(const float *x, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; i++) s += (double)x[i] * x[i];
    return s;
}

static void axpy(float a, const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void scale(float a, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] *= a;
}

static void add(const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static float max(const float *x, int64_t n) {
    float m = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > m) m = x[i];
    return m;
}

static void adamw(float *p, const float *g, float *m, float *v, int64_t n, float clip, float lr,
                  float b1, float b2, float c1, float c2, float eps, float decay) {
    for (int64_t i = 0; i < n; i++) {
        float gi = g[i] * clip;
        m[i] = b1 * m[i] + (1.0f - b1) * gi;
        v[i] = b2 * v[i] + (1.0f - b2) * (gi * gi);
        float step = (m[i] / c1) / (sqrtf(v[i] / c2) + eps);
        p[i] -= lr * (step + decay * p[i]);
    }
}

void qsi_kern_fill_ref_vec(qsi_kern *t) {
    t->f32_to_bf16 = f32_to_bf16;
    t->bf16_to_f32 = bf16_to_f32;
    t->f32_to_f16 = f32_to_f16;
    t->f16_to_f32 = f16_to_f32;
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_actk = f32_to_actk;
    t->f32_to_bf16_t = f32_to_bf16_t;
    t->hadamard = hadamard;
    t->dot = dot;
    t->sum_sq = sum_sq;
    t->axpy = axpy;
    t->scale = scale;
    t->add = add;
    t->max = max;
    t->adamw = adamw;
}
