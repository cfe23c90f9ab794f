/* Keys, names and origins: what is let in, what is not, and that no message shows a key. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "serve/guard.h"

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void keys(void **state) {
    qs_err err = {0};
    qsi_guard *g;
    char path[4096];
    uint64_t a, b;
    snprintf(path, sizeof path, "%s", tmp_path("keys"));
    write_file(path, "# ours\n\nalpha\r\n  beta-beta \n#gamma\ndelta");
    const qsi_guard_opts o = {.key_file = path};
    assert_int_equal(qsi_guard_create(&g, &o, &err), QS_OK);
    assert_true(qsi_guard_has_keys(g));
    assert_true(qsi_guard_key(g, "Bearer alpha", NULL, &a));
    assert_true(qsi_guard_key(g, NULL, "beta-beta", &b));
    assert_int_not_equal(a, b);
    assert_true(qsi_guard_key(g, "bearer  delta", "wrong", &b));
    assert_true(qsi_guard_key(g, "Basic x", "alpha", &b));
    assert_int_equal(a, b);
    static const char *const wrong[] = {"Bearer alph", "Bearer alphaa", "Bearer ", "Bearer", "alpha",
                                        "Bearer #gamma", "Bearer gamma", "Bearer ALPHA", ""};
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        assert_false(qsi_guard_key(g, wrong[i], NULL, &b));
        assert_int_equal(b, 0);
    }
    char longest[1000] = "Bearer ";
    memset(longest + 7, 'a', 900);
    assert_false(qsi_guard_key(g, longest, NULL, &b));
    assert_false(qsi_guard_key(g, NULL, NULL, &b));
    assert_true(qsi_guard_host(g, "anything.example")); /* keys are asked for: names do not matter */
    qsi_guard_free(g);
}

static void bad_files(void **state) {
    qs_err err = {0};
    qsi_guard *g;
    char path[4096], text[400];
    snprintf(path, sizeof path, "%s", tmp_path("keys"));
    const qsi_guard_opts o = {.key_file = path};
    write_file(path, "# nothing\n\n");
    assert_int_equal(qsi_guard_create(&g, &o, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "holds no key"));
    write_file(path, "good\nse cret\n");
    assert_int_equal(qsi_guard_create(&g, &o, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "line 2"));
    assert_null(strstr(err.text, "cret"));
    memset(text, 'k', sizeof text);
    text[sizeof text - 1] = '\0';
    write_file(path, text);
    assert_int_equal(qsi_guard_create(&g, &o, &err), QS_E_ARG);
    assert_null(strstr(err.text, "kkk"));
    const qsi_guard_opts none = {.key_file = "/nonexistent/keys"};
    assert_int_equal(qsi_guard_create(&g, &none, &err), QS_E_NOTFOUND);
}

static void hosts(void **state) {
    qsi_guard *g;
    static const char *const more[] = {"llm.example", "192.168.0.7"};
    const qsi_guard_opts o = {.own_host = "127.0.0.2", .hosts = more, .n_hosts = 2};
    static const char *const good[] = {"localhost",      "LOCALHOST:8080",  "127.0.0.1",
                                       "127.0.0.1:1",    "[::1]",           "[::1]:8080",
                                       "127.0.0.2:8080", "llm.example:443", "192.168.0.7"};
    static const char *const bad[] = {"evil.example",
                                      "localhost.evil.example",
                                      "127.0.0.1.evil.example:80",
                                      "",
                                      "127.0.0.3",
                                      "[::2]",
                                      "[",
                                      "[::1",
                                      "xlocalhost"};
    assert_int_equal(qsi_guard_create(&g, &o, NULL), QS_OK);
    for (size_t i = 0; i < QSI_COUNT(good); i++) assert_true(qsi_guard_host(g, good[i]));
    for (size_t i = 0; i < QSI_COUNT(bad); i++) assert_false(qsi_guard_host(g, bad[i]));
    assert_true(qsi_guard_host(g, NULL));
    qsi_guard_free(g);
}

static void origins(void **state) {
    qsi_guard *g;
    static const char *const list[] = {"https://chat.example", "null"};
    const qsi_guard_opts o = {.own_host = "127.0.0.1", .origins = list, .n_origins = 2};
    bool cross;
    assert_int_equal(qsi_guard_create(&g, &o, NULL), QS_OK);
    assert_true(qsi_guard_origin(g, NULL, "localhost:8080", &cross));
    assert_false(cross);
    assert_true(qsi_guard_origin(g, "http://localhost:8080", "localhost:8080", &cross));
    assert_false(cross);
    assert_true(qsi_guard_origin(g, "https://chat.example", "localhost:8080", &cross));
    assert_true(cross);
    assert_true(qsi_guard_origin(g, "null", "localhost:8080", &cross));
    assert_false(qsi_guard_origin(g, "http://chat.example", "localhost:8080", &cross));
    assert_false(qsi_guard_origin(g, "https://chat.example.evil", "localhost:8080", &cross));
    assert_false(qsi_guard_origin(g, "http://localhost:8081", "localhost:8080", &cross));
    assert_false(qsi_guard_origin(g, "", "localhost:8080", &cross));
    qsi_guard_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(hosts),
        cmocka_unit_test(origins),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
