/* What the server counts, and its text for Prometheus (text format 0.0.4). Any thread. */
#ifndef QSI_SERVE_METRICS_H
#define QSI_SERVE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "infer/sched.h"

typedef struct qsi_metrics qsi_metrics;
/* routes: names of what is asked for (static, borrowed); the last one stands for all others. */
qs_status qsi_metrics_create(qsi_metrics **m, const char *const *routes, size_t n_routes, qs_err *err)
    QS_MUST_CHECK;
void qsi_metrics_free(qsi_metrics *m);

/* A request is over. first_ns and n_generated 0 where no answer came. The time between tokens is the
 * mean of the request's, counted once for each of them. */
void qsi_metrics_add(qsi_metrics *m, size_t route, int status, int64_t first_ns, int64_t whole_ns,
                     int64_t n_generated);

typedef struct qsi_gauges { /* as they are now */
    int64_t connections, calls;
    const qsi_sched_stats *sched; /* NULL: no model */
    uint64_t resident;            /* bytes of the process */
    int ready;
    int64_t start;                /* seconds since 1970 */
} qsi_gauges;
qs_status qsi_metrics_text(qsi_metrics *m, const qsi_gauges *g, qsi_str *out) QS_MUST_CHECK;

#endif
