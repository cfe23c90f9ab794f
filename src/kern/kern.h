/* Numeric kernels: contracts and the table. Raw pointers; no tensors, no malloc, no threads.
 *
 * Levels: ref/ is the scalar truth; x86/ overlays it upward (avx2, avx512, vnni, bf16, amx;
 * avxvnni lies over avx2 and under nothing). A table for a level is complete: what a level does
 * not speed up is inherited.
 *
 * Order of summation. For every product the order along K is fixed by the level alone; it depends
 * on neither m, n, the panel range, nor neighbours: result element (i, j) has the same bits for any
 * m (GEMV and GEMM are instances of one body). Between levels results may differ by rounding.
 *
 * Matrix products: C[m, n] = A[m, k] * B[k, n], B packed before into panels of `nr` columns. Panel
 * p holds columns [p*nr, min(n, (p+1)*nr)), missing columns are zero. For y = x Wt with W [n, k]
 * row-major: column j of B is row j of W.
 *   QSI_MM_F32   A float,     B float,              sum in float (fma)
 *   QSI_MM_F16   A float,     B half, widened       sum in float (fma)
 *   QSI_MM_BF16  A bfloat16,  B bfloat16, k padded to even with zeros; sum in float
 *   QSI_MM_Q*    A int8 with scales, B blocks of the type: sums of a block in integers, then float
 *   QSI_MM_X_*   A float,     B the same blocks, widened; sum in float (fma): --exact
 *
 * Quantised types. A block holds groups of values d * sc[g] * q - m * mn[g] (quant.h; types of one
 * scale: sc = 1; types of no minimum: m = 0; Q4_1 and Q5_1: mn = 1, m the stored minimum's
 * negative). With x the act8 or actk block that meets it, exact integers
 *     s = sum of sc[g] * dot of group g,  t = sum of mn[g] * sum of x in group g,
 * a block adds s * (x.d * d) and then, in types with a minimum, -t * (x.d * m) to the one float of
 * its element, each by one fused multiply-add; blocks ascending. So the bits of a quantised product
 * are the same at every level (but for elements whose x.d * d is no normal float).
 * A rows are lda_bytes apart. For BF16 and odd k the element A[i][k] must be readable and zero.
 * No alignment is required of A and C; packed panels are 64-byte aligned.
 */
#ifndef QSI_KERN_H
#define QSI_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/quant.h"
#include "sys/cpu.h"

#define QSI_ATTN_TILE 64
#define QSI_ATTN_LEAST 1e-30f
#define QSI_ATTN_UNITS(type) ((type) == QSI_Q4_0 ? 32639.0f : 65535.0f)

/* Quantised kinds stand in this order behind the float ones, then the same for float
 * activations. */
#define QSI_MM_QUANT_LIST(X)                                                                       \
    X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(IQ4_NL) X(MXFP4) X(Q2_K) X(Q3_K) X(Q4_K)       \
    X(Q5_K) X(Q6_K) X(IQ4_XS)

typedef enum qsi_mm {
    QSI_MM_F32,
    QSI_MM_F16,
    QSI_MM_BF16,
#define QSI_MM_ENUM(name) QSI_MM_##name,
    QSI_MM_QUANT_LIST(QSI_MM_ENUM)
#undef QSI_MM_ENUM
#define QSI_MM_ENUM(name) QSI_MM_X_##name,
    QSI_MM_QUANT_LIST(QSI_MM_ENUM)
#undef QSI_MM_ENUM
    QSI_MM_COUNT
} qsi_mm;
#define QSI_MM_QUANT QSI_MM_Q8_0              /* the first quantised kind */
#define QSI_MM_N_QUANT (QSI_MM_X_Q8_0 - QSI_MM_Q8_0)

/* Activations that meet blocks of 32: one scale for 32 values, value = qs * d, d = max|x|/127,
 * rounded half away from zero, and z = -128 times the sum of the 32 quantised values: what kernels
 * take off that shift weights to unsigned by 128. A block with NaN or infinity has that as d, one
 * with all values below 1.5e-36 is zero. */
typedef struct qsi_act8 {
    float d;
    int32_t z;
    int8_t qs[32];
} qsi_act8;
_Static_assert(sizeof(qsi_act8) == 40, "act8 is 40 bytes a block");

/* Activations that meet blocks of 256: the same with one scale for 256 values. s32 and s16 are sums
 * of 32 and of 16 values, z16 -128 times those of 16. Sums stand in pairs as kernels use them: of
 * every four, in the order 0 2 1 3. */
typedef struct qsi_actk {
    int8_t qs[256];
    int32_t z16[16]; /* ascending */
    int16_t s32[8], s16[16];
    float d;
    int32_t pad[3];
} qsi_actk;
_Static_assert(sizeof(qsi_actk) == 384, "actk is 384 bytes a block");

typedef struct qsi_kern_mm {
    int nr; /* columns a panel; fixed by the level */
    /* Bytes of one packed panel for this k (a multiple of 64). */
    size_t (*panel_bytes)(int64_t k);
    /* Packs panels [p0, p1). Source element for (column j, position kk):
     *   F32/F16/BF16: the element at src + (j*ld_col + kk*ld_k) elements of the source type
     *     (F32 source: float; F16: half; BF16: bfloat16);
     *   quantised: blocks in rows: row j starts at src + j*ld_col BYTES; ld_k ignored, k whole
     * blocks. n is the number of real columns. dst points at panel 0. */
    void (*pack)(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k, int64_t p0,
                 int64_t p1, void *dst);
    /* C[0..m) x columns of panels [p0, p1) (+)= A * B. packed points at panel 0, c at C[0][0].
     * accumulate: add to C (C + sum, one addition at the end); else overwrite. */
    void (*run)(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate);
} qsi_kern_mm;

/* Memory that will be read next: products that take it ask for [at, end), line by line as they go,
 * and move at. */
typedef struct qsi_ahead {
    const char *at, *end;
} qsi_ahead;

typedef struct qsi_kern {
    qsi_isa isa;
    qsi_kern_mm mm[QSI_MM_COUNT];
    /* True when BF16 products are faster than F32 ones (the CPU has the instruction). */
    bool bf16_native;
    /* True when attention over bytes is faster in integers (attn8_*) than in floats. */
    bool bytes_native;

    /* ---- conversions, n values ---- */
    void (*f32_to_bf16)(const float *x, uint16_t *y, int64_t n);
    void (*bf16_to_f32)(const uint16_t *x, float *y, int64_t n);
    void (*f32_to_f16)(const float *x, uint16_t *y, int64_t n);
    void (*f16_to_f32)(const uint16_t *x, float *y, int64_t n);
    void (*f32_to_act8)(const float *x, qsi_act8 *y, int64_t n); /* n % 32 == 0 */
    void (*f32_to_actk)(const float *x, qsi_actk *y, int64_t n); /* n % 256 == 0 */
    /* y[c][r] = bf16(x[r][c]), rows x cols; ld in elements. */
    void (*f32_to_bf16_t)(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy);

    /* ---- vectors, n values ---- */
    float (*dot)(const float *x, const float *y, int64_t n);
    double (*sum_sq)(const float *x, int64_t n); /* accumulated in double */
    void (*axpy)(float a, const float *x, float *y, int64_t n);  /* y += a x */
    void (*scale)(float a, float *x, int64_t n);
    void (*add)(const float *x, float *y, int64_t n);            /* y += x */
    float (*max)(const float *x, int64_t n);

    /* ---- layers ---- */
    /* y = w * x * r, r = 1/sqrt(mean(x^2) + eps) (RMSNorm, Zhang and Sennrich 2019); returns r.
     * y may be x. */
    float (*rmsnorm)(const float *x, const float *w, float *y, int64_t n, float eps);
    /* dx += of rmsnorm, dw += dy*x*r; r as returned by the forward. */
    void (*rmsnorm_bwd)(const float *dy, const float *x, const float *w, float r, float *dx,
                        float *dw, int64_t n);
    /* y = silu(g) * u */
    void (*swiglu)(const float *g, const float *u, float *y, int64_t n);
    /* dg, du from dy; reuses g and u. dg may be g, du may be u. */
    void (*swiglu_bwd)(const float *dy, const float *g, const float *u, float *dg, float *du,
                       int64_t n);
    /* In place: x <- exp(x*scale - max) and returns the sum (softmax without the division);
     * *out_max receives max(x*scale). */
    float (*softmax_exp)(float *x, int64_t n, float scale, float *out_max);
    /* Rotates pairs (x[2i], x[2i+1]) of one head by angle i: cs holds cos,sin interleaved
     * [n/2][2]. sign +1 forward, -1 backward. n even. */
    void (*rope)(float *x, const float *cs, int64_t n, float sign);
    /* In place: x <- H x / sqrt(n), n a power of two; H[i][j] is -1 where i & j has an odd number
     * of bits, else 1 (Sylvester). Orthogonal, its own inverse. Every level gives the same bits. */
    void (*hadamard)(float *x, int64_t n);
    /* Cross-entropy of one row in place: logits x[n], target t: returns -log softmax(x)[t]; when
     * grad_scale != 0, x becomes grad_scale * (softmax(x) - onehot(t)). */
    double (*cross_entropy)(float *x, int64_t n, int32_t t, float grad_scale);

    /* ---- attention over a run of positions of one head ---- */
    /* s[p] = q . k[p], p in [0, n_pos); k rows are ld_k elements apart, of f32 or f16 (kf16). */
    void (*attn_scores)(const float *q, const void *k, bool kf16, int64_t ld_k, int64_t n_pos,
                        int64_t d, float *s);
    /* o += sum_p w[p] * v[p] in order of p. */
    void (*attn_values)(const float *w, const void *v, bool vf16, int64_t ld_v, int64_t n_pos,
                        int64_t d, float *o);

    /* The same over tiles of QSI_ATTN_TILE positions of one head, for m rows at once. Types F32,
     * F16, BF16, Q8_0 and Q4_0. Keys are turned, [d][64], values [64][ldv]. A BF16 tile is words:
     * two neighbouring rows' elements of a column side by side, [rows / 2][columns][2]. A Q8_0
     * tile is int8, four neighbouring rows' bytes of a column side by side, [rows /
     * 4][columns][4], and, apart, a scale (half) for every block of 32 along d and every position,
     * [ceil(d/32)][64]; else scale is NULL. A Q4_0 tile is such bytes of two nibbles, element + 8,
     * the low one first: of turned keys [ceil(d/8)][64][4], of a position the elements 8j to 8j +
     * 3 in the low and 8j + 4 to 8j + 7 in the high ones; of rows [rows / 4][ldv / 32][16][4], ldv
     * whole blocks, column c of a block in the low, c + 16 in the high one: no byte is of two
     * positions. Sums run over their index ascending, a fused multiply-add a term (ref: rounded
     * twice), whatever m and n are: a row's bits are its own. */
    /* s[i*lds + p] = q_i . k_p, p < n; s is written (with anything) up to n rounded up to 64, kt
     * and scale read as far. With scales: sums of 32 as they come, times their scale, added up. */
    void (*attn_qk)(qsi_type t, int64_t m, int64_t n, int64_t d, const float *q, int64_t ldq,
                    const void *kt, const uint16_t *scale, float *s, int64_t lds);
    /* o[i*ldo + c] += sum over p < n of w[i*ldw + p] v[p*ldv + c], c < d; with scales the weight is
     * multiplied by the scale first. */
    void (*attn_pv)(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                    const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo);
    /* kt[i*64 + p] = element i of position p of natural keys [n][ldk] as float (with scales: the
     * integer); zero for p >= n. */
    void (*attn_turn)(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, float *kt);

    /* The same in bfloat16, worth it where bf16_native. Operands are rounded to bfloat16, products
     * are exact, sums are float; terms go in pairs (0, 1), (2, 3),
     * ..., of each the second before the first, an addition a term. Denormals may count as zero. A
     * row's bits are its own, whatever m and n are and whether its tile is of words or the cache's
     * own. Words: two rows' elements of a column side by side, [rows / 2][columns][2]; a missing
     * row of keys is zero, of values anything. A BF16 cache's tiles are words. */
    /* y[(r / 2) * ldy + c] = word of rows r, r + 1 of x [n][ldx], c < d (written up to d rounded up
     * to 16). t: F32, F16, or Q8_0, Q4_0 with scales as above, multiplied in (scale NULL else). */
    void (*attn16_pair)(qsi_type t, int64_t n, int64_t d, const void *x, int64_t ldx,
                        const uint16_t *scale, uint16_t *y, int64_t ldy);
    /* From natural keys [n][ldk] of F32, F16 or BF16 (words): turned words kt [ceil(d/2)][64][2],
     * written for p < n rounded up to 16, and words of their first dv elements as values into v
     * (NULL: none) [n / 2][ldv][2]; ldv >= dv rounded up to 16. */
    void (*attn16_turn)(qsi_type t, int64_t n, int64_t d, int64_t dv, const void *k, int64_t ldk,
                        uint16_t *kt, uint16_t *v, int64_t ldv);
    /* attn_qk and attn_pv. t: BF16 for words (ldv: words of a row), or F16, its cache's tile.
     * q: bfloat16, one zero more where d is odd. ahead: NULL, or what to fetch meanwhile (words
     * only). */
    void (*attn16_qk)(qsi_type t, int64_t m, int64_t n, int64_t d, const uint16_t *q, int64_t ldq,
                      const void *kt, float *s, int64_t lds, qsi_ahead *ahead);
    void (*attn16_pv)(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                      const void *v, int64_t ldv, float *o, int64_t ldo, qsi_ahead *ahead);

    /* The same over bytes in integers, worth it where bytes_native. Every level gives the same
     * bits. */
    /* attn_qk of a tile with scales. q: blocks of 32 along d, ldq of them a row, zero behind d.
     * With the exact integer dot of a block's bytes, s += (q.d * scale) * dot, fused, blocks
     * ascending. */
    void (*attn8_qk)(qsi_type t, int64_t m, int64_t n, int64_t d, const qsi_act8 *q, int64_t ldq,
                     const void *kt, const uint16_t *scale, float *s, int64_t lds,
                     qsi_ahead *ahead);
    /* attn_pv of a tile with scales, weights w >= 0. For every row and block of 32 columns: x[p] =
     * w[p] * scale[p], u[p] = x[p] * (units / top) to the nearest integer, top the largest |x|;
     * o[c] += top / units times the exact integer sum of u[p] v[p][c], fused. Scales of Q8_0 are
     * not negative, units 65535; those of Q4_0 may be, units 32639 (two signed bytes). top below
     * QSI_ATTN_LEAST counts as zero; where it is not finite, the block's columns become NaN. */
    void (*attn8_pv)(qsi_type t, int64_t m, int64_t n, int64_t d, const float *w, int64_t ldw,
                     const void *v, int64_t ldv, const uint16_t *scale, float *o, int64_t ldo);
    /* Natural keys of Q8_0 or Q4_0 as turned bytes of Q8_0: [ceil(d/4)][64][4], written for p < n
     * rounded up to 16; bytes behind d are zero. n counts as rounded up to 4. */
    void (*attn8_turn)(qsi_type t, int64_t n, int64_t d, const void *k, int64_t ldk, void *kt);

    /* ---- optimizer ---- */
    /* AdamW (Loshchilov and Hutter 2019), one element: g *= clip; m = b1 m + (1-b1) g;
     * v = b2 v + (1-b2) g^2; p -= lr * (m/c1 / (sqrt(v/c2) + eps) + decay * p). c1 = 1-b1^t,
     * c2 = 1-b2^t are given by the caller. */
    void (*adamw)(float *p, const float *g, float *m, float *v, int64_t n, float clip, float lr,
                  float b1, float b2, float c1, float c2, float eps, float decay);

    /* ---- what the machine can do at this level (op/probe) ----
     * Each runs `rounds` rounds of independent multiply-adds of the level's widest instruction in
     * registers, puts something that depends on them into *out and returns the operations done (a
     * multiply-add is two). bf16 and int8 are those that the level's products can use: a level
     * without the instruction does them by others. */
    int64_t (*peak_f32)(int64_t rounds, float *out);
    int64_t (*peak_bf16)(int64_t rounds, float *out);
    int64_t (*peak_int8)(int64_t rounds, float *out);
    /* Reads n bytes once (n % 256 == 0, p 64-byte aligned) and returns something of them. */
    uint64_t (*read_all)(const void *p, size_t n);
} qsi_kern;

/* The table of a level that the CPU has (QS_CHECK otherwise). Never NULL; static. A level whose
 * self-check failed is a copy of the one below, isa included. */
const qsi_kern *qsi_kern_get(qsi_isa isa);
/* The product that failed the self-check of a level ("Q4_K"), NULL: none did. */
const char *qsi_kern_refused(qsi_isa isa);

#endif
