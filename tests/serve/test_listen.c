/* Sockets: free ports, taken ones, what is loopback, Unix sockets that were left behind. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "serve/listen.h"

static void tcp(void **state) {
    qsi_listener a, b;
    qs_err err = {0};
    char name[64];
    assert_int_equal(qsi_listen_tcp(&a, "127.0.0.1", 0, NULL), QS_OK);
    assert_true(a.port > 0 && a.loopback && !a.local);
    snprintf(name, sizeof name, "127.0.0.1:%d", (int)a.port);
    assert_string_equal(a.name, name);
    assert_int_equal(qsi_listen_tcp(&b, "127.0.0.1", a.port, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "taken"));
    assert_int_equal(b.fd, -1);
    qsi_listen_close(&a);
    assert_int_equal(qsi_listen_tcp(&b, "0.0.0.0", 0, NULL), QS_OK);
    assert_false(b.loopback);
    qsi_listen_close(&b);
    assert_int_equal(qsi_listen_tcp(&b, "localhost", 0, NULL), QS_OK);
    assert_true(b.loopback);
    qsi_listen_close(&b);
    assert_int_equal(qsi_listen_tcp(&b, "127.0.0.1", 65536, &err), QS_E_ARG);
    assert_int_equal(qsi_listen_tcp(&b, "192.0.2.1", 0, &err), QS_E_IO); /* nobody has it */
    assert_int_equal(qsi_listen_tcp(&b, "no such name", 0, &err), QS_E_ARG);
}

static void unix_socket(void **state) {
    qsi_listener a, b;
    qs_err err = {0};
    char path[4096];
    struct stat sb;
    snprintf(path, sizeof path, "%s", tmp_path("sock"));
    assert_int_equal(qsi_listen_unix(&a, path, NULL), QS_OK);
    assert_true(a.loopback && a.local);
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    assert_int_equal(qsi_listen_unix(&b, path, &err), QS_E_STATE);
    close(a.fd); /* as if killed: the file stays */
    assert_int_equal(qsi_listen_unix(&b, path, NULL), QS_OK);
    qsi_listen_close(&b);
    assert_int_not_equal(stat(path, &sb), 0);
    FILE *f = fopen(path, "wb"); /* no socket: it stays as it is */
    fclose(f);
    assert_int_equal(qsi_listen_unix(&b, path, &err), QS_E_STATE);
    assert_int_equal(stat(path, &sb), 0);
    char longest[300];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(qsi_listen_unix(&b, longest, &err), QS_E_ARG);
}

static void names(void **state) {
    char buf[64];
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    assert_string_equal(qsi_peer_name(&v4, buf, sizeof buf), "127.0.0.1");
    assert_string_equal(qsi_peer_name(&v6, buf, sizeof buf), "::1");
    assert_string_equal(qsi_peer_name(NULL, buf, sizeof buf), "unix");
    assert_true(qsi_allow_files(10) == 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tcp), cmocka_unit_test(unix_socket),
                                       cmocka_unit_test(names)};
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
