/* Writing GGUF, version 3, alignment 32, in one pass: the header is complete when the first tensor
 * byte comes, because all keys and tensors are declared before. Every tensor, the last one too, is
 * padded to the alignment. The first failure sticks; an unfinished file never appears. A file written
 * over several runs has a mark after the header and after every tensor; what its header says is part
 * of what it is made of.
 * Source: the GGUF format of ggml (deepseek-facts 4.1). */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "fmt/gguf.h"
#include "fmt/names.h"
#include "sys/file.h"

enum { ALIGN = 32, NAME_MAX_BYTES = 63 }; /* ggml keeps 63 letters and a NUL */

typedef struct declared {
    char *name; /* in the arena */
    qsi_type type;
    int n_dims;
    int64_t ne[QSI_GGUF_MAX_DIMS];
    uint64_t offset, bytes;
} declared;

struct qsi_gguf_writer {
    qsi_writer *out;     /* NULL until a file written over several runs begins */
    char *part_path;     /* of such a file; in the arena */
    qsi_origin origin;
    qsi_str pairs; /* encoded key-value pairs */
    uint64_t n_pairs;
    declared *tensors;
    size_t n_tensors, cap_tensors;
    qsi_names keys, names;
    qsi_arena arena;
    uint64_t data_bytes; /* declared so far, padding included */
    bool header_written;
    size_t current;      /* tensor whose bytes come next */
    uint64_t done;       /* bytes of it that are written */
    qs_status st;        /* first failure of a put */
};

static void writer_free(qsi_gguf_writer *w) {
    if (w == NULL) return;
    qsi_writer_abort(&w->out);
    qsi_str_release(&w->pairs);
    qsi_free(w->tensors);
    qsi_names_release(&w->keys);
    qsi_names_release(&w->names);
    qsi_arena_release(&w->arena);
    qsi_free(w);
}

static qs_status open_any(qsi_gguf_writer **out, const char *path, bool temp, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = qsi_calloc(1, sizeof *w);
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    qsi_arena_init(&w->arena);
    if (temp) QS_TRY(qsi_writer_open_temp(&w->out, path, err));
    else QS_TRY(qsi_writer_open(&w->out, path, err));
    *out = w;
    w = NULL;
done:
    writer_free(w);
    return st;
}

qs_status qsi_gguf_writer_open(qsi_gguf_writer **w, const char *path, qs_err *err) {
    return open_any(w, path, false, err);
}

qs_status qsi_gguf_writer_open_temp(qsi_gguf_writer **w, const char *dir, qs_err *err) {
    return open_any(w, dir, true, err);
}

qs_status qsi_gguf_writer_open_part(qsi_gguf_writer **out, const char *path, qsi_origin origin,
                                    qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = qsi_calloc(1, sizeof *w);
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    qsi_arena_init(&w->arena);
    w->origin = origin;
    w->part_path = qsi_arena_strndup(&w->arena, path, strlen(path));
    if (w->part_path == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    *out = w;
    w = NULL;
done:
    writer_free(w);
    return st;
}

void qsi_gguf_writer_leave(qsi_gguf_writer **pw) {
    if (*pw != NULL) qsi_writer_leave(&(*pw)->out);
    qsi_gguf_writer_abort(pw);
}

void qsi_gguf_writer_abort(qsi_gguf_writer **pw) {
    writer_free(*pw);
    *pw = NULL;
}

static void store_le(uint8_t *p, uint64_t v, int n) {
    for (int i = 0; i < n; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static qs_status add_le(qsi_str *s, uint64_t v, int n) {
    uint8_t b[8];
    store_le(b, v, n);
    return qsi_str_append(s, b, (size_t)n);
}

static qs_status add_text(qsi_str *s, const char *p, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(add_le(s, n, 8));
    QS_TRY(qsi_str_append(s, p, n));
done:
    return st;
}

/* Key and value type of a new pair. */
static qs_status begin_pair(qsi_gguf_writer *w, const char *key, qsi_gguf_vt type) {
    qs_status st = w->st;
    bool had = false;
    if (st != QS_OK) goto done;
    if (w->header_written) return QS_E_STATE;
    if (!qsi_name_ok(key, strlen(key))) return QS_E_ARG;
    char *copy = qsi_arena_strndup(&w->arena, key, strlen(key));
    if (copy == NULL) return QS_E_NOMEM;
    QS_TRY(qsi_names_add(&w->keys, copy, 0, &had));
    if (had) return QS_E_ARG;
    QS_TRY(add_text(&w->pairs, key, strlen(key)));
    QS_TRY(add_le(&w->pairs, type, 4));
    w->n_pairs++;
done:
    return st;
}

static qs_status put_number(qsi_gguf_writer *w, const char *key, qsi_gguf_vt type, uint64_t v,
                            int bytes) {
    qs_status st = QS_OK;
    QS_TRY(begin_pair(w, key, type));
    QS_TRY(add_le(&w->pairs, v, bytes));
done:
    if (st != QS_OK) w->st = st;
    return st;
}

qs_status qsi_gguf_put_u32(qsi_gguf_writer *w, const char *key, uint32_t v) {
    return put_number(w, key, QSI_GV_U32, v, 4);
}

qs_status qsi_gguf_put_i32(qsi_gguf_writer *w, const char *key, int32_t v) {
    return put_number(w, key, QSI_GV_I32, (uint32_t)v, 4);
}

qs_status qsi_gguf_put_u64(qsi_gguf_writer *w, const char *key, uint64_t v) {
    return put_number(w, key, QSI_GV_U64, v, 8);
}

qs_status qsi_gguf_put_f32(qsi_gguf_writer *w, const char *key, float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return put_number(w, key, QSI_GV_F32, u, 4);
}

qs_status qsi_gguf_put_bool(qsi_gguf_writer *w, const char *key, bool v) {
    return put_number(w, key, QSI_GV_BOOL, v, 1);
}

qs_status qsi_gguf_put_str(qsi_gguf_writer *w, const char *key, const char *s, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(begin_pair(w, key, QSI_GV_STR));
    QS_TRY(add_text(&w->pairs, s, n));
done:
    if (st != QS_OK) w->st = st;
    return st;
}

static qs_status begin_array(qsi_gguf_writer *w, const char *key, qsi_gguf_vt elem, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(begin_pair(w, key, QSI_GV_ARR));
    QS_TRY(add_le(&w->pairs, elem, 4));
    QS_TRY(add_le(&w->pairs, n, 8));
done:
    return st;
}

qs_status qsi_gguf_put_arr_str(qsi_gguf_writer *w, const char *key, const qsi_slice *s, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(begin_array(w, key, QSI_GV_STR, n));
    for (size_t i = 0; i < n; i++) QS_TRY(add_text(&w->pairs, s[i].p, s[i].n));
done:
    if (st != QS_OK) w->st = st;
    return st;
}

qs_status qsi_gguf_put_arr_i32(qsi_gguf_writer *w, const char *key, const int32_t *v, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(begin_array(w, key, QSI_GV_I32, n));
    for (size_t i = 0; i < n; i++) QS_TRY(add_le(&w->pairs, (uint32_t)v[i], 4));
done:
    if (st != QS_OK) w->st = st;
    return st;
}

qs_status qsi_gguf_put_arr_f32(qsi_gguf_writer *w, const char *key, const float *v, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(begin_array(w, key, QSI_GV_F32, n));
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &v[i], sizeof u);
        QS_TRY(add_le(&w->pairs, u, 4));
    }
done:
    if (st != QS_OK) w->st = st;
    return st;
}

qs_status qsi_gguf_put_copy(qsi_gguf_writer *w, const qsi_gguf_kv *kv) {
    qs_status st = QS_OK;
    if (kv->type == QSI_GV_ARR) {
        QS_TRY(begin_array(w, kv->key, kv->elem, (size_t)kv->count));
    } else {
        QS_TRY(begin_pair(w, kv->key, kv->type));
    }
    /* data begins at the value; an array's covers the elements only */
    QS_TRY(qsi_str_append(&w->pairs, kv->data, kv->data_bytes));
done:
    if (st != QS_OK) w->st = st;
    return st;
}

/* Bytes of a tensor of this type and shape; the text names the tensor. */
static qs_status shape_bytes(const declared *t, uint64_t *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
    int64_t rows = 1;
    size_t row = 0, total = 0;
    if (ti == NULL) QS_FAIL(err, QS_E_ARG, "tensor %s: no such type", t->name);
    for (int d = 0; d < t->n_dims; d++) {
        if (t->ne[d] < 1 || (d > 0 && !qsi_mul_i64(rows, t->ne[d], &rows))) {
            QS_FAIL(err, QS_E_ARG, "tensor %s: impossible dimensions", t->name);
        }
    }
    if (!qsi_row_bytes(ti, t->ne[0], &row)) {
        QS_FAIL(err, QS_E_ARG, "tensor %s: rows of %lld values cannot be stored as %s", t->name,
                (long long)t->ne[0], ti->name);
    }
    if (!qsi_mul_size(row, (size_t)rows, &total) || total > INT64_MAX / 2) {
        QS_FAIL(err, QS_E_ARG, "tensor %s: too large", t->name);
    }
    *out = total;
done:
    return st;
}

qs_status qsi_gguf_declare(qsi_gguf_writer *w, const char *name, qsi_type type, int n_dims,
                           const int64_t *ne, qs_err *err) {
    qs_status st = QS_OK;
    bool had = false;
    size_t len = strlen(name);
    void *grown = w->tensors;
    if (w->header_written) QS_FAIL(err, QS_E_STATE, "tensor %s: the header is written", name);
    if (len > NAME_MAX_BYTES || !qsi_name_ok(name, len) || n_dims < 1 ||
        n_dims > QSI_GGUF_MAX_DIMS) {
        QS_FAIL(err, QS_E_ARG, "tensor '%.80s': bad name or number of dimensions", name);
    }
    if (qsi_grow(&grown, &w->cap_tensors, w->n_tensors + 1, sizeof *w->tensors) != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    }
    w->tensors = grown;
    declared *t = &w->tensors[w->n_tensors];
    *t = (declared){.type = type, .n_dims = n_dims, .offset = w->data_bytes};
    t->name = qsi_arena_strndup(&w->arena, name, len);
    if (t->name == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    for (int d = 0; d < n_dims; d++) t->ne[d] = ne[d];
    QS_TRY(shape_bytes(t, &t->bytes, err));
    if (t->bytes > INT64_MAX - ALIGN - w->data_bytes) {
        QS_FAIL(err, QS_E_ARG, "tensor %s: the file would be too large", name);
    }
    if (qsi_names_add(&w->names, t->name, (uint32_t)w->n_tensors, &had) != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    }
    if (had) QS_FAIL(err, QS_E_ARG, "tensor %s is declared twice", name);
    w->data_bytes += (t->bytes + ALIGN - 1) / ALIGN * ALIGN;
    w->n_tensors++;
done:
    if (st != QS_OK) w->st = st;
    return st;
}

static qs_status write_padding(qsi_gguf_writer *w, qs_err *err) {
    static const uint8_t zero[ALIGN];
    size_t over = (size_t)(qsi_writer_pos(w->out) % ALIGN);
    return over != 0 ? qsi_writer_write(w->out, zero, ALIGN - over, err) : QS_OK;
}

/* The header without its keys' values: what stands before them, and the tensors behind them. */
static qs_status put_header(const qsi_gguf_writer *w, qsi_str *front, qsi_str *back) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(front, "GGUF"));
    QS_TRY(add_le(front, 3, 4));
    QS_TRY(add_le(front, w->n_tensors, 8));
    QS_TRY(add_le(front, w->n_pairs, 8));
    for (size_t i = 0; i < w->n_tensors; i++) {
        const declared *t = &w->tensors[i];
        QS_TRY(add_text(back, t->name, strlen(t->name)));
        QS_TRY(add_le(back, (uint64_t)t->n_dims, 4));
        for (int d = 0; d < t->n_dims; d++) QS_TRY(add_le(back, (uint64_t)t->ne[d], 8));
        QS_TRY(add_le(back, (uint64_t)t->type, 4));
        QS_TRY(add_le(back, t->offset, 8));
    }
done:
    return st;
}

/* Opens the file that is written over several runs; *r: what it holds already. */
static qs_status open_part(qsi_gguf_writer *w, const qsi_str *front, const qsi_str *back,
                           qsi_resume *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_origin o = w->origin;
    const qsi_str *const parts[] = {front, &w->pairs, back};
    for (size_t i = 0; i < QSI_COUNT(parts); i++)
        if (parts[i]->len > 0) o.options = qsi_hash_seed(parts[i]->data, parts[i]->len, o.options);
    QS_TRY(qsi_writer_open_part(&w->out, w->part_path, o, r, err));
done:
    return st;
}

/* Writes the header, if it is not there. */
static qs_status begin(qsi_gguf_writer *w, qsi_resume *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str front = {0}, back = {0};
    if (put_header(w, &front, &back) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    if (w->part_path != NULL) QS_TRY(open_part(w, &front, &back, r, err));
    if (r->marks > 0) {
        w->current = r->marks - 1;
    } else {
        QS_TRY(qsi_writer_write(w->out, front.data, front.len, err));
        QS_TRY(qsi_writer_write(w->out, w->pairs.data, w->pairs.len, err));
        QS_TRY(qsi_writer_write(w->out, back.data, back.len, err));
        if (w->n_tensors > 0) QS_TRY(write_padding(w, err));
        if (w->part_path != NULL) QS_TRY(qsi_writer_mark(w->out, err));
    }
    w->header_written = true;
done:
    qsi_str_release(&front);
    qsi_str_release(&back);
    return st;
}

qs_status qsi_gguf_begin(qsi_gguf_writer *w, qsi_resume *r, size_t *first, qs_err *err) {
    qs_status st = QS_OK;
    if (w->st != QS_OK) QS_FAIL(err, w->st, "a key or tensor of the model could not be declared");
    if (w->header_written) QS_FAIL(err, QS_E_STATE, "the header is written already");
    *r = (qsi_resume){0};
    QS_TRY(begin(w, r, err));
    *first = w->current;
done:
    return st;
}

qs_status qsi_gguf_write(qsi_gguf_writer *w, const void *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    const uint8_t *from = p;
    if (w->st != QS_OK) QS_FAIL(err, w->st, "a key or tensor of the model could not be declared");
    qsi_resume nothing = {0};
    QS_CHECK(w->header_written || w->part_path == NULL);
    if (!w->header_written) QS_TRY(begin(w, &nothing, err));
    while (n > 0) {
        if (w->current == w->n_tensors) {
            QS_FAIL(err, QS_E_STATE, "%zu bytes more than the declared tensors hold", n);
        }
        const declared *t = &w->tensors[w->current];
        uint64_t left = t->bytes - w->done;
        size_t now = n < left ? n : (size_t)left;
        QS_TRY(qsi_writer_write(w->out, from, now, err));
        from += now;
        n -= now;
        w->done += now;
        if (w->done == t->bytes) {
            QS_TRY(write_padding(w, err));
            if (w->part_path != NULL) QS_TRY(qsi_writer_mark(w->out, err));
            w->current++;
            w->done = 0;
        }
    }
done:
    return st;
}

/* Writes the header if no tensor byte has, and sees that no byte is missing. */
static qs_status complete(qsi_gguf_writer *w, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_gguf_write(w, NULL, 0, err));
    if (w->current < w->n_tensors) {
        const declared *t = &w->tensors[w->current];
        QS_FAIL(err, QS_E_STATE, "tensor %s: %llu of %llu bytes written", t->name,
                (unsigned long long)w->done, (unsigned long long)t->bytes);
    }
done:
    return st;
}

qs_status qsi_gguf_finish(qsi_gguf_writer **pw, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(complete(*pw, err));
    QS_TRY(qsi_writer_commit(&(*pw)->out, err));
done:
    qsi_gguf_writer_abort(pw);
    return st;
}

qs_status qsi_gguf_finish_open(qsi_gguf_writer **pw, const char *name, qsi_gguf **g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = {.fd = -1};
    QS_TRY(complete(*pw, err));
    QS_TRY(qsi_writer_take_map(&(*pw)->out, &m, err));
    QS_TRY(qsi_gguf_open_map(g, &m, name, err));
done:
    qsi_gguf_writer_abort(pw);
    return st;
}
