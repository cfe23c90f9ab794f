/* Weights prepared for products: packed once into the panels of the kernels' level.
 *
 * In training a weight W [n_out, n_in] is packed twice: as the right side of y = x Wt (columns are
 * rows of W) and of dx = dy W (columns are columns of W). */
#include "base/hash.h"
#include "op/op.h"
#include "sys/file.h"

struct qsi_weight {
    qsi_mm kind;
    const qsi_kern_mm *mm;
    int64_t n_out, n_in;
    const void *src;    /* bytes of the file, or float32 masters; borrowed */
    int64_t src_row;    /* distance of rows: elements, or bytes of block types */
    void *fwd, *bwd;    /* packed; bwd only in training */
    size_t bytes;
    bool placed;        /* fwd is another's memory */
};

static const struct {
    qsi_type type;
    qsi_mm kind;
} kinds[] = {{QSI_F32, QSI_MM_F32}, {QSI_F16, QSI_MM_F16}, {QSI_BF16, QSI_MM_BF16},
#define KIND(name) {QSI_##name, QSI_MM_##name},
             QSI_MM_QUANT_LIST(KIND)};

qsi_mm qsi_weight_kind(qsi_type type, bool exact) {
    for (size_t i = 0; i < QSI_COUNT(kinds); i++)
        if (kinds[i].type == type)
            return kinds[i].kind + (exact && kinds[i].kind >= QSI_MM_QUANT ? QSI_MM_N_QUANT : 0);
    return QSI_MM_COUNT;
}

static int64_t panels(const qsi_kern_mm *mm, int64_t n) {
    return qsi_ceil_div(n, mm->nr);
}

static qs_status pack_size(const qsi_kern_mm *mm, int64_t n, int64_t k, size_t *all, qs_err *err) {
    if (qsi_mul_size(mm->panel_bytes(k), (size_t)panels(mm, n), all)) return QS_OK;
    return qsi_err_set(err, QS_E_RANGE, "a weight of %lld x %lld is too large", (long long)n,
                       (long long)k);
}

static qs_status pack_alloc(const qsi_kern_mm *mm, int64_t n, int64_t k, void **out, size_t *bytes,
                            qs_err *err) {
    qs_status st = QS_OK;
    size_t all = 0;
    QS_TRY(pack_size(mm, n, k, &all, err));
    *out = qsi_alloc(all, 1);
    if (!*out)
        QS_FAIL(err, QS_E_NOMEM, "no memory for a weight of %lld x %lld (%zu bytes)", (long long)n,
                (long long)k, all);
    qsi_mem_huge(*out, all);
    *bytes += all;
done:
    return st;
}

qs_status qsi_weight_create(qsi_weight **out, const qsi_kern *k, qsi_type type, const void *data,
                            int64_t n_out, int64_t n_in, qs_err *err) {
    return qsi_weight_create_kind(out, k, type, qsi_weight_kind(type, false), data, n_out, n_in,
                                  err);
}

qs_status qsi_weight_create_kind(qsi_weight **out, const qsi_kern *k, qsi_type type, qsi_mm kind,
                                 const void *data, int64_t n_out, int64_t n_in, qs_err *err) {
    qs_status st = QS_OK;
    qsi_weight *w = NULL;
    const qsi_type_info *ti = qsi_type_get(type);
    size_t row = 0;
    if (kind == QSI_MM_COUNT || !ti)
        QS_FAIL(err, QS_E_UNSUPPORTED, "weights of type %s cannot be run (F32, F16, BF16, Q8_0, "
                "Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, IQ4_XS, MXFP4 and Q2_K to Q6_K can)",
                ti ? ti->name : "unknown");
    if (!qsi_row_bytes(ti, n_in, &row))
        QS_FAIL(err, QS_E_FORMAT, "rows of %lld values are no whole blocks of %s", (long long)n_in,
                ti->name);
    w = qsi_calloc(1, sizeof *w);
    if (!w) QS_FAIL(err, QS_E_NOMEM, "no memory for a weight");
    *w = (qsi_weight){.kind = kind, .mm = &k->mm[kind], .n_out = n_out, .n_in = n_in, .src = data};
    w->src_row = ti->block > 1 ? (int64_t)row : n_in;
    if (data)
        QS_TRY(pack_alloc(w->mm, n_out, n_in, &w->fwd, &w->bytes, err));
    else
        QS_TRY(pack_size(w->mm, n_out, n_in, &w->bytes, err));
    *out = w;
    w = NULL;
done:
    qsi_weight_free(w);
    return st;
}

void qsi_weight_place(qsi_weight *w, void *mem) {
    QS_ASSERT(w->placed || !w->fwd);
    w->fwd = mem;
    w->placed = true;
}

int64_t qsi_weight_panels(const qsi_weight *w, int64_t *rows, size_t *src_bytes) {
    *rows = w->mm->nr;
    *src_bytes = (size_t)w->src_row;
    if (w->kind == QSI_MM_F32) *src_bytes *= sizeof(float);
    if (w->kind == QSI_MM_F16 || w->kind == QSI_MM_BF16) *src_bytes *= sizeof(uint16_t);
    return panels(w->mm, w->n_out);
}

void qsi_weight_pack(const qsi_weight *w, const void *rows, int64_t p0, int64_t p1, void *mem) {
    int64_t first = p0 * w->mm->nr;
    char *dst = (char *)(mem ? mem : w->fwd) + (size_t)p0 * w->mm->panel_bytes(w->n_in);
    w->mm->pack(rows, w->src_row, 1, qsi_min64(w->n_out, p1 * w->mm->nr) - first, w->n_in, 0,
                p1 - p0, dst);
}

const void *qsi_weight_packed(const qsi_weight *w) { return w->fwd; }

qs_status qsi_weight_layout(const qsi_kern *k, uint64_t *out, qs_err *err) {
    enum { COLUMNS = 5 * 256, ROWS = 19, ROW_BYTES = COLUMNS * 4 };
    qs_status st = QS_OK;
    uint64_t h = 0;
    qsi_rng r;
    char *src = qsi_alloc(ROWS, ROW_BYTES), *dst = NULL;
    if (!src) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    qsi_rng_init(&r, 1);
    for (size_t i = 0; i < ROWS * ROW_BYTES; i++) src[i] = (char)(qsi_rng_u64(&r) & 0x3f);
    for (size_t i = 0; i < 2 * QSI_COUNT(kinds); i++) {
        const qsi_type_info *ti = qsi_type_get(kinds[i / 2].type);
        qsi_mm kind = qsi_weight_kind(kinds[i / 2].type, i % 2 != 0);
        const qsi_kern_mm *mm = &k->mm[kind];
        size_t row = 0, all = 0;
        QS_CHECK(qsi_row_bytes(ti, COLUMNS, &row) && row <= ROW_BYTES);
        QS_TRY(pack_size(mm, ROWS, COLUMNS, &all, err));
        qsi_free(dst);
        dst = qsi_calloc(all, 1);
        if (!dst) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        mm->pack(src, ti->block > 1 ? (int64_t)row : COLUMNS, 1, ROWS, COLUMNS, 0, panels(mm, ROWS),
                 dst);
        h = qsi_hash_seed(dst, all, h + (uint64_t)mm->nr);
    }
    *out = h;
done:
    qsi_free(src);
    qsi_free(dst);
    return st;
}

void qsi_weight_prepare(const qsi_worker *wk, const qsi_kern *k, qsi_weight *w) {
    (void)k;
    int64_t p0 = 0, p1 = 0;
    qsi_share(wk, panels(w->mm, w->n_out), 1, &p0, &p1);
    if (p0 < p1) w->mm->pack(w->src, w->src_row, 1, w->n_out, w->n_in, p0, p1, w->fwd);
}

qs_status qsi_weight_create_train(qsi_weight **out, const qsi_kern *k, qsi_mm kind,
                                  const float *master, int64_t n_out, int64_t n_in, qs_err *err) {
    qs_status st = QS_OK;
    QS_CHECK(kind == QSI_MM_F32 || kind == QSI_MM_BF16);
    qsi_weight *w = qsi_calloc(1, sizeof *w);
    if (!w) QS_FAIL(err, QS_E_NOMEM, "no memory for a weight");
    *w = (qsi_weight){.kind = kind, .mm = &k->mm[kind], .n_out = n_out, .n_in = n_in,
                      .src = master, .src_row = n_in};
    QS_TRY(pack_alloc(w->mm, n_out, n_in, &w->fwd, &w->bytes, err));
    QS_TRY(pack_alloc(w->mm, n_in, n_out, &w->bwd, &w->bytes, err));
    *out = w;
    w = NULL;
done:
    qsi_weight_free(w);
    return st;
}

void qsi_weight_refresh(qsi_op *o, qsi_weight *w, uint16_t *shadow) {
    const void *src = w->src;
    if (w->kind == QSI_MM_BF16) {
        const float *m = w->src;
        for (int64_t i; (i = qsi_op_take(o) * QSI_OP_ROWS) < w->n_out;) {
            int64_t n = qsi_min64(QSI_OP_ROWS, w->n_out - i);
            o->k->f32_to_bf16(m + i * w->n_in, shadow + i * w->n_in, n * w->n_in);
        }
        qsi_op_end(o);
        src = shadow;
    }
    int64_t pf = panels(w->mm, w->n_out), pb = panels(w->mm, w->n_in);
    for (int64_t i; (i = qsi_op_take(o)) < pf + pb;) {
        if (i < pf)
            w->mm->pack(src, w->n_in, 1, w->n_out, w->n_in, i, i + 1, w->fwd);
        else
            w->mm->pack(src, 1, w->n_in, w->n_in, w->n_out, i - pf, i - pf + 1, w->bwd);
    }
    qsi_op_end(o);
}

void qsi_weight_free(qsi_weight *w) {
    if (!w) return;
    if (!w->placed) qsi_free(w->fwd);
    qsi_free(w->bwd);
    qsi_free(w);
}

qsi_mm qsi_weight_mm(const qsi_weight *w) { return w->kind; }
int64_t qsi_weight_rows(const qsi_weight *w) { return w->n_out; }
int64_t qsi_weight_cols(const qsi_weight *w) { return w->n_in; }
size_t qsi_weight_bytes(const qsi_weight *w) { return w->bytes; }

qsi_mm_job qsi_job_forward(const qsi_weight *w, const qsi_act *x, int64_t row0, int64_t m,
                           float *y, int64_t ldy, bool acc) {
    qsi_mm_job j = {.kind = w->kind, .b = w->fwd, .c = y, .m = m, .n = w->n_out, .k = w->n_in,
                    .ldc = ldy, .acc = acc, .w = w};
    QS_ASSERT(x->k == w->n_in);
    j.a = qsi_act_row(x, w->kind, row0, &j.lda);
    return j;
}

qsi_mm_job qsi_job_dx(const qsi_weight *w, const qsi_dy *dy, float *dx, int64_t ldx, bool acc) {
    QS_ASSERT(dy->kind == w->kind && dy->n == w->n_out && w->bwd);
    size_t e = w->kind == QSI_MM_F32 ? sizeof(float) : sizeof(uint16_t);
    return (qsi_mm_job){.kind = w->kind, .a = dy->rows, .lda = (size_t)dy->ld_rows * e,
                        .b = w->bwd, .c = dx, .m = dy->m, .n = w->n_in, .k = w->n_out,
                        .ldc = ldx, .acc = acc};
}
