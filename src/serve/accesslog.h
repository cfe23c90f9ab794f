/* The access log: one JSON object a line for every request, when it is over. It holds no key, and no
 * text of a request unless that was asked for. Any thread. */
#ifndef QSI_SERVE_ACCESSLOG_H
#define QSI_SERVE_ACCESSLOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_accesslog qsi_accesslog;
/* path NULL: standard error. Lines are appended; a file that is new may be read by its owner only. */
qs_status qsi_accesslog_open(qsi_accesslog **l, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_accesslog_close(qsi_accesslog *l);
/* Opens the path anew, after it was renamed for instance; on failure the old file goes on. */
qs_status qsi_accesslog_reopen(qsi_accesslog *l, qs_err *err) QS_MUST_CHECK;

typedef struct qsi_access { /* times in ns; negative or 0: unknown, left out */
    const char *request_id, *client, *method, *route; /* route: of the table, not what was sent */
    int status;
    uint64_t bytes;                 /* of the body that was sent */
    int64_t n_prompt, n_cached, n_generated;
    int64_t queue_ns, first_ns, whole_ns;
    const char *ended;              /* NULL: as it should; else "client", "timeout", ... */
    const char *body;               /* NULL: not logged */
    size_t n_body;
} qsi_access;
/* What cannot be written is lost: a full disk stops no answers. */
void qsi_accesslog_write(qsi_accesslog *l, const qsi_access *a);

#endif
