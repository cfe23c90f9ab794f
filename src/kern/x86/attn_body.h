/* Attention over tiles of 64 positions, in the names of simd256.h or simd512.h and attn_vec of the
 * including file; kern.h states layouts and the order of sums.
 *
 * Both products have one shape: rows of float against a matrix [k][columns] whose columns lie along
 * the lanes, one fma a term, k ascending. A block of ROWS rows by VECS vectors stays in registers;
 * one vector of the matrix, widened as it is loaded, meets ROWS rows. */
#ifndef QSI_KERN_ATTN_BODY_H
#define QSI_KERN_ATTN_BODY_H

#include <stddef.h>

#include "kern/kern.h"

#define TILE QSI_ATTN_TILE
#define AHEAD 4096 /* bytes fetched ahead where a single row streams a tile */

/* Bytes from a column to the next: bytes of four rows stand side by side, bfloat16 of two. Of Q4_0
 * that is so of turned keys alone, see attn_at. */
QSI_INLINE int64_t attn_size(qsi_type t) { return t == QSI_F16 ? 2 : 4; }

QSI_INLINE bool attn_scaled(qsi_type t) { return t == QSI_Q8_0 || t == QSI_Q4_0; }

/* Row r of a matrix whose rows are ld elements apart; where several stand side by
 * side: those that row r is one of. */
QSI_INLINE const char *attn_row(qsi_type t, const char *p, int64_t ld, int64_t r) {
    return p + (attn_scaled(t) ? r / 4 : t == QSI_BF16 ? r / 2 : r) * ld * attn_size(t);
}

/* The same of turned keys, elements of 64 positions. */
QSI_INLINE const char *key_row(qsi_type t, const char *kt, int64_t i) {
    return t == QSI_Q4_0 ? kt + i / 8 * TILE * 4 : attn_row(t, kt, TILE, i);
}

/* Place of column c in a row of Q4_0: 16 words hold two times 16 columns. */
QSI_INLINE int64_t nibble_word(int64_t c) { return c / 32 * 16 + c % 16; }
/* Bytes from column 0 to column c. */
QSI_INLINE int64_t attn_at(qsi_type t, int64_t c) {
    return (t == QSI_Q4_0 ? nibble_word(c) : c) * attn_size(t);
}
/* Shift that brings byte r of a word down, and the nibble of it. */
QSI_INLINE int nibble_shift(int64_t r, int64_t high) { return (int)(r % 4 * 8 + high * 4); }

/* Elements of row r at p. */
QSI_INLINE vf attn_load(qsi_type t, const char *p, int64_t r) {
    if (t == QSI_F32) return ldu((const float *)(const void *)p);
    if (t == QSI_BF16) return attn_bf16(p, (int)(r % 2));
    return t == QSI_F16 ? attn_f16(p) : attn_i8(p, (int)(r % 4));
}

QSI_INLINE vf attn_load_tail(qsi_type t, vm m, const char *p, int64_t r) {
    if (t == QSI_F32) return ld(m, (const float *)(const void *)p);
    if (t == QSI_BF16) return attn_bf16_tail(m, p, (int)(r % 2));
    return t == QSI_F16 ? ld_f16(m, (const uint16_t *)(const void *)p)
                        : attn_i8_tail(m, p, (int)(r % 4));
}

/* W elements of an element's row of turned keys. */
QSI_INLINE vf key_load(qsi_type t, const char *p, int64_t i) {
    return t == QSI_Q4_0 ? attn_i4(p, nibble_shift(i, i / 4 % 2)) : attn_load(t, p, i);
}

/* Columns [c, c + W), `left` of them there, of row r at `row`. Of Q4_0 c is taken from a column
 * that is `half` times 16 behind a block's first, and a block is there as a whole. */
QSI_INLINE vf row_load(qsi_type t, bool tail, vm m, const char *row, int64_t r, int64_t c,
                       int64_t half) {
    const char *p = row + attn_at(t, c);
    if (t == QSI_Q4_0) return attn_i4(p, nibble_shift(r, (half + c / 16) % 2));
    return tail ? attn_load_tail(t, m, p, r) : attn_load(t, p, r);
}

/* ---- turning natural keys ---- */

QSI_INLINE void turn(qsi_type t, int64_t n, int64_t d, const char *k, int64_t ldk, float *kt) {
    for (int64_t p = 0; p < TILE; p += W)
        for (int64_t i = 0; i < d; i += W) {
            vf r[W];
            vm m = lanes(d - i);
            for (int j = 0; j < W; j++) {
                const char *row = attn_row(t, k, ldk, p + j);
                r[j] = p + j < n ? row_load(t, d - i < W, m, row, j, i, 0) : zero();
            }
            attn_transpose(r);
            for (int j = 0; j < W && i + j < d; j++) stu(kt + (i + j) * TILE + p, r[j]);
        }
}

static void attn_turn(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, float *kt) {
    if (t == QSI_F32)
        turn(QSI_F32, n, d, k, ldk, kt);
    else if (t == QSI_F16)
        turn(QSI_F16, n, d, k, ldk, kt);
    else if (t == QSI_BF16)
        turn(QSI_BF16, n, d, k, ldk, kt);
    else if (t == QSI_Q4_0)
        turn(QSI_Q4_0, n, d, k, ldk / 2, kt);
    else
        turn(QSI_Q8_0, n, d, k, ldk, kt);
}

/* ---- scores ---- */

/* Element 0 of row r of 4, ld apart: two pointers and two strides serve eight rows, so that all
 * stay in registers. */
QSI_INLINE float at_row(const float *p, int64_t ld, int64_t ld3, int r) {
    return r == 3 ? p[ld3] : p[r * ld];
}

/* rm rows against rv vectors of positions; kt and scale point at the first of them. */
QSI_INLINE void qk_block(qsi_type t, int rm, int rv, int64_t d, const float *q, int64_t ldq,
                         const char *kt, const uint16_t *scale, float *s, int64_t lds) {
    const int64_t size = attn_size(t), step = scale ? 32 : d, ld3 = 3 * ldq;
    const float *q0 = q, *q4 = q + (rm > 4 ? 4 * ldq : 0);
    for (int64_t b = 0; b < d; b += step) {
        int64_t e = b + step < d ? b + step : d;
        vf c[8][8];
#pragma GCC unroll 8
        for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
            for (int v = 0; v < rv; v++) c[r][v] = zero();
        for (int64_t i = b; i < e; i++) {
            const char *row = key_row(t, kt, i);
            vf x[8];
            if (rm == 1) {
                int64_t line = attn_scaled(t) ? i % 4 * 64 : t == QSI_BF16 ? i % 2 * 128 : 0;
                __builtin_prefetch(row + AHEAD + line);
                if (!attn_scaled(t)) __builtin_prefetch(row + AHEAD + line + 64);
            }
#pragma GCC unroll 8
            for (int v = 0; v < rv; v++) x[v] = key_load(t, row + v * W * size, i);
#pragma GCC unroll 8
            for (int r = 0; r < rm; r++) {
                vf a = all(r < 4 ? at_row(q0 + i, ldq, ld3, r) : at_row(q4 + i, ldq, ld3, r - 4));
#pragma GCC unroll 8
                for (int v = 0; v < rv; v++) c[r][v] = vfma(a, x[v], c[r][v]);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
            for (int v = 0; v < rv; v++) {
                float *to = s + r * lds + v * W;
                if (scale) {
                    vf k = attn_f16((const char *)(scale + b / 32 * TILE + v * W));
                    c[r][v] = vfma(k, c[r][v], b ? ldu(to) : zero());
                }
                stu(to, c[r][v]);
            }
    }
}

QSI_INLINE void qk_rows(qsi_type t, int rm, int rv, int64_t n, int64_t d, const float *q,
                        int64_t ldq, const char *kt, const uint16_t *scale, float *s,
                        int64_t lds) {
    for (int64_t p = 0; p < n; p += rv * W) {
        const char *kp = kt + p * attn_size(t);
        const uint16_t *sp = scale ? scale + p : NULL;
        if (rm > 1 && rv > 2 && n - p <= 2 * W)
            qk_block(t, rm, 2, d, q, ldq, kp, sp, s + p, lds);
        else
            qk_block(t, rm, rv, d, q, ldq, kp, sp, s + p, lds);
    }
}

QSI_INLINE void qk(qsi_type t, int64_t m, int64_t n, int64_t d, const float *q, int64_t ldq,
                   const char *kt, const uint16_t *scale, float *s, int64_t lds) {
    int64_t i = 0;
    for (; m - i >= ROWS; i += ROWS)
        qk_rows(t, ROWS, VECS, n, d, q + i * ldq, ldq, kt, scale, s + i * lds, lds);
    for (; m - i >= 4 && ROWS > 4; i += 4)
        qk_rows(t, 4, 2, n, d, q + i * ldq, ldq, kt, scale, s + i * lds, lds);
    for (; m - i >= 2; i += 2)
        qk_rows(t, 2, 2, n, d, q + i * ldq, ldq, kt, scale, s + i * lds, lds);
    for (; i < m; i++)
        qk_rows(t, 1, TILE / W, n, d, q + i * ldq, ldq, kt, scale, s + i * lds, lds);
}

static void attn_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const float *q, int64_t ldq,
                    const void *kt, const uint16_t *scale, float *s, int64_t lds) {
    if (t == QSI_F32 && scale)
        qk(QSI_F32, m, n, d, q, ldq, kt, scale, s, lds);
    else if (t == QSI_F32)
        qk(QSI_F32, m, n, d, q, ldq, kt, NULL, s, lds);
    else if (t == QSI_F16)
        qk(QSI_F16, m, n, d, q, ldq, kt, NULL, s, lds);
    else if (t == QSI_BF16)
        qk(QSI_BF16, m, n, d, q, ldq, kt, NULL, s, lds);
    else if (t == QSI_Q4_0)
        qk(QSI_Q4_0, m, n, d, q, ldq, kt, scale, s, lds);
    else
        qk(QSI_Q8_0, m, n, d, q, ldq, kt, scale, s, lds);
}

/* ---- values ---- */

/* rm rows, rv vectors of columns, `left` of them there, from `half` times 16 behind a block's
 * first on. Rows of weights are TILE apart for each block of 32 columns (wb vectors a block) and
 * ldw from row to row. */
QSI_INLINE void pv_block(qsi_type t, bool tail, int rm, int rv, int wb, int64_t n, int64_t left,
                         const float *w, int64_t ldw, const char *v, int64_t ldv, int64_t half,
                         float *o, int64_t ldo) {
    const int64_t bytes = rv * W * attn_size(t) / (t == QSI_Q4_0 ? 2 : 1), ld3 = 3 * ldw;
    const float *w4 = w + (rm > 4 ? 4 * ldw : 0);
    vm m[8];
    vf c[8][8];
#pragma GCC unroll 8
    for (int j = 0; j < rv; j++) m[j] = lanes(left - j * W);
#pragma GCC unroll 8
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++)
            c[r][j] = tail ? ld(m[j], o + r * ldo + j * W) : ldu(o + r * ldo + j * W);
    for (int64_t p = 0; p < n; p++) {
        const char *row = attn_row(t, v, ldv, p);
        vf x[8];
        if (rm == 1) {
            __builtin_prefetch(row + AHEAD);
            if (bytes > 64) __builtin_prefetch(row + AHEAD + 64);
            if (bytes > 128) __builtin_prefetch(row + AHEAD + 128);
            if (bytes > 128) __builtin_prefetch(row + AHEAD + 192);
        }
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++)
            x[j] = t == QSI_Q4_0 && tail && j * W >= left /* perhaps no such block */
                       ? zero()
                       : row_load(t, tail, m[j], row, p, j * W, half);
#pragma GCC unroll 8
        for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
            for (int j = 0; j < rv; j++) {
                const float *wj = (r < 4 ? w : w4) + j / wb * TILE + p;
                c[r][j] = vfma(all(at_row(wj, ldw, ld3, r % 4)), x[j], c[r][j]);
            }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++)
            if (tail)
                st(m[j], o + r * ldo + j * W, c[r][j]);
            else
                stu(o + r * ldo + j * W, c[r][j]);
}

/* Weights of n positions times the scales of `blocks` blocks: to[row][block][TILE]. */
QSI_INLINE void pv_scale(int rm, int blocks, int64_t n, const float *w, int64_t ldw,
                         const uint16_t *scale, float *to) {
    for (int r = 0; r < rm; r++)
        for (int b = 0; b < blocks; b++)
            for (int64_t p = 0; p < n; p += W) {
                vm m = lanes(n - p);
                vf k = attn_f16((const char *)(scale + b * TILE + p));
                stu(to + (r * blocks + b) * TILE + p, vmul(ld(m, w + r * ldw + p), k));
            }
}

QSI_INLINE void pv_rows(qsi_type t, int rm, int rv, int64_t n, int64_t d, const float *w,
                        int64_t ldw, const char *v, int64_t ldv, const uint16_t *scale, float *o,
                        int64_t ldo) {
    const int cols = rv * W, wb = attn_scaled(t) ? 32 / W : 8;
    const int blocks = (cols + 31) / 32;
    float scaled[16 * TILE]; /* rows times blocks */
    for (int64_t c = 0; c < d; c += cols) {
        const char *vc = v + attn_at(t, c);
        const float *a = w;
        int64_t lda = ldw, left = d - c;
        if (attn_scaled(t)) {
            int there = left < cols ? (int)((left + 31) / 32) : blocks;
            /* columns of half a block use the scales of the whole */
            for (int r = 0; r < rm; r++)
                pv_scale(1, there, n, w + r * ldw, ldw, scale + c / 32 * TILE,
                         scaled + r * blocks * TILE);
            for (int r = 0; r < rm; r++)
                for (int64_t x = there * TILE; x < blocks * TILE; x++)
                    scaled[r * blocks * TILE + x] = 0.0f;
            a = scaled;
            lda = blocks * TILE;
        }
        if (left >= cols)
            pv_block(t, false, rm, rv, wb, n, left, a, lda, vc, ldv, c / 16 % 2, o + c, ldo);
        else
            pv_block(t, true, rm, rv, wb, n, left, a, lda, vc, ldv, c / 16 % 2, o + c, ldo);
    }
}

/* ROWS rows: wide strips of columns, the rest in strips of two vectors. */
QSI_INLINE void pv_many(qsi_type t, int64_t n, int64_t d, const float *w, int64_t ldw,
                        const char *v, int64_t ldv, const uint16_t *scale, float *o,
                        int64_t ldo) {
    int64_t c = VECS > 2 ? d / (VECS * W) * (VECS * W) : 0;
    if (c > 0) pv_rows(t, ROWS, VECS, n, c, w, ldw, v, ldv, scale, o, ldo);
    if (c < d)
        pv_rows(t, ROWS, 2, n, d - c, w, ldw, v + attn_at(t, c), ldv,
                attn_scaled(t) ? scale + c / 32 * TILE : NULL, o + c, ldo);
}

QSI_INLINE void pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                   const char *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    int64_t i = 0;
    for (; m - i >= ROWS; i += ROWS)
        pv_many(t, n, d, w + i * ldw, ldw, v, ldv, scale, o + i * ldo, ldo);
    for (; m - i >= 4 && ROWS > 4; i += 4)
        pv_rows(t, 4, 2, n, d, w + i * ldw, ldw, v, ldv, scale, o + i * ldo, ldo);
    for (; m - i >= 2; i += 2)
        pv_rows(t, 2, 2, n, d, w + i * ldw, ldw, v, ldv, scale, o + i * ldo, ldo);
    for (; i < m; i++) {
        int64_t c = 0;
        if (d > 4 * W) { /* widest first; the rest in narrower strips */
            int64_t whole = d / (8 * W) * (8 * W);
            pv_rows(t, 1, 8, n, whole, w + i * ldw, ldw, v, ldv, scale, o + i * ldo, ldo);
            c = whole;
        }
        if (c < d)
            pv_rows(t, 1, 4, n, d - c, w + i * ldw, ldw, v + attn_at(t, c), ldv,
                    attn_scaled(t) ? scale + c / 32 * TILE : NULL, o + i * ldo + c, ldo);
    }
}

static void attn_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                    const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    if (t == QSI_F32)
        pv(QSI_F32, m, n, d, w, ldw, v, ldv, NULL, o, ldo);
    else if (t == QSI_F16)
        pv(QSI_F16, m, n, d, w, ldw, v, ldv, NULL, o, ldo);
    else if (t == QSI_BF16)
        pv(QSI_BF16, m, n, d, w, ldw, v, ldv, NULL, o, ldo);
    else if (t == QSI_Q4_0)
        pv(QSI_Q4_0, m, n, d, w, ldw, v, ldv / 2, scale, o, ldo);
    else
        pv(QSI_Q8_0, m, n, d, w, ldw, v, ldv, scale, o, ldo);
}

#endif
