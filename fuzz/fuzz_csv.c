/* CSV: fields are UTF-8 without NUL inside the text's size, lines go up, and what is read, written again
 * with every field quoted, is read as the same. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/csv.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_quoted(qsi_str *out, const char *z) {
    QS_CHECK(qsi_str_putc(out, '"') == QS_OK);
    for (; *z != '\0'; z++) {
        if (*z == '"') QS_CHECK(qsi_str_putc(out, '"') == QS_OK);
        QS_CHECK(qsi_str_putc(out, *z) == QS_OK);
    }
    QS_CHECK(qsi_str_putc(out, '"') == QS_OK);
}

/* Appends all rows with quotes; false: refused. */
static bool rewrite(const char *p, size_t n, qsi_str *out) {
    qsi_csv c;
    qs_err err = { 0 };
    bool more = true;
    int64_t line = 0;
    qs_status st = QS_OK;
    qsi_csv_init(&c, p, n, ',');
    while ((st = qsi_csv_next(&c, &more, &err)) == QS_OK && more) {
        QS_CHECK(c.n_fields > 0 && c.line > line);
        line = c.line;
        for (size_t i = 0; i < c.n_fields; i++) {
            const char *z = qsi_csv_field(&c, i);
            QS_CHECK(strlen(z) <= n && qsi_utf8_valid(z, strlen(z), NULL));
            if (i > 0) QS_CHECK(qsi_str_putc(out, ',') == QS_OK);
            put_quoted(out, z);
        }
        QS_CHECK(qsi_str_putc(out, '\n') == QS_OK);
    }
    QS_CHECK(st == QS_OK || err.text[0] != '\0');
    qsi_csv_release(&c);
    return st == QS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_str once = { 0 }, twice = { 0 };
    if (rewrite((const char *)data, size, &once)) {
        QS_CHECK(rewrite(once.data ? once.data : "", once.len, &twice));
        QS_CHECK(once.len == twice.len);
        QS_CHECK(once.len == 0 || memcmp(once.data, twice.data, once.len) == 0);
    }
    qsi_str_release(&once);
    qsi_str_release(&twice);
    return 0;
}
