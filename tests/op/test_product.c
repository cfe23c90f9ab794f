/* Products of every weight type and their backward against plain double loops, odd shapes, jobs in
 * chains, any number of workers: the same bits. Covers act.c and weight.c, which product.c joins. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "op/op.h"

static void fill(float *x, int64_t n, uint64_t seed) {
    qsi_rng r;
    qsi_rng_init(&r, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)qsi_rng_normal(&r);
}

typedef struct run {
    qsi_op_shared sh;
    const qsi_kern *k;
    const qsi_mm_job *jobs;
    int n;
    qsi_weight *w;
    uint16_t *shadow;
} run;

static void work(const qsi_worker *w, void *arg) {
    run *r = arg;
    qsi_op o;
    qsi_op_init(&o, w, r->k, &r->sh, NULL, 0);
    qsi_op_end(&o);
    if (r->jobs)
        qsi_op_mm(&o, r->jobs, r->n);
    else if (r->shadow)
        qsi_weight_refresh(&o, r->w, r->shadow);
    else
        qsi_weight_prepare(w, r->k, r->w);
}

static void go(int threads, run *r) {
    qsi_pool *pool = NULL;
    assert_int_equal(qsi_pool_create(&pool, threads, NULL), QS_OK);
    qsi_pool_run(pool, work, r);
    qsi_pool_free(pool);
}

/* y = x Wt for a weight of this type; want from the decoded weight. */
static void check_forward(const qsi_kern *k, qsi_type type, int64_t m, int64_t n_out, int64_t n_in,
                          double tolerance) {
    const qsi_type_info *ti = qsi_type_get(type);
    float *wf = qsi_alloc((size_t)(n_out * n_in), 4), *x = qsi_alloc((size_t)(m * n_in), 4);
    float *y = qsi_alloc((size_t)(m * n_out), 4), *y3 = qsi_alloc((size_t)(m * n_out), 4);
    char *bytes = qsi_alloc((size_t)(n_out * n_in / ti->block), (size_t)ti->bytes);
    qsi_arena ar;
    qsi_act a;
    qsi_arena_init(&ar);
    fill(wf, n_out * n_in, 1);
    fill(x, m * n_in, 2);
    ti->encode(wf, bytes, n_out * n_in);
    ti->decode(bytes, wf, n_out * n_in);
    run r = {.k = k};
    assert_int_equal(qsi_weight_create(&r.w, k, type, bytes, n_out, n_in, NULL), QS_OK);
    go(3, &r);
    assert_int_equal(qsi_act_init(&a, &ar, m, n_in, qsi_act_form(qsi_weight_mm(r.w)), NULL), QS_OK);
    for (int64_t i = 0; i < m; i++) qsi_act_put(k, &a, i, x + i * n_in);
    qsi_mm_job j = qsi_job_forward(r.w, &a, 0, m, y, n_out, false);
    r.jobs = &j;
    r.n = 1;
    go(1, &r);
    j.c = y3;
    go(3, &r);
    assert_memory_equal(y, y3, (size_t)(m * n_out) * 4);
    for (int64_t i = 0; i < m; i++)
        for (int64_t o = 0; o < n_out; o++) {
            double want = 0;
            for (int64_t c = 0; c < n_in; c++)
                want += (double)x[i * n_in + c] * (double)wf[o * n_in + c];
            if (fabs(want - (double)y[i * n_out + o]) > tolerance * sqrt((double)n_in))
                fail_msg("%s [%ld, %ld]: %g, want %g", ti->name, (long)i, (long)o,
                         (double)y[i * n_out + o], want);
        }
    qsi_weight_free(r.w);
    qsi_arena_release(&ar);
    qsi_free(wf);
    qsi_free(x);
    qsi_free(y);
    qsi_free(y3);
    qsi_free(bytes);
}

static void test_forward(void **s) {
    (void)s;
    /* rounding of the activation: bf16 2^-9 of a value, int8 1/254 of the block's largest (about 3);
     * a sum of n such errors grows with sqrt(n); six times the standard deviation */
    static const struct {
        qsi_type type;
        double tolerance;
    } t[] = {{QSI_F32, 1e-5},  {QSI_F16, 1e-5},  {QSI_BF16, 0.01},  {QSI_Q8_0, 0.05},
             {QSI_Q4_0, 0.05}, {QSI_Q4_1, 0.05}, {QSI_Q5_0, 0.05},  {QSI_Q5_1, 0.05},
             {QSI_Q2_K, 0.05}, {QSI_Q3_K, 0.05}, {QSI_Q4_K, 0.05},  {QSI_Q5_K, 0.05},
             {QSI_Q6_K, 0.05}, {QSI_IQ4_NL, 0.05}};
    qsi_isa levels[] = {QSI_ISA_REF, qsi_cpu_isa()};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < QSI_COUNT(t); i++) {
            bool k256 = qsi_type_get(t[i].type)->block == 256;
            check_forward(qsi_kern_get(levels[l]), t[i].type, 1, 70, k256 ? 512 : 64,
                          t[i].tolerance);
            check_forward(qsi_kern_get(levels[l]), t[i].type, 113, 37, k256 ? 256 : 96,
                          t[i].tolerance);
        }
    check_forward(qsi_kern_get(qsi_cpu_isa()), QSI_F32, 5, 3, 7, 1e-5);
    check_forward(qsi_kern_get(qsi_cpu_isa()), QSI_BF16, 5, 3, 7, 0.02);
}

/* Jobs of many, few and no rows in one list, which takes from both kinds by turns: every element is
 * written once, with the bits that the job alone gives. */
static void test_mixed(void **state) {
    (void)state;
    enum { N_JOBS = 7, K = 256, N = 500, ROWS = 40 };
    static const int64_t rows[N_JOBS] = {1, 40, 2, 0, 17, 4, 3};
    const qsi_kern *k = qsi_kern_get(qsi_cpu_isa());
    const qsi_type_info *ti = qsi_type_get(QSI_Q4_0);
    size_t yn = (size_t)N_JOBS * ROWS * N;
    float *x = qsi_alloc((size_t)N * K, 4), *y = qsi_alloc(yn, 4), *want = qsi_alloc(yn, 4);
    char *bytes = qsi_alloc((size_t)(N * K / ti->block), (size_t)ti->bytes);
    qsi_mm_job jobs[N_JOBS];
    qsi_arena ar;
    qsi_act a;
    qsi_arena_init(&ar);
    fill(x, (int64_t)N * K, 1);
    ti->encode(x, bytes, (int64_t)N * K);
    run prepare = {.k = k};
    assert_int_equal(qsi_weight_create(&prepare.w, k, QSI_Q4_0, bytes, N, K, NULL), QS_OK);
    go(1, &prepare);
    assert_int_equal(qsi_act_init(&a, &ar, ROWS, K, QSI_ACT_Q8, NULL), QS_OK);
    for (int64_t i = 0; i < ROWS; i++) qsi_act_put(k, &a, i, x + i * K);
    memset(want, 0, yn * 4);
    for (int threads = 0; threads <= 3; threads++) {
        float *c = threads ? y : want;
        memset(y, 0, yn * 4);
        for (int i = 0; i < N_JOBS; i++) {
            jobs[i] = qsi_job_forward(prepare.w, &a, 0, rows[i], c + (size_t)i * ROWS * N, N, true);
            if (!threads && rows[i]) qsi_job_run(k, &jobs[i]);
        }
        if (!threads) continue;
        run r = {.k = k, .jobs = jobs, .n = N_JOBS};
        go(threads, &r);
        assert_memory_equal(y, want, yn * 4);
    }
    qsi_weight_free(prepare.w);
    qsi_arena_release(&ar);
    qsi_free(x);
    qsi_free(y);
    qsi_free(want);
    qsi_free(bytes);
}

/* dx = dy1 W1 + dy2 W2 (a chain), dW1 += dy1T x, with m rows. */
static void check_backward(const qsi_kern *k, qsi_mm kind, int64_t m, int64_t n_out, int64_t n_in,
                           double tolerance) {
    size_t wn = (size_t)(n_out * n_in), yn = (size_t)(m * n_out), xn = (size_t)(m * n_in);
    float *w[2] = {qsi_alloc(wn, 4), qsi_alloc(wn, 4)}, *dy[2] = {qsi_alloc(yn, 4), qsi_alloc(yn, 4)};
    float *x = qsi_alloc(xn, 4), *dx = qsi_alloc(xn, 4), *dw = qsi_calloc(wn, 4);
    uint16_t *shadow = qsi_alloc(wn, 2);
    qsi_arena ar;
    qsi_act a;
    qsi_arena_init(&ar);
    qsi_weight *pw[2];
    qsi_dy d[2];
    qsi_xpack p;
    size_t ws = 2 * qsi_dy_bytes(kind, m, n_out) + qsi_xpack_bytes(k, kind, m, n_in) + 1024;
    qsi_bump b = {qsi_arena_calloc(&ar, ws, 1), ws};
    run r = {.k = k};
    fill(x, m * n_in, 3);
    assert_int_equal(qsi_act_init(&a, &ar, m, n_in, qsi_act_form(kind), NULL), QS_OK);
    for (int64_t i = 0; i < m; i++) qsi_act_put(k, &a, i, x + i * n_in);
    for (int i = 0; i < 2; i++) {
        fill(w[i], n_out * n_in, 4 + (uint64_t)i);
        fill(dy[i], m * n_out, 6 + (uint64_t)i);
        assert_int_equal(qsi_weight_create_train(&pw[i], k, kind, w[i], n_out, n_in, NULL), QS_OK);
        r.w = pw[i];
        r.shadow = shadow;
        go(2, &r);
        qsi_dy_init(&d[i], &b, kind, m, n_out, dy[i], n_out);
        for (int64_t r0 = 0; r0 < m; r0 += 16)
            qsi_dy_put(k, &d[i], dy[i] + r0 * n_out, n_out, r0, qsi_min64(r0 + 16, m));
    }
    qsi_xpack_init(&p, &b, k, kind, m, n_in);
    for (int64_t i = 0; i < qsi_xpack_items(k, &p); i++) qsi_xpack_put(k, &p, &a, 0, i);
    qsi_mm_job j[3] = {qsi_job_dx(pw[0], &d[0], dx, n_in, false),
                       qsi_job_dx(pw[1], &d[1], dx, n_in, true), qsi_job_dw(&d[0], &p, dw)};
    j[0].chain = 1;
    r.jobs = j;
    r.n = 3;
    go(3, &r);
    for (int64_t i = 0; i < m; i++)
        for (int64_t c = 0; c < n_in; c++) {
            double want = 0;
            for (int64_t o = 0; o < n_out; o++)
                for (int q = 0; q < 2; q++)
                    want += (double)dy[q][i * n_out + o] * (double)w[q][o * n_in + c];
            assert_true(fabs(want - (double)dx[i * n_in + c]) < tolerance * sqrt(2.0 * n_out));
        }
    for (int64_t o = 0; o < n_out; o++)
        for (int64_t c = 0; c < n_in; c++) {
            double want = 0;
            for (int64_t i = 0; i < m; i++)
                want += (double)dy[0][i * n_out + o] * (double)x[i * n_in + c];
            assert_true(fabs(want - (double)dw[o * n_in + c]) < tolerance * sqrt((double)m));
        }
    for (int i = 0; i < 2; i++) {
        qsi_weight_free(pw[i]);
        qsi_free(w[i]);
        qsi_free(dy[i]);
    }
    qsi_arena_release(&ar);
    qsi_free(x);
    qsi_free(dx);
    qsi_free(dw);
    qsi_free(shadow);
}

static void test_backward(void **s) {
    (void)s;
    qsi_isa levels[] = {QSI_ISA_REF, qsi_cpu_isa()};
    for (size_t l = 0; l < 2; l++) {
        const qsi_kern *k = qsi_kern_get(levels[l]);
        check_backward(k, QSI_MM_F32, 113, 37, 45, 2e-5);
        check_backward(k, QSI_MM_BF16, 113, 37, 45, 0.02); /* both sides rounded */
        check_backward(k, QSI_MM_BF16, 1, 33, 64, 0.03);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward), cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
