/* The model store: a folder ROOT/OWNER/NAME a model, with the files under the paths they have on the
 * hub and a manifest (.qiusuo.json) of those that are complete. A file being fetched is FILE.part, and
 * FILE.part.state says which bytes of it are there. Thread: one owner; a lock file keeps processes
 * apart. */
#ifndef QSI_HUB_STORE_H
#define QSI_HUB_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/str.h"
#include "sys/runfile.h"

typedef struct qsi_stored_file {
    const char *path;
    uint64_t size;
    const char *sha256, *git_blob; /* one of them at least */
} qsi_stored_file;
typedef struct qsi_stored {
    qsi_arena arena;
    const char *dir;              /* ROOT/OWNER/NAME */
    const char *source, *revision; /* "https://huggingface.co/OWNER/NAME"; "" when not known */
    qsi_stored_file *files;
    size_t n_files, cap_files;
} qsi_stored;

/* An empty record for dir. QS_E_NOMEM. */
qs_status qsi_stored_init(qsi_stored *s, const char *dir, qs_err *err) QS_MUST_CHECK;
void qsi_stored_release(qsi_stored *s);
/* Reads dir's manifest; no manifest leaves the record empty. */
qs_status qsi_stored_read(qsi_stored *s, const char *dir, qs_err *err) QS_MUST_CHECK;
/* Enters or replaces a file (strings are copied). */
qs_status qsi_stored_put(qsi_stored *s, const qsi_stored_file *f, qs_err *err) QS_MUST_CHECK;
qs_status qsi_stored_write(const qsi_stored *s, qs_err *err) QS_MUST_CHECK;
const qsi_stored_file *qsi_stored_find(const qsi_stored *s, const char *path);
/* The file is there with the size recorded. */
bool qsi_stored_there(const qsi_stored *s, const qsi_stored_file *f);

/* Calls visit for every model of the store, in order of names. */
typedef qs_status qsi_store_visit(void *user, const char *name, const qsi_stored *s, qs_err *err);
qs_status qsi_store_walk(const char *root, qsi_store_visit *visit, void *user, qs_err *err)
    QS_MUST_CHECK;
/* Removes one file, or with path NULL the model with everything in its folder; *bytes: what is free
 * now. QS_E_NOTFOUND when there is no such thing. */
qs_status qsi_store_remove(const char *root, const char *owner, const char *name, const char *path,
                           uint64_t *bytes, qs_err *err) QS_MUST_CHECK;

/* Takes the folder, which is made, for this process until qsi_lock_release. QS_E_STATE when another
 * one has it. */
qs_status qsi_store_lock(const char *dir, qsi_lock *lock, qs_err *err) QS_MUST_CHECK;

/* ---- a file being fetched ---- */
enum { QSI_PART_SEGMENTS = 8 };
typedef struct qsi_part {
    int fd;
    bool open;
    void *state;               /* the mapped state file */
    volatile uint64_t *done;   /* [n] */
    int n;                     /* segments */
    uint64_t begin[QSI_PART_SEGMENTS], end[QSI_PART_SEGMENTS];
} qsi_part;
/* Opens or makes `path`.part in dir, for a file of size bytes known as `identity` (its digest or entity
 * tag): what an earlier run left is kept when both are the same. */
qs_status qsi_part_open(qsi_part *p, const char *dir, const char *path, uint64_t size,
                        const char *identity, qs_err *err) QS_MUST_CHECK;
uint64_t qsi_part_done(const qsi_part *p);
void qsi_part_close(qsi_part *p);
/* Complete: flushes it and gives it its name. */
qs_status qsi_part_commit(qsi_part *p, const char *dir, const char *path, qs_err *err) QS_MUST_CHECK;
/* Damaged: removes it. */
void qsi_part_discard(qsi_part *p, const char *dir, const char *path);

#endif
