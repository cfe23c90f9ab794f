/* Memory in use and available. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/mem.h"
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

/* Allowed or not: never silently neither. */
static void locking(void **state) {
    qs_err err = {0};
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &r), 0);
    uint64_t limit = qsi_mem_lock_limit();
    if (r.rlim_cur == RLIM_INFINITY) assert_true(limit == UINT64_MAX);
    else assert_true(limit == (uint64_t)r.rlim_cur);
    qs_status st = qsi_mem_lock(&err);
    if (st != QS_OK) {
        assert_int_equal(st, QS_E_LIMIT);
        assert_non_null(strstr(err.text, "RLIMIT_MEMLOCK"));
    }
    qsi_mem_unlock();
}

/* A hint: the memory is there and keeps what is written, whatever it covers. */
static void huge(void **state) {
    size_t n = (size_t)8 << 20;
    char *p = qsi_calloc(n, 1);
    assert_non_null(p);
    qsi_mem_huge(p + 100, n - 200);
    qsi_mem_huge(p + 100, 0);
    memset(p, 7, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 7);
    qsi_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available),
        cmocka_unit_test(resident_follows_use),
        cmocka_unit_test(locking),
        cmocka_unit_test(huge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
