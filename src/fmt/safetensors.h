/* Reading the weights of a Hugging Face folder: safetensors or PyTorch's zip files, one file or the
 * shards that an index lists. Source: the safetensors format (deepseek-facts 4.3), fmt/torchzip.h.
 * Invariant after open: every tensor's bytes lie inside its file and equal the product of its
 * shape, in safetensors they also tile it without gap or overlap; names are unique over all shards
 * and fit to be shown. Thread: immutable after open. */
#ifndef QSI_FMT_SAFETENSORS_H
#define QSI_FMT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "quant/quant.h"

#define QSI_ST_MAX_DIMS 8
#define QSI_ST_MAX_HEADER ((size_t)100 << 20) /* the format's own limit */
#define QSI_ST_MAX_TENSORS 200000
#define QSI_ST_MAX_SHARDS 2048

typedef struct qsi_st_tensor {
    const char *name;        /* NUL-terminated, owned by the set */
    const char *dtype;       /* as the file says: "BF16", "F8_E4M3"; a constant string */
    qsi_type type;           /* its GGML twin, QSI_TYPE_NONE when there is none */
    int n_dims;              /* 0: a single value */
    int64_t shape[QSI_ST_MAX_DIMS]; /* row-major: the last one is contiguous */
    int64_t n;               /* elements; may be 0 */
    size_t bytes;
    const uint8_t *data;     /* mapped; no alignment beyond that of the file's header promised */
    int shard;
} qsi_st_tensor;

typedef struct qsi_st qsi_st;
/* path: a .safetensors or .bin file, an index (…index.json), or a folder that holds
 * model.safetensors, pytorch_model.bin or the index of either (the first of these is taken). */
qs_status qsi_st_open(qsi_st **s, const char *path, qs_err *err) QS_MUST_CHECK;
/* One file's bytes, which the caller keeps alive (fuzzing, tests). */
qs_status qsi_st_open_mem(qsi_st **s, const void *data, size_t size, qs_err *err) QS_MUST_CHECK;
void qsi_st_close(qsi_st **s);
size_t qsi_st_n_tensors(const qsi_st *s);
const qsi_st_tensor *qsi_st_at(const qsi_st *s, size_t i);
const qsi_st_tensor *qsi_st_find(const qsi_st *s, const char *name);
size_t qsi_st_n_shards(const qsi_st *s);
/* Bytes of all files. */
uint64_t qsi_st_bytes(const qsi_st *s);
/* Another value means that the files may be others (qsi_map_stamp); 0 for bytes in memory. */
uint64_t qsi_st_stamp(const qsi_st *s);
/* QS_E_IO when a file changed under its mapping (sys/mapguard.h). */
qs_status qsi_st_intact(const qsi_st *s, qs_err *err) QS_MUST_CHECK;
/* Gives the pages of a tensor back to the system after it was read. */
void qsi_st_drop(const qsi_st *s, const qsi_st_tensor *t);

#endif
