/* Products of F32, F16 and BF16, scalar. Panels of 16 columns, [k][16] of the source type. Sums run
 * over k ascending, one accumulator per element of C. */
#include <math.h>
#include <string.h>

#include "kern/kern_levels.h"
#include "quant/quant.h"

#define NR 16

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }

static size_t panel_bytes_f32(int64_t k) { return round64((size_t)k * NR * 4); }
static size_t panel_bytes_f16(int64_t k) { return round64((size_t)k * NR * 2); }

/* ---- packing ---- */

static void pack_elems(const char *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                       int64_t p0, int64_t p1, char *dst, size_t size, size_t panel) {
    for (int64_t p = p0; p < p1; p++) {
        char *d = dst + (size_t)p * panel;
        memset(d, 0, panel);
        for (int64_t kk = 0; kk < k; kk++)
            for (int64_t j = 0; j < NR && p * NR + j < n; j++)
                memcpy(d + (size_t)(kk * NR + j) * size,
                       src + ((p * NR + j) * ld_col + kk * ld_k) * (int64_t)size, size);
    }
}

static void pack_f32(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                     int64_t p0, int64_t p1, void *dst) {
    pack_elems(src, ld_col, ld_k, n, k, p0, p1, dst, 4, panel_bytes_f32(k));
}

static void pack_16(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                    int64_t p0, int64_t p1, void *dst) {
    pack_elems(src, ld_col, ld_k, n, k, p0, p1, dst, 2, panel_bytes_f16(k));
}

/* ---- products: one row of C, one panel ---- */

typedef void row_fn(const void *a, const char *panel, int64_t k, float acc[NR]);

static float load_bf16(const void *p, int64_t i) {
    uint16_t h;
    memcpy(&h, (const char *)p + i * 2, 2);
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static float load_f32(const void *p, int64_t i) {
    float f;
    memcpy(&f, (const char *)p + i * 4, 4);
    return f;
}

static void row_f32(const void *a, const char *panel, int64_t k, float acc[NR]) {
    const float *b = (const float *)(const void *)panel;
    for (int64_t kk = 0; kk < k; kk++) {
        float x = load_f32(a, kk);
        for (int j = 0; j < NR; j++) acc[j] += x * b[kk * NR + j];
    }
}

static void row_f16(const void *a, const char *panel, int64_t k, float acc[NR]) {
    const uint16_t *b = (const uint16_t *)(const void *)panel;
    for (int64_t kk = 0; kk < k; kk++) {
        float x = load_f32(a, kk);
        for (int j = 0; j < NR; j++) acc[j] += x * qsi_f16_to_f32(b[kk * NR + j]);
    }
}

static void row_bf16(const void *a, const char *panel, int64_t k, float acc[NR]) {
    for (int64_t kk = 0; kk < k; kk++) {
        float x = load_bf16(a, kk);
        for (int j = 0; j < NR; j++) acc[j] += x * load_bf16(panel, kk * NR + j);
    }
}

static void run_rows(row_fn *row, size_t panel, int64_t m, int64_t n, int64_t k, int64_t p0,
                     int64_t p1, const void *a, size_t lda_bytes, const void *packed, float *c,
                     int64_t ldc, bool accumulate) {
    for (int64_t p = p0; p < p1; p++) {
        int64_t cols = n - p * NR < NR ? n - p * NR : NR;
        for (int64_t i = 0; i < m; i++) {
            float acc[NR] = {0};
            row((const char *)a + (size_t)i * lda_bytes, (const char *)packed + (size_t)p * panel,
                k, acc);
            float *out = c + i * ldc + p * NR;
            for (int64_t j = 0; j < cols; j++) out[j] = accumulate ? out[j] + acc[j] : acc[j];
        }
    }
}

#define RUN(type)                                                                                  \
    static void run_##type(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda_bytes, const void *packed, float *c, int64_t ldc,            \
                           bool accumulate)                                                        \
    {                                                                                              \
        run_rows(row_##type, panel_bytes_##type(k), m, n, k, p0, p1, a, lda_bytes, packed, c, ldc, \
                 accumulate);                                                                      \
    }
static size_t panel_bytes_bf16(int64_t k) { return panel_bytes_f16(k); }
RUN(f32)
RUN(f16)
RUN(bf16)

void qsi_kern_fill_ref_mm(qsi_kern *t) {
    t->mm[QSI_MM_F32] = (qsi_kern_mm){NR, panel_bytes_f32, pack_f32, run_f32};
    t->mm[QSI_MM_F16] = (qsi_kern_mm){NR, panel_bytes_f16, pack_16, run_f16};
    t->mm[QSI_MM_BF16] = (qsi_kern_mm){NR, panel_bytes_bf16, pack_16, run_bf16};
    t->bf16_native = t->bytes_native = false;
}
