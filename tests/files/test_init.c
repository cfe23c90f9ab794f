/* init: files that are what they say, the same for the same seed, and nothing when it fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/init.h"
#include "files/presets.h"
#include "files/skew.h"
#include "model/rope_scaling.h"
#include "sys/file.h"

#define TEMP "test_init.tmp.gguf"
#define OTHER "test_init.other.gguf"

static const qsi_mix *plain(qsi_type type) {
    const qsi_mix *m = NULL;
    assert_int_equal(qsi_mix_find(&m, qsi_type_get((int32_t)type)->name, NULL), QS_OK);
    return m;
}

static qsi_init_opts options(const char *preset, qsi_type type) {
    const qsi_preset *p = NULL;
    qs_err err;
    assert_int_equal(qsi_preset_find(&p, preset, &err), QS_OK);
    return (qsi_init_opts){
        .name = preset, .config = p->config, .mix = plain(type), .seed = 1, .std = 0.02f};
}

static qsi_gguf *write_and_open(const qsi_init_opts *o, const char *path) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    if (qsi_init_write(o, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    return g;
}

static float *decode(const qsi_gguf_tensor *t, int64_t *n) {
    *n = t->ne[0] * t->ne[1] * t->ne[2];
    float *x = qsi_alloc((size_t)*n, sizeof *x);
    assert_non_null(x);
    qsi_type_get((int32_t)t->type)->decode(t->data, x, *n);
    return x;
}

/* Models that share a shape: only what YaRN multiplies V2's scores by is another for V2.5. */
static void sisters_have_one_shape(void **state) {
    static const struct { const char *name, *like; float log_mul; } pairs[] = {
        {"deepseek-coder-v2-lite", "deepseek-v2-lite", 0.0707f},
        {"deepseek-v2.5", "deepseek-v2", 0.1f}, {"deepseek-coder-v2", "deepseek-v2", 0.1f},
        {"deepseek-r1", "deepseek-v3", 0.1f}, {"deepseek-v3.1", "deepseek-v3", 0.1f}};
    for (size_t i = 0; i < QSI_COUNT(pairs); i++) {
        const qsi_preset *a = NULL, *b = NULL;
        assert_int_equal(qsi_preset_find(&a, pairs[i].name, NULL), QS_OK);
        assert_int_equal(qsi_preset_find(&b, pairs[i].like, NULL), QS_OK);
        assert_true(a->config.yarn_log_mul == pairs[i].log_mul);
        qsi_config c = b->config;
        c.yarn_log_mul = pairs[i].log_mul;
        assert_memory_equal(&a->config, &c, sizeof c);
    }
    const qsi_preset *v2 = NULL; /* (1 + 0.0707 ln 40)^2: deepseek-facts 2.5 */
    assert_int_equal(qsi_preset_find(&v2, "deepseek-v2", NULL), QS_OK);
    assert_true(fabs(qsi_config_attn_scale(&v2->config) * sqrt(192.0) - 1.5896) < 1e-4);
}

static void every_preset_is_sound(void **state) {
    qs_err err;
    const qsi_preset *p = NULL;
    static const struct { const char *name; int64_t millions; } sizes[] = {
        {"deepseek-llm-7b", 6910}, {"deepseek-llm-67b", 67425}, {"deepseek-moe-16b", 16376},
        {"deepseek-coder-1.3b", 1346}, {"deepseek-coder-6.7b", 6741}, {"deepseek-coder-33b", 33343},
        {"deepseek-moe-145b", 144600}, {"deepseek-v2-lite", 15706}, {"deepseek-v2", 235740},
        {"deepseek-v3", 671030}, {"deepseek-v3.2", 671880}, {"r1-distill-qwen-1.5b", 1777},
        {"r1-distill-qwen-7b", 7616},
        {"r1-distill-qwen-14b", 14770}, {"r1-distill-qwen-32b", 32764},
        {"r1-distill-llama-8b", 8030}, {"r1-distill-llama-70b", 70554}, {"r1-0528-qwen3-8b", 8191},
    };
    for (size_t i = 0; i < qsi_preset_count(); i++) {
        p = qsi_preset_at(i);
        assert_int_equal(qsi_config_check(&p->config, &err), QS_OK);
    }
    for (size_t i = 0; i < QSI_COUNT(sizes); i++) {
        assert_int_equal(qsi_preset_find(&p, sizes[i].name, &err), QS_OK);
        /* the largest are published with fewer digits */
        int64_t unit = sizes[i].millions % 100 == 0 ? 100 : sizes[i].millions % 10 == 0 ? 10 : 1;
        int64_t millions = (qsi_config_params(&p->config, NULL) + 500000) / 1000000;
        assert_int_equal((millions + unit / 2) / unit * unit, sizes[i].millions);
    }
    int64_t active = 0;
    assert_int_equal(qsi_preset_find(&p, "deepseek-moe-2b", &err), QS_OK);
    int64_t total = qsi_config_params(&p->config, &active);
    assert_true(total > 1900000000 && total < 2100000000);   /* 2.0 B */
    assert_true(active > 250000000 && active < 350000000);   /* 0.3 B */
    assert_int_equal(qsi_preset_find(&p, "deepseek", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "deepseek-moe-16b"));
}

static void all_types_hold_the_tensors_of_the_configuration(void **state) {
    static const char *const presets[] = {"dense-tiny", "moe-tiny", "deepseek-v3-tiny"};
    size_t n_mixes = 0;
    while (qsi_mix_at(n_mixes) != NULL) n_mixes++;
    assert_int_equal(n_mixes, 25);
    for (size_t k = 0; k < n_mixes; k++) {
        qs_err err;
        qsi_config c;
        qsi_init_opts o = options(presets[k % QSI_COUNT(presets)], QSI_F32);
        int64_t file_type = 0;
        o.mix = qsi_mix_at(k);
        o.config.n_layer = 2;
        qsi_gguf *g = write_and_open(&o, TEMP);
        assert_int_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
        assert_int_equal(qsi_gguf_n_tensors(g), qsi_config_n_tensors(&c));
        for (size_t i = 0; i < qsi_config_n_tensors(&c); i++) {
            qsi_tensor_spec spec;
            qsi_config_tensor(&c, i, &spec);
            const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, spec.name);
            assert_non_null(t);
            assert_int_equal(t->n_dims, spec.n_dims);
            for (int d = 0; d < 3; d++) assert_true(t->ne[d] == spec.ne[d]);
            bool small = spec.role == QSI_ROLE_NORM || spec.role == QSI_ROLE_ROUTER;
            assert_int_equal(t->type, qsi_mix_type(o.mix, &c, &spec, NULL));
            assert_int_equal(t->type == QSI_F32, small || o.mix->base == QSI_F32);
        }
        assert_int_equal(qsi_gguf_i64(g, "general.file_type", &file_type, &err), QS_OK);
        assert_int_equal(file_type, o.mix->file_type);
        qsi_gguf_close(&g);
    }
    remove(TEMP);
}

static void weights_are_normal(void **state) {
    qsi_init_opts o = options("moe-tiny", QSI_F32);
    qsi_gguf *g = write_and_open(&o, TEMP);
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        int64_t n = 0, beyond = 0;
        double sum = 0, squares = 0;
        float *x = decode(t, &n);
        bool norm = t->n_dims == 1;
        for (int64_t k = 0; k < n; k++) {
            if (norm) assert_true(x[k] == 1);
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
            beyond += fabsf(x[k]) > 0.04f; /* two deviations: 4.55 % */
        }
        if (!norm) { /* within five standard errors */
            double share = (double)beyond / (double)n;
            assert_true(fabs(sum / (double)n) < 5 * 0.02 / sqrt((double)n));
            assert_true(fabs(squares / (double)n / 0.0004 - 1) < 5 * sqrt(2.0 / (double)n));
            assert_true(fabs(share - 0.0455) < 5 * sqrt(0.0455 / (double)n));
        }
        qsi_free(x);
    }
    const qsi_gguf_tensor *q = qsi_gguf_tensor_find(g, "blk.0.attn_q.weight");
    const qsi_gguf_tensor *k = qsi_gguf_tensor_find(g, "blk.0.attn_k.weight");
    assert_true(memcmp(q->data, k->data, 64) != 0); /* streams of their own */
    qsi_gguf_close(&g);
    remove(TEMP);
}

static bool same_files(const char *a, const char *b) {
    qs_err err;
    qsi_map x, y;
    assert_int_equal(qsi_map_open(&x, a, &err), QS_OK);
    assert_int_equal(qsi_map_open(&y, b, &err), QS_OK);
    bool same = x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
    qsi_map_close(&x);
    qsi_map_close(&y);
    return same;
}

static void the_seed_decides(void **state) {
    qs_err err;
    qsi_init_opts o = options("dense-tiny", QSI_Q8_0);
    o.config.n_layer = 1;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_OK);
    assert_int_equal(qsi_init_write(&o, OTHER, &err), QS_OK);
    assert_true(same_files(TEMP, OTHER));
    o.seed = 2;
    assert_int_equal(qsi_init_write(&o, OTHER, &err), QS_OK);
    assert_false(same_files(TEMP, OTHER));
    remove(TEMP);
    remove(OTHER);
}

static void a_vocabulary_is_made_or_copied(void **state) {
    qs_err err;
    qsi_vocab *v = NULL, *copy = NULL;
    qsi_init_opts o = options("moe-tiny", QSI_F16);
    o.config.n_layer = 1;
    o.config.n_vocab = 300;
    qsi_gguf *g = write_and_open(&o, TEMP);
    assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
    assert_int_equal(qsi_vocab_size(v), 300);
    assert_int_equal(qsi_vocab_n_merges(v), 0);
    assert_int_equal(qsi_vocab_type(v, 299), QSI_TOK_UNUSED);
    qsi_slice text = qsi_vocab_text(v, 299);
    assert_true(text.n == 10 && memcmp(text.p, "[unused43]", 10) == 0);
    for (int b = 0; b < 256; b++) { /* id b is byte b */
        qsi_slice bytes = qsi_vocab_bytes(v, b);
        assert_true(bytes.n == 1 && (uint8_t)bytes.p[0] == b);
    }
    qsi_ids ids = {0};
    assert_int_equal(qsi_encode(v, "a 求", 5, 0, &ids, &err), QS_OK);
    assert_int_equal(ids.len, 5);
    assert_int_equal(ids.data[0], 'a');
    qsi_ids_release(&ids);
    qsi_gguf_close(&g);
    o.vocab = v;
    o.config.n_vocab = 999; /* the vocabulary's size counts */
    g = write_and_open(&o, OTHER);
    assert_int_equal(qsi_gguf_tensor_find(g, "output.weight")->ne[1], 300);
    assert_int_equal(qsi_vocab_load_gguf(&copy, g, &err), QS_OK);
    assert_true(qsi_vocab_hash(v) == qsi_vocab_hash(copy));
    qsi_gguf_close(&g);
    qsi_vocab_free(copy);
    qsi_vocab_free(v);
    remove(TEMP);
    remove(OTHER);
}

static char logged[1024];
static void keep_log(void *user, qsi_log_level level, const char *text) {
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%s\n", text);
}

static void rows_that_do_not_fit_a_block(void **state) {
    static const struct { qsi_type type; int32_t width; qsi_type becomes; } cases[] = {
        {QSI_Q4_0, 85, QSI_F16},  {QSI_Q2_K, 96, QSI_Q4_0}, {QSI_Q3_K, 96, QSI_Q4_0},
        {QSI_Q4_K, 96, QSI_Q5_0}, {QSI_Q5_K, 96, QSI_Q5_1}, {QSI_Q6_K, 96, QSI_Q8_0},
        {QSI_Q4_K, 85, QSI_F16},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char note[64];
        qsi_init_opts o = options("moe-tiny", cases[i].type);
        o.config.d_expert = cases[i].width;
        o.config.n_layer = 3;
        logged[0] = '\0';
        qsi_log_set(keep_log, NULL);
        qsi_gguf *g = write_and_open(&o, TEMP);
        qsi_log_set(NULL, NULL);
        snprintf(note, sizeof note, "rows of %d values are no multiple of %s", (int)cases[i].width,
                 o.mix->name);
        assert_non_null(strstr(logged, note));
        snprintf(note, sizeof note, "ffn_down_exps.weight and 3 more stored as %s",
                 qsi_type_get((int32_t)cases[i].becomes)->name);
        assert_non_null(strstr(logged, note));
        assert_int_equal(qsi_gguf_tensor_find(g, "blk.1.ffn_down_exps.weight")->type,
                         cases[i].becomes);
        assert_int_equal(qsi_gguf_tensor_find(g, "blk.1.ffn_up_exps.weight")->type, cases[i].type);
        qsi_gguf_close(&g);
    }
    remove(TEMP);
}

/* Pieces are made by all workers; which one makes which must not show. */
static void threads_do_not_matter(void **state) {
    qs_err err;
    qsi_init_opts o = options("moe-tiny", QSI_Q5_K);
    o.skewed = true;
    o.router_skew = 1;
    o.threads = 1;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_OK);
    o.threads = 3;
    assert_int_equal(qsi_init_write(&o, OTHER, &err), QS_OK);
    assert_true(same_files(TEMP, OTHER));
    o.router_skew = 0;
    assert_int_equal(qsi_init_write(&o, OTHER, &err), QS_OK);
    assert_false(same_files(TEMP, OTHER));
    o.skewed = false;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_OK);
    assert_false(same_files(TEMP, OTHER));
    remove(TEMP);
    remove(OTHER);
}

/* The rows of a skewed router have the deviations of skew.h. */
static void skewed_routers_have_scaled_rows(void **state) {
    qs_err err;
    qsi_init_opts o = options("moe-tiny", QSI_F16);
    o.skewed = true;
    o.router_skew = 1;
    o.config.d_model = 1024;
    o.config.n_layer = 2;
    qsi_gguf *g = write_and_open(&o, TEMP);
    float factor[8], by_rank[8];
    int64_t n = 0;
    float *x = decode(qsi_gguf_tensor_find(g, "blk.1.ffn_gate_inp.weight"), &n);
    const qsi_skew_router r = {.n = 8, .k = 2, .deviation = 1};
    assert_int_equal(qsi_skew_factors(1, &r, by_rank, &err), QS_OK);
    qsi_skew_deal(&r, by_rank, 1, UINT64_C(1) << 63 | 1, factor);
    assert_int_equal(n, 8 * 1024);
    for (int e = 0; e < 8; e++) {
        double squares = 0;
        for (int i = 0; i < 1024; i++) squares += (double)x[1024 * e + i] * (double)x[1024 * e + i];
        double is = sqrt(squares / 1024), want = 0.02 * (double)factor[e];
        assert_true(fabs(is / want - 1) < 5 / sqrt(2048.0)); /* five standard errors */
    }
    qsi_free(x);
    qsi_gguf_close(&g);
    remove(TEMP);
}

static int cancel_at_half(void *user, int64_t done, int64_t of) {
    assert_true(done > 0 && done <= of);
    *(int64_t *)user = of;
    return done > of / 2;
}

static void failures_leave_no_file(void **state) {
    qs_err err = {0};
    int64_t of = 0;
    qsi_init_opts o = options("moe-tiny", QSI_F32);
    remove(TEMP);
    o.progress = cancel_at_half;
    o.user = &of;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_CANCELLED);
    assert_true(of > 4 * 3000000);
    o = options("moe-tiny", QSI_F32);
    o.config.n_vocab = 255;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_ARG);
    o = options("dense-tiny", QSI_F32);
    o.skewed = true;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_ARG);
    o = options("moe-tiny", QSI_F32);
    o.std = NAN;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_ARG);
    o = options("moe-tiny", QSI_F32);
    o.config.n_head = 3;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_RANGE);
    o = options("deepseek-llm-67b", QSI_F32); /* 54 TB */
    o.config.n_layer = 1024;
    o.config.d_ff = 1 << 19;
    assert_int_equal(qsi_init_write(&o, TEMP, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "GB free"));
    assert_false(qsi_path_exists(TEMP));
}

/* Llama 3.1's frequencies: fast pairs stay, slow ones turn eight times as slowly. */
static void rope_freqs_are_computed(void **state) {
    qsi_init_opts o = options("r1-distill-llama-tiny", QSI_Q8_0);
    o.config.n_layer = 1;
    qsi_gguf *g = write_and_open(&o, TEMP);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, "rope_freqs.weight");
    assert_non_null(t);
    assert_true(t->type == QSI_F32 && t->n_dims == 1 && t->ne[0] == 32);
    int between = 0;
    for (int i = 0; i < 32; i++) {
        float f;
        double turns = 8192 * pow(500000, -i / 32.0) / (2 * acos(-1));
        memcpy(&f, t->data + 4 * i, sizeof f);
        if (turns > 4) assert_true(f == 1);
        else if (turns < 1) assert_true(f == 8);
        else assert_true(f > 1 && f < 8 && ++between);
    }
    assert_true(between > 0);
    qsi_gguf_close(&g);
    remove(TEMP);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_preset_is_sound),
        cmocka_unit_test(sisters_have_one_shape),
        cmocka_unit_test(rope_freqs_are_computed),
        cmocka_unit_test(all_types_hold_the_tensors_of_the_configuration),
        cmocka_unit_test(weights_are_normal),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(a_vocabulary_is_made_or_copied),
        cmocka_unit_test(rows_that_do_not_fit_a_block),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(skewed_routers_have_scaled_rows),
        cmocka_unit_test(failures_leave_no_file),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
