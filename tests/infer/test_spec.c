/* infer/spec: what is found again in a text, costs between what was measured, and when guesses
 * pay. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "infer/spec.h"

static void test_lookup(void **state) {
    int32_t out[8], n_match;
    (void)state;
    const int32_t ids[] = { 1, 2, 3, 4, 5, 6, 9, 2, 3, 7, 8, 1, 2, 3 };
    /* 1 2 3 is longer than the later 2 3 */
    assert_int_equal(qsi_spec_lookup(ids, 14, 4, out, &n_match), 4);
    assert_int_equal(n_match, 3);
    assert_int_equal(out[0], 4);
    assert_int_equal(out[3], 9);
    assert_int_equal(qsi_spec_lookup(ids, 13, 4, out, &n_match), 4);
    assert_int_equal(n_match, 2); /* 1 2 */
    assert_int_equal(out[0], 3);
    assert_int_equal(qsi_spec_lookup(ids, 11, 4, out, &n_match), 0); /* 7 8: new */
    assert_int_equal(qsi_spec_lookup(ids, 2, 4, out, &n_match), 0);
    assert_int_equal(qsi_spec_lookup(ids, 0, 4, out, &n_match), 0);
    const int32_t same[] = { 5, 5, 5, 5, 5 };
    assert_int_equal(qsi_spec_lookup(same, 5, 4, out, &n_match), 1); /* what is known of what follows */
    assert_int_equal(out[0], 5);
}

static void test_cost(void **state) {
    qsi_spec_cost c = { { 0 } };
    (void)state;
    assert_true(qsi_spec_cost_of(&c, 3) == 0);
    qsi_spec_cost_add(&c, 1, 0.1);
    assert_true(qsi_spec_cost_of(&c, 1) == 0.1);
    assert_true(qsi_spec_cost_of(&c, 3) > 0.1);
    qsi_spec_cost_add(&c, 5, 0.3);
    assert_true(qsi_spec_cost_of(&c, 3) > 0.199 && qsi_spec_cost_of(&c, 3) < 0.201);
    qsi_spec_cost_add(&c, 1000, 9); /* no such row */
    assert_true(qsi_spec_cost_of(&c, 1000) > 0.3);
}

/* Where rows are nearly free many guesses are fed; where they cost like steps, only sure ones;
 * where guesses never come, none after a while, and it is tried again ever more rarely. */
static void test_choice(void **state) {
    qsi_spec_cost cheap = { { 0 } }, dear = { { 0 } };
    qsi_spec_rate r;
    (void)state;
    for (int i = 1; i <= 9; i++) {
        qsi_spec_cost_add(&cheap, i, 0.1 + 0.001 * i);
        qsi_spec_cost_add(&dear, i, 0.1 * i);
    }
    qsi_spec_rate_init(&r);
    assert_true(qsi_spec_choose(&r, &cheap, 1, 1, 8, 0) >= 4);
    assert_int_equal(qsi_spec_choose(&r, &dear, 1, 1, 8, 0), 0);
    qsi_spec_rate_init(&r);
    for (int i = 0; i < 60; i++) qsi_spec_rate_add(&r, 4, 4);
    assert_int_equal(qsi_spec_choose(&r, &cheap, 1, 1, 8, 0), 8);
    qsi_spec_rate_init(&r);
    int fed = 0;
    for (int i = 0; i < 2000; i++) {
        int32_t k = qsi_spec_choose(&r, &cheap, 1, 1, 4, 0.01);
        if (k > 0) qsi_spec_rate_add(&r, k, 0);
        fed += k > 0;
    }
    assert_true(fed > 0 && fed < 300);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lookup), cmocka_unit_test(test_cost),
                                        cmocka_unit_test(test_choice) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
