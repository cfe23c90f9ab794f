/* See accesslog.h. A line is written by one call, so that lines of several threads do not mix. */
#include "serve/accesslog.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"
#include "sys/oserr.h"

struct qsi_accesslog {
    pthread_mutex_t lock;
    char *path;             /* NULL: standard error */
    int fd;
};

static qs_status open_log(const char *path, int *fd, qs_err *err) {
    *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    return *fd >= 0 ? QS_OK : qsi_err_errno(err, errno, "cannot open the access log '%s'", path);
}

qs_status qsi_accesslog_open(qsi_accesslog **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_accesslog *l = qsi_calloc(1, sizeof *l);
    if (l == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    l->fd = STDERR_FILENO;
    pthread_mutex_init(&l->lock, NULL);
    if (path != NULL) {
        l->path = qsi_strdup(path);
        if (l->path == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        QS_TRY(open_log(path, &l->fd, err));
    }
    *out = l;
    l = NULL;
done:
    qsi_accesslog_close(l);
    return st;
}

void qsi_accesslog_close(qsi_accesslog *l) {
    if (l == NULL) return;
    if (l->path != NULL && l->fd >= 0) close(l->fd);
    pthread_mutex_destroy(&l->lock);
    qsi_free(l->path);
    qsi_free(l);
}

qs_status qsi_accesslog_reopen(qsi_accesslog *l, qs_err *err) {
    qs_status st = QS_OK;
    int fd;
    if (l->path == NULL) return QS_OK;
    QS_TRY(open_log(l->path, &fd, err));
    pthread_mutex_lock(&l->lock);
    const int old = l->fd;
    l->fd = fd;
    pthread_mutex_unlock(&l->lock);
    close(old);
done:
    return st;
}

static qs_status put_time(qsi_str *s) {
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    return qsi_str_printf(s, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\"", tm.tm_year + 1900,
                          tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
                          now.tv_nsec / 1000000);
}

static qs_status put_text(qsi_str *s, const char *name, const char *p, size_t n) {
    qs_status st = QS_OK;
    if (p == NULL) return QS_OK;
    QS_TRY(qsi_str_printf(s, ",\"%s\":", name));
    if (qsi_utf8_valid(p, n, NULL)) QS_TRY(qsi_str_json(s, p, n));
    else QS_TRY(qsi_str_puts(s, "null")); /* no text; nothing that a reader of lines could take */
done:
    return st;
}

static qs_status put_seconds(qsi_str *s, const char *name, int64_t ns) {
    return ns > 0 ? qsi_str_printf(s, ",\"%s\":%.6f", name, (double)ns / 1e9) : QS_OK;
}

static qs_status put_line(qsi_str *s, const qsi_access *a) {
    qs_status st = QS_OK;
    QS_TRY(put_time(s));
    QS_TRY(put_text(s, "id", a->request_id, strlen(a->request_id)));
    QS_TRY(put_text(s, "client", a->client, strlen(a->client)));
    QS_TRY(put_text(s, "method", a->method, strlen(a->method)));
    QS_TRY(put_text(s, "route", a->route, strlen(a->route)));
    QS_TRY(qsi_str_printf(s, ",\"status\":%d,\"bytes\":%llu", a->status, (unsigned long long)a->bytes));
    if (a->n_prompt > 0)
        QS_TRY(qsi_str_printf(
            s, ",\"prompt_tokens\":%lld,\"cached_tokens\":%lld,\"completion_tokens\":%lld",
            (long long)a->n_prompt, (long long)a->n_cached, (long long)a->n_generated));
    QS_TRY(put_seconds(s, "queue_s", a->queue_ns));
    QS_TRY(put_seconds(s, "first_token_s", a->first_ns));
    QS_TRY(put_seconds(s, "whole_s", a->whole_ns));
    if (a->ended != NULL) QS_TRY(put_text(s, "ended_by", a->ended, strlen(a->ended)));
    QS_TRY(put_text(s, "body", a->body, a->n_body));
    QS_TRY(qsi_str_puts(s, "}\n"));
done:
    return st;
}

static void write_all(int fd, const char *p, size_t n) {
    while (n > 0) {
        const ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return;
        p += put;
        n -= (size_t)put;
    }
}

void qsi_accesslog_write(qsi_accesslog *l, const qsi_access *a) {
    qsi_str s = {0};
    if (put_line(&s, a) == QS_OK) {
        pthread_mutex_lock(&l->lock);
        write_all(l->fd, s.data, s.len);
        pthread_mutex_unlock(&l->lock);
    }
    qsi_str_release(&s);
}
