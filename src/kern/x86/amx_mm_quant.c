/* Products of many rows with quantised weights, AMX: tiles of 16 rows of A by 16 columns. Panels,
 * buffer and unpacking are those of mm_quant.h; few rows, and float activations, take the level
 * below. A row of the buffer's codes, four bytes of each of 16 columns, is a row of a tile of B.
 *
 * Once a buffer is unpacked its codes are turned into signed bytes:
 *   blocks of 32   the code less its shift; the dot of a block is one tile instruction.
 *   blocks of 256  the code less its shift, times the scale of its group: an integer of up to 13 bits,
 *                  64 * high + low. So all 256 values run through the same two sums, and no scale is
 *                  left to apply between them.
 * Both give the integers that kern.h states, and the floats are those of tile_32 and tile_k in
 * mm_quant.h: the bits are the same. */
#include "kern/x86/amx_tile.h"

#define BIASED 1
#define FEW 4
#define MR 6
#define NP 2
#define dot4(s, w, x) (s)  /* not used here */
#define dot4s(s, w, x) (s)
#define dot2(s, w, x) _mm512_dpwssd_epi32(s, w, x)

#include "kern/x86/mm_quant.h"

#define MANY 256 /* rows that share an unpacked buffer: 32 KiB of sums */
#define LOW_BITS 6

typedef void run_fn(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, size_t lda,
                    const void *packed, float *c, int64_t ldc, bool add);
static run_fn *below[QSI_MM_N_QUANT]; /* the level's that this one is laid over; set before use */

/* The high parts; low parts take the place of the codes. */
typedef struct parts {
    _Alignas(64) char high[64][NP][VB];
} parts;

/* Sums of tiles: [low and high, or blocks][panel][row][column]. */
typedef struct sums {
    _Alignas(64) int32_t v[BLOCKS][NP][TILE_ROWS][16];
} sums;

/* ---- codes ---- */

/* Bytes less `less`, times the 16-bit scales, of the even or the odd bytes. */
QSI_INLINE vi scaled(vi codes, const bool odd, vi less, vi scale) {
    vi c = iand(odd ? shr(codes, 8) : codes, alli(0x00ff00ff));
    return _mm512_mullo_epi16(_mm512_sub_epi16(c, less), scale);
}

/* The low bytes of 16-bit words, side by side. */
QSI_INLINE vi joined(vi even, vi odd) {
    return ior(iand(even, alli(0x00ff00ff)), _mm512_slli_epi16(odd, 8));
}

QSI_INLINE void sign_k(const int t, buffer *w, parts *o, const int p) {
    const vi less = _mm512_set1_epi16(shift_of(t) < 0 ? 0 : (int16_t)(1 << shift_of(t)));
    const vi low = _mm512_set1_epi16((1 << LOW_BITS) - 1);
    for (int g = 0; g < 64 / group_steps(t); g++) {
        vi s = ldi(w->sc[g][p]), scale = ior(iand(s, alli(0xffff)), shl(s, 16));
        for (int i = g * group_steps(t); i < (g + 1) * group_steps(t); i++) {
            vi c = ldi(w->codes[i][p]);
            vi even = scaled(c, false, less, scale), odd = scaled(c, true, less, scale);
            sti(w->codes[i][p], joined(iand(even, low), iand(odd, low)));
            sti(o->high[i][p], joined(_mm512_srai_epi16(even, LOW_BITS),
                                      _mm512_srai_epi16(odd, LOW_BITS)));
        }
    }
}

QSI_INLINE void sign_32(const int t, buffer *w, int64_t nb, const int p) {
    if (shift_of(t) < 0) return;
    const vi less = _mm512_set1_epi8((char)(1 << shift_of(t)));
    for (int64_t i = 0; i < 8 * nb; i++)
        sti(w->codes[i][p], _mm512_sub_epi8(ldi(w->codes[i][p]), less));
}

/* ---- tiles ---- */

/* Sums of 256 values: 64 a step. */
QSI_INLINE void dots_k(const buffer *w, const parts *o, const char *a, size_t lda, sums *s) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int i = 0; i < 64; i += 16) {
        _tile_loadd(4, a + 4 * i, lda);
        _tile_loadd(5, w->codes[i][0], NP * VB);
        _tile_loadd(6, w->codes[i][1], NP * VB);
        _tile_loadd(7, o->high[i][0], NP * VB);
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 6);
        _tile_loadd(5, o->high[i][1], NP * VB);
        _tile_dpbssd(2, 4, 7);
        _tile_dpbssd(3, 4, 5);
    }
    _tile_stored(0, s->v[0][0], 64);
    _tile_stored(1, s->v[0][1], 64);
    _tile_stored(2, s->v[1][0], 64);
    _tile_stored(3, s->v[1][1], 64);
}

/* Sums of each of nb blocks of 32. */
QSI_INLINE void dots_32(const buffer *w, const char *a, size_t lda, int64_t nb, sums *s) {
    for (int64_t b = 0; b < nb; b++) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(4, a + b * (int64_t)sizeof(qsi_act8) + A8_QS, lda);
        _tile_loadd(5, w->codes[8 * b][0], NP * VB);
        _tile_loadd(6, w->codes[8 * b][1], NP * VB);
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 6);
        _tile_stored(0, s->v[b][0], 64);
        _tile_stored(1, s->v[b][1], 64);
    }
}

QSI_INLINE vi sum_at(const sums *s, int64_t i, int p, int64_t r) {
    return ldi((const char *)s->v[i][p][r]);
}

QSI_INLINE void add_k(const int t, const buffer *w, const sums *s, int64_t rows, const char *a,
                      size_t lda, float *acc) {
    for (int64_t r = 0; r < rows; r++, a += lda) {
        vf ad = bcastf(a + AK_D);
        for (int p = 0; p < NP; p++) {
            char *c = (char *)(acc + (r * NP + p) * W);
            vi sum = iadd(sum_at(s, 0, p, r), shl(sum_at(s, 1, p, r), LOW_BITS));
            vf v = vfma(to_float(sum), vmul(ad, ldf(w->d[0][p])), ldf(c));
            if (has_min(t)) {
                vi low = alli(0);
                for (int i = 0; i < min_pairs(t); i++)
                    low = dot2(low, ldi(w->mn[i][p]), bcast(act_pairs(t, a) + 4 * i));
                v = vfnma(to_float(low), vmul(ad, ldf(w->m[0][p])), v);
            }
            stf(c, v);
        }
    }
}

QSI_INLINE void add_32(const int t, const buffer *w, const sums *s, int64_t nb, int64_t rows,
                       const char *a, size_t lda, float *acc) {
    for (int64_t r = 0; r < rows; r++, a += lda)
        for (int p = 0; p < NP; p++) {
            char *c = (char *)(acc + (r * NP + p) * W);
            vf v = ldf(c);
            for (int64_t b = 0; b < nb; b++) {
                const char *x = a + b * (int64_t)sizeof(qsi_act8);
                vf ad = bcastf(x);
                v = vfma(to_float(sum_at(s, b, p, r)), vmul(ad, ldf(w->d[b][p])), v);
                if (has_min(t))
                    v = vfma(to_float(sar(bcast(x + A8_Z), 7)), vmul(ad, ldf(w->m[b][p])), v);
            }
            stf(c, v);
        }
}

/* ---- all ---- */

/* The shape for rows of A in a tile. */
QSI_INLINE void use_rows(const int t, int64_t rows) {
    shape s = {.palette = 1};
    int64_t words = is_k(t) ? 16 : 8;
    for (int i = 0; i < (is_k(t) ? 4 : 2); i++) shape_set(&s, i, rows, 16);
    shape_set(&s, 4, rows, words);
    for (int i = 5; i < (is_k(t) ? 8 : 7); i++) shape_set(&s, i, words, 16);
    shape_use(&s);
}

/* Prefetches part i of `of` of the bytes that the buffer takes after those of block b of panels
 * [p, p + NP): a part before each tile, which takes longer than they do from memory. */
QSI_INLINE void prefetch_next(const int t, const problem *q, int64_t p, int64_t b, int64_t i,
                              int64_t of) {
    const int64_t per = is_k(t) ? 1 : BLOCKS, nb = q->k / block_len(t);
    const int64_t lines = per * words_of(t) * VB / 64 + (half_at(t) < 0 ? 0 : 1);
    if (b + per < nb)
        b += per;
    else
        b = 0, p += NP;
    for (int j = 0; j < NP && p + j < q->p1; j++) {
        const char *first = from_block(t, q->packed + (size_t)(p + j) * panel_size(t, q->k), b);
        for (int64_t l = lines * i / of; l < lines * (i + 1) / of; l++)
            __builtin_prefetch(first + l * 64);
    }
}

/* Rows [r0, r0 + rows) by panels p and p + 1 (which may be missing). */
QSI_INLINE void run_many(const int t, unpack_fn *open, const problem *q, int64_t r0, int64_t rows,
                         int64_t p) {
    _Alignas(64) float acc[MANY * NP * W];
    buffer w;
    parts high;
    sums s;
    const int per = is_k(t) ? 1 : BLOCKS;
    size_t size = panel_size(t, q->k);
    int64_t nb = q->k / block_len(t), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, shaped = 0;
    memset(acc, 0, (size_t)(rows * NP * W) * sizeof(float));
    for (int64_t b = 0; b < nb; b += per) {
        int64_t n = nb - b < per ? nb - b : per;
        for (int i = 0; i < NP; i++) {
            open(q->packed + (size_t)(p + i < q->p1 ? p + i : p) * size, b, n, &w, i);
            if (is_k(t))
                sign_k(t, &w, &high, i);
            else
                sign_32(t, &w, n, i);
        }
        for (int64_t i = 0; i < tiles; i++) {
            int64_t i0 = rows * i / tiles, nr = rows * (i + 1) / tiles - i0;
            const char *a = act_block(t, q->a + (size_t)(r0 + i0) * q->lda, b);
            float *sum = acc + i0 * NP * W;
            prefetch_next(t, q, p, b, i, tiles);
            if (nr != shaped) use_rows(t, nr);
            shaped = nr;
            fence();
            if (is_k(t)) {
                dots_k(&w, &high, a, q->lda, &s);
                fence();
                add_k(t, &w, &s, nr, a, q->lda, sum);
            } else {
                dots_32(&w, a, q->lda, n, &s);
                fence();
                add_32(t, &w, &s, n, nr, a, q->lda, sum);
            }
        }
    }
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < NP && p + i < q->p1; i++)
            store(q, r0 + r, p + i, ldf((char *)(acc + (r * NP + i) * W)));
}

/* Fewer rows are not worth turning the codes: 12 instructions a vector of them in blocks of 256, where
 * VNNI multiplies a row by one; a guess until a CPU with AMX has measured it. */
QSI_INLINE int64_t least(const int t) { return is_k(t) ? 16 : 8; }

QSI_INLINE void run_amx(const int t, unpack_fn *open, const problem *q) {
    if (q->m < least(t)) {
        below[t - QSI_MM_QUANT](q->m, q->n, q->k, q->p0, q->p1, q->a, q->lda, q->packed, q->c, q->ldc,
                                q->add);
        return;
    }
    int64_t groups = (q->m + MANY - 1) / MANY;
    for (int64_t i = 0; i < groups; i++) {
        int64_t r0 = q->m * i / groups, rows = q->m * (i + 1) / groups - r0;
        for (int64_t p = q->p0; p < q->p1; p += NP) run_many(t, open, q, r0, rows, p);
    }
    shape_drop();
}

#define AMX_FUNCTIONS(name)                                                                        \
    static __attribute__((noinline)) void unpack_##name(const char *panel, int64_t b0, int64_t nb, \
                                                        buffer *w, int p) {                        \
        unpack(QSI_MM_##name, true, panel, b0, nb, w, p);                                          \
    }                                                                                              \
    static void run_##name(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, \
                           size_t lda, const void *packed, float *c, int64_t ldc, bool add) {      \
        run_amx(QSI_MM_##name, unpack_##name, &(problem)PROBLEM);                                  \
    }
QSI_MM_QUANT_LIST(AMX_FUNCTIONS)

#define AMX_FILL(name)                                                                             \
    below[QSI_MM_##name - QSI_MM_QUANT] = t->mm[QSI_MM_##name].run;                                \
    t->mm[QSI_MM_##name].run = run_##name;
void qsi_kern_fill_amx_mm_quant(qsi_kern *t) { QSI_MM_QUANT_LIST(AMX_FILL) }
