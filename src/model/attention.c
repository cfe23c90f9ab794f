/* Self-attention of a layer (Vaswani et al. 2017; grouped queries, Ainslie et al. 2023):
 *     n = rms(x), q = Wq n, k = Wk n, v = Wv n, q and k rotated by position,
 *     x <- x + Wo softmax(q kT / sqrt(head_dim)) v.
 * Before the rotation Qwen2 adds a bias to q, k and v, and Qwen3 norms every head of q and k.
 * In inference keys and values go to the sequences' pages and are read from there; in training they
 * are the saved rows of the document. */
#include "model/layer.h"
#include "model/rope_scaling.h"

#include <math.h>
#include <string.h>

/* One rank adds straight to the residual stream; several first sum their parts. */
static void project_out(qsi_op *o, qsi_fwd *f, const qsi_weight *w, const qsi_act *a, float *x) {
    int64_t d = f->c->d_model;
    float *y = f->partial ? f->partial : x;
    qsi_mm_job j = qsi_job_forward(w, a, 0, f->n, y, d, !f->partial);
    qsi_op_mm(o, &j, 1);
    if (!f->partial) return;
    qsi_fwd_reduce(o, f, y, f->n * d);
    for (int64_t i; (i = qsi_op_take(o)) < f->n;) o->k->add(y + i * d, x + i * d, d);
    qsi_op_end(o);
}

/* Bias, norm and rotation of one row's n heads. */
static void finish_heads(const qsi_op *o, const qsi_fwd *f, float *x, int64_t n, const float *bias,
                         const float *norm, const float *cs) {
    int64_t hd = f->c->head_dim;
    bool halves = qsi_config_halves(f->c);
    if (bias) o->k->add(bias, x, n);
    for (int64_t h = 0; h < n; h += hd) {
        if (norm) o->k->rmsnorm(x + h, norm, x + h, hd, f->c->rms_eps);
        if (halves) qsi_rope_halves(x + h, cs, hd);
        else o->k->rope(x + h, cs, hd, 1.0f);
    }
}

/* Heads [h0, h1) of keys and values of one row, and the queries of their groups. */
static void rotate_heads(const qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                         int64_t t, int64_t h0, int64_t h1) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    int64_t hd = f->c->head_dim, hq = f->shard->n_head * hd, hk = f->shard->n_kv * hd;
    int64_t group = hq / hk, k0 = h0 * hd, n = (h1 - h0) * hd;
    const float *cs = f->cs + t * hd;
    finish_heads(o, f, s->q + t * hq + k0 * group, n * group,
                 w->q_bias ? w->q_bias + k0 * group : NULL, w->q_norm, cs);
    finish_heads(o, f, s->k + t * hk + k0, n, w->k_bias ? w->k_bias + k0 : NULL, w->k_norm, cs);
    if (w->v_bias) o->k->add(w->v_bias + k0, s->v + t * hk + k0, n);
    for (int64_t h = 0; f->kv && qsi_kv_rotates(f->kv) && h < n * group; h += hd)
        qsi_kv_rotate(f->kv, o->k, layer, false, s->q + t * hq + k0 * group + h);
    if (f->kv)
        qsi_kv_store(f->kv, o->k, &f->tables[f->segs[f->row_seg[t]].table], layer, f->pos[t],
                     (int32_t)h0, (int32_t)h1, s->k + t * hk, s->v + t * hk);
}

/* An item is some rows. Of few rows a worker takes the heads that are its own in attend_run.c too:
 * what it wrote it then reads from its cache. */
static void rotate_and_store(qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s) {
    const int64_t step = qsi_op_rows(o, f->n), nk = f->shard->n_kv;
    int64_t h0 = 0, h1 = 0;
    if (qsi_attend_own(o, f, nk, &h0, &h1)) {
        for (int64_t t = 0; h0 < h1 && t < f->n; t++) rotate_heads(o, f, layer, s, t, h0, h1);
        qsi_op_end(o);
        return;
    }
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;)
        for (int64_t t = i; t < qsi_min64(i + step, f->n); t++)
            rotate_heads(o, f, layer, s, t, 0, nk);
    qsi_op_end(o);
}

typedef struct blocks {
    const qsi_fwd *f;
    const qsi_layer_save *s;
    int32_t layer;
} blocks;

static void block_at(const void *arg, int64_t i, qsi_kv_view *v, qsi_attend_rows *r) {
    const blocks *x = arg;
    const qsi_fwd *f = x->f;
    const qsi_layer_save *s = x->s;
    const qsi_block *b = &f->blocks[i];
    const qsi_seg *sg = &f->segs[b->seg];
    int64_t hd = f->c->head_dim, nq = f->shard->n_head, hq = nq * hd, hk = f->shard->n_kv * hd;
    *v = f->kv ? qsi_kv_layer(f->kv, &f->tables[sg->table], x->layer, f->bf16, f->bytes)
               : qsi_kv_rows(s->k + sg->row0 * hk, hk, hd, s->v + sg->row0 * hk, hk, hd);
    *r = (qsi_attend_rows){.n_rows = b->n, .pos0 = sg->pos0 + (b->row0 - sg->row0),
                           .q = s->q + b->row0 * hq, .ldq = hq, .out = s->out + b->row0 * hq,
                           .ldo = hq, .lse = s->lse ? s->lse + b->row0 * nq : NULL, .ld_lse = nq};
}

static void attend_blocks(qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s) {
    blocks x = {f, s, layer};
    qsi_attend_set a = {.n_blocks = f->n_blocks, .n_kv = f->shard->n_kv,
                        .group = f->shard->n_head / f->shard->n_kv,
                        .scale = (float)qsi_config_attn_scale(f->c), .block = block_at,
                        .arg = &x};
    qsi_attend_run(o, f, &a);
}

/* Undoes the cache's rotation of a row's heads; latent attention did so before Wv. */
static void turn_back(const qsi_op *o, const qsi_fwd *f, int32_t layer, float *out, int64_t n_out) {
    if (!f->kv || !qsi_kv_rotates(f->kv) || f->c->kv_rank) return;
    for (int64_t h = 0; h < n_out; h += f->c->head_dim)
        qsi_kv_rotate(f->kv, o->k, layer, true, out + h);
}

void qsi_attention_out(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                       int64_t n_out) {
    int64_t d = f->c->d_model;
    const int64_t step = qsi_op_rows(o, f->n);
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;) {
        int64_t e = qsi_min64(i + step, f->n);
        for (int64_t t = i; t < e; t++) {
            turn_back(o, f, layer, s->out + t * n_out, n_out);
            qsi_act_put(o->k, &s->oa, t, s->out + t * n_out);
        }
        if (s->x_mid != s->x_in)
            memcpy(s->x_mid + i * d, s->x_in + i * d, (size_t)((e - i) * d) * sizeof(float));
    }
    qsi_op_end(o);
    project_out(o, f, f->w->layers[layer].o, &s->oa, s->x_mid);
}

void qsi_attention_forward(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    int64_t d = f->c->d_model, hd = f->c->head_dim;
    int64_t hq = f->shard->n_head * hd, hk = f->shard->n_kv * hd;
    qsi_norm_forward(o, s->x_in, w->attn_norm, f->n, d, f->c->rms_eps, s->r1, &s->a1);
    qsi_mm_job jobs[3] = {qsi_job_forward(w->q, &s->a1, 0, f->n, s->q, hq, false),
                          qsi_job_forward(w->k, &s->a1, 0, f->n, s->k, hk, false),
                          qsi_job_forward(w->v, &s->a1, 0, f->n, s->v, hk, false)};
    qsi_op_mm(o, jobs, 3);
    rotate_and_store(o, f, layer, s);
    attend_blocks(o, f, layer, s);
    qsi_attention_out(o, f, layer, s, hq);
}

/* dx comes in as the gradient of x_mid and leaves as that of x_in:
 *     dattn = dx Wo, dWo += dxT attn; dq, dk, dv by op/attend.c, rotated back (the rotation is
 *     orthogonal); dn = dq Wq + dk Wk + dv Wv, dWq += dqT n, ...; dx += rms backward of dn.
 * Reuses n (a1), q, k, v, attn, lse, r1 of the forward. */
void qsi_attention_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                            const qsi_layer_grads *g) {
    const qsi_fwd *f = b->f;
    const qsi_layer_weights *w = &f->w->layers[layer];
    int64_t n = f->n, d = f->c->d_model, hd = f->c->head_dim, nk = f->shard->n_kv;
    int64_t hq = f->shard->n_head * hd, hk = nk * hd, nb = qsi_ceil_div(n, QSI_OP_ROWS);
    qsi_bump ws = {b->ws, b->ws_bytes};
    qsi_dy dy;
    qsi_xpack xp;
    qsi_dy_init(&dy, &ws, b->kind, n, d, b->dx, d);
    qsi_xpack_init(&xp, &ws, o->k, b->kind, n, hq);
    int64_t np = qsi_xpack_items(o->k, &xp);
    for (int64_t i; (i = qsi_op_take(o)) < nb + np;) {
        int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n);
        if (i < nb)
            qsi_dy_put(o->k, &dy, b->dx + r0 * d, d, r0, r1);
        else
            qsi_xpack_put(o->k, &xp, &s->oa, 0, i - nb);
    }
    qsi_op_end(o);
    qsi_mm_job jo[2] = {qsi_job_dx(w->o, &dy, b->dout, hq, false), qsi_job_dw(&dy, &xp, g->o)};
    qsi_op_mm(o, jo, 2);

    for (int64_t i; (i = qsi_op_take(o)) < f->n_segs * nk;) {
        const qsi_seg *sg = &f->segs[i / nk];
        int64_t oq = sg->row0 * hq, ok = sg->row0 * hk;
        qsi_attend_doc a = {
            .n = sg->n, .n_head = f->shard->n_head, .n_kv = nk, .hd = hd, .q = s->q + oq,
            .k = s->k + ok, .v = s->v + ok, .out = s->out + oq, .dout = b->dout + oq,
            .lse = s->lse + sg->row0 * f->shard->n_head, .dq = b->dq + oq, .dk = b->dk + ok,
            .dv = b->dv + ok, .ld_q = hq, .ld_kv = hk, .scale = (float)qsi_config_attn_scale(f->c)};
        qsi_attend_bwd(o->k, &a, i % nk, o->scratch);
    }
    qsi_op_end(o);

    ws = (qsi_bump){b->ws, b->ws_bytes};
    qsi_dy dq, dk, dv;
    qsi_dy_init(&dq, &ws, b->kind, n, hq, b->dq, hq);
    qsi_dy_init(&dk, &ws, b->kind, n, hk, b->dk, hk);
    qsi_dy_init(&dv, &ws, b->kind, n, hk, b->dv, hk);
    qsi_xpack_init(&xp, &ws, o->k, b->kind, n, d);
    np = qsi_xpack_items(o->k, &xp);
    for (int64_t i; (i = qsi_op_take(o)) < nb + np;) {
        if (i >= nb) {
            qsi_xpack_put(o->k, &xp, &s->a1, 0, i - nb);
            continue;
        }
        int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n);
        for (int64_t t = r0; t < r1; t++) {
            const float *cs = f->cs + t * hd;
            for (int64_t h = 0; h < hq; h += hd) o->k->rope(b->dq + t * hq + h, cs, hd, -1.0f);
            for (int64_t h = 0; h < hk; h += hd) o->k->rope(b->dk + t * hk + h, cs, hd, -1.0f);
        }
        qsi_dy_put(o->k, &dq, b->dq + r0 * hq, hq, r0, r1);
        qsi_dy_put(o->k, &dk, b->dk + r0 * hk, hk, r0, r1);
        qsi_dy_put(o->k, &dv, b->dv + r0 * hk, hk, r0, r1);
    }
    qsi_op_end(o);
    qsi_mm_job jobs[6] = {qsi_job_dx(w->q, &dq, b->dxn, d, false),
                          qsi_job_dx(w->k, &dk, b->dxn, d, true),
                          qsi_job_dx(w->v, &dv, b->dxn, d, true),
                          qsi_job_dw(&dq, &xp, g->q), qsi_job_dw(&dk, &xp, g->k),
                          qsi_job_dw(&dv, &xp, g->v)};
    jobs[0].chain = 2;
    qsi_op_mm(o, jobs, 6);
    qsi_fwd_reduce(o, (qsi_fwd *)f, b->dxn, n * d);
    for (int64_t i; (i = qsi_op_take(o)) < nb;)
        qsi_norm_backward_item(o->k, i, b->dxn, s->x_in, w->attn_norm, s->r1, b->dx, b->norm_part,
                               n, d);
    qsi_op_end(o);
    qsi_norm_backward_sum(o, b->norm_part, n, d, g->attn_norm);
}
