/* Slabs: blocks are apart, aligned, whole, and none moves when more are taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "sys/slab.h"

enum { BLOCKS = 200 };

static size_t size_of(int i) { return (size_t)1 + (size_t)(i * 7919 % 1000) * 1000; }

static void test_blocks_are_apart(void **state) {
    (void)state;
    qsi_slabs s = {0};
    unsigned char *p[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        p[i] = qsi_slabs_take(&s, size_of(i));
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % QSI_ALIGN, 0);
        memset(p[i], i, size_of(i));
    }
    for (int i = 0; i < BLOCKS; i++) {
        assert_int_equal(p[i][0], i);
        assert_int_equal(p[i][size_of(i) - 1], i);
    }
    qsi_slabs_release(&s);
    assert_null(s.head);
}

static void test_large_and_impossible(void **state) {
    (void)state;
    qsi_slabs s = {0};
    size_t n = (size_t)100 << 20; /* more than a slab */
    char *small = qsi_slabs_take(&s, 64), *large = qsi_slabs_take(&s, n);
    assert_non_null(small);
    assert_non_null(large);
    large[0] = large[n - 1] = 1;
    assert_null(qsi_slabs_take(&s, SIZE_MAX));
    assert_null(qsi_slabs_take(&s, SIZE_MAX / 2));
    small[63] = 2;
    assert_non_null(qsi_slabs_take(&s, 0));
    qsi_slabs_release(&s);
    qsi_slabs_release(&s); /* empty */
}

/* A block smaller than a huge page shares one with the next. */
static void test_neighbours(void **state) {
    (void)state;
    qsi_slabs s = {0};
    char *a = qsi_slabs_take(&s, 1000), *b = qsi_slabs_take(&s, 1000);
    assert_ptr_equal(b, a + 1024);
    assert_int_equal((uintptr_t)a % ((size_t)2 << 20), 0);
    qsi_slabs_release(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_apart),
        cmocka_unit_test(test_large_and_impossible),
        cmocka_unit_test(test_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
