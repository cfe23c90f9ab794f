/* The tests of a bench on a small model (argument 1): the rows that were asked for, their speeds
 * beside their limits, refusals. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "measure/bench.h"

static const char *path;
static qsi_gguf *g;
static qsi_pool *pool;

static int set_up(void **state) {
    qs_err err;
    return qsi_gguf_open(&g, path, &err) != QS_OK || qsi_pool_create(&pool, 2, &err) != QS_OK;
}

static int tear_down(void **state) {
    qsi_gguf_close(&g);
    qsi_pool_free(pool);
    return 0;
}

static qsi_bench_opts opts(void) {
    return (qsi_bench_opts){.prompt = 70, .gen = 5, .batch = 1, .repeats = 3, .kv_type = QSI_F16};
}

static void test_rows(void **state) {
    const qsi_limits l = {.read_gb_s = 10, .fp32_gflop_s = 100, .bf16_gflop_s = 200,
                          .int8_gop_s = 400};
    qsi_bench_opts o = opts();
    o.depth = 65;
    o.batch = 3;
    o.train = 40;
    qsi_bench_report r = {0};
    qs_err err;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_OK);
    assert_int_equal(qsi_bench_limits(&o, g, &l, &r, &err), QS_OK);
    assert_int_equal(r.n_runs, 3);
    assert_string_equal(r.runs[0].test, "prefill");
    assert_int_equal(r.runs[0].n, 70);
    assert_string_equal(r.runs[1].test, "decode");
    assert_int_equal(r.runs[1].n, 5);
    assert_string_equal(r.runs[2].test, "train");
    assert_int_equal(r.runs[2].n, 40);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r.runs[i].depth, i < 2 ? 65 : 0);
        assert_int_equal(r.runs[i].batch, i < 2 ? 3 : 1);
        assert_true(r.runs[i].tok_s > 0 && r.runs[i].best_tok_s >= r.runs[i].tok_s);
        assert_true(r.runs[i].limit_tok_s > 0);
        assert_float_equal(r.runs[i].share, r.runs[i].tok_s / r.runs[i].limit_tok_s, 1e-12);
        const qsi_decode_times *t = &r.runs[i].allowed;
        if (i != 1) assert_true(t->bytes_s == 0 && t->ops_s == 0);
    }
    const qsi_decode_times *t = &r.runs[1].allowed; /* of a step of three sequences */
    assert_true(t->bytes_s > 0 && t->ops_s > 0);
    double longer = t->bytes_s > t->ops_s ? t->bytes_s : t->ops_s;
    assert_float_equal(3 / r.runs[1].limit_tok_s, longer, 1e-3 * longer);
    assert_string_equal(r.model_arch, "deepseek");
    assert_true(r.n_params > r.n_active && r.n_active > 0);
    assert_true(r.weight_bytes > 0 && r.weight_bytes < (int64_t)qsi_gguf_size(g));
}

/* With memory watched, a run's limit comes from what it saw itself, not from the machine's. */
static void test_watched(void **state) {
    const qsi_limits l = {.read_gb_s = 1e-3, .fp32_gflop_s = 1e6, .bf16_gflop_s = 1e6,
                          .int8_gop_s = 1e6};
    qsi_bench_opts o = opts();
    o.prompt = 0;
    o.repeats = 1;
    o.probe_s = 0.001;
    qsi_bench_report r = {0};
    qs_err err;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_OK);
    assert_int_equal(qsi_bench_limits(&o, g, &l, &r, &err), QS_OK);
    assert_int_equal(r.n_runs, 1);
    double own = r.runs[0].read_gb_s, limit = r.runs[0].limit_tok_s;
    assert_true(own > 0.01 && r.runs[0].drift >= 0 && r.runs[0].drift < 1);
    r.runs[0].read_gb_s = 0;
    assert_int_equal(qsi_bench_limits(&o, g, &l, &r, &err), QS_OK);
    assert_float_equal(limit / r.runs[0].limit_tok_s, own / l.read_gb_s, 1e-6 * own / l.read_gb_s);
}

static void test_nothing(void **state) {
    qsi_bench_opts o = opts();
    qsi_bench_report r = {0};
    qs_err err;
    o.prompt = o.gen = 0;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_OK);
    assert_int_equal(r.n_runs, 0);
    assert_int_equal(qsi_bench_tests(&o, NULL, pool, qsi_cpu_isa(), &r, &err), QS_OK);
    assert_int_equal(r.n_runs, 0);
}

static int stop(void *user, const char *what) { return strcmp(what, user) == 0; }

static void test_refusals(void **state) {
    qsi_bench_report r = {0};
    qs_err err;
    qsi_bench_opts o = opts();
    o.batch = 0;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_E_RANGE);
    o = opts();
    o.repeats = 1000;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_E_RANGE);
    o = opts();
    o.prompt = -1;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_E_RANGE);
    char decode[] = "decode";
    o = opts();
    o.progress = stop;
    o.user = decode;
    assert_int_equal(qsi_bench_tests(&o, g, pool, qsi_cpu_isa(), &r, &err), QS_E_CANCELLED);
    assert_int_equal(r.n_runs, 1);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_watched),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_refusals),
    };
    if (argc < 2) return 1;
    path = argv[1];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
