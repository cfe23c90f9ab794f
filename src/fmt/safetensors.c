/* Two kinds of file make a set. safetensors: u64 header length, a JSON header, data. The header names
 * each tensor with dtype, shape and [begin, end) inside the data. As the format's reference reader
 * does, holes and overlaps are refused: in the order of their offsets each tensor begins where the
 * one before ended, the first at 0, and the last ends with the file. PyTorch's zip: fmt/torchzip.h;
 * its tensors may share bytes (tied weights do). */
#include "fmt/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "base/str.h"
#include "fmt/json.h"
#include "fmt/names.h"
#include "fmt/torchzip.h"
#include "sys/file.h"
#include "sys/mapguard.h"

/* What a folder may hold, best first. */
static const struct layout {
    const char *index, *single;
} layouts[] = {
    {"model.safetensors.index.json", "model.safetensors"},
    {"pytorch_model.bin.index.json", "pytorch_model.bin"},
};
enum { NAME_BYTES_MAX = 512 };
/* A tensor takes about 8 values (its object, two arrays, dims, offsets): 130,000 tensors a file,
 * and never more than some 60 MB of JSON tree. */
#define HEADER_LIMITS ((qsi_json_limits){QSI_ST_MAX_HEADER, (size_t)1 << 20})
#define INDEX_LIMITS ((qsi_json_limits){(size_t)64 << 20, (size_t)QSI_ST_MAX_TENSORS * 2})

static const struct dtype {
    const char *name;
    int bytes;
    qsi_type type;
} dtypes[] = {
    {"F32", 4, QSI_F32},   {"F16", 2, QSI_F16},            {"BF16", 2, QSI_BF16},
    {"F64", 8, QSI_F64},   {"I8", 1, QSI_I8},              {"I16", 2, QSI_I16},
    {"I32", 4, QSI_I32},   {"I64", 8, QSI_I64},            {"U8", 1, QSI_TYPE_NONE},
    {"U16", 2, QSI_TYPE_NONE}, {"U32", 4, QSI_TYPE_NONE},  {"U64", 8, QSI_TYPE_NONE},
    {"BOOL", 1, QSI_TYPE_NONE}, {"F8_E4M3", 1, QSI_TYPE_NONE}, {"F8_E5M2", 1, QSI_TYPE_NONE},
    {"F8_E8M0", 1, QSI_TYPE_NONE}, {"C64", 8, QSI_TYPE_NONE},
};

typedef struct shard {
    qsi_map map;
    bool mapped;
    const char *name; /* file name, for messages */
    const uint8_t *data;
    size_t size;
} shard;

struct qsi_st {
    shard *shards;
    size_t n_shards, cap_shards;
    qsi_st_tensor *tensors;
    size_t n_tensors, cap_tensors;
    qsi_names names;
    qsi_arena arena;
};

static qs_status no_memory(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "out of memory reading safetensors");
}

/* ---- one file ---- */

static const struct dtype *find_dtype(const char *name) {
    for (size_t i = 0; i < QSI_COUNT(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0) return &dtypes[i];
    }
    return NULL;
}

static qs_status read_shape(qsi_st_tensor *t, const qsi_json *shape, int bytes, qs_err *err) {
    qs_status st = QS_OK;
    int64_t n = 1, total = 0;
    if (qsi_json_kind_of(shape) != QSI_JSON_ARRAY || qsi_json_size(shape) > QSI_ST_MAX_DIMS) {
        QS_FAIL(err, QS_E_FORMAT, "its shape is no list of at most %d numbers", QSI_ST_MAX_DIMS);
    }
    t->n_dims = (int)qsi_json_size(shape);
    for (int d = 0; d < t->n_dims; d++) {
        int64_t v = 0;
        if (!qsi_json_as_i64(qsi_json_at(shape, (size_t)d), &v) || v < 0) {
            QS_FAIL(err, QS_E_FORMAT, "dimension %d of its shape is no size", d);
        }
        if (!qsi_mul_i64(n, v, &n)) QS_FAIL(err, QS_E_FORMAT, "its shape overflows");
        t->shape[d] = v;
    }
    if (!qsi_mul_i64(n, bytes, &total)) QS_FAIL(err, QS_E_FORMAT, "its shape overflows");
    t->n = n;
    t->bytes = (size_t)total;
done:
    return st;
}

/* The members of one tensor's object; data is set from the offsets. */
static qs_status read_tensor(qsi_st_tensor *t, const qsi_json *j, const uint8_t *data, size_t size,
                             qs_err *err) {
    qs_status st = QS_OK;
    const char *name = NULL;
    int64_t begin = -1, end = -1;
    QS_TRY(qsi_json_str(j, "dtype", &name, err));
    const struct dtype *dt = find_dtype(name);
    if (dt == NULL) {
        bool fit = strlen(name) <= 32 && qsi_name_ok(name, strlen(name));
        QS_FAIL(err, QS_E_UNSUPPORTED, "its dtype %s is not known", fit ? name : "");
    }
    t->dtype = dt->name;
    t->type = dt->type;
    QS_TRY(read_shape(t, qsi_json_get(j, "shape"), dt->bytes, err));
    const qsi_json *off = qsi_json_get(j, "data_offsets");
    if (qsi_json_kind_of(off) != QSI_JSON_ARRAY || qsi_json_size(off) != 2 ||
        !qsi_json_as_i64(qsi_json_at(off, 0), &begin) ||
        !qsi_json_as_i64(qsi_json_at(off, 1), &end) || begin < 0 || end < begin) {
        QS_FAIL(err, QS_E_FORMAT, "its data_offsets are not [begin, end]");
    }
    if ((uint64_t)end > size) {
        QS_FAIL(err, QS_E_FORMAT,
                "it ends at byte %" PRId64 " of the data, the file has %zu (truncated download?)",
                end, size);
    }
    if ((uint64_t)(end - begin) != t->bytes) {
        QS_FAIL(err, QS_E_FORMAT, "its offsets span %" PRId64 " bytes, its shape needs %zu",
                end - begin, t->bytes);
    }
    t->data = data + begin;
done:
    return st;
}

/* Enters t under a name of len bytes. */
static qs_status put_tensor(qsi_st *s, const char *name, size_t len, qsi_st_tensor *t,
                            qs_err *err) {
    qs_status st = QS_OK;
    bool had = false;
    void *grown = s->tensors;
    t->name = qsi_arena_strndup(&s->arena, name, len);
    if (t->name == NULL ||
        qsi_grow(&grown, &s->cap_tensors, s->n_tensors + 1, sizeof *s->tensors) != QS_OK) {
        QS_TRY(no_memory(err));
    }
    s->tensors = grown;
    if (qsi_names_add(&s->names, t->name, (uint32_t)s->n_tensors, &had) != QS_OK) {
        QS_TRY(no_memory(err));
    }
    if (had) {
        bool same = s->tensors[qsi_names_find(&s->names, t->name)].shard == t->shard;
        QS_FAIL(err, QS_E_FORMAT, "tensor %s %s", t->name,
                same ? "is there twice" : "stands in two files");
    }
    s->tensors[s->n_tensors++] = *t;
done:
    return st;
}

static qs_status check_name(const qsi_st *s, const char *name, size_t len, qs_err *err) {
    if (len > NAME_BYTES_MAX || !qsi_name_ok(name, len)) {
        return qsi_err_set(err, QS_E_FORMAT,
                           "tensor %zu: its name is empty, too long or holds control characters",
                           s->n_tensors);
    }
    if (s->n_tensors >= QSI_ST_MAX_TENSORS)
        return qsi_err_set(err, QS_E_LIMIT, "more than %d tensors", QSI_ST_MAX_TENSORS);
    return QS_OK;
}

static qs_status add_tensor(qsi_st *s, const char *name, const qsi_json *j, const uint8_t *data,
                            size_t size, qs_err *err) {
    qs_status st = QS_OK;
    qsi_st_tensor t = {.shard = (int)s->n_shards - 1};
    size_t len = strlen(name);
    QS_TRY(check_name(s, name, len, err));
    st = read_tensor(&t, j, data, size, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "tensor %s", name);
        goto done;
    }
    QS_TRY(put_tensor(s, name, len, &t, err));
done:
    return st;
}

static qs_status add_torch_tensor(void *user, const qsi_torch_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    qsi_st *s = user;
    qsi_st_tensor out = {.shard = (int)s->n_shards - 1, .dtype = t->dtype, .type = t->type,
                         .n_dims = t->n_dims, .n = t->n, .bytes = t->bytes, .data = t->data};
    QS_TRY(check_name(s, t->name.p, t->name.n, err));
    for (int d = 0; d < t->n_dims; d++) out.shape[d] = t->shape[d];
    QS_TRY(put_tensor(s, t->name.p, t->name.n, &out, err));
done:
    return st;
}

static int by_data(const void *a, const void *b) {
    const qsi_st_tensor *s = *(const qsi_st_tensor *const *)a;
    const qsi_st_tensor *t = *(const qsi_st_tensor *const *)b;
    if (s->data != t->data) return s->data < t->data ? -1 : 1;
    return (s->bytes > t->bytes) - (s->bytes < t->bytes); /* empty ones first */
}

/* Tensors from `first` on tile [data, data + size). */
static qs_status check_tiling(const qsi_st *s, size_t first, const uint8_t *data, size_t size,
                              qs_err *err) {
    qs_status st = QS_OK;
    size_t n = s->n_tensors - first;
    const uint8_t *at = data;
    const qsi_st_tensor **order = qsi_alloc(n, sizeof *order);
    if (order == NULL) QS_TRY(no_memory(err));
    for (size_t i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    if (n > 0) qsort(order, n, sizeof *order, by_data);
    for (size_t i = 0; i < n; i++) {
        const qsi_st_tensor *t = order[i];
        if (t->data != at) {
            QS_FAIL(err, QS_E_FORMAT,
                    "tensor %s begins at byte %td of the data, the one before it ends "
                    "at %td: %s",
                    t->name, t->data - data, at - data,
                    t->data < at ? "they overlap" : "there is a hole");
        }
        at += t->bytes;
    }
    if (at != data + size) {
        QS_FAIL(err, QS_E_FORMAT, "the last tensor ends at byte %td of the data, the file has %zu",
                at - data, size);
    }
done:
    qsi_free(order);
    return st;
}

/* What stands where a header was expected. */
static qs_status wrong_start(const uint8_t *p, size_t n, qs_err *err) {
    static const char legacy[] = "\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8"; /* torch's number */
    const char *hint = "";
    if (n >= 8 && memcmp(p, "version ", 8) == 0) {
        hint = ": it is a Git LFS pointer; fetch the file itself";
    } else if (n >= 12 && p[0] == 0x80 && memcmp(p + 2, legacy, 10) == 0) {
        hint = ": it is a PyTorch file of before version 1.6; load and save it with a newer PyTorch";
    } else if (n >= 4 && memcmp(p, "GGUF", 4) == 0) {
        hint = ": it is a GGUF file";
    }
    return qsi_err_at(err, QS_E_FORMAT, 0, "not a safetensors file%s", hint);
}

/* The shard that was added last. */
static qs_status read_shard(qsi_st *s, qs_err *err) {
    qs_status st = QS_OK;
    const shard *sh = &s->shards[s->n_shards - 1];
    qsi_cursor c;
    qsi_json *root = NULL;
    const char *key = NULL;
    const qsi_json *value = NULL;
    size_t first = s->n_tensors;
    if (qsi_is_zip(sh->data, sh->size))
        return qsi_torch_read(sh->data, sh->size, add_torch_tensor, s, err);
    qsi_cursor_init(&c, sh->data, sh->size);
    uint64_t n = qsi_cursor_u64(&c);
    if (c.failed) QS_FAIL(err, QS_E_FORMAT, "the file has %zu bytes, too few", sh->size);
    if (n < 2 || n > QSI_ST_MAX_HEADER || (c.pos < sh->size && sh->data[c.pos] != '{')) {
        QS_TRY(wrong_start(sh->data, sh->size, err));
    }
    const uint8_t *text = qsi_cursor_bytes(&c, n);
    if (text == NULL) {
        QS_FAIL(err, QS_E_FORMAT,
                "its header claims %" PRIu64 " bytes, the file has %zu (truncated download?)", n,
                sh->size);
    }
    QS_TRY(qsi_json_parse(&root, (const char *)text, (size_t)n, HEADER_LIMITS, err));
    if (qsi_json_kind_of(root) != QSI_JSON_OBJECT)
        QS_FAIL(err, QS_E_FORMAT, "its header is no object");
    for (void *it = NULL; (it = qsi_json_next(root, it, &key, &value)) != NULL;) {
        if (strcmp(key, "__metadata__") == 0) continue;
        QS_TRY(add_tensor(s, key, value, sh->data + c.pos, sh->size - c.pos, err));
    }
    QS_TRY(check_tiling(s, first, sh->data + c.pos, sh->size - c.pos, err));
done:
    qsi_json_free(&root);
    return st;
}

/* A new last shard, empty; its map is closed with the set. */
static qs_status push_shard(qsi_st *s, const char *name, shard **out, qs_err *err) {
    qs_status st = QS_OK;
    void *grown = s->shards;
    char *copy = qsi_arena_strndup(&s->arena, name, strlen(name));
    if (copy == NULL ||
        qsi_grow(&grown, &s->cap_shards, s->n_shards + 1, sizeof *s->shards) != QS_OK) {
        QS_TRY(no_memory(err));
    }
    s->shards = grown;
    *out = &s->shards[s->n_shards++];
    **out = (shard){.name = copy};
done:
    return st;
}

static qs_status open_shard(qsi_st *s, const char *path, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    shard *sh = NULL;
    QS_TRY(push_shard(s, name, &sh, err));
    QS_TRY(qsi_map_open(&sh->map, path, err));
    sh->mapped = true;
    sh->data = sh->map.data;
    sh->size = sh->map.size;
    st = read_shard(s, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot open '%s'", path);
done:
    return st;
}

/* ---- index ---- */

/* A plain file name: the index must not lead out of its folder. */
static bool plain_file_name(const char *z) {
    size_t n = strlen(z);
    return qsi_name_ok(z, n) && n < 256 && z[0] != '.' && strchr(z, '/') == NULL &&
           strchr(z, '\\') == NULL;
}

static qs_status open_listed(qsi_st *s, const char *folder, const char *index, const qsi_json *map,
                             qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qsi_names files = {0};
    const char *key = NULL;
    const qsi_json *value = NULL;
    for (void *it = NULL; (it = qsi_json_next(map, it, &key, &value)) != NULL;) {
        const char *file = qsi_json_as_str(value);
        bool had = false;
        if (file == NULL || !plain_file_name(file)) {
            QS_FAIL(err, QS_E_FORMAT, "'%s' names a file that is no plain file name", index);
        }
        if (qsi_names_add(&files, file, (uint32_t)s->n_shards, &had) != QS_OK)
            QS_TRY(no_memory(err));
        if (had) continue;
        if (s->n_shards >= QSI_ST_MAX_SHARDS) {
            QS_FAIL(err, QS_E_LIMIT, "'%s' lists more than %d files", index, QSI_ST_MAX_SHARDS);
        }
        qsi_str_clear(&path);
        if (qsi_path_join(&path, folder, file) != QS_OK) QS_TRY(no_memory(err));
        QS_TRY(open_shard(s, path.data, file, err));
    }
    /* Each tensor must stand in the file the index says. */
    for (void *it = NULL; (it = qsi_json_next(map, it, &key, &value)) != NULL;) {
        const char *file = qsi_json_as_str(value);
        const qsi_st_tensor *t = qsi_st_find(s, key);
        if (t == NULL || t->shard != qsi_names_find(&files, file)) {
            bool fit = strlen(key) <= NAME_BYTES_MAX && qsi_name_ok(key, strlen(key));
            QS_FAIL(err, QS_E_FORMAT, "'%s' says that '%s' holds tensor %s, but it does not", index,
                    file, fit ? key : "?");
        }
    }
    if (qsi_json_size(map) != s->n_tensors) {
        QS_FAIL(err, QS_E_FORMAT, "the files hold %zu tensors, '%s' lists %zu", s->n_tensors,
                index, qsi_json_size(map));
    }
done:
    qsi_names_release(&files);
    qsi_str_release(&path);
    return st;
}

static qs_status open_index(qsi_st *s, const char *index, const char *folder, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    qsi_json *root = NULL;
    QS_TRY(qsi_file_read(index, INDEX_LIMITS.bytes, &text, err));
    st = qsi_json_parse(&root, text.data, text.len, INDEX_LIMITS, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot read '%s'", index);
        goto done;
    }
    const qsi_json *map = qsi_json_get(root, "weight_map");
    if (qsi_json_kind_of(map) != QSI_JSON_OBJECT || qsi_json_size(map) == 0) {
        QS_FAIL(err, QS_E_FORMAT, "'%s' has no weight_map", index);
    }
    QS_TRY(open_listed(s, folder, index, map, err));
done:
    qsi_json_free(&root);
    qsi_str_release(&text);
    return st;
}

static qs_status open_folder(qsi_st *s, const char *folder, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    for (size_t i = 0; i < QSI_COUNT(layouts); i++) {
        qsi_str_clear(&path);
        if (qsi_path_join(&path, folder, layouts[i].index) != QS_OK) QS_TRY(no_memory(err));
        if (qsi_path_exists(path.data)) {
            QS_TRY(open_index(s, path.data, folder, err));
            goto done;
        }
        qsi_str_clear(&path);
        if (qsi_path_join(&path, folder, layouts[i].single) != QS_OK) QS_TRY(no_memory(err));
        if (qsi_path_exists(path.data)) {
            QS_TRY(open_shard(s, path.data, layouts[i].single, err));
            goto done;
        }
    }
    QS_FAIL(err, QS_E_NOTFOUND,
            "folder '%s' holds no model.safetensors, pytorch_model.bin or index of either", folder);
done:
    qsi_str_release(&path);
    return st;
}

static qs_status open_any(qsi_st *s, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str folder = {0};
    const char *slash = strrchr(path, '/');
    if (qsi_path_is_dir(path)) return open_folder(s, path, err);
    if (!qsi_ends_with(path, ".json")) return open_shard(s, path, slash ? slash + 1 : path, err);
    size_t n = slash != NULL ? (size_t)(slash - path) : 1;
    if (qsi_str_append(&folder, slash != NULL ? path : ".", n) != QS_OK) QS_TRY(no_memory(err));
    if (n == 0 && qsi_str_putc(&folder, '/') != QS_OK) QS_TRY(no_memory(err));
    QS_TRY(open_index(s, path, folder.data, err));
done:
    qsi_str_release(&folder);
    return st;
}

qs_status qsi_st_open(qsi_st **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_st *s = qsi_calloc(1, sizeof *s);
    if (s == NULL) QS_TRY(no_memory(err));
    QS_TRY(open_any(s, path, err));
    *out = s;
    s = NULL;
done:
    qsi_st_close(&s);
    return st;
}

qs_status qsi_st_open_mem(qsi_st **out, const void *data, size_t size, qs_err *err) {
    qs_status st = QS_OK;
    shard *sh = NULL;
    qsi_st *s = qsi_calloc(1, sizeof *s);
    if (s == NULL) QS_TRY(no_memory(err));
    QS_TRY(push_shard(s, "(memory)", &sh, err));
    sh->data = data;
    sh->size = size;
    QS_TRY(read_shard(s, err));
    *out = s;
    s = NULL;
done:
    qsi_st_close(&s);
    return st;
}

void qsi_st_close(qsi_st **ps) {
    qsi_st *s = *ps;
    if (s == NULL) return;
    for (size_t i = 0; i < s->n_shards; i++) {
        if (s->shards[i].mapped) qsi_map_close(&s->shards[i].map);
    }
    qsi_free(s->shards);
    qsi_free(s->tensors);
    qsi_names_release(&s->names);
    qsi_arena_release(&s->arena);
    qsi_free(s);
    *ps = NULL;
}

size_t qsi_st_n_tensors(const qsi_st *s) { return s->n_tensors; }
size_t qsi_st_n_shards(const qsi_st *s) { return s->n_shards; }

const qsi_st_tensor *qsi_st_at(const qsi_st *s, size_t i) {
    QS_CHECK(i < s->n_tensors);
    return &s->tensors[i];
}

const qsi_st_tensor *qsi_st_find(const qsi_st *s, const char *name) {
    int64_t i = qsi_names_find(&s->names, name);
    return i >= 0 ? &s->tensors[i] : NULL;
}

uint64_t qsi_st_bytes(const qsi_st *s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s->n_shards; i++) n += s->shards[i].size;
    return n;
}

uint64_t qsi_st_stamp(const qsi_st *s) {
    uint64_t stamp = 0;
    for (size_t i = 0; i < s->n_shards; i++)
        if (s->shards[i].mapped) stamp = qsi_map_stamp(&s->shards[i].map, stamp);
    return stamp;
}

qs_status qsi_st_intact(const qsi_st *s, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < s->n_shards && st == QS_OK; i++)
        if (s->shards[i].mapped) st = qsi_map_intact(s->shards[i].map.data, err);
    return st;
}

void qsi_st_drop(const qsi_st *s, const qsi_st_tensor *t) {
    const shard *sh = &s->shards[t->shard];
    if (sh->mapped) qsi_map_drop(&sh->map, (size_t)(t->data - sh->data), t->bytes);
}
