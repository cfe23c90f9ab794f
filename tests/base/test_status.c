/* Status texts, the error record, failed checks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/status.h"
#include "base/str.h"

static void texts(void **state) {
    (void)state;
    assert_string_equal(qs_status_text(QS_OK), "ok");
    assert_string_equal(qs_status_text(QS_E_NOMEM), "out of memory");
    assert_string_equal(qs_status_text(QS_E_CORRUPT),
                        "data does not match its checksum or its description");
    assert_string_equal(qs_status_text((qs_status)-1000), "unknown status");
    for (int i = 0; i >= -12; i--) assert_true(strlen(qs_status_text((qs_status)i)) > 1);
}

static void set_and_offset(void **state) {
    (void)state;
    qs_err err;
    assert_int_equal(qsi_err_set(&err, QS_E_IO, "cannot open '%s'", "诗.txt"), QS_E_IO);
    assert_int_equal(err.code, QS_E_IO);
    assert_int_equal(err.offset, -1);
    assert_string_equal(err.text, "cannot open '诗.txt'");
    assert_int_equal(qsi_err_at(&err, QS_E_FORMAT, 77, "bad %d", 5), QS_E_FORMAT);
    assert_int_equal(err.offset, 77);
    assert_string_equal(err.text, "bad 5");
    assert_int_equal(qsi_err_set(NULL, QS_E_ARG, "nobody listens"), QS_E_ARG);
    assert_int_equal(qsi_err_at(NULL, QS_E_ARG, 3, "nobody listens"), QS_E_ARG);
    qsi_err_prefix(NULL, "nobody listens");
}

static void own_text_as_argument(void **state) {
    (void)state;
    qs_err err;
    (void)qsi_err_set(&err, QS_E_IO, "inner");
    (void)qsi_err_set(&err, QS_E_FORMAT, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
}

static void long_texts_end_on_a_character(void **state) {
    (void)state;
    qs_err err;
    char many[1201];
    for (int shift = 0; shift < 3; shift++) {
        memset(many, 'x', (size_t)shift);
        for (int i = shift; i + 3 <= 1200; i += 3) memcpy(many + i, "诗", 3);
        many[1200 - (1200 - shift) % 3] = '\0';
        (void)qsi_err_set(&err, QS_E_IO, "%s", many);
        size_t n = strlen(err.text);
        assert_true(n >= sizeof(err.text) - 4 && n < sizeof(err.text));
        assert_true(qsi_utf8_valid(err.text, n, NULL));
        assert_memory_equal(err.text, many, n);
        qsi_err_prefix(&err, "file '%s'", "词.gguf");
        n = strlen(err.text);
        assert_true(n >= sizeof(err.text) - 4 && n < sizeof(err.text));
        assert_true(qsi_utf8_valid(err.text, n, NULL));
        assert_memory_equal(err.text, "file '词.gguf': ", strlen("file '词.gguf': "));
        qsi_err_prefix(&err, "%s", many);
        assert_true(qsi_utf8_valid(err.text, strlen(err.text), NULL));
    }
}

static void prefix(void **state) {
    (void)state;
    qs_err err;
    (void)qsi_err_at(&err, QS_E_FORMAT, 9, "ends early");
    qsi_err_prefix(&err, "tensor %d", 3);
    assert_string_equal(err.text, "tensor 3: ends early");
    assert_int_equal(err.code, QS_E_FORMAT);
    assert_int_equal(err.offset, 9);
}

static qs_status step(int *reached, qs_status inner, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(inner);
    *reached += 1;
    if (*reached == 2) QS_FAIL(err, QS_E_RANGE, "twice");
    *reached += 10;
done:
    *reached += 100;
    return st;
}

static void try_and_fail(void **state) {
    (void)state;
    qs_err err = {0};
    int reached = 0;
    assert_int_equal(step(&reached, QS_E_IO, &err), QS_E_IO);
    assert_int_equal(reached, 100);
    reached = 1;
    assert_int_equal(step(&reached, QS_OK, &err), QS_E_RANGE);
    assert_int_equal(reached, 102);
    assert_string_equal(err.text, "twice");
    reached = 5;
    assert_int_equal(step(&reached, QS_OK, &err), QS_OK);
    assert_int_equal(reached, 116);
}

static int failures;
static char failed_expr[64];

static void remember(const char *file, int line, const char *expr) {
    assert_true(strstr(file, "test_status.c") != NULL && line > 0);
    size_t n = strlen(expr);
    assert_true(n < sizeof(failed_expr));
    memcpy(failed_expr, expr, n + 1);
    failures++;
}

static void checks(void **state) {
    (void)state;
    int evaluated = 0;
    qsi_fail_set(remember);
    QS_CHECK(1 + 1 == 2);
    assert_int_equal(failures, 0);
    QS_CHECK(1 + 1 == 3);
    assert_int_equal(failures, 1);
    assert_string_equal(failed_expr, "1 + 1 == 3");
    QS_ASSERT(++evaluated == 7);
#ifdef QS_DEBUG
    assert_int_equal(failures, 2);
    assert_int_equal(evaluated, 1);
#else
    assert_int_equal(failures, 1);
    assert_int_equal(evaluated, 0);
#endif
    qsi_fail_set(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(set_and_offset),
        cmocka_unit_test(own_text_as_argument),
        cmocka_unit_test(long_texts_end_on_a_character),
        cmocka_unit_test(prefix),
        cmocka_unit_test(try_and_fail),
        cmocka_unit_test(checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
