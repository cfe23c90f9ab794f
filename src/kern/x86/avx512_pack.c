/* Packing of F32, F16 and BF16 into panels of 32 columns, AVX-512. Two layouts of the source are
 * fast: each column contiguous (ld_k 1: a weight [n, k] used as x Wt) and each k contiguous
 * (ld_col 1: the same weight used as dy W, or activations used as dyt x). */
#include <string.h>

#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define NR 32

static size_t bytes_f32(int64_t k) { return (size_t)k * NR * 4; }
static size_t bytes_f16(int64_t k) { return (size_t)k * NR * 2; }
static size_t bytes_bf16(int64_t k) { return (size_t)((k + 1) / 2) * NR * 4; }

typedef struct source {
    const char *p; /* column 0 of the panel */
    int64_t ld_col, ld_k, cols, k;
} source;

static source source_of(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                        int64_t panel, int64_t size) {
    int64_t j0 = panel * NR;
    return (source){(const char *)src + j0 * ld_col * size, ld_col, ld_k,
                    n - j0 < NR ? n - j0 : NR, k};
}

/* Words of 16 columns from column j on, at words [i, i + 16) of k; each column contiguous. */
QSI_INLINE void load_cols_f32(const source *s, int64_t j, int64_t i, __m512i v[16]) {
    __mmask16 m = mask16(s->k - i);
    for (int c = 0; c < 16; c++)
        v[c] = j + c < s->cols
                   ? _mm512_maskz_loadu_epi32(m, s->p + ((j + c) * s->ld_col + i) * 4)
                   : _mm512_setzero_si512();
    transpose16(v);
}

/* The same of pairs of 2-byte elements. */
QSI_INLINE void load_cols_16(const source *s, int64_t j, int64_t i, __m512i v[16]) {
    __mmask32 m = mask32(s->k - i * 2);
    for (int c = 0; c < 16; c++)
        v[c] = j + c < s->cols
                   ? _mm512_maskz_loadu_epi16(m, s->p + ((j + c) * s->ld_col + i * 2) * 2)
                   : _mm512_setzero_si512();
    transpose16(v);
}

/* ---- F32 ---- */

static void panel_f32(const source *s, char *d) {
    if (s->ld_k == 1) {
        for (int64_t i = 0; i < s->k; i += 16)
            for (int64_t j = 0; j < NR; j += 16) {
                __m512i v[16];
                load_cols_f32(s, j, i, v);
                for (int64_t r = 0; r < 16 && i + r < s->k; r++)
                    _mm512_store_si512(d + (i + r) * NR * 4 + j * 4, v[r]);
            }
    } else if (s->ld_col == 1) {
        __mmask16 m0 = mask16(s->cols), m1 = mask16(s->cols - 16);
        for (int64_t i = 0; i < s->k; i++) {
            const char *p = s->p + i * s->ld_k * 4;
            _mm512_store_si512(d + i * NR * 4, _mm512_maskz_loadu_epi32(m0, p));
            _mm512_store_si512(d + i * NR * 4 + 64, _mm512_maskz_loadu_epi32(m1, p + 64));
        }
    } else {
        memset(d, 0, bytes_f32(s->k));
        for (int64_t i = 0; i < s->k; i++)
            for (int64_t j = 0; j < s->cols; j++)
                memcpy(d + (i * NR + j) * 4, s->p + (j * s->ld_col + i * s->ld_k) * 4, 4);
    }
}

static void pack_f32(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                     int64_t p0, int64_t p1, void *dst) {
    for (int64_t p = p0; p < p1; p++) {
        source s = source_of(src, ld_col, ld_k, n, k, p, 4);
        panel_f32(&s, (char *)dst + (size_t)p * bytes_f32(k));
    }
}

/* ---- BF16 ---- */

static void panel_bf16(const source *s, char *d) {
    int64_t pairs = (s->k + 1) / 2;
    if (s->ld_k == 1) {
        for (int64_t i = 0; i < pairs; i += 16)
            for (int64_t j = 0; j < NR; j += 16) {
                __m512i v[16];
                load_cols_16(s, j, i, v);
                for (int64_t r = 0; r < 16 && i + r < pairs; r++)
                    _mm512_store_si512(d + (i + r) * NR * 4 + j * 4, v[r]);
            }
    } else if (s->ld_col == 1) {
        __mmask32 m = mask32(s->cols);
        __m512i lo, hi;
        uint16_t idx[64];
        for (int j = 0; j < 32; j++) {
            idx[2 * j] = (uint16_t)j;
            idx[2 * j + 1] = (uint16_t)(32 + j);
        }
        lo = _mm512_loadu_si512(idx);
        hi = _mm512_loadu_si512(idx + 32);
        for (int64_t i = 0; i < pairs; i++) {
            const char *p = s->p + i * 2 * s->ld_k * 2;
            __m512i a = _mm512_maskz_loadu_epi16(m, p);
            __m512i b = i * 2 + 1 < s->k ? _mm512_maskz_loadu_epi16(m, p + s->ld_k * 2)
                                         : _mm512_setzero_si512();
            _mm512_store_si512(d + i * NR * 4, _mm512_permutex2var_epi16(a, lo, b));
            _mm512_store_si512(d + i * NR * 4 + 64, _mm512_permutex2var_epi16(a, hi, b));
        }
    } else {
        memset(d, 0, bytes_bf16(s->k));
        for (int64_t i = 0; i < s->k; i++)
            for (int64_t j = 0; j < s->cols; j++)
                memcpy(d + (i / 2 * NR + j) * 4 + i % 2 * 2,
                       s->p + (j * s->ld_col + i * s->ld_k) * 2, 2);
    }
}

static void pack_bf16(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                      int64_t p0, int64_t p1, void *dst) {
    for (int64_t p = p0; p < p1; p++) {
        source s = source_of(src, ld_col, ld_k, n, k, p, 2);
        panel_bf16(&s, (char *)dst + (size_t)p * bytes_bf16(k));
    }
}

/* ---- F16 ---- */

static void panel_f16(const source *s, char *d) {
    if (s->ld_k == 1) {
        for (int64_t i = 0; i < (s->k + 1) / 2; i += 16)
            for (int64_t j = 0; j < NR; j += 16) {
                __m512i v[16];
                load_cols_16(s, j, i, v);
                for (int64_t r = 0; r < 16; r++) {
                    int64_t kk = (i + r) * 2;
                    __m256i *out = (__m256i *)(void *)(d + (kk * NR + j) * 2);
                    if (kk < s->k) _mm256_store_si256(out, _mm512_cvtepi32_epi16(v[r]));
                    if (kk + 1 < s->k)
                        _mm256_store_si256(out + 2,
                                           _mm512_cvtepi32_epi16(_mm512_srli_epi32(v[r], 16)));
                }
            }
    } else if (s->ld_col == 1) {
        __mmask32 m = mask32(s->cols);
        for (int64_t i = 0; i < s->k; i++)
            _mm512_store_si512(d + i * NR * 2,
                               _mm512_maskz_loadu_epi16(m, s->p + i * s->ld_k * 2));
    } else {
        memset(d, 0, bytes_f16(s->k));
        for (int64_t i = 0; i < s->k; i++)
            for (int64_t j = 0; j < s->cols; j++)
                memcpy(d + (i * NR + j) * 2, s->p + (j * s->ld_col + i * s->ld_k) * 2, 2);
    }
}

static void pack_f16(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                     int64_t p0, int64_t p1, void *dst) {
    for (int64_t p = p0; p < p1; p++) {
        source s = source_of(src, ld_col, ld_k, n, k, p, 2);
        panel_f16(&s, (char *)dst + (size_t)p * bytes_f16(k));
    }
}

void qsi_kern_fill_avx512_pack(qsi_kern *t) {
    t->mm[QSI_MM_F32] = (qsi_kern_mm){NR, bytes_f32, pack_f32, NULL};
    t->mm[QSI_MM_F16] = (qsi_kern_mm){NR, bytes_f16, pack_f16, NULL};
    t->mm[QSI_MM_BF16] = (qsi_kern_mm){NR, bytes_bf16, pack_bf16, NULL};
}
