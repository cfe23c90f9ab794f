/* Reading past the page cache gives a file's bytes wherever a piece begins and ends, and says when the
 * file is shorter or the disk fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/direct.h"

enum { SIZE = 100003 };

static uint8_t byte_at(size_t i) { return (uint8_t)(i * 31 + i / 251); }

static int make_file(char *path) {
    uint8_t *x = malloc(SIZE);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < SIZE; i++) x[i] = byte_at(i);
    assert_int_equal(write(fd, x, SIZE), SIZE);
    assert_int_equal(fsync(fd), 0);
    free(x);
    return fd;
}

static void read_pieces(const char *folder) {
    char path[128];
    qs_err err;
    qsi_direct d;
    void *buf = NULL;
    snprintf(path, sizeof path, "%s/qsi_test_direct_XXXXXX", folder);
    if (access(folder, W_OK) != 0) return;
    int fd = make_file(path);
    unlink(path); /* the open file counts, not the name */
    assert_int_equal(qsi_direct_open(&d, fd, "some file", &err), QS_OK);
    assert_int_equal(posix_memalign(&buf, QSI_DIRECT_ALIGN, qsi_direct_room(SIZE)), 0);
    const struct { size_t off, n; } pieces[] = {{0, 1}, {0, 4096}, {1, 4096}, {4095, 2}, {5000, 70000},
                                                {8192, 8192}, {0, SIZE}, {SIZE - 1, 1}, {99000, 1003}};
    for (size_t i = 0; i < QSI_COUNT(pieces); i++) {
        const uint8_t *at = NULL;
        size_t moved = 0;
        if (qsi_direct_read(&d, pieces[i].off, pieces[i].n, buf, &at, &moved, &err) != QS_OK)
            fail_msg("%s", err.text);
        assert_true(moved >= pieces[i].n && moved <= qsi_direct_room(pieces[i].n));
        for (size_t k = 0; k < pieces[i].n; k++)
            if (at[k] != byte_at(pieces[i].off + k)) fail_msg("byte %zu", pieces[i].off + k);
    }
    const uint8_t *at;
    size_t moved;
    assert_int_equal(qsi_direct_read(&d, SIZE - 1, 2, buf, &at, &moved, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "'some file' ends at byte 100003"));
    double rate = 0;
    assert_int_equal(qsi_direct_rate(&d, 0, 1 << 20, 3, 8192, &rate, &err), QS_OK);
    assert_true(rate > 0);
    assert_int_equal(ftruncate(fd, 50000), 0);
    assert_int_equal(qsi_direct_read(&d, 49000, 2000, buf, &at, &moved, &err), QS_E_IO);
#ifdef QS_DEBUG
    qsi_direct_fail_after(2);
    assert_int_equal(qsi_direct_read(&d, 0, 10, buf, &at, &moved, &err), QS_OK);
    assert_int_equal(qsi_direct_read(&d, 0, 10, buf, &at, &moved, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "cannot read 'some file' at byte 0"));
    assert_int_equal(qsi_direct_read(&d, 0, 10, buf, &at, &moved, &err), QS_OK);
#endif
    free(buf);
    qsi_direct_close(&d);
    close(fd);
}

static void test_disk(void **state) {
    (void)state;
    read_pieces("/tmp");
}

/* A file system that cannot read directly. */
static void test_memory(void **state) {
    (void)state;
    read_pieces("/dev/shm");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
