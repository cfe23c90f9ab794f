/* A JSON text as a tree in the builder's arena, with numbers as they are written and every value
 * knowing where it stands: see grammar_schema.h. Source: RFC 8259. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "infer/grammar_schema.h"

typedef struct reader {
    gr_builder *b;
    const char *text, *p, *end;
    int depth;
    uint32_t n_values;
} reader;

static void *wrong(reader *r, const char *what) {
    size_t at = (size_t)(r->p - r->text);
    return gr_fail_at(r->b, at, "schema, byte %zu: %s", at, what), NULL;
}

static void space(reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

static bool take(reader *r, char c) {
    bool is = r->p < r->end && *r->p == c;
    r->p += is;
    return is;
}

static int hex4(const char *p, const char *end) {
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

/* Behind \u: a character, perhaps of two escapes; UINT32_MAX: none. */
static uint32_t read_unicode(reader *r) {
    int v = hex4(r->p, r->end);
    if (v < 0) return UINT32_MAX;
    r->p += 4;
    if (v < 0xD800 || v > 0xDFFF) return (uint32_t)v;
    if (v > 0xDBFF || r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u') return UINT32_MAX;
    int low = hex4(r->p + 2, r->end);
    if (low < 0xDC00 || low > 0xDFFF) return UINT32_MAX;
    r->p += 6;
    return 0x10000u + (((uint32_t)v - 0xD800u) << 10) + ((uint32_t)low - 0xDC00u);
}

static bool read_escape(reader *r, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = r->p < r->end ? *r->p++ : 0;
    const char *k = c ? strchr(from, c) : NULL;
    if (k) {
        *(*out)++ = to[k - from];
        return true;
    }
    uint32_t cp = c == 'u' ? read_unicode(r) : UINT32_MAX;
    if (cp == UINT32_MAX) return wrong(r, "an escape that JSON does not know"), false;
    *out += qsi_utf8_encode(cp, *out);
    return true;
}

/* Behind the opening quote. */
static bool read_string(reader *r, const char **s, size_t *n) {
    const char *p = r->p;
    while (p < r->end && *p != '"') p += *p == '\\' && r->end - p > 1 ? 2 : 1;
    char *out = gr_take(r->b, (size_t)(p - r->p) + 1, 1);
    if (!out) return false;
    *s = out;
    while (r->p < r->end && *r->p != '"') {
        if ((unsigned char)*r->p < 0x20) return wrong(r, "a control character in a string"), false;
        if (*r->p != '\\') {
            *out++ = *r->p++;
            continue;
        }
        r->p++;
        if (!read_escape(r, &out)) return false;
    }
    *n = (size_t)(out - *s);
    if (!take(r, '"')) return wrong(r, "a string has no closing quote"), false;
    return true;
}

static size_t digits(reader *r) {
    const char *p = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9') r->p++;
    return (size_t)(r->p - p);
}

static bool read_number(reader *r, gr_json *v) {
    v->kind = GR_NUMBER;
    v->s = r->p;
    (void)take(r, '-');
    const char *p = r->p;
    size_t n = digits(r);
    if (n == 0 || (n > 1 && *p == '0')) return wrong(r, "a value is expected"), false;
    if (take(r, '.') && digits(r) == 0) return wrong(r, "digits are expected"), false;
    if (take(r, 'e') || take(r, 'E')) {
        if (!take(r, '+')) (void)take(r, '-');
        if (digits(r) == 0) return wrong(r, "digits are expected"), false;
    }
    v->n = (size_t)(r->p - v->s);
    return true;
}

static gr_json *read_value(reader *r);

static int by_key(const void *x, const void *y) {
    const gr_json *a = *(gr_json *const *)x, *b = *(gr_json *const *)y;
    int c = memcmp(a->key, b->key, a->n_key < b->n_key ? a->n_key : b->n_key);
    return c ? c : a->n_key < b->n_key ? -1 : a->n_key > b->n_key;
}

static bool names_differ(reader *r, gr_json **kids, size_t n) {
    gr_json **copy = qsi_alloc(n, sizeof *copy);
    if (!copy) return gr_fail(r->b, QS_E_NOMEM, "out of memory"), false;
    if (n) memcpy(copy, kids, n * sizeof *copy);
    if (n > 1) qsort(copy, n, sizeof *copy, by_key);
    bool ok = true;
    for (size_t i = 1; i < n && ok; i++) ok = by_key(&copy[i - 1], &copy[i]) != 0;
    qsi_free(copy);
    if (!ok) wrong(r, "an object has the same name twice");
    return ok;
}

/* One member of v, whose name (in objects) comes first. */
static gr_json *read_member(reader *r, const gr_json *v, size_t index) {
    const char *key = NULL;
    size_t n_key = 0;
    space(r);
    if (v->kind == GR_OBJECT) {
        if (!take(r, '"')) return wrong(r, "a name in quotes is expected");
        if (!read_string(r, &key, &n_key)) return NULL;
        space(r);
        if (!take(r, ':')) return wrong(r, ": is expected");
    }
    gr_json *kid = read_value(r);
    if (!kid) return NULL;
    kid->parent = v;
    kid->key = key;
    kid->n_key = n_key;
    kid->index = index;
    space(r);
    return kid;
}

static bool read_members(reader *r, gr_json *v, char close) {
    gr_json **list = NULL;
    size_t cap = 0, n = 0;
    bool ok = true;
    space(r);
    if (take(r, close)) return true;
    do {
        gr_json *kid = read_member(r, v, n);
        ok = kid != NULL;
        if (ok && qsi_grow((void **)&list, &cap, n + 1, sizeof(gr_json *)) != QS_OK)
            ok = gr_fail(r->b, QS_E_NOMEM, "out of memory") != NULL;
        if (ok) list[n++] = kid;
    } while (ok && take(r, ','));
    if (ok && !take(r, close)) ok = wrong(r, ", or the closing bracket is expected") != NULL;
    if (ok) v->kids = gr_take(r->b, n, sizeof(gr_json *));
    ok = ok && v->kids;
    if (ok) memcpy(v->kids, list, n * sizeof(gr_json *));
    v->n = n;
    if (ok && v->kind == GR_OBJECT) ok = names_differ(r, v->kids, n);
    qsi_free(list);
    return ok;
}

static bool read_word(reader *r, gr_json *v) {
    static const char *const words[] = { "null", "false", "true" };
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(r->end - r->p) < n || memcmp(r->p, words[i], n) != 0) continue;
        r->p += n;
        v->kind = (gr_json_kind)i; /* GR_NULL, GR_FALSE, GR_TRUE */
        return true;
    }
    return false;
}

static gr_json *read_value(reader *r) {
    gr_json *v = gr_take(r->b, 1, sizeof *v);
    bool ok;
    if (!v) return NULL;
    v->order = r->n_values++;
    space(r);
    if (take(r, '{') || take(r, '[')) {
        v->kind = r->p[-1] == '{' ? GR_OBJECT : GR_ARRAY;
        if (++r->depth > GR_MAX_DEPTH) return wrong(r, "brackets are nested too deeply");
        ok = read_members(r, v, v->kind == GR_OBJECT ? '}' : ']');
        r->depth--;
    } else if (take(r, '"')) {
        v->kind = GR_STRING;
        ok = read_string(r, &v->s, &v->n);
    } else {
        ok = read_word(r, v) || read_number(r, v);
    }
    return ok ? v : NULL;
}

gr_json *gr_json_read(gr_builder *b, const char *p, size_t n) {
    reader r = { .b = b, .text = p, .p = p, .end = p + n };
    if (!gr_text_ok(b, p, n)) return NULL;
    gr_json *v = read_value(&r);
    space(&r);
    if (v && r.p < r.end) return wrong(&r, "something stands behind the value");
    return v;
}

const gr_json *gr_json_get_n(const gr_json *v, const char *name, size_t n) {
    for (size_t i = 0; v->kind == GR_OBJECT && i < v->n; i++)
        if (v->kids[i]->n_key == n && memcmp(v->kids[i]->key, name, n) == 0) return v->kids[i];
    return NULL;
}

const gr_json *gr_json_get(const gr_json *v, const char *name) {
    return gr_json_get_n(v, name, strlen(name));
}

bool gr_json_is(const gr_json *v, const char *word) {
    return v->kind == GR_STRING && v->n == strlen(word) && memcmp(v->s, word, v->n) == 0;
}

double gr_json_double(const gr_json *v) {
    char text[400];
    size_t n = v->n < sizeof text - 1 ? v->n : sizeof text - 1;
    memcpy(text, v->s, n);
    text[n] = 0;
    return strtod(text, NULL);
}

static bool same_number(const gr_json *x, const gr_json *y) {
    gr_decimal a, b;
    if (gr_decimal_read(x, &a) && gr_decimal_read(y, &b)) return gr_decimal_compare(&a, &b) == 0;
    return x->n == y->n && memcmp(x->s, y->s, x->n) == 0;
}

bool gr_json_equal(const gr_json *x, const gr_json *y) {
    if (x->kind != y->kind) return false;
    if (x->kind == GR_NUMBER) return same_number(x, y);
    if (x->kind < GR_NUMBER) return true;
    if (x->n != y->n) return false;
    if (x->kind == GR_STRING) return x->n == 0 || memcmp(x->s, y->s, x->n) == 0;
    for (size_t i = 0; i < x->n; i++) {
        const gr_json *k = x->kids[i];
        const gr_json *other = x->kind == GR_ARRAY ? y->kids[i] : gr_json_get_n(y, k->key, k->n_key);
        if (!other || !gr_json_equal(k, other)) return false;
    }
    return true;
}

/* The steps from the root to v, innermost first, are written from the end of buf. */
char *gr_json_pointer(const gr_json *v, char buf[GR_POINTER]) {
    char step[GR_POINTER];
    size_t at = GR_POINTER - 1;
    buf[at] = 0;
    for (; v->parent; v = v->parent) {
        size_t n = 0;
        step[n++] = '/';
        if (!v->key) n += (size_t)snprintf(step + n, sizeof step - n, "%zu", v->index);
        for (size_t i = 0; v->key && i < v->n_key && n + 3 < sizeof step; i++) {
            char c = v->key[i];
            if (c == '~' || c == '/') step[n++] = '~';
            step[n++] = c == '~' ? '0' : c == '/' ? '1' : c;
        }
        if (n + 5 > at) { /* too long to show: its end says most */
            memcpy(buf + (at -= 3), "...", 3);
            return buf + at;
        }
        memcpy(buf + (at -= n), step, n);
    }
    buf[--at] = '#';
    return buf + at;
}
