/* What the store holds, in lines or JSON. Thread: one owner. */
#ifndef QSI_HUB_LIST_H
#define QSI_HUB_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_list_opts {
    const char *root;
    bool json, verify;
    void (*out)(void *user, const char *text, size_t n);
    void *out_user;
    int (*progress)(void *user, const char *what, uint64_t done, uint64_t of);
    void *user;
} qsi_list_opts;
/* QS_E_CORRUPT, after everything was described, when a file is missing or has another size or (with
 * verify) another digest than when it was fetched. */
qs_status qsi_hub_list(const qsi_list_opts *o, qs_err *err) QS_MUST_CHECK;

#endif
