/* The directory at the end of the archive says where each entry's local header stands; the entry's
 * bytes follow that header. Everything is checked against the file's size before it is used. */
#include "fmt/torchzip.h"

#include <inttypes.h>
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "base/str.h"
#include "fmt/names.h"

enum {
    LOCAL_BYTES = 30, CENTRAL_BYTES = 46, END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56,
    COMMENT_MAX = 65535, NAME_MAX_BYTES = 512, KEY_MAX = 64
};
#define SIG_LOCAL 0x04034b50u
#define SIG_CENTRAL 0x02014b50u
#define SIG_END 0x06054b50u
#define SIG_END64 0x06064b50u
#define SIG_LOCATOR 0x07064b50u

typedef struct entry {
    char *name; /* in the arena */
    const uint8_t *data;
    uint64_t size;
} entry;

typedef struct archive {
    const uint8_t *data;
    size_t size;
    entry *entries;
    size_t n_entries, cap_entries;
    qsi_names names;
    qsi_arena arena;
    const char *pickle; /* "NAME/data.pkl" */
    size_t prefix;      /* bytes of "NAME/" */
    qsi_torch_visit *visit;
    void *user;
} archive;

static qs_status no_memory(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "out of memory reading a PyTorch file");
}

bool qsi_is_zip(const void *data, size_t size) {
    static const char magic[4] = {'P', 'K', 3, 4};
    return size >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

static uint32_t u32_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- the directory ---- */

typedef struct directory {
    uint64_t off, bytes, count;
} directory;

/* The zip64 record, when a locator stands before the end record. */
static qs_status find_end64(const archive *a, size_t end, directory *d, qs_err *err) {
    qs_status st = QS_OK;
    qsi_cursor c;
    if (end < LOCATOR_BYTES || u32_at(a->data + end - LOCATOR_BYTES) != SIG_LOCATOR) goto done;
    qsi_cursor_init(&c, a->data + end - LOCATOR_BYTES + 8, 8);
    uint64_t off = qsi_cursor_u64(&c);
    if (off > a->size || a->size - off < END64_BYTES || u32_at(a->data + off) != SIG_END64)
        QS_FAIL(err, QS_E_FORMAT, "damaged archive: its zip64 record is not at byte %" PRIu64, off);
    qsi_cursor_init(&c, a->data + off + 32, 24);
    d->count = qsi_cursor_u64(&c);
    d->bytes = qsi_cursor_u64(&c);
    d->off = qsi_cursor_u64(&c);
done:
    return st;
}

static qs_status find_directory(const archive *a, directory *d, qs_err *err) {
    qs_status st = QS_OK;
    size_t least = a->size > END_BYTES + COMMENT_MAX ? a->size - END_BYTES - COMMENT_MAX : 0;
    size_t end = SIZE_MAX;
    for (size_t i = a->size >= END_BYTES ? a->size - END_BYTES + 1 : 0; i-- > least;) {
        if (u32_at(a->data + i) == SIG_END) {
            end = i;
            break;
        }
    }
    if (end == SIZE_MAX)
        QS_FAIL(err, QS_E_FORMAT,
                "the archive's directory is not at the end of the file (truncated download?)");
    qsi_cursor c;
    qsi_cursor_init(&c, a->data + end + 10, END_BYTES - 10);
    d->count = qsi_cursor_u16(&c);
    d->bytes = qsi_cursor_u32(&c);
    d->off = qsi_cursor_u32(&c);
    QS_TRY(find_end64(a, end, d, err));
    if (d->off > a->size || d->bytes > a->size - d->off)
        QS_FAIL(err, QS_E_FORMAT, "damaged archive: its directory does not lie inside the file");
    if (d->count > QSI_TORCH_MAX_ENTRIES)
        QS_FAIL(err, QS_E_LIMIT, "an archive of %" PRIu64 " entries (the limit is %d)", d->count,
                QSI_TORCH_MAX_ENTRIES);
done:
    return st;
}

/* Sizes and offsets that do not fit 32 bits stand in the extra field, in this order. */
static bool read_extra64(const uint8_t *p, size_t n, uint64_t *usize, uint64_t *csize,
                         uint64_t *off) {
    qsi_cursor c;
    qsi_cursor_init(&c, p, n);
    while (qsi_cursor_left(&c) >= 4) {
        uint16_t id = qsi_cursor_u16(&c), len = qsi_cursor_u16(&c);
        const uint8_t *body = qsi_cursor_bytes(&c, len);
        if (body == NULL) return false;
        if (id != 1) continue;
        qsi_cursor e;
        qsi_cursor_init(&e, body, len);
        if (*usize == UINT32_MAX) *usize = qsi_cursor_u64(&e);
        if (*csize == UINT32_MAX) *csize = qsi_cursor_u64(&e);
        if (*off == UINT32_MAX) *off = qsi_cursor_u64(&e);
        return !e.failed;
    }
    return true;
}

/* Where the bytes of the entry whose local header stands at off begin. */
static qs_status local_data(const archive *a, uint64_t off, uint64_t size, const uint8_t **out,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_cursor c;
    if (off > a->size || a->size - off < LOCAL_BYTES || u32_at(a->data + off) != SIG_LOCAL)
        QS_FAIL(err, QS_E_FORMAT, "its header is not at byte %" PRIu64, off);
    qsi_cursor_init(&c, a->data + off, (size_t)(a->size - off));
    (void)qsi_cursor_bytes(&c, 26);
    uint64_t skip = (uint64_t)qsi_cursor_u16(&c) + qsi_cursor_u16(&c);
    if (qsi_cursor_bytes(&c, skip) == NULL || (*out = qsi_cursor_bytes(&c, size)) == NULL)
        QS_FAIL(err, QS_E_FORMAT, "it runs past the end of the file");
done:
    return st;
}

static qs_status add_entry(archive *a, const uint8_t *name, size_t n, uint64_t size, uint64_t off,
                           qs_err *err) {
    qs_status st = QS_OK;
    void *grown = a->entries;
    bool had = false;
    entry e = {.size = size};
    if (!qsi_name_ok((const char *)name, n) || n > NAME_MAX_BYTES)
        QS_FAIL(err, QS_E_FORMAT, "entry %zu of the archive has a name that cannot be shown",
                a->n_entries);
    e.name = qsi_arena_strndup(&a->arena, (const char *)name, n);
    if (e.name == NULL ||
        qsi_grow(&grown, &a->cap_entries, a->n_entries + 1, sizeof *a->entries) != QS_OK)
        QS_TRY(no_memory(err));
    a->entries = grown;
    st = local_data(a, off, size, &e.data, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "entry %s of the archive", e.name);
        goto done;
    }
    if (qsi_names_add(&a->names, e.name, (uint32_t)a->n_entries, &had) != QS_OK)
        QS_TRY(no_memory(err));
    if (had) QS_FAIL(err, QS_E_FORMAT, "entry %s stands twice in the archive", e.name);
    a->entries[a->n_entries++] = e;
done:
    return st;
}

static qs_status read_entry(archive *a, qsi_cursor *c, qs_err *err) {
    qs_status st = QS_OK;
    if (qsi_cursor_u32(c) != SIG_CENTRAL)
        QS_FAIL(err, QS_E_FORMAT, "damaged archive: entry %zu of its directory", a->n_entries);
    (void)qsi_cursor_u32(c); /* versions */
    uint16_t flags = qsi_cursor_u16(c), method = qsi_cursor_u16(c);
    (void)qsi_cursor_bytes(c, 8); /* time, checksum */
    uint64_t csize = qsi_cursor_u32(c), usize = qsi_cursor_u32(c);
    uint16_t n_name = qsi_cursor_u16(c), n_extra = qsi_cursor_u16(c), n_text = qsi_cursor_u16(c);
    (void)qsi_cursor_bytes(c, 8); /* disk, attributes */
    uint64_t off = qsi_cursor_u32(c);
    const uint8_t *name = qsi_cursor_bytes(c, n_name), *extra = qsi_cursor_bytes(c, n_extra);
    if (qsi_cursor_bytes(c, n_text) == NULL || !read_extra64(extra, n_extra, &usize, &csize, &off))
        QS_FAIL(err, QS_E_FORMAT, "damaged archive: entry %zu of its directory", a->n_entries);
    if ((flags & 1) != 0 || method != 0 || csize != usize)
        QS_FAIL(err, QS_E_UNSUPPORTED,
                "entry %zu of the archive is compressed or encrypted: PyTorch stores entries as "
                "they are", a->n_entries);
    QS_TRY(add_entry(a, name, n_name, usize, off, err));
done:
    return st;
}

static const entry *find_entry(const archive *a, const char *name) {
    int64_t i = qsi_names_find(&a->names, name);
    return i >= 0 ? &a->entries[i] : NULL;
}

/* The pickle: NAME/data.pkl, one level deep. */
static const entry *find_pickle(archive *a) {
    for (size_t i = 0; i < a->n_entries; i++) {
        const char *slash = strchr(a->entries[i].name, '/');
        if (slash == NULL || strcmp(slash, "/data.pkl") != 0) continue;
        a->pickle = a->entries[i].name;
        a->prefix = (size_t)(slash + 1 - a->pickle);
        return &a->entries[i];
    }
    return NULL;
}

/* ---- tensors ---- */

static const struct storage {
    const char *name, *dtype;
    int bytes;
    qsi_type type;
} storages[] = {
    {"FloatStorage", "F32", 4, QSI_F32}, {"HalfStorage", "F16", 2, QSI_F16},
    {"BFloat16Storage", "BF16", 2, QSI_BF16}, {"DoubleStorage", "F64", 8, QSI_F64},
    {"LongStorage", "I64", 8, QSI_I64}, {"IntStorage", "I32", 4, QSI_I32},
    {"ShortStorage", "I16", 2, QSI_I16}, {"CharStorage", "I8", 1, QSI_I8},
    {"ByteStorage", "U8", 1, QSI_TYPE_NONE}, {"BoolStorage", "BOOL", 1, QSI_TYPE_NONE},
};

static const struct storage *find_storage(qsi_pickle_str s) {
    for (size_t i = 0; i < QSI_COUNT(storages); i++)
        if (strlen(storages[i].name) == s.n && memcmp(storages[i].name, s.p, s.n) == 0)
            return &storages[i];
    return NULL;
}

/* Row-major without gaps; dimensions of one element may have any stride. */
static bool contiguous(const qsi_pickle_tensor *t) {
    int64_t want = 1;
    for (int d = t->n_dims; d-- > 0;) {
        if (t->shape[d] != 1 && t->stride[d] != want) return false;
        if (!qsi_mul_i64(want, t->shape[d], &want)) return false;
    }
    return true;
}

static const entry *storage_entry(const archive *a, const qsi_pickle_tensor *t) {
    char name[NAME_MAX_BYTES + KEY_MAX + 8];
    size_t n = a->prefix;
    if (t->key.n == 0 || t->key.n > KEY_MAX || memchr(t->key.p, '\0', t->key.n)) return NULL;
    memcpy(name, a->pickle, n);
    memcpy(name + n, "data/", 5);
    memcpy(name + n + 5, t->key.p, t->key.n);
    name[n + 5 + t->key.n] = '\0';
    return find_entry(a, name);
}

static qs_status visit_tensor(void *user, const qsi_pickle_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    const archive *a = user;
    const struct storage *s = find_storage(t->storage);
    qsi_torch_tensor out = {.name = t->name, .n_dims = t->n_dims, .n = 1};
    int64_t total = 0, off = 0;
    QS_CHECK(s != NULL); /* the pickle knows these classes only */
    out.dtype = s->dtype;
    out.type = s->type;
    memcpy(out.shape, t->shape, sizeof out.shape);
    for (int d = 0; d < t->n_dims; d++)
        if (!qsi_mul_i64(out.n, t->shape[d], &out.n))
            QS_FAIL(err, QS_E_FORMAT, "its shape overflows");
    if (!qsi_mul_i64(out.n, s->bytes, &total) || !qsi_mul_i64(t->offset, s->bytes, &off))
        QS_FAIL(err, QS_E_FORMAT, "its shape overflows");
    if (out.n > 0 && !contiguous(t))
        QS_FAIL(err, QS_E_UNSUPPORTED, "it is no contiguous tensor (save tensor.contiguous())");
    const entry *e = storage_entry(a, t);
    if (e == NULL) QS_FAIL(err, QS_E_FORMAT, "its storage is not in the archive");
    if ((uint64_t)off > e->size || (uint64_t)total > e->size - (uint64_t)off)
        QS_FAIL(err, QS_E_FORMAT, "it ends at byte %" PRId64 " of its storage, which has %" PRIu64,
                off + total, e->size);
    out.bytes = (size_t)total;
    out.data = e->data + off;
    QS_TRY(a->visit(a->user, &out, err));
done:
    if (st != QS_OK && qsi_name_ok(t->name.p, t->name.n))
        qsi_err_prefix(err, "tensor %.*s", (int)(t->name.n < 256 ? t->name.n : 256), t->name.p);
    return st;
}

static qs_status check_byteorder(const archive *a, qs_err *err) {
    char name[NAME_MAX_BYTES + 16];
    memcpy(name, a->pickle, a->prefix);
    memcpy(name + a->prefix, "byteorder", sizeof "byteorder");
    const entry *e = find_entry(a, name);
    if (e != NULL && (e->size != 6 || memcmp(e->data, "little", 6) != 0))
        return qsi_err_set(err, QS_E_UNSUPPORTED, "the file is big-endian: save it on a "
                           "little-endian machine");
    return QS_OK;
}

qs_status qsi_torch_read(const void *data, size_t size, qsi_torch_visit *visit, void *user,
                         qs_err *err) {
    qs_status st = QS_OK;
    archive a = {.data = data, .size = size, .visit = visit, .user = user};
    directory d = {0};
    qsi_cursor c;
    QS_TRY(find_directory(&a, &d, err));
    qsi_cursor_init(&c, a.data + d.off, (size_t)d.bytes);
    for (uint64_t i = 0; i < d.count; i++) QS_TRY(read_entry(&a, &c, err));
    const entry *pickle = find_pickle(&a);
    if (pickle == NULL)
        QS_FAIL(err, QS_E_FORMAT, "a zip archive without NAME/data.pkl: not a PyTorch file");
    QS_TRY(check_byteorder(&a, err));
    QS_TRY(qsi_pickle_tensors(pickle->data, (size_t)pickle->size, visit_tensor, &a, err));
done:
    qsi_free(a.entries);
    qsi_names_release(&a.names);
    qsi_arena_release(&a.arena);
    return st;
}
