/* Rows and fields of CSV; see csv.h. */
#include "base/csv.h"

#include <string.h>

#include "base/mem.h"

void qsi_csv_init(qsi_csv *c, const char *text, size_t n, char separator) {
    *c = (qsi_csv){ .p = text, .n = n, .separator = separator, .line = 1, .next_line = 1 };
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) c->pos = 3;
}

void qsi_csv_release(qsi_csv *c) {
    qsi_str_release(&c->row);
    qsi_free(c->begin);
    *c = (qsi_csv){ 0 };
}

const char *qsi_csv_field(const qsi_csv *c, size_t i) { return c->row.data + c->begin[i]; }

/* Length of the line end at the position; 0: there is none. */
static size_t line_end(const qsi_csv *c) {
    if (c->pos >= c->n) return 0;
    if (c->p[c->pos] == '\n') return 1;
    if (c->p[c->pos] != '\r') return 0;
    return c->pos + 1 < c->n && c->p[c->pos + 1] == '\n' ? 2 : 1;
}

static void skip_line_end(qsi_csv *c) {
    size_t k = line_end(c);
    c->pos += k;
    if (k > 0) c->next_line++;
}

/* Appends text[c->pos, end) to the row. */
static qs_status take(qsi_csv *c, size_t end, qs_err *err) {
    qs_status st = QS_OK;
    const char *p = c->p + c->pos;
    size_t n = end - c->pos, bad;
    if (n > QSI_CSV_MAX_ROW - c->row.len)
        QS_FAIL(err, QS_E_LIMIT, "line %lld: a row of more than %zu bytes", (long long)c->line,
                QSI_CSV_MAX_ROW);
    if (memchr(p, '\0', n) != NULL)
        QS_FAIL(err, QS_E_FORMAT, "line %lld: a NUL byte", (long long)c->next_line);
    if (!qsi_utf8_valid(p, n, &bad))
        QS_FAIL(err, QS_E_FORMAT, "line %lld: byte 0x%02x is not UTF-8", (long long)c->next_line,
                (unsigned)(unsigned char)p[bad]);
    if (qsi_str_append(&c->row, p, n) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    c->pos = end;
done:
    return st;
}

/* The rest of a field after its opening quote, the closing one included. */
static qs_status take_quoted(qsi_csv *c, qs_err *err) {
    qs_status st = QS_OK;
    int64_t opened = c->next_line;
    for (;;) {
        size_t i = c->pos;
        while (i < c->n && c->p[i] != '"' && c->p[i] != '\n' && c->p[i] != '\r') i++;
        QS_TRY(take(c, i, err));
        if (i == c->n)
            QS_FAIL(err, QS_E_FORMAT, "line %lld: a quote is opened and never closed",
                    (long long)opened);
        size_t k = line_end(c);
        if (k > 0) {
            QS_TRY(take(c, i + k, err));
            c->next_line++;
        } else if (i + 1 < c->n && c->p[i + 1] == '"') {
            QS_TRY(take(c, i + 1, err)); /* of the two one counts */
            c->pos++;
        } else {
            c->pos++;
            break;
        }
    }
    if (c->pos < c->n && c->p[c->pos] != c->separator && line_end(c) == 0)
        QS_FAIL(err, QS_E_FORMAT, "line %lld: text after a closing quote", (long long)c->next_line);
done:
    return st;
}

static qs_status take_plain(qsi_csv *c, qs_err *err) {
    size_t i = c->pos;
    while (i < c->n && c->p[i] != c->separator && c->p[i] != '\n' && c->p[i] != '\r') i++;
    return take(c, i, err);
}

static qs_status take_field(qsi_csv *c, qs_err *err) {
    qs_status st = QS_OK;
    if (c->n_fields == QSI_CSV_MAX_FIELDS)
        QS_FAIL(err, QS_E_LIMIT, "line %lld: more than %zu fields", (long long)c->line,
                QSI_CSV_MAX_FIELDS);
    if (qsi_grow((void **)&c->begin, &c->cap, c->n_fields + 1, sizeof *c->begin) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    c->begin[c->n_fields++] = c->row.len;
    if (c->pos < c->n && c->p[c->pos] == '"') {
        c->pos++;
        QS_TRY(take_quoted(c, err));
    } else {
        QS_TRY(take_plain(c, err));
    }
    if (qsi_str_putc(&c->row, '\0') != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
done:
    return st;
}

qs_status qsi_csv_next(qsi_csv *c, bool *more, qs_err *err) {
    qs_status st = QS_OK;
    while (line_end(c) > 0) skip_line_end(c);
    c->line = c->next_line;
    c->n_fields = 0;
    qsi_str_clear(&c->row);
    *more = c->pos < c->n;
    if (!*more) goto done;
    QS_TRY(take_field(c, err));
    while (c->pos < c->n && c->p[c->pos] == c->separator) {
        c->pos++;
        QS_TRY(take_field(c, err));
    }
    skip_line_end(c);
done:
    return st;
}
