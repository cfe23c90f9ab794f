/* How much the columns of a model's matrices matter on a text: sums of squares of what enters every
 * product, per column, and for experts apart. Quantisation weighs its errors with the means.
 * Not watched: the router, which is never quantised. Of latent attention attn_k_b takes the queries'
 * unrotated part, head by head, and attn_v_b (or attn_kv_b as a whole) the latent vectors; rows of the
 * absorbed path count for attn_v_b with the mean of vectors that its product takes there.
 * Thread: owner; a watched model adds in its steps. */
#ifndef QSI_MODEL_IMPORTANCE_H
#define QSI_MODEL_IMPORTANCE_H

#include "model/model.h"

typedef struct qsi_importance_entry {
    char name[64];   /* of the tensor */
    int64_t k;       /* columns */
    int32_t n;       /* matrices: experts, heads of latent attention, or 1 */
    double *sum;     /* [n, k] of squares */
    int64_t *count;  /* [n] rows */
} qsi_importance_entry;

typedef struct qsi_importance qsi_importance;
/* For the matrices of m, all sums 0. QS_E_NOMEM. */
qs_status qsi_importance_create(qsi_importance **x, const qsi_model *m, qs_err *err) QS_MUST_CHECK;
void qsi_importance_free(qsi_importance *x);
size_t qsi_importance_count(const qsi_importance *x);
const qsi_importance_entry *qsi_importance_at(const qsi_importance *x, size_t i);

/* From now on steps of m add to x (borrowed); NULL: no more. */
void qsi_model_watch(qsi_model *m, qsi_importance *x);

#endif
