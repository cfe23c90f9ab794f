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
    char *scratch = qsi_alloc(qsi_attend_scratch(HEADS / KV, HD, HD), 1);
    qsi_attend_rows r = {.n_rows = (int32_t)n, .pos0 = from, .q = d->q + from * HQ, .ldq = HQ,
                         .out = d->out + from * HQ, .ldo = HQ, .lse = d->lse + from * HEADS,
                         .ld_lse = HEADS};
    for (int64_t h = 0; h < KV; h++)
        qsi_attend(k, view, &r, h, HEADS / KV, 1.0f / sqrtf((float)HD), scratch);
    qsi_free(scratch);
}

/* ---- forward, at any depth, from rows and from every kind of cache ---- */

enum { DEEP = 601, TILES = (DEEP + QSI_ATTEND_TILE - 1) / QSI_ATTEND_TILE, GROUP = 3 };

typedef struct shape {
    qsi_type type;
    int64_t hd_k, hd_v;
    bool v_in_k, bf16, bytes;
} shape;

typedef struct deep {
    shape z;
    float *q, *k, *v;     /* [DEEP, KV * GROUP * hd_k], [DEEP, KV * hd_k], [DEEP, KV * hd_v] */
    void *mem[TILES];
    int32_t pages[TILES];
    qsi_kv_view rows, paged;
} deep;

static uint16_t *scale_at(const deep *d, char *tile, int64_t p) {
    return qsi_kv_scaled(d->z.type) ? (uint16_t *)(void *)tile + p % QSI_ATTEND_TILE : NULL;
}

/* Writes hd elements of one position into a tile, and reads back into x what then stands there. */
static void put(const deep *d, char *tile, int64_t hd, int64_t p, bool turned, float *x) {
    char *at0 = tile + qsi_kv_tile_scales(d->z.type, hd);
    int64_t slot = p % QSI_ATTEND_TILE;
    for (int64_t i = 0; i < hd; i++) {
        int64_t at = turned ? i * QSI_ATTEND_TILE + slot : slot * hd + i;
        if (d->z.type == QSI_Q8_0) /* four rows' bytes side by side */
            at = turned ? (i / 4 * QSI_ATTEND_TILE + slot) * 4 + i % 4
                        : (slot / 4 * hd + i) * 4 + slot % 4;
        if (d->z.type == QSI_BF16) /* two rows' elements */
            at = turned ? (i / 2 * QSI_ATTEND_TILE + slot) * 2 + i % 2
                        : (slot / 2 * hd + i) * 2 + slot % 2;
        if (d->z.type == QSI_F32) ((float *)(void *)at0)[at] = x[i];
        if (d->z.type == QSI_F16) {
            ((uint16_t *)(void *)at0)[at] = qsi_f32_to_f16(x[i]);
            x[i] = qsi_f16_to_f32(((uint16_t *)(void *)at0)[at]);
        }
        if (d->z.type == QSI_BF16) {
            ((uint16_t *)(void *)at0)[at] = qsi_f32_to_bf16(x[i]);
            x[i] = qsi_bf16_to_f32(((uint16_t *)(void *)at0)[at]);
            if (turned && i + 1 == hd && hd % 2) ((uint16_t *)(void *)at0)[at + 1] = 0;
        }
        if (d->z.type == QSI_Q4_0) { /* two elements a byte */
            int64_t word = turned ? i / 8 * QSI_ATTEND_TILE + slot
                                  : (slot / 4 * ((hd + 31) / 32) + i / 32) * 16 + i % 16;
            bool high = turned ? i % 8 >= 4 : i % 32 >= 16;
            uint8_t *byte = (uint8_t *)at0 + word * 4 + (turned ? i % 4 : slot % 4);
            uint16_t *s = scale_at(d, tile, p) + i / 32 * QSI_ATTEND_TILE;
            *s = qsi_f32_to_f16((p % 3 ? 0.4f : -0.4f) + 0.01f * (float)(p % 7));
            int q = (int)fmaxf(-8, fminf(7, rintf(x[i] / qsi_f16_to_f32(*s))));
            *byte = (uint8_t)(high ? (*byte & 15) | (q + 8) << 4 : (*byte & 240) | (q + 8));
            x[i] = qsi_f16_to_f32(*s) * (float)q;
        }
        if (d->z.type == QSI_Q8_0) { /* any scale will do */
            uint16_t *s = scale_at(d, tile, p) + i / 32 * QSI_ATTEND_TILE;
            *s = qsi_f32_to_f16(0.03f + 0.001f * (float)(p % 7));
            float scale = qsi_f16_to_f32(*s);
            ((int8_t *)at0)[at] = (int8_t)fmaxf(-127, fminf(127, rintf(x[i] / scale)));
            x[i] = scale * (float)((int8_t *)at0)[at];
        }
    }
}

static void deep_init(deep *d, shape z) {
    *d = (deep){.z = z};
    d->q = qsi_alloc((size_t)(DEEP * KV * GROUP * z.hd_k), 4);
    d->k = qsi_alloc((size_t)(DEEP * KV * z.hd_k), 4);
    d->v = qsi_alloc((size_t)(DEEP * KV * z.hd_v), 4);
    fill(d->q, DEEP * KV * GROUP * z.hd_k, 11);
    fill(d->k, DEEP * KV * z.hd_k, 12);
    fill(d->v, DEEP * KV * z.hd_v, 13);
    size_t kt = qsi_kv_tile_bytes(z.type, z.hd_k), vt = qsi_kv_tile_bytes(z.type, z.hd_v);
    if (z.v_in_k) vt = kt;
    for (int t = 0; t < TILES; t++) {
        d->mem[t] = qsi_alloc(2 * KV * (kt + vt), 1);
        memset(d->mem[t], 0xff, 2 * KV * (kt + vt)); /* what nobody stored is no number */
        d->pages[t] = (t * 7 + 3) % TILES;
    }
    d->paged = (qsi_kv_view){.type = z.type, .hd_k = z.hd_k, .hd_v = z.hd_v, .v_in_k = z.v_in_k,
                             .bf16 = z.bf16, .bytes = z.bytes, .stride = 2, .turned = !z.v_in_k,
                             .v_off = z.v_in_k ? 0 : KV * kt, .k_tile = kt,
                             .v_tile = vt, .page_mem = d->mem, .pages = d->pages};
    for (int64_t p = 0; p < DEEP; p++)
        for (int64_t h = 0; h < KV; h++) {
            char *page = d->mem[d->pages[p / QSI_ATTEND_TILE]];
            float *k = d->k + (p * KV + h) * z.hd_k, *v = d->v + (p * KV + h) * z.hd_v;
            put(d, page + (size_t)h * kt, z.hd_k, p, d->paged.turned, k);
            if (z.v_in_k)
                memcpy(v, k, (size_t)z.hd_v * 4);
            else
                put(d, page + d->paged.v_off + (size_t)h * vt, z.hd_v, p, false, v);
        }
    d->rows = qsi_kv_rows(d->k, KV * z.hd_k, z.hd_k, z.v_in_k ? NULL : d->v, KV * z.hd_v, z.hd_v);
}

static void deep_release(deep *d) {
    for (int t = 0; t < TILES; t++) qsi_free(d->mem[t]);
    qsi_free(d->q);
    qsi_free(d->k);
    qsi_free(d->v);
}

static qsi_attend_rows deep_rows(const deep *d, int64_t from, int64_t n, float *out, float *lse) {
    int64_t h = KV * GROUP;
    return (qsi_attend_rows){.n_rows = (int32_t)n, .pos0 = from, .q = d->q + from * h * d->z.hd_k,
                             .ldq = h * d->z.hd_k, .out = out + from * h * d->z.hd_v,
                             .ldo = h * d->z.hd_v, .lse = lse + from * h, .ld_lse = h};
}

/* All rows in blocks of n. */
static void deep_run(const qsi_kern *k, const deep *d, const qsi_kv_view *view, int64_t n,
                     float *out, float *lse) {
    char *scratch = qsi_alloc(qsi_attend_scratch(GROUP, d->z.hd_k, d->z.hd_v), 1);
    for (int64_t at = 0; at < DEEP; at += n) {
        qsi_attend_rows r = deep_rows(d, at, qsi_min64(n, DEEP - at), out, lse);
        for (int64_t h = 0; h < KV; h++) qsi_attend(k, view, &r, h, GROUP, 0.3f, scratch);
    }
    qsi_free(scratch);
}

/* Rows [from, DEEP) with their spans computed apart, last span first. */
static void deep_parts(const qsi_kern *k, const deep *d, int64_t from, float *out, float *lse) {
    char *scratch = qsi_alloc(qsi_attend_scratch(GROUP, d->z.hd_k, d->z.hd_v), 1);
    int64_t n = DEEP - from, spans = qsi_attend_spans(DEEP - 1), heads = KV * GROUP;
    int64_t size = qsi_attend_part_floats(d->z.hd_v);
    float *parts = qsi_alloc((size_t)(n * heads * spans * size), 4);
    qsi_attend_rows r = deep_rows(d, from, n, out, lse);
    for (int64_t s = spans - 1; s >= 0; s--)
        for (int64_t h = 0; h < KV; h++)
            qsi_attend_part(k, &d->paged, &r, h, GROUP, 0.3f, s, parts, heads, spans, scratch);
    for (int64_t i = 0; i < n; i++)
        for (int64_t h = 0; h < heads; h++)
            qsi_attend_merge(k, d->z.hd_v, parts + (i * heads + h) * spans * size,
                             qsi_attend_spans(from + i), r.out + i * r.ldo + h * d->z.hd_v);
    qsi_free(parts);
    qsi_free(scratch);
}

/* Against double, with the error that sums of this length may have: 3e-5. In bfloat16 operands are
 * off by up to 2^-9 of themselves, by 0.8e-3 in the mean square. A score here is 0.3 times a sum of up
 * to 72 products of normal values, so it is off by 0.3 sqrt(72 * 2) 0.8e-3 = 2.9e-3, and so are the
 * weights, relatively; weights and values (largest 4) are rounded too, which is all for a row that
 * sees one position: 4 * 2^-9 = 7.8e-3. Allowed: four deviations of the first and the second. A query's
 * bytes are off by a 254th of the largest of 32, some 2.2, in the mean square by 5e-3: scores by
 * 0.3 sqrt(72) 5e-3 = 1.3e-2, of which 600 rows' weighted mean leaves less; allowed: four deviations. */
static void deep_check(const deep *d, int64_t i, int64_t h, const float *out, float lse) {
    const shape *z = &d->z;
    static double s[DEEP];
    int64_t g = h / GROUP;
    double m = -INFINITY, l = 0, most = 0, allowed = z->bytes ? 5e-2 : z->bf16 ? 2e-2 : 3e-5;
    for (int64_t j = 0; j <= i; j++) {
        s[j] = 0;
        for (int64_t c = 0; c < z->hd_k; c++)
            s[j] += 0.3 * (double)d->q[(i * KV * GROUP + h) * z->hd_k + c] *
                    (double)d->k[(j * KV + g) * z->hd_k + c];
        m = fmax(m, s[j]);
    }
    for (int64_t j = 0; j <= i; j++) l += exp(s[j] - m);
    for (int64_t c = 0; c < z->hd_v; c++) {
        double o = 0;
        for (int64_t j = 0; j <= i; j++)
            o += exp(s[j] - m) / l * (double)d->v[(j * KV + g) * z->hd_v + c];
        most = fmax(most, fabs(o - (double)out[c]));
    }
    if (!(most < allowed)) fail_msg("row %ld head %ld: off by %g", (long)i, (long)h, most);
    assert_true(fabs(m + log(l) - (double)lse) < allowed);
}

static void check_deep(const qsi_kern *k, shape z) {
    deep d;
    deep_init(&d, z);
    int64_t heads = KV * GROUP, no = DEEP * heads * z.hd_v;
    float *a = qsi_alloc((size_t)no, 4), *b = qsi_alloc((size_t)no, 4);
    float *la = qsi_alloc(DEEP * (size_t)heads, 4), *lb = qsi_alloc(DEEP * (size_t)heads, 4);
    deep_run(k, &d, &d.paged, QSI_ATTEND_TILE, a, la);
    for (int64_t i = 0; i < DEEP; i += 150)
        for (int64_t h = 0; h < heads; h++)
            deep_check(&d, i, h, a + (i * heads + h) * z.hd_v, la[i * heads + h]);
    /* other blocks of rows, spans apart: the same bits; rows instead of pages too, but for the
     * scales, which are multiplied at another place */
    deep_run(k, &d, &d.paged, 37, b, lb);
    assert_memory_equal(a, b, (size_t)no * 4);
    assert_memory_equal(la, lb, DEEP * (size_t)heads * 4);
    for (int64_t from = DEEP - 64; from < DEEP; from += 63) {
        memset(b, 0, (size_t)no * 4);
        deep_parts(k, &d, from, b, lb);
        size_t at = (size_t)(from * heads * z.hd_v);
        assert_memory_equal(a + at, b + at, ((size_t)no - at) * 4);
    }
    if (!qsi_kv_scaled(z.type) && !z.bf16 && !z.bytes) {
        deep_run(k, &d, &d.rows, 64, b, lb);
        assert_memory_equal(a, b, (size_t)no * 4);
    }
    qsi_free(a);
    qsi_free(b);
    qsi_free(la);
    qsi_free(lb);
    deep_release(&d);
}

/* Tiles of words as they come from floats: the bits of pages of bfloat16 values. */
static void check_words(const qsi_kern *k) {
    deep d;
    shape z = {QSI_F16, 40, 24, false, true};
    deep_init(&d, z);
    int64_t kw = qsi_kv_key_words(z.hd_k), vw = qsi_kv_value_words(z.hd_v);
    size_t no = DEEP * KV * GROUP * 24;
    float *a = qsi_alloc(no, 4), *b = qsi_alloc(no, 4), *l = qsi_alloc(DEEP * KV * GROUP, 4);
    uint16_t *w = qsi_alloc((size_t)(TILES * (kw + vw)), 2), *wv = w + TILES * kw;
    char *scratch = qsi_alloc(qsi_attend_scratch(GROUP, z.hd_k, z.hd_v), 1);
    deep_run(k, &d, &d.paged, 64, a, l);
    for (int64_t h = 0; h < KV; h++) {
        for (int64_t p = 0; p < DEEP; p += QSI_ATTEND_TILE) {
            int64_t n = qsi_min64(QSI_ATTEND_TILE, DEEP - p), j = p / QSI_ATTEND_TILE;
            k->attn16_turn(QSI_F32, n, z.hd_k, 0, d.k + (p * KV + h) * z.hd_k, KV * z.hd_k,
                           w + j * kw, NULL, 0);
            k->attn16_pair(QSI_F32, n, z.hd_v, d.v + (p * KV + h) * z.hd_v, KV * z.hd_v, NULL,
                           wv + j * vw, 32);
        }
        qsi_kv_view v = qsi_kv_words(w, z.hd_k, wv, z.hd_v, 0);
        for (int64_t at = 0; at < DEEP; at += 50) { /* one kv head at a time: its heads moved to 0 */
            qsi_attend_rows r = deep_rows(&d, at, qsi_min64(50, DEEP - at), b, l);
            r.q += h * GROUP * z.hd_k;
            r.out += h * GROUP * z.hd_v;
            r.lse = NULL;
            qsi_attend(k, &v, &r, 0, GROUP, 0.3f, scratch);
        }
    }
    assert_memory_equal(a, b, no * 4);
    qsi_free(w);
    qsi_free(scratch);
    qsi_free(a);
    qsi_free(b);
    qsi_free(l);
    deep_release(&d);
}

static void test_words(void **s) {
    (void)s;
    check_words(qsi_kern_get(QSI_ISA_REF));
    check_words(qsi_kern_get(qsi_cpu_isa()));
}

/* One span's rows alone, as keys made on the way are given. */
static void test_add(void **s) {
    (void)s;
    const qsi_kern *k = qsi_kern_get(qsi_cpu_isa());
    deep d;
    deep_init(&d, (shape){QSI_F32, 20, 12, false});
    size_t no = DEEP * KV * GROUP * 12;
    float *a = qsi_alloc(no, 4), *b = qsi_calloc(no, 4);
    float *l = qsi_alloc(DEEP * KV * GROUP, 4);
    char *scratch = qsi_alloc(qsi_attend_scratch(GROUP, 20, 12), 1);
    deep_run(k, &d, &d.rows, 50, a, l);
    int64_t from = 560, n = DEEP - from;
    qsi_attend_rows r = deep_rows(&d, from, n, b, l);
    qsi_attend_state *st = qsi_calloc((size_t)(n * GROUP), sizeof *st);
    for (int64_t j = 0; j < qsi_attend_spans(DEEP - 1); j++) {
        int64_t p = j * QSI_ATTEND_SPAN;
        qsi_kv_view v = qsi_kv_rows(d.k + p * KV * 20, KV * 20, 20, d.v + p * KV * 12, KV * 12, 12);
        v.pos0 = p;
        qsi_attend_add(k, &v, &r, 1, GROUP, 0.3f, j, st, scratch);
    }
    qsi_attend_end(k, 12, &r, 1, GROUP, st);
    for (int64_t i = from; i < DEEP; i++)
        assert_memory_equal(a + (i * KV + 1) * GROUP * 12, b + (i * KV + 1) * GROUP * 12,
                            GROUP * 12 * 4);
    qsi_free(st);
    qsi_free(scratch);
    qsi_free(a);
    qsi_free(b);
    qsi_free(l);
    deep_release(&d);
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
    static const shape z[] = {{QSI_F32, 12, 12, false}, {QSI_F16, 40, 24, false},
                              {QSI_Q8_0, 48, 40, false}, {QSI_F16, 40, 32, true},
                              {QSI_Q8_0, 72, 64, true},
                              {QSI_F16, 41, 24, false, true}, {QSI_Q8_0, 48, 40, false, false, true},
                              {QSI_Q8_0, 42, 65, false, false, true}, {QSI_F16, 40, 32, true, true},
                              {QSI_Q8_0, 72, 60, true, true, true},
                              {QSI_BF16, 40, 24, false}, {QSI_BF16, 41, 25, false},
                              {QSI_BF16, 40, 32, true}, {QSI_BF16, 40, 24, false, true},
                              {QSI_BF16, 41, 25, false, true}, {QSI_BF16, 72, 60, true, true},
                              {QSI_Q4_0, 48, 40, false}, {QSI_Q4_0, 72, 64, true},
                              {QSI_Q4_0, 42, 65, false, false, true},
                              {QSI_Q4_0, 72, 60, true, true, true}};
    for (size_t i = 0; i < QSI_COUNT(z); i++) {
        check_deep(qsi_kern_get(QSI_ISA_REF), z[i]);
        check_deep(qsi_kern_get(qsi_cpu_isa()), z[i]);
    }
}

static void test_backward(void **s) {
    (void)s;
    check_backward(qsi_kern_get(QSI_ISA_REF));
    check_backward(qsi_kern_get(qsi_cpu_isa()));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
