/* Version, text check, place of the default model. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/str.h"
#include "qiusuo/qiusuo.h"
#include "sys/file.h"

static void version(void **state) {
    (void)state;
    assert_string_equal(qs_version(), QSI_VERSION);
}

static void utf8(void **state) {
    (void)state;
    assert_int_equal(qs_utf8_check("", 0), -1);
    assert_int_equal(qs_utf8_check("春眠不觉晓", 15), -1);
    assert_int_equal(qs_utf8_check("春眠不觉晓", 14), 12);
    assert_int_equal(qs_utf8_check("ab\xFF", 3), 2);
}

/* The tests' programs lie in the build tree, two folders below where the program is: no model there. */
static void no_default_model_beside_a_test(void **state) {
    (void)state;
    char path[1024] = "untouched";
    qs_err err;
    qsi_str exe = {0};
    assert_int_equal(qsi_exe_dir(&exe, NULL), QS_OK);
    assert_int_equal(qs_default_model(path, sizeof(path), &err), QS_E_NOTFOUND);
    assert_string_equal(path, "untouched");
    assert_non_null(strstr(err.text, exe.data));
    assert_non_null(strstr(err.text, "name a model"));
    qsi_str_release(&exe);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version),
        cmocka_unit_test(utf8),
        cmocka_unit_test(no_default_model_beside_a_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
