/* Preloaded into the program: the file SHRINK_PATH is cut to SHRINK_BYTES at the SHRINK_AT-th piece of a
 * mapping that the program has read and gives back, as if another program wrote it anew meanwhile. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int madvise_fn(void *p, size_t n, int advice);

static _Atomic long seen;

__attribute__((visibility("default"))) int madvise(void *p, size_t n, int advice);

int madvise(void *p, size_t n, int advice) {
    madvise_fn *real = NULL;
    const char *path = getenv("SHRINK_PATH"), *at = getenv("SHRINK_AT"), *bytes = getenv("SHRINK_BYTES");
    *(void **)&real = dlsym(RTLD_NEXT, "madvise");
    if (path && at && bytes && advice == MADV_DONTNEED) {
        bool now = atomic_fetch_add(&seen, 1) == strtol(at, NULL, 10);
        if (now && truncate(path, strtol(bytes, NULL, 10)) != 0) abort();
    }
    return real(p, n, advice);
}
