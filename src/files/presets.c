/* The table of presets. DeepSeekMoE 145B's unpublished dense width is twice the 16B's, which
 * fits the published total. DeepSeekMoE 2B's expert width, a quarter of a standard FFN, is 853 in the
 * paper's arithmetic; 864 is the next multiple of 32, which block types need. Its vocabulary ("8K")
 * and its unused dense FFN width (4 experts) are our reading too. */
#include "files/presets.h"

#include <string.h>

#include "base/str.h"

#define DENSE .arch = QSI_ARCH_LLAMA, .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 1
#define MOE                                                                                        \
    .arch = QSI_ARCH_DEEPSEEK, .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 1,             \
    .expert_scale = 1

/* DeepSeek-V2: YaRN from 4096 to 163840 positions. yarn_log_mul is a tenth of mscale_all_dim: 0.707 of
 * V2 and both Lite models, 1 of V2.5 and Coder-V2 (the GGUF files of V2.5-1210 and Coder-V2 say
 * 0.1; config_236B.json in DeepSeek-V3's repository leaves it at 1) and of all later ones. */
#define MLA                                                                                        \
    .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 40,                                       \
    .rope_scaling = QSI_ROPE_YARN, .rope_orig_ctx = 4096, .yarn_beta_fast = 32,                    \
    .yarn_beta_slow = 1
#define MLA2 MLA, .arch = QSI_ARCH_DEEPSEEK2
#define LITE_SIZES                                                                                 \
    .n_vocab = 102400, .n_layer = 27, .d_model = 2048, .n_head = 16, .n_kv_head = 16,              \
    .head_dim = 192, .d_rope = 64, .d_value = 128, .kv_rank = 512, .d_ff = 10944,                  \
    .n_ctx = 163840, .n_dense = 1, .n_expert = 64, .n_expert_used = 6, .n_shared = 2,              \
    .d_expert = 1408, .expert_scale = 1, .gating = QSI_GATE_SOFTMAX, .n_group = 1,                 \
    .n_group_used = 1, .yarn_log_mul = 0.0707f
#define V2_SIZES                                                                                   \
    .n_vocab = 102400, .n_layer = 60, .d_model = 5120, .n_head = 128, .n_kv_head = 128,            \
    .head_dim = 192, .d_rope = 64, .d_value = 128, .q_rank = 1536, .kv_rank = 512,                 \
    .d_ff = 12288, .n_ctx = 163840, .n_dense = 1, .n_expert = 160, .n_expert_used = 6,             \
    .n_shared = 2, .d_expert = 1536, .expert_scale = 16, .gating = QSI_GATE_SOFTMAX,               \
    .n_group = 8, .n_group_used = 3
#define V3_SIZES                                                                                   \
    .n_vocab = 129280, .n_layer = 61, .d_model = 7168, .n_head = 128, .n_kv_head = 128,            \
    .head_dim = 192, .d_rope = 64, .d_value = 128, .q_rank = 1536, .kv_rank = 512,                 \
    .d_ff = 18432, .n_ctx = 163840, .n_dense = 3, .n_expert = 256, .n_expert_used = 8,             \
    .n_shared = 1, .d_expert = 2048, .expert_scale = 2.5f, .norm_topk = true,                      \
    .gating = QSI_GATE_SIGMOID, .gate_bias = true, .n_group = 8, .n_group_used = 4,                \
    .yarn_log_mul = 0.1f
#define V3_TINY                                                                                    \
    .n_vocab = 512, .n_layer = 4, .d_model = 128, .n_head = 4, .n_kv_head = 4,                     \
    .head_dim = 48, .d_rope = 16, .d_value = 32, .q_rank = 96, .kv_rank = 64, .d_ff = 256,         \
    .n_ctx = 4096, .n_dense = 1, .n_expert = 16, .n_expert_used = 4, .n_shared = 1,                \
    .d_expert = 32, .expert_scale = 2.5f, .norm_topk = true, .gating = QSI_GATE_SIGMOID,           \
    .gate_bias = true, .n_group = 4, .n_group_used = 2, .yarn_log_mul = 0.1f

/* DeepSeek-Coder: trained at 4096, then positions by 4. */
#define CODER                                                                                      \
    .arch = QSI_ARCH_LLAMA, .rms_eps = 1e-6f, .rope_theta = 1e5f, .rope_factor = 4,                \
    .rope_scaling = QSI_ROPE_LINEAR, .n_ctx = 16384

/* Models that learned from R1; docs/distills.md. */
#define QWEN2 .arch = QSI_ARCH_QWEN2, .rope_factor = 1, .n_ctx = 131072
#define LLAMA3                                                                                     \
    .arch = QSI_ARCH_LLAMA, .rms_eps = 1e-5f, .rope_theta = 5e5f, .rope_factor = 1,                \
    .n_ctx = 131072, .rope_freqs = true, .freqs_factor = 8, .freqs_low = 1, .freqs_high = 4,       \
    .freqs_orig_ctx = 8192
#define QWEN3                                                                                      \
    .arch = QSI_ARCH_QWEN3, .rms_eps = 1e-6f, .rope_theta = 1e6f, .n_ctx = 131072,                 \
    .rope_scaling = QSI_ROPE_YARN, .rope_factor = 4, .rope_orig_ctx = 32768, .yarn_beta_fast = 32, \
    .yarn_beta_slow = 1, .yarn_log_mul = 0.1f, .yarn_attn = 0.8782488562869419f

static const qsi_preset presets[] = {
    {"deepseek-llm-7b",
     "DeepSeek LLM 7B: dense, 30 layers, 6.9 B weights",
     {DENSE, .n_vocab = 102400, .n_layer = 30, .d_model = 4096, .n_head = 32, .n_kv_head = 32,
      .head_dim = 128, .d_ff = 11008, .n_ctx = 4096}},
    {"deepseek-llm-67b",
     "DeepSeek LLM 67B: dense, 95 layers, grouped-query attention, 67.4 B weights",
     {DENSE, .n_vocab = 102400, .n_layer = 95, .d_model = 8192, .n_head = 64, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 22016, .n_ctx = 4096}},
    {"deepseek-coder-1.3b",
     "DeepSeek-Coder 1.3B: dense, 24 layers, positions scaled by 4",
     {CODER, .n_vocab = 32256, .n_layer = 24, .d_model = 2048, .n_head = 16, .n_kv_head = 16,
      .head_dim = 128, .d_ff = 5504}},
    {"deepseek-coder-6.7b",
     "DeepSeek-Coder 6.7B: dense, 32 layers, positions scaled by 4",
     {CODER, .n_vocab = 32256, .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 32,
      .head_dim = 128, .d_ff = 11008}},
    {"deepseek-coder-33b",
     "DeepSeek-Coder 33B: dense, 62 layers, grouped-query attention, positions scaled by 4",
     {CODER, .n_vocab = 32256, .n_layer = 62, .d_model = 7168, .n_head = 56, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 19200}},
    {"deepseek-moe-2b",
     "DeepSeekMoE 2B: 9 layers of 63 routed (7 used) and 1 shared expert",
     {MOE, .n_vocab = 8192, .n_layer = 9, .d_model = 1280, .n_head = 10, .n_kv_head = 10,
      .head_dim = 128, .d_ff = 3456, .n_ctx = 2048, .n_dense = 0, .n_expert = 63,
      .n_expert_used = 7, .n_shared = 1, .d_expert = 864}},
    {"deepseek-moe-16b",
     "DeepSeekMoE 16B: 28 layers, the first dense, 64 routed (6 used) and 2 shared experts",
     {MOE, .n_vocab = 102400, .n_layer = 28, .d_model = 2048, .n_head = 16, .n_kv_head = 16,
      .head_dim = 128, .d_ff = 10944, .n_ctx = 4096, .n_dense = 1, .n_expert = 64,
      .n_expert_used = 6, .n_shared = 2, .d_expert = 1408}},
    {"deepseek-moe-145b",
     "DeepSeekMoE 145B: 62 layers, the first dense, 128 routed (12 used) and 4 shared experts",
     {MOE, .n_vocab = 102400, .n_layer = 62, .d_model = 4096, .n_head = 32, .n_kv_head = 32,
      .head_dim = 128, .d_ff = 21888, .n_ctx = 4096, .n_dense = 1, .n_expert = 128,
      .n_expert_used = 12, .n_shared = 4, .d_expert = 1408}},
    {"deepseek-v2-lite",
     "DeepSeek-V2-Lite 16B: latent attention, 27 layers, 64 routed (6 used) and 2 shared experts",
     {MLA2, LITE_SIZES}},
    {"deepseek-coder-v2-lite",
     "DeepSeek-Coder-V2-Lite 16B: V2-Lite's shape",
     {MLA2, LITE_SIZES}},
    {"deepseek-v2",
     "DeepSeek-V2 236B: 60 layers, 160 routed (6 used, of 3 of 8 groups) and 2 shared experts",
     {MLA2, V2_SIZES, .yarn_log_mul = 0.0707f}},
    {"deepseek-v2.5",
     "DeepSeek-V2.5 236B: V2's shape, attention sharper by its YaRN",
     {MLA2, V2_SIZES, .yarn_log_mul = 0.1f}},
    {"deepseek-coder-v2",
     "DeepSeek-Coder-V2 236B: V2.5's shape",
     {MLA2, V2_SIZES, .yarn_log_mul = 0.1f}},
    {"deepseek-v3",
     "DeepSeek-V3 671B: 61 layers, 256 routed (8 used, of 4 of 8 groups) and 1 shared expert",
     {MLA2, V3_SIZES}},
    {"deepseek-r1",
     "DeepSeek-R1 671B: V3's shape",
     {MLA2, V3_SIZES}},
    {"deepseek-v3.1",
     "DeepSeek-V3.1 671B: V3's shape",
     {MLA2, V3_SIZES}},
    {"deepseek-v3.2",
     "DeepSeek-V3.2: V3 with sparse attention to 2048 positions, chosen by an indexer of 64 heads",
     {MLA, V3_SIZES, .arch = QSI_ARCH_DEEPSEEK32, .index_topk = 2048, .index_heads = 64,
      .index_dim = 128}},
    {"r1-distill-qwen-1.5b",
     "DeepSeek-R1-Distill-Qwen 1.5B: dense with biases, 28 layers",
     {QWEN2, .rms_eps = 1e-6f, .rope_theta = 1e4f, .n_vocab = 151936, .n_layer = 28,
      .d_model = 1536, .n_head = 12, .n_kv_head = 2, .head_dim = 128, .d_ff = 8960}},
    {"r1-distill-qwen-7b",
     "DeepSeek-R1-Distill-Qwen 7B: dense with biases, 28 layers",
     {QWEN2, .rms_eps = 1e-6f, .rope_theta = 1e4f, .n_vocab = 152064, .n_layer = 28,
      .d_model = 3584, .n_head = 28, .n_kv_head = 4, .head_dim = 128, .d_ff = 18944}},
    {"r1-distill-qwen-14b",
     "DeepSeek-R1-Distill-Qwen 14B: dense with biases, 48 layers",
     {QWEN2, .rms_eps = 1e-5f, .rope_theta = 1e6f, .n_vocab = 152064, .n_layer = 48,
      .d_model = 5120, .n_head = 40, .n_kv_head = 8, .head_dim = 128, .d_ff = 13824}},
    {"r1-distill-qwen-32b",
     "DeepSeek-R1-Distill-Qwen 32B: dense with biases, 64 layers",
     {QWEN2, .rms_eps = 1e-5f, .rope_theta = 1e6f, .n_vocab = 152064, .n_layer = 64,
      .d_model = 5120, .n_head = 40, .n_kv_head = 8, .head_dim = 128, .d_ff = 27648}},
    {"r1-distill-llama-8b",
     "DeepSeek-R1-Distill-Llama 8B: dense, 32 layers, Llama 3.1's rotary positions",
     {LLAMA3, .n_vocab = 128256, .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 14336}},
    {"r1-distill-llama-70b",
     "DeepSeek-R1-Distill-Llama 70B: dense, 80 layers, Llama 3.1's rotary positions",
     {LLAMA3, .n_vocab = 128256, .n_layer = 80, .d_model = 8192, .n_head = 64, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 28672}},
    {"r1-0528-qwen3-8b",
     "DeepSeek-R1-0528-Qwen3 8B: dense with normed heads, 36 layers, YaRN",
     {QWEN3, .n_vocab = 151936, .n_layer = 36, .d_model = 4096, .n_head = 32, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 12288}},
    {"dense-tiny",
     "a dense model of 2.6 M weights, for trying things out",
     {DENSE, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 2,
      .head_dim = 64, .d_ff = 512, .n_ctx = 512}},
    {"moe-tiny",
     "a DeepSeekMoE of 3.7 M weights, for trying things out",
     {MOE, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 4,
      .head_dim = 64, .d_ff = 512, .n_ctx = 512, .n_dense = 1, .n_expert = 8, .n_expert_used = 2,
      .n_shared = 1, .d_expert = 96}},
    {"deepseek-coder-tiny",
     "DeepSeek-Coder's structure with 2.6 M weights, for trying things out",
     {CODER, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 4,
      .head_dim = 64, .d_ff = 512}},
    {"r1-distill-qwen-tiny",
     "DeepSeek-R1-Distill-Qwen's structure with 5 M weights, for trying things out",
     {QWEN2, .rms_eps = 1e-6f, .rope_theta = 1e4f, .n_vocab = 512, .n_layer = 4, .d_model = 448,
      .n_head = 7, .n_kv_head = 1, .head_dim = 64, .d_ff = 512}},
    {"r1-distill-llama-tiny",
     "DeepSeek-R1-Distill-Llama's structure with 2.6 M weights, for trying things out",
     {LLAMA3, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 1,
      .head_dim = 64, .d_ff = 512}},
    {"r1-0528-qwen3-tiny",
     "DeepSeek-R1-0528-Qwen3's structure with 3 M weights, for trying things out",
     {QWEN3, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 1,
      .head_dim = 96, .d_ff = 512}},
    {"deepseek-v2-lite-tiny",
     "DeepSeek-V2-Lite's structure with 5 M weights, for trying things out",
     {MLA2, .n_vocab = 512, .n_layer = 27, .d_model = 128, .n_head = 4, .n_kv_head = 4,
      .head_dim = 48, .d_rope = 16, .d_value = 32, .kv_rank = 64, .d_ff = 256, .n_ctx = 4096,
      .n_dense = 1, .n_expert = 8, .n_expert_used = 2, .n_shared = 1, .d_expert = 32,
      .expert_scale = 1, .gating = QSI_GATE_SOFTMAX, .n_group = 1, .n_group_used = 1,
      .yarn_log_mul = 0.0707f}},
    {"deepseek-v2-tiny",
     "DeepSeek-V2's structure with 0.9 M weights, for trying things out",
     {MLA2, .n_vocab = 512, .n_layer = 4, .d_model = 128, .n_head = 4, .n_kv_head = 4,
      .head_dim = 48, .d_rope = 16, .d_value = 32, .q_rank = 96, .kv_rank = 64, .d_ff = 256,
      .n_ctx = 4096, .n_dense = 1, .n_expert = 16, .n_expert_used = 3, .n_shared = 2,
      .d_expert = 32, .expert_scale = 16, .gating = QSI_GATE_SOFTMAX, .n_group = 4,
      .n_group_used = 2, .yarn_log_mul = 0.0707f}},
    {"deepseek-v3-tiny",
     "DeepSeek-V3's structure with 0.9 M weights, for trying things out",
     {MLA2, V3_TINY}},
    {"deepseek-v3.2-tiny",
     "DeepSeek-V3.2's structure with 1.3 M weights, attention to 64 positions, for trying things out",
     {MLA, V3_TINY, .arch = QSI_ARCH_DEEPSEEK32, .index_topk = 64, .index_heads = 8,
      .index_dim = 32}},
};

size_t qsi_preset_count(void) { return QSI_COUNT(presets); }

const qsi_preset *qsi_preset_at(size_t i) {
    QS_CHECK(i < QSI_COUNT(presets));
    return &presets[i];
}

qs_status qsi_preset_find(const qsi_preset **out, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str known = {0};
    for (size_t i = 0; i < QSI_COUNT(presets); i++) {
        if (strcmp(presets[i].name, name) == 0) {
            *out = &presets[i];
            goto done;
        }
        if (qsi_str_printf(&known, "%s%s", i > 0 ? ", " : "", presets[i].name) != QS_OK) {
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
        }
    }
    QS_FAIL(err, QS_E_ARG, "no preset is called '%.60s'; there are %s", name, known.data);
done:
    qsi_str_release(&known);
    return st;
}
