/* CPU levels: which kernels this machine can run. CPUID and XGETBV both decide; for AMX the system is
 * asked, once, to let this process use its registers. Thread: any. */
#ifndef QSI_SYS_CPU_H
#define QSI_SYS_CPU_H

#include <stdbool.h>

#include "base/status.h"

/* Ordered: a level contains those below it, but for avxvnni, which is a side road: AVX2 with VNNI's
 * instructions of 256 bits, on CPUs that often have no AVX-512. X(name, text) */
#if defined(__aarch64__)
#define QSI_ISA_LIST(X)                                                                            \
    X(QSI_ISA_REF, "ref")                                                                          \
    X(QSI_ISA_NEON, "neon")                                                                        \
    X(QSI_ISA_DOTPROD, "dotprod")                                                                  \
    X(QSI_ISA_I8MM, "i8mm")
#else
#define QSI_ISA_LIST(X)                                                                            \
    X(QSI_ISA_REF, "ref")                                                                          \
    X(QSI_ISA_AVX2, "avx2")                                                                        \
    X(QSI_ISA_AVXVNNI, "avxvnni")                                                                  \
    X(QSI_ISA_AVX512, "avx512")                                                                    \
    X(QSI_ISA_AVX512_VNNI, "vnni")                                                                 \
    X(QSI_ISA_AVX512_BF16, "bf16")                                                                 \
    X(QSI_ISA_AMX, "amx")
#endif

typedef enum qsi_isa {
#define QSI_ISA_ENUM(name, text) name,
    QSI_ISA_LIST(QSI_ISA_ENUM)
#undef QSI_ISA_ENUM
    QSI_ISA_COUNT
} qsi_isa;

/* The highest level this CPU, operating system and build support. avx2 means AVX2 + FMA + F16C; avx512
 * F, BW, VL, DQ; bf16 includes vnni; amx tiles of bytes and of bfloat16, and bf16. */
qsi_isa qsi_cpu_isa(void);
bool qsi_cpu_has(qsi_isa isa);
/* The level's kernels multiply bytes with an instruction made for it. */
bool qsi_isa_dots_bytes(qsi_isa isa);
const char *qsi_isa_name(qsi_isa isa);
/* By name; QS_E_ARG for an unknown name, QS_E_UNSUPPORTED when the CPU lacks it (both say what
 * there is). "auto" is the highest. */
qs_status qsi_isa_parse(const char *name, qsi_isa *out, qs_err *err) QS_MUST_CHECK;
/* Processors this process may use: affinity and cgroup quota. At least 1. */
int qsi_cpu_count(void);

#endif
