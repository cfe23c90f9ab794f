/* Products of float types of one level (argument 1) against sums in double.
 *
 * Bounds, with u = 2^-24 and S = sum |a b|: a sum of k rounded products and k rounded additions in
 * any bracketing that adds one term at a time errs by at most (k + 2) u S to first order. The
 * bfloat16 instruction takes denormals as zero: TINY a term. */
#include "kern_testing.h"

static const int elem[] = {4, 2, 2};

static float widen(qsi_mm type, const char *p) {
    float f;
    uint16_t h;
    if (type == QSI_MM_F32) {
        memcpy(&f, p, 4);
        return f;
    }
    memcpy(&h, p, 2);
    return type == QSI_MM_F16 ? qsi_f16_to_f32(h) : qsi_bf16_to_f32(h);
}

typedef struct problem {
    qsi_mm type;
    int64_t m, n, k;
    char *a; /* rows of lda bytes */
    size_t lda, a_bytes;
    char *b;
    size_t b_bytes;
    int64_t ld_col, ld_k;
    char *packed;
    size_t packed_bytes;
    int64_t panels;
    double *exact, *bound; /* [m][n] */
} problem;

static void fill_a(problem *p) {
    int64_t k = p->k;
    p->lda = p->type == QSI_MM_BF16 ? (size_t)((k + 1) / 2) * 4 : (size_t)k * 4;
    p->a_bytes = p->lda * (size_t)p->m;
    p->a = guarded(p->a_bytes);
    float *x = calloc((size_t)k, 4);
    uint16_t h[2] = {0};
    for (int64_t i = 0; i < p->m; i++) {
        char *row = p->a + (size_t)i * p->lda;
        for (int64_t kk = 0; kk < k; kk++) x[kk] = random_value();
        if (p->type == QSI_MM_BF16) {
            for (int64_t kk = 0; kk < k; kk++) {
                h[0] = qsi_f32_to_bf16(x[kk]);
                memcpy(row + kk * 2, h, 2);
            }
        } else {
            memcpy(row, x, (size_t)k * 4);
        }
    }
    free(x);
}

/* order 0: each column contiguous; 1: each k contiguous; 2: neither. */
static void fill_b(problem *p, int order) {
    int64_t n = p->n, k = p->k;
    size_t size = (size_t)elem[p->type];
    p->ld_col = order == 0 ? k : order == 1 ? 1 : 2 * k + 1;
    p->ld_k = order == 0 ? 1 : order == 1 ? n : 2;
    p->b_bytes = (size_t)((n - 1) * p->ld_col + (k - 1) * p->ld_k + 1) * size;
    p->b = guarded(p->b_bytes);
    memset(p->b, 0xff, p->b_bytes); /* NaN between the elements */
    for (int64_t j = 0; j < n; j++)
        for (int64_t kk = 0; kk < k; kk++) {
            float f = random_value();
            char *q = p->b + (size_t)(j * p->ld_col + kk * p->ld_k) * size;
            uint16_t h = p->type == QSI_MM_F16 ? qsi_f32_to_f16(f) : qsi_f32_to_bf16(f);
            memcpy(q, p->type == QSI_MM_F32 ? (void *)&f : (void *)&h, size);
        }
}

static void element(problem *p, int64_t i, int64_t j, double *exact, double *bound) {
    const char *row = p->a + (size_t)i * p->lda;
    double sum = 0, mag = 0, ops = (double)p->k + 2, lost = 0;
    int size = elem[p->type], asize = p->type == QSI_MM_BF16 ? 2 : 4;
    for (int64_t kk = 0; kk < p->k; kk++) {
        double x = widen(p->type == QSI_MM_BF16 ? QSI_MM_BF16 : QSI_MM_F32, row + kk * asize);
        double t = x * widen(p->type, p->b + (j * p->ld_col + kk * p->ld_k) * size);
        sum += t;
        mag += fabs(t);
    }
lost = (double)p->k * 2 * TINY;
    *exact = sum;
    *bound = ops * U * mag * 1.001 + lost;
}

static void problem_open(problem *p, qsi_mm type, int64_t m, int64_t n, int64_t k, int order) {
    const qsi_kern_mm *mm = &kern->mm[type];
    *p = (problem){.type = type, .m = m, .n = n, .k = k};
    fill_a(p);
    fill_b(p, order);
    p->panels = (n + mm->nr - 1) / mm->nr;
    p->packed_bytes = (size_t)p->panels * mm->panel_bytes(k);
    assert_int_equal(mm->panel_bytes(k) % 64, 0);
    p->packed = guarded(p->packed_bytes);
    memset(p->packed, 0xff, p->packed_bytes);
    /* in two calls, the later panels first: ranges are independent */
    int64_t half = p->panels / 2;
    mm->pack(p->b, p->ld_col, p->ld_k, n, k, half, p->panels, p->packed);
    mm->pack(p->b, p->ld_col, p->ld_k, n, k, 0, half, p->packed);
    p->exact = malloc((size_t)(m * n) * sizeof(double));
    p->bound = malloc((size_t)(m * n) * sizeof(double));
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            element(p, i, j, &p->exact[i * n + j], &p->bound[i * n + j]);
}

static void problem_close(problem *p) {
    guarded_free(p->a, p->a_bytes);
    guarded_free(p->b, p->b_bytes);
    guarded_free(p->packed, p->packed_bytes);
    free(p->exact);
    free(p->bound);
}

static void run(const problem *p, int64_t m, const char *a, float *c, int64_t ldc,
                bool accumulate) {
    kern->mm[p->type].run(m, p->n, p->k, 0, p->panels, a, p->lda, p->packed, c, ldc, accumulate);
}

static void check_values(const problem *p) {
    int64_t m = p->m, n = p->n, ldc = n + 3;
    size_t count = (size_t)((m - 1) * ldc + n);
    float *c = guarded(count * 4), *d = guarded(count * 4);
    for (size_t i = 0; i < count; i++) c[i] = d[i] = 777.0f;
    run(p, m, p->a, c, ldc, false);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < ldc && (size_t)(i * ldc + j) < count; j++) {
            float got = c[i * ldc + j];
            if (j >= n)
                assert_true(got == 777.0f);
            else if (!(fabs(got - p->exact[i * n + j]) <= p->bound[i * n + j]))
                fail_msg("type %d m %d n %d k %d: C[%d][%d] is %.9g, not %.9g +- %.3g", p->type,
                         (int)m, (int)n, (int)p->k, (int)i, (int)j, got, p->exact[i * n + j],
                         p->bound[i * n + j]);
        }
    run(p, m, p->a, d, ldc, true);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            assert_true(d[i * ldc + j] == 777.0f + c[i * ldc + j]);
    floats_free(c, count);
    floats_free(d, count);
}

/* The same bits for one row at a time and one panel at a time. */
static void check_invariance(const problem *p) {
    int64_t m = p->m, n = p->n;
    size_t count = (size_t)(m * n);
    float *c = guarded(count * 4), *d = guarded(count * 4);
    run(p, m, p->a, c, n, false);
    for (int64_t i = 0; i < m; i++) run(p, 1, p->a + (size_t)i * p->lda, d + i * n, n, false);
    assert_memory_equal(c, d, count * 4);
    memset(d, 0, count * 4);
    for (int64_t q = p->panels - 1; q >= 0; q--)
        kern->mm[p->type].run(m, n, p->k, q, q + 1, p->a, p->lda, p->packed, d, n, false);
    assert_memory_equal(c, d, count * 4);
    if (m > 2) {
        run(p, m - 2, p->a + 2 * p->lda, d + 2 * n, n, false);
        assert_memory_equal(c, d, count * 4);
    }
    floats_free(c, count);
    floats_free(d, count);
}

static void one(qsi_mm type, int64_t m, int64_t n, int64_t k, int order) {
    problem p;
    problem_open(&p, type, m, n, k, order);
    check_values(&p);
    check_invariance(&p);
    problem_close(&p);
}

static void products(qsi_mm type) {
    static const int64_t ms[] = {1, 2, 3, 5, 7, 12, 13, 29}, ns[] = {1, 7, 16, 31, 32, 33, 100};
    static const int64_t ks[] = {1, 2, 3, 16, 31, 33, 64, 129};
    for (size_t i = 0; i < QSI_COUNT(ks); i++)
        for (size_t j = 0; j < QSI_COUNT(ns); j++)
            one(type, ms[(i + j) % QSI_COUNT(ms)], ns[j], ks[i], (int)(i + j) % 3);
    for (size_t i = 0; i < QSI_COUNT(ms); i++) one(type, ms[i], 45, 8, (int)i % 3);
    /* several chunks of k, groups of panels, all orders */
    for (int order = 0; order < 3; order++) one(type, 13, 70, 1031, order);
    one(type, 3, 600, 32, 0);
}

static void test_f32(void **state) { products(QSI_MM_F32); }
static void test_f16(void **state) { products(QSI_MM_F16); }
static void test_bf16(void **state) { products(QSI_MM_BF16); }

/* NaN and infinity in A or B reach exactly the elements they touch. */
static void test_not_finite(void **state) {
    const int64_t m = 4, n = 40, k = 64;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (qsi_mm type = QSI_MM_F32; type < QSI_MM_QUANT; type++)
        for (size_t b = 0; b < QSI_COUNT(bad); b++) {
            problem p;
            problem_open(&p, type, m, n, k, 0);
            if (type == QSI_MM_BF16) {
                uint16_t h = qsi_f32_to_bf16(bad[b]);
                memcpy(p.a + p.lda + 33 * 2, &h, 2);
            } else {
                memcpy(p.a + p.lda + 33 * 4, &bad[b], 4);
            }
            float *c = guarded((size_t)(m * n) * 4);
            run(&p, m, p.a, c, n, false);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < n; j++)
                    assert_int_equal(!isfinite(c[i * n + j]), i == 1);
            floats_free(c, (size_t)(m * n));
            problem_close(&p);
        }
}

int main(int argc, char **argv) {
    int rc = level_from_args(argc, argv);
    if (rc != 0) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),       cmocka_unit_test(test_f16),
        cmocka_unit_test(test_bf16),      cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
