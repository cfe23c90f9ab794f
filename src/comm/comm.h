/* Collectives behind one table: one process here, MPI later. Every reduction of a model or a
 * trainer goes through it. Thread: owner. */
#ifndef QSI_COMM_H
#define QSI_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_comm qsi_comm;
struct qsi_comm {
    int rank, size;
    void *user;
    /* In place, element-wise sum over ranks, in a fixed order of ranks. */
    qs_status (*sum_f32)(const qsi_comm *c, float *x, size_t n, qs_err *err);
    qs_status (*sum_f64)(const qsi_comm *c, double *x, size_t n, qs_err *err);
    qs_status (*max_f64)(const qsi_comm *c, double *x, size_t n, qs_err *err);
    qs_status (*broadcast)(const qsi_comm *c, void *p, size_t n, int root, qs_err *err);
    qs_status (*barrier)(const qsi_comm *c, qs_err *err);
};
/* One process: reductions leave their argument as it is. Static. */
const qsi_comm *qsi_comm_self(void);

#endif
