/* Monotonic time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <time.h>

#include "sys/file.h"

static void moves_forward(void **state) {
    (void)state;
    int64_t last = qsi_now_ns();
    for (int i = 0; i < 10000; i++) {
        int64_t now = qsi_now_ns();
        assert_true(now >= last);
        last = now;
    }
    struct timespec nap = {0, 20000000};
    int64_t before = qsi_now_ns();
    while (nanosleep(&nap, &nap) != 0) {}
    int64_t spent = qsi_now_ns() - before;
    assert_true(spent >= 20000000 && spent < INT64_C(60000000000));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(moves_forward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
