/* New models with random weights, written straight to disk: memory stays bounded whatever the size.
 * Thread: any; one call at a time per file. */
#ifndef QSI_FILES_INIT_H
#define QSI_FILES_INIT_H

#include "model/model.h"
#include "tok/tok.h"

typedef struct qsi_init_opts {
    const char *name;      /* general.name */
    qsi_config config;     /* with a vocabulary, n_vocab is taken from it */
    qsi_type type;         /* of matrices; 1-d tensors and routers stay F32 */
    const qsi_vocab *vocab; /* NULL: byte symbols and numbered unused tokens */
    uint64_t seed;
    float std;             /* of the normal distribution of matrices; norms are ones */
    /* bytes of tensors written; non-zero cancels. May be NULL */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_init_opts;

/* The same options give the same file, byte for byte. A row that is no multiple of the type's block
 * is stored as F16, which a note of the log says. QS_E_IO when the disk has no room. */
qs_status qsi_init_write(const qsi_init_opts *o, const char *path, qs_err *err) QS_MUST_CHECK;

/* The type a tensor of a model gets when its matrices shall be of `wanted`; *fallback tells that
 * its rows do not fit. */
qsi_type qsi_init_type(const qsi_tensor_spec *t, qsi_type wanted, bool *fallback);
/* general.file_type of a model whose matrices are of `type` (ggml's numbers), -1 when unknown. */
int qsi_file_type(qsi_type type);

#endif
