/* Paths and folders. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "sys/file.h"
#include "tmpdir.h"

static void join(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"a", "b", "a/b"},       {"a/", "b", "a/b"},   {"a", "/b", "a/b"},  {"a/", "/b", "a/b"},
        {"/", "b", "/b"},        {"", "b", "b"},       {"", "/b", "/b"},
        {"诗/词", "春.txt", "诗/词/春.txt"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_str s = {0};
        assert_int_equal(qsi_path_join(&s, cases[i][0], cases[i][1]), QS_OK);
        assert_string_equal(s.data, cases[i][2]);
        qsi_str_release(&s);
    }
}

static void folders(void **state) {
    (void)state;
    qs_err err;
    const char *deep = tmp_path("一/二//three/");
    assert_int_equal(qsi_make_dirs(deep, &err), QS_OK);
    assert_true(qsi_path_is_dir(tmp_path("一/二/three")));
    assert_int_equal(qsi_make_dirs(deep, &err), QS_OK);
    const char *file = tmp_path("一/file");
    tmp_write(file, "x", 1);
    assert_true(qsi_path_exists(file));
    assert_false(qsi_path_is_dir(file));
    assert_false(qsi_path_exists(tmp_path("一/nothing")));
    assert_int_not_equal(qsi_make_dirs(file, &err), QS_OK);
    assert_int_not_equal(qsi_make_dirs(tmp_path("一/file/below"), &err), QS_OK);
    assert_non_null(strstr(err.text, "一/file"));
    assert_int_not_equal(qsi_make_dirs("", &err), QS_OK);
}

static void listing(void **state) {
    (void)state;
    const char *root = tmp_path("list");
    char **names = NULL;
    size_t n = 9;
    qs_err err;
    assert_int_equal(qsi_make_dirs(tmp_path("list/b"), &err), QS_OK);
    assert_int_equal(qsi_dir_list(tmp_path("list/b"), &names, &n, &err), QS_OK);
    assert_int_equal(n, 0);
    qsi_free(names);
    tmp_write(tmp_path("list/a"), "", 0);
    tmp_write(tmp_path("list/.hidden"), "", 0);
    tmp_write(tmp_path("list/诗"), "", 0);
    tmp_write(tmp_path("list/B"), "", 0);
    assert_int_equal(symlink("a", tmp_path("list/c")), 0);
    assert_int_equal(symlink("nowhere", tmp_path("list/d")), 0);
    assert_int_equal(mkfifo(tmp_path("list/e"), 0600), 0);
    assert_int_equal(qsi_dir_list(root, &names, &n, &err), QS_OK);
    static const char *const want[] = {"B", "a", "b", "c", "诗"};
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(names[i], want[i]);
        qsi_free(names[i]);
    }
    qsi_free(names);
    assert_int_equal(qsi_dir_list(tmp_path("missing"), &names, &n, &err), QS_E_NOTFOUND);
    assert_int_not_equal(qsi_dir_list(tmp_path("list/a"), &names, &n, &err), QS_OK);
}

static void disk_free(void **state) {
    (void)state;
    assert_true(qsi_disk_free(tmp_root) > 0);
    assert_true(qsi_disk_free(tmp_path("not/there/yet")) > 0);
    assert_true(qsi_disk_free("not/there/yet") > 0);
    assert_true(qsi_disk_free("plain") > 0);
    assert_true(qsi_disk_free("") > 0);
    assert_true(qsi_disk_free("/nothing") > 0);
}

static void loops(void **state) {
    (void)state;
    assert_int_equal(qsi_make_dirs(tmp_path("ring/in/deep"), NULL), QS_OK);
    assert_int_equal(symlink("..", tmp_path("ring/in/up")), 0);
    assert_int_equal(symlink(".", tmp_path("ring/in/here")), 0);
    assert_int_equal(symlink("deep", tmp_path("ring/in/beside")), 0);
    assert_true(qsi_path_is_loop(tmp_path("ring/in/up")));
    assert_true(qsi_path_is_loop(tmp_path("ring/in/here")));
    assert_true(qsi_path_is_loop(tmp_path("ring/in/deep/../../in")));
    assert_false(qsi_path_is_loop(tmp_path("ring/in/beside")));
    assert_false(qsi_path_is_loop(tmp_path("ring/in/deep")));
    assert_false(qsi_path_is_loop(tmp_path("ring/in/deep/")));
    assert_false(qsi_path_is_loop(tmp_path("ring/in/nothing")));
    assert_false(qsi_path_is_loop("/"));
    assert_true(qsi_path_is_loop("/.."));
}

static void exe_dir(void **state) {
    (void)state;
    qsi_str s = {0};
    assert_int_equal(qsi_exe_dir(&s, NULL), QS_OK);
    assert_int_equal(s.data[0], '/');
    assert_int_equal(qsi_path_join(&s, "", "/test_path"), QS_OK);
    assert_true(qsi_path_exists(s.data));
    qsi_str_release(&s);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    int failed = 0;
    for (int n = 1; n < 40; n++) {
        char **names = NULL;
        size_t count = 0;
        qsi_str exe = {0};
        qsi_mem_fail_after(n);
        qs_status a = qsi_make_dirs(tmp_path("x/y"), NULL);
        qs_status b = qsi_dir_list(tmp_path("list"), &names, &count, NULL);
        qs_status c = qsi_exe_dir(&exe, NULL);
        qsi_mem_fail_after(-1);
        assert_true((a == QS_OK || a == QS_E_NOMEM) && (b == QS_OK || b == QS_E_NOMEM) &&
                    (c == QS_OK || c == QS_E_NOMEM));
        assert_int_equal(count, b == QS_OK ? 5 : 0);
        failed += (a != QS_OK) + (b != QS_OK) + (c != QS_OK);
        for (size_t i = 0; i < count; i++) qsi_free(names[i]);
        qsi_free(names);
        qsi_str_release(&exe);
    }
    assert_true(failed >= 9 && failed < 39); /* 1 + 6 + 2 allocations at least */
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(join),      cmocka_unit_test(folders), cmocka_unit_test(listing),
        cmocka_unit_test(disk_free), cmocka_unit_test(exe_dir), cmocka_unit_test(loops),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
