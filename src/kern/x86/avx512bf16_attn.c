/* Attention in bfloat16 with the CPU's instruction; kern.h states layouts and the order of sums.
 *
 * The instruction multiplies two pairs a lane and adds both products to a float, so both products run
 * over words of two: two neighbours along the head against a query's pair, two neighbouring positions
 * against a pair of weights. 6 rows by 4 vectors stay in registers. Keys and values become such words
 * once a tile, for all rows; up to 3 rows make them on the way and store nothing. A step of the
 * inner loop asks for LINES lines of what comes next.
 *
 * Denormals count as zero, in operands and sums. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define TILE QSI_ATTN_TILE
#define AHEAD 4096 /* bytes fetched ahead where few rows stream a tile */
#define LINES 2
#define FEW 3
#ifdef QSI_SMALL_TILES
#define ROWS 2
#else
#define ROWS 6
#endif

/* Takes element j of the low and of the high half side by side. */
QSI_INLINE __m512i pair_order(void) {
    const __m512i low = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_add_epi32(_mm512_or_si512(low, _mm512_slli_epi32(low, 16)),
                            _mm512_set1_epi32(16 << 16));
}

/* Sixteen elements as floats. */
QSI_INLINE vf load(qsi_type t, vm m, const char *p) {
    return t == QSI_F32 ? ld(m, (const float *)(const void *)p)
                        : ld_f16(m, (const uint16_t *)(const void *)p);
}

QSI_INLINE int64_t size_of(qsi_type t) { return t == QSI_F32 ? 4 : 2; }

/* Words of a (low) and b (high). */
QSI_INLINE __m512i words(vf a, vf b, __m512i order) {
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

QSI_INLINE vf dot2(vf c, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

/* ---- words of a tile ---- */

QSI_INLINE void pair(qsi_type t, int64_t n, int64_t d, const char *x, int64_t ldx, uint16_t *y,
                     int64_t ldy) {
    const int64_t size = size_of(t);
    const __m512i order = pair_order();
    for (int64_t r = 0; r < n; r += 2, y += 2 * ldy) {
        const char *a = x + r * ldx * size, *b = a + ldx * size;
        vm more = r + 1 < n ? 0xffff : 0;
        for (int64_t c = 0; c < d; c += W) {
            vm m = lanes(d - c);
            vf lo = load(t, m, a + c * size), hi = zero();
            if (more) hi = load(t, m, b + c * size);
            _mm512_storeu_si512(y + 2 * c, words(lo, hi, order));
        }
    }
}

/* Bytes of position r of four, as floats times their scale. */
QSI_INLINE vf scaled(vi x, int r, const uint16_t *scale) {
    x = r < 3 ? sar(shl(x, 24 - 8 * r), 24) : sar(x, 24);
    return vmul(to_float(x), _mm512_cvtph_ps(_mm256_set1_epi16((short)scale[r])));
}

/* Columns [c, c + 16) of four positions of bytes, `left` of these there. */
QSI_INLINE void pair_bytes(vi x, int64_t left, const uint16_t *scale, uint16_t *y, int64_t ldy,
                           __m512i order) {
    vf r[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) r[j] = j < left ? scaled(x, j, scale) : zero();
    _mm512_storeu_si512(y, words(r[0], r[1], order));
    if (left > 2) _mm512_storeu_si512(y + 2 * ldy, words(r[2], r[3], order));
}

/* Bytes of columns [c, c + 16) of four positions. */
QSI_INLINE vi bytes_at(qsi_type t, int64_t left, const char *row, int64_t c) {
    if (t == QSI_Q8_0) return _mm512_maskz_loadu_epi32(lanes(left), row + 4 * c);
    vi x = nibbles(_mm512_loadu_si512(row + c / 32 * 64), (int)(c / 16 % 2));
    return _mm512_sub_epi8(x, alli(0x08080808));
}

QSI_INLINE void pairs_of_bytes(qsi_type t, int64_t n, int64_t d, const char *x, int64_t ldx,
                               const uint16_t *scale, uint16_t *y, int64_t ldy) {
    const int64_t row = t == QSI_Q4_0 ? 2 * ldx : 4 * ldx; /* bytes of four positions */
    const __m512i order = pair_order();
    for (int64_t r = 0; r < n; r += 4, y += 4 * ldy)
        for (int64_t c = 0; c < d; c += W) {
            vi v = bytes_at(t, d - c, x + r / 4 * row, c);
            const uint16_t *s = scale + c / 32 * TILE + r;
            if (n - r >= 4)
                pair_bytes(v, 4, s, y + 2 * c, ldy, order);
            else
                pair_bytes(v, n - r, s, y + 2 * c, ldy, order);
        }
}

static void attn16_pair(qsi_type t, int64_t n, int64_t d, const void *x, int64_t ldx,
                        const uint16_t *scale, uint16_t *y, int64_t ldy) {
    if (t == QSI_F32)
        pair(QSI_F32, n, d, x, ldx, y, ldy);
    else if (t == QSI_F16)
        pair(QSI_F16, n, d, x, ldx, y, ldy);
    else if (t == QSI_Q4_0)
        pairs_of_bytes(QSI_Q4_0, n, d, x, ldx, scale, y, ldy);
    else
        pairs_of_bytes(QSI_Q8_0, n, d, x, ldx, scale, y, ldy);
}

/* Elements [i, i + 32) of one position. */
QSI_INLINE __m512i row32(qsi_type t, int64_t left, const char *p) {
    vf a = load(t, lanes(left), p), b = load(t, lanes(left - W), p + W * size_of(t));
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* Elements [i, i + 32) of two positions that stand in words. */
QSI_INLINE void rows_of_words(int64_t left, const char *p, __m512i *first, __m512i *second) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i four = _mm512_slli_epi32(lane, 2);
    const __m512i even = _mm512_or_si512(
        four, _mm512_slli_epi32(_mm512_add_epi32(four, _mm512_set1_epi32(2)), 16));
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(0x10001));
    __m512i a = _mm512_maskz_loadu_epi32(lanes(left), p);
    __m512i b = _mm512_maskz_loadu_epi32(lanes(left - W), p + 4 * W);
    *first = _mm512_permutex2var_epi16(a, even, b);
    *second = _mm512_permutex2var_epi16(a, odd, b);
}

/* Elements [i, i + 32) of 16 positions from p on, of n. */
QSI_INLINE void rows32(qsi_type t, int64_t p, int64_t n, int64_t left, const char *k, int64_t ldk,
                       __m512i r[W]) {
#pragma GCC unroll 16
    for (int j = 0; j < W; j++) r[j] = _mm512_setzero_si512();
    if (t == QSI_BF16)
#pragma GCC unroll 8
        for (int j = 0; j < W; j += 2) {
            if (p + j < n) rows_of_words(left, k + (p + j) / 2 * ldk * 4, &r[j], &r[j + 1]);
        }
    else
#pragma GCC unroll 16
        for (int j = 0; j < W; j++)
            if (p + j < n) r[j] = row32(t, left, k + (p + j) * ldk * size_of(t));
}

/* Two positions' elements [i, i + 32) as words of the values. */
QSI_INLINE void put_values(uint16_t *v, int64_t left, __m512i a, __m512i b) {
    const __m512i order = pair_order();
    /* the low halves of both, then the high ones */
    __m512i lo = _mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1);
    __m512i hi = _mm512_shuffle_i64x2(a, b, 0xee);
    _mm512_storeu_si512(v, _mm512_permutexvar_epi16(order, lo));
    if (left > W) _mm512_storeu_si512(v + 2 * W, _mm512_permutexvar_epi16(order, hi));
}

QSI_INLINE void turn(qsi_type t, int64_t n, int64_t d, int64_t dv, const char *k, int64_t ldk,
                     uint16_t *kt, uint16_t *v, int64_t ldv) {
    const int64_t size = t == QSI_BF16 ? 4 : size_of(t), pairs = (d + 1) / 2;
    for (int64_t p = 0; p < n; p += W)
        for (int64_t i = 0; i < d; i += 32) {
            __m512i r[W];
            rows32(t, p, n, d - i, k + i * size, ldk, r);
            if (v && i < dv)
                for (int j = 0; j < W; j += 2)
                    put_values(v + ((p + j) / 2 * ldv + i) * 2, dv - i, r[j], r[j + 1]);
            transpose16(r);
#pragma GCC unroll 16
            for (int j = 0; j < W; j++)
                if (i / 2 + j < pairs) _mm512_storeu_si512(kt + ((i / 2 + j) * TILE + p) * 2, r[j]);
        }
}

static void attn16_turn(qsi_type t, int64_t n, int64_t d, int64_t dv, const void *k, int64_t ldk,
                        uint16_t *kt, uint16_t *v, int64_t ldv) {
    if (t == QSI_F32)
        turn(QSI_F32, n, d, dv, k, ldk, kt, v, ldv);
    else if (t == QSI_BF16)
        turn(QSI_BF16, n, d, dv, k, ldk, kt, v, ldv);
    else
        turn(QSI_F16, n, d, dv, k, ldk, kt, v, ldv);
}

/* ---- scores ---- */

/* Sixteen words of rows at p and, where there is one, `next` bytes on. */
QSI_INLINE __m512i word_at(qsi_type t, vm m, const char *p, int64_t next, bool more,
                           __m512i order) {
    if (t == QSI_BF16) {
        __m512i x = _mm512_maskz_loadu_epi32(m, p);
        return more ? x : _mm512_and_si512(x, _mm512_set1_epi32(0xffff)); /* anything stands there */
    }
    return words(load(t, m, p), more ? load(t, m, p + next) : zero(), order);
}

/* rm rows against rv vectors of positions. pf: lines to ask for, `step` bytes a step of the loop. */
QSI_INLINE void qk_block(qsi_type t, int rm, int rv, int64_t d, const uint16_t *q, int64_t ldq,
                         const char *kt, float *s, int64_t lds, const char *pf, int64_t step) {
    const int64_t row = TILE * (t == QSI_BF16 ? 2 : size_of(t)), size = row / TILE;
    const int64_t lane = t == QSI_BF16 ? 4 * W : W * size; /* bytes of a vector's words */
    const __m512i order = pair_order();
    vf c[6][4];
#pragma GCC unroll 6
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 4
        for (int v = 0; v < rv; v++) c[r][v] = zero();
    for (int64_t i = 0; i < d; i += 2) {
        const char *at = kt + i * row;
        __m512i x[4];
        if (t != QSI_BF16) {
#pragma GCC unroll 4
            for (int l = 0; l < 2 * row; l += 64) __builtin_prefetch(at + AHEAD + l);
        } else {
#pragma GCC unroll 2
            for (int l = 0; l < LINES; l++) __builtin_prefetch(pf + l * 64, 0, 2);
            pf += step;
        }
#pragma GCC unroll 4
        for (int v = 0; v < rv; v++)
            x[v] = word_at(t, 0xffff, at + v * lane, row, t == QSI_BF16 || i + 1 < d, order);
#pragma GCC unroll 6
        for (int r = 0; r < rm; r++) {
            __m512i a = _mm512_set1_epi32(word((const char *)(q + r * ldq + i)));
#pragma GCC unroll 4
            for (int v = 0; v < rv; v++) c[r][v] = dot2(c[r][v], a, x[v]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 4
        for (int v = 0; v < rv; v++) stu(s + r * lds + v * W, c[r][v]);
}

QSI_INLINE void qk(qsi_type t, int rm, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                   const char *kt, float *s, int64_t lds, qsi_ahead *ahead) {
    const char *pf = (const char *)q;
    int64_t step = 0;
    if (t == QSI_BF16 && ahead && ahead->at < ahead->end) {
        pf = ahead->at;
        step = LINES * 64;
        ahead->at += (d + 1) / 2 * step;
    }
    if (t == QSI_BF16 && n <= 2 * W)
        qk_block(t, rm, 2, d, q, ldq, kt, s, lds, pf, step);
    else
        qk_block(t, rm, 4, d, q, ldq, kt, s, lds, pf, step);
}

/* Up to ROWS rows. */
QSI_INLINE void qk_rows(int64_t rm, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                        const char *kt, float *s, int64_t lds, qsi_ahead *ahead) {
#define CASE(R) case R: qk(QSI_BF16, R, n, d, q, ldq, kt, s, lds, ahead); break;
    switch (rm) {
        CASE(1) CASE(2)
#if ROWS > 2
        CASE(3) CASE(4) CASE(5) CASE(6)
#endif
    default: break;
    }
#undef CASE
}

/* Up to FEW rows on the cache's own tile. */
QSI_INLINE void qk_few(int64_t rm, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                       const char *kt, float *s, int64_t lds) {
    if (rm == 1)
        qk(QSI_F16, 1, n, d, q, ldq, kt, s, lds, NULL);
    else if (rm == 2)
        qk(QSI_F16, 2, n, d, q, ldq, kt, s, lds, NULL);
    else
        qk(QSI_F16, 3, n, d, q, ldq, kt, s, lds, NULL);
}

static void attn16_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                      const void *kt, float *s, int64_t lds, qsi_ahead *ahead) {
    int64_t most = t == QSI_BF16 ? ROWS : FEW;
    for (int64_t i = 0; i < m; i += most, q += most * ldq, s += most * lds) {
        int64_t rm = m - i < most ? m - i : most;
        if (t == QSI_F16)
            qk_few(rm, n, d, q, ldq, kt, s, lds);
        else
            qk_rows(rm, n, d, q, ldq, kt, s, lds, ahead);
    }
}

/* ---- values ---- */

/* rm rows, rv vectors of columns, `left` of them there. Rows of weights are TILE apart. */
QSI_INLINE void pv_block(qsi_type t, bool tail, int rm, int rv, int64_t n, int64_t left,
                         const uint16_t *w, const char *v, int64_t ldv, float *o, int64_t ldo,
                         const char *pf, int64_t step) {
    const int64_t row = ldv * (t == QSI_BF16 ? 2 : size_of(t));
    const int64_t lane = t == QSI_BF16 ? 4 * W : W * size_of(t);
    const __m512i order = pair_order();
    vm m[8];
    vf c[6][8];
#pragma GCC unroll 8
    for (int j = 0; j < rv; j++) m[j] = tail ? lanes(left - j * W) : 0xffff;
#pragma GCC unroll 6
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) c[r][j] = ld(m[j], o + r * ldo + j * W);
    for (int64_t p = 0; p < n; p += 2) {
        const char *at = v + p * row;
        __m512i x[8];
        if (t != QSI_BF16) {
#pragma GCC unroll 4
            for (int l = 0; l < rv * lane; l += 64) {
                __builtin_prefetch(at + AHEAD + l);
                __builtin_prefetch(at + AHEAD + row + l);
            }
        } else {
#pragma GCC unroll 2
            for (int l = 0; l < LINES; l++) __builtin_prefetch(pf + l * 64, 0, 2);
            pf += step;
        }
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++)
            x[j] = word_at(t, m[j], at + j * lane, row, p + 1 < n, order);
#pragma GCC unroll 6
        for (int r = 0; r < rm; r++) {
            __m512i a = _mm512_set1_epi32(word((const char *)(w + r * TILE + p)));
#pragma GCC unroll 8
            for (int j = 0; j < rv; j++) c[r][j] = dot2(c[r][j], a, x[j]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) st(m[j], o + r * ldo + j * W, c[r][j]);
}

/* Weights of n positions in bfloat16, zero up to 64. */
QSI_INLINE void weights16(int64_t n, const float *w, uint16_t *to) {
    for (int64_t p = 0; p < TILE; p += 32) {
        vf a = ld(lanes(n - p), w + p), b = ld(lanes(n - p - W), w + p + W);
        _mm512_storeu_si512(to + p, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
}

enum { COLS = 4 * W }; /* columns of a strip */

/* All columns of rm rows, strip by strip. One row leaves registers for twice as wide a strip, which
 * reads a cache's tile of 128 columns from front to back. */
QSI_INLINE void pv(qsi_type t, int rm, int64_t n, int64_t d, const float *w, int64_t ldw,
                   const char *v, int64_t ldv, float *o, int64_t ldo, qsi_ahead *ahead) {
    const int64_t size = t == QSI_BF16 ? 4 : size_of(t);
    uint16_t w16[6 * TILE];
    for (int r = 0; r < rm; r++) weights16(n, w + r * ldw, w16 + r * TILE);
    for (int64_t c = 0, cols; c < d; c += cols) {
        int64_t left = d - c, step = 0;
        const char *pf = (const char *)w16, *at = v + c * size;
        cols = rm == 1 && left >= 2 * COLS ? 2 * COLS : COLS;
        if (t == QSI_BF16 && ahead && ahead->at < ahead->end) {
            pf = ahead->at;
            step = LINES * 64;
            ahead->at += (n + 1) / 2 * step;
        }
        if (rm == 1 && cols > COLS)
            pv_block(t, false, rm, 8, n, left, w16, at, ldv, o + c, ldo, pf, step);
        else if (left >= COLS)
            pv_block(t, false, rm, 4, n, left, w16, at, ldv, o + c, ldo, pf, step);
        else
            pv_block(t, true, rm, 4, n, left, w16, at, ldv, o + c, ldo, pf, step);
    }
}

QSI_INLINE void pv_rows(int64_t rm, int64_t n, int64_t d, const float *w, int64_t ldw,
                        const char *v, int64_t ldv, float *o, int64_t ldo, qsi_ahead *ahead) {
#define CASE(R) case R: pv(QSI_BF16, R, n, d, w, ldw, v, ldv, o, ldo, ahead); break;
    switch (rm) {
        CASE(1) CASE(2)
#if ROWS > 2
        CASE(3) CASE(4) CASE(5) CASE(6)
#endif
    default: break;
    }
#undef CASE
}

QSI_INLINE void pv_few(int64_t rm, int64_t n, int64_t d, const float *w, int64_t ldw,
                       const char *v, int64_t ldv, float *o, int64_t ldo) {
    if (rm == 1)
        pv(QSI_F16, 1, n, d, w, ldw, v, ldv, o, ldo, NULL);
    else if (rm == 2)
        pv(QSI_F16, 2, n, d, w, ldw, v, ldv, o, ldo, NULL);
    else
        pv(QSI_F16, 3, n, d, w, ldw, v, ldv, o, ldo, NULL);
}

static void attn16_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                      const void *v, int64_t ldv, float *o, int64_t ldo, qsi_ahead *ahead) {
    int64_t most = t == QSI_BF16 ? ROWS : FEW;
    for (int64_t i = 0; i < m; i += most, w += most * ldw, o += most * ldo) {
        int64_t rm = m - i < most ? m - i : most;
        if (t == QSI_F16)
            pv_few(rm, n, d, w, ldw, v, ldv, o, ldo);
        else
            pv_rows(rm, n, d, w, ldw, v, ldv, o, ldo, ahead);
    }
}

void qsi_kern_fill_avx512bf16_attn(qsi_kern *t) {
    t->attn16_pair = attn16_pair;
    t->attn16_turn = attn16_turn;
    t->attn16_qk = attn16_qk;
    t->attn16_pv = attn16_pv;
}
