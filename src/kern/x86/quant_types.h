/* What a quantised type is to the x86 kernels: its panel, its codes, its scales. In the names of
 * simd256.h or simd512.h, one of which the including file has included.
 *
 * A panel holds W columns (as many as a vector has words), block after block. A block of a column is
 * cut into words of four bytes as it stands in the file; the panel has one word of all columns, then
 * another, ... : a transposition, as large as the file. The words are in the order in which they are
 * used, scales first, so that a product reads its panel once from front to back (in the file's order
 * Q6_K ran from memory at 11 to 16 GB/s instead of 30). Types with a lone
 * half (Q4_0, Q5_0, Q8_0, IQ4_NL, Q3_K, Q6_K: a block is no whole number of words) have a cache line of
 * halves, those of as many blocks as it holds, before the words of these blocks. The exponent of MXFP4,
 * a byte in the file, becomes a half, the upper one of its float (a bfloat16).
 *
 * Within a block, bits move where that saves work (reorder): codes of 3, 5 and 6 bits, of which the
 * file holds 2 or 4 bits in one word and the rest in another, stand whole in one byte as far as they
 * fit, and only what is left over of these bytes is put together from several; scales of Q2_K and Q3_K
 * stand as the pairs that dot2 takes. Q8_0 is stored with its shift (BIASED).
 *
 * Step s of a block are the codes of values 4s .. 4s+3 of every column, a byte each: what one byte
 * dot instruction takes. A bundle are the steps that the same few words hold. Codes are unsigned, more
 * than they mean by 2^shift; those that need all eight bits (wide) are signed unless the level's
 * instruction wants them unsigned (BIASED). Such an instruction also takes codes where they stand in
 * their byte, 2^factor too large: a mask and no shift. */
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

/* ---- codes ---- */

#define WORD(i) ldi(b + (i) * VB)
#define ONCE(i) ldi_once(b + (i) * VB)

static const int8_t iq4_signed[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
/* The same, 128 more, as bytes. */
static const int8_t iq4_shifted[16] = {1,    24,   45,   63,  79,  93,  106, 118,
                                       -127, -115, -103, -90, -75, -59, -39, -15};

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

QSI_INLINE vi with(vi a, vi b, const int n) { return ior(a, shl(b, n)); }
QSI_INLINE vi low_bits(vi a, const int n) { return iand(a, alli(((1 << n) - 1) * 0x01010101)); }

/* Bundles of a block and steps of a bundle. */
QSI_INLINE int bundles_of(const int t) {
    switch (t) {
    case QSI_MM_Q5_0:
    case QSI_MM_Q5_1: return 1;
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
    case QSI_MM_Q5_0:
    case QSI_MM_Q5_1: return e;
    case QSI_MM_Q4_K: return i / 8 * 16 + e * 8 + i % 8;
    case QSI_MM_IQ4_XS: return i / 4 * 8 + e * 4 + i % 4;
    case QSI_MM_Q3_K:
    case QSI_MM_Q5_K: return e * 8 + i;
    case QSI_MM_Q2_K:
    case QSI_MM_Q6_K: return i / 8 * 32 + e * 8 + i % 8;
    default: return e * 4 + i;
    }
}

/* The power of two by which code e of a bundle stands too large in its byte. */
QSI_INLINE int place_of(const int t, const int e) {
    switch (t) {
    case QSI_MM_Q4_0:
    case QSI_MM_Q4_1:
    case QSI_MM_Q4_K: return 4 * e;
    case QSI_MM_Q5_0:
    case QSI_MM_Q5_1:
    case QSI_MM_Q5_K: return e < 5 ? 0 : 3;
    case QSI_MM_Q6_K: return e < 3 ? 0 : 2;
    case QSI_MM_Q2_K: return 2 * e;
    case QSI_MM_Q3_K: return e >= 6 ? 5 : e == 2 || e == 3 || e == 5 ? 3 : 0;
    default: return 0;
    }
}
/* The same of the codes that products with few rows use. */
QSI_INLINE int factor_of(const int t, const int e) { return BIASED ? place_of(t, e) : 0; }

/* Five words of eight codes of 5 bits: three bits of codes 5 to 7 stand over codes 0 to 2, their
 * others over codes 3 and 4. */
QSI_INLINE void fields5(const char *b, vi out[8]) {
    vi w[5];
    for (int i = 0; i < 5; i++) {
        w[i] = ONCE(i);
        out[i] = low_bits(w[i], 5);
    }
    const vi top = alli((int)0xe0e0e0e0u);
    for (int i = 0; i < 2; i++) out[5 + i] = and_or(w[i], top, moved(w[3 + i], 5, 3, 0x18181818));
    vi low = and_or(shr(w[4], 4), alli(0x08080808), moved(w[3], 7, 4, 0x10101010));
    out[7] = and_or(w[2], top, low);
}
QSI_INLINE void put_fields5(char *b, const vi c[8]) {
    vi w[5];
    for (int i = 0; i < 3; i++) w[i] = with(c[i], shr(iand(c[5 + i], alli(0x1c1c1c1c)), 2), 5);
    for (int i = 0; i < 2; i++) w[3 + i] = with(c[3 + i], low_bits(c[5 + i], 2), 5);
    w[3] = with(w[3], iand(c[7], alli(0x02020202)), 6);
    w[4] = with(w[4], low_bits(c[7], 1), 7);
    for (int i = 0; i < 5; i++) sti(b + i * VB, w[i]);
}

/* Three words of four codes of 6 bits: code 3 stands over the others, two bits each. */
QSI_INLINE void fields6(const char *b, vi out[8]) {
    const vi w[3] = {ONCE(0), ONCE(1), ONCE(2)};
    for (int i = 0; i < 3; i++) out[i] = low_bits(w[i], 6);
    vi low = and_or(shr(w[1], 2), alli(0x30303030), moved(w[2], 6, 2, 0x0c0c0c0c));
    out[3] = and_or(w[0], alli((int)0xc0c0c0c0u), low);
}
QSI_INLINE void put_fields6(char *b, const vi c[8]) {
    for (int i = 0; i < 3; i++) sti(b + i * VB, with(c[i], low_bits(shr(c[3], 4 - 2 * i), 2), 6));
}

/* Three words of eight codes of 3 bits: two codes in each byte, the top bits of codes 6 and 7 over
 * those of words 0 and 1, their lowest bits over those of word 2. */
QSI_INLINE void fields3(const char *b, vi out[8]) {
    static const int at[3][2] = {{0, 2}, {1, 3}, {4, 5}};
    const vi w[3] = {ONCE(0), ONCE(1), ONCE(2)};
    for (int i = 0; i < 3; i++) {
        out[at[i][0]] = low_bits(w[i], 3);
        out[at[i][1]] = iand(w[i], alli(0x38383838));
    }
    for (int i = 0; i < 2; i++)
        out[6 + i] = and_or(w[i], alli((int)0xc0c0c0c0u), moved(w[2], 6 + i, 5, 0x20202020));
}
QSI_INLINE void put_fields3(char *b, const vi c[8]) {
    vi top = alli(0x03030303);
    sti(b, with(with(c[0], c[2], 3), iand(shr(c[6], 1), top), 6));
    sti(b + VB, with(with(c[1], c[3], 3), iand(shr(c[7], 1), top), 6));
    sti(b + 2 * VB, with(with(with(c[4], c[5], 3), low_bits(c[6], 1), 6), low_bits(c[7], 1), 7));
}

/* Codes of bundle i of the block at b, each where it stands in its byte (place_of). */
QSI_INLINE void bundle_in_place(const int t, const char *b, const int i, vi out[8]) {
    switch (t) {
    case QSI_MM_Q8_0: out[0] = ONCE(i); break;
    case QSI_MM_Q4_0:
    case QSI_MM_Q4_1:
    case QSI_MM_Q4_K: {
        vi w = ONCE(i + (t == QSI_MM_Q4_0 ? 0 : t == QSI_MM_Q4_1 ? 1 : 4));
        out[0] = low_bits(w, 4);
        out[1] = iand(w, alli((int)0xf0f0f0f0u));
        break;
    }
    case QSI_MM_IQ4_NL:
    case QSI_MM_IQ4_XS:
    case QSI_MM_MXFP4: {
        vi w = ONCE(i + (t == QSI_MM_IQ4_XS ? 2 : 0));
        for (int e = 0; e < 2; e++)
            out[e] = choose_bytes(t == QSI_MM_MXFP4 ? mxfp4_shifted
                                  : BIASED          ? iq4_shifted
                                                    : iq4_signed,
                                  nibble(w, e != 0));
        break;
    }
    case QSI_MM_Q2_K: {
        vi w = ONCE(5 + i);
        for (int e = 0; e < 4; e++) out[e] = iand(w, alli((int)(0x03030303u << 2 * e)));
        break;
    }
    case QSI_MM_Q3_K: fields3(b + (3 + 3 * i) * VB, out); break;
    case QSI_MM_Q6_K: fields6(b + (4 + 3 * i) * VB, out); break;
    default: fields5(b + (t == QSI_MM_Q5_K ? 4 + 5 * i : t == QSI_MM_Q5_1) * VB, out); break;
    }
}

/* Codes of bundle i. A byte's bits below a code's place are clear: no shift takes one to the next. */
QSI_INLINE void bundle(const int t, const char *b, const int i, vi out[8]) {
    bundle_in_place(t, b, i, out);
    for (int e = 0; e < bundle_steps(t); e++)
        if (place_of(t, e) > 0) out[e] = shr(out[e], place_of(t, e));
}

/* ---- scales ---- */

/* Integer scales of the groups of a block of 256 (a word a column; in types with pairs of them, pairs
 * of 16 bits too), its minima as pairs of 16 bits in the order of qsi_actk's sums, and the two
 * factors. */
typedef struct scales {
    vi sc[16], pair[8], mn[8];
    vf d, m;
} scales;

/* Types whose dots of 16 values fit 16 bits: two groups' meet their scales in one dot2. */
QSI_INLINE bool has_pairs(const int t) { return t == QSI_MM_Q2_K || t == QSI_MM_Q3_K; }

/* Groups of pair j of the sums of 16 in qsi_actk; of the scales' pair j: the same in Q3_K; in Q2_K
 * those whose codes stand four bits apart. */
QSI_INLINE int sum_group(const int j, const int high) { return j / 2 * 4 + j % 2 + 2 * high; }
QSI_INLINE int pair_group(const int t, const int j, const int high) {
    return t == QSI_MM_Q3_K ? sum_group(j, high) : j / 4 * 8 + j / 2 % 2 + j % 2 * 2 + 4 * high;
}

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

QSI_INLINE void pairs_to_words(const int t, scales *o) {
    for (int j = 0; j < 8; j++) {
        o->sc[pair_group(t, j, 0)] = sar(shl(o->pair[j], 16), 16);
        o->sc[pair_group(t, j, 1)] = sar(o->pair[j], 16);
    }
}

/* Pairs j of words 0 and 1 stand in bits 4 (j % 4) of both halves. */
QSI_INLINE void four_bit_pairs(vi w, vi out[4]) {
    for (int f = 0; f < 3; f++) out[f] = iand(shr(w, 4 * f), alli(0x000f000f));
    out[3] = shr16(w, 12);
}

/* Pairs 2i and 2i + 1 stand in the upper twelve bits of the halves of word i < 3, 6 and 7 in the rest:
 * four bits of each in words 0 and 1, two in word 2. */
QSI_INLINE void scales_q3(const char *b, scales *o) {
    const vi two = alli(0x00030003);
    for (int i = 0; i < 3; i++) {
        o->pair[2 * i] = sar16(WORD(i), 10);
        o->pair[2 * i + 1] = sar16(shl16(WORD(i), 6), 10);
    }
    o->pair[6] = and_or(shr(WORD(2), 2), two, sar16(shl16(WORD(0), 12), 10));
    o->pair[7] = and_or(WORD(2), two, sar16(shl16(WORD(1), 12), 10));
    pairs_to_words(QSI_MM_Q3_K, o);
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
        for (int i = 0; i < 2; i++) {
            four_bit_pairs(WORD(i), o->pair + 4 * i);
            four_bit_pairs(WORD(2 + i), o->mn + 4 * i);
        }
        pairs_to_words(t, o);
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

/* Codes of a bundle of eight of 5 bits in the file's order of bits: fifth bits, then nibbles. */
QSI_INLINE void file_codes5(const int t, const char *b, vi out[8]) {
    const bool k = t == QSI_MM_Q5_K;
    vi fifth = k ? WORD(0) : spread_fifth(WORD(0));
    for (int e = 0; e < 8; e++) {
        const int j = k ? e / 2 : e % 4, high = k ? e % 2 : e / 4;
        out[e] = nibble_or(WORD(1 + j), high != 0, moved(fifth, e, 4, 0x10101010));
    }
}

QSI_INLINE void reorder_q2_scales(char *b) {
    vi out[4], w[4];
    for (int i = 0; i < 4; i++) w[i] = WORD(i);
    for (int i = 0; i < 4; i++) {
        out[i] = alli(0);
        for (int f = 0; f < 8; f++) {
            const int j = i % 2 * 4 + f / 2, high = f % 2;
            const int g = i < 2 ? pair_group(QSI_MM_Q2_K, j, high) : sum_group(j, high);
            vi n = iand(shr(w[g / 4], 8 * (g % 4) + (i < 2 ? 0 : 4)), alli(15));
            out[i] = ior(out[i], shl(n, f / 2 * 4 + high * 16));
        }
    }
    for (int i = 0; i < 4; i++) sti(b + i * VB, out[i]);
}

/* Scales of six bits lose their 32 here: the top bit flips, and they are signed. */
QSI_INLINE void reorder_q3_scales(char *b) {
    vi out[3] = {alli(0), alli(0), alli(0)}, lo[2] = {WORD(0), WORD(1)}, hi = WORD(2);
    for (int j = 0; j < 8; j++)
        for (int high = 0; high < 2; high++) {
            const int g = sum_group(j, high), i = g / 4, at = g % 4 * 8;
            vi low = iand(shr(lo[i % 2], at + i / 2 * 4), alli(15));
            vi s = ixor(ior(low, shl(iand(shr(hi, at + 2 * i), alli(3)), 4)), alli(32));
            if (j < 6) {
                out[j / 2] = ior(out[j / 2], shl(s, (j % 2 == 0 ? 10 : 4) + 16 * high));
            } else {
                out[j - 6] = ior(out[j - 6], shl(shr(s, 2), 16 * high));
                out[2] = ior(out[2], shl(iand(s, alli(3)), (j == 6 ? 2 : 0) + 16 * high));
            }
        }
    for (int i = 0; i < 3; i++) sti(b + i * VB, out[i]);
}

/* Moves the bits of a block whose words are the file's. */
QSI_INLINE void reorder(const int t, char *b) {
    vi c[8];
    int bundles = bundles_of(t);
    switch (t) {
    case QSI_MM_Q8_0:
        for (int i = 0; i < 8 && BIASED; i++)
            sti(b + i * VB, ixor(WORD(i), alli((int)0x80808080u)));
        break;
    case QSI_MM_Q2_K: reorder_q2_scales(b); break;
    case QSI_MM_Q3_K:
        reorder_q3_scales(b);
        for (b += 3 * VB; bundles-- > 0; b += 3 * VB) {
            for (int e = 0; e < 8; e++)
                c[e] = ior(moved(WORD(1 + e / 4), e % 4 * 2, 0, 0x03030303),
                           moved(WORD(0), e, 2, 0x04040404));
            put_fields3(b, c);
        }
        break;
    case QSI_MM_Q6_K:
        for (b += 4 * VB; bundles-- > 0; b += 3 * VB) {
            for (int e = 0; e < 4; e++)
                c[e] = nibble_or(WORD(e % 2), e >= 2, moved(WORD(2), 2 * e, 4, 0x30303030));
            put_fields6(b, c);
        }
        break;
    case QSI_MM_Q5_0:
    case QSI_MM_Q5_1:
    case QSI_MM_Q5_K:
        for (b += (t == QSI_MM_Q5_K ? 4 : t == QSI_MM_Q5_1) * VB; bundles-- > 0; b += 5 * VB) {
            file_codes5(t, b, c);
            put_fields5(b, c);
        }
        break;
    default: break;
    }
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
    reorder(t, words);
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

#undef WORD
#undef ONCE

#endif
