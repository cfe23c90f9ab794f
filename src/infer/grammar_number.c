/* Numbers as text: spans of numbers become expressions over digits, digit by digit along the bounds, as
 * one compares two numbers on paper. See grammar_schema.h. */
#include <stdio.h>
#include <string.h>

#include "infer/grammar_schema.h"

/* ---- decimals ---- */

bool gr_decimal_read(const gr_json *v, gr_decimal *d) {
    char digits[GR_DIGITS];
    int n = 0, point = -1;
    long exp = 0;
    size_t k = 0;
    *d = (gr_decimal){ .neg = v->n > 0 && v->s[0] == '-' };
    for (k = d->neg; k < v->n && (v->s[k] | 32) != 'e'; k++) {
        if (v->s[k] == '.') {
            point = n;
        } else {
            if (n >= GR_DIGITS) return false;
            digits[n++] = v->s[k];
        }
    }
    if (k < v->n) {
        bool minus = v->s[++k] == '-';
        k += v->s[k] == '-' || v->s[k] == '+';
        for (; k < v->n && exp < 1000; k++) exp = exp * 10 + (v->s[k] - '0');
        exp = minus ? -exp : exp;
    }
    long at = (point < 0 ? n : point) + exp; /* where the point stands among the digits */
    bool zero = true;
    for (int i = 0; i < n; i++) zero = zero && digits[i] == '0';
    if (zero) {
        *d = (gr_decimal){ .n_int = 1, .i = "0" };
        return true;
    }
    if (at >= GR_DIGITS || at < -GR_DIGITS) return false;
    for (long i = 0; i < at; i++) {
        char c = i < n ? digits[i] : '0';
        if (d->n_int > 0 || c != '0') d->i[d->n_int++] = c;
    }
    if (d->n_int == 0) d->i[d->n_int++] = '0';
    for (long i = at; i < n; i++) {
        if (d->n_frac >= GR_DIGITS) return false;
        d->f[d->n_frac++] = i < 0 ? '0' : digits[i];
    }
    while (d->n_frac > 0 && d->f[d->n_frac - 1] == '0') d->n_frac--;
    return true;
}

static int compare_sizes(const gr_decimal *x, const gr_decimal *y) {
    if (x->n_int != y->n_int) return x->n_int < y->n_int ? -1 : 1;
    int c = memcmp(x->i, y->i, (size_t)x->n_int);
    int n = x->n_frac < y->n_frac ? x->n_frac : y->n_frac;
    if (c == 0) c = memcmp(x->f, y->f, (size_t)n);
    return c ? c : x->n_frac - y->n_frac;
}

int gr_decimal_compare(const gr_decimal *x, const gr_decimal *y) {
    if (x->neg != y->neg) return x->neg ? -1 : 1;
    return x->neg ? -compare_sizes(x, y) : compare_sizes(x, y);
}

void gr_span_above(gr_span *s, const gr_decimal *d, bool open) {
    int c = s->has_lo ? gr_decimal_compare(d, &s->lo) : 1;
    if (c > 0 || (c == 0 && open)) s->open_lo = open;
    if (c > 0) s->lo = *d;
    s->has_lo = true;
}

void gr_span_below(gr_span *s, const gr_decimal *d, bool open) {
    int c = s->has_hi ? gr_decimal_compare(d, &s->hi) : -1;
    if (c < 0 || (c == 0 && open)) s->open_hi = open;
    if (c < 0) s->hi = *d;
    s->has_hi = true;
}

bool gr_span_has(const gr_span *s, const gr_decimal *d) {
    int lo = s->has_lo ? gr_decimal_compare(d, &s->lo) : 1;
    int hi = s->has_hi ? gr_decimal_compare(d, &s->hi) : -1;
    return (lo > 0 || (lo == 0 && !s->open_lo)) && (hi < 0 || (hi == 0 && !s->open_hi));
}

static bool before(const gr_span *x, const gr_span *y) {
    if (!x->has_hi || !y->has_lo) return false;
    int c = gr_decimal_compare(&x->hi, &y->lo);
    return c < 0 || (c == 0 && (x->open_hi || y->open_lo));
}

bool gr_span_apart(const gr_span *x, const gr_span *y) {
    return before(x, y) || before(y, x);
}

/* ---- digits between bounds ---- */

typedef struct between {
    gr_builder *b;
    const gr_span *s; /* of sizes: nothing negative in it */
    int n_int;        /* digits in front of the point */
    int max_frac;
} between;

static gr_expr *digit(gr_builder *b, char lo, char hi) {
    gr_charset s = { 0 };
    gr_charset_add(b, &s, (uint32_t)lo, (uint32_t)hi);
    gr_expr *e = gr_class(b, &s);
    gr_charset_release(&s);
    return e;
}

static gr_expr *some_digits(gr_builder *b, int64_t lo, int64_t hi) {
    return gr_repeat(b, digit(b, '0', '9'), lo, hi);
}

static char frac_digit(const gr_decimal *d, int i) {
    return i < d->n_frac ? d->f[i] : '0';
}

/* May the number end here, with i digits behind the point, along the bounds? */
static bool may_end(const between *w, int i, bool at_lo, bool at_hi) {
    const gr_span *s = w->s;
    if (at_lo && (s->lo.n_frac > i || s->open_lo)) return false;
    return !(at_hi && s->hi.n_frac <= i && s->open_hi);
}

typedef gr_expr *rest_fn(const between *w, int i, bool at_lo, bool at_hi);

/* A digit between those of the bounds, then what follows: along a bound, or free. */
static gr_expr *step(const between *w, int i, bool at_lo, bool at_hi, char lo, char hi,
                     rest_fn *rest) {
    gr_builder *b = w->b;
    gr_list kids = { 0 };
    if (lo > hi) return gr_never(b);
    if (at_lo && at_hi && lo == hi) return gr_seq2(b, digit(b, lo, lo), rest(w, i + 1, true, true));
    char free_lo = (char)(lo + at_lo), free_hi = (char)(hi - at_hi);
    if (at_lo) gr_list_push(b, &kids, gr_seq2(b, digit(b, lo, lo), rest(w, i + 1, true, false)));
    if (at_hi) gr_list_push(b, &kids, gr_seq2(b, digit(b, hi, hi), rest(w, i + 1, false, true)));
    if (free_lo <= free_hi)
        gr_list_push(b, &kids, gr_seq2(b, digit(b, free_lo, free_hi), rest(w, i + 1, false, false)));
    return gr_list_alt(b, &kids);
}

/* Behind i digits behind the point. */
static gr_expr *frac_rest(const between *w, int i, bool at_lo, bool at_hi) {
    gr_builder *b = w->b;
    gr_list kids = { 0 };
    if (!at_lo && !at_hi && i > 0) return some_digits(b, 0, w->max_frac - i);
    if (!at_lo && !at_hi)
        return w->max_frac == 0
                   ? gr_text(b, "", 0)
                   : gr_opt(b, gr_seq2(b, gr_word(b, "."), some_digits(b, 1, w->max_frac)));
    if (may_end(w, i, at_lo, at_hi)) gr_list_push(b, &kids, gr_text(b, "", 0));
    if (i < w->max_frac) {
        char lo = at_lo ? frac_digit(&w->s->lo, i) : '0', hi = at_hi ? frac_digit(&w->s->hi, i) : '9';
        gr_expr *e = step(w, i, at_lo, at_hi, lo, hi, frac_rest);
        gr_list_push(b, &kids, i == 0 ? gr_seq2(b, gr_word(b, "."), e) : e);
    }
    return gr_list_alt(b, &kids);
}

/* Behind i digits in front of the point. */
static gr_expr *int_rest(const between *w, int i, bool at_lo, bool at_hi) {
    if (i == w->n_int) return frac_rest(w, 0, at_lo, at_hi);
    if (!at_lo && !at_hi)
        return gr_seq2(w->b, some_digits(w->b, w->n_int - i, w->n_int - i),
                       frac_rest(w, 0, false, false));
    char lo = at_lo ? w->s->lo.i[i] : '0', hi = at_hi ? w->s->hi.i[i] : '9';
    return step(w, i, at_lo, at_hi, lo, hi, int_rest);
}

/* Sizes within a span that holds nothing negative. */
static gr_expr *sizes(gr_builder *b, const gr_span *s, int max_frac) {
    gr_list kids = { 0 };
    int least = s->has_lo ? s->lo.n_int : 1, most = least > GR_MAX_INT ? least : GR_MAX_INT;
    if (s->has_hi) most = s->hi.n_int;
    for (int n = least; n <= most; n++) {
        between w = { b, s, n, max_frac };
        bool at_lo = s->has_lo && n == s->lo.n_int, at_hi = s->has_hi && n == s->hi.n_int;
        char lo = at_lo ? s->lo.i[0] : n > 1 ? '1' : '0', hi = at_hi ? s->hi.i[0] : '9';
        gr_list_push(b, &kids, step(&w, 0, at_lo, at_hi, lo, hi, int_rest));
        if (b->st != QS_OK) break;
    }
    return gr_list_alt(b, &kids);
}

static const gr_decimal zero = { .n_int = 1, .i = "0" };

static gr_decimal flipped(gr_decimal d) {
    d.neg = !d.neg && compare_sizes(&d, &zero) != 0;
    return d;
}

gr_expr *gr_numbers(gr_builder *b, const gr_span *s, int max_frac) {
    gr_list kids = { 0 };
    if (!s->has_lo || s->lo.neg) { /* -y, y in the mirrored span and not zero */
        gr_span y = { .has_lo = true, .open_lo = true, .lo = zero };
        gr_decimal d;
        if (s->has_hi && s->hi.neg) d = flipped(s->hi), gr_span_above(&y, &d, s->open_hi);
        if (s->has_lo) d = flipped(s->lo), gr_span_below(&y, &d, s->open_lo);
        gr_list_push(b, &kids, gr_seq2(b, gr_word(b, "-"), sizes(b, &y, max_frac)));
    }
    if (!s->has_hi || !s->hi.neg) {
        gr_span y = *s;
        gr_span_above(&y, &zero, false);
        gr_list_push(b, &kids, sizes(b, &y, max_frac));
    }
    return gr_list_alt(b, &kids);
}

gr_expr *gr_any_number(gr_builder *b) {
    gr_span all = { 0 };
    gr_expr *sign = gr_opt(b, gr_alt2(b, gr_word(b, "+"), gr_word(b, "-")));
    gr_expr *e = gr_alt2(b, gr_word(b, "e"), gr_word(b, "E"));
    gr_expr *exp = gr_seq3(b, e, sign, some_digits(b, 1, 2));
    gr_expr *zeros = gr_seq2(b, gr_word(b, "-0"),
                             gr_opt(b, gr_seq2(b, gr_word(b, "."), some_digits(b, 1, 18))));
    return gr_seq2(b, gr_alt2(b, zeros, gr_numbers(b, &all, GR_MAX_FRAC)), gr_opt(b, exp));
}

/* ---- multiples ---- */

enum { MAX_MULTIPLE = 4096, MAX_LISTED = 4096 };

/* Digit by digit, one rule per remainder. */
static gr_expr *by_remainder(gr_builder *b, int64_t k, bool negative) {
    gr_list start = { 0 };
    uint32_t first = (uint32_t)b->n_rules;
    for (int64_t r = 0; r < k; r++) (void)gr_new_rule(b);
    for (int64_t r = 0; r < k && b->st == QS_OK; r++) {
        gr_list kids = { 0 };
        if (r == 0) gr_list_push(b, &kids, gr_text(b, "", 0));
        for (int d = 0; d < 10; d++) {
            gr_expr *rest = gr_rule(b, first + (uint32_t)((r * 10 + d) % k));
            gr_list_push(b, &kids, gr_seq2(b, digit(b, (char)('0' + d), (char)('0' + d)), rest));
        }
        gr_set_rule(b, first + (uint32_t)r, gr_list_alt(b, &kids));
    }
    for (int d = 1; d < 10; d++) {
        gr_expr *rest = gr_rule(b, first + (uint32_t)(d % k));
        gr_list_push(b, &start, gr_seq2(b, digit(b, (char)('0' + d), (char)('0' + d)), rest));
    }
    gr_expr *e = gr_list_alt(b, &start);
    if (negative) e = gr_seq2(b, gr_opt(b, gr_word(b, "-")), e);
    return gr_alt2(b, gr_word(b, "0"), e);
}

static bool to_i64(const gr_decimal *d, int64_t *v) {
    *v = 0;
    if (d->n_int > 15) return false;
    for (int i = 0; i < d->n_int; i++) *v = *v * 10 + (d->i[i] - '0');
    if (d->neg) *v = -*v;
    return true;
}

static gr_expr *listed(gr_builder *b, const gr_span *s, int64_t k, int64_t from, int64_t to) {
    gr_list kids = { 0 };
    for (int64_t v = from / k * k - k; v <= to + k && b->st == QS_OK; v += k) {
        char text[32];
        int n = snprintf(text, sizeof text, "%lld", (long long)v);
        gr_json j = { .kind = GR_NUMBER, .s = text, .n = (size_t)n };
        gr_decimal d;
        if (gr_decimal_read(&j, &d) && gr_span_has(s, &d))
            gr_list_push(b, &kids, gr_text(b, text, j.n));
    }
    return gr_list_alt(b, &kids);
}

gr_expr *gr_multiples(gr_builder *b, const gr_span *s, int64_t k) {
    int64_t from, to;
    if (s->has_lo && s->has_hi) {
        if (!to_i64(&s->lo, &from) || !to_i64(&s->hi, &to) || (to - from) / k > MAX_LISTED)
            return NULL;
        return listed(b, s, k, from, to);
    }
    if (k > MAX_MULTIPLE || s->has_hi) return NULL;
    if (!s->has_lo) return by_remainder(b, k, true);
    return compare_sizes(&s->lo, &zero) == 0 && !s->open_lo ? by_remainder(b, k, false) : NULL;
}
