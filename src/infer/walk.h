/* A walk over given ids: the logits of every position from one on, chunk by chunk, so that the
 * logits of a long text are never in memory together. A walk that begins anew keeps the cache of
 * what its ids share with those before. Results do not depend on the chunks. Thread: owner. */
#ifndef QSI_INFER_WALK_H
#define QSI_INFER_WALK_H

#include "infer/engine.h"

typedef struct qsi_walk {
    qsi_seq seq;
    qsi_row *rows;      /* [runner.max_rows] */
    float *logits;      /* [max_logits, n_vocab] */
    int32_t max_logits; /* rows that next gives at most */
    size_t from;        /* positions before it have no logits */
} qsi_walk;

/* In place; the engine is borrowed. Release copes with a zeroed struct. */
qs_status qsi_walk_init(qsi_walk *w, qsi_engine *e, qs_err *err) QS_MUST_CHECK;
void qsi_walk_release(qsi_walk *w);
/* The ids to walk over, and the first position whose logits are wanted (from < n). Errors as
 * qsi_seq_push. */
qs_status qsi_walk_begin(qsi_walk *w, const int32_t *ids, size_t n, size_t from, qs_err *err)
    QS_MUST_CHECK;
/* The next *n_rows positions from *pos on, at most `most` (0: as many as it likes): w->logits
 * [*n_rows, n_vocab] follow their ids. *n_rows 0: the end. cancel may be NULL: QS_E_CANCELLED. */
qs_status qsi_walk_next(qsi_walk *w, int32_t most, const atomic_int *cancel, size_t *pos,
                        int32_t *n_rows, qs_err *err) QS_MUST_CHECK;

#endif
