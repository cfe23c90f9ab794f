/* Preloaded into the program: reads of the file that FAILING_DISK_SIZE tells apart, from the
 * FAILING_DISK_AFTER-th large one on, fail as those of a broken disk do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>

#define LARGE 16384 /* reads of weights; headers and tables are smaller */

static _Atomic long seen;

static int broken(int fd, size_t n) {
    struct stat sb;
    const char *size = getenv("FAILING_DISK_SIZE"), *after = getenv("FAILING_DISK_AFTER");
    if (!size || !after || n < LARGE || fstat(fd, &sb) != 0) return 0;
    if (sb.st_size != (off_t)strtoll(size, NULL, 10)) return 0;
    return atomic_fetch_add(&seen, 1) >= strtol(after, NULL, 10);
}

typedef ssize_t pread_fn(int fd, void *buf, size_t n, off_t off);

static ssize_t pass(const char *name, int fd, void *buf, size_t n, off_t off) {
    pread_fn *real = NULL;
    if (broken(fd, n)) {
        errno = EIO;
        return -1;
    }
    *(void **)&real = dlsym(RTLD_NEXT, name);
    return real(fd, buf, n, off);
}

__attribute__((visibility("default"))) ssize_t pread(int fd, void *buf, size_t n, off_t off);
__attribute__((visibility("default"))) ssize_t pread64(int fd, void *buf, size_t n, off_t off);
ssize_t pread(int fd, void *buf, size_t n, off_t off) { return pass("pread", fd, buf, n, off); }
ssize_t pread64(int fd, void *buf, size_t n, off_t off) { return pass("pread64", fd, buf, n, off); }
