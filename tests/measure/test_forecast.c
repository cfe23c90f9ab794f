/* Forecasts of small models: sizes follow configuration and header, speeds are measured, cancelling
 * and a folder that does not exist are errors. What speeds are worth is bench/check_plan.py's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "measure/forecast.h"

static const char *const *paths;
static int n_paths;

static void sizes_and_speeds(void **state) {
    qsi_pool *pool = NULL;
    qs_err err;
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    for (int i = 0; i < n_paths; i++) {
        qsi_gguf *g = NULL;
        qsi_config c;
        qsi_forecast f;
        qsi_forecast_opts o = {.n_ctx = 640, .kv_type = QSI_F16, .tmp = "/tmp"};
        assert_int_equal(qsi_gguf_open(&g, paths[i], &err), QS_OK);
        assert_int_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
        assert_int_equal(qsi_forecast_make(&o, g, pool, qsi_cpu_isa(), &f, &err), QS_OK);
        assert_int_equal(f.n_ctx, 640);
        double pos = 2.0 * 2 * c.n_layer * c.n_kv_head * c.head_dim; /* keys, values; two bytes */
        assert_true(qsi_forecast_cache_bytes(&c, QSI_F16) == pos);
        assert_true(qsi_forecast_cache_bytes(&c, QSI_F32) == 2 * pos);
        assert_true(f.cache_bytes == (uint64_t)(640 * pos));
        assert_true(f.weight_bytes > 0 && f.weight_bytes < qsi_gguf_size(g));
        assert_true(f.fits && f.prefill_tok_s > 0 && f.decode_tok_s > 0 && f.deep_tok_s > 0);
        assert_true(f.deep_tok_s <= f.decode_tok_s);
        o.memory_bytes = f.weight_bytes + f.scratch_bytes + (uint64_t)(130 * pos);
        assert_int_equal(qsi_forecast_make(&o, g, pool, qsi_cpu_isa(), &f, &err), QS_OK);
        assert_false(f.fits);
        assert_int_equal(qsi_forecast_ctx(&f, &c, QSI_F16), 128);
        assert_int_equal(qsi_forecast_ctx(&f, &c, QSI_F32), 64);
        f.available = 1000;
        assert_int_equal(qsi_forecast_ctx(&f, &c, QSI_F16), 0);
        qsi_gguf_close(&g);
    }
    qsi_pool_free(pool);
}

static int stop(void *user, const char *what) { return 1; }

static void refusals(void **state) {
    qsi_pool *pool = NULL;
    qsi_gguf *g = NULL;
    qs_err err;
    qsi_forecast f;
    qsi_forecast_opts o = {.kv_type = QSI_F16, .tmp = "/no/such/folder"};
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, paths[0], &err), QS_OK);
    assert_int_not_equal(qsi_forecast_make(&o, g, pool, qsi_cpu_isa(), &f, &err), QS_OK);
    assert_non_null(strstr(err.text, "/no/such/folder"));
    o.tmp = "/tmp";
    o.progress = stop;
    assert_int_equal(qsi_forecast_make(&o, g, pool, qsi_cpu_isa(), &f, &err), QS_E_CANCELLED);
    qsi_gguf_close(&g);
    qsi_pool_free(pool);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_speeds),
        cmocka_unit_test(refusals),
    };
    paths = (const char *const *)argv + 1;
    n_paths = argc - 1;
    if (n_paths < 1) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
