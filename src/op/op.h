/* Operations: kernels with shapes, split over the workers of the pool.
 *
 * The pool is entered once a step; every worker runs the same code with a qsi_op of its own. Work
 * is cut into items whose results depend on the item alone; workers take items by ticket
 * (qsi_op_take), and qsi_op_end is the barrier after which the results may be read. So a result
 * depends on neither the number of workers nor who did what.
 *
 * Matrices are row-major float32 [rows, columns] unless said otherwise. Weights are prepared once
 * into an opaque qsi_weight; nobody above knows its layout. Nothing here allocates inside a step.
 * Thread: functions taking a qsi_op are called by all workers of one run, with equal arguments. */
#ifndef QSI_OP_H
#define QSI_OP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "kern/kern.h"
#include "quant/quant.h"
#include "sys/pool.h"

/* Rows of an item in element-wise operations; and of a tile of a product (a multiple of the row
 * blocks of the kernels). Results do not depend on them, but the partial sums of the gradients of
 * norms do on the first. */
#define QSI_OP_ROWS 32
#define QSI_OP_MM_ROWS 96

/* ---- sharing work ---- */
typedef struct qsi_op_shared {
    _Atomic int64_t next[2]; /* tickets of this operation and of the next */
} qsi_op_shared;
struct qsi_mm_job;
typedef struct qsi_op {
    const qsi_worker *w;
    const qsi_kern *k;
    qsi_op_shared *sh;
    unsigned turn;
    char *scratch; /* of this worker */
    size_t scratch_bytes;
    /* Sees the jobs of every qsi_op_mm before they run, on worker 0; NULL: nobody looks. */
    void (*tap)(void *user, const struct qsi_mm_job *jobs, int n_jobs);
    void *tap_user;
} qsi_op;
void qsi_op_init(qsi_op *o, const qsi_worker *w, const qsi_kern *k, qsi_op_shared *sh,
                 char *scratch, size_t scratch_bytes);
/* The next item of the current operation. */
int64_t qsi_op_take(qsi_op *o);
/* Ends the operation: the barrier. */
void qsi_op_end(qsi_op *o);
static inline int64_t qsi_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t qsi_round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
static inline int64_t qsi_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t qsi_max64(int64_t a, int64_t b) { return a > b ? a : b; }
/* Rows of an item where n rows are worked on row by row: QSI_OP_ROWS, or fewer so that all workers
 * have some of a few rows. */
static inline int64_t qsi_op_rows(const qsi_op *o, int64_t n) {
    return qsi_max64(1, qsi_min64(QSI_OP_ROWS, qsi_ceil_div(n, 4 * (int64_t)o->w->count)));
}

/* Rows cut into runs of columns, where there are fewer rows than keep all workers busy. Runs are
 * whole blocks of every type. */
typedef struct qsi_cut {
    int64_t k, cols, items; /* of n rows of k */
} qsi_cut;
static inline qsi_cut qsi_op_cut(const qsi_op *o, int64_t n, int64_t k) {
    int64_t parts = n > 0 ? qsi_ceil_div(4 * (int64_t)o->w->count, n) : 1;
    int64_t cols = parts > 1 ? qsi_round_up(qsi_ceil_div(k, parts), 256) : qsi_max64(k, 1);
    return (qsi_cut){k, cols, n * qsi_ceil_div(k, cols)};
}
/* Row and columns [*c0, *c1) of item i. */
static inline int64_t qsi_cut_at(const qsi_cut *c, int64_t i, int64_t *c0, int64_t *c1) {
    int64_t parts = qsi_ceil_div(c->k, c->cols);
    *c0 = i % parts * c->cols;
    *c1 = qsi_min64(*c0 + c->cols, c->k);
    return i / parts;
}

/* Memory cut from one block in order; every worker cuts the same pieces. */
typedef struct qsi_bump {
    char *p;
    size_t left;
} qsi_bump;
/* n bytes, aligned to 64; QS_CHECK when they are not there (sizes are computed at creation). */
void *qsi_bump_take(qsi_bump *b, size_t n);

/* ---- activations entering products ---- */
/* One matrix [rows, k] in every form its consumers need. ld counts elements, a multiple of 32;
 * columns k..ld are zero. The form Q8 needs whole blocks of 32, K8 of 256 (as do the weights that
 * meet them). */
enum { QSI_ACT_F32 = 1, QSI_ACT_BF16 = 2, QSI_ACT_Q8 = 4, QSI_ACT_K8 = 8 };
typedef struct qsi_act {
    int64_t k, ld;
    int64_t ld8, ldk; /* blocks from one row to the next, in q8 and in k8; at least ld / 32, k / 256 */
    float *f32;
    uint16_t *bf16;
    qsi_act8 *q8;
    qsi_actk *k8;
} qsi_act;
/* The form that products of this kind read. */
unsigned qsi_act_form(qsi_mm kind);
/* Buffers for the forms in mask; memory from the arena. QS_E_NOMEM. */
qs_status qsi_act_init(qsi_act *a, qsi_arena *ar, int64_t rows, int64_t k, unsigned mask,
                       qs_err *err) QS_MUST_CHECK;
/* Writes row r from x[k] in every form (x may be the row's own float form). */
void qsi_act_put(const qsi_kern *k, const qsi_act *a, int64_t r, const float *x);
/* The same of columns [c0, c1), x[c0] the first; c0 a multiple of 256, and c1 too or k. */
void qsi_act_put_cols(const qsi_kern *k, const qsi_act *a, int64_t r, int64_t c0, int64_t c1,
                      const float *x);
/* Copies row rs of s to row rd of d (the same k). */
void qsi_act_copy(const qsi_act *d, int64_t rd, const qsi_act *s, int64_t rs);
const void *qsi_act_row(const qsi_act *a, qsi_mm kind, int64_t r, size_t *lda_bytes);

/* ---- weights ---- */
typedef struct qsi_weight qsi_weight;
/* Kind of product for weights stored in this type; QSI_MM_COUNT when there is none. exact:
 * quantised weights meet float activations. */
qsi_mm qsi_weight_kind(qsi_type type, bool exact);
/* W [n_out, n_in] from bytes of a file (borrowed until prepared), rows contiguous in blocks of
 * `type`. data NULL: no memory is taken; qsi_weight_place gives it, qsi_weight_pack fills it. */
qs_status qsi_weight_create(qsi_weight **w, const qsi_kern *k, qsi_type type, const void *data,
                            int64_t n_out, int64_t n_in, qs_err *err) QS_MUST_CHECK;
/* The same for one kind of product out of those of the type (qsi_weight_kind). */
qs_status qsi_weight_create_kind(qsi_weight **w, const qsi_kern *k, qsi_type type, qsi_mm kind,
                                 const void *data, int64_t n_out, int64_t n_in, qs_err *err)
    QS_MUST_CHECK;
/* This worker's part of preparing; all workers' parts make it whole. */
void qsi_weight_prepare(const qsi_worker *wk, const qsi_kern *k, qsi_weight *w);
/* Weights kept elsewhere. The packed form is one block of qsi_weight_bytes, 64-byte aligned, that
 * may be moved: place says where it stands now (borrowed). */
void qsi_weight_place(qsi_weight *w, void *mem);
/* Panels of W: rows of each (the last may have fewer), and bytes of a row in the file. */
int64_t qsi_weight_panels(const qsi_weight *w, int64_t *rows, size_t *src_bytes);
/* Packs panels [p0, p1) into the block at mem (NULL: the weight's own); rows: bytes of the file
 * from the first row of panel p0 on. Thread: any, for different panels. */
void qsi_weight_pack(const qsi_weight *w, const void *rows, int64_t p0, int64_t p1, void *mem);
/* The packed form; NULL while there is none. */
const void *qsi_weight_packed(const qsi_weight *w);
/* What k's packing makes of a fixed pattern in every kind, as a hash: tables of equal layout pack
 * alike. QS_E_NOMEM. */
qs_status qsi_weight_layout(const qsi_kern *k, uint64_t *out, qs_err *err) QS_MUST_CHECK;
/* From float32 masters, for training, in F32 or BF16; serves y = x Wt and dx = dy W. */
qs_status qsi_weight_create_train(qsi_weight **w, const qsi_kern *k, qsi_mm kind,
                                  const float *master, int64_t n_out, int64_t n_in, qs_err *err)
    QS_MUST_CHECK;
/* Prepares anew after the masters changed. shadow: n_out * n_in values (BF16 only). */
void qsi_weight_refresh(qsi_op *o, qsi_weight *w, uint16_t *shadow);
void qsi_weight_free(qsi_weight *w);
qsi_mm qsi_weight_mm(const qsi_weight *w);
int64_t qsi_weight_rows(const qsi_weight *w);
int64_t qsi_weight_cols(const qsi_weight *w);
size_t qsi_weight_bytes(const qsi_weight *w);

/* ---- products ---- */
typedef struct qsi_mm_job {
    qsi_mm kind;
    const void *a;
    size_t lda;
    const void *b; /* packed */
    float *c;
    int64_t m, n, k, ldc;
    bool acc;
    int chain; /* so many of the jobs that follow add to the same C, in order, in the same item */
    const qsi_weight *w; /* of y = x Wt; NULL for other products */
} qsi_mm_job;
/* Runs all jobs; ends in a barrier. */
void qsi_op_mm(qsi_op *o, const qsi_mm_job *jobs, int n_jobs);
/* Runs one whole job in the calling worker: item work. */
void qsi_job_run(const qsi_kern *k, const qsi_mm_job *j);
/* y[m, n_out] (+)= x[row0..row0+m) Wt */
qsi_mm_job qsi_job_forward(const qsi_weight *w, const qsi_act *x, int64_t row0, int64_t m,
                           float *y, int64_t ldy, bool acc);

/* Output gradients dy[m, n] prepared for products of one kind: rows [m, ld_rows] for dx = dy W, and
 * transposed [n, ld_cols] for dW += dyT x. Float rows are dy itself. */
typedef struct qsi_dy {
    qsi_mm kind;
    int64_t m, n, ld_rows, ld_cols;
    void *rows, *cols;
} qsi_dy;
size_t qsi_dy_bytes(qsi_mm kind, int64_t m, int64_t n);
/* x[m, k] packed as the right side of dW += dyT x. */
typedef struct qsi_xpack {
    qsi_mm kind;
    int64_t m, k;
    void *b;
} qsi_xpack;
size_t qsi_xpack_bytes(const qsi_kern *k, qsi_mm kind, int64_t m, int64_t n);
/* Cut buffers from b. For QSI_MM_F32, dy's rows are given (borrowed), ld_dy apart. */
void qsi_dy_init(qsi_dy *d, qsi_bump *b, qsi_mm kind, int64_t m, int64_t n, float *dy,
                 int64_t ld_dy);
void qsi_xpack_init(qsi_xpack *p, qsi_bump *b, const qsi_kern *k, qsi_mm kind, int64_t m,
                    int64_t n);
/* Item work: rows [r0, r1) of dy (r0 a multiple of 16, or the caller's own order) into both
 * forms. */
void qsi_dy_put(const qsi_kern *k, const qsi_dy *d, const float *dy, int64_t ld_dy, int64_t r0,
                int64_t r1);
int64_t qsi_xpack_items(const qsi_kern *k, const qsi_xpack *p);
/* Item work: packs item i of x, whose first row is row0. */
void qsi_xpack_put(const qsi_kern *k, const qsi_xpack *p, const qsi_act *x, int64_t row0,
                   int64_t i);
/* dx[m, n_in] (+)= dy W */
qsi_mm_job qsi_job_dx(const qsi_weight *w, const qsi_dy *dy, float *dx, int64_t ldx, bool acc);
/* dw[n, k] += dyT x */
qsi_mm_job qsi_job_dw(const qsi_dy *dy, const qsi_xpack *x, float *dw);

/* ---- attention ---- */
#define QSI_ATTEND_TILE QSI_ATTN_TILE
/* Positions of a span. The softmax of a row is taken span by span (spans of 256 absolute positions,
 * tiles of 64 within), the spans' results are merged in order: so a row's bits depend on its
 * position, the keys and values alone, whoever computes the spans and beside which rows. */
#define QSI_ATTEND_SPAN 256
/* Keys and values of one sequence for all kv heads of a layer, by absolute position. Keys are hd_k
 * wide, values hd_v; values may be the first hd_v elements of the keys (v_in_k). Built by
 * qsi_kv_rows (rows of float32, one position after another), qsi_kv_words or by the cache (pages of
 * 64 positions, any cache type); the other fields are theirs. Borrows the memory. */
typedef struct qsi_kv_view {
    qsi_type type;
    int64_t hd_k, hd_v;
    bool v_in_k, turned;                /* keys of a tile are turned (kern.h) */
    bool bf16;                          /* products in bfloat16; not with F32 */
    bool bytes; /* types with scales: in integers; v_in_k: scores are, values are bf16 */
    int64_t stride;                     /* pages: spans to the worker's next, a guess; 0: one */
    int64_t ld_k, ld_v, head_k, head_v; /* rows: elements to the next position, the next head */
    const float *k, *v;
    const uint16_t *k16, *v16;          /* tiles of words */
    int64_t pos0;                       /* rows, words: position of the first, a multiple of a span */
    void *const *page_mem;              /* pages; NULL: rows */
    const int32_t *pages;
    size_t k_off, v_off, k_tile, v_tile; /* bytes to the first head's tile; of a head's tile */
} qsi_kv_view;
/* Row p of k and v is position p; kv heads side by side. v NULL: values are prefixes of the
 * keys. */
qsi_kv_view qsi_kv_rows(const float *k, int64_t ld_k, int64_t hd_k, const float *v, int64_t ld_v,
                        int64_t hd_v);
/* Tiles of one head in bfloat16 as words (kern.h), one after another from position pos0 on: keys
 * [hd_k / 2][64], values [32][hd_v rounded up to 16]. */
qsi_kv_view qsi_kv_words(const uint16_t *k, int64_t hd_k, const uint16_t *v, int64_t hd_v,
                         int64_t pos0);
static inline int64_t qsi_kv_key_words(int64_t hd_k) { /* of a tile, in uint16_t */
    return QSI_ATTEND_TILE * qsi_round_up(hd_k, 2);
}
static inline int64_t qsi_kv_value_words(int64_t hd_v) {
    return QSI_ATTEND_TILE * qsi_round_up(hd_v, 16);
}
/* Cache types that have scales, one for 32 elements of a head: Q8_0 and Q4_0. */
static inline bool qsi_kv_scaled(qsi_type type) { return type == QSI_Q8_0 || type == QSI_Q4_0; }
/* A head's tile of 64 positions in the cache, layouts as in kern.h: scales come first,
 * [ceil(hd/32)][64] half; hd is rounded up to 2 (BF16), 4 (Q8_0) or 32 (Q4_0). */
size_t qsi_kv_tile_bytes(qsi_type type, int64_t hd);
size_t qsi_kv_tile_scales(qsi_type type, int64_t hd);
/* Rows of one sequence, positions pos0.. (relative to the view's position 0). */
typedef struct qsi_attend_rows {
    int32_t n_rows;
    int64_t pos0;
    const float *q; /* [n_rows, ldq], heads of hd_k side by side */
    int64_t ldq;
    float *out; /* [n_rows, ldo], heads of hd_v side by side */
    int64_t ldo;
    float *lse; /* log of the sum of exponentials, [n_rows, ld_lse]; NULL: not kept */
    int64_t ld_lse;
} qsi_attend_rows;
/* Bytes for any n_rows up to QSI_ATTEND_TILE. */
size_t qsi_attend_scratch(int64_t group, int64_t hd_k, int64_t hd_v);
/* Item work: the `group` query heads that share kv head kvh, [kvh*group, (kvh+1)*group), of the
 * rows; softmax(scale q kT) v, causal, online (Milakov and Gimelshein 2018; Dao et al. 2022).
 * n_rows <= QSI_ATTEND_TILE. */
void qsi_attend(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r, int64_t kvh,
                int64_t group, float scale, char *scratch);
/* The same in pieces. add takes spans in ascending order into st [n_rows * group] (zeroed before
 * the first) and out; end divides and fills lse. */
typedef struct qsi_attend_state {
    float m, l; /* largest scaled score; sum of exp(s - m), 0 before the first span */
} qsi_attend_state;
void qsi_attend_add(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                    int64_t kvh, int64_t group, float scale, int64_t span, qsi_attend_state *st,
                    char *scratch);
void qsi_attend_end(const qsi_kern *k, int64_t hd_v, const qsi_attend_rows *r, int64_t kvh,
                    int64_t group, const qsi_attend_state *st);
static inline int64_t qsi_attend_spans(int64_t pos) { return pos / QSI_ATTEND_SPAN + 1; }
/* The same with its spans computed apart, for one row at a great depth and many workers. A part is
 * the result of a span for one row and head: [m, l, then 14 unused, o[hd_v]]. part writes those of
 * one span, row i and head h at parts + ((i * n_head + h) * n_spans + span) * part_floats; merge
 * makes the output of one row and head (its n_spans parts stand together) from them. */
static inline int64_t qsi_attend_part_floats(int64_t hd_v) { return qsi_round_up(hd_v, 16) + 16; }
void qsi_attend_part(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                     int64_t kvh, int64_t group, float scale, int64_t span, float *parts,
                     int64_t n_head, int64_t n_spans, char *scratch);
/* The same for kv heads [kvh, kvh + n_kvh), at most qsi_attend_side of them. */
int64_t qsi_attend_side(int64_t n_rows, int64_t group);
void qsi_attend_part_side(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                          int64_t kvh, int64_t n_kvh, int64_t group, float scale, int64_t span,
                          float *parts, int64_t n_head, int64_t n_spans, char *scratch);
void qsi_attend_merge(const qsi_kern *k, int64_t hd_v, const float *parts, int64_t n_spans,
                      float *out);
/* One document in training: n rows of q, k, v, out, dout and their gradients, all with their own ld
 * and starting at the document's first row. */
typedef struct qsi_attend_doc {
    int64_t n, n_head, n_kv, hd;
    const float *q, *k, *v, *out, *dout, *lse;
    float *dq, *dk, *dv;
    int64_t ld_q, ld_kv; /* of q, out, dout, dq; of k, v, dk, dv. lse: n_head */
    float scale;
} qsi_attend_doc;
size_t qsi_attend_bwd_scratch(int64_t max_rows);
/* Item work: backward of the heads of one kv head over a document; overwrites dq, dk, dv. */
void qsi_attend_bwd(const qsi_kern *k, const qsi_attend_doc *a, int64_t kvh, char *scratch);

/* ---- rows ---- */
/* cs[hd/2][2]: cos and sin of pos / factor * theta^(-2i/hd), computed in double. */
void qsi_rope_row(float *cs, const double *freq, int64_t hd, double pos);
/* The kernels' rope for pairs (x[i], x[i + n/2]) instead of neighbours. */
void qsi_rope_halves(float *x, const float *cs, int64_t n);
void qsi_rope_freq(double *freq, int64_t hd, double theta, double factor);
/* The frequencies of YaRN (Peng et al. 2023): those that turn more than beta_fast times within the
 * original context stay, those that turn less than beta_slow times are divided by factor, a ramp
 * between. */
void qsi_rope_freq_yarn(double *freq, int64_t hd, double theta, double factor, double orig_ctx,
                        double beta_fast, double beta_slow);

/* Whether none of n values is NaN or infinite; item work. */
bool qsi_all_finite(const float *x, int64_t n);
/* The k < n largest of n scores (ties: the lower index), indices ascending into out. False, and out
 * untouched, where a score is NaN or infinite. */
bool qsi_choose_top(const float *s, int64_t n, int64_t k, int32_t *out);

/* Router of one row: s = softmax(logits) over n experts (in place), the n_used largest (ties: the
 * lower id), ids ascending in idx, weights in wt (renormalised when norm, times scale). */
void qsi_route_row(const qsi_kern *k, float *logits, int64_t n, int64_t n_used, bool norm,
                   float scale, int32_t *idx, float *wt);
/* The routers of DeepSeek-V2 and V3 (deepseek-facts 2.3, 2.4): scores s by softmax or sigmoid,
 * choice by c = s + bias, only within the n_group_used best of n_group consecutive groups. A group
 * counts as its largest c (softmax) or the sum of its two largest (sigmoid). tmp: [n + n_group].
 * Otherwise as qsi_route_row; weights come from s. */
typedef struct qsi_route {
    int64_t n, n_used, n_group, n_group_used; /* n_group <= 1: none */
    bool sigmoid, norm;
    float scale;
    const float *bias; /* [n]; NULL: none */
} qsi_route;
void qsi_route_row_chosen(const qsi_kern *k, const qsi_route *r, float *logits, int32_t *idx,
                          float *wt, float *tmp);
/* dlogits[n] from dwt[n_used] (gradients of the weights) and ds[n] (further gradients of s; NULL:
 * none). */
void qsi_route_row_bwd(const float *s, int64_t n, int64_t n_used, bool norm, float scale,
                       const int32_t *idx, const float *dwt, const float *ds, float *dlogits);

#endif
