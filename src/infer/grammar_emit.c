/* What schemas say together about a value becomes the texts of such values: see grammar_spec.h. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "infer/grammar_spec.h"

enum { MAX_PREFIX = 1000, MAX_TRY_DEPTH = 4 };

/* ---- values of enum and const ---- */

static gr_expr *constant(gr_schema *c, const gr_json *v);

static gr_expr *number_text(gr_builder *b, const gr_json *v) {
    gr_decimal d;
    qsi_str s = { 0 };
    qs_status st = QS_OK;
    if (!gr_decimal_read(v, &d) || d.n_frac > 0 || d.n_int > 15) return gr_text(b, v->s, v->n);
    if (d.neg) st = qsi_str_putc(&s, '-'); /* 1.0 and 1e2 are written as whole numbers */
    if (st == QS_OK) st = qsi_str_append(&s, d.i, (size_t)d.n_int);
    gr_expr *e = st == QS_OK ? gr_text(b, s.data, s.len) : gr_fail(b, QS_E_NOMEM, "out of memory");
    qsi_str_release(&s);
    return e;
}

static gr_expr *constant_members(gr_schema *c, const gr_json *v, const char *open,
                                 const char *close) {
    gr_builder *b = c->b;
    gr_list kids = { 0 };
    gr_list_push(b, &kids, gr_word(b, open));
    gr_list_push(b, &kids, gr_rule(b, c->white));
    for (size_t i = 0; i < v->n && b->st == QS_OK; i++) {
        const gr_json *k = v->kids[i];
        if (i > 0) gr_list_push(b, &kids, gr_schema_comma(c));
        if (k->key) {
            gr_list_push(b, &kids, gr_quoted(b, k->key, k->n_key));
            gr_list_push(b, &kids, gr_schema_colon(c));
        }
        gr_list_push(b, &kids, constant(c, k));
    }
    if (v->n > 0) gr_list_push(b, &kids, gr_rule(b, c->white));
    gr_list_push(b, &kids, gr_word(b, close));
    return gr_list_seq(b, &kids);
}

static gr_expr *constant(gr_schema *c, const gr_json *v) {
    switch (v->kind) {
    case GR_NULL: return gr_word(c->b, "null");
    case GR_TRUE: return gr_word(c->b, "true");
    case GR_FALSE: return gr_word(c->b, "false");
    case GR_NUMBER: return number_text(c->b, v);
    case GR_STRING: return gr_quoted(c->b, v->s, v->n);
    case GR_ARRAY: return constant_members(c, v, "[", "]");
    case GR_OBJECT: return constant_members(c, v, "{", "}");
    }
    return NULL;
}

/* The text of a value as one walks it through a grammar: constant() without white space. */
static qs_status write_value(gr_schema *c, const gr_json *v, qsi_str *out) {
    qs_status st = QS_OK;
    bool object = v->kind == GR_OBJECT;
    if (v->kind != GR_ARRAY && !object) {
        gr_expr *e = constant(c, v);
        return e ? qsi_str_append(out, e->text, e->n) : c->b->st;
    }
    QS_TRY(qsi_str_putc(out, object ? '{' : '['));
    for (size_t i = 0; i < v->n; i++) {
        if (i > 0) QS_TRY(qsi_str_putc(out, ','));
        if (object) {
            gr_expr *name = gr_quoted(c->b, v->kids[i]->key, v->kids[i]->n_key);
            if (!name) QS_TRY(c->b->st);
            QS_TRY(qsi_str_append(out, name->text, name->n));
            QS_TRY(qsi_str_putc(out, ':'));
        }
        QS_TRY(write_value(c, v->kids[i], out));
    }
    QS_TRY(qsi_str_putc(out, object ? '}' : ']'));
done:
    return st;
}

/* A grammar of what the list says, to try values on. */
typedef struct trial {
    gr_builder b;
    gr_schema c;
    qsi_grammar *g;
    gr_store store;
    gr_work work;
} trial;

static void trial_release(trial *t) {
    gr_work_release(&t->work);
    gr_store_release(&t->store);
    qsi_grammar_release(t->g);
    gr_schema_release(&t->c);
    gr_builder_release(&t->b);
}

static qs_status trial_init(gr_schema *c, const gr_entries *l, uint32_t done, trial *t) {
    qs_status st = QS_OK;
    gr_entries copy = { 0 };
    *t = (trial){ 0 };
    gr_builder_init(&t->b, &c->b->limits, c->b->err);
    t->b.deadline_ns = c->b->deadline_ns;
    gr_schema_init(&t->c, &t->b, c->root, c->depth + 1);
    if (c->depth >= MAX_TRY_DEPTH) {
        gr_fail(&t->b, QS_E_UNSUPPORTED, "\"enum\": such lists within schemas of such lists, %d deep",
                c->depth);
        return t->b.st;
    }
    for (size_t i = 0; i < l->n; i++)
        gr_entries_add(&t->b, &copy, (gr_entry){ l->e[i].schema, l->e[i].done | done, -1 });
    gr_schema_compile(&t->c, &copy);
    st = gr_build(&t->g, &t->b, c->b->err);
    if (st == QS_E_ARG) return QS_OK; /* nothing satisfies it */
    QS_TRY(st);
    QS_TRY(gr_store_init(&t->store));
done:
    return st;
}

static qs_status trial_run(trial *t, const gr_json *v, bool *ok) {
    qs_status st = QS_OK;
    qsi_str text = { 0 };
    uint32_t at;
    *ok = false;
    if (!t->g) goto done;
    QS_TRY(write_value(&t->c, v, &text));
    QS_TRY(gr_first(&t->work, t->g, &t->store, &at));
    for (size_t i = 0; i < text.len && at != GR_DEAD; i++)
        QS_TRY(gr_step(&t->work, t->g, &t->store, at, (uint8_t)text.data[i], &at));
    *ok = t->store.sets[at].accept;
done:
    qsi_str_release(&text);
    return st;
}

/* Objects may fail a trial for the order of their members only. */
static bool has_object(const gr_json *v) {
    bool has = v->kind == GR_OBJECT && v->n > 1;
    for (size_t i = 0; (v->kind == GR_ARRAY || v->kind == GR_OBJECT) && i < v->n && !has; i++)
        has = has_object(v->kids[i]);
    return has;
}

static bool type_allows(const gr_spec *s, const gr_json *v) {
    static const uint32_t bits[] = {
        [GR_NULL] = GR_T_NULL,     [GR_FALSE] = GR_T_BOOL,  [GR_TRUE] = GR_T_BOOL,
        [GR_STRING] = GR_T_STRING, [GR_ARRAY] = GR_T_ARRAY, [GR_OBJECT] = GR_T_OBJECT
    };
    gr_decimal d;
    if (v->kind != GR_NUMBER) return (s->types & bits[v->kind]) != 0;
    return (s->types & (gr_decimal_read(v, &d) && d.n_frac == 0 ? GR_T_INT : GR_T_FRAC)) != 0;
}

static bool only_values(const gr_spec *s) {
    return s->multiples.n + s->patterns.n + s->formats.n + s->objects.n + s->arrays.n + s->names.n +
                   s->no_object.n + s->no_array.n ==
               0 &&
           !s->span.has_lo && !s->span.has_hi && s->len_lo == 0 && s->len_hi == GR_INF &&
           s->props_lo == 0 && s->props_hi == GR_INF && s->items_lo == 0 && s->items_hi == GR_INF;
}

static gr_expr *values_expr(gr_schema *c, gr_spec *s) {
    gr_list kids = { 0 };
    trial t = { 0 };
    bool tried = !only_values(s);
    qs_status st = tried ? trial_init(c, &s->entries, GR_DONE_ENUM, &t) : QS_OK;
    for (size_t i = 0; st == QS_OK && i < s->allowed.n && c->b->st == QS_OK; i++) {
        const gr_json *v = s->allowed.v[i];
        bool ok = true;
        if (!type_allows(s, v)) continue;
        if (tried) st = trial_run(&t, v, &ok);
        if (tried && st == QS_OK && !ok && has_object(v))
            gr_refuse(c->b, s->allowed_by,
                      "objects in it beside other keywords about the same value");
        if (ok) gr_list_push(c->b, &kids, constant(c, v));
    }
    if (st != QS_OK) gr_fail(c->b, st, "%s", c->b->err ? c->b->err->text : qs_status_text(st));
    if (tried) trial_release(&t);
    return gr_list_alt(c->b, &kids);
}

/* ---- numbers ---- */

/* 0.01 and the like: how many digits behind the point; -1: none of those. */
static int power_of_ten(const gr_decimal *d) {
    int n = d->n_frac;
    if (d->neg || d->n_int != 1 || d->i[0] != '0' || n == 0 || d->f[n - 1] != '1') return -1;
    for (int i = 0; i + 1 < n; i++)
        if (d->f[i] != '0') return -1;
    return n;
}

static bool read_multiple(gr_schema *c, const gr_json *v, int64_t *k, int *frac) {
    gr_decimal d;
    *k = 0;
    if (!gr_decimal_read(v, &d)) return gr_refuse(c->b, v, "a number of so many digits"), false;
    if (d.neg || (d.n_frac == 0 && d.n_int == 1 && d.i[0] == '0')) {
        gr_fail(c->b, QS_E_FORMAT, "schema: multipleOf must be greater than 0");
        return false;
    }
    *frac = power_of_ten(&d);
    if (*frac > 0) return true;
    if (d.n_frac > 0 || d.n_int > 15)
        return gr_refuse(c->b, v, "only whole numbers, 0.1, 0.01 and so on can be enforced"), false;
    for (int i = 0; i < d.n_int; i++) *k = *k * 10 + (d.i[i] - '0');
    return true;
}

static gr_expr *number_expr(gr_schema *c, const gr_spec *s) {
    gr_builder *b = c->b;
    int64_t k = 0;
    int frac = -1, max_frac = s->types & GR_T_FRAC ? GR_MAX_FRAC : 0;
    if (s->multiples.n > 1) return gr_refuse(b, s->multiples.v[1], "two of them for one value");
    if (s->multiples.n == 1 && !read_multiple(c, s->multiples.v[0], &k, &frac)) return NULL;
    if (k > 1) {
        gr_expr *e = gr_multiples(b, &s->span, k);
        if (!e && b->st == QS_OK) gr_refuse(b, s->multiples.v[0], "with these bounds, or so large");
        return e;
    }
    if (frac > 0 && frac < max_frac) max_frac = frac;
    if (s->span.has_lo || s->span.has_hi || frac > 0) return gr_numbers(b, &s->span, max_frac);
    return gr_rule(b, max_frac ? c->number : c->integer);
}

/* ---- strings ---- */

/* The one pattern or format, as an expression over plain characters; NULL: there is none. */
static gr_expr *plain_string(gr_schema *c, const gr_spec *s) {
    static const gr_regex_opts opts = { .search = true, .ecma = true };
    if (s->patterns.n + s->formats.n == 0) return NULL;
    const gr_json *v = s->patterns.n ? s->patterns.v[0] : s->formats.v[0];
    for (size_t i = 1; i < s->patterns.n; i++)
        if (!gr_json_equal(v, s->patterns.v[i]))
            return gr_refuse(c->b, s->patterns.v[i], "two of them for one value");
    for (size_t i = s->patterns.n ? 0 : 1; i < s->formats.n; i++)
        if (s->patterns.n || !gr_json_equal(v, s->formats.v[i]))
            return gr_refuse(c->b, s->formats.v[i], "beside another format or a pattern");
    const char *regex = s->patterns.n ? v->s : gr_format(v->s, v->n);
    gr_expr *e = gr_regex(c->b, regex, s->patterns.n ? v->n : strlen(regex), &opts);
    if (!e && c->b->st == QS_E_UNSUPPORTED && c->b->err) { /* the keyword comes first */
        char buf[GR_POINTER], why[200];
        (void)snprintf(why, sizeof why, "%.190s", c->b->err->text);
        c->b->st = qsi_err_set(c->b->err, QS_E_UNSUPPORTED, "\"%.*s\" at %s: %s", (int)v->n_key,
                               v->key ? v->key : "", gr_json_pointer(v->key ? v->parent : v, buf),
                               why);
    }
    return e;
}

static gr_expr *string_expr(gr_schema *c, const gr_spec *s) {
    gr_builder *b = c->b;
    gr_expr *quote = gr_word(b, "\""), *plain = plain_string(c, s);
    if (b->st != QS_OK) return NULL;
    if (plain) {
        gr_expr *e = gr_with_length(b, plain, s->len_lo, s->len_hi);
        if (!e && b->st == QS_OK)
            return gr_refuse(b, s->string_by, "a length beside a pattern or format of this form");
        return gr_seq3(b, quote, gr_spell(b, e), quote);
    }
    if (s->len_lo == 0 && s->len_hi == GR_INF) return gr_seq2(b, quote, gr_rule(b, c->chars));
    if (s->len_lo > s->len_hi) return gr_never(b);
    if (s->len_lo > GR_MAX_COUNT) return gr_refuse(b, s->string_by, "so great a length");
    int64_t hi = s->len_hi > GR_MAX_COUNT ? GR_INF : s->len_hi;
    /* a rule of its own, shared by all who call it: its masks are found once */
    return gr_seq3(b, quote, gr_repeat(b, gr_free_char(b), s->len_lo, hi), quote);
}

/* ---- arrays ---- */

static gr_expr *array_expr(gr_schema *c, const gr_spec *s) {
    gr_builder *b = c->b;
    size_t k = gr_spec_prefix(s);
    int64_t lo = s->items_lo, hi = s->items_hi > GR_MAX_COUNT ? GR_INF : s->items_hi;
    gr_entries rest = { 0 };
    if (s->no_array.n && hi > 1) return gr_refuse(b, s->no_array.v[0], "this cannot be enforced");
    if (k > MAX_PREFIX)
        return gr_fail(b, QS_E_LIMIT, "an array with %zu schemas for its first items", k);
    if (lo > GR_MAX_COUNT || lo > hi) return gr_never(b);
    bool more = gr_spec_item(s, k, &rest);
    if (!more && hi > (int64_t)k) hi = (int64_t)k;
    gr_expr *item = gr_schema_value(c, &rest);
    if (lo > hi) return gr_never(b);
    if (k == 0) return gr_schema_list(c, "[", item, lo, hi, "]");
    int64_t n = (int64_t)k, left = hi == GR_INF ? hi : hi - n;
    gr_expr *e = gr_text(b, "", 0);
    if (left > 0) e = gr_repeat(b, gr_seq2(b, gr_schema_comma(c), item), lo > n ? lo - n : 0, left);
    for (int64_t i = n; i > 0 && b->st == QS_OK; i--) {
        gr_entries own = { 0 };
        bool possible = gr_spec_item(s, (size_t)i - 1, &own) && i <= hi;
        gr_expr *value = gr_schema_value(c, &own);
        gr_expr *sep = i > 1 ? gr_schema_comma(c) : gr_rule(b, c->white);
        e = possible ? gr_seq3(b, sep, value, e) : gr_never(b);
        if (lo < i)
            e = i > 1 ? gr_opt(b, e)
                      : gr_alt2(b, gr_seq2(b, e, gr_rule(b, c->white)), gr_rule(b, c->white));
        else if (i == 1) e = gr_seq2(b, e, gr_rule(b, c->white));
    }
    return gr_seq3(b, gr_word(b, "["), e, gr_word(b, "]"));
}

/* ---- objects ---- */

typedef struct members { /* of an object, in order */
    gr_name *name;
    gr_expr **e; /* the member, NULL expression GR_NEVER when impossible */
    bool *required, *possible;
    size_t n, cap;
    qsi_str seen;
} members;

static bool known_name(const members *m, const char *p, size_t n) {
    for (size_t i = 0; i < m->n; i++)
        if (m->name[i].n == n && memcmp(m->name[i].p, p, n) == 0) return true;
    return false;
}

static void add_name(gr_schema *c, members *m, const char *p, size_t n) {
    if (c->b->st != QS_OK || known_name(m, p, n)) return;
    if (m->n % 256 == 255 && gr_stopped(c->b)) return;
    if (qsi_grow((void **)&m->name, &m->cap, m->n + 1, sizeof *m->name) != QS_OK)
        gr_fail(c->b, QS_E_NOMEM, "out of memory");
    else m->name[m->n++] = (gr_name){ p, n };
}

/* All names that properties or required mention: those of properties first. */
static void collect_names(gr_schema *c, const gr_spec *s, members *m) {
    char buf[GR_POINTER];
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->objects.n; i++) {
            const gr_json *v = gr_json_get(s->objects.v[i], pass ? "required" : "properties");
            if (!v) continue;
            if (v->kind == (pass ? GR_FALSE : GR_NULL) || (pass && v->kind == GR_TRUE))
                continue; /* draft 03 */
            if (v->kind != (pass ? GR_ARRAY : GR_OBJECT)) {
                gr_fail(c->b, QS_E_FORMAT, "schema, %s: %s is expected", gr_json_pointer(v, buf),
                        pass ? "a list of names" : "an object");
                return;
            }
            for (size_t k = 0; k < v->n && c->b->st == QS_OK; k++) {
                const gr_json *one = v->kids[k];
                if (!pass) add_name(c, m, one->key, one->n_key);
                else if (one->kind == GR_STRING) add_name(c, m, one->s, one->n);
            }
        }
}

/* Does a name satisfy propertyNames? */
static bool name_allowed(gr_schema *c, const gr_spec *s, const gr_name *name) {
    bool ok = true;
    for (size_t i = 0; i < s->names.n && ok && c->b->st == QS_OK; i++) {
        gr_entries l = { 0 };
        trial t;
        gr_json v = { .kind = GR_STRING, .s = name->p, .n = name->n };
        gr_entries_add(c->b, &l, (gr_entry){ s->names.v[i], 0, -1 });
        qs_status st = trial_init(c, &l, 0, &t);
        if (l.n == 0 && s->names.v[i]->kind == GR_TRUE) ok = true;
        else if (st == QS_OK) st = trial_run(&t, &v, &ok);
        if (st != QS_OK) gr_fail(c->b, st, "%s", c->b->err ? c->b->err->text : qs_status_text(st));
        trial_release(&t);
        gr_entries_release(&l);
    }
    return ok;
}

static void make_members(gr_schema *c, const gr_spec *s, members *m) {
    m->e = gr_take(c->b, m->n + 1, sizeof(gr_expr *));
    m->required = gr_take(c->b, m->n + 1, sizeof *m->required);
    m->possible = gr_take(c->b, m->n + 1, sizeof *m->possible);
    for (size_t i = 0; i < m->n && c->b->st == QS_OK; i++) {
        gr_entries l = { 0 };
        m->required[i] = gr_spec_requires(s, m->name[i].p, m->name[i].n);
        m->possible[i] = gr_spec_property(s, m->name[i].p, m->name[i].n, &l) &&
                         name_allowed(c, s, &m->name[i]);
        gr_expr *value = gr_schema_value(c, &l);
        m->e[i] = gr_seq3(c->b, gr_quoted(c->b, m->name[i].p, m->name[i].n), gr_schema_colon(c),
                          value);
        if (!m->possible[i]) m->e[i] = gr_never(c->b);
    }
}

/* The one pattern of patternProperties; NULL: none. Others than one, or names beside, are refused. */
static const gr_json *only_pattern(gr_schema *c, const gr_spec *s) {
    const gr_json *found = NULL;
    for (size_t i = 0; i < s->objects.n; i++) {
        const gr_json *v = gr_json_get(s->objects.v[i], "patternProperties");
        for (size_t k = 0; v && v->kind == GR_OBJECT && k < v->n; k++) {
            bool same = found && found->n_key == v->kids[k]->n_key &&
                        memcmp(found->key, v->kids[k]->key, found->n_key) == 0;
            if (found && !same)
                return gr_refuse(c->b, v, "more than one pattern for one object"), NULL;
            found = v->kids[k];
        }
    }
    return found;
}

/* Names and values of members whose names match the one pattern; all others are forbidden. */
static gr_expr *pattern_member(gr_schema *c, const gr_spec *s, const members *m,
                               const gr_json *pattern) {
    static const gr_regex_opts opts = { .search = true, .ecma = true };
    gr_builder *b = c->b;
    gr_json text = { .kind = GR_STRING, .s = pattern->key, .n = pattern->n_key };
    gr_entries l = { 0 };
    for (size_t i = 0; i < m->n && b->st == QS_OK; i++)
        if (gr_pattern_matches(c, &text, m->name[i].p, m->name[i].n))
            return gr_refuse(b, pattern->parent, "a pattern that a declared property matches");
    if (s->names.n) return gr_refuse(b, s->names.v[0], "beside patternProperties");
    bool possible = true;
    for (size_t i = 0; i < s->objects.n; i++) {
        const gr_json *v = gr_json_get(s->objects.v[i], "patternProperties");
        if (!v) v = gr_json_get(s->objects.v[i], "additionalProperties");
        else v = v->n ? v->kids[0] : NULL;
        if (v) gr_entries_add(b, &l, (gr_entry){ v, 0, -1 });
        possible = possible && !(v && v->kind == GR_FALSE);
    }
    gr_expr *name = gr_spell(b, gr_regex(b, text.s, text.n, &opts));
    gr_expr *value = gr_schema_value(c, &l);
    gr_expr *kids[] = { gr_word(b, "\""), name, gr_word(b, "\""), gr_schema_colon(c), value };
    return possible ? gr_seq(b, kids, 5) : gr_never(b);
}

/* A name that propertyNames allows, quoted. */
static gr_expr *allowed_name(gr_schema *c, const gr_spec *s, const members *m) {
    gr_entries l = { 0 };
    gr_spec spec;
    for (size_t i = 0; i < m->n && c->b->st == QS_OK; i++)
        if (name_allowed(c, s, &m->name[i]))
            return gr_refuse(c->b, s->names.v[0], "beside declared properties and open ones");
    for (size_t i = 0; i < s->names.n; i++)
        gr_entries_add(c->b, &l, (gr_entry){ s->names.v[i], 0, -1 });
    for (size_t i = 0; i < l.n; i++)
        for (int k = 0; k < 4; k++) {
            static const char *const groups[] = { "anyOf", "oneOf", "allOf", "$ref" };
            if (gr_json_get(l.e[i].schema, groups[k]))
                gr_refuse(c->b, s->names.v[0], "with anyOf, oneOf, allOf or $ref");
        }
    gr_spec_fold(c, &l, &spec);
    spec.types &= GR_T_STRING;
    gr_expr *e = c->b->st == QS_OK ? gr_spec_expr(c, &spec) : NULL;
    gr_spec_release(&spec);
    gr_entries_release(&l);
    return e;
}

/* A member that is not declared; GR_NEVER: there is none. */
static gr_expr *other_member(gr_schema *c, const gr_spec *s, const members *m) {
    gr_builder *b = c->b;
    const gr_json *pattern = only_pattern(c, s);
    gr_entries l = { 0 };
    bool possible = true;
    for (size_t i = 0; i < s->objects.n; i++) {
        const gr_json *more = gr_json_get(s->objects.v[i], "additionalProperties");
        if (!more) more = gr_json_get(s->objects.v[i], "unevaluatedProperties");
        if (more) gr_entries_add(b, &l, (gr_entry){ more, 0, -1 });
        possible = possible && !(more && more->kind == GR_FALSE);
    }
    if (pattern || !possible || b->st != QS_OK) {
        gr_entries_release(&l);
        if (b->st != QS_OK) return NULL;
        if (!pattern) return gr_never(b);
        if (possible) return gr_refuse(b, pattern->parent, "without \"additionalProperties\": false");
        return pattern_member(c, s, m, pattern);
    }
    gr_expr *value = gr_schema_value(c, &l);
    if (s->names.n) return gr_seq3(b, allowed_name(c, s, m), gr_schema_colon(c), value);
    gr_expr *name = m->n ? gr_other_names(b, m->name, m->n, c->spelled) : gr_rule(b, c->chars);
    gr_expr *kids[] = { gr_word(b, "\""), name, gr_schema_colon(c), value };
    return gr_seq(b, kids, 4);
}

/* Members i and later behind a comma each, and then others: rules r[0..n], made from the end. */
static void rest_rules(gr_schema *c, const members *m, const gr_expr *others, gr_expr *more,
                       uint32_t *r) {
    gr_builder *b = c->b;
    for (size_t i = 0; i <= m->n; i++) r[i] = gr_new_rule(b);
    gr_set_rule(b, r[m->n], others->kind == GR_NEVER ? gr_text(b, "", 0) : more);
    for (size_t i = m->n; i > 0 && b->st == QS_OK; i--) {
        gr_expr *member = gr_seq2(b, gr_schema_comma(c), m->e[i - 1]);
        if (!m->required[i - 1]) member = gr_opt(b, member);
        gr_set_rule(b, r[i - 1], gr_seq2(b, member, gr_rule(b, r[i])));
    }
}

/* The first member that comes may be any up to the first required one. */
static gr_expr *first_members(gr_schema *c, const members *m, gr_expr *others, gr_expr *more,
                              const uint32_t *r, bool may_be_empty) {
    gr_builder *b = c->b;
    gr_list kids = { 0 };
    size_t i = 0;
    for (; i < m->n; i++) {
        gr_list_push(b, &kids, gr_seq2(b, m->e[i], gr_rule(b, r[i + 1])));
        if (m->required[i]) break;
    }
    if (i == m->n && others->kind != GR_NEVER) gr_list_push(b, &kids, gr_seq2(b, others, more));
    gr_expr *e = gr_seq3(b, gr_rule(b, c->white), gr_list_alt(b, &kids), gr_rule(b, c->white));
    if (i == m->n && may_be_empty) e = gr_alt2(b, e, gr_rule(b, c->white));
    return gr_seq3(b, gr_word(b, "{"), e, gr_word(b, "}"));
}

/* minProperties and maxProperties, as far as declared properties settle them: they make some required
 * or impossible, or forbid the empty object. false: nothing satisfies them, or they are refused. */
static bool settle_counts(gr_schema *c, const gr_spec *s, members *m, gr_expr **others,
                          bool *may_be_empty) {
    static const char why[] = "a number of properties that the declared ones do not settle";
    int64_t required = 0, possible = 0, lo = s->props_lo, hi = s->props_hi;
    for (size_t i = 0; i < m->n; i++) required += m->required[i], possible += m->possible[i];
    bool open = (*others)->kind != GR_NEVER;
    if (lo > hi || hi < required || (!open && lo > possible)) return false;
    *may_be_empty = lo == 0;
    if (hi == required || (!open && lo == possible)) { /* these and no others, or all there are */
        bool all = hi != required;
        for (size_t i = 0; i < m->n; i++) {
            if (all) m->required[i] = m->possible[i];
            else if (!m->required[i]) m->e[i] = gr_never(c->b), m->possible[i] = false;
        }
        *others = gr_never(c->b);
        return true;
    }
    if (hi < GR_INF && (open ? m->n > 0 : hi < possible))
        return gr_refuse(c->b, s->props_by, why), false;
    if (lo > required && lo > 1)
        return gr_refuse(c->b, s->props_by, why), false; /* names may come twice */
    return true;
}

static gr_expr *declared_object(gr_schema *c, const gr_spec *s, members *m) {
    gr_builder *b = c->b;
    bool may_be_empty;
    collect_names(c, s, m);
    make_members(c, s, m);
    if (b->st != QS_OK) return NULL;
    for (size_t i = 0; i < m->n; i++)
        if (m->required[i] && !m->possible[i]) return gr_never(b);
    gr_expr *others = other_member(c, s, m);
    if (!others || !settle_counts(c, s, m, &others, &may_be_empty)) return gr_never(b);
    if (m->n == 0 && others->kind != GR_NEVER) {
        int64_t hi = s->props_hi > GR_MAX_COUNT ? GR_INF : s->props_hi;
        return gr_schema_list(c, "{", others, s->props_lo, hi, "}");
    }
    gr_expr *more = gr_repeat(b, gr_seq2(b, gr_schema_comma(c), others), 0, GR_INF);
    uint32_t *r = gr_take(b, m->n + 1, sizeof *r);
    if (!r || !more) return NULL;
    rest_rules(c, m, others, more, r);
    return b->st == QS_OK ? first_members(c, m, others, more, r, may_be_empty) : NULL;
}

static gr_expr *object_expr(gr_schema *c, const gr_spec *s) {
    members m = { 0 };
    if (s->no_object.n) return gr_refuse(c->b, s->no_object.v[0], "this cannot be enforced");
    if (s->objects.n == 0 && s->names.n == 0 && s->props_lo == 0 && s->props_hi == GR_INF)
        return gr_rule(c->b, c->any_object);
    gr_expr *e = declared_object(c, s, &m);
    qsi_free(m.name);
    return e;
}

/* ---- all kinds ---- */

gr_expr *gr_spec_expr(gr_schema *c, gr_spec *s) {
    gr_builder *b = c->b;
    gr_list kids = { 0 };
    if (s->has_allowed) return values_expr(c, s);
    if (s->types == GR_T_ALL && !s->constrained) return gr_rule(b, c->any);
    if (s->types & GR_T_OBJECT) gr_list_push(b, &kids, object_expr(c, s));
    if (s->types & GR_T_ARRAY) gr_list_push(b, &kids, array_expr(c, s));
    if (s->types & GR_T_STRING) gr_list_push(b, &kids, string_expr(c, s));
    if (s->types & (GR_T_INT | GR_T_FRAC)) gr_list_push(b, &kids, number_expr(c, s));
    if (s->types & GR_T_BOOL)
        gr_list_push(b, &kids, gr_alt2(b, gr_word(b, "true"), gr_word(b, "false")));
    if (s->types & GR_T_NULL) gr_list_push(b, &kids, gr_word(b, "null"));
    return gr_list_alt(b, &kids);
}
