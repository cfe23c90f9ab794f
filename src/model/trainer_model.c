/* A model in training: masters and gradients in float32, weights prepared from them, the loss and
 * its gradients. Everything a step needs is allocated at creation.
 *
 * qsi_tm_loss: embed, layers forward keeping their activations, head and cross-entropy by chunks,
 * layers backward, embedding gradient; one entry into the pool. Results do not depend on the number
 * of workers (op.h). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "model/layer.h"

struct qsi_trainer_model {
    qsi_config c;
    qsi_train_opts o;
    const qsi_kern *k;
    qsi_mm kind;
    qsi_shard shard;
    qsi_arena ar;
    size_t n_params;
    qsi_param *params;
    qsi_tensor_spec *specs;
    qsi_weights w;
    qsi_layer_grads *g;
    float *g_embed, *g_out_norm;
    qsi_layer_save *saves, **save_ptr;
    float *x0;
    qsi_fwd f;
    qsi_bwd b;
    qsi_loss loss;
    int32_t *rows, *targets;
    int64_t *load;
    uint16_t *shadow;
    qsi_op_shared sh;
    char *scratch;
    size_t scratch_bytes;
    int64_t next_param; /* of qsi_tm_init_random */
    uint64_t seed;
    float std;
};

static void op_init(qsi_op *o, const qsi_worker *w, qsi_trainer_model *t) {
    qsi_op_init(o, w, t->k, &t->sh, t->scratch + (size_t)w->index * t->scratch_bytes,
                t->scratch_bytes);
}

/* ---- creation ---- */
static void *take(qsi_trainer_model *t, int64_t n, size_t size, bool *ok) {
    void *p = qsi_arena_calloc(&t->ar, (size_t)(n > 0 ? n : 1), size);
    *ok = *ok && p;
    return p;
}

static qs_status params_init(qsi_trainer_model *t, qs_err *err) {
    qs_status st = QS_OK;
    bool ok = true;
    t->n_params = qsi_config_n_tensors(&t->c);
    t->params = take(t, (int64_t)t->n_params, sizeof *t->params, &ok);
    t->specs = take(t, (int64_t)t->n_params, sizeof *t->specs, &ok);
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "no memory for the list of parameters");
    for (size_t i = 0; i < t->n_params; i++) {
        qsi_param *p = &t->params[i];
        qsi_config_tensor(&t->c, i, &t->specs[i]);
        *p = (qsi_param){.name = t->specs[i].name, .n_dims = t->specs[i].n_dims, .n = 1,
                         .decay = t->specs[i].role != QSI_ROLE_NORM};
        for (int j = 0; j < 3; j++) {
            p->ne[j] = j < p->n_dims ? t->specs[i].ne[j] : 1;
            p->n *= p->ne[j];
        }
        p->master = take(t, p->n, sizeof(float), &ok);
        p->grad = take(t, p->n, sizeof(float), &ok);
        if (!ok)
            QS_FAIL(err, QS_E_NOMEM, "no memory for %s (%" PRId64 " values)", p->name, p->n);
    }
done:
    return st;
}

/* The parameter of this name with these dims (ne[2] 1: a matrix; ne[1] 1: a vector). */
static qs_status find(qsi_trainer_model *t, const char *name, int64_t n0, int64_t n1, int64_t n2,
                      const qsi_param **out, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < t->n_params; i++) {
        const qsi_param *p = &t->params[i];
        if (strcmp(p->name, name) != 0) continue;
        if (p->ne[0] != n0 || p->ne[1] != n1 || p->ne[2] != n2)
            QS_FAIL(err, QS_E_FORMAT, "%s is [%" PRId64 ", %" PRId64 ", %" PRId64 "], [%" PRId64
                    ", %" PRId64 ", %" PRId64 "] is needed", name, p->ne[0], p->ne[1], p->ne[2],
                    n0, n1, n2);
        *out = p;
        goto done;
    }
    QS_FAIL(err, QS_E_NOTFOUND, "the configuration lists no tensor %s", name);
done:
    return st;
}

static qs_status bind_norm(qsi_trainer_model *t, int32_t l, const char *part, const float **w,
                           float **g, qs_err *err) {
    qs_status st = QS_OK;
    char name[64];
    const qsi_param *p = NULL;
    if (l < 0)
        snprintf(name, sizeof name, "%s.weight", part);
    else
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, part);
    QS_TRY(find(t, name, t->c.d_model, 1, 1, &p, err));
    *w = p->master;
    *g = p->grad;
done:
    return st;
}

static qs_status bind_matrix(qsi_trainer_model *t, int32_t l, const char *part, qsi_mm kind,
                             int64_t n_out, int64_t n_in, qsi_weight **w, float **g, qs_err *err) {
    qs_status st = QS_OK;
    char name[64];
    const qsi_param *p = NULL;
    if (l < 0)
        snprintf(name, sizeof name, "%s.weight", part);
    else
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, part);
    QS_TRY(find(t, name, n_in, n_out, 1, &p, err));
    QS_TRY(qsi_weight_create_train(w, t->k, kind, p->master, n_out, n_in, err));
    *g = p->grad;
done:
    return st;
}

static qs_status bind_experts(qsi_trainer_model *t, int32_t l, const char *part, int64_t n_out,
                              int64_t n_in, qsi_weight **w, float **g, qs_err *err) {
    qs_status st = QS_OK;
    char name[64];
    const qsi_param *p = NULL;
    snprintf(name, sizeof name, "blk.%d.%s.weight", l, part);
    QS_TRY(find(t, name, n_in, n_out, t->c.n_expert, &p, err));
    for (int32_t e = 0; e < t->c.n_expert; e++)
        QS_TRY(qsi_weight_create_train(&w[e], t->k, t->kind, p->master + e * n_out * n_in, n_out,
                                       n_in, err));
    *g = p->grad;
done:
    return st;
}

static qs_status bind_layer(qsi_trainer_model *t, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &t->c;
    qsi_layer_weights *w = &t->w.layers[l];
    qsi_layer_grads *g = &t->g[l];
    int64_t d = c->d_model, hq = (int64_t)c->n_head * c->head_dim;
    int64_t hk = (int64_t)c->n_kv_head * c->head_dim;
    QS_TRY(bind_norm(t, l, "attn_norm", &w->attn_norm, &g->attn_norm, err));
    QS_TRY(bind_matrix(t, l, "attn_q", t->kind, hq, d, &w->q, &g->q, err));
    QS_TRY(bind_matrix(t, l, "attn_k", t->kind, hk, d, &w->k, &g->k, err));
    QS_TRY(bind_matrix(t, l, "attn_v", t->kind, hk, d, &w->v, &g->v, err));
    QS_TRY(bind_matrix(t, l, "attn_output", t->kind, d, hq, &w->o, &g->o, err));
    QS_TRY(bind_norm(t, l, "ffn_norm", &w->ffn_norm, &g->ffn_norm, err));
    if (!qsi_layer_is_moe(c, l)) {
        QS_TRY(bind_matrix(t, l, "ffn_gate", t->kind, c->d_ff, d, &w->gate, &g->gate, err));
        QS_TRY(bind_matrix(t, l, "ffn_up", t->kind, c->d_ff, d, &w->up, &g->up, err));
        QS_TRY(bind_matrix(t, l, "ffn_down", t->kind, d, c->d_ff, &w->down, &g->down, err));
        goto done;
    }
    int64_t f = c->d_expert, fs = (int64_t)c->n_shared * f;
    QS_TRY(bind_matrix(t, l, "ffn_gate_inp", QSI_MM_F32, c->n_expert, d, &w->router, &g->router,
                       err));
    char name[64];
    const qsi_param *p = NULL;
    snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", l);
    QS_TRY(find(t, name, d, c->n_expert, 1, &p, err));
    w->router_rows = p->master;
    QS_TRY(bind_experts(t, l, "ffn_gate_exps", f, d, w->egate, &g->egate, err));
    QS_TRY(bind_experts(t, l, "ffn_up_exps", f, d, w->eup, &g->eup, err));
    QS_TRY(bind_experts(t, l, "ffn_down_exps", d, f, w->edown, &g->edown, err));
    if (!fs) goto done;
    QS_TRY(bind_matrix(t, l, "ffn_gate_shexp", t->kind, fs, d, &w->gate, &g->gate, err));
    QS_TRY(bind_matrix(t, l, "ffn_up_shexp", t->kind, fs, d, &w->up, &g->up, err));
    QS_TRY(bind_matrix(t, l, "ffn_down_shexp", t->kind, d, fs, &w->down, &g->down, err));
done:
    return st;
}

static qs_status bind_all(qsi_trainer_model *t, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &t->c;
    const qsi_param *p = NULL;
    QS_TRY(qsi_weights_init(&t->w, c, err));
    QS_TRY(find(t, "token_embd.weight", c->d_model, c->n_vocab, 1, &p, err));
    t->w.embed = p->master;
    t->w.embed_type = qsi_type_get(QSI_F32);
    t->w.embed_row = (size_t)c->d_model * sizeof(float);
    t->g_embed = p->grad;
    QS_TRY(bind_norm(t, -1, "output_norm", &t->w.out_norm, &t->g_out_norm, err));
    QS_TRY(bind_matrix(t, -1, "output", t->kind, c->n_vocab, c->d_model, &t->w.head,
                       &t->loss.dhead, err));
    for (int32_t l = 0; l < c->n_layer; l++) QS_TRY(bind_layer(t, l, err));
done:
    return st;
}

static qs_status buffers_init(qsi_trainer_model *t, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &t->c;
    bool ok = true;
    int64_t R = t->o.max_rows, d = c->d_model, L = c->n_layer;
    int64_t hq = (int64_t)t->shard.n_head * c->head_dim;
    int64_t hk = (int64_t)t->shard.n_kv * c->head_dim;
    int64_t f = qsi_max64(t->shard.d_ff, t->shard.d_shared);
    int64_t S = qsi_moe_slots(c, &t->shard, R), E = c->n_expert;
    unsigned form = qsi_act_form(t->kind);
    qsi_act_masks m = {.a1 = form, .oa = form, .a2 = form, .h = form, .ex = form, .eh = form};
    t->saves = take(t, L, sizeof *t->saves, &ok);
    t->save_ptr = take(t, L, sizeof *t->save_ptr, &ok);
    float *x = t->x0 = take(t, R * d, sizeof(float), &ok);
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "no memory for a micro-batch of %" PRId64 " rows", R);
    for (int32_t l = 0; l < L; l++) {
        bool moe = qsi_layer_is_moe(c, l);
        m.a2 = moe ? form | QSI_ACT_F32 : form;
        QS_TRY(qsi_save_init(&t->saves[l], &t->ar, c, &t->shard, moe, R, &m, true, err));
        t->save_ptr[l] = &t->saves[l];
        t->saves[l].x_in = x;
        t->saves[l].x_mid = take(t, R * d, sizeof(float), &ok);
        x = t->saves[l].x_out = take(t, R * d, sizeof(float), &ok);
    }
    QS_TRY(qsi_fwd_init(&t->f, &t->ar, c, &t->shard, t->o.comm, &t->w, R, err));
    t->f.n_table = (int32_t)qsi_min64(R, c->n_ctx);
    t->f.cs_table = take(t, (int64_t)t->f.n_table * c->head_dim, sizeof(float), &ok);
    for (int32_t i = 0; ok && i < t->f.n_table; i++)
        qsi_rope_row(t->f.cs_table + (int64_t)i * c->head_dim, t->f.freq, c->head_dim, i);
    qsi_bwd *b = &t->b;
    *b = (qsi_bwd){.f = &t->f, .kind = t->kind};
    b->dx = take(t, R * d, sizeof(float), &ok);
    b->dxn = take(t, R * d, sizeof(float), &ok);
    b->dout = take(t, R * hq, sizeof(float), &ok);
    b->dq = take(t, R * hq, sizeof(float), &ok);
    b->dk = take(t, R * hk, sizeof(float), &ok);
    b->dv = take(t, R * hk, sizeof(float), &ok);
    b->dh = take(t, R * f, sizeof(float), &ok);
    b->dhe = take(t, S * c->d_expert, sizeof(float), &ok);
    b->dslot = take(t, S * d, sizeof(float), &ok);
    b->dwt = take(t, S, sizeof(float), &ok);
    b->dlogits = take(t, R * E, sizeof(float), &ok);
    b->norm_part = take(t, qsi_ceil_div(R, QSI_OP_ROWS) * d, sizeof(float), &ok);
    b->ws_bytes = qsi_backward_ws(c, &t->shard, t->k, t->kind, R);
    size_t lw = qsi_loss_ws(c, t->k, t->kind);
    if (lw > b->ws_bytes) b->ws_bytes = lw;
    b->ws = take(t, (int64_t)b->ws_bytes, 1, &ok);
    t->load = take(t, L * qsi_max64(E, 1), sizeof *t->load, &ok);
    t->rows = take(t, R, sizeof *t->rows, &ok);
    t->targets = take(t, R, sizeof *t->targets, &ok);
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "no memory for a micro-batch of %" PRId64 " rows", R);
done:
    return st;
}

static qs_status loss_init(qsi_trainer_model *t, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &t->c;
    bool ok = true;
    int64_t R = t->o.max_rows, d = c->d_model;
    qsi_loss *l = &t->loss;
    QS_TRY(qsi_act_init(&l->a, &t->ar, R, d, qsi_act_form(t->kind), err));
    l->r = take(t, R, sizeof(float), &ok);
    l->nll = take(t, R, sizeof(double), &ok);
    l->dxf = take(t, R * d, sizeof(float), &ok);
    l->dout_norm = t->g_out_norm;
    l->norm_part = t->b.norm_part;
    l->ws = t->b.ws;
    l->ws_bytes = t->b.ws_bytes;
    l->rows = t->rows;
    l->targets = t->targets;
    if (t->kind == QSI_MM_F32)
        l->logits = take(t, (int64_t)QSI_LOSS_CHUNK * c->n_vocab, sizeof(float), &ok);
    size_t s[] = {qsi_forward_scratch(c, R), qsi_attend_bwd_scratch(R), qsi_loss_scratch(c)};
    for (size_t i = 0; i < QSI_COUNT(s); i++)
        if (s[i] > t->scratch_bytes) t->scratch_bytes = s[i];
    t->scratch_bytes = (t->scratch_bytes + 4095) / 4096 * 4096;
    t->scratch = take(t, (int64_t)t->scratch_bytes * qsi_pool_size(t->o.pool), 1, &ok);
    int64_t big = 0;
    for (size_t i = 0; i < t->n_params; i++)
        big = qsi_max64(big, t->params[i].ne[0] * t->params[i].ne[1]);
    if (t->kind == QSI_MM_BF16) t->shadow = take(t, big, sizeof *t->shadow, &ok);
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "no memory for the loss of %" PRId64 " rows", R);
done:
    return st;
}

qs_status qsi_tm_create(qsi_trainer_model **out, const qsi_config *c, const qsi_train_opts *o,
                        qs_err *err) {
    qs_status st = QS_OK;
    qsi_trainer_model *t = NULL;
    QS_TRY(qsi_config_check(c, err));
    if (qsi_config_is_latent(c))
        QS_FAIL(err, QS_E_UNSUPPORTED, "training of architecture deepseek2 (latent attention) is not "
                "built: such models can be run, llama and deepseek ones trained too");
    if (qsi_config_qkv_bias(c) || qsi_config_qk_norm(c) || c->rope_freqs)
        QS_FAIL(err, QS_E_UNSUPPORTED, "training of %s is not built: such models can be run, llama "
                "(with plain rotary positions) and deepseek ones trained too",
                c->rope_freqs ? "a llama with a tensor rope_freqs" : qsi_arch_name(c->arch));
    if (o->max_rows < 1)
        QS_FAIL(err, QS_E_ARG, "a micro-batch of %d rows", o->max_rows);
    if (o->comm && o->comm->size > 1)
        QS_FAIL(err, QS_E_UNSUPPORTED, "training a cut model: one process only");
    t = qsi_calloc(1, sizeof *t);
    if (!t) QS_FAIL(err, QS_E_NOMEM, "no memory for a model");
    qsi_arena_init(&t->ar);
    t->c = *c;
    t->o = *o;
    if (!t->o.comm) t->o.comm = qsi_comm_self();
    t->k = qsi_kern_get(o->isa);
    t->kind = o->precision == QSI_TRAIN_BF16 ? QSI_MM_BF16 : QSI_MM_F32;
    bool ok = true;
    t->g = take(t, c->n_layer, sizeof *t->g, &ok);
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "no memory for %d layers", c->n_layer);
    QS_TRY(qsi_shard_init(&t->shard, &t->c, t->o.comm, err));
    QS_TRY(params_init(t, err));
    QS_TRY(bind_all(t, err));
    QS_TRY(buffers_init(t, err));
    QS_TRY(loss_init(t, err));
    *out = t;
    t = NULL;
done:
    qsi_tm_free(t);
    return st;
}

void qsi_tm_free(qsi_trainer_model *t) {
    if (!t) return;
    qsi_weights_release(&t->w, &t->c);
    qsi_arena_release(&t->ar);
    qsi_free(t);
}

/* ---- parameters ---- */
size_t qsi_tm_n_params(const qsi_trainer_model *t) {
    return t->n_params;
}

qsi_param *qsi_tm_param(qsi_trainer_model *t, size_t i) {
    QS_CHECK(i < t->n_params);
    return &t->params[i];
}

static void fill_params(const qsi_worker *w, void *arg) {
    qsi_trainer_model *t = arg;
    qsi_op o;
    op_init(&o, w, t);
    qsi_op_end(&o);
    for (int64_t i; (i = qsi_op_take(&o)) < (int64_t)t->n_params;) {
        qsi_param *p = &t->params[i];
        qsi_rng r;
        qsi_rng_init_stream(&r, t->seed, (uint64_t)i);
        for (int64_t j = 0; j < p->n; j++)
            p->master[j] = t->specs[i].role == QSI_ROLE_NORM
                               ? 1.0f
                               : (float)(qsi_rng_normal(&r) * (double)t->std);
    }
    qsi_op_end(&o);
}

void qsi_tm_init_random(qsi_trainer_model *t, uint64_t seed, float std) {
    t->seed = seed;
    t->std = std;
    qsi_pool_run(t->o.pool, fill_params, t);
    qsi_tm_refresh(t);
}

qs_status qsi_tm_load_gguf(qsi_trainer_model *t, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < t->n_params; i++) {
        qsi_param *p = &t->params[i];
        const qsi_gguf_tensor *x = qsi_gguf_tensor_find(g, p->name);
        if (!x && strcmp(p->name, "output.weight") == 0)
            x = qsi_gguf_tensor_find(g, "token_embd.weight"); /* tied */
        if (!x) QS_FAIL(err, QS_E_NOTFOUND, "%s has no tensor %s", qsi_gguf_path(g), p->name);
        if (x->ne[0] != p->ne[0] || x->ne[1] != p->ne[1] || x->ne[2] != p->ne[2] || x->ne[3] != 1)
            QS_FAIL(err, QS_E_FORMAT, "tensor %s is [%" PRId64 ", %" PRId64 ", %" PRId64 "], the "
                    "configuration needs [%" PRId64 ", %" PRId64 ", %" PRId64 "]", p->name,
                    x->ne[0], x->ne[1], x->ne[2], p->ne[0], p->ne[1], p->ne[2]);
        const qsi_type_info *ti = qsi_type_get(x->type);
        if (!ti || !ti->decode || !ti->weights)
            QS_FAIL(err, QS_E_UNSUPPORTED, "tensor %s has type %s, which is not read here", p->name,
                    ti ? ti->name : "unknown");
        ti->decode(x->data, p->master, p->n);
        qsi_gguf_drop(g, x);
    }
    qsi_tm_refresh(t);
done:
    return st;
}

static void refresh_all(const qsi_worker *wk, void *arg) {
    qsi_trainer_model *t = arg;
    qsi_op o;
    op_init(&o, wk, t);
    qsi_op_end(&o);
    qsi_weight_refresh(&o, t->w.head, t->shadow);
    for (int32_t l = 0; l < t->c.n_layer; l++) {
        qsi_layer_weights *y = &t->w.layers[l];
        qsi_weight *all[] = {y->q, y->k, y->v, y->o, y->gate, y->up, y->down, y->router};
        for (size_t i = 0; i < QSI_COUNT(all); i++)
            if (all[i]) qsi_weight_refresh(&o, all[i], t->shadow);
        for (int32_t e = 0; y->egate && e < t->c.n_expert; e++) {
            qsi_weight_refresh(&o, y->egate[e], t->shadow);
            qsi_weight_refresh(&o, y->eup[e], t->shadow);
            qsi_weight_refresh(&o, y->edown[e], t->shadow);
        }
    }
}

void qsi_tm_refresh(qsi_trainer_model *t) {
    qsi_pool_run(t->o.pool, refresh_all, t);
}

static void zero_grads(const qsi_worker *w, void *arg) {
    qsi_trainer_model *t = arg;
    for (size_t i = 0; i < t->n_params; i++) {
        int64_t b = 0, e = 0;
        qsi_share(w, t->params[i].n, 16, &b, &e);
        memset(t->params[i].grad + b, 0, (size_t)(e - b) * sizeof(float));
    }
}

void qsi_tm_zero_grad(qsi_trainer_model *t) {
    qsi_pool_run(t->o.pool, zero_grads, t);
}

/* ---- the step ---- */
static void step(const qsi_worker *w, void *arg) {
    qsi_trainer_model *t = arg;
    qsi_op o;
    op_init(&o, w, t);
    qsi_mem_guard_begin();
    qsi_op_end(&o); /* zeroes the tickets of the next turn */
    qsi_rope_prepare(&o, &t->f);
    qsi_embed_forward(&o, &t->f, t->x0);
    qsi_layers_forward(&o, &t->f, t->save_ptr);
    qsi_loss_run(&o, &t->f, &t->loss);
    if (t->loss.dx) {
        qsi_layers_backward(&o, &t->b, t->save_ptr, t->g);
        qsi_embed_backward(&o, &t->f, t->b.dx, t->g_embed);
    }
    qsi_mem_guard_end();
}

static qs_status check_batch(const qsi_trainer_model *t, const qsi_train_batch *b, qs_err *err) {
    qs_status st = QS_OK;
    if (b->n_rows < 1 || b->n_rows > t->o.max_rows)
        QS_FAIL(err, QS_E_ARG, "a micro-batch of %d rows, 1 to %d are possible", b->n_rows,
                t->o.max_rows);
    for (int32_t i = 0; i < b->n_rows; i++) {
        if (b->ids[i] < 0 || b->ids[i] >= t->c.n_vocab)
            QS_FAIL(err, QS_E_ARG, "row %d: id %d, the vocabulary has %d", i, b->ids[i],
                    t->c.n_vocab);
        if (b->targets[i] < -1 || b->targets[i] >= t->c.n_vocab)
            QS_FAIL(err, QS_E_ARG, "row %d: target %d, the vocabulary has %d", i, b->targets[i],
                    t->c.n_vocab);
    }
done:
    return st;
}

qs_status qsi_tm_loss(qsi_trainer_model *t, const qsi_train_batch *b, bool backward,
                      float balance_share, qsi_train_out *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_fwd *f = &t->f;
    double balance = 0;
    QS_TRY(check_batch(t, b, err));
    f->n = b->n_rows;
    f->ids = b->ids;
    f->pos = b->pos;
    QS_TRY(qsi_fwd_segments(f, b->seq, true, err));
    f->load = backward && t->c.n_expert ? t->load : NULL;
    f->balance = t->c.n_expert > 0;
    f->balance_per_seq = t->o.balance_per_seq;
    f->balance_factor = t->o.balance_alpha * balance_share;
    f->balance_sum = &balance;
    f->comm_status = QS_OK;
    qsi_loss *l = &t->loss;
    l->n = 0;
    for (int32_t i = 0; i < b->n_rows; i++) {
        if (b->targets[i] < 0) continue;
        t->rows[l->n] = i;
        t->targets[l->n++] = b->targets[i];
    }
    l->x = t->saves[t->c.n_layer - 1].x_out;
    l->scale = b->scale;
    l->dx = backward ? t->b.dx : NULL;
    qsi_pool_run(t->o.pool, step, t);
    if (f->comm_status != QS_OK)
        QS_FAIL(err, f->comm_status, "a sum over processes failed in the step");
    *out = (qsi_train_out){.n_targets = l->n, .balance = balance};
    for (int64_t i = 0; i < l->n; i++) out->loss_sum += l->nll[i];
done:
    return st;
}

void qsi_tm_expert_load(qsi_trainer_model *t, int64_t *out) {
    size_t n = (size_t)t->c.n_layer * (size_t)t->c.n_expert * sizeof *out;
    memcpy(out, t->load, n);
    memset(t->load, 0, n);
}

size_t qsi_tm_bytes(const qsi_trainer_model *t) {
    size_t n = t->ar.total + qsi_weight_bytes(t->w.head);
    for (int32_t l = 0; l < t->c.n_layer; l++) {
        const qsi_layer_weights *y = &t->w.layers[l];
        const qsi_weight *all[] = {y->q, y->k, y->v, y->o, y->gate, y->up, y->down, y->router};
        for (size_t i = 0; i < QSI_COUNT(all); i++) n += all[i] ? qsi_weight_bytes(all[i]) : 0;
        for (int32_t e = 0; y->egate && e < t->c.n_expert; e++)
            n += qsi_weight_bytes(y->egate[e]) + qsi_weight_bytes(y->eup[e]) +
                 qsi_weight_bytes(y->edown[e]);
    }
    return n;
}
