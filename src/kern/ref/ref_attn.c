/* Attention over tiles of 64 positions, scalar; kern.h states layouts and the order of sums. */
#include <string.h>

#include "kern/kern_levels.h"
#include "kern/ref/ref_tile.h"

#define TILE QSI_ATTN_TILE

static float score(qsi_type t, int64_t d, const float *q, const void *kt, const uint16_t *scale,
                   int64_t p) {
    float s = 0.0f;
    for (int64_t b = 0; b < d; b += scale ? 32 : d) {
        int64_t e = scale && b + 32 < d ? b + 32 : d;
        float sum = 0.0f;
        for (int64_t i = b; i < e; i++) sum += q[i] * qsi_tile_key(t, kt, i, p);
        s = scale ? s + qsi_f16_to_f32(scale[b / 32 * TILE + p]) * sum : sum;
    }
    return s;
}

static void attn_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const float *q, int64_t ldq,
                    const void *kt, const uint16_t *scale, float *s, int64_t lds) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < n; p++)
            s[i * lds + p] = score(t, d, q + i * ldq, kt, scale, p);
}

static void attn_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                    const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < n; p++)
            for (int64_t c = 0; c < d; c++) {
                float a = w[i * ldw + p];
                if (scale) a *= qsi_f16_to_f32(scale[c / 32 * TILE + p]);
                o[i * ldo + c] += a * qsi_tile_at(t, v, ldv, p, c);
            }
}

static void attn_turn(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, float *kt) {
    for (int64_t i = 0; i < d; i++)
        for (int64_t p = 0; p < TILE; p++)
            kt[i * TILE + p] = p < n ? qsi_tile_at(t, k, ldk, p, i) : 0.0f;
}

void qsi_kern_fill_ref_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
