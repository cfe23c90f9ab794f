/* Findings on a made-up machine that has everything wrong, and on this one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "measure/doctor.h"
#include "sys/file.h"
#include "../sys/tmpdir.h"

static void put(const char *folder, const char *name, const char *text) {
    char path[200];
    assert_int_equal(qsi_make_dirs(tmp_path(folder), NULL), QS_OK);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    tmp_write(tmp_path(path), text, strlen(text));
}

typedef struct seen {
    int n, warned;
    char warnings[512];
    char frequency[128], numa[128];
} seen;

static void note(void *user, const char *key, bool ok, const char *value, const char *advice) {
    seen *s = user;
    s->n++;
    s->warned += !ok;
    assert_true(key[0] != '\0' && value[0] != '\0');
    assert_int_equal(ok, advice[0] == '\0');
    if (!ok) {
        assert_int_equal(advice[strlen(advice) - 1], '.'); /* a sentence */
        size_t n = strlen(s->warnings);
        snprintf(s->warnings + n, sizeof s->warnings - n, "%s;", key);
    }
    if (strcmp(key, "frequency") == 0) snprintf(s->frequency, sizeof s->frequency, "%s", value);
    if (strcmp(key, "numa") == 0) snprintf(s->numa, sizeof s->numa, "%s", value);
}

static void everything_wrong(void **state) {
    seen s = {0};
    put("r/proc", "loadavg", "9999.0 1 1 1/1 1\n");
    put("r/sys/devices/system/cpu", "online", "0-1023\n");
    put("r/sys/devices/system/cpu/cpu0/cpufreq", "scaling_governor", "powersave\n");
    put("r/sys/kernel/mm/transparent_hugepage", "enabled", "always madvise [never]\n");
    put("r/sys/devices/system/node", "has_memory", "0-1\n");
    qsi_doctor(tmp_path("r"), tmp_root, note, &s);
    assert_true(s.n >= 9);
    assert_non_null(strstr(s.warnings, "cores;"));
    assert_non_null(strstr(s.warnings, "load;"));
    assert_non_null(strstr(s.warnings, "frequency;"));
    assert_non_null(strstr(s.warnings, "huge pages;"));
    assert_non_null(strstr(s.warnings, "numa;"));
    assert_non_null(strstr(s.warnings, "sandbox;")); /* no seccomp in this /proc */
    assert_non_null(strstr(s.frequency, "powersave"));
    assert_string_equal(s.numa, "2 nodes");
}

static void this_machine(void **state) {
    seen s = {0};
    qsi_doctor("", tmp_root, note, &s);
    assert_true(s.n >= 9 && s.warned <= s.n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_wrong),
        cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
