/* Formatting, input and interruption of the program. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "args.h"
#include "ui.h"
#include "../sys/tmpdir.h"

static void sizes(void **state) {
    (void)state;
    char b[32];
    assert_string_equal(qsa_format_size(b, sizeof(b), 0), "0 B");
    assert_string_equal(qsa_format_size(b, sizeof(b), 1023), "1023 B");
    assert_string_equal(qsa_format_size(b, sizeof(b), 1024), "1.00 KiB");
    assert_string_equal(qsa_format_size(b, sizeof(b), 1536 * 1024), "1.50 MiB");
    assert_string_equal(qsa_format_size(b, sizeof(b), UINT64_C(25) << 30), "25.0 GiB");
    assert_string_equal(qsa_format_size(b, sizeof(b), UINT64_C(300) << 40), "300 TiB");
}

static void counts_and_times(void **state) {
    (void)state;
    char b[32];
    assert_string_equal(qsa_format_count(b, sizeof(b), 0), "0");
    assert_string_equal(qsa_format_count(b, sizeof(b), 999), "999");
    assert_string_equal(qsa_format_count(b, sizeof(b), 1234), "1.23 k");
    assert_string_equal(qsa_format_count(b, sizeof(b), 22.4e6), "22.4 M");
    assert_string_equal(qsa_format_count(b, sizeof(b), 671e9), "671 G");
    assert_string_equal(qsa_format_time(b, sizeof(b), -3), "0:00");
    assert_string_equal(qsa_format_time(b, sizeof(b), 65.2), "1:05");
    assert_string_equal(qsa_format_time(b, sizeof(b), 7390), "2:03:10");
}

static void wrapping(void **state) {
    (void)state;
    static const struct {
        size_t columns;
        const char *in, *out;
    } known[] = {{20, "short", "short"},
                 {5, "12345", "12345"},
                 {5, "12345 6", "12345\n6"},
                 {5, "1 345 7", "1 345\n7"},
                 {5, "a b c d e f", "a b c\nd e f"},
                 {4, "toolong x", "toolong\nx"},
                 {4, "x toolong x", "x\ntoolong\nx"},
                 {6, "ab\nabc abc", "ab\nabc\nabc"},
                 {7, "a 春雨秋", "a\n春雨秋"},
                 {8, "a 春雨秋", "a 春雨秋"},
                 {3, "é é é", "é é\né"},
                 {3, "", ""}};
    char buf[64];
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        snprintf(buf, sizeof(buf), "%s", known[i].in);
        qsa_wrap(buf, known[i].columns);
        assert_string_equal(buf, known[i].out);
    }
}

static void harmless(void **state) {
    (void)state;
    static const char *const known[][2] = {
        {"", ""},
        {"春雨 ok\n\tend", "春雨 ok\n\tend"},
        {"\033[2Jx\a\r\x7f", "?[2Jx???"},
        {"a\xff" "b\xe6\x98", "a?b??"},
        {"\xc2\x9b" "31m \xc2\xa0\xc2\xb7", "??31m \xc2\xa0\xc2\xb7"},
    };
    char buf[64];
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        snprintf(buf, sizeof(buf), "%s", known[i][0]);
        qsa_harmless(buf);
        assert_string_equal(buf, known[i][1]);
    }
}

static void reading(void **state) {
    (void)state;
    const char *path = tmp_path("text");
    char *text = NULL;
    size_t n = 0, big = 300000;
    qs_err err;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a\0春", 5), 5);
    assert_int_equal(qsa_read_text(path, 5, &text, &n, &err), QS_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(text, "a\0春", 6);
    free(text);
    text = NULL;
    assert_int_equal(qsa_read_text(path, 4, &text, &n, &err), QS_E_LIMIT);
    assert_null(text);
    char *data = malloc(big);
    memset(data, 'x', big);
    assert_int_equal(write(fd, data, big), (ssize_t)big);
    assert_int_equal(qsa_read_text(path, SIZE_MAX, &text, &n, &err), QS_OK);
    assert_int_equal(n, big + 5);
    assert_memory_equal(text + 5, data, big);
    free(data);
    free(text);
    close(fd);
    unlink(path);
    assert_int_equal(qsa_read_text(path, 5, &text, &n, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(qsa_read_text("/tmp", 5, &text, &n, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "directory"));
}

static void utf8(void **state) {
    (void)state;
    qs_err err;
    assert_int_equal(qsa_check_utf8("诗", 3, "the prompt", &err), QS_OK);
    assert_int_equal(qsa_check_utf8("ab\xE4\xBD", 4, "the prompt", &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 2);
    assert_string_equal(err.text, "the prompt is not UTF-8: byte 0xE4 at offset 2");
    assert_int_equal(qsa_check_utf8("\xFF", 1, "x", NULL), QS_E_FORMAT);
    assert_int_equal(qsa_check_utf8("\x1F\x8B\x08", 3, "x.gz", &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "gunzip"));
}

/* Exit status of a child that does `what` and then sends itself SIGINT `times` times. */
static int after_interrupts(bool catch_it, int times) {
    pid_t pid = fork();
    if (pid == 0) {
        qsa_interrupt_init();
        qsa_interrupt_catch(catch_it);
        for (int i = 0; i < times; i++) raise(SIGINT);
        if (!qsa_interrupted()) _exit(3);
        qsa_interrupt_clear();
        _exit(qsa_interrupted() ? 4 : 5);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void interrupts(void **state) {
    (void)state;
    assert_int_equal(after_interrupts(false, 0), 3);
    assert_int_equal(after_interrupts(false, 1), QSA_EXIT_INTERRUPTED);
    assert_int_equal(after_interrupts(true, 1), 5);
    assert_int_equal(after_interrupts(true, 2), QSA_EXIT_INTERRUPTED);
}

static void progress_is_silent_in_a_pipe(void **state) {
    (void)state;
    FILE *f = tmpfile();
    int saved = dup(2);
    qsa_progress p;
    dup2(fileno(f), 2);
    qsa_progress_begin(&p, "reading", "B", 100);
    qsa_progress_update(&p, 50);
    qsa_progress_end(&p);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    assert_int_equal(ftell(f), 0);
    fclose(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes), cmocka_unit_test(counts_and_times),
        cmocka_unit_test(wrapping), cmocka_unit_test(harmless),
        cmocka_unit_test(reading), cmocka_unit_test(utf8),
        cmocka_unit_test(interrupts), cmocka_unit_test(progress_is_silent_in_a_pipe),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
