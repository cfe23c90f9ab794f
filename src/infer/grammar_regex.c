/* Regular expressions read into expressions: the common ground of ECMAScript and Python. What a grammar
 * over bytes cannot follow (look-around, back references, \b, anchors within) is refused.
 *
 * Anchors stand where they can be understood from the text alone: at the beginning (^) or end ($) of an
 * alternative that is not within a quantified group. Source: ECMA-262, Pattern, with annex B's leniency
 * for lone braces. */
#include <string.h>

#include "base/str.h"
#include "infer/grammar_impl.h"
#include "tok/unicode_table.h"

typedef struct reader {
    gr_builder *b;
    const gr_regex_opts *o;
    const char *text, *p, *end;
    int depth;
} reader;

static gr_expr *wrong(reader *r, const char *what) {
    size_t at = (size_t)(r->p - r->text);
    return gr_fail_at(r->b, at, "regular expression, byte %zu: %s", at, what);
}

static gr_expr *unsupported(reader *r, const char *what) {
    size_t at = (size_t)(r->p - r->text);
    return gr_fail(r->b, QS_E_UNSUPPORTED, "regular expression, byte %zu: %s cannot be enforced", at,
                   what);
}

static bool bad(const reader *r) {
    return r->b->st != QS_OK;
}

static bool next_is(const reader *r, char c) {
    return r->p < r->end && *r->p == c;
}

static bool starts(const reader *r, const char *z) {
    size_t n = strlen(z);
    return (size_t)(r->end - r->p) >= n && memcmp(r->p, z, n) == 0;
}

static gr_expr *make_class(reader *r, gr_charset *s) {
    gr_expr *e = NULL;
    gr_charset_tidy(s);
    if (!bad(r)) e = gr_class(r->b, s);
    gr_charset_release(s);
    return e;
}

static gr_expr *one_char(reader *r, uint32_t cp) {
    gr_charset s = { 0 };
    gr_charset_add(r->b, &s, cp, cp);
    return make_class(r, &s);
}

/* ---- named classes ---- */

static void add_word(reader *r, gr_charset *s) {
    gr_charset_add(r->b, s, '0', '9');
    gr_charset_add(r->b, s, 'A', 'Z');
    gr_charset_add(r->b, s, '_', '_');
    gr_charset_add(r->b, s, 'a', 'z');
}

static void add_space(reader *r, gr_charset *s) {
    static const gr_range ecma[] = { { 0xA0, 0xA0 },     { 0x1680, 0x1680 }, { 0x2000, 0x200A },
                                     { 0x2028, 0x2029 }, { 0x202F, 0x202F }, { 0x205F, 0x205F },
                                     { 0x3000, 0x3000 }, { 0xFEFF, 0xFEFF } };
    gr_charset_add(r->b, s, 9, 13);
    gr_charset_add(r->b, s, ' ', ' ');
    for (size_t i = 0; r->o->ecma && i < QSI_COUNT(ecma); i++)
        gr_charset_add(r->b, s, ecma[i].lo, ecma[i].hi);
}

/* \d \D \w \W \s \S; false: c is none of them. */
static bool add_named(reader *r, char c, gr_charset *s) {
    gr_charset own = { 0 };
    switch (c | 32) {
    case 'd': gr_charset_add(r->b, &own, '0', '9'); break;
    case 'w': add_word(r, &own); break;
    case 's': add_space(r, &own); break;
    default: return false;
    }
    if (c < 'a') gr_charset_negate(r->b, &own);
    gr_charset_add_all(r->b, s, &own);
    gr_charset_release(&own);
    return true;
}

static void add_flagged(reader *r, unsigned flag, gr_charset *s) {
    uint32_t from = 0;
    bool in = false;
    for (uint32_t cp = 0; cp <= GR_MAX_CP; cp++) {
        bool has = (qsi_uc_flags(cp) & flag) != 0;
        if (has && !in) from = cp;
        if (!has && in) gr_charset_add(r->b, s, from, cp - 1);
        in = has;
    }
    if (in) gr_charset_add(r->b, s, from, GR_MAX_CP);
}

/* \p{...} behind the p: the large categories, which the tokenizers' tables know. */
static void add_property(reader *r, bool negate, gr_charset *s) {
    static const struct {
        const char *name;
        unsigned flag;
    } known[] = {
        { "{L}", QSI_UC_L },      { "{Letter}", QSI_UC_L },      { "{M}", QSI_UC_M },
        { "{Mark}", QSI_UC_M },   { "{N}", QSI_UC_N },           { "{Number}", QSI_UC_N },
        { "{P}", QSI_UC_P },      { "{Punctuation}", QSI_UC_P }, { "{S}", QSI_UC_S },
        { "{Symbol}", QSI_UC_S },
    };
    gr_charset own = { 0 };
    for (size_t i = 0; i < QSI_COUNT(known); i++) {
        if (!starts(r, known[i].name)) continue;
        r->p += strlen(known[i].name);
        add_flagged(r, known[i].flag, &own);
        if (negate) gr_charset_negate(r->b, &own);
        gr_charset_add_all(r->b, s, &own);
        gr_charset_release(&own);
        return;
    }
    unsupported(r, "\\p other than L, M, N, P and S");
}

/* ---- escapes ---- */

static uint32_t hex(reader *r, int digits) {
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
    return v;
}

/* Behind \u: four digits, a pair of surrogates, or {digits}. */
static uint32_t unicode_escape(reader *r) {
    uint32_t v;
    if (next_is(r, '{')) {
        int n = 0;
        r->p++;
        while (r->p + n < r->end && r->p[n] != '}' && n < 8) n++;
        v = n == 0 ? 0xD800 : hex(r, n);
        if (!next_is(r, '}')) return wrong(r, "\\u{ } holds too many digits"), 0u;
        r->p++;
    } else {
        v = hex(r, 4);
        if (v >= 0xD800 && v <= 0xDBFF && starts(r, "\\u")) {
            r->p += 2;
            uint32_t low = hex(r, 4);
            if (low >= 0xDC00 && low <= 0xDFFF) v = 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (!bad(r) && (v > GR_MAX_CP || (v >= 0xD800 && v <= 0xDFFF)))
        return wrong(r, "\\u is no character"), 0u;
    return v;
}

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* An escape that is one character; p stands behind the backslash. */
static uint32_t char_escape(reader *r, bool in_class) {
    if (r->p >= r->end) return wrong(r, "a backslash ends the expression"), 0u;
    char c = *r->p;
    int len = 1;
    if (!is_alnum(c)) {
        uint32_t cp = qsi_utf8_decode(r->p, (size_t)(r->end - r->p), &len);
        r->p += len;
        return cp;
    }
    r->p++;
    switch (c) {
    case 't': return '\t';
    case 'n': return '\n';
    case 'r': return '\r';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'a':
        if (r->o->ecma) break;
        return '\a';
    case 'x': return hex(r, 2);
    case 'u': return unicode_escape(r);
    case 'b':
        if (in_class) return '\b';
        break;
    case '0':
        if (r->p < r->end && *r->p >= '0' && *r->p <= '9') break;
        return 0;
    case 'c':
        if (r->p >= r->end || !is_alnum(*r->p) || *r->p < 'A') break;
        return (uint32_t)(*r->p++ & 31);
    default: break;
    }
    r->p--;
    if (c == 'b' || c == 'B') unsupported(r, "a word border (\\b, \\B)");
    else if (c >= '0' && c <= '9') unsupported(r, "a back reference or octal escape");
    else if (c == 'k') unsupported(r, "a back reference");
    else if (c == 'A' || c == 'Z' || c == 'z' || c == 'G')
        unsupported(r, "this anchor (use ^ and $)");
    else wrong(r, "an unknown escape");
    return 0;
}

/* ---- classes ---- */

/* One member: a character (true), or a named class added to s (false). */
static bool class_member(reader *r, bool in_class, gr_charset *s, uint32_t *cp) {
    int len;
    if (!next_is(r, '\\')) {
        *cp = qsi_utf8_decode(r->p, (size_t)(r->end - r->p), &len);
        r->p += len;
        return true;
    }
    r->p++;
    if (r->p < r->end && add_named(r, *r->p, s)) {
        r->p++;
        return false;
    }
    if (next_is(r, 'p') || next_is(r, 'P')) {
        r->p++;
        add_property(r, r->p[-1] == 'P', s);
        return false;
    }
    *cp = char_escape(r, in_class);
    return true;
}

static gr_expr *read_class(reader *r) {
    gr_charset s = { 0 };
    r->p++;
    bool negate = next_is(r, '^'), first = true;
    if (negate) r->p++;
    for (; !bad(r) && (!next_is(r, ']') || (first && !r->o->ecma)); first = false) {
        uint32_t lo, hi;
        if (r->p >= r->end) {
            wrong(r, "a class has no closing ]");
            break;
        }
        if (!class_member(r, true, &s, &lo) || bad(r)) continue;
        hi = lo;
        if (r->end - r->p > 1 && *r->p == '-' && r->p[1] != ']') {
            r->p++;
            if (!class_member(r, true, &s, &hi)) { /* [a-\d]: the three stand for themselves */
                gr_charset_add(r->b, &s, '-', '-');
                hi = lo;
            }
            if (!bad(r) && hi < lo) wrong(r, "a range runs backwards");
        }
        gr_charset_add(r->b, &s, lo, hi);
    }
    if (!bad(r)) r->p++;
    if (negate) gr_charset_negate(r->b, &s);
    return make_class(r, &s);
}

static gr_expr *any_char(reader *r) {
    gr_charset s = { 0 };
    gr_charset_add(r->b, &s, '\n', '\n');
    if (r->o->ecma) {
        gr_charset_add(r->b, &s, '\r', '\r');
        gr_charset_add(r->b, &s, 0x2028, 0x2029);
    }
    gr_charset_negate(r->b, &s);
    return make_class(r, &s);
}

static gr_expr *any_text(reader *r) {
    gr_charset s = { 0 };
    gr_charset_add(r->b, &s, 0, GR_MAX_CP);
    return gr_repeat(r->b, make_class(r, &s), 0, GR_INF);
}

/* ---- groups, atoms, quantifiers ---- */

static gr_expr *read_alternatives(reader *r, bool top);

/* Behind "(": skips ?: and names. */
static void open_group(reader *r) {
    if (!next_is(r, '?')) return;
    if (starts(r, "?:")) {
        r->p += 2;
    } else if (starts(r, "?=") || starts(r, "?!") || starts(r, "?<=") || starts(r, "?<!")) {
        unsupported(r, "look-around");
    } else if (starts(r, "?<") || starts(r, "?P<")) {
        while (r->p < r->end && *r->p != '>' && *r->p != ')') r->p++;
        if (!next_is(r, '>')) wrong(r, "a group's name has no closing >");
        else r->p++;
    } else {
        unsupported(r, "this kind of group (?...)");
    }
}

static gr_expr *read_group(reader *r, bool top) {
    r->p++;
    open_group(r);
    if (bad(r)) return NULL;
    if (++r->depth > GR_MAX_DEPTH) return wrong(r, "groups are nested too deeply");
    gr_expr *e = read_alternatives(r, top);
    r->depth--;
    if (!bad(r) && !next_is(r, ')')) return wrong(r, ") is expected");
    r->p += !bad(r);
    return e;
}

static gr_expr *read_escape(reader *r) {
    gr_charset s = { 0 };
    uint32_t cp = 0;
    bool single = class_member(r, false, &s, &cp);
    if (single) {
        gr_charset_release(&s);
        return bad(r) ? NULL : one_char(r, cp);
    }
    return make_class(r, &s);
}

/* {m}, {m,}, {m,n}; false and p unchanged: the brace stands for itself. */
static bool read_braces(reader *r, int64_t *lo, int64_t *hi) {
    const char *p = r->p + 1;
    int64_t v[2] = { 0, 0 };
    int n = 0, digits = 0;
    for (; p < r->end && *p != '}'; p++) {
        if (*p == ',' && n == 0 && digits > 0) {
            n = 1;
            digits = 0;
        } else if (*p >= '0' && *p <= '9') {
            if (v[n] <= GR_MAX_COUNT) v[n] = v[n] * 10 + (*p - '0');
            digits++;
        } else {
            return false;
        }
    }
    if (p >= r->end || (n == 0 && digits == 0)) return false;
    *lo = v[0];
    *hi = n == 0 ? v[0] : digits ? v[1] : GR_INF;
    r->p = p + 1;
    return true;
}

static bool read_quantifier(reader *r, int64_t *lo, int64_t *hi) {
    char c = r->p < r->end ? *r->p : 0;
    *lo = c == '+';
    *hi = c == '?' ? 1 : GR_INF;
    if (c == '*' || c == '+' || c == '?') r->p++;
    else if (c != '{' || !read_braces(r, lo, hi)) return false;
    if (*hi < *lo) wrong(r, "a quantifier's bounds are the wrong way round");
    if (next_is(r, '?')) r->p++; /* lazy: the same texts match */
    else if (next_is(r, '+')) unsupported(r, "a possessive quantifier");
    return true;
}

static gr_expr *read_atom(reader *r) {
    int len;
    switch (*r->p) {
    case '(': return read_group(r, false);
    case '[': return read_class(r);
    case '.': r->p++; return any_char(r);
    case '\\': return read_escape(r);
    case '^':
    case '$': return unsupported(r, "an anchor within the expression");
    case '*':
    case '+':
    case '?': return wrong(r, "there is nothing to repeat");
    default: break;
    }
    uint32_t cp = qsi_utf8_decode(r->p, (size_t)(r->end - r->p), &len);
    r->p += len;
    return one_char(r, cp);
}

/* Where the group that opens at p is closed; NULL: nowhere. */
static const char *group_end(const reader *r) {
    int depth = 0;
    bool in_class = false;
    for (const char *p = r->p; p < r->end; p++) {
        if (*p == '\\') p++;
        else if (in_class) in_class = *p != ']';
        else if (*p == '[') in_class = true;
        else if (*p == '(') depth++;
        else if (*p == ')' && --depth == 0) return p;
    }
    return NULL;
}

/* The whole alternative is one group: its alternatives are as good as this one. */
static bool is_lone_group(const reader *r) {
    const char *p = next_is(r, '(') ? group_end(r) : NULL;
    return p && (p + 1 == r->end || p[1] == '|' || p[1] == ')');
}

static bool at_end(const reader *r) {
    return r->p >= r->end || *r->p == '|' || *r->p == ')';
}

static gr_expr *read_sequence(reader *r, bool top) {
    gr_list kids = { 0 };
    bool begins = top && next_is(r, '^'), ends = false;
    if (top && is_lone_group(r)) return read_group(r, true);
    if (begins) r->p++;
    if (top && r->o->search && !begins) gr_list_push(r->b, &kids, any_text(r));
    while (!bad(r) && !at_end(r)) {
        int64_t lo, hi;
        if (top && next_is(r, '$')) {
            r->p++;
            ends = at_end(r);
            if (ends) break;
            r->p--;
        }
        gr_expr *e = read_atom(r);
        if (!bad(r) && read_quantifier(r, &lo, &hi) && !bad(r)) {
            e = gr_repeat(r->b, e, lo, hi);
            if (!bad(r) && read_quantifier(r, &lo, &hi)) wrong(r, "there is nothing to repeat");
        }
        gr_list_push(r->b, &kids, e);
    }
    if (top && r->o->search && !ends) gr_list_push(r->b, &kids, any_text(r));
    return gr_list_seq(r->b, &kids);
}

static gr_expr *read_alternatives(reader *r, bool top) {
    gr_list kids = { 0 };
    for (;;) {
        gr_list_push(r->b, &kids, read_sequence(r, top));
        if (bad(r) || !next_is(r, '|')) break;
        r->p++;
    }
    return gr_list_alt(r->b, &kids);
}

gr_expr *gr_regex(gr_builder *b, const char *p, size_t n, const gr_regex_opts *o) {
    reader r = { .b = b, .o = o, .text = p, .p = p, .end = p + n };
    if (!gr_text_ok(b, p, n)) return NULL;
    gr_expr *e = read_alternatives(&r, true);
    if (!bad(&r) && r.p < r.end) return wrong(&r, ") without (");
    return e;
}

qs_status qsi_grammar_from_regex(qsi_grammar **g, const char *text, size_t n,
                                 const qsi_grammar_limits *l, qs_err *err) {
    qs_status st = QS_OK;
    gr_builder b;
    static const gr_regex_opts opts = { .search = false };
    gr_builder_init(&b, l, err);
    uint32_t root = gr_new_rule(&b);
    gr_set_rule(&b, root, gr_regex(&b, text, n, &opts));
    QS_TRY(gr_build(g, &b, err));
done:
    gr_builder_release(&b);
    return st;
}
