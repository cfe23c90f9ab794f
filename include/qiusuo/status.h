/* Status codes and the error record of every public call.
 *
 * A function that can fail returns qs_status: QS_OK (0) or a negative code. Detail (what failed, on
 * what, what to do) goes into an optional qs_err, written by the deepest function that knows.
 * Results go through out-parameters, written on success only. Thread: any. */
#ifndef QIUSUO_STATUS_H
#define QIUSUO_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define QS_API
#else
#define QS_API __attribute__((visibility("default")))
#endif
#if defined(__GNUC__)
#define QS_MUST_CHECK __attribute__((warn_unused_result))
#define QS_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define QS_MUST_CHECK
#define QS_PRINTF(fmt, args)
#endif

/* X(name, value, text) */
#define QS_STATUS_LIST(X)                                                                          \
    X(QS_OK, 0, "ok")                                                                              \
    X(QS_E_NOMEM, -1, "out of memory")                                                             \
    X(QS_E_IO, -2, "input or output failed")                                                       \
    X(QS_E_FORMAT, -3, "malformed data")                                                           \
    X(QS_E_ARG, -4, "invalid argument")                                                            \
    X(QS_E_RANGE, -5, "value out of range")                                                        \
    X(QS_E_UNSUPPORTED, -6, "not supported")                                                       \
    X(QS_E_NOTFOUND, -7, "not found")                                                              \
    X(QS_E_STATE, -8, "called in the wrong state")                                                 \
    X(QS_E_LIMIT, -9, "limit exceeded")                                                            \
    X(QS_E_NUMERIC, -10, "not a number or infinity in a result")                                   \
    X(QS_E_CANCELLED, -11, "cancelled")                                                            \
    X(QS_E_CORRUPT, -12, "data does not match its checksum or its description")

typedef enum qs_status {
#define QS_STATUS_ENUM(name, value, text) name = value,
    QS_STATUS_LIST(QS_STATUS_ENUM)
#undef QS_STATUS_ENUM
} qs_status;

/* Detail of a failure. `offset` is a byte offset in the input, or -1. `text` is UTF-8. */
typedef struct qs_err {
    qs_status code;
    int64_t offset;
    char text[640];
} qs_err;

/* The fixed English text of a code; never NULL. */
QS_API const char *qs_status_text(qs_status st);

#ifdef __cplusplus
}
#endif
#endif
