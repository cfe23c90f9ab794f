/* Attention over bytes in integers, scalar; kern.h states layouts and what is computed. */
#include <math.h>
#include <string.h>

#include "kern/kern_levels.h"
#include "kern/ref/ref_tile.h"

#define TILE QSI_ATTN_TILE

static void attn8_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq,
                     const void *kt, const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
    (void)ahead;
    for (int64_t r = 0; r < m; r++)
        for (int64_t p = 0; p < n; p++) {
            float sum = 0.0f;
            for (int64_t b = 0; 32 * b < d; b++) {
                const qsi_act8 *x = q + r * ldq + b;
                int32_t dot = 0;
                for (int64_t i = 0; i < 32 && 32 * b + i < d; i++)
                    dot += x->qs[i] * (int32_t)qsi_tile_key(t, kt, 32 * b + i, p);
                sum = fmaf(x->d * qsi_f16_to_f32(scale[b * TILE + p]), (float)dot, sum);
            }
            s[r * lds + p] = sum;
        }
}

/* Weights of a block as numbers of 16 bits; returns what one of them is worth. */
static float weigh(qsi_type t, int64_t n, const float *w, const uint16_t *scale, int32_t *u) {
    float x[TILE], top = 0.0f;
    bool finite = true;
    for (int64_t p = 0; p < n; p++) {
        x[p] = w[p] * qsi_f16_to_f32(scale[p]);
        finite = finite && isfinite(x[p]);
        if (fabsf(x[p]) > top) top = fabsf(x[p]);
    }
    memset(u, 0, TILE * sizeof *u);
    if (!finite) return NAN;
    if (top < QSI_ATTN_LEAST) return 0.0f;
    for (int64_t p = 0; p < n; p++) u[p] = (int32_t)lrintf(x[p] * (QSI_ATTN_UNITS(t) / top));
    return top / QSI_ATTN_UNITS(t);
}

static void attn8_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                     const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    int32_t u[TILE];
    for (int64_t r = 0; r < m; r++)
        for (int64_t b = 0; 32 * b < d; b++) {
            float unit = weigh(t, n, w + r * ldw, scale + b * TILE, u);
            for (int64_t c = 32 * b; c < 32 * (b + 1) && c < d; c++) {
                int32_t sum = 0;
                for (int64_t p = 0; p < n; p++) sum += u[p] * (int32_t)qsi_tile_at(t, v, ldv, p, c);
                o[r * ldo + c] = fmaf(unit, (float)sum, o[r * ldo + c]);
            }
        }
}

static void attn8_turn(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, void *kt) {
    int8_t *to = kt;
    for (int64_t i = 0; i < (d + 3) / 4 * 4; i++)
        for (int64_t p = 0; p < (n + 15) / 16 * 16; p++)
            to[(i / 4 * TILE + p) * 4 + i % 4] =
                i < d && p < (n + 3) / 4 * 4 ? (int8_t)qsi_tile_at(t, k, ldk, p, i) : 0;
}

void qsi_kern_fill_ref_attn8(qsi_kern *t) {
    t->attn8_qk = attn8_qk;
    t->attn8_pv = attn8_pv;
    t->attn8_turn = attn8_turn;
}
