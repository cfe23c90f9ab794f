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
#define MR 6
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

/* Up to 6 rows x 2 panels: 12 integer and 12 float sums in registers; a word of A is broadcast once
 * for both panels. */
typedef struct tile {
    int64_t nb;
    const char *a;
    size_t lda;
    const char *codes, *scale;
    size_t panel; /* bytes to the next panel */
    float *c;
    int64_t ldc;
    bool add;
    __mmask16 m[2];
} tile;

QSI_INLINE float act_d(const char *x) {
    float d;
    memcpy(&d, x, 4);
    return d;
}

QSI_INLINE __m512i load_codes(const char *p, int g, bool q4) {
    if (!q4) return _mm512_load_si512(p + g * 64);
    __m512i w = _mm512_load_si512(p + g % 4 * 64);
    return _mm512_and_si512(g < 4 ? w : _mm512_srli_epi32(w, 4), _mm512_set1_epi32(0x0f0f0f0f));
}

/* rows x np panels of 16 columns; q4 chooses the codes. */
QSI_INLINE void tile_body(const int rows, const int np, const bool q4, const tile *t) {
    const int shift = q4 ? 3 : 7; /* log2 z */
    __m512 s[MR][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    const char *a = t->a, *codes = t->codes, *scale = t->scale;
    for (int64_t b = 0; b < t->nb; b++) {
        __m512i sum[MR][2];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++)
            sum[r][0] = sum[r][1] =
                _mm512_set1_epi32(-(word(a + (size_t)r * t->lda + 4) * (1 << shift)));
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m512i w0 = load_codes(codes, g, q4);
            __m512i w1 = np == 2 ? load_codes(codes + t->panel, g, q4) : w0;
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m512i x = _mm512_set1_epi32(word(a + (size_t)r * t->lda + 8 + 4 * g));
                sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], w0, x);
                if (np == 2) sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], w1, x);
            }
        }
#pragma GCC unroll 2
        for (int p = 0; p < np; p++) {
            const char *sc = scale + (size_t)p * t->panel;
            __m512 d = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)sc));
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m512 ad = _mm512_mul_ps(_mm512_set1_ps(act_d(a + (size_t)r * t->lda)), d);
                s[r][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][p]), ad, s[r][p]);
            }
        }
        a += sizeof(qsi_act8);
        codes += q4 ? 256 : 512;
        scale += NR * 2;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < np; p++) {
            float *c = t->c + r * t->ldc + p * NR;
            if (t->add) s[r][p] = _mm512_add_ps(_mm512_maskz_loadu_ps(t->m[p], c), s[r][p]);
            _mm512_mask_storeu_ps(c, t->m[p], s[r][p]);
        }
}

typedef void tile_fn(const tile *t);
#define TILE_FN(rows, np)                                                                          \
    static __attribute__((noinline)) void tile_q8_##np##_##rows(const tile *t) {                   \
        tile_body(rows, np, false, t);                                                             \
    }                                                                                              \
    static __attribute__((noinline)) void tile_q4_##np##_##rows(const tile *t) {                   \
        tile_body(rows, np, true, t);                                                              \
    }
#define TILE_FNS(np)                                                                               \
    TILE_FN(1, np)                                                                                 \
    TILE_FN(2, np)                                                                                 \
    TILE_FN(3, np)                                                                                 \
    TILE_FN(4, np)                                                                                 \
    TILE_FN(5, np)                                                                                 \
    TILE_FN(6, np)
#define TILE_ROW(q, np)                                                                            \
    {NULL,           tile_##q##_##np##_1, tile_##q##_##np##_2, tile_##q##_##np##_3,                \
     tile_##q##_##np##_4, tile_##q##_##np##_5, tile_##q##_##np##_6}
TILE_FNS(1)
TILE_FNS(2)
typedef tile_fn *const tile_row[MR + 1];
static tile_row fns_q8[2] = {TILE_ROW(q8, 1), TILE_ROW(q8, 2)};
static tile_row fns_q4[2] = {TILE_ROW(q4, 1), TILE_ROW(q4, 2)};

static void run(const tile_row fns[2], size_t code_bytes, size_t panel, int64_t m, int64_t n,
                int64_t nb, int64_t p0, int64_t p1, const char *a, size_t lda, const char *packed,
                float *c, int64_t ldc, bool accumulate) {
    int64_t blocks = (m + MR - 1) / MR;
    for (int64_t p = p0; p < p1; p += 2)
        for (int64_t blk = 0; blk < blocks; blk++) {
            int64_t i0 = m * blk / blocks, rows = m * (blk + 1) / blocks - i0;
            const char *codes = packed + (size_t)p * panel;
            tile t = {.nb = nb, .a = a + (size_t)i0 * lda, .lda = lda, .codes = codes,
                      .scale = codes + code_bytes * (size_t)nb, .panel = panel,
                      .c = c + i0 * ldc + p * NR, .ldc = ldc, .add = accumulate,
                      .m = {mask16(n - p * NR), mask16(n - (p + 1) * NR)}};
            fns[p + 1 < p1][rows](&t);
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
