/* UTF-8 as Unicode defines it (The Unicode Standard, table 3-7, well-formed byte sequences): no
 * overlong forms, no surrogates, nothing above 10FFFF. */
#include <string.h>

#include "base/str.h"

/* What a lead byte asks for: the whole length (0: not a lead byte) and the range of the byte that
 * follows; every later byte is 80..BF. */
typedef struct lead {
    int len;
    uint8_t lo, hi;
} lead;

static lead lead_of(uint8_t b) {
    if (b < 0x80) return (lead){1, 0, 0};
    if (b < 0xC2) return (lead){0, 0, 0};
    if (b < 0xE0) return (lead){2, 0x80, 0xBF};
    if (b < 0xF0) return (lead){3, b == 0xE0 ? 0xA0 : 0x80, b == 0xED ? 0x9F : 0xBF};
    if (b < 0xF5) return (lead){4, b == 0xF0 ? 0x90 : 0x80, b == 0xF4 ? 0x8F : 0xBF};
    return (lead){0, 0, 0};
}

/* How many of the n bytes at p are a good start of the character that p[0] leads, at most l.len. */
static int good_bytes(const uint8_t *p, size_t n, lead l) {
    int i = 1;
    while (i < l.len && (size_t)i < n) {
        uint8_t lo = i == 1 ? l.lo : 0x80, hi = i == 1 ? l.hi : 0xBF;
        if (p[i] < lo || p[i] > hi) break;
        i++;
    }
    return i;
}

uint32_t qsi_utf8_decode(const char *s, size_t n, int *len) {
    const uint8_t *p = (const uint8_t *)s;
    *len = 1;
    if (p[0] < 0x80) return p[0];
    lead l = lead_of(p[0]);
    if (l.len == 0 || good_bytes(p, n, l) < l.len) return QSI_UTF8_BAD;
    uint32_t cp = p[0] & (0xFFu >> (l.len + 1));
    for (int i = 1; i < l.len; i++) cp = cp << 6 | (p[i] & 0x3Fu);
    *len = l.len;
    return cp;
}

int qsi_utf8_encode(uint32_t cp, char out[4]) {
    QS_ASSERT(cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF));
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len; i-- > 1;) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)((0xF00u >> len & 0xFFu) | cp);
    return len;
}

bool qsi_utf8_valid(const char *p, size_t n, size_t *bad) {
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8) {
            memcpy(&eight, p + i, 8);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += 8;
                continue;
            }
        }
        int len;
        if (qsi_utf8_decode(p + i, n - i, &len) == QSI_UTF8_BAD) {
            if (bad != NULL) *bad = i;
            return false;
        }
        i += (size_t)len;
    }
    return true;
}

size_t qsi_utf8_whole(const char *s, size_t n) {
    const uint8_t *p = (const uint8_t *)s;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        lead l = lead_of(p[n - back]);
        if (l.len == 0) continue;
        bool open = (size_t)l.len > back && (size_t)good_bytes(p + n - back, back, l) == back;
        return open ? n - back : n;
    }
    return n;
}
