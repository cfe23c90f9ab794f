/* Control groups: the folders whose limits hold for this process.
 *
 * /proc/self/cgroup has lines "id:controllers:path"; version 2 is "0::path". Inside a container the
 * path may name folders that are not mounted here: those are skipped, the mount's root always
 * counts. */
#include "sys/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool qsi_small_read(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t len = 0;
    while (len < cap - 1) {
        ssize_t n = read(fd, buf + len, cap - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        len += (size_t)n;
    }
    close(fd);
    buf[len] = '\0';
    return len > 0;
}

/* True when the comma-separated list holds the name. */
static bool list_has(const char *list, size_t n, const char *name) {
    size_t k = strlen(name);
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && list[end] != ',') end++;
        if (end - i == k && memcmp(list + i, name, k) == 0) return true;
        i = end + 1;
    }
    return false;
}

static void walk_up(const char *mount, const char *path, qsi_cgroup_fn *fn, void *user) {
    char folder[1024];
    struct stat sb;
    size_t root = strlen(mount);
    int n = snprintf(folder, sizeof(folder), "%s%s", mount, path);
    if (n < 0 || (size_t)n >= sizeof(folder)) return;
    size_t len = (size_t)n;
    while (len > root) {
        if (folder[len - 1] == '/') {
            folder[--len] = '\0';
            continue;
        }
        if (stat(folder, &sb) == 0) fn(user, folder);
        while (len > root && folder[len - 1] != '/') len--;
        folder[len] = '\0';
    }
    fn(user, mount);
}

void qsi_cgroup_walk(const char *list_path, const char *mount, const char *controller,
                     qsi_cgroup_fn *fn, void *user) {
    char text[4096], folder[512];
    if (!qsi_small_read(list_path, text, sizeof(text))) return;
    for (char *line = text; line != NULL && *line != '\0';) {
        char *next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        char *list = strchr(line, ':');
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;
        if (path != NULL) {
            size_t n = (size_t)(path - list - 1);
            if (n == 0) {
                walk_up(mount, path + 1, fn, user);
            } else if (list_has(list + 1, n, controller)) {
                snprintf(folder, sizeof(folder), "%s/%s", mount, controller);
                walk_up(folder, path + 1, fn, user);
            }
        }
        line = next;
    }
}

static bool read_in(const char *folder, const char *name, char *buf, size_t cap) {
    char path[1200];
    int n = snprintf(path, sizeof(path), "%s/%s", folder, name);
    return n > 0 && (size_t)n < sizeof(path) && qsi_small_read(path, buf, cap);
}

int qsi_cgroup_cpus(const char *folder) {
    char text[64], *end;
    long long quota, period;
    if (read_in(folder, "cpu.max", text, sizeof(text))) {
        quota = strtoll(text, &end, 10); /* "max" reads as 0 */
        period = strtoll(end, NULL, 10);
    } else {
        if (!read_in(folder, "cpu.cfs_quota_us", text, sizeof(text))) return 0;
        quota = strtoll(text, NULL, 10); /* -1: none */
        if (!read_in(folder, "cpu.cfs_period_us", text, sizeof(text))) return 0;
        period = strtoll(text, NULL, 10);
    }
    if (quota <= 0 || period <= 0) return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < INT_MAX ? (int)cpus : 0;
}

uint64_t qsi_field(const char *text, const char *key) {
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
    char text[64];
    if (!read_in(folder, name, text, sizeof(text))) return UINT64_MAX;
    if (text[0] < '0' || text[0] > '9') return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

uint64_t qsi_cgroup_room(const char *folder) {
    char text[8192];
    uint64_t limit = number_in(folder, "memory.max"), use = number_in(folder, "memory.current");
    const char *key = "inactive_file ";
    if (limit == UINT64_MAX) {
        limit = number_in(folder, "memory.limit_in_bytes");
        use = number_in(folder, "memory.usage_in_bytes");
        key = "total_inactive_file ";
    }
    if (limit == UINT64_MAX || use == UINT64_MAX) return UINT64_MAX;
    if (read_in(folder, "memory.stat", text, sizeof(text))) {
        uint64_t idle = qsi_field(text, key);
        if (idle != UINT64_MAX) use = idle < use ? use - idle : 0;
    }
    return limit > use ? limit - use : 0;
}
