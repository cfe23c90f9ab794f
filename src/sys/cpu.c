/* CPU levels and the number of processors this process may use.
 *
 * A level counts when CPUID has its instructions and XGETBV says that the system saves its
 * registers (Intel SDM vol. 1, 13 and 14.3; AMD APM vol. 4). */
#define _GNU_SOURCE /* sched_getaffinity, CPU_ALLOC */
#include "sys/cpu.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "sys/cgroup.h"

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t read_xcr0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has_all(uint32_t reg, uint32_t bits) { return (reg & bits) == bits; }

static qsi_isa detect(void) {
    uint32_t a, b, c, d, max_sub;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return QSI_ISA_REF;
    /* FMA 12, OSXSAVE 27, AVX 28, F16C 29 */
    if (!has_all(c, 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29)) return QSI_ISA_REF;
    uint64_t xcr0 = read_xcr0();
    if ((xcr0 & 0x06) != 0x06) return QSI_ISA_REF; /* XMM, YMM */
    if (!__get_cpuid_count(7, 0, &max_sub, &b, &c, &d)) return QSI_ISA_REF;
    if (!has_all(b, 1u << 5)) return QSI_ISA_REF; /* AVX2 */
    if ((xcr0 & 0xE6) != 0xE6) return QSI_ISA_AVX2; /* opmask, ZMM */
    /* F 16, DQ 17, BW 30, VL 31 */
    if (!has_all(b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)) return QSI_ISA_AVX2;
    if (!has_all(c, 1u << 11)) return QSI_ISA_AVX512; /* AVX512_VNNI */
    if (max_sub < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return QSI_ISA_AVX512_VNNI;
    return has_all(a, 1u << 5) ? QSI_ISA_AVX512_BF16 : QSI_ISA_AVX512_VNNI;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Linux's bits of AT_HWCAP and AT_HWCAP2 (asm/hwcap.h, which older headers do not have in full). NEON
 * belongs to every 64-bit ARM. */
#define HWCAP_BIT_DOTPROD (1ul << 20)
#define HWCAP2_BIT_I8MM (1ul << 13)

static qsi_isa detect(void) {
    if (!(getauxval(AT_HWCAP) & HWCAP_BIT_DOTPROD)) return QSI_ISA_NEON;
    return getauxval(AT_HWCAP2) & HWCAP2_BIT_I8MM ? QSI_ISA_I8MM : QSI_ISA_DOTPROD;
}
#else
static qsi_isa detect(void) { return QSI_ISA_REF; }
#endif

qsi_isa qsi_cpu_isa(void) {
    static atomic_int known = -1; /* every thread would find the same */
    int isa = atomic_load_explicit(&known, memory_order_relaxed);
    if (isa < 0) {
        isa = (int)detect();
        atomic_store_explicit(&known, isa, memory_order_relaxed);
    }
    return (qsi_isa)isa;
}

const char *qsi_isa_name(qsi_isa isa) {
    switch (isa) {
#define ISA_NAME(name, text)                                                                       \
    case name: return text;
        QSI_ISA_LIST(ISA_NAME)
#undef ISA_NAME
    case QSI_ISA_COUNT: break;
    }
    return "unknown";
}

/* "ref, avx2, ..." up to and including `top`. */
static void list_levels(char *buf, size_t cap, qsi_isa top) {
    size_t len = 0;
    buf[0] = '\0';
    for (int i = 0; i <= (int)top && len < cap; i++) {
        int n = snprintf(buf + len, cap - len, "%s%s", i > 0 ? ", " : "", qsi_isa_name((qsi_isa)i));
        if (n < 0) return;
        len += (size_t)n;
    }
}

qs_status qsi_isa_parse(const char *name, qsi_isa *out, qs_err *err) {
    char levels[128];
    qsi_isa best = qsi_cpu_isa();
    if (strcmp(name, "auto") == 0) {
        *out = best;
        return QS_OK;
    }
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (strcmp(name, qsi_isa_name((qsi_isa)i)) != 0) continue;
        if (i <= (int)best) {
            *out = (qsi_isa)i;
            return QS_OK;
        }
        list_levels(levels, sizeof(levels), best);
        return qsi_err_set(err, QS_E_UNSUPPORTED, "this CPU has no level '%s': it has %s", name,
                           levels);
    }
    list_levels(levels, sizeof(levels), best);
    return qsi_err_set(err, QS_E_ARG, "unknown CPU level '%s': this CPU has auto, %s", name,
                       levels);
}

static int affinity_count(void) {
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (set == NULL) return 1;
        size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        CPU_ZERO_S(bytes, set);
        int n = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
    return 1;
}

static void least_quota(void *user, const char *folder) {
    int *least = user, cpus = qsi_cgroup_cpus(folder);
    if (cpus > 0 && cpus < *least) *least = cpus;
}

int qsi_cpu_count(void) {
    int n = affinity_count();
    qsi_cgroup_walk(QSI_CGROUP_LIST, QSI_CGROUP_MOUNT, "cpu", least_quota, &n);
    return n > 0 ? n : 1;
}
