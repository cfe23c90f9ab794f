/* Attention over bytes with AVX-512 VNNI: four byte products and their sum in one instruction;
 * kern.h states layouts and what is computed.
 *
 * The instruction multiplies bytes without sign by bytes with sign. Of scores, keys are shifted to
 * unsigned by 128 and the sum starts where that ends at the dot (qsi_act8.z). Of values, weights
 * have no sign anyway; their two bytes run through a sum each, put together when the tile ends.
 * Nibbles (element + 8) have no sign either: 8 times the sum of what they meet is taken
 * off, and weights may have one. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define TILE QSI_ATTN_TILE
#define LINES 2    /* asked for with a word of keys, of what comes next */
#ifdef QSI_SMALL_TILES
#define ROWS 2
#else
#define ROWS 6
#endif
#define VALUE_ROWS 2 /* two sums each */

QSI_INLINE vi dot4(vi c, vi u, vi s) { return _mm512_dpbusd_epi32(c, u, s); }

/* ---- keys turned ---- */

/* Bytes of columns [c, c + 16), `left` of them there, of four positions. */
QSI_INLINE vi bytes_at(qsi_type t, int64_t left, const char *row, int64_t c) {
    if (t == QSI_Q8_0) return _mm512_maskz_loadu_epi32(lanes(left), row + 4 * c);
    vi x = _mm512_loadu_si512(row + c / 32 * 64);
    x = _mm512_sub_epi8(nibbles(x, (int)(c / 16 % 2)), alli(0x08080808));
    return _mm512_maskz_mov_epi32(lanes(left), x);
}

/* 16 columns of four groups of four positions: bytes of 4 columns a position, 16 positions a
 * vector. */
QSI_INLINE void turn_square(const vi x[4], vi y[4]) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    vi t[4];
    for (int g = 0; g < 4; g++) t[g] = _mm512_shuffle_epi8(x[g], _mm512_broadcast_i32x4(order));
    vi a = _mm512_shuffle_i32x4(t[0], t[1], 0x44), b = _mm512_shuffle_i32x4(t[0], t[1], 0xee);
    vi c = _mm512_shuffle_i32x4(t[2], t[3], 0x44), d = _mm512_shuffle_i32x4(t[2], t[3], 0xee);
    y[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    y[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    y[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    y[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

QSI_INLINE void turn(qsi_type t, int64_t n, int64_t d, const char *from, int64_t ldk, char *to) {
    const int64_t row = t == QSI_Q4_0 ? 2 * ldk : 4 * ldk; /* bytes of four positions */
    for (int64_t p = 0; p < n; p += 16)
        for (int64_t i = 0; i < d; i += 16) {
            vi x[4], y[4];
            for (int g = 0; g < 4; g++) {
                x[g] = alli(0);
                if (p + 4 * g < n) x[g] = bytes_at(t, d - i, from + (p / 4 + g) * row, i);
            }
            turn_square(x, y);
            for (int j = 0; j < 4; j++)
                if (i + 4 * j < d) _mm512_storeu_si512(to + ((i / 4 + j) * TILE + p) * 4, y[j]);
        }
}

static void attn8_turn(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, void *kt) {
    if (t == QSI_Q4_0)
        turn(QSI_Q4_0, n, d, k, ldk, kt);
    else
        turn(QSI_Q8_0, n, d, k, ldk, kt);
}

/* ---- scores ---- */

/* Dots of rm rows with words of a block's bytes at 16 rv positions. */
#define QK_DOTS(rm, rv, words, ASK)                                                                  \
    _Pragma("GCC unroll 6") for (int r = 0; r < (rm); r++)                                           \
        _Pragma("GCC unroll 4") for (int v = 0; v < (rv); v++) c[r][v] = alli(q[r * ldq].z);         \
    _Pragma("GCC unroll 1") for (int64_t w = 0; w < (words); w++, kt += 4 * TILE) {                  \
        vi x[4];                                                                                     \
        ASK;                                                                                         \
        _Pragma("GCC unroll 4") for (int v = 0; v < (rv); v++)                                       \
            x[v] = ixor(_mm512_loadu_si512(kt + v * 64), flip);                                      \
        _Pragma("GCC unroll 6") for (int r = 0; r < (rm); r++) {                                     \
            vi a = alli(word((const char *)q[r * ldq].qs + 4 * w));                                  \
            _Pragma("GCC unroll 4") for (int v = 0; v < (rv); v++) c[r][v] = dot4(c[r][v], x[v], a); \
        }                                                                                            \
    }

QSI_INLINE int64_t words_of(int64_t left) { return left >= 32 ? 8 : (left + 3) / 4; }

/* The same over words of nibbles, of eight elements. */
#define QK_NIBBLES(rm, rv, words, ASK)                                                               \
    _Pragma("GCC unroll 6") for (int r = 0; r < (rm); r++)                                           \
        _Pragma("GCC unroll 4") for (int v = 0; v < (rv); v++) c[r][v] = alli(q[r * ldq].z / 16);    \
    _Pragma("GCC unroll 1") for (int64_t w = 0; w < (words); w++, kt += 4 * TILE) {                  \
        ASK;                                                                                         \
        _Pragma("GCC unroll 4") for (int v = 0; v < (rv); v++) {                                     \
            vi x = _mm512_loadu_si512(kt + v * 64), lo = nibbles(x, 0), hi = nibbles(x, 1);          \
            _Pragma("GCC unroll 6") for (int r = 0; r < (rm); r++) {                                 \
                const char *a = (const char *)q[r * ldq].qs + 8 * w;                                 \
                c[r][v] = dot4(c[r][v], lo, alli(word(a)));                                          \
                c[r][v] = dot4(c[r][v], hi, alli(word(a + 4)));                                      \
            }                                                                                        \
        }                                                                                            \
    }

QSI_INLINE int64_t eights_of(int64_t left) { return left >= 32 ? 4 : (left + 7) / 8; }

/* rm rows against rv vectors of positions. */
QSI_INLINE void qk_block(qsi_type t, int rm, int rv, int64_t d, const qsi_act8 *q, int64_t ldq,
                         const char *kt, const uint16_t *scale, float *s, int64_t lds,
                         const char *pf, int64_t step) {
    const vi flip = alli((int32_t)0x80808080u);
    for (int64_t b = 0; 32 * b < d; b++, q++, scale += TILE) {
        vi c[ROWS][4];
        if (t == QSI_Q8_0) {
            QK_DOTS(rm, rv, words_of(d - 32 * b), {
                __builtin_prefetch(pf, 0, 2);
                __builtin_prefetch(pf + 64, 0, 2);
                pf += step;
            })
        } else {
            QK_NIBBLES(rm, rv, eights_of(d - 32 * b), {
                __builtin_prefetch(pf, 0, 2);
                __builtin_prefetch(pf + 64, 0, 2);
                pf += step;
            })
        }
#pragma GCC unroll 4
        for (int v = 0; v < rv; v++) {
            vf k = ld_f16(0xffff, scale + v * W);
#pragma GCC unroll 6
            for (int r = 0; r < rm; r++) {
                float *to = s + r * lds + v * W;
                stu(to, vfma(vmul(all(q[r * ldq].d), k), to_float(c[r][v]), b ? ldu(to) : zero()));
            }
        }
    }
}

enum { SOME = 8 }; /* blocks whose scales are read at once */

/* One row, from memory. The tile is read from front to back, scales first: where a block's scales
 * are read after its bytes, the CPU's own prefetcher gives up (13 GB/s instead of 33). */
QSI_INLINE void qk_one(qsi_type t, int64_t d, const qsi_act8 *q, const char *kt,
                       const uint16_t *scale, float *s) {
    const vi flip = alli((int32_t)0x80808080u);
    const int64_t ldq = 0;
    vf sum[4] = {zero(), zero(), zero(), zero()};
    for (; d > 0; d -= 32 * SOME, scale += SOME * TILE) {
        float k[SOME][TILE];
        int64_t blocks = d < 32 * SOME ? (d + 31) / 32 : SOME;
        for (int64_t b = 0; b < blocks; b++)
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++)
                stu(k[b] + v * W, vmul(all(q[b].d), ld_f16(0xffff, scale + b * TILE + v * W)));
        for (int64_t b = 0; b < blocks; b++, q++) {
            vi c[1][4];
            if (t == QSI_Q8_0) {
                QK_DOTS(1, 4, words_of(d - 32 * b), )
            } else {
                QK_NIBBLES(1, 4, eights_of(d - 32 * b), )
            }
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) sum[v] = vfma(ldu(k[b] + v * W), to_float(c[0][v]), sum[v]);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) stu(s + v * W, sum[v]);
}

QSI_INLINE void qk(qsi_type t, int rm, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq,
                   const char *kt, const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
    const char *pf = (const char *)q;
    int64_t step = 0;
    if (ahead && ahead->at < ahead->end) {
        pf = ahead->at;
        step = LINES * 64;
        ahead->at += (t == QSI_Q4_0 ? (d + 7) / 8 : (d + 3) / 4) * step;
    }
    if (n <= 2 * W)
        qk_block(t, rm, 2, d, q, ldq, kt, scale, s, lds, pf, step);
    else
        qk_block(t, rm, 4, d, q, ldq, kt, scale, s, lds, pf, step);
}

QSI_INLINE void qk_all(qsi_type t, int64_t m, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq,
                       const void *kt, const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
#define CASE(R) case R: qk(t, R, n, d, q, ldq, kt, scale, s, lds, ahead); break;
    for (; m > 0; m -= ROWS, q += ROWS * ldq, s += ROWS * lds)
        switch (m) {
        case 1: qk_one(t, d, q, kt, scale, s); break;
#if ROWS > 2
            CASE(2) CASE(3) CASE(4) CASE(5)
#endif
        default: qk(t, ROWS, n, d, q, ldq, kt, scale, s, lds, ahead); break;
        }
#undef CASE
}

static void attn8_qk(qsi_type t, int64_t m, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq,
                     const void *kt, const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
    if (t == QSI_Q4_0)
        qk_all(QSI_Q4_0, m, n, d, q, ldq, kt, scale, s, lds, ahead);
    else
        qk_all(QSI_Q8_0, m, n, d, q, ldq, kt, scale, s, lds, ahead);
}

/* ---- values ---- */

/* A row's weights for a block of columns: bytes of numbers of 16 bits, their sum, and what one of
 * them is worth. */
typedef struct weights {
    uint8_t high[TILE], low[TILE];
    int32_t sum;
    float unit;
} weights;

QSI_INLINE void weigh(qsi_type t, int64_t n, const float *w, const uint16_t *scale, weights *to) {
    vf x[4];
    vi top = alli(0); /* magnitudes compare as integers, and NaN is above all */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vm m = lanes(n - j * W);
        x[j] = vmul(ld(m, w + j * W), ld_f16(m, scale + j * W));
        top = _mm512_max_epu32(top, iand(_mm512_castps_si512(x[j]), alli(0x7fffffff)));
    }
    uint32_t bits = _mm512_reduce_max_epu32(top);
    float most, up = 0.0f;
    memcpy(&most, &bits, 4);
    to->unit = 0.0f;
    if (bits >= 0x7f800000u)
        to->unit = __builtin_nanf("");
    else if (most >= QSI_ATTN_LEAST) {
        to->unit = most / QSI_ATTN_UNITS(t);
        up = QSI_ATTN_UNITS(t) / most;
    }
    vi sum = alli(0);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vi u = _mm512_cvtps_epi32(vmul(x[j], all(up)));
        sum = iadd(sum, u);
        _mm_storeu_si128((__m128i *)(void *)(to->low + j * W), _mm512_cvtepi32_epi8(u));
        vi high = t == QSI_Q4_0 ? sar(iadd(u, alli(128)), 8) : shr(u, 8); /* low bytes have a sign too */
        _mm_storeu_si128((__m128i *)(void *)(to->high + j * W), _mm512_cvtepi32_epi8(high));
    }
    if (t == QSI_Q4_0) to->sum = _mm512_reduce_add_epi32(sum);
}

/* rm rows, rv vectors of columns, `left` of them there; w [rm][rv / 2]. */
QSI_INLINE void pv_block(qsi_type t, bool tail, int rm, int rv, int64_t n, int64_t left,
                         const weights *w, const char *v, int64_t row, float *o, int64_t ldo) {
    const int blocks = rv / 2;
    vi high[VALUE_ROWS][8], low[VALUE_ROWS][8];
    vm m[8];
#pragma GCC unroll 8
    for (int j = 0; j < rv; j++) m[j] = tail ? lanes(left - j * W) : 0xffff;
#pragma GCC unroll 2
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) {
            high[r][j] = alli(0);
            low[r][j] = alli(t == QSI_Q4_0 ? -8 * w[r * blocks + j / 2].sum : 0);
        }
    for (int64_t p = 0; p < n; p += 4, v += row) {
        vi x[8];
        if (t == QSI_Q4_0) {
#pragma GCC unroll 4
            for (int j = 0; j < rv; j += 2) {
                vi both = tail && j * W >= left ? alli(0) : _mm512_loadu_si512(v + j * 32);
                x[j] = nibbles(both, 0);
                x[j + 1] = nibbles(both, 1);
            }
        } else {
#pragma GCC unroll 8
            for (int j = 0; j < rv; j++) x[j] = _mm512_maskz_loadu_epi32(m[j], v + j * 64);
        }
#pragma GCC unroll 2
        for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
            for (int j = 0; j < rv; j++) {
                const weights *wj = w + r * blocks + j / 2;
                vi h = alli(word((const char *)wj->high + p)), l = alli(word((const char *)wj->low + p));
                high[r][j] = t == QSI_Q4_0 ? dot4(high[r][j], x[j], h) : dot4(high[r][j], h, x[j]);
                low[r][j] = t == QSI_Q4_0 ? dot4(low[r][j], x[j], l) : dot4(low[r][j], l, x[j]);
            }
    }
#pragma GCC unroll 2
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) {
            float *to = o + r * ldo + j * W;
            vi sum = iadd(shl(high[r][j], 8), low[r][j]);
            st(m[j], to, vfma(all(w[r * blocks + j / 2].unit), to_float(sum), ld(m[j], to)));
        }
}

/* All columns of rm rows, 128 at a time of one row, 64 of two. */
QSI_INLINE void pv(qsi_type t, int rm, int64_t n, int64_t d, const float *w, int64_t ldw,
                   const char *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    const int64_t size = t == QSI_Q4_0 ? 2 : 4, row = size * ldv; /* bytes of four positions */
    const int blocks = rm == 1 ? 4 : 2;
    weights u[4] = {0};
    for (int64_t c = 0; c < d; c += 32 * blocks) {
        int64_t left = d - c;
        for (int r = 0; r < rm; r++)
            for (int b = 0; b < blocks && 32 * b < left; b++)
                weigh(t, n, w + r * ldw, scale + (c / 32 + b) * TILE, &u[r * blocks + b]);
        const char *at = v + size * c;
        if (left >= 32 * blocks)
            pv_block(t, false, rm, 2 * blocks, n, left, u, at, row, o + c, ldo);
        else if (rm == 1 && left == 64)
            pv_block(t, false, rm, 4, n, left, u, at, row, o + c, ldo);
        else
            pv_block(t, true, rm, 2 * blocks, n, left, u, at, row, o + c, ldo);
    }
}

QSI_INLINE void pv_all(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                       const char *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    for (; m >= VALUE_ROWS; m -= VALUE_ROWS, w += VALUE_ROWS * ldw, o += VALUE_ROWS * ldo)
        pv(t, VALUE_ROWS, n, d, w, ldw, v, ldv, scale, o, ldo);
    if (m > 0) pv(t, 1, n, d, w, ldw, v, ldv, scale, o, ldo);
}

static void attn8_pv(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                     const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    if (t == QSI_Q4_0)
        pv_all(QSI_Q4_0, m, n, d, w, ldw, v, ldv, scale, o, ldo);
    else
        pv_all(QSI_Q8_0, m, n, d, w, ldw, v, ldv, scale, o, ldo);
}

void qsi_kern_fill_vnni_attn(qsi_kern *t) {
    t->bytes_native = true;
    t->attn8_turn = attn8_turn;
    t->attn8_qk = attn8_qk;
    t->attn8_pv = attn8_pv;
}
