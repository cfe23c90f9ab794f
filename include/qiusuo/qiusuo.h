/* Qiusuo: trains, runs and serves DeepSeek-family language models. The stable public API.
 * Every function says who owns what. Strings are UTF-8. */
#ifndef QIUSUO_QIUSUO_H
#define QIUSUO_QIUSUO_H

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0" */
QS_API const char *qs_version(void);

#ifdef __cplusplus
}
#endif
#endif
