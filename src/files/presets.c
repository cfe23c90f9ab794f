/* The table of presets. DeepSeekMoE 2B's expert width, a quarter of a standard FFN, is 853 in the
 * paper's arithmetic; 864 is the next multiple of 32, which block types need. Its vocabulary ("8K")
 * and its unused dense FFN width (4 experts) are our reading too. */
#include "files/presets.h"

#include <string.h>

#include "base/str.h"

#define DENSE .arch = QSI_ARCH_LLAMA, .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 1
#define MOE                                                                                        \
    .arch = QSI_ARCH_DEEPSEEK, .rms_eps = 1e-6f, .rope_theta = 1e4f, .rope_factor = 1,             \
    .expert_scale = 1

static const qsi_preset presets[] = {
    {"deepseek-llm-7b",
     "DeepSeek LLM 7B: dense, 30 layers, 6.9 B weights",
     {DENSE, .n_vocab = 102400, .n_layer = 30, .d_model = 4096, .n_head = 32, .n_kv_head = 32,
      .head_dim = 128, .d_ff = 11008, .n_ctx = 4096}},
    {"deepseek-llm-67b",
     "DeepSeek LLM 67B: dense, 95 layers, grouped-query attention, 67.4 B weights",
     {DENSE, .n_vocab = 102400, .n_layer = 95, .d_model = 8192, .n_head = 64, .n_kv_head = 8,
      .head_dim = 128, .d_ff = 22016, .n_ctx = 4096}},
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
    {"dense-tiny",
     "a dense model of 2.6 M weights, for trying things out",
     {DENSE, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 2,
      .head_dim = 64, .d_ff = 512, .n_ctx = 512}},
    {"moe-tiny",
     "a DeepSeekMoE of 3.7 M weights, for trying things out",
     {MOE, .n_vocab = 512, .n_layer = 4, .d_model = 256, .n_head = 4, .n_kv_head = 4,
      .head_dim = 64, .d_ff = 512, .n_ctx = 512, .n_dense = 1, .n_expert = 8, .n_expert_used = 2,
      .n_shared = 1, .d_expert = 96}},
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
