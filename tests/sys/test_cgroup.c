/* Control groups, on made-up files of both versions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "sys/cgroup.h"
#include "sys/file.h"
#include "tmpdir.h"

static char seen[1024];

static void collect(void *user, const char *folder) {
    size_t n = strlen(seen);
    assert_ptr_equal(user, seen);
    assert_memory_equal(folder, tmp_root, strlen(tmp_root));
    snprintf(seen + n, sizeof(seen) - n, "%s;", folder + strlen(tmp_root));
}

static const char *walk(const char *list, const char *controller) {
    const char *path = tmp_path("list");
    tmp_write(path, list, strlen(list));
    seen[0] = '\0';
    qsi_cgroup_walk(path, tmp_root, controller, collect, seen);
    return seen;
}

static void folders_of_a_process(void **state) {
    (void)state;
    assert_int_equal(qsi_make_dirs(tmp_path("a/b/c"), NULL), QS_OK);
    assert_int_equal(qsi_make_dirs(tmp_path("memory/m"), NULL), QS_OK);
    assert_string_equal(walk("0::/a/b/c\n", "cpu"), "/a/b/c;/a/b;/a;;");
    assert_string_equal(walk("0::/\n", "cpu"), ";");
    /* A path of the host that is not mounted here: the root still counts. */
    assert_string_equal(walk("0::/host/x/y\n", "cpu"), ";");
    assert_string_equal(walk("3:cpuset:/q\n5:cpu,memory:/m\n", "memory"), "/memory/m;/memory;");
    assert_string_equal(walk("5:memory2:/m\n", "memory"), "");
    assert_string_equal(walk("garbage\n::\n", "memory"), ";");
    seen[0] = '\0';
    qsi_cgroup_walk(tmp_path("missing"), tmp_root, "cpu", collect, seen);
    assert_string_equal(seen, "");
}

static void put(const char *name, const char *text) { tmp_write(tmp_path(name), text, strlen(text)); }

static void processors(void **state) {
    (void)state;
    const char *v2 = tmp_path("v2"), *v1 = tmp_path("v1");
    assert_int_equal(qsi_make_dirs(v2, NULL), QS_OK);
    assert_int_equal(qsi_make_dirs(v1, NULL), QS_OK);
    assert_int_equal(qsi_cgroup_cpus(v2), 0);
    put("v2/cpu.max", "max 100000\n");
    assert_int_equal(qsi_cgroup_cpus(v2), 0);
    put("v2/cpu.max", "200000 100000\n");
    assert_int_equal(qsi_cgroup_cpus(v2), 2);
    put("v2/cpu.max", "150000 100000\n");
    assert_int_equal(qsi_cgroup_cpus(v2), 2);
    put("v2/cpu.max", "1000 100000\n");
    assert_int_equal(qsi_cgroup_cpus(v2), 1);
    put("v1/cpu.cfs_quota_us", "-1\n");
    put("v1/cpu.cfs_period_us", "100000\n");
    assert_int_equal(qsi_cgroup_cpus(v1), 0);
    put("v1/cpu.cfs_quota_us", "400000\n");
    assert_int_equal(qsi_cgroup_cpus(v1), 4);
    put("v1/cpu.cfs_period_us", "0\n");
    assert_int_equal(qsi_cgroup_cpus(v1), 0);
}

static void memory(void **state) {
    (void)state;
    const char *v2 = tmp_path("v2"), *v1 = tmp_path("v1");
    put("v2/memory.max", "max\n");
    put("v2/memory.current", "1000\n");
    assert_true(qsi_cgroup_room(v2) == UINT64_MAX);
    put("v2/memory.max", "5000\n");
    assert_int_equal(qsi_cgroup_room(v2), 4000);
    put("v2/memory.stat", "anon 600\ninactive_file 300\nactive_file 100\n");
    assert_int_equal(qsi_cgroup_room(v2), 4300);
    put("v2/memory.current", "9000\n");
    assert_int_equal(qsi_cgroup_room(v2), 0);
    put("v1/memory.limit_in_bytes", "7000\n");
    put("v1/memory.usage_in_bytes", "2000\n");
    put("v1/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
    assert_int_equal(qsi_cgroup_room(v1), 5500);
    assert_true(qsi_cgroup_room(tmp_path("nowhere")) == UINT64_MAX);
}

static void fields(void **state) {
    (void)state;
    const char *text = "MemTotal: 10 kB\nMemAvailable:   7 kB\n";
    assert_int_equal(qsi_field(text, "MemAvailable:"), 7);
    assert_int_equal(qsi_field(text, "MemTotal:"), 10);
    assert_true(qsi_field(text, "Available:") == UINT64_MAX);
    assert_true(qsi_field("", "x") == UINT64_MAX);
}

static void small_files(void **state) {
    (void)state;
    char buf[8];
    put("small", "0123456789");
    assert_true(qsi_small_read(tmp_path("small"), buf, sizeof(buf)));
    assert_string_equal(buf, "0123456");
    put("small", "");
    assert_false(qsi_small_read(tmp_path("small"), buf, sizeof(buf)));
    assert_false(qsi_small_read(tmp_path("missing"), buf, sizeof(buf)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_of_a_process), cmocka_unit_test(processors),
        cmocka_unit_test(memory),               cmocka_unit_test(fields),
        cmocka_unit_test(small_files),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
