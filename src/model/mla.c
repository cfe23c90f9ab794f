/* Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1). Per position
 *     [c | kp] = Wkv_a n, c <- rms(c), kp rotated; q = Wq n or Wq_b rms(Wq_a n),
 * per head q = [qn | qp], qp rotated, and with K [dn, r], V [dv, r] the head's parts of Wkv_b:
 *     naive:    k = [K c | kp], v = V c, out = softmax(scale q kT) v;
 *     absorbed: q' = [KT qn | qp], out = V (softmax(scale q' [c | kp]T) c).
 * Both are one function up to rounding. The cache holds [c | kp] alone: one key for all heads, whose
 * first r values are the value. Prompt rows take the naive path, generated rows the absorbed one,
 * whatever else is in the step.
 *
 * The naive path computes keys and values anew from the cache, tile by tile and head by head, also
 * for rows of this step: so a row's bits depend on neither chunks nor what was cached. One item is a
 * head with some of a sequence's rows; its tile of 64 keys and values stays in the worker's cache. A
 * step of n rows at depth p does H (dn + dv) r (p + n) multiply-adds for it, as much as its attention
 * itself does for n = r (dn + dv) / (dn + dr + dv) = 410 rows in the published sizes.
 *
 * Sizes: H heads, r = kv_rank, dn + dr = head_dim (dr rotated), dv = d_value. */
#include "model/layer.h"

#include <math.h>
#include <string.h>

enum { TILE = QSI_ATTEND_TILE, D = QSI_MLA_ROWS };

typedef struct sizes {
    int64_t n_head, r, dn, dr, dv, dk, lat; /* dk = dn + dr, lat = r + dr */
    float scale;
} sizes;

static sizes sizes_of(const qsi_fwd *f) {
    const qsi_config *c = f->c;
    sizes z = {.n_head = f->shard->n_head, .r = c->kv_rank, .dn = c->head_dim - c->d_rope,
               .dr = c->d_rope, .dv = c->d_value, .dk = c->head_dim,
               .lat = (int64_t)c->kv_rank + c->d_rope};
    double m = 1;
    if (c->rope_scaling == QSI_ROPE_YARN)
        m += (double)c->yarn_log_mul * log((double)c->rope_factor);
    z.scale = (float)(m * m / sqrt((double)c->head_dim));
    return z;
}

/* ---- softmax over tiles, as in op/attend.c ---- */
typedef struct state {
    float m, l; /* largest scaled score; sum of exp(s - m) */
} state;

/* One row against n positions of a tile of keys and values; o is the sum of exp(s - m) v. s: [TILE]. */
static void attend_tile(const qsi_kern *k, const sizes *z, const float *kt, const float *vt,
                        const float *q, int64_t n, state *st, float *o, float *s) {
    float mt = 0.0f;
    k->attn_scores(q, kt, false, z->dk, n, z->dk, s);
    float lt = k->softmax_exp(s, n, z->scale, &mt);
    if (st->l == 0.0f) {
        *st = (state){mt, lt};
    } else if (mt > st->m) {
        float a = expf(st->m - mt);
        k->scale(a, o, z->dv);
        *st = (state){mt, st->l * a + lt};
    } else {
        float b = expf(mt - st->m);
        k->scale(b, s, n);
        st->l += lt * b;
    }
    k->attn_values(s, vt, false, z->dv, n, z->dv, o);
}

/* ---- naive: prompt rows ---- */
typedef struct naive {
    qsi_act c;       /* [TILE, r] latent rows as K and V take them */
    float *row;      /* [lat] one latent row */
    float *k, *v, *s; /* [TILE, dk], [TILE, dv], [TILE] */
    state *st;       /* [rows] */
} naive;

static size_t act_bytes(int64_t rows, int64_t k) {
    size_t n = (size_t)(rows * qsi_round_up(k, 32));
    return n * (sizeof(float) + sizeof(uint16_t)) + n / 32 * sizeof(qsi_act8);
}

size_t qsi_mla_scratch(const qsi_config *c, int64_t rows) {
    size_t lat = (size_t)c->kv_rank + (size_t)c->d_rope;
    size_t n = act_bytes(TILE, c->kv_rank) + (size_t)rows * sizeof(state) + 16 * QSI_ALIGN;
    n += (lat + TILE * ((size_t)c->head_dim + (size_t)c->d_value + 1)) * sizeof(float);
    size_t absorbed = qsi_attend_scratch(c->n_head, (int64_t)lat, c->kv_rank);
    return n > absorbed ? n : absorbed;
}

static naive naive_init(const qsi_op *o, const sizes *z, unsigned form, int64_t rows) {
    qsi_bump b = {o->scratch, o->scratch_bytes};
    naive w = {.c = {.k = z->r, .ld = qsi_round_up(z->r, 32)}};
    size_t n = (size_t)(TILE * w.c.ld);
    if (form & QSI_ACT_F32) w.c.f32 = qsi_bump_take(&b, n * sizeof(float));
    if (form & QSI_ACT_BF16) w.c.bf16 = qsi_bump_take(&b, n * sizeof(uint16_t));
    if (form & QSI_ACT_Q8) w.c.q8 = qsi_bump_take(&b, n / 32 * sizeof(qsi_act8));
    if (w.c.f32) memset(w.c.f32, 0, n * sizeof(float));
    if (w.c.bf16) memset(w.c.bf16, 0, n * sizeof(uint16_t));
    w.row = qsi_bump_take(&b, (size_t)z->lat * sizeof(float));
    w.k = qsi_bump_take(&b, (size_t)(TILE * z->dk) * sizeof(float));
    w.v = qsi_bump_take(&b, (size_t)(TILE * z->dv) * sizeof(float));
    w.s = qsi_bump_take(&b, TILE * sizeof(float));
    w.st = qsi_bump_take(&b, (size_t)rows * sizeof(state));
    memset(w.st, 0, (size_t)rows * sizeof(state));
    return w;
}

/* Keys and values of head h at n positions from p0 on. */
static void make_tile(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                      const qsi_kv_table *t, int64_t h, int64_t p0, int64_t n, naive *x) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    for (int64_t i = 0; i < n; i++) {
        qsi_kv_load(f->kv, o->k, t, layer, (int32_t)(p0 + i), x->row, NULL);
        qsi_act_put(o->k, &x->c, i, x->row);
        memcpy(x->k + i * z->dk + z->dn, x->row + z->r, (size_t)z->dr * sizeof(float));
    }
    qsi_mm_job jk = qsi_job_forward(w->k[h], &x->c, 0, n, x->k, z->dk, false);
    qsi_mm_job jv = qsi_job_forward(w->v[h], &x->c, 0, n, x->v, z->dv, false);
    qsi_job_run(o->k, &jk);
    qsi_job_run(o->k, &jv);
}

/* Head h of rows [r0, r1) of a segment. */
static void naive_item(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                       const qsi_layer_save *s, const qsi_seg *g, int64_t h, int64_t r0,
                       int64_t r1) {
    naive x = naive_init(o, z, s->mla.c_form, r1 - r0);
    int64_t ld_q = z->n_head * z->dk, ld_o = z->n_head * z->dv, last = g->pos0 + r1 - 1;
    float *out = s->out + g->row0 * ld_o + h * z->dv;
    const float *q = s->q + g->row0 * ld_q + h * z->dk;
    for (int64_t i = r0; i < r1; i++) memset(out + i * ld_o, 0, (size_t)z->dv * sizeof(float));
    for (int64_t j = 0; j * TILE <= last; j++) {
        int64_t n = qsi_min64(TILE, last + 1 - j * TILE);
        make_tile(o, f, z, layer, &f->tables[g->table], h, j * TILE, n, &x);
        for (int64_t i = qsi_max64(r0, j * TILE - g->pos0); i < r1; i++) {
            int64_t seen = qsi_min64(n, g->pos0 + i + 1 - j * TILE);
            attend_tile(o->k, z, x.k, x.v, q + i * ld_q, seen, &x.st[i - r0], out + i * ld_o,
                        x.s);
        }
    }
    for (int64_t i = r0; i < r1; i++) o->k->scale(1.0f / x.st[i - r0].l, out + i * ld_o, z->dv);
}

/* Rows of a segment that one item takes: all of them, unless workers would have no work. */
static int64_t item_rows(const qsi_op *o, const qsi_fwd *f, const sizes *z, const qsi_seg *g) {
    int64_t cuts = qsi_ceil_div(2 * (int64_t)o->w->count, z->n_head * f->n_segs);
    if (o->w->count == 1) cuts = 1;
    return qsi_round_up(qsi_ceil_div(g->n, cuts), TILE);
}

static void naive_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                       const qsi_layer_save *s) {
    int64_t first = 0; /* ticket of segment i's first item; tickets only grow */
    int32_t i = 0;
    while (i < f->n_segs) {
        int64_t t = qsi_op_take(o), per = 0, items = 0;
        for (; i < f->n_segs; i++) {
            const qsi_seg *g = &f->segs[i];
            per = item_rows(o, f, z, g);
            items = g->generated ? 0 : z->n_head * qsi_ceil_div(g->n, per);
            if (t - first < items) break;
            first += items;
        }
        if (i == f->n_segs) break;
        const qsi_seg *g = &f->segs[i];
        int64_t r0 = (t - first) / z->n_head * per;
        naive_item(o, f, z, layer, s, g, (t - first) % z->n_head, r0,
                   qsi_min64(r0 + per, g->n));
    }
    qsi_op_end(o);
}

/* ---- absorbed: generated rows ---- */
/* Queries of `n` generated rows from number `at` on: qn as an operand, qp into its place. */
static void absorb_queries(qsi_op *o, const qsi_fwd *f, const sizes *z, const qsi_layer_save *s,
                           int64_t at, int64_t n) {
    const qsi_mla_save *m = &s->mla;
    for (int64_t i; (i = qsi_op_take(o)) < n;) {
        const float *q = s->q + (int64_t)f->gen_rows[at + i] * z->n_head * z->dk;
        for (int64_t h = 0; h < z->n_head; h++, q += z->dk) {
            qsi_act_put(o->k, &m->qn, h * D + i, q);
            memcpy(m->qc + (i * z->n_head + h) * z->lat + z->r, q + z->dn,
                   (size_t)z->dr * sizeof(float));
        }
    }
    qsi_op_end(o);
}

/* Heads [h0, h1) of one generated row over its sequence's cache. */
static void absorbed_item(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                          const qsi_layer_save *s, int64_t row, int64_t i, int64_t h0,
                          int64_t h1) {
    const qsi_mla_save *m = &s->mla;
    qsi_kv_view view = qsi_kv_layer(f->kv, &f->tables[f->segs[f->row_seg[row]].table], layer);
    qsi_attend_rows r = {.n_rows = 1, .pos0 = f->pos[row],
                         .q = m->qc + (i * z->n_head + h0) * z->lat, .ldq = z->n_head * z->lat,
                         .out = m->o + (i * z->n_head + h0) * z->r, .ldo = z->n_head * z->r};
    qsi_attend(o->k, &view, &r, 0, h1 - h0, z->scale, o->scratch);
    for (int64_t h = h0; h < h1; h++)
        qsi_act_put(o->k, &m->ctx, h * D + i, m->o + (i * z->n_head + h) * z->r);
}

static void absorbed_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                          const qsi_layer_save *s, int64_t at) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    const qsi_mla_save *m = &s->mla;
    int64_t n = qsi_min64(D, f->n_gen - at);
    qsi_mm_job *jobs = (qsi_mm_job *)o->scratch;
    absorb_queries(o, f, z, s, at, n);
    for (int64_t h = 0; h < z->n_head; h++)
        jobs[h] = qsi_job_forward(w->kt[h], &m->qn, h * D, n, m->qc + h * z->lat,
                                  z->n_head * z->lat, false);
    qsi_op_mm(o, jobs, (int)z->n_head);
    /* every item reads the row's cache: as few as keep the workers busy */
    int64_t parts = qsi_min64(z->n_head, qsi_ceil_div(o->w->count, n));
    int64_t per = qsi_ceil_div(z->n_head, parts);
    parts = qsi_ceil_div(z->n_head, per);
    for (int64_t i; (i = qsi_op_take(o)) < n * parts;) {
        int64_t h0 = i % parts * per;
        absorbed_item(o, f, z, layer, s, f->gen_rows[at + i / parts], i / parts, h0,
                      qsi_min64(h0 + per, z->n_head));
    }
    qsi_op_end(o);
    /* generated rows need not be neighbours in the step */
    float *y = m->qc;
    int64_t ld = z->n_head * z->dv;
    for (int64_t h = 0; h < z->n_head; h++)
        jobs[h] = qsi_job_forward(w->v[h], &m->ctx, h * D, n, y + h * z->dv, ld, false);
    qsi_op_mm(o, jobs, (int)z->n_head);
    for (int64_t i; (i = qsi_op_take(o)) < n;)
        memcpy(s->out + f->gen_rows[at + i] * ld, y + i * ld, (size_t)ld * sizeof(float));
    qsi_op_end(o);
}

/* ---- both ---- */
/* Normalises and rotates the latent rows and stores them; prepares what enters Wq_b. */
static void latent_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                        const qsi_layer_save *s) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    const qsi_mla_save *m = &s->mla;
    int64_t qr = f->c->q_rank;
    for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < f->n;) {
        for (int64_t t = i; t < qsi_min64(i + QSI_OP_ROWS, f->n); t++) {
            float *c = m->c + t * z->lat, *a = m->qa + t * qr;
            o->k->rmsnorm(c, w->kv_norm, c, z->r, f->c->rms_eps);
            o->k->rope(c + z->r, f->cs + t * z->dr, z->dr, 1.0f);
            qsi_kv_store(f->kv, o->k, &f->tables[f->segs[f->row_seg[t]].table], layer, f->pos[t],
                         c, NULL);
            if (!qr) continue;
            o->k->rmsnorm(a, w->q_norm, a, qr, f->c->rms_eps);
            qsi_act_put(o->k, &m->aq, t, a);
        }
    }
    qsi_op_end(o);
}

static void rotate_queries(qsi_op *o, const qsi_fwd *f, const sizes *z, const qsi_layer_save *s) {
    for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < f->n;)
        for (int64_t t = i; t < qsi_min64(i + QSI_OP_ROWS, f->n); t++)
            for (int64_t h = 0; h < z->n_head; h++)
                o->k->rope(s->q + (t * z->n_head + h) * z->dk + z->dn, f->cs + t * z->dr, z->dr,
                           1.0f);
    qsi_op_end(o);
}

void qsi_mla_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    sizes z = sizes_of(f);
    int64_t d = f->c->d_model, qr = f->c->q_rank, hq = z.n_head * z.dk;
    qsi_norm_forward(o, s->x_in, w->attn_norm, f->n, d, f->c->rms_eps, s->r1, &s->a1);
    qsi_mm_job jobs[2] = {qsi_job_forward(w->mla.kv_a, &s->a1, 0, f->n, s->mla.c, z.lat, false)};
    jobs[1] = qr ? qsi_job_forward(w->mla.q_a, &s->a1, 0, f->n, s->mla.qa, qr, false)
                 : qsi_job_forward(w->q, &s->a1, 0, f->n, s->q, hq, false);
    qsi_op_mm(o, jobs, 2);
    latent_rows(o, f, &z, layer, s);
    if (qr) {
        qsi_mm_job j = qsi_job_forward(w->q, &s->mla.aq, 0, f->n, s->q, hq, false);
        qsi_op_mm(o, &j, 1);
    }
    rotate_queries(o, f, &z, s);
    if (f->n_gen < f->n) naive_rows(o, f, &z, layer, s);
    for (int64_t at = 0; at < f->n_gen; at += D) absorbed_rows(o, f, &z, layer, s, at);
    qsi_attention_out(o, f, layer, s, z.n_head * z.dv);
}
