/* Work that neither the scheduler's thread (it must not wait) nor a connection's may do: whole answers
 * are written, further jobs handed in, waiting clients told that they are not forgotten, and calls freed
 * here, one at a time. One thread for the process, started with the first chore.
 * Thread: any. */
#ifndef QSI_SERVE_CHORES_H
#define QSI_SERVE_CHORES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_chore {
    void (*fn)(struct qsi_chore *c); /* may post it again, or free what holds it */
    struct qsi_chore *next;
    int64_t due_ns;
    bool queued;
} qsi_chore;

/* Says that chores will be posted; starts the thread where there is none. Each success is paid back by
 * one qsi_chores_leave, after which the caller posts nothing more. */
qs_status qsi_chores_enter(qs_err *err) QS_MUST_CHECK;
void qsi_chores_leave(void);
/* Runs it at due_ns (qsi_now_ns; 0: now), or sooner when it is queued already for a time before. True:
 * it was not queued. Needs the thread. */
bool qsi_chore_post(qsi_chore *c, int64_t due_ns);
/* Waits until everybody has left, and ends the thread. */
void qsi_chores_stop(void);

#endif
