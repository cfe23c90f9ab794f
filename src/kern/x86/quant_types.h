/* What a quantised type is to the x86 kernels: its panel, its codes, its scales. In the names of
 * simd256.h or simd512.h, one of which the including file has included.
 *
 * A panel holds W columns (as many as a vector has words), block after block. A block of a column is
 * cut into words of four bytes as it stands in the file; the panel has word 0 of all columns, then
 * word 1, ... : a plain transposition, as large as the file. Types with a lone half (Q4_0, Q5_0,
 * Q8_0, IQ4_NL, Q3_K, Q6_K: a block is no whole number of words) keep the halves of all blocks behind
 * the words, [blocks][W]. Only the fifth bits of Q5_0 and Q5_1 are put in another order.
 *
 * Step s of a block are the codes of values 4s .. 4s+3 of every column, a byte each: what one byte
 * dot instruction takes. Codes are unsigned, more than they mean by 2^shift; those that need all eight
 * bits (wide) are signed unless the level's instruction wants them unsigned (BIASED). */
#ifndef QSI_KERN_QUANT_TYPES_H
#define QSI_KERN_QUANT_TYPES_H

#include <stdbool.h>

#include "kern/kern.h"
#include "quant/quant.h"

#define VB (W * 4) /* bytes of a vector */

QSI_INLINE bool is_k(const int t) { return t >= QSI_MM_Q2_K; }
QSI_INLINE int block_len(const int t) { return is_k(t) ? 256 : 32; }
QSI_INLINE int steps_of(const int t) { return is_k(t) ? 64 : 8; }
/* Steps that share a scale. */
QSI_INLINE int group_steps(const int t) {
    return t == QSI_MM_Q2_K || t == QSI_MM_Q3_K || t == QSI_MM_Q6_K ? 4 : 8;
}
QSI_INLINE bool has_min(const int t) {
    return t == QSI_MM_Q4_1 || t == QSI_MM_Q5_1 || t == QSI_MM_Q2_K || t == QSI_MM_Q4_K ||
           t == QSI_MM_Q5_K;
}
QSI_INLINE bool is_wide(const int t) { return t == QSI_MM_Q8_0 || t == QSI_MM_IQ4_NL; }

/* Codes are 2^shift more than their meaning; -1: they are what they mean. */
QSI_INLINE int shift_of(const int t) {
    switch (t) {
    case QSI_MM_Q8_0:
    case QSI_MM_IQ4_NL: return BIASED ? 7 : -1;
    case QSI_MM_Q4_0: return 3;
    case QSI_MM_Q5_0: return 4;
    case QSI_MM_Q3_K: return 2;
    case QSI_MM_Q6_K: return 5;
    default: return -1;
    }
}

/* Words of a block; where its lone half stands (-1: none); the first byte of the words. */
QSI_INLINE int words_of(const int t) {
    switch (t) {
    case QSI_MM_Q8_0: return 8;
    case QSI_MM_Q4_0:
    case QSI_MM_IQ4_NL: return 4;
    case QSI_MM_Q4_1:
    case QSI_MM_Q5_0: return 5;
    case QSI_MM_Q5_1: return 6;
    case QSI_MM_Q2_K: return 21;
    case QSI_MM_Q3_K: return 27;
    case QSI_MM_Q4_K: return 36;
    case QSI_MM_Q5_K: return 44;
    default: return 52; /* Q6_K */
    }
}
QSI_INLINE int half_at(const int t) {
    switch (t) {
    case QSI_MM_Q8_0:
    case QSI_MM_Q4_0:
    case QSI_MM_Q5_0:
    case QSI_MM_IQ4_NL: return 0;
    case QSI_MM_Q3_K: return 108;
    case QSI_MM_Q6_K: return 208;
    default: return -1;
    }
}
QSI_INLINE int words_at(const int t) { return half_at(t) == 0 ? 2 : 0; }
QSI_INLINE int file_bytes(const int t) { return words_of(t) * 4 + (half_at(t) >= 0 ? 2 : 0); }

QSI_INLINE size_t words_bytes(const int t, int64_t k) {
    return (size_t)(k / block_len(t)) * (size_t)words_of(t) * VB;
}
QSI_INLINE size_t panel_size(const int t, int64_t k) {
    size_t halves = half_at(t) < 0 ? 0 : (size_t)(k / block_len(t)) * W * 2;
    return (words_bytes(t, k) + halves + 63) / 64 * 64;
}

/* ---- packing ---- */

/* The fifth bits of 32 values: bit 4s + i to bit s of byte i, for all columns. */
QSI_INLINE vi spread_fifth(vi qh) {
    vi out = alli(0);
    for (int s = 0; s < 8; s++) {
        vi bits = imul(iand(shr(qh, 4 * s), alli(15)), alli(0x204081));
        out = ior(out, shl(iand(bits, alli(0x01010101)), s));
    }
    return out;
}

QSI_INLINE void pack_block(const int t, const char *const rows[W], int64_t b, char *words,
                           char *half) {
    for (int c = 0; c < W; c++) {
        uint16_t h = 0;
        if (rows[c] == NULL) {
            for (int i = 0; i < words_of(t); i++) memset(words + i * VB + c * 4, 0, 4);
        } else {
            const char *s = rows[c] + b * file_bytes(t);
            for (int i = 0; i < words_of(t); i++)
                memcpy(words + i * VB + c * 4, s + words_at(t) + i * 4, 4);
            if (half_at(t) >= 0) memcpy(&h, s + half_at(t), 2);
        }
        if (half_at(t) >= 0) memcpy(half + c * 2, &h, 2);
    }
    if (t == QSI_MM_Q5_0) sti(words, spread_fifth(ldi(words)));
    if (t == QSI_MM_Q5_1) sti(words + VB, spread_fifth(ldi(words + VB)));
}

QSI_INLINE void pack_type(const int t, const char *src, int64_t ld_col, int64_t n, int64_t k,
                          int64_t p0, int64_t p1, char *dst) {
    int64_t nb = k / block_len(t);
    size_t panel = panel_size(t, k), used = words_bytes(t, k);
    if (half_at(t) >= 0) used += (size_t)nb * W * 2;
    for (int64_t p = p0; p < p1; p++) {
        const char *rows[W];
        for (int64_t c = 0; c < W; c++)
            rows[c] = p * W + c < n ? src + (p * W + c) * ld_col : NULL;
        char *words = dst + (size_t)p * panel, *half = words + words_bytes(t, k);
        for (int64_t b = 0; b < nb; b++)
            pack_block(t, rows, b, words + b * words_of(t) * VB, half + b * W * 2);
        memset(words + used, 0, panel - used);
    }
}

/* ---- codes ---- */

#define WORD(i) ldi(b + (i) * VB)

static const int8_t iq4_signed[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

/* Word w of nibbles: the low ones for step < half, else the high ones. */
QSI_INLINE vi nibble(vi w, const bool high) {
    return iand(high ? shr(w, 4) : w, alli(0x0f0f0f0f));
}

/* Bit `from` of every byte to bit 4. */
QSI_INLINE vi fifth(vi w, const int from) {
    vi x = from < 4 ? shl(w, 4 - from) : from > 4 ? shr(w, from - 4) : w;
    return iand(x, alli(0x10101010));
}

/* Bits 2q, 2q+1 of every byte to bits 4 and 5. */
QSI_INLINE vi high_two(vi w, const int q) {
    vi x = q < 2 ? shl(w, 4 - 2 * q) : q > 2 ? shr(w, 2 * q - 4) : w;
    return iand(x, alli(0x30303030));
}

/* Codes of step s of the block at b. */
QSI_INLINE vi codes(const int t, const char *b, const int s) {
    const int h = s / 32, q = s / 8 % 4, j = s % 8; /* half, quarter, word of 256 values */
    switch (t) {
    case QSI_MM_Q8_0: return BIASED ? ixor(WORD(s), alli((int)0x80808080u)) : WORD(s);
    case QSI_MM_Q4_0: return nibble(WORD(s % 4), s >= 4);
    case QSI_MM_Q4_1: return nibble(WORD(1 + s % 4), s >= 4);
    case QSI_MM_Q5_0: return ior(nibble(WORD(1 + s % 4), s >= 4), fifth(WORD(0), s));
    case QSI_MM_Q5_1: return ior(nibble(WORD(2 + s % 4), s >= 4), fifth(WORD(1), s));
    case QSI_MM_IQ4_NL: {
        vi v = choose_bytes(iq4_signed, nibble(WORD(s % 4), s >= 4));
        return BIASED ? ixor(v, alli((int)0x80808080u)) : v;
    }
    case QSI_MM_Q2_K: return iand(shr(WORD(4 + 8 * h + j), 2 * q), alli(0x03030303));
    case QSI_MM_Q3_K: {
        vi low = iand(shr(WORD(8 + 8 * h + j), 2 * q), alli(0x03030303));
        int from = 4 * h + q;
        vi top = from < 2 ? shl(WORD(j), 2 - from) : shr(WORD(j), from - 2);
        return ior(low, iand(top, alli(0x04040404)));
    }
    case QSI_MM_Q4_K: return nibble(WORD(4 + s / 16 * 8 + j), s / 8 % 2 != 0);
    case QSI_MM_Q5_K:
        return ior(nibble(WORD(12 + s / 16 * 8 + j), s / 8 % 2 != 0), fifth(WORD(4 + j), s / 8));
    default:
        return ior(nibble(WORD(16 * h + 8 * (q & 1) + j), q >= 2),
                   high_two(WORD(32 + 8 * h + j), q));
    }
}

/* ---- scales ---- */

/* Integer scales of the groups of a block of 256 (a word a column), its minima as pairs of 16 bits in
 * the order of qsi_actk's sums, and the two factors. */
typedef struct scales {
    vi sc[16], mn[8];
    vf d, m;
} scales;

/* The low bytes' pairs of words 0, 2 and 1, 3. */
QSI_INLINE void pairs(vi bytes, vi out[2]) {
    out[0] = iand(bytes, alli(0x00ff00ff));
    out[1] = iand(shr(bytes, 8), alli(0x00ff00ff));
}

QSI_INLINE void bytes_to_words(vi bytes, vi out[4]) {
    for (int i = 0; i < 3; i++) out[i] = iand(shr(bytes, 8 * i), alli(255));
    out[3] = shr(bytes, 24);
}

QSI_INLINE void signed_bytes_to_words(vi bytes, vi out[4]) {
    for (int i = 0; i < 3; i++) out[i] = sar(shl(bytes, 24 - 8 * i), 24);
    out[3] = sar(bytes, 24);
}

QSI_INLINE void scales_six_bits(const char *b, scales *o) {
    const vi six = alli(0x3f3f3f3f), four = alli(0x0f0f0f0f), two = alli(0x30303030);
    vi s0 = WORD(1), s1 = WORD(2), s2 = WORD(3);
    bytes_to_words(iand(s0, six), o->sc);
    bytes_to_words(ior(iand(s2, four), iand(shr(s0, 2), two)), o->sc + 4);
    pairs(iand(s1, six), o->mn);
    pairs(ior(iand(shr(s2, 4), four), iand(shr(s1, 2), two)), o->mn + 2);
}

QSI_INLINE void scales_q3(const char *b, scales *o) {
    const vi four = alli(0x0f0f0f0f), two = alli(0x30303030), less = alli(32);
    vi lo[2] = {WORD(24), WORD(25)}, hi = WORD(26);
    for (int i = 0; i < 4; i++) {
        vi low = iand(i < 2 ? lo[i] : shr(lo[i - 2], 4), four);
        vi high = i < 2 ? shl(hi, 4 - 2 * i) : i == 2 ? hi : shr(hi, 2);
        bytes_to_words(ior(low, iand(high, two)), o->sc + 4 * i);
        for (int j = 0; j < 4; j++) o->sc[4 * i + j] = isub(o->sc[4 * i + j], less);
    }
}

QSI_INLINE void scales_k(const int t, const char *b, const char *half, scales *o) {
    o->m = zero();
    switch (t) {
    case QSI_MM_Q2_K:
        for (int i = 0; i < 4; i++) {
            bytes_to_words(iand(WORD(i), alli(0x0f0f0f0f)), o->sc + 4 * i);
            pairs(iand(shr(WORD(i), 4), alli(0x0f0f0f0f)), o->mn + 2 * i);
        }
        o->d = low_halves(WORD(20));
        o->m = high_halves(WORD(20));
        break;
    case QSI_MM_Q3_K:
        scales_q3(b, o);
        o->d = ld_halves(half);
        break;
    case QSI_MM_Q6_K:
        for (int i = 0; i < 4; i++) signed_bytes_to_words(WORD(48 + i), o->sc + 4 * i);
        o->d = ld_halves(half);
        break;
    default: /* Q4_K, Q5_K */
        scales_six_bits(b, o);
        o->d = low_halves(WORD(0));
        o->m = high_halves(WORD(0));
        break;
    }
}

/* Factors of a block of 32: its values are d * code - m. */
QSI_INLINE void scales_32(const int t, const char *b, const char *half, vf *d, vf *m) {
    if (has_min(t)) {
        *d = low_halves(WORD(0));
        *m = vsub(all(-0.0f), high_halves(WORD(0)));
    } else {
        *d = ld_halves(half);
        *m = zero();
    }
}

#undef WORD

#endif
