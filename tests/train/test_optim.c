/* AdamW: one parameter against the textbook in double, clipping, and the same bits for any number of
 * threads. */
#include "train_testing.h"

#include "train/optim.h"

#define N 100003 /* several blocks and a tail */

typedef struct one {
    qsi_param p[2];
    float master[2][N], grad[2][N];
} one;

static size_t n_params(void *self) { (void)self; return 2; }
static qsi_param *param(void *self, size_t i) { return &((one *)self)->p[i]; }

static void fill(one *o, uint64_t seed) {
    qsi_rng r;
    qsi_rng_init(&r, seed);
    for (int i = 0; i < 2; i++) {
        o->p[i] = (qsi_param){.name = i ? "norm" : "matrix", .n_dims = 1, .ne = {N, 1, 1}, .n = N,
                              .master = o->master[i], .grad = o->grad[i], .decay = i == 0};
        for (int k = 0; k < N; k++) {
            o->master[i][k] = (float)qsi_rng_normal(&r);
            o->grad[i][k] = (float)(qsi_rng_normal(&r) * 0.01);
        }
    }
}

static void run(one *o, int threads, int steps, float clip, double *norm) {
    qsi_pool *pool = NULL;
    qsi_optim a;
    qs_err err = {0};
    qsi_net net = {.self = o, .n_params = n_params, .param = param};
    const qsi_adamw_opts ao = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .decay = 0.1f,
                               .clip = clip};
    assert_int_equal(qsi_pool_create(&pool, threads, &err), QS_OK);
    assert_int_equal(qsi_optim_init(&a, &net, pool, qsi_kern_get(QSI_ISA_REF), &ao, &err), QS_OK);
    for (int t = 1; t <= steps; t++) {
        *norm = qsi_optim_grad_norm(&a);
        qsi_optim_step(&a, t, 1e-2, *norm);
    }
    qsi_optim_release(&a);
    qsi_pool_free(pool);
}

static void textbook(void **state) {
    (void)state;
    one *o = qsi_calloc(1, sizeof(*o)), *was = qsi_calloc(1, sizeof(*was));
    double norm = 0, sum = 0;
    fill(o, 5);
    memcpy(was->master, o->master, sizeof(o->master));
    run(o, 2, 3, 1.0f, &norm);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N; k++) sum += (double)o->grad[i][k] * (double)o->grad[i][k];
    assert_true(fabs(norm / sqrt(sum) - 1) < 1e-12);
    assert_true(norm > 1.0); /* so that clipping is at work */
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < N; k += 97) {
            double p = (double)was->master[i][k], m = 0, v = 0, decay = i == 0 ? 0.1 : 0;
            double g = (double)o->grad[i][k] / norm;
            for (int t = 1; t <= 3; t++) {
                m = 0.9 * m + 0.1 * g;
                v = 0.95 * v + 0.05 * g * g;
                double mh = m / (1 - pow(0.9, t)), vh = v / (1 - pow(0.95, t));
                p -= 1e-2 * (mh / (sqrt(vh) + 1e-8) + decay * p);
            }
            assert_true(fabs((double)o->master[i][k] - p) < 2e-6);
        }
    qsi_free(o);
    qsi_free(was);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    one *a = qsi_calloc(1, sizeof(*a)), *b = qsi_calloc(1, sizeof(*b));
    double na = 0, nb = 0;
    fill(a, 9);
    fill(b, 9);
    run(a, 1, 2, 0.5f, &na);
    run(b, 3, 2, 0.5f, &nb);
    assert_memory_equal(a->master, b->master, sizeof(a->master));
    assert_memory_equal(&na, &nb, sizeof(na));
    qsi_free(a);
    qsi_free(b);
}

static void no_clip(void **state) {
    (void)state;
    one *a = qsi_calloc(1, sizeof(*a)), *b = qsi_calloc(1, sizeof(*b));
    double n = 0;
    fill(a, 3);
    fill(b, 3);
    run(a, 1, 1, 0.0f, &n);
    run(b, 1, 1, 1e6f, &n); /* a limit above the norm changes nothing either */
    assert_memory_equal(a->master, b->master, sizeof(a->master));
    qsi_free(a);
    qsi_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(textbook),
                                       cmocka_unit_test(threads_do_not_matter),
                                       cmocka_unit_test(no_clip)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
