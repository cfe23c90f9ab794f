/* The forward of all layers, and what a step shares: rows by sequence, rotary angles, buffers. */
#include "model/layer.h"
#include "model/residency.h"

#include <string.h>

qs_status qsi_shard_init(qsi_shard *s, const qsi_config *c, const qsi_comm *comm, qs_err *err) {
    qs_status st = QS_OK;
    int n = comm->size;
    if (c->n_head % n || c->n_kv_head % n || c->d_ff % n || c->n_expert % n)
        QS_FAIL(err, QS_E_UNSUPPORTED, "heads, FFN columns or experts do not divide by %d "
                "processes", n);
    *s = (qsi_shard){.rank = comm->rank, .size = n, .n_head = c->n_head / n,
                     .n_kv = c->n_kv_head / n, .d_ff = c->d_ff / n,
                     .d_shared = c->n_shared * c->d_expert / n,
                     .expert0 = comm->rank * (c->n_expert / n), .n_expert = c->n_expert / n};
done:
    return st;
}

qs_status qsi_fwd_init(qsi_fwd *f, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                       const qsi_comm *comm, const qsi_weights *w, int64_t rows, qs_err *err) {
    qs_status st = QS_OK;
    size_t R = (size_t)rows;
    *f = (qsi_fwd){.c = c, .shard = sh, .comm = comm, .w = w, .bad_layer = -1};
    f->segs = qsi_arena_alloc(ar, R, sizeof *f->segs);
    f->blocks = qsi_arena_alloc(ar, R, sizeof *f->blocks);
    f->row_seg = qsi_arena_alloc(ar, R, sizeof *f->row_seg);
    size_t rd = (size_t)qsi_config_rope_dim(c);
    f->gen_rows = qsi_arena_alloc(ar, R, sizeof *f->gen_rows);
    f->sparse_rows = qsi_arena_alloc(ar, R, sizeof *f->sparse_rows);
    f->freq = qsi_arena_alloc(ar, rd / 2, sizeof(double));
    f->cs = qsi_arena_alloc(ar, R * rd, sizeof(float));
    if (comm->size > 1) f->partial = qsi_arena_alloc(ar, R * (size_t)c->d_model, sizeof(float));
    if (!f->segs || !f->blocks || !f->row_seg || !f->gen_rows || !f->sparse_rows || !f->freq || !f->cs ||
        (comm->size > 1 && !f->partial))
        QS_FAIL(err, QS_E_NOMEM, "no memory for steps of %lld rows", (long long)rows);
    double factor = c->rope_scaling == QSI_ROPE_LINEAR ? (double)c->rope_factor : 1.0;
    if (c->rope_scaling == QSI_ROPE_YARN)
        qsi_rope_freq_yarn(f->freq, (int64_t)rd, (double)c->rope_theta, (double)c->rope_factor,
                           c->rope_orig_ctx, (double)c->yarn_beta_fast, (double)c->yarn_beta_slow);
    else
        qsi_rope_freq(f->freq, (int64_t)rd, (double)c->rope_theta, factor);
done:
    return st;
}

qs_status qsi_fwd_segments(qsi_fwd *f, const int32_t *seq, bool training, qs_err *err) {
    qs_status st = QS_OK;
    f->n_segs = f->n_blocks = f->n_gen = f->n_sparse = 0;
    for (int32_t t = 0; t < f->n; t++) {
        qsi_seg *s = f->n_segs ? &f->segs[f->n_segs - 1] : NULL;
        bool gen = f->generated && f->generated[t];
        bool sparse = f->c->index_topk > 0 && !training && f->pos[t] >= f->c->index_topk;
        if (sparse) f->sparse_rows[f->n_sparse++] = t;
        else if (gen) f->gen_rows[f->n_gen++] = t;
        if (t > 0 && seq[t] == seq[t - 1] && f->pos[t] != f->pos[t - 1] + 1)
            QS_FAIL(err, QS_E_ARG, "row %d: position %d follows %d in sequence %d", t, f->pos[t],
                    f->pos[t - 1], seq[t]);
        if (t == 0 || seq[t] != seq[t - 1] || gen != s->generated || sparse != s->sparse) {
            s = &f->segs[f->n_segs++];
            *s = (qsi_seg){.row0 = t, .pos0 = training ? 0 : f->pos[t], .table = seq[t],
                           .generated = gen, .sparse = sparse};
        }
        f->row_seg[t] = f->n_segs - 1;
        if (s->n % QSI_ATTEND_TILE == 0)
            f->blocks[f->n_blocks++] = (qsi_block){.seg = f->n_segs - 1, .row0 = t};
        f->blocks[f->n_blocks - 1].n++;
        s->n++;
    }
done:
    return st;
}

void qsi_rope_prepare(qsi_op *o, const qsi_fwd *f) {
    int64_t hd = qsi_config_rope_dim(f->c);
    const int64_t step = qsi_op_rows(o, f->n);
    for (int64_t i; (i = qsi_op_take(o) * step) < f->n;)
        for (int64_t t = i; t < qsi_min64(i + step, f->n); t++) {
            if (f->pos[t] >= 0 && f->pos[t] < f->n_table)
                memcpy(f->cs + t * hd, f->cs_table + f->pos[t] * hd, (size_t)hd * sizeof(float));
            else
                qsi_rope_row(f->cs + t * hd, f->freq, hd, f->pos[t]);
        }
    qsi_op_end(o);
}

void qsi_fwd_reduce(qsi_op *o, qsi_fwd *f, float *x, int64_t n) {
    if (f->comm->size == 1) return;
    if (o->w->index == 0 && f->comm_status == QS_OK)
        f->comm_status = f->comm->sum_f32(f->comm, x, (size_t)n, NULL);
    qsi_op_end(o);
}

static void watch(qsi_op *o, qsi_fwd *f, const float *x, int32_t layer) {
    if (o->w->index == 0 && f->bad_layer == QSI_BAD_NONE &&
        !qsi_all_finite(x, (int64_t)f->n * f->c->d_model))
        f->bad_layer = layer;
    qsi_op_end(o);
}

bool qsi_layer_forward(qsi_op *o, qsi_fwd *f, int32_t l, qsi_layer_save *s) {
    int32_t attention = qsi_res_group(l, QSI_RES_ATTENTION), ffn = qsi_res_group(l, QSI_RES_FFN);
    if (!qsi_res_enter(o->w, f->res, attention)) return false;
    if (f->c->kv_rank)
        qsi_mla_forward(o, f, l, s);
    else
        qsi_attention_forward(o, f, l, s);
    qsi_res_leave(o->w, f->res, attention);
    if (!qsi_res_enter(o->w, f->res, ffn)) return false;
    if (!qsi_layer_is_moe(f->c, l))
        qsi_ffn_forward(o, f, l, s);
    else if (!qsi_moe_forward(o, f, l, s))
        return false;
    qsi_res_leave(o->w, f->res, ffn);
    if (f->watch) watch(o, f, s->x_out, l);
    return true;
}

bool qsi_layers_forward(qsi_op *o, qsi_fwd *f, qsi_layer_save *const *saves) {
    if (f->watch) watch(o, f, saves[0]->x_in, QSI_BAD_EMBED);
    for (int32_t l = 0; l < f->c->n_layer; l++)
        if (!qsi_layer_forward(o, f, l, saves[l])) return false;
    return true;
}

size_t qsi_forward_scratch(const qsi_config *c, int64_t rows) {
    size_t a = c->kv_rank ? qsi_mla_scratch(c, rows)
                          : qsi_attend_scratch(c->n_head / c->n_kv_head, c->head_dim, c->head_dim);
    size_t w = (size_t)qsi_max64(qsi_max64(c->d_model, c->d_ff),
                                 qsi_max64(c->n_shared, 1) * (int64_t)c->d_expert) * sizeof(float);
    if (c->n_next) w = (size_t)qsi_max64((int64_t)w, 2 * (int64_t)c->d_model * (int64_t)sizeof(float));
    size_t j = (size_t)(4 * c->n_expert + 8) * (sizeof(qsi_mm_job) + 256) +
               (size_t)c->n_expert_used * sizeof(float);
    size_t h = (size_t)(2 * c->n_head) * sizeof(qsi_mm_job);
    if (h > j) j = h;
    size_t m = a > w ? a : w;
    return (m > j ? m : j) + 4096;
}

static bool moe_init(qsi_moe_save *m, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                     size_t R) {
    size_t E = (size_t)c->n_expert, K = (size_t)c->n_expert_used, d = (size_t)c->d_model;
    size_t S = (size_t)qsi_moe_slots(c, sh, (int64_t)R), f = (size_t)c->d_expert;
    m->s = qsi_arena_alloc(ar, R * E, sizeof(float));
    m->idx = qsi_arena_alloc(ar, R * K, sizeof(int32_t));
    m->slot = qsi_arena_alloc(ar, R * K, sizeof(int32_t));
    m->wt = qsi_arena_alloc(ar, R * K, sizeof(float));
    m->off = qsi_arena_calloc(ar, E, sizeof(int32_t));
    m->count = qsi_arena_calloc(ar, E, sizeof(int32_t));
    m->row = qsi_arena_alloc(ar, S, sizeof(int32_t));
    m->which = qsi_arena_alloc(ar, S, sizeof(int32_t));
    m->block_expert = qsi_arena_alloc(ar, S / QSI_OP_ROWS + 1, sizeof(int32_t));
    m->g = qsi_arena_alloc(ar, S * f, sizeof(float));
    m->u = qsi_arena_alloc(ar, S * f, sizeof(float));
    m->y = qsi_arena_alloc(ar, S * d, sizeof(float));
    return m->s && m->idx && m->slot && m->wt && m->off && m->count && m->row && m->which &&
           m->block_expert && m->g && m->u && m->y;
}

static qs_status mla_init(qsi_mla_save *m, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                          int64_t rows, const qsi_act_masks *k, qs_err *err) {
    qs_status st = QS_OK;
    size_t R = (size_t)rows, H = (size_t)sh->n_head, D = QSI_MLA_ROWS, r = (size_t)c->kv_rank;
    int64_t hd = (int64_t)H * QSI_MLA_ROWS;
    m->c_form = k->c;
    m->c = qsi_arena_alloc(ar, R * (r + (size_t)c->d_rope), sizeof(float));
    size_t lat = r + (size_t)c->d_rope, dv = (size_t)c->d_value;
    m->qc = qsi_arena_alloc(ar, D * H * (lat > dv ? lat : dv), sizeof(float));
    m->o = qsi_arena_alloc(ar, D * H * r, sizeof(float));
    if (c->q_rank) m->qa = qsi_arena_alloc(ar, R * (size_t)c->q_rank, sizeof(float));
    if (!m->c || !m->qc || !m->o || (c->q_rank && !m->qa))
        QS_FAIL(err, QS_E_NOMEM, "no memory for latent attention of %lld rows", (long long)rows);
    if (c->q_rank) QS_TRY(qsi_act_init(&m->aq, ar, rows, c->q_rank, k->aq, err));
    QS_TRY(qsi_act_init(&m->qn, ar, hd, c->head_dim - c->d_rope, k->qn, err));
    QS_TRY(qsi_act_init(&m->ctx, ar, hd, c->kv_rank, k->ctx, err));
done:
    return st;
}

static qs_status index_init(qsi_index_save *x, qsi_arena *ar, const qsi_config *c, int64_t rows,
                            qs_err *err) {
    qs_status st = QS_OK;
    size_t R = (size_t)rows, J = (size_t)c->index_heads, d = (size_t)c->index_dim;
    x->k = qsi_arena_alloc(ar, R * d, sizeof(float));
    x->q = qsi_arena_alloc(ar, R * J * d, sizeof(float));
    x->w = qsi_arena_alloc(ar, R * J, sizeof(float));
    x->scores = qsi_arena_alloc(ar, QSI_INDEX_ROWS * (size_t)qsi_index_positions(c),
                                sizeof(float));
    x->chosen = qsi_arena_alloc(ar, QSI_MLA_ROWS * (size_t)c->index_topk, sizeof(int32_t));
    if (!x->k || !x->q || !x->w || !x->scores || !x->chosen)
        QS_FAIL(err, QS_E_NOMEM, "no memory for the indexer of %lld rows", (long long)rows);
done:
    return st;
}

qs_status qsi_save_init(qsi_layer_save *s, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                        bool moe, int64_t rows, const qsi_act_masks *m, bool keep, qs_err *err) {
    qs_status st = QS_OK;
    size_t R = (size_t)rows, hd = (size_t)c->head_dim;
    size_t hq = (size_t)sh->n_head * hd, hk = c->kv_rank ? 0 : (size_t)sh->n_kv * hd;
    size_t ho = c->kv_rank ? (size_t)sh->n_head * (size_t)c->d_value : hq;
    size_t f = (size_t)(moe ? sh->d_shared : sh->d_ff);
    *s = (qsi_layer_save){0};
    s->q = qsi_arena_alloc(ar, R * hq, sizeof(float));
    s->k = qsi_arena_alloc(ar, R * hk + 1, sizeof(float));
    s->v = qsi_arena_alloc(ar, R * hk + 1, sizeof(float));
    s->out = qsi_arena_alloc(ar, R * ho, sizeof(float));
    s->g = qsi_arena_alloc(ar, R * f + 1, sizeof(float));
    s->u = qsi_arena_alloc(ar, R * f + 1, sizeof(float));
    bool ok = s->q && s->k && s->v && s->out && s->g && s->u;
    if (keep) {
        s->r1 = qsi_arena_alloc(ar, R, sizeof(float));
        s->r2 = qsi_arena_alloc(ar, R, sizeof(float));
        s->lse = qsi_arena_alloc(ar, R * (size_t)sh->n_head, sizeof(float));
        ok = ok && s->r1 && s->r2 && s->lse;
    }
    if (moe) {
        ok = ok && moe_init(&s->moe, ar, c, sh, R);
        if (keep) {
            s->moe.bal = qsi_arena_alloc(ar, R * (size_t)c->n_expert, sizeof(float));
            ok = ok && s->moe.bal;
        }
    }
    if (!ok)
        QS_FAIL(err, QS_E_NOMEM, "no memory for the activations of %lld rows", (long long)rows);
    QS_TRY(qsi_act_init(&s->a1, ar, rows, c->d_model, m->a1, err));
    if (c->kv_rank) QS_TRY(mla_init(&s->mla, ar, c, sh, rows, m, err));
    if (c->index_topk) QS_TRY(index_init(&s->index, ar, c, rows, err));
    QS_TRY(qsi_act_init(&s->oa, ar, rows, (int64_t)ho, m->oa, err));
    QS_TRY(qsi_act_init(&s->a2, ar, rows, c->d_model, m->a2, err));
    if (f) QS_TRY(qsi_act_init(&s->h, ar, rows, (int64_t)f, m->h, err));
    if (moe) {
        int64_t S = qsi_moe_slots(c, sh, rows);
        QS_TRY(qsi_act_init(&s->moe.x, ar, S, c->d_model, m->ex, err));
        QS_TRY(qsi_act_init(&s->moe.h, ar, S, c->d_expert, m->eh, err));
    }
done:
    return st;
}

size_t qsi_backward_ws(const qsi_config *c, const qsi_shard *sh, const qsi_kern *k, qsi_mm kind,
                       int64_t R) {
    int64_t d = c->d_model, hq = (int64_t)sh->n_head * c->head_dim;
    int64_t hk = (int64_t)sh->n_kv * c->head_dim;
    size_t n = qsi_dy_bytes(kind, R, d) + qsi_xpack_bytes(k, kind, R, hq);
    size_t m = qsi_dy_bytes(kind, R, hq) + 2 * qsi_dy_bytes(kind, R, hk) +
               qsi_xpack_bytes(k, kind, R, d);
    if (m > n) n = m;
    int64_t f = qsi_max64(sh->d_ff, sh->d_shared), S = qsi_moe_slots(c, sh, R);
    size_t down = qsi_dy_bytes(kind, R, d) + qsi_xpack_bytes(k, kind, R, f);
    size_t in = 2 * qsi_dy_bytes(kind, R, f) + qsi_xpack_bytes(k, kind, R, d);
    if (S) {
        /* every expert's operands round up on their own */
        size_t E = (size_t)sh->n_expert, dm = (size_t)(d > c->d_expert ? d : c->d_expert);
        size_t slack = E * (3 * (160 * dm + 4 * QSI_ALIGN) * sizeof(float) +
                            qsi_xpack_bytes(k, kind, 32, (int64_t)dm));
        int64_t fe = c->d_expert;
        down += qsi_dy_bytes(kind, S, d) + qsi_xpack_bytes(k, kind, S, fe) + slack;
        in += 2 * qsi_dy_bytes(kind, S, fe) + qsi_xpack_bytes(k, kind, S, d) + slack +
              qsi_dy_bytes(QSI_MM_F32, R, c->n_expert) + qsi_xpack_bytes(k, QSI_MM_F32, R, d);
    }
    m = down > in ? down : in;
    return (m > n ? m : n) + 64 * QSI_ALIGN;
}
