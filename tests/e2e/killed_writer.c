/* Preloaded into the program: the WRITER_AT-th call that changes what "NAME.part" or its journal hold,
 * or what they are called, goes wrong. WRITER_FAULT says how: "kill" does half of a write and ends the
 * process as kill -9 does, "full" answers as a full disk does, from that call on. */
#undef _FILE_OFFSET_BITS /* or pwrite would be another name for pwrite64 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef ssize_t write_fn(int fd, const void *p, size_t n);
typedef ssize_t pwrite_fn(int fd, const void *p, size_t n, off_t off);
typedef int rename_fn(const char *from, const char *to);
typedef int unlink_fn(const char *path);

static _Atomic long seen;

static int is_part(const char *path) {
    const char *end = strstr(path, ".part");
    return end != NULL && (end[5] == '\0' || strcmp(end, ".part.journal") == 0);
}

static int is_part_fd(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = '\0';
    return is_part(path);
}

/* 'k', 'f', or 0: nothing happens to this call. */
static int fault(void) {
    const char *at = getenv("WRITER_AT"), *what = getenv("WRITER_FAULT");
    if (!at || !what) return 0;
    long i = atomic_fetch_add(&seen, 1), n = strtol(at, NULL, 10);
    return what[0] == 'k' ? (i == n ? 'k' : 0) : (i >= n ? 'f' : 0);
}

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((visibility("default"))) ssize_t write(int fd, const void *p, size_t n);
__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *p, size_t n, off_t off);
__attribute__((visibility("default"))) ssize_t pwrite64(int fd, const void *p, size_t n, off_t off);
__attribute__((visibility("default"))) int rename(const char *from, const char *to);
__attribute__((visibility("default"))) int unlink(const char *path);

ssize_t write(int fd, const void *p, size_t n) {
    write_fn *real = NULL;
    *(void **)&real = next("write");
    int f = is_part_fd(fd) ? fault() : 0;
    if (f == 'k') {
        (void)!real(fd, p, n / 2);
        raise(SIGKILL);
    }
    if (f == 'f') {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, p, n);
}

static ssize_t pass(const char *name, int fd, const void *p, size_t n, off_t off) {
    pwrite_fn *real = NULL;
    *(void **)&real = next(name);
    int f = is_part_fd(fd) ? fault() : 0;
    if (f == 'k') {
        (void)!real(fd, p, n / 2, off);
        raise(SIGKILL);
    }
    if (f == 'f') {
        errno = ENOSPC;
        return -1;
    }
    return real(fd, p, n, off);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t off) { return pass("pwrite", fd, p, n, off); }
ssize_t pwrite64(int fd, const void *p, size_t n, off_t off) {
    return pass("pwrite64", fd, p, n, off);
}

int rename(const char *from, const char *to) {
    rename_fn *real = NULL;
    *(void **)&real = next("rename");
    if (is_part(from) && fault() == 'k') raise(SIGKILL);
    return real(from, to);
}

int unlink(const char *path) {
    unlink_fn *real = NULL;
    *(void **)&real = next("unlink");
    if (is_part(path) && fault() == 'k') raise(SIGKILL);
    return real(path);
}
