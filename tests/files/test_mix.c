/* Which tensor of a mix gets which type: the rules of llama.cpp's quantizer, spot by spot (whole files
 * are compared in tools/check_llama_cpp.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "files/mix.h"
#include "files/presets.h"

static const char *type_of(const char *mix, const char *preset, const char *tensor) {
    const qsi_preset *p = NULL;
    const qsi_mix *m = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_preset_find(&p, preset, &err), QS_OK);
    assert_int_equal(qsi_mix_find(&m, mix, &err), QS_OK);
    for (size_t i = 0; i < qsi_config_n_tensors(&p->config); i++) {
        qsi_tensor_spec t;
        qsi_config_tensor(&p->config, i, &t);
        if (strcmp(t.name, tensor) == 0)
            return qsi_type_get((int32_t)qsi_mix_type(m, &p->config, &t, NULL))->name;
    }
    fail_msg("%s has no %s", preset, tensor);
    return NULL;
}

static void mixes_choose_by_tensor_and_layer(void **state) {
    static const struct { const char *mix, *preset, *tensor, *type; } cases[] = {
        /* 30 layers: an eighth is 3 */
        {"Q4_K_M", "deepseek-llm-7b", "blk.0.attn_v.weight", "Q6_K"},
        {"Q4_K_M", "deepseek-llm-7b", "blk.3.attn_v.weight", "Q4_K"},
        {"Q4_K_M", "deepseek-llm-7b", "blk.5.ffn_down.weight", "Q6_K"},
        {"Q4_K_M", "deepseek-llm-7b", "blk.25.ffn_down.weight", "Q4_K"},
        {"Q4_K_M", "deepseek-llm-7b", "blk.26.ffn_down.weight", "Q6_K"},
        {"Q4_K_M", "deepseek-llm-7b", "blk.0.attn_q.weight", "Q4_K"},
        {"Q4_K_M", "deepseek-llm-7b", "token_embd.weight", "Q4_K"},
        {"q4_k_m", "deepseek-llm-7b", "output.weight", "Q6_K"},
        {"Q4_K_S", "deepseek-llm-7b", "blk.3.attn_v.weight", "Q5_K"},
        {"Q4_K_S", "deepseek-llm-7b", "blk.4.attn_v.weight", "Q4_K"},
        {"Q4_K_S", "deepseek-llm-7b", "blk.2.ffn_down.weight", "Q5_K"},
        {"Q4_K_S", "deepseek-llm-7b", "blk.3.ffn_down.weight", "Q4_K"},
        {"Q5_K_M", "deepseek-llm-7b", "blk.29.attn_v.weight", "Q6_K"},
        {"Q5_K_S", "deepseek-llm-7b", "blk.0.attn_v.weight", "Q5_K"},
        {"Q3_K_M", "deepseek-llm-7b", "blk.1.attn_v.weight", "Q5_K"},
        {"Q3_K_M", "deepseek-llm-7b", "blk.2.attn_v.weight", "Q4_K"},
        {"Q3_K_M", "deepseek-llm-7b", "blk.2.attn_output.weight", "Q4_K"},
        {"Q3_K_L", "deepseek-llm-7b", "blk.9.ffn_down.weight", "Q5_K"},
        {"Q2_K_M", "deepseek-llm-7b", "blk.9.attn_v.weight", "Q3_K"},
        {"Q2_K_M", "deepseek-llm-67b", "blk.9.attn_v.weight", "Q4_K"}, /* eight heads share it */
        {"Q2_K_M", "deepseek-llm-7b", "output.weight", "Q6_K"},
        {"Q4_K", "deepseek-llm-7b", "output.weight", "Q4_K"}, /* plain */
        {"Q4_K", "deepseek-llm-7b", "blk.0.attn_norm.weight", "F32"},
        {"Q4_K", "deepseek-moe-16b", "blk.1.ffn_gate_inp.weight", "F32"},
        /* rows of 1408, 10944, 128: not multiples of 256 */
        {"Q4_K", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "Q5_0"},
        {"Q4_K", "deepseek-moe-16b", "blk.0.ffn_down.weight", "Q5_0"},
        {"Q4_K_M", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "Q8_0"},
        {"Q4_K_M", "deepseek-moe-16b", "blk.1.ffn_down_shexp.weight", "Q6_K"}, /* 2816 */
        {"Q6_K", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "Q8_0"},
        {"Q5_K", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "Q5_1"},
        {"Q2_K", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "Q4_0"},
        {"IQ4_NL", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "IQ4_NL"},
        {"MXFP4_MOE", "deepseek-moe-16b", "blk.1.ffn_down_exps.weight", "MXFP4"},
        {"MXFP4_MOE", "deepseek-moe-16b", "blk.1.ffn_down_shexp.weight", "Q8_0"},
        {"MXFP4_MOE", "deepseek-moe-16b", "token_embd.weight", "Q8_0"},
        {"Q3_K_M", "deepseek-v2-lite", "blk.3.attn_k_b.weight", "Q4_0"},
        {"Q4_K_M", "deepseek-v2-lite", "blk.0.attn_k_b.weight", "Q5_0"},
        {"Q4_K_M", "deepseek-v2-lite", "blk.0.attn_v_b.weight", "Q4_K"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        const char *is = type_of(cases[i].mix, cases[i].preset, cases[i].tensor);
        if (strcmp(is, cases[i].type) != 0)
            fail_msg("%s, %s, %s: %s, not %s", cases[i].mix, cases[i].preset, cases[i].tensor, is,
                     cases[i].type);
    }
}

static void names_are_found(void **state) {
    qs_err err = {0};
    const qsi_mix *m = NULL;
    assert_int_equal(qsi_mix_find(&m, "iq4_nl", &err), QS_OK);
    assert_int_equal(m->base, QSI_IQ4_NL);
    static const char *const wrong[] = {"", "Q4", "Q4_K_", "Q4_K_MM", "I32", "IQ2_XS"};
    for (size_t i = 0; i < QSI_COUNT(wrong); i++)
        assert_int_equal(qsi_mix_find(&m, wrong[i], &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "IQ2_XS"));
    assert_non_null(strstr(err.text, "Q4_K_M"));
    for (size_t i = 0; (m = qsi_mix_at(i)) != NULL; i++) {
        assert_true(qsi_type_get((int32_t)m->base)->weights);
        if (m->about == NULL) assert_string_equal(m->name, qsi_type_get((int32_t)m->base)->name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixes_choose_by_tensor_and_layer),
        cmocka_unit_test(names_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
