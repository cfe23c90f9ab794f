/* Mixture of experts of a layer (DeepSeekMoE, arXiv:2401.06066, equations 3 to 5 and 9 to 11):
 *     n = rms(x), s = softmax(Wr n), the K largest chosen, w their weights,
 *     x <- x + shared(n) + sum over chosen experts, in order of their ids, of w_e FFN_e(n).
 * Rows are grouped by expert (a counting sort), so that each expert is one product; the slot of a
 * row is where it stands in its group. The order of adding makes a row independent of its batch.
 *
 * Balance loss (equations 12 to 14): f_e = E / (K T) * rows that chose e, P_e = mean of s_e,
 * L = sum f_e P_e over the micro-batch, or per sequence; sequences then count by their rows, so
 * that packing documents of different lengths does not change what a row weighs. Gradients go
 * through P only: ds_e = alpha f_e / T. */
#include "model/layer.h"
#include "model/residency.h"

#include <string.h>

int64_t qsi_moe_slots(const qsi_config *c, const qsi_shard *s, int64_t rows) {
    return c->n_expert ? qsi_round_up(rows * c->n_expert_used, QSI_OP_ROWS) +
                             (int64_t)s->n_expert * QSI_OP_ROWS
                       : 0;
}

static void swiglu_put(const qsi_kern *k, const float *g, const float *u, int64_t f, int64_t t,
                       float *tmp, const qsi_act *h) {
    k->swiglu(g + t * f, u + t * f, tmp, f);
    qsi_act_put(k, h, t, tmp);
}

void qsi_moe_route(const qsi_op *o, const qsi_config *c, const float *bias, float *z, int32_t *idx,
                   float *wt) {
    int64_t E = c->n_expert, K = c->n_expert_used;
    if (qsi_config_is_latent(c)) {
        qsi_route r = {.n = E, .n_used = K, .n_group = c->n_group, .n_group_used = c->n_group_used,
                       .sigmoid = c->gating == QSI_GATE_SIGMOID, .norm = c->norm_topk,
                       .scale = c->expert_scale, .bias = bias};
        qsi_route_row_chosen(o->k, &r, z, idx, wt, (float *)o->scratch);
    } else {
        qsi_route_row(o->k, z, E, K, c->norm_topk, c->expert_scale, idx, wt);
    }
}

/* With so many rows the shared experts compute while the routed ones, of 1 to 3 rows each, wait for
 * memory: both are in one list of products. A single row gains nothing from that, and of more rows
 * than a row block each list is arithmetic. */
static bool shared_late(const qsi_fwd *f, const qsi_layer_weights *w) {
    return w->gate && f->n > 4 && f->n <= QSI_OP_MM_ROWS;
}

/* Routes rows, finishes the shared experts' hidden rows if they are there, copies the stream. */
static void route_rows(qsi_op *o, const qsi_fwd *f, const qsi_layer_weights *w,
                       const qsi_layer_save *s) {
    const qsi_moe_save *m = &s->moe;
    int64_t d = f->c->d_model, fs = f->shard->d_shared, E = f->c->n_expert, K = f->c->n_expert_used;
    const bool hidden = w->gate && !shared_late(f, w);
    const int64_t step = qsi_op_rows(o, f->n);
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;) {
        int64_t e = qsi_min64(i + step, f->n);
        for (int64_t t = i; t < e; t++) {
            qsi_moe_route(o, f->c, w->gate_bias, m->s + t * E, m->idx + t * K, m->wt + t * K);
            if (hidden) swiglu_put(o->k, s->g, s->u, fs, t, (float *)o->scratch, &s->h);
        }
        if (s->x_out != s->x_mid)
            memcpy(s->x_out + i * d, s->x_mid + i * d, (size_t)((e - i) * d) * sizeof(float));
    }
    qsi_op_end(o);
}

/* The balance loss of one layer and its factors per segment; worker 0. */
static double balance_of(const qsi_fwd *f, const qsi_moe_save *m) {
    int64_t E = f->c->n_expert, K = f->c->n_expert_used, T = f->n;
    double loss = 0;
    int32_t n_groups = f->balance_per_seq ? f->n_segs : 1;
    for (int32_t g = 0; g < n_groups; g++) {
        int64_t r0 = f->balance_per_seq ? f->segs[g].row0 : 0;
        int64_t n = f->balance_per_seq ? f->segs[g].n : T;
        float *bal = m->bal + g * E;
        memset(bal, 0, (size_t)E * sizeof(float));
        for (int64_t i = r0 * K; i < (r0 + n) * K; i++) bal[m->idx[i]] += 1.0f;
        for (int64_t e = 0; e < E; e++) {
            double p = 0, fe = (double)E / (double)(K * n) * bal[e];
            for (int64_t t = r0; t < r0 + n; t++) p += m->s[t * E + e];
            loss += fe * p / (double)T;
            bal[e] = (float)(f->balance_factor * fe / (double)T);
        }
    }
    return loss;
}

/* Counting sort of (row, expert) pairs by expert; worker 0. */
static void group_rows(const qsi_fwd *f, int32_t layer, qsi_moe_save *m) {
    int64_t K = f->c->n_expert_used, e0 = f->shard->expert0, ne = f->shard->n_expert;
    memset(m->count, 0, (size_t)ne * sizeof *m->count);
    for (int64_t i = 0; i < f->n * K; i++) {
        int64_t e = m->idx[i] - e0;
        if (e >= 0 && e < ne) m->count[e]++;
        if (f->load) f->load[(int64_t)layer * f->c->n_expert + m->idx[i]]++;
    }
    int32_t at = 0;
    for (int64_t e = 0; e < ne; e++) {
        m->off[e] = at;
        int32_t end = (int32_t)qsi_round_up(at + m->count[e], QSI_OP_ROWS);
        for (int32_t b = at / QSI_OP_ROWS; b < end / QSI_OP_ROWS; b++)
            m->block_expert[b] = (int32_t)e;
        for (int32_t i = at + m->count[e]; i < end; i++) m->row[i] = -1;
        m->count[e] = 0;
        at = end;
    }
    m->n_blocks = at / QSI_OP_ROWS;
    for (int64_t i = 0; i < f->n * K; i++) {
        int64_t e = m->idx[i] - e0;
        m->slot[i] = -1;
        if (e < 0 || e >= ne) continue;
        int32_t sl = m->off[e] + m->count[e]++;
        m->slot[i] = sl;
        m->row[sl] = (int32_t)(i / K);
        m->which[sl] = (int32_t)(i % K);
    }
}

/* Rows of slots [b * QSI_OP_ROWS, ...) that are filled: they come first in their block. */
static int64_t block_rows(const qsi_moe_save *m, int64_t b) {
    int64_t e = m->block_expert[b];
    return qsi_min64(QSI_OP_ROWS, m->off[e] + m->count[e] - b * QSI_OP_ROWS);
}

static int shared_in(const qsi_fwd *f, const qsi_layer_weights *w, const qsi_layer_save *s,
                     qsi_mm_job *jobs) {
    int64_t fs = f->shard->d_shared;
    jobs[0] = qsi_job_forward(w->gate, &s->a2, 0, f->n, s->g, fs, false);
    jobs[1] = qsi_job_forward(w->up, &s->a2, 0, f->n, s->u, fs, false);
    return 2;
}

/* Hidden rows of experts with now[e] rows, and (late) of the shared ones. */
static void hidden_rows(qsi_op *o, const qsi_fwd *f, const qsi_layer_save *s, const int32_t *now,
                        bool late) {
    const qsi_moe_save *m = &s->moe;
    int64_t fe = f->c->d_expert, fs = f->shard->d_shared, rows = late ? f->n : 0;
    for (int64_t i; (i = qsi_op_take(o)) < rows + m->n_blocks;) {
        if (i < rows) {
            swiglu_put(o->k, s->g, s->u, fs, i, (float *)o->scratch, &s->h);
            continue;
        }
        int64_t b = i - rows;
        if (!now[m->block_expert[b]]) continue;
        int64_t t = b * QSI_OP_ROWS, end = t + block_rows(m, b);
        for (; t < end; t++) swiglu_put(o->k, m->g, m->u, fe, t, (float *)o->scratch, &m->h);
    }
    qsi_op_end(o);
}

/* Experts with now[e] rows, and (shared not NULL) the last product of the shared ones, into it. */
static void run_experts(qsi_op *o, const qsi_fwd *f, const qsi_layer_weights *w, qsi_layer_save *s,
                        const int32_t *now, float *shared) {
    qsi_moe_save *m = &s->moe;
    int64_t d = f->c->d_model, fe = f->c->d_expert, ne = f->shard->n_expert;
    qsi_mm_job *jobs = (qsi_mm_job *)o->scratch;
    const bool late = shared && shared_late(f, w);
    int nj = late ? shared_in(f, w, s, jobs) : 0;
    for (int64_t e = 0; e < ne; e++) {
        if (!now[e]) continue;
        int64_t at = m->off[e] * fe;
        jobs[nj++] = qsi_job_forward(w->egate[e], &m->x, m->off[e], now[e], m->g + at, fe, false);
        jobs[nj++] = qsi_job_forward(w->eup[e], &m->x, m->off[e], now[e], m->u + at, fe, false);
    }
    qsi_op_mm(o, jobs, nj);
    hidden_rows(o, f, s, now, late);
    nj = 0;
    if (shared)
        jobs[nj++] = qsi_job_forward(w->down, &s->h, 0, f->n, shared, d, !f->partial);
    for (int64_t e = 0; e < ne; e++)
        if (now[e])
            jobs[nj++] = qsi_job_forward(w->edown[e], &m->h, m->off[e], now[e],
                                         m->y + m->off[e] * d, d, false);
    qsi_op_mm(o, jobs, nj);
}

bool qsi_moe_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s) {
    const qsi_layer_weights *w = &f->w->layers[layer];
    const qsi_config *c = f->c;
    qsi_moe_save *m = &s->moe;
    int64_t d = c->d_model, E = c->n_expert, K = c->n_expert_used, n = f->n;
    qsi_norm_forward(o, s->x_mid, w->ffn_norm, n, d, c->rms_eps, s->r2, &s->a2);
    int nj = 0;
    qsi_mm_job first[3];
    first[nj++] = qsi_job_forward(w->router, &s->a2, 0, n, m->s, E, false);
    if (w->gate && !shared_late(f, w)) nj += shared_in(f, w, s, first + nj);
    qsi_op_mm(o, first, nj);
    route_rows(o, f, w, s);
    if (o->w->index == 0) {
        group_rows(f, layer, m);
        if (f->balance) *f->balance_sum += balance_of(f, m);
    }
    qsi_op_end(o);
    if (!qsi_res_experts(o->w, f->res, layer, m->count, n)) return false;
    qsi_foresee(o, f, layer, s->x_mid);
    for (int64_t b; (b = qsi_op_take(o)) < m->n_blocks;) {
        int64_t r = block_rows(m, b);
        for (int64_t i = 0; i < r; i++)
            qsi_act_copy(&m->x, b * QSI_OP_ROWS + i, &s->a2, m->row[b * QSI_OP_ROWS + i]);
    }
    qsi_op_end(o);
    float *y = f->partial ? f->partial : s->x_out;
    const int32_t *now = m->count;
    for (int left = -1; left != 0;) {
        float *shared = left < 0 && w->gate ? y : NULL;
        if (!qsi_res_wave(o->w, f->res, layer, m->count, &now, &left)) return false;
        run_experts(o, f, w, s, now, shared);
    }
    const int64_t step = qsi_op_rows(o, n);
    for (int64_t i; (i = qsi_op_take(o) * step) < n;) {
        int64_t end = qsi_min64(i + step, n);
        for (int64_t t = i; t < end; t++) {
            if (f->partial && !w->gate) memset(y + t * d, 0, (size_t)d * sizeof(float));
            for (int64_t j = t * K; j < (t + 1) * K; j++)
                if (m->slot[j] >= 0) o->k->axpy(m->wt[j], m->y + m->slot[j] * d, y + t * d, d);
        }
    }
    qsi_op_end(o);
    if (!f->partial) return true;
    qsi_fwd_reduce(o, f, y, n * d);
    for (int64_t i; (i = qsi_op_take(o)) < n;) o->k->add(y + i * d, s->x_out + i * d, d);
    qsi_op_end(o);
    return true;
}

/* ---- backward ---- */
typedef struct expert_bwd { /* operands of one expert's products */
    qsi_dy a, b;
    qsi_xpack x;
} expert_bwd;

/* Walks the packing items of all experts: true when item *i (made local) belongs to *e. */
static bool expert_item(const qsi_kern *k, const expert_bwd *x, int64_t ne, int64_t *i, int64_t *e) {
    for (*e = 0; *e < ne; ++*e) {
        int64_t n = qsi_xpack_items(k, &x[*e].x);
        if (*i < n) return true;
        *i -= n;
    }
    return false;
}

static int64_t expert_items(const qsi_kern *k, const expert_bwd *x, int64_t ne) {
    int64_t n = 0;
    for (int64_t e = 0; e < ne; e++) n += qsi_xpack_items(k, &x[e].x);
    return n;
}

/* Slots of block b: dslot = w dx of their row, and the gradient of w: dw = dx . y. */
static void slot_gradients(const qsi_op *o, const qsi_bwd *b, const qsi_moe_save *m, int64_t blk) {
    int64_t d = b->f->c->d_model, K = b->f->c->n_expert_used, s0 = blk * QSI_OP_ROWS;
    int64_t end = s0 + block_rows(m, blk);
    for (int64_t s = s0; s < end; s++) {
        const float *dx = b->dx + m->row[s] * d;
        float wt = m->wt[m->row[s] * K + m->which[s]], *y = b->dslot + s * d;
        b->dwt[s] = o->k->dot(dx, m->y + s * d, d);
        memset(y, 0, (size_t)d * sizeof(float));
        o->k->axpy(wt, dx, y, d);
    }
}

/* First half: gradients at the hidden rows, and of the down projections. */
static void backward_down(qsi_op *o, const qsi_bwd *b, const qsi_layer_weights *w,
                          const qsi_layer_save *s, const qsi_layer_grads *g, expert_bwd *x,
                          qsi_mm_job *jobs) {
    const qsi_fwd *f = b->f;
    const qsi_moe_save *m = &s->moe;
    int64_t n = f->n, d = f->c->d_model, fe = f->c->d_expert, fs = f->shard->d_shared;
    int64_t ne = f->shard->n_expert, nb = w->gate ? qsi_ceil_div(n, QSI_OP_ROWS) : 0, np = 0;
    qsi_bump ws = {b->ws, b->ws_bytes};
    qsi_dy dy = {0};
    qsi_xpack xp = {0};
    if (w->gate) {
        qsi_dy_init(&dy, &ws, b->kind, n, d, b->dx, d);
        qsi_xpack_init(&xp, &ws, o->k, b->kind, n, fs);
        np = qsi_xpack_items(o->k, &xp);
    }
    for (int64_t e = 0; e < ne; e++) {
        qsi_dy_init(&x[e].a, &ws, b->kind, m->count[e], d, b->dslot + m->off[e] * d, d);
        qsi_xpack_init(&x[e].x, &ws, o->k, b->kind, m->count[e], fe);
    }
    int64_t ns = m->n_blocks, nx = expert_items(o->k, x, ne), e = 0;
    for (int64_t i; (i = qsi_op_take(o)) < nb + ns + np + nx;) {
        if (i < nb) {
            int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n);
            qsi_dy_put(o->k, &dy, b->dx + r0 * d, d, r0, r1);
        } else if ((i -= nb) < ns) {
            int64_t s0 = i * QSI_OP_ROWS, ex = m->block_expert[i], r0 = s0 - m->off[ex];
            slot_gradients(o, b, m, i);
            qsi_dy_put(o->k, &x[ex].a, b->dslot + s0 * d, d, r0, r0 + block_rows(m, i));
        } else if ((i -= ns) < np) {
            qsi_xpack_put(o->k, &xp, &s->h, 0, i);
        } else if ((i -= np, expert_item(o->k, x, ne, &i, &e))) {
            qsi_xpack_put(o->k, &x[e].x, &m->h, m->off[e], i);
        }
    }
    qsi_op_end(o);
    int nj = 0;
    if (w->gate) {
        jobs[nj++] = qsi_job_dx(w->down, &dy, b->dh, fs, false);
        jobs[nj++] = qsi_job_dw(&dy, &xp, g->down);
    }
    for (e = 0; e < ne; e++) {
        if (!m->count[e]) continue;
        jobs[nj++] = qsi_job_dx(w->edown[e], &x[e].a, b->dhe + m->off[e] * fe, fe, false);
        jobs[nj++] = qsi_job_dw(&x[e].a, &x[e].x, g->edown + e * d * fe);
    }
    qsi_op_mm(o, jobs, nj);
}

/* Gradient of the router's logits of row t. */
static void router_row(const qsi_bwd *b, const qsi_moe_save *m, int64_t t, float *dwt) {
    const qsi_fwd *f = b->f;
    int64_t E = f->c->n_expert, K = f->c->n_expert_used;
    for (int64_t j = 0; j < K; j++) {
        int32_t sl = m->slot[t * K + j];
        dwt[j] = sl >= 0 ? b->dwt[sl] : 0.0f;
    }
    const float *bal = NULL;
    if (f->balance) bal = m->bal + (f->balance_per_seq ? f->row_seg[t] : 0) * E;
    qsi_route_row_bwd(m->s + t * E, E, K, f->c->norm_topk, f->c->expert_scale, m->idx + t * K, dwt,
                      bal, b->dlogits + t * E);
}

/* Second half: through SwiGLU to the normed rows; gradients of gate, up and router. */
static void backward_in(qsi_op *o, const qsi_bwd *b, const qsi_layer_weights *w,
                        const qsi_layer_save *s, const qsi_layer_grads *g, expert_bwd *x,
                        qsi_mm_job *jobs, float *dwt) {
    const qsi_fwd *f = b->f;
    const qsi_moe_save *m = &s->moe;
    int64_t n = f->n, d = f->c->d_model, fe = f->c->d_expert, fs = f->shard->d_shared;
    int64_t ne = f->shard->n_expert, E = f->c->n_expert, nb = qsi_ceil_div(n, QSI_OP_ROWS), np = 0;
    qsi_bump ws = {b->ws, b->ws_bytes};
    qsi_dy dg = {0}, du = {0}, dr = {0};
    qsi_xpack xp = {0}, xr = {0};
    qsi_dy_init(&dr, &ws, QSI_MM_F32, n, E, b->dlogits, E);
    qsi_xpack_init(&xr, &ws, o->k, QSI_MM_F32, n, d);
    int64_t nr = qsi_xpack_items(o->k, &xr);
    if (w->gate) {
        qsi_dy_init(&dg, &ws, b->kind, n, fs, s->g, fs);
        qsi_dy_init(&du, &ws, b->kind, n, fs, s->u, fs);
        qsi_xpack_init(&xp, &ws, o->k, b->kind, n, d);
        np = qsi_xpack_items(o->k, &xp);
    }
    for (int64_t e = 0; e < ne; e++) {
        qsi_dy_init(&x[e].a, &ws, b->kind, m->count[e], fe, m->g + m->off[e] * fe, fe);
        qsi_dy_init(&x[e].b, &ws, b->kind, m->count[e], fe, m->u + m->off[e] * fe, fe);
        qsi_xpack_init(&x[e].x, &ws, o->k, b->kind, m->count[e], d);
    }
    int64_t ns = m->n_blocks, nx = expert_items(o->k, x, ne), e = 0;
    for (int64_t i; (i = qsi_op_take(o)) < nb + ns + nr + np + nx;) {
        if (i < nb) {
            int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n), at = r0 * fs;
            for (int64_t t = r0; t < r1; t++) router_row(b, m, t, dwt);
            qsi_dy_put(o->k, &dr, b->dlogits + r0 * E, E, r0, r1);
            if (!w->gate) continue;
            o->k->swiglu_bwd(b->dh + at, s->g + at, s->u + at, s->g + at, s->u + at,
                             (r1 - r0) * fs);
            qsi_dy_put(o->k, &dg, s->g + at, fs, r0, r1);
            qsi_dy_put(o->k, &du, s->u + at, fs, r0, r1);
        } else if ((i -= nb) < ns) {
            int64_t s0 = i * QSI_OP_ROWS, ex = m->block_expert[i], r0 = s0 - m->off[ex];
            int64_t r = block_rows(m, i), at = s0 * fe;
            o->k->swiglu_bwd(b->dhe + at, m->g + at, m->u + at, m->g + at, m->u + at, r * fe);
            qsi_dy_put(o->k, &x[ex].a, m->g + at, fe, r0, r0 + r);
            qsi_dy_put(o->k, &x[ex].b, m->u + at, fe, r0, r0 + r);
        } else if ((i -= ns) < nr) {
            qsi_xpack_put(o->k, &xr, &s->a2, 0, i);
        } else if ((i -= nr) < np) {
            qsi_xpack_put(o->k, &xp, &s->a2, 0, i);
        } else if ((i -= np, expert_item(o->k, x, ne, &i, &e))) {
            qsi_xpack_put(o->k, &x[e].x, &m->x, m->off[e], i);
        }
    }
    qsi_op_end(o);
    int nj = 0;
    if (w->gate) {
        jobs[nj] = qsi_job_dx(w->gate, &dg, b->dxn, d, false);
        jobs[nj++].chain = 1;
        jobs[nj++] = qsi_job_dx(w->up, &du, b->dxn, d, true);
        jobs[nj++] = qsi_job_dw(&dg, &xp, g->gate);
        jobs[nj++] = qsi_job_dw(&du, &xp, g->up);
    }
    jobs[nj++] = qsi_job_dw(&dr, &xr, g->router);
    for (e = 0; e < ne; e++) {
        if (!m->count[e]) continue;
        jobs[nj] = qsi_job_dx(w->egate[e], &x[e].a, b->dslot + m->off[e] * d, d, false);
        jobs[nj++].chain = 1;
        jobs[nj++] = qsi_job_dx(w->eup[e], &x[e].b, b->dslot + m->off[e] * d, d, true);
        jobs[nj++] = qsi_job_dw(&x[e].a, &x[e].x, g->egate + e * d * fe);
        jobs[nj++] = qsi_job_dw(&x[e].b, &x[e].x, g->eup + e * d * fe);
    }
    qsi_op_mm(o, jobs, nj);
}

/* dx comes in as the gradient of x_out and leaves as that of x_mid. With y_e the experts' outputs:
 *     dw_e = dx . y_e, dy_e = w_e dx, then as in ffn.c for the shared and each routed expert;
 *     dlogits by op/route.c from dw and the balance loss; dn += dlogits Wr, dWr += dlogitsT n. */
void qsi_moe_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                      const qsi_layer_grads *g) {
    const qsi_fwd *f = b->f;
    const qsi_layer_weights *w = &f->w->layers[layer];
    const qsi_moe_save *m = &s->moe;
    int64_t n = f->n, d = f->c->d_model, E = f->c->n_expert, K = f->c->n_expert_used;
    int64_t ne = f->shard->n_expert, nb = qsi_ceil_div(n, QSI_OP_ROWS);
    qsi_bump tmp = {o->scratch, o->scratch_bytes};
    qsi_mm_job *jobs = qsi_bump_take(&tmp, (size_t)(4 * ne + 8) * sizeof *jobs);
    expert_bwd *x = qsi_bump_take(&tmp, (size_t)ne * sizeof *x);
    float *dwt = qsi_bump_take(&tmp, (size_t)K * sizeof *dwt);
    backward_down(o, b, w, s, g, x, jobs);
    backward_in(o, b, w, s, g, x, jobs, dwt);
    for (int64_t i; (i = qsi_op_take(o)) < nb;) {
        int64_t r0 = i * QSI_OP_ROWS, r1 = qsi_min64(r0 + QSI_OP_ROWS, n);
        for (int64_t t = r0; t < r1; t++) {
            float *dxn = b->dxn + t * d;
            if (!w->gate) memset(dxn, 0, (size_t)d * sizeof(float));
            for (int64_t j = t * K; j < (t + 1) * K; j++)
                if (m->slot[j] >= 0) o->k->add(b->dslot + m->slot[j] * d, dxn, d);
            for (int64_t e = 0; e < E; e++)
                o->k->axpy(b->dlogits[t * E + e], w->router_rows + e * d, dxn, d);
        }
        if (f->comm->size == 1)
            qsi_norm_backward_item(o->k, i, b->dxn, s->x_mid, w->ffn_norm, s->r2, b->dx,
                                   b->norm_part, n, d);
    }
    qsi_op_end(o);
    if (f->comm->size > 1) {
        qsi_fwd_reduce(o, (qsi_fwd *)f, b->dxn, n * d);
        for (int64_t i; (i = qsi_op_take(o)) < nb;)
            qsi_norm_backward_item(o->k, i, b->dxn, s->x_mid, w->ffn_norm, s->r2, b->dx,
                                   b->norm_part, n, d);
        qsi_op_end(o);
    }
    qsi_norm_backward_sum(o, b->norm_part, n, d, g->ffn_norm);
}
