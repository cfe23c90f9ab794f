/* The tensors of a configuration, in the order they are stored: one table for every kind of layer,
 * each row with the condition under which a layer has it. Source: deepseek-facts 4.1,
 * distills.md. */
#include <stdio.h>
#include <string.h>

#include "model/model.h"

typedef enum when {
    ALWAYS, HEADS, LATENT, LATENT_Q, LATENT_LORA, LATENT_WHOLE, LATENT_SPLIT, DENSE, MOE, BIAS,
    SHARED, QKV_BIAS, QK_NORM, INDEX, INDEX_BIAS, NEXT
} when;

typedef enum kind { DENSE_LAYER, MOE_LAYER, NEXT_LAYER /* predicts further */ } kind;

/* A tensor of a layer; dims as sizes named by letters, resolved by size_of. */
typedef struct layer_tensor {
    const char *name;
    char dims[4];
    qsi_role_t role;
    when when;
} layer_tensor;

static const layer_tensor table[] = {
    {"attn_norm", "d", QSI_ROLE_NORM, ALWAYS},
    {"attn_q", "dq", QSI_ROLE_MATRIX, HEADS},
    {"attn_q", "q", QSI_ROLE_BIAS, QKV_BIAS},
    {"attn_q_norm", "H", QSI_ROLE_NORM, QK_NORM},
    {"attn_k", "dk", QSI_ROLE_MATRIX, HEADS},
    {"attn_k", "k", QSI_ROLE_BIAS, QKV_BIAS},
    {"attn_k_norm", "H", QSI_ROLE_NORM, QK_NORM},
    {"attn_v", "dk", QSI_ROLE_MATRIX, HEADS},
    {"attn_v", "k", QSI_ROLE_BIAS, QKV_BIAS},
    {"attn_q", "dq", QSI_ROLE_MATRIX, LATENT_Q},
    {"attn_q_a", "dQ", QSI_ROLE_MATRIX, LATENT_LORA},
    {"attn_q_a_norm", "Q", QSI_ROLE_NORM, LATENT_LORA},
    {"attn_q_b", "Qq", QSI_ROLE_MATRIX, LATENT_LORA},
    {"attn_kv_a_mqa", "dc", QSI_ROLE_MATRIX, LATENT},
    {"attn_kv_a_norm", "r", QSI_ROLE_NORM, LATENT},
    {"attn_kv_b", "rb", QSI_ROLE_MATRIX, LATENT_WHOLE},
    {"attn_k_b", "prh", QSI_ROLE_MATRIX, LATENT_SPLIT},
    {"attn_v_b", "rvh", QSI_ROLE_MATRIX, LATENT_SPLIT},
    {"indexer.attn_k", "di", QSI_ROLE_MATRIX, INDEX},
    {"indexer.k_norm", "i", QSI_ROLE_NORM, INDEX},
    {"indexer.k_norm", "i", QSI_ROLE_BIAS, INDEX_BIAS},
    {"indexer.proj", "dj", QSI_ROLE_ROUTER, INDEX},
    {"indexer.attn_q_b", "QI", QSI_ROLE_MATRIX, INDEX},
    {"attn_output", "od", QSI_ROLE_MATRIX, ALWAYS},
    {"ffn_norm", "d", QSI_ROLE_NORM, ALWAYS},
    {"ffn_gate", "df", QSI_ROLE_MATRIX, DENSE},
    {"ffn_up", "df", QSI_ROLE_MATRIX, DENSE},
    {"ffn_down", "fd", QSI_ROLE_MATRIX, DENSE},
    {"ffn_gate_inp", "dn", QSI_ROLE_ROUTER, MOE},
    {"exp_probs_b", "n", QSI_ROLE_ROUTER, BIAS},
    {"ffn_gate_exps", "den", QSI_ROLE_EXPERTS, MOE},
    {"ffn_up_exps", "den", QSI_ROLE_EXPERTS, MOE},
    {"ffn_down_exps", "edn", QSI_ROLE_EXPERTS, MOE},
    {"ffn_gate_shexp", "ds", QSI_ROLE_MATRIX, SHARED},
    {"ffn_up_shexp", "ds", QSI_ROLE_MATRIX, SHARED},
    {"ffn_down_shexp", "sd", QSI_ROLE_MATRIX, SHARED},
    {"nextn.eh_proj", "Dd", QSI_ROLE_MATRIX, NEXT},
    {"nextn.enorm", "d", QSI_ROLE_NORM, NEXT},
    {"nextn.hnorm", "d", QSI_ROLE_NORM, NEXT},
    {"nextn.shared_head_norm", "d", QSI_ROLE_NORM, NEXT},
};

static bool has(const qsi_config *c, kind k, when w) {
    bool latent = c->kv_rank > 0, moe = k != DENSE_LAYER && c->n_expert > 0;
    switch (w) {
    case ALWAYS: return true;
    case HEADS: return !latent;
    case LATENT: return latent;
    case LATENT_Q: return latent && c->q_rank == 0;
    case LATENT_LORA: return latent && c->q_rank > 0;
    case LATENT_WHOLE: return latent && c->kv_b_whole;
    case LATENT_SPLIT: return latent && !c->kv_b_whole;
    case DENSE: return !moe;
    case MOE: return moe;
    case BIAS: return moe && c->gate_bias;
    case QKV_BIAS: return qsi_config_qkv_bias(c);
    case QK_NORM: return qsi_config_qk_norm(c);
    case NEXT: return k == NEXT_LAYER;
    case INDEX:
    case INDEX_BIAS: return c->index_topk > 0;
    default: return moe && c->n_shared > 0;
    }
}

static int64_t size_of(const qsi_config *c, char letter) {
    switch (letter) {
    case 'd': return c->d_model;
    case 'D': return 2 * (int64_t)c->d_model;
    case 'q': return (int64_t)c->n_head * c->head_dim;
    case 'k': return (int64_t)c->n_kv_head * c->head_dim;
    case 'o': return qsi_config_out_dim(c);
    case 'Q': return c->q_rank;
    case 'r': return c->kv_rank;
    case 'c': return (int64_t)c->kv_rank + c->d_rope;
    case 'b': return (int64_t)c->n_head * (c->head_dim - c->d_rope + c->d_value);
    case 'p': return c->head_dim - c->d_rope;
    case 'v': return c->d_value;
    case 'h': return c->n_head;
    case 'H': return c->head_dim;
    case 'i': return c->index_dim;
    case 'j': return c->index_heads;
    case 'I': return (int64_t)c->index_heads * c->index_dim;
    case 'f': return c->d_ff;
    case 'e': return c->d_expert;
    case 's': return (int64_t)c->n_shared * c->d_expert;
    default: return c->n_expert;
    }
}

static size_t per_layer(const qsi_config *c, kind k) {
    size_t n = 0;
    for (size_t i = 0; i < QSI_COUNT(table); i++) n += has(c, k, table[i].when);
    return n;
}

static size_t n_dense_layers(const qsi_config *c) {
    return (size_t)(c->n_expert == 0 ? c->n_layer : c->n_dense);
}

size_t qsi_config_n_tensors(const qsi_config *c) {
    size_t dense = n_dense_layers(c), moe = (size_t)c->n_layer - dense;
    return 3 + c->rope_freqs + dense * per_layer(c, DENSE_LAYER) + moe * per_layer(c, MOE_LAYER) +
           (size_t)c->n_next * per_layer(c, NEXT_LAYER);
}

static void outer_tensor(qsi_tensor_spec *out, const char *name, qsi_role_t role, int64_t cols,
                         int64_t rows) {
    *out = (qsi_tensor_spec){.n_dims = rows > 0 ? 2 : 1, .ne = {cols, rows > 0 ? rows : 1, 1},
                             .role = role, .layer = -1};
    snprintf(out->name, sizeof out->name, "%s.weight", name);
}

/* Tensor n of a layer of one kind. */
static const layer_tensor *nth(const qsi_config *c, kind k, size_t n) {
    size_t i = 0;
    for (;; i++)
        if (has(c, k, table[i].when) && n-- == 0) break;
    return &table[i];
}

/* Tensor i of all layers in their order: its layer. */
static const layer_tensor *find(const qsi_config *c, size_t i, size_t *layer) {
    size_t dense = n_dense_layers(c);
    const size_t layers[] = {dense, (size_t)c->n_layer - dense, (size_t)c->n_next};
    *layer = 0;
    for (int k = DENSE_LAYER; k < NEXT_LAYER; k++) {
        size_t per = per_layer(c, (kind)k);
        if (i < layers[k] * per) {
            *layer += i / per;
            return nth(c, (kind)k, i % per);
        }
        i -= layers[k] * per;
        *layer += layers[k];
    }
    size_t per = per_layer(c, NEXT_LAYER);
    *layer += i / per;
    return nth(c, NEXT_LAYER, i % per);
}

void qsi_config_tensor(const qsi_config *c, size_t i, qsi_tensor_spec *out) {
    size_t n = qsi_config_n_tensors(c), layer = 0;
    QS_CHECK(i < n);
    if (i == 0) {
        outer_tensor(out, "token_embd", QSI_ROLE_EMBED, c->d_model, c->n_vocab);
        return;
    }
    if (i == 1 && c->rope_freqs) {
        outer_tensor(out, "rope_freqs", QSI_ROLE_FREQS, qsi_config_rope_dim(c) / 2, 0);
        return;
    }
    if (i == n - 2) {
        outer_tensor(out, "output_norm", QSI_ROLE_NORM, c->d_model, 0);
        return;
    }
    if (i == n - 1) {
        outer_tensor(out, "output", QSI_ROLE_MATRIX, c->d_model, c->n_vocab);
        return;
    }
    const layer_tensor *t = find(c, i - 1 - c->rope_freqs, &layer);
    *out = (qsi_tensor_spec){.ne = {1, 1, 1}, .role = t->role, .layer = (int32_t)layer};
    for (const char *d = t->dims; *d; d++) out->ne[out->n_dims++] = size_of(c, *d);
    snprintf(out->name, sizeof out->name, "blk.%zu.%s.%s", layer, t->name,
             t->when == BIAS || t->when == QKV_BIAS || t->when == INDEX_BIAS ? "bias" : "weight");
}

int64_t qsi_config_params(const qsi_config *c, int64_t *active) {
    int64_t total = 0, idle = 0;
    for (size_t i = 0; i < qsi_config_n_tensors(c); i++) {
        qsi_tensor_spec t;
        qsi_config_tensor(c, i, &t);
        int64_t n = t.ne[0] * t.ne[1] * t.ne[2];
        if (t.layer >= c->n_layer) continue;
        total += n;
        if (t.role == QSI_ROLE_EMBED) idle += n;
        if (t.role == QSI_ROLE_EXPERTS) idle += n / c->n_expert * (c->n_expert - c->n_expert_used);
    }
    if (active != NULL) *active = total - idle;
    return total;
}
