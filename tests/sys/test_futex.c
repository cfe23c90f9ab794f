/* Sleeping on a word: no sleep when the value has changed, a wake-up reaches every sleeper. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "sys/futex.h"

static _Atomic uint32_t word;
static atomic_int woken;

static void *sleeper(void *arg) {
    (void)arg;
    while (atomic_load(&word) == 0) qsi_futex_wait(&word, 0);
    atomic_fetch_add(&woken, 1);
    return NULL;
}

static void wait_and_wake(void **state) {
    (void)state;
    enum { N = 4 };
    pthread_t t[N];
    atomic_store(&word, 5);
    qsi_futex_wait(&word, 4); /* returns at once */
    qsi_futex_wake_all(&word);
    qsi_cpu_relax();
    atomic_store(&word, 0);
    for (int i = 0; i < N; i++) assert_int_equal(pthread_create(&t[i], NULL, sleeper, NULL), 0);
    assert_int_equal(atomic_load(&woken), 0);
    atomic_store(&word, 1);
    qsi_futex_wake_all(&word);
    for (int i = 0; i < N; i++) pthread_join(t[i], NULL);
    assert_int_equal(atomic_load(&woken), N);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(wait_and_wake)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
