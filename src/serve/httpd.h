/* The HTTP side of the server: a socket, its connections, who may ask, what may be asked how often and
 * how long. Requests to the API go to calls (call.h); this part knows no model.
 *
 * Two threads serve all connections (libmicrohttpd); one that waits for an answer is suspended and costs
 * nothing. A third thread looks after connections: one whose client has left is woken, so that its call
 * is dropped within a step, and one that takes too long is cut. */
#ifndef QSI_SERVE_HTTPD_H
#define QSI_SERVE_HTTPD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "serve/call.h"

/* What answers calls: call.h's functions, or a test's. */
typedef struct qsi_call_part {
    const char *const *(*paths)(void);
    qs_status (*begin)(qsi_api_call **c, const qsi_service *s, const qsi_request *r,
                       void (*ready)(void *), void *user, qs_err *err);
    qsi_reply *(*reply)(qsi_api_call *c);
    void (*drop)(qsi_api_call *c);
    void (*error)(qsi_reply *r, const char *path, int status, const char *type, const char *code,
                  const char *param, const char *fmt, ...) QS_PRINTF(7, 8); /* NULL: OpenAI's form */
    void (*let_go)(qsi_backend *b);     /* a backend that service.backend held for us; takes NULL */
} qsi_call_part;

/* The page at "/"; data NULL: there is none. */
typedef struct qsi_httpd_page {
    const unsigned char *gzip, *plain;
    size_t n_gzip, n_plain;
    const char *csp, *etag;
} qsi_httpd_page;

typedef struct qsi_httpd_opts { /* borrowed during start, but for service, part and page */
    const qsi_service *service;
    const qsi_call_part *part;
    const qsi_httpd_page *page;               /* NULL: none */
    const char *host;
    int32_t port;                       /* 0: any free one */
    const char *unix_path;              /* instead of host and port; NULL: none */
    const char *key_file;
    const char *const *origins;
    size_t n_origins;
    const char *const *hosts;
    size_t n_hosts;
    const char *tls_cert, *tls_key;     /* PEM files; both or none */
    int32_t max_connections, max_calls;
    int64_t idle_ns, read_ns, write_ns; /* without a request; for a body; for an answer's bytes to go */
    const char *access_log;             /* NULL: standard error, "off": none */
    bool log_bodies;
} qsi_httpd_opts;
void qsi_httpd_opts_init(qsi_httpd_opts *o); /* the defaults of docs/server.md */

typedef struct qsi_httpd qsi_httpd;
/* Listens from now on. QS_E_ARG: an address beyond loopback without keys, and other things that do not
 * go together. */
qs_status qsi_httpd_start(qsi_httpd **h, const qsi_httpd_opts *o, qs_err *err) QS_MUST_CHECK;
/* Cuts what is still open. */
void qsi_httpd_free(qsi_httpd *h);
int32_t qsi_httpd_port(const qsi_httpd *h);
/* "http://127.0.0.1:8080", "unix:PATH". */
const char *qsi_httpd_address(const qsi_httpd *h);
int32_t qsi_httpd_max_connections(const qsi_httpd *h); /* that this process may have */
/* From now on calls are refused (503) and /ready says so. Any thread. */
void qsi_httpd_drain(qsi_httpd *h);
/* Requests under way. Any thread. */
int32_t qsi_httpd_calls(const qsi_httpd *h);
/* Opens the access log anew. Any thread. */
qs_status qsi_httpd_reopen(qsi_httpd *h, qs_err *err) QS_MUST_CHECK;

#endif
