/* Attention over bytes with AVX-512 VNNI: four byte products and their sum in one instruction; kern.h
 * states layouts and what is computed.
 *
 * The instruction multiplies bytes without sign by bytes with sign. Of scores, keys are shifted to
 * unsigned by 128 and the sum starts where that ends at the dot (qsi_act8.z). Of values, weights have no
 * sign anyway; their two bytes run through a sum each, put together when the tile ends. */
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

/* 16 columns of four groups of four positions: bytes of 4 columns a position, 16 positions a vector. */
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

static void attn8_turn(int64_t n, int64_t d, const void *k, int64_t ldk, void *kt) {
    const char *from = k;
    char *to = kt;
    for (int64_t p = 0; p < n; p += 16)
        for (int64_t i = 0; i < d; i += 16) {
            vi x[4], y[4];
            for (int g = 0; g < 4; g++) {
                vm m = p + 4 * g < n ? lanes(d - i) : 0;
                x[g] = _mm512_maskz_loadu_epi32(m, from + ((p / 4 + g) * ldk + i) * 4);
            }
            turn_square(x, y);
            for (int j = 0; j < 4; j++)
                if (i + 4 * j < d) _mm512_storeu_si512(to + ((i / 4 + j) * TILE + p) * 4, y[j]);
        }
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

/* rm rows against rv vectors of positions. */
QSI_INLINE void qk_block(int rm, int rv, int64_t d, const qsi_act8 *q, int64_t ldq, const char *kt,
                         const uint16_t *scale, float *s, int64_t lds, const char *pf, int64_t step) {
    const vi flip = alli((int32_t)0x80808080u);
    for (int64_t b = 0; 32 * b < d; b++, q++, scale += TILE) {
        vi c[ROWS][4];
        QK_DOTS(rm, rv, words_of(d - 32 * b), {
            __builtin_prefetch(pf, 0, 2);
            __builtin_prefetch(pf + 64, 0, 2);
            pf += step;
        })
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

/* One row, from memory. The tile is read from front to back, scales first: where a block's scales are
 * read after its bytes, the CPU's own prefetcher gives up (13 GB/s instead of 33). */
QSI_INLINE void qk_one(int64_t d, const qsi_act8 *q, const char *kt, const uint16_t *scale, float *s) {
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
            QK_DOTS(1, 4, words_of(d - 32 * b), )
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++) sum[v] = vfma(ldu(k[b] + v * W), to_float(c[0][v]), sum[v]);
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) stu(s + v * W, sum[v]);
}

QSI_INLINE void qk(int rm, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq, const char *kt,
                   const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
    const char *pf = (const char *)q;
    int64_t step = 0;
    if (ahead && ahead->at < ahead->end) {
        pf = ahead->at;
        step = LINES * 64;
        ahead->at += (d + 3) / 4 * step;
    }
    if (n <= 2 * W)
        qk_block(rm, 2, d, q, ldq, kt, scale, s, lds, pf, step);
    else
        qk_block(rm, 4, d, q, ldq, kt, scale, s, lds, pf, step);
}

static void attn8_qk(int64_t m, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq, const void *kt,
                     const uint16_t *scale, float *s, int64_t lds, qsi_ahead *ahead) {
#define CASE(R) case R: qk(R, n, d, q, ldq, kt, scale, s, lds, ahead); break;
    for (; m > 0; m -= ROWS, q += ROWS * ldq, s += ROWS * lds)
        switch (m) {
        case 1: qk_one(d, q, kt, scale, s); break;
#if ROWS > 2
            CASE(2) CASE(3) CASE(4) CASE(5)
#endif
        default: qk(ROWS, n, d, q, ldq, kt, scale, s, lds, ahead); break;
        }
#undef CASE
}

/* ---- values ---- */

/* A row's weights for a block of columns: bytes of numbers of 16 bits, and what one of them is worth. */
typedef struct weights {
    uint8_t high[TILE], low[TILE];
    float unit;
} weights;

QSI_INLINE void weigh(int64_t n, const float *w, const uint16_t *scale, weights *to) {
    vf x[4];
    vi top = alli(0); /* floats without sign compare as integers, and NaN is above all */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vm m = lanes(n - j * W);
        x[j] = vmul(ld(m, w + j * W), ld_f16(m, scale + j * W));
        top = _mm512_max_epu32(top, _mm512_castps_si512(x[j]));
    }
    uint32_t bits = _mm512_reduce_max_epu32(top);
    float most, up = 0.0f;
    memcpy(&most, &bits, 4);
    to->unit = 0.0f;
    if (bits >= 0x7f800000u)
        to->unit = __builtin_nanf("");
    else if (most >= QSI_ATTN_LEAST) {
        to->unit = most / 65535.0f;
        up = 65535.0f / most;
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        vi u = _mm512_cvtps_epi32(vmul(x[j], all(up)));
        _mm_storeu_si128((__m128i *)(void *)(to->low + j * W), _mm512_cvtepi32_epi8(u));
        _mm_storeu_si128((__m128i *)(void *)(to->high + j * W), _mm512_cvtepi32_epi8(shr(u, 8)));
    }
}

/* rm rows, rv vectors of columns, `left` of them there; w [rm][rv / 2]. */
QSI_INLINE void pv_block(bool tail, int rm, int rv, int64_t n, int64_t left, const weights *w,
                         const char *v, int64_t ldv, float *o, int64_t ldo) {
    const int blocks = rv / 2;
    vi high[VALUE_ROWS][8], low[VALUE_ROWS][8];
    vm m[8];
#pragma GCC unroll 8
    for (int j = 0; j < rv; j++) m[j] = tail ? lanes(left - j * W) : 0xffff;
#pragma GCC unroll 2
    for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) high[r][j] = low[r][j] = alli(0);
    for (int64_t p = 0; p < n; p += 4, v += 4 * ldv) {
        vi x[8];
#pragma GCC unroll 8
        for (int j = 0; j < rv; j++) x[j] = _mm512_maskz_loadu_epi32(m[j], v + j * 64);
#pragma GCC unroll 2
        for (int r = 0; r < rm; r++)
#pragma GCC unroll 8
            for (int j = 0; j < rv; j++) {
                const weights *wj = w + r * blocks + j / 2;
                high[r][j] = dot4(high[r][j], alli(word((const char *)wj->high + p)), x[j]);
                low[r][j] = dot4(low[r][j], alli(word((const char *)wj->low + p)), x[j]);
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
QSI_INLINE void pv(int rm, int64_t n, int64_t d, const float *w, int64_t ldw, const char *v,
                   int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    const int blocks = rm == 1 ? 4 : 2;
    weights u[4];
    for (int64_t c = 0; c < d; c += 32 * blocks) {
        int64_t left = d - c;
        for (int r = 0; r < rm; r++)
            for (int b = 0; b < blocks && 32 * b < left; b++)
                weigh(n, w + r * ldw, scale + (c / 32 + b) * TILE, &u[r * blocks + b]);
        const char *at = v + 4 * c;
        if (left >= 32 * blocks)
            pv_block(false, rm, 2 * blocks, n, left, u, at, ldv, o + c, ldo);
        else if (rm == 1 && left == 64)
            pv_block(false, rm, 4, n, left, u, at, ldv, o + c, ldo);
        else
            pv_block(true, rm, 2 * blocks, n, left, u, at, ldv, o + c, ldo);
    }
}

static void attn8_pv(int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw, const void *v,
                     int64_t ldv, const uint16_t *scale, float *o, int64_t ldo) {
    for (; m >= VALUE_ROWS; m -= VALUE_ROWS, w += VALUE_ROWS * ldw, o += VALUE_ROWS * ldo)
        pv(VALUE_ROWS, n, d, w, ldw, v, ldv, scale, o, ldo);
    if (m > 0) pv(1, n, d, w, ldw, v, ldv, scale, o, ldo);
}

void qsi_kern_fill_vnni_attn(qsi_kern *t) {
    t->bytes_native = true;
    t->attn8_turn = attn8_turn;
    t->attn8_qk = attn8_qk;
    t->attn8_pv = attn8_pv;
}
