/* Attention: softmax(scale q kT) v over the positions up to a row's own, forward and backward.
 *
 * Forward: online softmax over tiles of 64 absolute positions (Milakov and Gimelshein 2018; Dao et
 * al. 2022), so a row's bits depend on its position and the keys alone. Per row and head the state
 * is m (largest scaled score), l (sum of exp(s - m)) and o (sum of exp(s - m) v):
 *     m' = max(m, mt), a = exp(m - m'), b = exp(mt - m'), l = a l + b lt, o = a o + b ot.
 * Backward: with p = exp(s - lse), dp = dout vT, D = dout . out,
 *     ds = scale p (dp - D), dq = ds k, dk = dsT q, dv = pT dout.
 * Rows are taken in blocks; sums over rows run in their order. */
#include "op/op.h"

#include <math.h>
#include <string.h>

enum { TILE = QSI_ATTEND_TILE };

qsi_kv_view qsi_kv_rows(const float *k, int64_t ld_k, int64_t hd_k, const float *v, int64_t ld_v,
                        int64_t hd_v) {
    return (qsi_kv_view){.type = QSI_F32, .hd_k = hd_k, .hd_v = hd_v, .v_in_k = !v, .ld_k = ld_k,
                         .ld_v = v ? ld_v : ld_k, .head_k = hd_k, .head_v = v ? hd_v : hd_k,
                         .k = k, .v = v ? v : k};
}

static const char *tile_at(const qsi_kv_view *v, bool values, int64_t head, int64_t j) {
    size_t e = v->type == QSI_F16 ? sizeof(uint16_t) : sizeof(float);
    int64_t at = head * (values ? v->head_v : v->head_k);
    if (v->page_mem) {
        const char *page = v->page_mem[v->pages[j]];
        return page + (values ? v->v_off : v->k_off) + (size_t)at * e;
    }
    const float *base = values ? v->v : v->k;
    return (const char *)(base + j * TILE * (values ? v->ld_v : v->ld_k) + at);
}

typedef struct softmax_state {
    float m, l;
} softmax_state;

size_t qsi_attend_scratch(int64_t group, int64_t hd_k, int64_t hd_v) {
    (void)hd_k;
    (void)hd_v;
    return (size_t)(TILE * group) * sizeof(softmax_state) + TILE * sizeof(float);
}

/* One row and head against n positions of a tile. */
static void attend_tile(const qsi_kern *k, const qsi_kv_view *kv, const char *kt, const char *vt,
                        const float *q, int64_t n, float scale, softmax_state *st, float *o,
                        float *s) {
    float mt = 0.0f;
    bool f16 = kv->type == QSI_F16;
    k->attn_scores(q, kt, f16, kv->ld_k, n, kv->hd_k, s);
    float lt = k->softmax_exp(s, n, scale, &mt);
    if (st->l == 0.0f) {
        *st = (softmax_state){mt, lt};
    } else if (mt > st->m) {
        float a = expf(st->m - mt);
        k->scale(a, o, kv->hd_v);
        *st = (softmax_state){mt, st->l * a + lt};
    } else {
        float b = expf(mt - st->m);
        k->scale(b, s, n);
        st->l += lt * b;
    }
    k->attn_values(s, vt, f16, kv->ld_v, n, kv->hd_v, o);
}

void qsi_attend(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r, int64_t kvh,
                int64_t group, float scale, char *scratch) {
    int64_t hd = kv->hd_v;
    softmax_state *st = (softmax_state *)scratch;
    float *s = (float *)(st + r->n_rows * group);
    memset(st, 0, (size_t)(r->n_rows * group) * sizeof *st);
    for (int64_t i = 0; i < r->n_rows; i++)
        memset(r->out + i * r->ldo + kvh * group * hd, 0, (size_t)(group * hd) * sizeof(float));
    int64_t last = r->pos0 + r->n_rows - 1;
    for (int64_t j = 0; j * TILE <= last; j++) {
        const char *kt = tile_at(kv, false, kvh, j), *vt = tile_at(kv, true, kvh, j);
        for (int64_t i = qsi_max64(0, j * TILE - r->pos0); i < r->n_rows; i++) {
            int64_t n = qsi_min64(TILE, r->pos0 + i + 1 - j * TILE);
            for (int64_t g = 0; g < group; g++) {
                int64_t h = kvh * group + g;
                attend_tile(k, kv, kt, vt, r->q + i * r->ldq + h * kv->hd_k, n, scale,
                            &st[i * group + g], r->out + i * r->ldo + h * hd, s);
            }
        }
    }
    for (int64_t i = 0; i < r->n_rows; i++) {
        for (int64_t g = 0; g < group; g++) {
            const softmax_state *t = &st[i * group + g];
            k->scale(1.0f / t->l, r->out + i * r->ldo + (kvh * group + g) * hd, hd);
            if (r->lse) r->lse[i * r->ld_lse + kvh * group + g] = t->m + logf(t->l);
        }
    }
}

size_t qsi_attend_bwd_scratch(int64_t max_rows) {
    int64_t ld = qsi_round_up(max_rows, TILE);
    return (size_t)(2 * TILE * ld + 2 * TILE * TILE) * sizeof(float);
}

/* Probabilities p and score gradients ds of rows [i0, i1) of head h, and their dq. */
static void bwd_rows(const qsi_kern *k, const qsi_attend_doc *a, int64_t h, int64_t kvh,
                     int64_t i0, int64_t i1, float *p, float *ds, int64_t ld) {
    int64_t hd = a->hd;
    const float *kh = a->k + kvh * hd, *vh = a->v + kvh * hd;
    for (int64_t i = i0; i < i1; i++) {
        float *pi = p + (i - i0) * ld, *di = ds + (i - i0) * ld, m = 0.0f;
        const float *qi = a->q + i * a->ld_q + h * hd, *doi = a->dout + i * a->ld_q + h * hd;
        int64_t n = i + 1;
        k->attn_scores(qi, kh, false, a->ld_kv, n, hd, pi);
        k->attn_scores(doi, vh, false, a->ld_kv, n, hd, di);
        k->softmax_exp(pi, n, a->scale, &m);
        /* exp(s - lse) = exp(s - m) exp(m - lse) */
        k->scale(expf(m - a->lse[i * a->n_head + h]), pi, n);
        float dd = k->dot(doi, a->out + i * a->ld_q + h * hd, hd);
        for (int64_t j = 0; j < n; j++) di[j] = a->scale * pi[j] * (di[j] - dd);
        float *dq = a->dq + i * a->ld_q + h * hd;
        memset(dq, 0, (size_t)hd * sizeof(float));
        k->attn_values(di, kh, false, a->ld_kv, n, hd, dq);
    }
}

/* Tile [i0, i1) x [j0, j1) turned over: t[j - j0][i - i0], zero above the diagonal. */
static void turn(const float *x, int64_t ld, int64_t i0, int64_t i1, int64_t j0, int64_t j1,
                 float *t) {
    for (int64_t i = i0; i < i1; i++) {
        const float *row = x + (i - i0) * ld;
        int64_t e = qsi_min64(j1, i + 1);
        for (int64_t j = j0; j < e; j++) t[(j - j0) * TILE + i - i0] = row[j];
        for (int64_t j = qsi_max64(e, j0); j < j1; j++) t[(j - j0) * TILE + i - i0] = 0.0f;
    }
}

void qsi_attend_bwd(const qsi_kern *k, const qsi_attend_doc *a, int64_t kvh, char *scratch) {
    int64_t hd = a->hd, group = a->n_head / a->n_kv, ld = qsi_round_up(a->n, TILE);
    float *p = (float *)scratch, *ds = p + TILE * ld, *pt = ds + TILE * ld, *dst = pt + TILE * TILE;
    for (int64_t i = 0; i < a->n; i++) {
        memset(a->dk + i * a->ld_kv + kvh * hd, 0, (size_t)hd * sizeof(float));
        memset(a->dv + i * a->ld_kv + kvh * hd, 0, (size_t)hd * sizeof(float));
    }
    for (int64_t h = kvh * group; h < (kvh + 1) * group; h++) {
        for (int64_t i0 = 0; i0 < a->n; i0 += TILE) {
            int64_t i1 = qsi_min64(i0 + TILE, a->n), m = i1 - i0;
            bwd_rows(k, a, h, kvh, i0, i1, p, ds, ld);
            const float *q = a->q + i0 * a->ld_q + h * hd;
            const float *dout = a->dout + i0 * a->ld_q + h * hd;
            for (int64_t j0 = 0; j0 < i1; j0 += TILE) {
                int64_t j1 = qsi_min64(j0 + TILE, i1);
                turn(p, ld, i0, i1, j0, j1, pt);
                turn(ds, ld, i0, i1, j0, j1, dst);
                for (int64_t j = j0; j < j1; j++) {
                    int64_t s = qsi_max64(0, j - i0); /* rows before j do not see it */
                    k->attn_values(dst + (j - j0) * TILE + s, q + s * a->ld_q, false, a->ld_q,
                                   m - s, hd, a->dk + j * a->ld_kv + kvh * hd);
                    k->attn_values(pt + (j - j0) * TILE + s, dout + s * a->ld_q, false, a->ld_q,
                                   m - s, hd, a->dv + j * a->ld_kv + kvh * hd);
                }
            }
        }
    }
}
