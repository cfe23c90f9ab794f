/* The limits are enforced by a scan over the bytes before jansson sees them: it counts brackets and
 * commas outside strings, which bounds the values a parser could build. */
#include "fmt/json.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static qs_status scan(const char *text, size_t n, qsi_json_limits limits, qs_err *err) {
    size_t depth = 0, values = 1;
    bool in_string = false;
    if (n > limits.bytes) {
        return qsi_err_set(err, QS_E_LIMIT, "JSON of %zu bytes; at most %zu are allowed here", n,
                           limits.bytes);
    }
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            values++;
            if (++depth > QSI_JSON_MAX_DEPTH) {
                return qsi_err_at(err, QS_E_LIMIT, (int64_t)i, "JSON is nested deeper than %d",
                                  QSI_JSON_MAX_DEPTH);
            }
        } else if (c == ']' || c == '}') {
            depth -= depth > 0;
        } else if (c == ',') {
            values++;
        }
    }
    if (values > limits.values) {
        return qsi_err_set(err, QS_E_LIMIT,
                           "JSON with over %zu values; at most %zu are allowed here", values - 1,
                           limits.values);
    }
    return QS_OK;
}

/* jansson quotes the input in its messages: what a terminal would obey, or is not UTF-8, becomes
 * '?'. */
static void make_printable(char *z) {
    size_t n = strlen(z);
    for (size_t i = 0; i < n;) {
        int len = 1;
        uint32_t cp = qsi_utf8_decode(z + i, n - i, &len);
        if (cp == QSI_UTF8_BAD || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) {
            for (int k = 0; k < len; k++) z[i + (size_t)k] = '?';
        }
        i += (size_t)len;
    }
}

qs_status qsi_json_parse(qsi_json **root, const char *text, size_t n, qsi_json_limits limits,
                         qs_err *err) {
    qs_status st = QS_OK;
    json_error_t why;
    QS_TRY(scan(text, n, limits, err));
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (j == NULL && json_error_code(&why) == json_error_out_of_memory) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading JSON");
    }
    if (j == NULL) {
        make_printable(why.text);
        char line[32] = ""; /* one line may be one of a file: who cut it out knows its number */
        if (memchr(text, '\n', n) != NULL) snprintf(line, sizeof line, "line %d, ", why.line);
        QS_TRY(qsi_err_at(err, QS_E_FORMAT, why.position, "bad JSON in %scolumn %d: %s", line,
                          why.column, why.text));
    }
    *root = j;
done:
    return st;
}

void qsi_json_free(qsi_json **root) {
    json_decref(*root);
    *root = NULL;
}

qsi_json_kind qsi_json_kind_of(const qsi_json *j) {
    if (j == NULL) return QSI_JSON_MISSING;
    switch (json_typeof(j)) {
    case JSON_NULL: return QSI_JSON_NULL;
    case JSON_TRUE:
    case JSON_FALSE: return QSI_JSON_BOOL;
    case JSON_INTEGER: return QSI_JSON_INT;
    case JSON_REAL: return QSI_JSON_REAL;
    case JSON_STRING: return QSI_JSON_STR;
    case JSON_ARRAY: return QSI_JSON_ARRAY;
    default: return QSI_JSON_OBJECT;
    }
}

const qsi_json *qsi_json_get(const qsi_json *j, const char *key) { return json_object_get(j, key); }

size_t qsi_json_size(const qsi_json *j) {
    return json_is_array(j) ? json_array_size(j) : json_object_size(j);
}

const qsi_json *qsi_json_at(const qsi_json *j, size_t i) { return json_array_get(j, i); }

void *qsi_json_next(const qsi_json *j, void *it, const char **key, const qsi_json **value) {
    json_t *object = (json_t *)(uintptr_t)j; /* jansson's iterators are not const-correct */
    it = it == NULL ? json_object_iter(object) : json_object_iter_next(object, it);
    if (it != NULL) {
        *key = json_object_iter_key(it);
        *value = json_object_iter_value(it);
    }
    return it;
}

bool qsi_json_as_i64(const qsi_json *j, int64_t *out) {
    if (!json_is_integer(j)) return false;
    *out = (int64_t)json_integer_value(j);
    return true;
}

bool qsi_json_as_f64(const qsi_json *j, double *out) {
    if (!json_is_number(j)) return false;
    *out = json_number_value(j);
    return true;
}

bool qsi_json_as_bool(const qsi_json *j, bool *out) {
    if (!json_is_boolean(j)) return false;
    *out = json_is_true(j);
    return true;
}

const char *qsi_json_as_str(const qsi_json *j) { return json_string_value(j); }

static qs_status unfit(const qsi_json *v, const char *key, const char *want, qs_err *err) {
    if (v == NULL || json_is_null(v)) {
        return qsi_err_set(err, QS_E_NOTFOUND, "\"%s\" is missing", key);
    }
    return qsi_err_set(err, QS_E_FORMAT, "\"%s\" is not %s", key, want);
}

qs_status qsi_json_i64(const qsi_json *j, const char *key, int64_t *out, qs_err *err) {
    const qsi_json *v = qsi_json_get(j, key);
    return qsi_json_as_i64(v, out) ? QS_OK : unfit(v, key, "an integer", err);
}

qs_status qsi_json_f64(const qsi_json *j, const char *key, double *out, qs_err *err) {
    const qsi_json *v = qsi_json_get(j, key);
    return qsi_json_as_f64(v, out) ? QS_OK : unfit(v, key, "a number", err);
}

qs_status qsi_json_bool(const qsi_json *j, const char *key, bool *out, qs_err *err) {
    const qsi_json *v = qsi_json_get(j, key);
    return qsi_json_as_bool(v, out) ? QS_OK : unfit(v, key, "true or false", err);
}

qs_status qsi_json_str(const qsi_json *j, const char *key, const char **out, qs_err *err) {
    const qsi_json *v = qsi_json_get(j, key);
    const char *s = qsi_json_as_str(v);
    if (s == NULL) return unfit(v, key, "a string", err);
    *out = s;
    return QS_OK;
}
