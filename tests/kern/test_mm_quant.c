/* Products of quantised weights of one level (argument 1). The level's bits must be those of ref; ref
 * itself is held against sums in double over what quant/ decodes. Blocks come from the encoder and
 * from random bytes with a sound scale, so that every code and scale is met.
 *
 * Bounds, with u = 2^-24: an integer product has four roundings a block (two products of scales, the
 * integer's own and the addition's; twice in types with a minimum) and one for each later block, each
 * at most u of the sum of magnitudes of what it adds up. With float activations two a value more. */
#include "kern_testing.h"

#define X(name) {QSI_##name, QSI_MM_##name},
static const struct {
    qsi_type type;
    qsi_mm kind;
} types[] = {QSI_MM_QUANT_LIST(X)};
#undef X

typedef struct problem {
    const qsi_type_info *ti;
    qsi_mm kind;
    int64_t m, n, k;
    char *a, *b, *packed, *ref_packed; /* guarded */
    size_t lda, row, a_bytes, b_bytes, packed_bytes, ref_bytes;
    int64_t panels, ref_panels;
} problem;

static bool exact(const problem *p) { return p->kind >= QSI_MM_QUANT + QSI_MM_N_QUANT; }

/* Scales of a block are halves near 1; all other bytes are free. */
static void set_scales(const qsi_type_info *ti, char *block, uint16_t d, uint16_t m) {
    if (ti->type == QSI_MXFP4) { /* a power of two instead */
        *block = (char)(d % 8 + 124);
        return;
    }
    size_t at = ti->type == QSI_Q6_K ? 208 : ti->type == QSI_Q3_K ? 108 : ti->type == QSI_Q2_K ? 80 : 0;
    memcpy(block + at, &d, 2);
    if (ti->type == QSI_Q4_1 || ti->type == QSI_Q5_1 || ti->type == QSI_Q2_K ||
        ti->type == QSI_Q4_K || ti->type == QSI_Q5_K)
        memcpy(block + at + 2, &m, 2);
}

static void fill_b(problem *p, bool raw) {
    assert_true(qsi_row_bytes(p->ti, p->k, &p->row));
    p->b_bytes = p->row * (size_t)p->n;
    p->b = guarded(p->b_bytes);
    float *x = malloc((size_t)p->k * 4);
    for (int64_t j = 0; j < p->n; j++) {
        char *row = p->b + (size_t)j * p->row;
        for (int64_t i = 0; i < p->k; i++) x[i] = random_value();
        if (!raw) {
            p->ti->encode(x, row, p->k);
            continue;
        }
        for (size_t i = 0; i < p->row; i++) row[i] = (char)qsi_rng_below(&rng, 256);
        for (size_t i = 0; i < p->row; i += (size_t)p->ti->bytes)
            set_scales(p->ti, row + i, qsi_f32_to_f16((float)qsi_rng_normal(&rng)),
                       qsi_f32_to_f16((float)qsi_rng_normal(&rng)));
    }
    free(x);
}

static void quantise(const problem *p, const float *x, char *row) {
    void *t = malloc(p->lda);
    if (exact(p))
        memcpy(t, x, p->lda);
    else if (p->ti->block == 256)
        kern->f32_to_actk(x, t, p->k);
    else
        kern->f32_to_act8(x, t, p->k);
    memcpy(row, t, p->lda); /* rows stand at any address */
    free(t);
}

static void fill_a(problem *p) {
    p->lda = exact(p) ? (size_t)p->k * 4
             : p->ti->block == 256 ? (size_t)(p->k / 256) * sizeof(qsi_actk)
                                   : (size_t)(p->k / 32) * sizeof(qsi_act8);
    p->a_bytes = p->lda * (size_t)p->m;
    p->a = guarded(p->a_bytes);
    float *x = malloc((size_t)p->k * 4);
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t kk = 0; kk < p->k; kk++) x[kk] = random_value();
        quantise(p, x, p->a + (size_t)i * p->lda);
    }
    free(x);
}

static void pack(problem *p) {
    const qsi_kern_mm *mm = &kern->mm[p->kind], *rm = &qsi_kern_get(QSI_ISA_REF)->mm[p->kind];
    int64_t half = p->panels / 2;
    /* in two calls, the later panels first: ranges are independent */
    mm->pack(p->b, (int64_t)p->row, 1, p->n, p->k, half, p->panels, p->packed);
    mm->pack(p->b, (int64_t)p->row, 1, p->n, p->k, 0, half, p->packed);
    rm->pack(p->b, (int64_t)p->row, 1, p->n, p->k, 0, p->ref_panels, p->ref_packed);
}

static void problem_open(problem *p, size_t type, bool x, int64_t m, int64_t n, int64_t k, bool raw) {
    *p = (problem){.ti = qsi_type_get(types[type].type), .m = m, .n = n, .k = k};
    p->kind = types[type].kind + (x ? QSI_MM_N_QUANT : 0);
    const qsi_kern_mm *mm = &kern->mm[p->kind], *rm = &qsi_kern_get(QSI_ISA_REF)->mm[p->kind];
    fill_a(p);
    fill_b(p, raw);
    p->panels = (n + mm->nr - 1) / mm->nr;
    p->ref_panels = (n + rm->nr - 1) / rm->nr;
    p->packed_bytes = (size_t)p->panels * mm->panel_bytes(k);
    p->ref_bytes = (size_t)p->ref_panels * rm->panel_bytes(k);
    assert_int_equal(mm->panel_bytes(k) % 64, 0);
    /* as large as the file but for missing columns and what fills up a line or two, and a second byte
     * for every exponent of MXFP4 */
    size_t more = p->ti->type == QSI_MXFP4 ? (size_t)(k / 32 * mm->nr) : 0;
    assert_true(mm->panel_bytes(k) < p->row * (size_t)mm->nr + more + 128);
    p->packed = guarded(p->packed_bytes);
    p->ref_packed = guarded(p->ref_bytes);
    memset(p->packed, 0xff, p->packed_bytes);
    pack(p);
}

static void problem_close(problem *p) {
    guarded_free(p->a, p->a_bytes);
    guarded_free(p->b, p->b_bytes);
    guarded_free(p->packed, p->packed_bytes);
    guarded_free(p->ref_packed, p->ref_bytes);
}

static void run(const problem *p, int64_t m, const char *a, float *c, int64_t ldc, bool add) {
    kern->mm[p->kind].run(m, p->n, p->k, 0, p->panels, a, p->lda, p->packed, c, ldc, add);
}

static void run_ref(const problem *p, float *c, int64_t ldc, bool add) {
    qsi_kern_get(QSI_ISA_REF)->mm[p->kind].run(p->m, p->n, p->k, 0, p->ref_panels, p->a, p->lda,
                                               p->ref_packed, c, ldc, add);
}

static void same(const problem *p, const float *c, const float *d, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&c[i], &d[i], 4) != 0 && !(isnan(c[i]) && isnan(d[i])))
            fail_msg("%s%s m %d n %d k %d, %s: element %zu is %.9g, not %.9g", p->ti->name,
                     exact(p) ? " exact" : "", (int)p->m, (int)p->n, (int)p->k, what, i, c[i], d[i]);
}

static void check_values(const problem *p) {
    int64_t ldc = p->n + 3;
    size_t count = (size_t)((p->m - 1) * ldc + p->n);
    float *c = guarded(count * 4), *d = guarded(count * 4);
    for (size_t i = 0; i < count; i++) c[i] = d[i] = 777.0f;
    run(p, p->m, p->a, c, ldc, false);
    run_ref(p, d, ldc, false);
    same(p, c, d, count, "against ref");
    run(p, p->m, p->a, c, ldc, true);
    run_ref(p, d, ldc, true);
    same(p, c, d, count, "accumulating");
    floats_free(c, count);
    floats_free(d, count);
}

/* The same bits for one row at a time, one panel at a time, the last rows alone. */
static void check_invariance(const problem *p) {
    size_t count = (size_t)(p->m * p->n);
    float *c = guarded(count * 4), *d = guarded(count * 4);
    run(p, p->m, p->a, c, p->n, false);
    for (int64_t i = 0; i < p->m; i++)
        run(p, 1, p->a + (size_t)i * p->lda, d + i * p->n, p->n, false);
    same(p, d, c, count, "row by row");
    memset(d, 0, count * 4);
    for (int64_t q = p->panels - 1; q >= 0; q--)
        kern->mm[p->kind].run(p->m, p->n, p->k, q, q + 1, p->a, p->lda, p->packed, d, p->n, false);
    same(p, d, c, count, "panel by panel");
    if (p->m > 2) {
        run(p, p->m - 2, p->a + 2 * p->lda, d + 2 * p->n, p->n, false);
        same(p, d, c, count, "fewer rows");
    }
    floats_free(c, count);
    floats_free(d, count);
}

static void act_value(const problem *p, const char *row, float *x) {
    for (int64_t i = 0; i < p->k; i++) {
        if (exact(p)) {
            memcpy(&x[i], row + i * 4, 4);
        } else if (p->ti->block == 256) {
            qsi_actk b;
            memcpy(&b, row + (size_t)(i / 256) * sizeof b, sizeof b);
            x[i] = (float)b.qs[i % 256] * b.d;
        } else {
            qsi_act8 b;
            memcpy(&b, row + (size_t)(i / 32) * sizeof b, sizeof b);
            x[i] = (float)b.qs[i % 32] * b.d;
        }
    }
}

/* Ref against what the blocks decode to, in double. Decoding rounds d * sc, and in K types the
 * product and the difference; act_value rounds qs * d. */
static void check_meaning(const problem *p) {
    float *c = guarded((size_t)(p->m * p->n) * 4), *x = malloc((size_t)p->k * 4);
    float *w = malloc((size_t)p->k * 4);
    run_ref(p, c, p->n, false);
    for (int64_t j = 0; j < p->n; j++) {
        p->ti->decode(p->b + (size_t)j * p->row, w, p->k);
        for (int64_t i = 0; i < p->m; i++) {
            act_value(p, p->a + (size_t)i * p->lda, x);
            double sum = 0, mag = 0, top = 0;
            for (int64_t e = 0; e < p->k; e++) {
                sum += (double)x[e] * w[e];
                mag += fabs((double)x[e] * w[e]);
            }
            /* A minimum may cancel what is above it. Groups hold codes near both ends of their
             * range here, so both are at most twice the largest weight. */
            for (int64_t e = 0; e < p->k; e++) top += fabs((double)x[e]);
            float scale = 0;
            for (int64_t e = 0; e < p->k; e++) scale = fmaxf(scale, fabsf(w[e]));
            mag += top * (double)scale * 4;
            double ops = (exact(p) ? (double)p->k : 2.0 * (double)(p->k / p->ti->block)) + 12;
            if (!(fabs(c[i * p->n + j] - sum) <= ops * U * mag))
                fail_msg("%s%s: C[%d][%d] is %.9g, not %.9g +- %.3g", p->ti->name,
                         exact(p) ? " exact" : "", (int)i, (int)j, c[i * p->n + j], sum,
                         ops * U * mag);
        }
    }
    floats_free(c, (size_t)(p->m * p->n));
    free(x);
    free(w);
}

static void one(size_t type, bool x, int64_t m, int64_t n, int64_t k, bool raw) {
    problem p;
    problem_open(&p, type, x, m, n, k, raw);
    check_values(&p);
    check_invariance(&p);
    if (kern->isa == QSI_ISA_REF) check_meaning(&p);
    problem_close(&p);
}

static void products(bool x) {
    static const int64_t ms[] = {1, 2, 3, 4, 5, 6, 7, 13, 16, 29, 35}, ns[] = {1, 15, 31, 33, 50};
    static const int64_t ks[] = {1, 3, 8, 9, 17};
    for (size_t t = 0; t < QSI_COUNT(types); t++) {
        bool k256 = qsi_type_get(types[t].type)->block == 256;
        for (size_t j = 0; j < QSI_COUNT(ns); j++) {
            int64_t k = k256 ? ks[j % 3] * 256 : ks[j] * 32;
            one(t, x, ms[(t + j) % QSI_COUNT(ms)], ns[j], k, j % 2 != 0);
        }
        for (int64_t m = 2; m <= 4 && !x; m++) one(t, x, m, 33, 512, true); /* codes in registers */
        one(t, x, 101, 9, 256, true); /* more rows than a pass holds */
#ifdef QSI_EMULATED
        for (int64_t m = 15; m <= 17 && !x; m += 2) one(t, x, m, 34, 512, true); /* about a tile */
        if (!x && t % 5 == 0) one(t, x, 260, 9, 256, true);
#endif
    }
}

static void test_quantised(void **state) { products(false); }
static void test_exact(void **state) { products(true); }

/* Largest codes, scales and activations everywhere: nothing saturates or overflows. */
static void test_extremes(void **state) {
    for (size_t t = 0; t < QSI_COUNT(types); t++)
        for (int pattern = 0; pattern < 8; pattern++) {
            problem p;
            problem_open(&p, t, false, 3, 17, 512, false);
            float *x = malloc((size_t)p.k * 4);
            for (int64_t i = 0; i < p.k; i++) x[i] = pattern & 1 ? -127.0f : 127.0f;
            for (int64_t i = 0; i < p.m; i++) quantise(&p, x, p.a + (size_t)i * p.lda);
            free(x);
            /* bytes all the same (0x80 and 0x7f matter to signed ones), or alternating */
            static const int fills[4] = {0x00, 0xff, 0x80, 0x7f};
            memset(p.b, fills[pattern / 2], p.b_bytes);
            for (size_t i = 0; i < p.b_bytes; i += (size_t)p.ti->bytes)
                set_scales(p.ti, p.b + i, 0x3c00, 0x3c00);
            pack(&p);
            check_values(&p);
            check_invariance(&p);
            if (kern->isa == QSI_ISA_REF) check_meaning(&p);
            problem_close(&p);
        }
}

/* NaN and infinity reach exactly the elements they touch: a row of A, a column of B (a scale of MXFP4,
 * a power of two, is always a number). */
static void test_not_finite(void **state) {
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t t = 0; t < QSI_COUNT(types); t++)
        for (size_t b = 0; b < 2 * QSI_COUNT(bad); b++) {
            problem p;
            problem_open(&p, t, b % 2 != 0, 8, 40, 512, false);
            float x[512] = {0}, *c = guarded(8 * 40 * 4);
            x[300] = bad[b / 2];
            quantise(&p, x, p.a + p.lda);
            bool column = p.ti->type != QSI_MXFP4;
            if (column) set_scales(p.ti, p.b + 7 * p.row, qsi_f32_to_f16(bad[b / 2]), 0);
            pack(&p);
            run(&p, p.m, p.a, c, p.n, false);
            for (int64_t i = 0; i < p.m; i++)
                for (int64_t j = 0; j < p.n; j++)
                    assert_int_equal(!isfinite(c[i * p.n + j]), i == 1 || (column && j == 7));
            floats_free(c, 8 * 40);
            problem_close(&p);
        }
}

int main(int argc, char **argv) {
    int rc = level_from_args(argc, argv);
    if (rc != 0) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantised),
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
