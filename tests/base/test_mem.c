/* Checked arithmetic, allocation, growing, injected failures, the step guard. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"

static void arithmetic(void **state) {
    (void)state;
    size_t r = 5;
    int64_t s = 5;
    assert_true(qsi_add_size(SIZE_MAX - 1, 1, &r));
    assert_true(r == SIZE_MAX);
    r = 5;
    assert_false(qsi_add_size(SIZE_MAX, 1, &r));
    assert_int_equal(r, 5);
    assert_true(qsi_mul_size((size_t)1 << 31, (size_t)1 << 32, &r));
    assert_true(r == (size_t)1 << 63);
    r = 5;
    assert_false(qsi_mul_size((size_t)1 << 32, (size_t)1 << 32, &r));
    assert_int_equal(r, 5);
    assert_true(qsi_mul_size(0, SIZE_MAX, &r));
    assert_int_equal(r, 0);
    assert_true(qsi_mul_i64(INT64_MIN, 1, &s));
    assert_true(s == INT64_MIN);
    s = 5;
    assert_false(qsi_mul_i64(INT64_MIN, -1, &s));
    assert_false(qsi_mul_i64((int64_t)1 << 40, (int64_t)1 << 23, &s));
    assert_int_equal(s, 5);
    assert_true(qsi_mul_i64(-3, 7, &s));
    assert_int_equal(s, -21);
}

static void allocation(void **state) {
    (void)state;
    for (size_t n = 0; n < 300; n += 7) {
        unsigned char *p = qsi_alloc(n, 1), *z = qsi_calloc(n, 3);
        assert_non_null(p);
        assert_non_null(z);
        assert_int_equal((uintptr_t)p % QSI_ALIGN, 0);
        assert_int_equal((uintptr_t)z % QSI_ALIGN, 0);
        memset(p, 0xAA, n);
        for (size_t i = 0; i < 3 * n; i++) assert_int_equal(z[i], 0);
        qsi_free(p);
        qsi_free(z);
    }
    qsi_free(NULL);
    assert_null(qsi_alloc(SIZE_MAX / 2, 3));
    assert_null(qsi_calloc(SIZE_MAX, 2));
    assert_null(qsi_alloc(SIZE_MAX, 1));
    assert_null(qsi_alloc((size_t)PTRDIFF_MAX + 1, 1));
}

static void reallocation(void **state) {
    (void)state;
    char *p = qsi_realloc(NULL, 0, 4, 1);
    assert_non_null(p);
    memcpy(p, "abc", 4);
    p = qsi_realloc(p, 4, 100, 2);
    assert_non_null(p);
    assert_string_equal(p, "abc");
    assert_int_equal((uintptr_t)p % QSI_ALIGN, 0);
    char *same = p;
    assert_null(qsi_realloc(p, 200, SIZE_MAX, 2));
    assert_string_equal(same, "abc");
    p = qsi_realloc(p, 200, 2, 1);
    assert_memory_equal(p, "ab", 2);
    qsi_free(p);
    char *copy = qsi_strdup("诗");
    assert_string_equal(copy, "诗");
    qsi_free(copy);
}

static void growing(void **state) {
    (void)state;
    void *p = NULL;
    size_t cap = 0, moves = 0;
    for (size_t n = 1; n <= 10000; n++) {
        size_t before = cap;
        assert_int_equal(qsi_grow(&p, &cap, n, sizeof(uint32_t)), QS_OK);
        assert_true(cap >= n);
        moves += cap != before;
        ((uint32_t *)p)[n - 1] = (uint32_t)n;
    }
    for (size_t n = 1; n <= 10000; n++) assert_int_equal(((uint32_t *)p)[n - 1], n);
    assert_true(moves < 30); /* grows by a factor, not by a step */
    void *old = p;
    size_t old_cap = cap;
    assert_int_equal(qsi_grow(&p, &cap, SIZE_MAX / 2, sizeof(uint32_t)), QS_E_NOMEM);
    assert_ptr_equal(p, old);
    assert_int_equal(cap, old_cap);
    qsi_free(p);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    for (int n = 1; n <= 5; n++) {
        qsi_mem_fail_after(n);
        for (int i = 1; i <= 10; i++) {
            void *p = qsi_alloc(8, 1);
            if (i == n) assert_null(p);
            else assert_non_null(p);
            qsi_free(p);
        }
    }
    qsi_mem_fail_after(1);
    qsi_mem_fail_after(-1);
    void *p = qsi_calloc(8, 1);
    assert_non_null(p);
    qsi_mem_fail_after(1);
    assert_null(qsi_realloc(p, 8, 16, 1)); /* p stays valid */
    assert_int_equal(*(char *)p, 0);
    qsi_free(p);
    qsi_mem_fail_after(1);
    assert_null(qsi_strdup("x"));
}

static int caught;
static void count_failure(const char *file, int line, const char *expr) {
    (void)file;
    (void)line;
    (void)expr;
    caught++;
}

static void guard(void **state) {
    (void)state;
    qsi_fail_set(count_failure);
    qsi_mem_guard_begin();
    qsi_free(qsi_alloc(1, 1));
    assert_int_equal(caught, 1);
    qsi_mem_guard_begin(); /* nests */
    qsi_mem_guard_end();
    qsi_free(qsi_calloc(1, 1));
    assert_int_equal(caught, 2);
    qsi_mem_guard_end();
    qsi_free(qsi_alloc(1, 1));
    assert_int_equal(caught, 2);
    qsi_fail_set(NULL);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arithmetic),
        cmocka_unit_test(allocation),
        cmocka_unit_test(reallocation),
        cmocka_unit_test(growing),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
        cmocka_unit_test(guard),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
