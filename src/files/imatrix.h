/* Importance matrices as files: what llama.cpp reads and writes. A GGUF without a model; for every
 * matrix T of one F32 tensor T.in_sum2 [columns, matrices], sums of squares of what was multiplied
 * with the columns, and one T.counts [1, matrices], of how many rows; keys imatrix.datasets,
 * imatrix.chunk_count and imatrix.chunk_size. Thread: any; a file is immutable after open. */
#ifndef QSI_FILES_IMATRIX_H
#define QSI_FILES_IMATRIX_H

#include "fmt/gguf.h"
#include "model/importance.h"

/* Writes x. dataset: the text's name; chunks of so many tokens. The file appears when it is complete. */
qs_status qsi_imatrix_save(const qsi_importance *x, const char *path, const char *dataset,
                           int64_t n_chunks, int64_t chunk, qs_err *err) QS_MUST_CHECK;

typedef struct qsi_imatrix qsi_imatrix;
/* QS_E_FORMAT: no importance matrix, or values that are none (negative, not finite, no rows). */
qs_status qsi_imatrix_open(qsi_imatrix **m, const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_imatrix_open_gguf(qsi_imatrix **m, qsi_gguf *g, qs_err *err) QS_MUST_CHECK; /* takes g */
void qsi_imatrix_close(qsi_imatrix **m);
/* Whether the file at path begins as a GGUF does. */
bool qsi_imatrix_is_file(const char *path);

/* The mean squares for a tensor, [n, k]; NULL: none for it, *sums stays. Where a matrix saw no row its
 * columns are all 1. QS_E_FORMAT when k or n differ from the file's. The caller frees (base/mem.h). */
qs_status qsi_imatrix_weights(const qsi_imatrix *m, const char *name, int64_t k, int64_t n,
                              float **out, qs_err *err) QS_MUST_CHECK;
/* Tensors in it, matrices, and matrices that saw no row. */
typedef struct qsi_imatrix_stats {
    size_t tensors, matrices, unseen;
} qsi_imatrix_stats;
/* QS_E_IO when its file changed while it was open. */
qs_status qsi_imatrix_intact(const qsi_imatrix *m, qs_err *err) QS_MUST_CHECK;
qsi_imatrix_stats qsi_imatrix_stat(const qsi_imatrix *m);
/* Hash of everything in it. */
uint64_t qsi_imatrix_digest(const qsi_imatrix *m);

#endif
