/* Reading fields: see json_in.h. */
#include "serve/json_in.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *kind_name(const qsi_json *j) {
    switch (qsi_json_kind_of(j)) {
    case QSI_JSON_NULL: return "null";
    case QSI_JSON_BOOL: return "a boolean";
    case QSI_JSON_INT: return "an integer";
    case QSI_JSON_REAL: return "a number with a fraction";
    case QSI_JSON_STR: return "a string";
    case QSI_JSON_ARRAY: return "an array";
    case QSI_JSON_OBJECT: return "an object";
    default: return "missing";
    }
}

qsi_in qsi_in_root(const qsi_json *j, qsi_refusal *no) {
    if (qsi_json_kind_of(j) != QSI_JSON_OBJECT)
        qsi_refuse(no, 400, NULL, NULL, "the request is %s; a JSON object is wanted", kind_name(j));
    return (qsi_in){ .j = j, .no = no };
}

const char *qsi_in_name(const qsi_in *in, const char *key, char out[128]) {
    snprintf(out, 128, "%s%s%s", in->at, in->at[0] != '\0' && key[0] != '\0' ? "." : "", key);
    return out;
}

void qsi_in_refuse(const qsi_in *in, const char *key, const char *fmt, ...) {
    char name[128], text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    qsi_in_name(in, key, name);
    qsi_refuse(in->no, 400, NULL, name, "'%s' %s", name, text);
}

qsi_in qsi_in_member(const qsi_in *in, const char *key) {
    qsi_in out = { .j = qsi_json_get(in->j, key), .no = in->no };
    char name[128];
    snprintf(out.at, sizeof out.at, "%.95s", qsi_in_name(in, key, name));
    return out;
}

qsi_in qsi_in_element(const qsi_in *in, const char *key, size_t i) {
    qsi_in out = { .j = qsi_json_at(qsi_json_get(in->j, key), i), .no = in->no };
    char name[128];
    qsi_in_name(in, key, name);
    snprintf(out.at, sizeof out.at, "%.70s[%zu]", name, i);
    if (qsi_json_kind_of(out.j) != QSI_JSON_OBJECT)
        qsi_in_refuse(&out, "", "is %s; an object is wanted", kind_name(out.j));
    return out;
}

bool qsi_in_has(const qsi_in *in, const char *key) {
    qsi_json_kind k = qsi_json_kind_of(qsi_json_get(in->j, key));
    return k != QSI_JSON_MISSING && k != QSI_JSON_NULL;
}

bool qsi_in_need(const qsi_in *in, const char *key) {
    if (qsi_in_has(in, key)) return true;
    qsi_in_refuse(in, key, "is %s", qsi_json_get(in->j, key) != NULL ? "null" : "missing");
    return false;
}

static bool unfit(const qsi_in *in, const char *key, const char *want) {
    qsi_in_refuse(in, key, "is %s; %s is wanted", kind_name(qsi_json_get(in->j, key)), want);
    return false;
}

bool qsi_in_i64(const qsi_in *in, const char *key, int64_t lo, int64_t hi, int64_t *out) {
    int64_t x;
    if (!qsi_in_has(in, key)) return false;
    if (!qsi_json_as_i64(qsi_json_get(in->j, key), &x)) return unfit(in, key, "an integer");
    if (x < lo || x > hi) {
        if (hi == INT64_MAX)
            qsi_in_refuse(in, key, "is %lld; %lld is the least", (long long)x, (long long)lo);
        else
            qsi_in_refuse(in, key, "is %lld; it must be from %lld to %lld", (long long)x, (long long)lo,
                          (long long)hi);
        return false;
    }
    *out = x;
    return true;
}

bool qsi_in_f64(const qsi_in *in, const char *key, double lo, double hi, double *out) {
    double x;
    if (!qsi_in_has(in, key)) return false;
    if (!qsi_json_as_f64(qsi_json_get(in->j, key), &x)) return unfit(in, key, "a number");
    if (!isfinite(x) || x < lo || x > hi) {
        qsi_in_refuse(in, key, "is %g; it must be from %g to %g", x, lo, hi);
        return false;
    }
    *out = x;
    return true;
}

bool qsi_in_bool(const qsi_in *in, const char *key, bool *out) {
    if (!qsi_in_has(in, key)) return false;
    if (!qsi_json_as_bool(qsi_json_get(in->j, key), out)) return unfit(in, key, "true or false");
    return true;
}

const char *qsi_in_text(const qsi_in *in, const char *key) {
    if (!qsi_in_has(in, key)) return NULL;
    const char *s = qsi_json_as_str(qsi_json_get(in->j, key));
    if (s == NULL) unfit(in, key, "a string");
    return s;
}

static const qsi_json *of_kind(const qsi_in *in, const char *key, qsi_json_kind k, const char *want) {
    const qsi_json *j = qsi_json_get(in->j, key);
    if (!qsi_in_has(in, key)) return NULL;
    if (qsi_json_kind_of(j) == k) return j;
    unfit(in, key, want);
    return NULL;
}

const qsi_json *qsi_in_object(const qsi_in *in, const char *key) {
    return of_kind(in, key, QSI_JSON_OBJECT, "an object");
}

const qsi_json *qsi_in_array(const qsi_in *in, const char *key) {
    return of_kind(in, key, QSI_JSON_ARRAY, "an array");
}

int qsi_in_word(const qsi_in *in, const char *key, const char *const *words) {
    const char *s = qsi_in_text(in, key);
    char list[256] = "";
    size_t n = 0;
    if (s == NULL) return -1;
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], s) == 0) return i;
        int k = snprintf(list + n, sizeof list - n, "%s\"%s\"", i > 0 ? ", " : "", words[i]);
        n = k < 0 || n + (size_t)k >= sizeof list ? sizeof list - 1 : n + (size_t)k;
    }
    qsi_in_refuse(in, key, "is none of %s", list);
    return -1;
}
