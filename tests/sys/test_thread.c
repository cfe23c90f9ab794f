/* sys/thread: a thread runs and ends, monitors exclude, wake and keep deadlines. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "sys/file.h"
#include "sys/thread.h"

typedef struct shared {
    qsi_monitor *m;
    qsi_thread *self;
    int64_t count;
    bool go, is_self;
} shared;

static void count_up(void *arg) {
    shared *s = arg;
    qsi_monitor_lock(s->m);
    while (!s->go) qsi_monitor_wait(s->m, 0);
    qsi_monitor_unlock(s->m);
    for (int i = 0; i < 20000; i++) {
        qsi_monitor_lock(s->m);
        s->count++;
        qsi_monitor_unlock(s->m);
    }
}

static void test_exclusion(void **state) {
    (void)state;
    shared s = { 0 };
    qsi_thread *t[3] = { 0 };
    assert_int_equal(qsi_monitor_create(&s.m, NULL), QS_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(qsi_thread_start(&t[i], count_up, &s, NULL), QS_OK);
    qsi_monitor_lock(s.m);
    assert_int_equal(s.count, 0);
    s.go = true;
    qsi_monitor_wake(s.m);
    qsi_monitor_unlock(s.m);
    for (int i = 0; i < 3; i++) qsi_thread_join(&t[i]);
    assert_int_equal(s.count, 60000);
    assert_null(t[0]);
    qsi_thread_join(&t[0]);
    qsi_monitor_free(s.m);
}

static void look(void *arg) {
    shared *s = arg;
    s->is_self = qsi_thread_is_self(s->self);
}

static void test_deadline(void **state) {
    (void)state;
    shared s = { 0 };
    assert_int_equal(qsi_monitor_create(&s.m, NULL), QS_OK);
    int64_t end = qsi_now_ns() + 30000000;
    qsi_monitor_lock(s.m);
    while (qsi_now_ns() < end) qsi_monitor_wait(s.m, end);
    qsi_monitor_unlock(s.m);
    assert_int_equal(qsi_thread_start(&s.self, look, &s, NULL), QS_OK);
    assert_false(qsi_thread_is_self(s.self));
    qsi_thread_join(&s.self);
    assert_true(s.is_self);
    qsi_monitor_free(s.m);
    qsi_monitor_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_exclusion),
                                        cmocka_unit_test(test_deadline) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
