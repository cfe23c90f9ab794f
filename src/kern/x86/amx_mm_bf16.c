/* BF16 products, AMX. A tile instruction takes 32 values of k: from zero it adds up the even and the odd
 * ones apart, each term by a fused multiply-add, then both to the element (Intel SDM, TDPBF16PS;
 * denormals are zero). One row is a tile of one row, so its order is that of many: k ascending in
 * 32s from the first, the last one filled up with zeros. It is another order than the bf16 level's.
 * Panels [ceil(k/2)][32][2] (avx512_pack.c): 16 steps of 16 columns are a tile as they stand. */
#include "kern/kern_levels.h"
#include "kern/x86/amx_tile.h"

#define NR 32
#define STEP_B 128     /* bytes of a panel for two values of k */
#define STEPS 16       /* of a tile */
#define MR (2 * TILE_ROWS)
#define GROUP_BYTES ((size_t)512 * 1024) /* of panels that stay in the second cache for all rows */

typedef struct problem {
    int64_t m, n, steps;
    size_t lda, panel;
    const char *packed;
    float *c;
    int64_t ldc;
    bool add;
} problem;

/* Up to MR rows of A, and what is left of them behind the last whole tile. */
typedef struct block {
    int64_t row, n0, n1; /* n0 rows in the first tile, n1 in the second */
    const char *a;
    _Alignas(64) char rest[MR][STEPS * 4];
} block;

static void open_block(const problem *q, const char *a, int64_t row, int64_t rows, block *o) {
    int64_t whole = q->steps / STEPS * STEPS;
    o->row = row;
    o->n0 = rows > TILE_ROWS ? (rows + 1) / 2 : rows;
    o->n1 = rows - o->n0;
    o->a = a + (size_t)row * q->lda;
    memset(o->rest, 0, sizeof o->rest);
    for (int64_t r = 0; r < rows; r++)
        memcpy(o->rest[r], o->a + (size_t)r * q->lda + whole * 4, (size_t)(q->steps - whole) * 4);
    shape s = {.palette = 1};
    for (int i = 0; i < (o->n1 > 0 ? 4 : 2); i++) shape_set(&s, i, i < 2 ? o->n0 : o->n1, 16);
    shape_set(&s, 4, o->n0, STEPS);
    if (o->n1 > 0) shape_set(&s, 5, o->n1, STEPS);
    shape_set(&s, 6, STEPS, 16);
    shape_set(&s, 7, STEPS, 16);
    shape_use(&s);
}

QSI_INLINE void step(const bool two, const char *a, const char *a1, size_t lda, const char *b) {
    _tile_loadd(6, b, STEP_B);
    _tile_loadd(7, b + 64, STEP_B);
    _tile_loadd(4, a, lda);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) return;
    _tile_loadd(5, a1, lda);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

QSI_INLINE void panel_sums(const bool two, const problem *q, const block *o, const char *b,
                           float sum[MR][NR]) {
    _Alignas(64) char rest[STEPS][STEP_B];
    int64_t i = 0, left = q->steps % STEPS;
    const char *a1 = o->a + (size_t)o->n0 * q->lda;
    if (left > 0) {
        memset(rest, 0, sizeof rest);
        memcpy(rest, b + (q->steps - left) * STEP_B, (size_t)(left * STEP_B));
    }
    fence();
    _tile_zero(0);
    _tile_zero(1);
    if (two) _tile_zero(2);
    if (two) _tile_zero(3);
    for (; i + STEPS <= q->steps; i += STEPS)
        step(two, o->a + i * 4, a1 + i * 4, q->lda, b + i * STEP_B);
    if (left > 0) step(two, o->rest[0], o->rest[o->n0], STEPS * 4, rest[0]);
    _tile_stored(0, sum[0], NR * 4);
    _tile_stored(1, sum[0] + 16, NR * 4);
    if (two) _tile_stored(2, sum[o->n0], NR * 4);
    if (two) _tile_stored(3, sum[o->n0] + 16, NR * 4);
    fence();
}

static void run_block(const problem *q, const block *o, int64_t p0, int64_t p1) {
    _Alignas(64) float sum[MR][NR];
    for (int64_t p = p0; p < p1; p++) {
        const char *b = q->packed + (size_t)p * q->panel;
        if (o->n1 > 0)
            panel_sums(true, q, o, b, sum);
        else
            panel_sums(false, q, o, b, sum);
        for (int64_t r = 0; r < o->n0 + o->n1; r++)
            for (int j = 0; j < NR; j += 16) {
                float *c = q->c + (o->row + r) * q->ldc + p * NR + j;
                vm k = lanes(q->n - p * NR - j);
                vf v = ldf((const char *)(sum[r] + j));
                st(k, c, q->add ? vadd(ld(k, c), v) : v);
            }
    }
}

static void run(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    int64_t steps = (k + 1) / 2, blocks = (m + MR - 1) / MR;
    problem q = {.m = m, .n = n, .steps = steps, .lda = lda_bytes, .panel = (size_t)steps * STEP_B,
                 .packed = packed, .c = c, .ldc = ldc, .add = accumulate};
    int64_t group = q.panel == 0 || q.panel > GROUP_BYTES ? 1 : (int64_t)(GROUP_BYTES / q.panel);
    for (int64_t p = p0; p < p1; p += group)
        for (int64_t i = 0; i < blocks; i++) {
            block o;
            int64_t row = m * i / blocks;
            open_block(&q, a, row, m * (i + 1) / blocks - row, &o);
            run_block(&q, &o, p, p + group < p1 ? p + group : p1);
        }
    shape_drop();
}

void qsi_kern_fill_amx_mm_bf16(qsi_kern *t) { t->mm[QSI_MM_BF16].run = run; }
