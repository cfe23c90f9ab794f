/* Token shards; the layout stands in shard.h. Owns the header and the checks at open.
 *
 * Header: magic[8], u32 version, u32 flags (1: mask), u64 vocab_hash, u32 n_vocab, u32 zero,
 * u64 n_docs, u64 n_tokens, u64 key, u64 checksum of bytes [64, end). The checksum is chained over
 * pieces of 1 MiB (h = hash(piece, h)), so that a writer needs no second pass. */
#include "fmt/shard.h"

#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "base/mem.h"

#define HEADER_BYTES 64
#define PIECE ((size_t)1 << 20)
#define VERSION 1u
#define FLAG_MASK 1u

static const char magic[8] = {'Q', 'S', 'S', 'H', 'A', 'R', 'D', '1'};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ids are mapped as they lie in the file");

struct qsi_shard_writer {
    qsi_writer *file;
    uint8_t *piece; /* [PIECE] bytes not yet hashed and written */
    size_t n_piece;
    uint64_t check;
    uint64_t vocab_hash, key;
    int32_t n_vocab;
    bool masked; /* some id is not learned */
    uint64_t n_tokens;
    uint64_t *begin, *hash; /* begin[n_docs] is not stored until finish */
    uint32_t *source;
    size_t n_docs, cap_begin, cap_hash, cap_source;
    uint8_t *mask;
    size_t cap_mask;
};

static uint64_t chain_hash(const uint8_t *p, size_t n) {
    uint64_t h = 0;
    while (n > 0) {
        size_t k = n < PIECE ? n : PIECE;
        h = qsi_hash_seed(p, k, h);
        p += k;
        n -= k;
    }
    return h;
}

static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}

static void put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> (8 * i));
}

/* Sizes of the sections from the header's counts; false when they cannot fit into `size`. */
static bool section_sizes(qsi_shard *s, bool masked, const uint8_t *data, size_t size) {
    uint64_t left = (uint64_t)size - HEADER_BYTES;
    uint64_t nt = (uint64_t)s->n_tokens, nd = (uint64_t)s->n_docs;
    if (nt > left / 4 || nd > left / 20 || nd > nt) return false;
    uint64_t at = HEADER_BYTES + 4 * nt;
    uint64_t mask_at = at;
    if (masked) at += (nt + 7) / 8;
    at = (at + 7) & ~(uint64_t)7;
    uint64_t want = at + 8 * (nd + 1) + 8 * nd + 4 * nd;
    if (want != size) return false;
    s->ids = (const int32_t *)(const void *)(data + HEADER_BYTES);
    s->mask = masked ? data + mask_at : NULL;
    s->begin = (const uint64_t *)(const void *)(data + at);
    s->hash = (const uint64_t *)(const void *)(data + at + 8 * (nd + 1));
    s->source = (const uint32_t *)(const void *)(data + at + 8 * (nd + 1) + 8 * nd);
    return true;
}

static qs_status check_content(const qsi_shard *s, qs_err *err) {
    qs_status st = QS_OK;
    if (s->begin[0] != 0 || s->begin[s->n_docs] != (uint64_t)s->n_tokens)
        QS_FAIL(err, QS_E_FORMAT, "token shard: the documents do not cover its ids");
    for (int64_t d = 0; d < s->n_docs; d++)
        if (s->begin[d] >= s->begin[d + 1])
            QS_FAIL(err, QS_E_FORMAT, "token shard: document %lld is empty or out of order",
                    (long long)d);
    for (int64_t t = 0; t < s->n_tokens; t++)
        if ((uint32_t)s->ids[t] >= (uint32_t)s->n_vocab)
            QS_FAIL(err, QS_E_FORMAT, "token shard: id %d at %lld, the vocabulary has %d",
                    (int)s->ids[t], (long long)t, (int)s->n_vocab);
done:
    return st;
}

qs_status qsi_shard_open_mem(qsi_shard *s, const void *data, size_t size, qs_err *err) {
    qs_status st = QS_OK;
    qsi_cursor c;
    memset(s, 0, sizeof(*s));
    s->map.fd = -1;
    if (((uintptr_t)data & 7) != 0) QS_FAIL(err, QS_E_ARG, "token shard: bytes not aligned to 8");
    qsi_cursor_init(&c, data, size);
    const uint8_t *m = qsi_cursor_bytes(&c, sizeof(magic));
    if (m == NULL || memcmp(m, magic, sizeof(magic)) != 0)
        QS_FAIL(err, QS_E_FORMAT, "not a token shard");
    uint32_t version = qsi_cursor_u32(&c), flags = qsi_cursor_u32(&c);
    s->vocab_hash = qsi_cursor_u64(&c);
    uint32_t n_vocab = qsi_cursor_u32(&c), zero = qsi_cursor_u32(&c);
    uint64_t nd = qsi_cursor_u64(&c), nt = qsi_cursor_u64(&c);
    s->key = qsi_cursor_u64(&c);
    uint64_t check = qsi_cursor_u64(&c);
    if (c.failed) QS_FAIL(err, QS_E_FORMAT, "token shard: %zu bytes are no header", size);
    if (version != VERSION || (flags & ~FLAG_MASK) != 0 || zero != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "token shard: version %u, this program reads %u",
                (unsigned)version, (unsigned)VERSION);
    if (n_vocab == 0 || n_vocab > INT32_MAX || nd > INT64_MAX / 64 || nt > INT64_MAX / 64)
        QS_FAIL(err, QS_E_FORMAT, "token shard: impossible counts in the header");
    s->n_vocab = (int32_t)n_vocab;
    s->n_docs = (int64_t)nd;
    s->n_tokens = (int64_t)nt;
    if (!section_sizes(s, (flags & FLAG_MASK) != 0, data, size))
        QS_FAIL(err, QS_E_CORRUPT, "token shard: %zu bytes do not hold %llu ids in %llu documents",
                size, (unsigned long long)nt, (unsigned long long)nd);
    if (chain_hash((const uint8_t *)data + HEADER_BYTES, size - HEADER_BYTES) != check)
        QS_FAIL(err, QS_E_CORRUPT, "token shard: checksum differs");
    QS_TRY(check_content(s, err));
done:
    return st;
}

qs_status qsi_shard_open(qsi_shard *s, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map map = {.fd = -1};
    memset(s, 0, sizeof(*s));
    s->map.fd = -1;
    QS_TRY(qsi_map_open(&map, path, err));
    st = qsi_shard_open_mem(s, map.data, map.size, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "'%s'", path);
        goto done;
    }
    s->map = map;
    map = (qsi_map){.fd = -1};
done:
    if (map.data != NULL || map.fd >= 0) qsi_map_close(&map);
    return st;
}

void qsi_shard_close(qsi_shard *s) {
    if (s == NULL) return;
    if (s->map.data != NULL || s->map.fd >= 0) qsi_map_close(&s->map);
    memset(s, 0, sizeof(*s));
    s->map.fd = -1;
}

/* ---- writing ---- */

static qs_status flush_piece(qsi_shard_writer *w, qs_err *err) {
    if (w->n_piece == 0) return QS_OK;
    w->check = qsi_hash_seed(w->piece, w->n_piece, w->check);
    size_t n = w->n_piece;
    w->n_piece = 0;
    return qsi_writer_write(w->file, w->piece, n, err);
}

static qs_status put_bytes(qsi_shard_writer *w, const void *p, size_t n, qs_err *err) {
    const uint8_t *b = p;
    qs_status st = QS_OK;
    while (n > 0) {
        size_t k = PIECE - w->n_piece;
        if (k > n) k = n;
        memcpy(w->piece + w->n_piece, b, k);
        w->n_piece += k;
        b += k;
        n -= k;
        if (w->n_piece == PIECE) QS_TRY(flush_piece(w, err));
    }
done:
    return st;
}

qs_status qsi_shard_writer_open(qsi_shard_writer **out, const char *path, uint64_t vocab_hash,
                                int32_t n_vocab, uint64_t key, qs_err *err) {
    qs_status st = QS_OK;
    static const uint8_t zeros[HEADER_BYTES];
    qsi_shard_writer *w = qsi_calloc(1, sizeof(*w));
    if (w == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a token shard");
    w->vocab_hash = vocab_hash;
    w->n_vocab = n_vocab;
    w->key = key;
    w->piece = qsi_alloc(PIECE, 1);
    if (w->piece == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a token shard");
    QS_TRY(qsi_writer_open(&w->file, path, err));
    QS_TRY(qsi_writer_write(w->file, zeros, sizeof(zeros), err));
    *out = w;
    w = NULL;
done:
    qsi_shard_writer_abort(&w);
    return st;
}

/* Grows the four tables for one more document of n ids. */
static qs_status grow_tables(qsi_shard_writer *w, size_t n) {
    qs_status st = QS_OK;
    size_t had = w->cap_mask;
    uint64_t need = (w->n_tokens + n + 7) / 8;
    QS_TRY(qsi_grow((void **)&w->begin, &w->cap_begin, w->n_docs + 2, sizeof(*w->begin)));
    QS_TRY(qsi_grow((void **)&w->hash, &w->cap_hash, w->n_docs + 1, sizeof(*w->hash)));
    QS_TRY(qsi_grow((void **)&w->source, &w->cap_source, w->n_docs + 1, sizeof(*w->source)));
    QS_TRY(qsi_grow((void **)&w->mask, &w->cap_mask, (size_t)need, 1));
    memset(w->mask + had, 0, w->cap_mask - had);
done:
    return st;
}

qs_status qsi_shard_put(qsi_shard_writer *w, const int32_t *ids, const int32_t *mask, size_t n,
                        uint64_t hash, uint32_t source, qs_err *err) {
    qs_status st = QS_OK;
    if (n == 0) QS_FAIL(err, QS_E_ARG, "token shard: an empty document");
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)ids[i] >= (uint32_t)w->n_vocab)
            QS_FAIL(err, QS_E_RANGE, "token shard: id %d, the vocabulary has %d", (int)ids[i],
                    (int)w->n_vocab);
    if (grow_tables(w, n) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory after %zu documents", w->n_docs);
    for (size_t i = 0; i < n; i++) {
        uint64_t t = w->n_tokens + i;
        if (mask == NULL || mask[i] != 0) w->mask[t >> 3] |= (uint8_t)(1u << (t & 7));
        else w->masked = true;
    }
    QS_TRY(put_bytes(w, ids, n * sizeof(*ids), err));
    w->begin[w->n_docs] = w->n_tokens;
    w->hash[w->n_docs] = hash;
    w->source[w->n_docs] = source;
    w->n_docs++;
    w->n_tokens += n;
done:
    return st;
}

qs_status qsi_shard_finish(qsi_shard_writer **pw, qs_err *err) {
    qs_status st = QS_OK;
    qsi_shard_writer *w = *pw;
    uint8_t h[HEADER_BYTES] = {0}, zeros[8] = {0};
    if (grow_tables(w, 0) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory for a token shard");
    w->begin[w->n_docs] = w->n_tokens;
    uint64_t at = HEADER_BYTES + 4 * w->n_tokens;
    if (w->masked) {
        QS_TRY(put_bytes(w, w->mask, (size_t)((w->n_tokens + 7) / 8), err));
        at += (w->n_tokens + 7) / 8;
    }
    QS_TRY(put_bytes(w, zeros, (size_t)((8 - (at & 7)) & 7), err));
    QS_TRY(put_bytes(w, w->begin, (w->n_docs + 1) * sizeof(*w->begin), err));
    QS_TRY(put_bytes(w, w->hash, w->n_docs * sizeof(*w->hash), err));
    QS_TRY(put_bytes(w, w->source, w->n_docs * sizeof(*w->source), err));
    QS_TRY(flush_piece(w, err));
    memcpy(h, magic, sizeof(magic));
    put_u32(h + 8, VERSION);
    put_u32(h + 12, w->masked ? FLAG_MASK : 0);
    put_u64(h + 16, w->vocab_hash);
    put_u32(h + 24, (uint32_t)w->n_vocab);
    put_u64(h + 32, w->n_docs);
    put_u64(h + 40, w->n_tokens);
    put_u64(h + 48, w->key);
    put_u64(h + 56, w->check);
    QS_TRY(qsi_writer_patch(w->file, 0, h, sizeof(h), err));
    QS_TRY(qsi_writer_commit(&w->file, err));
done:
    qsi_shard_writer_abort(pw);
    return st;
}

void qsi_shard_writer_abort(qsi_shard_writer **pw) {
    qsi_shard_writer *w = *pw;
    if (w == NULL) return;
    qsi_writer_abort(&w->file);
    qsi_free(w->piece);
    qsi_free(w->begin);
    qsi_free(w->hash);
    qsi_free(w->source);
    qsi_free(w->mask);
    qsi_free(w);
    *pw = NULL;
}
