/* NFC by parts: a "quiet" character is a starter that stays what it is and joins nothing before it, so a
 * part is a quiet character and the loud ones behind it. A part is taken apart, its marks are put in the
 * order of their classes, and it is put together again (Unicode Standard Annex #15; Hangul by
 * arithmetic, section 3.12 of the standard). */
#include "tok/nfc.h"

#include <string.h>

#include "base/mem.h"

enum {
    HANGUL = 0xac00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11a7, N_L = 19, N_V = 21, N_T = 28,
    FEW = 24 /* marks that are sorted by insertion */
};

typedef struct parts {
    uint32_t *cp, *spare;
    size_t n, cap, n_spare;
} parts;

static bool in_ranges(const uint32_t (*r)[2], size_t n, uint32_t c) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > r[mid][1]) lo = mid + 1;
        else hi = mid;
    }
    return lo < n && c >= r[lo][0];
}

static bool is_loud(uint32_t c) {
    if (c < 0x300 || (c >= 0x4e00 && c < 0xa000)) return false;
    return in_ranges(qsi_nfc_loud, qsi_nfc_n_loud, c);
}

static unsigned class_of(uint32_t c) {
    size_t lo = 0, hi = qsi_nfc_n_class;
    if (c < 0x300) return 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c > qsi_nfc_class[mid][1]) lo = mid + 1;
        else hi = mid;
    }
    return lo < qsi_nfc_n_class && c >= qsi_nfc_class[lo][0] ? qsi_nfc_class[lo][2] : 0;
}

/* ---- apart ---- */

static qs_status push(parts *x, uint32_t c) {
    qs_status st = QS_OK;
    if (x->n == x->cap) QS_TRY(qsi_grow((void **)&x->cp, &x->cap, x->n + 1, sizeof *x->cp));
    x->cp[x->n++] = c;
done:
    return st;
}

static const uint32_t *find_split(uint32_t c) {
    size_t lo = 0, hi = qsi_nfc_n_split;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (qsi_nfc_split[mid][0] < c) lo = mid + 1;
        else hi = mid;
    }
    return lo < qsi_nfc_n_split && qsi_nfc_split[lo][0] == c ? qsi_nfc_split[lo] : NULL;
}

/* The first of a pair may stand for one itself, and so on; the second at most for two characters. */
static qs_status split(parts *x, uint32_t c) {
    qs_status st = QS_OK;
    uint32_t behind[4];
    int n = 0;
    if (c >= HANGUL && c < HANGUL + N_L * N_V * N_T) {
        uint32_t k = c - HANGUL;
        QS_TRY(push(x, L0 + k / (N_V * N_T)));
        QS_TRY(push(x, V0 + k / N_T % N_V));
        if (k % N_T) QS_TRY(push(x, T0 + k % N_T));
        goto done;
    }
    for (const uint32_t *s; n < 4 && (s = find_split(c)) != NULL; c = s[1])
        if (s[2] != 0) behind[n++] = s[2];
    QS_TRY(push(x, c));
    while (n-- > 0) {
        const uint32_t *s = find_split(behind[n]);
        if (s == NULL) {
            QS_TRY(push(x, behind[n]));
            continue;
        }
        QS_TRY(push(x, s[1]));
        if (s[2] != 0) QS_TRY(push(x, s[2]));
    }
done:
    return st;
}

/* ---- in order ---- */

static void sort_few(uint32_t *c, size_t n) {
    for (size_t i = 1; i < n; i++) {
        uint32_t x = c[i];
        unsigned k = class_of(x);
        size_t j = i;
        for (; j > 0 && class_of(c[j - 1]) > k; j--) c[j] = c[j - 1];
        c[j] = x;
    }
}

static qs_status sort_many(parts *x, size_t from, size_t n) {
    qs_status st = QS_OK;
    size_t at[257] = {0};
    if (x->n_spare < n) QS_TRY(qsi_grow((void **)&x->spare, &x->n_spare, n, sizeof *x->spare));
    for (size_t i = 0; i < n; i++) at[class_of(x->cp[from + i]) + 1]++;
    for (int k = 0; k < 256; k++) at[k + 1] += at[k];
    for (size_t i = 0; i < n; i++) x->spare[at[class_of(x->cp[from + i])]++] = x->cp[from + i];
    memcpy(x->cp + from, x->spare, n * sizeof *x->cp);
done:
    return st;
}

/* Marks between two starters stand in the order of their classes. */
static qs_status sort_marks(parts *x) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < x->n;) {
        size_t n = 0;
        while (i + n < x->n && class_of(x->cp[i + n]) != 0) n++;
        if (n > FEW) QS_TRY(sort_many(x, i, n));
        else sort_few(x->cp + i, n);
        i += n + 1;
    }
done:
    return st;
}

/* ---- together ---- */

/* What two characters become; 0: nothing. */
static uint32_t join(uint32_t a, uint32_t b) {
    size_t lo = 0, hi = qsi_nfc_n_join;
    if (a - L0 < N_L && b - V0 < N_V) return HANGUL + ((a - L0) * N_V + (b - V0)) * N_T;
    if (a - HANGUL < N_L * N_V * N_T && (a - HANGUL) % N_T == 0 && b - T0 - 1 < N_T - 1)
        return a + (b - T0);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const uint32_t *r = qsi_nfc_join[mid];
        if (r[0] < a || (r[0] == a && r[1] < b)) lo = mid + 1;
        else hi = mid;
    }
    const uint32_t *r = lo < qsi_nfc_n_join ? qsi_nfc_join[lo] : NULL;
    return r != NULL && r[0] == a && r[1] == b ? r[2] : 0;
}

/* A character joins the last starter unless one of its class or above, or a starter, stands between. */
static void put_together(parts *x) {
    size_t n = 0, starter = SIZE_MAX;
    unsigned last = 0;
    for (size_t i = 0; i < x->n; i++) {
        uint32_t c = x->cp[i], made = 0;
        unsigned k = class_of(c);
        if (starter != SIZE_MAX && (n == starter + 1 || (last != 0 && last < k)))
            made = join(x->cp[starter], c);
        if (made != 0) {
            x->cp[starter] = made;
            continue;
        }
        if (k == 0) starter = n;
        last = k;
        x->cp[n++] = c;
    }
    x->n = n;
}

static qs_status put_part(parts *x, qsi_str *out) {
    qs_status st = QS_OK;
    char utf8[4];
    QS_TRY(sort_marks(x));
    put_together(x);
    for (size_t i = 0; i < x->n; i++)
        QS_TRY(qsi_str_append(out, utf8, (size_t)qsi_utf8_encode(x->cp[i], utf8)));
    x->n = 0;
done:
    return st;
}

static uint32_t take(const char *text, size_t n, size_t *i) {
    int len = 1;
    uint32_t c = (unsigned char)text[*i];
    if (c >= 0x80) c = qsi_utf8_decode(text + *i, n - *i, &len);
    *i += (size_t)len;
    return c;
}

qs_status qsi_nfc(const char *text, size_t n, qsi_str *out, bool *same) {
    qs_status st = QS_OK;
    parts x = {0};
    size_t i = 0, at = 0, quiet = 0, from = 0; /* quiet: where the last quiet character starts */
    *same = true;
    while (i < n) {
        at = i;
        if (!is_loud(take(text, n, &i))) {
            quiet = at;
            continue;
        }
        *same = false;
        QS_TRY(qsi_str_append(out, text + from, quiet - from)); /* it is the part's first */
        for (size_t k = quiet; k < i;) QS_TRY(split(&x, take(text, n, &k)));
        for (from = i; i < n; from = i) {
            uint32_t c = take(text, n, &i);
            if (!is_loud(c)) {
                i = from;
                break;
            }
            QS_TRY(split(&x, c));
        }
        QS_TRY(put_part(&x, out));
        quiet = from;
    }
    if (!*same) QS_TRY(qsi_str_append(out, text + from, n - from));
done:
    qsi_free(x.cp);
    qsi_free(x.spare);
    return st;
}
