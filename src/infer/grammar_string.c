/* Strings as JSON writes them: spelling, lengths, names that are not declared, formats. See
 * grammar_schema.h.
 *
 * A free string may spell a character in any way JSON knows. Where it matters which text a string
 * stands for (patterns, names), every character has one spelling: itself, or \" \\ \b \f \n \r \t, or
 * \u00xx for other control characters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "infer/grammar_schema.h"

/* ---- spelling ---- */

/* The one spelling of a character that cannot stand for itself; NULL: it can. */
static const char *escape(uint32_t cp, char buf[8]) {
    switch (cp) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
    }
    if (cp >= 0x20) return NULL;
    (void)snprintf(buf, 8, "\\u%04x", (unsigned)cp);
    return buf;
}

gr_expr *gr_spelled_class(gr_builder *b, const gr_charset *s) {
    static const uint32_t special[] = { '"', '\\' };
    gr_charset plain = { 0 }, out = { 0 };
    gr_list kids = { 0 };
    char buf[8];
    gr_charset_add_all(b, &plain, s);
    gr_charset_tidy(&plain);
    for (uint32_t cp = 0; cp < 0x20; cp++)
        if (gr_charset_has(&plain, cp)) gr_list_push(b, &kids, gr_word(b, escape(cp, buf)));
    for (int i = 0; i < 2; i++)
        if (gr_charset_has(&plain, special[i]))
            gr_list_push(b, &kids, gr_word(b, escape(special[i], buf)));
    gr_charset_add(b, &out, 0, 0x1F);
    for (int i = 0; i < 2; i++) gr_charset_add(b, &out, special[i], special[i]);
    gr_charset_minus(b, &plain, &out);
    if (plain.n > 0) gr_list_push(b, &kids, gr_class(b, &plain));
    gr_charset_release(&plain);
    gr_charset_release(&out);
    return gr_list_alt(b, &kids);
}

static gr_expr *spelled_text(gr_builder *b, const char *p, size_t n, const char *quote) {
    qsi_str s = { 0 };
    qs_status st = qsi_str_puts(&s, quote);
    for (size_t i = 0; i < n && st == QS_OK;) {
        char buf[8];
        int len;
        uint32_t cp = qsi_utf8_decode(p + i, n - i, &len);
        const char *e = escape(cp, buf);
        st = e ? qsi_str_puts(&s, e) : qsi_str_append(&s, p + i, (size_t)len);
        i += (size_t)len;
    }
    if (st == QS_OK) st = qsi_str_puts(&s, quote);
    gr_expr *e = st == QS_OK ? gr_text(b, s.data, s.len) : gr_fail(b, QS_E_NOMEM, "out of memory");
    qsi_str_release(&s);
    return e;
}

gr_expr *gr_quoted(gr_builder *b, const char *p, size_t n) {
    return spelled_text(b, p, n, "\"");
}

gr_expr *gr_spell(gr_builder *b, const gr_expr *e) {
    gr_list kids = { 0 };
    gr_charset s = { 0 };
    if (!e || b->st != QS_OK) return NULL;
    switch (e->kind) {
    case GR_NEVER:
    case GR_RULE: return gr_never(b);
    case GR_TEXT: return spelled_text(b, e->text, e->n, "");
    case GR_REPEAT: return gr_repeat(b, gr_spell(b, e->kids[0]), e->lo, e->hi);
    case GR_CLASS:
        for (size_t i = 0; i < e->n; i++) gr_charset_add(b, &s, e->ranges[i].lo, e->ranges[i].hi);
        gr_expr *spelled = gr_spelled_class(b, &s);
        gr_charset_release(&s);
        return spelled;
    case GR_SEQ:
    case GR_ALT: break;
    }
    for (size_t i = 0; i < e->n; i++) gr_list_push(b, &kids, gr_spell(b, e->kids[i]));
    return e->kind == GR_SEQ ? gr_list_seq(b, &kids) : gr_list_alt(b, &kids);
}

static gr_expr *hex_digits(gr_builder *b, const char *set, int64_t n) {
    gr_charset s = { 0 };
    for (; *set; set++) gr_charset_add(b, &s, (uint32_t)(uint8_t)*set, (uint32_t)(uint8_t)*set);
    gr_expr *e = gr_repeat(b, gr_class(b, &s), n, n);
    gr_charset_release(&s);
    return e;
}

/* \uXXXX, of a character or of a pair of surrogates; never half a pair. */
static gr_expr *unicode_escape(gr_builder *b) {
    static const char all[] = "0123456789abcdefABCDEF";
    gr_expr *low = gr_seq3(b, hex_digits(b, "dD", 1), hex_digits(b, "01234567", 1),
                           hex_digits(b, all, 2));
    gr_expr *other = gr_seq2(b, hex_digits(b, "0123456789abcefABCEF", 1), hex_digits(b, all, 3));
    gr_expr *first = gr_seq3(b, hex_digits(b, "dD", 1), hex_digits(b, "89abAB", 1),
                             hex_digits(b, all, 2));
    gr_expr *second = gr_seq3(b, hex_digits(b, "dD", 1), hex_digits(b, "cdefCDEF", 1),
                              hex_digits(b, all, 2));
    gr_expr *pair = gr_seq3(b, first, gr_word(b, "\\u"), second);
    gr_expr *kids[] = { low, other, pair };
    return gr_seq2(b, gr_word(b, "u"), gr_alt(b, kids, 3));
}

gr_expr *gr_free_char(gr_builder *b) {
    gr_charset plain = { 0 };
    gr_charset_add(b, &plain, 0x20, '"' - 1);
    gr_charset_add(b, &plain, '"' + 1, '\\' - 1);
    gr_charset_add(b, &plain, '\\' + 1, GR_MAX_CP);
    gr_expr *own = gr_class(b, &plain);
    gr_charset_release(&plain);
    gr_expr *shorts = hex_digits(b, "\"\\/bfnrt", 1);
    return gr_alt2(b, own, gr_seq2(b, gr_word(b, "\\"), gr_alt2(b, shorts, unicode_escape(b))));
}

/* ---- names that are not declared ---- */

enum { MAX_NAME = 1000 };

static int by_name(const void *x, const void *y) {
    const gr_name *a = x, *b = y;
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

/* Names [0, n) agree in their first `at` bytes: what may follow so that none of them comes out. */
static gr_expr *differ(gr_builder *b, const gr_name *names, size_t n, size_t at, uint32_t rest) {
    gr_list kids = { 0 };
    gr_charset others = { 0 }, taken = { 0 };
    size_t i = 0;
    while (i < n && names[i].n == at) i++;
    if (i == 0) gr_list_push(b, &kids, gr_word(b, "\""));
    while (i < n && b->st == QS_OK) {
        int len;
        size_t to = i;
        uint32_t cp = qsi_utf8_decode(names[i].p + at, names[i].n - at, &len);
        while (to < n && names[to].n > at &&
               memcmp(names[to].p + at, names[i].p + at, (size_t)len) == 0)
            to++;
        gr_expr *c = spelled_text(b, names[i].p + at, (size_t)len, "");
        gr_list_push(b, &kids, gr_seq2(b, c, differ(b, names + i, to - i, at + (size_t)len, rest)));
        gr_charset_add(b, &taken, cp, cp);
        i = to;
    }
    gr_charset_add(b, &others, 0, GR_MAX_CP);
    gr_charset_minus(b, &others, &taken);
    gr_list_push(b, &kids, gr_seq2(b, gr_spelled_class(b, &others), gr_rule(b, rest)));
    gr_charset_release(&others);
    gr_charset_release(&taken);
    return gr_list_alt(b, &kids);
}

gr_expr *gr_other_names(gr_builder *b, const gr_name *names, size_t n, uint32_t rest) {
    if (n == 0) return gr_rule(b, rest);
    gr_name *copy = gr_take(b, n, sizeof *copy);
    if (!copy) return NULL;
    memcpy(copy, names, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, by_name);
    for (size_t i = 0; i < n; i++)
        if (copy[i].n > MAX_NAME)
            return gr_fail(b, QS_E_LIMIT, "a property's name has %zu bytes, more than %d", copy[i].n,
                           MAX_NAME);
    return differ(b, copy, n, 0, rest);
}

/* ---- lengths ---- */

size_t gr_count_chars(const char *p, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += ((unsigned char)p[i] & 0xC0) != 0x80;
    return k;
}

static int64_t plus(int64_t x, int64_t y) {
    return x == GR_INF || y == GR_INF || x > GR_INF - y ? GR_INF : x + y;
}

static int64_t times(int64_t x, int64_t y) {
    if (x == 0 || y == 0) return 0;
    return x == GR_INF || y == GR_INF || x > GR_INF / y ? GR_INF : x * y;
}

void gr_length(const gr_expr *e, int64_t *lo, int64_t *hi) {
    int64_t a, z;
    *lo = *hi = 0;
    switch (e->kind) {
    case GR_NEVER:
    case GR_RULE: break;
    case GR_TEXT: *lo = *hi = (int64_t)gr_count_chars(e->text, e->n); break;
    case GR_CLASS: *lo = *hi = 1; break;
    case GR_REPEAT:
        gr_length(e->kids[0], &a, &z);
        *lo = times(a, e->lo);
        *hi = times(z, e->hi);
        break;
    case GR_SEQ:
        for (size_t i = 0; i < e->n; i++) {
            gr_length(e->kids[i], &a, &z);
            *lo = plus(*lo, a);
            *hi = plus(*hi, z);
        }
        break;
    case GR_ALT:
        for (size_t i = 0; i < e->n; i++) {
            gr_length(e->kids[i], &a, &z);
            *lo = i == 0 || a < *lo ? a : *lo;
            *hi = z > *hi ? z : *hi;
        }
        break;
    }
}

/* e repeats something of one length: the counts change. */
static gr_expr *repeat_with_length(gr_builder *b, gr_expr *e, int64_t lo, int64_t hi) {
    int64_t a, z;
    gr_length(e->kids[0], &a, &z);
    if (a != z || a == 0) return NULL;
    int64_t from = lo / a + (lo % a != 0), to = hi == GR_INF ? GR_INF : hi / a;
    if (from < e->lo) from = e->lo;
    if (to > e->hi) to = e->hi;
    return from > to ? gr_never(b) : gr_repeat(b, e->kids[0], from, to);
}

/* All parts but one have one length: that one takes what is left. */
static gr_expr *seq_with_length(gr_builder *b, gr_expr *e, int64_t lo, int64_t hi) {
    size_t open = e->n;
    int64_t fixed = 0, a, z;
    for (size_t i = 0; i < e->n; i++) {
        gr_length(e->kids[i], &a, &z);
        if (a == z) fixed += a;
        else if (open < e->n) return NULL;
        else open = i;
    }
    if (open == e->n) return NULL; /* of one length: seen before */
    if (hi != GR_INF && hi < fixed) return gr_never(b);
    gr_expr *part = gr_with_length(b, e->kids[open], lo > fixed ? lo - fixed : 0,
                                   hi == GR_INF ? hi : hi - fixed);
    if (!part) return NULL;
    gr_list kids = { 0 };
    for (size_t i = 0; i < e->n; i++) gr_list_push(b, &kids, i == open ? part : e->kids[i]);
    return gr_list_seq(b, &kids);
}

gr_expr *gr_with_length(gr_builder *b, gr_expr *e, int64_t lo, int64_t hi) {
    int64_t a, z;
    gr_list kids = { 0 };
    if (!e) return NULL;
    gr_length(e, &a, &z);
    if (a >= lo && z <= hi) return e;
    if (z < lo || a > hi) return gr_never(b);
    if (e->kind == GR_REPEAT) return repeat_with_length(b, e, lo, hi);
    if (e->kind == GR_SEQ) return seq_with_length(b, e, lo, hi);
    if (e->kind != GR_ALT) return NULL;
    for (size_t i = 0; i < e->n; i++) {
        gr_expr *part = gr_with_length(b, e->kids[i], lo, hi);
        if (!part) {
            gr_list_release(&kids);
            return NULL;
        }
        gr_list_push(b, &kids, part);
    }
    return gr_list_alt(b, &kids);
}

/* ---- formats ---- */

#define YEAR_DAY                                                                                     \
    "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|"                                      \
    "(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|"                                \
    "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
#define CLOCK                                                                                        \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define BYTE4 "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define IP4 BYTE4 "\\." BYTE4 "\\." BYTE4 "\\." BYTE4
#define H16 "[0-9a-fA-F]{1,4}"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"

const char *gr_format(const char *name, size_t n) {
    static const struct {
        const char *name, *regex;
    } known[] = {
        { "date", "^" YEAR_DAY "$" },
        { "time", "^" CLOCK "$" },
        { "date-time", "^" YEAR_DAY "T" CLOCK "$" },
        { "uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$" },
        { "email", "^" ATOM "{1,30}(?:\\." ATOM "{1,30})?@" LABEL "(?:\\." LABEL "){1,2}$" },
        { "ipv4", "^" IP4 "$" },
        { "ipv6", "^(?:(?:" H16 ":){7}" H16 "|(?:" H16 ":){1,7}:|(?:" H16 ":){1,6}:" H16 "|(?:" H16
                  ":){1,5}(?::" H16 "){1,2}|(?:" H16 ":){1,4}(?::" H16 "){1,3}|(?:" H16
                  ":){1,3}(?::" H16 "){1,4}|(?:" H16 ":){1,2}(?::" H16 "){1,5}|" H16 ":(?::" H16
                  "){1,6}|:(?::" H16 "){1,7}|::|(?:" H16 ":){6}" IP4 "|::(?:[fF]{4}:)?" IP4 ")$" },
    };
    for (size_t i = 0; i < QSI_COUNT(known); i++)
        if (strlen(known[i].name) == n && memcmp(known[i].name, name, n) == 0) return known[i].regex;
    return NULL;
}
