/* The lightning indexer of DeepSeek-V3.2 (arXiv:2512.02556, section 2.1; deepseek-facts 2.7): which
 * positions a token attends to once there are more than index_topk of them. With n the normed input
 * of the layer and a = rms(Wq_a n), per position one key and per token queries and weights of J
 * heads:
 *     k = LayerNorm(Wk n), q_j = Wq_j a, the first d_rope values of each rotated as halves;
 *     w = Wproj n;  I(t, s) = sum_j w_j relu(q_j . k_s),  s <= t.
 * The index_topk positions of largest I are taken, of equal ones the earlier. The positive factor
 * 1 / sqrt(J index_dim) of the paper changes no choice and is left out. So is the Hadamard
 * rotation of q and k: it is orthogonal, changes no product, and only prepares them for 8-bit
 * floats, which this program does not round them to.
 *
 * A score's bits depend on its two positions alone: the key is read from the cache, sums run over
 * index_dim and over heads ascending. So does the choice not depend on chunks or neighbours. */
#include "model/layer.h"

#include <math.h>
#include <string.h>

enum {
    TILE = QSI_KV_PAGE,
    ROWS = QSI_INDEX_ROWS, /* whose scores are held at a time */
    BLOCK = 1024           /* positions of one piece of work */
};

static const float NORM_EPS = 1e-6f; /* of every release; not in config.json */

size_t qsi_index_scratch(const qsi_config *c) {
    return (size_t)(c->index_heads * TILE + c->index_dim * TILE) * sizeof(float) + 2 * QSI_ALIGN;
}

int64_t qsi_index_positions(const qsi_config *c) { return qsi_round_up(c->n_ctx, TILE); }

static void layer_norm(const float *w, const float *b, float *x, int64_t n) {
    double mean = 0, square = 0;
    for (int64_t i = 0; i < n; i++) mean += (double)x[i];
    mean /= (double)n;
    for (int64_t i = 0; i < n; i++) square += ((double)x[i] - mean) * ((double)x[i] - mean);
    double r = 1 / sqrt(square / (double)n + (double)NORM_EPS);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - mean) * r) * w[i] + b[i];
}

void qsi_index_key(const qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                   int64_t t) {
    const qsi_index_weights *w = &f->w->layers[layer].index;
    const qsi_config *c = f->c;
    float *k = s->index.k + t * c->index_dim;
    layer_norm(w->k_norm, w->k_norm_bias, k, c->index_dim);
    qsi_rope_halves(k, f->cs + t * c->d_rope, c->d_rope);
    qsi_kv_store_index(f->kv, o->k, &f->tables[f->segs[f->row_seg[t]].table], layer, f->pos[t], k);
}

void qsi_index_query(const qsi_fwd *f, const qsi_layer_save *s, int64_t t) {
    const qsi_config *c = f->c;
    float *q = s->index.q + t * c->index_heads * c->index_dim;
    for (int32_t j = 0; j < c->index_heads; j++, q += c->index_dim)
        qsi_rope_halves(q, f->cs + t * c->d_rope, c->d_rope);
}

/* Scores of n positions, those of one page, into out. */
static void score_page(const qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                       int64_t t, int64_t page, int64_t n, float *out) {
    const qsi_config *c = f->c;
    int64_t J = c->index_heads, d = c->index_dim;
    const float *w = s->index.w + t * J;
    qsi_bump b = {o->scratch, o->scratch_bytes};
    float *dots = qsi_bump_take(&b, (size_t)(J * TILE) * sizeof *dots);
    float *wide = qsi_bump_take(&b, (size_t)(d * TILE) * sizeof *wide);
    qsi_kv_tile k = qsi_kv_index_tile(f->kv, &f->tables[f->segs[f->row_seg[t]].table], layer, page);
    if (k.type == QSI_F16) { /* the same values, widened once for all heads */
        o->k->f16_to_f32(k.data, wide, d * TILE);
        k = (qsi_kv_tile){.type = QSI_F32, .data = wide};
    }
    o->k->attn_qk(k.type, J, n, d, s->index.q + t * J * d, d, k.data, k.scale, dots, TILE);
    float sum[TILE] = {0};
    for (int64_t j = 0; j < J; j++)
        for (int64_t i = 0; i < TILE; i++) {
            float x = dots[j * TILE + i];
            sum[i] += x > 0 || x != x ? w[j] * x : 0.0f; /* NaN stays */
        }
    memcpy(out, sum, (size_t)n * sizeof *out);
}

/* Positions [p0, p0 + BLOCK) of row t, as far as it sees them. */
static void score_block(const qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                        int64_t t, int64_t p0, float *out) {
    int64_t end = qsi_min64(p0 + BLOCK, (int64_t)f->pos[t] + 1);
    for (int64_t p = p0; p < end; p += TILE)
        score_page(o, f, layer, s, t, p / TILE, qsi_min64(TILE, end - p), out + p);
}

static void score_rows(qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                       const int32_t *rows, int64_t n) {
    int64_t first = 0, i = 0, cap = qsi_index_positions(f->c); /* first: ticket of row i's first block */
    while (i < n) {
        int64_t ticket = qsi_op_take(o);
        for (; i < n; i++) {
            int64_t blocks = f->pos[rows[i]] / BLOCK + 1;
            if (ticket - first < blocks) break;
            first += blocks;
        }
        if (i == n) break;
        score_block(o, f, layer, s, rows[i], (ticket - first) * BLOCK, s->index.scores + i * cap);
    }
    qsi_op_end(o);
}

void qsi_index_choose(qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                      const int32_t *rows, int64_t n) {
    int64_t cap = qsi_index_positions(f->c), k = f->c->index_topk;
    for (int64_t at = 0; at < n; at += ROWS) {
        int64_t m = qsi_min64(ROWS, n - at);
        score_rows(o, f, layer, s, rows + at, m);
        for (int64_t i; (i = qsi_op_take(o)) < m;) {
            int64_t t = rows[at + i];
            bool finite = qsi_choose_top(s->index.scores + i * cap, (int64_t)f->pos[t] + 1, k,
                                         s->index.chosen + (at + i) * k);
            if (finite) continue;
            /* nothing may hide that: the row's logits will say it */
            s->x_in[t * f->c->d_model] = NAN;
            for (int64_t j = 0; j < k; j++) s->index.chosen[(at + i) * k + j] = (int32_t)j;
        }
        qsi_op_end(o);
    }
}
