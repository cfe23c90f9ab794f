/* JSON Schema becomes a grammar: drafts 2020-12 and 07, as docs/structured-output.md says.
 *
 * What a value must satisfy is a list of schemas, all at once: `conj`. A $ref adds its target to the
 * list, allOf its members; anyOf and oneOf make a choice of lists. When nothing is left to expand, the
 * keywords of the list are folded into one `spec`, and the spec becomes an expression. Every list that
 * occurs has one rule, so recursion needs no care. What is met and not enforced is refused when the
 * kind of value it speaks of is possible at all. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/str.h"
#include "infer/grammar_spec.h"

enum { MAX_CONJ = 4096, MAX_STEPS = 100000 };

/* ---- lists of schemas ---- */

static int by_schema(const void *x, const void *y) {
    const gr_entry *a = x, *b = y;
    return a->schema->order < b->schema->order ? -1 : a->schema->order > b->schema->order;
}

static bool is_ancestor(const gr_entries *l, int at, const gr_json *schema) {
    for (; at >= 0; at = l->e[at].parent)
        if (l->e[at].schema == schema) return true;
    return false;
}

gr_expr *gr_refuse(gr_builder *b, const gr_json *v, const char *why) {
    char buf[GR_POINTER];
    const gr_json *in = v->key ? v->parent : v;
    return gr_fail(b, QS_E_UNSUPPORTED, "\"%.*s\" at %s: %s", (int)(v->n_key < 60 ? v->n_key : 60),
                   v->key ? v->key : "", gr_json_pointer(in, buf), why);
}

static void malformed(gr_builder *b, const gr_json *v, const char *what) {
    char buf[GR_POINTER];
    gr_fail(b, QS_E_FORMAT, "schema, %s: %s", gr_json_pointer(v, buf), what);
}

void gr_entries_add(gr_builder *b, gr_entries *l, gr_entry e) {
    if (b->st != QS_OK || e.schema->kind == GR_TRUE ||
        (e.schema->kind == GR_OBJECT && e.schema->n == 0))
        return;
    if (e.schema->kind != GR_OBJECT && e.schema->kind != GR_FALSE) {
        malformed(b, e.schema, "a schema must be an object or a boolean");
        return;
    }
    if (is_ancestor(l, e.parent, e.schema)) {
        gr_refuse(b, e.schema, "the schema refers to itself without any progress");
        return;
    }
    for (size_t i = 0; i < l->n; i++)
        if (l->e[i].schema == e.schema) {
            l->e[i].done &= e.done;
            return;
        }
    if (l->n >= MAX_CONJ) {
        gr_fail(b, QS_E_LIMIT, "more than %d schemas apply to one value", MAX_CONJ);
    } else if (qsi_grow((void **)&l->e, &l->cap, l->n + 1, sizeof *l->e) != QS_OK) {
        gr_fail(b, QS_E_NOMEM, "out of memory");
    } else {
        l->e[l->n++] = e;
    }
}

void gr_entries_release(gr_entries *l) {
    qsi_free(l->e);
    *l = (gr_entries){ 0 };
}

/* ---- references ---- */

static const gr_json *find_anchor(const gr_json *v, const char *name, size_t n, int *steps) {
    const gr_json *a = gr_json_get(v, "$anchor"), *id = gr_json_get(v, "$id");
    if (!a) a = gr_json_get(v, "$dynamicAnchor"); /* $ref sees no difference */
    if (++*steps > MAX_STEPS) return NULL;
    if (a && a->kind == GR_STRING && a->n == n && memcmp(a->s, name, n) == 0) return v;
    if (id && id->kind == GR_STRING && id->n == n + 1 && id->s[0] == '#' &&
        memcmp(id->s + 1, name, n) == 0)
        return v;
    for (size_t i = 0; (v->kind == GR_OBJECT || v->kind == GR_ARRAY) && i < v->n; i++) {
        const gr_json *found = find_anchor(v->kids[i], name, n, steps);
        if (found) return found;
    }
    return NULL;
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One step of a JSON pointer, decoded into out; returns what is behind it. */
static const char *pointer_step(const char *p, const char *end, qsi_str *out) {
    qs_status st = QS_OK;
    qsi_str_clear(out);
    while (p < end && *p != '/' && st == QS_OK) {
        char c = *p++;
        if (c == '%' && end - p >= 2 && hex_value(p[0]) >= 0 && hex_value(p[1]) >= 0) {
            c = (char)(hex_value(p[0]) * 16 + hex_value(p[1]));
            p += 2;
        }
        if (c == '~' && p < end && (*p == '0' || *p == '1')) c = *p++ == '0' ? '~' : '/';
        st = qsi_str_putc(out, c);
    }
    return st == QS_OK ? p : NULL;
}

static const gr_json *follow(const gr_json *v, const char *p, const char *end) {
    qsi_str step = { 0 };
    while (v && p && p < end) { /* p stands at a slash */
        p = pointer_step(p + 1, end, &step);
        if (!p) break;
        if (v->kind == GR_ARRAY) {
            size_t k = 0, i = 0;
            for (; i < step.len && i < 9 && step.data[i] >= '0' && step.data[i] <= '9'; i++)
                k = k * 10 + (size_t)(step.data[i] - '0');
            v = i == step.len && i > 0 && k < v->n ? v->kids[k] : NULL;
        } else {
            v = gr_json_get_n(v, step.data ? step.data : "", step.len);
        }
    }
    qsi_str_release(&step);
    return p ? v : NULL;
}

static const gr_json *resolve(gr_schema *c, const gr_json *ref) {
    const char *p = ref->s, *end = p + ref->n;
    int steps = 0;
    if (ref->kind != GR_STRING) return malformed(c->b, ref, "$ref must be a string"), NULL;
    if (ref->n == 0 || *p != '#')
        return gr_refuse(c->b, ref, "only references within the schema (#...) are followed"), NULL;
    const gr_json *v = c->root;
    if (++p < end)
        v = *p == '/' ? follow(c->root, p, end) : find_anchor(c->root, p, (size_t)(end - p), &steps);
    if (!v) malformed(c->b, ref, "$ref leads nowhere");
    return v;
}

/* Adds what $ref and allOf bring in. */
static void close_entries(gr_schema *c, gr_entries *l) {
    for (size_t i = 0; i < l->n && c->b->st == QS_OK; i++) {
        const gr_json *s = l->e[i].schema;
        const gr_json *ref = gr_json_get(s, "$ref"), *all = gr_json_get(s, "allOf"),
                      *id = gr_json_get(s, "$id");
        if (id && s != c->root && id->kind == GR_STRING && id->n > 0 && id->s[0] != '#') {
            gr_refuse(c->b, id, "schemas with an address of their own are not followed");
            return;
        }
        if (l->e[i].done & GR_DONE_IN) continue;
        l->e[i].done |= GR_DONE_IN;
        const gr_json *to = ref ? resolve(c, ref) : NULL;
        if (to) gr_entries_add(c->b, l, (gr_entry){ to, 0, (int)i });
        if (to && c->ref_alone) {
            l->e[i].done |= GR_DONE_ALL;
            continue;
        }
        if (all && all->kind != GR_ARRAY) malformed(c->b, all, "allOf must be a list");
        for (size_t k = 0; all && c->b->st == QS_OK && k < all->n; k++)
            gr_entries_add(c->b, l, (gr_entry){ all->kids[k], 0, (int)i });
    }
}

static uint64_t hash_entries(const gr_entries *l) {
    uint64_t h = l->n;
    for (size_t i = 0; i < l->n; i++) {
        uint64_t key[2] = { (uint64_t)(uintptr_t)l->e[i].schema, l->e[i].done };
        h = qsi_hash_seed(key, sizeof key, h);
    }
    return h;
}

static bool same_entries(const gr_entries *x, const gr_entries *y) {
    bool same = x->n == y->n;
    for (size_t i = 0; same && i < x->n; i++)
        same = x->e[i].schema == y->e[i].schema && x->e[i].done == y->e[i].done;
    return same;
}

uint32_t gr_schema_rule(gr_schema *c, gr_entries *l) {
    uint32_t rule = UINT32_MAX;
    close_entries(c, l);
    if (l->n > 1) qsort(l->e, l->n, sizeof *l->e, by_schema);
    for (size_t i = 0; i < l->n; i++) l->e[i].parent = -1;
    uint64_t h = hash_entries(l);
    if (c->b->st != QS_OK) goto done;
    rule = c->any;
    if (l->n == 0) goto done;
    if (2 * (c->n_lists + 1) > c->cap_table && !gr_schema_grow(c)) goto done;
    size_t at = h & (c->cap_table - 1);
    for (; c->table[at]; at = (at + 1) & (c->cap_table - 1)) {
        const gr_conj *k = &c->lists[c->table[at] - 1];
        rule = k->rule;
        if (k->hash == h && same_entries(&k->l, l)) goto done;
    }
    rule = gr_new_rule(c->b);
    if (c->b->st != QS_OK) goto done;
    if (qsi_grow((void **)&c->lists, &c->cap_lists, c->n_lists + 1, sizeof *c->lists) != QS_OK) {
        gr_fail(c->b, QS_E_NOMEM, "out of memory");
        goto done;
    }
    c->lists[c->n_lists++] = (gr_conj){ *l, h, rule };
    c->table[at] = (uint32_t)c->n_lists;
    *l = (gr_entries){ 0 };
done:
    gr_entries_release(l);
    return c->b->st == QS_OK ? rule : UINT32_MAX;
}

bool gr_schema_grow(gr_schema *c) {
    size_t cap = c->cap_table ? 2 * c->cap_table : 64;
    uint32_t *t = qsi_calloc(cap, sizeof *t);
    if (!t) return gr_fail(c->b, QS_E_NOMEM, "out of memory"), false;
    for (size_t i = 0; i < c->n_lists; i++) {
        size_t at = c->lists[i].hash & (cap - 1);
        while (t[at]) at = (at + 1) & (cap - 1);
        t[at] = (uint32_t)i + 1;
    }
    qsi_free(c->table);
    c->table = t;
    c->cap_table = cap;
    return true;
}

gr_expr *gr_schema_value(gr_schema *c, gr_entries *l) {
    uint32_t rule = gr_schema_rule(c, l);
    return rule == UINT32_MAX ? NULL : gr_rule(c->b, rule);
}

/* ---- choices ---- */

/* The list with option k of a group in place of the group. */
static void with_option(gr_schema *c, const gr_entries *from, size_t at, uint32_t bit,
                        const gr_json *option, gr_entries *out) {
    for (size_t i = 0; i < from->n; i++) {
        gr_entry e = from->e[i];
        if (i == at) e.done |= bit;
        gr_entries_add(c->b, out, e);
    }
    gr_entries_add(c->b, out, (gr_entry){ option, 0, -1 });
}

/* No value may satisfy two options, else "exactly one" is not what a choice of texts says. */
static void check_exclusive(gr_schema *c, const gr_entries *l, size_t at, const gr_json *group) {
    gr_spec *specs = qsi_calloc(group->n, sizeof *specs);
    gr_entries *lists = qsi_calloc(group->n, sizeof *lists);
    char why[120];
    if (!specs || !lists) gr_fail(c->b, QS_E_NOMEM, "out of memory");
    for (size_t k = 0; c->b->st == QS_OK && k < group->n; k++) {
        with_option(c, l, at, GR_DONE_ONE, group->kids[k], &lists[k]);
        close_entries(c, &lists[k]);
        gr_spec_fold(c, &lists[k], &specs[k]);
    }
    for (size_t i = 0; c->b->st == QS_OK && i < group->n; i++)
        for (size_t k = 0; c->b->st == QS_OK && k < i; k++) {
            if (i % 64 == 63 && gr_stopped(c->b)) break;
            if (gr_spec_apart(c, &specs[i], &specs[k], 0)) continue;
            (void)snprintf(why, sizeof why, "one value may match options %zu and %zu; use anyOf", k,
                           i);
            gr_refuse(c->b, group, why);
        }
    for (size_t k = 0; specs && lists && k < group->n; k++) {
        gr_spec_release(&specs[k]);
        gr_entries_release(&lists[k]);
    }
    qsi_free(specs);
    qsi_free(lists);
}

/* The first anyOf or oneOf of the list that is not expanded yet becomes a choice. */
static gr_expr *expand_group(gr_schema *c, const gr_entries *l, bool *found) {
    for (size_t i = 0; i < l->n; i++)
        for (uint32_t bit = GR_DONE_ANY; bit <= GR_DONE_ONE; bit <<= 1) {
            const gr_json *group = gr_json_get(l->e[i].schema,
                                               bit == GR_DONE_ANY ? "anyOf" : "oneOf");
            gr_list kids = { 0 };
            if (!group || l->e[i].done & bit) continue;
            *found = true;
            if (group->kind != GR_ARRAY || group->n == 0) {
                malformed(c->b, group, "a list of schemas is expected");
                return NULL;
            }
            if (bit == GR_DONE_ONE && group->n > 1) check_exclusive(c, l, i, group);
            for (size_t k = 0; k < group->n && c->b->st == QS_OK; k++) {
                gr_entries option = { 0 };
                with_option(c, l, i, bit, group->kids[k], &option);
                gr_list_push(c->b, &kids, gr_schema_value(c, &option));
            }
            return gr_list_alt(c->b, &kids);
        }
    *found = false;
    return NULL;
}

static gr_expr *compile_list(gr_schema *c, const gr_entries *l) {
    bool found;
    gr_spec spec;
    gr_expr *e = expand_group(c, l, &found);
    if (found) return e;
    gr_spec_fold(c, l, &spec);
    e = c->b->st == QS_OK ? gr_spec_expr(c, &spec) : NULL;
    gr_spec_release(&spec);
    return e;
}

/* ---- the whole ---- */

static gr_expr *seq4(gr_builder *b, gr_expr *w, gr_expr *x, gr_expr *y, gr_expr *z) {
    gr_expr *kids[] = { w, x, y, z };
    return gr_seq(b, kids, 4);
}

/* White space between the parts of objects and arrays: none, a space, or a line with an indent. */
static gr_expr *white(gr_builder *b) {
    gr_expr *indent = gr_alt2(b, gr_repeat(b, gr_word(b, " "), 0, 24),
                              gr_repeat(b, gr_word(b, "\t"), 1, 8));
    gr_expr *kids[] = { gr_text(b, "", 0), gr_word(b, " "), gr_seq2(b, gr_word(b, "\n"), indent) };
    return gr_alt(b, kids, 3);
}

/* Rules that every schema shares. */
static void shared_rules(gr_schema *c) {
    gr_builder *b = c->b;
    gr_charset all = { 0 };
    uint32_t *rules[] = { &c->any,    &c->white,   &c->chars,      &c->spelled,
                          &c->number, &c->integer, &c->any_object, &c->any_array };
    for (size_t i = 0; i < QSI_COUNT(rules); i++) *rules[i] = gr_new_rule(b);
    gr_set_rule(b, c->white, white(b));
    gr_set_rule(b, c->chars, gr_seq2(b, gr_repeat(b, gr_free_char(b), 0, GR_INF), gr_word(b, "\"")));
    gr_charset_add(b, &all, 0, GR_MAX_CP);
    gr_set_rule(b, c->spelled,
                gr_seq2(b, gr_repeat(b, gr_spelled_class(b, &all), 0, GR_INF), gr_word(b, "\"")));
    gr_charset_release(&all);
    gr_set_rule(b, c->number, gr_any_number(b));
    gr_span any = { 0 };
    gr_set_rule(b, c->integer, gr_numbers(b, &any, 0));
    gr_expr *string = gr_seq2(b, gr_word(b, "\""), gr_rule(b, c->chars));
    gr_expr *kinds[] = { gr_rule(b, c->any_object), gr_rule(b, c->any_array), string,
                         gr_rule(b, c->number),     gr_word(b, "true"),       gr_word(b, "false"),
                         gr_word(b, "null") };
    gr_set_rule(b, c->any, gr_alt(b, kinds, QSI_COUNT(kinds)));
    gr_expr *member = seq4(b, gr_word(b, "\""), gr_rule(b, c->chars), gr_schema_colon(c),
                           gr_rule(b, c->any));
    gr_set_rule(b, c->any_object, gr_schema_list(c, "{", member, 0, GR_INF, "}"));
    gr_set_rule(b, c->any_array, gr_schema_list(c, "[", gr_rule(b, c->any), 0, GR_INF, "]"));
}

gr_expr *gr_schema_colon(gr_schema *c) {
    return gr_seq2(c->b, gr_word(c->b, ":"), gr_opt(c->b, gr_word(c->b, " ")));
}

gr_expr *gr_schema_comma(gr_schema *c) {
    return gr_seq2(c->b, gr_word(c->b, ","), gr_rule(c->b, c->white));
}

gr_expr *gr_schema_list(gr_schema *c, const char *open, gr_expr *item, int64_t lo, int64_t hi,
                        const char *close) {
    gr_builder *b = c->b;
    gr_expr *more = gr_repeat(b, gr_seq2(b, gr_schema_comma(c), item), lo > 1 ? lo - 1 : 0,
                              hi == GR_INF ? hi
                              : hi > 0     ? hi - 1
                                           : 0);
    gr_expr *items = seq4(b, gr_rule(b, c->white), item, more, gr_rule(b, c->white));
    if (hi == 0) items = gr_rule(b, c->white);
    else if (lo == 0) items = gr_alt2(b, items, gr_rule(b, c->white));
    return gr_seq3(b, gr_word(b, open), items, gr_word(b, close));
}

void gr_schema_init(gr_schema *c, gr_builder *b, const gr_json *root, int depth) {
    const gr_json *draft = gr_json_get(root, "$schema");
    *c = (gr_schema){ .b = b, .root = root, .depth = depth };
    static const char *const old[] = { "draft-07", "draft-06", "draft-04", "draft-03" };
    for (size_t i = 0; draft && draft->kind == GR_STRING && i < QSI_COUNT(old); i++)
        for (size_t k = 0; k + 8 <= draft->n; k++)
            c->ref_alone |= memcmp(draft->s + k, old[i], 8) == 0;
    static const char known[] = "json-schema.org/";
    bool is_known = !draft || draft->kind != GR_STRING;
    for (size_t k = 0; !is_known && k + sizeof known - 1 <= draft->n; k++)
        is_known = memcmp(draft->s + k, known, sizeof known - 1) == 0;
    if (!is_known) gr_refuse(b, draft, "this is no dialect of json-schema.org");
}

void gr_schema_release(gr_schema *c) {
    for (size_t i = 0; i < c->n_lists; i++) gr_entries_release(&c->lists[i].l);
    qsi_free(c->lists);
    qsi_free(c->table);
}

void gr_schema_compile(gr_schema *c, gr_entries *l) {
    uint32_t root = gr_new_rule(c->b);
    shared_rules(c);
    gr_set_rule(c->b, root, gr_schema_value(c, l));
    for (size_t i = 0; i < c->n_lists && !gr_stopped(c->b); i++) {
        gr_entries own = c->lists[i].l; /* the array may move; the list itself stays */
        gr_set_rule(c->b, c->lists[i].rule, compile_list(c, &own));
    }
}

qs_status qsi_grammar_from_schema(qsi_grammar **g, const char *json, size_t n,
                                  const qsi_grammar_limits *l, qs_err *err) {
    qs_status st = QS_OK;
    gr_builder b;
    gr_schema c = { 0 };
    gr_entries root = { 0 };
    gr_builder_init(&b, l, err);
    const gr_json *v = gr_json_read(&b, json, n);
    QS_TRY(b.st);
    gr_schema_init(&c, &b, v, 0);
    gr_entries_add(&b, &root, (gr_entry){ v, 0, -1 });
    gr_schema_compile(&c, &root);
    QS_TRY(gr_build(g, &b, err));
done:
    gr_schema_release(&c);
    gr_builder_release(&b);
    return st;
}

qs_status qsi_grammar_json_object(qsi_grammar **g, const qsi_grammar_limits *l, qs_err *err) {
    static const char text[] = "{\"type\":\"object\"}";
    return qsi_grammar_from_schema(g, text, sizeof text - 1, l, err);
}
