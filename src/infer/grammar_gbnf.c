/* GBNF, the grammar language of llama.cpp, read into expressions: see grammar.h. A rule ends at the end
 * of its line, unless a parenthesis is open or a | stands before the line's end. Source: llama.cpp's
 * grammars/README.md. */
#include <string.h>

#include "base/hash.h"
#include "base/str.h"
#include "infer/grammar_impl.h"

typedef struct name_of {
    const char *p;
    size_t n, used_at; /* where it was first used; offset */
    uint32_t rule;
    bool defined;
} name_of;

typedef struct reader {
    gr_builder *b;
    const char *text, *p, *end;
    name_of *names;
    uint32_t *table; /* open addressing over names, index + 1 */
    size_t n_names, cap_names, cap_table;
    int depth;
} reader;

static size_t offset(const reader *r) {
    return (size_t)(r->p - r->text);
}

/* Fails with the line of what is wrong. */
static gr_expr *wrong(reader *r, const char *what) {
    int line = 1;
    for (const char *p = r->text; p < r->p; p++) line += *p == '\n';
    return gr_fail_at(r->b, offset(r), "grammar, line %d: %s", line, what);
}

static bool bad(const reader *r) {
    return r->b->st != QS_OK;
}

static bool next_is(const reader *r, char c) {
    return r->p < r->end && *r->p == c;
}

static void space(reader *r, bool lines) {
    while (r->p < r->end) {
        if (*r->p == '#') {
            while (r->p < r->end && *r->p != '\n' && *r->p != '\r') r->p++;
        } else if (*r->p == ' ' || *r->p == '\t' || (lines && (*r->p == '\n' || *r->p == '\r'))) {
            r->p++;
        } else {
            break;
        }
    }
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* ---- names ---- */

static bool grow_table(reader *r) {
    size_t cap = r->cap_table ? 2 * r->cap_table : 64;
    uint32_t *t = qsi_calloc(cap, sizeof *t);
    if (!t) return gr_fail(r->b, QS_E_NOMEM, "out of memory"), false;
    for (size_t i = 0; i < r->n_names; i++) {
        size_t at = qsi_hash(r->names[i].p, r->names[i].n) & (cap - 1);
        while (t[at]) at = (at + 1) & (cap - 1);
        t[at] = (uint32_t)i + 1;
    }
    qsi_free(r->table);
    r->table = t;
    r->cap_table = cap;
    return true;
}

/* The name at p, which has n bytes, known or new; NULL when something failed. */
static name_of *find_name(reader *r, const char *p, size_t n) {
    if (2 * r->n_names >= r->cap_table && !grow_table(r)) return NULL;
    size_t at = qsi_hash(p, n) & (r->cap_table - 1);
    for (; r->table[at]; at = (at + 1) & (r->cap_table - 1)) {
        name_of *k = &r->names[r->table[at] - 1];
        if (k->n == n && memcmp(k->p, p, n) == 0) return k;
    }
    uint32_t rule = gr_new_rule(r->b);
    if (rule == UINT32_MAX) return NULL;
    if (qsi_grow((void **)&r->names, &r->cap_names, r->n_names + 1, sizeof *r->names) != QS_OK)
        return gr_fail(r->b, QS_E_NOMEM, "out of memory"), NULL;
    r->names[r->n_names] = (name_of){ p, n, offset(r), rule, false };
    r->table[at] = (uint32_t)++r->n_names;
    return &r->names[r->n_names - 1];
}

static name_of *read_name(reader *r) {
    const char *p = r->p;
    while (r->p < r->end && is_word(*r->p)) r->p++;
    if (r->p == p) return wrong(r, "a rule's name is expected"), NULL;
    return find_name(r, p, (size_t)(r->p - p));
}

/* ---- characters ---- */

static uint32_t read_hex(reader *r, int digits) {
    uint32_t v = 0;
    for (int i = 0; i < digits; i++, r->p++) {
        char c = r->p < r->end ? *r->p : 0;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return wrong(r, "an escape needs more hexadecimal digits"), 0u;
        v = v * 16 + (uint32_t)d;
    }
    if (v > GR_MAX_CP || (v >= 0xD800 && v <= 0xDFFF))
        return wrong(r, "an escape is no character"), 0u;
    return v;
}

/* One character of a literal or class, escapes read. */
static uint32_t read_char(reader *r) {
    int len = 1;
    if (*r->p != '\\') {
        uint32_t cp = qsi_utf8_decode(r->p, (size_t)(r->end - r->p), &len);
        r->p += len;
        return cp;
    }
    char c = r->p + 1 < r->end ? r->p[1] : 0;
    r->p += c ? 2 : 1;
    switch (c) {
    case 'x': return read_hex(r, 2);
    case 'u': return read_hex(r, 4);
    case 'U': return read_hex(r, 8);
    case 't': return '\t';
    case 'r': return '\r';
    case 'n': return '\n';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': return (uint32_t)c;
    default: break;
    }
    r->p -= c ? 2 : 1;
    return wrong(r, "an unknown escape"), 0u;
}

static gr_expr *read_literal(reader *r) {
    qsi_str s = { 0 };
    char utf8[4];
    gr_expr *e = NULL;
    r->p++;
    while (!bad(r) && !next_is(r, '"')) {
        if (r->p >= r->end || *r->p == '\n') {
            wrong(r, "a literal has no closing \"");
            break;
        }
        uint32_t cp = read_char(r);
        if (!bad(r) && qsi_str_append(&s, utf8, (size_t)qsi_utf8_encode(cp, utf8)) != QS_OK)
            gr_fail(r->b, QS_E_NOMEM, "out of memory");
    }
    if (!bad(r)) {
        r->p++;
        e = gr_text(r->b, s.data, s.len);
    }
    qsi_str_release(&s);
    return e;
}

static gr_expr *read_class(reader *r) {
    gr_charset s = { 0 };
    r->p++;
    bool negate = next_is(r, '^');
    if (negate) r->p++;
    while (!bad(r) && !next_is(r, ']')) {
        if (r->p >= r->end) {
            wrong(r, "a class has no closing ]");
            break;
        }
        uint32_t lo = read_char(r), hi = lo;
        if (!bad(r) && r->end - r->p > 1 && *r->p == '-' && r->p[1] != ']') {
            r->p++;
            hi = read_char(r);
            if (!bad(r) && hi < lo) wrong(r, "a range runs backwards");
        }
        gr_charset_add(r->b, &s, lo, hi);
    }
    if (!bad(r)) r->p++;
    if (negate) gr_charset_negate(r->b, &s);
    gr_expr *e = bad(r) ? NULL : gr_class(r->b, &s);
    gr_charset_release(&s);
    return e;
}

/* ---- expressions ---- */

static gr_expr *read_alternatives(reader *r, bool nested);

static int64_t read_count(reader *r) {
    int64_t v = 0;
    if (r->p >= r->end || *r->p < '0' || *r->p > '9')
        return wrong(r, "a number is expected in { }"), 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        v = v > GR_MAX_COUNT ? v : v * 10 + (*r->p - '0');
    return v;
}

/* {m}, {m,} or {m,n} behind the brace. */
static gr_expr *read_braces(reader *r, gr_expr *e) {
    space(r, true);
    int64_t lo = read_count(r), hi = lo;
    space(r, true);
    if (!bad(r) && next_is(r, ',')) {
        r->p++;
        space(r, true);
        hi = next_is(r, '}') ? GR_INF : read_count(r);
        space(r, true);
    }
    if (bad(r)) return NULL;
    if (!next_is(r, '}')) return wrong(r, "} is expected");
    r->p++;
    if (hi < lo) return wrong(r, "a repetition's bounds are the wrong way round");
    return gr_repeat(r->b, e, lo, hi);
}

static gr_expr *read_postfix(reader *r, gr_expr *e, bool nested) {
    for (;;) {
        space(r, nested);
        char c = r->p < r->end && !bad(r) ? *r->p : 0;
        if (c != '*' && c != '+' && c != '?' && c != '{') return e;
        r->p++;
        if (c == '*') e = gr_repeat(r->b, e, 0, GR_INF);
        else if (c == '+') e = gr_repeat(r->b, e, 1, GR_INF);
        else if (c == '?') e = gr_opt(r->b, e);
        else e = read_braces(r, e);
    }
}

static gr_expr *read_group(reader *r) {
    r->p++;
    space(r, true);
    if (++r->depth > GR_MAX_DEPTH) return wrong(r, "parentheses are nested too deeply");
    gr_expr *e = read_alternatives(r, true);
    r->depth--;
    if (!bad(r) && !next_is(r, ')')) return wrong(r, ") is expected");
    r->p += !bad(r);
    return e;
}

/* One symbol; NULL without failure: there is none here. */
static gr_expr *read_symbol(reader *r) {
    gr_charset all = { 0 };
    gr_expr *e = NULL;
    if (r->p >= r->end) return NULL;
    switch (*r->p) {
    case '"': return read_literal(r);
    case '[': return read_class(r);
    case '(': return read_group(r);
    case '.':
        r->p++;
        gr_charset_add(r->b, &all, 0, GR_MAX_CP);
        e = gr_class(r->b, &all);
        gr_charset_release(&all);
        return e;
    case '<':
    case '!':
        return gr_fail(
            r->b, QS_E_UNSUPPORTED,
            "grammar, byte %zu: tokens by name or number (<...>) are not supported: write text",
            offset(r));
    default: break;
    }
    if (!is_word(*r->p)) return NULL;
    name_of *k = read_name(r);
    return k ? gr_rule(r->b, k->rule) : NULL;
}

static gr_expr *read_sequence(reader *r, bool nested) {
    gr_list kids = { 0 };
    while (!bad(r)) {
        gr_expr *e = read_symbol(r);
        if (!e) break;
        gr_list_push(r->b, &kids, read_postfix(r, e, nested));
    }
    return gr_list_seq(r->b, &kids);
}

static gr_expr *read_alternatives(reader *r, bool nested) {
    gr_list kids = { 0 };
    gr_list_push(r->b, &kids, read_sequence(r, nested));
    while (!bad(r) && next_is(r, '|')) {
        r->p++;
        space(r, true);
        gr_list_push(r->b, &kids, read_sequence(r, nested));
    }
    return gr_list_alt(r->b, &kids);
}

static void read_rule(reader *r) {
    name_of *k = read_name(r);
    if (!k) return;
    size_t index = (size_t)(k - r->names);
    space(r, false);
    if (k->defined) {
        gr_fail_at(r->b, offset(r), "grammar: rule %.*s is defined twice",
                   (int)(k->n < 80 ? k->n : 80), k->p);
        return;
    }
    k->defined = true;
    if (r->end - r->p < 3 || memcmp(r->p, "::=", 3) != 0) {
        wrong(r, "::= is expected behind the rule's name");
        return;
    }
    r->p += 3;
    space(r, true);
    gr_set_rule(r->b, r->names[index].rule, read_alternatives(r, false));
    if (bad(r)) return;
    if (r->p < r->end && *r->p != '\n' && *r->p != '\r')
        wrong(r, "a new line is expected behind the rule");
    space(r, true);
}

static void check_names(reader *r) {
    for (size_t i = 0; i < r->n_names && !bad(r); i++) {
        const name_of *k = &r->names[i];
        if (k->defined) continue;
        r->p = r->text + (i ? k->used_at : 0);
        gr_fail_at(r->b, offset(r),
                   i ? "grammar: rule %.*s is not defined" : "grammar: there is no rule %.*s",
                   (int)(k->n < 80 ? k->n : 80), k->p);
    }
}

qs_status qsi_grammar_from_gbnf(qsi_grammar **g, const char *text, size_t n,
                                const qsi_grammar_limits *l, qs_err *err) {
    qs_status st = QS_OK;
    gr_builder b;
    static const char root[] = "root";
    gr_builder_init(&b, l, err);
    reader r = { .b = &b, .text = text, .p = text, .end = text + n };
    if (gr_text_ok(&b, text, n)) (void)find_name(&r, root, 4); /* rule 0 */
    space(&r, true);
    while (b.st == QS_OK && r.p < r.end) read_rule(&r);
    check_names(&r);
    QS_TRY(gr_build(g, &b, err));
done:
    qsi_free(r.names);
    qsi_free(r.table);
    gr_builder_release(&b);
    return st;
}
