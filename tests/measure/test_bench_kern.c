/* Every kernel of the table's rows is reported for every level asked for, with a speed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "measure/bench.h"

typedef struct seen {
    int rows, products;
} seen;

static void take(void *user, const qsi_bench_kernel *k) {
    seen *s = user;
    s->rows++;
    assert_true(k->value > 0);
    assert_string_equal(k->isa, "ref");
    assert_true(k->n > 0);
    if (k->share > 0) s->products++;
    if (k->k > 0) assert_true(k->m > 0);
    else assert_string_equal(k->unit, "GB/s");
}

static int stop(void *user, const char *what) { return strcmp(what, "dot") == 0; }

static void test_ref(void **state) {
    qsi_bench_opts o = {.repeats = 1};
    qs_err err;
    seen s = {0};
    assert_int_equal(qsi_bench_kernels(&o, QSI_ISA_REF, take, &s, &err), QS_OK);
    assert_int_equal(s.products, 14);
    assert_int_equal(s.rows, 14 + 2 * 6 + 18); /* and bytes, packing of the six of one row */
    o.progress = stop;
    assert_int_equal(qsi_bench_kernels(&o, QSI_ISA_REF, take, &s, &err), QS_E_CANCELLED);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ref)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
