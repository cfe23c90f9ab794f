/* The HTTP side over real sockets, with calls that a test scripts: their body says how they answer,
 * "wait=20 pieces=5 size=100 gap=1" after 20 ms 5 pieces 1 ms apart; without pieces a whole answer that
 * repeats the body. What must hold whatever clients do: every call is dropped once, and soon. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/hash.h"
#include "base/mem.h"
#include "serve/httpd.h"
#include "sys/file.h"
#include "sys/thread.h"

#define MS 1000000ll

/* ---- calls ---- */

struct qsi_api_call {
    qsi_reply reply;
    qsi_stream *out;
    qsi_thread *thread;
    void (*ready)(void *);
    void *user;
    _Atomic bool dropped;
    int wait, pieces, size, gap;
};
static _Atomic int n_begun, n_dropped, n_alive;
static char seen_method[16], seen_path[64], seen_id[80];
static pthread_mutex_t seen = PTHREAD_MUTEX_INITIALIZER;

static int number(const char *body, size_t n, const char *name) {
    char text[256] = "";
    memcpy(text, body, n < sizeof text ? n : sizeof text - 1);
    const char *p = strstr(text, name);
    return p != NULL ? (int)strtol(p + strlen(name), NULL, 10) : 0;
}

static void nap(const qsi_api_call *c, int ms) {
    for (const int64_t end = qsi_now_ns() + ms * MS; qsi_now_ns() < end && !atomic_load(&c->dropped);)
        poll(NULL, 0, 1);
}

static void answer(void *arg) {
    qsi_api_call *c = arg;
    char *piece = qsi_alloc((size_t)c->size + 1, 1);
    nap(c, c->wait);
    if (c->pieces == 0) c->reply.n_prompt = 3;
    if (!atomic_load(&c->dropped)) c->ready(c->user);
    memset(piece, 'x', (size_t)c->size);
    for (int i = 0; i < c->pieces && !atomic_load(&c->dropped); i++) {
        if (qsi_stream_write(c->out, piece, (size_t)c->size) != QS_OK) break;
        nap(c, c->gap);
    }
    if (c->out != NULL) {
        c->reply.n_generated = c->pieces;
        qsi_stream_end(c->out);
    }
    qsi_free(piece);
}

static qs_status begin(qsi_api_call **out, const qsi_service *s, const qsi_request *r,
                       void (*ready)(void *), void *user, qs_err *err) {
    qsi_api_call *c = qsi_calloc(1, sizeof *c);
    const bool at_once = strcmp(r->path, "/v1/models") == 0;
    atomic_fetch_add(&n_begun, 1);
    atomic_fetch_add(&n_alive, 1);
    pthread_mutex_lock(&seen);
    snprintf(seen_method, sizeof seen_method, "%s", r->method);
    snprintf(seen_path, sizeof seen_path, "%s", r->path);
    snprintf(seen_id, sizeof seen_id, "%s", r->request_id);
    pthread_mutex_unlock(&seen);
    *c = (qsi_api_call){.ready = ready,
                        .user = user,
                        .wait = number(r->body, r->n_body, "wait="),
                        .pieces = number(r->body, r->n_body, "pieces="),
                        .size = number(r->body, r->n_body, "size="),
                        .gap = number(r->body, r->n_body, "gap=")};
    c->reply.status = 200;
    c->reply.content_type = c->pieces > 0 ? "text/event-stream" : "text/plain";
    *out = c;
    if (c->pieces > 0) {
        assert_int_equal(qsi_stream_create(&c->out, s->max_stream, NULL), QS_OK);
        c->reply.stream = c->out;
    } else {
        assert_int_equal(qsi_str_printf(&c->reply.body, "%zu %llx", r->n_body,
                                        (unsigned long long)qsi_hash(r->body, r->n_body)), QS_OK);
    }
    if (at_once) ready(user);
    else assert_int_equal(qsi_thread_start(&c->thread, answer, c, NULL), QS_OK);
    return QS_OK;
}

static qsi_reply *reply_of(qsi_api_call *c) { return &c->reply; }

static void drop(qsi_api_call *c) {
    atomic_store(&c->dropped, true);
    qsi_thread_join(&c->thread);
    if (c->reply.stream != NULL) qsi_stream_leave(c->reply.stream);
    qsi_str_release(&c->reply.body);
    qsi_free(c);
    atomic_fetch_add(&n_dropped, 1);
    atomic_fetch_sub(&n_alive, 1);
}

static const char *const *paths(void) {
    static const char *const list[] = {"/v1/chat/completions", "/v1/models", "/v1/models/*",
                                       "/tokenize", NULL};
    return list;
}

static atomic_bool loaded;
static qsi_backend model;
static qsi_backend *backend(void *user) { return atomic_load(&loaded) ? &model : NULL; }
static void let_go(qsi_backend *b) {}

static const qsi_call_part part = {.paths = paths, .begin = begin, .reply = reply_of, .drop = drop,
                                   .let_go = let_go};
static const qsi_service service = {.backend = backend, .max_body = 100000, .max_stream = 1 << 20};

/* ---- a server and a client ---- */

static char log_path[4096];

static qsi_httpd_opts defaults(void) {
    qsi_httpd_opts o;
    qsi_httpd_opts_init(&o);
    snprintf(log_path, sizeof log_path, "%s", tmp_path("access.log"));
    o.service = &service;
    o.part = &part;
    o.port = 0;
    o.access_log = log_path;
    atomic_store(&loaded, true);
    return o;
}

static qsi_httpd *start(const qsi_httpd_opts *o) {
    qsi_httpd *h = NULL;
    qs_err err = {0};
    if (qsi_httpd_start(&h, o, &err) != QS_OK) fail_msg("%s", err.text);
    atomic_store(&n_begun, 0);
    atomic_store(&n_dropped, 0);
    return h;
}

static int dial(const qsi_httpd *h) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)qsi_httpd_port(h)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = 20};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return fd;
}

static void put(int fd, const char *p, size_t n) {
    while (n > 0) {
        const ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0) return; /* the server has closed it: what it said is read */
        p += sent;
        n -= (size_t)sent;
    }
}
static void say(int fd, const char *text) { put(fd, text, strlen(text)); }

/* Until the peer closes; the bytes are the caller's. */
static char *hear_all(int fd) {
    qsi_str s = {0};
    char buf[4096];
    ssize_t n;
    assert_int_equal(qsi_str_puts(&s, ""), QS_OK);
    while ((n = recv(fd, buf, sizeof buf, 0)) > 0)
        assert_int_equal(qsi_str_append(&s, buf, (size_t)n), QS_OK);
    if (n < 0 && errno != ECONNRESET) fail_msg("the server says nothing more, and does not close");
    close(fd);
    return s.data;
}

static int status_of(const char *answer) {
    return strncmp(answer, "HTTP/1.1 ", 9) == 0 ? (int)strtol(answer + 9, NULL, 10) : 0;
}

/* One request on a connection of its own: the status, and what was said. */
static char *last;
static int ask(const qsi_httpd *h, const char *text) {
    const int fd = dial(h);
    say(fd, text);
    qsi_free(last);
    last = hear_all(fd);
    return status_of(last);
}
#define CLOSE "Host: localhost\r\nConnection: close\r\n"
static int get(const qsi_httpd *h, const char *path, const char *headers) {
    char text[4096];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" CLOSE "%s\r\n", path, headers);
    return ask(h, text);
}
static int post(const qsi_httpd *h, const char *path, const char *headers, const char *body) {
    char text[8192];
    snprintf(text, sizeof text, "POST %s HTTP/1.1\r\n" CLOSE "%sContent-Length: %zu\r\n\r\n%s", path,
             headers, strlen(body), body);
    return ask(h, text);
}
static bool said(const char *what) { return strstr(last, what) != NULL; }

static void none_alive(const qsi_httpd *h, int within_ms) {
    const int64_t end = qsi_now_ns() + within_ms * MS;
    while ((atomic_load(&n_alive) > 0 || (h != NULL && qsi_httpd_calls(h) > 0)) && qsi_now_ns() < end)
        poll(NULL, 0, 2);
    if (h != NULL) assert_int_equal(qsi_httpd_calls(h), 0);
    assert_int_equal(atomic_load(&n_alive), 0);
    assert_int_equal(atomic_load(&n_begun), atomic_load(&n_dropped));
}

/* ---- tests ---- */

static void routes(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    assert_int_equal(get(h, "/health", ""), 200);
    assert_true(said("X-Content-Type-Options: nosniff"));
    assert_int_equal(get(h, "/health/", ""), 200);
    assert_int_equal(get(h, "/v1/health", ""), 200);
    assert_int_equal(get(h, "/ready", ""), 200);
    atomic_store(&loaded, false);
    assert_int_equal(get(h, "/ready", ""), 503);
    assert_int_equal(get(h, "/slots", ""), 503);
    assert_int_equal(get(h, "/health", ""), 200);
    atomic_store(&loaded, true);
    assert_int_equal(get(h, "/", ""), 404); /* no page was given */
    assert_int_equal(get(h, "/nothing", ""), 404);
    assert_true(said("\"error\":{\"message\":") && said("invalid_request_error"));
    assert_int_equal(post(h, "/health", "", "x"), 405);
    assert_true(said("Allow: GET, HEAD, OPTIONS"));
    assert_int_equal(ask(h, "BREW /v1/chat/completions HTTP/1.1\r\n" CLOSE "\r\n"), 405);
    assert_int_equal(ask(h, "OPTIONS /v1/chat/completions HTTP/1.1\r\n" CLOSE "\r\n"), 204);
    assert_int_equal(ask(h, "HEAD /health HTTP/1.1\r\n" CLOSE "\r\n"), 200);
    assert_null(strchr(last, '{'));
    assert_int_equal(get(h, "/v1/models", "X-Request-Id: mine-1\r\n"), 200);
    assert_true(said("X-Request-Id: mine-1"));
    assert_string_equal(seen_id, "mine-1");
    assert_int_equal(get(h, "/v1/models", "X-Request-Id: bad id\"\r\n"), 200);
    assert_true(said("X-Request-Id: req-"));
    assert_int_equal(get(h, "/v1/models/a/b", ""), 200);
    assert_string_equal(seen_path, "/v1/models/a/b");
    assert_int_equal(ask(h, "HEAD /v1/models HTTP/1.1\r\n" CLOSE "\r\n"), 200);
    assert_string_equal(seen_method, "GET");
    assert_int_equal(post(h, "/v1/tokenize/", "", "abc"), 200);
    assert_string_equal(seen_path, "/tokenize/");
    assert_int_equal(post(h, "/chat/completions?x=1", "", "abc"), 200);
    assert_int_equal(get(h, "/metrics", ""), 200);
    assert_true(said("qiusuo_requests_total{route=\"/health\",status=\"200\"} 5\n"));
    assert_true(said("qiusuo_requests_total{route=\"/health\",status=\"405\"} 1\n"));
    assert_true(said("qiusuo_requests_total{route=\"other\",status=\"404\"} 1\n"));
    none_alive(h, 1000);
    qsi_httpd_free(h);
}

static void calls(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    char want[64];
    const char *body = "wait=30 whole";
    assert_int_equal(post(h, "/v1/chat/completions", "", body), 200);
    snprintf(want, sizeof want, "%zu %llx", strlen(body),
             (unsigned long long)qsi_hash(body, strlen(body)));
    assert_true(said(want));
    assert_int_equal(post(h, "/v1/chat/completions", "", "wait=10 pieces=50 size=100 gap=1"), 200);
    assert_true(said("Transfer-Encoding: chunked") && said("text/event-stream") &&
                said("\r\n0\r\n\r\n"));
    size_t n = 0;
    for (const char *p = last; *p != '\0'; p++) n += *p == 'x';
    assert_true(n >= 5000);
    none_alive(h, 1000);
    qsi_httpd_free(h);
}

/* Several requests at once on one connection are answered in order. */
static void pipelining(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    char text[2048];
    qsi_free(last);
    const int fd = dial(h);
    for (int i = 0; i < 3; i++) {
        const char *body = i == 1 ? "wait=20 pieces=3 size=10 gap=2" : "wait=20";
        snprintf(text, sizeof text,
                 "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: "
                 "%zu\r\n\r\n%s",
                 i == 2 ? "Connection: close\r\n" : "", strlen(body), body);
        say(fd, text);
    }
    last = hear_all(fd);
    const char *a = strstr(last, "HTTP/1.1 200"), *b = a != NULL ? strstr(a + 1, "HTTP/1.1 200") : NULL;
    assert_non_null(b);
    if (b == NULL) return; /* the compiler does not know that the test has ended */
    assert_non_null(strstr(b + 1, "HTTP/1.1 200"));
    assert_true(strstr(b, "chunked") != NULL && strstr(b, "chunked") < strstr(b + 1, "HTTP/1.1"));
    none_alive(h, 1000);
    qsi_httpd_free(h);
}

static void bodies(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    char want[64];
    assert_int_equal(ask(h, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE
                            "Transfer-Encoding: chunked\r\n\r\n"
                            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
                     200);
    snprintf(want, sizeof want, "11 %llx", (unsigned long long)qsi_hash("hello world", 11));
    assert_true(said(want));
    assert_int_equal(post(h, "/v1/chat/completions", "Expect: 100-continue\r\n", "abc"), 100);
    assert_true(said("HTTP/1.1 200"));
    /* too long: by its header before a byte of it, by what comes after everything was read */
    assert_int_equal(ask(h, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Expect: 100-continue\r\n"
                            "Content-Length: 100001\r\n\r\n"), 413);
    assert_int_equal(
        ask(h, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Content-Length: 99999999999\r\n\r\n"),
        413);
    char *big = qsi_calloc(1, 200000);
    memset(big, 'a', 150000);
    int fd = dial(h);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Content-Length: 150000\r\n\r\n");
    put(fd, big, 150000);
    qsi_free(last);
    last = hear_all(fd);
    assert_int_equal(status_of(last), 413);
    assert_true(said("body_too_large"));
    fd = dial(h);
    say(fd,
        "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Transfer-Encoding: chunked\r\n\r\n249f0\r\n");
    put(fd, big, 150000);
    say(fd, "\r\n0\r\n\r\n");
    qsi_free(last);
    last = hear_all(fd);
    assert_int_equal(status_of(last), 413);
    /* exactly as long as it may be */
    fd = dial(h);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Content-Length: 100000\r\n\r\n");
    put(fd, big, 100000);
    qsi_free(last);
    last = hear_all(fd);
    assert_int_equal(status_of(last), 200);
    qsi_free(big);
    assert_int_equal(ask(h, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Content-Length: 5\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400);
    assert_int_equal(
        ask(h, "POST /v1/chat/completions HTTP/1.1\r\n" CLOSE "Content-Length: -5\r\n\r\n"), 400);
    none_alive(h, 1000);
    qsi_httpd_free(h);
}

static void headers(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    static const size_t sizes[] = {10000, 20000, 40000, 1000000};
    for (size_t i = 0; i < QSI_COUNT(sizes); i++) {
        char *text = qsi_calloc(1, sizes[i] + 100);
        const int n = snprintf(text, 100, "GET /health HTTP/1.1\r\n" CLOSE "X-A: ");
        memset(text + n, 'a', sizes[i]);
        const int fd = dial(h);
        say(fd, text);
        say(fd, "\r\n\r\n");
        qsi_free(last);
        last = hear_all(fd);
        if (i == 0) assert_int_equal(status_of(last), 200);
        else if (i < 3) assert_int_equal(status_of(last), 431);
        else assert_true(status_of(last) == 431 || last[0] == '\0'); /* cut while it was sent */
        qsi_free(text);
    }
    const int garbage = ask(h, "\x16\x03\x01\x02 garbage\r\n\r\n");
    assert_true(garbage == 0 || garbage / 100 == 4);
    assert_int_equal(get(h, "/health", ""), 200);
    qsi_httpd_free(h);
}

static void keys(void **state) {
    qsi_httpd_opts o = defaults();
    char path[4096];
    qsi_httpd *h;
    snprintf(path, sizeof path, "%s", tmp_path("keys"));
    FILE *f = fopen(path, "wb");
    fputs("sesame-1\nsesame-2\n", f);
    fclose(f);
    o.key_file = path;
    h = start(&o);
    assert_int_equal(get(h, "/health", ""), 200);
    assert_int_equal(get(h, "/ready", ""), 200);
    assert_int_equal(get(h, "/metrics", ""), 401);
    assert_int_equal(get(h, "/slots", ""), 401);
    assert_int_equal(get(h, "/v1/models", ""), 401);
    assert_true(said("authentication_error") && said("WWW-Authenticate: Bearer"));
    assert_int_equal(get(h, "/v1/models", "Authorization: Bearer sesame-3\r\n"), 401);
    assert_int_equal(get(h, "/v1/models", "Authorization: Bearer sesame-2\r\n"), 200);
    assert_int_equal(get(h, "/v1/models", "x-api-key: sesame-1\r\n"), 200);
    assert_int_equal(post(h, "/v1/chat/completions", "", "wait=1"), 401);
    assert_int_equal(atomic_load(&n_begun), 2);
    qsi_httpd_free(h);
    qsi_str log = {0};
    assert_int_equal(qsi_file_read(log_path, 1 << 20, &log, NULL), QS_OK);
    assert_non_null(strstr(log.data, "\"status\":401"));
    assert_null(strstr(log.data, "sesame"));
    qsi_str_release(&log);
}

static void pages_of_others(void **state) {
    qsi_httpd_opts o = defaults();
    static const char *const origins[] = {"https://chat.example"};
    static const char *const hosts[] = {"llm.example"};
    o.origins = origins;
    o.n_origins = 1;
    o.hosts = hosts;
    o.n_hosts = 1;
    qsi_httpd *h = start(&o);
    assert_int_equal(ask(h, "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
                     403);
    assert_int_equal(ask(h, "GET /health HTTP/1.1\r\nHost: llm.example\r\nConnection: close\r\n\r\n"),
                     200);
    assert_int_equal(ask(h, "GET /health HTTP/1.0\r\n\r\n"), 200);
    assert_int_equal(post(h, "/v1/chat/completions", "Origin: http://localhost\r\n", "wait=1"), 200);
    assert_false(said("Access-Control"));
    assert_int_equal(post(h, "/v1/chat/completions", "Origin: https://evil.example\r\n", "wait=1"), 403);
    assert_false(said("Access-Control-Allow"));
    assert_int_equal(post(h, "/v1/chat/completions", "Origin: https://chat.example\r\n", "wait=1"), 200);
    assert_true(said("Access-Control-Allow-Origin: https://chat.example\r\n"));
    assert_int_equal(ask(h, "OPTIONS /v1/chat/completions HTTP/1.1\r\n" CLOSE
                            "Origin: https://chat.example\r\n"
                            "Access-Control-Request-Method: POST\r\n\r\n"),
                     204);
    assert_true(said("Access-Control-Allow-Methods: ") &&
                said("Access-Control-Allow-Headers: Authorization"));
    assert_int_equal(ask(h, "OPTIONS /v1/chat/completions HTTP/1.1\r\n" CLOSE
                            "Origin: https://a.example\r\n"
                            "\r\n"),
                     403);
    none_alive(h, 1000);
    qsi_httpd_free(h);
}

/* Clients that leave: while the request is sent, while the call waits, amid the stream, unread. */
static void vanishing(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    static const char *const texts[] = {
        "POST /v1/chat/com",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf a "
        "body",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        "10\r\n\r\nwait=60000",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n"
        "wait=1 pieces=100000 size=9 gap=5",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n"
        "wait=1 pieces=100000 size=9999 gap=9",
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    };
    for (int round = 0; round < 60; round++) {
        const int fd = dial(h);
        const struct linger hard = {.l_onoff = 1};
        say(fd, texts[round % (int)QSI_COUNT(texts)]);
        if (round % 3 == 1) poll(NULL, 0, 7);
        if (round % 2 == 1) setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(fd);
    }
    /* Kept open until the call is surely under way. */
    int held[8];
    const int before = atomic_load(&n_begun);
    for (int i = 0; i < 8; i++) {
        held[i] = dial(h);
        say(held[i], texts[3 + i % 3]);
    }
    for (int i = 0; i < 1000 && atomic_load(&n_begun) < before + 8; i++) poll(NULL, 0, 5);
    assert_true(atomic_load(&n_begun) >= before + 8);
    const int64_t left = qsi_now_ns();
    for (int i = 0; i < 8; i++) close(held[i]);
    none_alive(h, 5000);
    assert_true(qsi_now_ns() - left < 3000 * MS);
    assert_int_equal(get(h, "/health", ""), 200);
    qsi_httpd_free(h);
}

/* One that does not read: the stream breaks, the call ends, others are served. */
static void slow_reader(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    const int fd = dial(h), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 35\r\n\r\n"
            "wait=1 pieces=10000 size=100000 gap=");
    for (int i = 0; i < 400 && atomic_load(&n_begun) == 0; i++) poll(NULL, 0, 5);
    assert_int_equal(post(h, "/v1/chat/completions", "", "wait=1"), 200);
    poll(NULL, 0, 300);
    close(fd);
    none_alive(h, 5000);
    qsi_httpd_free(h);
}

static void limits(void **state) {
    qsi_httpd_opts o = defaults();
    o.max_calls = 2;
    o.max_connections = 8;
    qsi_httpd *h = start(&o);
    int fds[2], idle[8];
    for (int i = 0; i < 2; i++) {
        fds[i] = dial(h);
        say(fds[i], "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                    "10\r\n\r\nwait=20000");
    }
    for (int i = 0; i < 400 && atomic_load(&n_begun) < 2; i++) poll(NULL, 0, 5);
    assert_int_equal(post(h, "/v1/chat/completions", "", "wait=1"), 503);
    assert_true(said("Retry-After: 1"));
    assert_int_equal(get(h, "/health", ""), 200);
    for (int i = 0; i < 8; i++) idle[i] = dial(h);
    int status = 0;
    for (int i = 0; i < 200 && (status = get(h, "/health", "")) != 503; i++) poll(NULL, 0, 5);
    assert_int_equal(status, 503);
    assert_true(said("too_many_connections"));
    for (int i = 0; i < 8; i++) close(idle[i]);
    for (int i = 0; i < 200 && (status = get(h, "/health", "")) != 200; i++) poll(NULL, 0, 5);
    assert_int_equal(status, 200);
    for (int i = 0; i < 2; i++) close(fds[i]);
    none_alive(h, 3000);
    qsi_httpd_free(h);
}

/* Who dawdles is cut: without a request, in the headers byte by byte, in the body. */
static void dawdling(void **state) {
    qsi_httpd_opts o = defaults();
    o.idle_ns = 1500 * MS;
    o.read_ns = 1000 * MS;
    qsi_httpd *h = start(&o);
    const int idle = dial(h), slow = dial(h), body = dial(h);
    const int64_t begin_ns = qsi_now_ns();
    say(body, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n");
    const char *drip =
        "GET /health HTTP/1.1\r\nX-Header: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (int i = 0; i < 50 && qsi_now_ns() - begin_ns < 4000 * MS; i++) {
        put(slow, drip + i, 1);
        put(body, "a", 1);
        poll(NULL, 0, 50);
    }
    qsi_free(hear_all(idle));
    qsi_free(hear_all(slow));
    qsi_free(hear_all(body));
    assert_true(qsi_now_ns() - begin_ns < 10000 * MS);
    assert_int_equal(atomic_load(&n_begun), 0);
    qsi_httpd_free(h);
}

static void draining(void **state) {
    const qsi_httpd_opts o = defaults();
    qsi_httpd *h = start(&o);
    const int fd = dial(h), stuck = dial(h);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: "
            "close\r\nContent-Length: 8\r\n\r\n"
            "wait=300");
    say(stuck, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
               "10\r\n\r\nwait=60000");
    for (int i = 0; i < 400 && atomic_load(&n_begun) < 2; i++) poll(NULL, 0, 5);
    qsi_httpd_drain(h);
    assert_int_equal(get(h, "/ready", ""), 503);
    assert_true(said("draining"));
    assert_int_equal(get(h, "/health", ""), 200);
    assert_int_equal(post(h, "/v1/chat/completions", "", "wait=1"), 503);
    qsi_free(last);
    last = hear_all(fd); /* what was under way is finished */
    assert_int_equal(status_of(last), 200);
    assert_int_equal(qsi_httpd_calls(h), 1);
    const int64_t begin_ns = qsi_now_ns();
    qsi_httpd_free(h); /* and the rest is cut */
    assert_true(qsi_now_ns() - begin_ns < 5000 * MS);
    none_alive(NULL, 100);
    close(stuck);
}

static void unix_socket(void **state) {
    qsi_httpd_opts o = defaults();
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char path[4096];
    snprintf(path, sizeof path, "%s", tmp_path("sock"));
    o.unix_path = path;
    qsi_httpd *h = start(&o);
    snprintf(at.sun_path, sizeof at.sun_path, "%.100s", path);
    assert_non_null(strstr(qsi_httpd_address(h), "unix:"));
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    say(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: any\r\nConnection: close\r\nContent-Length: "
            "7\r\n\r\nwait=20");
    qsi_free(last);
    last = hear_all(fd);
    assert_int_equal(status_of(last), 200);
    qsi_httpd_free(h);
}

static void page(void **state) {
    qsi_httpd_opts o = defaults();
    static const unsigned char plain[] = "<!doctype html>plain", zip[] = "zipped";
    const qsi_httpd_page p = {.plain = plain,
                        .n_plain = sizeof plain - 1,
                        .gzip = zip,
                        .n_gzip = sizeof zip - 1,
                        .csp = "default-src 'none'",
                        .etag = "\"abc\""};
    o.page = &p;
    qsi_httpd *h = start(&o);
    assert_int_equal(get(h, "/", ""), 200);
    assert_true(said("<!doctype html>plain") && said("Content-Security-Policy: default-src 'none'"));
    assert_int_equal(get(h, "/", "Accept-Encoding: br, gzip\r\n"), 200);
    assert_true(said("Content-Encoding: gzip") && said("zipped"));
    assert_int_equal(get(h, "/", "Accept-Encoding: gzip;q=0\r\n"), 200);
    assert_false(said("zipped"));
    assert_int_equal(get(h, "/", "If-None-Match: \"abc\"\r\n"), 304);
    qsi_httpd_free(h);
}

static void refused_starts(void **state) {
    qsi_httpd_opts o = defaults();
    qsi_httpd *h = NULL;
    qs_err err = {0};
    char path[4096];
    o.host = "0.0.0.0";
    assert_int_equal(qsi_httpd_start(&h, &o, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "--api-key-file"));
    o = defaults();
    o.tls_cert = "/nonexistent/cert";
    assert_int_equal(qsi_httpd_start(&h, &o, &err), QS_E_ARG);
    o.tls_key = "/nonexistent/key";
    assert_int_equal(qsi_httpd_start(&h, &o, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "TLS certificate"));
    snprintf(path, sizeof path, "%s", tmp_path("not.pem"));
    FILE *f = fopen(path, "wb");
    fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", f);
    fclose(f);
    o.tls_cert = o.tls_key = path;
    assert_int_equal(qsi_httpd_start(&h, &o, &err), QS_E_ARG);
    assert_null(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes),      cmocka_unit_test(calls),       cmocka_unit_test(pipelining),
        cmocka_unit_test(bodies),      cmocka_unit_test(headers),     cmocka_unit_test(keys),
        cmocka_unit_test(pages_of_others), cmocka_unit_test(vanishing), cmocka_unit_test(slow_reader),
        cmocka_unit_test(limits),      cmocka_unit_test(dawdling),    cmocka_unit_test(draining),
        cmocka_unit_test(unix_socket), cmocka_unit_test(page),        cmocka_unit_test(refused_starts),
    };
    const int rc = cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
    qsi_free(last);
    return rc;
}
