/* Token shards: documents as 32-bit ids with their boundaries and optional loss-mask bits.
 *
 * File (little-endian, offsets from its start):
 *   0   64 bytes  header, see shard.c
 *   64  ids       int32 [n_tokens]
 *       mask      bit t of byte t/8 (lowest first): 1 = the id at t is to be learned; absent when
 *                 every id is. Zero-padded to a multiple of 8 bytes from the file's start.
 *       begin     uint64 [n_docs + 1]: document d is ids [begin[d], begin[d+1])
 *       hash      uint64 [n_docs]: hash of the document's text, for the split into parts
 *       source    uint32 [n_docs]: index of the source it came from
 * Invariant after open: the sizes add up to the file's size, the checksum holds, begin is strictly
 * ascending from 0 to n_tokens, every id lies in [0, n_vocab). Hot code needs no further check.
 * Thread: a shard is immutable after open; a writer has one owner. */
#ifndef QSI_FMT_SHARD_H
#define QSI_FMT_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "sys/file.h"

typedef struct qsi_shard {
    qsi_map map;               /* data NULL when opened over memory */
    uint64_t vocab_hash;       /* of the vocabulary that made the ids */
    uint64_t key;              /* of the sources' bytes and the settings, chosen by the writer */
    int32_t n_vocab;
    int64_t n_docs, n_tokens;
    const int32_t *ids;
    const uint8_t *mask;       /* NULL: every id is learned */
    const uint64_t *begin, *hash;
    const uint32_t *source;
} qsi_shard;

/* Maps and validates a whole file. */
qs_status qsi_shard_open(qsi_shard *s, const char *path, qs_err *err) QS_MUST_CHECK;
/* Over bytes that the caller keeps alive, aligned to 8 (else QS_E_ARG). */
qs_status qsi_shard_open_mem(qsi_shard *s, const void *data, size_t size, qs_err *err)
    QS_MUST_CHECK;
void qsi_shard_close(qsi_shard *s);
/* Whether the id at t (in [0, n_tokens)) is to be learned. */
static inline bool qsi_shard_learned(const qsi_shard *s, int64_t t) {
    return s->mask == NULL || ((s->mask[t >> 3] >> (t & 7)) & 1) != 0;
}

/* Writing: the file appears under its name at finish only (atomic). */
typedef struct qsi_shard_writer qsi_shard_writer;
qs_status qsi_shard_writer_open(qsi_shard_writer **w, const char *path, uint64_t vocab_hash,
                                int32_t n_vocab, uint64_t key, qs_err *err) QS_MUST_CHECK;
/* Appends one document of n >= 1 ids. mask: n values, 0 or not; NULL: all learned. */
qs_status qsi_shard_put(qsi_shard_writer *w, const int32_t *ids, const int32_t *mask, size_t n,
                        uint64_t hash, uint32_t source, qs_err *err) QS_MUST_CHECK;
qs_status qsi_shard_finish(qsi_shard_writer **w, qs_err *err) QS_MUST_CHECK;
void qsi_shard_writer_abort(qsi_shard_writer **w);

#endif
