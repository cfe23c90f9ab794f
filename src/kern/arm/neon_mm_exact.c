/* Quantised weights with float activations, NEON: a piece of a panel is widened to [k][16] floats, as
 * ref widens it, and multiplied as F32 panels are. */
#include "kern/arm/quant_open.h"
#include "kern/kern_levels.h"

#define B_BYTES 64
#define LOAD_B(b, j) ldu((const float *)(const void *)(b) + 8 * (j))
#define A_BYTES 4
#define LOAD_A(p) ldu((const float *)(const void *)(p))

#include "kern/x86/avx2_mm.h"

#define AT_ONCE 10 /* groups of MR rows that share a widened piece */

/* Value i of a block: fma(d * sc, q, -(m * mn)). */
QSI_INLINE void widen_block(const qtype *t, const uint8_t *s, float *to) {
    opened w;
    t->open(s, &w);
    for (int g = 0; g < t->n / 16; g++) {
        float step = t->n == 32 ? w.d : w.d * (float)w.sc[g];
        int mn = t->minima == 16 ? w.mn[pair_place(g)] : t->minima == 8 ? w.mn[pair_place(g / 2)] : 1;
        float low = t->minima ? w.m * (float)mn : 0.0f;
        for (int i = 16 * g; i < 16 * g + 16; i++)
            to[i * NR] = __builtin_fmaf(step, (float)w.q[i], -low);
    }
}

QSI_INLINE void exact_run(const qtype *t, int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1,
                          const char *a, size_t lda, const uint8_t *packed, float *c, int64_t ldc,
                          bool add) {
    _Alignas(64) float wide[CHUNK * NR], abuf[MR * ROW], acc[AT_ONCE][MR * NR];
    size_t panel = ((size_t)(k / t->n) * NR * (size_t)t->bytes + 63) / 64 * 64;
    for (int64_t i = 0; i < m; i += AT_ONCE * MR)
        for (int64_t p = p0; p < p1; p++)
            for (int64_t k0 = 0; k0 < k; k0 += CHUNK) {
                int64_t nk = k - k0 < CHUNK ? k - k0 : CHUNK;
                const uint8_t *b = packed + (size_t)p * panel + k0 / t->n * NR * t->bytes;
                for (int64_t e = 0; e < nk; e += t->n)
                    for (int j = 0; j < NR; j++, b += t->bytes)
                        widen_block(t, b, wide + e * NR + j);
                for (int64_t r = i, g = 0; r < m && g < AT_ONCE; r += MR, g++) {
                    int64_t rows = m - r < MR ? m - r : MR;
                    for (int64_t x = 0; x < rows; x++)
                        copy_row(abuf + x * ROW, a + (size_t)(r + x) * lda + k0 * 4, nk);
                    tile job = {.steps = nk, .a = abuf, .first = k0 == 0, .last = k0 + nk == k,
                                .add = add, .ldc = ldc, .acc = acc[g], .b = (const char *)wide,
                                .c = c + r * ldc + p * NR,
                                .m = {lanes(n - p * NR), lanes(n - p * NR - 8)}};
                    tile_fns[rows](&job);
                }
            }
}

#define EXACT_RUN(NAME, name, n_, min_)                                                            \
    static void run_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda, const void *packed, float *c, int64_t ldc, bool add) {      \
        const qtype t = {n_, sizeof(qsi_##name), min_, open_##name};                               \
        exact_run(&t, m, n, k, p0, p1, a, lda, packed, c, ldc, add);                               \
    }
QUANT_TYPES(EXACT_RUN)

#define EXACT_FILL(NAME, name, n_, min_) t->mm[QSI_MM_X_##NAME].run = run_##name;
void qsi_kern_fill_neon_mm_exact(qsi_kern *t) { QUANT_TYPES(EXACT_FILL) }
