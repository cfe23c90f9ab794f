/* Files that fail under a mapping: another process cuts the file, or its disk errs, and reading the
 * mapped pages raises SIGBUS. With the guard on, pages that cannot be had read as zeros, the mapping
 * is marked, and who uses it asks whether it is still whole before he believes what he computed.
 *
 * The handler is the process's: a library leaves it off until its program asks (qsi_fault_catch).
 * Thread: any. Functions named so run in the handler too; they take no lock. */
#ifndef QSI_SYS_MAPGUARD_H
#define QSI_SYS_MAPGUARD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

/* Catches SIGBUS from now on; one that is not of a registered mapping goes to the handler before. */
qs_status qsi_fault_catch(qs_err *err) QS_MUST_CHECK;

/* sys/file.c: a mapping begins and ends. Beyond MAPGUARD_MOST of them new ones are not guarded. */
enum { QSI_MAPGUARD_MOST = 1024 };
void qsi_mapguard_add(const void *p, size_t n, const char *path);
void qsi_mapguard_remove(const void *p);

/* QS_E_IO, naming the file, when pages of the mapping that begins at p could not be had. */
qs_status qsi_map_intact(const void *p, qs_err *err) QS_MUST_CHECK;
/* The same of every mapping since the program began, closed ones too; names one. */
qs_status qsi_maps_intact(qs_err *err) QS_MUST_CHECK;

#endif
