/* Memory in use and available. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys/file.h"

static void available(void **state) {
    (void)state;
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t n = qsi_mem_available();
    assert_true(n > 0 && n <= total);
}

static void resident_follows_use(void **state) {
    (void)state;
    enum { N = 32 << 20 };
    uint64_t before = qsi_mem_resident();
    assert_true(before > 100000);
    volatile char *p = malloc(N);
    assert_non_null((void *)p);
    for (size_t i = 0; i < N; i += 512) p[i] = 1;
    uint64_t after = qsi_mem_resident();
    free((void *)p);
    assert_true(after >= before + N - (N >> 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available),
        cmocka_unit_test(resident_follows_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
