/* Placement on a made-up machine (hwloc's HWLOC_SYNTHETIC) and on this one. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "sys/pool.h"
#include "sys/topology.h"

#ifdef QSI_HAVE_HWLOC

static void workers_fill_the_nodes_evenly(void **state) {
    qsi_placement *p = NULL;
    qs_err err;
    assert_int_equal(setenv("HWLOC_SYNTHETIC", "numa:2 core:4 pu:2", 1), 0);
    assert_int_equal(qsi_placement_create(&p, 8, &err), QS_OK);
    assert_int_equal(qsi_placement_nodes(p), 2);
    for (int i = 0; i < 8; i++) assert_int_equal(qsi_placement_node(p, i), i / 4);
    qsi_placement_free(p);
    assert_int_equal(qsi_placement_create(&p, 3, &err), QS_OK); /* neighbours stay together */
    int per[2] = {0};
    for (int i = 0; i < 3; i++) {
        per[qsi_placement_node(p, i)]++;
        if (i > 0) assert_true(qsi_placement_node(p, i) >= qsi_placement_node(p, i - 1));
    }
    assert_true(per[0] >= 1 && per[1] >= 1);
    qsi_placement_free(p);
    assert_int_equal(setenv("HWLOC_SYNTHETIC", "numa:1 core:4 pu:1", 1), 0);
    assert_int_equal(qsi_placement_create(&p, 4, &err), QS_OK);
    assert_int_equal(qsi_placement_nodes(p), 1);
    assert_true(qsi_placement_bind(p, 3));
    qsi_placement_free(p);
    assert_int_equal(unsetenv("HWLOC_SYNTHETIC"), 0);
}

static void count(const qsi_worker *w, void *arg) { ((int *)arg)[w->index]++; }

/* A pool with placement runs, and the owner has its affinity back afterwards. */
static void pool_on_this_machine(void **state) {
    qsi_pool *pool = NULL;
    qs_err err;
    cpu_set_t before, after;
    int ran[3] = {0};
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(qsi_pool_create_numa(&pool, 3, &err), QS_OK);
    assert_true(qsi_pool_nodes(pool) >= 1);
    qsi_pool_run(pool, count, ran);
    for (int i = 0; i < 3; i++) assert_int_equal(ran[i], 1);
    qsi_pool_free(pool);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_fill_the_nodes_evenly),
        cmocka_unit_test(pool_on_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void says_what_is_missing(void **state) {
    qsi_placement *p = NULL;
    qsi_pool *pool = NULL;
    qs_err err;
    assert_int_equal(qsi_placement_create(&p, 2, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "libhwloc-dev"));
    assert_int_equal(qsi_pool_create_numa(&pool, 2, &err), QS_E_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(says_what_is_missing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
