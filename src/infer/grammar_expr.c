/* Expressions, the common form of all languages of grammars: see grammar_impl.h. They live in the
 * builder's arena. Small simplifications happen here, so that readers need not care: a sequence of one
 * is its part, texts side by side become one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "infer/grammar_impl.h"
#include "sys/file.h"

void gr_builder_init(gr_builder *b, const qsi_grammar_limits *l, qs_err *err) {
    *b = (gr_builder){ .limits = l ? *l : QSI_GRAMMAR_LIMITS, .err = err };
    qsi_arena_init(&b->arena);
    b->deadline_ns = qsi_now_ns() + b->limits.time_ns;
}

void gr_builder_release(gr_builder *b) {
    qsi_arena_release(&b->arena);
    qsi_free(b->rules);
    b->rules = NULL;
}

gr_expr *gr_fail(gr_builder *b, qs_status st, const char *fmt, ...) {
    if (b->st != QS_OK) return NULL;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    b->st = qsi_err_set(b->err, st, "%s", text);
    return NULL;
}

gr_expr *gr_fail_at(gr_builder *b, size_t offset, const char *fmt, ...) {
    if (b->st != QS_OK) return NULL;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    b->st = qsi_err_at(b->err, QS_E_FORMAT, (int64_t)offset, "%s", text);
    return NULL;
}

bool gr_text_ok(gr_builder *b, const char *p, size_t n) {
    size_t bad = 0;
    if (n > b->limits.bytes)
        gr_fail(b, QS_E_LIMIT, "the grammar has %zu bytes, more than %zu", n, b->limits.bytes);
    else if (!qsi_utf8_valid(p, n, &bad)) gr_fail_at(b, bad, "byte %zu is not UTF-8", bad);
    return b->st == QS_OK;
}

bool gr_stopped(gr_builder *b) {
    if (b->st == QS_OK && qsi_now_ns() > b->deadline_ns)
        gr_fail(b, QS_E_LIMIT,
                "the grammar takes too long to compile (more than %.1f s): make it simpler",
                (double)b->limits.time_ns * 1e-9);
    return b->st != QS_OK;
}

void *gr_take(gr_builder *b, size_t n, size_t size) {
    if (b->st != QS_OK) return NULL;
    void *p = b->arena.total > b->limits.states * 128 ? NULL : qsi_arena_calloc(&b->arena, n, size);
    if (!p && b->arena.total > b->limits.states * 128)
        gr_fail(b, QS_E_LIMIT, "the grammar is too large: more than %zu bytes of expressions",
                b->limits.states * 128);
    if (!p) gr_fail(b, QS_E_NOMEM, "out of memory");
    return p;
}

static gr_expr *make(gr_builder *b, gr_kind kind) {
    if (b->st == QS_OK && ++b->n_exprs > b->limits.states)
        gr_fail(b, QS_E_LIMIT, "the grammar is too large: more than %zu parts", b->limits.states);
    if (b->n_exprs % 1024 == 0 && gr_stopped(b)) return NULL;
    gr_expr *e = gr_take(b, 1, sizeof *e);
    if (e) e->kind = kind;
    return e;
}

gr_expr *gr_never(gr_builder *b) {
    return make(b, GR_NEVER);
}

gr_expr *gr_text(gr_builder *b, const char *p, size_t n) {
    gr_expr *e = make(b, GR_TEXT);
    if (!e) return NULL;
    char *copy = gr_take(b, n + 1, 1);
    if (!copy) return NULL;
    if (n) memcpy(copy, p, n);
    e->text = copy;
    e->n = n;
    return e;
}

gr_expr *gr_word(gr_builder *b, const char *z) {
    return gr_text(b, z, strlen(z));
}

static gr_expr *list(gr_builder *b, gr_kind kind, gr_expr *const *kids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!kids[i]) return NULL;
    if (n == 1) return kids[0];
    gr_expr *e = make(b, kind);
    if (!e) return NULL;
    e->kids = gr_take(b, n ? n : 1, sizeof *e->kids);
    if (!e->kids) return NULL;
    if (n) memcpy(e->kids, kids, n * sizeof *kids);
    e->n = n;
    return e;
}

/* Texts kids[from..to) as one. */
static gr_expr *join(gr_builder *b, gr_expr *const *kids, size_t from, size_t to) {
    if (to - from == 1) return kids[from];
    size_t n = 0, at = 0;
    for (size_t i = from; i < to; i++) n += kids[i]->n;
    gr_expr *e = make(b, GR_TEXT);
    char *text = e ? gr_take(b, n + 1, 1) : NULL;
    if (!text) return NULL;
    for (size_t i = from; i < to; at += kids[i++]->n) memcpy(text + at, kids[i]->text, kids[i]->n);
    e->text = text;
    e->n = n;
    return e;
}

gr_expr *gr_seq(gr_builder *b, gr_expr *const *kids, size_t n) {
    if (n == 0) return gr_text(b, "", 0);
    gr_expr **out = gr_take(b, n, sizeof *out);
    size_t m = 0;
    if (!out) return NULL;
    for (size_t i = 0; i < n;) {
        size_t to = i;
        if (!kids[i]) return NULL;
        while (to < n && kids[to] && kids[to]->kind == GR_TEXT) to++;
        if (to == i) {
            out[m++] = kids[i++];
            continue;
        }
        if (!(out[m++] = join(b, kids, i, to))) return NULL;
        i = to;
    }
    return list(b, GR_SEQ, out, m);
}

gr_expr *gr_seq2(gr_builder *b, gr_expr *x, gr_expr *y) {
    gr_expr *kids[] = { x, y };
    return gr_seq(b, kids, 2);
}

gr_expr *gr_seq3(gr_builder *b, gr_expr *x, gr_expr *y, gr_expr *z) {
    gr_expr *kids[] = { x, y, z };
    return gr_seq(b, kids, 3);
}

gr_expr *gr_alt(gr_builder *b, gr_expr *const *kids, size_t n) {
    return n == 0 ? gr_never(b) : list(b, GR_ALT, kids, n);
}

gr_expr *gr_alt2(gr_builder *b, gr_expr *x, gr_expr *y) {
    gr_expr *kids[] = { x, y };
    return gr_alt(b, kids, 2);
}

gr_expr *gr_repeat(gr_builder *b, gr_expr *x, int64_t lo, int64_t hi) {
    if (!x) return NULL;
    if (lo == 1 && hi == 1) return x;
    if (hi == 0) return gr_text(b, "", 0);
    if (lo > GR_MAX_COUNT || (hi != GR_INF && hi > GR_MAX_COUNT))
        return gr_fail(b, QS_E_LIMIT, "a repetition of more than %lld times",
                       (long long)GR_MAX_COUNT);
    gr_expr *e = make(b, GR_REPEAT);
    if (!e || !(e->kids = gr_take(b, 1, sizeof *e->kids))) return NULL;
    e->kids[0] = x;
    e->n = 1;
    e->lo = lo;
    e->hi = hi;
    return e;
}

gr_expr *gr_opt(gr_builder *b, gr_expr *x) {
    return gr_repeat(b, x, 0, 1);
}

void gr_list_push(gr_builder *b, gr_list *l, gr_expr *e) {
    if (!e || b->st != QS_OK) return;
    if (qsi_grow((void **)&l->e, &l->cap, l->n + 1, sizeof(gr_expr *)) != QS_OK) {
        gr_fail(b, QS_E_NOMEM, "out of memory");
        return;
    }
    l->e[l->n++] = e;
}

gr_expr *gr_list_seq(gr_builder *b, gr_list *l) {
    gr_expr *e = b->st == QS_OK ? gr_seq(b, l->e, l->n) : NULL;
    gr_list_release(l);
    return e;
}

gr_expr *gr_list_alt(gr_builder *b, gr_list *l) {
    gr_expr *e = b->st == QS_OK ? gr_alt(b, l->e, l->n) : NULL;
    gr_list_release(l);
    return e;
}

void gr_list_release(gr_list *l) {
    qsi_free(l->e);
    *l = (gr_list){ 0 };
}

gr_expr *gr_rule(gr_builder *b, uint32_t rule) {
    gr_expr *e = make(b, GR_RULE);
    if (e) e->rule = rule;
    return e;
}

uint32_t gr_new_rule(gr_builder *b) {
    if (b->st != QS_OK) return UINT32_MAX;
    if (b->n_rules >= b->limits.states) {
        gr_fail(b, QS_E_LIMIT, "the grammar is too large: more than %zu rules", b->limits.states);
        return UINT32_MAX;
    }
    if (qsi_grow((void **)&b->rules, &b->cap_rules, b->n_rules + 1, sizeof *b->rules) != QS_OK) {
        gr_fail(b, QS_E_NOMEM, "out of memory");
        return UINT32_MAX;
    }
    b->rules[b->n_rules] = (gr_rule_expr){ 0 };
    return (uint32_t)b->n_rules++;
}

void gr_set_rule(gr_builder *b, uint32_t rule, gr_expr *body) {
    if (b->st == QS_OK && rule < b->n_rules) b->rules[rule].body = body;
}

/* ---- classes of characters ---- */

void gr_charset_add(gr_builder *b, gr_charset *s, uint32_t lo, uint32_t hi) {
    if (b->st != QS_OK || lo > hi) return;
    if (qsi_grow((void **)&s->r, &s->cap, s->n + 1, sizeof *s->r) != QS_OK) {
        gr_fail(b, QS_E_NOMEM, "out of memory");
        return;
    }
    s->r[s->n++] = (gr_range){ lo, hi };
}

void gr_charset_add_all(gr_builder *b, gr_charset *s, const gr_charset *other) {
    for (size_t i = 0; i < other->n; i++) gr_charset_add(b, s, other->r[i].lo, other->r[i].hi);
}

static int by_lo(const void *x, const void *y) {
    const gr_range *a = x, *b = y;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

void gr_charset_tidy(gr_charset *s) {
    size_t m = 0;
    if (s->n > 1) qsort(s->r, s->n, sizeof *s->r, by_lo);
    for (size_t i = 0; i < s->n; i++) {
        if (m > 0 && s->r[i].lo <= s->r[m - 1].hi + 1) {
            if (s->r[i].hi > s->r[m - 1].hi) s->r[m - 1].hi = s->r[i].hi;
        } else {
            s->r[m++] = s->r[i];
        }
    }
    s->n = m;
}

void gr_charset_negate(gr_builder *b, gr_charset *s) {
    gr_charset out = { 0 };
    uint32_t from = 0;
    gr_charset_tidy(s);
    for (size_t i = 0; i < s->n; i++) {
        if (s->r[i].lo > from) gr_charset_add(b, &out, from, s->r[i].lo - 1);
        from = s->r[i].hi + 1;
    }
    if (from <= GR_MAX_CP) gr_charset_add(b, &out, from, GR_MAX_CP);
    gr_charset_release(s);
    *s = out;
}

void gr_charset_minus(gr_builder *b, gr_charset *s, const gr_charset *other) {
    gr_charset_negate(b, s);
    gr_charset_add_all(b, s, other);
    gr_charset_negate(b, s);
}

bool gr_charset_has(const gr_charset *s, uint32_t cp) {
    for (size_t i = 0; i < s->n; i++)
        if (cp >= s->r[i].lo && cp <= s->r[i].hi) return true;
    return false;
}

/* Surrogates are no characters: UTF-8 has none. */
static size_t without_surrogates(const gr_charset *s, gr_range *out) {
    size_t m = 0;
    for (size_t i = 0; i < s->n; i++) {
        gr_range r = s->r[i];
        if (r.lo < 0xD800 && r.hi >= 0xD800) out[m++] = (gr_range){ r.lo, 0xD7FF };
        if (r.hi < 0xD800 || r.lo > 0xDFFF) out[m++] = r;
        else if (r.hi > 0xDFFF) out[m++] = (gr_range){ 0xE000, r.hi };
    }
    return m;
}

gr_expr *gr_class(gr_builder *b, gr_charset *s) {
    gr_charset_tidy(s);
    gr_range *r = gr_take(b, 2 * s->n + 1, sizeof *r);
    if (!r) return NULL;
    size_t n = without_surrogates(s, r);
    char utf8[4];
    if (n == 0) return gr_never(b);
    if (n == 1 && r[0].lo == r[0].hi) return gr_text(b, utf8, (size_t)qsi_utf8_encode(r[0].lo, utf8));
    gr_expr *e = make(b, GR_CLASS);
    if (!e) return NULL;
    e->ranges = r;
    e->n = n;
    return e;
}

void gr_charset_release(gr_charset *s) {
    qsi_free(s->r);
    *s = (gr_charset){ 0 };
}
