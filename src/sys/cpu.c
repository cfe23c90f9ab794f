/* CPU levels and the number of processors this process may use.
 *
 * A level counts when CPUID has its instructions and XGETBV says that the system saves its
 * registers (Intel SDM vol. 1, 13, 14.3 and 18; AMD APM vol. 4), and when the build has its kernels. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_ALLOC, syscall */
#include "sys/cpu.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "sys/build_levels.h"
#include "sys/cgroup.h"

#define BIT(isa) (1u << (isa))

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t read_xcr0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool has_all(uint32_t reg, uint32_t bits) { return (reg & bits) == bits; }

#if QSI_BUILD_AMX
/* Linux gives the 8 KiB of tile registers to processes that ask (asm/prctl.h, which older headers do not
 * have in full); threads there are and those to come share the permission. */
#define ASK_FOR_STATE 0x1023
#define STATE_TILES 18

static bool has_tiles(uint64_t xcr0, uint32_t edx) {
    uint32_t a, b, c, d;
    /* AMX_BF16 22, AMX_TILE 24, AMX_INT8 25; tile configuration and data */
    if (!has_all(edx, 1u << 22 | 1u << 24 | 1u << 25) || (xcr0 & 0x60000) != 0x60000) return false;
    /* palette 1: eight tiles of 16 rows of 64 bytes */
    if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false;
    if ((b & 0xffff) < 64 || b >> 16 < 8 || (c & 0xffff) < 16) return false;
    return syscall(SYS_arch_prctl, ASK_FOR_STATE, STATE_TILES) == 0;
}
#else
static bool has_tiles(uint64_t xcr0, uint32_t edx) { return false; }
#endif

/* The levels of CPUs with AVX-512, b, c and d being those of leaf 7, a1 of its subleaf 1. */
static uint32_t detect_wide(uint64_t xcr0, uint32_t b, uint32_t c, uint32_t d, uint32_t a1) {
    uint32_t set = 0;
    if ((xcr0 & 0xe6) != 0xe6) return set; /* opmask, ZMM */
    /* F 16, DQ 17, BW 30, VL 31 */
    if (!has_all(b, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)) return set;
    set |= BIT(QSI_ISA_AVX512);
    if (!has_all(c, 1u << 11)) return set; /* AVX512_VNNI */
    set |= BIT(QSI_ISA_AVX512_VNNI);
    if (!has_all(a1, 1u << 5)) return set; /* AVX512_BF16 */
    set |= BIT(QSI_ISA_AVX512_BF16);
    if (has_tiles(xcr0, d)) set |= BIT(QSI_ISA_AMX);
    return set;
}

static uint32_t detect(void) {
    uint32_t a, b, c, d, max_sub, a1 = 0, b1, c1, d1, set = BIT(QSI_ISA_REF);
    if (!__get_cpuid(1, &a, &b, &c, &d)) return set;
    /* FMA 12, OSXSAVE 27, AVX 28, F16C 29 */
    if (!has_all(c, 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29)) return set;
    uint64_t xcr0 = read_xcr0();
    if ((xcr0 & 0x06) != 0x06) return set; /* XMM, YMM */
    if (!__get_cpuid_count(7, 0, &max_sub, &b, &c, &d)) return set;
    if (!has_all(b, 1u << 5)) return set; /* AVX2 */
    set |= BIT(QSI_ISA_AVX2);
    if (max_sub >= 1 && !__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) a1 = 0;
#if QSI_BUILD_AVXVNNI
    if (has_all(a1, 1u << 4)) set |= BIT(QSI_ISA_AVXVNNI);
#endif
    return set | detect_wide(xcr0, b, c, d, a1);
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Linux's bits of AT_HWCAP and AT_HWCAP2 (asm/hwcap.h, which older headers do not have in full). NEON
 * belongs to every 64-bit ARM. */
#define HWCAP_BIT_DOTPROD (1ul << 20)
#define HWCAP2_BIT_I8MM (1ul << 13)

static uint32_t detect(void) {
    uint32_t set = BIT(QSI_ISA_REF) | BIT(QSI_ISA_NEON);
    if (!(getauxval(AT_HWCAP) & HWCAP_BIT_DOTPROD)) return set;
    set |= BIT(QSI_ISA_DOTPROD);
    return getauxval(AT_HWCAP2) & HWCAP2_BIT_I8MM ? set | BIT(QSI_ISA_I8MM) : set;
}
#else
static uint32_t detect(void) { return BIT(QSI_ISA_REF); }
#endif

/* The levels there are, a bit each. */
static uint32_t levels(void) {
    static atomic_uint known; /* 0: not looked yet; every thread would find the same */
    uint32_t set = atomic_load_explicit(&known, memory_order_relaxed);
    if (set == 0) {
        set = detect();
        atomic_store_explicit(&known, set, memory_order_relaxed);
    }
    return set;
}

bool qsi_cpu_has(qsi_isa isa) {
    return (int)isa >= 0 && isa < QSI_ISA_COUNT && (levels() & BIT(isa)) != 0;
}

qsi_isa qsi_cpu_isa(void) {
    int isa = QSI_ISA_COUNT - 1;
    while (!qsi_cpu_has((qsi_isa)isa)) isa--;
    return (qsi_isa)isa;
}

bool qsi_isa_dots_bytes(qsi_isa isa) {
#if defined(__aarch64__)
    return isa >= QSI_ISA_DOTPROD;
#else
    return isa == QSI_ISA_AVXVNNI || isa >= QSI_ISA_AVX512_VNNI;
#endif
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

/* "ref, avx2, ...": those there are. */
static void list_levels(char *buf, size_t cap) {
    size_t len = 0;
    buf[0] = '\0';
    for (int i = 0; i < QSI_ISA_COUNT && len < cap; i++) {
        if (!qsi_cpu_has((qsi_isa)i)) continue;
        int n = snprintf(buf + len, cap - len, "%s%s", i > 0 ? ", " : "", qsi_isa_name((qsi_isa)i));
        if (n < 0) return;
        len += (size_t)n;
    }
}

qs_status qsi_isa_parse(const char *name, qsi_isa *out, qs_err *err) {
    char has[128];
    if (strcmp(name, "auto") == 0) {
        *out = qsi_cpu_isa();
        return QS_OK;
    }
    list_levels(has, sizeof(has));
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (strcmp(name, qsi_isa_name((qsi_isa)i)) != 0) continue;
        if (qsi_cpu_has((qsi_isa)i)) {
            *out = (qsi_isa)i;
            return QS_OK;
        }
        return qsi_err_set(err, QS_E_UNSUPPORTED, "this CPU has no level '%s': it has %s", name, has);
    }
    return qsi_err_set(err, QS_E_ARG, "unknown CPU level '%s': this CPU has auto, %s", name, has);
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
