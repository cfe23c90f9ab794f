/* Guessing which experts the next layer will ask for, so that the disk is not idle while a layer
 * computes. Where a layer changes the residual stream little, the router of the next one, given the
 * stream as it is now, mostly chooses the experts that it will choose; how often it did decides
 * whether guesses are read. Nothing but the order of reading depends on it. See residency.h. */
#include "model/layer.h"
#include "model/residency.h"

void qsi_foresee(qsi_op *o, const qsi_fwd *f, int32_t layer, const float *x) {
    qsi_res *r = f->res;
    const qsi_config *c = f->c;
    int64_t d = c->d_model, E = c->n_expert, K = c->n_expert_used;
    if (!r || !r->n_slots || f->n > QSI_FORESEE_ROWS) return;
    qsi_res_foresee *g = &r->foresee;
    if (layer + 1 >= c->n_layer) return;
    const qsi_layer_weights *w = &f->w->layers[layer + 1];
    for (int64_t i; (i = qsi_op_take(o)) < f->n;) {
        float *normed = (float *)o->scratch;
        o->k->rmsnorm(x + i * d, w->ffn_norm, normed, d, c->rms_eps);
        qsi_act_put(o->k, &g->x, i, normed);
    }
    qsi_op_end(o);
    qsi_mm_job job = qsi_job_forward(w->router, &g->x, 0, f->n, g->z, E, false);
    qsi_op_mm(o, &job, 1);
    if (o->w->index != 0) return;
    for (int64_t i = 0; i < f->n; i++)
        qsi_moe_route(o, c, w->gate_bias, g->z + i * E, g->idx + i * K, g->wt + i * K);
    qsi_res_guess(r, layer + 1, g->idx, f->n * K);
}
