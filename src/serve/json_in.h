/* Fields of a request: read with their kind and range, or refused by name. A field that is missing or
 * null is as if it had not been written, unless a reader says otherwise; names that nobody asks for are
 * ignored, as OpenAI's server does. Thread: owner. */
#ifndef QSI_SERVE_JSON_IN_H
#define QSI_SERVE_JSON_IN_H

#include "fmt/json.h"
#include "serve/refusal.h"

/* An object of the request and where it stands in it ("", "messages[3]"). */
typedef struct qsi_in {
    const qsi_json *j;
    qsi_refusal *no;
    char at[96];
} qsi_in;

/* The request itself; refuses what is no object. */
qsi_in qsi_in_root(const qsi_json *j, qsi_refusal *no);
/* Member `key`, which the caller knows to be an object; element i of array `key`, refused when it is
 * none. */
qsi_in qsi_in_member(const qsi_in *in, const char *key);
qsi_in qsi_in_element(const qsi_in *in, const char *key, size_t i);
/* "messages[3].content" */
const char *qsi_in_name(const qsi_in *in, const char *key, char out[128]);
/* Refuses field `key` with 400. */
void qsi_in_refuse(const qsi_in *in, const char *key, const char *fmt, ...) QS_PRINTF(3, 4);

bool qsi_in_has(const qsi_in *in, const char *key); /* and it is not null */
/* True when it is there and good; then *out is written. */
bool qsi_in_i64(const qsi_in *in, const char *key, int64_t lo, int64_t hi, int64_t *out);
bool qsi_in_f64(const qsi_in *in, const char *key, double lo, double hi, double *out);
bool qsi_in_bool(const qsi_in *in, const char *key, bool *out);
/* NULL when missing or refused. */
const char *qsi_in_text(const qsi_in *in, const char *key);
const qsi_json *qsi_in_object(const qsi_in *in, const char *key);
const qsi_json *qsi_in_array(const qsi_in *in, const char *key);
/* One of a list of words that NULL ends: its index, -1 when missing or refused. */
int qsi_in_word(const qsi_in *in, const char *key, const char *const *words);
/* Refuses unless the field is there. */
bool qsi_in_need(const qsi_in *in, const char *key);

#endif
