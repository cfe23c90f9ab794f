/* An index of names: which of many entries is called x, and whether a name stands there twice.
 * The strings are borrowed. Lookups take constant time also for names made to collide: the hash is
 * seeded per index. Thread: lookups any, adding the owner's. */
#ifndef QSI_FMT_NAMES_H
#define QSI_FMT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_names_slot qsi_names_slot;
/* Zero-initialise to start. */
typedef struct qsi_names {
    qsi_names_slot *slots; /* a power of two of them, at most half used */
    size_t n_slots, n;
    uint64_t seed;
} qsi_names;

void qsi_names_release(qsi_names *t);
/* Enters name as entry `value`; *had is true, and nothing changes, when it was there already. Fails
 * only with QS_E_NOMEM. */
qs_status qsi_names_add(qsi_names *t, const char *name, uint32_t value, bool *had) QS_MUST_CHECK;
/* The entry called name, or -1. */
int64_t qsi_names_find(const qsi_names *t, const char *name);

/* What every name from a file must be, so that it can be shown and compared: not empty, UTF-8, no
 * control characters (C0, DEL, C1: a terminal would obey them). */
bool qsi_name_ok(const char *p, size_t n);

#endif
