/* Routing: choice, ties, weights; the backward against central differences in double. Rotary angles. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "op/op.h"

static void test_choice(void **s) {
    (void)s;
    const qsi_kern *k = qsi_kern_get(QSI_ISA_REF);
    float z[5] = {1, 3, 2, 3, 0}, w[3];
    int32_t id[3];
    qsi_route_row(k, z, 5, 3, false, 1.0f, id, w);
    assert_int_equal(id[0], 1);
    assert_int_equal(id[1], 2);
    assert_int_equal(id[2], 3);
    double l = exp(-2) + 1 + exp(-1) + 1 + exp(-3);
    assert_true(fabs((double)w[1] - exp(-1) / l) < 1e-7);
    float t[4] = {2, 2, 2, 2};
    qsi_route_row(k, t, 4, 2, true, 2.5f, id, w); /* ties: lower ids; renormalised, scaled */
    assert_int_equal(id[0], 0);
    assert_int_equal(id[1], 1);
    assert_true(fabsf(w[0] - 1.25f) < 1e-6f && fabsf(w[1] - 1.25f) < 1e-6f);
}

enum { E = 7, K = 3 };

/* sum dw w + sum ds s, with the choice held fixed. */
static double plain(const double *z, bool norm, double scale, const int32_t *id, const float *dw,
                    const float *ds) {
    double s[E], l = 0, chosen = 0, sum = 0;
    for (int e = 0; e < E; e++) l += exp(z[e]);
    for (int e = 0; e < E; e++) s[e] = exp(z[e]) / l;
    for (int j = 0; j < K; j++) chosen += s[id[j]];
    for (int j = 0; j < K; j++)
        sum += (double)dw[j] * s[id[j]] * scale / (norm ? chosen : 1);
    for (int e = 0; e < E; e++) sum += (double)ds[e] * s[e];
    return sum;
}

static void test_backward(void **st) {
    (void)st;
    qsi_rng r;
    qsi_rng_init(&r, 3);
    for (int round = 0; round < 40; round++) {
        bool norm = round & 1;
        double z[E];
        float s[E], dw[K], ds[E], w[K], dz[E];
        int32_t id[K];
        for (int e = 0; e < E; e++) {
            z[e] = qsi_rng_normal(&r);
            s[e] = (float)z[e];
            z[e] = (double)s[e];
            ds[e] = (float)qsi_rng_normal(&r);
        }
        for (int j = 0; j < K; j++) dw[j] = (float)qsi_rng_normal(&r);
        qsi_route_row(qsi_kern_get(QSI_ISA_REF), s, E, K, norm, 1.5f, id, w);
        qsi_route_row_bwd(s, E, K, norm, 1.5f, id, dw, ds, dz);
        for (int e = 0; e < E; e++) {
            double keep = z[e], h = 1e-5, l[2];
            for (int i = 0; i < 2; i++) {
                z[e] = keep + (i ? -h : h);
                l[i] = plain(z, norm, 1.5, id, dw, ds);
            }
            z[e] = keep;
            assert_true(fabs((l[0] - l[1]) / (2 * h) - (double)dz[e]) < 2e-6);
        }
    }
}

static void test_rope(void **st) {
    (void)st;
    double f[4];
    float cs[8];
    qsi_rope_freq(f, 8, 10000.0, 4.0);
    qsi_rope_row(cs, f, 8, 4000.0);
    for (int i = 0; i < 4; i++) {
        double a = 1000.0 * pow(10000.0, -i / 4.0);
        assert_true(fabs(cos(a) - (double)cs[2 * i]) < 1e-6);
        assert_true(fabs(sin(a) - (double)cs[2 * i + 1]) < 1e-6);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
