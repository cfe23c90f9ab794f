/* Qiusuo: trains, runs and serves DeepSeek-family language models. The stable public API.
 * Every function says who owns what. Strings are UTF-8. */
#ifndef QIUSUO_QIUSUO_H
#define QIUSUO_QIUSUO_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
QS_API const char *qs_version(void);

/* Offset of the first byte that is not well-formed UTF-8, or -1 when all n bytes are. Thread: any.
 * */
QS_API int64_t qs_utf8_check(const char *text, size_t n);

/* The default model that belongs to the running program, found from the program's own real path: in
 * the source tree it was built in, or under its prefix. Writes a NUL-terminated path into `path` of
 * `cap` bytes. QS_E_NOTFOUND when there is none. Thread: any. */
QS_API qs_status qs_default_model(char *path, size_t cap, qs_err *err) QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
