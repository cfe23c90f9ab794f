/* Journals: only pieces whose bytes are what was marked count, up to the first that is not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>

#include "base/mem.h"
#include "base/hash.h"
#include "base/str.h"
#include "sys/marks.h"
#include "tmpdir.h"

#define PIECES 5
static const qsi_origin origin = {11, 22};

static int open_file(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    assert_true(fd >= 0);
    return fd;
}

/* "data" with PIECES pieces of growing length, the last one longer than a chunk of hashing, and its
 * journal; returns the data's descriptor. */
static int write_all(const char *path, size_t ends[PIECES]) {
    qsi_marks j;
    qsi_marks_state state;
    int fd = open_file(tmp_path("data"));
    size_t at = 0;
    unlink(path);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(qsi_marks_open(&j, path, true, fd, origin, &state, NULL), QS_OK);
    assert_int_equal(state, QSI_MARKS_NONE);
    assert_int_equal(qsi_marks_begin(&j, path, origin, NULL), QS_OK);
    for (size_t i = 0; i < PIECES; i++) {
        size_t n = i + 1 < PIECES ? 1 + 1000 * i : ((size_t)1 << 20) + 77;
        char *p = qsi_calloc(n, 1);
        for (size_t k = 0; k < n; k++) p[k] = (char)(k * 7 + i);
        assert_int_equal(pwrite(fd, p, n, (off_t)at), n);
        ends[i] = at += n;
        qsi_free(p);
        assert_int_equal(qsi_marks_add(&j, path, fd, at, NULL), QS_OK);
    }
    qsi_marks_close(&j);
    return fd;
}

static void good_marks(const char *path, int fd, qsi_origin o, qsi_marks_state want, size_t marks,
                       uint64_t end) {
    qsi_marks j;
    qsi_marks_state state;
    assert_int_equal(qsi_marks_open(&j, path, false, fd, o, &state, NULL), QS_OK);
    assert_int_equal(state, want);
    assert_int_equal(j.marks, marks);
    assert_int_equal(j.end, end);
    qsi_marks_close(&j);
}

static void flip(int fd, off_t at) {
    uint8_t b = 0;
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
}

static void intact(void **state) {
    (void)state;
    size_t ends[PIECES];
    const char *path = tmp_path("journal");
    int fd = write_all(path, ends);
    good_marks(path, fd, origin, QSI_MARKS_FITS, PIECES, ends[PIECES - 1]);
    good_marks(path, fd, (qsi_origin){12, 22}, QSI_MARKS_OTHER_SOURCE, 0, 0);
    good_marks(path, fd, (qsi_origin){11, 23}, QSI_MARKS_OTHER_OPTIONS, 0, 0);
    close(fd);
}

/* Any byte of the data that changes, or is missing, takes its piece and all behind it. */
static void damaged_data(void **state) {
    (void)state;
    size_t ends[PIECES];
    const char *path = tmp_path("journal");
    for (size_t i = 0; i < PIECES; i++) {
        int fd = write_all(path, ends);
        uint64_t end = i > 0 ? ends[i - 1] : 0;
        flip(fd, (off_t)ends[i] - 1);
        good_marks(path, fd, origin, QSI_MARKS_FITS, i, end);
        flip(fd, (off_t)ends[i] - 1);
        good_marks(path, fd, origin, QSI_MARKS_FITS, PIECES, ends[PIECES - 1]);
        assert_int_equal(ftruncate(fd, (off_t)ends[i] - 1), 0);
        good_marks(path, fd, origin, QSI_MARKS_FITS, i, end);
        close(fd);
    }
}

/* Every byte of the journal itself: changed, or the last one that is left. */
static void damaged_journal(void **state) {
    (void)state;
    enum { HEAD = 32, MARK = 24 };
    size_t ends[PIECES];
    const char *path = tmp_path("journal");
    int fd = write_all(path, ends), jd = open_file(path);
    for (off_t at = 0; at < HEAD + PIECES * MARK; at++) {
        size_t i = at < HEAD ? 0 : (size_t)(at - HEAD) / MARK;
        flip(jd, at);
        if (at < HEAD) good_marks(path, fd, origin, QSI_MARKS_NONE, 0, 0);
        else good_marks(path, fd, origin, QSI_MARKS_FITS, i, i > 0 ? ends[i - 1] : 0);
        flip(jd, at);
    }
    for (off_t n = HEAD + PIECES * MARK; n-- > 0;) {
        assert_int_equal(ftruncate(jd, n), 0);
        size_t i = n < HEAD ? 0 : (size_t)(n - HEAD) / MARK;
        good_marks(path, fd, origin, n < HEAD ? QSI_MARKS_NONE : QSI_MARKS_FITS, i,
                   i > 0 ? ends[i - 1] : 0);
    }
    close(jd);
    close(fd);
}

/* Marks behind a bad one are forgotten when the journal begins again. */
static void goes_on_behind_the_good_ones(void **state) {
    (void)state;
    size_t ends[PIECES];
    const char *path = tmp_path("journal");
    int fd = write_all(path, ends);
    qsi_marks j;
    qsi_marks_state found;
    flip(fd, (off_t)ends[2] - 1);
    assert_int_equal(qsi_marks_open(&j, path, true, fd, origin, &found, NULL), QS_OK);
    assert_int_equal(j.marks, 2);
    assert_int_equal(qsi_marks_begin(&j, path, origin, NULL), QS_OK);
    assert_int_equal(qsi_marks_add(&j, path, fd, ends[2], NULL), QS_OK);
    qsi_marks_close(&j);
    good_marks(path, fd, origin, QSI_MARKS_FITS, 3, ends[2]);
    close(fd);
}

static void missing(void **state) {
    (void)state;
    qsi_marks j;
    qsi_marks_state found;
    qs_err err = {0};
    assert_int_equal(qsi_marks_open(&j, tmp_path("none"), false, -1, origin, &found, &err),
                     QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "none"));
    qsi_marks_close(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intact),
        cmocka_unit_test(damaged_data),
        cmocka_unit_test(damaged_journal),
        cmocka_unit_test(goes_on_behind_the_good_ones),
        cmocka_unit_test(missing),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
