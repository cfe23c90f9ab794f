/* Checkpoint files: named whole tensors and named byte strings, each with its checksum.
 *
 * File (little-endian):
 *   0   64 bytes  header, see ckpt.c
 *   64  values, each aligned to 64
 *       table: one record per entry: u16 name bytes, name, u8 kind, u8 n_dims, i64 ne[n_dims],
 *       u64 offset, u64 bytes, u64 checksum
 * A tensor is stored whole, under its own name, whatever layout of processes wrote it; the layout
 * stands beside it as a byte string of its own. Invariant after open: every entry lies inside the
 * file before the table, its size agrees with its dims, all checksums hold, names are unique.
 * Thread: a checkpoint is immutable after open; a writer has one owner. */
#ifndef QSI_FMT_CKPT_H
#define QSI_FMT_CKPT_H

#include <stdint.h>

#include "base/status.h"

#define QSI_CKPT_MAX_ENTRIES 1000000
#define QSI_CKPT_MAX_NAME 255
#define QSI_CKPT_MAX_DIMS 4

typedef enum qsi_ckpt_kind { QSI_CKPT_BYTES = 0, QSI_CKPT_F32 = 1 } qsi_ckpt_kind;

typedef struct qsi_ckpt_entry {
    const char *name;     /* NUL-terminated, owned by the checkpoint */
    qsi_ckpt_kind kind;
    int n_dims;           /* bytes: 1, ne[0] is their number */
    int64_t ne[QSI_CKPT_MAX_DIMS]; /* ne[0] is the contiguous one */
    size_t bytes;
    const void *data;     /* mapped, aligned to 64; NULL when bytes is 0 */
} qsi_ckpt_entry;

typedef struct qsi_ckpt qsi_ckpt;
/* Maps a file and verifies all of it. */
qs_status qsi_ckpt_open(qsi_ckpt **c, const char *path, qs_err *err) QS_MUST_CHECK;
/* Over bytes that the caller keeps alive, aligned to 64 (else QS_E_ARG). */
qs_status qsi_ckpt_open_mem(qsi_ckpt **c, const void *data, size_t size, qs_err *err)
    QS_MUST_CHECK;
void qsi_ckpt_close(qsi_ckpt **c);
size_t qsi_ckpt_count(const qsi_ckpt *c);
const qsi_ckpt_entry *qsi_ckpt_at(const qsi_ckpt *c, size_t i);
const qsi_ckpt_entry *qsi_ckpt_find(const qsi_ckpt *c, const char *name); /* NULL when missing */
/* Checksum of the table, which holds all the others: names a checkpoint's content. */
uint64_t qsi_ckpt_hash(const qsi_ckpt *c);

/* Writing: the file appears under its name at finish only (atomic, flushed to the disk). */
typedef struct qsi_ckpt_writer qsi_ckpt_writer;
qs_status qsi_ckpt_writer_open(qsi_ckpt_writer **w, const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_ckpt_put_bytes(qsi_ckpt_writer *w, const char *name, const void *p, size_t n,
                             qs_err *err) QS_MUST_CHECK;
qs_status qsi_ckpt_put_f32(qsi_ckpt_writer *w, const char *name, int n_dims, const int64_t *ne,
                           const float *p, qs_err *err) QS_MUST_CHECK;
/* Gives size and hash (as qsi_ckpt_hash) of the finished file; either may be NULL. */
qs_status qsi_ckpt_finish(qsi_ckpt_writer **w, uint64_t *bytes, uint64_t *hash, qs_err *err)
    QS_MUST_CHECK;
void qsi_ckpt_writer_abort(qsi_ckpt_writer **w);

#endif
