/* What helps or hinders speed on this machine. Thread: any. */
#ifndef QSI_MEASURE_DOCTOR_H
#define QSI_MEASURE_DOCTOR_H

#include <stdbool.h>

#include "sys/cpu.h"

/* One finding; texts are valid during the call. advice: a sentence on what would make it faster or
 * possible; "" when all is well. */
typedef void qsi_doctor_fn(void *user, const char *key, bool ok, const char *value,
                           const char *advice);

/* root as for qsi_osinfo_read; cache: the folder for what may be computed again. */
void qsi_doctor(const char *root, const char *cache, qsi_doctor_fn *fn, void *user);

/* The finding on CPU levels alone; refused as qsi_kern_refused. */
typedef const char *qsi_doctor_refused_fn(qsi_isa isa);
void qsi_doctor_levels(qsi_doctor_refused_fn *refused, qsi_doctor_fn *fn, void *user);

#endif
