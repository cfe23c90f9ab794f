/* CSV: what rows and fields are, what is refused and in which line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"

/* Rows as "a|b/c|d", with the line each begins in where `lines` is set; an error as its text. */
static void read_all(const char *text, size_t n, char separator, bool lines, char *out, size_t cap) {
    char *exact = malloc(n > 0 ? n : 1); /* a read beyond the end shows under a sanitizer */
    qsi_csv c;
    qs_err err = { 0 };
    bool more = true;
    assert_non_null(exact);
    if (n > 0) memcpy(exact, text, n);
    out[0] = '\0';
    qsi_csv_init(&c, exact, n, separator);
    for (;;) {
        if (qsi_csv_next(&c, &more, &err) != QS_OK) {
            snprintf(out, cap, "%s", err.text);
            break;
        }
        if (!more) break;
        size_t len = strlen(out);
        if (len > 0) out[len++] = '/';
        if (lines) len += (size_t)snprintf(out + len, cap - len, "%lld:", (long long)c.line);
        for (size_t i = 0; i < c.n_fields; i++)
            len += (size_t)snprintf(out + len, cap - len, "%s%s", i > 0 ? "|" : "",
                                    qsi_csv_field(&c, i));
    }
    qsi_csv_release(&c);
    free(exact);
}

static void is(const char *text, const char *want) {
    char got[1024];
    read_all(text, strlen(text), ',', false, got, sizeof got);
    assert_string_equal(got, want);
}

static void rows(void **state) {
    is("", "");
    is("\n\r\n", "");
    is("a,b", "a|b");
    is("a,b\n", "a|b");
    is("a,b\r\nc,d\re,f\n", "a|b/c|d/e|f");
    is("a,,\n", "a||");
    is(",\n", "|");
    is("\"\"\n", "");
    is("\xEF\xBB\xBFid,词\n", "id|词");
    is("\"a,b\",\"c\"\"d\",\"\"\"\"", "a,b|c\"d|\"");
    is("\"two\nlines\r\nthree\",x\n", "two\nlines\r\nthree|x");
    is("5' 6\",a \"b\" c,d", "5' 6\"|a \"b\" c|d");
    is(" \"a\",b", " \"a\"|b");
    is("a,b\n\n\nc", "a|b/c");
}

static void separators(void **state) {
    char got[64];
    read_all("a,b;c\td", 7, ';', false, got, sizeof got);
    assert_string_equal(got, "a,b|c\td");
    read_all("a,b;c\td", 7, '\t', false, got, sizeof got);
    assert_string_equal(got, "a,b;c|d");
}

static void line_numbers(void **state) {
    char got[128];
    static const char text[] = "a\n\n\"b\nb\"\r\n\r\nc\rd";
    read_all(text, sizeof text - 1, ',', true, got, sizeof got);
    assert_string_equal(got, "1:a/3:b\nb/6:c/7:d");
}

static void refused(void **state) {
    char got[128];
    is("a\nb\n\"c\nd", "line 3: a quote is opened and never closed");
    is("\"", "line 1: a quote is opened and never closed");
    is("a\n\"b\nc\"d", "line 3: text after a closing quote");
    is("a\nb,\xff\n", "line 2: byte 0xff is not UTF-8");
    is("\"x\n\xe6\x9c\"", "line 2: byte 0xe6 is not UTF-8");
    read_all("a\nb\0c", 5, ',', false, got, sizeof got);
    assert_string_equal(got, "line 2: a NUL byte");
}

static void limits(void **state) {
    size_t n = QSI_CSV_MAX_ROW + 2;
    char *text = malloc(n), got[QSI_CSV_MAX_FIELDS * 2];
    assert_non_null(text);
    memset(text, ',', QSI_CSV_MAX_FIELDS);
    read_all(text, QSI_CSV_MAX_FIELDS - 1, ',', false, got, sizeof got);
    assert_int_equal(strlen(got), QSI_CSV_MAX_FIELDS - 1);
    read_all(text, QSI_CSV_MAX_FIELDS, ',', false, got, sizeof got);
    assert_non_null(strstr(got, "line 1: more than 4096 fields"));
    memset(text, 'x', n);
    text[0] = '\n';
    read_all(text, n, ',', false, got, sizeof got);
    assert_non_null(strstr(got, "line 2: a row of more than"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows), cmocka_unit_test(separators), cmocka_unit_test(line_numbers),
        cmocka_unit_test(refused), cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
