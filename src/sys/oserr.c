/* errno -> qs_status and text. */
#include "sys/oserr.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static qs_status code_of(int e) {
    switch (e) {
    case ENOENT:
    case ENOTDIR: return QS_E_NOTFOUND;
    case ENOMEM: return QS_E_NOMEM;
    default: return QS_E_IO;
    }
}

/* What a person can do about the reasons that come up most. */
static const char *advice(int e) {
    switch (e) {
    case ENOSPC:
    case EDQUOT: return " (free some space or choose another folder)";
    case EFBIG: return " (a limit on file sizes is set)";
    case EMFILE: return " (raise the limit on open files)";
    default: return "";
    }
}

qs_status qsi_err_errno(qs_err *err, int e, const char *fmt, ...) {
    char what[512], reason[128];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    if (n < 0) what[0] = '\0';
    if (strerror_r(e, reason, sizeof(reason)) != 0) {
        snprintf(reason, sizeof(reason), "system error %d", e);
    }
    return qsi_err_set(err, code_of(e), "%s: %s%s", what, reason, advice(e));
}
