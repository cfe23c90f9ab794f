/* Keywords of several schemas folded into what they say together: see grammar_spec.h. */
#include <string.h>

#include "base/str.h"
#include "infer/grammar_spec.h"

enum { MAX_APART_DEPTH = 3 };

static void wrong(gr_spec *s, const gr_json *v, const char *what) {
    char buf[GR_POINTER];
    gr_fail(s->c->b, QS_E_FORMAT, "schema, %s: %s", gr_json_pointer(v, buf), what);
}

static void push(gr_spec *s, gr_values *l, const gr_json *v) {
    if (s->c->b->st != QS_OK) return;
    if (qsi_grow((void **)&l->v, &l->cap, l->n + 1, sizeof *l->v) != QS_OK)
        gr_fail(s->c->b, QS_E_NOMEM, "out of memory");
    else l->v[l->n++] = v;
}

static bool expect(gr_spec *s, const gr_json *v, gr_json_kind kind, const char *what) {
    if (v->kind != kind) wrong(s, v, what);
    return v->kind == kind;
}

/* ---- single keywords ---- */

static uint32_t type_bits(gr_spec *s, const gr_json *v) {
    static const struct {
        const char *name;
        uint32_t bits;
    } known[] = {
        { "null", GR_T_NULL },
        { "boolean", GR_T_BOOL },
        { "object", GR_T_OBJECT },
        { "array", GR_T_ARRAY },
        { "string", GR_T_STRING },
        { "integer", GR_T_INT },
        { "number", GR_T_INT | GR_T_FRAC },
    };
    for (size_t i = 0; i < QSI_COUNT(known); i++)
        if (gr_json_is(v, known[i].name)) return known[i].bits;
    wrong(s, v, "an unknown type");
    return 0;
}

static void fold_type(gr_spec *s, const gr_json *v, const gr_json *schema) {
    uint32_t bits = 0;
    const gr_json *null = gr_json_get(schema, "nullable");
    if (v->kind == GR_ARRAY)
        for (size_t i = 0; i < v->n; i++) bits |= type_bits(s, v->kids[i]);
    else bits = type_bits(s, v);
    if (null && null->kind == GR_TRUE) bits |= GR_T_NULL;
    s->types &= bits;
}

static bool is_whole(const gr_json *v) {
    gr_decimal d;
    return gr_decimal_read(v, &d) ? d.n_frac == 0 : false;
}

static uint32_t type_of(const gr_json *v) {
    switch (v->kind) {
    case GR_NULL: return GR_T_NULL;
    case GR_TRUE:
    case GR_FALSE: return GR_T_BOOL;
    case GR_NUMBER: return is_whole(v) ? GR_T_INT : GR_T_FRAC;
    case GR_STRING: return GR_T_STRING;
    case GR_ARRAY: return GR_T_ARRAY;
    case GR_OBJECT: return GR_T_OBJECT;
    }
    return 0;
}

static bool among(const gr_json *v, const gr_json *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (gr_json_equal(v, list[i])) return true;
    return false;
}

/* Only values of the list are left. */
static void fold_values(gr_spec *s, const gr_json *by, const gr_json *const *list, size_t n) {
    gr_values left = { 0 };
    if (n > 0 && s->allowed.n > 10000000 / n) {
        gr_refuse(s->c->b, by, "two such long lists for one value");
        return;
    }
    if (!s->has_allowed)
        for (size_t i = 0; i < n; i++) push(s, &left, list[i]);
    for (size_t i = 0; s->has_allowed && i < s->allowed.n; i++)
        if (among(s->allowed.v[i], list, n)) push(s, &left, s->allowed.v[i]);
    qsi_free(s->allowed.v);
    s->allowed = left;
    s->has_allowed = true;
    s->allowed_by = by;
}

static void fold_bound(gr_spec *s, const gr_json *v, const gr_json *schema) {
    gr_decimal d;
    bool low = memcmp(v->key + v->n_key - 6, "inimum", 6) == 0; /* of the four names */
    bool open = v->n_key > 7;
    s->number_by = v;
    if (v->kind == GR_TRUE || v->kind == GR_FALSE) return; /* draft 04: read with the bound */
    if (!expect(s, v, GR_NUMBER, "a number is expected")) return;
    if (!gr_decimal_read(v, &d)) {
        gr_refuse(s->c->b, v, "a number of so many digits");
        return;
    }
    if (!open) {
        const gr_json *also = gr_json_get(schema, low ? "exclusiveMinimum" : "exclusiveMaximum");
        open = also && also->kind == GR_TRUE;
    }
    if (low) gr_span_above(&s->span, &d, open);
    else gr_span_below(&s->span, &d, open);
}

/* A count, as minLength has it; false: malformed. */
static bool count_of(gr_spec *s, const gr_json *v, int64_t *n) {
    gr_decimal d;
    if (!expect(s, v, GR_NUMBER, "a number is expected")) return false;
    if (!gr_decimal_read(v, &d) || d.neg || d.n_frac > 0)
        return wrong(s, v, "a count is expected"), false;
    *n = 0;
    for (int i = 0; i < d.n_int; i++) *n = *n > GR_MAX_COUNT ? *n : *n * 10 + (d.i[i] - '0');
    return true;
}

static void fold_count(gr_spec *s, const gr_json *v, bool least, int64_t *lo, int64_t *hi) {
    int64_t n;
    if (!count_of(s, v, &n)) return;
    if (least && n > *lo) *lo = n;
    if (!least && n < *hi) *hi = n;
}

/* ---- the table of keywords ---- */

typedef enum word {
    W_NONE,
    W_TYPE,
    W_ENUM,
    W_CONST,
    W_BOUND,
    W_MULTIPLE,
    W_MIN_LENGTH,
    W_MAX_LENGTH,
    W_PATTERN,
    W_FORMAT,
    W_OBJECT,
    W_MIN_PROPS,
    W_MAX_PROPS,
    W_NAMES,
    W_ARRAY,
    W_MIN_ITEMS,
    W_MAX_ITEMS,
    W_UNIQUE,
    W_NO_OBJECT,
    W_NO_ARRAY,
    W_UNEVALUATED,
    W_NOT,
    W_IF,
    W_NEVER
} word;

static const struct {
    const char *name;
    word w;
} words[] = {
    { "type", W_TYPE },
    { "enum", W_ENUM },
    { "const", W_CONST },
    { "minimum", W_BOUND },
    { "maximum", W_BOUND },
    { "exclusiveMinimum", W_BOUND },
    { "exclusiveMaximum", W_BOUND },
    { "multipleOf", W_MULTIPLE },
    { "minLength", W_MIN_LENGTH },
    { "maxLength", W_MAX_LENGTH },
    { "pattern", W_PATTERN },
    { "format", W_FORMAT },
    { "properties", W_OBJECT },
    { "required", W_OBJECT },
    { "additionalProperties", W_OBJECT },
    { "patternProperties", W_OBJECT },
    { "minProperties", W_MIN_PROPS },
    { "maxProperties", W_MAX_PROPS },
    { "propertyNames", W_NAMES },
    { "items", W_ARRAY },
    { "prefixItems", W_ARRAY },
    { "additionalItems", W_ARRAY },
    { "minItems", W_MIN_ITEMS },
    { "maxItems", W_MAX_ITEMS },
    { "uniqueItems", W_UNIQUE },
    { "contains", W_NO_ARRAY },
    { "unevaluatedItems", W_UNEVALUATED },
    { "dependentRequired", W_NO_OBJECT },
    { "dependentSchemas", W_NO_OBJECT },
    { "dependencies", W_NO_OBJECT },
    { "unevaluatedProperties", W_UNEVALUATED },
    { "not", W_NOT },
    { "if", W_IF },
    { "$dynamicRef", W_NEVER },
    { "$recursiveRef", W_NEVER },
};

static word find_word(const gr_json *v) {
    for (size_t i = 0; i < QSI_COUNT(words); i++)
        if (strlen(words[i].name) == v->n_key && memcmp(words[i].name, v->key, v->n_key) == 0)
            return words[i].w;
    return W_NONE;
}

/* unevaluatedProperties: false says no more than additionalProperties: false where nothing else can
 * evaluate; a schema that allows all says nothing. */
static void fold_unevaluated(gr_spec *s, const gr_json *v, const gr_json *schema) {
    static const char *const others[] = {
        "$ref", "allOf", "anyOf", "oneOf", "if", "not", "dependentSchemas", "contains", "$dynamicRef"
    };
    bool props = v->n_key == 21, alone = true;
    if (v->kind == GR_TRUE || (v->kind == GR_OBJECT && v->n == 0)) return;
    for (size_t i = 0; i < QSI_COUNT(others); i++) alone = alone && !gr_json_get(schema, others[i]);
    if (props && gr_json_get(schema, "additionalProperties")) return; /* evaluates all */
    if (!props && gr_json_get(schema, "items")) return;
    push(s, props ? (alone ? &s->objects : &s->no_object) : &s->no_array,
         props && alone ? schema : v);
}

static void fold_not(gr_spec *s, const gr_json *v) {
    bool all = v->kind == GR_TRUE || (v->kind == GR_OBJECT && v->n == 0);
    if (all) s->types = 0;
    else if (v->kind != GR_FALSE)
        gr_refuse(s->c->b, v, "what is not allowed cannot be told from what is");
}

static void add_once(gr_spec *s, gr_values *l, const gr_json *v) {
    if (l->n == 0 || l->v[l->n - 1] != v) push(s, l, v);
}

static void fold_word(gr_spec *s, const gr_json *v, const gr_json *schema, uint32_t done) {
    word w = find_word(v);
    if (w != W_NONE && w != W_TYPE) s->constrained = true;
    switch (w) {
    case W_NONE: break;
    case W_TYPE: fold_type(s, v, schema); break;
    case W_ENUM:
        if (done & GR_DONE_ENUM || !expect(s, v, GR_ARRAY, "a list of values is expected")) break;
        fold_values(s, v, (const gr_json *const *)v->kids, v->n);
        break;
    case W_CONST:
        if (!(done & GR_DONE_ENUM)) fold_values(s, v, &v, 1);
        break;
    case W_BOUND: fold_bound(s, v, schema); break;
    case W_MULTIPLE:
        s->number_by = v;
        if (expect(s, v, GR_NUMBER, "a number is expected")) push(s, &s->multiples, v);
        break;
    case W_MIN_LENGTH:
    case W_MAX_LENGTH:
        s->string_by = v;
        fold_count(s, v, w == W_MIN_LENGTH, &s->len_lo, &s->len_hi);
        break;
    case W_PATTERN:
        s->string_by = v;
        if (expect(s, v, GR_STRING, "a regular expression is expected")) push(s, &s->patterns, v);
        break;
    case W_FORMAT:
        if (v->kind == GR_STRING && gr_format(v->s, v->n)) push(s, &s->formats, v);
        break;
    case W_OBJECT: add_once(s, &s->objects, schema); break;
    case W_MIN_PROPS:
    case W_MAX_PROPS:
        s->props_by = v;
        fold_count(s, v, w == W_MIN_PROPS, &s->props_lo, &s->props_hi);
        break;
    case W_NAMES: push(s, &s->names, v); break;
    case W_ARRAY: add_once(s, &s->arrays, schema); break;
    case W_MIN_ITEMS:
    case W_MAX_ITEMS: fold_count(s, v, w == W_MIN_ITEMS, &s->items_lo, &s->items_hi); break;
    case W_UNIQUE:
        if (v->kind == GR_TRUE) push(s, &s->no_array, v);
        break;
    case W_NO_OBJECT: push(s, &s->no_object, v); break;
    case W_NO_ARRAY: push(s, &s->no_array, v); break;
    case W_UNEVALUATED: fold_unevaluated(s, v, schema); break;
    case W_NOT: fold_not(s, v); break;
    case W_IF:
        if (gr_json_get(schema, "then") || gr_json_get(schema, "else"))
            gr_refuse(s->c->b, v, "conditions cannot be enforced; use anyOf with the cases");
        break;
    case W_NEVER: gr_refuse(s->c->b, v, "references that depend on the way are not followed"); break;
    }
}

/* ---- folding ---- */

/* What enum leaves decides the types too. */
static void types_of_values(gr_spec *s) {
    uint32_t bits = 0;
    for (size_t i = 0; i < s->allowed.n; i++) bits |= type_of(s->allowed.v[i]);
    if (s->has_allowed) s->types &= bits;
}

/* Multiples of a whole number are whole. */
static void types_of_multiples(gr_spec *s) {
    for (size_t i = 0; i < s->multiples.n; i++)
        if (is_whole(s->multiples.v[i])) s->types &= ~GR_T_FRAC;
}

void gr_spec_fold(gr_schema *c, const gr_entries *l, gr_spec *s) {
    *s = (gr_spec){
        .c = c, .types = GR_T_ALL, .len_hi = GR_INF, .props_hi = GR_INF, .items_hi = GR_INF
    };
    for (size_t i = 0; i < l->n && c->b->st == QS_OK; i++) {
        const gr_json *schema = l->e[i].schema;
        gr_entries_add(c->b, &s->entries, (gr_entry){ schema, l->e[i].done, -1 });
        if (schema->kind == GR_FALSE) s->types = 0;
        for (size_t k = 0;
             schema->kind == GR_OBJECT && k < schema->n && !(l->e[i].done & GR_DONE_ALL); k++)
            fold_word(s, schema->kids[k], schema, l->e[i].done);
    }
    types_of_values(s);
    types_of_multiples(s);
}

void gr_spec_release(gr_spec *s) {
    gr_values *lists[] = { &s->allowed, &s->multiples, &s->patterns,  &s->formats, &s->objects,
                           &s->arrays,  &s->names,     &s->no_object, &s->no_array };
    for (size_t i = 0; i < QSI_COUNT(lists); i++) {
        qsi_free(lists[i]->v);
        *lists[i] = (gr_values){ 0 };
    }
    gr_entries_release(&s->entries);
}

/* ---- questions to a spec ---- */

bool gr_pattern_matches(gr_schema *c, const gr_json *pattern, const char *p, size_t n) {
    static const gr_regex_opts opts = { .search = true, .ecma = true };
    qs_status st = QS_OK;
    gr_builder b;
    gr_store store = { 0 };
    gr_work work = { 0 };
    qsi_grammar *g = NULL;
    uint32_t at = GR_DEAD;
    bool matches = false;
    if (c->b->st != QS_OK) return false;
    gr_builder_init(&b, &c->b->limits, c->b->err);
    b.deadline_ns = c->b->deadline_ns;
    uint32_t root = gr_new_rule(&b);
    gr_set_rule(&b, root, gr_regex(&b, pattern->s, pattern->n, &opts));
    st = gr_build(&g, &b, c->b->err);
    if (st == QS_E_ARG) st = QS_OK, g = NULL; /* it matches nothing */
    QS_TRY(st);
    if (!g) goto done;
    QS_TRY(gr_store_init(&store));
    QS_TRY(gr_first(&work, g, &store, &at));
    for (size_t i = 0; i < n && at != GR_DEAD; i++)
        QS_TRY(gr_step(&work, g, &store, at, (uint8_t)p[i], &at));
    matches = store.sets[at].accept;
done:
    if (st != QS_OK) gr_fail(c->b, st, "%s", c->b->err ? c->b->err->text : "a pattern");
    gr_work_release(&work);
    gr_store_release(&store);
    qsi_grammar_release(g);
    gr_builder_release(&b);
    return matches;
}

/* What one schema says about a property; false: it forbids it. */
static bool property_of(const gr_spec *s, const gr_json *schema, const char *name, size_t n,
                        gr_entries *out) {
    gr_builder *b = s->c->b;
    const gr_json *props = gr_json_get(schema, "properties"),
                  *more = gr_json_get(schema, "additionalProperties");
    const gr_json *patterns = gr_json_get(schema, "patternProperties");
    const gr_json *own = props ? gr_json_get_n(props, name, n) : NULL;
    bool found = own != NULL, possible = !own || own->kind != GR_FALSE;
    if (!more) more = gr_json_get(schema, "unevaluatedProperties");
    if (own) gr_entries_add(b, out, (gr_entry){ own, 0, -1 });
    for (size_t i = 0; patterns && i < patterns->n; i++) {
        gr_json pattern = { .kind = GR_STRING,
                            .s = patterns->kids[i]->key,
                            .n = patterns->kids[i]->n_key };
        if (!gr_pattern_matches(s->c, &pattern, name, n)) continue;
        found = true;
        possible = possible && patterns->kids[i]->kind != GR_FALSE;
        gr_entries_add(b, out, (gr_entry){ patterns->kids[i], 0, -1 });
    }
    if (!found && more) {
        possible = more->kind != GR_FALSE;
        gr_entries_add(b, out, (gr_entry){ more, 0, -1 });
    }
    return possible;
}

bool gr_spec_property(const gr_spec *s, const char *name, size_t n, gr_entries *out) {
    bool possible = true;
    for (size_t i = 0; i < s->objects.n; i++)
        possible = property_of(s, s->objects.v[i], name, n, out) && possible;
    return possible;
}

/* The schemas of the first items: prefixItems, or items as a list. */
static const gr_json *prefix_of(const gr_json *schema, const gr_json **rest) {
    const gr_json *items = gr_json_get(schema, "items"), *prefix = gr_json_get(schema, "prefixItems");
    if (items && items->kind == GR_ARRAY) {
        *rest = gr_json_get(schema, "additionalItems");
        return items;
    }
    *rest = items;
    return prefix;
}

size_t gr_spec_prefix(const gr_spec *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->arrays.n; i++) {
        const gr_json *rest, *prefix = prefix_of(s->arrays.v[i], &rest);
        if (prefix && prefix->n > n) n = prefix->n;
    }
    return n;
}

bool gr_spec_item(const gr_spec *s, size_t index, gr_entries *out) {
    bool possible = true;
    for (size_t i = 0; i < s->arrays.n; i++) {
        const gr_json *rest, *prefix = prefix_of(s->arrays.v[i], &rest);
        const gr_json *v = prefix && index < prefix->n ? prefix->kids[index] : rest;
        if (!v) continue;
        possible = possible && v->kind != GR_FALSE;
        gr_entries_add(s->c->b, out, (gr_entry){ v, 0, -1 });
    }
    return possible;
}

bool gr_spec_requires(const gr_spec *s, const char *name, size_t n) {
    for (size_t i = 0; i < s->objects.n; i++) {
        const gr_json *list = gr_json_get(s->objects.v[i], "required");
        for (size_t k = 0; list && list->kind == GR_ARRAY && k < list->n; k++)
            if (list->kids[k]->kind == GR_STRING && list->kids[k]->n == n &&
                memcmp(list->kids[k]->s, name, n) == 0)
                return true;
    }
    return false;
}

/* ---- are two apart? ---- */

/* A property that both must have, or one must and the other must not, with values that never agree. */
static bool property_apart(gr_schema *c, const gr_spec *x, const gr_spec *y, int depth) {
    bool apart = false;
    for (size_t i = 0; i < x->objects.n && !apart; i++) {
        const gr_json *list = gr_json_get(x->objects.v[i], "required");
        for (size_t k = 0; list && list->kind == GR_ARRAY && k < list->n && !apart; k++) {
            const gr_json *name = list->kids[k];
            gr_entries a = { 0 }, b = { 0 };
            gr_spec p = { 0 }, q = { 0 };
            if (name->kind != GR_STRING) continue;
            (void)gr_spec_property(x, name->s, name->n, &a);
            apart = !gr_spec_property(y, name->s, name->n, &b);
            if (!apart && gr_spec_requires(y, name->s, name->n)) {
                gr_spec_fold(c, &a, &p);
                gr_spec_fold(c, &b, &q);
                apart = gr_spec_apart(c, &p, &q, depth + 1);
                gr_spec_release(&p);
                gr_spec_release(&q);
            }
            gr_entries_release(&a);
            gr_entries_release(&b);
        }
    }
    return apart;
}

static bool values_apart(const gr_spec *x, const gr_spec *y) {
    if (!x->has_allowed || !y->has_allowed ||
        (x->allowed.n > 0 && y->allowed.n > 1000000 / x->allowed.n))
        return false;
    for (size_t i = 0; i < x->allowed.n; i++)
        if (among(x->allowed.v[i], y->allowed.v, y->allowed.n)) return false;
    return true;
}

bool gr_spec_apart(gr_schema *c, const gr_spec *x, const gr_spec *y, int depth) {
    uint32_t common = x->types & y->types;
    if (common == 0 || values_apart(x, y)) return true;
    if (common & (GR_T_NULL | GR_T_BOOL)) return false;
    if (common & (GR_T_INT | GR_T_FRAC) && !gr_span_apart(&x->span, &y->span)) return false;
    if (common & GR_T_STRING && x->len_hi >= y->len_lo && y->len_hi >= x->len_lo) return false;
    if (common & GR_T_ARRAY && x->items_hi >= y->items_lo && y->items_hi >= x->items_lo) return false;
    return !(common & GR_T_OBJECT) || (depth < MAX_APART_DEPTH && (property_apart(c, x, y, depth) ||
                                                                   property_apart(c, y, x, depth)));
}
