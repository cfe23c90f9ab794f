/* The body of the 32-column products of the AVX-512 levels, included by the file of each level
 * after it defined what a step is:
 *
 *   STEP_B             bytes of a panel per step (32 columns)
 *   STEP_LOAD(b)       declares what a step needs from the panel at b
 *   STEP_MUL(s0, s1, a) adds to the 16-column sums s0, s1 the products with the word of A at a
 *
 * A step takes 4 bytes of each row of A: one float or a pair of bfloat16. A tile is up to 12 rows x
 * 32 columns of C in 24 registers. Its rows of A are first copied to the stack, at a distance that is
 * a constant (one pointer reaches them all) and spreads them over the sets of the first cache
 * whatever lda is. Every element of C has one accumulator that runs over the steps in ascending
 * order: cutting k into chunks stores and reloads it, exactly. */
#ifndef QSI_KERN_AVX512_MM_H
#define QSI_KERN_AVX512_MM_H

#include <stdbool.h>
#include <string.h>

#include "kern/x86/simd512.h"

#define MR 12
#define NR 32
#define CHUNK 256     /* steps a chunk: 12 KiB of A, 32 KiB of panel */
#define ROW (CHUNK * 4 + 64)
#define GROUP 8       /* panels a group when k takes several chunks: 12 KiB of accumulators */
#define GROUP_MAX 64  /* panels a group otherwise, within GROUP_BYTES */
#define GROUP_BYTES ((size_t)512 * 1024)

typedef struct tile {
    int64_t steps;
    const char *a;  /* rows ROW bytes apart */
    const char *b;
    float *acc;     /* [rows][NR], between chunks */
    bool first, last;
    float *c;
    int64_t ldc;
    bool add;
    __mmask16 m0, m1;
} tile;

QSI_INLINE void tile_store(float *c, __m512 s, __mmask16 m, bool add) {
    if (add) s = _mm512_add_ps(_mm512_maskz_loadu_ps(m, c), s);
    _mm512_mask_storeu_ps(c, m, s);
}

QSI_INLINE void tile_body(const int rows, const tile *t) {
    __m512 s[MR][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        s[r][0] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->acc + r * NR);
        s[r][1] = t->first ? _mm512_setzero_ps() : _mm512_load_ps(t->acc + r * NR + 16);
    }
    const char *a = t->a, *b = t->b;
    for (int64_t i = 0; i < t->steps; i++, a += 4, b += STEP_B) {
        STEP_LOAD(b);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) STEP_MUL(s[r][0], s[r][1], a + r * ROW);
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        if (t->last) {
            tile_store(t->c + r * t->ldc, s[r][0], t->m0, t->add);
            tile_store(t->c + r * t->ldc + 16, s[r][1], t->m1, t->add);
        } else {
            _mm512_store_ps(t->acc + r * NR, s[r][0]);
            _mm512_store_ps(t->acc + r * NR + 16, s[r][1]);
        }
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
TILE_FN(7)
TILE_FN(8)
TILE_FN(9)
TILE_FN(10)
TILE_FN(11)
TILE_FN(12)
static void (*const tile_fns[MR + 1])(const tile *) = {
    NULL,   tile_1, tile_2, tile_3, tile_4,  tile_5,  tile_6,
    tile_7, tile_8, tile_9, tile_10, tile_11, tile_12};

QSI_INLINE void copy_row(char *dst, const char *src, int64_t words) {
    for (int64_t i = 0; i < words; i += 16)
        _mm512_store_si512(dst + i * 4, _mm512_maskz_loadu_epi32(mask16(words - i), src + i * 4));
}

/* One group of panels [p0, p1), all rows. */
static void run_group(int64_t m, int64_t n, int64_t steps, int64_t p0, int64_t p1, const char *a,
                      size_t lda, const char *packed, size_t panel, float *c, int64_t ldc,
                      bool accumulate) {
    _Alignas(64) char abuf[MR * ROW];
    _Alignas(64) float acc[GROUP][MR * NR];
    int64_t blocks = (m + MR - 1) / MR;
    for (int64_t blk = 0; blk < blocks; blk++) {
        int64_t i0 = m * blk / blocks, rows = m * (blk + 1) / blocks - i0;
        for (int64_t s0 = 0; s0 == 0 || s0 < steps; s0 += CHUNK) {
            int64_t ns = steps - s0 < CHUNK ? steps - s0 : CHUNK;
            for (int64_t r = 0; r < rows; r++)
                copy_row(abuf + r * ROW, a + (size_t)(i0 + r) * lda + s0 * 4, ns);
            tile t = {.steps = ns, .a = abuf, .first = s0 == 0, .last = s0 + ns == steps,
                      .ldc = ldc, .add = accumulate};
            for (int64_t p = p0; p < p1; p++) {
                t.b = packed + (size_t)p * panel + s0 * STEP_B;
                t.acc = acc[(p - p0) % GROUP];
                t.c = c + i0 * ldc + p * NR;
                t.m0 = mask16(n - p * NR);
                t.m1 = mask16(n - p * NR - 16);
                tile_fns[rows](&t);
            }
        }
    }
}

/* One row: panels front to back, no copy of A, no chunks (the panel is not used again), no prefetch
 * (the CPU's own is the better one, docs/kernels.md). */
static void run_row(int64_t n, int64_t steps, int64_t p0, int64_t p1, const char *a,
                    const char *packed, size_t panel, float *c, bool accumulate) {
    for (int64_t p = p0; p < p1; p++) {
        tile t = {.steps = steps, .a = a, .b = packed + (size_t)p * panel, .first = true,
                  .last = true, .c = c + p * NR, .add = accumulate, .m0 = mask16(n - p * NR),
                  .m1 = mask16(n - p * NR - 16)};
        tile_body(1, &t);
    }
}

static void run_panels(int64_t m, int64_t n, int64_t steps, int64_t p0, int64_t p1, const char *a,
                       size_t lda, const char *packed, size_t panel, float *c, int64_t ldc,
                       bool accumulate) {
    if (m == 1) {
        run_row(n, steps, p0, p1, a, packed, panel, c, accumulate);
        return;
    }
    int64_t group = panel == 0 ? GROUP_MAX : (int64_t)(GROUP_BYTES / panel);
    if (steps > CHUNK)
        group = group < 4 ? 4 : group > GROUP ? GROUP : group;
    else
        group = group > GROUP_MAX ? GROUP_MAX : group;
    for (int64_t p = p0; p < p1; p += group)
        run_group(m, n, steps, p, p + group < p1 ? p + group : p1, a, lda, packed, panel, c, ldc,
                  accumulate);
}

#endif
