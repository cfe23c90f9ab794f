/* Checkpoint files; the layout stands in ckpt.h. Owns header, table and the checks at open.
 *
 * Header: magic[8], u32 version, u32 n_entries, u64 table offset, u64 table bytes, u64 checksum of
 * the table, u64 file bytes, 8 bytes zero, u64 checksum of the 56 bytes before it. */
#include "fmt/ckpt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/file.h"

#define HEADER_BYTES 64
#define VERSION 1u

static const char magic[8] = {'Q', 'S', 'C', 'K', 'P', 'T', '0', '1'};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats are mapped as they lie");

struct qsi_ckpt {
    qsi_map map;
    const uint8_t *data;
    size_t size;
    uint64_t hash;
    qsi_arena arena;
    qsi_ckpt_entry *entries;
    size_t n;
};

struct qsi_ckpt_writer {
    qsi_writer *file;
    qsi_str table;
    uint32_t n;
};

/* ---- reading ---- */

/* Bytes of a tensor of these dims; false on overflow or a negative dim. */
static bool entry_bytes(const qsi_ckpt_entry *e, uint64_t *out) {
    uint64_t n = e->kind == QSI_CKPT_F32 ? 4 : 1;
    for (int i = 0; i < e->n_dims; i++) {
        if (e->ne[i] < 0) return false;
        uint64_t d = (uint64_t)e->ne[i];
        if (d != 0 && n > UINT64_MAX / d) return false;
        n *= d;
    }
    *out = n;
    return true;
}

static qs_status read_entry(qsi_ckpt *c, qsi_cursor *cur, uint64_t limit, qsi_ckpt_entry *e,
                            qs_err *err) {
    qs_status st = QS_OK;
    uint16_t n_name = qsi_cursor_u16(cur);
    const uint8_t *name = qsi_cursor_bytes(cur, n_name);
    uint8_t kind = qsi_cursor_u8(cur), n_dims = qsi_cursor_u8(cur);
    if (cur->failed || n_name == 0 || n_name > QSI_CKPT_MAX_NAME || kind > QSI_CKPT_F32 ||
        n_dims == 0 || n_dims > QSI_CKPT_MAX_DIMS || memchr(name, 0, n_name) != NULL)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: damaged table at byte %zu", cur->pos);
    e->name = qsi_arena_strndup(&c->arena, (const char *)name, n_name);
    if (e->name == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint's table");
    e->kind = (qsi_ckpt_kind)kind;
    e->n_dims = n_dims;
    for (int i = 0; i < QSI_CKPT_MAX_DIMS; i++)
        e->ne[i] = i < n_dims ? (int64_t)qsi_cursor_u64(cur) : 1;
    uint64_t off = qsi_cursor_u64(cur), bytes = qsi_cursor_u64(cur), check = qsi_cursor_u64(cur);
    uint64_t want = 0;
    if (cur->failed || !entry_bytes(e, &want) || want != bytes)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: size of '%s' disagrees with its shape", e->name);
    if (off % 64 != 0 || off < HEADER_BYTES || off > limit || bytes > limit - off)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: '%s' lies outside the file", e->name);
    e->bytes = (size_t)bytes;
    e->data = bytes != 0 ? c->data + off : NULL;
    if (qsi_hash(c->data + off, e->bytes) != check)
        QS_FAIL(err, QS_E_CORRUPT, "checkpoint: checksum of '%s' differs", e->name);
done:
    return st;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qs_status check_unique(const qsi_ckpt *c, qs_err *err) {
    qs_status st = QS_OK;
    const char **names = qsi_alloc(c->n, sizeof(*names));
    if (names == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint's table");
    for (size_t i = 0; i < c->n; i++) names[i] = c->entries[i].name;
    qsort(names, c->n, sizeof(*names), compare_names);
    for (size_t i = 1; i < c->n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            QS_FAIL(err, QS_E_FORMAT, "checkpoint: '%s' twice", names[i]);
done:
    qsi_free(names);
    return st;
}

static qs_status parse(qsi_ckpt *c, qs_err *err) {
    qs_status st = QS_OK;
    qsi_cursor h, t;
    qsi_cursor_init(&h, c->data, c->size);
    const uint8_t *m = qsi_cursor_bytes(&h, sizeof(magic));
    if (m == NULL || memcmp(m, magic, sizeof(magic)) != 0)
        QS_FAIL(err, QS_E_FORMAT, "not a checkpoint");
    uint32_t version = qsi_cursor_u32(&h), n = qsi_cursor_u32(&h);
    uint64_t at = qsi_cursor_u64(&h), n_table = qsi_cursor_u64(&h);
    c->hash = qsi_cursor_u64(&h);
    uint64_t n_file = qsi_cursor_u64(&h), zero = qsi_cursor_u64(&h), check = qsi_cursor_u64(&h);
    if (h.failed) QS_FAIL(err, QS_E_CORRUPT, "checkpoint: cut off in its header");
    if (qsi_hash(c->data, 56) != check)
        QS_FAIL(err, QS_E_CORRUPT, "checkpoint: checksum of the header differs");
    if (version != VERSION || zero != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "checkpoint: version %u, this program reads %u",
                (unsigned)version, (unsigned)VERSION);
    if (n_file != c->size)
        QS_FAIL(err, QS_E_CORRUPT, "checkpoint: has %zu bytes, should have %llu", c->size,
                (unsigned long long)n_file);
    if (n > QSI_CKPT_MAX_ENTRIES || at < HEADER_BYTES || at > n_file || n_table != n_file - at)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: impossible header");
    if (qsi_hash(c->data + at, (size_t)n_table) != c->hash)
        QS_FAIL(err, QS_E_CORRUPT, "checkpoint: checksum of the table differs");
    if (n > n_table / 30) QS_FAIL(err, QS_E_FORMAT, "checkpoint: table too short");
    c->entries = qsi_arena_calloc(&c->arena, n, sizeof(*c->entries));
    if (c->entries == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint's table");
    qsi_cursor_init(&t, c->data + at, (size_t)n_table);
    for (uint32_t i = 0; i < n; i++) {
        QS_TRY(read_entry(c, &t, at, &c->entries[i], err));
        c->n = i + 1;
    }
    QS_TRY(check_unique(c, err));
    if (qsi_cursor_left(&t) != 0) QS_FAIL(err, QS_E_FORMAT, "checkpoint: bytes after the table");
done:
    return st;
}

static qs_status open_bytes(qsi_ckpt **out, qsi_map *map, const void *data, size_t size,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_ckpt *c = qsi_calloc(1, sizeof(*c));
    if (c == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint");
    qsi_arena_init(&c->arena);
    c->map = (qsi_map){.fd = -1};
    c->data = data;
    c->size = size;
    QS_TRY(parse(c, err));
    if (map != NULL) {
        c->map = *map;
        *map = (qsi_map){.fd = -1};
    }
    *out = c;
    c = NULL;
done:
    qsi_ckpt_close(&c);
    return st;
}

qs_status qsi_ckpt_open_mem(qsi_ckpt **c, const void *data, size_t size, qs_err *err) {
    if (((uintptr_t)data & 63) != 0)
        return qsi_err_set(err, QS_E_ARG, "checkpoint: bytes not aligned to 64");
    return open_bytes(c, NULL, data, size, err);
}

qs_status qsi_ckpt_open(qsi_ckpt **c, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map map = {.fd = -1};
    QS_TRY(qsi_map_open(&map, path, err));
    st = open_bytes(c, &map, map.data, map.size, err);
    if (st != QS_OK) qsi_err_prefix(err, "'%s'", path);
done:
    if (map.data != NULL || map.fd >= 0) qsi_map_close(&map);
    return st;
}

void qsi_ckpt_close(qsi_ckpt **pc) {
    qsi_ckpt *c = *pc;
    if (c == NULL) return;
    qsi_arena_release(&c->arena);
    if (c->map.data != NULL || c->map.fd >= 0) qsi_map_close(&c->map);
    qsi_free(c);
    *pc = NULL;
}

size_t qsi_ckpt_count(const qsi_ckpt *c) { return c->n; }

const qsi_ckpt_entry *qsi_ckpt_at(const qsi_ckpt *c, size_t i) { return &c->entries[i]; }

const qsi_ckpt_entry *qsi_ckpt_find(const qsi_ckpt *c, const char *name) {
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->entries[i].name, name) == 0) return &c->entries[i];
    return NULL;
}

uint64_t qsi_ckpt_hash(const qsi_ckpt *c) { return c->hash; }

/* ---- writing ---- */

qs_status qsi_ckpt_writer_open(qsi_ckpt_writer **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    static const uint8_t zeros[HEADER_BYTES];
    qsi_ckpt_writer *w = qsi_calloc(1, sizeof(*w));
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint");
    QS_TRY(qsi_writer_open(&w->file, path, err));
    QS_TRY(qsi_writer_write(w->file, zeros, sizeof(zeros), err));
    *out = w;
    w = NULL;
done:
    qsi_ckpt_writer_abort(&w);
    return st;
}

static qs_status append_le(qsi_str *s, uint64_t v, int n) {
    uint8_t b[8];
    for (int i = 0; i < n; i++) b[i] = (uint8_t)(v >> (8 * i));
    return qsi_str_append(s, b, (size_t)n);
}

static qs_status put_entry(qsi_ckpt_writer *w, qsi_ckpt_entry *e, qs_err *err) {
    qs_status st = QS_OK;
    static const uint8_t zeros[64];
    size_t n_name = strlen(e->name);
    uint64_t bytes = 0;
    if (n_name == 0 || n_name > QSI_CKPT_MAX_NAME || w->n >= QSI_CKPT_MAX_ENTRIES ||
        e->n_dims < 1 || e->n_dims > QSI_CKPT_MAX_DIMS || !entry_bytes(e, &bytes))
        QS_FAIL(err, QS_E_ARG, "checkpoint: entry '%.64s' has an impossible name or shape",
                e->name);
    QS_TRY(qsi_writer_write(w->file, zeros, (size_t)((64 - qsi_writer_pos(w->file) % 64) % 64),
                            err));
    uint64_t off = qsi_writer_pos(w->file);
    QS_TRY(qsi_writer_write(w->file, e->data, (size_t)bytes, err));
    bool ok = append_le(&w->table, n_name, 2) == QS_OK &&
              qsi_str_append(&w->table, e->name, n_name) == QS_OK &&
              append_le(&w->table, e->kind, 1) == QS_OK &&
              append_le(&w->table, (uint64_t)e->n_dims, 1) == QS_OK;
    for (int i = 0; i < e->n_dims; i++)
        ok = ok && append_le(&w->table, (uint64_t)e->ne[i], 8) == QS_OK;
    ok = ok && append_le(&w->table, off, 8) == QS_OK && append_le(&w->table, bytes, 8) == QS_OK &&
         append_le(&w->table, qsi_hash(e->data, (size_t)bytes), 8) == QS_OK;
    if (!ok) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint's table");
    w->n++;
done:
    return st;
}

qs_status qsi_ckpt_put_bytes(qsi_ckpt_writer *w, const char *name, const void *p, size_t n,
                             qs_err *err) {
    qsi_ckpt_entry e = {.name = name, .kind = QSI_CKPT_BYTES, .n_dims = 1, .ne = {(int64_t)n},
                        .data = n != 0 ? p : ""};
    return put_entry(w, &e, err);
}

qs_status qsi_ckpt_put_f32(qsi_ckpt_writer *w, const char *name, int n_dims, const int64_t *ne,
                           const float *p, qs_err *err) {
    qsi_ckpt_entry e = {.name = name, .kind = QSI_CKPT_F32, .n_dims = n_dims, .data = p};
    for (int i = 0; i < n_dims && i < QSI_CKPT_MAX_DIMS; i++) e.ne[i] = ne[i];
    return put_entry(w, &e, err);
}

qs_status qsi_ckpt_finish(qsi_ckpt_writer **pw, uint64_t *bytes, uint64_t *hash, qs_err *err) {
    qs_status st = QS_OK;
    qsi_ckpt_writer *w = *pw;
    qsi_str h = {0};
    uint64_t at = qsi_writer_pos(w->file);
    uint64_t n_file = at + w->table.len;
    uint64_t check = qsi_hash(w->table.len != 0 ? w->table.data : "", w->table.len);
    QS_TRY(qsi_writer_write(w->file, w->table.data, w->table.len, err));
    if (qsi_str_append(&h, magic, sizeof(magic)) != QS_OK || append_le(&h, VERSION, 4) != QS_OK ||
        append_le(&h, w->n, 4) != QS_OK || append_le(&h, at, 8) != QS_OK ||
        append_le(&h, w->table.len, 8) != QS_OK || append_le(&h, check, 8) != QS_OK ||
        append_le(&h, n_file, 8) != QS_OK || append_le(&h, 0, 8) != QS_OK ||
        append_le(&h, qsi_hash(h.data, h.len), 8) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint's header");
    QS_TRY(qsi_writer_patch(w->file, 0, h.data, h.len, err));
    QS_TRY(qsi_writer_commit(&w->file, err));
    if (bytes != NULL) *bytes = n_file;
    if (hash != NULL) *hash = check;
done:
    qsi_str_release(&h);
    qsi_ckpt_writer_abort(pw);
    return st;
}

void qsi_ckpt_writer_abort(qsi_ckpt_writer **pw) {
    qsi_ckpt_writer *w = *pw;
    if (w == NULL) return;
    qsi_writer_abort(&w->file);
    qsi_str_release(&w->table);
    qsi_free(w);
    *pw = NULL;
}
