/* Attention forward against a plain double computation, through pages and through rows; the backward
 * against central differences of the double computation. */
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

enum { N = 150, HEADS = 4, KV = 2, HD = 12, HQ = HEADS * HD, HK = KV * HD };

typedef struct data {
    float q[N * HQ], k[N * HK], v[N * HK], out[N * HQ], lse[N * HEADS];
} data;

static void fill(float *x, int64_t n, uint64_t seed) {
    qsi_rng r;
    qsi_rng_init(&r, seed);
    for (int64_t i = 0; i < n; i++) x[i] = (float)qsi_rng_normal(&r);
}

/* Row i of head h in double; q, k, v given as doubles. */
static void plain_row(const double *q, const double *k, const double *v, int64_t i, int64_t h,
                      double *out) {
    int64_t g = h / (HEADS / KV);
    double s[N], m = -INFINITY, l = 0;
    for (int64_t j = 0; j <= i; j++) {
        s[j] = 0;
        for (int64_t c = 0; c < HD; c++) s[j] += q[i * HQ + h * HD + c] * k[j * HK + g * HD + c];
        s[j] /= sqrt((double)HD);
        m = fmax(m, s[j]);
    }
    for (int64_t j = 0; j <= i; j++) l += exp(s[j] - m);
    for (int64_t c = 0; c < HD; c++) {
        out[c] = 0;
        for (int64_t j = 0; j <= i; j++) out[c] += exp(s[j] - m) / l * v[j * HK + g * HD + c];
    }
}

static void widen(const float *x, double *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = (double)x[i];
}

static void forward(const qsi_kern *k, data *d, const qsi_kv_view *view, int64_t from, int64_t n) {
    static _Alignas(64) char scratch[65536];
    assert_true(qsi_attend_scratch(HEADS / KV, HD, HD) <= sizeof scratch);
    qsi_attend_rows r = {.n_rows = (int32_t)n, .pos0 = from, .q = d->q + from * HQ, .ldq = HQ,
                         .out = d->out + from * HQ, .ldo = HQ, .lse = d->lse + from * HEADS,
                         .ld_lse = HEADS};
    for (int64_t h = 0; h < KV; h++)
        qsi_attend(k, view, &r, h, HEADS / KV, 1.0f / sqrtf((float)HD), scratch);
}

static void check_forward(const qsi_kern *k) {
    data *d = qsi_calloc(1, sizeof *d), *e = qsi_calloc(1, sizeof *d);
    double *q = qsi_alloc(N * HQ, 8), *kk = qsi_alloc(N * HK, 8), *v = qsi_alloc(N * HK, 8);
    fill(d->q, N * HQ, 1);
    fill(d->k, N * HK, 2);
    fill(d->v, N * HK, 3);
    *e = *d;
    widen(d->q, q, N * HQ);
    widen(d->k, kk, N * HK);
    widen(d->v, v, N * HK);
    qsi_kv_view rows = qsi_kv_rows(d->k, HK, HD, d->v, HK, HD);
    for (int64_t at = 0; at < N; at += QSI_ATTEND_TILE)
        forward(k, d, &rows, at, qsi_min64(QSI_ATTEND_TILE, N - at));
    /* the same through pages in another order, other blocks of rows */
    enum { PAGE = 2 * KV * QSI_ATTEND_TILE * HD };
    float *pages = qsi_calloc(3 * PAGE, sizeof *pages);
    void *mem[3] = {pages, pages + PAGE, pages + 2 * PAGE};
    int32_t order[3] = {2, 0, 1};
    for (int64_t i = 0; i < N; i++)
        for (int64_t h = 0; h < KV; h++) {
            float *p = (float *)mem[order[i / QSI_ATTEND_TILE]] +
                       (h * QSI_ATTEND_TILE + i % QSI_ATTEND_TILE) * HD;
            memcpy(p, d->k + i * HK + h * HD, HD * sizeof *p);
            memcpy(p + PAGE / 2, d->v + i * HK + h * HD, HD * sizeof *p);
        }
    qsi_kv_view paged = rows;
    paged.ld_k = paged.ld_v = HD;
    paged.head_k = paged.head_v = QSI_ATTEND_TILE * HD;
    paged.v_off = PAGE / 2 * sizeof *pages;
    paged.page_mem = mem;
    paged.pages = order;
    for (int64_t at = 0; at < N; at += 37) forward(k, e, &paged, at, qsi_min64(37, N - at));
    assert_memory_equal(d->out, e->out, sizeof d->out);
    assert_memory_equal(d->lse, e->lse, sizeof d->lse);
    for (int64_t i = 0; i < N; i++)
        for (int64_t h = 0; h < HEADS; h++) {
            double want[HD];
            plain_row(q, kk, v, i, h, want);
            for (int64_t c = 0; c < HD; c++)
                assert_true(fabs(want[c] - (double)d->out[i * HQ + h * HD + c]) < 1e-5);
        }
    qsi_free(pages);
    qsi_free(q);
    qsi_free(kk);
    qsi_free(v);
    qsi_free(d);
    qsi_free(e);
}

static double plain_loss(const double *q, const double *k, const double *v, const float *dout) {
    double sum = 0;
    for (int64_t i = 0; i < N; i++)
        for (int64_t h = 0; h < HEADS; h++) {
            double o[HD];
            plain_row(q, k, v, i, h, o);
            for (int64_t c = 0; c < HD; c++) sum += o[c] * (double)dout[i * HQ + h * HD + c];
        }
    return sum;
}

static void check_backward(const qsi_kern *k) {
    data *d = qsi_calloc(1, sizeof *d);
    float *dout = qsi_alloc(N * HQ, 4), *dq = qsi_alloc(N * HQ, 4);
    float *dk = qsi_alloc(N * HK, 4), *dv = qsi_alloc(N * HK, 4);
    double *x[3] = {qsi_alloc(N * HQ, 8), qsi_alloc(N * HK, 8), qsi_alloc(N * HK, 8)};
    fill(d->q, N * HQ, 4);
    fill(d->k, N * HK, 5);
    fill(d->v, N * HK, 6);
    fill(dout, N * HQ, 7);
    widen(d->q, x[0], N * HQ);
    widen(d->k, x[1], N * HK);
    widen(d->v, x[2], N * HK);
    qsi_kv_view rows = qsi_kv_rows(d->k, HK, HD, d->v, HK, HD);
    for (int64_t at = 0; at < N; at += QSI_ATTEND_TILE)
        forward(k, d, &rows, at, qsi_min64(QSI_ATTEND_TILE, N - at));
    qsi_attend_doc a = {.n = N, .n_head = HEADS, .n_kv = KV, .hd = HD, .q = d->q, .k = d->k,
                        .v = d->v, .out = d->out, .dout = dout, .lse = d->lse, .dq = dq, .dk = dk,
                        .dv = dv, .ld_q = HQ, .ld_kv = HK, .scale = 1.0f / sqrtf((float)HD)};
    char *scratch = qsi_alloc(qsi_attend_bwd_scratch(N), 1);
    for (int64_t h = 0; h < KV; h++) qsi_attend_bwd(k, &a, h, scratch);
    const float *grad[3] = {dq, dk, dv};
    int64_t n[3] = {N * HQ, N * HK, N * HK};
    for (int m = 0; m < 3; m++)
        for (int64_t i = 5; i < n[m]; i += n[m] / 5) { /* values all over the matrix */
            double keep = x[m][i], h = 1e-5, l[2];
            for (int s = 0; s < 2; s++) {
                x[m][i] = keep + (s ? -h : h);
                l[s] = plain_loss(x[0], x[1], x[2], dout);
            }
            x[m][i] = keep;
            double fd = (l[0] - l[1]) / (2 * h);
            if (fabs(fd - (double)grad[m][i]) > 2e-5 * fmax(1.0, fabs(fd)))
                fail_msg("d%c[%ld]: %.8g, differences %.8g", "qkv"[m], (long)i,
                         (double)grad[m][i], fd);
        }
    for (int m = 0; m < 3; m++) qsi_free(x[m]);
    qsi_free(scratch);
    qsi_free(dout);
    qsi_free(dq);
    qsi_free(dk);
    qsi_free(dv);
    qsi_free(d);
}

static void test_forward(void **s) {
    (void)s;
    check_forward(qsi_kern_get(QSI_ISA_REF));
    check_forward(qsi_kern_get(qsi_cpu_isa()));
}

static void test_backward(void **s) {
    (void)s;
    check_backward(qsi_kern_get(QSI_ISA_REF));
    check_backward(qsi_kern_get(qsi_cpu_isa()));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
