/* A crew: a few threads that do small jobs in the background (reading from disk) while the program
 * computes. What is to do is the user's: the crew asks for the next job, does it, and tells.
 *
 * `take` and `end` run under the crew's lock, `work` without it. Thread: functions below may be called
 * by any thread; create and free by the owner. Nothing is allocated after creation. */
#ifndef QSI_SYS_CREW_H
#define QSI_SYS_CREW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_CREW_JOB 4
typedef struct qsi_crew_fns {
    /* The next job into job[]; false: there is none now. */
    bool (*take)(void *user, int64_t job[QSI_CREW_JOB]);
    qs_status (*work)(void *user, int thread, const int64_t job[QSI_CREW_JOB], qs_err *err);
    void (*end)(void *user, const int64_t job[QSI_CREW_JOB], qs_status st, const qs_err *err);
} qsi_crew_fns;

typedef struct qsi_crew qsi_crew;
qs_status qsi_crew_create(qsi_crew **c, int n_threads, const qsi_crew_fns *fns, void *user,
                          qs_err *err) QS_MUST_CHECK;
/* Waits for the jobs under way; no new ones begin. */
void qsi_crew_free(qsi_crew *c);
void qsi_crew_lock(qsi_crew *c);
void qsi_crew_unlock(qsi_crew *c);
/* There may be new jobs. Under the lock. */
void qsi_crew_wake(qsi_crew *c);
/* Until some job has ended. Under the lock (given up meanwhile); may return early. */
void qsi_crew_wait(qsi_crew *c);

#endif
