/* Inside of the model: weights as bound, what a layer keeps, one step as its workers see it, and
 * the layers' forward and backward. A layer works on its rank's share (qsi_shard) of heads, FFN
 * columns and experts; sums over ranks go through comm.
 *
 * Shapes: R rows of the step, d = d_model, hq = heads * head_dim, hk = kv heads * head_dim, f = FFN
 * width, E experts, K experts a row uses, S = slots: rows grouped by expert, every expert's first
 * slot a multiple of QSI_OP_ROWS. Inference keeps nothing: its layers share one set of buffers and
 * x_in, x_mid, x_out are one. Thread: functions taking a qsi_op run on all workers of a step. */
#ifndef QSI_MODEL_LAYER_H
#define QSI_MODEL_LAYER_H

#include "model/model.h"
#include "op/op.h"

typedef struct qsi_shard {
    int rank, size;
    int32_t n_head, n_kv, d_ff, d_shared; /* this rank's heads and columns */
    int32_t expert0, n_expert;            /* this rank's experts */
} qsi_shard;
/* QS_E_UNSUPPORTED when the model does not divide by the ranks. */
qs_status qsi_shard_init(qsi_shard *s, const qsi_config *c, const qsi_comm *comm, qs_err *err)
    QS_MUST_CHECK;
static inline bool qsi_layer_is_moe(const qsi_config *c, int32_t layer) {
    return c->n_expert > 0 && layer >= c->n_dense;
}

/* Weights of latent attention beside q, o: Wkv_b as three matrices a head. */
typedef struct qsi_mla_weights {
    const float *q_norm, *kv_norm; /* [q_rank], [kv_rank] */
    qsi_weight *q_a, *kv_a;        /* q_a: NULL without q_rank; then q takes rows of d_model */
    qsi_weight **k, **kt, **v;     /* [heads] K [dn, r], K transposed [r, dn], V [dv, r] */
} qsi_mla_weights;
/* The indexer of sparse attention. */
typedef struct qsi_index_weights {
    qsi_weight *q, *k, *proj;            /* [J index_dim, q_rank], [index_dim, d], [J, d] */
    const float *k_norm, *k_norm_bias;   /* [index_dim] */
} qsi_index_weights;
typedef struct qsi_layer_weights {
    const float *attn_norm, *ffn_norm; /* [d] */
    qsi_weight *q, *k, *v, *o;
    const float *q_bias, *k_bias, *v_bias; /* [hq], [hk], [hk]; NULL: none; inference only */
    const float *q_norm, *k_norm;          /* [head_dim], for each head; NULL: none; inference only */
    qsi_weight *gate, *up, *down; /* dense FFN, or the shared experts as one (NULL: none) */
    qsi_weight *router;
    const float *router_rows;             /* [E, d]; training only */
    const float *gate_bias;               /* [E] or NULL */
    qsi_mla_weights mla;
    qsi_index_weights index;
    qsi_weight **egate, **eup, **edown;   /* [E] */
} qsi_layer_weights;
typedef struct qsi_layer_grads { /* as the weights, float32 */
    float *attn_norm, *ffn_norm, *q, *k, *v, *o, *gate, *up, *down, *router;
    float *egate, *eup, *edown; /* [E, n_out, n_in] */
} qsi_layer_grads;
/* What the first layer that predicts further has beside a layer's own. */
typedef struct qsi_next_weights {
    const float *enorm, *hnorm, *head_norm; /* [d] */
    qsi_weight *eh;                         /* [d, 2d]: of the normed embedding, then the hidden state */
} qsi_next_weights;
typedef struct qsi_weights {
    const void *embed; /* rows of the table in embed_type, borrowed */
    const qsi_type_info *embed_type;
    size_t embed_row; /* bytes */
    const float *out_norm;
    qsi_weight *head;
    qsi_next_weights next;
    qsi_layer_weights *layers;
    float *norms; /* owned copies of norm weights (inference) */
} qsi_weights;
qs_status qsi_weights_init(qsi_weights *w, const qsi_config *c, qs_err *err) QS_MUST_CHECK;
void qsi_weights_release(qsi_weights *w, const qsi_config *c);
/* Bytes of the file that are prepared: its matrices, an embedding that is no head left out. */
int64_t qsi_weights_file_bytes(const qsi_gguf *g);

/* ---- what a layer keeps ---- */
typedef struct qsi_moe_save {
    float *s;              /* [R, E] router probabilities */
    int32_t *idx, *slot;   /* [R, K] experts chosen, ids ascending; their slots, -1: another rank's */
    float *wt;             /* [R, K] */
    int32_t *off, *count;  /* [E] first slot and rows of an expert */
    int32_t *row, *which;  /* [S] row of a slot (-1: none), and which of its K */
    int32_t *block_expert; /* [S / QSI_OP_ROWS] */
    int32_t n_blocks;      /* of QSI_OP_ROWS slots */
    qsi_act x, h;          /* [S, d], [S, f] */
    float *g, *u, *y;      /* [S, f], [S, f], [S, d] */
    float *bal;            /* [segments, E] factor of ds of the balance loss */
} qsi_moe_save;
/* Latent attention; inference only. D = QSI_MLA_ROWS generated rows are decoded at a time; rows of
 * qn and ctx are numbered head * D + row. */
#define QSI_MLA_ROWS 64
typedef struct qsi_mla_save {
    float *qa, *c;        /* [R, q_rank], [R, r + dr] */
    qsi_act aq;           /* [R, q_rank] normed */
    qsi_act qn, ctx;      /* [H D, dn], [H D, r] */
    float *qc, *o;        /* [D, H, r + dr], [D, H, r]; qc holds outputs too, [D, H, dv] */
    unsigned c_form;      /* of latent rows entering K and V */
} qsi_mla_save;
/* Of the indexer; J heads. Scores are held for a few rows at a time, choices for those that attend
 * together. */
#define QSI_INDEX_ROWS 16
typedef struct qsi_index_save {
    float *k, *q, *w;     /* [R, index_dim], [R, J index_dim], [R, J] */
    float *scores;        /* [QSI_INDEX_ROWS, qsi_index_positions] */
    int32_t *chosen;      /* [QSI_MLA_ROWS, index_topk] positions, ascending */
} qsi_index_save;
typedef struct qsi_layer_save {
    float *x_in, *x_mid, *x_out; /* [R, d] */
    float *r1, *r2;              /* [R] of the norms */
    qsi_act a1, a2;              /* normed rows entering attention and FFN */
    float *q, *k, *v;            /* [R, hq], [R, hk], [R, hk], rotated */
    float *out, *lse;            /* [R, hq], [R, heads] */
    qsi_act oa;                  /* out entering the output projection */
    float *g, *u;                /* [R, f] dense or shared */
    qsi_act h;                   /* [R, f] */
    qsi_moe_save moe;
    qsi_mla_save mla;
    qsi_index_save index;
} qsi_layer_save;

/* ---- a step ---- */
typedef struct qsi_seg { /* rows of one sequence */
    int32_t row0, n, pos0; /* pos0: position of the first row in the sequence's cache */
    int32_t table;         /* inference: index of its pages */
    bool generated;        /* rows of generated tokens; only where their path differs */
    bool sparse;           /* rows that attend to chosen positions */
} qsi_seg;
typedef struct qsi_block { /* at most QSI_ATTEND_TILE rows of a segment */
    int32_t seg, row0, n;
} qsi_block;
enum { QSI_BAD_NONE = -1, QSI_BAD_EMBED = -2 };
typedef struct qsi_fwd {
    const qsi_config *c;
    const qsi_shard *shard;
    const qsi_comm *comm;
    const qsi_weights *w;
    struct qsi_res *res; /* weights that are not all in memory (residency.h); NULL: they are */
    int32_t n; /* rows */
    const int32_t *ids, *pos; /* [n] */
    const bool *generated;    /* [n]; NULL: none, or all the same */
    int32_t *gen_rows;        /* [n_gen] the generated ones that attend to all positions */
    int32_t *sparse_rows;     /* [n_sparse] those that attend to chosen ones, generated or not */
    int32_t n_gen, n_sparse;
    qsi_seg *segs;
    qsi_block *blocks;
    int32_t *row_seg; /* [n] */
    int32_t n_segs, n_blocks;
    double *freq;       /* [head_dim / 2] */
    float *cs;          /* [R, head_dim] cos and sin of each row */
    float *cs_table;    /* [n_table, head_dim] of the first positions; NULL: always computed */
    int32_t n_table;
    float *partial;     /* [R, d] this rank's part before the sum; NULL with one rank */
    bool bf16;          /* attention's products in bfloat16, with a cache of F16 */
    bool bytes;         /* in integers, with a cache of Q8_0 */
    qsi_kv *kv;         /* inference; NULL in training */
    const qsi_kv_table *tables;
    float *parts;       /* [n_parts] spans of attention computed apart; inference */
    int64_t n_parts;
    int64_t *load;      /* [n_layer, E] rows routed, added up; NULL: not kept */
    /* training: the balance loss */
    bool balance, balance_per_seq;
    float balance_factor; /* alpha times the share */
    double *balance_sum;  /* of all layers; worker 0 */
    /* the watched run: first layer whose output is not finite, or one of QSI_BAD_*; worker 0 */
    bool watch;
    int32_t bad_layer;
    qs_status comm_status; /* of a failed reduction; worker 0 */
} qsi_fwd;
/* Fills segs, blocks and row_seg from f->n, f->pos and seq; QS_E_ARG when a sequence's rows are not
 * consecutive positions. */
qs_status qsi_fwd_segments(qsi_fwd *f, const int32_t *seq, bool training, qs_err *err)
    QS_MUST_CHECK;

typedef struct qsi_bwd { /* training: what the backward of all layers shares */
    const qsi_fwd *f;
    float *dx;               /* [R, d] gradient of the residual stream */
    float *dxn, *dout;       /* [R, d]; [R, hq] */
    float *dq, *dk, *dv;     /* [R, hq], [R, hk], [R, hk] */
    float *dh, *dhe;         /* [R, f], [S, f] */
    float *dslot;            /* [S, d] */
    float *dwt;              /* [S] gradients of the experts' weights */
    float *dlogits;          /* [R, E] */
    float *norm_part;        /* [R / QSI_OP_ROWS, d] partial gradients of a norm */
    char *ws;                /* operands of the products */
    size_t ws_bytes;
    qsi_mm kind;
} qsi_bwd;

/* Sum over ranks; ends in a barrier when there are several. */
void qsi_fwd_reduce(qsi_op *o, qsi_fwd *f, float *x, int64_t n);

/* a <- w * x / rms(x), r kept; ends in a barrier. */
void qsi_norm_forward(qsi_op *o, const float *x, const float *w, int64_t n, int64_t d, float eps,
                      float *r, const qsi_act *a);
/* dx += gradient of the norm's input for one item of QSI_OP_ROWS rows; its part of dw goes to
 * part[item]. */
void qsi_norm_backward_item(const qsi_kern *k, int64_t item, const float *dy, const float *x,
                            const float *w, const float *r, float *dx, float *part, int64_t n,
                            int64_t d);
/* dw += the parts, in order; ends in a barrier. */
void qsi_norm_backward_sum(qsi_op *o, const float *part, int64_t n, int64_t d, float *dw);

void qsi_embed_forward(qsi_op *o, const qsi_fwd *f, float *x);
void qsi_embed_backward(qsi_op *o, const qsi_fwd *f, const float *dx, float *dw);
void qsi_rope_prepare(qsi_op *o, const qsi_fwd *f);
void qsi_attention_forward(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s);
void qsi_attention_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                            const qsi_layer_grads *g);
/* The end of every attention: x_mid = x_in + Wo out, out [R, n_out]. */
void qsi_attention_out(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                       int64_t n_out);
void qsi_mla_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s);
size_t qsi_mla_scratch(const qsi_config *c, int64_t rows);
/* The indexer (indexer.c). key: of row t, from what Wk gave, normed, rotated and stored; query:
 * what Wq gave, rotated. choose: the positions that n <= QSI_MLA_ROWS rows attend to, into
 * s->index.chosen; ends in a barrier. A score that is not finite makes the row's residual stream
 * NaN. */
void qsi_index_key(const qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                   int64_t t);
void qsi_index_query(const qsi_fwd *f, const qsi_layer_save *s, int64_t t);
void qsi_index_choose(qsi_op *o, const qsi_fwd *f, int32_t layer, const qsi_layer_save *s,
                      const int32_t *rows, int64_t n);
size_t qsi_index_scratch(const qsi_config *c);
/* How many positions a sequence may have. */
int64_t qsi_index_positions(const qsi_config *c);
void qsi_ffn_forward(qsi_op *o, qsi_fwd *f, int32_t layer, const qsi_layer_save *s);
void qsi_ffn_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                      const qsi_layer_grads *g);
/* The experts of a row from its router's logits z [E], which become scores: ids ascending into idx
 * [K], weights into wt [K]. bias: [E] or NULL. */
void qsi_moe_route(const qsi_op *o, const qsi_config *c, const float *bias, float *z, int32_t *idx,
                   float *wt);
/* After a layer's rows are routed: guesses which experts the next layers will ask for, and has them
 * read while the disk has nothing better to do. x: [R, d] the residual stream. */
void qsi_foresee(qsi_op *o, const qsi_fwd *f, int32_t layer, const float *x);
/* False: experts could not be read from disk (residency.h), the step ends. */
bool qsi_moe_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s);
void qsi_moe_backward(qsi_op *o, const qsi_bwd *b, int32_t layer, const qsi_layer_save *s,
                      const qsi_layer_grads *g);
/* All layers: x of the first layer to x_out of the last. False as above. */
bool qsi_layers_forward(qsi_op *o, qsi_fwd *f, qsi_layer_save *const *saves);
/* One layer; the same. */
bool qsi_layer_forward(qsi_op *o, qsi_fwd *f, int32_t layer, qsi_layer_save *s);
/* b->dx: in, gradient of the last layer's output; out, that of the first's input. */
void qsi_layers_backward(qsi_op *o, const qsi_bwd *b, qsi_layer_save *const *saves,
                         const qsi_layer_grads *g);

/* Slots a step of so many rows may need. */
int64_t qsi_moe_slots(const qsi_config *c, const qsi_shard *s, int64_t rows);
/* Bytes of a worker's scratch, and of qsi_bwd.ws. */
size_t qsi_forward_scratch(const qsi_config *c, int64_t rows);
size_t qsi_backward_ws(const qsi_config *c, const qsi_shard *s, const qsi_kern *k, qsi_mm kind,
                       int64_t rows);
/* Buffers of a layer. keep: the layer's own (training). masks: forms of the activations. */
typedef struct qsi_act_masks {
    unsigned a1, oa, a2, h, ex, eh;
    unsigned aq, qn, c, ctx; /* latent attention */
    unsigned eh_in;          /* the layer that predicts further */
} qsi_act_masks;
qs_status qsi_save_init(qsi_layer_save *s, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                        bool moe, int64_t rows, const qsi_act_masks *m, bool keep, qs_err *err)
    QS_MUST_CHECK;
/* Arrays of f for steps of so many rows. */
qs_status qsi_fwd_init(qsi_fwd *f, qsi_arena *ar, const qsi_config *c, const qsi_shard *sh,
                       const qsi_comm *comm, const qsi_weights *w, int64_t rows, qs_err *err)
    QS_MUST_CHECK;

/* ---- the head in training: final norm, logits, cross-entropy, by chunks of rows ---- */
#define QSI_LOSS_TILE 48
#define QSI_LOSS_CHUNK 480
typedef struct qsi_loss {
    const float *x;      /* [R, d] output of the last layer */
    const int32_t *rows, *targets; /* [n] rows with targets */
    int64_t n;
    float scale;
    float *r;            /* [n] */
    qsi_act a;           /* [n, d] */
    double *nll;         /* [n] */
    /* backward (NULL dx: forward only) */
    float *dx;           /* [R, d], overwritten */
    float *dxf;          /* [n, d] */
    float *dout_norm, *dhead;
    float *norm_part;
    float *logits;       /* [QSI_LOSS_CHUNK, V]; F32 products only */
    char *ws;
    size_t ws_bytes;
} qsi_loss;
size_t qsi_loss_ws(const qsi_config *c, const qsi_kern *k, qsi_mm kind);
size_t qsi_loss_scratch(const qsi_config *c);
void qsi_loss_run(qsi_op *o, const qsi_fwd *f, const qsi_loss *l);

/* ---- attention of a step's blocks ---- */
typedef struct qsi_attend_set {
    int64_t n_blocks, n_kv, group; /* query heads: n_kv * group */
    float scale;
    /* the i-th block: at most QSI_ATTEND_TILE rows of a sequence, and its keys and values */
    void (*block)(const void *arg, int64_t i, qsi_kv_view *v, qsi_attend_rows *r);
    const void *arg;
} qsi_attend_set;
/* Ends in a barrier. Rows with lse are never cut into spans (n_parts 0). */
void qsi_attend_run(qsi_op *o, const qsi_fwd *f, const qsi_attend_set *a);
/* Whether a worker has heads of its own in blocks that are not cut: in steps of few rows. They are
 * [*h0, *h1) of n_kv. */
bool qsi_attend_own(const qsi_op *o, const qsi_fwd *f, int64_t n_kv, int64_t *h0, int64_t *h1);
/* Floats that f->parts should have. */
int64_t qsi_attend_parts(const qsi_config *c);

/* ---- KV pages ---- */
/* Layer l of a table's pages. bf16, bytes: products in bfloat16, in integers, if the cache's type
 * allows. */
qsi_kv_view qsi_kv_layer(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer, bool bf16, bool bytes);
bool qsi_kv_narrow(const qsi_kv *kv); /* not F32 */
/* Whether heads stand rotated in the cache: then queries must be before they meet its keys, and
 * sums of its values be turned back. rotate does both: the head x [hd_k] of a query or, with
 * values, [hd_v], in place. What store takes and load gives is not rotated. */
bool qsi_kv_rotates(const qsi_kv *kv);
void qsi_kv_rotate(const qsi_kv *kv, const qsi_kern *k, int32_t layer, bool values, float *x);
/* Stores heads [h0, h1) of one position's keys [n_head, hd_k] and values [n_head, hd_v] (not read
 * with v_in_k). */
void qsi_kv_store(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                  int32_t pos, int32_t h0, int32_t h1, const float *key, const float *value);
/* Reads them back; key or value may be NULL. */
void qsi_kv_load(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                 int32_t pos, float *key, float *value);
/* The indexer's key [hd_i] of one position; a page's keys, turned (kern.h: attn_qk). */
void qsi_kv_store_index(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                        int32_t pos, const float *key);
typedef struct qsi_kv_tile {
    qsi_type type;
    const void *data;
    const uint16_t *scale; /* NULL: none */
} qsi_kv_tile;
qsi_kv_tile qsi_kv_index_tile(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer,
                              int64_t page);

#endif
