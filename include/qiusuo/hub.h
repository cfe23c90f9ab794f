/* Qiusuo: the model store, and fetching models into it from a hub. Unstable until 1.0.
 * Threads: any; a store's model is worked on by one process at a time (QS_E_STATE for the second). */
#ifndef QIUSUO_HUB_H
#define QIUSUO_HUB_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/files.h"
#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qs_hub_opts {
    size_t size;        /* set by init */
    const char *store;  /* the store's folder; needed */
    const char *base;   /* of a hub with the Hugging Face API; NULL: https://huggingface.co */
    const char *token;  /* NULL: none. Printable ASCII; sent to base's host only, never shown */
    int32_t parallel;   /* connections at a time; 0: a default */
    int32_t stall_s;    /* a connection without a byte for so long is dropped; 0: a default */
    int32_t tries;      /* failures in a row without progress before giving up; 0: a default */
    int32_t again;      /* non-zero: fetch also what is there */
    /* Called now and then with what is done ("fetching", "checking") and bytes done and of all (0 and
     * 0 while the hub is asked what it has); a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, const char *what, uint64_t done, uint64_t of);
    void *user;
} qs_hub_opts;
QS_API void qs_hub_opts_init(qs_hub_opts *o, size_t size);

/* Fetches `name`: "OWNER/NAME", "OWNER/NAME:FILE" or "OWNER/NAME:TYPE" ("Q4_K_M"), each also with
 * "@REVISION" after NAME, or an http(s) URL of a file. Files appear under their names when they are
 * complete and their digests right; what an earlier run left unfinished goes on at the byte where it
 * ended. Writes the path to open into path[cap] (QS_E_RANGE when it does not fit). QS_E_CORRUPT: what
 * arrived is not what the hub promised; QS_E_UNSUPPORTED: built without libcurl and OpenSSL. */
QS_API qs_status qs_hub_pull(const qs_hub_opts *o, const char *name, char *path, size_t cap, qs_err *err)
    QS_MUST_CHECK;
/* The path of a model that is in the store, by the same names; nothing is fetched. QS_E_NOTFOUND. */
QS_API qs_status qs_hub_path(const char *store, const char *name, char *path, size_t cap, qs_err *err)
    QS_MUST_CHECK;

enum {
    QS_HUB_JSON = 1,  /* one JSON array instead of lines for people */
    QS_HUB_VERIFY = 2 /* compute every digest anew */
};
/* Describes what the store holds. QS_E_CORRUPT, after the whole description, when a file is missing or
 * differs. */
QS_API qs_status qs_hub_list(const qs_hub_opts *o, uint32_t flags, qs_text_fn *out, void *out_user,
                             qs_err *err) QS_MUST_CHECK;
/* Removes "OWNER/NAME", or one file of it. *bytes (may be NULL): what became free. */
QS_API qs_status qs_hub_remove(const char *store, const char *name, uint64_t *bytes, qs_err *err)
    QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
