/* Measuring through the public API: option structs of other versions, the machine without a model,
 * kernels, refusals. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "qiusuo/measure.h"

static void test_opts(void **state) {
    qs_bench_opts o;
    qs_bench_opts_init(&o, sizeof o);
    assert_int_equal(o.size, sizeof o);
    assert_int_equal(o.prompt, 512);
    assert_int_equal(o.batch, 1);
    /* a program that knows the first fields only */
    memset(&o, 0x55, sizeof o);
    qs_bench_opts_init(&o, offsetof(qs_bench_opts, gen));
    assert_int_equal(o.size, offsetof(qs_bench_opts, gen));
    assert_int_equal(o.prompt, 512);
    assert_int_equal(o.gen, 0x55555555);
}

static int count(void *user, const char *what) {
    ++*(int *)user;
    return what == NULL;
}

static void test_machine(void **state) {
    qs_bench_opts o;
    qs_bench_report r;
    qs_err err;
    int calls = 0;
    qs_bench_opts_init(&o, sizeof o);
    o.train = 0;
    o.threads = 1;
    o.progress = count;
    o.user = &calls;
    assert_int_equal(qs_bench(&o, &r, &err), QS_OK);
    assert_int_equal(r.threads, 1);
    assert_int_equal(r.n_runs, 0);
    assert_string_equal(r.model_arch, "");
    assert_true(r.read_gb_s > 0 && r.fp32_gflop_s > 0 && r.drift >= 0 && r.drift < 1);
    assert_in_range(calls, 1, 3); /* as often as it was repeated */
}

static void row(void *user, const qs_bench_kernel *k) {
    ++*(int *)user;
    assert_string_equal(k->isa, "ref");
}

static void test_kernels(void **state) {
    qs_bench_opts o;
    qs_err err;
    int rows = 0;
    qs_bench_opts_init(&o, sizeof o);
    o.isa = "ref";
    o.repeats = 1;
    assert_int_equal(qs_bench_kernels(&o, row, &rows, &err), QS_OK);
    assert_true(rows > 20);
}

static void test_refusals(void **state) {
    qs_bench_opts o;
    qs_bench_report r;
    qs_err err;
    qs_bench_opts_init(&o, sizeof o);
    o.model = "no such file.gguf";
    assert_int_equal(qs_bench(&o, &r, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "no such file.gguf"));
    o.model = NULL;
    o.isa = "sse9";
    assert_int_equal(qs_bench(&o, &r, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "sse9"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opts),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
