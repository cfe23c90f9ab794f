/* Streams: every byte in order, wakes exactly once, a slow reader and one that has gone, both ends at
 * once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "serve/stream.h"
#include "sys/futex.h"
#include "sys/thread.h"

static int n_woken;
static void count(void *user) {
    assert_ptr_equal(user, &n_woken);
    n_woken++;
}

static void in_order(void **state) {
    qsi_stream *s;
    char buf[8];
    bool end;
    n_woken = 0;
    assert_int_equal(qsi_stream_create(&s, 10, NULL), QS_OK);
    assert_int_equal(qsi_stream_read(s, buf, sizeof buf, &end, count, &n_woken), 0);
    assert_false(end);
    assert_int_equal(qsi_stream_write(s, "", 0), QS_OK); /* nothing: nobody is woken */
    assert_int_equal(n_woken, 0);
    assert_int_equal(qsi_stream_write(s, "abcdef", 6), QS_OK);
    assert_int_equal(qsi_stream_write(s, "ghij", 4), QS_OK);
    assert_int_equal(n_woken, 1);
    assert_int_equal(qsi_stream_read(s, buf, 4, &end, count, &n_woken), 4);
    assert_memory_equal(buf, "abcd", 4);
    assert_int_equal(qsi_stream_write(s, "klmn", 4), QS_OK); /* just fits */
    assert_int_equal(n_woken, 1);                            /* the reader did not wait */
    qsi_stream_end(s);
    assert_int_equal(qsi_stream_read(s, buf, 8, &end, count, &n_woken), 8);
    assert_memory_equal(buf, "efghijkl", 8);
    assert_false(end);
    assert_int_equal(qsi_stream_read(s, buf, 8, &end, count, &n_woken), 2);
    assert_memory_equal(buf, "mn", 2);
    assert_true(end);
    assert_false(qsi_stream_broken(s));
    qsi_stream_leave(s);
    assert_int_equal(n_woken, 1);
}

static void ends_wake(void **state) {
    qsi_stream *s;
    char c;
    bool end;
    n_woken = 0;
    assert_int_equal(qsi_stream_create(&s, 10, NULL), QS_OK);
    assert_int_equal(qsi_stream_read(s, &c, 1, &end, count, &n_woken), 0);
    qsi_stream_end(s);
    assert_int_equal(n_woken, 1);
    assert_int_equal(qsi_stream_read(s, &c, 1, &end, count, &n_woken), 0);
    assert_true(end);
    qsi_stream_leave(s);
    assert_int_equal(n_woken, 1);
}

static void slow_reader(void **state) {
    qsi_stream *s;
    char c;
    bool end;
    n_woken = 0;
    assert_int_equal(qsi_stream_create(&s, 4, NULL), QS_OK);
    assert_int_equal(qsi_stream_write(s, "abc", 3), QS_OK);
    assert_int_equal(qsi_stream_write(s, "de", 2), QS_E_LIMIT);
    assert_int_equal(qsi_stream_write(s, "d", 1), QS_E_LIMIT); /* for good */
    assert_int_equal(qsi_stream_read(s, &c, 1, &end, count, &n_woken), 0);
    assert_true(end);
    assert_true(qsi_stream_broken(s));
    qsi_stream_leave(s);
    qsi_stream_end(s);
}

static void reader_leaves(void **state) {
    qsi_stream *s;
    char c;
    bool end;
    n_woken = 0;
    assert_int_equal(qsi_stream_create(&s, 4, NULL), QS_OK);
    assert_int_equal(qsi_stream_read(s, &c, 1, &end, count, &n_woken), 0);
    qsi_stream_leave(s);
    assert_int_equal(qsi_stream_write(s, "a", 1), QS_E_CANCELLED);
    qsi_stream_end(s);
    assert_int_equal(n_woken, 0);
}

static void no_memory(void **state) {
#ifdef QS_DEBUG
    qsi_stream *s;
    for (int i = 1; i < 3; i++) {
        qsi_mem_fail_after(i);
        assert_int_equal(qsi_stream_create(&s, 4, NULL), QS_E_NOMEM);
    }
    qsi_mem_fail_after(-1);
    assert_int_equal(qsi_stream_create(&s, 4, NULL), QS_OK);
    qsi_mem_fail_after(1);
    assert_int_equal(qsi_stream_write(s, "a", 1), QS_E_NOMEM);
    qsi_mem_fail_after(-1);
    assert_true(qsi_stream_broken(s));
    qsi_stream_end(s);
    qsi_stream_leave(s);
#endif
}

/* Both ends at once: the reader sleeps until it is woken, and gets every byte. */
enum { N_BYTES = 200000, MAX_BYTES = 1 << 20 };
static _Atomic uint32_t woken;
static void wake_thread(void *user) {
    atomic_store(&woken, 1);
    qsi_futex_wake_all(&woken);
}
static void writer(void *arg) {
    qsi_stream *s = arg;
    unsigned char piece[97];
    size_t at = 0;
    for (size_t n = 1; at < N_BYTES; n = n % 97 + 1) {
        if (n > N_BYTES - at) n = N_BYTES - at;
        for (size_t i = 0; i < n; i++) piece[i] = (unsigned char)((at + i) * 7 % 251);
        if (qsi_stream_write(s, piece, n) != QS_OK) abort();
        at += n;
    }
    qsi_stream_end(s);
}

static void both_ends(void **state) {
    qsi_stream *s;
    qsi_thread *t;
    unsigned char buf[61];
    bool end = false;
    size_t at = 0;
    assert_int_equal(qsi_stream_create(&s, MAX_BYTES, NULL), QS_OK);
    assert_int_equal(qsi_thread_start(&t, writer, s, NULL), QS_OK);
    while (!end) {
        atomic_store(&woken, 0);
        const size_t n = qsi_stream_read(s, buf, sizeof buf, &end, wake_thread, NULL);
        for (size_t i = 0; i < n; i++, at++) assert_int_equal(buf[i], at * 7 % 251);
        while (n == 0 && !end && atomic_load(&woken) == 0) qsi_futex_wait(&woken, 0);
    }
    assert_int_equal(at, N_BYTES);
    qsi_stream_leave(s);
    qsi_thread_join(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),      cmocka_unit_test(ends_wake), cmocka_unit_test(slow_reader),
        cmocka_unit_test(reader_leaves), cmocka_unit_test(no_memory), cmocka_unit_test(both_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
