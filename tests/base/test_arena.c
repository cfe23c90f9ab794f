/* Arena: alignment, separate pieces, large pieces, overflow, failures. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"

static void pieces_do_not_overlap(void **state) {
    (void)state;
    enum { N = 2000 };
    static unsigned char *p[N];
    static size_t size[N];
    qsi_arena a;
    qsi_arena_init(&a);
    for (size_t i = 0; i < N; i++) {
        size[i] = i * 37 % 700;
        p[i] = qsi_arena_alloc(&a, size[i], 1);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % QSI_ALIGN, 0);
        memset(p[i], (int)(i & 0xFF), size[i]);
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; k < size[i]; k++) assert_int_equal(p[i][k], i & 0xFF);
    }
    assert_true(a.used <= a.total);
    qsi_arena_release(&a);
    assert_null(a.head);
    assert_int_equal(a.total, 0);
}

static void large_pieces(void **state) {
    (void)state;
    qsi_arena a;
    qsi_arena_init(&a);
    char *small = qsi_arena_alloc(&a, 10, 1);
    char *large = qsi_arena_alloc(&a, 3 << 20, 1);
    char *after = qsi_arena_calloc(&a, 100, 4);
    assert_non_null(small);
    assert_non_null(large);
    memset(large, 1, 3 << 20);
    for (int i = 0; i < 400; i++) assert_int_equal(after[i], 0);
    qsi_arena_release(&a);
    qsi_arena_release(&a); /* released twice: nothing to do */
}

static void overflow(void **state) {
    (void)state;
    qsi_arena a;
    qsi_arena_init(&a);
    assert_null(qsi_arena_alloc(&a, SIZE_MAX / 2, 3));
    assert_null(qsi_arena_alloc(&a, SIZE_MAX - 3, 1));
    assert_null(qsi_arena_alloc(&a, SIZE_MAX - 200, 1));
    assert_null(qsi_arena_calloc(&a, SIZE_MAX, SIZE_MAX));
    assert_null(qsi_arena_strndup(&a, "x", SIZE_MAX));
    assert_non_null(qsi_arena_alloc(&a, 0, 0));
    qsi_arena_release(&a);
}

static void strings(void **state) {
    (void)state;
    qsi_arena a;
    qsi_arena_init(&a);
    assert_string_equal(qsi_arena_strndup(&a, "床前明月光", 6), "床前");
    assert_string_equal(qsi_arena_strndup(&a, "", 0), "");
    qsi_arena_release(&a);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    for (int n = 1; n <= 7; n++) { /* 4, 8, ... 512 KiB: eight chunks */
        qsi_arena a;
        qsi_arena_init(&a);
        qsi_mem_fail_after(n);
        int nulls = 0;
        for (int i = 0; i < 200; i++) {
            char *p = qsi_arena_alloc(&a, 3000, 1);
            if (p == NULL) nulls++;
            else memset(p, 1, 3000);
        }
        assert_int_equal(nulls, 1); /* the arena works on after a failure */
        qsi_mem_fail_after(-1);
        qsi_arena_release(&a);
    }
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_do_not_overlap),
        cmocka_unit_test(large_pieces),
        cmocka_unit_test(overflow),
        cmocka_unit_test(strings),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
