/* What shape a model has: read from GGUF keys or a Hugging Face config.json, checked, written.
 *
 * Invariant: a configuration that passed qsi_config_check has dims whose products (weights of the
 * whole model included) fit int64_t with room to spare. Keys that follow from others are optional.
 * Source: deepseek-facts 1.1 to 1.3, 2.3 to 2.5, 2.7, 4.1, 4.3.
 *
 * deepseek2 has two layouts of the same weights. The older one names the sizes of the naive form
 * (key_length 192, value_length 128, as many kv heads as heads) and stores attn_kv_b whole; the
 * newer one names those of the absorbed form (key_length 576, value_length 512, one kv head; the
 * others in key_length_mla and value_length_mla) and stores attn_k_b and attn_v_b. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fmt/json.h"
#include "model/model.h"

/* Far above every published model, far below overflow: 2^10 layers x 2^10 experts x 3 matrices of
 * 2^17 x 2^19 are under 2^59 weights. */
enum {
    MAX_VOCAB = 1 << 24, MAX_LAYER = 1 << 10, MAX_D_MODEL = 1 << 17, MAX_FF = 1 << 19,
    MAX_HEAD = 1 << 12, MAX_HEAD_DIM = 1 << 12, MAX_CTX = 1 << 26, MAX_EXPERT = 1 << 10,
    MAX_SHARED = 1 << 6, MAX_RANK = 1 << 14, MAX_NEXT = 8
};

static const char *const arch_names[] = {[QSI_ARCH_LLAMA] = "llama",
                                         [QSI_ARCH_DEEPSEEK] = "deepseek",
                                         [QSI_ARCH_DEEPSEEK2] = "deepseek2",
                                         [QSI_ARCH_DEEPSEEK32] = "deepseek32",
                                         [QSI_ARCH_QWEN2] = "qwen2",
                                         [QSI_ARCH_QWEN3] = "qwen3"};

const char *qsi_arch_name(qsi_arch a) {
    return (unsigned)a < QSI_COUNT(arch_names) ? arch_names[a] : "?";
}

/* ---- check ---- */

typedef struct bound {
    const char *key; /* GGUF key without the architecture */
    int64_t value, least, most;
} bound;

static qs_status check_bounds(const qsi_config *c, const bound *b, size_t n, qs_err *err) {
    for (size_t i = 0; i < n; i++) {
        if (b[i].value < b[i].least || b[i].value > b[i].most) {
            return qsi_err_set(err, QS_E_RANGE,
                               "%s.%s is %" PRId64 ": it must be %" PRId64 " to %" PRId64,
                               qsi_arch_name(c->arch), b[i].key, b[i].value, b[i].least, b[i].most);
        }
    }
    return QS_OK;
}

static qs_status check_number(const qsi_config *c, const char *key, double v, double most,
                              qs_err *err) {
    if (isfinite(v) && v > 0 && v <= most) return QS_OK;
    return qsi_err_set(err, QS_E_RANGE, "%s.%s is %g: it must be above 0, at most %g",
                       qsi_arch_name(c->arch), key, v, most);
}

static qs_status check_routing(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    bool grouped = c->n_group > 1;
    if ((c->gating == QSI_GATE_SIGMOID || grouped || c->gate_bias) && !qsi_config_is_latent(c))
        QS_FAIL(err, QS_E_UNSUPPORTED, "routing by sigmoid, by groups or with a bias needs "
                "architecture deepseek2 or deepseek32");
    const bound b[] = {
        {"expert_gating_func", (int64_t)c->gating, 0, QSI_GATE_SIGMOID},
        {"expert_group_count", c->n_group, 0, c->n_expert},
        {"expert_group_used_count", c->n_group_used, grouped ? 1 : 0, grouped ? c->n_group : 1},
    };
    QS_TRY(check_bounds(c, b, QSI_COUNT(b), err));
    if (!grouped) goto done;
    int32_t per = c->n_expert / c->n_group;
    if (c->n_expert % c->n_group != 0 || c->n_group_used * per < c->n_expert_used || per < 2)
        QS_FAIL(err, QS_E_RANGE, "%s.expert_group_count is %d, %d of them used: %d experts cannot "
                "be grouped so", qsi_arch_name(c->arch), (int)c->n_group, (int)c->n_group_used,
                (int)c->n_expert);
done:
    return st;
}

static qs_status check_experts(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    if (c->n_expert == 0) {
        if (c->n_expert_used != 0 || c->n_shared != 0) {
            QS_FAIL(err, QS_E_RANGE, "%s.expert_count is 0 or missing, but experts are used",
                    qsi_arch_name(c->arch));
        }
        goto done;
    }
    if (qsi_config_is_dense(c)) {
        QS_FAIL(err, QS_E_UNSUPPORTED,
                "%s.expert_count is %d: experts need architecture deepseek, deepseek2 or deepseek32",
                qsi_arch_name(c->arch), (int)c->n_expert);
    }
    const bound b[] = {
        {"leading_dense_block_count", c->n_dense, 0, c->n_layer},
        {"expert_count", c->n_expert, 1, MAX_EXPERT},
        {"expert_used_count", c->n_expert_used, 1, c->n_expert},
        {"expert_shared_count", c->n_shared, 0, MAX_SHARED},
        {"expert_feed_forward_length", c->d_expert, 1,
         MAX_FF / (c->n_shared > 0 ? c->n_shared : 1)},
    };
    QS_TRY(check_bounds(c, b, QSI_COUNT(b), err));
    QS_TRY(check_number(c, "expert_weights_scale", c->expert_scale, 1e4, err));
    QS_TRY(check_routing(c, err));
done:
    return st;
}

/* The sizes of the indexer. */
static qs_status check_indexer(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    bool has = c->arch == QSI_ARCH_DEEPSEEK32;
    if (!has) {
        if (c->index_topk || c->index_heads || c->index_dim)
            QS_FAIL(err, QS_E_RANGE, "%s has no sparse attention", qsi_arch_name(c->arch));
        goto done;
    }
    const bound b[] = {
        {"attention.indexer.top_k", c->index_topk, 1, MAX_CTX},
        {"attention.indexer.head_count", c->index_heads, 1, MAX_HEAD},
        {"attention.indexer.key_length", c->index_dim, c->d_rope, MAX_HEAD_DIM},
        {"attention.q_lora_rank", c->q_rank, 1, MAX_RANK},
    };
    QS_TRY(check_bounds(c, b, QSI_COUNT(b), err));
done:
    return st;
}

/* The sizes of multi-head latent attention. */
static qs_status check_latent(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    if (!qsi_config_is_latent(c)) {
        if (c->kv_rank || c->q_rank || c->d_rope || c->d_value)
            QS_FAIL(err, QS_E_RANGE, "%s has no attention over latent vectors",
                    qsi_arch_name(c->arch));
        goto done;
    }
    const bound b[] = {
        {"attention.kv_lora_rank", c->kv_rank, 1, MAX_RANK},
        {"attention.q_lora_rank", c->q_rank, 0, MAX_RANK},
        {"rope.dimension_count", c->d_rope, 2, c->head_dim - 1},
        {"attention.value_length", c->d_value, 1, MAX_HEAD_DIM},
        {"attention.head_count_kv", c->n_kv_head, c->n_head, c->n_head},
    };
    QS_TRY(check_bounds(c, b, QSI_COUNT(b), err));
    if (c->d_rope % 2 != 0)
        QS_FAIL(err, QS_E_RANGE, "%s.rope.dimension_count is %d: it must be even",
                qsi_arch_name(c->arch), (int)c->d_rope);
done:
    return st;
}

/* What tensor rope_freqs is made from; 0: it comes with a file. */
static qs_status check_freqs(const qsi_config *c, qs_err *err) {
    if (c->rope_freqs && c->arch != QSI_ARCH_LLAMA)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "tensor rope_freqs needs architecture llama");
    if (c->freqs_factor == 0) return QS_OK;
    bool good = c->rope_freqs && c->freqs_factor >= 1 && c->freqs_factor <= 1e6f &&
                c->freqs_low > 0 && c->freqs_high > c->freqs_low && c->freqs_high <= 1e6f &&
                c->freqs_orig_ctx >= 1 && c->freqs_orig_ctx <= MAX_CTX;
    if (good) return QS_OK;
    return qsi_err_set(err, QS_E_RANGE, "rotary positions by factor %g between %g and %g turns in %d "
                       "positions make no sense", (double)c->freqs_factor, (double)c->freqs_low,
                       (double)c->freqs_high, (int)c->freqs_orig_ctx);
}

static qs_status check_rope(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(check_freqs(c, err));
    QS_TRY(check_number(c, "rope.freq_base", c->rope_theta, 1e12, err));
    QS_TRY(check_number(c, "rope.scaling.factor", c->rope_factor, 1e6, err));
    if (c->rope_scaling == QSI_ROPE_NONE && c->rope_factor != 1)
        QS_FAIL(err, QS_E_RANGE, "%s.rope.scaling.factor is %g without a rope.scaling.type",
                qsi_arch_name(c->arch), (double)c->rope_factor);
    if (c->rope_scaling != QSI_ROPE_YARN) goto done;
    const bound b[] = {{"rope.scaling.original_context_length", c->rope_orig_ctx, 1, MAX_CTX}};
    QS_TRY(check_bounds(c, b, 1, err));
    QS_TRY(check_number(c, "rope.scaling.yarn_beta_fast", c->yarn_beta_fast, 1e6, err));
    QS_TRY(check_number(c, "rope.scaling.yarn_beta_slow", c->yarn_beta_slow, 1e6, err));
    if (c->yarn_attn != 0)
        QS_TRY(check_number(c, "rope.scaling.attn_factor", c->yarn_attn, 100, err));
    if (!(c->rope_factor > 1) || !(c->yarn_log_mul >= 0 && c->yarn_log_mul <= 100))
        QS_FAIL(err, QS_E_RANGE, "%s.rope.scaling: YaRN with factor %g and log multiplier %g",
                qsi_arch_name(c->arch), (double)c->rope_factor, (double)c->yarn_log_mul);
done:
    return st;
}

qs_status qsi_config_check(const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    if ((unsigned)c->arch >= QSI_COUNT(arch_names)) {
        QS_FAIL(err, QS_E_RANGE, "general.architecture is unknown");
    }
    bool dense_ffn = c->n_expert == 0 || c->n_dense > 0;
    const bound b[] = {
        {"vocab_size", c->n_vocab, 1, MAX_VOCAB},
        {"block_count", c->n_layer, 1, MAX_LAYER},
        {"embedding_length", c->d_model, 1, MAX_D_MODEL},
        {"context_length", c->n_ctx, 1, MAX_CTX},
        {"feed_forward_length", c->d_ff, dense_ffn ? 1 : 0, MAX_FF},
        {"attention.head_count", c->n_head, 1, MAX_HEAD},
        {"attention.head_count_kv", c->n_kv_head, 1, c->n_head},
        {"attention.key_length", c->head_dim, 2, MAX_HEAD_DIM},
    };
    QS_TRY(check_bounds(c, b, QSI_COUNT(b), err));
    if (c->head_dim % 2 != 0 && !qsi_config_is_latent(c)) {
        QS_FAIL(err, QS_E_RANGE, "%s.attention.key_length is %d: a rotated head needs an even size",
                qsi_arch_name(c->arch), (int)c->head_dim);
    }
    if (c->n_head % c->n_kv_head != 0) {
        QS_FAIL(err, QS_E_RANGE, "%s.attention.head_count_kv %d does not divide the %d heads",
                qsi_arch_name(c->arch), (int)c->n_kv_head, (int)c->n_head);
    }
    QS_TRY(check_number(c, "attention.layer_norm_rms_epsilon", c->rms_eps, 1, err));
    QS_TRY(check_rope(c, err));
    QS_TRY(check_latent(c, err));
    QS_TRY(check_indexer(c, err));
    const bound next[] = {
        {"nextn_predict_layers", c->n_next, 0, qsi_config_is_latent(c) ? MAX_NEXT : 0}};
    QS_TRY(check_bounds(c, next, 1, err));
    QS_TRY(check_experts(c, err));
done:
    return st;
}

/* ---- GGUF ---- */

/* Reads keys of one architecture; the first failure sticks. */
typedef struct key_reader {
    const qsi_gguf *g;
    const char *arch;
    qs_err *err;
    qs_status st;
    char key[96];
} key_reader;

static const char *full_key(key_reader *r, const char *key) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, key);
    return r->key;
}

/* An optional key keeps *out when it is missing; a present one must be right. */
static void read_int(key_reader *r, const char *key, bool required, int32_t *out) {
    int64_t v = 0;
    if (r->st != QS_OK) return;
    const char *k = full_key(r, key);
    if (!required && qsi_gguf_find(r->g, k) == NULL) return;
    r->st = qsi_gguf_i64(r->g, k, &v, r->err);
    if (r->st == QS_OK && (v < 0 || v > INT32_MAX)) {
        r->st = qsi_err_set(r->err, QS_E_RANGE, "key %s is %" PRId64 ": out of range", k, v);
    }
    if (r->st == QS_OK) *out = (int32_t)v;
}

static void read_float(key_reader *r, const char *key, bool required, float *out) {
    double v = 0;
    if (r->st != QS_OK) return;
    const char *k = full_key(r, key);
    if (!required && qsi_gguf_find(r->g, k) == NULL) return;
    r->st = qsi_gguf_f64(r->g, k, &v, r->err);
    if (r->st == QS_OK) *out = (float)v;
}

static bool slice_is(qsi_slice s, const char *z) {
    return s.n == strlen(z) && memcmp(s.p, z, s.n) == 0;
}

/* Copies a short string for messages; what a terminal would obey becomes '?'. */
static void printable(qsi_slice s, char *out, size_t cap) {
    size_t n = s.n < cap - 1 ? s.n : cap - 1;
    for (size_t i = 0; i < n; i++) out[i] = s.p[i] >= 0x20 && s.p[i] < 0x7f ? s.p[i] : '?';
    out[n] = '\0';
}

static qs_status read_arch(qsi_config *c, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_slice name = {0};
    char shown[48];
    QS_TRY(qsi_gguf_str(g, "general.architecture", &name, err));
    for (size_t i = 0; i < QSI_COUNT(arch_names); i++) {
        if (slice_is(name, arch_names[i])) {
            c->arch = (qsi_arch)i;
            goto done;
        }
    }
    printable(name, shown, sizeof shown);
    QS_FAIL(err, QS_E_UNSUPPORTED,
            "architecture '%s' is not supported: llama, deepseek, deepseek2, deepseek32, qwen2 and "
            "qwen3 are", shown);
done:
    return st;
}

/* The vocabulary's size: the key, or else what the file holds. */
static void read_vocab(key_reader *r, qsi_config *c) {
    const qsi_gguf_tensor *embed = qsi_gguf_tensor_find(r->g, "token_embd.weight");
    const qsi_gguf_kv *tokens = qsi_gguf_find(r->g, "tokenizer.ggml.tokens");
    int64_t n = 0;
    if (embed != NULL && embed->n_dims == 2) {
        n = embed->ne[1];
    } else if (tokens != NULL && tokens->type == QSI_GV_ARR) {
        n = (int64_t)tokens->count;
    }
    c->n_vocab = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    read_int(r, "vocab_size", n == 0, &c->n_vocab);
}

static void read_heads(key_reader *r, qsi_config *c) {
    int32_t value_dim = 0, rope_dim = 0;
    read_int(r, "attention.head_count", true, &c->n_head);
    c->n_kv_head = c->n_head;
    read_int(r, "attention.head_count_kv", false, &c->n_kv_head);
    c->head_dim = c->n_head > 0 ? c->d_model / c->n_head : 0;
    read_int(r, "attention.key_length", false, &c->head_dim);
    value_dim = rope_dim = c->head_dim;
    read_int(r, "attention.value_length", false, &value_dim);
    read_int(r, "rope.dimension_count", false, &rope_dim);
    if (r->st == QS_OK && (value_dim != c->head_dim || rope_dim != c->head_dim)) {
        r->st =
            qsi_err_set(r->err, QS_E_UNSUPPORTED,
                        "keys of %d, values of %d and rotation of %d per head: they must be equal",
                        (int)c->head_dim, (int)value_dim, (int)rope_dim);
    }
}

static bool has_key(key_reader *r, const char *key) {
    return qsi_gguf_find(r->g, full_key(r, key)) != NULL;
}

/* Heads of latent attention, from the keys of either layout; which one the file has shows in its
 * first layer's tensors. */
static void read_latent(key_reader *r, qsi_config *c) {
    bool newer = has_key(r, "attention.key_length_mla");
    read_int(r, "attention.head_count", true, &c->n_head);
    c->n_kv_head = c->n_head;
    read_int(r, "attention.kv_lora_rank", true, &c->kv_rank);
    read_int(r, "attention.q_lora_rank", false, &c->q_rank);
    read_int(r, newer ? "attention.key_length_mla" : "attention.key_length", true, &c->head_dim);
    read_int(r, newer ? "attention.value_length_mla" : "attention.value_length", true,
             &c->d_value);
    read_int(r, "rope.dimension_count", true, &c->d_rope);
    const qsi_gguf_tensor *whole = qsi_gguf_tensor_find(r->g, "blk.0.attn_kv_b.weight");
    c->kv_b_whole = whole != NULL || (!newer && qsi_gguf_n_tensors(r->g) == 0);
}

static void read_indexer(key_reader *r, qsi_config *c) {
    if (c->arch != QSI_ARCH_DEEPSEEK32) return;
    read_int(r, "attention.indexer.top_k", true, &c->index_topk);
    read_int(r, "attention.indexer.head_count", true, &c->index_heads);
    read_int(r, "attention.indexer.key_length", true, &c->index_dim);
}

static void read_yarn(key_reader *r, qsi_config *c) {
    c->rope_scaling = QSI_ROPE_YARN;
    c->rope_orig_ctx = c->n_ctx;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    read_float(r, "rope.scaling.factor", true, &c->rope_factor);
    read_int(r, "rope.scaling.original_context_length", false, &c->rope_orig_ctx);
    /* the usual 0.1; deepseek2 files say it where it is not 0 */
    c->yarn_log_mul = qsi_config_is_latent(c) ? 0.0f : 0.1f;
    read_float(r, "rope.scaling.yarn_log_multiplier", false, &c->yarn_log_mul);
    read_float(r, "rope.scaling.yarn_beta_fast", false, &c->yarn_beta_fast);
    read_float(r, "rope.scaling.yarn_beta_slow", false, &c->yarn_beta_slow);
    if (!qsi_config_is_latent(c))
        read_float(r, "rope.scaling.attn_factor", false, &c->yarn_attn);
}

static void read_rope(key_reader *r, qsi_config *c) {
    qsi_slice type = {0};
    char shown[32];
    c->rope_theta = 10000;
    c->rope_factor = 1;
    c->rope_freqs = c->arch == QSI_ARCH_LLAMA &&
                    qsi_gguf_tensor_find(r->g, "rope_freqs.weight") != NULL;
    read_float(r, "rope.freq_base", false, &c->rope_theta);
    if (r->st != QS_OK) return;
    const char *k = full_key(r, "rope.scaling.type");
    if (qsi_gguf_find(r->g, k) == NULL) {
        read_float(r, "rope.scale_linear", false, &c->rope_factor); /* files before 2023-10 */
        if (c->rope_factor != 1) c->rope_scaling = QSI_ROPE_LINEAR;
        return;
    }
    r->st = qsi_gguf_str(r->g, k, &type, r->err);
    if (r->st != QS_OK) return;
    if (slice_is(type, "linear")) {
        c->rope_scaling = QSI_ROPE_LINEAR;
        read_float(r, "rope.scaling.factor", true, &c->rope_factor);
    } else if (slice_is(type, "yarn")) {
        read_yarn(r, c);
    } else if (!slice_is(type, "none")) {
        printable(type, shown, sizeof shown);
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED,
                            "key %s is '%s': none, linear and yarn are supported", k, shown);
    }
}

/* The keys of groups are often absent: then V3's 256 experts stand in 8 groups of which 4 count,
 * V2's 160 in 8 of which 3 do (deepseek-facts 1.3, 4.1). */
static void read_groups(key_reader *r, qsi_config *c) {
    c->n_group = c->n_group_used = 1;
    if (!qsi_config_is_latent(c)) return;
    if (c->n_expert == (c->gating == QSI_GATE_SIGMOID ? 256 : 160)) {
        c->n_group = 8;
        c->n_group_used = c->gating == QSI_GATE_SIGMOID ? 4 : 3;
    }
    read_int(r, "expert_group_count", false, &c->n_group);
    read_int(r, "expert_group_used_count", false, &c->n_group_used);
    if (c->n_group <= 1) c->n_group = c->n_group_used = 1;
}

static void read_experts(key_reader *r, qsi_config *c) {
    int32_t gating = QSI_GATE_SOFTMAX;
    char bias[64];
    c->expert_scale = 1;
    read_int(r, "expert_count", !qsi_config_is_dense(c), &c->n_expert);
    if (c->n_expert == 0 || qsi_config_is_dense(c)) return;
    read_int(r, "expert_used_count", true, &c->n_expert_used);
    read_int(r, "expert_feed_forward_length", true, &c->d_expert);
    read_int(r, "expert_shared_count", false, &c->n_shared);
    read_int(r, "leading_dense_block_count", false, &c->n_dense);
    read_float(r, "expert_weights_scale", false, &c->expert_scale);
    read_int(r, "expert_gating_func", false, &gating);
    if (r->st != QS_OK) return;
    if (gating == 0) gating = QSI_GATE_SOFTMAX;
    if (gating != QSI_GATE_SOFTMAX &&
        (gating != QSI_GATE_SIGMOID || !qsi_config_is_latent(c))) {
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED,
                            "key %s is %d: softmax (1) is supported, sigmoid (2) with deepseek2 and "
                            "deepseek32", r->key, (int)gating);
        return;
    }
    c->gating = (qsi_gating)gating;
    if (has_key(r, "expert_weights_norm"))
        r->st = qsi_gguf_bool(r->g, r->key, &c->norm_topk, r->err);
    read_groups(r, c);
    snprintf(bias, sizeof bias, "blk.%d.exp_probs_b.bias", (int)c->n_dense);
    c->gate_bias = qsi_gguf_tensor_find(r->g, bias) != NULL ||
                   (qsi_gguf_n_tensors(r->g) == 0 && gating == QSI_GATE_SIGMOID);
}

/* block_count counts the layers that predict further; some files lack their tensors. */
static void read_next(key_reader *r, qsi_config *c) {
    int32_t n = 0;
    char name[64];
    read_int(r, "nextn_predict_layers", false, &n);
    if (n >= c->n_layer) return;
    c->n_layer -= n;
    snprintf(name, sizeof name, "blk.%d.nextn.eh_proj.weight", (int)c->n_layer);
    bool there = qsi_gguf_tensor_find(r->g, name) != NULL || qsi_gguf_n_tensors(r->g) == 0;
    if (qsi_config_is_latent(c) && there) c->n_next = n;
}

qs_status qsi_config_from_gguf(qsi_config *out, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c = {0};
    QS_TRY(read_arch(&c, g, err));
    key_reader r = {.g = g, .arch = qsi_arch_name(c.arch), .err = err};
    read_vocab(&r, &c);
    read_int(&r, "block_count", true, &c.n_layer);
    read_int(&r, "context_length", true, &c.n_ctx);
    read_int(&r, "embedding_length", true, &c.d_model);
    if (qsi_config_is_latent(&c)) read_latent(&r, &c);
    else read_heads(&r, &c);
    read_indexer(&r, &c);
    read_float(&r, "attention.layer_norm_rms_epsilon", true, &c.rms_eps);
    read_rope(&r, &c);
    read_experts(&r, &c);
    read_next(&r, &c);
    read_int(&r, "feed_forward_length", c.n_expert == 0 || c.n_dense > 0, &c.d_ff);
    QS_TRY(r.st);
    QS_TRY(qsi_config_check(&c, err));
    *out = c;
done:
    return st;
}

/* Puts keys of one architecture; the first failure sticks. */
typedef struct key_writer {
    qsi_gguf_writer *w;
    const char *arch;
    qs_status st;
    char key[96];
} key_writer;

static void put_int(key_writer *k, const char *key, int32_t v) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, key);
    if (k->st == QS_OK) k->st = qsi_gguf_put_u32(k->w, k->key, (uint32_t)v);
}

static void put_float(key_writer *k, const char *key, float v) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, key);
    if (k->st == QS_OK) k->st = qsi_gguf_put_f32(k->w, k->key, v);
}

static void put_text(key_writer *k, const char *key, const char *v) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, key);
    if (k->st == QS_OK) k->st = qsi_gguf_put_str(k->w, k->key, v, strlen(v));
}

static void put_heads(key_writer *k, const qsi_config *c) {
    bool newer = c->kv_rank && !c->kv_b_whole;
    put_int(k, "attention.head_count", c->n_head);
    put_int(k, "attention.head_count_kv", newer ? 1 : c->n_kv_head);
    if (c->kv_rank) {
        put_int(k, "attention.key_length", newer ? c->kv_rank + c->d_rope : c->head_dim);
        put_int(k, "attention.value_length", newer ? c->kv_rank : c->d_value);
        if (newer) put_int(k, "attention.key_length_mla", c->head_dim);
        if (newer) put_int(k, "attention.value_length_mla", c->d_value);
        put_int(k, "attention.kv_lora_rank", c->kv_rank);
        if (c->q_rank) put_int(k, "attention.q_lora_rank", c->q_rank);
        if (c->index_topk) put_int(k, "attention.indexer.top_k", c->index_topk);
        if (c->index_topk) put_int(k, "attention.indexer.head_count", c->index_heads);
        if (c->index_topk) put_int(k, "attention.indexer.key_length", c->index_dim);
    } else if ((int64_t)c->head_dim * c->n_head != c->d_model) {
        put_int(k, "attention.key_length", c->head_dim);
        put_int(k, "attention.value_length", c->head_dim);
    }
}

static void put_rope(key_writer *k, const qsi_config *c) {
    put_float(k, "rope.freq_base", c->rope_theta);
    put_int(k, "rope.dimension_count", qsi_config_rope_dim(c));
    if (c->rope_scaling == QSI_ROPE_LINEAR) {
        put_text(k, "rope.scaling.type", "linear");
        put_float(k, "rope.scaling.factor", c->rope_factor);
    } else if (c->rope_scaling == QSI_ROPE_YARN) {
        put_text(k, "rope.scaling.type", "yarn");
        put_float(k, "rope.scaling.factor", c->rope_factor);
        put_int(k, "rope.scaling.original_context_length", c->rope_orig_ctx);
        if (qsi_config_is_latent(c) || c->yarn_log_mul != 0.1f)
            put_float(k, "rope.scaling.yarn_log_multiplier", c->yarn_log_mul);
        if (c->yarn_attn != 0 && c->yarn_attn != 1)
            put_float(k, "rope.scaling.attn_factor", c->yarn_attn);
        if (c->yarn_beta_fast != 32)
            put_float(k, "rope.scaling.yarn_beta_fast", c->yarn_beta_fast);
        if (c->yarn_beta_slow != 1)
            put_float(k, "rope.scaling.yarn_beta_slow", c->yarn_beta_slow);
    } else if (!qsi_config_is_dense(c)) {
        put_text(k, "rope.scaling.type", "none");
    }
}

static void put_experts(key_writer *k, const qsi_config *c) {
    put_int(k, "leading_dense_block_count", c->n_dense);
    put_int(k, "expert_count", c->n_expert);
    put_int(k, "expert_used_count", c->n_expert_used);
    put_int(k, "expert_shared_count", c->n_shared);
    put_int(k, "expert_feed_forward_length", c->d_expert);
    put_float(k, "expert_weights_scale", c->expert_scale);
    if (qsi_config_is_latent(c)) {
        put_int(k, "expert_gating_func",
                (int32_t)(c->gating ? c->gating : QSI_GATE_SOFTMAX));
        put_int(k, "expert_group_count", c->n_group > 1 ? c->n_group : 1);
        put_int(k, "expert_group_used_count", c->n_group > 1 ? c->n_group_used : 1);
    }
    snprintf(k->key, sizeof k->key, "%s.expert_weights_norm", k->arch);
    if ((c->norm_topk || qsi_config_is_latent(c)) && k->st == QS_OK)
        k->st = qsi_gguf_put_bool(k->w, k->key, c->norm_topk);
}

/* general.architecture and every key of the architecture. */
qs_status qsi_config_put_gguf(const qsi_config *c, qsi_gguf_writer *w) {
    key_writer k = {.w = w, .arch = qsi_arch_name(c->arch)};
    k.st = qsi_gguf_put_str(w, "general.architecture", k.arch, strlen(k.arch));
    put_int(&k, "block_count", qsi_config_blocks(c));
    if (c->n_next > 0) put_int(&k, "nextn_predict_layers", c->n_next);
    put_int(&k, "context_length", c->n_ctx);
    put_int(&k, "embedding_length", c->d_model);
    if (c->d_ff > 0) put_int(&k, "feed_forward_length", c->d_ff);
    put_heads(&k, c);
    put_float(&k, "attention.layer_norm_rms_epsilon", c->rms_eps);
    put_rope(&k, c);
    put_int(&k, "vocab_size", c->n_vocab);
    if (!qsi_config_is_dense(c)) put_experts(&k, c);
    return k.st;
}

/* ---- config.json ---- */

typedef struct json_reader {
    const qsi_json *j;
    qs_err *err;
    qs_status st;
} json_reader;

static bool is_there(const qsi_json *j, const char *key) {
    return qsi_json_kind_of(qsi_json_get(j, key)) > QSI_JSON_NULL;
}

static void json_int(json_reader *r, const char *key, bool required, int32_t *out) {
    int64_t v = 0;
    if (r->st != QS_OK || (!required && !is_there(r->j, key))) return;
    r->st = qsi_json_i64(r->j, key, &v, r->err);
    if (r->st == QS_OK && (v < 0 || v > INT32_MAX)) {
        r->st = qsi_err_set(r->err, QS_E_RANGE, "\"%s\" is %" PRId64 ": out of range", key, v);
    }
    if (r->st == QS_OK) *out = (int32_t)v;
}

static void json_float(json_reader *r, const qsi_json *j, const char *key, bool required,
                       float *out) {
    double v = 0;
    if (r->st != QS_OK || (!required && !is_there(j, key))) return;
    r->st = qsi_json_f64(j, key, &v, r->err);
    if (r->st == QS_OK) *out = (float)v;
}

/* A switch that must be off, or a word that must be `want`, where the key is there at all. */
static void json_must_be_off(json_reader *r, const char *key) {
    bool on = false;
    if (r->st != QS_OK || !is_there(r->j, key)) return;
    r->st = qsi_json_bool(r->j, key, &on, r->err);
    if (r->st == QS_OK && on) {
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "\"%s\" is true: not supported", key);
    }
}

static void json_must_be(json_reader *r, const qsi_json *j, const char *key, const char *want) {
    const char *s = NULL;
    if (r->st != QS_OK || !is_there(j, key)) return;
    r->st = qsi_json_str(j, key, &s, r->err);
    if (r->st == QS_OK && strcmp(s, want) != 0) {
        char shown[32];
        printable((qsi_slice){s, strlen(s)}, shown, sizeof shown);
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "\"%s\" is \"%s\": \"%s\" is supported", key,
                            shown, want);
    }
}

static void json_arch(json_reader *r, qsi_config *c) {
    const char *s = NULL;
    char shown[48];
    r->st = qsi_json_str(r->j, "model_type", &s, r->err);
    if (r->st != QS_OK) return;
    static const struct {
        const char *name;
        qsi_arch arch;
    } types[] = {{"llama", QSI_ARCH_LLAMA}, {"deepseek", QSI_ARCH_DEEPSEEK},
                 {"deepseek_v2", QSI_ARCH_DEEPSEEK2}, {"deepseek_v3", QSI_ARCH_DEEPSEEK2},
                 {"deepseek_v32", QSI_ARCH_DEEPSEEK32}, {"qwen2", QSI_ARCH_QWEN2},
                 {"qwen3", QSI_ARCH_QWEN3}};
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        if (strcmp(s, types[i].name) == 0) {
            c->arch = types[i].arch;
            return;
        }
    }
    printable((qsi_slice){s, strlen(s)}, shown, sizeof shown);
    r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED,
                        "\"model_type\" is \"%s\": llama, deepseek, deepseek_v2, deepseek_v3, "
                        "deepseek_v32, qwen2 and qwen3 are supported", shown);
}

/* Scores with YaRN. DeepSeek-V2 and V3: cos and sin would be scaled by the ratio of the two
 * mscales, which must be 1; scores are, by what mscale_all_dim says (deepseek-facts 2.5). The
 * others scale cos and sin by 1 + 0.1 ln(factor); "attention_factor" takes the place of that,
 * "attn_factor" is another factor (distills.md). */
static void json_yarn_scores(json_reader *r, const qsi_json *scaling, qsi_config *c) {
    bool latent = qsi_config_is_latent(c);
    float mscale = 1, all = latent ? 0 : 1;
    json_float(r, scaling, "mscale", false, &mscale);
    json_float(r, scaling, "mscale_all_dim", false, &all);
    if (r->st == QS_OK && mscale != all)
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "YaRN with \"mscale\" %g and \"mscale_all_dim\" "
                            "%g: only equal ones are supported", (double)mscale, (double)all);
    c->yarn_log_mul = 0.1f * all;
    if (latent) return;
    json_float(r, scaling, "attn_factor", false, &c->yarn_attn);
    if (!is_there(scaling, "attention_factor")) return;
    json_float(r, scaling, "attention_factor", true, &c->yarn_attn);
    c->yarn_attn /= 1 + 0.1f * logf(c->rope_factor);
}

static void json_yarn(json_reader *r, const qsi_json *scaling, qsi_config *c) {
    double orig = c->n_ctx;
    c->rope_scaling = QSI_ROPE_YARN;
    c->yarn_beta_fast = 32;
    c->yarn_beta_slow = 1;
    json_float(r, scaling, "factor", true, &c->rope_factor);
    json_float(r, scaling, "beta_fast", false, &c->yarn_beta_fast);
    json_float(r, scaling, "beta_slow", false, &c->yarn_beta_slow);
    json_yarn_scores(r, scaling, c);
    if (r->st != QS_OK) return;
    if (is_there(scaling, "original_max_position_embeddings"))
        r->st = qsi_json_f64(scaling, "original_max_position_embeddings", &orig, r->err);
    if (r->st == QS_OK && (!(orig >= 1) || orig > MAX_CTX))
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "YaRN from %g positions", orig);
    if (r->st == QS_OK) c->rope_orig_ctx = (int32_t)orig;
}

/* Llama 3.1 and later. */
static void json_freqs(json_reader *r, const qsi_json *scaling, qsi_config *c) {
    double orig = 0;
    c->rope_freqs = true;
    json_float(r, scaling, "factor", true, &c->freqs_factor);
    json_float(r, scaling, "low_freq_factor", true, &c->freqs_low);
    json_float(r, scaling, "high_freq_factor", true, &c->freqs_high);
    if (r->st == QS_OK)
        r->st = qsi_json_f64(scaling, "original_max_position_embeddings", &orig, r->err);
    c->freqs_orig_ctx = orig >= 1 && orig <= MAX_CTX ? (int32_t)orig : 0;
}

/* Rotation: rope_theta and rope_scaling, or both inside rope_parameters (transformers 5). */
static void json_rope(json_reader *r, qsi_config *c) {
    const qsi_json *both = qsi_json_get(r->j, "rope_parameters");
    const qsi_json *scaling = both != NULL ? both : qsi_json_get(r->j, "rope_scaling");
    const char *type = NULL;
    c->rope_theta = 10000;
    c->rope_factor = 1;
    json_float(r, r->j, "rope_theta", false, &c->rope_theta);
    if (both != NULL) json_float(r, both, "rope_theta", false, &c->rope_theta);
    if (r->st != QS_OK || qsi_json_kind_of(scaling) <= QSI_JSON_NULL) return;
    const char *key = is_there(scaling, "rope_type") ? "rope_type" : "type";
    r->st = qsi_json_str(scaling, key, &type, r->err);
    if (r->st != QS_OK || strcmp(type, "default") == 0) return;
    if (c->arch != QSI_ARCH_DEEPSEEK && strcmp(type, "yarn") == 0) {
        json_yarn(r, scaling, c);
        return;
    }
    if (c->arch == QSI_ARCH_LLAMA && strcmp(type, "llama3") == 0) {
        json_freqs(r, scaling, c);
        return;
    }
    if (strcmp(type, "linear") != 0) {
        char shown[32];
        printable((qsi_slice){type, strlen(type)}, shown, sizeof shown);
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "rotary positions scaled by \"%s\": %s supported",
                            shown, c->arch == QSI_ARCH_DEEPSEEK ? "\"linear\" is"
                            : c->arch == QSI_ARCH_LLAMA ? "\"linear\", \"yarn\" and \"llama3\" are"
                                                        : "\"linear\" and \"yarn\" are");
        return;
    }
    c->rope_scaling = QSI_ROPE_LINEAR;
    json_float(r, scaling, "factor", true, &c->rope_factor);
}

/* Routing of V2 and V3: what scores are, in groups or not, with a bias that chooses or not. */
static void json_routing(json_reader *r, qsi_config *c) {
    bool v32 = c->arch == QSI_ARCH_DEEPSEEK32; /* whose config.json need not name them */
    const char *score = v32 ? "sigmoid" : "softmax", *method = v32 ? "noaux_tc" : "greedy";
    if (r->st == QS_OK && is_there(r->j, "scoring_func"))
        r->st = qsi_json_str(r->j, "scoring_func", &score, r->err);
    if (r->st == QS_OK && is_there(r->j, "topk_method"))
        r->st = qsi_json_str(r->j, "topk_method", &method, r->err);
    if (r->st != QS_OK) return;
    bool sigmoid = strcmp(score, "sigmoid") == 0;
    bool grouped = strcmp(method, "group_limited_greedy") == 0;
    c->gate_bias = strcmp(method, "noaux_tc") == 0;
    if ((!sigmoid && strcmp(score, "softmax") != 0) ||
        (!grouped && !c->gate_bias && strcmp(method, "greedy") != 0)) {
        char shown[64];
        printable((qsi_slice){method, strlen(method)}, shown, sizeof shown);
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED,
                            "\"topk_method\" is \"%s\": greedy, group_limited_greedy and noaux_tc "
                            "are supported, with \"scoring_func\" softmax or sigmoid", shown);
        return;
    }
    if (sigmoid) c->gating = QSI_GATE_SIGMOID;
    if (!grouped && !c->gate_bias) return;
    json_int(r, "n_group", true, &c->n_group);
    json_int(r, "topk_group", true, &c->n_group_used);
    if (c->n_group <= 1) c->n_group = c->n_group_used = 1;
}

static void json_experts(json_reader *r, qsi_config *c) {
    int32_t freq = 1;
    c->expert_scale = 1;
    if (qsi_config_is_dense(c) || !is_there(r->j, "n_routed_experts")) return;
    json_int(r, "n_routed_experts", true, &c->n_expert);
    json_int(r, "num_experts_per_tok", true, &c->n_expert_used);
    json_int(r, "n_shared_experts", false, &c->n_shared);
    json_int(r, "moe_intermediate_size", true, &c->d_expert);
    json_int(r, "first_k_dense_replace", false, &c->n_dense);
    json_int(r, "moe_layer_freq", false, &freq);
    json_float(r, r->j, "routed_scaling_factor", false, &c->expert_scale);
    c->gating = QSI_GATE_SOFTMAX;
    c->n_group = c->n_group_used = 1;
    if (qsi_config_is_latent(c)) json_routing(r, c);
    else json_must_be(r, r->j, "scoring_func", "softmax");
    if (r->st == QS_OK && is_there(r->j, "norm_topk_prob")) {
        r->st = qsi_json_bool(r->j, "norm_topk_prob", &c->norm_topk, r->err);
    }
    if (r->st == QS_OK && freq != 1) {
        r->st = qsi_err_set(r->err, QS_E_UNSUPPORTED, "\"moe_layer_freq\" is %d: 1 is supported",
                            (int)freq);
    }
}

/* Latent attention; its weights are stored whole, as the folder has them. */
static void json_latent(json_reader *r, qsi_config *c) {
    int32_t nope = 0;
    json_int(r, "kv_lora_rank", true, &c->kv_rank);
    json_int(r, "q_lora_rank", false, &c->q_rank);
    json_int(r, "qk_nope_head_dim", true, &nope);
    json_int(r, "qk_rope_head_dim", true, &c->d_rope);
    json_int(r, "v_head_dim", true, &c->d_value);
    if (r->st == QS_OK && (nope > MAX_HEAD_DIM || c->d_rope > MAX_HEAD_DIM)) {
        r->st = qsi_err_set(r->err, QS_E_RANGE, "heads of %d and %d values: at most %d",
                            (int)nope, (int)c->d_rope, MAX_HEAD_DIM);
        return;
    }
    c->head_dim = nope + c->d_rope;
    c->kv_b_whole = true;
}

/* Whether the folder has the tensors is another question (hf_import.c). */
static void json_next(json_reader *r, qsi_config *c) {
    if (qsi_config_is_latent(c)) json_int(r, "num_nextn_predict_layers", false, &c->n_next);
}

static void json_indexer(json_reader *r, qsi_config *c) {
    if (c->arch != QSI_ARCH_DEEPSEEK32) return;
    json_int(r, "index_topk", true, &c->index_topk);
    json_int(r, "index_n_heads", true, &c->index_heads);
    json_int(r, "index_head_dim", true, &c->index_dim);
    json_must_be_off(r, "indexer_rope_interleave"); /* others' models of this class */
}

static void json_sizes(json_reader *r, qsi_config *c) {
    json_int(r, "vocab_size", true, &c->n_vocab);
    json_int(r, "num_hidden_layers", true, &c->n_layer);
    json_int(r, "hidden_size", true, &c->d_model);
    json_int(r, "intermediate_size", true, &c->d_ff);
    json_int(r, "max_position_embeddings", true, &c->n_ctx);
    json_int(r, "num_attention_heads", true, &c->n_head);
    c->n_kv_head = c->n_head;
    json_int(r, "num_key_value_heads", false, &c->n_kv_head);
    c->head_dim = c->n_head > 0 ? c->d_model / c->n_head : 0;
    if (qsi_config_is_latent(c)) json_latent(r, c);
    else json_int(r, "head_dim", false, &c->head_dim);
    json_indexer(r, c);
    json_next(r, c);
    json_float(r, r->j, "rms_norm_eps", true, &c->rms_eps);
    json_must_be(r, r->j, "hidden_act", "silu");
    json_must_be_off(r, "attention_bias");
    json_must_be_off(r, "mlp_bias");
    json_must_be_off(r, "use_sliding_window");
}

qs_status qsi_config_from_hf(qsi_config *out, const char *json, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *root = NULL;
    qsi_config c = {0};
    QS_TRY(qsi_json_parse(&root, json, n, QSI_JSON_SMALL, err));
    json_reader r = {.j = root, .err = err};
    json_arch(&r, &c);
    if (r.st == QS_OK) {
        json_sizes(&r, &c);
        json_rope(&r, &c);
        json_experts(&r, &c);
    }
    QS_TRY(r.st);
    QS_TRY(qsi_config_check(&c, err));
    *out = c;
done:
    if (st != QS_OK) qsi_err_prefix(err, "config.json");
    qsi_json_free(&root);
    return st;
}
