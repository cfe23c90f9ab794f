/* Operations and bytes, counted by hand for a small shape, and the limits that follow. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "measure/bench.h"

static const qsi_config moe = {
    .arch = QSI_ARCH_DEEPSEEK, .n_vocab = 1000, .n_layer = 3, .d_model = 64, .n_head = 4,
    .n_kv_head = 2, .head_dim = 16, .d_ff = 128, .n_ctx = 256, .rms_eps = 1e-6f,
    .rope_theta = 10000.0f, .rope_factor = 1.0f, .n_dense = 1, .n_expert = 8, .n_expert_used = 2,
    .n_shared = 1, .d_expert = 32, .expert_scale = 1.0f};

/* Weights by hand: attention q, o 64 x 64, k, v 64 x 32; dense 3 x 64 x 128; expert 3 x 64 x 32. */
#define ATTN (2 * 64 * 64 + 2 * 64 * 32)
#define DENSE (3 * 64 * 128)
#define EXPERT (3 * 64 * 32)
#define ROUTER (64 * 8)
#define HEAD (64 * 1000)
#define NORMS (3 * 2 * 64 + 64)

static void test_counts(void **state) {
    qsi_cost c;
    qsi_cost_of(&c, &moe, NULL, 2);
    double used = 3.0 * ATTN + DENSE + 2 * (EXPERT + ROUTER + 2 * EXPERT);
    assert_float_equal(c.layer_ops[QSI_PEAK_BF16], 2 * used, 1e-6);
    assert_true(c.layer_ops[QSI_PEAK_FP32] == 0 && c.layer_ops[QSI_PEAK_INT8] == 0);
    assert_float_equal(c.head_ops[QSI_PEAK_BF16], 2.0 * HEAD, 1e-6);
    assert_float_equal(c.attn_ops, 4.0 * 3 * 4 * 16, 0);
    assert_float_equal(c.cache_bytes, 2.0 * 3 * 2 * 16 * 2, 0);
    double shared = 3.0 * ATTN + DENSE + 2 * (EXPERT + ROUTER) + HEAD + NORMS;
    assert_float_equal(c.shared_bytes, 2 * shared, 1e-6);
    assert_float_equal(c.expert_bytes, 2.0 * 2 * 8 * EXPERT, 1e-6);
    assert_int_equal(c.weight_bytes, 2 * (int64_t)(shared + 2 * 8 * EXPERT + 1000 * 64));
}

/* Exact: what int8 units would do falls to float ones, and nothing is lost. */
static void test_exact(void **state) {
    qsi_cost c = {.layer_ops = {1, 2, 30}, .head_ops = {4, 5, 60}};
    qsi_cost_exact(&c);
    assert_true(c.layer_ops[QSI_PEAK_FP32] == 31 && c.layer_ops[QSI_PEAK_BF16] == 2);
    assert_true(c.head_ops[QSI_PEAK_FP32] == 64 && c.head_ops[QSI_PEAK_BF16] == 5);
    assert_true(c.layer_ops[QSI_PEAK_INT8] == 0 && c.head_ops[QSI_PEAK_INT8] == 0);
}

/* Latent attention: 3 layers, 4 heads of 10 + 6, values of 12, latent rows of 20 + 6. */
static void test_latent(void **state) {
    qsi_config k = moe;
    qsi_cost c;
    k.arch = QSI_ARCH_DEEPSEEK2;
    k.n_kv_head = 4;
    k.d_rope = 6;
    k.d_value = 12;
    k.kv_rank = 20;
    qsi_cost_of(&c, &k, NULL, 2);
    double attn = 64 * 4 * 16 + 64 * 26 + 4 * (10 * 20 + 20 * 12) + 4 * 12 * 64;
    double used = 3 * attn + DENSE + 2 * (EXPERT + ROUTER + 2 * EXPERT);
    assert_float_equal(c.layer_ops[QSI_PEAK_BF16], 2 * used, 1e-6);
    assert_float_equal(c.attn_ops, 3.0 * 4 * 2 * (16 + 12), 0);
    assert_float_equal(c.attn_decode_ops, 3.0 * 4 * 2 * (26 + 20), 0);
    assert_float_equal(c.cache_bytes, 3.0 * 26 * 2, 0);
    k.kv_b_whole = true;
    qsi_cost_of(&c, &k, NULL, 2);
    assert_float_equal(c.layer_ops[QSI_PEAK_BF16], 2 * used, 1e-6);
}

/* Attention to 8 positions at most; an indexer of 2 heads of 7. */
static void test_sparse(void **state) {
    const qsi_limits l = {.read_gb_s = 1e9, .fp32_gflop_s = 100, .bf16_gflop_s = 100,
                          .int8_gop_s = 100};
    qsi_config k = moe;
    qsi_cost c;
    k.arch = QSI_ARCH_DEEPSEEK32;
    k.n_kv_head = 4;
    k.d_rope = 6;
    k.d_value = 12;
    k.kv_rank = 20;
    k.q_rank = 9;
    k.index_topk = 8;
    k.index_heads = 2;
    k.index_dim = 7;
    qsi_cost_of(&c, &k, NULL, 2);
    assert_float_equal(c.index_ops, 3.0 * 2 * 2 * 7, 0);
    assert_float_equal(c.index_bytes, 3.0 * 7 * 2, 0);
    assert_float_equal(c.cache_bytes, 3.0 * 26 * 2, 0);
    double layers = c.layer_ops[QSI_PEAK_BF16], head = c.head_ops[QSI_PEAK_BF16];
    /* after 6 positions: two tokens look at 7 and 8, two at 8 each of 9 and 10 scored */
    double want = (4 * layers + head + c.attn_ops * 15 + c.attn_decode_ops * 16 + c.index_ops * 19) /
                  100e9;
    assert_float_equal(qsi_limit_prefill(&c, &l, 4, 6), want, want * 1e-12);
    want = (layers + head + c.attn_decode_ops * 8) / 100e9;
    assert_float_equal(qsi_limit_decode(&c, &l, 1, 7), want, want * 1e-12);
    want = (layers + head + c.attn_decode_ops * 8 + c.index_ops * 21) / 100e9;
    assert_float_equal(qsi_limit_decode(&c, &l, 1, 20), want, want * 1e-12);
}

static void test_limits(void **state) {
    const qsi_limits l = {.read_gb_s = 10, .fp32_gflop_s = 100, .bf16_gflop_s = 200,
                          .int8_gop_s = 400};
    qsi_cost c;
    qsi_cost_of(&c, &moe, NULL, 2);
    double layers = c.layer_ops[QSI_PEAK_BF16], head = c.head_ops[QSI_PEAK_BF16];
    /* three tokens after ten positions look at 11 + 12 + 13 positions */
    double want = (3 * layers + head) / 200e9 + c.attn_ops * 36 / 100e9;
    assert_float_equal(qsi_limit_prefill(&c, &l, 3, 10), want, want * 1e-12);
    /* one sequence: two of eight experts, one new position */
    want = (c.shared_bytes + c.expert_bytes / 4 + c.cache_bytes * 8) / 10e9;
    assert_float_equal(qsi_limit_decode(&c, &l, 1, 7), want, want * 1e-12);
    /* three sequences touch 1 - (3/4)^3 of them */
    want = (c.shared_bytes + c.expert_bytes * 37 / 64 + c.cache_bytes * 24) / 10e9;
    assert_float_equal(qsi_limit_decode(&c, &l, 3, 7), want, want * 1e-12);
    /* a thousand are bound by arithmetic */
    want = 1000 * ((layers + head) / 200e9 + c.attn_ops / 100e9);
    assert_float_equal(qsi_limit_decode(&c, &l, 1000, 0), want, want * 1e-12);
    /* both times, whichever is the limit */
    qsi_decode_times t = qsi_decode_times_of(&c, &l, 1000, 0);
    assert_float_equal(t.ops_s, want, want * 1e-12);
    want = (c.shared_bytes + c.expert_bytes + c.cache_bytes * 1000) / 10e9;
    assert_float_equal(t.bytes_s, want, want * 1e-6); /* all but (3/4)^1000 of the experts */
    assert_true(t.bytes_s < t.ops_s);
    /* 6 a weight, 12 * heads * head_dim * half the positions a layer */
    want = (3 * (layers + head) + 3 * 12.0 * 4 * 16 * 40) / 200e9;
    assert_float_equal(qsi_limit_train(&c, &l, 80), want, want * 1e-12);
}

static void test_median(void **state) {
    double odd[] = {5, 1, 4}, even[] = {4, 1, 3, 2}, one[] = {7};
    assert_true(qsi_median(odd, 3) == 4 && odd[0] == 1);
    assert_true(qsi_median(even, 4) == 2.5);
    assert_true(qsi_median(one, 1) == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_latent), cmocka_unit_test(test_sparse), cmocka_unit_test(test_exact),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_median),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
