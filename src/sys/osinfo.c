/* Reads /proc and /sys. Numbers of file systems: linux/magic.h; of Landlock: landlock(7). */
#define _GNU_SOURCE /* syscall */
#include "sys/osinfo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/status.h"
#include "sys/cgroup.h"
#include "sys/topology.h"

enum { TEXT = 8192, MAX_CPUS = 4096 };

static bool read_under(const char *root, const char *name, char *buf, size_t cap) {
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", root, name);
    return n > 0 && (size_t)n < sizeof path && qsi_small_read(path, buf, cap);
}

/* Copies [p, p + n) cut to the buffer, without the spaces around it. */
static void copy_word(char *out, size_t cap, const char *p, size_t n) {
    while (n > 0 && (*p == ' ' || *p == '\t')) p++, n--;
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\n')) n--;
    if (n >= cap) n = cap - 1;
    memcpy(out, p, n);
    out[n] = '\0';
}

/* The value of a line "key   : value" of /proc/cpuinfo. */
static bool cpuinfo_field(const char *text, const char *key, char *out, size_t cap) {
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *colon = strchr(line, ':');
        if (colon == NULL) return false;
        copy_word(out, cap, colon + 1, strcspn(colon + 1, "\n"));
        return true;
    }
    return false;
}

static double number_under(const char *root, const char *name) {
    char text[64];
    return read_under(root, name, text, sizeof text) ? strtod(text, NULL) : 0;
}

static void read_cpu(qsi_osinfo *o, const char *root) {
    char text[TEXT], word[64];
    if (read_under(root, "proc/cpuinfo", text, sizeof text)) {
        if (!cpuinfo_field(text, "model name", o->cpu, sizeof o->cpu))
            (void)cpuinfo_field(text, "Model", o->cpu, sizeof o->cpu);
        if (cpuinfo_field(text, "cpu MHz", word, sizeof word)) o->mhz = strtod(word, NULL);
    }
#define FREQ "sys/devices/system/cpu/cpu0/cpufreq/"
    if (read_under(root, FREQ "scaling_governor", text, sizeof text))
        copy_word(o->governor, sizeof o->governor, text, strlen(text));
    double khz = number_under(root, FREQ "scaling_cur_freq");
    if (khz > 0) o->mhz = khz / 1000;
    o->mhz_most = number_under(root, FREQ "cpuinfo_max_freq") / 1000;
#undef FREQ
    uint8_t mask[MAX_CPUS] = {0};
    if (read_under(root, "sys/devices/system/cpu/online", text, sizeof text))
        o->cpus = qsi_list_parse(text, mask, MAX_CPUS);
    if (o->cpus < 1) o->cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The word in brackets: "always [madvise] never". */
static void read_huge_pages(qsi_osinfo *o, const char *root) {
    char text[128];
    if (!read_under(root, "sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text)) return;
    const char *open = strchr(text, '[');
    if (open != NULL)
        copy_word(o->huge_pages, sizeof o->huge_pages, open + 1, strcspn(open + 1, "]"));
}

static int landlock_abi(void) {
#ifdef SYS_landlock_create_ruleset
    long n = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1u /* version */);
    return n > 0 ? (int)n : 0;
#else
    return 0;
#endif
}

void qsi_osinfo_read(qsi_osinfo *o, const char *root) {
    char text[TEXT];
    *o = (qsi_osinfo){0};
    read_cpu(o, root);
    read_huge_pages(o, root);
    o->load = number_under(root, "proc/loadavg");
    if (read_under(root, "proc/meminfo", text, sizeof text)) {
        uint64_t kib = qsi_field(text, "MemTotal:");
        if (kib != UINT64_MAX) o->mem_total = kib * 1024;
    }
    o->seccomp = read_under(root, "proc/sys/kernel/seccomp/actions_avail", text, sizeof text) &&
                 strstr(text, "errno") != NULL;
    bool allowed = !read_under(root, "proc/sys/kernel/unprivileged_userns_clone", text,
                               sizeof text) || text[0] != '0';
    o->user_namespaces = allowed && number_under(root, "proc/sys/user/max_user_namespaces") > 0;
    o->landlock = landlock_abi();
}

/* ---- limits of control groups ---- */

uint64_t qsi_mem_limit_in(const char *folder) {
    static const char *const names[] = {"memory.max", "memory.limit_in_bytes"};
    char text[64];
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        if (!read_under(folder, names[i], text, sizeof text)) continue;
        if (text[0] < '0' || text[0] > '9') continue;
        uint64_t n = strtoull(text, NULL, 10);
        if (n < (uint64_t)1 << 60) return n; /* version 1 writes "none" as a huge number */
    }
    return UINT64_MAX;
}

static void least_limit(void *user, const char *folder) {
    uint64_t *least = user, n = qsi_mem_limit_in(folder);
    if (n < *least) *least = n;
}

uint64_t qsi_mem_limit(void) {
    uint64_t least = UINT64_MAX;
    qsi_cgroup_walk(QSI_CGROUP_LIST, QSI_CGROUP_MOUNT, "memory", least_limit, &least);
    return least;
}

static void least_quota(void *user, const char *folder) {
    double *least = user, quota = 0, period = 0;
    char text[64], *end;
    if (read_under(folder, "cpu.max", text, sizeof text)) {
        quota = strtod(text, &end);
        period = end != text ? strtod(end, NULL) : 0;
    } else {
        quota = number_under(folder, "cpu.cfs_quota_us");
        period = number_under(folder, "cpu.cfs_period_us");
    }
    if (quota > 0 && period > 0 && (*least <= 0 || quota / period < *least))
        *least = quota / period;
}

double qsi_cpu_quota(void) {
    double least = 0;
    qsi_cgroup_walk(QSI_CGROUP_LIST, QSI_CGROUP_MOUNT, "cpu", least_quota, &least);
    return least;
}

/* ---- file systems ---- */

void qsi_fs_kind(const char *path, char *buf, size_t cap) {
    static const struct { uint32_t magic; const char *name; } known[] = {
        {0xEF53, "ext4"}, {0x58465342, "xfs"}, {0x9123683E, "btrfs"}, {0x01021994, "tmpfs"},
        {0x794C7630, "overlay"}, {0x6969, "nfs"}, {0x65735546, "fuse"}, {0xFF534D42, "cifs"},
        {0xFE534D42, "smb"}, {0x2FC12FC1, "zfs"}, {0xF2F52010, "f2fs"}, {0x01021997, "9p"},
        {0x858458F6, "ramfs"}, {0x73717368, "squashfs"},
    };
    char at[4096];
    struct statfs s;
    snprintf(buf, cap, "unknown");
    int n = snprintf(at, sizeof at, "%s", path);
    if (n < 0 || (size_t)n >= sizeof at) return;
    while (statfs(at, &s) != 0) { /* up to the nearest folder that exists */
        char *slash = strrchr(at, '/');
        if (strcmp(at, "/") == 0 || strcmp(at, ".") == 0) return;
        if (slash == NULL) memcpy(at, ".", 2);
        else if (slash == at) at[1] = '\0';
        else *slash = '\0';
    }
    for (size_t i = 0; i < QSI_COUNT(known); i++)
        if (known[i].magic == (uint32_t)s.f_type) {
            snprintf(buf, cap, "%s", known[i].name);
            return;
        }
    snprintf(buf, cap, "0x%x", (unsigned)s.f_type);
}
