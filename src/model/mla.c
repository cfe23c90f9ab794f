/* Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1). Per position
 *     [c | kp] = Wkv_a n, c <- rms(c), kp rotated; q = Wq n or Wq_b rms(Wq_a n),
 * per head q = [qn | qp], qp rotated, and with K [dn, r], V [dv, r] the head's parts of Wkv_b:
 *     naive:    k = [K c | kp], v = V c, out = softmax(scale q kT) v;
 *     absorbed: q' = [KT qn | qp], out = V (softmax(scale q' [c | kp]T) c).
 * Both are one function up to rounding. The cache holds [c | kp] alone: one key for all heads,
 * whose first r values are the value. Prompt rows take the naive path, generated rows the absorbed
 * one, whatever else is in the step.
 *
 * The naive path computes keys and values anew from the cache, span by span (op.h) and head by
 * head, also for rows of this step: so a row's bits depend on neither chunks nor what was cached.
 * One item is a few heads with a sequence's rows; a span's keys and values stay in the worker's
 * cache. A step of n rows at depth p does H (dn + dv) r (p + n) multiply-adds for it, as much as
 * its attention itself does for n = r (dn + dv) / (dn + dr + dv) = 410 rows in the published sizes.
 *
 * With an indexer (indexer.c) rows that see more than index_topk positions take the absorbed path,
 * generated or not, over the rows of the chosen ones, copied side by side in order of position.
 * Rows that see fewer know nothing of it.
 *
 * Sizes: H heads, r = kv_rank, dn + dr = head_dim (dr rotated), dv = d_value. */
#include "model/layer.h"
#include "model/rope_scaling.h"

#include <math.h>
#include <string.h>

/* HEADS: of one naive item at most, so that their queries and outputs stay near. */
enum { TILE = QSI_ATTEND_TILE, SPAN = QSI_ATTEND_SPAN, D = QSI_MLA_ROWS, HEADS = 4 };

typedef struct sizes {
    int64_t n_head, r, dn, dr, dv, dk, lat; /* dk = dn + dr, lat = r + dr */
    float scale;
} sizes;

static sizes sizes_of(const qsi_fwd *f) {
    const qsi_config *c = f->c;
    sizes z = {.n_head = f->shard->n_head, .r = c->kv_rank, .dn = c->head_dim - c->d_rope,
               .dr = c->d_rope, .dv = c->d_value, .dk = c->head_dim,
               .lat = (int64_t)c->kv_rank + c->d_rope};
    z.scale = (float)qsi_config_attn_scale(c);
    return z;
}

/* ---- naive: prompt rows ---- */
typedef struct naive {
    qsi_act c;              /* [SPAN, r] latent rows as K and V take them */
    float *lat;             /* [SPAN, lat] */
    float *k, *kt, *v;      /* [TILE, dk]; [SPAN / TILE][dk, TILE]; [SPAN, dv] */
    uint16_t *kw, *vw;      /* the same as words (kern.h), where products are in bfloat16 */
    bool bf16;
    qsi_attend_state *st;   /* [heads, rows] */
    char *scratch;          /* of qsi_attend_add */
} naive;

/* Every form at once: K and V of different heads' types may ask for different ones. */
static size_t act_bytes(int64_t rows, int64_t k) {
    size_t n = (size_t)(rows * qsi_round_up(k, 32));
    return n * (sizeof(float) + sizeof(uint16_t)) + n / 32 * sizeof(qsi_act8) +
           (size_t)(rows * (k / 256)) * sizeof(qsi_actk);
}

/* What a worker holds of chosen positions: a span of latent rows, their words, the heads'
 * states. */
static size_t picked_bytes(const qsi_config *c) {
    size_t lat = (size_t)c->kv_rank + (size_t)c->d_rope;
    return SPAN * lat * sizeof(float) +
           SPAN / TILE * sizeof(uint16_t) *
               (size_t)(qsi_kv_key_words((int64_t)lat) + qsi_kv_value_words(c->kv_rank)) +
           (size_t)c->n_head * sizeof(qsi_attend_state) + 8 * QSI_ALIGN;
}

size_t qsi_mla_scratch(const qsi_config *c, int64_t rows) {
    size_t lat = (size_t)c->kv_rank + (size_t)c->d_rope, dk = (size_t)c->head_dim;
    size_t n = act_bytes(SPAN, c->kv_rank) + 16 * QSI_ALIGN;
    n += (SPAN * (lat + dk + (size_t)c->d_value) + TILE * dk) * sizeof(float);
    n += SPAN / TILE * sizeof(uint16_t) *
         (size_t)(qsi_kv_key_words(c->head_dim) + qsi_kv_value_words(c->d_value));
    n += (size_t)(rows * HEADS) * sizeof(qsi_attend_state);
    n += qsi_attend_scratch(1, c->head_dim, c->d_value);
    size_t absorbed = qsi_attend_scratch(c->n_head, (int64_t)lat, c->kv_rank);
    if (c->index_topk) absorbed += picked_bytes(c) + qsi_index_scratch(c);
    return n > absorbed ? n : absorbed;
}

static naive naive_init(const qsi_op *o, const sizes *z, unsigned form, int64_t states) {
    qsi_bump b = {o->scratch, o->scratch_bytes};
    naive w = {.c = {.k = z->r, .ld = qsi_round_up(z->r, 32), .ldk = z->r / 256}};
    w.c.ld8 = w.c.ld / 32;
    size_t n = (size_t)(SPAN * w.c.ld);
    if (form & QSI_ACT_F32) w.c.f32 = qsi_bump_take(&b, n * sizeof(float));
    if (form & QSI_ACT_BF16) w.c.bf16 = qsi_bump_take(&b, n * sizeof(uint16_t));
    if (form & QSI_ACT_Q8) w.c.q8 = qsi_bump_take(&b, n / 32 * sizeof(qsi_act8));
    if (form & QSI_ACT_K8)
        w.c.k8 = qsi_bump_take(&b, (size_t)(SPAN * (z->r / 256)) * sizeof(qsi_actk));
    if (w.c.f32 && w.c.ld > z->r) memset(w.c.f32, 0, n * sizeof(float));
    if (w.c.bf16 && w.c.ld > z->r) memset(w.c.bf16, 0, n * sizeof(uint16_t));
    w.lat = qsi_bump_take(&b, (size_t)(SPAN * z->lat) * sizeof(float));
    w.k = qsi_bump_take(&b, (size_t)(TILE * z->dk) * sizeof(float));
    w.kt = qsi_bump_take(&b, (size_t)(SPAN * z->dk) * sizeof(float));
    w.v = qsi_bump_take(&b, (size_t)(SPAN * z->dv) * sizeof(float));
    int64_t tiles = SPAN / TILE;
    w.kw = qsi_bump_take(&b, (size_t)(tiles * qsi_kv_key_words(z->dk)) * sizeof *w.kw);
    w.vw = qsi_bump_take(&b, (size_t)(tiles * qsi_kv_value_words(z->dv)) * sizeof *w.vw);
    w.st = qsi_bump_take(&b, (size_t)states * sizeof *w.st);
    memset(w.st, 0, (size_t)states * sizeof *w.st);
    QS_CHECK(b.left >= qsi_attend_scratch(1, z->dk, z->dv));
    w.scratch = b.p;
    return w;
}

/* Latent rows of n positions of a span, for all heads of the item. */
static void load_span(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                      const qsi_kv_table *t, int64_t p0, int64_t n, naive *x) {
    for (int64_t i = 0; i < n; i++) {
        float *lat = x->lat + i * z->lat;
        qsi_kv_load(f->kv, o->k, t, layer, (int32_t)(p0 + i), lat, NULL);
        qsi_act_put(o->k, &x->c, i, lat);
    }
}

/* Keys, turned (kern.h), and values of head h at n positions of a span, in the form that products
 * take. */
static void make_span(const qsi_op *o, const qsi_mla_weights *w, const sizes *z, int64_t h,
                      int64_t n, naive *x) {
    for (int64_t p = 0; p < n; p += TILE) {
        int64_t m = qsi_min64(TILE, n - p);
        qsi_mm_job j = qsi_job_forward(w->k[h], &x->c, p, m, x->k, z->dk, false);
        qsi_job_run(o->k, &j);
        for (int64_t i = 0; i < m; i++)
            memcpy(x->k + i * z->dk + z->dn, x->lat + (p + i) * z->lat + z->r,
                   (size_t)z->dr * sizeof(float));
        if (x->bf16)
            o->k->attn16_turn(QSI_F32, m, z->dk, 0, x->k, z->dk,
                              x->kw + p / TILE * qsi_kv_key_words(z->dk), NULL, 0);
        else
            o->k->attn_turn(QSI_F32, m, z->dk, x->k, z->dk, x->kt + p * z->dk);
    }
    qsi_mm_job j = qsi_job_forward(w->v[h], &x->c, 0, n, x->v, z->dv, false);
    qsi_job_run(o->k, &j);
    if (x->bf16) /* tiles are a whole number of pairs */
        o->k->attn16_pair(QSI_F32, n, z->dv, x->v, z->dv, NULL, x->vw,
                           qsi_round_up(z->dv, 16));
}

typedef struct item {
    const qsi_seg *seg;
    int64_t h0, h1, r0, r1; /* heads; rows of the segment */
} item;

/* All rows of an item over one span of head h. */
static void attend_span(const qsi_op *o, const sizes *z, const qsi_layer_save *s, const item *t,
                        int64_t h, int64_t span, naive *x) {
    const qsi_seg *g = t->seg;
    qsi_kv_view v = qsi_kv_rows(x->kt, z->dk, z->dk, x->v, z->dv, z->dv);
    v.pos0 = span * SPAN;
    v.turned = true;
    if (x->bf16) v = qsi_kv_words(x->kw, z->dk, x->vw, z->dv, span * SPAN);
    int64_t first = qsi_max64(t->r0, (v.pos0 - g->pos0) / TILE * TILE);
    for (int64_t i = qsi_max64(first, 0); i < t->r1; i += TILE) {
        int64_t row = g->row0 + i;
        qsi_attend_rows r = {.n_rows = (int32_t)qsi_min64(TILE, t->r1 - i), .pos0 = g->pos0 + i,
                             .q = s->q + (row * z->n_head + h) * z->dk, .ldq = z->n_head * z->dk,
                             .out = s->out + (row * z->n_head + h) * z->dv,
                             .ldo = z->n_head * z->dv};
        qsi_attend_state *st = x->st + (h - t->h0) * (t->r1 - t->r0) + i - t->r0;
        qsi_attend_add(o->k, &v, &r, 0, 1, z->scale, span, st, x->scratch);
    }
}

static void naive_item(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                       const qsi_layer_save *s, const item *t) {
    const qsi_seg *g = t->seg;
    int64_t rows = t->r1 - t->r0, end = g->pos0 + t->r1;
    naive x = naive_init(o, z, s->mla.c_form, (t->h1 - t->h0) * rows);
    x.bf16 = f->bf16 && qsi_kv_narrow(f->kv);
    for (int64_t p = 0; p < end; p += SPAN) {
        int64_t n = qsi_min64(SPAN, end - p);
        load_span(o, f, z, layer, &f->tables[g->table], p, n, &x);
        for (int64_t h = t->h0; h < t->h1; h++) {
            make_span(o, &f->w->layers[layer].mla, z, h, n, &x);
            attend_span(o, z, s, t, h, p / SPAN, &x);
        }
    }
    for (int64_t h = t->h0; h < t->h1; h++) {
        int64_t at = (g->row0 + t->r0) * z->n_head + h;
        qsi_attend_rows r = {.n_rows = (int32_t)rows, .out = s->out + at * z->dv,
                             .ldo = z->n_head * z->dv};
        qsi_attend_end(o->k, z->dv, &r, 0, 1, x.st + (h - t->h0) * rows);
    }
}

/* Cuts a segment: several heads an item share the loading of latent rows, as far as workers have
 * work; few heads and many workers share its rows too, and compute keys and values more than
 * once. */
static int64_t item_sizes(const qsi_op *o, const qsi_fwd *f, const sizes *z, const qsi_seg *g,
                          int64_t *heads, int64_t *rows) {
    int64_t want = 2 * (int64_t)o->w->count, all = z->n_head * f->n_segs;
    *heads = qsi_max64(1, qsi_min64(HEADS, all / want));
    int64_t cuts = o->w->count == 1 ? 1 : qsi_ceil_div(want, all);
    *rows = qsi_round_up(qsi_ceil_div(g->n, cuts), TILE);
    return g->generated || g->sparse ? 0 : qsi_ceil_div(z->n_head, *heads) * qsi_ceil_div(g->n, *rows);
}

static void naive_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                       const qsi_layer_save *s) {
    int64_t first = 0; /* ticket of segment i's first item; tickets only grow */
    int32_t i = 0;
    while (i < f->n_segs) {
        int64_t t = qsi_op_take(o), heads = 1, rows = 1;
        for (; i < f->n_segs; i++) {
            int64_t n = item_sizes(o, f, z, &f->segs[i], &heads, &rows);
            if (t - first < n) break;
            first += n;
        }
        if (i == f->n_segs) break;
        int64_t groups = qsi_ceil_div(z->n_head, heads);
        item it = {.seg = &f->segs[i], .h0 = (t - first) % groups * heads,
                   .r0 = (t - first) / groups * rows};
        it.h1 = qsi_min64(it.h0 + heads, z->n_head);
        it.r1 = qsi_min64(it.r0 + rows, it.seg->n);
        naive_item(o, f, z, layer, s, &it);
    }
    qsi_op_end(o);
}

/* ---- absorbed: generated rows ---- */
/* Queries of n rows: qn as an operand, qp into its place. */
static void absorb_queries(qsi_op *o, const sizes *z, const qsi_layer_save *s, const int32_t *rows,
                           int64_t n) {
    const qsi_mla_save *m = &s->mla;
    for (int64_t i; (i = qsi_op_take(o)) < n;) {
        const float *q = s->q + (int64_t)rows[i] * z->n_head * z->dk;
        for (int64_t h = 0; h < z->n_head; h++, q += z->dk) {
            qsi_act_put(o->k, &m->qn, h * D + i, q);
            memcpy(m->qc + (i * z->n_head + h) * z->lat + z->r, q + z->dn,
                   (size_t)z->dr * sizeof(float));
        }
    }
    qsi_op_end(o);
}

/* Queries [c | kp] as the cache's keys stand. */
static void rotate_absorbed(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                            const qsi_layer_save *s, int64_t n) {
    if (!qsi_kv_rotates(f->kv)) return;
    for (int64_t i; (i = qsi_op_take(o)) < n * z->n_head;)
        qsi_kv_rotate(f->kv, o->k, layer, false, s->mla.qc + i * z->lat);
    qsi_op_end(o);
}

/* The weighted sum of latent rows of the i-th row's head h, as Wv takes it. */
static void put_context(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                        const qsi_mla_save *m, int64_t i, int64_t h) {
    float *sum = m->o + (i * z->n_head + h) * z->r;
    qsi_kv_rotate(f->kv, o->k, layer, true, sum);
    qsi_act_put(o->k, &m->ctx, h * D + i, sum);
}

/* Heads [h0, h1) of one generated row over its sequence's cache. */
static void absorbed_item(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                          const qsi_layer_save *s, int64_t row, int64_t i, int64_t h0,
                          int64_t h1) {
    const qsi_mla_save *m = &s->mla;
    qsi_kv_view view = qsi_kv_layer(f->kv, &f->tables[f->segs[f->row_seg[row]].table], layer,
                                    f->bf16, f->bytes);
    qsi_attend_rows r = {.n_rows = 1, .pos0 = f->pos[row],
                         .q = m->qc + (i * z->n_head + h0) * z->lat, .ldq = z->n_head * z->lat,
                         .out = m->o + (i * z->n_head + h0) * z->r, .ldo = z->n_head * z->r};
    qsi_attend(o->k, &view, &r, 0, h1 - h0, z->scale, o->scratch);
    for (int64_t h = h0; h < h1; h++) put_context(o, f, z, layer, m, i, h);
}

/* ---- absorbed, over chosen positions ---- */
typedef struct picked {
    float *lat;         /* [SPAN, lat] */
    uint16_t *kw, *vw;  /* the same as words, where products are in bfloat16 */
    bool bf16;
    qsi_attend_state *st; /* [heads] */
    char *scratch;        /* of qsi_attend_add */
} picked;

static picked picked_init(const qsi_op *o, const qsi_fwd *f, const sizes *z) {
    qsi_bump b = {o->scratch, o->scratch_bytes};
    picked x = {.bf16 = f->bf16 && qsi_kv_narrow(f->kv)};
    size_t tiles = SPAN / TILE;
    x.lat = qsi_bump_take(&b, (size_t)(SPAN * z->lat) * sizeof *x.lat);
    x.kw = qsi_bump_take(&b, tiles * (size_t)qsi_kv_key_words(z->lat) * sizeof *x.kw);
    x.vw = qsi_bump_take(&b, tiles * (size_t)qsi_kv_value_words(z->r) * sizeof *x.vw);
    x.st = qsi_bump_take(&b, (size_t)z->n_head * sizeof *x.st);
    memset(x.st, 0, (size_t)z->n_head * sizeof *x.st);
    QS_CHECK(b.left >= qsi_attend_scratch(z->n_head, z->lat, z->r));
    x.scratch = b.p;
    return x;
}

/* Latent rows of n positions side by side, as a view of a span whose first has number p0. */
static qsi_kv_view pick(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                        const qsi_kv_table *t, const int32_t *pos, int64_t n, int64_t p0,
                        const picked *x) {
    for (int64_t i = 0; i < n; i++)
        qsi_kv_load(f->kv, o->k, t, layer, pos[i], x->lat + i * z->lat, NULL);
    qsi_kv_view v = qsi_kv_rows(x->lat, z->lat, z->lat, NULL, 0, z->r);
    v.pos0 = p0;
    if (!x->bf16) return v;
    for (int64_t p = 0; p < n; p += TILE)
        o->k->attn16_turn(QSI_F32, qsi_min64(TILE, n - p), z->lat, z->r, x->lat + p * z->lat, z->lat,
                          x->kw + p / TILE * qsi_kv_key_words(z->lat),
                          x->vw + p / TILE * qsi_kv_value_words(z->r), qsi_round_up(z->r, 16));
    return qsi_kv_words(x->kw, z->lat, x->vw, z->r, p0);
}

/* Heads [h0, h1) of the i-th of the rows over the positions chosen for it. */
static void chosen_item(const qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                        const qsi_layer_save *s, int64_t row, int64_t i, int64_t h0, int64_t h1) {
    const qsi_mla_save *m = &s->mla;
    const qsi_kv_table *t = &f->tables[f->segs[f->row_seg[row]].table];
    int64_t k = f->c->index_topk;
    const int32_t *pos = s->index.chosen + i * k;
    picked x = picked_init(o, f, z);
    qsi_attend_rows r = {.n_rows = 1, .pos0 = k - 1,
                         .q = m->qc + (i * z->n_head + h0) * z->lat, .ldq = z->n_head * z->lat,
                         .out = m->o + (i * z->n_head + h0) * z->r, .ldo = z->n_head * z->r};
    for (int64_t p = 0; p < k; p += SPAN) {
        qsi_kv_view v = pick(o, f, z, layer, t, pos + p, qsi_min64(SPAN, k - p), p, &x);
        qsi_attend_add(o->k, &v, &r, 0, h1 - h0, z->scale, p / SPAN, x.st, x.scratch);
    }
    qsi_attend_end(o->k, z->r, &r, 0, h1 - h0, x.st);
    for (int64_t h = h0; h < h1; h++)
        qsi_act_put(o->k, &m->ctx, h * D + i, m->o + (i * z->n_head + h) * z->r);
}

/* ---- absorbed, all positions ---- */
/* A generated row as a block of its own, all heads one group. */
typedef struct absorbed {
    const qsi_fwd *f;
    const sizes *z;
    const qsi_mla_save *m;
    const int32_t *rows;
    int32_t layer;
} absorbed;

static void absorbed_block(const void *arg, int64_t i, qsi_kv_view *v, qsi_attend_rows *r) {
    const absorbed *a = arg;
    const sizes *z = a->z;
    int64_t row = a->rows[i], ldq = z->n_head * z->lat, ldo = z->n_head * z->r;
    *v = qsi_kv_layer(a->f->kv, &a->f->tables[a->f->segs[a->f->row_seg[row]].table], a->layer,
                      a->f->bf16, a->f->bytes);
    *r = (qsi_attend_rows){.n_rows = 1, .pos0 = a->f->pos[row], .q = a->m->qc + i * ldq,
                           .ldq = ldq, .out = a->m->o + i * ldo, .ldo = ldo};
}

/* The rows' attention by spans where they are deep enough to feed all workers; true when done. */
static bool absorbed_spans(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                           const qsi_layer_save *s, const int32_t *rows, int64_t n) {
    int64_t spans = 0;
    for (int64_t i = 0; i < n; i++) spans += qsi_attend_spans(f->pos[rows[i]]);
    if (spans < 4 * (int64_t)o->w->count) return false;
    absorbed a = {f, z, &s->mla, rows, layer};
    qsi_attend_set set = {.n_blocks = n, .n_kv = 1, .group = z->n_head, .scale = z->scale,
                          .block = absorbed_block, .arg = &a};
    qsi_attend_run(o, f, &set);
    for (int64_t i; (i = qsi_op_take(o)) < n * z->n_head;)
        put_context(o, f, z, layer, &s->mla, i / z->n_head, i % z->n_head);
    qsi_op_end(o);
    return true;
}

/* The same by heads: every item reads the row's cache, so as few as keep the workers busy. chosen:
 * over the positions that the indexer chose. */
static void absorbed_heads(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                           const qsi_layer_save *s, const int32_t *rows, int64_t n, bool chosen) {
    int64_t parts = qsi_min64(z->n_head, qsi_ceil_div(o->w->count, n));
    int64_t per = qsi_ceil_div(z->n_head, parts);
    parts = qsi_ceil_div(z->n_head, per);
    for (int64_t i; (i = qsi_op_take(o)) < n * parts;) {
        int64_t h0 = i % parts * per, h1 = qsi_min64(h0 + per, z->n_head);
        if (chosen) chosen_item(o, f, z, layer, s, rows[i / parts], i / parts, h0, h1);
        else absorbed_item(o, f, z, layer, s, rows[i / parts], i / parts, h0, h1);
    }
    qsi_op_end(o);
}

/* n <= QSI_MLA_ROWS rows; all of them attend to chosen positions, or none. */
static void absorbed_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                          const qsi_layer_save *s, const int32_t *rows, int64_t n, bool chosen) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    const qsi_mla_save *m = &s->mla;
    qsi_mm_job *jobs = (qsi_mm_job *)o->scratch;
    if (chosen) qsi_index_choose(o, f, layer, s, rows, n);
    absorb_queries(o, z, s, rows, n);
    for (int64_t h = 0; h < z->n_head; h++)
        jobs[h] = qsi_job_forward(w->kt[h], &m->qn, h * D, n, m->qc + h * z->lat,
                                  z->n_head * z->lat, false);
    qsi_op_mm(o, jobs, (int)z->n_head);
    if (!chosen) rotate_absorbed(o, f, z, layer, s, n); /* chosen rows are read as they were stored */
    if (chosen || !absorbed_spans(o, f, z, layer, s, rows, n))
        absorbed_heads(o, f, z, layer, s, rows, n, chosen);
    /* generated rows need not be neighbours in the step */
    float *y = m->qc;
    int64_t ld = z->n_head * z->dv;
    for (int64_t h = 0; h < z->n_head; h++)
        jobs[h] = qsi_job_forward(w->v[h], &m->ctx, h * D, n, y + h * z->dv, ld, false);
    qsi_op_mm(o, jobs, (int)z->n_head);
    for (int64_t i; (i = qsi_op_take(o)) < n;)
        memcpy(s->out + rows[i] * ld, y + i * ld, (size_t)ld * sizeof(float));
    qsi_op_end(o);
}

/* ---- both ---- */
/* Normalises and rotates the latent rows and stores them; prepares what enters Wq_b. */
static void latent_rows(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                        const qsi_layer_save *s) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    const qsi_mla_save *m = &s->mla;
    int64_t qr = f->c->q_rank;
    const int64_t step = qsi_op_rows(o, f->n);
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;) {
        for (int64_t t = i; t < qsi_min64(i + step, f->n); t++) {
            float *c = m->c + t * z->lat, *a = m->qa + t * qr;
            o->k->rmsnorm(c, w->kv_norm, c, z->r, f->c->rms_eps);
            o->k->rope(c + z->r, f->cs + t * z->dr, z->dr, 1.0f);
            qsi_kv_store(f->kv, o->k, &f->tables[f->segs[f->row_seg[t]].table], layer, f->pos[t],
                         0, 1, c, NULL);
            if (f->c->index_topk) qsi_index_key(o, f, layer, s, t);
            if (!qr) continue;
            o->k->rmsnorm(a, w->q_norm, a, qr, f->c->rms_eps);
            qsi_act_put(o->k, &m->aq, t, a);
        }
    }
    qsi_op_end(o);
}

static void rotate_queries(qsi_op *o, const qsi_fwd *f, const sizes *z, const qsi_layer_save *s) {
    const int64_t step = qsi_op_rows(o, f->n);
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;)
        for (int64_t t = i; t < qsi_min64(i + step, f->n); t++) {
            for (int64_t h = 0; h < z->n_head; h++)
                o->k->rope(s->q + (t * z->n_head + h) * z->dk + z->dn, f->cs + t * z->dr, z->dr,
                           1.0f);
            if (f->n_sparse) qsi_index_query(f, s, t);
        }
    qsi_op_end(o);
}

/* What the heads' matrices are multiplied with, for who watches products (op.h): qn for K
 * transposed, c for V and for K. The naive path multiplies the whole cache again in every step, so
 * its products are not what is counted, but every row once. Rows of the absorbed path show
 * themselves. */
static void show_heads(qsi_op *o, const qsi_fwd *f, const sizes *z, int32_t layer,
                       const qsi_layer_save *s) {
    const qsi_mla_weights *w = &f->w->layers[layer].mla;
    if (o->tap == NULL || o->w->index != 0) return;
    for (int32_t i = 0; i < f->n_segs; i++) {
        const qsi_seg *g = &f->segs[i];
        if (g->generated || g->sparse) continue;
        for (int64_t h = 0; h < z->n_head; h++) {
            const qsi_mm_job jobs[2] = {
                {.kind = QSI_MM_F32, .a = s->q + (g->row0 * z->n_head + h) * z->dk,
                 .lda = (size_t)(z->n_head * z->dk) * sizeof(float), .m = g->n, .w = w->kt[h]},
                {.kind = QSI_MM_F32, .a = s->mla.c + g->row0 * z->lat,
                 .lda = (size_t)z->lat * sizeof(float), .m = g->n, .w = w->v[h]}};
            o->tap(o->tap_user, jobs, 2);
        }
    }
}

void qsi_mla_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    sizes z = sizes_of(f);
    int64_t d = f->c->d_model, qr = f->c->q_rank, hq = z.n_head * z.dk;
    qsi_norm_forward(o, s->x_in, w->attn_norm, f->n, d, f->c->rms_eps, s->r1, &s->a1);
    qsi_mm_job jobs[4] = {qsi_job_forward(w->mla.kv_a, &s->a1, 0, f->n, s->mla.c, z.lat, false)};
    int n = 2;
    jobs[1] = qr ? qsi_job_forward(w->mla.q_a, &s->a1, 0, f->n, s->mla.qa, qr, false)
                 : qsi_job_forward(w->q, &s->a1, 0, f->n, s->q, hq, false);
    if (f->c->index_topk)
        jobs[n++] = qsi_job_forward(w->index.k, &s->a1, 0, f->n, s->index.k, f->c->index_dim, false);
    if (f->n_sparse)
        jobs[n++] = qsi_job_forward(w->index.proj, &s->a1, 0, f->n, s->index.w, f->c->index_heads,
                                    false);
    qsi_op_mm(o, jobs, n);
    latent_rows(o, f, &z, layer, s);
    n = 0;
    if (qr) jobs[n++] = qsi_job_forward(w->q, &s->mla.aq, 0, f->n, s->q, hq, false);
    if (f->n_sparse)
        jobs[n++] = qsi_job_forward(w->index.q, &s->mla.aq, 0, f->n, s->index.q,
                                    (int64_t)f->c->index_heads * f->c->index_dim, false);
    if (n) qsi_op_mm(o, jobs, n);
    rotate_queries(o, f, &z, s);
    show_heads(o, f, &z, layer, s);
    if (f->n_gen + f->n_sparse < f->n) naive_rows(o, f, &z, layer, s);
    for (int64_t at = 0; at < f->n_gen; at += D)
        absorbed_rows(o, f, &z, layer, s, f->gen_rows + at, qsi_min64(D, f->n_gen - at), false);
    for (int64_t at = 0; at < f->n_sparse; at += D)
        absorbed_rows(o, f, &z, layer, s, f->sparse_rows + at, qsi_min64(D, f->n_sparse - at), true);
    qsi_attention_out(o, f, layer, s, z.n_head * z.dv);
}
