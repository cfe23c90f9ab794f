/* Growing byte string. Invariant: data is NULL, or data[len] is NUL and len < cap. */
#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

bool qsi_ends_with(const char *z, const char *tail) {
    size_t n = strlen(z), k = strlen(tail);
    return n >= k && memcmp(z + n - k, tail, k) == 0;
}

char *qsi_size_text(char buf[QSI_SIZE_TEXT], uint64_t bytes) {
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes / 1000;
    size_t u = 0;
    /* 999.95 would be written as 1000.0 */
    while (v >= 999.95 && u + 1 < QSI_COUNT(units)) {
        v /= 1000;
        u++;
    }
    if (bytes < 1000) snprintf(buf, QSI_SIZE_TEXT, "%u bytes", (unsigned)bytes);
    else snprintf(buf, QSI_SIZE_TEXT, "%.1f %s", v, units[u]);
    return buf;
}

void qsi_str_release(qsi_str *s) {
    qsi_free(s->data);
    memset(s, 0, sizeof(*s));
}

void qsi_str_clear(qsi_str *s) {
    s->len = 0;
    if (s->data != NULL) s->data[0] = '\0';
}

/* Room for n more bytes and the NUL. */
static qs_status reserve(qsi_str *s, size_t n) {
    size_t need;
    if (!qsi_add_size(s->len, n, &need) || !qsi_add_size(need, 1, &need)) return QS_E_NOMEM;
    void *p = s->data;
    qs_status st = qsi_grow(&p, &s->cap, need, 1);
    s->data = p;
    return st;
}

qs_status qsi_str_append(qsi_str *s, const void *p, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(reserve(s, n));
    if (n > 0) memcpy(s->data + s->len, p, n);
    s->len += n;
    s->data[s->len] = '\0';
done:
    return st;
}

qs_status qsi_str_puts(qsi_str *s, const char *z) { return qsi_str_append(s, z, strlen(z)); }

qs_status qsi_str_putc(qsi_str *s, char c) { return qsi_str_append(s, &c, 1); }

qs_status qsi_str_printf(qsi_str *s, const char *fmt, ...) {
    qs_status st = QS_OK;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) {
        st = QS_E_ARG;
        goto done;
    }
    QS_TRY(reserve(s, (size_t)n));
    vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
    s->len += (size_t)n;
done:
    va_end(again);
    va_end(ap);
    return st;
}

static qs_status json_escape(qsi_str *s, unsigned char c) {
    switch (c) {
    case '"': return qsi_str_puts(s, "\\\"");
    case '\\': return qsi_str_puts(s, "\\\\");
    case '\b': return qsi_str_puts(s, "\\b");
    case '\f': return qsi_str_puts(s, "\\f");
    case '\n': return qsi_str_puts(s, "\\n");
    case '\r': return qsi_str_puts(s, "\\r");
    case '\t': return qsi_str_puts(s, "\\t");
    default: return qsi_str_printf(s, "\\u%04x", c);
    }
}

qs_status qsi_str_json(qsi_str *s, const char *p, size_t n) {
    qs_status st = QS_OK;
    size_t from = 0;
    QS_TRY(qsi_str_putc(s, '"'));
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
        QS_TRY(qsi_str_append(s, p + from, i - from));
        QS_TRY(json_escape(s, c));
        from = i + 1;
    }
    QS_TRY(qsi_str_append(s, p + from, n - from));
    QS_TRY(qsi_str_putc(s, '"'));
done:
    return st;
}
