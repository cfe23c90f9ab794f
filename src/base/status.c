/* Status texts, the error record and the handler of programmer errors.
 *
 * Texts are formatted into a buffer of their own first, so that arguments may point into the record
 * that is being written. A text that does not fit is cut at a whole UTF-8 character. */
#include "base/status.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

const char *qs_status_text(qs_status st) {
    switch (st) {
#define STATUS_TEXT(name, value, text)                                                             \
    case name: return text;
        QS_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

/* Formats into buf of `cap` bytes; cuts a text that is too long at a whole character. */
static size_t format_text(char *buf, size_t cap, const char *fmt, va_list ap) {
    int n = vsnprintf(buf, cap, fmt, ap);
    if (n < 0) {
        buf[0] = '\0';
        return 0;
    }
    if ((size_t)n < cap) return (size_t)n;
    size_t whole = qsi_utf8_whole(buf, cap - 1);
    buf[whole] = '\0';
    return whole;
}

static qs_status set_text(qs_err *err, qs_status code, int64_t offset, const char *fmt,
                          va_list ap) {
    if (err == NULL) return code;
    char buf[sizeof(err->text)];
    size_t n = format_text(buf, sizeof(buf), fmt, ap);
    err->code = code;
    err->offset = offset;
    memcpy(err->text, buf, n + 1);
    return code;
}

qs_status qsi_err_set(qs_err *err, qs_status code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set_text(err, code, -1, fmt, ap);
    va_end(ap);
    return code;
}

qs_status qsi_err_at(qs_err *err, qs_status code, int64_t offset, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    set_text(err, code, offset, fmt, ap);
    va_end(ap);
    return code;
}

void qsi_err_prefix(qs_err *err, const char *fmt, ...) {
    if (err == NULL) return;
    char buf[sizeof(err->text)];
    va_list ap;
    va_start(ap, fmt);
    size_t n = format_text(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    const char sep[] = ": ";
    size_t room = sizeof(buf) - 1 - n;
    size_t sep_n = room < 2 ? room : 2;
    memcpy(buf + n, sep, sep_n);
    n += sep_n;
    room -= sep_n;
    size_t old = strnlen(err->text, sizeof(err->text) - 1);
    if (old > room) old = qsi_utf8_whole(err->text, room);
    memcpy(buf + n, err->text, old);
    n += old;
    buf[n] = '\0';
    memcpy(err->text, buf, n + 1);
}

static void fail_default(const char *file, int line, const char *expr) {
    fprintf(stderr, "%s:%d: check failed: %s\n", file, line, expr);
    abort();
}

static _Atomic(qsi_fail_fn *) fail_handler = fail_default;

void qsi_fail_set(qsi_fail_fn *fn) { atomic_store(&fail_handler, fn != NULL ? fn : fail_default); }

void qsi_fail(const char *file, int line, const char *expr) {
    qsi_fail_fn *fn = atomic_load(&fail_handler);
    fn(file, line, expr);
}
