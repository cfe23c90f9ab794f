/* Files that torch.save writes since PyTorch 1.6: a zip archive, stored without compression, of a
 * pickle (data.pkl) and the bytes of each storage (data/KEY). The pickle is read as data
 * (fmt/pickle.h); tensors must be contiguous and little-endian. Source: the zip format (PKWARE
 * APPNOTE 6.3, with zip64), torch/serialization.py. Thread: any. */
#ifndef QSI_FMT_TORCHZIP_H
#define QSI_FMT_TORCHZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "fmt/pickle.h"
#include "quant/quant.h"

#define QSI_TORCH_MAX_ENTRIES 400000

typedef struct qsi_torch_tensor {
    qsi_pickle_str name; /* as the file has it: the caller checks it */
    const char *dtype;   /* "BF16"; a constant */
    qsi_type type;       /* QSI_TYPE_NONE when there is no such GGML type */
    int n_dims;
    int64_t shape[QSI_PICKLE_MAX_DIMS]; /* row-major */
    int64_t n;
    size_t bytes;
    const uint8_t *data; /* inside the archive, which lies inside [data, data + size) */
} qsi_torch_tensor;

typedef qs_status qsi_torch_visit(void *user, const qsi_torch_tensor *t, qs_err *err);
/* True when the bytes begin as a zip archive does. */
bool qsi_is_zip(const void *data, size_t size);
/* Calls visit for every tensor of the archive. The bytes are borrowed. */
qs_status qsi_torch_read(const void *data, size_t size, qsi_torch_visit *visit, void *user,
                         qs_err *err) QS_MUST_CHECK;

#endif
