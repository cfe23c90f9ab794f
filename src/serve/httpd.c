/* The server: its start, its watch over connections, its end. See httpd.h; one request:
 * exchange.c. */
#define _GNU_SOURCE /* POLLRDHUP, TCP_USER_TIMEOUT */
#include "serve/httpd_impl.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/file.h"

#define SECOND 1000000000ll
enum {
    THREADS = 2,
    /* Connections beyond the limit that are told so; more wait in the system's queue. */
    SPARE_CONNECTIONS = 32,
    CONNECTION_MEMORY = 32 << 10, /* headers and buffers of one */
    WATCH_MS = 200,
    PEM_MAX = 1 << 20
};

void qsi_httpd_opts_init(qsi_httpd_opts *o) {
    *o = (qsi_httpd_opts){.host = "127.0.0.1", .port = 8080, .max_connections = 256, .max_calls = 256,
                          .idle_ns = 120 * SECOND, .read_ns = 60 * SECOND, .write_ns = 300 * SECOND};
}

/* ---- the watch ---- */

static bool has_left(short events) { return (events & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0; }

/* Under the lock: cuts a connection that takes too long; its thread then sees the end of it. */
static void cut_if_late(const qsi_httpd *h, peer *p, int64_t now) {
    const int at = atomic_load(&p->phase);
    const int64_t most = at == PHASE_IDLE ? h->idle_ns : at == PHASE_BODY ? h->read_ns : h->write_ns;
    if (at != PHASE_CALL && most > 0 && now - atomic_load(&p->since_ns) > most)
        shutdown(p->fd, SHUT_RDWR);
}

/* The connections into fds and numbers; how many. */
static size_t list_peers(qsi_httpd *h, struct pollfd *fds, uint64_t *numbers, size_t cap) {
    size_t n = 0;
    const int64_t now = qsi_now_ns();
    pthread_mutex_lock(&h->lock);
    for (peer *p = h->peers; p != NULL; p = p->next) {
        cut_if_late(h, p, now);
        if (n == cap) continue;
        fds[n] = (struct pollfd){.fd = p->fd, .events = POLLRDHUP};
        numbers[n++] = p->number;
    }
    pthread_mutex_unlock(&h->lock);
    return n;
}

/* Under the lock: the peer of p has closed its side. A call is told. Between calls libmicrohttpd
 * (0.9.75) should notice, but does not when the end came together with bytes, before its first
 * read: it waits for another edge of epoll. Where everything was read and the end still stands at
 * the next look, a shutdown makes that edge. */
static void on_left(peer *p) {
    const int at = atomic_load(&p->phase);
    int unread = 0;
    if (at == PHASE_CALL && p->now != NULL) {
        if (!atomic_exchange(&p->now->gone, true)) qsi_exchange_wake(p->now);
    } else if (p->hung && at != PHASE_REPLY && ioctl(p->fd, FIONREAD, &unread) == 0 && unread == 0) {
        shutdown(p->fd, SHUT_RDWR);
    }
    p->hung = true;
}

static void tell_left(qsi_httpd *h, const uint64_t *numbers, size_t n) {
    pthread_mutex_lock(&h->lock);
    for (peer *p = h->peers; p != NULL; p = p->next) {
        for (size_t i = 0; i < n; i++) {
            if (numbers[i] == p->number) on_left(p);
        }
    }
    pthread_mutex_unlock(&h->lock);
}

/* Keeps of the list those that were left. */
static size_t keep_left(struct pollfd *fds, uint64_t *numbers, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!has_left(fds[i].revents)) continue;
        fds[kept] = fds[i];
        numbers[kept++] = numbers[i];
    }
    return kept;
}

static void watch_main(void *arg) {
    qsi_httpd *h = arg;
    const size_t cap = (size_t)h->max_connections + SPARE_CONNECTIONS;
    struct pollfd *fds = qsi_calloc(cap, sizeof *fds);
    uint64_t *numbers = qsi_calloc(cap, sizeof *numbers);
    const bool able = fds != NULL && numbers != NULL;
    while (!atomic_load(&h->stop_watch)) {
        size_t n = list_peers(h, fds, numbers, able ? cap : 0);
        if (n > 0 && poll(fds, n, 0) > 0) tell_left(h, numbers, keep_left(fds, numbers, n));
        poll(NULL, 0, WATCH_MS);
    }
    qsi_free(fds);
    qsi_free(numbers);
}

/* ---- connections ---- */

/* A peer that vanished without a word is found out by the system. */
static void keep_alive(int fd) {
    const struct { int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1},          {IPPROTO_TCP, TCP_KEEPIDLE, 30},
        {IPPROTO_TCP, TCP_KEEPINTVL, 10},       {IPPROTO_TCP, TCP_KEEPCNT, 3},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, 60000},
    };
    for (size_t i = 0; i < QSI_COUNT(options); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

static void peer_join(qsi_httpd *h, struct MHD_Connection *mc, void **context) {
    peer *p = qsi_calloc(1, sizeof *p);
    *context = p;
    if (p == NULL) return; /* its requests are then refused */
    p->h = h;
    p->fd = MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mc, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    qsi_peer_name(info != NULL ? info->client_addr : NULL, p->name, sizeof p->name);
    atomic_store(&p->since_ns, qsi_now_ns());
    if (!h->listener.local) keep_alive(p->fd);
    atomic_fetch_add(&h->n_peers, 1);
    p->number = atomic_fetch_add(&h->counter, 1);
    pthread_mutex_lock(&h->lock);
    p->next = h->peers;
    if (p->next != NULL) p->next->prev = p;
    h->peers = p;
    pthread_mutex_unlock(&h->lock);
}

static void peer_leave(qsi_httpd *h, peer *p) {
    if (p == NULL) return;
    pthread_mutex_lock(&h->lock);
    if (p->next != NULL) p->next->prev = p->prev;
    if (p->prev != NULL) p->prev->next = p->next;
    else h->peers = p->next;
    pthread_mutex_unlock(&h->lock);
    atomic_fetch_sub(&h->n_peers, 1);
    qsi_free(p);
}

static void on_connection(void *user, struct MHD_Connection *mc, void **context,
                          enum MHD_ConnectionNotificationCode what) {
    if (what == MHD_CONNECTION_NOTIFY_STARTED) peer_join(user, mc, context);
    else peer_leave(user, *context);
}

/* ---- start ---- */

/* What libmicrohttpd has to say matters while it starts; later it is about clients. */
static void on_trouble(void *user, const char *fmt, va_list ap) {
    qsi_httpd *h = user;
    if (atomic_load(&h->started)) return;
    pthread_mutex_lock(&h->lock);
    vsnprintf(h->trouble, sizeof h->trouble, fmt, ap);
    pthread_mutex_unlock(&h->lock);
}

static qs_status read_pem(char **out, const char *path, const char *what, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    st = qsi_file_read(path, PEM_MAX, &s, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "the TLS %s", what);
        goto done;
    }
    if (s.data == NULL || strstr(s.data, "-----BEGIN ") == NULL)
        QS_FAIL(err, QS_E_ARG, "'%s' is no TLS %s in PEM form", path, what);
    *out = s.data;
    s = (qsi_str){0};
done:
    qsi_str_release(&s);
    return st;
}

static qs_status read_tls(qsi_httpd *h, const qsi_httpd_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    if (o->tls_cert == NULL && o->tls_key == NULL) return QS_OK;
    if (o->tls_cert == NULL || o->tls_key == NULL)
        QS_FAIL(err, QS_E_ARG,
                "TLS needs both a certificate and its key: --tls-cert FILE --tls-key FILE");
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        QS_FAIL(err, QS_E_UNSUPPORTED, "this machine's libmicrohttpd was built without TLS");
    QS_TRY(read_pem(&h->tls_cert, o->tls_cert, "certificate", err));
    QS_TRY(read_pem(&h->tls_key, o->tls_key, "key", err));
done:
    return st;
}

static qs_status make_guard(qsi_httpd *h, const qsi_httpd_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_guard_opts g = {.key_file = o->key_file, .hosts = o->hosts, .n_hosts = o->n_hosts,
                              .origins = o->origins, .n_origins = o->n_origins, .own_host = o->host,
                              .any_host = h->listener.local};
    QS_TRY(qsi_guard_create(&h->guard, &g, err));
    if (!h->listener.loopback && !qsi_guard_has_keys(h->guard))
        QS_FAIL(err, QS_E_ARG, "%s can be reached from other machines: give a file with API keys, "
                "--api-key-file FILE, or listen at 127.0.0.1", h->listener.name);
done:
    return st;
}

static qs_status list_routes(qsi_httpd *h, qs_err *err) {
    const char *const *paths = h->part->paths();
    for (size_t i = 0; i < QSI_OWN_ROUTES; i++) h->routes[h->n_routes++] = qsi_own_routes[i];
    for (size_t i = 0; paths[i] != NULL; i++) {
        QS_CHECK(h->n_routes + 1 < QSI_ROUTES_MAX);
        h->routes[h->n_routes++] = paths[i];
    }
    h->routes[h->n_routes++] = "other";
    return qsi_metrics_create(&h->metrics, h->routes, h->n_routes, err);
}

/* Files for connections; fewer connections where the system gives fewer. */
static void fit_files(qsi_httpd *h) {
    const size_t want = (size_t)h->max_connections + SPARE_CONNECTIONS, have = qsi_allow_files(want);
    if (have >= want) return;
    h->max_connections =
        have > 2 * SPARE_CONNECTIONS ? (int32_t)(have - SPARE_CONNECTIONS) : SPARE_CONNECTIONS;
    qsi_log(QSI_LOG_WARN,
            "the limit on open files allows %d connections: raise it (ulimit -n, LimitNOFILE=)",
            (int)h->max_connections);
}

static qs_status start_daemon(qsi_httpd *h, qs_err *err) {
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
                           (h->tls_cert != NULL ? MHD_USE_TLS : 0);
    struct MHD_OptionItem more[8] = {{MHD_OPTION_END, 0, NULL}};
    if (h->tls_cert != NULL) {
        more[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, h->tls_cert};
        more[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, h->tls_key};
        more[2] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    }
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, qsi_exchange_go, h, MHD_OPTION_EXTERNAL_LOGGER, on_trouble, h,
        MHD_OPTION_LISTEN_SOCKET, h->listener.fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(h->max_connections + SPARE_CONNECTIONS),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)(h->idle_ns / SECOND), MHD_OPTION_NOTIFY_COMPLETED, qsi_exchange_over, h,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    atomic_store(&h->started, true);
    if (h->daemon != NULL) return QS_OK;
    h->trouble[strcspn(h->trouble, "\n")] = '\0';
    return qsi_err_set(err, h->tls_cert != NULL ? QS_E_ARG : QS_E_IO, "cannot start the server%s: %s",
                       h->tls_cert != NULL ? " (are the TLS certificate and its key right?)" : "",
                       h->trouble[0] != '\0' ? h->trouble : strerror(errno));
}

static void write_address(qsi_httpd *h) {
    const char *scheme = h->tls_cert != NULL ? "https://" : "http://";
    snprintf(h->address, sizeof h->address, "%s%s", h->listener.local ? "" : scheme, h->listener.name);
}

qs_status qsi_httpd_start(qsi_httpd **out, const qsi_httpd_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_httpd *h = qsi_calloc(1, sizeof *h);
    if (h == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    h->service = o->service;
    h->part = o->part;
    h->page = o->page != NULL && o->page->plain != NULL ? o->page : NULL;
    h->listener.fd = -1;
    h->max_connections = o->max_connections;
    h->max_calls = o->max_calls;
    h->idle_ns = o->idle_ns;
    h->read_ns = o->read_ns;
    h->write_ns = o->write_ns;
    h->log_bodies = o->log_bodies;
    h->start_s = time(NULL);
    pthread_mutex_init(&h->lock, NULL);
    QS_TRY(read_tls(h, o, err));
    fit_files(h);
    if (o->access_log == NULL || strcmp(o->access_log, "off") != 0)
        QS_TRY(qsi_accesslog_open(&h->log, o->access_log, err));
    QS_TRY(list_routes(h, err));
    if (o->unix_path != NULL) QS_TRY(qsi_listen_unix(&h->listener, o->unix_path, err));
    else QS_TRY(qsi_listen_tcp(&h->listener, o->host, o->port, err));
    QS_TRY(make_guard(h, o, err));
    write_address(h);
    QS_TRY(qsi_thread_start(&h->watch, watch_main, h, err));
    QS_TRY(start_daemon(h, err));
    *out = h;
    h = NULL;
done:
    qsi_httpd_free(h);
    return st;
}

/* ---- while it runs, and the end ---- */

int32_t qsi_httpd_port(const qsi_httpd *h) { return h->listener.port; }
const char *qsi_httpd_address(const qsi_httpd *h) { return h->address; }
int32_t qsi_httpd_max_connections(const qsi_httpd *h) { return h->max_connections; }
void qsi_httpd_drain(qsi_httpd *h) { atomic_store(&h->draining, true); }
int32_t qsi_httpd_calls(const qsi_httpd *h) { return atomic_load(&h->n_calls); }
qs_status qsi_httpd_reopen(qsi_httpd *h, qs_err *err) {
    return h->log != NULL ? qsi_accesslog_reopen(h->log, err) : QS_OK;
}

/* No request waits any more: libmicrohttpd must not be stopped while connections are suspended. */
static void wake_all(qsi_httpd *h) {
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->stopping, true);
    for (peer *p = h->peers; p != NULL; p = p->next) {
        if (p->now == NULL) continue;
        atomic_store(&p->now->gone, true);
        qsi_exchange_wake(p->now);
    }
    pthread_mutex_unlock(&h->lock);
}

static bool any_waits(qsi_httpd *h) {
    bool waits = false;
    pthread_mutex_lock(&h->lock);
    for (peer *p = h->peers; p != NULL; p = p->next)
        waits = waits || (p->now != NULL && atomic_load(&p->now->parked));
    pthread_mutex_unlock(&h->lock);
    return waits;
}

void qsi_httpd_free(qsi_httpd *h) {
    if (h == NULL) return;
    if (h->daemon != NULL) {
        atomic_store(&h->draining, true);
        wake_all(h);
        while (any_waits(h)) poll(NULL, 0, 5);
        MHD_stop_daemon(h->daemon); /* closes the socket */
        h->listener.fd = -1;
    }
    atomic_store(&h->stop_watch, true);
    qsi_thread_join(&h->watch);
    qsi_listen_close(&h->listener);
    qsi_metrics_free(h->metrics);
    qsi_accesslog_close(h->log);
    qsi_guard_free(h->guard);
    qsi_free(h->tls_cert);
    if (h->tls_key != NULL) memset(h->tls_key, 0, strlen(h->tls_key));
    qsi_free(h->tls_key);
    pthread_mutex_destroy(&h->lock);
    qsi_free(h);
}
