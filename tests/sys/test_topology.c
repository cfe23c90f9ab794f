/* Cores and nodes from made-up /sys folders, and the machine's own against its affinity. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>

#include "base/mem.h"
#include "sys/cpu.h"
#include "sys/file.h"
#include "sys/topology.h"
#include "tmpdir.h"

static void put(const char *name, const char *text) {
    tmp_write(tmp_path(name), text, strlen(text));
}

static void lists(void **state) {
    uint8_t m[16] = {0};
    assert_int_equal(qsi_list_parse("0-3,8,10-11\n", m, 16), 7);
    assert_true(m[0] && m[3] && !m[4] && m[8] && !m[9] && m[10] && m[11]);
    assert_int_equal(qsi_list_parse("3-5", m, 16), 2); /* 3 was there */
    assert_int_equal(qsi_list_parse("14-99\n", m, 16), 2);
    assert_int_equal(qsi_list_parse("\n", m, 16), 0);
    assert_int_equal(qsi_list_parse("", m, 16), 0);
    assert_int_equal(qsi_list_parse("x", m, 16), -1);
    assert_int_equal(qsi_list_parse("3-1", m, 16), -1);
    assert_int_equal(qsi_list_parse("1-", m, 16), -1);
    assert_int_equal(qsi_list_parse("1;2", m, 16), -1);
}

/* Two threads a core, numbered as Intel servers do (0 with 4), then as desktops do (0 with 1). */
static void threads_of_a_core_count_once(void **state) {
    char name[64], text[32];
    uint8_t all[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "far/cpu%d/topology", i);
        assert_int_equal(qsi_make_dirs(tmp_path(name), NULL), QS_OK);
        snprintf(name, sizeof name, "far/cpu%d/topology/core_cpus_list", i);
        snprintf(text, sizeof text, "%d,%d\n", i % 4, i % 4 + 4);
        put(name, text);
        snprintf(name, sizeof name, "near/cpu%d/topology", i);
        assert_int_equal(qsi_make_dirs(tmp_path(name), NULL), QS_OK);
        snprintf(name, sizeof name, "near/cpu%d/topology/thread_siblings_list", i);
        snprintf(text, sizeof text, "%d-%d\n", i / 2 * 2, i / 2 * 2 + 1);
        put(name, text);
    }
    const char *far = tmp_path("far");
    assert_int_equal(qsi_cores_among(far, all, 8), 4);
    assert_int_equal(qsi_cores_among(far, (uint8_t[]){0, 0, 0, 0, 1, 1, 0, 0}, 8), 2);
    assert_int_equal(qsi_cores_among(far, (uint8_t[]){1, 0, 0, 0, 1, 0, 0, 0}, 8), 1);
    assert_int_equal(qsi_cores_among(far, (uint8_t[]){1, 0, 0, 0, 0, 1, 0, 0}, 8), 2);
    const char *near = tmp_path("near");
    assert_int_equal(qsi_cores_among(near, all, 8), 4);
    assert_int_equal(qsi_cores_among(near, (uint8_t[]){0, 1, 1, 0, 0, 0, 0, 0}, 8), 2);
    assert_int_equal(qsi_cores_among(tmp_path("nowhere"), all, 8), 8);
    put("far/cpu5/topology/core_cpus_list", "what\n");
    assert_int_equal(qsi_cores_among(tmp_path("far"), all, 8), 5); /* 5 counts on its own */
}

static void this_machine(void **state) {
    cpu_set_t old, one;
    int n = 0, first = -1;
    uint8_t *mask = qsi_affinity(&n);
    assert_non_null(mask);
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    for (int i = 0; i < n && i < CPU_SETSIZE; i++) {
        assert_int_equal(mask[i], CPU_ISSET(i, &old) ? 1 : 0);
        if (mask[i] != 0 && first < 0) first = i;
    }
    qsi_free(mask);
    int cores = qsi_core_count();
    assert_true(cores >= 1 && cores <= qsi_cpu_count());
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(qsi_core_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
    assert_int_equal(qsi_core_count(), cores);
}

/* Two caches of 32 MiB, each shared by two processors; the first level does not count. */
static void caches(void **state) {
    char name[64];
    for (int i = 0; i < 4; i++)
        for (int level = 0; level < 2; level++) {
            snprintf(name, sizeof name, "llc/cpu%d/cache/index%d", i, level);
            assert_int_equal(qsi_make_dirs(tmp_path(name), NULL), QS_OK);
            snprintf(name, sizeof name, "llc/cpu%d/cache/index%d/size", i, level);
            put(name, level == 0 ? "32K\n" : "32768K\n");
            snprintf(name, sizeof name, "llc/cpu%d/cache/index%d/shared_cpu_list", i, level);
            put(name, level == 0 ? (const char *[]){"0", "1", "2", "3"}[i] : i < 2 ? "0-1" : "2-3");
        }
    assert_true(qsi_caches_under(tmp_path("llc"), 64) == (size_t)64 << 20);
    assert_true(qsi_caches_under(tmp_path("nowhere"), 64) == 0);
    assert_true(qsi_cache_bytes() < (size_t)1 << 40);
}

static void nodes(void **state) {
    assert_int_equal(qsi_node_count(tmp_path("nowhere")), 1);
    assert_int_equal(qsi_make_dirs(tmp_path("node"), NULL), QS_OK);
    put("node/online", "0-3\n");
    assert_int_equal(qsi_node_count(tmp_path("node")), 4);
    put("node/has_memory", "0,2\n"); /* nodes 1 and 3 have processors only */
    assert_int_equal(qsi_node_count(tmp_path("node")), 2);
    assert_true(qsi_node_count(QSI_NODE_ROOT) >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(threads_of_a_core_count_once),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(caches),
        cmocka_unit_test(nodes),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
