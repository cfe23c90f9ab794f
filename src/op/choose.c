/* The k largest of n scores, by their bits: floats as integers of the same order, of which a byte
 * at a time is settled from the top (a radix selection). Four passes, whatever the scores are. */
#include "op/op.h"

#include <string.h>

/* Ascending with x; 0 and -0 are one. */
static uint32_t order_of(float x) {
    uint32_t u;
    x += 0.0f;
    memcpy(&u, &x, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* The top bit when x is NaN or infinite: an exponent of ones, plus one, carries into it. */
static uint32_t not_finite(const float *x) {
    uint32_t u;
    memcpy(&u, x, sizeof u);
    return (u & 0x7f800000u) + 0x00800000u;
}

bool qsi_all_finite(const float *x, int64_t n) {
    enum { LANES = 16 };
    uint32_t bad[LANES] = {0}, any = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) bad[j] |= not_finite(x + i + j);
    for (; i < n; i++) any |= not_finite(x + i);
    for (int j = 0; j < LANES; j++) any |= bad[j];
    return !(any & 0x80000000u);
}

bool qsi_choose_top(const float *s, int64_t n, int64_t k, int32_t *out) {
    uint32_t value = 0, settled = 0; /* of the k-th largest; its bits that are known */
    int64_t equal = k;               /* of those with the settled bits, how many are wanted */
    if (!qsi_all_finite(s, n)) return false;
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t count[256] = {0};
        for (int64_t i = 0; i < n; i++) {
            uint32_t u = order_of(s[i]);
            if ((u & settled) == value) count[u >> shift & 0xff]++;
        }
        uint32_t b = 255;
        for (; equal > count[b]; b--) equal -= count[b];
        value |= b << shift;
        settled |= 0xffu << shift;
    }
    for (int64_t i = 0, m = 0; m < k; i++) {
        uint32_t u = order_of(s[i]);
        if (u > value || (u == value && equal-- > 0)) out[m++] = (int32_t)i;
    }
    return true;
}
