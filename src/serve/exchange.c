/* One request, from its headers to the last byte of its answer. See httpd_impl.h.
 *
 * libmicrohttpd calls qsi_exchange_go for the headers, for every piece of the body, at its end, and
 * again whenever the connection was woken. What is refused by its headers is refused before a body is
 * taken, where the client waits for leave to send it or would send too much of it; else the body is
 * read and dropped first, since many clients read no answer before they have sent everything. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/mem.h"
#include "serve/httpd_impl.h"
#include "sys/file.h"
#include "sys/seed.h"

enum { STREAM_BLOCK = 16 << 10, DROP_FACTOR = 4 };

static const char *header(void *user, const char *name) {
    exchange *x = user;
    return MHD_lookup_connection_value(x->mc, MHD_HEADER_KIND, name);
}

static bool is(const exchange *x, const char *method) { return strcmp(x->method, method) == 0; }

static void set_phase(exchange *x, phase to) {
    atomic_store(&x->p->since_ns, qsi_now_ns());
    atomic_store(&x->p->phase, to);
}

/* ---- waiting and waking ---- */

void qsi_exchange_wake(exchange *x) {
    pthread_mutex_lock(&x->lock);
    x->woken = true;
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->mc);
    }
    pthread_mutex_unlock(&x->lock);
}

/* Suspends, unless a wake came since woken was last cleared: false then. */
static bool suspend(exchange *x) {
    pthread_mutex_lock(&x->lock);
    const bool wait = !x->woken && !atomic_load(&x->gone);
    x->woken = false;
    if (wait) {
        x->suspended = true;
        atomic_store(&x->parked, true);
        MHD_suspend_connection(x->mc);
    }
    pthread_mutex_unlock(&x->lock);
    return wait;
}

static void on_ready(void *user) {
    exchange *x = user;
    atomic_store(&x->ready, true);
    qsi_exchange_wake(x);
}

static void on_bytes(void *user) { qsi_exchange_wake(user); }

/* ---- refusing ---- */

static void put_error(exchange *x, int status, const char *code, const char *text) {
    const char *type = status == 401 ? "authentication_error" : status == 403 ? "permission_error"
                     : status >= 500 ? "server_error" : "invalid_request_error";
    qsi_str_clear(&x->own.body);
    x->own.status = status;
    x->own.content_type = "application/json";
    if (x->h->part->error != NULL) {
        x->h->part->error(&x->own, x->path, status, type, code, NULL, "%s", text);
        return;
    }
    if (qsi_str_puts(&x->own.body, "{\"error\":{\"message\":") != QS_OK ||
        qsi_str_json(&x->own.body, text, strlen(text)) != QS_OK ||
        qsi_str_printf(&x->own.body, ",\"type\":\"%s\",\"param\":null,\"code\":\"%s\"}}\n", type,
                       code) != QS_OK)
        qsi_str_clear(&x->own.body);
}

void qsi_exchange_refuse(exchange *x, int status, const char *code, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    x->refused = true;
    put_error(x, status, code, text);
}

static void add_header(exchange *x, const char *name, const char *value) {
    if (x->own.n_headers == QSI_REPLY_HEADERS) return;
    x->own.headers[x->own.n_headers].name = name;
    snprintf(x->own.headers[x->own.n_headers++].value, sizeof x->own.headers[0].value, "%s", value);
}

static void refuse_busy(exchange *x, const char *code, const char *text) {
    qsi_exchange_refuse(x, 503, code, "%s", text);
    add_header(x, "Retry-After", "1");
}

/* ---- what the headers say ---- */

static bool path_is(const char *pattern, const char *path) {
    size_t n = strlen(path);
    const size_t n_pattern = strlen(pattern);
    if (n_pattern > 0 && pattern[n_pattern - 1] == '*')
        return n >= n_pattern && strncmp(pattern, path, n_pattern - 1) == 0;
    if (n > 1 && path[n - 1] == '/') n--;
    return n == n_pattern && strncmp(pattern, path, n) == 0;
}

/* Index of the route; the last one: none. /v1 may be left out, or stand where it need not. */
static size_t find_route(const qsi_httpd *h, const char *path) {
    for (size_t i = 0; i + 1 < h->n_routes; i++) {
        const char *r = h->routes[i];
        if (path_is(r, path)) return i;
        if (strncmp(r, "/v1/", 4) == 0 && path_is(r + 3, path)) return i;
        if (strncmp(path, "/v1/", 4) == 0 && r[1] != '\0' && path_is(r, path + 3)) return i;
    }
    return h->n_routes - 1;
}

/* A client's own name for its request goes through when it is harmless. */
static void name_request(exchange *x) {
    const char *given = header(x, "X-Request-Id");
    const char *allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (given != NULL && given[0] != '\0' && strlen(given) < sizeof x->id &&
        strspn(given, allowed) == strlen(given)) {
        snprintf(x->id, sizeof x->id, "%s", given);
        return;
    }
    const uint64_t n[2] = {atomic_fetch_add(&x->h->counter, 1), (uint64_t)x->h->start_s};
    snprintf(x->id, sizeof x->id, "req-%016llx",
             (unsigned long long)qsi_hash_seed(n, sizeof n, qsi_process_seed()));
}

static void judge_method(exchange *x) {
    const bool own = x->route < QSI_OWN_ROUTES, none = x->route + 1 == x->h->n_routes;
    const char *allow = own ? "GET, HEAD, OPTIONS" : "GET, HEAD, POST, OPTIONS";
    if (none) {
        qsi_exchange_refuse(x, 404, "not_found", "there is nothing at this path");
    } else if (is(x, "OPTIONS")) {
        x->refused = true; /* that is, answered by its headers */
        x->own.status = 204;
        add_header(x, "Allow", allow);
    } else if (!is(x, "GET") && !is(x, "HEAD") && (own || !is(x, "POST"))) {
        qsi_exchange_refuse(x, 405, "method_not_allowed", "this path takes %s",
                            own ? "GET" : "GET or POST");
        add_header(x, "Allow", allow);
    }
}

static void judge_origin(exchange *x) {
    const char *host = header(x, "Host"), *origin = header(x, "Origin");
    bool cross;
    if (!qsi_guard_host(x->h->guard, host)) {
        qsi_exchange_refuse(x, 403, "host_not_allowed",
                            "this server does not go by the name in Host: start "
                            "it with --allowed-host NAME");
    } else if (!qsi_guard_origin(x->h->guard, origin, host, &cross)) {
        qsi_exchange_refuse(x, 403, "origin_not_allowed",
                            "pages of another origin may not ask this server: "
                            "start it with --cors ORIGIN");
    } else if (cross) {
        snprintf(x->origin, sizeof x->origin, "%s", origin);
    }
}

static void judge_key(exchange *x) {
    const bool ok =
        qsi_guard_key(x->h->guard, header(x, "Authorization"), header(x, "x-api-key"), &x->client);
    if (x->client == 0)
        x->client = qsi_hash_seed(x->p->name, strlen(x->p->name), qsi_process_seed()) | 1;
    if (ok || qsi_route_is_open(x->route) || is(x, "OPTIONS")) return;
    qsi_exchange_refuse(x, 401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY");
    add_header(x, "WWW-Authenticate", "Bearer");
}

static void judge_load(exchange *x) {
    const qsi_httpd *h = x->h;
    if (atomic_load(&h->n_peers) > h->max_connections) {
        refuse_busy(x, "too_many_connections", "there are too many connections; try again later");
        x->close_after = true;
    } else if (x->route < QSI_OWN_ROUTES || is(x, "OPTIONS")) {
        return;
    } else if (atomic_load(&h->draining)) {
        refuse_busy(x, "draining", "the server is being stopped");
        x->close_after = true;
    } else if (atomic_load(&h->n_calls) >= h->max_calls) {
        refuse_busy(x, "too_many_requests", "too many requests are under way; try again later");
    }
}

/* Length that the headers announce; 0 when they do not. */
static uint64_t announced(exchange *x) {
    const char *length = header(x, "Content-Length");
    return length != NULL ? strtoull(length, NULL, 10) : 0;
}

static void judge_size(exchange *x) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->mc, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    if (info != NULL && info->header_size > QSI_HEADERS_MAX)
        qsi_exchange_refuse(x, 431, "headers_too_large", "the headers have more than %d bytes",
                            QSI_HEADERS_MAX);
    else if (header(x, "Content-Length") != NULL && header(x, "Transfer-Encoding") != NULL)
        qsi_exchange_refuse(x, 400, "ambiguous_length",
                            "Content-Length and Transfer-Encoding exclude each "
                            "other");
    else if (announced(x) > x->h->service->max_body)
        x->over_long = true;
}

static void refuse_length(exchange *x) {
    qsi_exchange_refuse(x, 413, "body_too_large", "the body has more than %zu bytes",
                        x->h->service->max_body);
}

static void judge(exchange *x) {
    void (*const judges[])(exchange *) = {judge_size, judge_origin, judge_method, judge_key, judge_load};
    for (size_t i = 0; i < QSI_COUNT(judges) && !(x->refused && x->own.status != 204); i++) judges[i](x);
    if (x->over_long && !x->refused) refuse_length(x);
}

/* ---- answers ---- */

static void add_cors(const exchange *x, struct MHD_Response *r) {
    MHD_add_response_header(r, "Vary", "Origin");
    if (x->origin[0] == '\0') return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", x->origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (!is(x, "OPTIONS")) return;
    MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    MHD_add_response_header(r, "Access-Control-Allow-Headers", "Authorization, Content-Type, x-api-key, "
                            "anthropic-version, anthropic-beta, X-Request-Id");
    MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}

static enum MHD_Result send_response(exchange *x, struct MHD_Response *r, int status) {
    if (r == NULL) return MHD_NO;
    if (x->close_after) MHD_add_response_header(r, "Connection", "close");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(r, "X-Request-Id", x->id);
    add_cors(x, r);
    x->status = status;
    x->sent = true;
    set_phase(x, x->stream != NULL ? PHASE_CALL : PHASE_REPLY);
    const enum MHD_Result ok = MHD_queue_response(x->mc, (unsigned)status, r);
    MHD_destroy_response(r);
    return ok;
}

static ssize_t read_stream(void *user, uint64_t pos, char *buf, size_t max) {
    exchange *x = user;
    bool end = false;
    atomic_store(&x->parked, false);
    for (;;) {
        if (atomic_load(&x->gone)) return MHD_CONTENT_READER_END_WITH_ERROR;
        const size_t n = qsi_stream_read(x->stream, buf, max, &end, on_bytes, x);
        x->bytes += n;
        if (n > 0) return (ssize_t)n;
        if (end) {
            x->stream_over = true;
            return qsi_stream_broken(x->stream) ? MHD_CONTENT_READER_END_WITH_ERROR
                                                : MHD_CONTENT_READER_END_OF_STREAM;
        }
        if (suspend(x)) return 0;
    }
}

static enum MHD_Result send_reply(exchange *x, qsi_reply *reply) {
    struct MHD_Response *r;
    if (reply->stream != NULL) {
        x->stream = reply->stream;
        reply->stream = NULL; /* left by us */
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x, NULL);
        if (r != NULL) MHD_add_response_header(r, "X-Accel-Buffering", "no");
    } else {
        r = MHD_create_response_from_buffer(reply->body.len, reply->body.data, MHD_RESPMEM_PERSISTENT);
        x->bytes = reply->body.len;
    }
    if (r == NULL) return MHD_NO;
    if (reply->content_type != NULL) MHD_add_response_header(r, "Content-Type", reply->content_type);
    for (size_t i = 0; i < reply->n_headers; i++) {
        if (strcasecmp(reply->headers[i].name, "X-Request-Id") != 0)
            MHD_add_response_header(r, reply->headers[i].name, reply->headers[i].value);
    }
    MHD_add_response_header(r, "Cache-Control", "no-store");
    return send_response(x, r, reply->status);
}

static enum MHD_Result answer_own(exchange *x) {
    if (!x->refused && x->route == 0 && x->h->page != NULL) {
        int status = 0;
        struct MHD_Response *r = qsi_route_page(x, &status);
        return send_response(x, r, status);
    }
    if (!x->refused && qsi_route_answer(x) != QS_OK)
        qsi_exchange_refuse(x, 503, "out_of_memory", "the server is out of memory");
    return send_reply(x, &x->own);
}

static enum MHD_Result begin_call(exchange *x) {
    const qsi_request r = {.method = is(x, "HEAD") ? "GET" : x->method, .path = x->path,
                           .body = x->body.data != NULL ? x->body.data : "", .n_body = x->body.len,
                           .header = header, .user = x, .client = x->client, .request_id = x->id};
    x->begun = true;
    set_phase(x, PHASE_CALL);
    if (x->h->part->begin(&x->call, x->h->service, &r, on_ready, x, NULL) != QS_OK) {
        x->call = NULL;
        qsi_exchange_refuse(x, 503, "out_of_memory", "the server is out of memory");
        return send_reply(x, &x->own);
    }
    return MHD_YES;
}

/* Everything of the request is here, or the call was begun: answers, or waits. */
static enum MHD_Result go_on(exchange *x) {
    atomic_store(&x->parked, false);
    if (x->sent) return MHD_YES;
    if (atomic_load(&x->gone)) return MHD_NO;
    if (x->refused || x->route < QSI_OWN_ROUTES) return answer_own(x);
    if (!x->begun && begin_call(x) != MHD_YES) return MHD_NO;
    while (!x->sent) {
        if (atomic_load(&x->ready)) return send_reply(x, x->h->part->reply(x->call));
        if (atomic_load(&x->gone)) return MHD_NO;
        if (suspend(x)) return MHD_YES;
    }
    return MHD_YES;
}

/* ---- the request comes in ---- */

static enum MHD_Result take_body(exchange *x, const char *p, size_t *n) {
    const size_t max = x->h->service->max_body, add = *n;
    *n = 0;
    if (x->refused) { /* read and dropped, within reason */
        x->bytes += add;
        return x->bytes > (uint64_t)max * DROP_FACTOR ? MHD_NO : MHD_YES;
    }
    if (add > max - x->body.len) {
        refuse_length(x);
    } else if (atomic_fetch_add(&x->h->body_bytes, add) + add > QSI_BODIES_MAX) {
        atomic_fetch_sub(&x->h->body_bytes, add);
        refuse_busy(x, "out_of_memory", "too many large requests at once; try again later");
    } else if (qsi_str_append(&x->body, p, add) != QS_OK) {
        atomic_fetch_sub(&x->h->body_bytes, add);
        refuse_busy(x, "out_of_memory", "the server is out of memory");
    }
    return MHD_YES;
}

static exchange *exchange_create(qsi_httpd *h, struct MHD_Connection *mc, const char *method) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    exchange *x = qsi_calloc(1, sizeof *x);
    if (x == NULL || info == NULL || info->socket_context == NULL) {
        qsi_free(x);
        return NULL;
    }
    x->h = h;
    x->p = info->socket_context;
    x->mc = mc;
    x->method = method;
    x->begin_ns = qsi_now_ns();
    pthread_mutex_init(&x->lock, NULL);
    atomic_fetch_add(&h->n_exchanges, 1);
    pthread_mutex_lock(&h->lock);
    x->p->now = x;
    if (atomic_load(&h->stopping)) atomic_store(&x->gone, true);
    pthread_mutex_unlock(&h->lock);
    return x;
}

static enum MHD_Result begin(qsi_httpd *h, struct MHD_Connection *mc, const char *url,
                             const char *method, void **con_cls) {
    exchange *x = exchange_create(h, mc, method);
    if (x == NULL) return MHD_NO;
    *con_cls = x;
    set_phase(x, PHASE_BODY);
    snprintf(x->path, sizeof x->path, "%s", url);
    x->route = strlen(url) < sizeof x->path ? find_route(h, x->path) : h->n_routes - 1;
    if (x->route + 1 < h->n_routes && strncmp(x->path, "/v1/", 4) == 0 &&
        strncmp(h->routes[x->route], "/v1/", 4) != 0)
        memmove(x->path, x->path + 3, strlen(x->path + 3) + 1);
    name_request(x);
    judge(x);
    if (!x->refused && x->route >= QSI_OWN_ROUTES) {
        x->counted = true;
        atomic_fetch_add(&h->n_calls, 1);
    }
    const bool at_once =
        header(x, "Expect") != NULL || announced(x) > DROP_FACTOR * (uint64_t)h->service->max_body;
    if (!x->refused || !at_once) return MHD_YES;
    x->close_after = true;
    return send_reply(x, &x->own);
}

enum MHD_Result qsi_exchange_go(void *httpd, struct MHD_Connection *mc, const char *url,
                                const char *method, const char *version, const char *upload,
                                size_t *n_upload, void **con_cls) {
    exchange *x = *con_cls;
    if (x == NULL) return begin(httpd, mc, url, method, con_cls);
    if (*n_upload > 0) return take_body(x, upload, n_upload);
    return go_on(x);
}

/* ---- the request is over ---- */

static const char *ended_by(enum MHD_RequestTerminationCode how, const exchange *x) {
    if (how == MHD_REQUEST_TERMINATED_COMPLETED_OK) return NULL;
    if (how == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED) return "timeout";
    if (how == MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN || atomic_load(&x->h->stopping)) return "shutdown";
    if (x->stream_over) return "slow reader";
    return "client";
}

static void record(exchange *x, enum MHD_RequestTerminationCode how) {
    qsi_httpd *h = x->h;
    /* The call's numbers are there when its answer is: not when it was cut, or never taken. */
    const bool whole = x->call != NULL && x->sent && (x->stream == NULL || x->stream_over);
    const qsi_reply *r = whole ? h->part->reply(x->call) : &x->own;
    qsi_access a = {.request_id = x->id, .client = x->p->name, .method = x->method, .status = x->status,
                    .route = h->routes[x->route], .bytes = x->bytes, .n_prompt = r->n_prompt,
                    .n_cached = r->n_cached, .n_generated = r->n_generated, .queue_ns = r->queue_ns,
                    .first_ns = r->first_ns, .whole_ns = qsi_now_ns() - x->begin_ns,
                    .ended = ended_by(how, x)};
    if (!x->sent) a.status = 499, a.bytes = 0;
    if (h->log_bodies && x->body.len > 0) a.body = x->body.data, a.n_body = x->body.len;
    qsi_metrics_add(h->metrics, x->route, a.status, a.first_ns, a.whole_ns, a.n_generated);
    if (h->log != NULL) qsi_accesslog_write(h->log, &a);
}

void qsi_exchange_over(void *httpd, struct MHD_Connection *mc, void **con_cls,
                       enum MHD_RequestTerminationCode how) {
    qsi_httpd *h = httpd;
    exchange *x = *con_cls;
    if (x == NULL) return;
    *con_cls = NULL;
    pthread_mutex_lock(&h->lock); /* the watch finds it no more */
    x->p->now = NULL;
    set_phase(x, PHASE_IDLE);
    pthread_mutex_unlock(&h->lock);
    record(x, how);
    if (x->stream != NULL) qsi_stream_leave(x->stream);
    if (x->call != NULL) h->part->drop(x->call);
    atomic_fetch_sub(&h->body_bytes, x->body.len);
    if (x->counted) atomic_fetch_sub(&h->n_calls, 1);
    qsi_str_release(&x->body);
    qsi_str_release(&x->own.body);
    pthread_mutex_destroy(&x->lock);
    qsi_free(x);
    atomic_fetch_sub(&h->n_exchanges, 1);
}
