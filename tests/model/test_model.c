/* Inference: the same logits, bit for bit, for any number of threads, any chunking, alone or in a
 * batch; near the float32 truth for every weight type; loss equal to PyTorch's on the goldens; errors
 * that name the tensor, the row, the layer. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/model.h"
#include "../sys/tmpdir.h"

enum { VOCAB = 61, LEN = 70 };

static qsi_config config_of(qsi_arch arch) {
    qsi_config c = {.arch = arch, .n_vocab = VOCAB, .n_layer = 2, .d_model = 32, .n_head = 2,
                    .n_kv_head = 2, .head_dim = 16, .d_ff = 64,
                    .n_ctx = 256, .rms_eps = 1e-6f, .rope_theta = 10000.0f, .rope_factor = 1.0f,
                    .expert_scale = 1.0f};
    if (qsi_config_is_latent(&c)) {
        c.head_dim = 48;
        c.d_rope = 16;
        c.d_value = 32;
        c.kv_rank = 64;
        c.q_rank = 32;
        c.gating = QSI_GATE_SIGMOID;
        c.gate_bias = true;
    }
    if (arch == QSI_ARCH_DEEPSEEK32) {
        c.index_topk = 24;
        c.index_heads = 3;
        c.index_dim = 32;
    }
    if (qsi_config_is_dense(&c)) {
        c.n_kv_head = 1;
        if (arch == QSI_ARCH_QWEN3) c.head_dim = 32; /* more than its share of the width */
    } else {
        c.n_dense = 1;
        c.n_expert = 5;
        c.n_expert_used = 2;
        c.n_shared = 2;
        c.d_expert = 32;
    }
    return c;
}

static void path_of(char out[512]) { snprintf(out, 512, "%s", tmp_path("model.gguf")); }

static qsi_type rounded_by = QSI_TYPE_NONE; /* values are first made those of this type */

/* Random weights of one type; `poison` is a tensor of which every 7th value becomes `bad`, `drop` one
 * left out. The output weights are those of the embedding. */
static void write_poisoned(const qsi_config *c, qsi_type type, const char *poison, float bad,
                           const char *drop) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    char path[512];
    path_of(path);
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_config_put_gguf(c, w), QS_OK);
    size_t n = qsi_config_n_tensors(c);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            qsi_tensor_spec t;
            qsi_config_tensor(c, i, &t);
            if (drop && strcmp(drop, t.name) == 0) continue;
            bool plain = t.n_dims == 1 || t.role == QSI_ROLE_ROUTER;
            const qsi_type_info *ti = qsi_type_get(plain ? QSI_F32 : type);
            if (pass == 0) {
                assert_int_equal(qsi_gguf_declare(w, t.name, ti->type, t.n_dims, t.ne, &err), QS_OK);
                continue;
            }
            int64_t m = t.ne[0] * t.ne[1] * t.ne[2];
            float *x = qsi_alloc((size_t)m, sizeof *x);
            size_t bytes = (size_t)(m / ti->block) * (size_t)ti->bytes;
            char *y = qsi_alloc(bytes, 1);
            qsi_rng r;
            qsi_rng_init_stream(&r, 5, i == n - 1 ? 0 : i);
            for (int64_t j = 0; j < m; j++)
                x[j] = (float)(t.role == QSI_ROLE_NORM || t.role == QSI_ROLE_FREQS
                                   ? 1 + 0.1 * qsi_rng_normal(&r)
                                   : 0.2 * qsi_rng_normal(&r));
            for (int64_t j = 0; poison && strcmp(poison, t.name) == 0 && j < m; j += 7) x[j] = bad;
            const qsi_type_info *by = qsi_type_get(rounded_by);
            if (by && !plain) {
                by->encode(x, y, m);
                by->decode(y, x, m);
            }
            ti->encode(x, y, m);
            assert_int_equal(qsi_gguf_write(w, y, bytes, &err), QS_OK);
            qsi_free(x);
            qsi_free(y);
        }
    }
    if (qsi_gguf_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

static void write_model(const qsi_config *c, qsi_type type, const char *drop) {
    write_poisoned(c, type, NULL, 0, drop);
}

typedef struct runner {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    qsi_kv *kv;
    bool exact; /* set before opening, as the rest is not */
} runner;

static void runner_open(runner *r, const char *path, int threads, qsi_isa isa, qsi_type kv) {
    qs_err err = {0};
    *r = (runner){.exact = r->exact};
    if (qsi_gguf_open(&r->g, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_pool_create(&r->pool, threads, &err), QS_OK);
    qsi_model_opts o = {.pool = r->pool, .isa = isa, .max_rows = 2 * LEN, .exact = r->exact};
    if (qsi_model_open(&r->m, r->g, &o, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_kv_create(&r->kv, qsi_model_config(r->m), kv, 16, &err) != QS_OK)
        fail_msg("%s", err.text);
}

static void runner_close(runner *r) {
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
    qsi_pool_free(r->pool);
    qsi_gguf_close(&r->g);
}

/* Positions from here on are those of generated tokens. */
enum { GENERATED = 52 };

/* Logits [n_seq * n, V] of sequences of n ids: `first` rows of each in the first step, then `chunk`. */
static void run_all(runner *r, const int32_t *ids, int n_seq, int n, int first, int chunk,
                    float *logits) {
    qs_err err = {0};
    int64_t V = qsi_model_config(r->m)->n_vocab;
    qsi_kv_table t[4] = {0};
    qsi_row *rows = qsi_alloc((size_t)(n_seq * n), sizeof *rows);
    float *out = qsi_alloc((size_t)(n_seq * n * V), sizeof *out);
    for (int s = 0; s < n_seq; s++)
        if (qsi_kv_reserve(r->kv, &t[s], n, &err) != QS_OK) fail_msg("%s", err.text);
    for (int at = 0, k = first; at < n; at += k, k = chunk) {
        if (k > n - at) k = n - at;
        int m = 0;
        for (int s = 0; s < n_seq; s++)
            for (int i = at; i < at + k; i++)
                rows[m++] = (qsi_row){.id = ids[s * n + i], .seq = s, .pos = i, .logits = true,
                                      .generated = i >= GENERATED};
        qsi_step st = {.rows = rows, .n_rows = m, .kv = r->kv, .tables = t, .n_tables = n_seq,
                       .logits = out};
        if (qsi_model_step(r->m, &st, &err) != QS_OK) fail_msg("%s", err.text);
        for (int s = 0; s < n_seq; s++)
            memcpy(logits + ((int64_t)s * n + at) * V, out + (int64_t)s * k * V,
                   (size_t)(k * V) * sizeof *out);
    }
    for (int s = 0; s < n_seq; s++) qsi_kv_table_release(r->kv, &t[s]);
    qsi_free(rows);
    qsi_free(out);
}

static void random_ids(int32_t *ids, int n, uint64_t seed) {
    qsi_rng r;
    qsi_rng_init(&r, seed);
    for (int i = 0; i < n; i++) ids[i] = (int32_t)qsi_rng_below(&r, VOCAB);
}

static void check_bits(qsi_arch arch, qsi_type type, qsi_type kv, qsi_isa isa, bool exact) {
    qsi_config c = config_of(arch);
    int32_t ids[2 * LEN];
    size_t bytes = sizeof(float) * LEN * VOCAB;
    float *want = qsi_alloc(1, bytes), *got = qsi_alloc(2, bytes);
    char path[512];
    path_of(path);
    write_model(&c, type, NULL);
    random_ids(ids, 2 * LEN, 9);
    runner a = {.exact = exact}, b = a;
    runner_open(&a, path, 1, isa, kv);
    runner_open(&b, path, 3, isa, kv);
    run_all(&a, ids, 1, LEN, LEN, LEN, want);
    static const struct {
        int n_seq, first, chunk;
    } runs[] = {{1, 20, 25}, {2, LEN, LEN}, {1, 62, 1}, {2, 62, 1}}; /* 64 is a page */
    size_t n_runs = isa == qsi_cpu_isa() ? 4 : 3;
    for (size_t i = 0; i < n_runs; i++) {
        memset(got, 0, bytes);
        run_all(&b, ids, runs[i].n_seq, LEN, runs[i].first, runs[i].chunk, got);
        if (memcmp(want, got, bytes) != 0)
            fail_msg("%s, cache of %s, %d sequences, chunks of %d: other bits",
                     qsi_type_get(type)->name, qsi_type_get(kv)->name, runs[i].n_seq, runs[i].chunk);
    }
    runner_close(&a);
    runner_close(&b);
    unlink(path);
    qsi_free(want);
    qsi_free(got);
}

static const qsi_type types[] = {QSI_F32, QSI_F16, QSI_BF16, QSI_Q8_0, QSI_Q4_0};

static const qsi_type caches[] = {QSI_F32, QSI_BF16, QSI_Q8_0, QSI_Q4_0};

static void check_arch(qsi_arch arch) {
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        check_bits(arch, types[i], QSI_F16, QSI_ISA_REF, false);
        if (qsi_cpu_isa() != QSI_ISA_REF) check_bits(arch, types[i], QSI_F16, qsi_cpu_isa(), false);
    }
    check_bits(arch, QSI_Q4_0, QSI_F16, qsi_cpu_isa(), true);
    for (size_t i = 0; i < QSI_COUNT(caches); i++) { /* products narrow and wide */
        check_bits(arch, QSI_Q8_0, caches[i], QSI_ISA_REF, false);
        check_bits(arch, QSI_Q8_0, caches[i], qsi_cpu_isa(), false);
        check_bits(arch, QSI_F32, caches[i], qsi_cpu_isa(), false);
    }
}

static void test_bits_dense(void **s) {
    (void)s;
    check_arch(QSI_ARCH_LLAMA);
}

/* Those of R1's distilled models: biases, normed heads, halves of a head rotated. */
static void test_bits_distilled(void **s) {
    (void)s;
    static const qsi_arch archs[] = {QSI_ARCH_QWEN2, QSI_ARCH_QWEN3};
    for (size_t i = 0; i < QSI_COUNT(archs); i++) {
        check_bits(archs[i], QSI_F16, QSI_F16, QSI_ISA_REF, false);
        check_bits(archs[i], QSI_F32, QSI_F16, qsi_cpu_isa(), false);
        check_bits(archs[i], QSI_Q4_0, QSI_F16, qsi_cpu_isa(), false);
    }
}

static void test_bits_moe(void **s) {
    (void)s;
    check_arch(QSI_ARCH_DEEPSEEK);
}

static void test_bits_latent(void **s) {
    (void)s;
    check_arch(QSI_ARCH_DEEPSEEK2);
}

static void test_bits_sparse(void **s) {
    (void)s;
    check_arch(QSI_ARCH_DEEPSEEK32);
}

/* Logits of LEN random ids; if `want` is not NULL, the largest difference from those by the largest of
 * them. */
static double logits_of(qsi_isa isa, bool exact, const float *want, float *z) {
    int32_t ids[LEN];
    char path[512];
    runner r = {.exact = exact};
    double far = 0, top = 0;
    path_of(path);
    random_ids(ids, LEN, 9);
    runner_open(&r, path, 1, isa, QSI_F32);
    run_all(&r, ids, 1, LEN, LEN, LEN, z);
    runner_close(&r);
    for (int i = 0; want && i < LEN * VOCAB; i++) {
        far = fmax(far, fabs((double)z[i] - want[i]));
        top = fmax(top, fabs((double)want[i]));
    }
    return far / top;
}

/* --exact: the logits of a quantised model are those of the F32 model with the same values, up to the
 * rounding of float sums, at the fastest level and in ref; 8-bit activations are further off. With
 * experts a choice may flip, so this model has none. */
static void test_exact(void **s) {
    (void)s;
    static const qsi_type all[] = {QSI_Q8_0, QSI_Q4_0, QSI_Q4_1, QSI_Q5_0, QSI_Q5_1, QSI_IQ4_NL,
                                   QSI_Q2_K, QSI_Q3_K, QSI_Q4_K, QSI_Q5_K, QSI_Q6_K};
    size_t n = LEN * VOCAB;
    float *want = qsi_alloc(n, sizeof *want), *z = qsi_alloc(n, sizeof *z);
    char path[512];
    path_of(path);
    for (size_t i = 0; i < QSI_COUNT(all); i++) {
        qsi_config c = config_of(QSI_ARCH_LLAMA);
        c.n_layer = 1;
        if (qsi_type_get(all[i])->block == 256) {
            c.d_model = c.d_ff = 256;
            c.head_dim = 128;
        }
        rounded_by = all[i];
        write_model(&c, QSI_F32, NULL);
        rounded_by = QSI_TYPE_NONE;
        logits_of(QSI_ISA_REF, false, NULL, want);
        write_model(&c, all[i], NULL);
        double ref = logits_of(QSI_ISA_REF, true, want, z);
        double best = logits_of(qsi_cpu_isa(), true, want, z);
        double int8 = logits_of(qsi_cpu_isa(), false, want, z);
        unlink(path);
        if (!(ref < 2e-5 && best < 2e-5 && int8 > 100 * best && int8 < 0.5))
            fail_msg("%s: off by %g in ref, %g at this level, %g with 8 bits",
                     qsi_type_get(all[i])->name, ref, best, int8);
    }
    qsi_free(want);
    qsi_free(z);
}

static double nll(const float *z, int64_t n, int32_t t) {
    double m = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) m = fmax(m, (double)z[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)z[i] - m);
    return log(sum) + m - (double)z[t];
}

/* The goldens' loss, through pages: float32 cache 1e-5; float16 cache within its rounding. */
static void check_golden(const char *name, qsi_type kv, double tolerance) {
    runner r = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/%s.gguf", QSI_GOLDEN_DIR, name);
    runner_open(&r, path, 1, qsi_cpu_isa(), kv);
    const int32_t *ids = (const void *)qsi_gguf_tensor_find(r.g, "batch.ids")->data;
    const int32_t *targets = (const void *)qsi_gguf_tensor_find(r.g, "batch.targets")->data;
    const int32_t *pos = (const void *)qsi_gguf_tensor_find(r.g, "batch.pos")->data;
    double want, sum = 0;
    memcpy(&want, qsi_gguf_tensor_find(r.g, "losses.f64")->data, sizeof want);
    int64_t rows = qsi_gguf_tensor_find(r.g, "batch.ids")->ne[0], V =
        qsi_model_config(r.m)->n_vocab, n_targets = 0;
    float *z = qsi_alloc((size_t)(rows * V), sizeof *z);
    for (int64_t at = 0, n; at < rows; at += n) {
        for (n = 1; at + n < rows && pos[at + n] != 0;) n++;
        run_all(&r, ids + at, 1, (int)n, 50, 13, z);
        for (int64_t i = 0; i < n; i++) {
            if (targets[at + i] < 0) continue;
            sum += nll(z + i * V, V, targets[at + i]);
            n_targets++;
        }
    }
    if (fabs(sum / (double)n_targets - want) > tolerance)
        fail_msg("%s: loss %.8f, the reference has %.8f", name, sum / (double)n_targets, want);
    runner_close(&r);
    qsi_free(z);
}

static void test_golden(void **s) {
    (void)s;
    static const char *names[] = {"model_dense", "model_moe", "model_moe_norm"};
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        check_golden(names[i], QSI_F32, 1e-5);
        check_golden(names[i], QSI_F16, 1e-3);
    }
}

/* NaN and infinity in each kind of tensor: the message says which layer gave them first. */
static void check_numeric(const char *tensor, float bad, const char *says) {
    qsi_config c = config_of(QSI_ARCH_DEEPSEEK);
    char path[512];
    path_of(path);
    write_poisoned(&c, QSI_F32, tensor, bad, NULL);
    runner r = {0};
    qs_err err = {0};
    runner_open(&r, path, 3, qsi_cpu_isa(), QSI_F32);
    qsi_kv_table t = {0};
    float z[8 * VOCAB];
    qsi_row rows[8];
    for (int i = 0; i < 8; i++) rows[i] = (qsi_row){.id = i * 7 % VOCAB, .pos = i, .logits = i == 7};
    qsi_step st = {.rows = rows, .n_rows = 8, .kv = r.kv, .tables = &t, .n_tables = 1, .logits = z};
    assert_int_equal(qsi_kv_reserve(r.kv, &t, 8, &err), QS_OK);
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_NUMERIC);
    if (!strstr(err.text, says)) fail_msg("%s, not in: %s", says, err.text);
    qsi_kv_table_release(r.kv, &t);
    runner_close(&r);
    unlink(path);
}

static void test_numeric(void **s) {
    (void)s;
    static const struct {
        const char *tensor, *says;
    } cases[] = {
        {"token_embd.weight", "the embedding holds"},
        {"blk.0.attn_norm.weight", "layer 0 "},
        {"blk.0.attn_v.weight", "layer 0 "},
        {"blk.0.ffn_down.weight", "layer 0 "},
        {"blk.1.attn_q.weight", "layer 1 "},
        {"blk.1.ffn_gate_inp.weight", "layer 1 "},
        {"blk.1.ffn_up_exps.weight", "layer 1 "},
        {"blk.1.ffn_down_shexp.weight", "layer 1 "},
        {"output_norm.weight", "the logits hold"},
        {"output.weight", "the logits hold"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        check_numeric(cases[i].tensor, NAN, cases[i].says);
        check_numeric(cases[i].tensor, INFINITY, cases[i].says);
    }
}

static void test_arguments(void **s) {
    (void)s;
    qsi_config c = config_of(QSI_ARCH_LLAMA);
    char path[512];
    path_of(path);
    write_model(&c, QSI_F32, NULL);
    runner r = {0};
    qs_err err = {0};
    runner_open(&r, path, 1, qsi_cpu_isa(), QSI_F32);
    qsi_kv_table t = {0};
    float z[VOCAB];
    qsi_row row = {.id = 1, .logits = true};
    qsi_step st = {.rows = &row, .n_rows = 1, .kv = r.kv, .tables = &t, .n_tables = 1, .logits = z};
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "row 0: position 0 has no page"));
    assert_int_equal(qsi_kv_reserve(r.kv, &t, 1, &err), QS_OK);
    row.id = VOCAB;
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "row 0: id 61, the vocabulary has 61"));
    row.id = -1;
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    row = (qsi_row){.id = 1, .seq = 1};
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    row = (qsi_row){.id = 1, .pos = 64};
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    st.n_rows = 2 * LEN + 1;
    assert_int_equal(qsi_model_step(r.m, &st, &err), QS_E_ARG);
    qsi_kv_table_release(r.kv, &t);
    runner_close(&r);
    unlink(path);
}

/* The n-th allocation of opening a model fails, for every n: said, nothing leaks, and the next try
 * works (hooks of QS_DEBUG builds; elsewhere the first try succeeds). */
static void check_memory(qsi_arch arch, bool whole, int64_t least) {
    qsi_config c = config_of(arch);
    c.kv_b_whole = whole;
    char path[512];
    path_of(path);
    write_model(&c, QSI_Q8_0, NULL);
    qsi_gguf *g = NULL;
    qsi_pool *pool = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    qsi_model_opts o = {.pool = pool, .isa = QSI_ISA_REF, .max_rows = 8};
    int64_t n = 1;
    for (bool opened = false; !opened; n++) {
        qsi_model *m = NULL;
        qsi_mem_fail_after(n);
        qs_status st = qsi_model_open(&m, g, &o, &err);
        qsi_mem_fail_after(-1);
        opened = st == QS_OK;
        if (!opened) {
            assert_int_equal(st, QS_E_NOMEM);
            assert_null(m);
            if (!strstr(err.text, "memory")) fail_msg("allocation %d: %s", (int)n, err.text);
        }
        qsi_model_close(&m);
    }
#ifdef QS_DEBUG
    assert_true(n > least); /* every weight and buffer failed once */
#else
    (void)least;
#endif
    qsi_pool_free(pool);
    qsi_gguf_close(&g);
    unlink(path);
}

static void test_memory(void **s) {
    (void)s;
    check_memory(QSI_ARCH_DEEPSEEK, false, 40);
    check_memory(QSI_ARCH_DEEPSEEK2, false, 40);
    check_memory(QSI_ARCH_DEEPSEEK2, true, 40);
    check_memory(QSI_ARCH_QWEN2, false, 20); /* no experts: fewer weights */
}

static void open_fails(const qsi_config *file, const char *drop, qs_status want, const char *says) {
    qs_err err = {0};
    char path[512];
    path_of(path);
    write_model(file, QSI_F32, drop);
    runner r = {0};
    assert_int_equal(qsi_gguf_open(&r.g, path, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&r.pool, 1, &err), QS_OK);
    qsi_model_opts o = {.pool = r.pool, .isa = QSI_ISA_REF, .max_rows = 8};
    assert_int_equal(qsi_model_open(&r.m, r.g, &o, &err), want);
    assert_null(r.m);
    if (says && !strstr(err.text, says)) fail_msg("%s", err.text);
    runner_close(&r);
    unlink(path);
}

static void test_open(void **s) {
    (void)s;
    qsi_config c = config_of(QSI_ARCH_DEEPSEEK);
    open_fails(&c, "blk.1.ffn_up_exps.weight", QS_E_NOTFOUND, "blk.1.ffn_up_exps.weight");
    c = config_of(QSI_ARCH_LLAMA);
    open_fails(&c, "blk.1.attn_norm.weight", QS_E_NOTFOUND, "blk.1.attn_norm.weight");
    c = config_of(QSI_ARCH_QWEN2);
    open_fails(&c, "blk.1.attn_v.bias", QS_E_NOTFOUND, "blk.1.attn_v.bias");
    c = config_of(QSI_ARCH_QWEN3);
    open_fails(&c, "blk.1.attn_k_norm.weight", QS_E_NOTFOUND, "blk.1.attn_k_norm.weight");
}

/* A llama's rope_freqs count, and 0 is refused; the numbers are held by the golden folder r1_llama. */
static void test_freqs(void **s) {
    (void)s;
    qsi_config c = config_of(QSI_ARCH_LLAMA);
    int32_t ids[8];
    float z[2][8 * VOCAB];
    char path[512];
    qs_err err = {0};
    runner r = {0};
    path_of(path);
    random_ids(ids, 8, 3);
    c.rope_freqs = true;
    for (int i = 0; i < 2; i++) {
        write_poisoned(&c, QSI_F32, "rope_freqs.weight", i ? 4 : 1, NULL);
        runner_open(&r, path, 1, QSI_ISA_REF, QSI_F32);
        run_all(&r, ids, 1, 8, 8, 8, z[i]);
        runner_close(&r);
    }
    assert_memory_not_equal(z[0], z[1], sizeof z[0]);
    write_poisoned(&c, QSI_F32, "rope_freqs.weight", 0, NULL);
    r = (runner){0};
    assert_int_equal(qsi_gguf_open(&r.g, path, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&r.pool, 1, &err), QS_OK);
    qsi_model_opts o = {.pool = r.pool, .isa = QSI_ISA_REF, .max_rows = 8};
    assert_int_equal(qsi_model_open(&r.m, r.g, &o, &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "rope_freqs.weight"));
    runner_close(&r);
    unlink(path);
}

/* Without output.weight the head is the embedding. */
static void test_tied(void **s) {
    (void)s;
    qsi_config c = config_of(QSI_ARCH_LLAMA);
    static const char *drop[] = {NULL, "output.weight"};
    int32_t ids[8];
    float z[2][8 * VOCAB];
    random_ids(ids, 8, 2);
    for (int i = 0; i < 2; i++) {
        char path[512];
        path_of(path);
        write_model(&c, QSI_Q8_0, drop[i]);
        runner r = {0};
        runner_open(&r, path, 1, qsi_cpu_isa(), QSI_F16);
        run_all(&r, ids, 1, 8, 8, 8, z[i]);
        runner_close(&r);
        unlink(path);
    }
    assert_memory_equal(z[0], z[1], sizeof z[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_dense),  cmocka_unit_test(test_bits_moe),
        cmocka_unit_test(test_bits_distilled), cmocka_unit_test(test_freqs),
        cmocka_unit_test(test_bits_latent), cmocka_unit_test(test_golden),
        cmocka_unit_test(test_bits_sparse),
        cmocka_unit_test(test_numeric),     cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_open),        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_exact),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
