/* Reading GGUF: everything in the file is checked here, once, so that nobody else has to.
 *
 * File: magic, version, counts; key-value pairs; tensor infos; padding; data. All numbers are
 * little-endian and read through one cursor. Order of the checks: counts against the bytes present
 * before anything is allocated for them; each pair and info as it is read; then, when all sizes are
 * known, tensors against the file's end and against each other. Memory taken is a small multiple of
 * the header's bytes whatever the header claims.
 * Source: the GGUF format of ggml, versions 2 and 3 (deepseek-facts 4.1). */
#include "fmt/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "fmt/names.h"
#include "sys/file.h"
#include "sys/mapguard.h"

/* Fewest bytes of a pair (key of one letter, type, one byte) and of an info (name of one letter,
 * one dim). */
enum { KV_MIN = 8 + 1 + 4 + 1, INFO_MIN = 8 + 1 + 4 + 8 + 4 + 8 };
enum {
    KEY_MAX = 65535,
    NAME_MAX_BYTES = 64,
    ALIGN_DEFAULT = 32,
    ALIGN_MIN = 8,
    ALIGN_MAX = 1 << 20
};

struct qsi_gguf {
    qsi_map map;
    bool mapped;
    char *path; /* NULL for bytes in memory */
    const uint8_t *data;
    size_t size;
    uint32_t version, alignment;
    qsi_gguf_kv *kv;
    size_t n_kv;
    qsi_gguf_tensor *tensors;
    size_t n_tensors;
    qsi_names kv_names, tensor_names;
    qsi_arena arena;
    qsi_gguf **parts; /* the files after the first of a split model */
    size_t n_parts;
};

/* One opening: the file being built, where reading stands, where the reason of a failure goes. */
typedef struct reading {
    qsi_gguf *g;
    qsi_cursor c;
    qs_err *err;
} reading;

static const uint8_t scalar_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static uint64_t load_le(const uint8_t *p, int n) {
    uint64_t v = 0;
    for (int i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static qs_status too_short(reading *r, const char *what) {
    return qsi_err_at(r->err, QS_E_FORMAT, (int64_t)r->c.fail_pos,
                      "the file ends inside %s at byte %zu: it has %zu bytes (truncated download?)",
                      what, r->c.fail_pos, r->c.size);
}

/* A name as a NUL-terminated copy in the arena. */
static qs_status read_name(reading *r, const char *what, size_t index, size_t max, char **out) {
    qs_status st = QS_OK;
    size_t at = r->c.pos;
    uint64_t n = qsi_cursor_u64(&r->c);
    if (!r->c.failed && n > max) {
        QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)at,
                          "%s %zu: its name claims %llu bytes, at most %zu are allowed", what,
                          index, (unsigned long long)n, max));
    }
    const uint8_t *p = qsi_cursor_bytes(&r->c, n);
    if (p == NULL) {
        QS_TRY(too_short(r, what));
    }
    if (!qsi_name_ok((const char *)p, (size_t)n)) {
        QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)at,
                          "%s %zu: its name is empty, not UTF-8 or holds control characters", what,
                          index));
    }
    *out = qsi_arena_strndup(&r->g->arena, (const char *)p, (size_t)n);
    if (*out == NULL) QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
done:
    return st;
}

static qs_status read_strings(reading *r, qsi_gguf_kv *kv) {
    qs_status st = QS_OK;
    uint64_t *off = qsi_arena_alloc(&r->g->arena, (size_t)kv->count, sizeof *off);
    if (off == NULL) QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading key %s", kv->key);
    for (uint64_t i = 0; i < kv->count; i++) {
        off[i] = (uint64_t)(r->c.data + r->c.pos - kv->data);
        uint64_t n = qsi_cursor_u64(&r->c);
        if (qsi_cursor_bytes(&r->c, n) == NULL) {
            QS_TRY(
                qsi_err_at(r->err, QS_E_FORMAT, (int64_t)r->c.fail_pos,
                           "key %s: string %llu of %llu runs past the end of the file (truncated "
                           "download?)",
                           kv->key, (unsigned long long)i, (unsigned long long)kv->count));
        }
    }
    kv->str_off = off;
done:
    return st;
}

static qs_status check_bools(reading *r, const qsi_gguf_kv *kv) {
    for (uint64_t i = 0; i < kv->count; i++) {
        if (kv->data[i] > 1) {
            return qsi_err_at(r->err, QS_E_FORMAT, (int64_t)(kv->data + i - r->g->data),
                              "key %s: a bool is 0 or 1, not %d", kv->key, kv->data[i]);
        }
    }
    return QS_OK;
}

static qs_status read_array(reading *r, qsi_gguf_kv *kv) {
    qs_status st = QS_OK;
    size_t at = r->c.pos;
    uint32_t elem = qsi_cursor_u32(&r->c);
    kv->count = qsi_cursor_u64(&r->c);
    if (r->c.failed) QS_TRY(too_short(r, kv->key));
    if (elem == QSI_GV_ARR) {
        QS_TRY(qsi_err_at(r->err, QS_E_UNSUPPORTED, (int64_t)at,
                          "key %s: arrays inside arrays are not supported", kv->key));
    }
    if (elem > QSI_GV_F64) {
        QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)at,
                          "key %s: its elements have type %u, which does not exist", kv->key,
                          elem));
    }
    kv->elem = (qsi_gguf_vt)elem;
    kv->data = r->c.data + r->c.pos;
    size_t each = elem == QSI_GV_STR ? 8 : scalar_bytes[elem];
    if (kv->count > qsi_cursor_left(&r->c) / each) {
        QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)at,
                          "key %s claims %llu elements, but only %zu bytes are left in the file "
                          "(truncated download?)", kv->key, (unsigned long long)kv->count,
                          qsi_cursor_left(&r->c)));
    }
    if (kv->count > QSI_GGUF_MAX_ARRAY) {
        QS_TRY(qsi_err_at(r->err, QS_E_LIMIT, (int64_t)at,
                          "key %s has %llu elements, at most %u are supported", kv->key,
                          (unsigned long long)kv->count, QSI_GGUF_MAX_ARRAY));
    }
    if (elem == QSI_GV_STR) {
        QS_TRY(read_strings(r, kv));
    } else {
        (void)qsi_cursor_bytes(&r->c, kv->count * each); /* fits: checked above */
        if (elem == QSI_GV_BOOL) QS_TRY(check_bools(r, kv));
    }
done:
    return st;
}

static qs_status read_value(reading *r, qsi_gguf_kv *kv) {
    qs_status st = QS_OK;
    size_t at = r->c.pos;
    uint32_t type = qsi_cursor_u32(&r->c);
    if (r->c.failed) QS_TRY(too_short(r, kv->key));
    if (type > QSI_GV_F64) {
        QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)at,
                          "key %s has value type %u, which does not exist", kv->key, type));
    }
    kv->type = kv->elem = (qsi_gguf_vt)type;
    kv->count = 1;
    kv->data = r->c.data + r->c.pos;
    if (type == QSI_GV_ARR) {
        QS_TRY(read_array(r, kv));
    } else {
        uint64_t n = type == QSI_GV_STR ? qsi_cursor_u64(&r->c) : scalar_bytes[type];
        (void)qsi_cursor_bytes(&r->c, n);
        if (r->c.failed) QS_TRY(too_short(r, kv->key));
        if (type == QSI_GV_BOOL) QS_TRY(check_bools(r, kv));
    }
    kv->data_bytes = (size_t)(r->c.data + r->c.pos - kv->data);
done:
    return st;
}

static qs_status read_pairs(reading *r, uint64_t n_kv) {
    qs_status st = QS_OK;
    qsi_gguf *g = r->g;
    g->kv = qsi_arena_calloc(&g->arena, (size_t)n_kv, sizeof *g->kv);
    if (g->kv == NULL) QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
    for (size_t i = 0; i < n_kv; i++) {
        qsi_gguf_kv *kv = &g->kv[i];
        bool twice = false;
        char *key = NULL;
        QS_TRY(read_name(r, "key", i, KEY_MAX, &key));
        kv->key = key;
        if (qsi_names_add(&g->kv_names, key, (uint32_t)i, &twice) != QS_OK) {
            QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
        }
        if (twice) QS_FAIL(r->err, QS_E_FORMAT, "key %s stands twice in the file", key);
        QS_TRY(read_value(r, kv));
        g->n_kv = i + 1;
    }
done:
    return st;
}

static qs_status read_alignment(reading *r) {
    qs_status st = QS_OK;
    qsi_gguf *g = r->g;
    const qsi_gguf_kv *kv = qsi_gguf_find(g, "general.alignment");
    g->alignment = ALIGN_DEFAULT;
    if (kv == NULL) goto done;
    if (kv->type != QSI_GV_U32) {
        QS_FAIL(r->err, QS_E_FORMAT, "key general.alignment is not a 32-bit unsigned number");
    }
    uint32_t a = (uint32_t)load_le(kv->data, 4);
    if (a < ALIGN_MIN || a > ALIGN_MAX || (a & (a - 1)) != 0) {
        QS_FAIL(r->err, QS_E_FORMAT,
                "key general.alignment is %u: it must be a power of two from %d to %d", a,
                ALIGN_MIN, ALIGN_MAX);
    }
    g->alignment = a;
done:
    return st;
}

/* Dims and type of an info that has a name: bytes of the tensor without overflow. */
static qs_status read_shape(reading *r, qsi_gguf_tensor *t) {
    qs_status st = QS_OK;
    uint32_t n_dims = qsi_cursor_u32(&r->c);
    if (r->c.failed) QS_TRY(too_short(r, t->name));
    if (n_dims < 1 || n_dims > QSI_GGUF_MAX_DIMS) {
        QS_FAIL(r->err, QS_E_FORMAT, "tensor %s has %u dimensions, 1 to %d are allowed", t->name,
                n_dims, QSI_GGUF_MAX_DIMS);
    }
    t->n_dims = (int)n_dims;
    int64_t rows = 1, total = 0;
    for (uint32_t d = 0; d < QSI_GGUF_MAX_DIMS; d++) {
        uint64_t ne = d < n_dims ? qsi_cursor_u64(&r->c) : 1;
        if (r->c.failed) QS_TRY(too_short(r, t->name));
        if (ne < 1 || ne > INT64_MAX) {
            QS_FAIL(r->err, QS_E_FORMAT, "tensor %s: dimension %u is %llu", t->name, d,
                    (unsigned long long)ne);
        }
        t->ne[d] = (int64_t)ne;
        if (d > 0 && !qsi_mul_i64(rows, t->ne[d], &rows)) {
            QS_FAIL(r->err, QS_E_FORMAT, "tensor %s: the product of its dimensions overflows",
                    t->name);
        }
    }
    int32_t type = (int32_t)qsi_cursor_u32(&r->c);
    uint64_t offset = qsi_cursor_u64(&r->c);
    if (r->c.failed) QS_TRY(too_short(r, t->name));
    const qsi_type_info *ti = qsi_type_get(type);
    if (ti == NULL) {
        QS_FAIL(r->err, QS_E_UNSUPPORTED, "tensor %s has type %d, which this program does not know",
                t->name, (int)type);
    }
    size_t row = 0;
    if (t->ne[0] % ti->block != 0) {
        QS_FAIL(r->err, QS_E_FORMAT, "tensor %s: rows of %lld values are no multiple of %s's %d",
                t->name, (long long)t->ne[0], ti->name, ti->block);
    }
    if (!qsi_mul_i64(rows, t->ne[0], &total) || !qsi_row_bytes(ti, t->ne[0], &row) ||
        !qsi_mul_size(row, (size_t)rows, &t->bytes)) {
        QS_FAIL(r->err, QS_E_FORMAT, "tensor %s: the product of its dimensions overflows", t->name);
    }
    if (offset > INT64_MAX || offset % r->g->alignment != 0) {
        QS_FAIL(r->err, QS_E_FORMAT,
                "tensor %s: its offset %llu is no multiple of the alignment %u", t->name,
                (unsigned long long)offset, r->g->alignment);
    }
    t->type = ti->type;
    t->offset = (size_t)offset; /* from the start of the data; made absolute by place_tensors */
done:
    return st;
}

static qs_status read_infos(reading *r, uint64_t n_tensors) {
    qs_status st = QS_OK;
    qsi_gguf *g = r->g;
    g->tensors = qsi_arena_calloc(&g->arena, (size_t)n_tensors, sizeof *g->tensors);
    if (g->tensors == NULL) QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
    for (size_t i = 0; i < n_tensors; i++) {
        qsi_gguf_tensor *t = &g->tensors[i];
        bool twice = false;
        char *name = NULL;
        QS_TRY(read_name(r, "tensor", i, NAME_MAX_BYTES, &name));
        t->name = name;
        if (qsi_names_add(&g->tensor_names, name, (uint32_t)i, &twice) != QS_OK) {
            QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
        }
        if (twice) QS_FAIL(r->err, QS_E_FORMAT, "tensor %s stands twice in the file", name);
        QS_TRY(read_shape(r, t));
        g->n_tensors = i + 1;
    }
done:
    return st;
}

static int by_offset(const void *a, const void *b) {
    const qsi_gguf_tensor *s = *(const qsi_gguf_tensor *const *)a;
    const qsi_gguf_tensor *t = *(const qsi_gguf_tensor *const *)b;
    return (s->offset > t->offset) - (s->offset < t->offset);
}

/* In the order of their offsets no tensor may begin before the one ahead of it has ended. */
static qs_status check_overlap(reading *r) {
    qs_status st = QS_OK;
    const qsi_gguf *g = r->g;
    const qsi_gguf_tensor **order = qsi_alloc(g->n_tensors, sizeof *order);
    if (order == NULL) QS_FAIL(r->err, QS_E_NOMEM, "out of memory reading the header");
    bool sorted = true;
    for (size_t i = 0; i < g->n_tensors; i++) {
        order[i] = &g->tensors[i];
        sorted = sorted && (i == 0 || order[i - 1]->offset <= order[i]->offset);
    }
    if (!sorted) qsort(order, g->n_tensors, sizeof *order, by_offset);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const qsi_gguf_tensor *a = order[i - 1], *b = order[i];
        if (b->offset - a->offset < a->bytes) {
            QS_FAIL(r->err, QS_E_FORMAT, "tensor %s begins at %zu, inside %s, which ends at %zu",
                    b->name, b->offset, a->name, a->offset + a->bytes);
        }
    }
done:
    qsi_free(order);
    return st;
}

/* Makes offsets absolute and checks every tensor against the file. */
static qs_status place_tensors(reading *r) {
    qs_status st = QS_OK;
    qsi_gguf *g = r->g;
    size_t base = 0;
    if (g->n_tensors == 0) goto done;
    if (!qsi_add_size(r->c.pos, g->alignment - 1, &base)) {
        QS_FAIL(r->err, QS_E_FORMAT, "the header is too long");
    }
    base -= base % g->alignment;
    for (size_t i = 0; i < g->n_tensors; i++) {
        qsi_gguf_tensor *t = &g->tensors[i];
        size_t begin = 0, end = 0;
        if (!qsi_add_size(base, t->offset, &begin) || !qsi_add_size(begin, t->bytes, &end)) {
            QS_FAIL(r->err, QS_E_FORMAT, "tensor %s: its offset and size overflow", t->name);
        }
        if (end > g->size) {
            QS_TRY(qsi_err_at(r->err, QS_E_FORMAT, (int64_t)begin,
                              "tensor %s ends at %zu, the file has %zu bytes (truncated download?)",
                              t->name, end, g->size));
        }
        t->offset = begin;
        t->data = g->data + begin;
    }
    QS_TRY(check_overlap(r));
done:
    return st;
}

/* What stands where a model was expected. */
static qs_status wrong_magic(reading *r) {
    const uint8_t *p = r->g->data;
    size_t n = r->g->size;
    const char *hint = "";
    if (n >= 8 && memcmp(p, "version ", 8) == 0) {
        hint = ": it is a Git LFS pointer; fetch the file itself";
    } else if (n >= 5 && (memcmp(p, "<!DOC", 5) == 0 || memcmp(p, "<html", 5) == 0)) {
        hint = ": it is a web page";
    } else if (n >= 4 && (memcmp(p, "lmgg", 4) == 0 || memcmp(p, "fmgg", 4) == 0 ||
                          memcmp(p, "tjgg", 4) == 0)) {
        hint = ": it is an old GGML file; convert the original model again";
    } else if (n >= 4 && memcmp(p, "FUGG", 4) == 0) {
        hint = ": its bytes are in big-endian order; convert it to little-endian";
    } else if (n >= 2 && memcmp(p, "PK", 2) == 0) {
        hint = ": it is a zip archive (of PyTorch? name the folder it lies in, with config.json)";
    }
    return qsi_err_at(r->err, QS_E_FORMAT, 0, "not a GGUF file%s", hint);
}

static qs_status read_header(reading *r) {
    qs_status st = QS_OK;
    const uint8_t *magic = qsi_cursor_bytes(&r->c, 4);
    if (r->g->size == 0) QS_FAIL(r->err, QS_E_FORMAT, "the file is empty");
    if (magic == NULL || memcmp(magic, "GGUF", 4) != 0) QS_TRY(wrong_magic(r));
    uint32_t version = qsi_cursor_u32(&r->c);
    uint64_t n_tensors = qsi_cursor_u64(&r->c), n_kv = qsi_cursor_u64(&r->c);
    if (version != 0 && (version & 0xffff) == 0) {
        QS_FAIL(r->err, QS_E_UNSUPPORTED,
                "a big-endian GGUF file; convert it to little-endian (gguf-convert-endian)");
    }
    if (version == 1) {
        QS_FAIL(r->err, QS_E_UNSUPPORTED,
                "GGUF version 1 is no longer read; convert the original model again");
    }
    if (r->c.failed) QS_TRY(too_short(r, "the header"));
    if (version != 2 && version != 3) {
        QS_FAIL(r->err, QS_E_UNSUPPORTED, "GGUF version %u; this program reads 2 and 3", version);
    }
    r->g->version = version;
    size_t left = qsi_cursor_left(&r->c);
    if (n_kv > left / KV_MIN || n_tensors > left / INFO_MIN) {
        QS_FAIL(r->err, QS_E_FORMAT,
                "the header claims %llu keys and %llu tensors, the file has %zu bytes (truncated "
                "download?)", (unsigned long long)n_kv, (unsigned long long)n_tensors, r->g->size);
    }
    if (n_kv > QSI_GGUF_MAX_KV || n_tensors > QSI_GGUF_MAX_TENSORS) {
        QS_FAIL(r->err, QS_E_LIMIT, "%llu keys and %llu tensors; at most %d and %d are supported",
                (unsigned long long)n_kv, (unsigned long long)n_tensors, QSI_GGUF_MAX_KV,
                QSI_GGUF_MAX_TENSORS);
    }
    QS_TRY(read_pairs(r, n_kv));
    QS_TRY(read_alignment(r));
    QS_TRY(read_infos(r, n_tensors));
    QS_TRY(place_tensors(r));
done:
    return st;
}

static qs_status parse(qsi_gguf *g, qs_err *err) {
    reading r = {.g = g, .err = err};
    qsi_cursor_init(&r.c, g->data, g->size);
    return read_header(&r);
}

qs_status qsi_gguf_open_mem(qsi_gguf **out, const void *data, size_t size, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = qsi_calloc(1, sizeof *g);
    if (g == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory opening a model file");
    g->data = data;
    g->size = size;
    QS_TRY(parse(g, err));
    *out = g;
    g = NULL;
done:
    qsi_gguf_close(&g);
    return st;
}

qs_status qsi_gguf_open_map(qsi_gguf **out, qsi_map *m, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = qsi_calloc(1, sizeof *g);
    if (g == NULL || (g->path = qsi_strdup(name)) == NULL) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", name);
    }
    g->map = *m;
    *m = (qsi_map){.fd = -1};
    g->mapped = true;
    g->data = g->map.data;
    g->size = g->map.size;
    st = parse(g, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot open '%s'", name);
        goto done;
    }
    *out = g;
    g = NULL;
done:
    qsi_map_close(m);
    qsi_gguf_close(&g);
    return st;
}

static qs_status open_file(qsi_gguf **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = {.fd = -1};
    QS_TRY(qsi_map_open(&m, path, err));
    QS_TRY(qsi_gguf_open_map(out, &m, path, err));
done:
    return st;
}

/* ---- models in several files: NAME-00001-of-0000N.gguf, ... ---- */

enum { MAX_PARTS = 1024, PART_NAME = 20 /* "-00001-of-00002.gguf" */ };

typedef struct split {
    int64_t no, count, tensors; /* count 1: one file */
} split;

static qs_status split_of(const qsi_gguf *g, split *out, qs_err *err) {
    qs_status st = QS_OK;
    *out = (split){.count = 1};
    if (qsi_gguf_find(g, "split.count") == NULL) goto done;
    QS_TRY(qsi_gguf_i64(g, "split.count", &out->count, err));
    if (out->count == 0 || out->count == 1) {
        *out = (split){.count = 1};
        goto done;
    }
    QS_TRY(qsi_gguf_i64(g, "split.no", &out->no, err));
    QS_TRY(qsi_gguf_i64(g, "split.tensors.count", &out->tensors, err));
    if (out->count < 1 || out->count > MAX_PARTS || out->no < 0 || out->no >= out->count ||
        out->tensors < 0 || out->tensors > QSI_GGUF_MAX_TENSORS) {
        QS_FAIL(err, QS_E_FORMAT,
                "split.no %lld of split.count %lld with %lld tensors: at most %d files",
                (long long)out->no, (long long)out->count, (long long)out->tensors, MAX_PARTS);
    }
done:
    return st;
}

/* path with the number of part `no` instead of its own; QS_E_FORMAT when path is not named so. */
static qs_status part_path(const char *path, const split *own, int64_t no, char **out,
                           qs_err *err) {
    qs_status st = QS_OK;
    char tail[PART_NAME + 16];
    size_t n = strlen(path);
    snprintf(tail, sizeof tail, "-%05lld-of-%05lld.gguf", (long long)own->no + 1,
             (long long)own->count);
    if (n < PART_NAME || strcmp(path + n - PART_NAME, tail) != 0) {
        QS_FAIL(err, QS_E_FORMAT,
                "'%s' is part %lld of %lld of a model: its name must end in '%s', and the other parts "
                "must lie beside it", path, (long long)own->no + 1, (long long)own->count, tail);
    }
    *out = qsi_strdup(path);
    if (*out == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", path);
    snprintf(tail, sizeof tail, "-%05lld-of-%05lld.gguf", (long long)no + 1,
             (long long)own->count);
    memcpy(*out + n - PART_NAME, tail, PART_NAME);
done:
    return st;
}

/* The tensors of the last part join those of g; names and addresses stay the part's. */
static qs_status take_tensors(qsi_gguf *g, const qsi_gguf *part, qsi_gguf_tensor *all,
                              qs_err *err) {
    for (size_t i = 0; i < part->n_tensors; i++) {
        bool twice = false;
        all[g->n_tensors] = part->tensors[i];
        if (qsi_names_add(&g->tensor_names, part->tensors[i].name, (uint32_t)g->n_tensors,
                          &twice) != QS_OK)
            return qsi_err_set(err, QS_E_NOMEM, "out of memory opening '%s'", part->path);
        if (twice)
            return qsi_err_set(err, QS_E_FORMAT, "tensor %s of '%s' stands in an earlier part too",
                               part->tensors[i].name, part->path);
        g->n_tensors++;
    }
    return QS_OK;
}

static qs_status open_part(qsi_gguf *g, const split *own, int64_t no, qsi_gguf_tensor *all,
                           qs_err *err) {
    qs_status st = QS_OK;
    split s;
    char *path = NULL;
    QS_TRY(part_path(g->path, own, no, &path, err));
    st = open_file(&g->parts[g->n_parts], path, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "part %lld of %lld", (long long)no + 1, (long long)own->count);
        goto done;
    }
    const qsi_gguf *part = g->parts[g->n_parts++];
    QS_TRY(split_of(part, &s, err));
    if (s.no != no || s.count != own->count || s.tensors != own->tensors) {
        QS_FAIL(err, QS_E_FORMAT,
                "'%s' does not belong to '%s': it says part %lld of %lld with %lld tensors, not %lld of "
                "%lld with %lld", path, g->path, (long long)s.no + 1, (long long)s.count,
                (long long)s.tensors, (long long)no + 1, (long long)own->count,
                (long long)own->tensors);
    }
    if ((int64_t)(part->n_tensors + g->n_tensors) > own->tensors) {
        QS_FAIL(err, QS_E_FORMAT, "the parts up to '%s' hold more than the %lld tensors they name",
                path, (long long)own->tensors);
    }
    QS_TRY(take_tensors(g, part, all, err));
done:
    qsi_free(path);
    return st;
}

/* Opens the other parts of a first part. */
static qs_status open_parts(qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    split own;
    char *first = NULL;
    QS_TRY(split_of(g, &own, err));
    if (own.count == 1) goto done;
    if (own.no != 0) {
        QS_TRY(part_path(g->path, &own, 0, &first, err));
        QS_FAIL(err, QS_E_ARG, "'%s' is part %lld of %lld of a model: name the first part, '%s'",
                g->path, (long long)own.no + 1, (long long)own.count, first);
    }
    if ((int64_t)g->n_tensors > own.tensors) {
        QS_FAIL(err, QS_E_FORMAT, "'%s' holds %zu tensors, more than the %lld of all its parts",
                g->path, g->n_tensors, (long long)own.tensors);
    }
    qsi_gguf_tensor *all =
        qsi_arena_calloc(&g->arena, (size_t)own.tensors + 1, sizeof *all);
    g->parts = qsi_calloc((size_t)own.count, sizeof *g->parts);
    if (all == NULL || g->parts == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", g->path);
    if (g->n_tensors > 0) memcpy(all, g->tensors, g->n_tensors * sizeof *all);
    g->tensors = all;
    for (int64_t no = 1; no < own.count; no++) QS_TRY(open_part(g, &own, no, all, err));
    if ((int64_t)g->n_tensors != own.tensors) {
        QS_FAIL(err, QS_E_FORMAT, "the %lld parts of '%s' hold %zu tensors, they name %lld",
                (long long)own.count, g->path, g->n_tensors, (long long)own.tensors);
    }
done:
    qsi_free(first);
    return st;
}

qs_status qsi_gguf_open(qsi_gguf **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    QS_TRY(open_file(&g, path, err));
    QS_TRY(open_parts(g, err));
    *out = g;
    g = NULL;
done:
    qsi_gguf_close(&g);
    return st;
}

void qsi_gguf_close(qsi_gguf **pg) {
    qsi_gguf *g = *pg;
    if (g == NULL) return;
    for (size_t i = 0; i < g->n_parts; i++) qsi_gguf_close(&g->parts[i]);
    qsi_free(g->parts);
    if (g->mapped) qsi_map_close(&g->map);
    qsi_names_release(&g->kv_names);
    qsi_names_release(&g->tensor_names);
    qsi_arena_release(&g->arena);
    qsi_free(g->path);
    qsi_free(g);
    *pg = NULL;
}

uint32_t qsi_gguf_version(const qsi_gguf *g) { return g->version; }
uint32_t qsi_gguf_alignment(const qsi_gguf *g) { return g->alignment; }
size_t qsi_gguf_size(const qsi_gguf *g) {
    size_t n = g->size; /* of files that are mapped: the sum fits */
    for (size_t i = 0; i < g->n_parts; i++) n += g->parts[i]->size;
    return n;
}
const char *qsi_gguf_path(const qsi_gguf *g) { return g->path != NULL ? g->path : "(memory)"; }
size_t qsi_gguf_n_kv(const qsi_gguf *g) { return g->n_kv; }
size_t qsi_gguf_n_tensors(const qsi_gguf *g) { return g->n_tensors; }

const qsi_gguf_kv *qsi_gguf_kv_at(const qsi_gguf *g, size_t i) {
    QS_CHECK(i < g->n_kv);
    return &g->kv[i];
}

const qsi_gguf_kv *qsi_gguf_find(const qsi_gguf *g, const char *key) {
    int64_t i = qsi_names_find(&g->kv_names, key);
    return i >= 0 ? &g->kv[i] : NULL;
}

const qsi_gguf_tensor *qsi_gguf_tensor_at(const qsi_gguf *g, size_t i) {
    QS_CHECK(i < g->n_tensors);
    return &g->tensors[i];
}

const qsi_gguf_tensor *qsi_gguf_tensor_find(const qsi_gguf *g, const char *name) {
    int64_t i = qsi_names_find(&g->tensor_names, name);
    return i >= 0 ? &g->tensors[i] : NULL;
}

void qsi_gguf_drop_bytes(const qsi_gguf *g, const void *p, size_t n) {
    uintptr_t at = (uintptr_t)p, base = (uintptr_t)g->data;
    if (g->mapped && at >= base && at - base < g->size) qsi_map_drop(&g->map, at - base, n);
    for (size_t i = 0; i < g->n_parts; i++) qsi_gguf_drop_bytes(g->parts[i], p, n);
}

int qsi_gguf_fd(const qsi_gguf *g) { return g->mapped && g->n_parts == 0 ? g->map.fd : -1; }
const uint8_t *qsi_gguf_data(const qsi_gguf *g) { return g->data; }

const qsi_map *qsi_gguf_map(const qsi_gguf *g, size_t i) {
    if (i > 0) return i <= g->n_parts ? qsi_gguf_map(g->parts[i - 1], 0) : NULL;
    return g->mapped ? &g->map : NULL;
}

uint64_t qsi_gguf_stamp(const qsi_gguf *g) {
    uint64_t stamp = 0;
    const qsi_map *m = NULL;
    for (size_t i = 0; (m = qsi_gguf_map(g, i)) != NULL; i++) stamp = qsi_map_stamp(m, stamp);
    return stamp;
}

void qsi_gguf_random(const qsi_gguf *g) {
    if (g->mapped) qsi_map_random(&g->map);
    for (size_t i = 0; i < g->n_parts; i++) qsi_gguf_random(g->parts[i]);
}

qs_status qsi_gguf_intact(const qsi_gguf *g, qs_err *err) {
    qs_status st = g->mapped ? qsi_map_intact(g->map.data, err) : QS_OK;
    for (size_t i = 0; i < g->n_parts && st == QS_OK; i++) st = qsi_gguf_intact(g->parts[i], err);
    return st;
}

void qsi_gguf_drop(const qsi_gguf *g, const qsi_gguf_tensor *t) {
    qsi_gguf_drop_bytes(g, t->data, t->bytes);
}

/* ---- values ---- */

const char *qsi_gguf_vt_name(qsi_gguf_vt t) {
    static const char *const names[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool",
                                        "string", "array", "u64", "i64", "f64"};
    return (unsigned)t < QSI_COUNT(names) ? names[t] : "?";
}

static bool is_integer(qsi_gguf_vt t) {
    return t <= QSI_GV_I32 || t == QSI_GV_U64 || t == QSI_GV_I64;
}

static bool is_float(qsi_gguf_vt t) { return t == QSI_GV_F32 || t == QSI_GV_F64; }

/* False when the value is above INT64_MAX. */
static bool integer_at(const uint8_t *p, qsi_gguf_vt t, int64_t *out) {
    int n = scalar_bytes[t];
    uint64_t v = load_le(p, n);
    bool is_signed = t == QSI_GV_I8 || t == QSI_GV_I16 || t == QSI_GV_I32 || t == QSI_GV_I64;
    if (!is_signed) {
        if (v > INT64_MAX) return false;
        *out = (int64_t)v;
        return true;
    }
    uint64_t top = (uint64_t)1 << (8 * n - 1);
    v = (v ^ top) - top; /* sign extension */
    memcpy(out, &v, sizeof v);
    return true;
}

static double float_at(const uint8_t *p, qsi_gguf_vt t) {
    if (t == QSI_GV_F64) {
        uint64_t u = load_le(p, 8);
        double d;
        memcpy(&d, &u, sizeof d);
        return d;
    }
    uint32_t u = (uint32_t)load_le(p, 4);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static qs_status wrong_type(const qsi_gguf_kv *kv, const char *want, qs_err *err) {
    return qsi_err_set(err, QS_E_FORMAT, "key %s is of type %s, not %s", kv->key,
                       qsi_gguf_vt_name(kv->type), want);
}

static qs_status missing(const char *key, qs_err *err) {
    return qsi_err_set(err, QS_E_NOTFOUND, "key %s is missing", key);
}

qs_status qsi_gguf_i64(const qsi_gguf *g, const char *key, int64_t *out, qs_err *err) {
    const qsi_gguf_kv *kv = qsi_gguf_find(g, key);
    if (kv == NULL) return missing(key, err);
    if (!is_integer(kv->type)) return wrong_type(kv, "an integer", err);
    if (!integer_at(kv->data, kv->type, out)) {
        return qsi_err_set(err, QS_E_FORMAT, "key %s is too large", key);
    }
    return QS_OK;
}

qs_status qsi_gguf_f64(const qsi_gguf *g, const char *key, double *out, qs_err *err) {
    const qsi_gguf_kv *kv = qsi_gguf_find(g, key);
    if (kv == NULL) return missing(key, err);
    if (!is_float(kv->type)) return wrong_type(kv, "a float", err);
    *out = float_at(kv->data, kv->type);
    return QS_OK;
}

qs_status qsi_gguf_bool(const qsi_gguf *g, const char *key, bool *out, qs_err *err) {
    const qsi_gguf_kv *kv = qsi_gguf_find(g, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != QSI_GV_BOOL) return wrong_type(kv, "a bool", err);
    *out = kv->data[0] != 0;
    return QS_OK;
}

qs_status qsi_gguf_str(const qsi_gguf *g, const char *key, qsi_slice *out, qs_err *err) {
    const qsi_gguf_kv *kv = qsi_gguf_find(g, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != QSI_GV_STR) return wrong_type(kv, "a string", err);
    *out = (qsi_slice){(const char *)kv->data + 8, kv->data_bytes - 8};
    return QS_OK;
}

qsi_slice qsi_gguf_arr_str(const qsi_gguf_kv *kv, uint64_t i) {
    QS_CHECK(kv->type == QSI_GV_ARR && kv->elem == QSI_GV_STR && i < kv->count);
    const uint8_t *p = kv->data + kv->str_off[i];
    return (qsi_slice){(const char *)p + 8, (size_t)load_le(p, 8)};
}

int64_t qsi_gguf_arr_i64(const qsi_gguf_kv *kv, uint64_t i) {
    QS_CHECK(kv->type == QSI_GV_ARR && i < kv->count);
    QS_CHECK(is_integer(kv->elem) || kv->elem == QSI_GV_BOOL);
    const uint8_t *p = kv->data + i * scalar_bytes[kv->elem];
    int64_t v = INT64_MAX;
    (void)integer_at(p, kv->elem, &v);
    return v;
}

double qsi_gguf_arr_f64(const qsi_gguf_kv *kv, uint64_t i) {
    QS_CHECK(kv->type == QSI_GV_ARR && i < kv->count);
    if (is_float(kv->elem)) return float_at(kv->data + i * scalar_bytes[kv->elem], kv->elem);
    return (double)qsi_gguf_arr_i64(kv, i);
}
