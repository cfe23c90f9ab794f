/* Counters come out as Prometheus reads them: every family once, buckets cumulative. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "serve/metrics.h"

static const char *const routes[] = {"/a", "/b", "other"};

static void text(void **state) {
    qsi_metrics *m;
    qsi_str s = {0};
    const qsi_sched_stats stats = {.n_generated = 1234567890123, .n_waiting = 3};
    const qsi_gauges g = {
        .connections = 4, .calls = 2, .sched = &stats, .resident = 1 << 30, .ready = 1};
    assert_int_equal(qsi_metrics_create(&m, routes, 3, NULL), QS_OK);
    qsi_metrics_add(m, 0, 200, 20000000, 1020000000, 101); /* 0.02 s, then 10 ms a token */
    qsi_metrics_add(m, 0, 200, 0, 400000000000000, 0);     /* beyond every bound */
    qsi_metrics_add(m, 1, 404, 0, 1000, 0);
    qsi_metrics_add(m, 99, 777, 0, 1000, 0);
    assert_int_equal(qsi_metrics_text(m, &g, &s), QS_OK);
    static const char *const has[] = {
        "qiusuo_requests_total{route=\"/a\",status=\"200\"} 2\n",
        "qiusuo_requests_total{route=\"/b\",status=\"404\"} 1\n",
        "qiusuo_requests_total{route=\"other\",status=\"other\"} 1\n",
        "qiusuo_time_to_first_token_seconds_bucket{le=\"0.01\"} 0\n",
        "qiusuo_time_to_first_token_seconds_bucket{le=\"0.025\"} 1\n",
        "qiusuo_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n",
        "qiusuo_time_between_tokens_seconds_bucket{le=\"0.005\"} 0\n",
        "qiusuo_time_between_tokens_seconds_bucket{le=\"0.01\"} 100\n",
        "qiusuo_time_between_tokens_seconds_count 100\n",
        "qiusuo_request_duration_seconds_bucket{le=\"1800\"} 3\n",
        "qiusuo_request_duration_seconds_bucket{le=\"+Inf\"} 4\n",
        "qiusuo_request_duration_seconds_count 4\n",
        "qiusuo_generated_tokens_total 1234567890123\n",
        "qiusuo_queue 3\n", "qiusuo_connections 4\n", "process_resident_memory_bytes 1073741824\n",
    };
    for (size_t i = 0; i < QSI_COUNT(has); i++) assert_non_null(strstr(s.data, has[i]));
    qsi_str_clear(&s);
    const qsi_gauges none = {0};
    assert_int_equal(qsi_metrics_text(m, &none, &s), QS_OK);
    assert_null(strstr(s.data, "qiusuo_queue"));
    qsi_str_release(&s);
    qsi_metrics_free(m);
    qsi_metrics_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
