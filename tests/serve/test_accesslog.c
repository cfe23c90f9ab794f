/* Lines of the access log are JSON, go on in a new file after a reopen, and hold a body only when
 * given. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../sys/tmpdir.h"
#include "serve/accesslog.h"

static size_t read_lines(const char *path, json_t **lines, size_t cap) {
    FILE *f = fopen(path, "rb");
    char line[4096];
    size_t n = 0;
    if (f == NULL) return 0;
    while (fgets(line, sizeof line, f) != NULL) {
        assert_true(n < cap);
        lines[n] = json_loads(line, 0, NULL);
        assert_non_null(lines[n++]);
    }
    fclose(f);
    return n;
}

static void lines(void **state) {
    char path[4096], moved[4096];
    qsi_accesslog *l;
    json_t *j[4];
    struct stat sb;
    const char body[] = "{\"prompt\":\"quote \\\" and 中文\"}";
    qsi_access a = {.request_id = "req-1", .client = "127.0.0.1", .method = "PO\"ST", .route = "/v1/x",
                    .status = 200, .bytes = 12, .n_prompt = 5, .n_generated = 7, .first_ns = 1500000,
                    .whole_ns = 2000000000};
    snprintf(path, sizeof path, "%s", tmp_path("access.log"));
    snprintf(moved, sizeof moved, "%s", tmp_path("access.log.1"));
    assert_int_equal(qsi_accesslog_open(&l, path, NULL), QS_OK);
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 077, 0);
    qsi_accesslog_write(l, &a);
    a.body = body;
    a.n_body = sizeof body - 1;
    a.ended = "client";
    qsi_accesslog_write(l, &a);
    a.body = "\xff\xfe";
    a.n_body = 2;
    assert_int_equal(rename(path, moved), 0);
    qsi_accesslog_write(l, &a); /* still the old file */
    assert_int_equal(qsi_accesslog_reopen(l, NULL), QS_OK);
    qsi_accesslog_write(l, &a);
    qsi_accesslog_close(l);
    assert_int_equal(read_lines(path, j, 4), 1);
    json_decref(j[0]);
    assert_int_equal(read_lines(moved, j, 4), 3);
    assert_string_equal(json_string_value(json_object_get(j[0], "method")), "PO\"ST");
    assert_int_equal(json_integer_value(json_object_get(j[0], "completion_tokens")), 7);
    assert_true(json_real_value(json_object_get(j[0], "whole_s")) == 2.0);
    assert_null(json_object_get(j[0], "body"));
    assert_null(json_object_get(j[0], "queue_s"));
    assert_string_equal(json_string_value(json_object_get(j[1], "body")), body);
    assert_string_equal(json_string_value(json_object_get(j[1], "ended_by")), "client");
    assert_true(json_is_null(json_object_get(j[2], "body")));
    for (int i = 0; i < 3; i++) json_decref(j[i]);
}

static void cannot_open(void **state) {
    qsi_accesslog *l;
    qs_err err = {0};
    char path[4096];
    assert_int_equal(qsi_accesslog_open(&l, "/nonexistent/log", &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "/nonexistent/log"));
    assert_int_equal(qsi_accesslog_open(&l, NULL, NULL), QS_OK);
    assert_int_equal(qsi_accesslog_reopen(l, NULL), QS_OK); /* standard error stays */
    qsi_accesslog_close(l);
    snprintf(path, sizeof path, "%s", tmp_path("folder"));
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_not_equal(qsi_accesslog_open(&l, path, &err), QS_OK);
    qsi_accesslog_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lines), cmocka_unit_test(cannot_open)};
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
