/* Reading large pieces of a file past the page cache, so that data used once does not push out what
 * is used again. Where the file system cannot (tmpfs), pieces are read through the cache and given
 * back at once. Thread: any; reading is thread-safe. */
#ifndef QSI_SYS_DIRECT_H
#define QSI_SYS_DIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Alignment of offsets, sizes and memory that every disk accepts. */
#define QSI_DIRECT_ALIGN ((size_t)4096)

typedef struct qsi_direct {
    int fd;
    bool direct; /* past the page cache */
    const char *name;
} qsi_direct;
/* Opens the file behind the open descriptor fd once more (it is the same file, whatever its path
 * names now). name stands in messages (borrowed). */
qs_status qsi_direct_open(qsi_direct *d, int fd, const char *name, qs_err *err) QS_MUST_CHECK;
void qsi_direct_close(qsi_direct *d);
/* Bytes of memory that reading n bytes needs, wherever they begin. */
size_t qsi_direct_room(size_t n);
/* Reads [off, off + n): *at points at the first byte within buf (QSI_DIRECT_ALIGN aligned,
 * qsi_direct_room(n) bytes), *moved says how much came from the disk. QS_E_IO: the disk failed, or
 * the file is shorter now. */
qs_status qsi_direct_read(const qsi_direct *d, uint64_t off, size_t n, void *buf,
                          const uint8_t **at, size_t *moved, qs_err *err) QS_MUST_CHECK;
/* The disk's sequential rate in bytes per second, now: `bytes` of the file from `from` on (around its
 * end when it is shorter), n_threads pieces of `piece` bytes under way at a time. */
qs_status qsi_direct_rate(const qsi_direct *d, uint64_t from, uint64_t bytes, int n_threads,
                          size_t piece, double *rate, qs_err *err) QS_MUST_CHECK;

/* Test hook (QS_DEBUG builds): the n-th read from now on fails as a disk does, once; negative: off. */
void qsi_direct_fail_after(int64_t n);

#endif
