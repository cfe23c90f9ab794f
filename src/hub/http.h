/* HTTP for the hub, by libcurl: small texts, and files in segments that go on where they were cut.
 *
 * Only http and https; from https never back to http; a token goes to the host it was given for and
 * to no other. A connection that carries nothing for a while is dropped and taken up again where it
 * ended, with growing pauses; progress starts the count of tries anew. What a server says about sizes
 * is checked, not believed. Thread: one owner. */
#ifndef QSI_HUB_HTTP_H
#define QSI_HUB_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"

typedef struct qsi_http_opts {
    const char *token;   /* NULL: none; printable ASCII without spaces; never shown */
    int stall_s;         /* seconds without a byte before a connection is dropped; 0: 30 */
    int tries;           /* failures in a row without progress before giving up; 0: 6 */
    int parallel;        /* connections at a time; 0: 4 */
    int (*waiting)(void *user); /* called while a text or a probe is awaited; other than 0 cancels */
    void *user;
} qsi_http_opts;
typedef struct qsi_http qsi_http;
/* QS_E_ARG: what is given as a token cannot be one. */
qs_status qsi_http_create(qsi_http **h, const qsi_http_opts *o, qs_err *err) QS_MUST_CHECK;
void qsi_http_free(qsi_http *h);

/* The body of a 200 answer, at most max bytes. *next: the URL of the next page (a Link header), or
 * empty. QS_E_NOTFOUND for 404, QS_E_ARG for 401 and 403. */
qs_status qsi_http_text(qsi_http *h, const char *url, size_t max, qsi_str *body, qsi_str *next,
                        qs_err *err) QS_MUST_CHECK;
/* Size and entity tag ("" when there is none) of what a URL gives; ranges: parts can be asked for.
 * size is UINT64_MAX when the server does not say. What follows '?' may be a key to the file and is not
 * shown in errors. */
qs_status qsi_http_probe(qsi_http *h, const char *url, uint64_t *size, bool *ranges, qsi_str *etag,
                         qs_err *err) QS_MUST_CHECK;

/* Bytes [begin, end) of a file; the first `done` of them are there. done lives where the caller wants
 * it to survive (a mapped file). */
typedef struct qsi_http_segment {
    uint64_t begin, end;
    volatile uint64_t *done;
} qsi_http_segment;
typedef struct qsi_http_file {
    const char *url, *name; /* name: for messages */
    int fd;                 /* written at the segments' offsets */
    bool ranges;            /* false: one segment from 0, always anew */
    uint64_t size;
    qsi_http_segment *segments;
    int n_segments;
} qsi_http_file;
/* Bytes that arrived since the last call; a return other than 0 cancels. */
typedef int qsi_http_progress(void *user, uint64_t bytes);
/* Fetches what is missing of all files. */
qs_status qsi_http_fetch(qsi_http *h, const qsi_http_file *files, size_t n, qsi_http_progress *progress,
                         void *user, qs_err *err) QS_MUST_CHECK;

#endif
