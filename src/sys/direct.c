/* Reading past the page cache. See direct.h.
 *
 * O_DIRECT wants offsets, sizes and memory aligned, so a piece is read with the rest of the blocks
 * that it begins and ends in. */
#define _GNU_SOURCE /* O_DIRECT */
#include "sys/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/crew.h"
#include "sys/file.h"
#include "sys/oserr.h"

#ifdef QS_DEBUG
static _Atomic int64_t fail_after = -1;
void qsi_direct_fail_after(int64_t n) { atomic_store(&fail_after, n); }
static bool injected(void) {
    return atomic_load(&fail_after) > 0 && atomic_fetch_sub(&fail_after, 1) == 1;
}
#else
void qsi_direct_fail_after(int64_t n) { (void)n; }
static bool injected(void) { return false; }
#endif

static ssize_t read_at(int fd, void *buf, size_t n, uint64_t off) {
    ssize_t got;
    if (injected()) {
        errno = EIO;
        return -1;
    }
    do {
        got = pread(fd, buf, n, (off_t)off);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Whether the file can be read directly: some file systems open it so and then refuse. */
static bool reads_directly(int fd) {
    void *block = qsi_alloc(2 * QSI_DIRECT_ALIGN, 1);
    if (block == NULL) return false;
    uintptr_t p = ((uintptr_t)block + QSI_DIRECT_ALIGN - 1) / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
    ssize_t got;
    do {
        got = pread(fd, (void *)p, QSI_DIRECT_ALIGN, 0);
    } while (got < 0 && errno == EINTR);
    bool ok = got >= 0 || errno != EINVAL;
    qsi_free(block);
    return ok;
}

qs_status qsi_direct_open(qsi_direct *d, int fd, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    char path[64];
    *d = (qsi_direct){.fd = -1, .name = name};
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    d->fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
    d->direct = d->fd >= 0 && reads_directly(d->fd);
    if (d->direct) goto done;
    if (d->fd >= 0) close(d->fd);
    d->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (d->fd < 0) d->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (d->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open '%s' once more", name));
done:
    return st;
}

void qsi_direct_close(qsi_direct *d) {
    if (d->fd > 0) close(d->fd);
    d->fd = -1;
}

size_t qsi_direct_room(size_t n) {
    return (n + 3 * QSI_DIRECT_ALIGN - 1) / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
}

qs_status qsi_direct_read(const qsi_direct *d, uint64_t off, size_t n, void *buf,
                          const uint8_t **at, size_t *moved, qs_err *err) {
    qs_status st = QS_OK;
    uint64_t begin = off / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
    size_t skip = (size_t)(off - begin), got = 0;
    size_t all = (skip + n + QSI_DIRECT_ALIGN - 1) / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
    while (got < skip + n) {
        /* after a short read, from the last whole block on */
        size_t from = got / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
        ssize_t k = read_at(d->fd, (char *)buf + from, all - from, begin + from);
        if (k < 0)
            QS_TRY(qsi_err_errno(err, errno, "cannot read '%s' at byte %llu", d->name,
                                 (unsigned long long)(begin + from)));
        if (from + (size_t)k <= got)
            QS_FAIL(err, QS_E_IO, "'%s' ends at byte %llu: it was cut short while in use", d->name,
                    (unsigned long long)(begin + got));
        got = from + (size_t)k;
    }
    if (!d->direct) (void)posix_fadvise(d->fd, (off_t)begin, (off_t)all, POSIX_FADV_DONTNEED);
    *at = (const uint8_t *)buf + skip;
    *moved = got;
done:
    return st;
}

/* ---- the disk's rate ---- */

enum { MAX_THREADS = 32 };
typedef struct rate_run {
    const qsi_direct *d;
    uint64_t from, left, size; /* left: bytes not yet handed out */
    size_t piece;
    int64_t out; /* pieces under way */
    void *buf[MAX_THREADS];
    qs_status st;
    qs_err err;
} rate_run;

static bool rate_take(void *user, int64_t job[QSI_CREW_JOB]) {
    rate_run *r = user;
    if (r->left == 0 || r->st != QS_OK) return false;
    job[0] = (int64_t)r->from;
    r->from = r->from + 2 * r->piece <= r->size ? r->from + r->piece : 0;
    r->left = r->left > r->piece ? r->left - r->piece : 0;
    r->out++;
    return true;
}

static qs_status rate_work(void *user, int thread, const int64_t job[QSI_CREW_JOB], qs_err *err) {
    rate_run *r = user;
    const uint8_t *at = NULL;
    size_t moved = 0;
    return qsi_direct_read(r->d, (uint64_t)job[0], r->piece, r->buf[thread], &at, &moved, err);
}

static void rate_end(void *user, const int64_t job[QSI_CREW_JOB], qs_status st, const qs_err *err) {
    rate_run *r = user;
    (void)job;
    r->out--;
    if (st == QS_OK || r->st != QS_OK) return;
    r->st = st;
    r->err = *err;
}

qs_status qsi_direct_rate(const qsi_direct *d, uint64_t from, uint64_t bytes, int n_threads,
                          size_t piece, double *rate, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    qsi_crew *crew = NULL;
    char *mem = NULL;
    if (n_threads < 1 || n_threads > MAX_THREADS || piece == 0 || piece % QSI_DIRECT_ALIGN != 0)
        QS_FAIL(err, QS_E_ARG, "measuring the disk with %d threads", n_threads);
    if (fstat(d->fd, &sb) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot look at '%s'", d->name));
    if ((uint64_t)sb.st_size < 2 * piece)
        QS_FAIL(err, QS_E_RANGE, "'%s' is too small to measure the disk with", d->name);
    from = from / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
    rate_run r = {.d = d, .from = from + piece <= (uint64_t)sb.st_size ? from : 0,
                  .left = bytes / piece * piece, .size = (uint64_t)sb.st_size, .piece = piece};
    bytes = r.left;
    size_t one = qsi_direct_room(piece);
    mem = qsi_alloc((size_t)n_threads + 1, one);
    if (mem == NULL) QS_FAIL(err, QS_E_NOMEM, "no memory to measure the disk");
    uintptr_t p = ((uintptr_t)mem + QSI_DIRECT_ALIGN - 1) / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN;
    for (int i = 0; i < n_threads; i++) r.buf[i] = (void *)(p + (size_t)i * one);
    int64_t t0 = qsi_now_ns();
    QS_TRY(qsi_crew_create(&crew, n_threads, &(qsi_crew_fns){rate_take, rate_work, rate_end}, &r,
                           err));
    qsi_crew_lock(crew);
    while (r.out > 0 || (r.left > 0 && r.st == QS_OK)) qsi_crew_wait(crew);
    qsi_crew_unlock(crew);
    double s = (double)(qsi_now_ns() - t0) * 1e-9;
    if (r.st != QS_OK) {
        if (err) *err = r.err;
        st = r.st;
        goto done;
    }
    *rate = (double)bytes / s;
done:
    qsi_crew_free(crew);
    qsi_free(mem);
    return st;
}
