/* The body of the 16-column float products of 8 lanes (AVX2, NEON), included by the file of each
 * type after it included simd256.h or simdneon.h and defined
 *
 *   B_BYTES            bytes of a panel per k (16 columns)
 *   LOAD_B(b, j)       columns 8j .. 8j+8 at b, widened to floats
 *   A_BYTES, LOAD_A(p) bytes of an element of A; eight of them at p, widened to floats
 *
 * A tile is up to 6 rows x 16 columns of C in 12 registers; its rows of A are first copied as floats
 * to the stack, a constant distance apart. Every element of C has one accumulator that runs over k in
 * ascending order: cutting k into chunks stores and reloads it, exactly. */
#ifndef QSI_KERN_AVX2_MM_H
#define QSI_KERN_AVX2_MM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>


#define MR 6
#define NR 16
#define CHUNK 256 /* k a chunk: 6 KiB of A, 16 KiB of a float panel */
#define ROW (CHUNK + 16)
#define GROUP 8   /* panels that share a copy of A */

typedef struct tile {
    int64_t steps;
    const float *a; /* rows ROW floats apart */
    const char *b;
    float *acc;     /* [rows][NR], between chunks */
    bool first, last, add;
    float *c;
    int64_t ldc;
    vm m[2];
} tile;

QSI_INLINE void tile_body(const int rows, const tile *t) {
    vf s[MR][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++) s[r][j] = t->first ? zero() : ldu(t->acc + r * NR + 8 * j);
    const float *a = t->a;
    const char *b = t->b;
    for (int64_t i = 0; i < t->steps; i++, a++, b += B_BYTES) {
        vf b0 = LOAD_B(b, 0), b1 = LOAD_B(b, 1);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            vf x = all(a[r * ROW]);
            s[r][0] = vfma(x, b0, s[r][0]);
            s[r][1] = vfma(x, b1, s[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++) {
            float *c = t->c + r * t->ldc + 8 * j;
            if (!t->last)
                stu(t->acc + r * NR + 8 * j, s[r][j]);
            else
                st(t->m[j], c, t->add ? vadd(ld(t->m[j], c), s[r][j]) : s[r][j]);
        }
}

#define TILE_FN(rows)                                                                              \
    static __attribute__((noinline)) void tile_##rows(const tile *t) { tile_body(rows, t); }
TILE_FN(1)
TILE_FN(2)
TILE_FN(3)
TILE_FN(4)
TILE_FN(5)
TILE_FN(6)
static void (*const tile_fns[MR + 1])(const tile *) = {NULL,   tile_1, tile_2, tile_3,
                                                       tile_4, tile_5, tile_6};

QSI_INLINE void copy_row(float *dst, const char *src, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) stu(dst + i, LOAD_A(src + i * A_BYTES));
    for (; i < n; i++) {
        char t[8 * A_BYTES] = {0};
        float one[8];
        memcpy(t, src + i * A_BYTES, A_BYTES);
        stu(one, LOAD_A(t));
        dst[i] = one[0];
    }
}

static void run_panels(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const char *a,
                       size_t lda, const char *packed, size_t panel, float *c, int64_t ldc,
                       bool accumulate) {
    _Alignas(64) float abuf[MR * ROW], acc[GROUP][MR * NR];
    int64_t blocks = (m + MR - 1) / MR;
    for (int64_t g = p0; g < p1; g += GROUP)
        for (int64_t blk = 0; blk < blocks; blk++) {
            int64_t i0 = m * blk / blocks, rows = m * (blk + 1) / blocks - i0;
            for (int64_t k0 = 0; k0 == 0 || k0 < k; k0 += CHUNK) {
                int64_t nk = k - k0 < CHUNK ? k - k0 : CHUNK;
                for (int64_t r = 0; r < rows; r++)
                    copy_row(abuf + r * ROW, a + (size_t)(i0 + r) * lda + k0 * A_BYTES, nk);
                for (int64_t p = g; p < p1 && p < g + GROUP; p++) {
                    tile t = {.steps = nk, .a = abuf, .first = k0 == 0, .last = k0 + nk == k,
                              .add = accumulate, .ldc = ldc, .acc = acc[p - g],
                              .b = packed + (size_t)p * panel + k0 * B_BYTES,
                              .c = c + i0 * ldc + p * NR,
                              .m = {lanes(n - p * NR), lanes(n - p * NR - 8)}};
                    tile_fns[rows](&t);
                }
            }
        }
}

static size_t panel_bytes(int64_t k) { return ((size_t)k * B_BYTES + 63) / 64 * 64; }

static __attribute__((unused)) void run(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1,
                                        const void *a, size_t lda_bytes, const void *packed,
                                        float *c, int64_t ldc, bool accumulate) {
    run_panels(m, n, k, p0, p1, a, lda_bytes, packed, panel_bytes(k), c, ldc, accumulate);
}

#endif
