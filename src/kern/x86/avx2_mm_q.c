/* Q8_0 and Q4_0 products, AVX2. Panels of 8 columns, as large as the source:
 *   [k/32][codes] then [k/32][8] half scales
 *   Q8_0 codes: [8][8][4] bytes, four k of a column a word
 *   Q4_0 codes: [4][8][4] bytes, k of group g in the low, of group g + 4 in the high nibble
 * Q8_0: |w| (unsigned) times a with the sign of w (signed): two products are at most 2 * 128 * 127,
 * so the 16-bit sums do not saturate. Q4_0: unsigned codes, minus 8 times the sum of the
 * activations; all sixteen products of a 16-bit lane stay below 8 * 2 * 15 * 127 < 2^15. The dot is
 * exact. A block adds (float)sum * (scale of a * scale of w) to the one accumulator of its element,
 * blocks ascending. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"
#include "quant/quant.h"

#define NR 8
#define MR 4
#define BLOCK 32

static size_t bytes_of(int64_t k, size_t code_bytes) {
    size_t nb = (size_t)(k / BLOCK);
    return (nb * code_bytes + nb * NR * 2 + 63) / 64 * 64;
}
static size_t bytes_q8_0(int64_t k) { return bytes_of(k, 256); }
static size_t bytes_q4_0(int64_t k) { return bytes_of(k, 128); }

/* ---- packing ---- */

QSI_INLINE void pack(size_t code_bytes, const char *src, int64_t ld_col, int64_t n, int64_t k,
                     int64_t p0, int64_t p1, char *dst) {
    const size_t words = code_bytes / 32, block = 2 + 4 * words;
    for (int64_t p = p0; p < p1; p++) {
        char *panel = dst + (size_t)p * bytes_of(k, code_bytes);
        memset(panel, 0, bytes_of(k, code_bytes));
        char *scale = panel + code_bytes * (size_t)(k / BLOCK);
        for (int64_t b = 0; b < k / BLOCK; b++, panel += code_bytes, scale += NR * 2)
            for (int64_t c = 0; c < NR && p * NR + c < n; c++) {
                const char *s = src + (p * NR + c) * ld_col + b * (int64_t)block;
                memcpy(scale + 2 * c, s, 2);
                for (size_t g = 0; g < words; g++)
                    memcpy(panel + g * 32 + (size_t)c * 4, s + 2 + 4 * g, 4);
            }
    }
}

static void pack_q8_0(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                      int64_t p0, int64_t p1, void *dst) {
    pack(256, src, ld_col, n, k, p0, p1, dst);
}

static void pack_q4_0(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,
                      int64_t p0, int64_t p1, void *dst) {
    pack(128, src, ld_col, n, k, p0, p1, dst);
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
    vm m;
} tile;

QSI_INLINE __m256i load_codes(const char *p) {
    return _mm256_load_si256((const __m256i *)(const void *)p);
}

QSI_INLINE __m256i act(const tile *t, const char *a, int r, int at) {
    return _mm256_set1_epi32(word(a + (size_t)r * t->lda + at));
}

QSI_INLINE void block_q8(const int rows, const tile *t, const char *a, const char *codes,
                         __m256i sum[MR]) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m256i w = load_codes(codes + g * 32), abs_w = _mm256_abs_epi8(w);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i x = _mm256_sign_epi8(act(t, a, r, 8 + 4 * g), w);
            x = _mm256_madd_epi16(_mm256_maddubs_epi16(abs_w, x), ones);
            sum[r] = _mm256_add_epi32(sum[r], x);
        }
    }
}

QSI_INLINE void block_q4(const int rows, const tile *t, const char *a, const char *codes,
                         __m256i sum[MR]) {
    const __m256i nibble = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) sum[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        __m256i w = load_codes(codes + g * 32);
        __m256i hi = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
        w = _mm256_and_si256(w, nibble);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m256i x = _mm256_maddubs_epi16(w, act(t, a, r, 8 + 4 * g));
            __m256i y = _mm256_maddubs_epi16(hi, act(t, a, r, 24 + 4 * g));
            sum[r] = _mm256_add_epi16(sum[r], _mm256_add_epi16(x, y));
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        __m256i offset = _mm256_slli_epi32(act(t, a, r, 4), 3);
        sum[r] = _mm256_madd_epi16(sum[r], _mm256_set1_epi16(1));
        sum[r] = _mm256_sub_epi32(sum[r], offset);
    }
}

QSI_INLINE void tile_body(const int rows, const bool q4, const tile *t) {
    vf s[MR];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) s[r] = zero();
    const char *a = t->a, *codes = t->codes, *scale = t->scale;
    for (int64_t b = 0; b < t->nb; b++) {
        __m256i sum[MR];
        if (q4)
            block_q4(rows, t, a, codes, sum);
        else
            block_q8(rows, t, a, codes, sum);
        vf d = ld_f16(lanes(8), (const uint16_t *)(const void *)scale);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf x = _mm256_castsi256_ps(act(t, a, r, 0));
            s[r] = vfma(_mm256_cvtepi32_ps(sum[r]), vmul(x, d), s[r]);
        }
        a += sizeof(qsi_act8);
        codes += q4 ? 128 : 256;
        scale += NR * 2;
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        float *c = t->c + r * t->ldc;
        st(t->m, c, t->add ? vadd(ld(t->m, c), s[r]) : s[r]);
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
static tile_fn *const fns[2][MR + 1] = {{NULL, tile_q8_1, tile_q8_2, tile_q8_3, tile_q8_4},
                                        {NULL, tile_q4_1, tile_q4_2, tile_q4_3, tile_q4_4}};

static void run(bool q4, int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const char *a,
                size_t lda, const char *packed, float *c, int64_t ldc, bool accumulate) {
    const size_t code_bytes = q4 ? 128 : 256;
    int64_t blocks = (m + MR - 1) / MR, nb = k / BLOCK;
    for (int64_t p = p0; p < p1; p++)
        for (int64_t blk = 0; blk < blocks; blk++) {
            int64_t i0 = m * blk / blocks, rows = m * (blk + 1) / blocks - i0;
            const char *codes = packed + (size_t)p * bytes_of(k, code_bytes);
            tile t = {.nb = nb, .a = a + (size_t)i0 * lda, .lda = lda, .codes = codes,
                      .scale = codes + code_bytes * (size_t)nb, .c = c + i0 * ldc + p * NR,
                      .ldc = ldc, .add = accumulate, .m = lanes(n - p * NR)};
            fns[q4][rows](&t);
        }
}

static void run_q8_0(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                     size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    run(false, m, n, k, p0, p1, a, lda_bytes, packed, c, ldc, accumulate);
}

static void run_q4_0(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                     size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    run(true, m, n, k, p0, p1, a, lda_bytes, packed, c, ldc, accumulate);
}

void qsi_kern_fill_avx2_mm_q(qsi_kern *t) {
    t->mm[QSI_MM_Q8_0] = (qsi_kern_mm){NR, bytes_q8_0, pack_q8_0, run_q8_0};
    t->mm[QSI_MM_Q4_0] = (qsi_kern_mm){NR, bytes_q4_0, pack_q4_0, run_q4_0};
}
