/* CPU levels against the kernel's own list of flags; processor count against the affinity mask. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sys/build_levels.h"
#include "sys/cpu.h"

#if defined(__x86_64__)
static char flags[8192];

static int has(const char *flag) {
    char word[64];
    snprintf(word, sizeof(word), " %s ", flag);
    return strstr(flags, word) != NULL;
}

/* The flags line of the first processor; the kernel hides what it does not save. */
static int read_flags(void) {
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (f == NULL) return 0;
    while (fgets(line, sizeof(line), f) != NULL && flags[0] == '\0') {
        if (strncmp(line, "flags", 5) != 0) continue;
        line[strcspn(line, "\n")] = ' ';
        snprintf(flags, sizeof(flags), "%s", line);
    }
    fclose(f);
    return flags[0] != '\0';
}

static void level_agrees_with_the_kernel(void **state) {
    (void)state;
    if (!read_flags()) skip();
    int want = QSI_ISA_REF;
    bool is[QSI_ISA_COUNT] = {[QSI_ISA_REF] = true};
    is[QSI_ISA_AVX2] = has("avx2") && has("fma") && has("f16c");
#if QSI_BUILD_AVXVNNI
    is[QSI_ISA_AVXVNNI] = is[QSI_ISA_AVX2] && has("avx_vnni");
#endif
    is[QSI_ISA_AVX512] = is[QSI_ISA_AVX2] && has("avx512f") && has("avx512bw") &&
                         has("avx512vl") && has("avx512dq");
    is[QSI_ISA_AVX512_VNNI] = is[QSI_ISA_AVX512] && has("avx512_vnni");
    is[QSI_ISA_AVX512_BF16] = is[QSI_ISA_AVX512_VNNI] && has("avx512_bf16");
#if QSI_BUILD_AMX
    is[QSI_ISA_AMX] = is[QSI_ISA_AVX512_BF16] && has("amx_tile") && has("amx_int8") && has("amx_bf16");
#endif
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        assert_int_equal(qsi_cpu_has((qsi_isa)i), is[i]);
        if (is[i]) want = i;
    }
    assert_int_equal(qsi_cpu_isa(), want);
    assert_false(qsi_cpu_has(QSI_ISA_COUNT) || qsi_cpu_has((qsi_isa)-1));
}

#endif

static void names(void **state) {
    (void)state;
    qsi_isa best = qsi_cpu_isa(), got;
    qs_err err;
    assert_int_equal(qsi_isa_parse("auto", &got, &err), QS_OK);
    assert_int_equal(got, best);
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        got = QSI_ISA_COUNT;
        qs_status st = qsi_isa_parse(qsi_isa_name((qsi_isa)i), &got, &err);
        assert_int_equal(st, qsi_cpu_has((qsi_isa)i) ? QS_OK : QS_E_UNSUPPORTED);
        assert_int_equal(got, qsi_cpu_has((qsi_isa)i) ? i : QSI_ISA_COUNT);
        if (st != QS_OK) assert_non_null(strstr(err.text, "ref"));
    }
    assert_int_equal(qsi_isa_parse("avx3", &got, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "avx3"));
    assert_non_null(strstr(err.text, "ref"));
    assert_string_equal(qsi_isa_name(QSI_ISA_COUNT), "unknown");
}

static void count_follows_affinity(void **state) {
    (void)state;
    cpu_set_t old, one;
    assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
    int n = qsi_cpu_count();
    assert_true(n >= 1 && n <= CPU_COUNT(&old));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &old)) {
            CPU_SET(i, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(qsi_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
    assert_int_equal(qsi_cpu_count(), n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#if defined(__x86_64__)
        cmocka_unit_test(level_agrees_with_the_kernel),
#endif
        cmocka_unit_test(names),
        cmocka_unit_test(count_follows_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
