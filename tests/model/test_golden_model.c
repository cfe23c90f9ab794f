/* Whole models against PyTorch (tools/gen_golden_model.py): the loss, every gradient, and the losses
 * of ten AdamW steps with clipping, in float32. Tolerances: losses 1e-5, gradients 1e-4 relative to
 * the tensor's norm. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"


typedef struct golden {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_trainer_model *t;
    qsi_train_batch b;
    double alpha, lr;
    double losses[22]; /* cross-entropy and total, float32 run of the reference, 11 steps */
} golden;

static const void *data_of(const golden *f, const char *name, int64_t *n) {
    const qsi_gguf_tensor *x = qsi_gguf_tensor_find(f->g, name);
    if (!x) fail_msg("no tensor %s", name);
    if (n) *n = x->ne[0] * x->ne[1] * x->ne[2];
    return x->data;
}

static void open_golden(golden *f, const char *name, qsi_isa isa) {
    qs_err err = {0};
    qsi_config c;
    char path[512];
    int64_t n = 0;
    bool per_seq = false;
    snprintf(path, sizeof path, "%s/%s.gguf", QSI_GOLDEN_DIR, name);
    if (qsi_gguf_open(&f->g, path, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_config_from_gguf(&c, f->g, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_gguf_f64(f->g, "golden.alpha", &f->alpha, &err), QS_OK);
    assert_int_equal(qsi_gguf_f64(f->g, "golden.lr", &f->lr, &err), QS_OK);
    assert_int_equal(qsi_gguf_bool(f->g, "golden.per_seq", &per_seq, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&f->pool, 1, &err), QS_OK);
    f->b.ids = data_of(f, "batch.ids", &n);
    f->b.seq = data_of(f, "batch.seq", NULL);
    f->b.pos = data_of(f, "batch.pos", NULL);
    f->b.targets = data_of(f, "batch.targets", NULL);
    f->b.n_rows = (int32_t)n;
    int32_t targets = 0;
    for (int64_t i = 0; i < n; i++) targets += f->b.targets[i] >= 0;
    f->b.scale = 1.0f / (float)targets;
    memcpy(f->losses, data_of(f, "losses.f32", &n), sizeof f->losses);
    assert_int_equal(n, 22);
    qsi_train_opts o = {.pool = f->pool, .isa = isa, .precision = QSI_TRAIN_F32,
                        .max_rows = f->b.n_rows, .balance_alpha = (float)f->alpha,
                        .balance_per_seq = per_seq};
    if (qsi_tm_create(&f->t, &c, &o, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_tm_load_gguf(f->t, f->g, &err) != QS_OK) fail_msg("%s", err.text);
}

static void close_golden(golden *f) {
    qsi_tm_free(f->t);
    qsi_pool_free(f->pool);
    qsi_gguf_close(&f->g);
}

/* One forward and backward; holds its losses to the reference's step. */
static void step(golden *f, int k) {
    qs_err err = {0};
    qsi_train_out out;
    qsi_tm_zero_grad(f->t);
    if (qsi_tm_loss(f->t, &f->b, true, 1.0f, &out, &err) != QS_OK) fail_msg("%s", err.text);
    double ce = out.loss_sum / (double)out.n_targets, total = ce + f->alpha * out.balance;
    if (fabs(ce - f->losses[2 * k]) > 1e-5 || fabs(total - f->losses[2 * k + 1]) > 1e-5)
        fail_msg("step %d: loss %.8f and %.8f, the reference has %.8f and %.8f", k, ce, total,
                 f->losses[2 * k], f->losses[2 * k + 1]);
}

static double check_gradients(golden *f) {
    double worst = 0;
    for (size_t i = 0; i < qsi_tm_n_params(f->t); i++) {
        qsi_param *p = qsi_tm_param(f->t, i);
        char name[96];
        int64_t n = 0;
        snprintf(name, sizeof name, "grad.%s", p->name);
        const float *want = data_of(f, name, &n);
        assert_int_equal(n, p->n);
        double d = 0, w = 0;
        for (int64_t j = 0; j < n; j++) {
            d += pow((double)p->grad[j] - (double)want[j], 2);
            w += pow((double)want[j], 2);
        }
        if (sqrt(d) > 1e-4 * sqrt(w)) fail_msg("%s: off by %.2g", p->name, sqrt(d / w));
        worst = fmax(worst, sqrt(d / w));
    }
    return worst;
}

static void adamw(golden *f, const qsi_kern *k, float **mv, int t) {
    double sum = 0;
    for (size_t i = 0; i < qsi_tm_n_params(f->t); i++)
        sum += k->sum_sq(qsi_tm_param(f->t, i)->grad, qsi_tm_param(f->t, i)->n);
    double clip = fmin(1.0, 1.0 / (sqrt(sum) + 1e-6));
    for (size_t i = 0; i < qsi_tm_n_params(f->t); i++) {
        qsi_param *p = qsi_tm_param(f->t, i);
        k->adamw(p->master, p->grad, mv[i], mv[i] + p->n, p->n, (float)clip, (float)f->lr, 0.9f,
                 0.95f, (float)(1 - pow(0.9, t)), (float)(1 - pow(0.95, t)), 1e-8f,
                 p->decay ? 0.1f : 0.0f);
    }
    qsi_tm_refresh(f->t);
}

static void check_model(const char *name, qsi_isa isa) {
    golden f = {0};
    open_golden(&f, name, isa);
    const qsi_kern *k = qsi_kern_get(isa);
    size_t n = qsi_tm_n_params(f.t);
    float **mv = qsi_calloc(n, sizeof *mv);
    for (size_t i = 0; i < n; i++)
        mv[i] = qsi_calloc((size_t)qsi_tm_param(f.t, i)->n * 2, sizeof(float));
    step(&f, 0);
    double worst = check_gradients(&f);
    for (int t = 1; t <= 10; t++) {
        adamw(&f, k, mv, t);
        step(&f, t);
    }
    print_message("%s at %s: worst gradient %.2g\n", name, qsi_isa_name(isa), worst);
    for (size_t i = 0; i < n; i++) qsi_free(mv[i]);
    qsi_free(mv);
    close_golden(&f);
}

static void check_levels(const char *name) {
    for (int i = 0; i < QSI_ISA_COUNT; i++)
        if (qsi_cpu_has((qsi_isa)i)) check_model(name, (qsi_isa)i);
}

static void test_dense(void **s) {
    (void)s;
    check_levels("model_dense");
}

static void test_moe(void **s) {
    (void)s;
    check_levels("model_moe");
}

static void test_moe_norm(void **s) {
    (void)s;
    check_levels("model_moe_norm");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_moe_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
