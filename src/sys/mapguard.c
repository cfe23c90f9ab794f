/* A table of mapped ranges that the signal handler can read without a lock.
 *
 * A slot is taken by moving `state` from FREE to BUSY, filled, and published as USED (release; the
 * handler's acquire is its pair). The handler puts zero pages over the rest of the mapping (mmap on
 * fixed addresses is one system call, safe in a handler) and returns: the read is done again and gives
 * zeros. */
#define _GNU_SOURCE /* MAP_ANONYMOUS, syscall */
#include "sys/mapguard.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/oserr.h"

enum { FREE, BUSY, USED };
enum { PATH_TEXT = 200 };

typedef struct range {
    atomic_int state, failed;
    uintptr_t begin;
    size_t size;
    char path[PATH_TEXT];
} range;

static range ranges[QSI_MAPGUARD_MOST];
static atomic_int any_failed;
static char failed_path[PATH_TEXT]; /* of the first one: written once, before any_failed is 2 */
static struct sigaction before;
static size_t page_bytes;

void qsi_mapguard_add(const void *p, size_t n, const char *path) {
    for (size_t i = 0; i < QSI_COUNT(ranges); i++) {
        range *r = &ranges[i];
        int want = FREE;
        if (!atomic_compare_exchange_strong(&r->state, &want, BUSY)) continue;
        r->begin = (uintptr_t)p;
        r->size = n;
        snprintf(r->path, sizeof r->path, "%s", path);
        atomic_store(&r->failed, 0);
        atomic_store_explicit(&r->state, USED, memory_order_release);
        return;
    }
}

/* The slot whose range holds the address; handler. */
static range *find(uintptr_t at) {
    for (size_t i = 0; i < QSI_COUNT(ranges); i++) {
        range *r = &ranges[i];
        if (atomic_load_explicit(&r->state, memory_order_acquire) == USED && at >= r->begin &&
            at - r->begin < r->size)
            return r;
    }
    return NULL;
}

void qsi_mapguard_remove(const void *p) {
    range *r = p != NULL ? find((uintptr_t)p) : NULL;
    if (r != NULL) atomic_store(&r->state, FREE);
}

static void mark(range *r) {
    int none = 0;
    atomic_store(&r->failed, 1);
    if (atomic_compare_exchange_strong(&any_failed, &none, 1)) {
        memcpy(failed_path, r->path, sizeof failed_path);
        atomic_store(&any_failed, 2);
    }
}

/* Zero pages in place of what lies there. Asked of the kernel itself where that is simple: it swaps
 * whole pages under other readers, which is what is wanted; ThreadSanitizer's mmap takes it as a write
 * that races with them. */
static bool put_zeros(uintptr_t page, size_t n) {
    int prot = PROT_READ, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
#if defined(SYS_mmap) && UINTPTR_MAX > 0xffffffffu
    return syscall(SYS_mmap, page, n, prot, flags, -1, 0L) == (long)page;
#else
    return mmap((void *)page, n, prot, flags, -1, 0) != MAP_FAILED;
#endif
}

static void on_bus(int sig, siginfo_t *info, void *context) {
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    range *r = find(at);
    if (r != NULL) {
        uintptr_t page = at & ~(uintptr_t)(page_bytes - 1);
        size_t rest = r->begin + r->size - page;
        if (put_zeros(page, rest)) {
            mark(r);
            errno = saved;
            return;
        }
    }
    /* Not ours: the fault comes again under the handler that was there before. */
    sigaction(SIGBUS, &before, NULL);
    errno = saved;
}

qs_status qsi_fault_catch(qs_err *err) {
    qs_status st = QS_OK;
    static atomic_flag on = ATOMIC_FLAG_INIT;
    struct sigaction sa = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_RESTART};
    if (atomic_flag_test_and_set(&on)) goto done;
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGBUS, &sa, &before) != 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot catch faults of mapped files"));
done:
    return st;
}

static qs_status tell(const char *path, qs_err *err) {
    return qsi_err_set(err, QS_E_IO, "'%s' changed while it was in use: it became shorter, or its "
                       "disk fails; what was computed from it is not to be trusted", path);
}

qs_status qsi_map_intact(const void *p, qs_err *err) {
    if (atomic_load_explicit(&any_failed, memory_order_relaxed) == 0 || p == NULL) return QS_OK;
    const range *r = find((uintptr_t)p);
    return r == NULL || atomic_load(&r->failed) == 0 ? QS_OK : tell(r->path, err);
}

qs_status qsi_maps_intact(qs_err *err) {
    int state = atomic_load(&any_failed);
    return state == 0 ? QS_OK : tell(state == 2 ? failed_path : "a mapped file", err);
}
