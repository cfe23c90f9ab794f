/* Writing JSON: see json_out.h. */
#include "serve/json_out.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(qsi_jw *w, const char *p, size_t n) {
    if (w->st == QS_OK) w->st = qsi_str_append(w->s, p, n);
}

static void value(qsi_jw *w) {
    if (w->comma) put(w, ",", 1);
    w->comma = true;
}

static void open(qsi_jw *w, const char *bracket) {
    value(w);
    put(w, bracket, 1);
    w->comma = false;
}

static void shut(qsi_jw *w, const char *bracket) {
    put(w, bracket, 1);
    w->comma = true;
}

void qsi_jw_obj(qsi_jw *w) { open(w, "{"); }
void qsi_jw_end_obj(qsi_jw *w) { shut(w, "}"); }
void qsi_jw_arr(qsi_jw *w) { open(w, "["); }
void qsi_jw_end_arr(qsi_jw *w) { shut(w, "]"); }

void qsi_jw_key(qsi_jw *w, const char *key) {
    value(w);
    if (w->st == QS_OK) w->st = qsi_str_json(w->s, key, strlen(key));
    put(w, ":", 1);
    w->comma = false;
}

/* A copy in which every byte that is not UTF-8 is U+FFFD. */
static qs_status mend(qsi_str *out, const char *p, size_t n) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n && st == QS_OK;) {
        int len;
        bool bad = qsi_utf8_decode(p + i, n - i, &len) == QSI_UTF8_BAD;
        st = bad ? qsi_str_append(out, "\xef\xbf\xbd", 3) : qsi_str_append(out, p + i, (size_t)len);
        i += (size_t)len;
    }
    return st;
}

void qsi_jw_str(qsi_jw *w, const char *p, size_t n) {
    value(w);
    if (w->st != QS_OK) return;
    if (n == 0 || qsi_utf8_valid(p, n, NULL)) {
        w->st = qsi_str_json(w->s, n == 0 ? "" : p, n);
        return;
    }
    qsi_str good = { 0 };
    w->st = mend(&good, p, n);
    if (w->st == QS_OK) w->st = qsi_str_json(w->s, good.data, good.len);
    qsi_str_release(&good);
}

void qsi_jw_z(qsi_jw *w, const char *z) { qsi_jw_str(w, z, strlen(z)); }

void qsi_jw_i64(qsi_jw *w, int64_t x) {
    value(w);
    if (w->st == QS_OK) w->st = qsi_str_printf(w->s, "%lld", (long long)x);
}

void qsi_jw_f64(qsi_jw *w, double x) {
    char text[40];
    if (isnan(x)) {
        qsi_jw_null(w);
        return;
    }
    if (isinf(x)) x = x < 0 ? -DBL_MAX : DBL_MAX;
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    value(w);
    put(w, text, strlen(text));
}

void qsi_jw_f32(qsi_jw *w, float x) {
    char text[40];
    if (isnan(x)) {
        qsi_jw_null(w);
        return;
    }
    if (isinf(x)) x = x < 0 ? -FLT_MAX : FLT_MAX;
    for (int digits = 4; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    value(w);
    put(w, text, strlen(text));
}

void qsi_jw_bool(qsi_jw *w, bool x) {
    value(w);
    put(w, x ? "true" : "false", x ? 4 : 5);
}

void qsi_jw_null(qsi_jw *w) {
    value(w);
    put(w, "null", 4);
}

void qsi_jw_raw(qsi_jw *w, const char *p, size_t n) {
    if (n == 0) return;
    value(w);
    put(w, p, n);
}

void qsi_jw_key_z(qsi_jw *w, const char *key, const char *z) {
    qsi_jw_key(w, key);
    qsi_jw_z(w, z);
}

void qsi_jw_key_str(qsi_jw *w, const char *key, const qsi_str *s) {
    qsi_jw_key(w, key);
    qsi_jw_str(w, s->data, s->len);
}

void qsi_jw_key_i64(qsi_jw *w, const char *key, int64_t x) {
    qsi_jw_key(w, key);
    qsi_jw_i64(w, x);
}

void qsi_jw_key_f64(qsi_jw *w, const char *key, double x) {
    qsi_jw_key(w, key);
    qsi_jw_f64(w, x);
}

void qsi_jw_key_bool(qsi_jw *w, const char *key, bool x) {
    qsi_jw_key(w, key);
    qsi_jw_bool(w, x);
}

void qsi_jw_key_null(qsi_jw *w, const char *key) {
    qsi_jw_key(w, key);
    qsi_jw_null(w);
}
