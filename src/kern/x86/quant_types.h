/* What a quantised type is to the x86 kernels: its panel, its codes, its scales. In the names of
 * simd256.h or simd512.h, one of which the including file has included.
 *
 * A panel holds W columns (as many as a vector has words), block after block. A block of a column is
 * cut into words of four bytes as it stands in the file; the panel has one word of all columns, then
 * another, ... : a transposition, as large as the file. The words are in the order in which they are
 * used, scales first, so that a product reads its panel once from front to back (in the file's order
 * Q6_K ran from memory at 11 to 16 GB/s instead of 30). Types with a lone
 * half (Q4_0, Q5_0, Q8_0, IQ4_NL, Q3_K, Q6_K: a block is no whole number of words) have a cache line of
 * halves, those of as many blocks as it holds, before the words of these blocks. The fifth bits of
 * Q5_0 and Q5_1 are put in another order; the exponent of MXFP4, a byte in the file, becomes a half,
 * the upper one of its float (a bfloat16).
 *
 * Step s of a block are the codes of values 4s .. 4s+3 of every column, a byte each: what one byte
 * dot instruction takes. A bundle are the steps that the same few words hold. Codes are unsigned, more
 * than they mean by 2^shift; those that need all eight bits (wide) are signed unless the level's
 * instruction wants them unsigned (BIASED). */
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
    /* a word of IQ4_XS has values of both sixteens of its 32: each counts for itself */
    return t == QSI_MM_Q2_K || t == QSI_MM_Q3_K || t == QSI_MM_Q6_K || t == QSI_MM_IQ4_XS ? 4 : 8;
}
QSI_INLINE bool has_min(const int t) {
    return t == QSI_MM_Q4_1 || t == QSI_MM_Q5_1 || t == QSI_MM_Q2_K || t == QSI_MM_Q4_K ||
           t == QSI_MM_Q5_K;
}
QSI_INLINE bool is_wide(const int t) {
    return t == QSI_MM_Q8_0 || t == QSI_MM_IQ4_NL || t == QSI_MM_IQ4_XS;
}

/* Codes are 2^shift more than their meaning; -1: they are what they mean. */
QSI_INLINE int shift_of(const int t) {
    switch (t) {
    case QSI_MM_Q8_0:
    case QSI_MM_IQ4_NL:
    case QSI_MM_IQ4_XS: return BIASED ? 7 : -1;
    case QSI_MM_Q4_0: return 3;
    case QSI_MM_MXFP4: /* -12 .. 12 */
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
    case QSI_MM_MXFP4:
    case QSI_MM_IQ4_NL: return 4;
    case QSI_MM_Q4_1:
    case QSI_MM_Q5_0: return 5;
    case QSI_MM_Q5_1: return 6;
    case QSI_MM_Q2_K: return 21;
    case QSI_MM_Q3_K: return 27;
    case QSI_MM_Q4_K: return 36;
    case QSI_MM_Q5_K: return 44;
    case QSI_MM_IQ4_XS: return 34;
    default: return 52; /* Q6_K */
    }
}
QSI_INLINE int half_at(const int t) {
    switch (t) {
    case QSI_MM_Q8_0:
    case QSI_MM_Q4_0:
    case QSI_MM_Q5_0:
    case QSI_MM_MXFP4:
    case QSI_MM_IQ4_NL: return 0;
    case QSI_MM_Q3_K: return 108;
    case QSI_MM_Q6_K: return 208;
    default: return -1;
    }
}
/* Bytes of the lone half in the file. */
QSI_INLINE int half_bytes(const int t) { return half_at(t) < 0 ? 0 : t == QSI_MM_MXFP4 ? 1 : 2; }
QSI_INLINE int words_at(const int t) { return half_at(t) == 0 ? half_bytes(t) : 0; }
QSI_INLINE int file_bytes(const int t) { return words_of(t) * 4 + half_bytes(t); }

/* The file's word at place i of the panel. */
QSI_INLINE int file_word(const int t, int i) {
    switch (t) {
    case QSI_MM_Q2_K: return i < 4 ? i : i == 4 ? 20 : i - 1;
    case QSI_MM_Q3_K: {
        int j = (i - 3) / 3, part = (i - 3) % 3;
        return i < 3 ? 24 + i : part == 0 ? j : 8 * part + j;
    }
    case QSI_MM_Q5_K: {
        int j = (i - 4) / 5, part = (i - 4) % 5;
        return i < 4 ? i : 4 + 8 * part + j;
    }
    case QSI_MM_Q6_K: {
        int j = (i - 4) / 3, part = (i - 4) % 3; /* j: 8 a half */
        return i < 4 ? 48 + i : part == 2 ? 32 + j : j / 8 * 16 + part * 8 + j % 8;
    }
    default: return i;
    }
}

/* Blocks whose halves share a line. */
#define SHARE (64 / (W * 2))

QSI_INLINE size_t panel_size(const int t, int64_t k) {
    int64_t nb = k / block_len(t), lines = half_at(t) < 0 ? 0 : (nb + SHARE - 1) / SHARE;
    return ((size_t)nb * (size_t)words_of(t) * VB + (size_t)lines * 64 + 63) / 64 * 64;
}

/* Where a block stands: step with next_block. */
typedef struct place {
    const char *words, *half;
} place;

QSI_INLINE place block_at(const int t, const char *panel, int64_t b) {
    const char *words = panel + b * words_of(t) * VB;
    if (half_at(t) < 0) return (place){words, NULL};
    words += (b / SHARE + 1) * 64;
    return (place){words, panel + b / SHARE * (64 + SHARE * words_of(t) * VB) + b % SHARE * W * 2};
}

/* The place of block b + 1, from that of b. */
QSI_INLINE place next_block(const int t, place p, int64_t b) {
    p.words += words_of(t) * VB;
    if (half_at(t) < 0) return p;
    if ((b + 1) % SHARE != 0) {
        p.half += W * 2;
    } else {
        p.half = p.words;
        p.words += 64;
    }
    return p;
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

/* 2^(e - 128) as a bfloat16. */
QSI_INLINE uint16_t exponent_half(uint8_t e) {
    return (uint16_t)(e < 2 ? 0x20 << e : (e - 1) << 7);
}

QSI_INLINE void pack_block(const int t, const char *const rows[W], int64_t b, char *words,
                           char *half) {
    for (int c = 0; c < W; c++) {
        uint16_t h = 0;
        if (rows[c] == NULL) {
            for (int i = 0; i < words_of(t); i++) memset(words + i * VB + c * 4, 0, 4);
        } else {
            const char *s = rows[c] + b * file_bytes(t);
#pragma GCC unroll 64
            for (int i = 0; i < words_of(t); i++)
                memcpy(words + i * VB + c * 4, s + words_at(t) + file_word(t, i) * 4, 4);
            if (t == QSI_MM_MXFP4)
                h = exponent_half((uint8_t)s[0]);
            else if (half_at(t) >= 0)
                memcpy(&h, s + half_at(t), 2);
        }
        if (half_at(t) >= 0) memcpy(half + c * 2, &h, 2);
    }
    if (t == QSI_MM_Q5_0) sti(words, spread_fifth(ldi(words)));
    if (t == QSI_MM_Q5_1) sti(words + VB, spread_fifth(ldi(words + VB)));
}

QSI_INLINE void pack_type(const int t, const char *src, int64_t ld_col, int64_t n, int64_t k,
                          int64_t p0, int64_t p1, char *dst) {
    int64_t nb = k / block_len(t);
    size_t panel = panel_size(t, k);
    for (int64_t p = p0; p < p1; p++) {
        const char *rows[W];
        for (int64_t c = 0; c < W; c++)
            rows[c] = p * W + c < n ? src + (p * W + c) * ld_col : NULL;
        char *d = dst + (size_t)p * panel;
        memset(d + panel - 64, 0, 64); /* what rounding adds, in the last line */
        for (int64_t b = 0; b < nb; b++) {
            place at = block_at(t, d, b);
            if (half_at(t) >= 0 && b % SHARE == 0) memset(d + (at.half - d), 0, 64);
            pack_block(t, rows, b, d + (at.words - d), d + (half_at(t) < 0 ? 0 : at.half - d));
        }
    }
}

/* ---- codes ---- */

#define WORD(i) ldi(b + (i) * VB)

static const int8_t iq4_signed[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

/* Values of MXFP4, 16 more. */
static const int8_t mxfp4_shifted[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

QSI_INLINE vi nibble(vi w, const bool high) {
    return iand(high ? shr(w, 4) : w, alli(0x0f0f0f0f));
}

QSI_INLINE vi nibble_or(vi w, const bool high, vi above) {
    return and_or(high ? shr(w, 4) : w, alli(0x0f0f0f0f), above);
}

/* Bits `from` of every byte to `to`; mask picks those wanted there. */
QSI_INLINE vi moved(vi w, const int from, const int to, const int32_t mask) {
    vi x = from < to ? shl(w, to - from) : from > to ? shr(w, from - to) : w;
    return iand(x, alli(mask));
}

/* Bundles of a block and steps of a bundle. */
QSI_INLINE int bundles_of(const int t) {
    switch (t) {
    case QSI_MM_Q8_0:
    case QSI_MM_Q3_K:
    case QSI_MM_Q5_K: return 8;
    case QSI_MM_Q2_K:
    case QSI_MM_Q6_K: return 16;
    case QSI_MM_Q4_K:
    case QSI_MM_IQ4_XS: return 32;
    default: return 4;
    }
}
QSI_INLINE int bundle_steps(const int t) { return steps_of(t) / bundles_of(t); }

/* Step of code e of bundle i. */
QSI_INLINE int step_of(const int t, const int i, const int e) {
    switch (t) {
    case QSI_MM_Q8_0: return i;
    case QSI_MM_Q4_K: return i / 8 * 16 + e * 8 + i % 8;
    case QSI_MM_IQ4_XS: return i / 4 * 8 + e * 4 + i % 4;
    case QSI_MM_Q3_K:
    case QSI_MM_Q5_K: return e * 8 + i;
    case QSI_MM_Q2_K:
    case QSI_MM_Q6_K: return i / 8 * 32 + e * 8 + i % 8;
    default: return e * 4 + i;
    }
}

/* Codes of bundle i of the block at b. */
QSI_INLINE void bundle(const int t, const char *b, const int i, vi out[8]) {
    switch (t) {
    case QSI_MM_Q8_0: out[0] = BIASED ? ixor(WORD(i), alli((int)0x80808080u)) : WORD(i); break;
    case QSI_MM_Q4_0:
    case QSI_MM_Q4_1:
    case QSI_MM_Q4_K: {
        vi w = WORD(i + (t == QSI_MM_Q4_0 ? 0 : t == QSI_MM_Q4_1 ? 1 : 4));
        for (int e = 0; e < 2; e++) out[e] = nibble(w, e != 0);
        break;
    }
    case QSI_MM_Q5_0:
    case QSI_MM_Q5_1: {
        const int at = t == QSI_MM_Q5_0 ? 0 : 1;
        vi w = WORD(at + 1 + i);
        for (int e = 0; e < 2; e++)
            out[e] = nibble_or(w, e != 0, moved(WORD(at), 4 * e + i, 4, 0x10101010));
        break;
    }
    case QSI_MM_IQ4_NL:
    case QSI_MM_IQ4_XS:
        for (int e = 0; e < 2; e++) {
            vi w = WORD(i + (t == QSI_MM_IQ4_XS ? 2 : 0));
            out[e] = choose_bytes(iq4_signed, nibble(w, e != 0));
            if (BIASED) out[e] = ixor(out[e], alli((int)0x80808080u));
        }
        break;
    case QSI_MM_MXFP4:
        for (int e = 0; e < 2; e++) out[e] = choose_bytes(mxfp4_shifted, nibble(WORD(i), e != 0));
        break;
    case QSI_MM_Q2_K:
        for (int e = 0; e < 4; e++) out[e] = moved(WORD(5 + i), 2 * e, 0, 0x03030303);
        break;
    case QSI_MM_Q3_K:
        for (int e = 0; e < 8; e++) {
            vi w = WORD(4 + 3 * i + e / 4), top = moved(WORD(3 + 3 * i), e, 2, 0x04040404);
            out[e] = and_or(e % 4 == 0 ? w : shr(w, e % 4 * 2), alli(0x03030303), top);
        }
        break;
    case QSI_MM_Q5_K:
        for (int e = 0; e < 8; e++)
            out[e] = nibble_or(WORD(5 + 5 * i + e / 2), e % 2 != 0,
                               moved(WORD(4 + 5 * i), e, 4, 0x10101010));
        break;
    default: /* Q6_K */
        for (int e = 0; e < 4; e++)
            out[e] = nibble_or(WORD(4 + 3 * i + e % 2), e >= 2,
                               moved(WORD(6 + 3 * i), 2 * e, 4, 0x30303030));
        break;
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
    vi lo[2] = {WORD(0), WORD(1)}, hi = WORD(2);
    for (int i = 0; i < 4; i++) {
        vi low = iand(i < 2 ? lo[i] : shr(lo[i - 2], 4), four);
        vi high = i < 2 ? shl(hi, 4 - 2 * i) : i == 2 ? hi : shr(hi, 2);
        bytes_to_words(ior(low, iand(high, two)), o->sc + 4 * i);
        for (int j = 0; j < 4; j++) o->sc[4 * i + j] = isub(o->sc[4 * i + j], less);
    }
}

QSI_INLINE void scales_iq4(const char *b, scales *o) {
    vi high = shr(WORD(0), 16), low = WORD(1);
    for (int g = 0; g < 8; g++) {
        vi h = iand(shr(high, 2 * g), alli(3));
        vi s = ior(iand(shr(low, 4 * g), alli(15)), shl(h, 4));
        o->sc[2 * g] = o->sc[2 * g + 1] = isub(s, alli(32));
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
        o->d = low_halves(WORD(4));
        o->m = high_halves(WORD(4));
        break;
    case QSI_MM_Q3_K:
        scales_q3(b, o);
        o->d = ld_halves(half);
        break;
    case QSI_MM_IQ4_XS:
        scales_iq4(b, o);
        o->d = low_halves(WORD(0));
        break;
    case QSI_MM_Q6_K:
        for (int i = 0; i < 4; i++) signed_bytes_to_words(WORD(i), o->sc + 4 * i);
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
        *d = t == QSI_MM_MXFP4 ? ld_upper_halves(half) : ld_halves(half);
        *m = zero();
    }
}

#undef WORD

#endif
