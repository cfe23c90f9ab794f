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

/* Eight experts in four groups. */
static void test_groups(void **st) {
    (void)st;
    const qsi_kern *k = qsi_kern_get(QSI_ISA_REF);
    static const float logits[8] = {4, -9, 3, 2, 1, 1, -9, -9};
    static const float bias[8] = {0, 0, 0, 0, 0.5f, 0.5f, 0, 0};
    float z[8], w[3], tmp[12];
    int32_t id[3];
    qsi_route r = {.n = 8, .n_used = 3, .n_group = 4, .n_group_used = 2, .scale = 2};
    memcpy(z, logits, sizeof z);
    qsi_route_row_chosen(k, &r, z, id, w, tmp); /* groups 0 and 1 have the largest */
    assert_true(id[0] == 0 && id[1] == 2 && id[2] == 3);
    double l = exp(4) + exp(3) + exp(2) + 2 * exp(1) + 3 * exp(-9);
    assert_true(fabs((double)w[1] - 2 * exp(3) / l) < 1e-6);
    r.sigmoid = r.norm = true;
    r.bias = bias;
    memcpy(z, logits, sizeof z);
    qsi_route_row_chosen(k, &r, z, id, w, tmp); /* 1 and 2 have the largest pairs */
    assert_true(id[0] == 2 && id[1] == 4 && id[2] == 5);
    double s2 = 1 / (1 + exp(-3)), s4 = 1 / (1 + exp(-1));
    assert_true(fabs((double)w[0] - 2 * s2 / (s2 + 2 * s4)) < 1e-6);
    assert_true(w[1] == w[2]); /* the bias chooses, it does not weigh */
    r.n_group = 1;
    memcpy(z, logits, sizeof z);
    qsi_route_row_chosen(k, &r, z, id, w, tmp);
    assert_true(id[0] == 0 && id[1] == 4 && id[2] == 5);
}

/* The published numbers: pairs up to 10 as they are, from 23 on a 40th, a ramp between. */
static void test_yarn(void **st) {
    (void)st;
    double f[32];
    qsi_rope_freq_yarn(f, 64, 1e4, 40, 4096, 32, 1);
    for (int i = 0; i < 32; i++) {
        double plain = pow(1e4, -2.0 * i / 64), ramp = fmin(fmax((i - 10) / 13.0, 0), 1);
        assert_true(fabs(f[i] / plain - (1 - ramp + ramp / 40)) < 1e-12);
    }
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
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_backward),
        cmocka_unit_test(test_rope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
