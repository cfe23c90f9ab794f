/* Files of a long-running job: a lock that ends with its process, rows that are appended. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "sys/file.h"
#include "sys/runfile.h"
#include "tmpdir.h"

/* A child that holds the lock until it is killed; returns when it holds it. */
static pid_t hold_in_child(const char *path) {
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        qsi_lock l;
        if (qsi_lock_take(&l, path, NULL) != QS_OK) _exit(1);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) pause();
    }
    char c;
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void one_holder(void **state) {
    (void)state;
    const char *path = tmp_path("lock");
    pid_t pid = hold_in_child(path);
    qsi_lock l = {-1};
    qs_err err;
    int64_t start = qsi_now_ns();
    assert_int_equal(qsi_lock_take(&l, path, &err), QS_E_STATE);
    assert_true(qsi_now_ns() - start >= INT64_C(1500000000));
    assert_non_null(strstr(err.text, "lock"));
    assert_int_equal(l.fd, -1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(qsi_lock_take(&l, path, &err), QS_OK);
    qsi_lock_release(&l);
    qsi_lock_release(&l);
    assert_int_equal(qsi_lock_take(&l, tmp_path("no/folder"), &err), QS_E_NOTFOUND);
}

static void appending(void **state) {
    (void)state;
    const char *path = tmp_path("log.csv");
    qsi_append a;
    qs_err err;
    qsi_str s = {0};
    assert_int_equal(qsi_append_open(&a, path, &err), QS_E_NOTFOUND); /* an existing file only */
    qsi_append_close(&a);
    tmp_write(path, "head\n", 5);
    assert_int_equal(qsi_append_open(&a, path, &err), QS_OK);
    assert_int_equal(qsi_append_write(&a, "1,2\n", 4, &err), QS_OK);
    assert_int_equal(qsi_file_read(path, 100, &s, NULL), QS_OK);
    assert_string_equal(s.data, "head\n1,2\n"); /* at once */
    assert_int_equal(qsi_append_write(&a, "3,4\n", 4, &err), QS_OK);
    qsi_append_close(&a);
    qsi_append_close(&a);
    assert_int_equal(qsi_file_read(path, 100, &s, NULL), QS_OK);
    assert_string_equal(s.data, "head\n1,2\n3,4\n");
    qsi_str_release(&s);
}

/* A file that one process writes; that it reads it meanwhile changes nothing. */
static void taken(void **state) {
    (void)state;
    const char *path = tmp_path("journal");
    qsi_append a, b;
    qs_err err;
    qsi_str s = {0};
    assert_int_equal(qsi_append_take(&a, path, &err), QS_OK);
    assert_int_equal(qsi_append_write(&a, "one\ntw", 6, &err), QS_OK);
    assert_int_equal(qsi_append_cut(&a, 4, &err), QS_OK);
    assert_int_equal(qsi_append_write(&a, "two\n", 4, &err), QS_OK);
    assert_int_equal(qsi_file_read(path, 100, &s, NULL), QS_OK);
    assert_string_equal(s.data, "one\ntwo\n");
    assert_int_equal(qsi_append_take(&b, path, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "journal"));
    assert_int_equal(b.fd, -1);
    qsi_append_close(&a);
    assert_int_equal(qsi_append_take(&b, path, &err), QS_OK);
    qsi_append_close(&b);
    assert_int_equal(qsi_append_take(&b, tmp_path("no/folder"), &err), QS_E_NOTFOUND);
    qsi_str_release(&s);
}

static void full_disk(void **state) {
    (void)state;
    const char *path = tmp_path("full.csv");
    struct rlimit old, low;
    qsi_append a;
    qs_err err;
    tmp_write(path, "0123456789", 10);
    getrlimit(RLIMIT_FSIZE, &old);
    low = old;
    low.rlim_cur = 12;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(qsi_append_open(&a, path, &err), QS_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    assert_int_equal(qsi_append_write(&a, "abcd", 4, &err), QS_E_IO); /* two of four bytes fit */
    assert_int_equal(qsi_append_write(&a, "abcd", 4, &err), QS_E_IO);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_non_null(strstr(err.text, "full.csv"));
    qsi_append_close(&a);
}

static void removal(void **state) {
    (void)state;
    const char *path = tmp_path("gone");
    qs_err err;
    tmp_write(path, "", 0);
    assert_int_equal(qsi_file_remove(path, &err), QS_OK);
    assert_false(qsi_path_exists(path));
    assert_int_equal(qsi_file_remove(path, &err), QS_OK);
    assert_int_not_equal(qsi_file_remove(tmp_root, &err), QS_OK);
    assert_non_null(strstr(err.text, tmp_root));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_holder),
        cmocka_unit_test(appending),
        cmocka_unit_test(taken),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(removal),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
