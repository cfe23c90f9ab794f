/* The keys that model/config.c reads, written; Source: deepseek-facts 2 and 4.3, docs/distills.md. */
#include "files/hf_config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/hf_about.h"

/* ,"key":x times n, in the fewest digits that, divided by n again, are the same float. A whole number
 * gets its ".0": classes of transformers 5 that want a float refuse 16 and take 16.0. */
static qs_status put_times(qsi_str *out, const char *key, float x, int n) {
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x * n);
        if ((float)(strtod(text, NULL) / n) == x) break;
    }
    const char *tail = strpbrk(text, ".e") == NULL ? ".0" : "";
    return qsi_str_printf(out, ",\n\"%s\":%s%s", key, text, tail);
}

static qs_status put_f32(qsi_str *out, const char *key, float x) { return put_times(out, key, x, 1); }

static const char *torch_type(qsi_type t) {
    return t == QSI_F32 ? "float32" : t == QSI_F16 ? "float16" : "bfloat16";
}

static const struct names {
    qsi_arch arch;
    const char *model_type, *class;
} names[] = {
    {QSI_ARCH_LLAMA, "llama", "LlamaForCausalLM"},
    {QSI_ARCH_DEEPSEEK, "deepseek", "DeepseekForCausalLM"},
    {QSI_ARCH_QWEN2, "qwen2", "Qwen2ForCausalLM"},
    {QSI_ARCH_QWEN3, "qwen3", "Qwen3ForCausalLM"},
};
static const struct names v32 = {QSI_ARCH_DEEPSEEK32, "deepseek_v32", "DeepseekV32ForCausalLM"};
static const struct names v2 = {QSI_ARCH_DEEPSEEK2, "deepseek_v2", "DeepseekV2ForCausalLM"};
static const struct names v3 = {QSI_ARCH_DEEPSEEK2, "deepseek_v3", "DeepseekV3ForCausalLM"};

static const struct names *names_of(const qsi_config *c) {
    if (c->arch == QSI_ARCH_DEEPSEEK32) return &v32;
    if (c->arch == QSI_ARCH_DEEPSEEK2)
        return c->gate_bias || c->gating == QSI_GATE_SIGMOID ? &v3 : &v2;
    for (size_t i = 0; i < QSI_COUNT(names); i++)
        if (names[i].arch == c->arch) return &names[i];
    return &names[0];
}

static qs_status put_experts(const qsi_config *c, qsi_str *out) {
    qs_status st = QS_OK;
    if (c->n_expert == 0) return QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"n_routed_experts\":%d,\n\"num_experts_per_tok\":%d,"
                          "\n\"moe_intermediate_size\":%d,\n\"first_k_dense_replace\":%d,"
                          "\n\"moe_layer_freq\":1,"
                          "\n\"norm_topk_prob\":%s,\n\"scoring_func\":\"%s\"",
                          (int)c->n_expert, (int)c->n_expert_used, (int)c->d_expert, (int)c->n_dense,
                          c->norm_topk ? "true" : "false",
                          c->gating == QSI_GATE_SIGMOID ? "sigmoid" : "softmax"));
    QS_TRY(put_f32(out, "routed_scaling_factor", c->expert_scale));
    if (c->n_shared > 0) QS_TRY(qsi_str_printf(out, ",\n\"n_shared_experts\":%d", (int)c->n_shared));
    if (!qsi_config_is_latent(c)) goto done;
    bool grouped = c->n_group > 1;
    QS_TRY(qsi_str_printf(out, ",\n\"topk_method\":\"%s\"", c->gate_bias ? "noaux_tc" : grouped ?
                          "group_limited_greedy" : "greedy"));
    if (grouped || c->gate_bias)
        QS_TRY(qsi_str_printf(out, ",\n\"n_group\":%d,\n\"topk_group\":%d",
                              grouped ? (int)c->n_group : 1, grouped ? (int)c->n_group_used : 1));
done:
    return st;
}

static qs_status put_heads(const qsi_config *c, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"num_attention_heads\":%d,\n\"num_key_value_heads\":%d",
                          (int)c->n_head, (int)c->n_kv_head));
    if (c->kv_rank == 0 && c->head_dim * c->n_head != c->d_model)
        QS_TRY(qsi_str_printf(out, ",\n\"head_dim\":%d", (int)c->head_dim));
    if (c->kv_rank == 0) goto done;
    QS_TRY(qsi_str_printf(out, ",\n\"kv_lora_rank\":%d,\n\"qk_nope_head_dim\":%d,"
                          "\n\"qk_rope_head_dim\":%d,\n\"v_head_dim\":%d,\n\"q_lora_rank\":",
                          (int)c->kv_rank, (int)(c->head_dim - c->d_rope), (int)c->d_rope,
                          (int)c->d_value));
    if (c->q_rank > 0) QS_TRY(qsi_str_printf(out, "%d", (int)c->q_rank));
    else QS_TRY(qsi_str_puts(out, "null"));
    if (c->index_topk > 0)
        QS_TRY(qsi_str_printf(out, ",\n\"index_topk\":%d,\n\"index_n_heads\":%d,"
                              "\n\"index_head_dim\":%d", (int)c->index_topk,
                              (int)c->index_heads, (int)c->index_dim));
done:
    return st;
}

static qs_status put_yarn(const qsi_config *c, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"rope_scaling\":{\"type\":\"yarn\","
                          "\n\"original_max_position_embeddings\":%d", (int)c->rope_orig_ctx));
    QS_TRY(put_f32(out, "factor", c->rope_factor));
    QS_TRY(put_f32(out, "beta_fast", c->yarn_beta_fast));
    QS_TRY(put_f32(out, "beta_slow", c->yarn_beta_slow));
    if (qsi_config_is_latent(c)) {
        QS_TRY(put_times(out, "mscale", c->yarn_log_mul, 10));
        QS_TRY(put_times(out, "mscale_all_dim", c->yarn_log_mul, 10));
    } else {
        double attn = (double)(c->yarn_attn != 0 ? c->yarn_attn : 1);
        attn *= 1 + (double)c->yarn_log_mul * log((double)c->rope_factor);
        QS_TRY(put_f32(out, "attention_factor", (float)attn));
    }
    QS_TRY(qsi_str_puts(out, "}"));
done:
    return st;
}

static qs_status put_llama3(const qsi_config *c, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"rope_scaling\":{\"rope_type\":\"llama3\","
                          "\n\"original_max_position_embeddings\":%d", (int)c->freqs_orig_ctx));
    QS_TRY(put_f32(out, "factor", c->freqs_factor));
    QS_TRY(put_f32(out, "low_freq_factor", c->freqs_low));
    QS_TRY(put_f32(out, "high_freq_factor", c->freqs_high));
    QS_TRY(qsi_str_puts(out, "}"));
done:
    return st;
}

static qs_status put_rope(const qsi_config *c, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(put_f32(out, "rope_theta", c->rope_theta));
    if (c->rope_freqs && c->freqs_factor == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "the frequencies of tensor rope_freqs.weight have no place in a "
                "config.json");
    if (c->rope_freqs) {
        QS_TRY(put_llama3(c, out));
    } else if (c->rope_scaling == QSI_ROPE_LINEAR) {
        QS_TRY(qsi_str_puts(out, ",\n\"rope_scaling\":{\"type\":\"linear\""));
        QS_TRY(put_f32(out, "factor", c->rope_factor));
        QS_TRY(qsi_str_puts(out, "}"));
    } else if (c->rope_scaling == QSI_ROPE_YARN) {
        QS_TRY(put_yarn(c, out));
    } else {
        QS_TRY(qsi_str_puts(out, ",\n\"rope_scaling\":null"));
    }
done:
    return st;
}

qs_status qsi_hf_put_config(const qsi_config *c, const qsi_gguf *g, const qsi_vocab *v, bool tied,
                            qsi_type type, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    const struct names *n = names_of(c);
    QS_TRY(qsi_str_printf(out, "{\"architectures\":[\"%s\"],\n\"model_type\":\"%s\","
                          "\n\"vocab_size\":%d,\n\"hidden_size\":%d,\n\"num_hidden_layers\":%d,"
                          "\n\"intermediate_size\":%d,\n\"max_position_embeddings\":%d,"
                          "\n\"hidden_act\":\"silu\","
                          "\n\"attention_bias\":false,\n\"tie_word_embeddings\":%s,"
                          "\n\"torch_dtype\":\"%s\"", n->class, n->model_type, (int)c->n_vocab,
                          (int)c->d_model, (int)c->n_layer, (int)c->d_ff, (int)c->n_ctx,
                          tied ? "true" : "false", torch_type(type)));
    if (c->n_next > 0)
        QS_TRY(qsi_str_printf(out, ",\n\"num_nextn_predict_layers\":%d", (int)c->n_next));
    QS_TRY(put_f32(out, "rms_norm_eps", c->rms_eps));
    QS_TRY(put_heads(c, out));
    QS_TRY(put_experts(c, out));
    QS_TRY(put_rope(c, out, err));
    if (v != NULL && qsi_vocab_bos(v) >= 0)
        QS_TRY(qsi_str_printf(out, ",\n\"bos_token_id\":%d", (int)qsi_vocab_bos(v)));
    if (v != NULL && qsi_vocab_eos(v) >= 0)
        QS_TRY(qsi_str_printf(out, ",\n\"eos_token_id\":%d", (int)qsi_vocab_eos(v)));
    QS_TRY(qsi_hf_put_about(g, out));
    QS_TRY(qsi_str_puts(out, "}\n"));
done:
    return st;
}

/* Every token that ends an answer, EOS first. */
static qs_status put_ends(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    int32_t eos = qsi_vocab_eos(v);
    if (eos < 0) return QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"eos_token_id\":[%d", (int)eos));
    for (int32_t i = 0; i < qsi_vocab_size(v); i++)
        if (i != eos && qsi_vocab_is_end(v, i)) QS_TRY(qsi_str_printf(out, ",%d", (int)i));
    QS_TRY(qsi_str_puts(out, "]"));
done:
    return st;
}

qs_status qsi_hf_put_generation(const qsi_gguf *g, const qsi_vocab *v, qsi_str *out) {
    static const struct {
        const char *key, *name;
    } rows[] = {{"general.sampling.temp", "temperature"},
                {"general.sampling.top_p", "top_p"},
                {"general.sampling.min_p", "min_p"},
                {"general.sampling.penalty_repeat", "repetition_penalty"}};
    qs_status st = QS_OK;
    int64_t k = 0;
    bool any = false;
    QS_TRY(qsi_str_puts(out, "{\"_from_model_config\":true"));
    if (v != NULL && qsi_vocab_bos(v) >= 0)
        QS_TRY(qsi_str_printf(out, ",\n\"bos_token_id\":%d", (int)qsi_vocab_bos(v)));
    if (v != NULL) QS_TRY(put_ends(v, out));
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        double x = 0;
        if (qsi_gguf_find(g, rows[i].key) == NULL ||
            qsi_gguf_f64(g, rows[i].key, &x, NULL) != QS_OK || !isfinite(x))
            continue;
        QS_TRY(put_f32(out, rows[i].name, (float)x));
        any = true;
    }
    if (qsi_gguf_find(g, "general.sampling.top_k") != NULL &&
        qsi_gguf_i64(g, "general.sampling.top_k", &k, NULL) == QS_OK && k >= 0) {
        QS_TRY(qsi_str_printf(out, ",\n\"top_k\":%" PRId64, k));
        any = true;
    }
    if (any) QS_TRY(qsi_str_puts(out, ",\n\"do_sample\":true"));
    QS_TRY(qsi_str_puts(out, "}\n"));
done:
    return st;
}
