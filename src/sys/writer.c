/* Atomic replacement of a file.
 *
 * Bytes go to a hidden temporary file beside the target; commit makes them durable and renames. At
 * any moment the target is the old file or the whole new one, also after kill -9 or a power cut.
 * A link is followed: the file it names is replaced. Devices, pipes and folders are refused.
 * A writer that is killed leaves its temporary file; the next one for the same target removes it:
 * whoever writes holds a lock on his.
 * A part writer's temporary file has a name that the next run finds, PATH.part, and a journal of the
 * pieces that are whole beside it (sys/marks.h).
 * Invariant: file offset = `flushed`, and flushed + fill bytes have been accepted. The first
 * failure sticks: later calls return it again and commit replaces nothing. */
#define _GNU_SOURCE /* realpath(path, NULL) */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/file.h"
#include "sys/marks.h"
#include "sys/oserr.h"

enum { BUFFER_BYTES = 1 << 18 };

struct qsi_writer {
    int fd;
    char *path, *temp; /* owned; temp is unlinked unless it was renamed */
    bool temp_made;
    bool nameless; /* temp was unlinked: the file lives as long as its descriptor */
    char *notes;   /* a part writer's journal, owned */
    bool keep;     /* it stays when the file is complete */
    qsi_marks journal;
    uint8_t *buf;
    size_t fill;
    uint64_t flushed;
    qs_status st; /* first failure, with its text in `why` */
    qs_err why;
};

static void writer_free(qsi_writer *w) {
    if (w == NULL) return;
    if (w->fd >= 0) close(w->fd);
    if (w->temp_made) unlink(w->temp);
    if (w->temp_made && w->notes != NULL) unlink(w->notes);
    qsi_marks_close(&w->journal);
    qsi_free(w->notes);
    qsi_free(w->path);
    qsi_free(w->temp);
    qsi_free(w->buf);
    qsi_free(w);
}

/* Length of the folder part of a path, with its slash; 0 when there is none. */
static size_t folder_len(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash - path) + 1 : 0;
}

/* The path that is to be replaced: links resolved, and only a regular file or nothing there. */
static qs_status resolve_target(const char *path, char **out, mode_t *mode, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    char *real = NULL;
    if (stat(path, &sb) == 0) {
        if (S_ISDIR(sb.st_mode)) QS_FAIL(err, QS_E_IO, "cannot write '%s': it is a folder", path);
        if (!S_ISREG(sb.st_mode)) {
            QS_FAIL(err, QS_E_IO, "cannot write '%s': it is not a regular file", path);
        }
        *mode = sb.st_mode & 0777;
        real = realpath(path, NULL);
        if (real == NULL) QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", path));
    } else if (errno != ENOENT) {
        QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", path));
    } else {
        *mode = 0;
    }
    *out = qsi_strdup(real != NULL ? real : path);
    if (*out == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
done:
    free(real);
    return st;
}

/* ".NAME.<digits>.<digits>.tmp"; begin: ".NAME." */
static bool is_temp_of(const char *name, const char *begin, size_t n) {
    if (strncmp(name, begin, n) != 0) return false;
    for (int part = 0; part < 2; part++) {
        size_t digits = strspn(name + n, "0123456789");
        if (digits == 0 || name[n + digits] != '.') return false;
        n += digits + 1;
    }
    return strcmp(name + n, "tmp") == 0;
}

/* A lock of the open file, not of the process; false when another has it, or there are no such locks. */
static bool lock_file(int fd) {
#ifdef F_OFD_SETLK
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &whole) == 0;
#else
    (void)fd;
    return false;
#endif
}

/* Removes temporary files of this target that nobody writes any more. */
static void remove_stale(const qsi_writer *w) {
    qsi_str dir = {0}, begin = {0};
    size_t n = folder_len(w->path);
    DIR *d = NULL;
    if ((n > 0 ? qsi_str_append(&dir, w->path, n) : qsi_str_puts(&dir, ".")) == QS_OK &&
        qsi_str_printf(&begin, ".%.200s.", w->path + n) == QS_OK)
        d = opendir(dir.data);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (!is_temp_of(e->d_name, begin.data, begin.len)) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) continue;
        if (lock_file(fd)) (void)unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    if (d != NULL) closedir(d);
    qsi_str_release(&dir);
    qsi_str_release(&begin);
}

/* Whether the new file is this writer's: locked where that can be, and not taken for stale before. */
static bool lock_temp(int fd) {
    struct stat sb;
    errno = 0;
    if (!lock_file(fd) && (errno == EAGAIN || errno == EACCES)) return false;
    return fstat(fd, &sb) != 0 || sb.st_nlink > 0;
}

/* Opens a new file ".NAME.PID.N.tmp" in the target's folder. */
static qs_status open_temp(qsi_writer *w, int access, qs_err *err) {
    static atomic_uint serial;
    qs_status st = QS_OK;
    qsi_str name = {0};
    size_t dir = folder_len(w->path);
    for (int tries = 0; tries < 100 && w->fd < 0; tries++) {
        qsi_str_clear(&name);
        QS_TRY(qsi_str_append(&name, w->path, dir));
        QS_TRY(qsi_str_printf(&name, ".%.200s.%ld.%u.tmp", w->path + dir, (long)getpid(),
                              atomic_fetch_add(&serial, 1)));
        w->fd = open(name.data, access | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd < 0 && errno != EEXIST && errno != EINTR) break;
        if (w->fd >= 0 && !lock_temp(w->fd)) {
            close(w->fd);
            w->fd = -1;
            errno = EEXIST;
        }
    }
    if (w->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", w->path));
    w->temp = name.data;
    w->temp_made = true;
    name = (qsi_str){0};
done:
    if (st == QS_E_NOMEM) st = qsi_err_set(err, st, "out of memory writing '%s'", w->path);
    qsi_str_release(&name);
    return st;
}

/* A writer with its buffer and nothing else. */
static qs_status create(qsi_writer **out, const char *path, qs_err *err) {
    qsi_writer *w = qsi_calloc(1, sizeof(*w));
    if (w != NULL) w->fd = w->journal.fd = -1;
    if (w != NULL) w->buf = qsi_alloc(BUFFER_BYTES, 1);
    if (w == NULL || w->buf == NULL) {
        writer_free(w);
        return qsi_err_set(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    }
    *out = w;
    return QS_OK;
}

qs_status qsi_writer_open(qsi_writer **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    mode_t mode = 0;
    qsi_writer *w = NULL;
    QS_TRY(create(&w, path, err));
    QS_TRY(resolve_target(path, &w->path, &mode, err));
    remove_stale(w);
    QS_TRY(open_temp(w, O_WRONLY, err));
    if (mode != 0) (void)!fchmod(w->fd, mode); /* keep the old file's mode where we may */
    *out = w;
    w = NULL;
done:
    writer_free(w);
    return st;
}

/* The temporary file is made as any other and loses its name at once. */
qs_status qsi_writer_open_temp(qsi_writer **out, const char *dir, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qsi_writer *w = NULL;
    QS_TRY(create(&w, dir, err));
    if (qsi_path_join(&path, dir, "qiusuo") != QS_OK || (w->path = qsi_strdup(path.data)) == NULL) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing to '%s'", dir);
    }
    QS_TRY(open_temp(w, O_RDWR, err));
    if (unlink(w->temp) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot write to '%s'", dir));
    w->temp_made = false;
    w->nameless = true;
    *out = w;
    w = NULL;
done:
    writer_free(w);
    qsi_str_release(&path);
    return st;
}

/* ---- over several runs ---- */

/* "PATH.part" and "PATH.part.journal". */
static qs_status part_names(const char *path, char **part, char **notes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    if (qsi_str_printf(&s, "%s.part", path) != QS_OK || (*part = qsi_strdup(s.data)) == NULL ||
        qsi_str_puts(&s, ".journal") != QS_OK || (*notes = qsi_strdup(s.data)) == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
done:
    qsi_str_release(&s);
    return st;
}

/* Opens PATH.part and makes it this writer's alone. */
static qs_status open_part(qsi_writer *w, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    w->fd = open(w->temp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (w->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", w->temp));
    errno = 0;
    bool held = !lock_file(w->fd) && (errno == EAGAIN || errno == EACCES);
    /* who had it may have finished meanwhile: the name is another file's then, or nobody's */
    if (held || fstat(w->fd, &sb) != 0 || sb.st_nlink == 0 || !S_ISREG(sb.st_mode))
        QS_FAIL(err, QS_E_IO, "cannot write '%s': another program is writing '%s'", w->path, w->temp);
done:
    return st;
}

/* Leaves of the part what its journal vouches for. */
static qs_status take_over(qsi_writer *w, qsi_origin origin, qsi_resume *r, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    qsi_marks_state found = QSI_MARKS_NONE;
    bool had = fstat(w->fd, &sb) == 0 && sb.st_size > 0;
    QS_TRY(qsi_marks_open(&w->journal, w->notes, true, w->fd, origin, &found, err));
    *r = (qsi_resume){.marks = w->journal.marks, .bytes = w->journal.end,
                      .other_source = had && found == QSI_MARKS_OTHER_SOURCE,
                      .other_options = had && found == QSI_MARKS_OTHER_OPTIONS};
    QS_TRY(qsi_marks_begin(&w->journal, w->notes, origin, err));
    if (ftruncate(w->fd, (off_t)r->bytes) != 0 || lseek(w->fd, (off_t)r->bytes, SEEK_SET) < 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", w->temp));
    w->flushed = r->bytes;
done:
    return st;
}

qs_status qsi_writer_open_part(qsi_writer **out, const char *path, qsi_origin origin, qsi_resume *r,
                               qs_err *err) {
    qs_status st = QS_OK;
    mode_t mode = 0;
    qsi_writer *w = NULL;
    QS_TRY(create(&w, path, err));
    QS_TRY(resolve_target(path, &w->path, &mode, err));
    QS_TRY(part_names(w->path, &w->temp, &w->notes, err));
    remove_stale(w);
    QS_TRY(open_part(w, err));
    QS_TRY(take_over(w, origin, r, err));
    w->temp_made = true;
    if (mode != 0) (void)!fchmod(w->fd, mode);
    *out = w;
    w = NULL;
done:
    writer_free(w);
    return st;
}

qs_status qsi_writer_whole(const char *path, qsi_origin origin, size_t marks, bool *whole,
                           qs_err *err) {
    qs_status st = QS_OK;
    char *real = NULL, *part = NULL, *notes = NULL;
    mode_t mode = 0;
    qsi_marks j = {.fd = -1};
    qsi_marks_state found = QSI_MARKS_NONE;
    struct stat sb;
    int fd = -1;
    *whole = false;
    QS_TRY(resolve_target(path, &real, &mode, err));
    QS_TRY(part_names(real, &part, &notes, err));
    fd = open(real, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode)) goto done;
    st = qsi_marks_open(&j, notes, false, fd, origin, &found, err);
    *whole = st == QS_OK && j.marks == marks && j.end == (uint64_t)sb.st_size;
    if (st == QS_E_NOTFOUND) st = QS_OK;
done:
    qsi_marks_close(&j);
    if (fd >= 0) close(fd);
    qsi_free(real);
    qsi_free(part);
    qsi_free(notes);
    return st;
}

void qsi_writer_keep_journal(qsi_writer *w) { w->keep = true; }

void qsi_writer_forget(const char *path) {
    char *real = NULL, *part = NULL, *notes = NULL;
    mode_t mode = 0;
    if (resolve_target(path, &real, &mode, NULL) == QS_OK &&
        part_names(real, &part, &notes, NULL) == QS_OK)
        (void)unlink(notes);
    qsi_free(real);
    qsi_free(part);
    qsi_free(notes);
}

void qsi_writer_leave(qsi_writer **pw) {
    if (*pw == NULL) return;
    if ((*pw)->notes != NULL && (*pw)->journal.marks > 0) (*pw)->temp_made = false;
    qsi_writer_abort(pw);
}

/* ---- writing ---- */

static qs_status give_up(qsi_writer *w, int e) {
    w->st = qsi_err_errno(&w->why, e, "cannot write '%s'", w->path);
    return w->st;
}

static qs_status report(const qsi_writer *w, qs_err *err) {
    if (w->st != QS_OK && err != NULL) *err = w->why;
    return w->st;
}

/* Mapped pages that cannot be had are EFAULT to a system call and no signal. Reading them here brings
 * the signal, and with it what sys/mapguard.h does: zeros, and a mark that their owner will find. */
static void touch(const uint8_t *p, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < n; i += page) (void)*(const volatile uint8_t *)(p + i);
    (void)*(const volatile uint8_t *)(p + n - 1);
}

static qs_status write_fully(qsi_writer *w, const uint8_t *p, size_t n) {
    bool touched = false;
    while (n > 0) {
        ssize_t k = write(w->fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0 && errno == EFAULT && !touched) {
            touch(p, n);
            touched = true;
            continue;
        }
        if (k < 0) return give_up(w, errno);
        p += k;
        n -= (size_t)k;
        w->flushed += (uint64_t)k;
    }
    return QS_OK;
}

static qs_status flush(qsi_writer *w) {
    if (w->st != QS_OK) return w->st;
    qs_status st = write_fully(w, w->buf, w->fill);
    if (st == QS_OK) w->fill = 0;
    return st;
}

qs_status qsi_writer_write(qsi_writer *w, const void *p, size_t n, qs_err *err) {
    const uint8_t *from = p;
    if (w->st != QS_OK) return report(w, err);
    if (n <= BUFFER_BYTES - w->fill) {
        if (n > 0) memcpy(w->buf + w->fill, from, n);
        w->fill += n;
        return QS_OK;
    }
    if (flush(w) != QS_OK) return report(w, err);
    if (n >= BUFFER_BYTES) {
        if (write_fully(w, from, n) != QS_OK) return report(w, err);
    } else {
        memcpy(w->buf, from, n);
        w->fill = n;
    }
    return QS_OK;
}

qs_status qsi_writer_mark(qsi_writer *w, qs_err *err) {
    QS_CHECK(w->notes != NULL);
    if (flush(w) == QS_OK)
        w->st = qsi_marks_add(&w->journal, w->notes, w->fd, w->flushed, &w->why);
    return report(w, err);
}

uint64_t qsi_writer_pos(const qsi_writer *w) { return w->flushed + w->fill; }

qs_status qsi_writer_patch(qsi_writer *w, uint64_t off, const void *p, size_t n, qs_err *err) {
    uint64_t pos = qsi_writer_pos(w);
    const uint8_t *from = p;
    if (w->st != QS_OK) return report(w, err);
    if (off > pos || n > pos - off) {
        w->st = qsi_err_set(&w->why, QS_E_RANGE,
                            "cannot patch '%s' at %llu: only %llu bytes written", w->path,
                            (unsigned long long)off, (unsigned long long)pos);
        return report(w, err);
    }
    if (flush(w) != QS_OK) return report(w, err);
    while (n > 0) {
        ssize_t k = pwrite(w->fd, from, n, (off_t)off);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            (void)give_up(w, errno);
            return report(w, err);
        }
        from += k;
        off += (uint64_t)k;
        n -= (size_t)k;
    }
    return QS_OK;
}

/* Makes the rename itself durable. File systems that cannot sync a folder say EINVAL: nothing more
 * can be done there. */
qs_status qsi_sync_folder(const char *path, qs_err *err) {
    qs_status st = QS_OK;
    int fd = -1;
    size_t dir = folder_len(path);
    char *folder = dir > 0 ? qsi_strdup(path) : qsi_strdup(".");
    if (folder == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    if (dir > 0) folder[dir] = '\0';
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) goto done; /* writable but not readable folder: cannot sync it */
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS) {
        QS_TRY(qsi_err_errno(err, errno, "cannot make '%s' durable", path));
    }
done:
    if (fd >= 0) close(fd);
    qsi_free(folder);
    return st;
}

qs_status qsi_writer_commit(qsi_writer **pw, qs_err *err) {
    qs_status st = QS_OK;
    qsi_writer *w = *pw;
    *pw = NULL;
    QS_CHECK(!w->nameless);
    if (flush(w) != QS_OK) goto done;
    if (fsync(w->fd) != 0) {
        (void)give_up(w, errno);
        goto done;
    }
    /* while it is open, and so locked; all its bytes are on the disk */
    if (rename(w->temp, w->path) != 0) {
        (void)give_up(w, errno);
        goto done;
    }
    w->temp_made = false;
    if (w->notes != NULL && !w->keep) (void)unlink(w->notes);
    int fd = w->fd;
    w->fd = -1;
    (void)close(fd);
    w->st = qsi_sync_folder(w->path, &w->why);
done:
    st = report(w, err);
    qsi_writer_leave(&w);
    return st;
}

void qsi_writer_abort(qsi_writer **pw) {
    if (*pw == NULL) return;
    writer_free(*pw);
    *pw = NULL;
}

qs_status qsi_writer_take_map(qsi_writer **pw, qsi_map *m, qs_err *err) {
    qs_status st = QS_OK;
    qsi_writer *w = *pw;
    const uint8_t *data = NULL;
    *pw = NULL;
    QS_CHECK(w->nameless);
    if (flush(w) != QS_OK) QS_TRY(report(w, err));
    if (w->flushed > PTRDIFF_MAX) QS_FAIL(err, QS_E_LIMIT, "too large for this machine");
    if (w->flushed > 0) {
        void *p = mmap(NULL, (size_t)w->flushed, PROT_READ, MAP_SHARED, w->fd, 0);
        if (p == MAP_FAILED) QS_TRY(qsi_err_errno(err, errno, "cannot map a temporary file"));
        data = p;
    }
    *m = (qsi_map){.data = data, .size = (size_t)w->flushed, .fd = w->fd};
    w->fd = -1;
done:
    writer_free(w);
    return st;
}
