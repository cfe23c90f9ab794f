/* Inside of JSON Schema: lists of schemas that apply to one value, and what they say together. Only
 * grammar_schema.c, grammar_spec.c and grammar_emit.c include this. */
#ifndef QSI_INFER_GRAMMAR_SPEC_H
#define QSI_INFER_GRAMMAR_SPEC_H

#include <stdio.h>

#include "infer/grammar_schema.h"

/* Parts of a schema that are dealt with already. */
#define GR_DONE_ANY 1u  /* anyOf */
#define GR_DONE_ONE 2u  /* oneOf */
#define GR_DONE_ENUM 4u /* enum and const */
#define GR_DONE_ALL 8u  /* everything (an old draft's $ref) */
#define GR_DONE_IN 16u  /* what $ref and allOf bring in is in the list */
typedef struct gr_entry {
    const gr_json *schema;
    uint32_t done;
    int parent; /* the entry whose $ref or allOf brought it, -1: none */
} gr_entry;
typedef struct gr_entries {
    gr_entry *e;
    size_t n, cap;
} gr_entries;
void gr_entries_add(gr_builder *b, gr_entries *l, gr_entry e);
void gr_entries_release(gr_entries *l);

typedef struct gr_conj {
    gr_entries l;
    uint64_t hash;
    uint32_t rule;
} gr_conj;

typedef struct gr_schema {
    gr_builder *b;
    const gr_json *root;
    bool ref_alone; /* what stands beside a $ref does not count */
    int depth;      /* of schemas compiled to try a value */
    gr_conj *lists; /* each has its rule; compiled in this order */
    size_t n_lists, cap_lists;
    uint32_t *table; /* open addressing over lists, index + 1 */
    size_t cap_table;
    uint32_t any, white, chars, spelled, number, integer, any_object, any_array; /* shared rules */
} gr_schema;
void gr_schema_init(gr_schema *c, gr_builder *b, const gr_json *root, int depth);
void gr_schema_release(gr_schema *c);
void gr_schema_compile(gr_schema *c, gr_entries *l); /* rule 0; takes l */
bool gr_schema_grow(gr_schema *c);
/* The rule of that list, made when there is none; takes l. */
uint32_t gr_schema_rule(gr_schema *c, gr_entries *l);
gr_expr *gr_schema_value(gr_schema *c, gr_entries *l);
gr_expr *gr_schema_colon(gr_schema *c);
gr_expr *gr_schema_comma(gr_schema *c);
/* open, lo to hi items with commas and white space, close. */
gr_expr *gr_schema_list(gr_schema *c, const char *open, gr_expr *item, int64_t lo, int64_t hi,
                        const char *close);
/* Fails: v (a keyword's value) cannot be enforced. */
gr_expr *gr_refuse(gr_builder *b, const gr_json *v, const char *why);

/* ---- what a list says together (grammar_spec.c) ---- */

#define GR_T_NULL 1u
#define GR_T_BOOL 2u
#define GR_T_OBJECT 4u
#define GR_T_ARRAY 8u
#define GR_T_STRING 16u
#define GR_T_INT 32u  /* numbers without a fraction */
#define GR_T_FRAC 64u /* the others */
#define GR_T_ALL 127u

typedef struct gr_values {
    const gr_json **v;
    size_t n, cap;
} gr_values;
typedef struct gr_spec {
    gr_schema *c;
    uint32_t types;
    bool constrained;  /* something else than the type is said */
    gr_values allowed; /* enum and const together, when has_allowed */
    bool has_allowed;
    const gr_json *allowed_by;
    gr_span span;
    const gr_json
        *number_by; /* the last keyword about numbers, strings: named when they do not go together */
    gr_values multiples, patterns, formats;
    int64_t len_lo, len_hi;
    const gr_json *string_by;
    gr_values objects, arrays; /* schemas with keywords about them */
    int64_t props_lo, props_hi, items_lo, items_hi;
    const gr_json *props_by;
    gr_values names;               /* propertyNames */
    gr_values no_object, no_array; /* keywords that are refused when such a value is possible */
    gr_entries entries;            /* a copy of the list */
} gr_spec;
/* Fails c->b for what is malformed or refused; s can be released in any case. */
void gr_spec_fold(gr_schema *c, const gr_entries *l, gr_spec *s);
void gr_spec_release(gr_spec *s);
/* True: surely no value satisfies both. */
bool gr_spec_apart(gr_schema *c, const gr_spec *x, const gr_spec *y, int depth);
/* What the list says about a property, or about item `index`; false: such a one is impossible. */
bool gr_spec_property(const gr_spec *s, const char *name, size_t n, gr_entries *out);
bool gr_spec_item(const gr_spec *s, size_t index, gr_entries *out);
size_t gr_spec_prefix(const gr_spec *s); /* items that have schemas of their own */
bool gr_spec_requires(const gr_spec *s, const char *name, size_t n);
/* Does the regular expression `pattern` match somewhere in the text? */
bool gr_pattern_matches(gr_schema *c, const gr_json *pattern, const char *p, size_t n);

/* ---- expressions (grammar_emit.c) ---- */

gr_expr *gr_spec_expr(gr_schema *c, gr_spec *s);

#endif
