/* Fetching models into the store. Thread: one owner. */
#ifndef QSI_HUB_PULL_H
#define QSI_HUB_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

#define QSI_HUB_BASE "https://huggingface.co"

typedef struct qsi_pull_opts {
    const char *root;    /* of the store */
    const char *base;    /* of the hub, with a path or without; NULL: QSI_HUB_BASE */
    const char *token;   /* NULL: none */
    int parallel, stall_s, tries; /* 0: the defaults of hub/http.h */
    bool again;          /* fetch also what is there */
    /* Bytes done and of all files (0 and 0 while the hub is asked what it has); a return other than 0
     * cancels. `what` is "fetching" or "checking". */
    int (*progress)(void *user, const char *what, uint64_t done, uint64_t of);
    void *user;
} qsi_pull_opts;

/* Fetches what text names: "OWNER/NAME[@REVISION][:FILE-OR-TYPE]", or an http(s) URL of one file, which
 * is stored as HOST/FILE. Files that are complete and unchanged are not fetched again. *path: what a
 * person opens: the file, the first part of a split file, or the folder. */
qs_status qsi_pull(const qsi_pull_opts *o, const char *text, qsi_str *path, qs_err *err) QS_MUST_CHECK;
/* The path of a stored model, by the same names; QS_E_NOTFOUND. */
qs_status qsi_store_path(const char *root, const char *text, qsi_str *path, qs_err *err) QS_MUST_CHECK;

#endif
