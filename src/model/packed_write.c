/* Repacked copies: what they are made of, and writing. See packed.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/packed.h"
#include "op/op.h"
#include "sys/file.h"
#include "sys/runfile.h"

enum { SAMPLES = 128, SAMPLE = 4096, PIECE = 2 << 20 };
#define SPARE_BYTES ((uint64_t)64 << 20) /* left on the disk */

/* ---- what a copy is made of ---- */

/* Bytes before the first tensor's: keys and the table of tensors. */
static size_t head_bytes(const qsi_gguf *g, const uint8_t *data, size_t size) {
    size_t n = size;
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        uintptr_t at = (uintptr_t)qsi_gguf_tensor_at(g, i)->data, base = (uintptr_t)data;
        if (at >= base && at - base < n) n = at - base;
    }
    return n;
}

static uint64_t mix(uint64_t h, const void *p, size_t n) { return qsi_hash_seed(p, n, h); }

/* One of the model's files. Samples are read, not touched: the mapping would read far ahead. */
static qs_status hash_file(const qsi_gguf *g, const qsi_map *m, uint64_t *h, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t piece[SAMPLE];
    const int64_t about[2] = {(int64_t)m->size, qsi_map_mtime_ns(m)};
    *h = mix(*h, about, sizeof about);
    *h = mix(*h, m->data, head_bytes(g, m->data, m->size));
    if (m->size < SAMPLE) goto done;
    for (size_t i = 0; i < SAMPLES; i++) {
        QS_TRY(qsi_map_peek(m, (m->size - SAMPLE) / (SAMPLES - 1) * i, piece, sizeof piece, err));
        *h = mix(*h, piece, sizeof piece);
    }
done:
    return st;
}

qs_status qsi_packed_id_of(qsi_packed_id *id, const qsi_gguf *g, const qsi_kern *k, bool exact,
                           qs_err *err) {
    qs_status st = QS_OK;
    const qsi_map *m;
    uint64_t h = 0;
    *id = (qsi_packed_id){.exact = exact};
    snprintf(id->isa, sizeof id->isa, "%s", qsi_isa_name(k->isa));
    if (qsi_gguf_map(g, 0) == NULL)
        QS_FAIL(err, QS_E_UNSUPPORTED, "a model that is no file has no repacked copy");
    for (size_t i = 0; (m = qsi_gguf_map(g, i)) != NULL; i++) QS_TRY(hash_file(g, m, &h, err));
    id->source = h;
    QS_TRY(qsi_weight_layout(k, &id->layout, err));
done:
    return st;
}

qs_status qsi_packed_path(qsi_str *out, const char *folder, const char *model, bool exact,
                          qs_err *err) {
    qs_status st = QS_OK;
    qsi_str real = {0}, name = {0};
    QS_TRY(qsi_path_real(model, &real, err));
    const char *base = strrchr(real.data, '/');
    base = base != NULL ? base + 1 : real.data;
    size_t n = strlen(base);
    if (n > 5 && strcmp(base + n - 5, ".gguf") == 0) n -= 5;
    if (n > 160) n = qsi_utf8_whole(base, 160);
    if (qsi_str_append(&name, base, n) != QS_OK ||
        qsi_str_printf(&name, "-%08" PRIx32 "%s" QSI_PACKED_SUFFIX,
                       (uint32_t)qsi_hash(real.data, real.len), exact ? "-exact" : "") != QS_OK ||
        qsi_path_join(out, folder, name.data) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
done:
    qsi_str_release(&real);
    qsi_str_release(&name);
    return st;
}

/* ---- writing ---- */

struct qsi_packed_writer {
    qsi_writer *out;
    qsi_lock lock;
    qsi_packed_id id;
    char *path;
    uint8_t *piece; /* [PIECE], `fill` of them taken */
    size_t fill;
    uint64_t pos; /* in the file, of the next byte */
    qsi_str table;
    size_t n;
};

static void writer_free(qsi_packed_writer *w) {
    if (w == NULL) return;
    qsi_writer_abort(&w->out);
    qsi_lock_release(&w->lock);
    qsi_str_release(&w->table);
    qsi_free(w->piece);
    qsi_free(w->path);
    qsi_free(w);
}

static void put32(uint8_t *p, uint32_t x) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(x >> 8 * i);
}

static void put64(uint8_t *p, uint64_t x) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(x >> 8 * i);
}

/* Bytes go out in whole pieces at their multiples. */
static qs_status put(qsi_packed_writer *w, const void *data, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    const uint8_t *p = data;
    w->pos += n;
    while (n > 0) {
        if (w->fill == 0 && n >= PIECE && p != NULL) {
            size_t whole = n / PIECE * PIECE;
            QS_TRY(qsi_writer_write(w->out, p, whole, err));
            p += whole;
            n -= whole;
            continue;
        }
        size_t k = n < PIECE - w->fill ? n : PIECE - w->fill;
        if (p != NULL) memcpy(w->piece + w->fill, p, k);
        else memset(w->piece + w->fill, 0, k);
        w->fill += k;
        n -= k;
        if (p != NULL) p += k;
        if (w->fill < PIECE) continue;
        QS_TRY(qsi_writer_write(w->out, w->piece, PIECE, err));
        w->fill = 0;
    }
done:
    return st;
}

/* Takes the lock; then what killed writers left can go. */
static qs_status begin(qsi_packed_writer *w, const char *folder, uint64_t need, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str lock = {0};
    char a[QSI_SIZE_TEXT], b[QSI_SIZE_TEXT];
    QS_TRY(qsi_make_dirs(folder, err));
    if (qsi_str_printf(&lock, "%s.lock", w->path) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    st = qsi_lock_take(&w->lock, lock.data, err);
    if (st == QS_E_STATE) QS_FAIL(err, st, "another process is writing it");
    QS_TRY(st);
    qsi_remove_leftovers(folder, strrchr(w->path, '/') + 1);
    uint64_t room = qsi_disk_free(folder);
    if (room < need + SPARE_BYTES)
        QS_FAIL(err, QS_E_LIMIT, "it takes %s, and %s are free in '%s'", qsi_size_text(a, need),
                qsi_size_text(b, room), folder);
    QS_TRY(qsi_writer_open(&w->out, w->path, err));
    QS_TRY(put(w, NULL, QSI_PACKED_DATA, err)); /* the header, filled in at the end */
done:
    qsi_str_release(&lock);
    return st;
}

qs_status qsi_packed_writer_open(qsi_packed_writer **out, const char *path, const qsi_packed_id *id,
                                 uint64_t need, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str folder = {0};
    qsi_packed_writer *w = qsi_calloc(1, sizeof *w);
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    w->lock.fd = -1;
    w->id = *id;
    w->path = qsi_strdup(path);
    w->piece = qsi_alloc(PIECE, 1);
    const char *slash = strrchr(path, '/');
    QS_CHECK(slash != NULL);
    if (w->path == NULL || w->piece == NULL ||
        qsi_str_append(&folder, path, slash == path ? 1 : (size_t)(slash - path)) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(begin(w, folder.data, need, err));
    *out = w;
    w = NULL;
done:
    qsi_str_release(&folder);
    writer_free(w);
    return st;
}

qs_status qsi_packed_put(qsi_packed_writer *w, const qsi_packed_weight *x, const void *data,
                         qs_err *err) {
    qs_status st = QS_OK;
    uint8_t e[QSI_PACKED_ENTRY] = {0};
    size_t over = w->pos % QSI_PACKED_ALIGN;
    if (over > 0) QS_TRY(put(w, NULL, QSI_PACKED_ALIGN - over, err));
    put32(e, (uint32_t)x->kind);
    put64(e + 8, (uint64_t)x->n_out);
    put64(e + 16, (uint64_t)x->n_in);
    put64(e + 24, w->pos);
    put64(e + 32, x->bytes);
    put64(e + 40, qsi_hash(data, x->bytes));
    put64(e + 48, x->name);
    if (qsi_str_append(&w->table, e, sizeof e) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    w->n++;
    QS_TRY(put(w, data, x->bytes, err));
done:
    return st;
}

qs_status qsi_packed_finish(qsi_packed_writer **pw, qs_err *err) {
    qs_status st = QS_OK;
    qsi_packed_writer *w = *pw;
    uint8_t h[QSI_PACKED_HEADER] = {0};
    *pw = NULL;
    uint64_t table = w->pos;
    const char *rows = w->table.data != NULL ? w->table.data : "";
    memcpy(h, "QSPACKED", 8);
    put32(h + 8, QSI_PACKED_VERSION);
    put32(h + 12, w->id.exact);
    put64(h + 16, table + w->table.len);
    put64(h + 24, w->id.source);
    put64(h + 32, w->id.layout);
    put64(h + 40, table);
    put64(h + 48, w->n);
    put64(h + 56, qsi_hash(rows, w->table.len));
    memcpy(h + 64, w->id.isa, sizeof w->id.isa);
    put64(h + 120, qsi_hash(h, 120));
    QS_TRY(put(w, rows, w->table.len, err));
    QS_TRY(qsi_writer_write(w->out, w->piece, w->fill, err));
    QS_TRY(qsi_writer_patch(w->out, 0, h, sizeof h, err));
    QS_TRY(qsi_writer_commit(&w->out, err));
done:
    writer_free(w);
    return st;
}

void qsi_packed_abort(qsi_packed_writer **pw) {
    writer_free(*pw);
    *pw = NULL;
}
