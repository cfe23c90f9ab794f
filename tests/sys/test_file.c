/* Mappings and whole-file reads: contents, limits, things that are no files, failures. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "sys/file.h"
#include "tmpdir.h"

static void map_contents(void **state) {
    (void)state;
    enum { N = 300000 };
    static uint8_t data[N];
    for (int i = 0; i < N; i++) data[i] = (uint8_t)(i * 31 >> 3);
    const char *path = tmp_path("数据.bin");
    tmp_write(path, data, N);
    qsi_map m;
    qs_err err;
    assert_int_equal(qsi_map_open(&m, path, &err), QS_OK);
    assert_int_equal(m.size, N);
    assert_memory_equal(m.data, data, N);
    qsi_map_will_need(&m, 0, SIZE_MAX);
    qsi_map_will_need(&m, N, 1);
    qsi_map_will_need(&m, N - 1, SIZE_MAX);
    qsi_map_drop(&m, 5000, 100);
    qsi_map_drop(&m, 1, SIZE_MAX);
    qsi_map_drop(&m, 0, N);
    assert_memory_equal(m.data, data, N);
    qsi_map_close(&m);
    assert_null(m.data);
    qsi_map_close(&m); /* closed twice: nothing to do */
}

static void drop_gives_pages_back(void **state) {
    (void)state;
    enum { N = 32 << 20 };
    const char *path = tmp_path("big");
    uint8_t *data = malloc(N);
    memset(data, 7, N);
    tmp_write(path, data, N);
    free(data);
    qsi_map m;
    assert_int_equal(qsi_map_open(&m, path, NULL), QS_OK);
    unsigned sum = 0;
    for (size_t i = 0; i < N; i += 512) sum += m.data[i];
    assert_int_equal(sum, 7 * (N / 512));
    uint64_t full = qsi_mem_resident();
    qsi_map_drop(&m, 0, N);
    uint64_t less = qsi_mem_resident();
    assert_true(full >= less + N / 2);
    qsi_map_close(&m);
    unlink(path);
}

static void map_of_an_empty_file(void **state) {
    (void)state;
    qsi_map m;
    const char *path = tmp_path("empty");
    tmp_write(path, "", 0);
    assert_int_equal(qsi_map_open(&m, path, NULL), QS_OK);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    qsi_map_drop(&m, 0, 100);
    qsi_map_will_need(&m, 0, 100);
    qsi_map_close(&m);
    qsi_map zero = {0};
    qsi_map_close(&zero); /* must not close descriptor 0 */
    assert_true(dup(0) >= 0);
}

static void map_refuses(void **state) {
    (void)state;
    qsi_map m = {.fd = -7};
    qs_err err;
    assert_int_equal(qsi_map_open(&m, tmp_path("missing.gguf"), &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "missing.gguf"));
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(qsi_map_open(&m, tmp_root, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "folder"));
    const char *fifo = tmp_path("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(qsi_map_open(&m, fifo, &err), QS_E_IO); /* and does not wait */
    assert_non_null(strstr(err.text, "regular"));
    unlink(fifo);
    assert_int_equal(qsi_map_open(&m, "/dev/zero", &err), QS_E_IO);
    assert_int_equal(m.fd, -7); /* written on success only */
}

static void read_whole(void **state) {
    (void)state;
    qsi_str s = {0};
    qs_err err;
    const char *path = tmp_path("text");
    tmp_write(path, "a\0春\n", 6);
    assert_int_equal(qsi_file_read(path, 6, &s, &err), QS_OK);
    assert_int_equal(s.len, 6);
    assert_memory_equal(s.data, "a\0春\n", 7);
    assert_int_equal(qsi_file_read(path, 5, &s, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "5 bytes"));
    assert_int_equal(s.len, 6); /* written on success only */
    tmp_write(path, "", 0);
    assert_int_equal(qsi_file_read(path, 0, &s, &err), QS_OK);
    assert_int_equal(s.len, 0);
    assert_string_equal(s.data, "");
    assert_int_equal(qsi_file_read(tmp_root, 10, &s, &err), QS_E_IO);
    assert_int_equal(qsi_file_read(tmp_path("missing"), 10, &s, &err), QS_E_NOTFOUND);
    assert_int_equal(qsi_file_read("/dev/zero", 1 << 20, &s, &err), QS_E_LIMIT);
    qsi_str_release(&s);
}

static void read_standard_input(void **state) {
    (void)state;
    int fds[2], keep = dup(0);
    qsi_str s = {0};
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "诗经", 6), 6);
    close(fds[1]);
    dup2(fds[0], 0);
    assert_int_equal(qsi_file_read("-", 100, &s, NULL), QS_OK);
    assert_string_equal(s.data, "诗经");
    dup2(keep, 0);
    close(keep);
    close(fds[0]);
    qsi_str_release(&s);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    enum { N = 500000 };
    const char *path = tmp_path("long");
    char *data = malloc(N);
    memset(data, 'x', N);
    tmp_write(path, data, N);
    free(data);
    for (int n = 1;; n++) {
        qsi_str s = {0};
        qs_err err = {0};
        qsi_mem_fail_after(n);
        qs_status st = qsi_file_read(path, SIZE_MAX, &s, &err);
        qsi_mem_fail_after(-1);
        assert_int_equal(s.len, st == QS_OK ? N : 0);
        qsi_str_release(&s);
        if (st == QS_OK) break;
        assert_int_equal(st, QS_E_NOMEM);
        assert_non_null(strstr(err.text, "long"));
    }
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_contents),
        cmocka_unit_test(drop_gives_pages_back),
        cmocka_unit_test(map_of_an_empty_file),
        cmocka_unit_test(map_refuses),
        cmocka_unit_test(read_whole),
        cmocka_unit_test(read_standard_input),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
