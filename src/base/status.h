/* Raising and forwarding errors inside the library.
 *
 * Use: a function that can fail declares `qs_status st = QS_OK;`, has one label `done:`, and
 *     QS_TRY(call);                    forwards a failure of `call`
 *     QS_FAIL(err, QS_E_IO, "...");    raises one
 * Both jump to `done:`. `err` may be NULL. The deepest function that knows writes the text; callers
 * that can add the name of a file or tensor use qsi_err_prefix. */
#ifndef QSI_BASE_STATUS_H
#define QSI_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

#include "qiusuo/status.h"

#define QS_TRY(call)                                                                               \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != QS_OK) goto done;                                                                \
    } while (0)

#define QS_FAIL(err, code, ...)                                                                    \
    do {                                                                                           \
        st = qsi_err_set((err), (code), __VA_ARGS__);                                              \
        goto done;                                                                                 \
    } while (0)

/* Writes code and text (offset -1) into err when it is not NULL; returns code. */
qs_status qsi_err_set(qs_err *err, qs_status code, const char *fmt, ...) QS_PRINTF(3, 4);
/* The same with a byte offset in the input that was being parsed. */
qs_status qsi_err_at(qs_err *err, qs_status code, int64_t offset, const char *fmt, ...)
    QS_PRINTF(4, 5);
/* Puts "prefix: " before the text already in err (truncating at a UTF-8 boundary). */
void qsi_err_prefix(qs_err *err, const char *fmt, ...) QS_PRINTF(2, 3);

/* Programmer errors: QS_ASSERT in QS_DEBUG builds, QS_CHECK always. Never for input. The handler
 * may be replaced by a host program; the default prints and aborts. */
typedef void qsi_fail_fn(const char *file, int line, const char *expr);
void qsi_fail_set(qsi_fail_fn *fn);
void qsi_fail(const char *file, int line, const char *expr);

#define QS_CHECK(e)                                                                                \
    do {                                                                                           \
        if (!(e)) qsi_fail(__FILE__, __LINE__, #e);                                                \
    } while (0)
#ifdef QS_DEBUG
#define QS_ASSERT(e) QS_CHECK(e)
#else
#define QS_ASSERT(e) ((void)sizeof(!(e)))
#endif

#define QSI_COUNT(a) (sizeof(a) / sizeof((a)[0]))

#include "base/banned.h"

#endif
