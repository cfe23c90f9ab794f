/* Collectives of one process: nothing changes, wrong ranks are refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "comm/comm.h"

static void alone(void **state) {
    (void)state;
    const qsi_comm *c = qsi_comm_self();
    float f[3] = {1.5f, -2.0f, 3e38f};
    double d[2] = {-0.5, 1e300};
    qs_err err;
    assert_int_equal(c->rank, 0);
    assert_int_equal(c->size, 1);
    assert_int_equal(c->sum_f32(c, f, 3, &err), QS_OK);
    assert_int_equal(c->sum_f64(c, d, 2, &err), QS_OK);
    assert_int_equal(c->max_f64(c, d, 2, &err), QS_OK);
    assert_int_equal(c->sum_f32(c, NULL, 0, NULL), QS_OK);
    assert_true(f[0] == 1.5f && f[1] == -2.0f && f[2] == 3e38f);
    assert_true(d[0] == -0.5 && d[1] == 1e300);
    assert_int_equal(c->broadcast(c, f, sizeof(f), 0, &err), QS_OK);
    assert_true(f[0] == 1.5f);
    assert_int_equal(c->barrier(c, &err), QS_OK);
    assert_int_equal(c->broadcast(c, f, sizeof(f), 1, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "rank 1 of 1"));
    assert_int_equal(c->broadcast(c, f, sizeof(f), -1, NULL), QS_E_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
