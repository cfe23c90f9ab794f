/* Bytes, little endian: "qsjourn1", source, options, hash of these 24; then for every piece its end,
 * the hash of its bytes, and the hash of these 16. A record that is cut or wrong ends the journal. */
#include "sys/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/oserr.h"

#define MAGIC 0x316e72756f6a7371ull

enum { CHUNK = 1 << 20, HEAD = 32, MARK = 24 };

static void store(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t load(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* Reads n bytes at off; false when they are not all there. */
static bool read_at(int fd, void *out, size_t n, uint64_t off) {
    uint8_t *p = out;
    while (n > 0) {
        ssize_t k = pread(fd, p, n, (off_t)off);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return false;
        p += k;
        off += (uint64_t)k;
        n -= (size_t)k;
    }
    return true;
}

static qs_status write_at(int fd, const char *path, const uint8_t *p, size_t n, uint64_t off,
                          qs_err *err) {
    while (n > 0) {
        ssize_t k = pwrite(fd, p, n, (off_t)off);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return qsi_err_errno(err, errno, "cannot write '%s'", path);
        p += k;
        off += (uint64_t)k;
        n -= (size_t)k;
    }
    return QS_OK;
}

static uint64_t mark_offset(size_t i) { return HEAD + (uint64_t)i * MARK; }

/* Hash of bytes [from, to) of a file, a chunk at a time; false when they cannot be read. */
static bool hash_piece(int fd, uint64_t from, uint64_t to, uint8_t *chunk, uint64_t *out) {
    uint64_t h = 0;
    while (from < to) {
        size_t n = to - from < CHUNK ? (size_t)(to - from) : CHUNK;
        if (!read_at(fd, chunk, n, from)) return false;
        h = qsi_hash_seed(chunk, n, h);
        from += n;
    }
    *out = h;
    return true;
}

static void put_head(uint8_t head[HEAD], qsi_origin origin) {
    store(head, MAGIC);
    store(head + 8, origin.source);
    store(head + 16, origin.options);
    store(head + 24, qsi_hash(head, 24));
}

static qsi_marks_state read_head(int fd, qsi_origin origin) {
    uint8_t head[HEAD];
    if (!read_at(fd, head, HEAD, 0) || load(head) != MAGIC || load(head + 24) != qsi_hash(head, 24))
        return QSI_MARKS_NONE;
    if (load(head + 8) != origin.source) return QSI_MARKS_OTHER_SOURCE;
    if (load(head + 16) != origin.options) return QSI_MARKS_OTHER_OPTIONS;
    return QSI_MARKS_FITS;
}

/* Counts the marks whose pieces are intact, from the first on. */
static void check_marks(qsi_marks *j, int data, uint8_t *chunk) {
    uint8_t mark[MARK];
    uint64_t h = 0;
    while (read_at(j->fd, mark, MARK, mark_offset(j->marks))) {
        uint64_t end = load(mark);
        if (load(mark + 16) != qsi_hash(mark, 16) || end < j->end || end > INT64_MAX) break;
        if (!hash_piece(data, j->end, end, chunk, &h) || h != load(mark + 8)) break;
        j->end = end;
        j->marks++;
    }
}

qs_status qsi_marks_open(qsi_marks *j, const char *path, bool make, int data, qsi_origin origin,
                         qsi_marks_state *state, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t *chunk = qsi_alloc(CHUNK, 1);
    *j = (qsi_marks){.fd = -1};
    if (chunk == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", path);
    j->fd = open(path, (make ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (j->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open '%s'", path));
    *state = read_head(j->fd, origin);
    if (*state == QSI_MARKS_FITS) check_marks(j, data, chunk);
done:
    qsi_free(chunk);
    return st;
}

qs_status qsi_marks_begin(qsi_marks *j, const char *path, qsi_origin origin, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t head[HEAD];
    put_head(head, origin);
    if (ftruncate(j->fd, (off_t)mark_offset(j->marks)) != 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot write '%s'", path));
    QS_TRY(write_at(j->fd, path, head, HEAD, 0, err));
done:
    return st;
}

qs_status qsi_marks_add(qsi_marks *j, const char *path, int data, uint64_t end, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t mark[MARK];
    uint64_t h = 0;
    uint8_t *chunk = qsi_alloc(CHUNK, 1);
    if (chunk == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", path);
    if (!hash_piece(data, j->end, end, chunk, &h))
        QS_FAIL(err, QS_E_IO, "cannot read back what '%s' is to speak of", path);
    store(mark, end);
    store(mark + 8, h);
    store(mark + 16, qsi_hash(mark, 16));
    QS_TRY(write_at(j->fd, path, mark, MARK, mark_offset(j->marks), err));
    j->end = end;
    j->marks++;
done:
    qsi_free(chunk);
    return st;
}

void qsi_marks_close(qsi_marks *j) {
    if (j->fd >= 0) close(j->fd);
    *j = (qsi_marks){.fd = -1};
}
