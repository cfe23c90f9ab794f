/* Cursor: values, bounds, the first failure sticks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"

static void values(void **state) {
    (void)state;
    const uint8_t data[] = {0xFE, 0x34, 0x12, 0x78, 0x56, 0x34, 0x92, 0xEF, 0xCD, 0xAB, 0x89, 0x67, 0x45,
                            0x23, 0x81, 0x00, 0x00, 0xC0, 0xBF, 0, 0, 0, 0, 0, 0, 0x04, 0x40, 'o', 'k'};
    qsi_cursor c;
    qsi_cursor_init(&c, data, sizeof(data));
    assert_int_equal(qsi_cursor_u8(&c), 0xFE);
    assert_int_equal(qsi_cursor_u16(&c), 0x1234);
    assert_int_equal(qsi_cursor_u32(&c), 0x92345678u);
    assert_true(qsi_cursor_u64(&c) == UINT64_C(0x8123456789ABCDEF));
    assert_true(qsi_cursor_f32(&c) == -1.5f);
    assert_true(qsi_cursor_f64(&c) == 2.5);
    assert_int_equal(qsi_cursor_left(&c), 2);
    assert_memory_equal(qsi_cursor_bytes(&c, 2), "ok", 2);
    assert_int_equal(qsi_cursor_left(&c), 0);
    assert_non_null(qsi_cursor_bytes(&c, 0));
    assert_false(c.failed);
    assert_int_equal(qsi_cursor_u8(&c), 0);
    assert_true(c.failed);
    assert_int_equal(c.fail_pos, sizeof(data));
}

/* Every width at every number of bytes left: works with enough, fails with less and moves nothing.
 * The heap block has exactly that size, so that a sanitizer sees a read past it. */
static void bounds(void **state) {
    (void)state;
    const size_t width[] = {1, 2, 4, 8, 4, 8};
    for (size_t kind = 0; kind < QSI_COUNT(width); kind++) {
        for (size_t size = 0; size <= 20; size++) {
            for (size_t pos = 0; pos <= size; pos++) {
                uint8_t *data = malloc(size > 0 ? size : 1);
                memset(data, 0xFF, size);
                qsi_cursor c;
                qsi_cursor_init(&c, data, size);
                assert_non_null(qsi_cursor_bytes(&c, pos));
                switch (kind) {
                case 0: qsi_cursor_u8(&c); break;
                case 1: qsi_cursor_u16(&c); break;
                case 2: qsi_cursor_u32(&c); break;
                case 3: qsi_cursor_u64(&c); break;
                case 4: qsi_cursor_f32(&c); break;
                default: qsi_cursor_f64(&c); break;
                }
                bool fits = width[kind] <= size - pos;
                assert_int_equal(c.failed, !fits);
                assert_int_equal(c.pos, fits ? pos + width[kind] : pos);
                if (!fits) assert_int_equal(c.fail_pos, pos);
                free(data);
            }
        }
    }
}

static void failure_sticks(void **state) {
    (void)state;
    const uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    qsi_cursor c;
    qsi_cursor_init(&c, data, sizeof(data));
    assert_int_equal(qsi_cursor_u8(&c), 1);
    assert_null(qsi_cursor_bytes(&c, UINT64_MAX)); /* no wrap-around */
    assert_int_equal(c.fail_pos, 1);
    assert_int_equal(qsi_cursor_u8(&c), 0); /* bytes are there, the cursor is not */
    assert_int_equal(qsi_cursor_u64(&c), 0);
    assert_true(qsi_cursor_f64(&c) == 0.0);
    assert_null(qsi_cursor_bytes(&c, 0));
    assert_int_equal(qsi_cursor_left(&c), 0);
    assert_int_equal(c.fail_pos, 1);
    qsi_cursor_init(&c, data, sizeof(data));
    assert_null(qsi_cursor_bytes(&c, 9));
    qsi_cursor_init(&c, NULL, 0);
    assert_non_null(qsi_cursor_bytes(&c, 0)); /* nothing asked, nothing missing */
    assert_int_equal(qsi_cursor_u32(&c), 0);
    assert_true(c.failed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(bounds),
        cmocka_unit_test(failure_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
