/* FILE.part and FILE.part.state. The state is a mapped page that the writing updates after each write:
 * a process that is killed leaves it true, because both live in the system's page cache. After a loss
 * of power the two may disagree: the digest at the end finds that. */
#define _GNU_SOURCE /* flock, mmap flags */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "hub/store.h"
#include "sys/file.h"
#include "sys/oserr.h"

#define MAGIC 0x7472617071732f31ull
#define SEGMENT ((uint64_t)32 << 20) /* at least so many bytes a segment */

typedef struct state {
    uint64_t magic, size, identity, n;
    uint64_t done[QSI_PART_SEGMENTS];
} state;

static qs_status names(const char *dir, const char *path, qsi_str *part, qsi_str *st_file, qs_err *err) {
    if (qsi_path_join(part, dir, path) != QS_OK || qsi_str_puts(part, ".part") != QS_OK ||
        qsi_str_append(st_file, part->data, part->len) != QS_OK ||
        qsi_str_puts(st_file, ".state") != QS_OK)
        return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    return QS_OK;
}

static void cut(qsi_part *p, uint64_t size) {
    uint64_t n = (size + SEGMENT - 1) / SEGMENT;
    p->n = n > QSI_PART_SEGMENTS ? QSI_PART_SEGMENTS : (int)n;
    for (int i = 0; i < p->n; i++) {
        p->begin[i] = size / (uint64_t)p->n * (uint64_t)i;
        p->end[i] = i + 1 < p->n ? size / (uint64_t)p->n * (uint64_t)(i + 1) : size;
    }
}

/* What an earlier run left fits: same file, and the part is as long as the state says. */
static bool goes_on(const qsi_part *p, const state *s, uint64_t size, uint64_t identity,
                    uint64_t length) {
    if (s->magic != MAGIC || s->size != size || s->identity != identity || s->n != (uint64_t)p->n)
        return false;
    for (int i = 0; i < p->n; i++) {
        if (s->done[i] > p->end[i] - p->begin[i]) return false;
        if (s->done[i] > 0 && p->begin[i] + s->done[i] > length) return false;
    }
    return true;
}

static qs_status map_state(qsi_part *p, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return qsi_err_errno(err, errno, "cannot open '%s'", path);
    if (ftruncate(fd, (off_t)sizeof(state)) != 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", path));
    void *m = mmap(NULL, sizeof(state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED) QS_TRY(qsi_err_errno(err, errno, "cannot map '%s'", path));
    p->state = m;
done:
    close(fd);
    return st;
}

static qs_status make_parent(const char *file, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str dir = {0};
    const char *slash = strrchr(file, '/');
    if (slash == NULL || slash == file) return QS_OK;
    if (qsi_str_append(&dir, file, (size_t)(slash - file)) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(qsi_make_dirs(dir.data, err));
done:
    qsi_str_release(&dir);
    return st;
}

qs_status qsi_part_open(qsi_part *p, const char *dir, const char *path, uint64_t size,
                        const char *identity, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str part = {0}, state_file = {0};
    struct stat sb;
    *p = (qsi_part){.fd = -1};
    uint64_t id = qsi_hash(identity, strlen(identity));
    QS_TRY(names(dir, path, &part, &state_file, err));
    QS_TRY(make_parent(part.data, err));
    cut(p, size);
    p->fd = open(part.data, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (p->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open '%s'", part.data));
    p->open = true;
    if (fstat(p->fd, &sb) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot read '%s'", part.data));
    QS_TRY(map_state(p, state_file.data, err));
    state *s = p->state;
    if (!goes_on(p, s, size, id, (uint64_t)sb.st_size)) {
        if (ftruncate(p->fd, 0) != 0)
            QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", part.data));
        memset(s, 0, sizeof *s);
        *s = (state){.magic = MAGIC, .size = size, .identity = id, .n = (uint64_t)p->n};
    }
    p->done = s->done;
done:
    if (st != QS_OK) qsi_part_close(p);
    qsi_str_release(&part);
    qsi_str_release(&state_file);
    return st;
}

uint64_t qsi_part_done(const qsi_part *p) {
    uint64_t n = 0;
    for (int i = 0; i < p->n; i++) n += p->done[i];
    return n;
}

void qsi_part_close(qsi_part *p) {
    if (p->state != NULL) (void)munmap(p->state, sizeof(state));
    if (p->open) close(p->fd);
    *p = (qsi_part){.fd = -1};
}

qs_status qsi_part_commit(qsi_part *p, const char *dir, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str part = {0}, state_file = {0}, full = {0};
    QS_TRY(names(dir, path, &part, &state_file, err));
    if (qsi_path_join(&full, dir, path) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (fsync(p->fd) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", part.data));
    if (rename(part.data, full.data) != 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot rename '%s'", part.data));
    (void)unlink(state_file.data);
    qsi_part_close(p);
done:
    qsi_str_release(&part);
    qsi_str_release(&state_file);
    qsi_str_release(&full);
    return st;
}

void qsi_part_discard(qsi_part *p, const char *dir, const char *path) {
    qsi_str part = {0}, state_file = {0};
    if (names(dir, path, &part, &state_file, NULL) == QS_OK) {
        (void)unlink(part.data);
        (void)unlink(state_file.data);
    }
    qsi_part_close(p);
    qsi_str_release(&part);
    qsi_str_release(&state_file);
}
