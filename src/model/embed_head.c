/* Embedding, and in training the head: final norm, logits, cross-entropy.
 *
 * Logits of training rows are never held whole: a chunk of rows at a time they are computed, turned
 * into their gradient in place, and used:
 *     nll = -log softmax(W n)[target], dlogits = scale (softmax - onehot),
 *     dn = dlogits W, dW += dlogitsT n. Rows without a target are left out. */
#include "model/layer.h"

#include <string.h>

void qsi_embed_forward(qsi_op *o, const qsi_fwd *f, float *x) {
    int64_t d = f->c->d_model;
    const qsi_weights *w = f->w;
    for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < f->n;) {
        int64_t e = qsi_min64(i + QSI_OP_ROWS, f->n);
        for (int64_t t = i; t < e; t++) {
            const char *row = (const char *)w->embed + (size_t)f->ids[t] * w->embed_row;
            w->embed_type->decode(row, x + t * d, d);
        }
    }
    qsi_op_end(o);
}

void qsi_embed_backward(qsi_op *o, const qsi_fwd *f, const float *dx, float *dw) {
    /* a worker owns ids by their remainder, and adds their rows in order */
    int64_t d = f->c->d_model;
    for (int64_t t = 0; t < f->n; t++)
        if (f->ids[t] % o->w->count == o->w->index)
            o->k->add(dx + t * d, dw + (int64_t)f->ids[t] * d, d);
    qsi_op_end(o);
}

size_t qsi_loss_ws(const qsi_config *c, const qsi_kern *k, qsi_mm kind) {
    return qsi_dy_bytes(kind, QSI_LOSS_CHUNK, c->n_vocab) +
           qsi_xpack_bytes(k, kind, QSI_LOSS_CHUNK, c->d_model) + 4 * QSI_ALIGN;
}

size_t qsi_loss_scratch(const qsi_config *c) {
    return (size_t)QSI_LOSS_TILE * (size_t)c->n_vocab * sizeof(float);
}

/* Rows [t0, t1) of the chunk that starts at row c0 of l->a. */
static void loss_tile(const qsi_op *o, const qsi_fwd *f, const qsi_loss *l, const qsi_dy *dy,
                      int64_t c0, int64_t t0, int64_t t1) {
    int64_t V = f->c->n_vocab;
    float *z = l->logits ? l->logits + t0 * V : (float *)o->scratch;
    qsi_mm_job j = qsi_job_forward(f->w->head, &l->a, c0 + t0, t1 - t0, z, V, false);
    qsi_job_run(o->k, &j);
    for (int64_t t = t0; t < t1; t++)
        l->nll[c0 + t] = o->k->cross_entropy(z + (t - t0) * V, V, l->targets[c0 + t],
                                             l->dx ? l->scale : 0.0f);
    if (l->dx) qsi_dy_put(o->k, dy, z, V, t0, t1);
}

static void loss_chunk(qsi_op *o, const qsi_fwd *f, const qsi_loss *l, int64_t c0, int64_t m) {
    int64_t d = f->c->d_model, V = f->c->n_vocab, nt = qsi_ceil_div(m, QSI_LOSS_TILE), np = 0;
    qsi_mm kind = qsi_weight_mm(f->w->head);
    qsi_bump ws = {l->ws, l->ws_bytes};
    qsi_dy dy = {0};
    qsi_xpack xp = {0};
    if (l->dx) {
        qsi_dy_init(&dy, &ws, kind, m, V, l->logits, V);
        qsi_xpack_init(&xp, &ws, o->k, kind, m, d);
        np = qsi_xpack_items(o->k, &xp);
    }
    for (int64_t i; (i = qsi_op_take(o)) < nt + np;) {
        if (i < nt)
            loss_tile(o, f, l, &dy, c0, i * QSI_LOSS_TILE,
                      qsi_min64((i + 1) * QSI_LOSS_TILE, m));
        else
            qsi_xpack_put(o->k, &xp, &l->a, c0, i - nt);
    }
    qsi_op_end(o);
    if (!l->dx) return;
    qsi_mm_job jobs[2] = {qsi_job_dx(f->w->head, &dy, l->dxf + c0 * d, d, false),
                          qsi_job_dw(&dy, &xp, l->dhead)};
    qsi_op_mm(o, jobs, 2);
}

void qsi_loss_run(qsi_op *o, const qsi_fwd *f, const qsi_loss *l) {
    int64_t d = f->c->d_model, n = l->n, nb = qsi_ceil_div(n, QSI_OP_ROWS);
    float *tmp = (float *)o->scratch;
    for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < n;) {
        int64_t e = qsi_min64(i + QSI_OP_ROWS, n);
        for (int64_t t = i; t < e; t++) {
            l->r[t] = o->k->rmsnorm(l->x + l->rows[t] * d, f->w->out_norm, tmp, d, f->c->rms_eps);
            qsi_act_put(o->k, &l->a, t, tmp);
        }
    }
    qsi_op_end(o);
    for (int64_t c0 = 0; c0 < n; c0 += QSI_LOSS_CHUNK)
        loss_chunk(o, f, l, c0, qsi_min64(QSI_LOSS_CHUNK, n - c0));
    if (!l->dx) return;
    for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < f->n;)
        memset(l->dx + i * d, 0, (size_t)(qsi_min64(QSI_OP_ROWS, f->n - i) * d) * sizeof(float));
    qsi_op_end(o);
    for (int64_t i; (i = qsi_op_take(o)) < nb;) {
        float *dw = l->norm_part + i * d;
        memset(dw, 0, (size_t)d * sizeof(float));
        for (int64_t t = i * QSI_OP_ROWS; t < qsi_min64((i + 1) * QSI_OP_ROWS, n); t++)
            o->k->rmsnorm_bwd(l->dxf + t * d, l->x + l->rows[t] * d, f->w->out_norm, l->r[t],
                              l->dx + l->rows[t] * d, dw, d);
    }
    qsi_op_end(o);
    qsi_norm_backward_sum(o, l->norm_part, n, d, l->dout_norm);
}
