/* Stop strings: see stop.h. The held text is never longer than the longest stop string plus one
 * piece, so plain comparison is fast enough. */
#include "infer/stop.h"

#include <string.h>

qs_status qsi_stop_init(qsi_stop *s, const char *const *stops, size_t n_stops, qs_err *err) {
    qs_status st = QS_OK;
    *s = (qsi_stop){ .stops = stops, .n_stops = n_stops };
    for (size_t i = 0; i < n_stops; i++)
        if (!stops[i] || !stops[i][0]) QS_FAIL(err, QS_E_ARG, "a stop string is empty");
done:
    return st;
}

void qsi_stop_release(qsi_stop *s) {
    qsi_str_release(&s->held);
}

/* Offset of the first stop string in the held text, or its length. */
static size_t first_match(const qsi_stop *s) {
    for (size_t at = 0; at < s->held.len; at++)
        for (size_t i = 0; i < s->n_stops; i++) {
            size_t n = strlen(s->stops[i]);
            if (n <= s->held.len - at && memcmp(s->held.data + at, s->stops[i], n) == 0) return at;
        }
    return s->held.len;
}

/* Offset of the first tail of the held text that begins a stop string, or its length. */
static size_t first_open(const qsi_stop *s) {
    for (size_t at = 0; at < s->held.len; at++)
        for (size_t i = 0; i < s->n_stops; i++) {
            size_t left = s->held.len - at;
            if (left < strlen(s->stops[i]) &&
                memcmp(s->held.data + at, s->stops[i], left) == 0)
                return at;
        }
    return s->held.len;
}

qs_status qsi_stop_push(qsi_stop *s, const char *p, size_t n, qsi_str *out) {
    qs_status st = QS_OK;
    if (s->hit || n == 0) goto done;
    if (s->n_stops == 0) {
        QS_TRY(qsi_str_append(out, p, n));
        goto done;
    }
    QS_TRY(qsi_str_append(&s->held, p, n));
    size_t at = first_match(s);
    s->hit = at < s->held.len;
    if (!s->hit) at = first_open(s);
    QS_TRY(qsi_str_append(out, s->held.data, at));
    if (s->hit) {
        qsi_str_clear(&s->held);
    } else {
        memmove(s->held.data, s->held.data + at, s->held.len - at + 1);
        s->held.len -= at;
    }
done:
    return st;
}

qs_status qsi_stop_finish(qsi_stop *s, qsi_str *out) {
    qs_status st = QS_OK;
    if (!s->hit && s->held.len > 0) QS_TRY(qsi_str_append(out, s->held.data, s->held.len));
    qsi_str_clear(&s->held);
done:
    return st;
}
