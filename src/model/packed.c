/* Repacked copies: reading. See packed.h; packed_write.c writes them. */
#include "model/packed.h"

#include <inttypes.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "base/mem.h"
#include "op/op.h"
#include "sys/file.h"
#include "sys/mapguard.h"

#define LOAD_PIECE ((int64_t)256 << 20) /* between two calls of progress */
#define LOAD_SHARE ((int64_t)16 << 20)  /* of a worker at a time */

typedef struct entry {
    qsi_packed_weight w;
    uint64_t off, hash;
} entry;

struct qsi_packed {
    qsi_map map;
    bool mapped;
    char *path;
    const uint8_t *data;
    size_t size;
    uint64_t table;
    char isa[16];
    entry *entries;
    size_t n;
};

typedef struct header {
    uint32_t version, flags;
    uint64_t bytes, source, layout, table, n, table_hash;
    char isa[16];
} header;

static const char *name_of(const qsi_packed *p) { return p->path != NULL ? p->path : "(memory)"; }

/* ---- checks ---- */

static qs_status read_header(const qsi_packed *p, header *h, qs_err *err) {
    qs_status st = QS_OK;
    qsi_cursor c;
    qsi_cursor_init(&c, p->data, p->size);
    const uint8_t *magic = qsi_cursor_bytes(&c, 8);
    if (magic == NULL || memcmp(magic, "QSPACKED", 8) != 0)
        QS_FAIL(err, QS_E_FORMAT, "'%s' is no repacked copy", name_of(p));
    h->version = qsi_cursor_u32(&c);
    h->flags = qsi_cursor_u32(&c);
    h->bytes = qsi_cursor_u64(&c);
    h->source = qsi_cursor_u64(&c);
    h->layout = qsi_cursor_u64(&c);
    h->table = qsi_cursor_u64(&c);
    h->n = qsi_cursor_u64(&c);
    h->table_hash = qsi_cursor_u64(&c);
    const uint8_t *isa = qsi_cursor_bytes(&c, sizeof h->isa);
    if (isa != NULL) memcpy(h->isa, isa, sizeof h->isa);
    (void)qsi_cursor_bytes(&c, 40);
    uint64_t sum = qsi_cursor_u64(&c);
    if (c.failed || sum != qsi_hash(p->data, QSI_PACKED_HEADER - 8))
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: its header differs from its checksum", name_of(p));
    h->isa[sizeof h->isa - 1] = '\0';
    for (char *q = h->isa; *q != '\0'; q++)
        if (*q < ' ' || *q > '~') *q = '?';
done:
    return st;
}

/* What the header promises about the file itself. */
static qs_status check_header(const qsi_packed *p, const header *h, qs_err *err) {
    qs_status st = QS_OK;
    if (h->bytes != p->size)
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: it has %zu bytes, not %" PRIu64, name_of(p),
                p->size, h->bytes);
    if (h->table < QSI_PACKED_DATA || h->table > p->size ||
        h->n != (p->size - h->table) / QSI_PACKED_ENTRY ||
        (p->size - h->table) % QSI_PACKED_ENTRY != 0)
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: its table lies outside", name_of(p));
    if (h->table_hash != qsi_hash(p->data + h->table, p->size - (size_t)h->table))
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: its table differs from its checksum", name_of(p));
done:
    return st;
}

static qs_status check_id(const qsi_packed *p, const header *h, const qsi_packed_id *id, qs_err *err) {
    qs_status st = QS_OK;
    if (h->version != QSI_PACKED_VERSION)
        QS_FAIL(err, QS_E_STATE, "'%s' is of version %" PRIu32 ", this program makes %d", name_of(p),
                h->version, QSI_PACKED_VERSION);
    if (id == NULL) goto done;
    if (h->source != id->source)
        QS_FAIL(err, QS_E_STATE, "'%s' was made of another file: the model changed", name_of(p));
    if (h->layout != id->layout && strcmp(h->isa, id->isa) == 0)
        QS_FAIL(err, QS_E_STATE, "'%s' is of a program that packs weights otherwise", name_of(p));
    if (h->layout != id->layout || (h->flags & 1) != (uint32_t)id->exact)
        QS_FAIL(err, QS_E_STATE, "'%s' was made for other kernels (%s; these are %s)", name_of(p),
                h->isa, id->isa);
done:
    return st;
}

/* Entry i; `end` is that of the one before. */
static qs_status read_entry(qsi_packed *p, qsi_cursor *c, size_t i, uint64_t *end, qs_err *err) {
    qs_status st = QS_OK;
    entry *e = &p->entries[i];
    uint32_t kind = qsi_cursor_u32(c);
    (void)qsi_cursor_u32(c);
    uint64_t n_out = qsi_cursor_u64(c), n_in = qsi_cursor_u64(c);
    e->off = qsi_cursor_u64(c);
    uint64_t bytes = qsi_cursor_u64(c);
    e->hash = qsi_cursor_u64(c);
    uint64_t name = qsi_cursor_u64(c);
    uint64_t at = (*end + QSI_PACKED_ALIGN - 1) / QSI_PACKED_ALIGN * QSI_PACKED_ALIGN;
    if (c->failed || kind >= QSI_MM_COUNT || n_out > INT64_MAX || n_in > INT64_MAX || e->off != at ||
        at > p->table || bytes > p->table - at)
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: weight %zu lies outside", name_of(p), i);
    e->w = (qsi_packed_weight){.name = name, .kind = (qsi_mm)kind, .n_out = (int64_t)n_out,
                               .n_in = (int64_t)n_in, .bytes = (size_t)bytes};
    *end = at + bytes;
done:
    return st;
}

static qs_status parse(qsi_packed *p, const qsi_packed_id *id, qs_err *err) {
    qs_status st = QS_OK;
    header h = {0};
    qsi_cursor c;
    uint64_t end = QSI_PACKED_DATA;
    QS_TRY(read_header(p, &h, err));
    QS_TRY(check_id(p, &h, id, err));
    QS_TRY(check_header(p, &h, err));
    memcpy(p->isa, h.isa, sizeof p->isa);
    p->table = h.table;
    p->n = (size_t)h.n;
    p->entries = qsi_calloc(p->n, sizeof *p->entries); /* at most as large as the file's table */
    if (p->entries == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", name_of(p));
    qsi_cursor_init(&c, p->data + h.table, p->size - (size_t)h.table);
    for (size_t i = 0; i < p->n; i++) QS_TRY(read_entry(p, &c, i, &end, err));
done:
    return st;
}

qs_status qsi_packed_open_mem(qsi_packed **out, const void *data, size_t n, const qsi_packed_id *id,
                              qs_err *err) {
    qs_status st = QS_OK;
    qsi_packed *p = qsi_calloc(1, sizeof *p);
    if (p == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory opening a repacked copy");
    p->data = data;
    p->size = n;
    QS_TRY(parse(p, id, err));
    *out = p;
    p = NULL;
done:
    qsi_packed_close(&p);
    return st;
}

qs_status qsi_packed_open(qsi_packed **out, const char *path, const qsi_packed_id *id, qs_err *err) {
    qs_status st = QS_OK;
    qsi_packed *p = NULL;
    if (!qsi_path_exists(path)) return qsi_err_set(err, QS_E_NOTFOUND, "'%s' is not there", path);
    p = qsi_calloc(1, sizeof *p);
    if (p == NULL || (p->path = qsi_strdup(path)) == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", path);
    QS_TRY(qsi_map_open(&p->map, path, err));
    p->mapped = true;
    p->data = p->map.data;
    p->size = p->map.size;
    QS_TRY(parse(p, id, err));
    qsi_map_huge(&p->map);
    *out = p;
    p = NULL;
done:
    qsi_packed_close(&p);
    return st;
}

void qsi_packed_close(qsi_packed **pp) {
    qsi_packed *p = *pp;
    if (p == NULL) return;
    *pp = NULL;
    if (p->mapped) qsi_map_close(&p->map);
    qsi_free(p->entries);
    qsi_free(p->path);
    qsi_free(p);
}

bool qsi_packed_is(const char *path) {
    qsi_map m = {.fd = -1};
    if (qsi_path_is_dir(path) || qsi_map_open(&m, path, NULL) != QS_OK) return false;
    bool is = m.size >= 8 && memcmp(m.data, "QSPACKED", 8) == 0;
    qsi_map_close(&m);
    return is;
}

const char *qsi_packed_isa(const qsi_packed *p) { return p->isa; }
size_t qsi_packed_count(const qsi_packed *p) { return p->n; }
uint64_t qsi_packed_bytes(const qsi_packed *p) { return p->table - QSI_PACKED_DATA; }

qs_status qsi_packed_take(const qsi_packed *p, size_t i, const qsi_packed_weight *want,
                          const void **out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_packed_weight *w = i < p->n ? &p->entries[i].w : NULL;
    if (w == NULL || w->name != want->name || w->kind != want->kind || w->n_out != want->n_out ||
        w->n_in != want->n_in || w->bytes != want->bytes)
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: its weight %zu is another one", name_of(p), i);
    *out = p->data + p->entries[i].off;
done:
    return st;
}

qs_status qsi_packed_intact(const qsi_packed *p, qs_err *err) {
    return p->mapped ? qsi_map_intact(p->map.data, err) : QS_OK;
}

/* ---- into memory ---- */

typedef struct touching {
    const qsi_packed *p;
    uint64_t off;
    int64_t n;
    _Atomic int64_t next;
} touching;

static void touch(const qsi_worker *wk, void *arg) {
    touching *t = arg;
    (void)wk;
    for (int64_t i; (i = atomic_fetch_add(&t->next, LOAD_SHARE)) < t->n;)
        qsi_map_populate(&t->p->map, (size_t)t->off + (size_t)i,
                         (size_t)qsi_min64(LOAD_SHARE, t->n - i));
}

qs_status qsi_packed_load(const qsi_packed *p, qsi_pool *pool,
                          int (*progress)(void *user, int64_t done, int64_t of), void *user,
                          qs_err *err) {
    qs_status st = QS_OK;
    int64_t all = (int64_t)qsi_packed_bytes(p);
    if (!p->mapped || (uint64_t)all > qsi_mem_available()) goto done; /* read as it is needed */
    for (int64_t at = 0; at < all; at += LOAD_PIECE) {
        touching t = {.p = p, .off = QSI_PACKED_DATA + (uint64_t)at,
                      .n = qsi_min64(LOAD_PIECE, all - at)};
        qsi_pool_run(pool, touch, &t);
        if (progress != NULL && progress(user, at + t.n, all) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "cancelled while weights were read");
    }
done:
    return st;
}

qs_status qsi_packed_verify(const qsi_packed *p, int (*progress)(void *user, int64_t done, int64_t of),
                            void *user, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < p->n; i++) {
        const entry *e = &p->entries[i];
        if (qsi_hash(p->data + e->off, e->w.bytes) != e->hash)
            QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: weight %zu, at byte %" PRIu64 ", differs from "
                    "its checksum", name_of(p), i, e->off);
        uint64_t done = e->off + e->w.bytes - QSI_PACKED_DATA;
        if (progress != NULL && progress(user, (int64_t)done, (int64_t)qsi_packed_bytes(p)) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    }
    QS_TRY(qsi_packed_intact(p, err));
done:
    return st;
}
