/* JSON as it is sent: commas by themselves, strings always valid UTF-8 (what is not becomes U+FFFD),
 * numbers in the fewest digits that read back the same. The first failure (memory) sticks in `st`.
 * Thread: owner. */
#ifndef QSI_SERVE_JSON_OUT_H
#define QSI_SERVE_JSON_OUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"
#include "fmt/json.h"

typedef struct qsi_jw {
    qsi_str *s;       /* appended to */
    qs_status st;
    bool comma;       /* a value stands in front */
} qsi_jw;

void qsi_jw_obj(qsi_jw *w);
void qsi_jw_end_obj(qsi_jw *w);
void qsi_jw_arr(qsi_jw *w);
void qsi_jw_end_arr(qsi_jw *w);
void qsi_jw_key(qsi_jw *w, const char *key);
void qsi_jw_str(qsi_jw *w, const char *p, size_t n);
void qsi_jw_z(qsi_jw *w, const char *z);
void qsi_jw_i64(qsi_jw *w, int64_t x);
/* Not a number: null; infinite: the largest number of that sign. */
void qsi_jw_f64(qsi_jw *w, double x);
void qsi_jw_f32(qsi_jw *w, float x);
void qsi_jw_bool(qsi_jw *w, bool x);
void qsi_jw_null(qsi_jw *w);
/* Text that is JSON already: a value, or several with commas between; nothing when n is 0. */
void qsi_jw_raw(qsi_jw *w, const char *p, size_t n);

void qsi_jw_key_z(qsi_jw *w, const char *key, const char *z);
void qsi_jw_key_str(qsi_jw *w, const char *key, const qsi_str *s);
void qsi_jw_key_i64(qsi_jw *w, const char *key, int64_t x);
void qsi_jw_key_f64(qsi_jw *w, const char *key, double x);
void qsi_jw_key_bool(qsi_jw *w, const char *key, bool x);
void qsi_jw_key_null(qsi_jw *w, const char *key);

#endif
