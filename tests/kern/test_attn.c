/* Attention over tiles against sums in double: every type, numbers of rows and positions, tails,
 * memory that ends at an unreadable page; and the bits of a row whatever stands beside it. */
#include "kern_testing.h"

enum { T = QSI_ATTN_TILE };

typedef struct tile {
    qsi_type type;
    int64_t n, d, ld;  /* rows of ld elements: turned: d of 64; else n */
    size_t bytes, scale_bytes;
    void *data;
    uint16_t *scale;   /* NULL but for Q8_0 and Q4_0 */
    bool turned;
    double *value;     /* [64][d] */
} tile;

static bool scaled(qsi_type t) { return t == QSI_Q8_0 || t == QSI_Q4_0; }

/* Nibbles: eight rows' in a word of turned keys, else those of four rows and columns c, c + 16. */
static double nibble(const tile *t, int64_t ld, int64_t r, int64_t c) {
    int64_t word = t->turned ? r / 8 * T + c : (r / 4 * (ld / 32) + c / 32) * 16 + c % 16;
    bool high = t->turned ? r % 8 >= 4 : c % 32 >= 16;
    int byte = ((const uint8_t *)t->data)[word * 4 + r % 4];
    return (high ? byte / 16 : byte % 16) - 8;
}

/* Elements from row to row, at least n: nibbles come in whole blocks. */
static int64_t ld_of(qsi_type t, int64_t n) { return t == QSI_Q4_0 ? (n + 31) / 32 * 32 : n; }

/* Element c of row r; rows are ld apart, bytes four rows side by side, bfloat16 two. */
static double element(const tile *t, int64_t ld, int64_t r, int64_t c) {
    if (t->type == QSI_Q4_0) return nibble(t, ld, r, c);
    if (t->type == QSI_Q8_0) return ((const int8_t *)t->data)[(r / 4 * ld + c) * 4 + r % 4];
    if (t->type == QSI_BF16)
        return (double)qsi_bf16_to_f32(((const uint16_t *)t->data)[(r / 2 * ld + c) * 2 + r % 2]);
    if (t->type == QSI_F16) return (double)qsi_f16_to_f32(((const uint16_t *)t->data)[r * ld + c]);
    return (double)((const float *)t->data)[r * ld + c];
}

static tile make(qsi_type type, bool turned, int64_t n, int64_t d, int64_t ld) {
    tile t = {.type = type, .n = n, .d = d, .ld = ld, .turned = turned};
    int64_t rows = turned ? d : n, cols = turned ? T : d;
    if (turned) ld = T;
    size_t count = (size_t)((rows - 1) * ld + cols);
    if (type == QSI_Q8_0) count = (size_t)(((rows + 3) / 4 - 1) * ld + cols) * 4;
    if (type == QSI_BF16) count = (size_t)(((rows + 1) / 2 - 1) * ld + cols) * 2;
    if (type == QSI_Q4_0) count = (size_t)(turned ? (d + 7) / 8 * T : (n + 3) / 4 * (ld / 2)) * 4;
    size_t size = type == QSI_F32 ? 4 : scaled(type) ? 1 : 2;
    t.bytes = count * size;
    t.data = guarded(t.bytes);
    for (size_t i = 0; i < count; i++) {
        float x = random_value();
        if (type == QSI_F32) ((float *)t.data)[i] = x;
        if (type == QSI_F16) ((uint16_t *)t.data)[i] = qsi_f32_to_f16(x);
        if (type == QSI_BF16) { /* no row is there: of keys zero, of values no number */
            bool there = (int64_t)i / 2 / ld * 2 + (int64_t)i % 2 < rows;
            ((uint16_t *)t.data)[i] = there ? qsi_f32_to_bf16(x) : turned ? 0 : 0xffff;
        }
        if (type == QSI_Q4_0) ((uint8_t *)t.data)[i] = (uint8_t)qsi_rng_below(&rng, 256);
        if (type == QSI_Q8_0)
            ((int8_t *)t.data)[i] = (int8_t)((int)qsi_rng_below(&rng, 255) - 127);
    }
    if (scaled(type)) {
        size_t nb = (size_t)((d + 31) / 32);
        t.scale_bytes = nb * T * 2;
        t.scale = guarded(t.scale_bytes);
        for (size_t i = 0; i < nb * T; i++)
            t.scale[i] = qsi_f32_to_f16(
                0.02f * (type == QSI_Q4_0 ? random_value() : fabsf(random_value())));
    }
    t.value = calloc((size_t)(T * d), sizeof *t.value);
    for (int64_t p = 0; p < (turned ? T : n); p++)
        for (int64_t i = 0; i < d; i++) {
            double s = t.scale ? (double)qsi_f16_to_f32(t.scale[i / 32 * T + p]) : 1.0;
            t.value[p * d + i] = s * (turned ? element(&t, ld, i, p) : element(&t, ld, p, i));
        }
    return t;
}

static void drop(tile *t) {
    guarded_free(t->data, t->bytes);
    if (t->scale) guarded_free(t->scale, t->scale_bytes);
    free(t->value);
}

static void near_sum(float got, double want, double mag, int64_t terms, const char *what) {
    double off = fabs((double)got - want), most = (double)(terms + 4) * U * mag + TINY * 1e3;
    if (!(off <= most))
        fail_msg("%s: %.9g, want %.17g (off by %.3g of %.3g)", what, (double)got, want, off, most);
}

static void qk_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    int64_t ldq = d + 3, lds = T + 5;
    size_t nq = (size_t)((m - 1) * ldq + d), ns = (size_t)((m - 1) * lds + T);
    float *q = random_floats(nq), *s = guarded(ns * 4), alone[T];
    tile t = make(type, true, T, d, 0);
    kern->attn_qk(type, m, n, d, q, ldq, t.data, t.scale, s, lds);
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < n; p++) {
            double sum = 0, mag = 0;
            for (int64_t c = 0; c < d; c++) {
                sum += (double)q[i * ldq + c] * t.value[p * d + c];
                mag += fabs((double)q[i * ldq + c] * t.value[p * d + c]);
            }
            near_sum(s[i * lds + p], sum, mag, d, "qk");
        }
    for (int64_t i = 0; i < m; i++) { /* alone, and with all positions */
        kern->attn_qk(type, 1, T, d, q + i * ldq, ldq, t.data, t.scale, alone, T);
        assert_memory_equal(alone, s + i * lds, (size_t)n * 4);
    }
    drop(&t);
    floats_free(q, nq);
    guarded_free(s, ns * 4);
}

static void pv_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    int64_t ldw = T + 1, ldo = d + 2, ldv = ld_of(type, d + 5);
    size_t nw = (size_t)((m - 1) * ldw + n), no = (size_t)((m - 1) * ldo + d);
    float *w = random_floats(nw), *o = random_floats(no);
    float *o0 = malloc(no * 4), *one = malloc((size_t)d * 4);
    tile t = make(type, false, n, d, ldv);
    memcpy(o0, o, no * 4);
    kern->attn_pv(type, m, n, d, w, ldw, t.data, ldv, t.scale, o, ldo);
    for (int64_t i = 0; i < m; i++)
        for (int64_t c = 0; c < d; c++) {
            double sum = (double)o0[i * ldo + c], mag = fabs(sum);
            for (int64_t p = 0; p < n; p++) {
                sum += (double)w[i * ldw + p] * t.value[p * d + c];
                mag += fabs((double)w[i * ldw + p] * t.value[p * d + c]);
            }
            near_sum(o[i * ldo + c], sum, mag, n, "pv");
        }
    for (int64_t i = 0; i < m; i++) {
        memcpy(one, o0 + i * ldo, (size_t)d * 4);
        kern->attn_pv(type, 1, n, d, w + i * ldw, ldw, t.data, ldv, t.scale, one, d);
        assert_memory_equal(one, o + i * ldo, (size_t)d * 4);
    }
    drop(&t);
    free(o0);
    free(one);
    floats_free(w, nw);
    floats_free(o, no);
}

static const qsi_type types[] = {QSI_F32, QSI_F16, QSI_BF16, QSI_Q8_0, QSI_Q4_0};
static const int64_t ms[] = {1, 2, 3, 7, 10, 13, 16, 31}, ns[] = {1, 17, 32, 33, 63, 64};
static const int64_t ds[] = {1, 8, 12, 33, 64, 96, 128, 130, 192};

static void test_qk(void **state) {
    for (size_t a = 0; a < QSI_COUNT(ds); a++)
        for (size_t b = 0; b < QSI_COUNT(ms); b++)
            for (size_t t = 0; t < QSI_COUNT(types); t++)
                qk_case(types[t], ms[b], ns[(a + b + t) % QSI_COUNT(ns)], ds[a]);
}

static void test_pv(void **state) {
    for (size_t a = 0; a < QSI_COUNT(ds); a++)
        for (size_t b = 0; b < QSI_COUNT(ms); b++)
            for (size_t t = 0; t < QSI_COUNT(types); t++)
                pv_case(types[t], ms[b], ns[(a + b + t) % QSI_COUNT(ns)], ds[a]);
}

/* Two runs of positions add up to the bits of one. */
static void test_runs(void **state) {
    float o[2][40] = {{0}}, *w = random_floats(T);
    for (size_t t = 0; t < QSI_COUNT(types); t++) {
        int64_t ld = ld_of(types[t], 40);
        tile v = make(types[t], false, T, 40, ld);
        memset(o, 0, sizeof o);
        kern->attn_pv(types[t], 1, T, 40, w, T, v.data, ld, v.scale, o[0], 40);
        if (!scaled(types[t])) {
            size_t size = types[t] == QSI_F32 ? 4 : 2;
            kern->attn_pv(types[t], 1, 26, 40, w, T, v.data, 40, NULL, o[1], 40);
            kern->attn_pv(types[t], 1, T - 26, 40, w + 26, T, (char *)v.data + 26 * 40 * size, 40,
                          NULL, o[1], 40);
            assert_memory_equal(o[0], o[1], sizeof o[0]);
        }
        drop(&v);
    }
    floats_free(w, T);
}

/* Natural keys turned give the scores of turned ones, with and without scales. */
static void test_turn(void **state) {
    for (size_t t = 0; t < QSI_COUNT(types); t++)
        for (int64_t d = 1; d < 80; d += 13)
            for (int64_t n = 1; n <= T; n += 21) {
                size_t count = (size_t)(d * T);
                int64_t ld = ld_of(types[t], d + 3);
                tile k = make(types[t], false, n, d, ld);
                float *kt = guarded(count * 4);
                kern->attn_turn(types[t], n, d, k.data, ld, kt);
                for (int64_t p = 0; p < T; p++)
                    for (int64_t i = 0; i < d; i++) {
                        double want = p < n ? element(&k, ld, p, i) : 0.0;
                        assert_true((double)kt[i * T + p] == want);
                    }
                drop(&k);
                guarded_free(kt, count * 4);
            }
    tile k = make(QSI_Q8_0, true, T, 70, 0);
    float *q = random_floats(70 * 3), kt[70 * T], s[2][3 * T];
    for (int64_t i = 0; i < 70 * T; i++) kt[i] = (float)element(&k, T, i / T, i % T);
    kern->attn_qk(QSI_Q8_0, 3, T, 70, q, 70, k.data, k.scale, s[0], T);
    kern->attn_qk(QSI_F32, 3, T, 70, q, 70, kt, k.scale, s[1], T);
    assert_memory_equal(s[0], s[1], sizeof s[0]);
    floats_free(q, 70 * 3);
    drop(&k);
}

/* ---- in bfloat16 ---- */
static double narrow(double x) { return (double)qsi_bf16_to_f32(qsi_f32_to_bf16((float)x)); }

static uint16_t *narrow_rows(const float *x, int64_t m, int64_t d, int64_t ld) {
    uint16_t *y = guarded((size_t)(m * ld) * 2);
    memset(y, 0, (size_t)(m * ld) * 2);
    for (int64_t i = 0; i < m; i++)
        for (int64_t c = 0; c < d; c++) y[i * ld + c] = qsi_f32_to_bf16(x[i * d + c]);
    return y;
}

/* Words of a tile's n rows of `cols` elements, ld apart. */
static uint16_t *pairs(const tile *t, int64_t n, int64_t cols, int64_t ld, int64_t ldy,
                       size_t *bytes) {
    if (t->type == QSI_BF16) return t->data; /* it is in words */
    *bytes = (size_t)((n + 1) / 2 * ldy) * 4;
    uint16_t *y = guarded(*bytes);
    kern->attn16_pair(t->type, n, cols, t->data, ld, t->scale, y, ldy);
    for (int64_t r = 0; r < (n + 1) / 2 * 2; r++)
        for (int64_t c = 0; c < cols; c++) {
            double s = t->scale && r < n ? (double)qsi_f16_to_f32(t->scale[c / 32 * T + r]) : 1.0;
            double want = r < n ? narrow(s * element(t, ld, r, c)) : 0.0;
            uint16_t got = y[(r / 2 * ldy + c) * 2 + r % 2];
            assert_true((double)qsi_bf16_to_f32(got) == want);
        }
    return y;
}

static void qk16_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    int64_t ldq = (d + 1) / 2 * 2, lds = T + 5;
    size_t n_s = (size_t)((m - 1) * lds + T), nw = 0;
    float *q = random_floats((size_t)(m * d)), *s = guarded(n_s * 4), alone[3 * T];
    uint16_t *q16 = narrow_rows(q, m, d, ldq);
    tile t = make(type, true, T, d, 0);
    uint16_t *w = pairs(&t, d, T, T, T, &nw);
    qsi_ahead ahead = {(const char *)w, (const char *)w + 4096}; /* addresses alone */
    kern->attn16_qk(QSI_BF16, m, n, d, q16, ldq, w, s, lds, m % 2 ? &ahead : NULL);
    for (int64_t i = 0; i < m; i++)
        for (int64_t p = 0; p < n; p++) {
            double sum = 0, mag = 0;
            for (int64_t c = 0; c < d; c++) {
                double k = narrow(element(&t, T, c, p)) * narrow((double)q[i * d + c]);
                sum += k;
                mag += fabs(k);
            }
            near_sum(s[i * lds + p], sum, mag, d, "qk16");
        }
    for (int64_t i = 0; i < m; i++) { /* alone; and few from the cache's own tile */
        kern->attn16_qk(QSI_BF16, 1, T, d, q16 + i * ldq, ldq, w, alone, T, NULL);
        assert_memory_equal(alone, s + i * lds, (size_t)n * 4);
        if (type != QSI_F16) continue;
        int64_t few = m - i < 3 ? m - i : 3;
        kern->attn16_qk(type, few, n, d, q16 + i * ldq, ldq, t.data, alone, T, NULL);
        for (int64_t j = 0; j < few; j++)
            assert_memory_equal(alone + j * T, s + (i + j) * lds, (size_t)n * 4);
    }
    if (w != t.data) guarded_free(w, nw);
    drop(&t);
    guarded_free(q16, (size_t)(m * ldq) * 2);
    floats_free(q, (size_t)(m * d));
    guarded_free(s, n_s * 4);
}

static void pv16_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    int64_t ldw = T + 1, ldo = d + 2, ldv = ld_of(type, d + 5);
    int64_t ldy = type == QSI_BF16 ? ldv : (d + 15) / 16 * 16;
    size_t nw = (size_t)((m - 1) * ldw + n), no = (size_t)((m - 1) * ldo + d), ny = 0;
    float *w = random_floats(nw), *o = random_floats(no);
    float *o0 = malloc(no * 4), *few = malloc((size_t)(3 * d) * 4);
    tile t = make(type, false, n, d, ldv);
    uint16_t *y = pairs(&t, n, d, ldv, ldy, &ny);
    memcpy(o0, o, no * 4);
    kern->attn16_pv(QSI_BF16, m, n, d, w, ldw, y, ldy, o, ldo, NULL);
    for (int64_t i = 0; i < m; i++)
        for (int64_t c = 0; c < d; c++) {
            double sum = (double)o0[i * ldo + c], mag = fabs(sum);
            for (int64_t p = 0; p < n; p++) {
                double x = narrow((double)w[i * ldw + p]) * narrow(t.value[p * d + c]);
                sum += x;
                mag += fabs(x);
            }
            near_sum(o[i * ldo + c], sum, mag, n, "pv16");
        }
    for (int64_t i = 0; i < m && type == QSI_F16; i++) {
        int64_t rows = m - i < 3 ? m - i : 3;
        for (int64_t j = 0; j < rows; j++)
            memcpy(few + j * d, o0 + (i + j) * ldo, (size_t)d * 4);
        kern->attn16_pv(type, rows, n, d, w + i * ldw, ldw, t.data, ldv, few, d, NULL);
        for (int64_t j = 0; j < rows; j++)
            assert_memory_equal(few + j * d, o + (i + j) * ldo, (size_t)d * 4);
    }
    if (y != t.data) guarded_free(y, ny);
    drop(&t);
    free(o0);
    free(few);
    floats_free(w, nw);
    floats_free(o, no);
}

static void test_qk16(void **state) {
    for (size_t a = 0; a < QSI_COUNT(ds); a++)
        for (size_t b = 0; b < QSI_COUNT(ms); b++)
            for (size_t t = 0; t < 3; t++)
                qk16_case(types[t], ms[b], ns[(a + b + t) % QSI_COUNT(ns)], ds[a]);
}

static void test_pv16(void **state) {
    for (size_t a = 0; a < QSI_COUNT(ds); a++)
        for (size_t b = 0; b < QSI_COUNT(ms); b++)
            for (size_t t = 0; t < QSI_COUNT(types); t++)
                pv16_case(types[t], ms[b], ns[(a + b + t) % QSI_COUNT(ns)], ds[a]);
}

/* Keys turned and their first elements as values. */
static void turn16_case(qsi_type type, int64_t n, int64_t d, int64_t dv) {
    int64_t ld = d + 3, ldv = (dv + 15) / 16 * 16;
    size_t nk = (size_t)((d + 1) / 2 * T) * 4, nv = (size_t)(T / 2 * ldv) * 4;
    tile k = make(type, false, n, d, ld);
    uint16_t *kt = guarded(nk), *v = guarded(nv);
    kern->attn16_turn(type, n, d, dv, k.data, ld, kt, dv ? v : NULL, ldv);
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < (d + 1) / 2 * 2; i++) {
            float x = i < d ? (float)element(&k, ld, p, i) : 0.0f;
            uint16_t want = qsi_f32_to_bf16(x);
            assert_int_equal(kt[(i / 2 * T + p) * 2 + i % 2], want);
            if (i < dv) assert_int_equal(v[(p / 2 * ldv + i) * 2 + p % 2], want);
        }
    for (int64_t i = 0; i < dv && n % 2 && type != QSI_BF16; i++)
        assert_int_equal(v[(n / 2 * ldv + i) * 2 + 1], 0);
    drop(&k);
    guarded_free(kt, nk);
    guarded_free(v, nv);
}

static void test_turn16(void **state) {
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < QSI_COUNT(ds); i++)
            for (size_t j = 0; j < QSI_COUNT(ns); j++)
                turn16_case(types[t], ns[j], ds[i], j % 3 ? ds[i] * 2 / 3 : 0);
}

/* The order of sums is the one stated: ref's bits. */
static void test_order16(void **state) {
    const qsi_kern *ref = qsi_kern_get(QSI_ISA_REF);
    enum { D = 96, M = 5 };
    uint16_t q[M * D];
    float s[2][M * T], o[2][M * D], w[M * T];
    {
        tile k = make(QSI_F16, true, T, D, 0), v = make(QSI_F16, false, T, D, D);
        for (int64_t i = 0; i < M * D; i++) q[i] = qsi_f32_to_bf16((float)qsi_rng_normal(&rng));
        for (int64_t i = 0; i < M * T; i++) w[i] = fabsf((float)qsi_rng_normal(&rng));
        memset(o, 0, sizeof o);
        for (int i = 0; i < 2; i++) {
            const qsi_kern *x = i ? ref : kern;
            x->attn16_qk(QSI_F16, M, T, D, q, D, k.data, s[i], T, NULL);
            x->attn16_pv(QSI_F16, M, T, D, w, T, v.data, D, o[i], D, NULL);
        }
        assert_memory_equal(s[0], s[1], sizeof s[0]);
        assert_memory_equal(o[0], o[1], sizeof o[0]);
        drop(&k);
        drop(&v);
    }
}

/* ---- in integers ---- */
static qsi_act8 *byte_rows(const float *x, int64_t m, int64_t d, int64_t ld) {
    qsi_act8 *y = guarded((size_t)(m * ld) * sizeof *y);
    for (int64_t i = 0; i < m; i++)
        for (int64_t b = 0; b < ld; b++) {
            float some[32] = {0};
            for (int64_t c = 0; c < 32 && 32 * b + c < d; c++) some[c] = x[i * d + 32 * b + c];
            kern->f32_to_act8(some, &y[i * ld + b], 32);
        }
    return y;
}

/* Against double, and the bits of ref, alone too. */
static void qk8_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    const qsi_kern *ref = qsi_kern_get(QSI_ISA_REF);
    int64_t ldq = (d + 31) / 32, lds = T + 5;
    size_t n_s = (size_t)((m - 1) * lds + T);
    float *q = random_floats((size_t)(m * d)), *s = guarded(n_s * 4), want[T];
    qsi_act8 *q8 = byte_rows(q, m, d, ldq);
    tile t = make(type, true, T, d, 0);
    qsi_ahead ahead = {t.data, (const char *)t.data + t.bytes};
    kern->attn8_qk(type, m, n, d, q8, ldq, t.data, t.scale, s, lds, m % 2 ? &ahead : NULL);
    for (int64_t i = 0; i < m; i++) {
        ref->attn8_qk(type, 1, T, d, q8 + i * ldq, ldq, t.data, t.scale, want, T, NULL);
        assert_memory_equal(want, s + i * lds, (size_t)n * 4);
        kern->attn8_qk(type, 1, n, d, q8 + i * ldq, ldq, t.data, t.scale, want, T, NULL);
        assert_memory_equal(want, s + i * lds, (size_t)n * 4);
        for (int64_t p = 0; p < n; p++) {
            double sum = 0, mag = 0;
            for (int64_t c = 0; c < d; c++) {
                const qsi_act8 *b = &q8[i * ldq + c / 32];
                double x = (double)b->d * b->qs[c % 32] * t.value[p * d + c];
                sum += x;
                mag += fabs(x);
            }
            near_sum(s[i * lds + p], sum, mag, d, "qk8");
        }
    }
    drop(&t);
    guarded_free(q8, (size_t)(m * ldq) * sizeof *q8);
    floats_free(q, (size_t)(m * d));
    guarded_free(s, n_s * 4);
}

/* Weights of softmax: at most 1, some tiny or zero. A weight is off by half a unit of 1/65535 of
 * the largest of its tile, times its scale. */
static void pv8_case(qsi_type type, int64_t m, int64_t n, int64_t d) {
    const qsi_kern *ref = qsi_kern_get(QSI_ISA_REF);
    int64_t ldw = T + 1, ldo = d + 2, ldv = ld_of(type, d + 5);
    size_t nw = (size_t)((m - 1) * ldw + n), no = (size_t)((m - 1) * ldo + d);
    float *w = random_floats(nw), *o = random_floats(no);
    float *o0 = malloc(no * 4), *want = malloc((size_t)d * 4);
    tile t = make(type, false, n, d, ldv);
    for (size_t i = 0; i < nw; i++) w[i] = expf(-fabsf(w[i]));
    for (int64_t p = 0; p < n && m > 2; p++) w[2 * ldw + p] = 0.0f;
    for (int64_t p = 0; p < n && m > 3; p++) w[3 * ldw + p] *= 1e-29f;
    memcpy(o0, o, no * 4);
    kern->attn8_pv(type, m, n, d, w, ldw, t.data, ldv, t.scale, o, ldo);
    for (int64_t i = 0; i < m; i++) {
        memcpy(want, o0 + i * ldo, (size_t)d * 4);
        ref->attn8_pv(type, 1, n, d, w + i * ldw, ldw, t.data, ldv, t.scale, want, d);
        assert_memory_equal(want, o + i * ldo, (size_t)d * 4);
        for (int64_t c = 0; c < d; c++) {
            double sum = (double)o0[i * ldo + c], mag = fabs(sum), top = 0, codes = 0;
            for (int64_t p = 0; p < n; p++) {
                double k = (double)qsi_f16_to_f32(t.scale[c / 32 * T + p]);
                double x = (double)w[i * ldw + p] * t.value[p * d + c];
                sum += x;
                mag += fabs(x);
                top = fmax(top, fabs((double)w[i * ldw + p] * k));
                codes += fabs(element(&t, ldv, p, c));
            }
            double most = codes * top * 0.51 / (double)QSI_ATTN_UNITS(type) +
                          127e-30 * (double)n + (double)(n + 4) * U * mag;
            double off = fabs((double)o[i * ldo + c] - sum);
            if (!(off <= most)) fail_msg("pv8: off by %.3g of %.3g", off, most);
        }
    }
    drop(&t);
    free(o0);
    free(want);
    floats_free(w, nw);
    floats_free(o, no);
}

static void turn8_case(qsi_type type, int64_t n, int64_t d) {
    int64_t ld = ld_of(type, d + 3);
    size_t bytes = (size_t)((d + 3) / 4 * 4 * T);
    tile k = make(type, false, n, d, ld);
    tile kt = {.type = QSI_Q8_0, .data = guarded(bytes)};
    kern->attn8_turn(type, n, d, k.data, ld, kt.data);
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < (d + 3) / 4 * 4; i++)
            assert_true(element(&kt, T, i, p) == (i < d ? element(&k, ld, p, i) : 0.0));
    drop(&k);
    guarded_free(kt.data, bytes);
}

static void check_bytes(qsi_type type) {
    static const int64_t more[] = {1, 8, 12, 33, 64, 96, 128, 130, 192, 300, 576};
    for (size_t a = 0; a < QSI_COUNT(more); a++) {
        for (size_t b = 0; b < QSI_COUNT(ms); b++) {
            qk8_case(type, ms[b], ns[(a + b) % QSI_COUNT(ns)], more[a]);
            pv8_case(type, ms[b], ns[(a + b) % QSI_COUNT(ns)], more[a]);
        }
        for (size_t j = 0; j < QSI_COUNT(ns); j++) turn8_case(type, ns[j], more[a]);
    }
}

static void test_bytes(void **state) { check_bytes(QSI_Q8_0); }
static void test_nibbles(void **state) { check_bytes(QSI_Q4_0); }

/* A weight or a scale that is no number reaches the columns of its block, and no others. */
static void test_bytes_not_finite(void **state) {
    static int8_t v[T * 64];
    uint16_t scale[2 * T];
    float w[T], o[64] = {0};
    for (int i = 0; i < T; i++) w[i] = 1.0f;
    for (int i = 0; i < 2 * T; i++) scale[i] = 0x3c00;
    scale[T + 9] = 0x7e00;
    kern->attn8_pv(QSI_Q8_0, 1, T, 64, w, T, v, 64, scale, o, 64);
    for (int c = 0; c < 64; c++) assert_int_equal(isnan(o[c]) != 0, c >= 32);
    scale[T + 9] = 0x3c00;
    memset(o, 0, sizeof o);
    w[5] = NAN;
    kern->attn8_pv(QSI_Q8_0, 1, T, 64, w, T, v, 64, scale, o, 64);
    for (int c = 0; c < 64; c++) assert_true(isnan(o[c]));
}

/* NaN and infinity come through. */
static void test_not_finite(void **state) {
    static float q[2 * 32], kt[32 * T], s[2 * T], w[T], v[T * 32], o[32];
    for (int i = 0; i < 32 * T; i++) kt[i] = v[i] = 1.0f;
    for (int i = 0; i < T; i++) w[i] = 1.0f;
    q[5] = NAN;
    kern->attn_qk(QSI_F32, 2, T, 32, q, 32, kt, NULL, s, T);
    for (int i = 0; i < T; i++) assert_true(isnan(s[i]) && s[T + i] == 0.0f);
    v[7 * 32 + 3] = INFINITY;
    kern->attn_pv(QSI_F32, 1, T, 32, w, T, v, 32, NULL, o, 32);
    for (int i = 0; i < 32; i++) assert_true(i == 3 ? isinf(o[i]) : o[i] == (float)T);
    kt[9] = -INFINITY;
    q[5] = 1.0f;
    kern->attn_qk(QSI_F32, 1, T, 32, q, 32, kt, NULL, s, T);
    assert_true(isnan(s[9]) && s[8] == 1.0f); /* 0 times infinity */
}

int main(int argc, char **argv) {
    int rc = level_from_args(argc, argv);
    if (rc != 0) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qk),   cmocka_unit_test(test_pv),         cmocka_unit_test(test_runs),
        cmocka_unit_test(test_turn), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_qk16), cmocka_unit_test(test_pv16), cmocka_unit_test(test_turn16),
        cmocka_unit_test(test_order16), cmocka_unit_test(test_bytes), cmocka_unit_test(test_nibbles),
        cmocka_unit_test(test_bytes_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
