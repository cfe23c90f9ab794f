/* Refusals: see refusal.h. */
#include "serve/refusal.h"

#include <stdio.h>
#include <string.h>

#include "serve/json_out.h"

static const char *type_of(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    case 504: return "timeout_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void refuse(qsi_refusal *no, int status, const char *code, const char *param, const char *fmt,
                   va_list args) {
    if (no->status != 0) return;
    *no = (qsi_refusal){ .status = status, .type = type_of(status), .code = code };
    snprintf(no->param, sizeof no->param, "%s", param != NULL ? param : "");
    vsnprintf(no->text, sizeof no->text, fmt, args);
    no->param[qsi_utf8_whole(no->param, strlen(no->param))] = '\0';
    no->text[qsi_utf8_whole(no->text, strlen(no->text))] = '\0';
}

void qsi_refuse(qsi_refusal *no, int status, const char *code, const char *param, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    refuse(no, status, code, param, fmt, args);
    va_end(args);
}

void qsi_refuse_memory(qsi_refusal *no) {
    qsi_refuse(no, 503, "out_of_memory", NULL, "out of memory; try again");
}

static int status_of(qs_status st) {
    switch (st) {
    case QS_E_LIMIT: return 413;
    case QS_E_STATE:
    case QS_E_NOMEM: return 503;
    case QS_E_CANCELLED: return 504;
    case QS_E_IO:
    case QS_E_CORRUPT:
    case QS_E_NUMERIC: return 500;
    default: return 400;
    }
}

void qsi_refuse_err(qsi_refusal *no, const char *param, qs_status st, const qs_err *err) {
    const char *text = err != NULL && err->text[0] != '\0' ? err->text : qs_status_text(st);
    qsi_refuse(no, status_of(st), st == QS_E_STATE ? "queue_full" : NULL, param, "%s", text);
}

qsi_api qsi_api_of(const char *path) {
    if (strncmp(path, "/api/", 5) == 0) return QSI_API_OLLAMA;
    const char *tail = strncmp(path, "/v1/", 4) == 0 ? path + 3 : path;
    return strncmp(tail, "/messages", 9) == 0 ? QSI_API_ANTHROPIC : QSI_API_OPENAI;
}

static const char *anthropic_type(int status) {
    switch (status) {
    case 413: return "request_too_large";
    case 500: return "api_error";
    default: return type_of(status);
    }
}

static void put_text_or_null(qsi_jw *w, const char *key, const char *z) {
    qsi_jw_key(w, key);
    if (z != NULL && z[0] != '\0') qsi_jw_z(w, z);
    else qsi_jw_null(w);
}

qs_status qsi_refusal_write(qsi_str *out, const qsi_refusal *no, qsi_api api) {
    qsi_jw w = { .s = out };
    qsi_jw_obj(&w);
    if (api == QSI_API_OLLAMA) {
        qsi_jw_key_z(&w, "error", no->text);
    } else {
        if (api == QSI_API_ANTHROPIC) qsi_jw_key_z(&w, "type", "error");
        qsi_jw_key(&w, "error");
        qsi_jw_obj(&w);
        if (api == QSI_API_ANTHROPIC) {
            qsi_jw_key_z(&w, "type", anthropic_type(no->status));
            qsi_jw_key_z(&w, "message", no->text);
        } else {
            qsi_jw_key_z(&w, "message", no->text);
            qsi_jw_key_z(&w, "type", no->type);
            put_text_or_null(&w, "param", no->param);
            put_text_or_null(&w, "code", no->code);
        }
        qsi_jw_end_obj(&w);
    }
    qsi_jw_end_obj(&w);
    return w.st;
}

void qsi_reply_header(qsi_reply *r, const char *name, const char *value) {
    for (size_t i = 0; i < r->n_headers; i++)
        if (strcmp(r->headers[i].name, name) == 0) return;
    if (r->n_headers == QSI_REPLY_HEADERS) return;
    r->headers[r->n_headers].name = name;
    snprintf(r->headers[r->n_headers].value, sizeof r->headers[0].value, "%s", value);
    r->n_headers++;
}

void qsi_refusal_reply(qsi_reply *r, const qsi_refusal *no, qsi_api api) {
    r->status = no->status;
    r->content_type = "application/json";
    qsi_str_clear(&r->body);
    /* without memory for a body the status must do */
    if (qsi_refusal_write(&r->body, no, api) != QS_OK) qsi_str_clear(&r->body);
    if (no->retry_s > 0) {
        char seconds[32];
        snprintf(seconds, sizeof seconds, "%lld", (long long)no->retry_s);
        qsi_reply_header(r, "Retry-After", seconds);
    }
}

void qsi_reply_error(qsi_reply *r, const char *path, int status, const char *type, const char *code,
                     const char *param, const char *fmt, ...) {
    qsi_refusal no = { 0 };
    va_list args;
    va_start(args, fmt);
    refuse(&no, status, code, param, fmt, args);
    va_end(args);
    if (type != NULL) no.type = type;
    qsi_refusal_reply(r, &no, qsi_api_of(path));
}
