/* Stop strings in a stream of text, across the borders of its pieces: text that may be the
 * beginning of a stop string is held back until that is decided. The text before the first stop
 * string is what comes out; the stop string itself never does. Thread: owner. */
#ifndef QSI_INFER_STOP_H
#define QSI_INFER_STOP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"
#include "base/str.h"

typedef struct qsi_stop {
    const char *const *stops; /* borrowed, NUL-terminated, none empty */
    size_t n_stops;
    qsi_str held;
    bool hit;
} qsi_stop;

/* QS_E_ARG for an empty stop string. */
qs_status qsi_stop_init(qsi_stop *s, const char *const *stops, size_t n_stops, qs_err *err)
    QS_MUST_CHECK;
void qsi_stop_release(qsi_stop *s);
/* Appends to out what is certain now. After a hit nothing more comes out. */
qs_status qsi_stop_push(qsi_stop *s, const char *p, size_t n, qsi_str *out) QS_MUST_CHECK;
/* The stream ended: what was held back comes out, unless a stop string was hit. */
qs_status qsi_stop_finish(qsi_stop *s, qsi_str *out) QS_MUST_CHECK;

#endif
