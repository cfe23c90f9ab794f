/* Control groups: the folders whose limits hold for this process.
 *
 * /proc/self/cgroup has lines "id:controllers:path"; version 2 is "0::path". Inside a container the
 * path may name folders that are not mounted here: those are skipped, the mount's root always
 * counts. */
#include "sys/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

void qsi_cgroup_walk(const char *controller, qsi_cgroup_fn *fn, void *user) {
    char text[4096], mount[64];
    if (!qsi_small_read("/proc/self/cgroup", text, sizeof(text))) return;
    for (char *line = text; line != NULL && *line != '\0';) {
        char *next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        char *list = strchr(line, ':');
        char *path = list != NULL ? strchr(list + 1, ':') : NULL;
        if (path != NULL) {
            size_t n = (size_t)(path - list - 1);
            if (n == 0) {
                walk_up("/sys/fs/cgroup", path + 1, fn, user);
            } else if (list_has(list + 1, n, controller)) {
                snprintf(mount, sizeof(mount), "/sys/fs/cgroup/%s", controller);
                walk_up(mount, path + 1, fn, user);
            }
        }
        line = next;
    }
}
