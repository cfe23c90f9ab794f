/* What enters every product, summed up while the model runs: identities that hold between its
 * matrices whatever the weights are, and a sum by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "files/init.h"
#include "files/presets.h"
#include "model/importance.h"

#define PATH "test_importance.tmp.gguf"
enum { N = 70, CHUNK = 33 };

typedef struct runner {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    qsi_kv *kv;
    qsi_importance *x;
} runner;

static void open_runner(runner *r, const char *preset, const char *type, int threads) {
    const qsi_preset *p = NULL;
    qs_err err = {0};
    qsi_init_opts o = {.name = "watched", .seed = 3, .std = 0.05f, .threads = 1};
    assert_int_equal(qsi_preset_find(&p, preset, &err), QS_OK);
    assert_int_equal(qsi_mix_find(&o.mix, type, &err), QS_OK);
    o.config = p->config;
    o.config.n_layer = 2;
    o.config.n_vocab = 512;
    if (qsi_init_write(&o, PATH, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_gguf_open(&r->g, PATH, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&r->pool, threads, &err), QS_OK);
    qsi_model_opts mo = {.pool = r->pool, .isa = qsi_cpu_isa(), .max_rows = N};
    if (qsi_model_open(&r->m, r->g, &mo, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_kv_create(&r->kv, qsi_model_config(r->m), QSI_F16, 16, &err), QS_OK);
    assert_int_equal(qsi_importance_create(&r->x, r->m, &err), QS_OK);
}

static void close_runner(runner *r) {
    qsi_importance_free(r->x);
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
    qsi_pool_free(r->pool);
    qsi_gguf_close(&r->g);
    remove(PATH);
}

/* N ids in chunks; logits of every fifth. */
static void run_as(runner *r, bool generated) {
    qs_err err = {0};
    qsi_kv_table t = {0};
    qsi_row rows[N];
    float *logits = qsi_alloc((size_t)N * 512, sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(qsi_kv_reserve(r->kv, &t, N, &err), QS_OK);
    for (int32_t at = 0; at < N; at += CHUNK) {
        int32_t k = N - at < CHUNK ? N - at : CHUNK;
        for (int32_t i = 0; i < k; i++)
            rows[i] = (qsi_row){.id = (at + i) * 37 % 512, .pos = at + i, .logits = (at + i) % 5 == 0,
                                .generated = generated};
        qsi_step st = {.rows = rows, .n_rows = k, .kv = r->kv, .tables = &t, .n_tables = 1,
                       .logits = logits};
        if (qsi_model_step(r->m, &st, &err) != QS_OK) fail_msg("%s", err.text);
    }
    qsi_kv_table_release(r->kv, &t);
    qsi_free(logits);
}

static void run(runner *r) { run_as(r, false); }

static const qsi_importance_entry *entry(const runner *r, const char *name) {
    for (size_t i = 0; i < qsi_importance_count(r->x); i++)
        if (strcmp(qsi_importance_at(r->x, i)->name, name) == 0) return qsi_importance_at(r->x, i);
    fail_msg("no entry %s", name);
    return NULL;
}

static const float *floats(const runner *r, const char *name) {
    return (const float *)(const void *)qsi_gguf_tensor_find(r->g, name)->data;
}

static void same_sums(const runner *r, const char *a, const char *b) {
    const qsi_importance_entry *x = entry(r, a), *y = entry(r, b);
    assert_true(x->k == y->k && x->n == y->n);
    assert_memory_equal(x->sum, y->sum, (size_t)x->n * (size_t)x->k * sizeof *x->sum);
    assert_memory_equal(x->count, y->count, (size_t)x->n * sizeof *x->count);
}

/* Every tensor of the configuration that is multiplied with has its entry, of its shape. */
static void names_and_shapes_are_the_files(const runner *r) {
    for (size_t i = 0; i < qsi_importance_count(r->x); i++) {
        const qsi_importance_entry *e = qsi_importance_at(r->x, i);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(r->g, e->name);
        if (t == NULL) fail_msg("%s is no tensor", e->name);
        assert_true(t->ne[0] == e->k && t->ne[2] == e->n);
    }
}

/* Every row goes to K experts and to the shared ones: the experts' sums add up to K times theirs. */
static void experts_add_up(const char *type, int threads) {
    runner r = {0};
    open_runner(&r, "moe-tiny", type, threads);
    const qsi_config *c = qsi_model_config(r.m);
    run(&r);
    assert_true(entry(&r, "blk.1.ffn_gate_exps.weight")->count[0] == 0); /* not watched yet */
    qsi_model_watch(r.m, r.x);
    run(&r);
    qsi_model_watch(r.m, NULL);
    run(&r);
    names_and_shapes_are_the_files(&r);
    same_sums(&r, "blk.0.attn_q.weight", "blk.0.attn_k.weight");
    same_sums(&r, "blk.1.attn_q.weight", "blk.1.attn_v.weight");
    same_sums(&r, "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight");
    same_sums(&r, "blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight");
    const qsi_importance_entry *gate = entry(&r, "blk.1.ffn_gate_exps.weight");
    const qsi_importance_entry *shared = entry(&r, "blk.1.ffn_gate_shexp.weight");
    int64_t rows = 0;
    assert_int_equal(gate->n, c->n_expert);
    assert_int_equal(shared->count[0], N);
    for (int32_t e = 0; e < gate->n; e++) rows += gate->count[e];
    assert_int_equal(rows, (int64_t)N * c->n_expert_used);
    for (int64_t j = 0; j < gate->k; j++) {
        double sum = 0, want = shared->sum[j] * c->n_expert_used;
        for (int32_t e = 0; e < gate->n; e++) sum += gate->sum[e * gate->k + j];
        assert_true(want > 0 && fabs(sum - want) < 1e-9 * want);
    }
    assert_int_equal(entry(&r, "output.weight")->count[0], N / 5);
    close_runner(&r);
}

static void experts_of_all_forms_add_up(void **state) {
    experts_add_up("F32", 1);
    experts_add_up("F32", 3);
    experts_add_up("BF16", 2);
    experts_add_up("Q8_0", 2);
    experts_add_up("Q4_K", 2);
}

/* The first product of the first layer sees the normed embeddings: w^2 x^2 / (mean x^2 + eps). */
static void the_first_sums_by_hand(void **state) {
    runner r = {0};
    open_runner(&r, "dense-tiny", "F32", 2);
    const qsi_config *c = qsi_model_config(r.m);
    const float *embed = floats(&r, "token_embd.weight"), *norm = floats(&r, "blk.0.attn_norm.weight");
    double *want = qsi_calloc((size_t)c->d_model, sizeof *want);
    assert_non_null(want);
    qsi_model_watch(r.m, r.x);
    run(&r);
    for (int32_t i = 0; i < N; i++) {
        const float *x = embed + (int64_t)(i * 37 % 512) * c->d_model;
        double mean = 0;
        for (int32_t j = 0; j < c->d_model; j++) mean += (double)x[j] * (double)x[j] / c->d_model;
        for (int32_t j = 0; j < c->d_model; j++)
            want[j] += pow((double)x[j] * (double)norm[j], 2) / (mean + (double)c->rms_eps);
    }
    const qsi_importance_entry *q = entry(&r, "blk.0.attn_q.weight");
    for (int32_t j = 0; j < c->d_model; j++)
        assert_true(fabs(q->sum[j] - want[j]) < 1e-5 * want[j]);
    qsi_free(want);
    close_runner(&r);
}

/* The keys' matrices take the same queries whether a row was a prompt's or generated: in the first
 * layer, before the two ways of attention round differently. */
static void the_same_queries(runner *r, const char *name) {
    const qsi_importance_entry *e = entry(r, name);
    size_t n = (size_t)e->n * (size_t)e->k;
    double *prompt = qsi_calloc(n, sizeof *prompt);
    assert_non_null(prompt);
    memcpy(prompt, e->sum, n * sizeof *prompt);
    memset(e->sum, 0, n * sizeof *prompt);
    run_as(r, true);
    for (size_t i = 0; i < n; i++)
        assert_true(e->sum[i] > 0 && fabs(e->sum[i] - prompt[i]) < 1e-9 * prompt[i]);
    qsi_free(prompt);
}

/* Values' matrices take the normed latent vectors: over all columns the squares of a row, each by its
 * norm's weight, make the rank; and every head takes the same. */
static void normed_vectors(const runner *r, const char *name, const char *norm) {
    const qsi_importance_entry *e = entry(r, name);
    const float *g = floats(r, norm);
    for (int32_t h = 0; h < e->n; h++) {
        double sum = 0;
        for (int64_t j = 0; j < e->k; j++)
            sum += e->sum[h * e->k + j] / ((double)g[j] * (double)g[j]);
        assert_int_equal(e->count[h], N);
        assert_true(sum < N * e->k * 1.0001 && sum > N * e->k * 0.98); /* epsilon of the norm */
        assert_memory_equal(e->sum, e->sum + h * e->k, (size_t)e->k * sizeof *e->sum);
    }
}

static void heads_of_latent_attention(void **state) {
    runner r = {0};
    open_runner(&r, "deepseek-v3-tiny", "F32", 2);
    qsi_model_watch(r.m, r.x);
    run(&r);
    names_and_shapes_are_the_files(&r);
    normed_vectors(&r, "blk.0.attn_v_b.weight", "blk.0.attn_kv_a_norm.weight");
    normed_vectors(&r, "blk.1.attn_v_b.weight", "blk.1.attn_kv_a_norm.weight");
    for (int32_t h = 0; h < qsi_model_config(r.m)->n_head; h++)
        assert_int_equal(entry(&r, "blk.1.attn_k_b.weight")->count[h], N);
    the_same_queries(&r, "blk.0.attn_k_b.weight");
    close_runner(&r);
}

/* Latent attention: its plain matrices. */
static void latent_attention(void **state) {
    runner r = {0};
    open_runner(&r, "deepseek-v3-tiny", "BF16", 2);
    qsi_model_watch(r.m, r.x);
    run(&r);
    names_and_shapes_are_the_files(&r);
    same_sums(&r, "blk.0.attn_q_a.weight", "blk.0.attn_kv_a_mqa.weight");
    assert_int_equal(entry(&r, "blk.1.attn_q_b.weight")->count[0], N);
    assert_int_equal(entry(&r, "blk.1.attn_output.weight")->count[0], N);
    close_runner(&r);
}

/* The indexer's keys come of what the layer's own do, its queries of the same low-rank ones, also where
 * positions are too few for it to choose. */
static void indexer(void **state) {
    runner r = {0};
    open_runner(&r, "deepseek-v3.2-tiny", "F32", 2);
    qsi_model_watch(r.m, r.x);
    run(&r);
    names_and_shapes_are_the_files(&r);
    for (int l = 0; l < 2; l++) {
        char own[64], other[64];
        snprintf(own, sizeof own, "blk.%d.indexer.attn_k.weight", l);
        snprintf(other, sizeof other, "blk.%d.attn_kv_a_mqa.weight", l);
        same_sums(&r, own, other);
        snprintf(own, sizeof own, "blk.%d.indexer.attn_q_b.weight", l);
        snprintf(other, sizeof other, "blk.%d.attn_q_b.weight", l);
        same_sums(&r, own, other);
    }
    close_runner(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_of_all_forms_add_up),
        cmocka_unit_test(the_first_sums_by_hand),
        cmocka_unit_test(latent_attention),
        cmocka_unit_test(heads_of_latent_attention),
        cmocka_unit_test(indexer),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
