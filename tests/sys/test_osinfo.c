/* Made-up /proc and /sys, and this machine. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "sys/file.h"
#include "sys/osinfo.h"
#include "tmpdir.h"

static void put(const char *folder, const char *name, const char *text) {
    char path[200];
    assert_int_equal(qsi_make_dirs(tmp_path(folder), NULL), QS_OK);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    tmp_write(tmp_path(path), text, strlen(text));
}

static void made_up(void **state) {
    qsi_osinfo o;
    put("r/proc", "cpuinfo", "processor\t: 0\nmodel name\t: Some CPU 9000 \ncpu MHz\t\t: 2100.5\n");
    put("r/proc", "meminfo", "MemTotal:  2048 kB\n");
    put("r/proc", "loadavg", "1.75 2.0 3.0 1/2 3\n");
    put("r/proc/sys/kernel/seccomp", "actions_avail", "kill_process trap errno allow\n");
    put("r/proc/sys/user", "max_user_namespaces", "100\n");
    put("r/sys/devices/system/cpu", "online", "0-7\n");
    put("r/sys/devices/system/cpu/cpu0/cpufreq", "scaling_governor", "powersave\n");
    put("r/sys/devices/system/cpu/cpu0/cpufreq", "scaling_cur_freq", "1800000\n");
    put("r/sys/devices/system/cpu/cpu0/cpufreq", "cpuinfo_max_freq", "5000000\n");
    put("r/sys/kernel/mm/transparent_hugepage", "enabled", "always madvise [never]\n");
    qsi_osinfo_read(&o, tmp_path("r"));
    assert_string_equal(o.cpu, "Some CPU 9000");
    assert_string_equal(o.governor, "powersave");
    assert_string_equal(o.huge_pages, "never");
    assert_true(o.mhz == 1800 && o.mhz_most == 5000 && o.load == 1.75);
    assert_int_equal(o.cpus, 8);
    assert_int_equal(o.mem_total, 2048 * 1024);
    assert_true(o.seccomp && o.user_namespaces);
    put("r/proc/sys/kernel", "unprivileged_userns_clone", "0\n");
    qsi_osinfo_read(&o, tmp_path("r"));
    assert_false(o.user_namespaces);
    qsi_osinfo_read(&o, tmp_path("nowhere"));
    assert_string_equal(o.cpu, "");
    assert_string_equal(o.huge_pages, "");
    assert_true(o.cpus >= 1 && o.mem_total == 0 && !o.seccomp && !o.user_namespaces);
}

static void memory_limits(void **state) {
    put("v2", "memory.max", "max\n");
    assert_true(qsi_mem_limit_in(tmp_path("v2")) == UINT64_MAX);
    put("v2", "memory.max", "123456789\n");
    assert_int_equal(qsi_mem_limit_in(tmp_path("v2")), 123456789);
    put("v1", "memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(qsi_mem_limit_in(tmp_path("v1")) == UINT64_MAX);
    put("v1", "memory.limit_in_bytes", "4096\n");
    assert_int_equal(qsi_mem_limit_in(tmp_path("v1")), 4096);
}

static void this_machine(void **state) {
    qsi_osinfo o;
    char kind[32], there[32];
    qsi_osinfo_read(&o, "");
    assert_true(o.cpus >= 1 && o.mem_total > (uint64_t)64 << 20);
    assert_true(qsi_mem_limit() > 0 && qsi_cpu_quota() >= 0);
    qsi_fs_kind(tmp_root, kind, sizeof kind);
    qsi_fs_kind(tmp_path("not/yet/there"), there, sizeof there);
    assert_string_equal(kind, there);
    assert_string_not_equal(kind, "unknown");
    qsi_fs_kind("/proc/1/none", kind, sizeof kind); /* procfs has no name here: its number */
    assert_memory_equal(kind, "0x", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_up),
        cmocka_unit_test(memory_limits),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
