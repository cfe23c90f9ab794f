/* What a hub's repository holds, and which of its files a person means. The listing comes from a
 * stranger: names are checked so that they lead nowhere but into the model's own folder.
 * Source: the Hugging Face Hub API (GET /api/models/OWNER/NAME/tree/REVISION). Thread: any. */
#ifndef QSI_HUB_REPO_H
#define QSI_HUB_REPO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"

#define QSI_HUB_MAX_FILES 20000
enum { QSI_HUB_NAME = 128, QSI_HUB_PATH = 512 };

/* "OWNER/NAME", "OWNER/NAME:FILE-OR-TYPE", "OWNER/NAME@REVISION:..." */
typedef struct qsi_hub_name {
    char owner[QSI_HUB_NAME], name[QSI_HUB_NAME], revision[QSI_HUB_NAME], what[QSI_HUB_PATH];
} qsi_hub_name;
/* QS_E_ARG with what is wrong. revision and what are "" when not given. */
qs_status qsi_hub_name_parse(qsi_hub_name *n, const char *text, qs_err *err) QS_MUST_CHECK;
/* A relative path without "..", hidden parts, back slashes or control characters. */
bool qsi_hub_path_ok(const char *path);

typedef struct qsi_hub_file {
    const char *path; /* in the repository's arena */
    uint64_t size;
    const char *sha256, *git_blob; /* one of them; NULL: not known */
    bool chosen;
} qsi_hub_file;
typedef struct qsi_hub_repo {
    qsi_arena arena;
    qsi_hub_file *files;
    size_t n_files, cap_files;
} qsi_hub_repo;
void qsi_hub_repo_release(qsi_hub_repo *r);
/* Adds a page of the listing. */
qs_status qsi_hub_repo_add(qsi_hub_repo *r, const char *json, size_t n, qs_err *err) QS_MUST_CHECK;
/* Marks the files that `what` means: a path, a type ("Q4_K_M"), or "": the only GGUF, or the whole
 * folder of weights. A split file brings its other parts. QS_E_ARG lists what there is. */
qs_status qsi_hub_choose(qsi_hub_repo *r, const char *what, qs_err *err) QS_MUST_CHECK;

#endif
