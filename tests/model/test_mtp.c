/* The layer that predicts further: log-probabilities equal to a float64 reference
 * (tools/gen_golden_mla.py), whatever the chunks and whether tokens count as generated; hidden states do
 * not change a step; a model without the layer, or opened without it, says so. Tolerance: as
 * test_mla.c. */
#include "mla_testing.h"

#include <stdio.h>
#include <string.h>

enum { N = 90 };

/* Logits [N - 1, V] of pairs of hidden states and next ids, in steps of `chunk`; the model's own logits
 * [N, V] on the way. */
static void run_both(runner *r, const int32_t *ids, bool generated, int32_t chunk, float *own,
                     float *further) {
    qs_err err = {0};
    int64_t V = qsi_model_config(r->m)->n_vocab, d = qsi_model_config(r->m)->d_model;
    float *hidden = qsi_alloc((size_t)(N * d), sizeof *hidden);
    qsi_kv_table t = {0};
    qsi_row rows[N];
    if (qsi_kv_reserve(r->kv, &t, N, &err) != QS_OK) fail_msg("%s", err.text);
    for (int32_t at = 0; at < N; at += chunk) {
        int32_t k = (int32_t)qsi_min64(chunk, N - at);
        for (int32_t i = 0; i < k; i++)
            rows[i] = (qsi_row){.id = ids[at + i], .pos = at + i, .logits = true,
                                .generated = generated};
        qsi_step st = {.rows = rows, .n_rows = k, .kv = r->kv, .tables = &t, .n_tables = 1,
                       .logits = own + at * V, .hidden = hidden + at * d};
        if (qsi_model_step(r->m, &st, &err) != QS_OK) fail_msg("%s", err.text);
    }
    for (int32_t at = 0; at < N - 1; at += chunk) {
        int32_t k = (int32_t)qsi_min64(chunk, N - 1 - at);
        for (int32_t i = 0; i < k; i++)
            rows[i] = (qsi_row){.id = ids[at + i + 1], .pos = at + i, .logits = true,
                                .generated = generated};
        qsi_step st = {.rows = rows, .n_rows = k, .kv = r->kv, .tables = &t, .n_tables = 1,
                       .logits = further + at * V, .hidden = hidden + at * d};
        if (qsi_model_mtp_step(r->m, &st, &err) != QS_OK) fail_msg("%s", err.text);
    }
    qsi_kv_table_release(r->kv, &t);
    qsi_free(hidden);
}

static void open_mtp(runner *r, const char *name, qsi_isa isa, bool mtp) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s.gguf", QSI_GOLDEN_DIR, name);
    runner_open_with(r, path, 2, isa, QSI_F32, N, mtp);
}

static void check(qsi_isa isa) {
    static const struct {
        bool generated;
        int32_t chunk;
    } ways[] = {{false, N}, {false, 1}, {true, 1}, {true, N}, {false, 13}};
    runner r;
    open_mtp(&r, "mtp", isa, true);
    assert_true(qsi_model_has_mtp(r.m));
    int64_t V = qsi_model_config(r.m)->n_vocab;
    const int32_t *ids = data_of(&r, "golden.ids");
    float *own = qsi_alloc((size_t)(N * V), sizeof *own), *z = qsi_alloc((size_t)(N * V), sizeof *z);
    for (size_t i = 0; i < QSI_COUNT(ways); i++) {
        run_both(&r, ids, ways[i].generated, ways[i].chunk, own, z);
        double a = worst_logprob(own, data_of(&r, "golden.logprobs"), N, V);
        double b = worst_logprob(z, data_of(&r, "golden.mtp_logprobs"), N - 1, V);
        if (!(a <= 2e-5 && b <= 2e-5))
            fail_msg("%s, generated %d, chunks of %d: off by %.2g and %.2g", qsi_isa_name(isa),
                     ways[i].generated, ways[i].chunk, a, b);
    }
    qsi_free(own);
    qsi_free(z);
    runner_close(&r);
}

static void test_golden(void **state) {
    (void)state;
    for (int i = 0; i < QSI_ISA_COUNT; i++)
        if (qsi_cpu_has((qsi_isa)i)) check((qsi_isa)i);
}

static void test_without(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool mtp;
    } cases[] = {{"mtp", false}, {"mla_v3", true}};
    runner r, with;
    qs_err err = {0};
    qsi_step st = {0};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        open_mtp(&r, cases[i].name, qsi_cpu_isa(), cases[i].mtp);
        assert_false(qsi_model_has_mtp(r.m));
        assert_int_equal(qsi_model_mtp_step(r.m, &st, &err), QS_E_STATE);
        runner_close(&r);
    }
    /* the layer's place in the cache is there only with it, and its weights change no answer */
    open_mtp(&r, "mtp", qsi_cpu_isa(), false);
    open_mtp(&with, "mtp", qsi_cpu_isa(), true);
    assert_int_equal(qsi_kv_page_bytes(with.kv) / 3, qsi_kv_page_bytes(r.kv) / 2);
    size_t V = (size_t)qsi_model_config(r.m)->n_vocab, bytes = N * V * sizeof(float);
    float *x = qsi_alloc(1, bytes), *y = qsi_alloc(1, bytes), *z = qsi_alloc(1, bytes);
    run(&r, data_of(&r, "golden.ids"), N, N, 1, x);
    run_both(&with, data_of(&with, "golden.ids"), false, 31, y, z);
    assert_memory_equal(x, y, bytes);
    qsi_free(x);
    qsi_free(y);
    qsi_free(z);
    runner_close(&r);
    runner_close(&with);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_without)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
