/* See guard.h. Keys stand in fields of one size, padded with zeros, so that comparing takes the same
 * time wherever the first difference is and whichever key it is. */
#include "serve/guard.h"

#include <string.h>
#include <strings.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/file.h"
#include "sys/seed.h"

enum { KEY_FILE_MAX = 1 << 20 };

struct qsi_guard {
    bool any_host, keyed;
    unsigned char (*keys)[QSI_KEY_MAX];
    size_t n_keys, cap_keys;
    char **hosts, **origins;
    size_t n_hosts, n_origins;
};

static qs_status copy_list(char ***out, size_t *n_out, const char *const *list, size_t n,
                           const char *more) {
    *out = qsi_calloc(n + 1, sizeof **out);
    if (*out == NULL) return QS_E_NOMEM;
    for (size_t i = 0; i < n + (more != NULL); i++) {
        (*out)[i] = qsi_strdup(i < n ? list[i] : more);
        if ((*out)[i] == NULL) return QS_E_NOMEM;
        *n_out = i + 1;
    }
    return QS_OK;
}

static void free_list(char **list, size_t n) {
    for (size_t i = 0; list != NULL && i < n; i++) qsi_free(list[i]);
    qsi_free(list);
}

static bool printable(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] <= ' ' || p[i] > '~') return false;
    }
    return true;
}

static qs_status add_key(qsi_guard *g, const char *p, size_t n, const char *path, size_t line,
                         qs_err *err) {
    qs_status st = QS_OK;
    if (n >= QSI_KEY_MAX)
        QS_FAIL(err, QS_E_ARG,
                "line %zu of the key file '%s' is longer than a key may be (%d characters)", line,
                path, QSI_KEY_MAX - 1);
    if (!printable(p, n))
        QS_FAIL(err, QS_E_ARG,
                "line %zu of the key file '%s' is no key: keys are printable ASCII without "
                "spaces, one a line",
                line, path);
    if (g->n_keys == QSI_KEYS_MAX)
        QS_FAIL(err, QS_E_ARG, "the key file '%s' holds more than %d keys", path, QSI_KEYS_MAX);
    void *keys = g->keys;
    st = qsi_grow(&keys, &g->cap_keys, g->n_keys + 1, QSI_KEY_MAX);
    g->keys = keys;
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for keys");
    memset(g->keys[g->n_keys], 0, QSI_KEY_MAX);
    memcpy(g->keys[g->n_keys++], p, n);
done:
    return st;
}

static qs_status read_keys(qsi_guard *g, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    g->keyed = true;
    QS_TRY(qsi_file_read(path, KEY_FILE_MAX, &text, err));
    size_t line = 1;
    for (const char *p = text.data, *end = p + text.len; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (stop == NULL) stop = end;
        const char *last = stop;
        while (p < last && (*p == ' ' || *p == '\t')) p++;
        while (last > p && (last[-1] == ' ' || last[-1] == '\t' || last[-1] == '\r')) last--;
        if (last > p && *p != '#') QS_TRY(add_key(g, p, (size_t)(last - p), path, line, err));
        p = stop + 1;
    }
    if (g->n_keys == 0) QS_FAIL(err, QS_E_ARG, "the key file '%s' holds no key: write one a line", path);
done:
    if (text.data != NULL) memset(text.data, 0, text.cap);
    qsi_str_release(&text);
    return st;
}

qs_status qsi_guard_create(qsi_guard **out, const qsi_guard_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_guard *g = qsi_calloc(1, sizeof *g);
    if (g == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    g->any_host = o->any_host;
    if (copy_list(&g->hosts, &g->n_hosts, o->hosts, o->n_hosts, o->own_host) != QS_OK ||
        copy_list(&g->origins, &g->n_origins, o->origins, o->n_origins, NULL) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (o->key_file != NULL) QS_TRY(read_keys(g, o->key_file, err));
    /* With keys a name is no secret worth guarding, unless names were given. */
    if (g->keyed && o->n_hosts == 0) g->any_host = true;
    *out = g;
    g = NULL;
done:
    qsi_guard_free(g);
    return st;
}

void qsi_guard_free(qsi_guard *g) {
    if (g == NULL) return;
    if (g->keys != NULL) memset(g->keys, 0, g->n_keys * QSI_KEY_MAX);
    qsi_free(g->keys);
    free_list(g->hosts, g->n_hosts);
    free_list(g->origins, g->n_origins);
    qsi_free(g);
}

bool qsi_guard_has_keys(const qsi_guard *g) { return g->keyed; }

bool qsi_guard_key(const qsi_guard *g, const char *authorization, const char *api_key,
                   uint64_t *client) {
    unsigned char given[QSI_KEY_MAX] = {0};
    const char *key = api_key;
    *client = 0;
    if (!g->keyed) return true;
    if (authorization != NULL && strncasecmp(authorization, "Bearer ", 7) == 0) {
        key = authorization + 7;
        while (*key == ' ') key++;
    }
    const size_t n = key != NULL ? strlen(key) : 0;
    if (n == 0 || n >= QSI_KEY_MAX) return false;
    memcpy(given, key, n);
    unsigned found = 0;
    for (size_t i = 0; i < g->n_keys; i++) {
        unsigned differ = 0;
        for (size_t k = 0; k < QSI_KEY_MAX; k++) differ |= (unsigned)(given[k] ^ g->keys[i][k]);
        found |= (differ - 1) >> 31; /* 1 when nothing differs */
    }
    if (found) *client = qsi_hash_seed(given, sizeof given, qsi_process_seed()) | 1;
    return found != 0;
}

/* Length of the name in "name:port" or "[v6]:port". */
static size_t name_length(const char *host) {
    const char *from = host[0] == '[' ? strchr(host, ']') : host;
    if (from == NULL) return strlen(host);
    const char *colon = strchr(from, ':');
    return colon != NULL ? (size_t)(colon - host) : strlen(host);
}

static bool same_name(const char *p, size_t n, const char *name) {
    const size_t n_name = strlen(name);
    if (n == n_name && strncasecmp(p, name, n) == 0) return true;
    return n == n_name + 2 && p[0] == '[' &&
           strncasecmp(p + 1, name, n_name) == 0; /* a bare v6 address */
}

bool qsi_guard_host(const qsi_guard *g, const char *host) {
    static const char *const loopback[] = {"localhost", "127.0.0.1", "[::1]"};
    if (g->any_host || host == NULL) return true;
    const size_t n = name_length(host);
    for (size_t i = 0; i < QSI_COUNT(loopback); i++) {
        if (same_name(host, n, loopback[i])) return true;
    }
    for (size_t i = 0; i < g->n_hosts; i++) {
        if (same_name(host, n, g->hosts[i]) || strcasecmp(host, g->hosts[i]) == 0) return true;
    }
    return false;
}

bool qsi_guard_origin(const qsi_guard *g, const char *origin, const char *host, bool *cross) {
    *cross = false;
    if (origin == NULL) return true;
    /* A proxy may end TLS before us: the scheme says nothing, the rest must be what was asked for. */
    const char *rest = strstr(origin, "://");
    if (host != NULL && rest != NULL && strcasecmp(rest + 3, host) == 0) return true;
    *cross = true;
    for (size_t i = 0; i < g->n_origins; i++) {
        if (strcmp(origin, g->origins[i]) == 0) return true;
    }
    return false;
}
