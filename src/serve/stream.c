/* See stream.h. Bytes stand in one buffer, `at` of them already read; it is packed when it must grow.
 * Both ends hold the stream; who goes last frees it. The wake is called under the lock, so that leaving
 * can promise that none comes later. */
#include "serve/stream.h"

#include <string.h>

#include "base/mem.h"
#include "sys/thread.h"

struct qsi_stream {
    qsi_monitor *m;
    char *data;
    size_t at, len, cap, max;     /* bytes [at, len) wait */
    bool ended, left, broken;
    void (*wake)(void *);         /* the reader waits; NULL: it does not */
    void *user;
};

qs_status qsi_stream_create(qsi_stream **out, size_t max_bytes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_stream *s = qsi_calloc(1, sizeof *s);
    if (s == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a stream");
    s->max = max_bytes;
    QS_TRY(qsi_monitor_create(&s->m, err));
    *out = s;
    s = NULL;
done:
    qsi_free(s);
    return st;
}

static void stream_free(qsi_stream *s) {
    qsi_monitor_free(s->m);
    qsi_free(s->data);
    qsi_free(s);
}

static void wake_reader(qsi_stream *s) {
    void (*wake)(void *) = s->wake;
    s->wake = NULL;
    if (wake != NULL) wake(s->user);
}

static qs_status put(qsi_stream *s, const void *p, size_t n) {
    if (n > s->max - (s->len - s->at)) return QS_E_LIMIT;
    if (s->at > 0 && n > s->cap - s->len) {
        memmove(s->data, s->data + s->at, s->len - s->at);
        s->len -= s->at;
        s->at = 0;
    }
    void *data = s->data;
    qs_status st = qsi_grow(&data, &s->cap, s->len + n, 1);
    s->data = data;
    if (st != QS_OK) return st;
    memcpy(s->data + s->len, p, n);
    s->len += n;
    return QS_OK;
}

qs_status qsi_stream_write(qsi_stream *s, const void *p, size_t n) {
    qs_status st = QS_OK;
    if (n == 0) return QS_OK;
    qsi_monitor_lock(s->m);
    if (s->left) st = QS_E_CANCELLED;
    else if (s->broken) st = QS_E_LIMIT;
    else st = put(s, p, n);
    if (st != QS_OK && st != QS_E_CANCELLED) s->broken = true;
    if (st != QS_E_CANCELLED) wake_reader(s);
    qsi_monitor_unlock(s->m);
    return st;
}

void qsi_stream_end(qsi_stream *s) {
    qsi_monitor_lock(s->m);
    s->ended = true;
    if (!s->left) wake_reader(s);
    const bool last = s->left;
    qsi_monitor_unlock(s->m);
    if (last) stream_free(s);
}

size_t qsi_stream_read(qsi_stream *s, void *p, size_t n, bool *end, void (*wake)(void *), void *user) {
    qsi_monitor_lock(s->m);
    size_t take = s->len - s->at;
    if (s->broken) take = 0; /* a slow reader would need long for the rest, and it is no whole answer */
    if (take > n) take = n;
    if (take > 0) memcpy(p, s->data + s->at, take);
    s->at += take;
    if (s->at == s->len) s->at = s->len = 0;
    *end = s->broken || (s->ended && s->at == s->len);
    s->wake = take == 0 && !*end ? wake : NULL;
    s->user = user;
    qsi_monitor_unlock(s->m);
    return take;
}

bool qsi_stream_broken(qsi_stream *s) {
    qsi_monitor_lock(s->m);
    const bool broken = s->broken;
    qsi_monitor_unlock(s->m);
    return broken;
}

void qsi_stream_leave(qsi_stream *s) {
    qsi_monitor_lock(s->m);
    s->left = true;
    s->wake = NULL;
    const bool last = s->ended;
    qsi_monitor_unlock(s->m);
    if (last) stream_free(s);
}
