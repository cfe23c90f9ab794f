/* A thread of one's own, locks and conditions: thin covers of POSIX threads for rooms that see no
 * system headers. Signals are the business of the program's own threads: these get none. */
#ifndef QSI_SYS_THREAD_H
#define QSI_SYS_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_thread qsi_thread;
/* Runs fn(arg) with rounding and flush modes as the pool's workers have them. */
qs_status qsi_thread_start(qsi_thread **t, void (*fn)(void *arg), void *arg, qs_err *err) QS_MUST_CHECK;
/* Waits for its end and frees it; nulls *t. Copes with NULL in it. */
void qsi_thread_join(qsi_thread **t);
/* Called by the thread itself? */
bool qsi_thread_is_self(const qsi_thread *t);

/* A lock and one condition that goes with it. */
typedef struct qsi_monitor qsi_monitor;
qs_status qsi_monitor_create(qsi_monitor **m, qs_err *err) QS_MUST_CHECK;
void qsi_monitor_free(qsi_monitor *m);
void qsi_monitor_lock(qsi_monitor *m);
void qsi_monitor_unlock(qsi_monitor *m);
/* Under the lock, which is given up meanwhile: until somebody calls wake, or the clock of qsi_now_ns
 * shows deadline_ns (0: no deadline); may return for no reason. */
void qsi_monitor_wait(qsi_monitor *m, int64_t deadline_ns);
void qsi_monitor_wake(qsi_monitor *m); /* all who wait */

#endif
