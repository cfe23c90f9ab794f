/* Q8_0 and Q4_0 products, AVX-512 VNNI. Panels of 16 columns, as large as the source:
 *   [k/32][codes] then [k/32][16] half scales
 *   Q8_0 codes: [8][16][4] bytes, code + 128, so that four k of a column make a word
 *   Q4_0 codes: [4][16][4] bytes, k of group g in the low, of group g + 4 in the high nibble
 * The instruction multiplies unsigned by signed bytes: sum (w + z) a = sum w a + z sum a with z 128
 * or 8, so the sum starts at -z times the sum of the activations, and is exact. A block then adds
 * (float)sum * (scale of a * scale of w) to the one accumulator of its element, ascending. */
#include <string.h>

#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"
#include "quant/quant.h"

#define NR 16
#define MR 12
#define BLOCK 32

static size_t codes_q8_0(int64_t k) { return (size_t)(k / BLOCK) * 512; }
static size_t codes_q4_0(int64_t k) { return (size_t)(k / BLOCK) * 256; }
static size_t scales(int64_t k) { return ((size_t)(k / BLOCK) * NR * 2 + 63) / 64 * 64; }
static size_t bytes_q8_0(int64_t k) { return codes_q8_0(k) + scales(k); }
static size_t bytes_q4_0(int64_t k) { return codes_q4_0(k) + scales(k); }

/* ---- packing ---- */

/* One block of 16 columns; rows[c] is NULL where there is no column. */
static void pack_block_q8_0(const char *const rows[NR], int64_t b, char *codes, char *scale) {
    __m512i v[16];
    uint16_t d[NR] = {0};
    for (int c = 0; c < NR; c++) {
        v[c] = _mm512_setzero_si512();
        if (rows[c] == NULL) continue;
        const char *p = rows[c] + b * (int64_t)sizeof(qsi_q8_0);
        memcpy(&d[c], p, 2);
        v[c] = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(p + 2)));
    }
    transpose16(v); /* v[g]: words of the 16 columns */
    for (int g = 0; g < 8; g++)
        _mm512_store_si512(codes + g * 64,
                           _mm512_xor_si512(v[g], _mm512_set1_epi32((int)0x80808080u)));
    memcpy(scale, d, sizeof d);
}

static void pack_block_q4_0(const char *const rows[NR], int64_t b, char *codes, char *scale) {
    uint32_t w[4][NR] = {{0}};
    uint16_t d[NR] = {0};
    for (int c = 0; c < NR; c++) {
        if (rows[c] == NULL) continue;
        const char *p = rows[c] + b * (int64_t)sizeof(qsi_q4_0);
        memcpy(&d[c], p, 2);
        for (int g = 0; g < 4; g++) memcpy(&w[g][c], p + 2 + 4 * g, 4);
    }
    memcpy(codes, w, sizeof w);
    memcpy(scale, d, sizeof d);
}

QSI_INLINE void pack(void (*block)(const char *const *, int64_t, char *, char *), size_t code_bytes,
                     size_t panel, const char *src, int64_t ld_col, int64_t n, int64_t k,
                     int64_t p0, int64_t p1, char *dst) {
    int64_t nb = k / BLOCK;
    for (int64_t p = p0; p < p1; p++) {
        const char *rows[NR];
        for (int64_t c = 0; c < NR; c++)
            rows[c] = p * NR + c < n ? src + (p * NR + c) * ld_col : NULL;
        char *codes = dst + (size_t)p * panel, *sc = codes + code_bytes * (size_t)nb;
        for (int64_t b = 0; b < nb; b++)
            block(rows, b, codes + code_bytes * (size_t)b, sc + b * NR * 2);
        memset(sc + nb * NR * 2, 0, scales(k) - (size_t)nb * NR * 2);
    }
}

static void pack_q8_0(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                      int64_t p0, int64_t p1, void *dst) {
    pack(pack_block_q8_0, 512, bytes_q8_0(k), src, ld_col, n, k, p0, p1, dst);
}

static void pack_q4_0(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                      int64_t p0, int64_t p1, void *dst) {
    pack(pack_block_q4_0, 256, bytes_q4_0(k), src, ld_col, n, k, p0, p1, dst);
}

/* ---- products ---- */

typedef struct tile {
    int64_t nb;
    const char *a;
    size_t lda;
    const char *codes, *scale;
    float *c;
    int64_t ldc;
    bool add;
    __mmask16 m;
} tile;

QSI_INLINE float act_d(const char *x) {
    float d;
    memcpy(&d, x, 4);
    return d;
}

/* rows x 16 columns; q4 chooses the codes. */
QSI_INLINE void tile_body(const int rows, const bool q4, const tile *t) {
    const int shift = q4 ? 3 : 7; /* log2 z */
    const __m512i nibble = _mm512_set1_epi32(0x0f0f0f0f);
    __m512 s[MR];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) s[r] = _mm512_setzero_ps();
    const char *a = t->a, *codes = t->codes, *scale = t->scale;
    for (int64_t b = 0; b < t->nb; b++) {
        __m512i sum[MR];
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
            sum[r] = _mm512_set1_epi32(-(word(a + (size_t)r * t->lda + 4) * (1 << shift)));
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m512i w;
            if (q4) {
                w = _mm512_load_si512(codes + g % 4 * 64);
                w = _mm512_and_si512(g < 4 ? w : _mm512_srli_epi32(w, 4), nibble);
            } else {
                w = _mm512_load_si512(codes + g * 64);
            }
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++)
                sum[r] = _mm512_dpbusd_epi32(
                    sum[r], w, _mm512_set1_epi32(word(a + (size_t)r * t->lda + 8 + 4 * g)));
        }
        __m512 d = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)scale));
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
            s[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]),
                                   _mm512_mul_ps(_mm512_set1_ps(act_d(a + (size_t)r * t->lda)), d),
                                   s[r]);
        a += sizeof(qsi_act8);
        codes += q4 ? 256 : 512;
        scale += NR * 2;
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        float *c = t->c + r * t->ldc;
        if (t->add) s[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(t->m, c), s[r]);
        _mm512_mask_storeu_ps(c, t->m, s[r]);
    }
}

typedef void tile_fn(const tile *t);
#define TILE_FN(rows)                                                                              \
    static __attribute__((noinline)) void tile_q8_##rows(const tile *t)                            \
    {                                                                                              \
        tile_body(rows, false, t);                                                                 \
    }                                                                                              \
    static __attribute__((noinline)) void tile_q4_##rows(const tile *t)                            \
    {                                                                                              \
        tile_body(rows, true, t);                                                                  \
    }
TILE_FN(1)
TILE_FN(2)
TILE_FN(3)
TILE_FN(4)
TILE_FN(5)
TILE_FN(6)
TILE_FN(7)
TILE_FN(8)
TILE_FN(9)
TILE_FN(10)
TILE_FN(11)
TILE_FN(12)
static tile_fn *const fns_q8[MR + 1] = {
    NULL,      tile_q8_1, tile_q8_2, tile_q8_3,  tile_q8_4,  tile_q8_5, tile_q8_6,
    tile_q8_7, tile_q8_8, tile_q8_9, tile_q8_10, tile_q8_11, tile_q8_12};
static tile_fn *const fns_q4[MR + 1] = {
    NULL,      tile_q4_1, tile_q4_2, tile_q4_3,  tile_q4_4,  tile_q4_5, tile_q4_6,
    tile_q4_7, tile_q4_8, tile_q4_9, tile_q4_10, tile_q4_11, tile_q4_12};

static void run(tile_fn *const fns[MR + 1], size_t code_bytes, size_t panel, int64_t m, int64_t n,
                int64_t nb, int64_t p0, int64_t p1, const char *a, size_t lda, const char *packed,
                float *c, int64_t ldc, bool accumulate) {
    int64_t blocks = (m + MR - 1) / MR;
    for (int64_t p = p0; p < p1; p++)
        for (int64_t blk = 0; blk < blocks; blk++) {
            int64_t i0 = m * blk / blocks, rows = m * (blk + 1) / blocks - i0;
            const char *codes = packed + (size_t)p * panel;
            tile t = {.nb = nb, .a = a + (size_t)i0 * lda, .lda = lda, .codes = codes,
                      .scale = codes + code_bytes * (size_t)nb, .c = c + i0 * ldc + p * NR,
                      .ldc = ldc, .add = accumulate, .m = mask16(n - p * NR)};
            fns[rows](&t);
        }
}

static void run_q8_0(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                     size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    run(fns_q8, 512, bytes_q8_0(k), m, n, k / BLOCK, p0, p1, a, lda_bytes, packed, c, ldc,
        accumulate);
}

static void run_q4_0(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                     size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    run(fns_q4, 256, bytes_q4_0(k), m, n, k / BLOCK, p0, p1, a, lda_bytes, packed, c, ldc,
        accumulate);
}

void qsi_kern_fill_vnni_mm(qsi_kern *t) {
    t->mm[QSI_MM_Q8_0] = (qsi_kern_mm){NR, bytes_q8_0, pack_q8_0, run_q8_0};
    t->mm[QSI_MM_Q4_0] = (qsi_kern_mm){NR, bytes_q4_0, pack_q4_0, run_q4_0};
}
