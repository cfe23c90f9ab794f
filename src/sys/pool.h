/* The worker pool. The pool is entered once a step: every worker runs the same function, an op
 * splits its work by worker index and ends in a barrier. The calling thread is worker 0.
 * Rounding and flush modes are set once for every worker (round to nearest, denormals kept).
 * Barriers spin shortly, then sleep. */
#ifndef QSI_SYS_POOL_H
#define QSI_SYS_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_pool qsi_pool;

/* What a worker knows of itself inside a run. */
typedef struct qsi_worker {
    qsi_pool *pool;
    int index, count;
} qsi_worker;
typedef void qsi_pool_fn(const qsi_worker *w, void *arg);

/* n_threads 0: the physical cores this process may use (affinity and cgroup quota respected). */
qs_status qsi_pool_create(qsi_pool **pool, int n_threads, qs_err *err) QS_MUST_CHECK;
/* The same with every worker bound to the cores of a NUMA node (sys/topology.h), so that memory a
 * worker touches first lies near it. The owner is bound too until the pool is freed. */
qs_status qsi_pool_create_numa(qsi_pool **pool, int n_threads, qs_err *err) QS_MUST_CHECK;
/* NUMA nodes the workers are spread over; 1 without binding. */
int qsi_pool_nodes(const qsi_pool *pool);
void qsi_pool_free(qsi_pool *pool);
int qsi_pool_size(const qsi_pool *pool);
/* Runs fn on every worker and returns when all have returned. Owner thread; not reentrant. This is
 * a step: in QS_DEBUG builds an allocation inside fn is fatal (base/mem.h, guard). */
void qsi_pool_run(qsi_pool *pool, qsi_pool_fn *fn, void *arg);
/* The same for work that is no step (tokenizer training, conversion): fn may allocate. */
void qsi_pool_run_alloc(qsi_pool *pool, qsi_pool_fn *fn, void *arg);
/* All workers of the running function meet here. Pool worker. */
void qsi_barrier(const qsi_worker *w);
/* This worker's share [*begin, *end) of n items in pieces of `grain`. */
void qsi_share(const qsi_worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end);
/* Dynamic sharing: a counter of the pool, zeroed by qsi_ticket_reset (one worker, before a
 * barrier); each call gives the next item. */
void qsi_ticket_reset(const qsi_worker *w);
int64_t qsi_ticket(const qsi_worker *w);

#endif
