/* Products of quantised weights with int8 activations for one ARM level, included after a definition
 * of
 *
 *   DOT(a, b)            sums of products of 16 bytes each, in four lanes
 *   MMLA(s, a, b)        (where the level has it) s + the 2 x 2 products of rows of 8 bytes
 *
 * Panels are ref's: [k / block][16] blocks as they are in the file. A block is opened once for up to
 * ROWS rows of activations. Sums of a block are exact integers, so the bits are ref's. */
#ifndef QSI_KERN_ARM_QUANT_BODY_H
#define QSI_KERN_ARM_QUANT_BODY_H

#include "kern/arm/quant_open.h"
#include "kern/kern_levels.h"

#define NR 16
#define ROWS 64

QSI_INLINE int64_t act_bytes_of(const qtype *t) {
    return t->n == 32 ? (int64_t)sizeof(qsi_act8) : (int64_t)sizeof(qsi_actk);
}

QSI_INLINE const int8_t *act_values(const qtype *t, const char *x) {
    return (const int8_t *)x + (t->n == 32 ? offsetof(qsi_act8, qs) : offsetof(qsi_actk, qs));
}

QSI_INLINE float act_d(const qtype *t, const char *x) {
    float d;
    memcpy(&d, x + (t->n == 32 ? offsetof(qsi_act8, d) : offsetof(qsi_actk, d)), 4);
    return d;
}

/* Rows of activations stand at any address. */
QSI_INLINE int16x8_t shorts(const char *p) {
    return vreinterpretq_s16_s8(vld1q_s8((const int8_t *)p));
}

QSI_INLINE int32_t short_dot(const int16_t *w, const char *x) {
    int16x8_t a = vld1q_s16(w), b = shorts(x);
    int32x4_t s = vmull_s16(vget_low_s16(a), vget_low_s16(b));
    return vaddvq_s32(vmlal_high_s16(s, a, b));
}

/* What the minima of the block meet. */
QSI_INLINE int32_t sum_of_minima(const qtype *t, const opened *w, const char *x) {
    if (t->minima == 1) {
        int32_t z;
        memcpy(&z, x + offsetof(qsi_act8, z), 4);
        return -z / 128; /* z is -128 times the sum */
    }
    if (t->minima == 8) return short_dot(w->mn, x + offsetof(qsi_actk, s32));
    x += offsetof(qsi_actk, s16);
    return short_dot(w->mn, x) + short_dot(w->mn + 8, x + 16);
}

QSI_INLINE float finish(const qtype *t, const opened *w, const char *x, int32_t s, float acc) {
    float d = act_d(t, x);
    acc = __builtin_fmaf((float)s, d * w->d, acc);
    if (t->minima) acc = __builtin_fmaf((float)-sum_of_minima(t, w, x), d * w->m, acc);
    return acc;
}

QSI_INLINE int32_t block_dot(const qtype *t, const opened *w, const int8_t *x) {
    int32x4_t s = vdupq_n_s32(0);
    if (t->n == 32)
        s = vaddq_s32(DOT(vld1q_s8(w->q), vld1q_s8(x)), DOT(vld1q_s8(w->q + 16), vld1q_s8(x + 16)));
    else
        for (int g = 0; g < 16; g++)
            s = vmlaq_n_s32(s, DOT(vld1q_s8(w->q + 16 * g), vld1q_s8(x + 16 * g)), w->sc[g]);
    return vaddvq_s32(s);
}

#ifdef MMLA
/* Two columns and two rows: s = (row 0, column 0), (0, 1), (1, 0), (1, 1). */
QSI_INLINE void block_mmla(const qtype *t, const opened *w0, const opened *w1, const int8_t *x0,
                           const int8_t *x1, int32_t s[4]) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < t->n; i += 16) {
        int8x16_t a0 = vld1q_s8(x0 + i), a1 = vld1q_s8(x1 + i);
        int8x16_t b0 = vld1q_s8(w0->q + i), b1 = vld1q_s8(w1->q + i);
        int32x4_t p = vdupq_n_s32(0);
        p = MMLA(p, vcombine_s8(vget_low_s8(a0), vget_low_s8(a1)),
                 vcombine_s8(vget_low_s8(b0), vget_low_s8(b1)));
        p = MMLA(p, vcombine_s8(vget_high_s8(a0), vget_high_s8(a1)),
                 vcombine_s8(vget_high_s8(b0), vget_high_s8(b1)));
        if (t->n == 32) {
            sum = vaddq_s32(sum, p);
        } else {
            int32x2_t sc = vset_lane_s32(w1->sc[i / 16], vdup_n_s32(w0->sc[i / 16]), 1);
            sum = vmlaq_s32(sum, p, vcombine_s32(sc, sc));
        }
    }
    vst1q_s32(s, sum);
}

QSI_INLINE void two_columns(const qtype *t, int64_t k, int64_t rows, const char *a, size_t lda,
                            const uint8_t *b, float acc[2][ROWS]) {
    opened w[2];
    for (int64_t i = 0; i < k / t->n; i++, b += NR * t->bytes, a += act_bytes_of(t)) {
        t->open(b, &w[0]);
        t->open(b + t->bytes, &w[1]);
        int64_t r = 0;
        for (; r + 2 <= rows; r += 2) {
            const char *x0 = a + (size_t)r * lda, *x1 = x0 + lda;
            int32_t s[4];
            block_mmla(t, &w[0], &w[1], act_values(t, x0), act_values(t, x1), s);
            for (int c = 0; c < 2; c++) {
                acc[c][r] = finish(t, &w[c], x0, s[c], acc[c][r]);
                acc[c][r + 1] = finish(t, &w[c], x1, s[2 + c], acc[c][r + 1]);
            }
        }
        for (int c = 0; c < 2 && r < rows; c++) {
            const char *x = a + (size_t)r * lda;
            acc[c][r] = finish(t, &w[c], x, block_dot(t, &w[c], act_values(t, x)), acc[c][r]);
        }
    }
}
#endif

QSI_INLINE void one_column(const qtype *t, int64_t k, int64_t rows, const char *a, size_t lda,
                           const uint8_t *b, float acc[ROWS]) {
    opened w;
    for (int64_t i = 0; i < k / t->n; i++, b += NR * t->bytes, a += act_bytes_of(t)) {
        t->open(b, &w);
        for (int64_t r = 0; r < rows; r++) {
            const char *x = a + (size_t)r * lda;
            acc[r] = finish(t, &w, x, block_dot(t, &w, act_values(t, x)), acc[r]);
        }
    }
}

QSI_INLINE void store(const float acc[ROWS], int64_t rows, float *c, int64_t ldc, bool add) {
    for (int64_t r = 0; r < rows; r++) c[r * ldc] = add ? c[r * ldc] + acc[r] : acc[r];
}

QSI_INLINE void quant_run(const qtype *t, int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1,
                          const char *a, size_t lda, const uint8_t *packed, float *c, int64_t ldc,
                          bool add) {
    size_t panel = ((size_t)(k / t->n) * NR * (size_t)t->bytes + 63) / 64 * 64;
    for (int64_t i = 0; i < m; i += ROWS) {
        int64_t rows = m - i < ROWS ? m - i : ROWS, end = p1 * NR < n ? p1 * NR : n;
        const char *x = a + (size_t)i * lda;
        for (int64_t j = p0 * NR; j < end;) {
            const uint8_t *b = packed + (size_t)(j / NR) * panel + j % NR * t->bytes;
            float *out = c + i * ldc + j;
#ifdef MMLA
            if (rows > 1 && j + 1 < end) { /* NR is even: the next column is in this panel */
                float two[2][ROWS] = {{0}};
                two_columns(t, k, rows, x, lda, b, two);
                store(two[0], rows, out, ldc, add);
                store(two[1], rows, out + 1, ldc, add);
                j += 2;
                continue;
            }
#endif
            float one[ROWS] = {0};
            one_column(t, k, rows, x, lda, b, one);
            store(one, rows, out, ldc, add);
            j++;
        }
    }
}

#define QUANT_RUN(NAME, name, n_, min_)                                                            \
    static void run_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda, const void *packed, float *c, int64_t ldc, bool add) {      \
        const qtype t = {n_, sizeof(qsi_##name), min_, open_##name};                               \
        quant_run(&t, m, n, k, p0, p1, a, lda, packed, c, ldc, add);                               \
    }
QUANT_TYPES(QUANT_RUN)

#define QUANT_FILL(NAME, name, n_, min_) t->mm[QSI_MM_##NAME].run = run_##name;
QSI_INLINE void fill_quant(qsi_kern *t) { QUANT_TYPES(QUANT_FILL) }

#endif
