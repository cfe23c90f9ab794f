/* Between httpd.c (the server and its watch over connections), exchange.c (one request) and routes.c
 * (what the server answers by itself). */
#ifndef QSI_SERVE_HTTPD_IMPL_H
#define QSI_SERVE_HTTPD_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serve/accesslog.h"
#include "serve/guard.h"
#include "serve/httpd.h"
#include "serve/listen.h"
#include "serve/metrics.h"
#include "sys/thread.h"

enum {
    QSI_HEADERS_MAX = 16 << 10,         /* bytes of a request's headers */
    QSI_OWN_ROUTES = 5,                 /* routes.c */
    QSI_ROUTES_MAX = 64,
    QSI_ID_MAX = 65
};
#define QSI_BODIES_MAX ((size_t)512 << 20) /* of all requests together */

typedef struct exchange exchange;

/* What a connection does, and since when: what the watch goes by. */
typedef enum phase { PHASE_IDLE, PHASE_BODY, PHASE_CALL, PHASE_REPLY } phase;
typedef struct peer {
    struct peer *next, *prev;           /* under the server's lock */
    qsi_httpd *h;
    int fd;
    _Atomic int phase;
    _Atomic int64_t since_ns;
    uint64_t number;
    bool hung;                          /* under the server's lock: was seen to have been left */
    exchange *now;                      /* under the server's lock; NULL between requests */
    char name[48];
} peer;

struct qsi_httpd {
    const qsi_service *service;
    const qsi_call_part *part;
    const qsi_httpd_page *page;
    qsi_guard *guard;
    qsi_accesslog *log;                 /* NULL: none */
    qsi_metrics *metrics;
    qsi_listener listener;
    struct MHD_Daemon *daemon;
    qsi_thread *watch;
    char *tls_cert, *tls_key;           /* texts */
    char address[160];
    const char *routes[QSI_ROUTES_MAX]; /* own ones, those of calls, the rest */
    size_t n_routes;
    int32_t max_connections, max_calls;
    int64_t idle_ns, read_ns, write_ns, start_s;
    bool log_bodies;
    _Atomic bool started, draining, stopping, stop_watch;
    _Atomic int32_t n_peers, n_exchanges, n_calls;
    _Atomic size_t body_bytes;
    _Atomic uint64_t counter;
    pthread_mutex_t lock;
    peer *peers;
    char trouble[160];                  /* what libmicrohttpd said last while starting */
};

/* One request. Its connection is suspended while nothing can be sent; who has something (the call, the
 * stream, the watch) wakes it. `woken` tells a wake that came before the suspension. */
struct exchange {
    qsi_httpd *h;
    peer *p;
    struct MHD_Connection *mc;
    const char *method;
    char path[256];
    size_t route;
    char id[QSI_ID_MAX];
    char origin[256];                   /* to be allowed; "": none */
    uint64_t client;
    int64_t begin_ns;
    pthread_mutex_t lock;
    bool woken, suspended;              /* under it */
    _Atomic bool gone, ready;           /* the client has left; the call has a reply */
    _Atomic bool parked;                /* suspended, and not called again since */
    bool refused, over_long, begun, sent, stream_over, counted, close_after;
    qsi_reply own;                      /* of this part */
    qsi_str body;
    qsi_api_call *call;
    qsi_stream *stream;                 /* of its reply, while it is read */
    int status;
    uint64_t bytes;
};

void qsi_exchange_wake(exchange *x);
/* libmicrohttpd's callbacks. */
enum MHD_Result qsi_exchange_go(void *httpd, struct MHD_Connection *mc, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *n_upload, void **con_cls);
void qsi_exchange_over(void *httpd, struct MHD_Connection *mc, void **con_cls,
                       enum MHD_RequestTerminationCode how);

/* Writes an error of the server itself into x->own. */
void qsi_exchange_refuse(exchange *x, int status, const char *code, const char *fmt, ...)
    QS_PRINTF(4, 5);

/* Paths that the server answers by itself: QSI_OWN_ROUTES names. */
extern const char *const qsi_own_routes[QSI_OWN_ROUTES];
/* Whether one may be asked without a key. */
bool qsi_route_is_open(size_t route);
/* Fills x->own. QS_E_NOMEM. */
qs_status qsi_route_answer(exchange *x) QS_MUST_CHECK;
/* The response of the page, NULL when memory is short; *status too. */
struct MHD_Response *qsi_route_page(exchange *x, int *status);

#endif
