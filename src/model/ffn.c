/* Dense feed-forward layer, SwiGLU (Shazeer 2020):
 *     n = rms(x), x <- x + Wdown (silu(Wgate n) * Wup n). */
#include "model/layer.h"

#include <string.h>

void qsi_ffn_forward(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    int64_t d = f->c->d_model, ff = f->shard->d_ff, n = f->n;
    qsi_norm_forward(o, s->x_mid, w->ffn_norm, n, d, f->c->rms_eps, s->r2, &s->a2);
    qsi_mm_job in[2] = {qsi_job_forward(w->gate, &s->a2, 0, n, s->g, ff, false),
                        qsi_job_forward(w->up, &s->a2, 0, n, s->u, ff, false)};
    qsi_op_mm(o, in, 2);
    float *h = (float *)o->scratch;
    qsi_cut cut = qsi_op_cut(o, n, ff);
    for (int64_t i; (i = qsi_op_take(o)) < cut.items;) {
        int64_t c0, c1, t = qsi_cut_at(&cut, i, &c0, &c1);
        o->k->swiglu(s->g + t * ff + c0, s->u + t * ff + c0, h, c1 - c0);
        qsi_act_put_cols(o->k, &s->h, t, c0, c1, h);
        if (c0 == 0 && s->x_out != s->x_mid)
            memcpy(s->x_out + t * d, s->x_mid + t * d, (size_t)d * sizeof(float));
    }
    qsi_op_end(o);
    float *y = f->partial ? f->partial : s->x_out;
    qsi_mm_job out = qsi_job_forward(w->down, &s->h, 0, n, y, d, !f->partial);
    qsi_op_mm(o, &out, 1);
    if (!f->partial) return;
    qsi_fwd_reduce(o, f, y, n * d);
    for (int64_t i; (i = qsi_op_take(o)) < n;) o->k->add(y + i * d, s->x_out + i * d, d);
    qsi_op_end(o);
}

/* dx comes in as the gradient of x_out and leaves as that of x_mid:
 *     dh = dx Wdown, dWdown += dxT h; dg, du by the derivative of silu(g) u (over g and u, which
 *     are not needed again); dn = dg Wgate + du Wup, dWgate += dgT n, dWup += duT n;
 *     dx += rms backward of dn. Reuses n (a2), g, u, h, r2. */
void qsi_ffn_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                      const qsi_layer_grads *g) {
    const qsi_fwd *f = b->f;
    const qsi_layer_weights *w = &f->w->layers[layer];
    int64_t n = f->n, d = f->c->d_model, ff = f->shard->d_ff, nb = qsi_ceil_div(n, QSI_OP_ROWS);
    qsi_bump ws = {b->ws, b->ws_bytes};
    qsi_dy dy, dg, du;
    qsi_xpack xp;
    qsi_dy_init(&dy, &ws, b->kind, n, d, b->dx, d);
    qsi_xpack_init(&xp, &ws, o->k, b->kind, n, ff);
    int64_t np = qsi_xpack_items(o->k, &xp);
    for (int64_t i; (i = qsi_op_take(o)) < nb + np;) {
        int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n);
        if (i < nb)
            qsi_dy_put(o->k, &dy, b->dx + r0 * d, d, r0, r1);
        else
            qsi_xpack_put(o->k, &xp, &s->h, 0, i - nb);
    }
    qsi_op_end(o);
    qsi_mm_job jd[2] = {qsi_job_dx(w->down, &dy, b->dh, ff, false), qsi_job_dw(&dy, &xp, g->down)};
    qsi_op_mm(o, jd, 2);

    ws = (qsi_bump){b->ws, b->ws_bytes};
    qsi_dy_init(&dg, &ws, b->kind, n, ff, s->g, ff);
    qsi_dy_init(&du, &ws, b->kind, n, ff, s->u, ff);
    qsi_xpack_init(&xp, &ws, o->k, b->kind, n, d);
    np = qsi_xpack_items(o->k, &xp);
    for (int64_t i; (i = qsi_op_take(o)) < nb + np;) {
        if (i >= nb) {
            qsi_xpack_put(o->k, &xp, &s->a2, 0, i - nb);
            continue;
        }
        int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n), at = r0 * ff;
        o->k->swiglu_bwd(b->dh + at, s->g + at, s->u + at, s->g + at, s->u + at, (r1 - r0) * ff);
        qsi_dy_put(o->k, &dg, s->g + at, ff, r0, r1);
        qsi_dy_put(o->k, &du, s->u + at, ff, r0, r1);
    }
    qsi_op_end(o);
    qsi_mm_job jobs[4] = {qsi_job_dx(w->gate, &dg, b->dxn, d, false),
                          qsi_job_dx(w->up, &du, b->dxn, d, true),
                          qsi_job_dw(&dg, &xp, g->gate), qsi_job_dw(&du, &xp, g->up)};
    jobs[0].chain = 1;
    qsi_op_mm(o, jobs, 4);
    qsi_fwd_reduce(o, (qsi_fwd *)f, b->dxn, n * d);
    for (int64_t i; (i = qsi_op_take(o)) < nb;)
        qsi_norm_backward_item(o->k, i, b->dxn, s->x_mid, w->ffn_norm, s->r2, b->dx, b->norm_part,
                               n, d);
    qsi_op_end(o);
    qsi_norm_backward_sum(o, b->norm_part, n, d, g->ffn_norm);
}
