/* JSON from strangers: a strict, bounded tree. Strict means RFC 8259, valid UTF-8, no key twice in
 * one object, nothing after the value, no NUL in strings; bounded means that bytes, nesting and the
 * number of values are limited before anything is built. Parsing is jansson's.
 * Nodes are borrowed from the root, which the caller frees. Thread: owner. */
#ifndef QSI_FMT_JSON_H
#define QSI_FMT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_JSON_MAX_DEPTH 64

typedef struct json_t qsi_json; /* jansson's own type; NULL stands for a missing value everywhere */

typedef struct qsi_json_limits {
    size_t bytes, values;
} qsi_json_limits;
/* Configuration files: small. */
#define QSI_JSON_SMALL_BYTES ((size_t)1 << 20)
#define QSI_JSON_SMALL ((qsi_json_limits){QSI_JSON_SMALL_BYTES, 1u << 16})

qs_status qsi_json_parse(qsi_json **root, const char *text, size_t n, qsi_json_limits limits,
                         qs_err *err) QS_MUST_CHECK;
void qsi_json_free(qsi_json **root);

typedef enum qsi_json_kind { QSI_JSON_MISSING, QSI_JSON_NULL, QSI_JSON_BOOL, QSI_JSON_INT,
                             QSI_JSON_REAL, QSI_JSON_STR, QSI_JSON_ARRAY,
                             QSI_JSON_OBJECT } qsi_json_kind;
qsi_json_kind qsi_json_kind_of(const qsi_json *j);
/* The member of an object; NULL when j is no object or has no such key. */
const qsi_json *qsi_json_get(const qsi_json *j, const char *key);
/* Elements of an array or members of an object; 0 for anything else. */
size_t qsi_json_size(const qsi_json *j);
/* Element i of an array, or NULL. */
const qsi_json *qsi_json_at(const qsi_json *j, size_t i);
/* Walks the members of an object: it = NULL starts, NULL ends. */
void *qsi_json_next(const qsi_json *j, void *it, const char **key, const qsi_json **value);

/* The value itself; false when it is of another kind. A number written as 1.0 is no integer; an
 * integer is a number. Strings are NUL-terminated and hold no other NUL. */
bool qsi_json_as_i64(const qsi_json *j, int64_t *out);
bool qsi_json_as_f64(const qsi_json *j, double *out);
bool qsi_json_as_bool(const qsi_json *j, bool *out);
const char *qsi_json_as_str(const qsi_json *j);

/* Members by name: QS_E_NOTFOUND when missing or null, QS_E_FORMAT when of another kind. */
qs_status qsi_json_i64(const qsi_json *j, const char *key, int64_t *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_json_f64(const qsi_json *j, const char *key, double *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_json_bool(const qsi_json *j, const char *key, bool *out, qs_err *err) QS_MUST_CHECK;
qs_status qsi_json_str(const qsi_json *j, const char *key, const char **out, qs_err *err)
    QS_MUST_CHECK;

#endif
