/* Tensors of the public API: strided views on shared float32 values, operations over the kernels.
 *
 * Invariant: dims are at least 1, their product is at most MAX_VALUES, every index reaches a value of
 * the storage. Storage counts its owners. Copies and walks go through rows: the last dimension is
 * the inner loop, the others an odometer. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/status.h"
#include "kern/kern.h"
#include "qiusuo/tensor.h"

#define MAX_DIMS QS_TENSOR_MAX_DIMS
#define MAX_VALUES ((int64_t)1 << 40)

typedef struct storage {
    atomic_int owners;
    float *values;
} storage;

struct qs_tensor {
    storage *store;
    float *data;
    int n_dims;
    int64_t dims[MAX_DIMS], strides[MAX_DIMS];
};

/* ---- making ----------------------------------------------------------------------------------- */

static void row_major(qs_tensor *t) {
    int64_t stride = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        t->strides[i] = stride;
        stride *= t->dims[i];
    }
}

static bool is_row_major(const qs_tensor *t) {
    int64_t stride = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        if (t->dims[i] > 1 && t->strides[i] != stride) return false;
        stride *= t->dims[i];
    }
    return true;
}

static qs_status check_dims(int n_dims, const int64_t *dims, qs_err *err) {
    qs_status st = QS_OK;
    int64_t n = 1;
    if (n_dims < 1 || n_dims > MAX_DIMS)
        QS_FAIL(err, QS_E_ARG, "a tensor of %d dimensions: 1 to %d are possible", n_dims, MAX_DIMS);
    for (int i = 0; i < n_dims; i++) {
        if (dims[i] < 1)
            QS_FAIL(err, QS_E_ARG, "dimension %d of a tensor is %" PRId64, i, dims[i]);
        if (!qsi_mul_i64(n, dims[i], &n) || n > MAX_VALUES)
            QS_FAIL(err, QS_E_LIMIT, "a tensor of so many values is not possible");
    }
done:
    return st;
}

qs_status qs_tensor_create(qs_tensor **out, int n_dims, const int64_t *dims, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *t = NULL;
    QS_TRY(check_dims(n_dims, dims, err));
    t = qsi_calloc(1, sizeof *t);
    if (t != NULL) t->store = qsi_calloc(1, sizeof *t->store);
    if (t == NULL || t->store == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a tensor");
    atomic_init(&t->store->owners, 1);
    t->n_dims = n_dims;
    memcpy(t->dims, dims, (size_t)n_dims * sizeof *dims);
    row_major(t);
    t->store->values = qsi_calloc((size_t)qs_tensor_size(t), sizeof(float));
    if (t->store->values == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a tensor of %" PRId64 " values",
                qs_tensor_size(t));
    t->data = t->store->values;
    *out = t;
    t = NULL;
done:
    qs_tensor_free(t);
    return st;
}

qs_status qs_tensor_from(qs_tensor **out, int n_dims, const int64_t *dims, const float *values,
                         qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qs_tensor_create(out, n_dims, dims, err));
    memcpy((*out)->data, values, (size_t)qs_tensor_size(*out) * sizeof *values);
done:
    return st;
}

void qs_tensor_free(qs_tensor *t) {
    if (t == NULL) return;
    /* acquire and release: the last owner sees what the others wrote */
    if (t->store != NULL && atomic_fetch_sub_explicit(&t->store->owners, 1,
                                                      memory_order_acq_rel) == 1) {
        qsi_free(t->store->values);
        qsi_free(t->store);
    }
    qsi_free(t);
}

/* Another tensor on the same values. */
static qs_status make_view(qs_tensor **out, const qs_tensor *t, qs_err *err) {
    qs_tensor *v = qsi_alloc(1, sizeof *v);
    if (v == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory for a tensor");
    *v = *t;
    atomic_fetch_add_explicit(&v->store->owners, 1, memory_order_relaxed);
    *out = v;
    return QS_OK;
}

/* ---- reading ---------------------------------------------------------------------------------- */

int qs_tensor_n_dims(const qs_tensor *t) { return t->n_dims; }
int64_t qs_tensor_dim(const qs_tensor *t, int i) { return t->dims[i]; }

int64_t qs_tensor_size(const qs_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= t->dims[i];
    return n;
}

float qs_tensor_at(const qs_tensor *t, const int64_t *index) {
    const float *p = t->data;
    for (int i = 0; i < t->n_dims; i++) {
        QS_CHECK(index[i] >= 0 && index[i] < t->dims[i]);
        p += index[i] * t->strides[i];
    }
    return *p;
}

/* Walks all rows (runs along the last dimension) of a shape in row-major order. */
typedef struct odometer {
    int n;                       /* dims in front of the last */
    int64_t index[MAX_DIMS];
    const int64_t *dims;
} odometer;

static odometer walk_rows(const qs_tensor *t) {
    return (odometer){ .n = t->n_dims - 1, .dims = t->dims };
}

static bool next_row(odometer *o) {
    for (int i = o->n - 1; i >= 0; i--) {
        if (++o->index[i] < o->dims[i]) return true;
        o->index[i] = 0;
    }
    return false;
}

static int64_t offset_of(const odometer *o, const int64_t *strides) {
    int64_t off = 0;
    for (int i = 0; i < o->n; i++) off += o->index[i] * strides[i];
    return off;
}

void qs_tensor_read(const qs_tensor *t, float *out) {
    int64_t n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    odometer o = walk_rows(t);
    do {
        const float *row = t->data + offset_of(&o, t->strides);
        for (int64_t i = 0; i < n; i++) *out++ = row[i * s];
    } while (next_row(&o));
}

double qs_tensor_sum(const qs_tensor *t) {
    int64_t n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    double sum = 0;
    odometer o = walk_rows(t);
    do {
        const float *row = t->data + offset_of(&o, t->strides);
        for (int64_t i = 0; i < n; i++) sum += row[i * s];
    } while (next_row(&o));
    return sum;
}

char *qs_tensor_shape(const qs_tensor *t, char *buf, size_t cap) {
    size_t n = 0;
    for (int i = 0; i < t->n_dims && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%" PRId64, i == 0 ? "(" : ", ", t->dims[i]);
    if (n < cap) snprintf(buf + n, cap - n, ")");
    return buf;
}

void qs_tensor_random(qs_tensor *t, uint64_t seed, uint64_t stream, float lo, float hi) {
    int64_t n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    float width = hi - lo;
    qsi_rng rng;
    qsi_rng_init_stream(&rng, seed, stream);
    odometer o = walk_rows(t);
    do {
        float *row = t->data + offset_of(&o, t->strides);
        for (int64_t i = 0; i < n; i++) {
            float x = width * qsi_rng_f32(&rng);
            row[i * s] = lo + x;
        }
    } while (next_row(&o));
}

/* ---- shapes ----------------------------------------------------------------------------------- */

static qs_status make_copy(qs_tensor **out, const qs_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qs_tensor_create(out, t->n_dims, t->dims, err));
    qs_tensor_read(t, (*out)->data);
done:
    return st;
}

/* A tensor with the same values that lie row-major: a view or a copy. */
static qs_status make_row_major(qs_tensor **out, const qs_tensor *t, qs_err *err) {
    return is_row_major(t) ? make_view(out, t, err) : make_copy(out, t, err);
}

static qs_status two_shapes(const char *what, const qs_tensor *a, const qs_tensor *b, qs_err *err) {
    char x[160], y[160];
    return qsi_err_set(err, QS_E_ARG, "%s: the shapes %s and %s do not fit", what,
                       qs_tensor_shape(a, x, sizeof x), qs_tensor_shape(b, y, sizeof y));
}

qs_status qs_tensor_reshape(qs_tensor **out, const qs_tensor *t, int n_dims, const int64_t *dims,
                            qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *r = NULL;
    int64_t n = 1;
    char shape[160];
    QS_TRY(check_dims(n_dims, dims, err));
    for (int i = 0; i < n_dims; i++) n *= dims[i];
    if (n != qs_tensor_size(t))
        QS_FAIL(err, QS_E_ARG, "reshape: %s has %" PRId64 " values, the new shape %" PRId64,
                qs_tensor_shape(t, shape, sizeof shape), qs_tensor_size(t), n);
    QS_TRY(make_row_major(&r, t, err));
    r->n_dims = n_dims;
    memcpy(r->dims, dims, (size_t)n_dims * sizeof *dims);
    row_major(r);
    *out = r;
done:
    return st;
}

qs_status qs_tensor_permute(qs_tensor **out, const qs_tensor *t, const int *order, qs_err *err) {
    qs_status st = QS_OK;
    bool seen[MAX_DIMS] = { false };
    for (int i = 0; i < t->n_dims; i++) {
        if (order[i] < 0 || order[i] >= t->n_dims || seen[order[i]])
            QS_FAIL(err, QS_E_ARG, "permute: the order is no permutation of 0 to %d",
                    t->n_dims - 1);
        seen[order[i]] = true;
    }
    QS_TRY(make_view(out, t, err));
    for (int i = 0; i < t->n_dims; i++) {
        (*out)->dims[i] = t->dims[order[i]];
        (*out)->strides[i] = t->strides[order[i]];
    }
done:
    return st;
}

/* Strides of b along the dims of a: 0 where b repeats. False when the shapes do not fit. */
static bool broadcast(const qs_tensor *a, const qs_tensor *b, int64_t strides[MAX_DIMS]) {
    int skip = a->n_dims - b->n_dims;
    if (skip < 0) return false;
    for (int i = 0; i < a->n_dims; i++) {
        int j = i - skip;
        bool one = j < 0 || b->dims[j] == 1;
        if (!one && b->dims[j] != a->dims[i]) return false;
        strides[i] = one ? 0 : b->strides[j];
    }
    return true;
}

/* ---- operations ------------------------------------------------------------------------------- */

/* C[m, n] = A[m, k] * B, B's element (column j, position kk) at b + j*ld_col + kk*ld_k. A's rows are
 * contiguous. packed holds all panels. */
typedef struct product {
    const qsi_kern_mm *mm;
    int64_t m, n, k, n_panels;
    void *packed;
} product;

static qs_status product_init(product *p, int64_t m, int64_t n, int64_t k, qs_err *err) {
    *p = (product){ .mm = &qsi_kern_get(qsi_cpu_isa())->mm[QSI_MM_F32], .m = m, .n = n, .k = k };
    p->n_panels = (n + p->mm->nr - 1) / p->mm->nr;
    p->packed = qsi_alloc((size_t)p->n_panels, p->mm->panel_bytes(k));
    if (p->packed == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory for a product");
    return QS_OK;
}

static void product_run(const product *p, const float *a, int64_t ld_a, const float *b,
                        int64_t ld_col, int64_t ld_k, float *c) {
    p->mm->pack(b, ld_col, ld_k, p->n, p->k, 0, p->n_panels, p->packed);
    p->mm->run(p->m, p->n, p->k, 0, p->n_panels, a, (size_t)ld_a * sizeof *a, p->packed, c, p->n,
               false);
}

qs_status qs_tensor_linear(qs_tensor **out, const qs_tensor *x, const qs_tensor *w,
                           const qs_tensor *bias, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *y = NULL, *rows = NULL;
    product p = { 0 };
    int64_t dims[MAX_DIMS], k = x->dims[x->n_dims - 1];
    if (w->n_dims != 2 || w->dims[1] != k) {
        st = two_shapes("linear", x, w, err);
        goto done;
    }
    int64_t n = w->dims[0], m = qs_tensor_size(x) / k;
    if (bias != NULL && (bias->n_dims != 1 || bias->dims[0] != n)) {
        st = two_shapes("bias of linear", w, bias, err);
        goto done;
    }
    memcpy(dims, x->dims, sizeof dims);
    dims[x->n_dims - 1] = n;
    QS_TRY(make_row_major(&rows, x, err));
    QS_TRY(qs_tensor_create(&y, x->n_dims, dims, err));
    QS_TRY(product_init(&p, m, n, k, err));
    product_run(&p, rows->data, k, w->data, w->strides[0], w->strides[1], y->data);
    for (int64_t i = 0; bias != NULL && i < m; i++)
        for (int64_t j = 0; j < n; j++) y->data[i * n + j] += bias->data[j * bias->strides[0]];
    *out = y;
    y = NULL;
done:
    qsi_free(p.packed);
    qs_tensor_free(rows);
    qs_tensor_free(y);
    return st;
}

qs_status qs_tensor_matmul(qs_tensor **out, const qs_tensor *a, const qs_tensor *b, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *c = NULL, *left = NULL;
    product p = { 0 };
    int64_t dims[MAX_DIMS];
    int d = a->n_dims;
    bool fit = d >= 2 && b->n_dims == d && a->dims[d - 1] == b->dims[d - 2];
    for (int i = 0; fit && i < d - 2; i++) fit = a->dims[i] == b->dims[i];
    if (!fit) {
        st = two_shapes("matmul", a, b, err);
        goto done;
    }
    memcpy(dims, a->dims, sizeof dims);
    dims[d - 1] = b->dims[d - 1];
    /* rows of a must be contiguous; that is all its layout must be */
    if (a->strides[d - 1] == 1) QS_TRY(make_view(&left, a, err));
    else QS_TRY(make_copy(&left, a, err));
    QS_TRY(qs_tensor_create(&c, d, dims, err));
    QS_TRY(product_init(&p, dims[d - 2], dims[d - 1], a->dims[d - 1], err));
    odometer o = { .n = d - 2, .dims = a->dims };
    float *to = c->data;
    do {
        product_run(&p, left->data + offset_of(&o, left->strides), left->strides[d - 2],
                    b->data + offset_of(&o, b->strides), b->strides[d - 1], b->strides[d - 2], to);
        to += dims[d - 2] * dims[d - 1];
    } while (next_row(&o));
    *out = c;
    c = NULL;
done:
    qsi_free(p.packed);
    qs_tensor_free(left);
    qs_tensor_free(c);
    return st;
}

qs_status qs_tensor_add(qs_tensor **out, const qs_tensor *a, const qs_tensor *b, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *c = NULL;
    int64_t sb[MAX_DIMS], n = a->dims[a->n_dims - 1];
    if (!broadcast(a, b, sb)) {
        st = two_shapes("add", a, b, err);
        goto done;
    }
    QS_TRY(make_copy(&c, a, err));
    odometer o = walk_rows(c);
    do {
        float *row = c->data + offset_of(&o, c->strides);
        const float *other = b->data + offset_of(&o, sb);
        for (int64_t i = 0; i < n; i++) row[i] += other[i * sb[a->n_dims - 1]];
    } while (next_row(&o));
    *out = c;
done:
    return st;
}

void qs_tensor_scale(qs_tensor *t, float factor) {
    int64_t n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    odometer o = walk_rows(t);
    do {
        float *row = t->data + offset_of(&o, t->strides);
        for (int64_t i = 0; i < n; i++) row[i * s] *= factor;
    } while (next_row(&o));
}

qs_status qs_tensor_masked_fill(qs_tensor *t, const qs_tensor *mask, float value, qs_err *err) {
    qs_status st = QS_OK;
    int64_t sm[MAX_DIMS], n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    if (!broadcast(t, mask, sm)) {
        st = two_shapes("masked_fill", t, mask, err);
        goto done;
    }
    odometer o = walk_rows(t);
    do {
        float *row = t->data + offset_of(&o, t->strides);
        const float *m = mask->data + offset_of(&o, sm);
        for (int64_t i = 0; i < n; i++)
            if (m[i * sm[t->n_dims - 1]] == 0) row[i * s] = value;
    } while (next_row(&o));
done:
    return st;
}

qs_status qs_tensor_softmax(qs_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_kern *kern = qsi_kern_get(qsi_cpu_isa());
    int64_t n = t->dims[t->n_dims - 1], s = t->strides[t->n_dims - 1];
    float *buf = qsi_alloc((size_t)n, sizeof *buf); /* for rows that are not contiguous */
    if (buf == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for softmax");
    odometer o = walk_rows(t);
    do {
        float max, *row = t->data + offset_of(&o, t->strides);
        for (int64_t i = 0; i < n; i++) buf[i] = row[i * s];
        float sum = kern->softmax_exp(buf, n, 1.0f, &max);
        for (int64_t i = 0; i < n; i++) row[i * s] = buf[i] / sum;
    } while (next_row(&o));
done:
    qsi_free(buf);
    return st;
}
