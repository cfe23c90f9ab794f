/* Files of a long-running job; see runfile.h. */
#define _GNU_SOURCE /* F_OFD_SETLK */
#include "sys/runfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/file.h"
#include "sys/oserr.h"

#ifndef F_OFD_SETLK
#define F_OFD_SETLK F_SETLK
#endif

enum { RETRIES = 20, PAUSE_NS = 100000000 }; /* two seconds */

/* how: F_SETLK, the process's lock, which ends when it closes any descriptor of the file; or
 * F_OFD_SETLK, that of this one. */
static qs_status hold(int fd, int how, const char *path, qs_err *err) {
    struct flock f = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    /* a process that was just killed may still be on its way out */
    for (int i = 0; i < RETRIES; i++) {
        const struct timespec pause = {.tv_nsec = PAUSE_NS};
        if (fcntl(fd, how, &f) == 0) return QS_OK;
        if (errno != EACCES && errno != EAGAIN) break;
        if (i + 1 < RETRIES) nanosleep(&pause, NULL);
        else errno = EAGAIN;
    }
    if (errno == EACCES || errno == EAGAIN)
        return qsi_err_set(err, QS_E_STATE, "'%s' is held by another process", path);
    if (errno == ENOLCK || errno == EINVAL) return QS_OK; /* no locks on this file system */
    return qsi_err_errno(err, errno, "cannot lock '%s'", path);
}

qs_status qsi_lock_take(qsi_lock *l, const char *path, qs_err *err) {
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (l->fd < 0) return qsi_err_errno(err, errno, "cannot open '%s'", path);
    qs_status st = hold(l->fd, F_SETLK, path, err);
    if (st != QS_OK) qsi_lock_release(l);
    return st;
}

void qsi_lock_release(qsi_lock *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
}

static qs_status open_append(qsi_append *a, const char *path, int flags, qs_err *err) {
    *a = (qsi_append){.fd = -1, .path = qsi_strdup(path)};
    if (a->path == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    a->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0666);
    if (a->fd >= 0) return QS_OK;
    qs_status st = qsi_err_errno(err, errno, "cannot open '%s'", path);
    qsi_append_close(a);
    return st;
}

qs_status qsi_append_open(qsi_append *a, const char *path, qs_err *err) {
    return open_append(a, path, 0, err);
}

qs_status qsi_append_take(qsi_append *a, const char *path, qs_err *err) {
    qs_status st = open_append(a, path, O_CREAT, err);
    if (st == QS_OK) st = hold(a->fd, F_OFD_SETLK, path, err);
    if (st == QS_OK) st = qsi_sync_folder(path, err);
    if (st != QS_OK) qsi_append_close(a);
    return st;
}

qs_status qsi_append_cut(qsi_append *a, size_t n, qs_err *err) {
    if (ftruncate(a->fd, (off_t)n) == 0) return QS_OK;
    return qsi_err_errno(err, errno, "cannot cut '%s'", a->path);
}

qs_status qsi_append_write(qsi_append *a, const void *p, size_t n, qs_err *err) {
    ssize_t k;
    do k = write(a->fd, p, n);
    while (k < 0 && errno == EINTR);
    if (k == (ssize_t)n) return QS_OK;
    return qsi_err_errno(err, k < 0 ? errno : ENOSPC, "cannot write to '%s'", a->path);
}

qs_status qsi_append_sync(qsi_append *a, qs_err *err) {
    if (fsync(a->fd) == 0 || errno == EINVAL) return QS_OK; /* EINVAL: nothing to flush, a pipe */
    return qsi_err_errno(err, errno, "cannot write '%s' to the disk", a->path);
}

void qsi_append_close(qsi_append *a) {
    if (a->path != NULL && a->fd >= 0) close(a->fd);
    qsi_free(a->path);
    *a = (qsi_append){.fd = -1};
}

/* ".NAME.PID.N.tmp" with NAME beginning with prefix. */
static bool is_leftover(const char *name, const char *prefix) {
    size_t n = strlen(name), k = strlen(prefix);
    return name[0] == '.' && n > k + 5 && strncmp(name + 1, prefix, k) == 0 &&
           strcmp(name + n - 4, ".tmp") == 0;
}

void qsi_remove_leftovers(const char *dir, const char *prefix) {
    DIR *d = opendir(dir);
    if (d == NULL) return;
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        if (is_leftover(e->d_name, prefix)) (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

qs_status qsi_file_remove(const char *path, qs_err *err) {
    if (unlink(path) == 0 || errno == ENOENT) return QS_OK;
    return qsi_err_errno(err, errno, "cannot remove '%s'", path);
}
