/* Inside of JSON Schema: the schema as a tree, numbers as digits, and the pieces of JSON text as
 * expressions. Only grammar_schema*.c and its parts include this. */
#ifndef QSI_INFER_GRAMMAR_SCHEMA_H
#define QSI_INFER_GRAMMAR_SCHEMA_H

#include "infer/grammar_impl.h"

/* ---- a JSON text as a tree (grammar_json.c) ---- */

typedef enum gr_json_kind {
    GR_NULL,
    GR_FALSE,
    GR_TRUE,
    GR_NUMBER,
    GR_STRING,
    GR_ARRAY,
    GR_OBJECT
} gr_json_kind;
typedef struct gr_json gr_json;
struct gr_json {
    gr_json_kind kind;
    const char *s; /* a string decoded, a number as it is written */
    size_t n;      /* bytes of s, or members */
    gr_json **kids;
    const gr_json *parent;
    const char *key; /* its name in the parent, when that is an object */
    size_t n_key, index;
    uint32_t order; /* of its beginning in the text */
};
/* In the builder's arena. Strict JSON; a name twice in an object is an error too. */
gr_json *gr_json_read(gr_builder *b, const char *p, size_t n);
const gr_json *gr_json_get(const gr_json *v, const char *name); /* NULL: no object, or not in it */
const gr_json *gr_json_get_n(const gr_json *v, const char *name, size_t n);
bool gr_json_is(const gr_json *v, const char *word);    /* that string */
bool gr_json_equal(const gr_json *x, const gr_json *y); /* numbers by value, objects in any order */
double gr_json_double(const gr_json *v);
/* Where v stands, "#/properties/a", cut to fit; returns buf. */
enum { GR_POINTER = 200 };
char *gr_json_pointer(const gr_json *v, char buf[GR_POINTER]);

/* ---- numbers (grammar_number.c) ---- */

enum { GR_DIGITS = 48, GR_MAX_INT = 19, GR_MAX_FRAC = 18 };
typedef struct gr_decimal { /* without leading zeros in front (but "0") and trailing ones behind */
    bool neg;
    int n_int, n_frac;
    char i[GR_DIGITS], f[GR_DIGITS];
} gr_decimal;
/* false: more digits than GR_DIGITS. */
bool gr_decimal_read(const gr_json *v, gr_decimal *d);
int gr_decimal_compare(const gr_decimal *x, const gr_decimal *y);
typedef struct gr_span { /* of numbers */
    bool has_lo, has_hi, open_lo, open_hi;
    gr_decimal lo, hi;
} gr_span;
void gr_span_above(gr_span *s, const gr_decimal *d, bool open);
void gr_span_below(gr_span *s, const gr_decimal *d, bool open);
bool gr_span_has(const gr_span *s, const gr_decimal *d);
bool gr_span_apart(const gr_span *x, const gr_span *y);
/* Numbers of the span with at most max_frac digits behind the point (0: integers), without exponent. */
gr_expr *gr_numbers(gr_builder *b, const gr_span *s, int max_frac);
/* Any number. */
gr_expr *gr_any_number(gr_builder *b);
/* Multiples of k within the span; NULL without failure: that is not done (k or the span too large). */
gr_expr *gr_multiples(gr_builder *b, const gr_span *s, int64_t k);

/* ---- strings (grammar_string.c) ---- */

/* A class of characters as they are written within a JSON string: one spelling each. */
gr_expr *gr_spelled_class(gr_builder *b, const gr_charset *s);
/* A text in quotes, in its one spelling. */
gr_expr *gr_quoted(gr_builder *b, const char *p, size_t n);
/* e, an expression over plain characters without rules, as it is written within a JSON string. */
gr_expr *gr_spell(gr_builder *b, const gr_expr *e);
/* One character of a free string, in any spelling JSON knows but lone surrogates. */
gr_expr *gr_free_char(gr_builder *b);
/* What stands behind the opening quote of any name but these, the closing quote included. `rest` is
 * any characters, then the quote. */
typedef struct gr_name {
    const char *p;
    size_t n;
} gr_name;
gr_expr *gr_other_names(gr_builder *b, const gr_name *names, size_t n, uint32_t rest);
/* Characters that e, plain, matches at least and at most. */
void gr_length(const gr_expr *e, int64_t *lo, int64_t *hi);
/* e with that many characters only; NULL without failure: that is not done for this form of e. */
gr_expr *gr_with_length(gr_builder *b, gr_expr *e, int64_t lo, int64_t hi);
/* The regular expression of a format, NULL: not one that is enforced. */
const char *gr_format(const char *name, size_t n);
size_t gr_count_chars(const char *p, size_t n);

#endif
