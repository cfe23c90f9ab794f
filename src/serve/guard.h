/* Who may ask: API keys, names of this host, origins of web pages. Read once, then any thread.
 *
 * A browser carries requests of any page to any address, loopback too; so without keys a request must
 * name this host as people do (a page whose own name was pointed at 127.0.0.1 names another), and one
 * that comes from a page must come from ours or from an origin that was allowed. */
#ifndef QSI_SERVE_GUARD_H
#define QSI_SERVE_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { QSI_KEY_MAX = 256, QSI_KEYS_MAX = 1024 };

typedef struct qsi_guard qsi_guard;
typedef struct qsi_guard_opts { /* borrowed during create */
    const char *key_file;               /* a key a line, `#` begins a comment line; NULL: no keys */
    const char *const *hosts;           /* further names of this host */
    size_t n_hosts;
    const char *const *origins;         /* "https://example.org"; exact */
    size_t n_origins;
    const char *own_host;               /* that the server listens at */
    bool any_host;                      /* no browser can reach it (Unix socket) */
} qsi_guard_opts;
/* QS_E_IO, QS_E_ARG: the file, and what is wrong with it; never a key. */
qs_status qsi_guard_create(qsi_guard **g, const qsi_guard_opts *o, qs_err *err) QS_MUST_CHECK;
void qsi_guard_free(qsi_guard *g);
bool qsi_guard_has_keys(const qsi_guard *g);

/* "Bearer KEY" of Authorization, or the value of x-api-key (either may be NULL). True when it is one of
 * the keys, or none are asked for; takes equally long for every wrong key of a length. *client (0: no
 * key) tells keys apart. */
bool qsi_guard_key(const qsi_guard *g, const char *authorization, const char *api_key, uint64_t *client);
/* The value of Host, NULL when there is none. */
bool qsi_guard_host(const qsi_guard *g, const char *host);
/* The value of Origin (NULL: not from a page): allowed at all; *cross: another one than ours, which is
 * to be named in Access-Control-Allow-Origin. */
bool qsi_guard_origin(const qsi_guard *g, const char *origin, const char *host, bool *cross);

#endif
