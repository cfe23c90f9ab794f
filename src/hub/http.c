/* Texts and probes are one easy handle each; files are driven by one multi handle, a transfer per
 * segment. */
#include "hub/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/file.h"

enum { STALL_S = 30, TRIES = 6, PARALLEL = 4, CONNECT_S = 20, REDIRECTS = 8, POLL_MS = 200 };
#define FIRST_PAUSE_NS ((int64_t)500000000)
#define MAX_PAUSE_NS ((int64_t)30000000000)

struct qsi_http {
    CURLM *multi;
    char *token;
    int stall_s, tries, parallel;
    int (*waiting)(void *user);
    void *user;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global_rc;
static void global_init(void) { global_rc = curl_global_init(CURL_GLOBAL_DEFAULT); }

/* It becomes part of a header: a line end in it would begin another one. */
static bool token_ok(const char *token) {
    for (; *token != '\0'; token++)
        if (*token <= ' ' || *token > '~') return false;
    return true;
}

qs_status qsi_http_create(qsi_http **out, const qsi_http_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_http *h = qsi_calloc(1, sizeof *h);
    if (o->token != NULL && !token_ok(o->token))
        QS_FAIL(err, QS_E_ARG, "the access token holds a space, a line end or a letter that no token "
                "has; look at HF_TOKEN or the token file (it is not shown here)");
    pthread_once(&once, global_init);
    if (h == NULL || global_rc != CURLE_OK) QS_FAIL(err, QS_E_NOMEM, "libcurl cannot start");
    h->multi = curl_multi_init();
    if (o->token != NULL) h->token = qsi_strdup(o->token);
    if (h->multi == NULL || (o->token != NULL && h->token == NULL))
        QS_FAIL(err, QS_E_NOMEM, "libcurl cannot start");
    h->stall_s = o->stall_s > 0 ? o->stall_s : STALL_S;
    h->tries = o->tries > 0 ? o->tries : TRIES;
    h->parallel = o->parallel > 0 ? o->parallel : PARALLEL;
    h->waiting = o->waiting;
    h->user = o->user;
    *out = h;
    h = NULL;
done:
    qsi_http_free(h);
    return st;
}

void qsi_http_free(qsi_http *h) {
    if (h == NULL) return;
    curl_multi_cleanup(h->multi);
    qsi_free(h->token);
    qsi_free(h);
}

/* ---- what every transfer has ---- */

static bool is_https(const char *url) { return strncasecmp(url, "https://", 8) == 0; }

static CURL *new_easy(const qsi_http *h, const char *url) {
    CURL *e = curl_easy_init();
    if (e == NULL) return NULL;
    bool ok = curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK;
    ok &= curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
    ok &= curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, is_https(url) ? "https" : "http,https") ==
          CURLE_OK;
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)h->stall_s);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "qiusuo/" QSI_VERSION);
    if (h->token != NULL) { /* curl sends it to the URL's own host only */
        ok &= curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK;
        ok &= curl_easy_setopt(e, CURLOPT_XOAUTH2_BEARER, h->token) == CURLE_OK;
    }
    if (!ok) {
        curl_easy_cleanup(e);
        return NULL;
    }
    return e;
}

static qs_status no_handle(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "libcurl has no handle (out of memory?)");
}

/* Bytes of url before '?' or '#': what may be shown. */
static int shown(const char *url) { return (int)strcspn(url, "?#"); }

/* No answer at all. */
static qs_status no_answer(CURLcode rc, const char *url, qs_err *err) {
    if (rc == CURLE_ABORTED_BY_CALLBACK) return qsi_err_set(err, QS_E_CANCELLED, "cancelled");
    bool unreachable = rc == CURLE_COULDNT_CONNECT || rc == CURLE_COULDNT_RESOLVE_HOST ||
                       rc == CURLE_COULDNT_RESOLVE_PROXY;
    return qsi_err_set(err, QS_E_IO, "%.*s: %s%s", shown(url), url, curl_easy_strerror(rc),
                       unreachable ? "; is there a network? Models that 'qiusuo list' shows run without"
                                   : "");
}

/* A final answer other than success. */
static qs_status bad_answer(long code, const char *what, bool token, qs_err *err) {
    if (code == 404)
        return qsi_err_set(err, QS_E_NOTFOUND, "%s: the server has no such thing (404)", what);
    if (code == 401 || code == 403)
        return qsi_err_set(err, QS_E_ARG, "%s: the server refuses access (%ld)%s", what, code,
                           token ? ": the token does not allow it (accept the model's terms there?)"
                                 : "; a token is needed: set HF_TOKEN, or name a file with "
                                   "--token-file");
    return qsi_err_set(err, QS_E_IO, "%s: the server answers %ld", what, code);
}

static bool worth_a_retry(CURLcode rc, long code) {
    if (rc != CURLE_OK)
        return rc != CURLE_URL_MALFORMAT && rc != CURLE_UNSUPPORTED_PROTOCOL &&
               rc != CURLE_TOO_MANY_REDIRECTS && rc != CURLE_PEER_FAILED_VERIFICATION &&
               rc != CURLE_WRITE_ERROR && rc != CURLE_ABORTED_BY_CALLBACK;
    return code == 408 || code == 429 || code >= 500;
}

static int64_t pause_ns(int failures, CURL *e) {
    curl_off_t after = 0;
    int64_t p = FIRST_PAUSE_NS << (failures < 7 ? failures : 7);
    if (curl_easy_getinfo(e, CURLINFO_RETRY_AFTER, &after) == CURLE_OK && after > 0)
        p = (after < 30 ? (int64_t)after : 30) * 1000000000;
    return p < MAX_PAUSE_NS ? p : MAX_PAUSE_NS;
}

/* ---- texts ---- */

typedef struct text_sink {
    qsi_str *body, *next;
    size_t max;
    bool too_long, no_memory;
} text_sink;

static size_t take_text(char *p, size_t size, size_t n, void *user) {
    text_sink *s = user;
    (void)size;
    s->too_long = n > s->max - s->body->len;
    if (s->too_long) return 0;
    s->no_memory = qsi_str_append(s->body, p, n) != QS_OK;
    return s->no_memory ? 0 : n;
}

/* Link: <URL>; rel="next" */
static size_t take_text_header(char *p, size_t size, size_t n, void *user) {
    text_sink *s = user;
    (void)size;
    if (n >= 5 && strncasecmp(p, "HTTP/", 5) == 0) qsi_str_clear(s->next);
    if (n < 8 || strncasecmp(p, "link:", 5) != 0) return n;
    const char *begin = memchr(p, '<', n);
    const char *end = begin ? memchr(begin, '>', n - (size_t)(begin - p)) : NULL;
    if (end == NULL) return n;
    qsi_str rest = {0};
    if (qsi_str_append(&rest, end, n - (size_t)(end - p)) == QS_OK &&
        strstr(rest.data, "rel=\"next\"") != NULL) {
        qsi_str_clear(s->next);
        s->no_memory |= qsi_str_append(s->next, begin + 1, (size_t)(end - begin - 1)) != QS_OK;
    }
    qsi_str_release(&rest);
    return n;
}

static bool cancelled(const qsi_http *h) { return h->waiting != NULL && h->waiting(h->user) != 0; }

static int on_wait(void *user, curl_off_t n_down, curl_off_t down, curl_off_t n_up, curl_off_t up) {
    return cancelled(user);
}

/* false: cancelled meanwhile. */
static bool sleep_ns(const qsi_http *h, int64_t ns) {
    const struct timespec slice = {0, (long)POLL_MS * 1000000};
    for (int64_t end = qsi_now_ns() + ns; qsi_now_ns() < end; (void)nanosleep(&slice, NULL))
        if (cancelled(h)) return false;
    return true;
}

/* Performs e, again after failures that may pass. */
static CURLcode perform(const qsi_http *h, CURL *e, qsi_str *body, long *code) {
    curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_wait);
    curl_easy_setopt(e, CURLOPT_XFERINFODATA, (void *)h);
    curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
    for (int failures = 0;; failures++) {
        if (body != NULL) qsi_str_clear(body);
        *code = 0;
        CURLcode rc = curl_easy_perform(e);
        curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, code);
        if (!worth_a_retry(rc, *code) || failures + 1 >= h->tries) return rc;
        if (!sleep_ns(h, pause_ns(failures, e))) return CURLE_ABORTED_BY_CALLBACK;
    }
}

qs_status qsi_http_text(qsi_http *h, const char *url, size_t max, qsi_str *body, qsi_str *next,
                        qs_err *err) {
    qs_status st = QS_OK;
    text_sink s = {.body = body, .next = next, .max = max};
    long code = 0;
    CURL *e = new_easy(h, url);
    if (e == NULL) QS_TRY(no_handle(err));
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_text);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, &s);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, take_text_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, &s);
    curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
    qsi_str_clear(next);
    CURLcode rc = perform(h, e, body, &code);
    if (s.too_long) QS_FAIL(err, QS_E_LIMIT, "%s: more than %zu bytes", url, max);
    if (s.no_memory) QS_FAIL(err, QS_E_NOMEM, "out of memory reading %s", url);
    if (rc != CURLE_OK) QS_TRY(no_answer(rc, url, err));
    if (code != 200) QS_TRY(bad_answer(code, url, h->token != NULL, err));
done:
    curl_easy_cleanup(e);
    return st;
}

/* ---- probe ---- */

typedef struct probe_sink {
    qsi_str *etag;
    uint64_t size;
    long code;
    bool no_memory;
} probe_sink;

/* Value of header "name: value" in line p[n], or NULL. */
static const char *header_value(const char *p, size_t n, const char *name, size_t *len) {
    size_t k = strlen(name);
    if (n <= k || strncasecmp(p, name, k) != 0 || p[k] != ':') return NULL;
    const char *v = p + k + 1, *end = p + n;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) end--;
    *len = (size_t)(end - v);
    return v;
}

/* A decimal number that fills p[n]; UINT64_MAX when it is none. */
static uint64_t number(const char *p, size_t n) {
    uint64_t x = 0;
    if (n == 0 || n > 18) return UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return UINT64_MAX;
        x = x * 10 + (uint64_t)(p[i] - '0');
    }
    return x;
}

/* "bytes 0-99/1000": first byte and total (UINT64_MAX: not said). */
static bool content_range(const char *v, size_t n, uint64_t *first, uint64_t *total) {
    if (n < 6 || strncasecmp(v, "bytes ", 6) != 0) return false;
    const char *dash = memchr(v, '-', n), *slash = memchr(v, '/', n);
    if (dash == NULL || slash == NULL || slash < dash) return false;
    *first = number(v + 6, (size_t)(dash - v - 6));
    *total = number(slash + 1, n - (size_t)(slash + 1 - v));
    return *first != UINT64_MAX;
}

static size_t take_probe_header(char *p, size_t size, size_t n, void *user) {
    probe_sink *s = user;
    const char *v;
    size_t len = 0;
    uint64_t first = 0, total = UINT64_MAX;
    (void)size;
    if (n >= 12 && strncasecmp(p, "HTTP/", 5) == 0) { /* a new answer after a redirect */
        const char *sp = memchr(p, ' ', n);
        s->code = sp != NULL ? strtol(sp, NULL, 10) : 0;
        s->size = UINT64_MAX;
        qsi_str_clear(s->etag);
    } else if ((v = header_value(p, n, "etag", &len)) != NULL) {
        s->no_memory |= qsi_str_append(s->etag, v, len) != QS_OK;
    } else if ((v = header_value(p, n, "content-range", &len)) != NULL && s->code == 206) {
        if (content_range(v, len, &first, &total)) s->size = total;
    } else if ((v = header_value(p, n, "content-length", &len)) != NULL && s->code == 200) {
        s->size = number(v, len);
    }
    return n;
}

static size_t stop_at_body(char *p, size_t size, size_t n, void *user) {
    (void)p, (void)size, (void)n;
    probe_sink *s = user;
    return s->code == 206 ? n : 0;
}

qs_status qsi_http_probe(qsi_http *h, const char *url, uint64_t *size, bool *ranges, qsi_str *etag,
                         qs_err *err) {
    qs_status st = QS_OK;
    probe_sink s = {.etag = etag, .size = UINT64_MAX};
    long code = 0;
    CURL *e = new_easy(h, url);
    if (e == NULL) QS_TRY(no_handle(err));
    curl_easy_setopt(e, CURLOPT_RANGE, "0-0");
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, stop_at_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, &s);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, take_probe_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, &s);
    CURLcode rc = perform(h, e, NULL, &code);
    if (s.no_memory) QS_FAIL(err, QS_E_NOMEM, "out of memory asking for %s", url);
    if (rc != CURLE_OK && !(rc == CURLE_WRITE_ERROR && s.code == 200)) QS_TRY(no_answer(rc, url, err));
    if (s.code != 206 && s.code != 200) {
        char name[256];
        (void)snprintf(name, sizeof name, "%.*s", shown(url), url);
        QS_TRY(bad_answer(s.code, name, h->token != NULL, err));
    }
    *size = s.size;
    *ranges = s.code == 206;
done:
    curl_easy_cleanup(e);
    return st;
}

/* ---- files ---- */

typedef struct transfer {
    const qsi_http_file *file;
    qsi_http_segment *seg;
    CURL *easy;
    int64_t retry_at;       /* not before this time */
    int failures;           /* in a row, without a byte */
    long code;              /* of the answer being read */
    uint64_t range_first, range_total;
    bool active, accepted;  /* the answer's head was checked */
    uint64_t got;           /* bytes since the last report */
    qs_status st;
    char why[160];          /* of st */
} transfer;

static uint64_t missing(const qsi_http_segment *s) { return s->end - s->begin - *s->done; }

static size_t take_file_header(char *p, size_t size, size_t n, void *user) {
    transfer *t = user;
    const char *v;
    size_t len = 0;
    (void)size;
    if (n >= 12 && strncasecmp(p, "HTTP/", 5) == 0) {
        const char *sp = memchr(p, ' ', n);
        t->code = sp != NULL ? strtol(sp, NULL, 10) : 0;
        t->range_first = t->range_total = UINT64_MAX;
    } else if ((v = header_value(p, n, "content-range", &len)) != NULL) {
        (void)content_range(v, len, &t->range_first, &t->range_total);
    }
    return n;
}

static size_t refuse(transfer *t, qs_status st, const char *why) {
    t->st = st;
    (void)snprintf(t->why, sizeof t->why, "%s", why);
    return 0;
}

/* The head of an answer with a body: is it the part that was asked for? */
static bool right_part(transfer *t) {
    uint64_t at = t->seg->begin + *t->seg->done;
    t->accepted = true;
    if (t->code == 200 && at == 0 && (!t->file->ranges || t->seg->end == t->file->size)) return true;
    if (t->code == 206 && t->range_first == at &&
        (t->range_total == UINT64_MAX || t->range_total == t->file->size))
        return true;
    if (t->code == 206 && t->range_first == at)
        refuse(t, QS_E_CORRUPT, "the server's file has another size than it said before");
    else refuse(t, QS_E_IO, "the server does not send the part that was asked for");
    return false;
}

static size_t take_file(char *p, size_t size, size_t n, void *user) {
    transfer *t = user;
    (void)size;
    if (t->code != 200 && t->code != 206) return n; /* the text of an error */
    if (!t->accepted && !right_part(t)) return 0;
    if (n > missing(t->seg)) return refuse(t, QS_E_CORRUPT, "the server sends more than it said");
    for (size_t at = 0; at < n;) {
        ssize_t w = pwrite(t->file->fd, p + at, n - at, (off_t)(t->seg->begin + *t->seg->done));
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return refuse(t, QS_E_IO, errno == ENOSPC ? "the disk is full" : strerror(errno));
        at += (size_t)w;
        *t->seg->done += (uint64_t)w;
        t->got += (uint64_t)w;
    }
    return n;
}

static qs_status start(qsi_http *h, transfer *t, qs_err *err) {
    char range[64];
    t->easy = new_easy(h, t->file->url);
    if (t->easy == NULL) return no_handle(err);
    if (!t->file->ranges) *t->seg->done = 0;
    if (t->file->ranges) {
        snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, t->seg->begin + *t->seg->done,
                 t->seg->end - 1);
        curl_easy_setopt(t->easy, CURLOPT_RANGE, range);
    }
    curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take_file);
    curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, take_file_header);
    curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(t->easy, CURLOPT_PRIVATE, t);
    t->accepted = false;
    t->code = 0;
    t->st = QS_OK;
    if (curl_multi_add_handle(h->multi, t->easy) != CURLM_OK) return no_handle(err);
    t->active = true;
    return QS_OK;
}

static void stop(qsi_http *h, transfer *t) {
    if (t->easy == NULL) return;
    if (t->active) (void)curl_multi_remove_handle(h->multi, t->easy);
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    t->active = false;
}

/* A transfer that ended: done, to be tried again, or the end of all. */
static qs_status finish(qsi_http *h, transfer *t, CURLcode rc, bool progressed, qs_err *err) {
    qs_status st = QS_OK;
    int64_t pause = pause_ns(t->failures, t->easy);
    stop(h, t);
    if (missing(t->seg) == 0) return QS_OK;
    if (t->st != QS_OK)
        QS_FAIL(err, t->st, "%s: %s", t->file->name, t->why);
    if (rc == CURLE_OK && t->code != 200 && t->code != 206 && !worth_a_retry(rc, t->code))
        QS_TRY(bad_answer(t->code, t->file->name, h->token != NULL, err));
    if (rc != CURLE_OK && !worth_a_retry(rc, 0))
        QS_FAIL(err, QS_E_IO, "%s: %s", t->file->name, curl_easy_strerror(rc));
    t->failures = progressed ? 0 : t->failures + 1;
    if (t->failures >= h->tries)
        QS_FAIL(err, QS_E_IO, "%s: %s; what is there is kept: the same command goes on", t->file->name,
                rc != CURLE_OK ? curl_easy_strerror(rc) : "the server does not answer as it should");
    t->retry_at = qsi_now_ns() + (progressed ? FIRST_PAUSE_NS / 5 : pause);
done:
    return st;
}

typedef struct fetching {
    transfer *t;
    size_t n;
    qsi_http_progress *progress;
    void *user;
} fetching;

static qs_status start_some(qsi_http *h, fetching *f, qs_err *err) {
    qs_status st = QS_OK;
    int active = 0;
    for (size_t i = 0; i < f->n; i++) active += f->t[i].active;
    for (size_t i = 0; i < f->n && active < h->parallel; i++) {
        transfer *t = &f->t[i];
        if (t->active || missing(t->seg) == 0 || t->retry_at > qsi_now_ns()) continue;
        QS_TRY(start(h, t, err));
        active++;
    }
done:
    return st;
}

static qs_status take_ended(qsi_http *h, qs_err *err) {
    qs_status st = QS_OK;
    int left = 0;
    for (CURLMsg *m; (m = curl_multi_info_read(h->multi, &left)) != NULL;) {
        transfer *t = NULL;
        if (m->msg != CURLMSG_DONE) continue;
        CURLcode rc = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        QS_TRY(finish(h, t, rc, t->got > 0, err));
    }
done:
    return st;
}

static qs_status report(fetching *f, qs_err *err) {
    uint64_t got = 0;
    for (size_t i = 0; i < f->n; i++) {
        got += f->t[i].got;
        if (f->t[i].got > 0) f->t[i].failures = 0;
        f->t[i].got = 0;
    }
    if (f->progress != NULL && f->progress(f->user, got) != 0)
        return qsi_err_set(err, QS_E_CANCELLED, "cancelled");
    return QS_OK;
}

static bool all_there(const fetching *f) {
    for (size_t i = 0; i < f->n; i++)
        if (missing(f->t[i].seg) > 0) return false;
    return true;
}

qs_status qsi_http_fetch(qsi_http *h, const qsi_http_file *files, size_t n, qsi_http_progress *progress,
                         void *user, qs_err *err) {
    qs_status st = QS_OK;
    fetching f = {.progress = progress, .user = user};
    for (size_t i = 0; i < n; i++) f.n += (size_t)files[i].n_segments;
    f.t = qsi_calloc(f.n, sizeof *f.t);
    if (f.t == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %zu transfers", f.n);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        for (int k = 0; k < files[i].n_segments; k++)
            f.t[at++] = (transfer){.file = &files[i], .seg = &files[i].segments[k]};
    while (!all_there(&f)) {
        int running = 0;
        QS_TRY(start_some(h, &f, err));
        if (curl_multi_perform(h->multi, &running) != CURLM_OK ||
            curl_multi_poll(h->multi, NULL, 0, POLL_MS, NULL) != CURLM_OK)
            QS_FAIL(err, QS_E_NOMEM, "libcurl cannot go on");
        QS_TRY(take_ended(h, err));
        QS_TRY(report(&f, err));
    }
done:
    for (size_t i = 0; f.t != NULL && i < f.n; i++) stop(h, &f.t[i]);
    qsi_free(f.t);
    return st;
}
