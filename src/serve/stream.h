/* Bytes from the scheduler's thread to a connection: a bounded queue with one writer and one reader.
 * Who writes never waits: a reader that is too slow ends the stream. Thread: the writer's functions one
 * thread at a time, the reader's likewise; both ends at once. */
#ifndef QSI_SERVE_STREAM_H
#define QSI_SERVE_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct qsi_stream qsi_stream;
/* max_bytes: most that may wait for the reader. Two holds: the writer's and the reader's. */
qs_status qsi_stream_create(qsi_stream **s, size_t max_bytes, qs_err *err) QS_MUST_CHECK;

/* Writer. QS_E_LIMIT: more waits than max_bytes (nothing was taken; the stream is broken for its reader
 * too); QS_E_NOMEM: likewise; QS_E_CANCELLED: the reader has gone. */
qs_status qsi_stream_write(qsi_stream *s, const void *p, size_t n) QS_MUST_CHECK;
/* Nothing more comes; gives up the writer's hold. */
void qsi_stream_end(qsi_stream *s);

/* Reader: up to n bytes that are there, 0 when none are. *end: nothing more will come. When none are and
 * it is not the end, wake(user) will be called once, by the writer's thread, when that changes; it must
 * not call back into the stream. */
size_t qsi_stream_read(qsi_stream *s, void *p, size_t n, bool *end, void (*wake)(void *), void *user);
/* Reader, at the end: what was written did not all fit; the answer is not whole. */
bool qsi_stream_broken(qsi_stream *s);
/* The reader goes: no wake comes after this returns; what waits is dropped; gives up its hold. */
void qsi_stream_leave(qsi_stream *s);

#endif
