/* Why a request is not served: a status, and an error object in the form of the API that was asked
 * (OpenAI's, Anthropic's, Ollama's). Texts name fields and numbers, never what a person wrote.
 * Thread: owner. */
#ifndef QSI_SERVE_REFUSAL_H
#define QSI_SERVE_REFUSAL_H

#include <stdarg.h>

#include "base/status.h"
#include "serve/call.h"

typedef enum qsi_api { QSI_API_OPENAI, QSI_API_ANTHROPIC, QSI_API_OLLAMA } qsi_api;

typedef struct qsi_refusal {
    int status;             /* of HTTP; 0: there is none */
    const char *type;       /* OpenAI's; static */
    const char *code;       /* static; NULL: none */
    char param[128];        /* the field; "": none */
    char text[640];
    int64_t retry_s;        /* Retry-After; 0: none */
} qsi_refusal;

/* The first one stays. type NULL: as the status says. */
void qsi_refuse(qsi_refusal *no, int status, const char *code, const char *param, const char *fmt, ...)
    QS_PRINTF(5, 6);
/* For what the library said: QS_E_LIMIT 413, QS_E_STATE and QS_E_NOMEM 503, QS_E_CANCELLED 504,
 * QS_E_IO, QS_E_CORRUPT and QS_E_NUMERIC 500, else 400. */
void qsi_refuse_err(qsi_refusal *no, const char *param, qs_status st, const qs_err *err);
void qsi_refuse_memory(qsi_refusal *no);

qsi_api qsi_api_of(const char *path);
/* Appends the error object. */
qs_status qsi_refusal_write(qsi_str *out, const qsi_refusal *no, qsi_api api) QS_MUST_CHECK;
/* The reply becomes the error: status, body, headers. */
void qsi_refusal_reply(qsi_reply *r, const qsi_refusal *no, qsi_api api);
void qsi_reply_header(qsi_reply *r, const char *name, const char *value);

#endif
