/* Files of a long-running job: a lock that one process holds, a log that rows are appended to, and
 * removal. Errors name the path and the reason. Thread: any; each object has one owner. */
#ifndef QSI_SYS_RUNFILE_H
#define QSI_SYS_RUNFILE_H

#include <stddef.h>

#include "base/status.h"

/* Takes the lock file at path (made when missing); it is held until released or until the process
 * ends, however it ends. QS_E_STATE: another process has held it for two seconds. */
typedef struct qsi_lock {
    int fd; /* -1: not held */
} qsi_lock;
qs_status qsi_lock_take(qsi_lock *l, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_lock_release(qsi_lock *l);

/* An existing file to append to; each write is one call to the system, and a part of it that does
 * not fit is an error. */
typedef struct qsi_append {
    int fd; /* -1: closed */
    char *path;
} qsi_append;
qs_status qsi_append_open(qsi_append *a, const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_append_write(qsi_append *a, const void *p, size_t n, qs_err *err) QS_MUST_CHECK;
/* The same of a file that is made when it is missing, and that this process holds until it closes it or
 * ends, however it ends. QS_E_STATE: another has held it for two seconds. */
qs_status qsi_append_take(qsi_append *a, const char *path, qs_err *err) QS_MUST_CHECK;
/* Nothing is left of the file but its first n bytes; what is written next follows them. */
qs_status qsi_append_cut(qsi_append *a, size_t n, qs_err *err) QS_MUST_CHECK;
/* What was written is on the disk when it returns. */
qs_status qsi_append_sync(qsi_append *a, qs_err *err) QS_MUST_CHECK;
void qsi_append_close(qsi_append *a);

/* Removes what writers of files whose names begin with `prefix` left in a folder when their process
 * was killed (".NAME.PID.N.tmp", see file.h). For an owner who knows that no writer is at work there.
 * What cannot be removed stays. */
void qsi_remove_leftovers(const char *dir, const char *prefix);

/* Removes a file; one that does not exist is fine. */
qs_status qsi_file_remove(const char *path, qs_err *err) QS_MUST_CHECK;

#endif
