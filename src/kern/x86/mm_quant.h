/* The body of the products of quantised weights, included by the file of each x86 level after it
 * included simd256.h or simd512.h and defined
 *
 *   BIASED           1 when wide codes are wanted unsigned (quant_types.h)
 *   dot4(s, w, x)    s + the four products of the bytes of each word; w unsigned, x signed
 *   dot4s(s, w, x)   the same for signed w (used when BIASED is 0)
 *   dot2(s, w, x)    s + the two products of the 16-bit halves of each word
 *   MR, NP           rows and panels of a tile
 *   FEW              rows that codes in registers serve, 2 or 4
 *
 * Few rows: codes go from the panel through registers into the dots. More: the codes and scales of
 * 256 values of NP panels are unpacked once into a buffer that stays in the first cache, and all rows
 * (ROWS at most) pass over it in tiles of MR. Both compute the integers and do the float operations
 * that kern.h states, so the bits are the same. */
#ifndef QSI_KERN_MM_QUANT_H
#define QSI_KERN_MM_QUANT_H

#include <string.h>

#include "kern/kern_levels.h"
#include "kern/x86/quant_types.h"

#define ROWS 96
#define BLOCKS 8  /* blocks of 32 a buffer */
#define AHEAD 1024 /* bytes that are asked for ahead (lines_of) */
#define AHEAD_TILES 2 /* buffers that tiles prefetch ahead */

/* Fields of qsi_act8 and qsi_actk. */
enum { A8_Z = 4, A8_QS = 8, AK_Z = 256, AK_S32 = 320, AK_S16 = 336, AK_D = 368 };

typedef struct buffer {
    _Alignas(64) char codes[64][NP][VB];
    char sc[16][NP][VB], mn[8][NP][VB];
    char d[BLOCKS][NP][VB], m[BLOCKS][NP][VB];
} buffer;

/* Where block b starts, or the line of halves before it (b: the first of such a line). */
QSI_INLINE const char *from_block(const int t, const char *panel, int64_t b) {
    place at = block_at(t, panel, b);
    return half_at(t) < 0 ? at.words : at.half;
}

QSI_INLINE vi bcast(const char *p) { return alli(word(p)); }
QSI_INLINE vf bcastf(const char *p) {
    float f;
    memcpy(&f, p, 4);
    return all(f);
}

QSI_INLINE vi dot_codes(const int t, vi s, vi w, vi x) {
    return is_wide(t) && !BIASED ? dot4s(s, w, x) : dot4(s, w, x);
}

/* What the dot of a group starts at, its codes being 2^factor too large: less the codes' shift times
 * the activations' sum. */
QSI_INLINE vi start(const int t, const char *z, const int factor) {
    const int n = shift_of(t) + factor;
    if (shift_of(t) < 0) return alli(0);
    return n == 7 ? bcast(z) : sar(bcast(z), 7 - n);
}

QSI_INLINE const char *act_block(const int t, const char *row, int64_t b) {
    return row + b * (int64_t)(is_k(t) ? sizeof(qsi_actk) : sizeof(qsi_act8));
}
QSI_INLINE const char *act_z(const int t, const char *x, int g) {
    return is_k(t) ? x + AK_Z + 4 * g : x + A8_Z;
}
QSI_INLINE const char *act_qs(const int t, const char *x) { return is_k(t) ? x : x + A8_QS; }
QSI_INLINE int min_pairs(const int t) { return group_steps(t) == 4 ? 8 : 4; }
QSI_INLINE const char *act_pairs(const int t, const char *x) {
    return x + (group_steps(t) == 4 ? AK_S16 : AK_S32);
}

/* ---- few rows ---- */

/* Types whose codes tiles take from the panel, masking them: nothing but their scales is unpacked. */
QSI_INLINE bool in_place(const int t) {
    return BIASED && (t == QSI_MM_Q8_0 || t == QSI_MM_Q4_0 || t == QSI_MM_Q4_1 || t == QSI_MM_Q4_K);
}

/* Rows that share the codes in registers: with more (or eight codes and their dots at a time) the
 * buffer is faster, and tiles without one. */
QSI_INLINE int few_of(const int t) {
    const bool two = is_k(t) && (bundle_steps(t) == 8 || (t == QSI_MM_Q4_K && in_place(t)));
    return FEW > 2 && two ? 2 : FEW;
}

/* Which running dot takes code e: in blocks of 256 each its own (codes of a bundle are of several
 * groups), else two, of which all codes of one factor. */
QSI_INLINE int dot_of(const int t, const int e) {
    return is_k(t) || bundle_steps(t) <= 2 ? e : factor_of(t, e) > 0;
}

/* The factor of codes that stand too large in types of at most one such factor. */
QSI_INLINE int the_factor(const int t) { return factor_of(t, bundle_steps(t) - 1); }

/* Lines that a bundle asks for, AHEAD of it. The CPU's own prefetch keeps up with a panel whose words
 * are loaded from front to back (ldi_once), and a second one only disturbs it, but for one row of these,
 * which arithmetic holds up, as measured (docs/kernels.md). */
QSI_INLINE int lines_of(const int t, const int rows) {
    return rows == 1 && (t == QSI_MM_Q2_K || t == QSI_MM_Q3_K);
}

/* dots[r][e] += code e of bundle i times its activations of row r. */
QSI_INLINE void bundle_dots(const int t, const int rows, const char *b, const int i, const char *x,
                            size_t lda, vi dots[FEW][8]) {
    vi w[8];
    const int lines = lines_of(t, rows);
#pragma GCC unroll 8
    for (int l = 0; l < lines; l++) _mm_prefetch(b + AHEAD + (i * lines + l) * VB, _MM_HINT_T1);
    if (BIASED)
        bundle_in_place(t, b, i, w);
    else
        bundle(t, b, i, w);
#pragma GCC unroll 8
    for (int e = 0; e < bundle_steps(t); e++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vi *d = &dots[r][dot_of(t, e)];
            const char *q = act_qs(t, x + (size_t)r * lda) + 4 * step_of(t, i, e);
            *d = dot_codes(t, *d, w[e], bcast(q));
        }
}

/* sum[0] + sum[1] / 2^n */
QSI_INLINE vi both(const vi sum[2], const int n) {
    return iadd(sum[0], n > 0 ? sar(sum[1], n) : sum[1]);
}

/* Sums of scale times dot, a group at a time; those of codes that stand too large apart. */
QSI_INLINE void rows_sums(const int t, const int rows, const char *b, const char *x, size_t lda,
                          const scales *o, vi sum[FEW][2]) {
    /* after so many bundles the dots of bundle_steps groups are complete */
    const int span = group_steps(t);
#pragma GCC unroll 16
    for (int i = 0; i < bundles_of(t); i += span) {
        vi dots[FEW][8];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int e = 0; e < bundle_steps(t); e++)
                dots[r][e] = start(t, act_z(t, x + (size_t)r * lda, step_of(t, i, e) / span),
                                   factor_of(t, e));
#pragma GCC unroll 8
        for (int j = 0; j < span; j++) bundle_dots(t, rows, b, i + j, x, lda, dots);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int e = 0; e < bundle_steps(t); e++) {
                vi *s = &sum[r][factor_of(t, e) > 0];
                *s = iadd(*s, imul(dots[r][e], o->sc[step_of(t, i, e) / span]));
            }
    }
}

/* Dots lo and hi, 2^fl and 2^fh too large, as halves that are 2^f too large. */
QSI_INLINE vi dot_pair(vi lo, const int fl, vi hi, const int fh, const int f) {
    if (fl > f) lo = shr(lo, fl - f);
    return fh == f ? low_pair(lo, hi) : halves(lo, shl(hi, 16 - (fh - f)));
}

/* The same two groups at a time (has_pairs): dots of 16 codes below 8 are halves of words. */
QSI_INLINE void rows_pair_sums(const int t, const int rows, const char *b, const char *x,
                               size_t lda, const scales *o, vi sum[FEW][2]) {
    const bool q3 = t == QSI_MM_Q3_K;
#pragma GCC unroll 16
    for (int i = 0; i < bundles_of(t); i += 4) {
        vi dots[FEW][8];
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int e = 0; e < bundle_steps(t); e++) dots[r][e] = alli(0);
#pragma GCC unroll 8
        for (int j = 0; j < 4; j++) bundle_dots(t, rows, b, i + j, x, lda, dots);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
            for (int p = 0; p < bundle_steps(t) / 2; p++) {
                const int e = q3 ? 2 * p : p, f = q3 ? e + 1 : e + 2;
                const int keep = q3 ? 0 : factor_of(t, e); /* at most 2 */
                vi two = dot_pair(dots[r][e], factor_of(t, e), dots[r][f], factor_of(t, f), keep);
                vi *s = &sum[r][keep > 0];
                *s = dot2(*s, two, o->pair[q3 ? 2 * p + i / 4 : i / 2 + p]);
            }
    }
}

/* The four by which a code of Q3_K is more than it means, in the last place of its sum. */
QSI_INLINE vi less_four(vi sum, const char *x, const scales *o) {
    vi low = alli(0);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) low = dot2(low, o->pair[j], bcast(x + AK_S16 + 4 * j));
    return isub(sum, shl(low, 2));
}

QSI_INLINE void rows_block_k(const int t, const int rows, const char *b, const char *half,
                             const char *x, size_t lda, vf acc[FEW]) {
    scales o;
    scales_k(t, b, half, &o);
    vi sum[FEW][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = alli(0);
    if (has_pairs(t))
        rows_pair_sums(t, rows, b, x, lda, &o, sum);
    else
        rows_sums(t, rows, b, x, lda, &o, sum);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const char *xr = x + (size_t)r * lda;
        vf ad = bcastf(xr + AK_D);
        vi s = t == QSI_MM_Q3_K ? less_four(sum[r][0], xr, &o)
                                : both(sum[r], t == QSI_MM_Q2_K ? factor_of(t, 1) : the_factor(t));
        acc[r] = vfma(to_float(s), vmul(ad, o.d), acc[r]);
        if (!has_min(t)) continue;
        vi low = alli(0);
#pragma GCC unroll 8
        for (int i = 0; i < min_pairs(t); i++)
            low = dot2(low, o.mn[i], bcast(act_pairs(t, xr) + 4 * i));
        acc[r] = vfnma(to_float(low), vmul(ad, o.m), acc[r]);
    }
}

QSI_INLINE void rows_block_32(const int t, const int rows, const char *b, const char *half,
                              const char *x, size_t lda, vf acc[FEW]) {
    vf d, m;
    vi dots[FEW][8];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        dots[r][0] = start(t, act_z(t, x + (size_t)r * lda, 0), 0);
        dots[r][1] = alli(0);
    }
    scales_32(t, b, half, &d, &m);
#pragma GCC unroll 8
    for (int i = 0; i < bundles_of(t); i++) bundle_dots(t, rows, b, i, x, lda, dots);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const char *xr = x + (size_t)r * lda;
        vf ad = bcastf(xr);
        vi s = bundle_steps(t) == 1 ? dots[r][0] : both(dots[r], the_factor(t));
        acc[r] = vfma(to_float(s), vmul(ad, d), acc[r]);
        if (has_min(t)) acc[r] = vfma(to_float(sar(bcast(xr + A8_Z), 7)), vmul(ad, m), acc[r]);
    }
}

/* Rows of A by one panel. */
QSI_INLINE void rows_panel(const int t, const int rows, int64_t nb, const char *a, size_t lda,
                           const char *panel, vf acc[FEW]) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) acc[r] = zero();
    place at = block_at(t, panel, 0);
    for (int64_t i = 0; i < nb; i++, at = next_block(t, at, i - 1)) {
        const char *x = act_block(t, a, i);
        if (is_k(t))
            rows_block_k(t, rows, at.words, at.half, x, lda, acc);
        else
            rows_block_32(t, rows, at.words, at.half, x, lda, acc);
    }
}

/* ---- many rows ---- */

QSI_INLINE void unpack_codes(const int t, const char *words, char codes[][NP][VB], const int p) {
#pragma GCC unroll 32
    for (int j = 0; j < bundles_of(t); j++) {
        vi v[8];
        bundle(t, words, j, v);
        for (int e = 0; e < bundle_steps(t); e++) sti(codes[step_of(t, j, e)][p], v[e]);
    }
}

/* 256 values from block b0 on (blocks of 32: nb of them) to panel p of the buffer; codes: not only the
 * scales. Scales of codes that a tile takes in_place are too large by what their codes are too small. */
QSI_INLINE void unpack(const int t, const bool codes, const char *panel, int64_t b0, int64_t nb,
                       buffer *w, const int p) {
    place at = block_at(t, panel, b0);
    for (int64_t i = 0; i < nb; i++, at = next_block(t, at, b0 + i - 1)) {
        if (codes) unpack_codes(t, at.words, w->codes + i * 8, p);
        vf d, m;
        if (is_k(t)) {
            scales o;
            scales_k(t, at.words, at.half, &o);
#pragma GCC unroll 16
            for (int g = 0; g < 64 / group_steps(t); g++)
                sti(w->sc[g][p], codes || g % 2 != 0 ? o.sc[g] : shl(o.sc[g], 4));
            if (has_min(t))
                for (int g = 0; g < min_pairs(t); g++) sti(w->mn[g][p], o.mn[g]);
            d = o.d;
            m = o.m;
        } else {
            scales_32(t, at.words, at.half, &d, &m);
        }
        stf(w->d[i][p], d);
        if (has_min(t)) stf(w->m[i][p], m);
    }
}

typedef struct tile {
    const buffer *w;
    int64_t nb;    /* blocks in the buffer */
    const char *at[NP]; /* the first of them in the panels (from_block) */
    const char *a; /* at the buffer's first value */
    size_t lda;
    float *acc; /* [rows][NP][W] */
    const char *ahead[NP]; /* to be fetched meanwhile: so many lines of each, a few a group */
    int64_t lines, few;
} tile;

/* Fetches the next few lines to the second cache. A fetch holds a place among the first cache's misses
 * until it is there: many at once would keep the loads of the tile waiting. */
QSI_INLINE void fetch_few(tile *o) {
    int64_t n = o->few < o->lines ? o->few : o->lines;
    for (int64_t i = 0; i < n; i++)
#pragma GCC unroll 2
        for (int p = 0; p < NP; p++) {
            _mm_prefetch(o->ahead[p], _MM_HINT_T1);
            o->ahead[p] += 64;
        }
    o->lines -= n;
}

/* Step i of group g of block b, of panel p. */
QSI_INLINE vi tile_code(const int t, const tile *o, int64_t b, int64_t g, const int i, const int p) {
    if (!in_place(t)) return ldi(o->w->codes[b * 8 + g * group_steps(t) + i][p]);
    const char *words = block_at(t, o->at[p], b).words;
    if (t == QSI_MM_Q8_0) return ldi_once(words + i * VB);
    if (t == QSI_MM_Q4_K)
        return iand(ldi(words + (4 + g / 2 * 8 + i) * VB),
                    alli((int)(g % 2 != 0 ? 0xf0f0f0f0u : 0x0f0f0f0fu)));
    return nibble(ldi(words + ((t == QSI_MM_Q4_1) + i % 4) * VB), i >= 4);
}

/* Running dots of group g of block b, whose activations are at x. */
QSI_INLINE void tile_dots(const int t, const int rows, const tile *o, const char *x, int64_t b,
                          const int g, vi s[MR][NP]) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        vi z = start(t, act_z(t, x + (size_t)r * o->lda, g), 0);
#pragma GCC unroll 2
        for (int p = 0; p < NP; p++) s[r][p] = z;
    }
#pragma GCC unroll 8
    for (int i = 0; i < group_steps(t); i++) {
        vi w[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; p++) w[p] = tile_code(t, o, b, g, i, p);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vi v = bcast(act_qs(t, x + (size_t)r * o->lda) + 4 * (g * group_steps(t) + i));
#pragma GCC unroll 2
            for (int p = 0; p < NP; p++) s[r][p] = dot_codes(t, s[r][p], w[p], v);
        }
    }
}

QSI_INLINE void tile_k(const int t, const int rows, tile *o) {
    vi sum[MR][NP];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < NP; p++) sum[r][p] = alli(0);
    for (int g = 0; g < 64 / group_steps(t); g++) {
        vi s[MR][NP];
        fetch_few(o);
        tile_dots(t, rows, o, o->a, 0, g, s);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int p = 0; p < NP; p++)
                sum[r][p] = iadd(sum[r][p], imul(s[r][p], ldi(o->w->sc[g][p])));
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const char *x = o->a + (size_t)r * o->lda;
        vf ad = bcastf(x + AK_D);
#pragma GCC unroll 2
        for (int p = 0; p < NP; p++) {
            char *c = (char *)(o->acc + (r * NP + p) * W);
            vi s = in_place(t) ? sar(sum[r][p], 4) : sum[r][p];
            vf acc = vfma(to_float(s), vmul(ad, ldf(o->w->d[0][p])), ldf(c));
            if (has_min(t)) {
                vi low = alli(0);
#pragma GCC unroll 8
                for (int i = 0; i < min_pairs(t); i++)
                    low = dot2(low, ldi(o->w->mn[i][p]), bcast(act_pairs(t, x) + 4 * i));
                acc = vfnma(to_float(low), vmul(ad, ldf(o->w->m[0][p])), acc);
            }
            stf(c, acc);
        }
    }
}

QSI_INLINE void tile_32(const int t, const int rows, tile *o) {
    vf acc[MR][NP];
    const char *a = o->a;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < NP; p++) acc[r][p] = ldf((char *)(o->acc + (r * NP + p) * W));
    for (int64_t b = 0; b < o->nb; b++, a += sizeof(qsi_act8)) {
        vi s[MR][NP];
        fetch_few(o);
        tile_dots(t, rows, o, a, b, 0, s);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const char *x = a + (size_t)r * o->lda;
            vf ad = bcastf(x);
            vf low = has_min(t) ? to_float(sar(bcast(x + A8_Z), 7)) : zero();
#pragma GCC unroll 2
            for (int p = 0; p < NP; p++) {
                acc[r][p] = vfma(to_float(s[r][p]), vmul(ad, ldf(o->w->d[b][p])), acc[r][p]);
                if (has_min(t)) acc[r][p] = vfma(low, vmul(ad, ldf(o->w->m[b][p])), acc[r][p]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < NP; p++) stf((char *)(o->acc + (r * NP + p) * W), acc[r][p]);
}

typedef void tile_fn(tile *o);
typedef tile_fn *const tile_fns[MR + 1];
typedef void unpack_fn(const char *panel, int64_t b0, int64_t nb, buffer *w, int p);

/* ---- float activations ---- */

/* The buffer's values as floats, 256 x NP panels. */
typedef struct widened {
    _Alignas(64) char v[256][NP][VB];
} widened;

QSI_INLINE void widen(const int t, const buffer *w, int64_t nb, widened *out) {
    for (int64_t s = 0; s < nb * steps_of(t); s++)
        for (int p = 0; p < NP; p++) {
            int64_t b = is_k(t) ? 0 : s / 8, g = s / group_steps(t);
            vf d = ldf(w->d[b][p]), low = zero();
            if (has_min(t)) low = ldf(w->m[b][p]);
            if (is_k(t)) {
                d = vmul(d, to_float(ldi(w->sc[g][p])));
                vi pair = ldi(w->mn[(g & ~3) / 2 + (g & 1)][p]);
                if (has_min(t))
                    low = vmul(low, to_float(g & 2 ? shr(pair, 16) : iand(pair, alli(0xffff))));
            }
            vi c = ldi(w->codes[s][p]);
            for (int i = 0; i < 4; i++) {
                vi q = is_wide(t) && !BIASED ? sar(shl(c, 24 - 8 * i), 24)
                                             : iand(shr(c, 8 * i), alli(255));
                if (shift_of(t) >= 0) q = isub(q, alli(1 << shift_of(t)));
                stf(out->v[4 * s + i][p], vfma(d, to_float(q), vsub(all(-0.0f), low)));
            }
        }
}

QSI_INLINE void tile_x(const int rows, const tile *o, const widened *w, int64_t n) {
    vf acc[MR][NP];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < NP; p++) acc[r][p] = ldf((char *)(o->acc + (r * NP + p) * W));
    for (int64_t k = 0; k < n; k++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf x = bcastf(o->a + (size_t)r * o->lda + 4 * k);
#pragma GCC unroll 2
            for (int p = 0; p < NP; p++) acc[r][p] = vfma(x, ldf(w->v[k][p]), acc[r][p]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < NP; p++) stf((char *)(o->acc + (r * NP + p) * W), acc[r][p]);
}

/* ---- all ---- */

typedef struct problem {
    int64_t m, n, k, p0, p1;
    const char *a;
    size_t lda;
    const char *packed;
    float *c;
    int64_t ldc;
    bool add;
} problem;

QSI_INLINE void store(const problem *q, int64_t row, int64_t panel, vf v) {
    float *c = q->c + row * q->ldc + panel * W;
    vm k = lanes(q->n - panel * W);
    st(k, c, q->add ? vadd(ld(k, c), v) : v);
}

/* q->m rows, at most FEW. */
QSI_INLINE void run_rows(const int t, const int rows, const problem *q) {
    for (int64_t p = q->p0; p < q->p1; p++) {
        vf acc[FEW];
        rows_panel(t, rows, q->k / block_len(t), q->a, q->lda,
                   q->packed + (size_t)p * panel_size(t, q->k), acc);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) store(q, r, p, acc[r]);
    }
}

QSI_INLINE void run_few(const int t, const problem *q) {
    switch (q->m) {
    case 1: run_rows(t, 1, q); break;
#if FEW > 2
    case 3: run_rows(t, few_of(t) > 2 ? 3 : 2, q); break;
    case 4: run_rows(t, few_of(t) > 2 ? 4 : 2, q); break;
#endif
    default: run_rows(t, 2, q); break;
    }
}

/* What tiles over the buffer of block b fetch meanwhile: the bytes that stand AHEAD_TILES buffers
 * further on in panels [p, q->p1). */
QSI_INLINE void fetch_ahead(const int t, const problem *q, int64_t p, int64_t b, int64_t tiles,
                            tile *o) {
    const int64_t per = is_k(t) ? 1 : BLOCKS, nb = q->k / block_len(t);
    const int64_t calls = tiles * (is_k(t) ? 64 / group_steps(t) : BLOCKS);
    o->lines = per * words_of(t) * VB / 64 + (half_at(t) < 0 ? 0 : (per + SHARE - 1) / SHARE);
    o->few = (o->lines + calls - 1) / calls;
    for (b += AHEAD_TILES * per; b >= nb && p < q->p1; p += NP) b -= nb;
    if (p >= q->p1) o->lines = 0;
    for (int j = 0; j < NP && o->lines > 0; j++) {
        const char *panel = q->packed + (size_t)(p + j < q->p1 ? p + j : p) * panel_size(t, q->k);
        o->ahead[j] = from_block(t, panel, b);
    }
}

/* Rows [r0, r0 + rows) by panels [p, p + NP) (the last ones may be missing). */
QSI_INLINE void run_tiles(const int t, const bool exact, unpack_fn *open, tile_fn *const *fns,
                          const problem *q, int64_t r0, int64_t rows, int64_t p) {
    _Alignas(64) float acc[ROWS * NP * W];
    buffer w;
    widened f;
    const int per = is_k(t) ? 1 : BLOCKS;
    size_t size = panel_size(t, q->k);
    int64_t nb = q->k / block_len(t), tiles = (rows + MR - 1) / MR;
    memset(acc, 0, (size_t)(rows * NP * W) * sizeof(float));
    for (int64_t b = 0; b < nb; b += per) {
        int64_t n = nb - b < per ? nb - b : per;
        tile o = {.w = &w, .nb = n, .lda = q->lda};
        for (int i = 0; i < NP; i++) {
            const char *panel = q->packed + (size_t)(p + i < q->p1 ? p + i : p) * size;
            o.at[i] = from_block(t, panel, b);
            open(panel, b, n, &w, i);
        }
        fetch_ahead(t, q, p, b, tiles, &o);
        if (exact) widen(t, &w, n, &f);
        const char *a = q->a + (size_t)r0 * q->lda;
        a = exact ? a + b * block_len(t) * 4 : act_block(t, a, b);
        for (int64_t i = 0; i < tiles; i++) {
            int64_t i0 = rows * i / tiles, nr = rows * (i + 1) / tiles - i0;
            o.a = a + (size_t)i0 * q->lda;
            o.acc = acc + i0 * NP * W;
            if (!exact)
                fns[nr](&o);
            else if (nr == MR)
                tile_x(MR, &o, &f, n * block_len(t));
            else
                for (int64_t r = 0; r < nr; r++, o.a += o.lda, o.acc += NP * W)
                    tile_x(1, &o, &f, n * block_len(t));
        }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < NP && p + i < q->p1; i++)
            store(q, r0 + r, p + i, ldf((char *)(acc + (r * NP + i) * W)));
}

QSI_INLINE void run_type(const int t, const bool exact, unpack_fn *open, tile_fn *const *fns,
                         const problem *q) {
    if (q->m <= few_of(t) && !exact) {
        run_few(t, q);
        return;
    }
    int64_t groups = (q->m + ROWS - 1) / ROWS;
    for (int64_t i = 0; i < groups; i++) {
        int64_t r0 = q->m * i / groups, rows = q->m * (i + 1) / groups - r0;
        for (int64_t p = q->p0; p < q->p1; p += NP)
            run_tiles(t, exact, open, fns, q, r0, rows, p);
    }
}

/* ---- one set of functions a type ---- */

#define PROBLEM                                                                                    \
    {                                                                                              \
        m, n, k, p0, p1, a, lda, packed, c, ldc, add                                               \
    }
#define TILE_FN(name, rows)                                                                        \
    static __attribute__((noinline)) void tile_##name##_##rows(tile *o) {                          \
        if (is_k(QSI_MM_##name))                                                                   \
            tile_k(QSI_MM_##name, rows, o);                                                        \
        else                                                                                       \
            tile_32(QSI_MM_##name, rows, o);                                                       \
    }
#define TILES(name)                                                                                \
    ALL_ROWS(TILE_FN, name)                                                                        \
    static tile_fns fns_##name = {NULL ALL_ROWS(TILE_NAME, name)};
/* Out of the buffer these pairs are the same (Q5_0 and MXFP4: both shifted by 16), those of the second
 * kind where neither is taken in_place. */
#define fns_MXFP4 fns_Q5_0
#if BIASED
#define MORE_TILES TILES(IQ4_NL) TILES(Q5_1) TILES(Q5_K)
#else
#define fns_IQ4_NL fns_Q8_0
#define fns_Q5_1 fns_Q4_1
#define fns_Q5_K fns_Q4_K
#define MORE_TILES
#endif
#define ALL_TILES                                                                                  \
    MORE_TILES TILES(Q8_0) TILES(Q4_0) TILES(Q4_1) TILES(Q5_0) TILES(Q2_K) TILES(Q3_K) TILES(Q4_K)  \
    TILES(Q6_K) TILES(IQ4_XS)
#define QUANT_FUNCTIONS(name)                                                                      \
    static __attribute__((noinline)) void unpack_##name(const char *panel, int64_t b0, int64_t nb, \
                                                        buffer *w, int p) {                        \
        unpack(QSI_MM_##name, true, panel, b0, nb, w, p);                                          \
    }                                                                                              \
    static __attribute__((noinline, unused)) void scales_##name(                                   \
        const char *panel, int64_t b0, int64_t nb, buffer *w, int p) {                             \
        unpack(QSI_MM_##name, false, panel, b0, nb, w, p);                                         \
    }                                                                                              \
    static size_t bytes_##name(int64_t k) { return panel_size(QSI_MM_##name, k); }                 \
    static void pack_##name(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k,   \
                            int64_t p0, int64_t p1, void *dst) {                                   \
        pack_type(QSI_MM_##name, src, ld_col, n, k, p0, p1, dst);                                  \
    }                                                                                              \
    static void run_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda, const void *packed, float *c, int64_t ldc, bool add) {      \
        unpack_fn *open = in_place(QSI_MM_##name) ? scales_##name : unpack_##name;                 \
        run_type(QSI_MM_##name, false, open, fns_##name, &(problem)PROBLEM);                       \
    }                                                                                              \
    static void run_x_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1,              \
                             const void *a, size_t lda, const void *packed, float *c, int64_t ldc, \
                             bool add) {                                                           \
        run_type(QSI_MM_##name, true, unpack_##name, NULL, &(problem)PROBLEM);                     \
    }
#define TILE_NAME(name, rows) , tile_##name##_##rows
#define QUANT_FILL(name)                                                                           \
    t->mm[QSI_MM_##name] = (qsi_kern_mm){W, bytes_##name, pack_##name, run_##name};                \
    t->mm[QSI_MM_X_##name] = (qsi_kern_mm){W, bytes_##name, pack_##name, run_x_##name};

#endif
