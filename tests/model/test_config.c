/* Configurations: published sizes come out, GGUF and config.json agree, wrong ones are refused with
 * the key that is wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "model/model.h"
#include "model/rope_scaling.h"

#define TEMP "test_config.tmp.gguf"

static qsi_config llm_67b(void) {
    return (qsi_config){.arch = QSI_ARCH_LLAMA, .n_vocab = 102400, .n_layer = 95, .d_model = 8192,
                        .n_head = 64, .n_kv_head = 8, .head_dim = 128, .d_ff = 22016, .n_ctx = 4096,
                        .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 1};
}

static qsi_config moe_16b(void) {
    return (qsi_config){.arch = QSI_ARCH_DEEPSEEK,
                        .n_vocab = 102400,
                        .n_layer = 28,
                        .d_model = 2048,
                        .n_head = 16,
                        .n_kv_head = 16,
                        .head_dim = 128,
                        .d_ff = 10944,
                        .n_ctx = 4096,
                        .rms_eps = 1e-6f,
                        .rope_theta = 1e4f,
                        .rope_factor = 1,
                        .n_dense = 1,
                        .n_expert = 64,
                        .n_expert_used = 6,
                        .n_shared = 2,
                        .d_expert = 1408,
                        .expert_scale = 1};
}

static qsi_config v2_lite(void) {
    qsi_config c = moe_16b();
    c.arch = QSI_ARCH_DEEPSEEK2;
    c.n_layer = 27;
    c.head_dim = 192;
    c.kv_rank = 512;
    c.d_rope = 64;
    c.d_value = 128;
    c.n_ctx = 163840;
    c.rope_scaling = QSI_ROPE_YARN;
    c.rope_factor = 40;
    c.rope_orig_ctx = 4096;
    c.yarn_beta_fast = 32;
    c.yarn_beta_slow = 1;
    c.yarn_log_mul = 0.0707f;
    c.gating = QSI_GATE_SOFTMAX;
    c.n_group = c.n_group_used = 1;
    return c;
}

static qsi_config v3(void) {
    qsi_config c = v2_lite();
    c.n_vocab = 129280;
    c.n_layer = 61;
    c.d_model = 7168;
    c.n_head = c.n_kv_head = 128;
    c.d_ff = 18432;
    c.q_rank = 1536;
    c.n_dense = 3;
    c.n_expert = 256;
    c.n_expert_used = 8;
    c.n_shared = 1;
    c.d_expert = 2048;
    c.norm_topk = true;
    c.expert_scale = 2.5f;
    c.gating = QSI_GATE_SIGMOID;
    c.gate_bias = true;
    c.n_group = 8;
    c.n_group_used = 4;
    c.yarn_log_mul = 0.1f;
    return c;
}

static qsi_config v32(void) {
    qsi_config c = v3();
    c.arch = QSI_ARCH_DEEPSEEK32;
    c.index_topk = 2048;
    c.index_heads = 64;
    c.index_dim = 128;
    return c;
}

/* What V3.2's config.json says, with more keys at its end. */
static const char hf_v32[] =
    "{\"model_type\":\"deepseek_v32\",\"vocab_size\":129280,\"num_hidden_layers\":61,"
    "\"hidden_size\":7168,\"intermediate_size\":18432,\"num_attention_heads\":128,"
    "\"num_key_value_heads\":128,\"max_position_embeddings\":163840,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":10000,\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":40,"
    "\"mscale\":1.0,\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,"
    "\"type\":\"yarn\"},\"kv_lora_rank\":512,\"q_lora_rank\":1536,\"qk_nope_head_dim\":128,"
    "\"qk_rope_head_dim\":64,\"v_head_dim\":128,\"n_routed_experts\":256,"
    "\"num_experts_per_tok\":8,\"n_shared_experts\":1,\"moe_intermediate_size\":2048,"
    "\"first_k_dense_replace\":3,\"moe_layer_freq\":1,\"routed_scaling_factor\":2.5,"
    "\"norm_topk_prob\":true,\"n_group\":8,\"topk_group\":4,\"num_nextn_predict_layers\":1,"
    "\"index_head_dim\":128,\"index_n_heads\":64%s}";

static const char hf_coder[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":32256,"
    "\"num_hidden_layers\":62,\"hidden_size\":7168,\"intermediate_size\":19200,"
    "\"num_attention_heads\":56,\"num_key_value_heads\":8,\"max_position_embeddings\":16384,"
    "\"rms_norm_eps\":1e-06,\"rope_theta\":100000,\"rope_scaling\":{\"factor\":4.0,\"type\":"
    "\"linear\"},\"hidden_act\":\"silu\",\"tie_word_embeddings\":false}";
static const char hf_moe[] =
    "{\"model_type\":\"deepseek\",\"vocab_size\":102400,\"num_hidden_layers\":28,\"hidden_size\":"
    "2048,"
    "\"intermediate_size\":10944,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
    "\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-06,\"rope_theta\":10000.0,"
    "\"rope_scaling\":null,\"n_routed_experts\":64,\"num_experts_per_tok\":6,\"n_shared_experts\":"
    "2,"
    "\"moe_intermediate_size\":1408,\"first_k_dense_replace\":1,\"moe_layer_freq\":1,"
    "\"scoring_func\":\"softmax\",\"norm_topk_prob\":false,\"attention_bias\":false}";

static void equal(const qsi_config *a, const qsi_config *b) {
    assert_int_equal(a->arch, b->arch);
    assert_int_equal(a->n_vocab, b->n_vocab);
    assert_int_equal(a->n_layer, b->n_layer);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->n_head, b->n_head);
    assert_int_equal(a->n_kv_head, b->n_kv_head);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->d_ff, b->d_ff);
    assert_int_equal(a->n_ctx, b->n_ctx);
    assert_true(a->rms_eps == b->rms_eps && a->rope_theta == b->rope_theta);
    assert_true(a->rope_factor == b->rope_factor && a->rope_scaling == b->rope_scaling);
    assert_int_equal(a->n_dense, b->n_dense);
    assert_int_equal(a->n_expert, b->n_expert);
    assert_int_equal(a->n_expert_used, b->n_expert_used);
    assert_int_equal(a->n_shared, b->n_shared);
    assert_int_equal(a->d_expert, b->d_expert);
    assert_int_equal(a->norm_topk, b->norm_topk);
    if (a->n_expert > 0) assert_true(a->expert_scale == b->expert_scale);
    assert_int_equal(a->kv_rank, b->kv_rank);
    assert_true(a->yarn_attn == b->yarn_attn);
    if (a->rope_scaling == QSI_ROPE_YARN) assert_int_equal(a->rope_orig_ctx, b->rope_orig_ctx);
    if (a->kv_rank == 0) return;
    assert_int_equal(a->q_rank, b->q_rank);
    assert_int_equal(a->d_rope, b->d_rope);
    assert_int_equal(a->d_value, b->d_value);
    assert_int_equal(a->kv_b_whole, b->kv_b_whole);
    assert_int_equal(a->index_topk, b->index_topk);
    assert_int_equal(a->index_heads, b->index_heads);
    assert_int_equal(a->index_dim, b->index_dim);
    assert_int_equal(a->gating, b->gating);
    assert_int_equal(a->gate_bias, b->gate_bias);
    assert_int_equal(a->n_group, b->n_group);
    assert_int_equal(a->n_group_used, b->n_group_used);
    assert_int_equal(a->rope_orig_ctx, b->rope_orig_ctx);
    assert_true(a->yarn_log_mul == b->yarn_log_mul && a->yarn_beta_fast == b->yarn_beta_fast);
    assert_true(a->yarn_beta_slow == b->yarn_beta_slow);
}

/* Billions of weights to three places, as deepseek-facts 1.1 and 1.2 give them. */
static int milli_billions(int64_t n) { return (int)((n + 500000) / 1000000); }

static void published_sizes(void **state) {
    qs_err err;
    qsi_config dense = llm_67b(), moe = moe_16b(), coder;
    int64_t active = 0;
    assert_int_equal(milli_billions(qsi_config_params(&dense, NULL)), 67425);
    assert_int_equal(milli_billions(qsi_config_params(&moe, &active)), 16376);
    /* the published 2.829 B counts the embedding too */
    assert_int_equal(milli_billions(active + INT64_C(102400) * 2048), 2829);
    /* V2-Lite and V3: 2.661 B and 37.55 B count the embedding too */
    qsi_config lite = v2_lite(), big = v3();
    assert_int_equal(milli_billions(qsi_config_params(&lite, &active)), 15706);
    assert_int_equal(milli_billions(active + INT64_C(102400) * 2048), 2661);
    assert_int_equal((milli_billions(qsi_config_params(&big, &active)) + 5) / 10, 67103);
    assert_int_equal((milli_billions(active + INT64_C(129280) * 7168) + 5) / 10, 3755);
    assert_int_equal(qsi_config_from_hf(&coder, hf_coder, strlen(hf_coder), &err), QS_OK);
    assert_int_equal(milli_billions(qsi_config_params(&coder, NULL)), 33343);
}

static void config_json_is_read(void **state) {
    qs_err err;
    qsi_config c, want = moe_16b();
    assert_int_equal(qsi_config_from_hf(&c, hf_moe, strlen(hf_moe), &err), QS_OK);
    equal(&c, &want);
    assert_int_equal(qsi_config_from_hf(&c, hf_coder, strlen(hf_coder), &err), QS_OK);
    assert_int_equal(c.rope_scaling, QSI_ROPE_LINEAR);
    assert_true(c.rope_factor == 4 && c.rope_theta == 100000);
    assert_int_equal(c.n_kv_head, 8);
}

static qs_status read_v32(qsi_config *c, const char *more, qs_err *err) {
    char text[2048];
    snprintf(text, sizeof text, hf_v32, more);
    return qsi_config_from_hf(c, text, strlen(text), err);
}

static void sparse_config_json_is_read(void **state) {
    qs_err err = {0};
    qsi_config c, want = v32();
    want.kv_b_whole = true;
    /* newer transformers leave out what scores and chooses experts */
    if (read_v32(&c, ",\"index_topk\":2048", &err) != QS_OK) fail_msg("%s", err.text);
    equal(&c, &want);
    if (read_v32(&c, ",\"index_topk\":2048,\"scoring_func\":\"sigmoid\",\"topk_method\":"
                 "\"noaux_tc\",\"indexer_rope_interleave\":false", &err) != QS_OK)
        fail_msg("%s", err.text);
    equal(&c, &want);
    assert_int_equal(c.n_next, 1);
    assert_int_equal(read_v32(&c, "", &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "index_topk"));
    assert_int_equal(read_v32(&c, ",\"index_topk\":0", &err), QS_E_RANGE);
    assert_non_null(strstr(err.text, "attention.indexer.top_k"));
    assert_int_equal(read_v32(&c, ",\"index_topk\":9,\"indexer_rope_interleave\":true", &err),
                     QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "indexer_rope_interleave"));
    want.index_dim = 62; /* the rotated part alone has 64 */
    assert_int_equal(qsi_config_check(&want, &err), QS_E_RANGE);
    assert_non_null(strstr(err.text, "indexer.key_length"));
    want = v3();
    want.index_topk = 5;
    assert_int_equal(qsi_config_check(&want, &err), QS_E_RANGE);
}

/* Parts of the published config.json of R1's distilled models that others do not have. */
static const char hf_distill[] =
    "{\"model_type\":\"%s\",\"vocab_size\":151936,\"num_hidden_layers\":36,\"hidden_size\":4096,"
    "\"intermediate_size\":12288,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
    "\"max_position_embeddings\":131072,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000,"
    "\"hidden_act\":\"silu\",\"attention_bias\":%s,\"use_sliding_window\":%s%s}";

static qs_status read_distill(qsi_config *c, const char *type, const char *bias, const char *sliding,
                              const char *more, qs_err *err) {
    char text[2048];
    snprintf(text, sizeof text, hf_distill, type, bias, sliding, more);
    return qsi_config_from_hf(c, text, strlen(text), err);
}

static void distilled_config_json_is_read(void **state) {
    qs_err err = {0};
    qsi_config c;
    const char *yarn = ",\"head_dim\":128,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                       "\"attn_factor\":0.8782488562869419,"
                       "\"original_max_position_embeddings\":32768}";
    const char *whole = ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,"
                        "\"attention_factor\":1.5,\"original_max_position_embeddings\":32768}";
    const char *freqs = ",\"rope_scaling\":{\"factor\":8.0,\"high_freq_factor\":4.0,"
                        "\"low_freq_factor\":1.0,\"original_max_position_embeddings\":8192,"
                        "\"rope_type\":\"llama3\"}";
    if (read_distill(&c, "qwen3", "false", "false", yarn, &err) != QS_OK) fail_msg("%s", err.text);
    assert_true(c.arch == QSI_ARCH_QWEN3 && qsi_config_qk_norm(&c) && !qsi_config_qkv_bias(&c));
    assert_true(c.rope_scaling == QSI_ROPE_YARN && c.rope_orig_ctx == 32768 && c.rope_factor == 4);
    /* the two factors cancel */
    assert_true(fabs(qsi_config_attn_scale(&c) * sqrt(128) - 1) < 1e-6);
    assert_int_equal(read_distill(&c, "qwen3", "false", "false", whole, &err), QS_OK);
    assert_true(fabs(qsi_config_attn_scale(&c) * sqrt(128) - 2.25) < 1e-5);
    assert_int_equal(read_distill(&c, "qwen2", "false", "false", "", &err), QS_OK);
    assert_true(c.arch == QSI_ARCH_QWEN2 && qsi_config_qkv_bias(&c) && qsi_config_halves(&c));
    assert_int_equal(read_distill(&c, "llama", "false", "false", freqs, &err), QS_OK);
    assert_true(c.rope_freqs && c.rope_scaling == QSI_ROPE_NONE && !qsi_config_halves(&c));
    assert_true(c.freqs_factor == 8 && c.freqs_low == 1 && c.freqs_high == 4);
    assert_int_equal(c.freqs_orig_ctx, 8192);
    assert_int_equal(read_distill(&c, "qwen3", "true", "false", "", &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "attention_bias"));
    assert_int_equal(read_distill(&c, "qwen2", "false", "true", "", &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "use_sliding_window"));
    assert_int_equal(read_distill(&c, "qwen2", "false", "false", freqs, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "llama3"));
}

/* One replacement in a sound config.json, and the word its refusal must contain. */
static void wrong_config_json_is_refused(void **state) {
    static const struct { const char *from, *to, *says; } cases[] = {
        {"\"deepseek\"", "\"deepseek_v4\"", "deepseek_v4"},
        {"\"deepseek\"", "\"dee\\u001b[31mp\"", "model_type"},
        {"\"vocab_size\":102400", "\"vocab_size\":0", "vocab_size"},
        {"\"vocab_size\":102400", "\"vocab_size\":1e5", "vocab_size"},
        {"\"vocab_size\":102400", "\"vocab_size\":99999999999999999999", "JSON"},
        {"\"vocab_size\":102400,", "", "vocab_size"},
        {"\"vocab_size\":102400", "\"vocab_size\":1,\"vocab_size\":2", "duplicate"},
        {"\"num_attention_heads\":16", "\"num_attention_heads\":0", "head_count"},
        {"\"num_attention_heads\":16", "\"num_attention_heads\":-1", "num_attention_heads"},
        {"\"num_key_value_heads\":16", "\"num_key_value_heads\":5", "head_count_kv"},
        {"\"n_routed_experts\":64", "\"n_routed_experts\":4", "expert_used_count"},
        {"\"moe_layer_freq\":1", "\"moe_layer_freq\":2", "moe_layer_freq"},
        {"\"softmax\"", "\"sigmoid\"", "scoring_func"},
        {"\"attention_bias\":false", "\"attention_bias\":true", "attention_bias"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\"}",
         "scaled by \"yarn\": \"linear\" is supported"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"linear\"}", "factor"},
        {"\"rms_norm_eps\":1e-06", "\"rms_norm_eps\":0", "epsilon"},
        {"\"rms_norm_eps\":1e-06", "\"rms_norm_eps\":\"1\"", "rms_norm_eps"},
        {"}", "} x", "JSON"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char text[2048];
        qs_err err = {0};
        qsi_config c;
        const char *at = strstr(hf_moe, cases[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - hf_moe), hf_moe, cases[i].to,
                 at + strlen(cases[i].from));
        assert_int_not_equal(qsi_config_from_hf(&c, text, strlen(text), &err), QS_OK);
        if (strstr(err.text, cases[i].says) == NULL) {
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].says);
        }
        assert_null(strchr(err.text, '\x1b'));
    }
}

/* A scaling that a folder cannot have names those that it can. */
static void other_scalings_are_named(void **state) {
    char text[1024];
    qs_err err = {0};
    qsi_config c;
    const char *at = strstr(hf_coder, "linear");
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*sdynamic%s", (int)(at - hf_coder), hf_coder, at + strlen("linear"));
    assert_int_equal(qsi_config_from_hf(&c, text, strlen(text), &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "scaled by \"dynamic\": \"linear\", \"yarn\" and \"llama3\" are"));
}

static void gguf_round_trip(const qsi_config *c) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qsi_config back;
    assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
    assert_int_equal(qsi_config_put_gguf(c, w), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    assert_int_equal(qsi_config_from_gguf(&back, g, &err), QS_OK);
    equal(c, &back);
    qsi_gguf_close(&g);
    remove(TEMP);
}

static void gguf_keys_round_trip(void **state) {
    qs_err err;
    qsi_config c = llm_67b();
    gguf_round_trip(&c);
    c.head_dim = 64;
    c.rope_scaling = QSI_ROPE_LINEAR;
    c.rope_factor = 4;
    gguf_round_trip(&c);
    for (int i = 0; i < 2; i++) { /* a dense model with YaRN keeps its attention factor */
        c = llm_67b();
        c.arch = i ? QSI_ARCH_QWEN3 : QSI_ARCH_QWEN2;
        gguf_round_trip(&c);
        c.rope_scaling = QSI_ROPE_YARN;
        c.rope_factor = 4;
        c.rope_orig_ctx = 1024;
        c.yarn_beta_fast = 32;
        c.yarn_beta_slow = 1;
        c.yarn_log_mul = 0.1f;
        c.yarn_attn = 0.875f;
        gguf_round_trip(&c);
    }
    c = moe_16b();
    gguf_round_trip(&c);
    c.n_dense = 0;
    c.d_ff = 0;
    c.n_shared = 0;
    c.norm_topk = true;
    c.expert_scale = 2.5f;
    assert_int_equal(qsi_config_check(&c, &err), QS_OK);
    gguf_round_trip(&c);
    c = v2_lite();
    gguf_round_trip(&c);
    c.kv_b_whole = true;
    c.rope_scaling = QSI_ROPE_NONE;
    c.rope_factor = 1;
    c.rope_orig_ctx = 0;
    c.yarn_beta_fast = c.yarn_beta_slow = c.yarn_log_mul = 0;
    gguf_round_trip(&c);
    c = v3();
    c.yarn_beta_fast = 16;
    c.yarn_beta_slow = 2;
    gguf_round_trip(&c);
    c = v32();
    gguf_round_trip(&c);
}

/* V3's groups, where the file does not name them; the layer that predicts further is not counted. */
static void groups_of_v3_are_known(void **state) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qsi_config c = v3(), back;
    c.n_group = c.n_group_used = 1;
    assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
    assert_int_equal(qsi_config_put_gguf(&c, w), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "deepseek2.nextn_predict_layers", 1), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    assert_int_equal(qsi_config_from_gguf(&back, g, &err), QS_OK);
    assert_int_equal(back.n_layer, 60);
    assert_int_equal(back.n_next, 1);
    gguf_round_trip(&back);
    assert_int_equal(back.n_group, 1); /* named: one group */
    qsi_gguf_close(&g);
    remove(TEMP);
}

/* Keys that follow from others may be missing. */
static void derived_keys_are_optional(void **state) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qsi_config c;
    assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
    assert_int_equal(qsi_gguf_put_str(w, "general.architecture", "llama", 5), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "llama.block_count", 1), QS_OK);
    assert_int_equal(qsi_gguf_put_u64(w, "llama.context_length", 128), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "llama.embedding_length", 64), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "llama.feed_forward_length", 96), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "llama.attention.head_count", 4), QS_OK);
    assert_int_equal(qsi_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f), QS_OK);
    qsi_slice tokens[3] = {{"a", 1}, {"b", 1}, {"c", 1}};
    assert_int_equal(qsi_gguf_put_arr_str(w, "tokenizer.ggml.tokens", tokens, 3), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    assert_int_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
    assert_int_equal(c.n_vocab, 3);
    assert_int_equal(c.n_kv_head, 4);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.rope_theta == 10000 && c.rope_factor == 1);
    qsi_gguf_close(&g);
    remove(TEMP);
}

static void wrong_keys_are_refused(void **state) {
    static const struct { const char *key; int32_t value; const char *says; } cases[] = {
        {"llama.block_count", 0, "block_count"},
        {"llama.block_count", 1 << 20, "block_count"},
        {"llama.attention.head_count_kv", 3, "head_count_kv"},
        {"llama.rope.dimension_count", 8, "rotation"},
        {"llama.attention.key_length", 15, "key_length"},
        {"llama.expert_count", 8, "expert_count"},
        {"llama.vocab_size", -1, "vocab_size"},
        {"llama.attention.layer_norm_rms_epsilon", 1, "epsilon"},
        {"general.architecture", 1, "general.architecture"},
    };
    static const struct { const char *key; int32_t value; } sound[] = {
        {"llama.block_count", 1}, {"llama.context_length", 128}, {"llama.embedding_length", 64},
        {"llama.feed_forward_length", 96}, {"llama.attention.head_count", 4},
        {"llama.attention.head_count_kv", 4}, {"llama.vocab_size", 9},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qs_err err = {0};
        qsi_gguf_writer *w = NULL;
        qsi_gguf *g = NULL;
        qsi_config c;
        const char *bad = cases[i].key;
        assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
        assert_int_equal(qsi_gguf_put_i32(w, bad, cases[i].value), QS_OK);
        if (strcmp(bad, "general.architecture") != 0) {
            assert_int_equal(qsi_gguf_put_str(w, "general.architecture", "llama", 5), QS_OK);
        }
        if (strstr(bad, "epsilon") == NULL) {
            const char *eps = "llama.attention.layer_norm_rms_epsilon";
            assert_int_equal(qsi_gguf_put_f32(w, eps, 1e-6f), QS_OK);
        }
        for (size_t k = 0; k < QSI_COUNT(sound); k++) {
            if (strcmp(sound[k].key, bad) == 0) continue;
            assert_int_equal(qsi_gguf_put_i32(w, sound[k].key, sound[k].value), QS_OK);
        }
        assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
        assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
        assert_int_not_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
        if (strstr(err.text, cases[i].says) == NULL) {
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].says);
        }
        qsi_gguf_close(&g);
    }
    remove(TEMP);
}

static void bounds_are_checked(void **state) {
    qs_err err;
    qsi_config c = llm_67b();
    assert_int_equal(qsi_config_check(&c, &err), QS_OK);
    c.rms_eps = NAN;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    c = llm_67b();
    c.rope_theta = INFINITY;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    c = llm_67b();
    c.head_dim = 127;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    c = llm_67b();
    c.n_expert_used = 2;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    c = moe_16b();
    c.n_shared = 64;
    c.d_expert = 1 << 19;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    static const struct { size_t at; int32_t v; } wrong[] = {
        {offsetof(qsi_config, kv_rank), 0}, {offsetof(qsi_config, d_rope), 63},
        {offsetof(qsi_config, d_rope), 192}, {offsetof(qsi_config, d_value), 0},
        {offsetof(qsi_config, n_kv_head), 1}, {offsetof(qsi_config, n_group), 7},
        {offsetof(qsi_config, n_group_used), 9}, {offsetof(qsi_config, rope_orig_ctx), 0},
        {offsetof(qsi_config, gating), 4},
    };
    c = v3();
    assert_int_equal(qsi_config_check(&c, &err), QS_OK);
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        c = v3();
        memcpy((char *)&c + wrong[i].at, &wrong[i].v, sizeof wrong[i].v);
        assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    }
    c = llm_67b(); /* what rope_freqs is made from */
    c.rope_freqs = true;
    assert_int_equal(qsi_config_check(&c, &err), QS_OK);
    c.freqs_factor = 8;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
    c.freqs_low = 1;
    c.freqs_high = 4;
    c.freqs_orig_ctx = 8192;
    assert_int_equal(qsi_config_check(&c, &err), QS_OK);
    c.arch = QSI_ARCH_QWEN2;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_UNSUPPORTED);
    c = moe_16b();
    c.gating = QSI_GATE_SIGMOID;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_UNSUPPORTED);
    c = moe_16b();
    c.n_dense = 29;
    assert_int_equal(qsi_config_check(&c, &err), QS_E_RANGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_sizes),
        cmocka_unit_test(config_json_is_read),
        cmocka_unit_test(sparse_config_json_is_read),
        cmocka_unit_test(distilled_config_json_is_read),
        cmocka_unit_test(wrong_config_json_is_refused),
        cmocka_unit_test(other_scalings_are_named),
        cmocka_unit_test(gguf_keys_round_trip),
        cmocka_unit_test(groups_of_v3_are_known),
        cmocka_unit_test(derived_keys_are_optional),
        cmocka_unit_test(wrong_keys_are_refused),
        cmocka_unit_test(bounds_are_checked),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
