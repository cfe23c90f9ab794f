/* Reading files: read-only mappings and whole-file reads.
 *
 * A mapping is of a regular file only and keeps its descriptor. It does not protect against another
 * process that truncates the file while it is mapped; sys/mapguard.h does, when it is on. */
#define _GNU_SOURCE /* madvise: posix_madvise(DONTNEED) does nothing in glibc */
#include "sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/mapguard.h"
#include "sys/oserr.h"

static int open_retry(const char *path, int flags) {
    int fd;
    do {
        fd = open(path, flags);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

qs_status qsi_map_open(qsi_map *m, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    const uint8_t *data = NULL;
    /* O_NONBLOCK: opening a pipe must not wait for a writer. */
    int fd = open_retry(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        QS_TRY(qsi_err_errno(err, errno, "cannot open '%s'", path));
    }
    if (S_ISDIR(sb.st_mode)) QS_FAIL(err, QS_E_IO, "cannot open '%s': it is a folder", path);
    if (!S_ISREG(sb.st_mode)) {
        QS_FAIL(err, QS_E_IO, "cannot open '%s': it is not a regular file", path);
    }
    if ((uintmax_t)sb.st_size > PTRDIFF_MAX) {
        QS_FAIL(err, QS_E_LIMIT, "cannot open '%s': it is too large for this machine", path);
    }
    if (sb.st_size > 0) {
        void *p = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) QS_TRY(qsi_err_errno(err, errno, "cannot map '%s'", path));
        data = p;
        qsi_mapguard_add(p, (size_t)sb.st_size, path);
    }
    m->data = data;
    m->size = (size_t)sb.st_size;
    m->fd = fd;
done:
    if (st != QS_OK && fd >= 0) close(fd);
    return st;
}

void qsi_map_close(qsi_map *m) {
    if (m->data == NULL && m->size == 0 && m->fd <= 0) return; /* never opened */
    qsi_mapguard_remove(m->data);
    if (m->data != NULL) munmap((void *)(uintptr_t)m->data, m->size);
    if (m->fd >= 0) close(m->fd);
    *m = (qsi_map){.fd = -1};
}

/* Advice on [off, off + n) cut to the mapping; `inner` keeps pages that are only partly covered. */
static void advise(const qsi_map *m, size_t off, size_t n, bool inner, int advice) {
    if (m->data == NULL || off >= m->size) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t end = n < m->size - off ? off + n : m->size;
    if (inner) {
        off = (off + page - 1) / page * page;
        if (end != m->size) end = end / page * page;
    } else {
        off = off / page * page;
    }
    if (off >= end) return;
    madvise((void *)(uintptr_t)(m->data + off), end - off, advice);
}

void qsi_map_drop(const qsi_map *m, size_t off, size_t n) {
    advise(m, off, n, true, MADV_DONTNEED);
}

void qsi_map_will_need(const qsi_map *m, size_t off, size_t n) {
    advise(m, off, n, false, MADV_WILLNEED);
}

void qsi_map_random(const qsi_map *m) {
    advise(m, 0, m->size, false, MADV_RANDOM);
}

void qsi_map_huge(const qsi_map *m) {
#ifdef MADV_HUGEPAGE
    advise(m, 0, m->size, false, MADV_HUGEPAGE);
#else
    (void)m;
#endif
}

void qsi_map_populate(const qsi_map *m, size_t off, size_t n) {
    if (m->data == NULL || off >= m->size) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t end = n < m->size - off ? off + n : m->size;
    off = off / page * page;
#ifdef MADV_POPULATE_READ
    if (madvise((void *)(uintptr_t)(m->data + off), end - off, MADV_POPULATE_READ) == 0) return;
#endif
    for (const volatile uint8_t *p = m->data; off < end; off += page) (void)p[off];
}

int64_t qsi_map_mtime_ns(const qsi_map *m) {
    struct stat sb;
    if (fstat(m->fd, &sb) != 0) return 0;
    return (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec;
}

uint64_t qsi_map_stamp(const qsi_map *m, uint64_t seed) {
    struct stat sb;
    int64_t about[5] = {(int64_t)m->size};
    if (fstat(m->fd, &sb) == 0) {
        about[1] = (int64_t)sb.st_mtim.tv_sec;
        about[2] = (int64_t)sb.st_mtim.tv_nsec;
        about[3] = (int64_t)sb.st_ctim.tv_sec;
        about[4] = (int64_t)sb.st_ctim.tv_nsec;
    }
    return qsi_hash_seed(about, sizeof about, seed);
}

qs_status qsi_map_peek(const qsi_map *m, size_t off, void *out, size_t n, qs_err *err) {
    uint8_t *p = out;
    while (n > 0) {
        ssize_t k = pread(m->fd, p, n, (off_t)off);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return qsi_err_errno(err, errno, "cannot read a mapped file");
        if (k == 0) return qsi_err_set(err, QS_E_IO, "a mapped file became shorter");
        p += k;
        off += (size_t)k;
        n -= (size_t)k;
    }
    return QS_OK;
}

/* Reads to the end of fd; more than max bytes is an error. */
static qs_status read_all(int fd, const char *name, size_t max, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    enum { PIECE = 1 << 16 };
    char *piece = qsi_alloc(PIECE, 1);
    if (piece == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", name);
    for (;;) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) QS_TRY(qsi_err_errno(err, errno, "cannot read '%s'", name));
        if (n == 0) break;
        if ((size_t)n > max - out->len) {
            QS_FAIL(err, QS_E_LIMIT, "'%s' is longer than the %zu bytes allowed here", name, max);
        }
        if (qsi_str_append(out, piece, (size_t)n) != QS_OK) {
            QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s' at byte %zu", name, out->len);
        }
    }
    if (out->data == NULL && qsi_str_append(out, "", 0) != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", name);
    }
done:
    qsi_free(piece);
    return st;
}

qs_status qsi_file_read(const char *path, size_t max, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    struct stat sb;
    bool std_in = strcmp(path, "-") == 0;
    int fd = std_in ? STDIN_FILENO : open_retry(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        QS_TRY(qsi_err_errno(err, errno, "cannot open '%s'", path));
    }
    if (S_ISDIR(sb.st_mode)) QS_FAIL(err, QS_E_IO, "cannot read '%s': it is a folder", path);
    QS_TRY(read_all(fd, std_in ? "standard input" : path, max, &text, err));
    qsi_str_release(out);
    *out = text;
    text = (qsi_str){0};
done:
    qsi_str_release(&text);
    if (!std_in && fd >= 0) close(fd);
    return st;
}
