/* Python programs that a model wrote, run in the sandbox of sys/jail.h. Thread: any. */
#ifndef QSI_MEASURE_TASK_CODE_H
#define QSI_MEASURE_TASK_CODE_H

#include <stdatomic.h>

#include "base/str.h"

/* How a program ended: "passed": it ran to its end. "failed": an exception, or it left early, with
 * whatever exit code. "timed out"; "crashed": by a signal. *outcome is static. python: absolute path of
 * the interpreter. QS_E_UNSUPPORTED: there is no such sandbox here, QS_E_NOTFOUND no such interpreter;
 * QS_E_CANCELLED. */
qs_status qsi_code_run(const char *python, const qsi_str *program, double seconds,
                       const atomic_int *cancel, const char **outcome, qs_err *err) QS_MUST_CHECK;

#endif
