/* Strict JSON: what is refused, what the limits count, how values are read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "fmt/json.h"

static qs_status parse(const char *text, size_t n, qsi_json_limits limits) {
    qs_err err = {0};
    qsi_json *j = NULL;
    qs_status st = qsi_json_parse(&j, text, n, limits, &err);
    if (st != QS_OK) {
        assert_null(j);
        assert_int_equal(err.code, st);
        assert_true(err.text[0] != '\0');
    }
    qsi_json_free(&j);
    assert_null(j);
    return st;
}

static qs_status small(const char *z) { return parse(z, strlen(z), QSI_JSON_SMALL); }

static void refuses_what_is_not_json(void **state) {
    static const char *const bad[] = {
        "", "{", "}", "[1,]", "{\"a\":1,}", "{\"a\" 1}", "[1] 2", "nul", "[01]", "[1e999]", "['a']",
        "[\"\\x\"]", "[\"\xff\"]", "[\"a\nb\"]", "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}",
        "[\"\\u0000\"]", "[NaN]", "[99999999999999999999]", "[\"\\ud800\"]", "// x\n1",
    };
    for (size_t i = 0; i < QSI_COUNT(bad); i++) assert_int_equal(small(bad[i]), QS_E_FORMAT);
    assert_int_equal(parse("[1]\0", 4, QSI_JSON_SMALL), QS_E_FORMAT);
    assert_int_equal(small(" [1, \"\\\\\", \"\\\"[[[[\"] "), QS_OK);
}

static void limits_hold(void **state) {
    char deep[2 * QSI_JSON_MAX_DEPTH + 3];
    for (int d = QSI_JSON_MAX_DEPTH; d <= QSI_JSON_MAX_DEPTH + 1; d++) {
        memset(deep, '[', (size_t)d);
        memset(deep + d, ']', (size_t)d);
        assert_int_equal(parse(deep, 2 * (size_t)d, QSI_JSON_SMALL),
                         d > QSI_JSON_MAX_DEPTH ? QS_E_LIMIT : QS_OK);
    }
    assert_int_equal(parse("[1,2,3]", 7, (qsi_json_limits){7, 4}), QS_OK);
    assert_int_equal(parse("[1,2,3]", 7, (qsi_json_limits){6, 4}), QS_E_LIMIT);
    assert_int_equal(parse("[1,2,3]", 7, (qsi_json_limits){7, 3}), QS_E_LIMIT);
    assert_int_equal(parse("[\",,,\"]", 7, (qsi_json_limits){7, 2}), QS_OK);
}

static void values(void **state) {
    static const char text[] = "{\"i\":-9223372036854775808,\"r\":1.5,\"b\":true,\"s\":\"词\","
                               "\"n\":null,\"a\":[1,[2]],\"o\":{\"k\":3}}";
    qs_err err = {0};
    qsi_json *j = NULL;
    int64_t i = 0;
    double r = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(qsi_json_parse(&j, text, strlen(text), QSI_JSON_SMALL, &err), QS_OK);
    assert_int_equal(qsi_json_i64(j, "i", &i, &err), QS_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(qsi_json_f64(j, "r", &r, &err), QS_OK);
    assert_true(r == 1.5);
    assert_int_equal(qsi_json_f64(j, "i", &r, &err), QS_OK);
    assert_int_equal(qsi_json_bool(j, "b", &b, &err), QS_OK);
    assert_true(b);
    assert_int_equal(qsi_json_str(j, "s", &s, &err), QS_OK);
    assert_string_equal(s, "词");
    assert_int_equal(qsi_json_i64(j, "r", &i, &err), QS_E_FORMAT);
    assert_int_equal(qsi_json_i64(j, "n", &i, &err), QS_E_NOTFOUND);
    assert_int_equal(qsi_json_i64(j, "none", &i, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "none"));
    assert_int_equal(qsi_json_str(j, "i", &s, &err), QS_E_FORMAT);
    assert_int_equal(qsi_json_kind_of(qsi_json_get(j, "n")), QSI_JSON_NULL);
    assert_int_equal(qsi_json_kind_of(qsi_json_get(j, "none")), QSI_JSON_MISSING);
    const qsi_json *a = qsi_json_get(j, "a");
    assert_int_equal(qsi_json_size(a), 2);
    assert_true(qsi_json_as_i64(qsi_json_at(qsi_json_at(a, 1), 0), &i) && i == 2);
    assert_null(qsi_json_at(a, 2));
    assert_null(qsi_json_get(a, "k"));
    assert_int_equal(qsi_json_size(NULL), 0);
    int members = 0;
    const char *key = NULL;
    const qsi_json *v = NULL;
    for (void *it = NULL; (it = qsi_json_next(j, it, &key, &v)) != NULL; members++) {
        assert_ptr_equal(qsi_json_get(j, key), v);
    }
    assert_int_equal(members, 7);
    qsi_json_free(&j);
}

/* Messages quote the input: nothing that a terminal would obey may come through. */
static void messages_are_harmless(void **state) {
    static const char *const bad[] = {"\x1b[31m", "{\"a\" \x1b[2J}", "[\"a\x1b[0m",
                                      "[1,\xc2\x9b"
                                      "31m]",
                                      "\xff"};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        qs_err err = {0};
        qsi_json *j = NULL;
        assert_int_equal(qsi_json_parse(&j, bad[i], strlen(bad[i]), QSI_JSON_SMALL, &err),
                         QS_E_FORMAT);
        for (const char *p = err.text; *p; p++) assert_true((uint8_t)*p >= 0x20 && *p != 0x7f);
        assert_null(strstr(err.text, "\xc2\x9b"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(values),
        cmocka_unit_test(messages_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
