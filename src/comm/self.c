/* Collectives of a single process: every reduction is its own result. */
#include "comm/comm.h"

static qs_status keep_f32(const qsi_comm *c, float *x, size_t n, qs_err *err) { return QS_OK; }

static qs_status keep_f64(const qsi_comm *c, double *x, size_t n, qs_err *err) { return QS_OK; }

static qs_status broadcast(const qsi_comm *c, void *p, size_t n, int root, qs_err *err) {
    if (root < 0 || root >= c->size) {
        return qsi_err_set(err, QS_E_ARG, "broadcast from rank %d of %d", root, c->size);
    }
    return QS_OK;
}

static qs_status barrier(const qsi_comm *c, qs_err *err) { return QS_OK; }

const qsi_comm *qsi_comm_self(void) {
    static const qsi_comm self = {
        .rank = 0,
        .size = 1,
        .sum_f32 = keep_f32,
        .sum_f64 = keep_f64,
        .max_f64 = keep_f64,
        .broadcast = broadcast,
        .barrier = barrier,
    };
    return &self;
}
