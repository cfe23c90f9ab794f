/* Every product of the layers is a job that names its weight (op.h): before the jobs run, worker 0
 * adds the rows that enter them; latent attention shows what its heads' matrices take (mla.c). A
 * job's weight is found by its address in a sorted table; two matrices with one input may share a
 * place. */
#include "model/importance.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/watch.h"

typedef struct place {
    const qsi_weight *w;
    uint32_t entry, index;
} place;

struct qsi_importance {
    qsi_importance_entry *e;
    size_t n, cap;
    place *places; /* by w */
    size_t n_places, cap_places;
};

/* n weights of one shape as one entry; none where the first is missing. */
static qs_status add_entry(qsi_importance *x, int32_t layer, const char *part, qsi_weight *const *w,
                           int32_t n) {
    qs_status st = QS_OK;
    void *p = x->e, *q = x->places;
    if (n == 0 || w == NULL || w[0] == NULL) return st;
    QS_TRY(qsi_grow(&p, &x->cap, x->n + 1, sizeof *x->e));
    x->e = p;
    QS_TRY(qsi_grow(&q, &x->cap_places, x->n_places + (size_t)n, sizeof *x->places));
    x->places = q;
    qsi_importance_entry *e = &x->e[x->n];
    *e = (qsi_importance_entry){.k = qsi_weight_cols(w[0]), .n = n};
    if (layer >= 0) snprintf(e->name, sizeof e->name, "blk.%" PRId32 ".%s.weight", layer, part);
    else snprintf(e->name, sizeof e->name, "%s.weight", part);
    e->sum = qsi_calloc((size_t)n * (size_t)e->k, sizeof *e->sum);
    e->count = qsi_calloc((size_t)n, sizeof *e->count);
    x->n++; /* free copes with what is missing */
    if (e->sum == NULL || e->count == NULL) return QS_E_NOMEM;
    for (int32_t i = 0; i < n; i++)
        x->places[x->n_places++] = (place){w[i], (uint32_t)(x->n - 1), (uint32_t)i};
done:
    return st;
}

/* Latent attention's matrices of the heads: whole, of which all rows take the same, or in two. */
static qs_status add_heads(qsi_importance *x, const qsi_config *c, int32_t l,
                           const qsi_mla_weights *w) {
    qs_status st = QS_OK;
    if (c->kv_rank == 0) goto done;
    if (c->kv_b_whole) {
        QS_TRY(add_entry(x, l, "attn_kv_b", w->v, 1));
        goto done;
    }
    QS_TRY(add_entry(x, l, "attn_k_b", w->kt, c->n_head));
    QS_TRY(add_entry(x, l, "attn_v_b", w->v, c->n_head));
done:
    return st;
}

static qs_status add_layer(qsi_importance *x, const qsi_config *c, int32_t l,
                           const qsi_layer_weights *w) {
    qs_status st = QS_OK;
    bool moe = qsi_layer_is_moe(c, l);
    QS_TRY(add_entry(x, l, "attn_q_a", &w->mla.q_a, 1));
    QS_TRY(add_entry(x, l, w->mla.q_a != NULL ? "attn_q_b" : "attn_q", &w->q, 1));
    QS_TRY(add_entry(x, l, "attn_kv_a_mqa", &w->mla.kv_a, 1));
    QS_TRY(add_heads(x, c, l, &w->mla));
    QS_TRY(add_entry(x, l, "indexer.attn_k", &w->index.k, 1));
    /* it multiplies what attn_q_b does, but only beyond index_topk positions, which windows of a
     * text seldom reach */
    if (w->index.q != NULL) QS_TRY(add_entry(x, l, "indexer.attn_q_b", &w->q, 1));
    QS_TRY(add_entry(x, l, "attn_k", &w->k, 1));
    QS_TRY(add_entry(x, l, "attn_v", &w->v, 1));
    QS_TRY(add_entry(x, l, "attn_output", &w->o, 1));
    QS_TRY(add_entry(x, l, moe ? "ffn_gate_shexp" : "ffn_gate", &w->gate, 1));
    QS_TRY(add_entry(x, l, moe ? "ffn_up_shexp" : "ffn_up", &w->up, 1));
    QS_TRY(add_entry(x, l, moe ? "ffn_down_shexp" : "ffn_down", &w->down, 1));
    if (!moe) goto done;
    QS_TRY(add_entry(x, l, "ffn_gate_exps", w->egate, c->n_expert));
    QS_TRY(add_entry(x, l, "ffn_up_exps", w->eup, c->n_expert));
    QS_TRY(add_entry(x, l, "ffn_down_exps", w->edown, c->n_expert));
done:
    return st;
}

static int by_weight(const void *a, const void *b) {
    uintptr_t x = (uintptr_t)((const place *)a)->w, y = (uintptr_t)((const place *)b)->w;
    return (x > y) - (x < y);
}

qs_status qsi_importance_create(qsi_importance **out, const qsi_model *m, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = qsi_model_config(m);
    const qsi_weights *w = qsi_model_weights(m);
    qsi_importance *x = qsi_calloc(1, sizeof *x);
    if (x == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    for (int32_t l = 0; l < c->n_layer && st == QS_OK; l++) st = add_layer(x, c, l, &w->layers[l]);
    if (st == QS_OK)
        st = add_entry(x, -1, qsi_model_tied(m) ? "token_embd" : "output", &w->head, 1);
    if (st != QS_OK) QS_FAIL(err, st, "no memory for the importance of %zu matrices", x->n_places);
    qsort(x->places, x->n_places, sizeof *x->places, by_weight);
    *out = x;
    x = NULL;
done:
    qsi_importance_free(x);
    return st;
}

void qsi_importance_free(qsi_importance *x) {
    if (x == NULL) return;
    for (size_t i = 0; i < x->n; i++) {
        qsi_free(x->e[i].sum);
        qsi_free(x->e[i].count);
    }
    qsi_free(x->e);
    qsi_free(x->places);
    qsi_free(x);
}

size_t qsi_importance_count(const qsi_importance *x) { return x->n; }

const qsi_importance_entry *qsi_importance_at(const qsi_importance *x, size_t i) { return &x->e[i]; }

/* Adds the squares of n values. */
static void add_values(double *sum, const float *v, int64_t n) {
    for (int64_t j = 0; j < n; j++) sum[j] += (double)v[j] * (double)v[j];
}

static void add_codes(double *sum, const int8_t *q, float d, int64_t n) {
    double dd = (double)d * (double)d;
    for (int64_t j = 0; j < n; j++) sum[j] += dd * (double)((int32_t)q[j] * q[j]);
}

/* One row in the form that its product reads. */
static void add_row(double *sum, unsigned form, const char *row, int64_t k) {
    switch (form) {
    case QSI_ACT_BF16:
        for (int64_t j = 0; j < k; j++) {
            uint16_t h;
            memcpy(&h, row + 2 * j, sizeof h);
            float v = qsi_bf16_to_f32(h);
            add_values(sum + j, &v, 1);
        }
        break;
    case QSI_ACT_Q8:
        for (int64_t j = 0; j < k; j += 32, row += sizeof(qsi_act8)) {
            qsi_act8 b;
            memcpy(&b, row, sizeof b);
            add_codes(sum + j, b.qs, b.d, 32);
        }
        break;
    case QSI_ACT_K8:
        for (int64_t j = 0; j < k; j += 256, row += sizeof(qsi_actk)) {
            qsi_actk b;
            memcpy(&b, row, sizeof b);
            add_codes(sum + j, b.qs, b.d, 256);
        }
        break;
    default: add_values(sum, (const float *)(const void *)row, k); break;
    }
}

static void add_job(qsi_importance *x, const place *p, const qsi_mm_job *j) {
    qsi_importance_entry *e = &x->e[p->entry];
    double *sum = e->sum + (int64_t)p->index * e->k;
    for (int64_t r = 0; r < j->m; r++)
        add_row(sum, qsi_act_form(j->kind), (const char *)j->a + (size_t)r * j->lda, e->k);
    e->count[p->index] += j->m;
}

void qsi_importance_add(void *user, const qsi_mm_job *jobs, int n_jobs) {
    qsi_importance *x = user;
    for (int i = 0; i < n_jobs; i++) {
        const qsi_mm_job *j = &jobs[i];
        place key = {.w = j->w};
        const place *p = bsearch(&key, x->places, x->n_places, sizeof key, by_weight);
        if (p == NULL) continue;
        while (p > x->places && p[-1].w == j->w) p--;
        for (; p < x->places + x->n_places && p->w == j->w; p++) add_job(x, p, j);
    }
}
