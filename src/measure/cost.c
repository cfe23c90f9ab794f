/* Operations and bytes of a model, and the seconds that the machine's limits leave for them. */
#include <math.h>
#include <string.h>

#include "measure/bench.h"

static int peak_of(qsi_type t) {
    const qsi_type_info *ti = qsi_type_get(t);
    if (ti != NULL && ti->block > 1) return QSI_PEAK_INT8;
    return t == QSI_BF16 ? QSI_PEAK_BF16 : QSI_PEAK_FP32;
}

/* Bytes of a tensor as it is in the file, or in bf16. */
static double bytes_of(const qsi_tensor_spec *s, const qsi_gguf_tensor *t) {
    if (t != NULL) return (double)t->bytes;
    double n = 2;
    for (int i = 0; i < s->n_dims; i++) n *= (double)s->ne[i];
    return n;
}

void qsi_cost_of(qsi_cost *out, const qsi_config *c, const qsi_gguf *g, double cache) {
    bool tied = g != NULL && qsi_gguf_tensor_find(g, "output.weight") == NULL;
    *out = (qsi_cost){.experts = c->n_expert, .experts_used = c->n_expert_used,
                      .attn_bf16 = g != NULL && cache < sizeof(float)};
    for (size_t i = 0; i < qsi_config_n_tensors(c); i++) {
        qsi_tensor_spec s;
        qsi_config_tensor(c, i, &s);
        if (s.layer >= c->n_layer) continue; /* not run */
        const qsi_gguf_tensor *t = g != NULL ? qsi_gguf_tensor_find(g, s.name) : NULL;
        if (g != NULL && t == NULL) continue;
        int peak = t != NULL ? peak_of(t->type) : QSI_PEAK_BF16;
        double n = 1, bytes = bytes_of(&s, t);
        for (int d = 0; d < s.n_dims; d++) n *= (double)s.ne[d];
        out->weight_bytes += (int64_t)bytes;
        bool product = s.role != QSI_ROLE_NORM && s.role != QSI_ROLE_BIAS && s.role != QSI_ROLE_FREQS;
        bool wide = t != NULL && (t->type == QSI_F32 || t->type == QSI_F16);
        if (product && wide && strstr(s.name, ".attn_") != NULL && !strstr(s.name, ".indexer."))
            out->attn_bf16 = false;
        bool embed = s.role == QSI_ROLE_EMBED && strcmp(s.name, "output.weight") != 0;
        if (embed && !tied) continue;
        if (embed || s.layer < 0) {
            if (product) out->head_ops[peak] += 2 * n;
            out->shared_bytes += bytes;
        } else if (s.role == QSI_ROLE_EXPERTS) {
            out->layer_ops[peak] += 2 * n * c->n_expert_used / c->n_expert;
            out->expert_bytes += bytes;
        } else {
            if (product) out->layer_ops[peak] += 2 * n;
            out->shared_bytes += bytes;
        }
    }
    /* latent attention: a prompt's rows meet keys and values spelled out, generated ones the latent
     * rows themselves */
    double hl = 2.0 * c->n_layer * c->n_head;
    out->attn_ops = hl * (c->head_dim + (c->kv_rank ? c->d_value : c->head_dim));
    out->attn_decode_ops = c->kv_rank ? hl * (2.0 * c->kv_rank + c->d_rope) : out->attn_ops;
    out->attn_most = c->index_topk;
    out->index_ops = 2.0 * c->n_layer * c->index_heads * c->index_dim;
    double keys = (double)c->n_layer * c->index_dim; /* in Q8_0 beside a cache of Q4_0 (model/kv.c) */
    out->index_bytes = keys * fmax(cache, 34.0 / 32);
    out->cache_bytes = ((double)c->n_layer * (double)qsi_config_cache_row(c) - keys) * cache;
}

void qsi_cost_exact(qsi_cost *c) {
    c->attn_bf16 = false;
    c->layer_ops[QSI_PEAK_FP32] += c->layer_ops[QSI_PEAK_INT8];
    c->head_ops[QSI_PEAK_FP32] += c->head_ops[QSI_PEAK_INT8];
    c->layer_ops[QSI_PEAK_INT8] = c->head_ops[QSI_PEAK_INT8] = 0;
}

static double seconds(const double ops[3], const qsi_limits *l) {
    return (ops[QSI_PEAK_FP32] / l->fp32_gflop_s + ops[QSI_PEAK_BF16] / l->bf16_gflop_s +
            ops[QSI_PEAK_INT8] / l->int8_gop_s) *
           1e-9;
}

/* A level without the instruction has attention in float32, at the higher of the two rates. */
static double attn_seconds(const qsi_cost *c, double ops, const qsi_limits *l) {
    double rate = c->attn_bf16 ? fmax(l->bf16_gflop_s, l->fp32_gflop_s) : l->fp32_gflop_s;
    return ops / rate * 1e-9;
}

/* Sum of 1 .. n. */
static double triangle(double n) { return 0.5 * n * (n + 1); }

double qsi_limit_prefill(const qsi_cost *c, const qsi_limits *l, int64_t n, int64_t depth) {
    double d = (double)depth, end = d + (double)n, few = end, index = 0, attn = 0;
    if (c->attn_most > 0 && c->attn_most < end) { /* the last tokens look at chosen positions */
        few = fmax(c->attn_most, d);
        attn = c->attn_decode_ops * c->attn_most * (end - few);
        index = c->index_ops * (triangle(end) - triangle(few)) / l->fp32_gflop_s * 1e-9;
    }
    attn += c->attn_ops * (triangle(few) - triangle(d));
    return (double)n * seconds(c->layer_ops, l) + seconds(c->head_ops, l) + index +
           attn_seconds(c, attn, l);
}

/* Of E experts, B tokens that choose `used` each evenly at random touch E (1 - (1 - used/E)^B). */
double qsi_cost_touched(const qsi_cost *c, double batch) {
    if (c->experts <= 0) return 0;
    return 1 - pow(1 - c->experts_used / c->experts, batch);
}

qsi_decode_times qsi_decode_times_of(const qsi_cost *c, const qsi_limits *l, int64_t batch,
                                     int64_t depth) {
    double b = (double)batch, pos = (double)depth + 1, scored = 0;
    if (c->attn_most > 0 && c->attn_most < pos) {
        scored = pos;
        pos = c->attn_most;
    }
    double bytes = c->shared_bytes + c->expert_bytes * qsi_cost_touched(c, b) +
                   c->cache_bytes * pos * b + c->index_bytes * scored * b;
    double ops = b * (seconds(c->layer_ops, l) + seconds(c->head_ops, l) +
                      c->index_ops * scored / l->fp32_gflop_s * 1e-9 +
                      attn_seconds(c, c->attn_decode_ops * pos, l));
    return (qsi_decode_times){.bytes_s = bytes / (l->read_gb_s * 1e9), .ops_s = ops};
}

double qsi_limit_decode(const qsi_cost *c, const qsi_limits *l, int64_t batch, int64_t depth) {
    qsi_decode_times t = qsi_decode_times_of(c, l, batch, depth);
    return fmax(t.bytes_s, t.ops_s);
}

double qsi_limit_train(const qsi_cost *c, const qsi_limits *l, int64_t n_pos) {
    double ops = 0;
    for (int i = 0; i < 3; i++) ops += 3 * (c->layer_ops[i] + c->head_ops[i]);
    ops += 3 * c->attn_ops * (double)n_pos / 2;
    return ops / (l->bf16_gflop_s * 1e9);
}
