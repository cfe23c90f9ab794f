/* Messages for people: warnings and notes go through one settable sink (default: none, so that a
 * library is silent). Never called inside a step. Thread: any. */
#ifndef QSI_BASE_LOG_H
#define QSI_BASE_LOG_H

#include "base/status.h"

typedef enum qsi_log_level { QSI_LOG_NOTE, QSI_LOG_WARN } qsi_log_level;
typedef void qsi_log_fn(void *user, qsi_log_level level, const char *text);
void qsi_log_set(qsi_log_fn *fn, void *user);
void qsi_log(qsi_log_level level, const char *fmt, ...) QS_PRINTF(2, 3);

#endif
