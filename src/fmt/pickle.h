/* The part of Python's pickle that a file of tensors needs, read as data.
 *
 * A pickle is a program for a stack machine, and in Python it may call anything. This reader knows
 * the opcodes for plain values (None, booleans, integers, strings, tuples, lists, dictionaries),
 * the memo, and three names: OrderedDict, torch's rebuild of a tensor and of a parameter, with the
 * storage classes as constants. Every other name or opcode is refused by name; nothing is ever
 * called. Source: Lib/pickletools.py of Python (protocols 0 to 5), torch/_utils.py of PyTorch.
 * Memory is bounded by the size of the pickle. Thread: any. */
#ifndef QSI_FMT_PICKLE_H
#define QSI_FMT_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_PICKLE_MAX_BYTES ((size_t)8 << 20) /* of memory about 50 times as much */
#define QSI_PICKLE_MAX_DIMS 8

typedef struct qsi_pickle_str { /* bytes inside the pickle */
    const char *p;
    size_t n;
} qsi_pickle_str;

typedef struct qsi_pickle_tensor {
    qsi_pickle_str name;
    qsi_pickle_str storage; /* its class: "FloatStorage" */
    qsi_pickle_str key;     /* which storage of the archive */
    int64_t storage_numel;
    int64_t offset;         /* elements into the storage */
    int n_dims;
    int64_t shape[QSI_PICKLE_MAX_DIMS], stride[QSI_PICKLE_MAX_DIMS]; /* in elements */
} qsi_pickle_tensor;

/* Called for every entry of the dictionary that the pickle holds, in its order. */
typedef qs_status qsi_pickle_visit(void *user, const qsi_pickle_tensor *t, qs_err *err);
/* The pickle must be one dictionary of names to tensors (or parameters). Errors name the offset of
 * the opcode. */
qs_status qsi_pickle_tensors(const void *data, size_t size, qsi_pickle_visit *visit, void *user,
                             qs_err *err) QS_MUST_CHECK;

#endif
