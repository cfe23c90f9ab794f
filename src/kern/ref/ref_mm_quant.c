/* Products of quantised weights, scalar: one generic body over the unpacked block, which states what
 * every type means. Panels of 16 columns, [k/block][16] blocks as they are in the file. */
#include <math.h>
#include <string.h>

#include "kern/kern_levels.h"
#include "quant/quant.h"

#define NR 16

/* A block of 256 or 32 values: value i is d * sc[i/16] * q[i] - m * mn[i/16]. */
typedef struct block {
    int16_t q[256];
    int sc[16], mn[16];
    float d, m;
} block;

static void ones(int *x) {
    for (int g = 0; g < 16; g++) x[g] = 1;
}

static void nibbles(const uint8_t qs[16], int less, int16_t q[32]) {
    for (int j = 0; j < 16; j++) {
        q[j] = (int16_t)((qs[j] & 15) - less);
        q[j + 16] = (int16_t)((qs[j] >> 4) - less);
    }
}

static void fifth_bits(const uint8_t qh[4], int16_t q[32]) {
    for (int j = 0; j < 32; j++) q[j] = (int16_t)(q[j] + (qh[j / 8] >> j % 8 & 1) * 16);
}

static void open_q8_0(const void *src, block *b) {
    qsi_q8_0 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    b->d = qsi_f16_to_f32(s.d);
    for (int j = 0; j < 32; j++) b->q[j] = s.qs[j];
}

static void open_q4_0(const void *src, block *b) {
    qsi_q4_0 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    b->d = qsi_f16_to_f32(s.d);
    nibbles(s.qs, 8, b->q);
}

static void open_q4_1(const void *src, block *b) {
    qsi_q4_1 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    ones(b->mn);
    b->d = qsi_f16_to_f32(s.d);
    b->m = -qsi_f16_to_f32(s.m);
    nibbles(s.qs, 0, b->q);
}

static void open_q5_0(const void *src, block *b) {
    qsi_q5_0 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    b->d = qsi_f16_to_f32(s.d);
    nibbles(s.qs, 16, b->q);
    fifth_bits(s.qh, b->q);
}

static void open_q5_1(const void *src, block *b) {
    qsi_q5_1 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    ones(b->mn);
    b->d = qsi_f16_to_f32(s.d);
    b->m = -qsi_f16_to_f32(s.m);
    nibbles(s.qs, 0, b->q);
    fifth_bits(s.qh, b->q);
}

static void open_iq4_nl(const void *src, block *b) {
    qsi_iq4_nl s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    b->d = qsi_f16_to_f32(s.d);
    nibbles(s.qs, 0, b->q);
    for (int j = 0; j < 32; j++) b->q[j] = qsi_iq4_values[b->q[j]];
}

static void open_mxfp4(const void *src, block *b) {
    qsi_mxfp4 s;
    memcpy(&s, src, sizeof s);
    ones(b->sc);
    b->d = qsi_mxfp4_scale(s.e);
    nibbles(s.qs, 0, b->q);
    for (int j = 0; j < 32; j++) b->q[j] = qsi_mxfp4_values[b->q[j]];
}

static void open_q2_k(const void *src, block *b) {
    qsi_q2_k s;
    memcpy(&s, src, sizeof s);
    b->d = qsi_f16_to_f32(s.d);
    b->m = qsi_f16_to_f32(s.dmin);
    for (int g = 0; g < 16; g++) {
        b->sc[g] = s.scales[g] & 15;
        b->mn[g] = s.scales[g] >> 4;
    }
    for (int i = 0; i < 256; i++)
        b->q[i] = (int16_t)(s.qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3);
}

static void open_q3_k(const void *src, block *b) {
    qsi_q3_k s;
    int8_t sc[16];
    memcpy(&s, src, sizeof s);
    qsi_q3k_scales(s.scales, sc);
    b->d = qsi_f16_to_f32(s.d);
    for (int g = 0; g < 16; g++) b->sc[g] = sc[g];
    for (int i = 0; i < 256; i++)
        b->q[i] = (int16_t)((s.qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) +
                            (s.hmask[i % 32] >> i / 32 & 1) * 4 - 4);
}

static void min_scales(const uint8_t packed[12], block *b) {
    uint8_t sc[8], mn[8];
    qsi_q4k_scales(packed, sc, mn);
    for (int g = 0; g < 16; g++) {
        b->sc[g] = sc[g / 2];
        b->mn[g] = mn[g / 2];
    }
}

static void open_q4_k(const void *src, block *b) {
    qsi_q4_k s;
    memcpy(&s, src, sizeof s);
    b->d = qsi_f16_to_f32(s.d);
    b->m = qsi_f16_to_f32(s.dmin);
    min_scales(s.scales, b);
    for (int i = 0; i < 256; i++)
        b->q[i] = (int16_t)(s.qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15);
}

static void open_q5_k(const void *src, block *b) {
    qsi_q5_k s;
    memcpy(&s, src, sizeof s);
    b->d = qsi_f16_to_f32(s.d);
    b->m = qsi_f16_to_f32(s.dmin);
    min_scales(s.scales, b);
    for (int i = 0; i < 256; i++)
        b->q[i] = (int16_t)((s.qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15) +
                            (s.qh[i % 32] >> i / 32 & 1) * 16);
}

static void open_q6_k(const void *src, block *b) {
    qsi_q6_k s;
    memcpy(&s, src, sizeof s);
    b->d = qsi_f16_to_f32(s.d);
    for (int g = 0; g < 16; g++) b->sc[g] = s.scales[g];
    for (int i = 0; i < 256; i++) {
        int h = i / 128, quarter = i % 128 / 32, l = i % 32;
        int low = s.ql[64 * h + 32 * (quarter & 1) + l] >> (quarter < 2 ? 0 : 4) & 15;
        b->q[i] = (int16_t)((low | (s.qh[32 * h + l] >> 2 * quarter & 3) << 4) - 32);
    }
}

static void open_iq4_xs(const void *src, block *b) {
    qsi_iq4_xs s;
    int8_t sc[8];
    memcpy(&s, src, sizeof s);
    qsi_iq4xs_scales(s.scales_h, s.scales_l, sc);
    b->d = qsi_f16_to_f32(s.d);
    for (int g = 0; g < 16; g++) b->sc[g] = sc[g / 2];
    for (int i = 0; i < 256; i++)
        b->q[i] = qsi_iq4_values[s.qs[i / 32 * 16 + i % 16] >> i % 32 / 16 * 4 & 15];
}

/* ---- products ---- */

typedef struct type {
    int n, bytes; /* values and bytes of a block */
    bool has_min;
    void (*open)(const void *src, block *b);
} type;

static const type types[QSI_MM_N_QUANT] = {
    [QSI_MM_Q8_0 - QSI_MM_QUANT] = {32, 34, false, open_q8_0},
    [QSI_MM_Q4_0 - QSI_MM_QUANT] = {32, 18, false, open_q4_0},
    [QSI_MM_Q4_1 - QSI_MM_QUANT] = {32, 20, true, open_q4_1},
    [QSI_MM_Q5_0 - QSI_MM_QUANT] = {32, 22, false, open_q5_0},
    [QSI_MM_Q5_1 - QSI_MM_QUANT] = {32, 24, true, open_q5_1},
    [QSI_MM_IQ4_NL - QSI_MM_QUANT] = {32, 18, false, open_iq4_nl},
    [QSI_MM_MXFP4 - QSI_MM_QUANT] = {32, 17, false, open_mxfp4},
    [QSI_MM_Q2_K - QSI_MM_QUANT] = {256, 84, true, open_q2_k},
    [QSI_MM_Q3_K - QSI_MM_QUANT] = {256, 110, false, open_q3_k},
    [QSI_MM_Q4_K - QSI_MM_QUANT] = {256, 144, true, open_q4_k},
    [QSI_MM_Q5_K - QSI_MM_QUANT] = {256, 176, true, open_q5_k},
    [QSI_MM_Q6_K - QSI_MM_QUANT] = {256, 210, false, open_q6_k},
    [QSI_MM_IQ4_XS - QSI_MM_QUANT] = {256, 136, false, open_iq4_xs},
};

static size_t panel_bytes(const type *t, int64_t k) {
    return ((size_t)(k / t->n) * NR * (size_t)t->bytes + 63) / 64 * 64;
}

static void pack(const type *t, const char *src, int64_t ld_col, int64_t n, int64_t k, int64_t p0,
                 int64_t p1, char *dst) {
    for (int64_t p = p0; p < p1; p++) {
        char *d = dst + (size_t)p * panel_bytes(t, k);
        memset(d, 0, panel_bytes(t, k));
        for (int64_t b = 0; b < k / t->n; b++)
            for (int64_t j = 0; j < NR && p * NR + j < n; j++)
                memcpy(d + (b * NR + j) * t->bytes, src + (p * NR + j) * ld_col + b * t->bytes,
                       (size_t)t->bytes);
    }
}

/* The quantised activations that meet block i, and their scale. */
static float act_block(const type *t, const char *a, int64_t i, int8_t qs[256]) {
    if (t->n == 32) {
        qsi_act8 x;
        memcpy(&x, a + i * (int64_t)sizeof x, sizeof x);
        memcpy(qs, x.qs, sizeof x.qs);
        return x.d;
    }
    qsi_actk x;
    memcpy(&x, a + i * (int64_t)sizeof x, sizeof x);
    memcpy(qs, x.qs, sizeof x.qs);
    return x.d;
}

static float add_block(const type *t, const block *w, const int8_t *qs, float xd, float acc) {
    int32_t s = 0, m = 0;
    for (int i = 0; i < t->n; i++) {
        s += w->sc[i / 16] * w->q[i] * qs[i];
        m += w->mn[i / 16] * qs[i];
    }
    acc = fmaf((float)s, xd * w->d, acc);
    if (t->has_min) acc = fmaf((float)-m, xd * w->m, acc);
    return acc;
}

/* One column of one panel, all rows; blocks ascending. */
static void column(const type *t, int64_t k, int64_t m, const char *a, size_t lda,
                   const char *blocks, float *acc) {
    block w = {0};
    int8_t qs[256];
    for (int64_t b = 0; b < k / t->n; b++) {
        t->open(blocks + b * NR * t->bytes, &w);
        for (int64_t i = 0; i < m; i++) {
            float d = act_block(t, a + (size_t)i * lda, b, qs);
            acc[i] = add_block(t, &w, qs, d, acc[i]);
        }
    }
}

static void column_exact(const type *t, int64_t k, int64_t m, const char *a, size_t lda,
                         const char *blocks, float *acc) {
    block w = {0};
    for (int64_t b = 0; b < k / t->n; b++) {
        t->open(blocks + b * NR * t->bytes, &w);
        for (int e = 0; e < t->n; e++) {
            float low = t->has_min ? w.m * (float)w.mn[e / 16] : 0.0f;
            float v = fmaf(w.d * (float)w.sc[e / 16], (float)w.q[e], -low);
            for (int64_t i = 0; i < m; i++) {
                float x;
                memcpy(&x, a + (size_t)i * lda + (b * t->n + e) * 4, 4);
                acc[i] = fmaf(x, v, acc[i]);
            }
        }
    }
}

#define ROWS 64
typedef void column_fn(const type *t, int64_t k, int64_t m, const char *a, size_t lda,
                       const char *blocks, float *acc);

static void run(const type *t, column_fn *fn, int64_t m, int64_t n, int64_t k, int64_t p0,
                int64_t p1, const char *a, size_t lda, const char *packed, float *c, int64_t ldc,
                bool accumulate) {
    for (int64_t j = p0 * NR; j < p1 * NR && j < n; j++)
        for (int64_t i0 = 0; i0 < m; i0 += ROWS) {
            float acc[ROWS] = {0};
            int64_t rows = m - i0 < ROWS ? m - i0 : ROWS;
            fn(t, k, rows, a + (size_t)i0 * lda, lda,
               packed + (size_t)(j / NR) * panel_bytes(t, k) + j % NR * t->bytes, acc);
            for (int64_t i = 0; i < rows; i++) {
                float *out = c + (i0 + i) * ldc + j;
                *out = accumulate ? *out + acc[i] : acc[i];
            }
        }
}

#define TYPE(name) &types[QSI_MM_##name - QSI_MM_QUANT]
#define FUNCTIONS(name)                                                                            \
    static size_t bytes_##name(int64_t k) { return panel_bytes(TYPE(name), k); }                   \
    static void pack_##name(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,   \
                            int64_t p0, int64_t p1, void *dst) {                                   \
        pack(TYPE(name), src, ld_col, n, k, p0, p1, dst);                                          \
    }                                                                                              \
    static void run_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda, const void *packed, float *c, int64_t ldc, bool add) {      \
        run(TYPE(name), column, m, n, k, p0, p1, a, lda, packed, c, ldc, add);                     \
    }                                                                                              \
    static void run_x_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1,              \
                             const void *a, size_t lda, const void *packed, float *c, int64_t ldc, \
                             bool add) {                                                           \
        run(TYPE(name), column_exact, m, n, k, p0, p1, a, lda, packed, c, ldc, add);               \
    }
QSI_MM_QUANT_LIST(FUNCTIONS)

void qsi_kern_fill_ref_mm_quant(qsi_kern *t) {
#define FILL(name)                                                                                 \
    t->mm[QSI_MM_##name] = (qsi_kern_mm){NR, bytes_##name, pack_##name, run_##name};               \
    t->mm[QSI_MM_X_##name] = (qsi_kern_mm){NR, bytes_##name, pack_##name, run_x_##name};
    QSI_MM_QUANT_LIST(FILL)
}
