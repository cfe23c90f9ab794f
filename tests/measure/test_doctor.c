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

static const char *nothing_refused(qsi_isa isa) { return NULL; }
static const char *best_refused(qsi_isa isa) { return isa == qsi_cpu_isa() ? "Q4_K" : NULL; }

static void keep_text(void *user, const char *key, bool ok, const char *value, const char *advice) {
    snprintf(user, 1024, "%s|%d|%s|%s", key, ok, value, advice);
}

/* A level that failed its self-check is named, and is not the one in use. */
static void refused_level(void **state) {
    char text[1024], want[64];
    const char *best = qsi_isa_name(qsi_cpu_isa());
    qsi_doctor_levels(nothing_refused, keep_text, text);
    snprintf(want, sizeof want, "|%s in use", best);
    assert_non_null(strstr(text, want));
    assert_null(strstr(text, "self-check"));
    qsi_doctor_levels(best_refused, keep_text, text);
    assert_memory_equal(text, "levels|0|", 9);
    snprintf(want, sizeof want, "Level %s failed", best);
    assert_non_null(strstr(text, want));
    assert_non_null(strstr(text, "product of Q4_K"));
    if (qsi_cpu_isa() == QSI_ISA_REF) return;
    snprintf(want, sizeof want, "|%s in use", best);
    assert_null(strstr(text, want));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_wrong),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(refused_level),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
