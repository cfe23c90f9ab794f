/* Contexts beyond the trained one: what a stretch makes of a configuration, the angles it leads to
 * (held to the papers' formulas written out anew), and that a model takes it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "files/presets.h"
#include "model/rope_scaling.h"
#include "op/op.h"

static qsi_config shape(const char *preset) {
    const qsi_preset *p = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_preset_find(&p, preset, &err), QS_OK);
    return p->config;
}

static qsi_config stretched(qsi_config c, qsi_stretch kind, double factor, int64_t n_ctx) {
    qs_err err = {0};
    qs_status st = qsi_config_stretch(&c, kind, factor, n_ctx, &err);
    if (st != QS_OK) fail_msg("%s", err.text);
    return c;
}

static void within_the_context_nothing_changes(void **state) {
    (void)state;
    const char *all[] = {"deepseek-llm-7b", "deepseek-moe-16b", "deepseek-v2-lite", "dense-tiny"};
    for (size_t i = 0; i < QSI_COUNT(all); i++) {
        qsi_config a = shape(all[i]), b = stretched(a, QSI_STRETCH_AUTO, 0, a.n_ctx);
        assert_memory_equal(&a, &b, sizeof a);
        b = stretched(a, QSI_STRETCH_AUTO, 0, 0);
        assert_memory_equal(&a, &b, sizeof a);
    }
}

static void beyond_it_yarn(void **state) {
    (void)state;
    qsi_config c = stretched(shape("deepseek-llm-7b"), QSI_STRETCH_AUTO, 0, 8192);
    assert_int_equal(c.rope_scaling, QSI_ROPE_YARN);
    assert_true(c.rope_factor == 2.0f && c.rope_orig_ctx == 4096 && c.n_ctx == 8192);
    double m = 1 + 0.1 * log(2.0);
    assert_true(fabs(qsi_config_attn_scale(&c) - m * m / sqrt(128.0)) < 1e-9);
    /* pairs that turn 32 times and more in 4096 positions stay, those that turn less than once are
     * halved: 4096 f / 2 pi turns, f = 10000^(-2i/128) */
    double freq[64];
    qsi_rope_freq_yarn(freq, 128, 10000, 2, 4096, 32, 1);
    for (int i = 0; i < 64; i++) {
        double f = pow(10000, -i / 64.0), turns = 4096 * f / (2 * acos(-1));
        if (turns > 36) assert_true(freq[i] == f);
        if (turns < 0.9) assert_true(freq[i] == f / 2);
        assert_true(freq[i] <= f && freq[i] >= f / 2);
    }
}

static void what_the_file_declares_goes_further(void **state) {
    (void)state;
    qsi_config c = shape("deepseek-llm-7b"); /* as DeepSeek-Coder: 4096 by 4 */
    c.rope_scaling = QSI_ROPE_LINEAR;
    c.rope_factor = 4;
    c.n_ctx = 16384;
    qsi_config b = stretched(c, QSI_STRETCH_AUTO, 0, 32768);
    assert_true(b.rope_scaling == QSI_ROPE_LINEAR && b.rope_factor == 8.0f && b.n_ctx == 32768);
    b = stretched(c, QSI_STRETCH_NONE, 0, 0);
    assert_true(b.rope_scaling == QSI_ROPE_NONE && b.rope_factor == 1.0f && b.n_ctx == 4096);
    b = stretched(c, QSI_STRETCH_YARN, 0, 8192);
    assert_true(b.rope_scaling == QSI_ROPE_YARN && b.rope_factor == 2.0f && b.rope_orig_ctx == 4096);

    c = shape("deepseek-v2-lite"); /* YaRN 40 of 4096, and a log multiplier of its own */
    b = stretched(c, QSI_STRETCH_AUTO, 0, 327680);
    assert_true(b.rope_scaling == QSI_ROPE_YARN && b.rope_factor == 80.0f && b.rope_orig_ctx == 4096);
    assert_true(b.yarn_log_mul == c.yarn_log_mul);
    b = stretched(c, QSI_STRETCH_NONE, 0, 0);
    assert_true(b.rope_scaling == QSI_ROPE_NONE && b.n_ctx == 4096);
    assert_true(fabs(qsi_config_attn_scale(&b) - 1 / sqrt(192.0)) < 1e-9);
}

static void dynamic_is_another_theta(void **state) {
    (void)state;
    qsi_config c = stretched(shape("deepseek-llm-7b"), QSI_STRETCH_DYNAMIC, 2, 0);
    assert_true(c.rope_scaling == QSI_ROPE_NONE && c.n_ctx == 8192);
    /* theta (s L / L0 - (s - 1))^(d / (d - 2)) at s = 2, L = 2 L0: 3^(128/126) */
    assert_true(fabs(c.rope_theta - 10000 * pow(3, 128.0 / 126.0)) < 0.01);
    /* factor and context apart: L is the context, shorter or longer than the factor reaches; a context
     * within the trained one leaves the factor's */
    const struct {
        double factor;
        int64_t n_ctx;
        double base, reach;
    } apart[] = {{2, 16384, 7, 16384}, {4, 8192, 5, 8192}, {2, 1024, 3, 8192}, {0, 8192, 3, 8192}};
    for (size_t i = 0; i < QSI_COUNT(apart); i++) {
        c = stretched(shape("deepseek-llm-7b"), QSI_STRETCH_DYNAMIC, apart[i].factor, apart[i].n_ctx);
        assert_true(c.n_ctx == apart[i].reach);
        assert_true(fabs(c.rope_theta / (10000 * pow(apart[i].base, 128.0 / 126.0)) - 1) < 1e-6);
    }
}

static void nonsense_is_refused(void **state) {
    (void)state;
    const struct {
        qsi_stretch kind;
        double factor;
        int64_t n_ctx;
        qs_status st;
    } bad[] = {{QSI_STRETCH_YARN, 0, 0, QS_E_ARG},       {QSI_STRETCH_LINEAR, 0, 4096, QS_E_ARG},
               {QSI_STRETCH_AUTO, 2, 8192, QS_E_ARG},    {QSI_STRETCH_NONE, 2, 0, QS_E_ARG},
               {QSI_STRETCH_YARN, 0.5, 0, QS_E_RANGE},   {QSI_STRETCH_YARN, NAN, 0, QS_E_RANGE},
               {QSI_STRETCH_YARN, 1e7, 0, QS_E_RANGE},   {QSI_STRETCH_AUTO, 0, -1, QS_E_ARG},
               {QSI_STRETCH_AUTO, 0, INT64_MAX, QS_E_ARG}};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        qsi_config c = shape("deepseek-llm-7b");
        qs_err err = {0};
        assert_int_equal(qsi_config_stretch(&c, bad[i].kind, bad[i].factor, bad[i].n_ctx, &err),
                         bad[i].st);
        assert_true(strlen(err.text) > 0);
    }
    qsi_stretch s;
    qs_err err = {0};
    assert_int_equal(qsi_stretch_parse(&s, "ntk-aware", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "yarn"));
    assert_int_equal(qsi_stretch_parse(&s, "dynamic", &err), QS_OK);
    assert_int_equal(s, QSI_STRETCH_DYNAMIC);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(within_the_context_nothing_changes),
        cmocka_unit_test(beyond_it_yarn),
        cmocka_unit_test(what_the_file_declares_goes_further),
        cmocka_unit_test(dynamic_is_another_theta),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
