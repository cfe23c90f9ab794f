/* How much memory this process may use and does use: /proc and its control groups. */
#include <stdlib.h>
#include <unistd.h>

#include "sys/cgroup.h"
#include "sys/file.h"

static void least_room(void *user, const char *folder) {
    uint64_t *least = user, room = qsi_cgroup_room(folder);
    if (room < *least) *least = room;
}

uint64_t qsi_mem_available(void) {
    char text[4096];
    uint64_t least = UINT64_MAX;
    if (qsi_small_read("/proc/meminfo", text, sizeof(text))) {
        uint64_t kib = qsi_field(text, "MemAvailable:");
        if (kib != UINT64_MAX) least = kib * 1024;
    }
    qsi_cgroup_walk(QSI_CGROUP_LIST, QSI_CGROUP_MOUNT, "memory", least_room, &least);
    return least;
}

uint64_t qsi_mem_resident(void) {
    char text[256], *end;
    if (!qsi_small_read("/proc/self/statm", text, sizeof(text))) return 0;
    (void)strtoull(text, &end, 10);
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}
