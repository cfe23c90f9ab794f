/* GGUF 2/3 reading (over a mapping, validated completely at open) and writing (streaming).
 * Source: the GGUF format as documented by ggml; ids of types are GGML's.
 * Invariant after open: every tensor's bytes lie inside the file, do not overlap, have a known
 * type, a row size and dims (at least 1) whose product does not overflow, and begin at a multiple
 * of the alignment (a power of two, at least 8); keys and names are unique, UTF-8 without control
 * characters, names at most 64 bytes; arrays are not nested. String values are bytes: who reads
 * them checks them. Hot code needs no further check. Thread: a file is immutable after open; a
 * writer has one owner. */
#ifndef QSI_FMT_GGUF_H
#define QSI_FMT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "quant/quant.h"
#include "sys/file.h"

#define QSI_GGUF_MAX_KV 65536
#define QSI_GGUF_MAX_TENSORS 1000000
#define QSI_GGUF_MAX_DIMS 4
#define QSI_GGUF_MAX_ARRAY (1u << 26)

typedef enum qsi_gguf_vt {
    QSI_GV_U8, QSI_GV_I8, QSI_GV_U16, QSI_GV_I16, QSI_GV_U32, QSI_GV_I32, QSI_GV_F32, QSI_GV_BOOL,
    QSI_GV_STR, QSI_GV_ARR, QSI_GV_U64, QSI_GV_I64, QSI_GV_F64
} qsi_gguf_vt;

/* Bytes inside the mapping; not NUL-terminated. */
typedef struct qsi_slice {
    const char *p;
    size_t n;
} qsi_slice;

typedef struct qsi_gguf_kv {
    const char *key;      /* NUL-terminated, owned by the file */
    qsi_gguf_vt type;     /* QSI_GV_ARR: of elem */
    qsi_gguf_vt elem;
    uint64_t count;       /* elements of an array, else 1 */
    const uint8_t *data;  /* first value byte in the mapping (strings: their u64 length) */
    size_t data_bytes;
    const uint64_t *str_off; /* arrays of strings: offset of each from data (its u64 length) */
} qsi_gguf_kv;

typedef struct qsi_gguf_tensor {
    const char *name;     /* NUL-terminated, owned by the file */
    qsi_type type;
    int n_dims;
    int64_t ne[QSI_GGUF_MAX_DIMS]; /* ne[0] is the contiguous one (columns); missing ones are 1 */
    size_t offset;        /* from the start of the file */
    size_t bytes;
    const uint8_t *data;  /* mapped */
} qsi_gguf_tensor;

typedef struct qsi_gguf qsi_gguf;

/* The first file of a split model (NAME-00001-of-0000N.gguf, with the keys split.*) opens all of them:
 * keys are the first file's, tensors those of all. */
qs_status qsi_gguf_open(qsi_gguf **g, const char *path, qs_err *err) QS_MUST_CHECK;
/* Over bytes the caller keeps alive (fuzzing, tests). */
qs_status qsi_gguf_open_mem(qsi_gguf **g, const void *data, size_t size, qs_err *err) QS_MUST_CHECK;
/* Over a mapping, which is taken (closed also on failure); `name` stands for the path in messages.
 */
struct qsi_map;
qs_status qsi_gguf_open_map(qsi_gguf **g, struct qsi_map *m, const char *name, qs_err *err)
    QS_MUST_CHECK;
void qsi_gguf_close(qsi_gguf **g);
uint32_t qsi_gguf_version(const qsi_gguf *g);
uint32_t qsi_gguf_alignment(const qsi_gguf *g);
size_t qsi_gguf_size(const qsi_gguf *g);
const char *qsi_gguf_path(const qsi_gguf *g); /* "(memory)" when there is none */
size_t qsi_gguf_n_kv(const qsi_gguf *g);
const qsi_gguf_kv *qsi_gguf_kv_at(const qsi_gguf *g, size_t i);
const qsi_gguf_kv *qsi_gguf_find(const qsi_gguf *g, const char *key); /* NULL when missing */
size_t qsi_gguf_n_tensors(const qsi_gguf *g);
const qsi_gguf_tensor *qsi_gguf_tensor_at(const qsi_gguf *g, size_t i);
const qsi_gguf_tensor *qsi_gguf_tensor_find(const qsi_gguf *g, const char *name);
/* QS_E_IO when the file changed under its mapping (sys/mapguard.h). */
qs_status qsi_gguf_intact(const qsi_gguf *g, qs_err *err) QS_MUST_CHECK;
/* Gives up a tensor's pages: they are read again when touched. */
void qsi_gguf_drop(const qsi_gguf *g, const qsi_gguf_tensor *t);
/* The same for whole pages of n bytes at p; nothing when they are not the file's. Thread: any. */
void qsi_gguf_drop_bytes(const qsi_gguf *g, const void *p, size_t n);

/* The file's descriptor (borrowed), -1 for bytes in memory and for several files; and its first
 * byte. */
int qsi_gguf_fd(const qsi_gguf *g);
const uint8_t *qsi_gguf_data(const qsi_gguf *g);
/* The mapping of the model's i-th file; NULL: there are no more, or it is bytes in memory. */
const struct qsi_map *qsi_gguf_map(const qsi_gguf *g, size_t i);
/* Another value means that the model's files may be others (qsi_map_stamp); 0 for bytes in memory. */
uint64_t qsi_gguf_stamp(const qsi_gguf *g);
/* Pages will be touched here and there: the system reads no others with them. */
void qsi_gguf_random(const qsi_gguf *g);

/* Typed reading. Missing key: QS_E_NOTFOUND. Wrong type or out of range: QS_E_FORMAT. Integers of
 * any width are accepted when the value fits. */
qs_status qsi_gguf_i64(const qsi_gguf *g, const char *key, int64_t *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_gguf_f64(const qsi_gguf *g, const char *key, double *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_gguf_bool(const qsi_gguf *g, const char *key, bool *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_gguf_str(const qsi_gguf *g, const char *key, qsi_slice *out, qs_err *err)
    QS_MUST_CHECK;
/* Element i of an array of strings / of numbers. The kv must be such an array, i < count. */
qsi_slice qsi_gguf_arr_str(const qsi_gguf_kv *kv, uint64_t i);
/* Integers and bools; a u64 above INT64_MAX reads as INT64_MAX. */
int64_t qsi_gguf_arr_i64(const qsi_gguf_kv *kv, uint64_t i);
double qsi_gguf_arr_f64(const qsi_gguf_kv *kv, uint64_t i);

/* "u32", "string", ... */
const char *qsi_gguf_vt_name(qsi_gguf_vt t);

/* Writing: declare all keys and tensors, then give the tensors' bytes in order. The file appears
 * under its name at finish only (atomic). Version 3, alignment 32. */
typedef struct qsi_gguf_writer qsi_gguf_writer;
qs_status qsi_gguf_writer_open(qsi_gguf_writer **w, const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_gguf_put_u32(qsi_gguf_writer *w, const char *key, uint32_t v) QS_MUST_CHECK;
qs_status qsi_gguf_put_i32(qsi_gguf_writer *w, const char *key, int32_t v) QS_MUST_CHECK;
qs_status qsi_gguf_put_u64(qsi_gguf_writer *w, const char *key, uint64_t v) QS_MUST_CHECK;
qs_status qsi_gguf_put_f32(qsi_gguf_writer *w, const char *key, float v) QS_MUST_CHECK;
qs_status qsi_gguf_put_bool(qsi_gguf_writer *w, const char *key, bool v) QS_MUST_CHECK;
qs_status qsi_gguf_put_str(qsi_gguf_writer *w, const char *key, const char *s, size_t n)
    QS_MUST_CHECK;
qs_status qsi_gguf_put_arr_str(qsi_gguf_writer *w, const char *key, const qsi_slice *s, size_t n)
    QS_MUST_CHECK;
qs_status qsi_gguf_put_arr_i32(qsi_gguf_writer *w, const char *key, const int32_t *v, size_t n)
    QS_MUST_CHECK;
qs_status qsi_gguf_put_arr_f32(qsi_gguf_writer *w, const char *key, const float *v, size_t n)
    QS_MUST_CHECK;
/* Copies a key of an open file as it is. */
qs_status qsi_gguf_put_copy(qsi_gguf_writer *w, const qsi_gguf_kv *kv) QS_MUST_CHECK;
qs_status qsi_gguf_declare(qsi_gguf_writer *w, const char *name, qsi_type type, int n_dims,
                           const int64_t *ne, qs_err *err) QS_MUST_CHECK;
/* Appends bytes of the current tensor; when its size is reached the next one is current. The first
 * call writes the header. */
qs_status qsi_gguf_write(qsi_gguf_writer *w, const void *p, size_t n, qs_err *err) QS_MUST_CHECK;
/* A file without a name in folder `dir`; qsi_gguf_finish_open ends it. */
qs_status qsi_gguf_writer_open_temp(qsi_gguf_writer **w, const char *dir,
                                    qs_err *err) QS_MUST_CHECK;
/* A file written over several runs (qsi_writer_open_part); origin.source: what the tensors' bytes come
 * from, origin.options: what they depend on besides the keys and tensors declared here. The file
 * itself is opened by qsi_gguf_begin, which must be called when all is declared: bytes are to be
 * given from tensor *first on (the number of tensors when all are there). */
qs_status qsi_gguf_writer_open_part(qsi_gguf_writer **w, const char *path, qsi_origin origin,
                                    qs_err *err) QS_MUST_CHECK;
qs_status qsi_gguf_begin(qsi_gguf_writer *w, qsi_resume *r, size_t *first, qs_err *err) QS_MUST_CHECK;
/* Closes such a writer and leaves what it wrote for the next run. */
void qsi_gguf_writer_leave(qsi_gguf_writer **w);
/* QS_E_STATE when bytes are missing. Closes in any case. */
qs_status qsi_gguf_finish(qsi_gguf_writer **w, qs_err *err) QS_MUST_CHECK;
/* Of a nameless file: opens what was written; it vanishes when *g is closed. Closes w in any case.
 */
qs_status qsi_gguf_finish_open(qsi_gguf_writer **w, const char *name, qsi_gguf **g, qs_err *err)
    QS_MUST_CHECK;
void qsi_gguf_writer_abort(qsi_gguf_writer **w);

#endif
