/* One function a finding: what was read, whether it is well, and what to do. */
#include "measure/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "kern/kern.h"
#include "sys/cpu.h"
#include "sys/file.h"
#include "sys/osinfo.h"
#include "sys/topology.h"

#define GIB ((double)(1 << 30))
#define DISK_WANTED ((uint64_t)10 << 30)
#define MEMORY_WANTED ((uint64_t)4 << 30)

typedef struct visit {
    qsi_osinfo os;
    const char *cache;
    qsi_doctor_fn *fn;
    void *user;
} visit;

/* advice NULL: all is well. */
static void tell(const visit *v, const char *key, const char *advice, const char *fmt, ...)
    QS_PRINTF(4, 5);
static void tell(const visit *v, const char *key, const char *advice, const char *fmt, ...) {
    char value[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    if (n < 0) value[0] = '\0';
    v->fn(v->user, key, advice == NULL, value, advice != NULL ? advice : "");
}

/* The levels that this CPU has, or those that it lacks. */
static void list(char *buf, size_t cap, bool has) {
    size_t len = 0;
    buf[0] = '\0';
    for (int i = 0; i < QSI_ISA_COUNT && len < cap; i++) {
        if (qsi_cpu_has((qsi_isa)i) != has) continue;
        int n = snprintf(buf + len, cap - len, "%s%s", len > 0 ? ", " : "",
                         qsi_isa_name((qsi_isa)i));
        if (n < 0) return;
        len += (size_t)n;
    }
}

static void look_at_levels(const visit *v, qsi_doctor_refused_fn *refused) {
    char has[192], lacks[192], advice[256] = "";
    int top = QSI_ISA_REF;
    bool dots = false;
    list(has, sizeof has, true);
    list(lacks, sizeof lacks, false);
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (!qsi_cpu_has((qsi_isa)i)) continue;
        const char *product = refused((qsi_isa)i);
        if (product == NULL)
            top = i, dots = dots || qsi_isa_dots_bytes((qsi_isa)i);
        else
            snprintf(advice, sizeof advice, "Level %s failed its self-check here (product of %s) and "
                     "the one below it is used: please report this with the CPU's name.",
                     qsi_isa_name((qsi_isa)i), product);
    }
    if (advice[0] == '\0' && top == (int)QSI_ISA_REF)
        snprintf(advice, sizeof advice, "Kernels run as plain C; a CPU with vector instructions (AVX2 "
                 "or better) is ten times faster.");
    else if (advice[0] == '\0' && !dots)
        snprintf(advice, sizeof advice, "A CPU with byte dot products (VNNI) multiplies 8-bit weights "
                 "two to four times faster.");
    tell(v, "levels", advice[0] != '\0' ? advice : NULL, "%s in use; this CPU has %s%s%s",
         qsi_isa_name((qsi_isa)top), has, lacks[0] != '\0' ? "; this program also knows " : "", lacks);
}

void qsi_doctor_levels(qsi_doctor_refused_fn *refused, qsi_doctor_fn *fn, void *user) {
    look_at_levels(&(visit){.fn = fn, .user = user}, refused);
}

static void look_at_cores(const visit *v) {
    int cores = qsi_core_count(), cpus = qsi_cpu_count();
    double quota = qsi_cpu_quota();
    char limit[64] = "";
    if (quota > 0) snprintf(limit, sizeof limit, ", a quota of %.1f", quota);
    tell(v, "cores",
         cpus < v->os.cpus ? "Affinity or the container's quota keep the other processors away: allow "
                             "them (docker --cpus, taskset) for more speed." : NULL,
         "%d physical cores, %d of the machine's %d processors%s", cores, cpus, v->os.cpus, limit);
    tell(v, "load",
         v->os.load > 0.5 * v->os.cpus ? "Other programs use the processors: what is measured now "
                                         "is lower than what the machine can do." : NULL,
         "%.1f processes want to run", v->os.load);
}

static void look_at_frequency(const visit *v) {
    const char *advice = NULL, *g = v->os.governor;
    if (strcmp(g, "powersave") == 0 || strcmp(g, "conservative") == 0)
        advice = "Set the governor to performance (cpupower frequency-set -g performance) for a "
                 "steady clock.";
    char now[64] = "unknown", most[64] = "";
    if (v->os.mhz > 0) snprintf(now, sizeof now, "%.0f MHz now", v->os.mhz);
    if (v->os.mhz_most > 0) snprintf(most, sizeof most, ", %.0f at most", v->os.mhz_most);
    tell(v, "frequency", advice, "governor %s, %s%s",
         g[0] != '\0' ? g : "not shown (a virtual machine?)", now, most);
}

static void look_at_memory(const visit *v) {
    uint64_t limit = qsi_mem_limit(), free = qsi_mem_available();
    char text[64] = "no limit on this process";
    const char *advice = NULL;
    if (limit < v->os.mem_total)
        snprintf(text, sizeof text, "a limit of %.1f GiB on this process", (double)limit / GIB);
    if (free < MEMORY_WANTED)
        advice = "Little memory is available: close other programs, raise the container's limit, or "
                 "run large models with --memory.";
    tell(v, "memory", advice, "%.1f GiB, %.1f available, %s", (double)v->os.mem_total / GIB,
         (double)free / GIB, text);
    const char *h = v->os.huge_pages;
    advice = NULL;
    if (strcmp(h, "never") == 0)
        advice = "Large pages make reading weights faster: echo madvise > "
                 "/sys/kernel/mm/transparent_hugepage/enabled (as root).";
    tell(v, "huge pages", advice, "%s", h[0] != '\0' ? h : "unknown");
    uint64_t lock = qsi_mem_lock_limit();
    if (lock == UINT64_MAX) tell(v, "locked memory", NULL, "no limit");
    else
        tell(v, "locked memory",
             lock < v->os.mem_total / 2 ? "For --mlock raise the limit: ulimit -l unlimited, or "
                                          "LimitMEMLOCK=infinity of a service." : NULL,
             "at most %.1f MiB", (double)lock / (1 << 20));
}

static void look_at_nodes(const visit *v, const char *root) {
    char path[512];
    snprintf(path, sizeof path, "%s" QSI_NODE_ROOT, root);
    int n = qsi_node_count(path);
    tell(v, "numa", n > 1 ? "Memory has several nodes: --numa keeps weights near the cores that use "
                            "them." : NULL,
         n > 1 ? "%d nodes" : "%d node", n);
}

static void look_at_sandbox(const visit *v) {
    const char *advice = NULL;
    if (!v->os.seccomp || v->os.landlock == 0)
        advice = "Files of strangers are read in a weaker sandbox; a newer kernel with seccomp and "
                 "Landlock makes it whole.";
    char landlock[32] = "no";
    if (v->os.landlock > 0) snprintf(landlock, sizeof landlock, "ABI %d", v->os.landlock);
    tell(v, "sandbox", advice, "seccomp %s, Landlock %s, user namespaces %s",
         v->os.seccomp ? "yes" : "no", landlock, v->os.user_namespaces ? "yes" : "no");
}

static void look_at_disk(const visit *v) {
    char kind[32];
    const char *advice = NULL;
    qsi_fs_kind(v->cache, kind, sizeof kind);
    uint64_t free = qsi_disk_free(v->cache);
    if (strcmp(kind, "nfs") == 0 || strcmp(kind, "cifs") == 0 || strcmp(kind, "smb") == 0 ||
        strcmp(kind, "fuse") == 0 || strcmp(kind, "9p") == 0)
        advice = "Models load faster from a local disk: set XDG_CACHE_HOME to one.";
    else if (strcmp(kind, "tmpfs") == 0)
        advice = "This folder lies in memory and takes it from the models: set XDG_CACHE_HOME to a "
                 "disk.";
    else if (free < DISK_WANTED)
        advice = "Little room for models: free some, or set XDG_CACHE_HOME to another disk.";
    tell(v, "disk", advice, "%s, %.1f GiB free at '%s'", kind, (double)free / GIB, v->cache);
}

void qsi_doctor(const char *root, const char *cache, qsi_doctor_fn *fn, void *user) {
    visit v = {.cache = cache, .fn = fn, .user = user};
    qsi_osinfo_read(&v.os, root);
    tell(&v, "cpu", NULL, "%s", v.os.cpu[0] != '\0' ? v.os.cpu : "unknown model");
    look_at_levels(&v, qsi_kern_refused);
    look_at_cores(&v);
    look_at_frequency(&v);
    look_at_memory(&v);
    look_at_nodes(&v, root);
    look_at_sandbox(&v);
    look_at_disk(&v);
}
