/* Source of the layout: files written by llama.cpp's imatrix tool (its GGUF form), the names of whose
 * keys the gguf package lists. */
#include "files/imatrix.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/file.h"

#define SUMS ".in_sum2"
#define COUNTS ".counts"

enum { ROW_MAX = 1 << 24 }; /* columns */

/* ---- writing ---- */

static qs_status put_f32(qsi_gguf_writer *w, const double *v, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    float part[1024];
    for (size_t i = 0; i < n; i += QSI_COUNT(part)) {
        size_t some = n - i < QSI_COUNT(part) ? n - i : QSI_COUNT(part);
        for (size_t j = 0; j < some; j++) part[j] = (float)v[i + j];
        QS_TRY(qsi_gguf_write(w, part, some * sizeof *part, err));
    }
done:
    return st;
}

static qs_status declare(qsi_gguf_writer *w, const qsi_importance_entry *e, qs_err *err) {
    qs_status st = QS_OK;
    char name[128];
    int64_t sums[4] = {e->k, e->n, 1, 1}, counts[4] = {1, e->n, 1, 1};
    snprintf(name, sizeof name, "%s" SUMS, e->name);
    QS_TRY(qsi_gguf_declare(w, name, QSI_F32, 2, sums, err));
    snprintf(name, sizeof name, "%s" COUNTS, e->name);
    QS_TRY(qsi_gguf_declare(w, name, QSI_F32, 2, counts, err));
done:
    return st;
}

static qs_status put_entry(qsi_gguf_writer *w, const qsi_importance_entry *e, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(put_f32(w, e->sum, (size_t)e->n * (size_t)e->k, err));
    for (int32_t i = 0; i < e->n; i++) {
        double n = (double)e->count[i];
        QS_TRY(put_f32(w, &n, 1, err));
    }
done:
    return st;
}

static bool seen(const qsi_importance_entry *e) {
    for (int32_t i = 0; i < e->n; i++)
        if (e->count[i] > 0) return true;
    return false;
}

qs_status qsi_imatrix_save(const qsi_importance *x, const char *path, const char *dataset,
                           int64_t n_chunks, int64_t chunk, qs_err *err) {
    qs_status st = QS_OK, keys = QS_OK;
    qsi_gguf_writer *w = NULL;
    qsi_slice set = {dataset, strlen(dataset)};
    QS_TRY(qsi_gguf_writer_open(&w, path, err));
    keys = qsi_gguf_put_str(w, "general.type", "imatrix", 7);
    if (keys == QS_OK) keys = qsi_gguf_put_arr_str(w, "imatrix.datasets", &set, 1);
    if (keys == QS_OK) keys = qsi_gguf_put_u32(w, "imatrix.chunk_count", (uint32_t)n_chunks);
    if (keys == QS_OK) keys = qsi_gguf_put_u32(w, "imatrix.chunk_size", (uint32_t)chunk);
    if (keys != QS_OK) QS_FAIL(err, keys, "cannot put the keys of '%s' together", path);
    for (size_t i = 0; i < qsi_importance_count(x); i++)
        if (seen(qsi_importance_at(x, i))) QS_TRY(declare(w, qsi_importance_at(x, i), err));
    for (size_t i = 0; i < qsi_importance_count(x); i++)
        if (seen(qsi_importance_at(x, i))) QS_TRY(put_entry(w, qsi_importance_at(x, i), err));
    QS_TRY(qsi_gguf_finish(&w, err));
done:
    qsi_gguf_writer_abort(&w);
    return st;
}

/* ---- reading ---- */

struct qsi_imatrix {
    qsi_gguf *g;
    qsi_imatrix_stats stats;
};

bool qsi_imatrix_is_file(const char *path) {
    char magic[4] = {0};
    FILE *f = fopen(path, "rb");
    if (f == NULL) return false;
    size_t n = fread(magic, 1, sizeof magic, f);
    fclose(f);
    return n == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
}

static float at(const qsi_gguf_tensor *t, int64_t i) {
    float v;
    memcpy(&v, t->data + (size_t)i * sizeof v, sizeof v);
    return v;
}

/* The counts that go with the sums s. */
static qs_status counts_of(const qsi_imatrix *m, const qsi_gguf_tensor *s,
                           const qsi_gguf_tensor **out, qs_err *err) {
    qs_status st = QS_OK;
    char name[160];
    snprintf(name, sizeof name, "%.*s" COUNTS, (int)(strlen(s->name) - strlen(SUMS)), s->name);
    const qsi_gguf_tensor *c = qsi_gguf_tensor_find(m->g, name);
    if (c == NULL) QS_FAIL(err, QS_E_FORMAT, "'%s' has no tensor %s", qsi_gguf_path(m->g), name);
    if (c->type != QSI_F32 || s->type != QSI_F32 || c->ne[0] != 1 || c->ne[1] != s->ne[1] ||
        s->ne[2] != 1 || s->ne[3] != 1 || s->ne[0] > ROW_MAX)
        QS_FAIL(err, QS_E_FORMAT, "'%s': tensors %s and %s are no importance of one matrix",
                qsi_gguf_path(m->g), s->name, name);
    *out = c;
done:
    return st;
}

static bool is_sums(const char *name) {
    size_t n = strlen(name), k = strlen(SUMS);
    return n > k && strcmp(name + n - k, SUMS) == 0;
}

static qs_status check(qsi_imatrix *m, const qsi_gguf_tensor *s, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *c = NULL;
    QS_TRY(counts_of(m, s, &c, err));
    for (int64_t i = 0; i < c->ne[1]; i++) {
        float n = at(c, i);
        if (!(n == 0 || (n >= 1 && n < 1e30f)))
            QS_FAIL(err, QS_E_FORMAT, "'%s': tensor %s counts %g rows", qsi_gguf_path(m->g), c->name,
                    (double)n);
        m->stats.unseen += n == 0;
    }
    for (int64_t i = 0; i < s->ne[0] * s->ne[1]; i++)
        if (!(at(s, i) >= 0 && at(s, i) < 1e30f))
            QS_FAIL(err, QS_E_FORMAT, "'%s': tensor %s holds %g, no sum of squares",
                    qsi_gguf_path(m->g), s->name, (double)at(s, i));
    m->stats.tensors++;
    m->stats.matrices += (size_t)c->ne[1];
done:
    return st;
}

qs_status qsi_imatrix_open_gguf(qsi_imatrix **out, qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_imatrix *m = qsi_calloc(1, sizeof *m);
    if (m == NULL) {
        qsi_gguf_close(&g);
        return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    }
    m->g = g;
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        if (is_sums(t->name)) QS_TRY(check(m, t, err));
    }
    if (m->stats.tensors == 0)
        QS_FAIL(err, QS_E_FORMAT, "'%s' holds no importance matrix (tensors named *" SUMS ")",
                qsi_gguf_path(g));
    QS_TRY(qsi_gguf_intact(g, err));
    *out = m;
    m = NULL;
done:
    qsi_imatrix_close(&m);
    return st;
}

qs_status qsi_imatrix_open(qsi_imatrix **m, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    QS_TRY(qsi_gguf_open(&g, path, err));
    QS_TRY(qsi_imatrix_open_gguf(m, g, err));
done:
    return st;
}

void qsi_imatrix_close(qsi_imatrix **m) {
    if (*m == NULL) return;
    qsi_gguf_close(&(*m)->g);
    qsi_free(*m);
    *m = NULL;
}

qs_status qsi_imatrix_intact(const qsi_imatrix *m, qs_err *err) { return qsi_gguf_intact(m->g, err); }

qsi_imatrix_stats qsi_imatrix_stat(const qsi_imatrix *m) { return m->stats; }

uint64_t qsi_imatrix_digest(const qsi_imatrix *m) {
    return qsi_hash(qsi_gguf_data(m->g), qsi_gguf_size(m->g));
}

qs_status qsi_imatrix_weights(const qsi_imatrix *m, const char *name, int64_t k, int64_t n,
                              float **out, qs_err *err) {
    qs_status st = QS_OK;
    char sums[160];
    const qsi_gguf_tensor *c = NULL;
    snprintf(sums, sizeof sums, "%s" SUMS, name);
    const qsi_gguf_tensor *s = qsi_gguf_tensor_find(m->g, sums);
    *out = NULL;
    if (s == NULL) return QS_OK;
    QS_TRY(counts_of(m, s, &c, err));
    if (s->ne[0] != k || s->ne[1] != n)
        QS_FAIL(err, QS_E_FORMAT, "'%s' holds [%" PRId64 ", %" PRId64 "] for tensor %s, which has [%"
                PRId64 ", %" PRId64 "]: it was made of another model", qsi_gguf_path(m->g), s->ne[0],
                s->ne[1], name, k, n);
    float *w = qsi_alloc((size_t)k * (size_t)n, sizeof *w);
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "no memory for the importance of %s", name);
    for (int64_t i = 0; i < n; i++) {
        float rows = at(c, i);
        for (int64_t j = 0; j < k; j++) w[i * k + j] = rows > 0 ? at(s, i * k + j) / rows : 1;
    }
    *out = w;
done:
    return st;
}
