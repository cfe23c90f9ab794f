/* Small kernel files and this process's control groups. Thread: any. No allocation. */
#ifndef QSI_SYS_CGROUP_H
#define QSI_SYS_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QSI_CGROUP_LIST "/proc/self/cgroup"
#define QSI_CGROUP_MOUNT "/sys/fs/cgroup"

/* Reads the start of a small file (at most cap - 1 bytes) into buf, NUL-terminated; false when it
 * is empty or cannot be read. */
bool qsi_small_read(const char *path, char *buf, size_t cap);

/* Calls fn with each folder that limits this process: its cgroup (version 2, and the named version
 * 1 controller) and every ancestor, up to the root of the mount. */
typedef void qsi_cgroup_fn(void *user, const char *folder);
void qsi_cgroup_walk(const char *list, const char *mount, const char *controller, qsi_cgroup_fn *fn,
                     void *user);

/* Processors that a folder's quota pays for, rounded up; 0: no quota. */
int qsi_cgroup_cpus(const char *folder);
/* Bytes left in a folder (limit - use, where cached file pages that nobody holds do not count as
 * use); UINT64_MAX: no limit. */
uint64_t qsi_cgroup_room(const char *folder);

/* The number that follows `key` at the start of a line, or UINT64_MAX. */
uint64_t qsi_field(const char *text, const char *key);

#endif
