/* Small kernel files and this process's control group. Thread: any. */
#ifndef QSI_SYS_CGROUP_H
#define QSI_SYS_CGROUP_H

#include <stdbool.h>
#include <stddef.h>

/* Reads the start of a small file (at most cap - 1 bytes) into buf, NUL-terminated; false when it
 * cannot be read. No allocation. */
bool qsi_small_read(const char *path, char *buf, size_t cap);

/* Calls fn with each folder that limits this process: its cgroup (version 2, and the named version
 * 1 controller) and every ancestor, up to the root of the mount. */
typedef void qsi_cgroup_fn(void *user, const char *folder);
void qsi_cgroup_walk(const char *controller, qsi_cgroup_fn *fn, void *user);

#endif
