/* Text sources of training: files and folders as a stream of documents.
 *
 *   .jsonl       one object a line: {"text": "..."} or {"messages": [{"role", "content"}, ...]} with
 *                roles system, user, assistant; other keys are ignored
 *   other files  plain UTF-8 text: the whole file is a document, or (split "blank") every run of
 *                lines between blank lines
 *   folders      recursively, in bytewise order of their paths: *.txt, *.md, *.jsonl
 * A text longer than `doc_bytes` is cut into parts, at a blank line, else a line's end, else between
 * characters: the last such place before the limit. A leading byte-order mark is dropped.
 * Bytes that are not UTF-8 and lines that are not JSON are errors that name file and line.
 * Thread: owner. */
#ifndef QSI_TRAIN_SOURCE_H
#define QSI_TRAIN_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "tok/chat.h"
#include "train/trainconf.h"

typedef struct qsi_doc {
    uint32_t source;          /* index of the path given by the caller */
    const char *text;         /* plain: n bytes; chat: NULL */
    size_t n;
    bool first, last;         /* part of a cut text: the first, the last */
    const qsi_turn *turns;    /* chat: n_turns */
    size_t n_turns;
    uint64_t hash;            /* of the content */
    const char *file;         /* where it stands, for messages */
    int64_t line;
} qsi_doc;

/* Called for every document in order; everything in it is valid during the call only. */
typedef qs_status qsi_doc_fn(void *user, const qsi_doc *d, qs_err *err);

typedef struct qsi_source_opts {
    int64_t doc_bytes;
    bool split_blank;
} qsi_source_opts;

/* Files behind the given paths, in order: source of each and path, owned by the caller
 * (qsi_source_files_release). A folder without a usable file is an error. */
typedef struct qsi_source_file {
    char *path;
    uint32_t source;
} qsi_source_file;
typedef struct qsi_source_files {
    qsi_source_file *v;
    size_t n, cap;
    int64_t bytes;            /* together */
    uint64_t hash;            /* of all bytes, in order, with each file's source and kind */
} qsi_source_files;
qs_status qsi_source_scan(qsi_source_files *f, const qsi_strlist *paths, qs_err *err)
    QS_MUST_CHECK;
void qsi_source_files_release(qsi_source_files *f);
/* Runs fn over all documents. */
qs_status qsi_source_each(const qsi_source_files *f, const qsi_source_opts *o, qsi_doc_fn *fn,
                          void *user, qs_err *err) QS_MUST_CHECK;
/* The documents of one file's bytes (what each does per file; for tests and fuzzing). */
qs_status qsi_source_parse(const char *name, bool jsonl, const char *data, size_t n,
                           uint32_t source, const qsi_source_opts *o, qsi_doc_fn *fn, void *user,
                           qs_err *err) QS_MUST_CHECK;

#endif
