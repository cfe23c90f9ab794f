/* Turns errno into a status and a sentence. Thread: any. */
#ifndef QSI_SYS_OSERR_H
#define QSI_SYS_OSERR_H

#include "base/status.h"

/* Writes "<formatted text>: <reason of e>" and returns the code that fits e: NOTFOUND, NOMEM or
 * IO. */
qs_status qsi_err_errno(qs_err *err, int e, const char *fmt, ...) QS_PRINTF(3, 4) QS_MUST_CHECK;

#endif
