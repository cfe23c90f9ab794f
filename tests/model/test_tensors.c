/* The list of tensors: names, shapes and order, for every kind of attention and of FFN. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "model/model.h"

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

static void tensors_in_order(void **state) {
    qsi_config c = moe_16b();
    qsi_tensor_spec t;
    size_t n = qsi_config_n_tensors(&c);
    assert_int_equal(n, 3 + 9 + 27 * 13);
    qsi_config_tensor(&c, 0, &t);
    assert_string_equal(t.name, "token_embd.weight");
    assert_true(t.n_dims == 2 && t.ne[0] == 2048 && t.ne[1] == 102400 && t.layer == -1);
    qsi_config_tensor(&c, 9, &t);
    assert_string_equal(t.name, "blk.0.ffn_down.weight");
    assert_true(t.ne[0] == 10944 && t.ne[1] == 2048 && t.layer == 0);
    qsi_config_tensor(&c, 10 + 6, &t);
    assert_string_equal(t.name, "blk.1.ffn_gate_inp.weight");
    assert_true(t.ne[0] == 2048 && t.ne[1] == 64 && t.role == QSI_ROLE_ROUTER);
    qsi_config_tensor(&c, 10 + 9, &t);
    assert_string_equal(t.name, "blk.1.ffn_down_exps.weight");
    assert_true(t.n_dims == 3 && t.ne[0] == 1408 && t.ne[1] == 2048 && t.ne[2] == 64);
    qsi_config_tensor(&c, n - 3, &t);
    assert_string_equal(t.name, "blk.27.ffn_down_shexp.weight");
    assert_true(t.ne[0] == 2816 && t.ne[1] == 2048);
    qsi_config_tensor(&c, n - 2, &t);
    assert_string_equal(t.name, "output_norm.weight");
    assert_true(t.n_dims == 1 && t.ne[0] == 2048 && t.ne[1] == 1 && t.role == QSI_ROLE_NORM);
    qsi_config_tensor(&c, n - 1, &t);
    assert_string_equal(t.name, "output.weight");
    c.n_shared = 0;
    assert_int_equal(qsi_config_n_tensors(&c), 3 + 9 + 27 * 10);
}

/* Tensor number i has this name and these sizes. */
static void is(const qsi_config *c, size_t i, const char *name, int64_t a, int64_t b, int64_t d) {
    qsi_tensor_spec t;
    qsi_config_tensor(c, i, &t);
    assert_string_equal(t.name, name);
    assert_true(t.ne[0] == a && t.ne[1] == b && t.ne[2] == d);
    assert_int_equal(t.n_dims, d > 1 ? 3 : b > 1 ? 2 : 1);
}

static void latent_attention(void **state) {
    qsi_config c = moe_16b();
    c.arch = QSI_ARCH_DEEPSEEK2;
    c.head_dim = 192;
    c.d_rope = 64;
    c.d_value = 96;
    c.kv_rank = 512;
    is(&c, 2, "blk.0.attn_q.weight", 2048, 16 * 192, 1);
    is(&c, 3, "blk.0.attn_kv_a_mqa.weight", 2048, 576, 1);
    is(&c, 4, "blk.0.attn_kv_a_norm.weight", 512, 1, 1);
    is(&c, 5, "blk.0.attn_k_b.weight", 128, 512, 16);
    is(&c, 6, "blk.0.attn_v_b.weight", 512, 96, 16);
    is(&c, 7, "blk.0.attn_output.weight", 16 * 96, 2048, 1);
    c.kv_b_whole = true;
    is(&c, 5, "blk.0.attn_kv_b.weight", 512, 16 * (128 + 96), 1);
    c.q_rank = 1536;
    c.gate_bias = true;
    is(&c, 2, "blk.0.attn_q_a.weight", 2048, 1536, 1);
    is(&c, 3, "blk.0.attn_q_a_norm.weight", 1536, 1, 1);
    is(&c, 4, "blk.0.attn_q_b.weight", 1536, 16 * 192, 1);
    is(&c, 13 + 9, "blk.1.ffn_gate_inp.weight", 2048, 64, 1);
    is(&c, 13 + 10, "blk.1.exp_probs_b.bias", 64, 1, 1);
    assert_int_equal(qsi_config_n_tensors(&c), 3 + 12 + 27 * 17);
    c.arch = QSI_ARCH_DEEPSEEK32;
    c.index_topk = 2048;
    c.index_heads = 64;
    c.index_dim = 128;
    is(&c, 8, "blk.0.indexer.attn_k.weight", 2048, 128, 1);
    is(&c, 9, "blk.0.indexer.k_norm.weight", 128, 1, 1);
    is(&c, 10, "blk.0.indexer.k_norm.bias", 128, 1, 1);
    is(&c, 11, "blk.0.indexer.proj.weight", 2048, 64, 1);
    is(&c, 12, "blk.0.indexer.attn_q_b.weight", 1536, 8192, 1);
    assert_int_equal(qsi_config_n_tensors(&c), 3 + 17 + 27 * 22);
}

static void distilled_models(void **state) {
    qsi_config c = {.arch = QSI_ARCH_QWEN2, .n_vocab = 512, .n_layer = 3, .d_model = 448, .n_head = 7,
                    .n_kv_head = 1, .head_dim = 64, .d_ff = 512};
    is(&c, 2, "blk.0.attn_q.weight", 448, 448, 1);
    is(&c, 3, "blk.0.attn_q.bias", 448, 1, 1);
    is(&c, 5, "blk.0.attn_k.bias", 64, 1, 1);
    is(&c, 7, "blk.0.attn_v.bias", 64, 1, 1);
    assert_int_equal(qsi_config_n_tensors(&c), 3 + 3 * 12);
    c.arch = QSI_ARCH_QWEN3;
    c.head_dim = 96;
    is(&c, 2, "blk.0.attn_q.weight", 448, 672, 1);
    is(&c, 3, "blk.0.attn_q_norm.weight", 96, 1, 1);
    is(&c, 5, "blk.0.attn_k_norm.weight", 96, 1, 1);
    is(&c, 6, "blk.0.attn_v.weight", 448, 96, 1);
    is(&c, 7, "blk.0.attn_output.weight", 672, 448, 1);
    assert_int_equal(qsi_config_n_tensors(&c), 3 + 3 * 11);
    c.arch = QSI_ARCH_LLAMA;
    c.rope_freqs = true;
    is(&c, 0, "token_embd.weight", 448, 512, 1);
    is(&c, 1, "rope_freqs.weight", 48, 1, 1);
    is(&c, 2, "blk.0.attn_norm.weight", 448, 1, 1);
    is(&c, 4 + 3 * 9 - 2, "output_norm.weight", 448, 1, 1);
    is(&c, 4 + 3 * 9 - 1, "output.weight", 448, 512, 1);
    assert_int_equal(qsi_config_n_tensors(&c), 4 + 3 * 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_in_order),
        cmocka_unit_test(latent_attention),
        cmocka_unit_test(distilled_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
