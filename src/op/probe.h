/* What this machine can do, measured: the limits that speeds are compared with. Thread: owner of
 * the pool. */
#ifndef QSI_OP_PROBE_H
#define QSI_OP_PROBE_H

#include "base/status.h"
#include "sys/cpu.h"
#include "sys/pool.h"

/* Of all threads of the pool together, at one level of instructions. */
typedef struct qsi_limits {
    double read_gb_s;                                  /* 10^9 bytes a second, from memory */
    double fp32_gflop_s, bf16_gflop_s, int8_gop_s;     /* a multiply-add is two operations */
} qsi_limits;

/* Takes about a second, and 512 MiB or four times the caches (less when less is free, never below
 * 64 MiB). The best of many short windows counts. QS_E_NOMEM. */
qs_status qsi_probe(qsi_pool *pool, qsi_isa isa, qsi_limits *out, qs_err *err) QS_MUST_CHECK;
/* The rate of reading alone, again and again: bandwidth on a shared machine comes in spans, and
 * what ran for seconds is to be compared with what the machine gave in just these. Keeps its
 * buffer. */
typedef struct qsi_read_probe qsi_read_probe;
qs_status qsi_read_probe_open(qsi_read_probe **p, qsi_pool *pool, qsi_isa isa, qs_err *err)
    QS_MUST_CHECK;
void qsi_read_probe_free(qsi_read_probe *p);
/* The best window of about `seconds`, in 10^9 bytes a second. */
double qsi_read_probe_run(qsi_read_probe *p, double seconds);

/* The largest relative difference between two measurements. */
double qsi_limits_differ(const qsi_limits *a, const qsi_limits *b);

#endif
