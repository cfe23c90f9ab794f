/* apps/qiusuo/chat_state: the state folder by the environment. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat_state.h"

static char folder[256];

static int make_folder(void **state) {
    char cwd[200];
    if (getcwd(cwd, sizeof cwd) == NULL) return -1;
    snprintf(folder, sizeof folder, "%s/chat-state-XXXXXX", cwd);
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static void remove_under(const char *a) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", folder, a);
    rmdir(path);
}

static int remove_folder(void **state) {
    remove_under("/xdg/qiusuo");
    remove_under("/xdg");
    remove_under("/.local/state/qiusuo");
    remove_under("/.local/state");
    remove_under("/.local");
    return rmdir(folder);
}

static void test_places(void **state) {
    char got[512], want[512], xdg[300];
    struct stat sb;
    snprintf(xdg, sizeof xdg, "%s/xdg", folder);
    setenv("HOME", folder, 1);
    setenv("XDG_STATE_HOME", xdg, 1);
    assert_true(qsa_state_file("name", got, sizeof got));
    snprintf(want, sizeof want, "%s/xdg/qiusuo/name", folder);
    assert_string_equal(got, want);
    snprintf(want, sizeof want, "%s/xdg/qiusuo", folder);
    assert_int_equal(stat(want, &sb), 0);
    assert_true(S_ISDIR(sb.st_mode) && (sb.st_mode & 077) == 0);
    /* a relative path counts as none */
    setenv("XDG_STATE_HOME", "relative", 1);
    assert_true(qsa_state_file("name", got, sizeof got));
    snprintf(want, sizeof want, "%s/.local/state/qiusuo/name", folder);
    assert_string_equal(got, want);
    assert_false(qsa_state_file("name", got, 10));
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    assert_false(qsa_state_file("name", got, sizeof got));
}

static void test_home(void **state) {
    char got[64];
    setenv("HOME", "/h", 1);
    assert_true(qsa_home_path("~/x y.json", got, sizeof got));
    assert_string_equal(got, "/h/x y.json");
    assert_true(qsa_home_path("~x", got, sizeof got));
    assert_string_equal(got, "~x");
    assert_true(qsa_home_path("/a/~/b", got, sizeof got));
    assert_string_equal(got, "/a/~/b");
    assert_false(qsa_home_path("a long enough path", got, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_home),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
