/* How much memory this process may use and does use: /proc and its control groups. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sys/cgroup.h"
#include "sys/file.h"

/* The number after `key` at the start of a line, or UINT64_MAX. */
static uint64_t field(const char *text, const char *key) {
    size_t k = strlen(key);
    for (const char *p = text; p != NULL; p = strchr(p, '\n')) {
        if (*p == '\n') p++;
        if (strncmp(p, key, k) == 0) return strtoull(p + k, NULL, 10);
        if (*p == '\0') break;
    }
    return UINT64_MAX;
}

/* The number in folder/name, or UINT64_MAX ("max", missing). */
static uint64_t number_in(const char *folder, const char *name) {
    char path[1200], text[64];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (!qsi_small_read(path, text, sizeof(text))) return UINT64_MAX;
    if (text[0] < '0' || text[0] > '9') return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* Room left in one cgroup: limit - use, where file pages that nobody holds do not count as use. */
static void least_room(void *user, const char *folder) {
    uint64_t *least = user;
    char path[1200], stat_text[8192];
    uint64_t limit = number_in(folder, "memory.max"), use = number_in(folder, "memory.current");
    const char *key = "inactive_file ";
    if (limit == UINT64_MAX) {
        limit = number_in(folder, "memory.limit_in_bytes");
        use = number_in(folder, "memory.usage_in_bytes");
        key = "total_inactive_file ";
    }
    if (limit == UINT64_MAX || use == UINT64_MAX) return;
    snprintf(path, sizeof(path), "%s/memory.stat", folder);
    if (qsi_small_read(path, stat_text, sizeof(stat_text))) {
        uint64_t idle = field(stat_text, key);
        if (idle != UINT64_MAX) use = idle < use ? use - idle : 0;
    }
    uint64_t room = limit > use ? limit - use : 0;
    if (room < *least) *least = room;
}

uint64_t qsi_mem_available(void) {
    char text[4096];
    uint64_t least = UINT64_MAX;
    if (qsi_small_read("/proc/meminfo", text, sizeof(text))) {
        uint64_t kib = field(text, "MemAvailable:");
        if (kib != UINT64_MAX) least = kib * 1024;
    }
    qsi_cgroup_walk("memory", least_room, &least);
    return least;
}

uint64_t qsi_mem_resident(void) {
    char text[256];
    char *end;
    if (!qsi_small_read("/proc/self/statm", text, sizeof(text))) return 0;
    (void)strtoull(text, &end, 10);
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}
