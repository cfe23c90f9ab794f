/* The table of a model's bound weights. */
#include <string.h>

#include "model/layer.h"

static void free_list(qsi_weight **w, int32_t n) {
    if (!w) return;
    for (int32_t i = 0; i < n; i++) qsi_weight_free(w[i]);
    qsi_free(w);
}

qs_status qsi_weights_init(qsi_weights *w, const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    *w = (qsi_weights){0};
    w->layers = qsi_calloc((size_t)qsi_config_blocks(c), sizeof *w->layers);
    if (!w->layers) QS_FAIL(err, QS_E_NOMEM, "no memory for %d layers", qsi_config_blocks(c));
    for (int32_t l = 0; l < qsi_config_blocks(c) && c->kv_rank; l++) {
        qsi_mla_weights *y = &w->layers[l].mla;
        y->k = qsi_calloc((size_t)c->n_head, sizeof *y->k);
        y->kt = qsi_calloc((size_t)c->n_head, sizeof *y->kt);
        y->v = qsi_calloc((size_t)c->n_head, sizeof *y->v);
        if (!y->k || !y->kt || !y->v)
            QS_FAIL(err, QS_E_NOMEM, "no memory for %d heads", c->n_head);
    }
    for (int32_t l = 0; l < qsi_config_blocks(c); l++) {
        if (!qsi_layer_is_moe(c, l)) continue;
        qsi_layer_weights *y = &w->layers[l];
        y->egate = qsi_calloc((size_t)c->n_expert, sizeof *y->egate);
        y->eup = qsi_calloc((size_t)c->n_expert, sizeof *y->eup);
        y->edown = qsi_calloc((size_t)c->n_expert, sizeof *y->edown);
        if (!y->egate || !y->eup || !y->edown)
            QS_FAIL(err, QS_E_NOMEM, "no memory for %d experts", c->n_expert);
    }
done:
    return st;
}

void qsi_weights_release(qsi_weights *w, const qsi_config *c) {
    for (int32_t l = 0; w->layers && l < qsi_config_blocks(c); l++) {
        qsi_layer_weights *y = &w->layers[l];
        qsi_weight *all[] = {y->q,  y->k,    y->v,      y->o,       y->gate,
                             y->up, y->down, y->router, y->mla.q_a, y->mla.kv_a,
                             y->index.q, y->index.k, y->index.proj};
        for (size_t i = 0; i < QSI_COUNT(all); i++) qsi_weight_free(all[i]);
        free_list(y->egate, c->n_expert);
        free_list(y->eup, c->n_expert);
        free_list(y->edown, c->n_expert);
        free_list(y->mla.k, c->n_head);
        free_list(y->mla.kt, c->n_head);
        free_list(y->mla.v, c->n_head);
    }
    qsi_weight_free(w->head);
    qsi_weight_free(w->next.eh);
    qsi_free(w->layers);
    qsi_free(w->norms);
    *w = (qsi_weights){0};
}

int64_t qsi_weights_file_bytes(const qsi_gguf *g) {
    int64_t n = 0;
    bool head = qsi_gguf_tensor_find(g, "output.weight") != NULL;
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *x = qsi_gguf_tensor_at(g, i);
        if (x->n_dims < 2 || (head && strcmp(x->name, "token_embd.weight") == 0)) continue;
        n += (int64_t)x->bytes;
    }
    return n;
}
