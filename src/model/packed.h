/* A copy of a model's weights in the layout of the kernels, kept in a file and mapped: loading it
 * repacks nothing. A cache: what does not fit the model, this program or this CPU is not used.
 *
 * The file (numbers little-endian):
 *   0        magic "QSPACKED", u32 version, u32 flags (1: for --exact), u64 bytes of the file,
 *            u64 hash of the model's file, u64 hash of the kernels' layout, u64 offset of the table,
 *            u64 weights, u64 hash of the table, level of the CPU (16 bytes), 40 zeros,
 *            u64 hash of all this: 128 bytes
 *   4096     the weights, one after another in the order in which a model is bound, each at a
 *            multiple of 4096
 *   table    of each weight 56 bytes: u32 kind, u32 0, u64 rows, u64 columns, u64 offset, u64 bytes,
 *            u64 hash of its bytes, u64 hash of its name. The file ends with it
 * It is written in pieces of 2 MiB at multiples of 2 MiB: file systems that can keep such a piece as
 * one page of the cache do, and it is mapped by huge pages. Opening checks header, table and all
 * bounds; the weights' bytes are compared with their hashes by qsi_packed_verify alone.
 * Thread: a copy is immutable after open; a writer has one owner. */
#ifndef QSI_MODEL_PACKED_H
#define QSI_MODEL_PACKED_H

#include "base/str.h"
#include "fmt/gguf.h"
#include "kern/kern.h"
#include "sys/pool.h"

#define QSI_PACKED_VERSION 1 /* also the order of binding (model.c): raise it when that changes */
#define QSI_PACKED_SUFFIX ".qspacked"
enum { QSI_PACKED_HEADER = 128, QSI_PACKED_ENTRY = 56, QSI_PACKED_ALIGN = 4096,
       QSI_PACKED_DATA = 4096 };

/* What a copy is made of and for. */
typedef struct qsi_packed_id {
    uint64_t source, layout;
    bool exact;
    char isa[16]; /* for messages */
} qsi_packed_id;
/* source: sizes and times of g's files, their keys and tensor tables whole, and samples of the weights.
 * layout: what the packing of k makes of a fixed pattern. */
qs_status qsi_packed_id_of(qsi_packed_id *id, const qsi_gguf *g, const qsi_kern *k, bool exact,
                           qs_err *err) QS_MUST_CHECK;
/* Appends "folder/NAME-HASH.qspacked": one for a path of a model and for exact. */
qs_status qsi_packed_path(qsi_str *out, const char *folder, const char *model, bool exact,
                          qs_err *err) QS_MUST_CHECK;

/* A weight as a copy holds it. */
typedef struct qsi_packed_weight {
    uint64_t name; /* hash */
    qsi_mm kind;
    int64_t n_out, n_in;
    size_t bytes;
} qsi_packed_weight;

typedef struct qsi_packed qsi_packed;
/* QS_E_NOTFOUND: there is none. QS_E_STATE: it is one, but for something else; the text says what
 * differs. QS_E_FORMAT, QS_E_CORRUPT: it is none, or damaged. id NULL: any. */
qs_status qsi_packed_open(qsi_packed **p, const char *path, const qsi_packed_id *id, qs_err *err)
    QS_MUST_CHECK;
/* Over bytes that the caller keeps (fuzzing). */
qs_status qsi_packed_open_mem(qsi_packed **p, const void *data, size_t n, const qsi_packed_id *id,
                              qs_err *err) QS_MUST_CHECK;
void qsi_packed_close(qsi_packed **p);
/* Whether the file begins like a copy. */
bool qsi_packed_is(const char *path);
const char *qsi_packed_isa(const qsi_packed *p); /* level of the CPU it was made for */
size_t qsi_packed_count(const qsi_packed *p);
/* Bytes of weights. */
uint64_t qsi_packed_bytes(const qsi_packed *p);
/* Its i-th weight, borrowed; QS_E_CORRUPT when that is not `want`. */
qs_status qsi_packed_take(const qsi_packed *p, size_t i, const qsi_packed_weight *want,
                          const void **out, qs_err *err) QS_MUST_CHECK;
/* Puts it into memory and into the page table, by all workers, when there is room for it; progress
 * as in qsi_model_opts. QS_E_CANCELLED. */
qs_status qsi_packed_load(const qsi_packed *p, qsi_pool *pool,
                          int (*progress)(void *user, int64_t done, int64_t of), void *user,
                          qs_err *err) QS_MUST_CHECK;
/* Compares every weight with its hash. QS_E_CORRUPT, naming the first that differs. */
qs_status qsi_packed_verify(const qsi_packed *p, int (*progress)(void *user, int64_t done, int64_t of),
                            void *user, qs_err *err) QS_MUST_CHECK;
/* QS_E_IO when the file changed under its mapping. */
qs_status qsi_packed_intact(const qsi_packed *p, qs_err *err) QS_MUST_CHECK;

typedef struct qsi_packed_writer qsi_packed_writer;
/* Makes the folder when it is missing. QS_E_STATE: another process is writing the same copy.
 * QS_E_LIMIT: fewer than `need` bytes are free there. */
qs_status qsi_packed_writer_open(qsi_packed_writer **w, const char *path, const qsi_packed_id *id,
                                 uint64_t need, qs_err *err) QS_MUST_CHECK;
qs_status qsi_packed_put(qsi_packed_writer *w, const qsi_packed_weight *x, const void *data,
                         qs_err *err) QS_MUST_CHECK;
/* The file appears under its name, whole. Closes w in any case. */
qs_status qsi_packed_finish(qsi_packed_writer **w, qs_err *err) QS_MUST_CHECK;
void qsi_packed_abort(qsi_packed_writer **w);

#endif
