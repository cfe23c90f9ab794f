/* How much memory this process may use and does use: /proc and its control groups. */
#define _GNU_SOURCE /* MCL_ONFAULT */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "sys/cgroup.h"
#include "sys/file.h"
#include "sys/oserr.h"

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

void qsi_mem_trim(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

void qsi_mem_huge(void *p, size_t n) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)p + page - 1) / page * page, end = ((uintptr_t)p + n) / page * page;
    if (first < end) madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)p;
    (void)n;
#endif
}

uint64_t qsi_mem_lock_limit(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_MEMLOCK, &r) != 0 || r.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)r.rlim_cur;
}

qs_status qsi_mem_lock(qs_err *err) {
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) return QS_OK;
    int e = errno;
    if (e != ENOMEM && e != EPERM && e != EAGAIN)
        return qsi_err_errno(err, e, "cannot lock memory");
    return qsi_err_set(err, QS_E_LIMIT,
                       "cannot lock memory: the limit on locked memory (RLIMIT_MEMLOCK) is %llu "
                       "KiB, less than this process has mapped; raise it (ulimit -l unlimited, or "
                       "LimitMEMLOCK=infinity of a service) or leave --mlock out",
                       (unsigned long long)(qsi_mem_lock_limit() / 1024));
}

void qsi_mem_unlock(void) { (void)munlockall(); }
