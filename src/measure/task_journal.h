/* The journal of an evaluation: a line of JSON for what is evaluated, then one for each item of a
 * benchmark, or window of a text, that is done. A run that was killed goes on after its last whole
 * line; half a line at the end is dropped.
 *
 * One process has it at a time. Lines are written as items end and are on the disk a few seconds later
 * at the latest. A journal that says something else at its head than the run that wants to go on is
 * refused. Thread: owner. */
#ifndef QSI_MEASURE_TASK_JOURNAL_H
#define QSI_MEASURE_TASK_JOURNAL_H

#include "base/str.h"
#include "fmt/json.h"
#include "sys/runfile.h"

#define QSI_JOURNAL_MAX_BYTES ((size_t)4 << 30)
#define QSI_JOURNAL_MAX_LINE ((size_t)16 << 20)

typedef struct qsi_journal {
    qsi_append file;
    int64_t synced_ns;
    bool open;
} qsi_journal;

/* One line of a journal that is read back. */
typedef qs_status qsi_journal_fn(void *user, const qsi_json *line, qs_err *err);

/* head: one JSON object without line ends. With `resume`, a journal that exists is read: fn gets every
 * item's line, and what follows is appended. Otherwise the file is made; QS_E_STATE when it exists,
 * when its head differs (the message says in what), and when another process has it open. In place;
 * close copes with a zeroed struct. */
qs_status qsi_journal_open(qsi_journal *j, const char *path, const char *head, bool resume,
                           qsi_journal_fn *fn, void *user, qs_err *err) QS_MUST_CHECK;
/* One JSON object without line ends. */
qs_status qsi_journal_add(qsi_journal *j, const qsi_str *line, qs_err *err) QS_MUST_CHECK;
/* All of it is on the disk. */
qs_status qsi_journal_sync(qsi_journal *j, qs_err *err) QS_MUST_CHECK;
void qsi_journal_close(qsi_journal *j);

#endif
