/* Attention in bfloat16, scalar; kern.h states layouts and the order of sums. */
#include <string.h>

#include "kern/kern_levels.h"
#include "kern/ref/ref_tile.h"

#define TILE QSI_ATTN_TILE

static float rounded(float x) { return qsi_bf16_to_f32(qsi_f32_to_bf16(x)); }

static void attn16_pair(qsi_type t, int64_t n, int64_t d, const void *x, int64_t ldx,
                        const uint16_t *scale, uint16_t *y, int64_t ldy) {
    for (int64_t r = 0; r < (n + 1) / 2 * 2; r++)
        for (int64_t c = 0; c < d; c++) {
            float e = 0.0f;
            if (r < n) e = qsi_tile_at(t, x, ldx, r, c);
            if (r < n && scale) e *= qsi_f16_to_f32(scale[c / 32 * TILE + r]);
            y[(r / 2 * ldy + c) * 2 + r % 2] = qsi_f32_to_bf16(e);
        }
}

static void attn16_turn(qsi_type t, int64_t n, int64_t d, int64_t dv, const void *k, int64_t ldk,
                        uint16_t *kt, uint16_t *v, int64_t ldv) {
    for (int64_t p = 0; p < (n + 15) / 16 * 16; p++)
        for (int64_t i = 0; i < (d + 1) / 2 * 2; i++) {
            float x = p < n && i < d ? qsi_tile_at(t, k, ldk, p, i) : 0.0f;
            uint16_t y = qsi_f32_to_bf16(x);
            kt[(i / 2 * TILE + p) * 2 + i % 2] = y;
            if (v && i < dv) v[(p / 2 * ldv + i) * 2 + p % 2] = y;
        }
}

/* Element (r, c) of a tile of words or of the cache's own. */
static float at(qsi_type t, const void *x, int64_t ld, int64_t r, int64_t c, int64_t n) {
    return r < n ? rounded(qsi_tile_at(t, x, ld, r, c)) : 0.0f;
}

static void attn16_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                      const void *kt, float *s, int64_t lds, qsi_ahead *ahead) {
    (void)ahead;
    for (int64_t r = 0; r < m; r++)
        for (int64_t p = 0; p < n; p++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < d; i += 2) {
                const uint16_t *x = q + r * ldq + i;
                sum += qsi_bf16_to_f32(x[1]) * at(t, kt, TILE, i + 1, p, d);
                sum += qsi_bf16_to_f32(x[0]) * at(t, kt, TILE, i, p, d);
            }
            s[r * lds + p] = sum;
        }
}

static void attn16_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                      const void *v, int64_t ldv, float *o, int64_t ldo, qsi_ahead *ahead) {
    (void)ahead;
    for (int64_t r = 0; r < m; r++)
        for (int64_t c = 0; c < d; c++) {
            float *sum = &o[r * ldo + c];
            for (int64_t p = 0; p < n; p += 2)
                for (int64_t j = p + 1; j >= p; j--) { /* the second first */
                    float a = j < n ? w[r * ldw + j] : 0.0f;
                    *sum += rounded(a) * at(t, v, ldv, j, c, n);
                }
        }
}

void qsi_kern_fill_ref_attn16(qsi_kern *t) {
    t->attn16_pair = attn16_pair;
    t->attn16_turn = attn16_turn;
    t->attn16_qk = attn16_qk;
    t->attn16_pv = attn16_pv;
}
