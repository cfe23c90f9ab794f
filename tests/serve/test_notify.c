/* States reach a socket in a folder and one without a file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "serve/notify.h"

static void reaches(const char *address) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char got[64] = "";
    const size_t n = strlen(address);
    assert_true(n < sizeof at.sun_path);
    memcpy(at.sun_path, address, n);
    if (address[0] == '@') at.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_true(fd >= 0);
    const socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_true(qsi_notify(address, "READY=1"));
    assert_int_equal(recv(fd, got, sizeof got - 1, 0), 7);
    assert_string_equal(got, "READY=1");
    close(fd);
}

static void states(void **state) {
    char path[4096], name[64];
    snprintf(path, sizeof path, "%s", tmp_path("notify"));
    reaches(path);
    snprintf(name, sizeof name, "@qiusuo-test-%d", (int)getpid());
    reaches(name);
    assert_true(qsi_notify(NULL, "READY=1"));
    assert_true(qsi_notify("", "READY=1"));
    assert_false(qsi_notify("/nonexistent/socket", "READY=1"));
    char longest[200];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_false(qsi_notify(longest, "READY=1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(states)};
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
