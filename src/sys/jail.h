/* A program of a stranger, run in a child process that can compute and read, and nothing else.
 *
 * The child has a list of system calls that it may make (seccomp): no file is opened for writing, made,
 * renamed or removed, no socket, no other process or thread, no signal to others; what is not on the
 * list fails with EPERM. Where the kernel has Landlock it may read the system's folders and the
 * program's own alone. Privileges are dropped and cannot be had again. CPU time, memory and open files
 * are limited; the child is killed when its time is over, and when this process ends. It has standard
 * input (the bytes given), no standard output, and descriptor 3, what it writes to which is returned.
 *
 * Only on Linux on x86-64 and AArch64 (QS_E_UNSUPPORTED elsewhere, and where the kernel refuses the
 * filter): the program is never run without it. Sources: seccomp(2), landlock(7). Thread: any. */
#ifndef QSI_SYS_JAIL_H
#define QSI_SYS_JAIL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_JAIL_OUT 64
#define QSI_JAIL_MAX_ARGS 16

typedef struct qsi_jail_opts {
    const char *const *argv;  /* argv[0]: absolute path of the program; NULL after the last */
    const void *input;        /* its standard input */
    size_t n_input;
    double seconds;           /* of wall time, and rounded up of CPU time */
    uint64_t memory;          /* bytes of address space */
    const atomic_int *cancel; /* looked at while it runs; may be NULL */
    bool no_landlock;         /* as on a kernel that has none, for tests */
} qsi_jail_opts;

typedef enum qsi_jail_end { QSI_JAIL_EXITED, QSI_JAIL_SIGNALLED, QSI_JAIL_TIMED_OUT } qsi_jail_end;
typedef struct qsi_jail_result {
    qsi_jail_end end;
    int code;                 /* exit code or signal */
    char out[QSI_JAIL_OUT];   /* the first bytes written to descriptor 3 */
    size_t n_out;
} qsi_jail_result;

/* QS_E_UNSUPPORTED: no such sandbox here. QS_E_IO: the program cannot be started; QS_E_CANCELLED. What
 * it does itself is no error. */
qs_status qsi_jail_run(const qsi_jail_opts *o, qsi_jail_result *r, qs_err *err) QS_MUST_CHECK;

#endif
