/* Gradients of a whole model against central differences of its loss, in small configurations; and
 * that results depend on neither threads nor repetition. The loss is float32 inside, so differences
 * use a step where its rounding and the third derivative are both small, and directions that sum many
 * parameters: for a direction v, (L(p + h v) - L(p - h v)) / 2h = g . v. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/model.h"

enum { ROWS = 150, VOCAB = 61 };

static qsi_config dense_config(void) {
    return (qsi_config){.arch = QSI_ARCH_LLAMA, .n_vocab = VOCAB, .n_layer = 2, .d_model = 32,
                        .n_head = 4, .n_kv_head = 2, .head_dim = 8, .d_ff = 40, .n_ctx = 128,
                        .rms_eps = 1e-6f, .rope_theta = 10000.0f, .rope_factor = 1.0f,
                        .expert_scale = 1.0f};
}

static qsi_config moe_config(bool norm) {
    qsi_config c = dense_config();
    c.arch = QSI_ARCH_DEEPSEEK;
    c.n_kv_head = 4;
    c.n_dense = 1;
    c.n_expert = 6;
    c.n_expert_used = 2;
    c.n_shared = 2;
    c.d_expert = 12;
    c.norm_topk = norm;
    c.expert_scale = norm ? 1.5f : 1.0f;
    return c;
}

typedef struct fixture {
    qsi_pool *pool;
    qsi_trainer_model *t;
    int32_t ids[ROWS], seq[ROWS], pos[ROWS], targets[ROWS];
    qsi_train_batch b;
    double alpha;
} fixture;

static void setup(fixture *f, const qsi_config *c, int threads, qsi_precision p, double alpha,
                  bool per_seq) {
    qs_err err = {0};
    assert_int_equal(qsi_pool_create(&f->pool, threads, &err), QS_OK);
    qsi_train_opts o = {.pool = f->pool, .isa = qsi_cpu_isa(), .precision = p, .max_rows = ROWS,
                        .balance_alpha = (float)alpha, .balance_per_seq = per_seq};
    if (qsi_tm_create(&f->t, c, &o, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_tm_init_random(f->t, 7, 0.15f);
    f->alpha = alpha;
    qsi_rng r;
    qsi_rng_init(&r, 3);
    /* documents of 70, 1, 3 and 76 rows: tiles of 64 positions are crossed */
    int32_t len[] = {70, 1, 3, 76}, at = 0;
    for (int32_t s = 0; s < 4; s++)
        for (int32_t i = 0; i < len[s]; i++, at++) {
            f->ids[at] = (int32_t)qsi_rng_below(&r, VOCAB);
            f->targets[at] = qsi_rng_below(&r, 5) ? (int32_t)qsi_rng_below(&r, VOCAB) : -1;
            f->seq[at] = s;
            f->pos[at] = i;
        }
    int32_t n = 0;
    for (int i = 0; i < ROWS; i++) n += f->targets[i] >= 0;
    f->b = (qsi_train_batch){.n_rows = ROWS, .ids = f->ids, .seq = f->seq, .pos = f->pos,
                             .targets = f->targets, .scale = 1.0f / (float)n};
}

static void teardown(fixture *f) {
    qsi_tm_free(f->t);
    qsi_pool_free(f->pool);
}

static double loss_of(fixture *f, bool backward) {
    qs_err err = {0};
    qsi_train_out out = {0};
    if (qsi_tm_loss(f->t, &f->b, backward, 1.0f, &out, &err) != QS_OK) fail_msg("%s", err.text);
    return out.loss_sum * (double)f->b.scale + f->alpha * out.balance;
}

/* The direction: the gradient's own sign mixed with noise, so that g . v is large against the
 * rounding of the loss. */
static void check_param(fixture *f, qsi_param *p, double *worst) {
    float *keep = qsi_alloc((size_t)p->n, sizeof *keep), *v = qsi_alloc((size_t)p->n, sizeof *v);
    memcpy(keep, p->master, (size_t)p->n * sizeof *keep);
    qsi_rng r;
    qsi_rng_init(&r, 11);
    double gv = 0, vv = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double s = p->grad[i] > 0 ? 1 : p->grad[i] < 0 ? -1 : 0;
        v[i] = (float)(0.5 * s + 0.5 * qsi_rng_normal(&r));
        gv += (double)p->grad[i] * (double)v[i];
        vv += (double)v[i] * (double)v[i];
    }
    double h = 3e-3 / sqrt(vv), l[2];
    if (p->n_dims == 1) h *= 3;
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < p->n; i++)
            p->master[i] = keep[i] + (float)((k ? -h : h) * (double)v[i]);
        qsi_tm_refresh(f->t);
        l[k] = loss_of(f, false);
    }
    memcpy(p->master, keep, (size_t)p->n * sizeof *keep);
    double fd = (l[0] - l[1]) / (2 * h), e = fabs(fd - gv) / fmax(fabs(gv), 1e-3);
    if (e > *worst) *worst = e;
    if (e > 2e-3) fail_msg("%s: gradient . direction %.8g, differences %.8g", p->name, gv, fd);
    qsi_free(keep);
    qsi_free(v);
}

static void check_config(const qsi_config *c, double alpha, bool per_seq) {
    fixture f;
    double worst = 0;
    setup(&f, c, 1, QSI_TRAIN_F32, alpha, per_seq);
    qsi_tm_zero_grad(f.t);
    loss_of(&f, true);
    for (size_t i = 0; i < qsi_tm_n_params(f.t); i++) check_param(&f, qsi_tm_param(f.t, i), &worst);
    print_message("worst relative difference %.2g\n", worst);
    teardown(&f);
}

static void test_dense(void **s) {
    (void)s;
    qsi_config c = dense_config();
    check_config(&c, 0, false);
    c.rope_scaling = QSI_ROPE_LINEAR;
    c.rope_factor = 4.0f;
    check_config(&c, 0, false);
}

static void test_moe(void **s) {
    (void)s;
    qsi_config c = moe_config(false);
    check_config(&c, 0, false);
    check_config(&c, 0.5, false);
    check_config(&c, 0.5, true);
    c.n_shared = 0;
    check_config(&c, 0.5, true);
}

static void test_moe_norm(void **s) {
    (void)s;
    qsi_config c = moe_config(true);
    check_config(&c, 0.5, true);
}

static void same_bits(qsi_precision p) {
    qsi_config c = moe_config(false);
    fixture a, b;
    setup(&a, &c, 1, p, 0.01, true);
    setup(&b, &c, 3, p, 0.01, true);
    for (int k = 0; k < 2; k++) {
        qsi_tm_zero_grad(a.t);
        qsi_tm_zero_grad(b.t);
        double la = loss_of(&a, true), lb = loss_of(&b, true);
        assert_memory_equal(&la, &lb, sizeof la);
        for (size_t i = 0; i < qsi_tm_n_params(a.t); i++) {
            qsi_param *x = qsi_tm_param(a.t, i), *y = qsi_tm_param(b.t, i);
            assert_memory_equal(x->grad, y->grad, (size_t)x->n * sizeof(float));
        }
    }
    teardown(&a);
    teardown(&b);
}

static void test_threads(void **s) {
    (void)s;
    same_bits(QSI_TRAIN_F32);
    same_bits(QSI_TRAIN_BF16);
}

/* bf16 products: gradients near those of float32, in the sense of angle and length. */
static void test_bf16(void **s) {
    (void)s;
    qsi_config c = moe_config(false);
    fixture a, b;
    setup(&a, &c, 1, QSI_TRAIN_F32, 0.01, true);
    setup(&b, &c, 1, QSI_TRAIN_BF16, 0.01, true);
    double la = loss_of(&a, true), lb = loss_of(&b, true);
    assert_true(fabs(la - lb) < 2e-3 * la);
    for (size_t i = 0; i < qsi_tm_n_params(a.t); i++) {
        qsi_param *x = qsi_tm_param(a.t, i), *y = qsi_tm_param(b.t, i);
        double d = 0, n = 0;
        for (int64_t j = 0; j < x->n; j++) {
            d += pow((double)x->grad[j] - (double)y->grad[j], 2);
            n += pow((double)x->grad[j], 2);
        }
        if (sqrt(d) > 0.05 * sqrt(n)) fail_msg("%s: %g of %g", x->name, sqrt(d), sqrt(n));
    }
    teardown(&a);
    teardown(&b);
}

static void test_arguments(void **s) {
    (void)s;
    qsi_config c = dense_config();
    fixture f;
    qs_err err = {0};
    qsi_train_out out;
    setup(&f, &c, 1, QSI_TRAIN_F32, 0, false);
    f.ids[3] = VOCAB;
    assert_int_equal(qsi_tm_loss(f.t, &f.b, false, 1.0f, &out, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "row 3: id 61"));
    f.ids[3] = 0;
    f.pos[4] = 9;
    assert_int_equal(qsi_tm_loss(f.t, &f.b, false, 1.0f, &out, &err), QS_E_ARG);
    /* latent attention is run, not trained, and says so */
    qsi_train_opts o = {.pool = f.pool, .isa = QSI_ISA_REF, .max_rows = 8};
    qsi_trainer_model *t = NULL;
    c.arch = QSI_ARCH_DEEPSEEK2;
    c.rope_scaling = QSI_ROPE_NONE;
    c.rope_factor = 1;
    c.n_kv_head = c.n_head;
    c.d_rope = 2;
    c.d_value = 4;
    c.kv_rank = 8;
    assert_int_equal(qsi_tm_create(&t, &c, &o, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "not built"));
    static const qsi_arch others[] = {QSI_ARCH_QWEN2, QSI_ARCH_QWEN3, QSI_ARCH_LLAMA};
    for (size_t i = 0; i < QSI_COUNT(others); i++) { /* biases, normed heads, scaled frequencies */
        c = dense_config();
        c.arch = others[i];
        c.rope_freqs = c.arch == QSI_ARCH_LLAMA;
        assert_int_equal(qsi_tm_create(&t, &c, &o, &err), QS_E_UNSUPPORTED);
        assert_non_null(strstr(err.text, c.rope_freqs ? "rope_freqs" : qsi_arch_name(c.arch)));
    }
    teardown(&f);
}

/* The n-th allocation fails, for every n: said, and nothing leaks (hooks of QS_DEBUG builds). */
static void test_memory(void **s) {
    (void)s;
    qsi_config c = moe_config(false);
    qsi_pool *pool = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    qsi_train_opts o = {.pool = pool, .isa = QSI_ISA_REF, .precision = QSI_TRAIN_BF16,
                        .max_rows = 8};
    for (int64_t n = 1; n < 2000; n++) {
        qsi_trainer_model *t = NULL;
        qsi_mem_fail_after(n);
        qs_status st = qsi_tm_create(&t, &c, &o, &err);
        qsi_mem_fail_after(-1);
        if (st == QS_OK) {
            qsi_tm_free(t);
            break;
        }
        assert_int_equal(st, QS_E_NOMEM);
        assert_null(t);
    }
    qsi_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),   cmocka_unit_test(test_moe),
        cmocka_unit_test(test_moe_norm), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_bf16),    cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
