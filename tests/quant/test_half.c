/* Both 16-bit floats over every bit pattern, and rounding against exact arithmetic in double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "quant/quant.h"

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void every_f16_value(void **state) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qsi_f16_to_f32((uint16_t)h);
        int exp = (h >> 10) & 31, man = h & 0x3ff;
        double sign = h & 0x8000 ? -1.0 : 1.0;
        if (exp == 31 && man) {
            assert_true(isnan(f));
            assert_int_equal(qsi_f32_to_f16(f), h | 0x200);
            continue;
        }
        double want = exp == 31 ? INFINITY : exp ? ldexp(1024 + man, exp - 25) : ldexp(man, -24);
        assert_true((double)f == sign * want);
        assert_int_equal(signbit(f) != 0, h >> 15);
        assert_int_equal(qsi_f32_to_f16(f), h);
    }
}

/* Between neighbours a < b: just below the middle gives a, just above b, the middle the even one.
 */
static void f16_rounds_to_nearest_even(void **state) {
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double a = qsi_f16_to_f32((uint16_t)h);
        double b = h == 0x7bff ? 65536.0 : qsi_f16_to_f32((uint16_t)(h + 1));
        float mid = (float)((a + b) / 2);
        uint32_t even = h & 1 ? h + 1 : h;
        assert_int_equal(qsi_f32_to_f16(mid), even);
        assert_int_equal(qsi_f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(qsi_f32_to_f16(nextafterf(mid, 1e9f)), h + 1);
        assert_int_equal(qsi_f32_to_f16(-mid), even | 0x8000);
    }
    assert_int_equal(qsi_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(qsi_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(qsi_f32_to_f16(1e-40f), 0);
}

static void every_bf16_value(void **state) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qsi_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), h << 16);
        assert_int_equal(qsi_f32_to_bf16(f), isnan(f) ? h | 64 : h);
    }
}

static void bf16_rounds_to_nearest_even(void **state) {
    for (uint32_t h = 0; h < 0x7f80; h++) {
        uint32_t mid = h << 16 | 0x8000;
        float f[3];
        for (int i = 0; i < 3; i++) {
            uint32_t u = mid - 1 + (uint32_t)i;
            memcpy(&f[i], &u, sizeof u);
        }
        assert_int_equal(qsi_f32_to_bf16(f[0]), h);
        assert_int_equal(qsi_f32_to_bf16(f[1]), h & 1 ? h + 1 : h);
        assert_int_equal(qsi_f32_to_bf16(f[2]), h + 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_value),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(every_bf16_value),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
