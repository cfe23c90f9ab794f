/* The journal of a file that is written over several runs: what it is made of, and which of its pieces
 * are whole. It lies beside the unfinished file. Every mark says where a piece ends and the hash of its
 * bytes, so that a run that goes on trusts only what it finds intact: after kill -9, a full disk, or a
 * power cut that lost pages. Thread: one owner. */
#ifndef QSI_SYS_MARKS_H
#define QSI_SYS_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* What a file is made of: any change of either makes an unfinished one worthless. */
typedef struct qsi_origin {
    uint64_t source, options;
} qsi_origin;

typedef enum qsi_marks_state {
    QSI_MARKS_NONE,          /* there was none, or it cannot be read */
    QSI_MARKS_FITS,
    QSI_MARKS_OTHER_SOURCE,
    QSI_MARKS_OTHER_OPTIONS
} qsi_marks_state;

typedef struct qsi_marks {
    int fd;
    size_t marks;  /* pieces known to be whole */
    uint64_t end;  /* bytes of the file that they cover */
} qsi_marks;

/* Opens the journal at path and checks its pieces in the file `data` (a descriptor for reading).
 * Unless it fits, marks and end are 0. path is the caller's to remove. QS_E_NOTFOUND, with `make`
 * false: there is none. */
qs_status qsi_marks_open(qsi_marks *j, const char *path, bool make, int data, qsi_origin origin,
                         qsi_marks_state *state, qs_err *err) QS_MUST_CHECK;
/* Forgets what stands behind the good marks (all of it, unless the journal fits), so that marks can
 * be added. */
qs_status qsi_marks_begin(qsi_marks *j, const char *path, qsi_origin origin,
                          qs_err *err) QS_MUST_CHECK;
/* The bytes of `data` from the last mark to `end` are a whole piece; they were written before. */
qs_status qsi_marks_add(qsi_marks *j, const char *path, int data, uint64_t end,
                        qs_err *err) QS_MUST_CHECK;
void qsi_marks_close(qsi_marks *j);

#endif
