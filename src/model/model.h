/* Models: configuration, weights, the step (forward), and for training the loss and its gradients.
 *
 * One step takes a ragged batch of rows; prefill, decode, many sequences and packed training
 * documents are this one call. The pool is entered once a step. No allocation, lock, log or system
 * call inside a step. Sources: deepseek-facts 1, 2.1 to 2.5, 2.7 (LLaMA-type dense; DeepSeekMoE,
 * arXiv:2401.06066; DeepSeek-V2, arXiv:2405.04434; DeepSeek-V3, arXiv:2412.19437). Thread: a model
 * has one owner; its pool's workers run inside a step. */
#ifndef QSI_MODEL_H
#define QSI_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "fmt/gguf.h"
#include "kern/kern.h"
#include "sys/pool.h"

typedef enum qsi_arch {
    QSI_ARCH_LLAMA, QSI_ARCH_DEEPSEEK, QSI_ARCH_DEEPSEEK2,
    QSI_ARCH_DEEPSEEK32, /* deepseek2 and sparse attention */
    QSI_ARCH_QWEN2, QSI_ARCH_QWEN3 /* R1's distilled models; docs/distills.md */
} qsi_arch;
typedef enum qsi_rope_scaling { QSI_ROPE_NONE, QSI_ROPE_LINEAR, QSI_ROPE_YARN } qsi_rope_scaling;
/* How a router's logits become scores; numbers as in GGUF. 0 counts as softmax. */
typedef enum qsi_gating { QSI_GATE_SOFTMAX = 1, QSI_GATE_SIGMOID = 2 } qsi_gating;

typedef struct qsi_config {
    qsi_arch arch;
    int32_t n_vocab, n_layer, d_model, n_head, n_kv_head, head_dim, d_ff;
    int32_t n_ctx;           /* trained context length */
    float rms_eps, rope_theta, rope_factor;
    qsi_rope_scaling rope_scaling;
    /* DeepSeekMoE; n_expert 0 in dense models */
    int32_t n_dense;         /* leading dense layers */
    int32_t n_expert, n_expert_used, n_shared, d_expert;
    bool norm_topk;          /* renormalise the chosen weights */
    float expert_scale;      /* weights of routed experts times this (1 when absent) */
    /* deepseek2 and 32: routing (0 or 1 group: all experts compete) */
    qsi_gating gating;
    int32_t n_group, n_group_used;
    bool gate_bias;          /* scores plus exp_probs_b choose; weights come from the scores */
    /* deepseek2 and 32: multi-head latent attention; kv_rank 0 elsewhere. head_dim is that of the naive
     * form, rotated part included; n_kv_head is n_head */
    int32_t q_rank;          /* 0: queries straight from the model's width */
    int32_t kv_rank, d_rope, d_value;
    bool kv_b_whole;         /* the file stores attn_kv_b, not attn_k_b and attn_v_b */
    /* deepseek32: sparse attention (DSA). A token with more positions up to its own than index_topk
     * attends to as many, chosen by an indexer of so many heads of such a width; 0 elsewhere */
    int32_t index_topk, index_heads, index_dim;
    /* deepseek2 and 32: layers behind the last that predict one token further (MTP, DeepSeek-V3 2.2).
     * n_layer does not count them; the first is what self-speculation drafts with */
    int32_t n_next;
    /* YaRN: attention scores times (1 + yarn_log_mul ln(rope_factor))^2 */
    int32_t rope_orig_ctx;
    float yarn_log_mul, yarn_beta_fast, yarn_beta_slow;
    float yarn_attn;         /* the bracket times this too; 0 counts as 1 */
    /* llama: the frequencies of the rotation are divided by what tensor rope_freqs holds, one value a
     * pair. Where no file has it yet it is made by Llama 3.1's rule from these (freqs_factor not 0) */
    bool rope_freqs;
    float freqs_factor, freqs_low, freqs_high;
    int32_t freqs_orig_ctx;
} qsi_config;
/* Attention over latent vectors. */
static inline bool qsi_config_is_latent(const qsi_config *c) {
    return c->arch == QSI_ARCH_DEEPSEEK2 || c->arch == QSI_ARCH_DEEPSEEK32;
}
/* Never with experts. */
static inline bool qsi_config_is_dense(const qsi_config *c) {
    return c->arch == QSI_ARCH_LLAMA || c->arch == QSI_ARCH_QWEN2 || c->arch == QSI_ARCH_QWEN3;
}
/* Queries, keys and values have a bias; queries and keys are normed head by head. */
static inline bool qsi_config_qkv_bias(const qsi_config *c) { return c->arch == QSI_ARCH_QWEN2; }
static inline bool qsi_config_qk_norm(const qsi_config *c) { return c->arch == QSI_ARCH_QWEN3; }
/* A pair that is rotated is (i, i + half), as in Hugging Face folders, not (2i, 2i + 1). */
static inline bool qsi_config_halves(const qsi_config *c) {
    return c->arch == QSI_ARCH_QWEN2 || c->arch == QSI_ARCH_QWEN3;
}
/* All layers with weights and a place in the cache. */
static inline int32_t qsi_config_blocks(const qsi_config *c) { return c->n_layer + c->n_next; }
/* Rotated part of a head. */
static inline int32_t qsi_config_rope_dim(const qsi_config *c) {
    return c->kv_rank ? c->d_rope : c->head_dim;
}
/* Width of what all heads give, entering the output projection. */
static inline int64_t qsi_config_out_dim(const qsi_config *c) {
    return (int64_t)c->n_head * (c->kv_rank ? c->d_value : c->head_dim);
}
/* What the cache keeps of a position in a layer: so many heads, keys of a width, and values of a
 * width beside them; 0: values are the first kv_rank values of the keys. */
static inline int32_t qsi_config_cache_heads(const qsi_config *c) {
    return c->kv_rank ? 1 : c->n_kv_head;
}
static inline int32_t qsi_config_cache_key(const qsi_config *c) {
    return c->kv_rank ? c->kv_rank + c->d_rope : c->head_dim;
}
static inline int32_t qsi_config_cache_value(const qsi_config *c) {
    return c->kv_rank ? 0 : c->head_dim;
}
/* Values of all that, with the indexer's key. */
static inline int64_t qsi_config_cache_row(const qsi_config *c) {
    return (int64_t)qsi_config_cache_heads(c) *
               (qsi_config_cache_key(c) + qsi_config_cache_value(c)) + c->index_dim;
}

/* Bounds every field and their relations; the text names the key. */
qs_status qsi_config_check(const qsi_config *c, qs_err *err) QS_MUST_CHECK;
qs_status qsi_config_from_gguf(qsi_config *c, const qsi_gguf *g, qs_err *err) QS_MUST_CHECK;
qs_status qsi_config_put_gguf(const qsi_config *c, qsi_gguf_writer *w) QS_MUST_CHECK;
qs_status qsi_config_from_hf(qsi_config *c, const char *json, size_t n, qs_err *err) QS_MUST_CHECK;
const char *qsi_arch_name(qsi_arch a);
/* Weights: all but those of layers that predict further, and those a token meets (embedding not
 * counted, head counted). */
int64_t qsi_config_params(const qsi_config *c, int64_t *active);

/* The tensors a configuration needs, in the order they are stored: name (GGUF names), dims (ne[0]
 * contiguous), role. Used by init, binding, training and saving alike. */
typedef enum qsi_role_t { QSI_ROLE_EMBED, QSI_ROLE_NORM, QSI_ROLE_MATRIX, QSI_ROLE_EXPERTS,
                          QSI_ROLE_ROUTER, QSI_ROLE_BIAS, QSI_ROLE_FREQS } qsi_role_t;
typedef struct qsi_tensor_spec {
    char name[64];
    int n_dims;
    int64_t ne[3];
    qsi_role_t role;
    int32_t layer;           /* -1 outside layers */
} qsi_tensor_spec;
size_t qsi_config_n_tensors(const qsi_config *c);
void qsi_config_tensor(const qsi_config *c, size_t i, qsi_tensor_spec *out);

/* ---- KV cache: pages of 64 positions, shared by all layers ---- */
#define QSI_KV_PAGE 64
typedef struct qsi_kv qsi_kv;
/* What a layer keeps of one position: n_head heads of hd_k key and hd_v value elements; v_in_k: the
 * values are the first hd_v elements of the keys and are not stored again. */
typedef struct qsi_kv_shape {
    int32_t n_head, hd_k, hd_v;
    bool v_in_k;
    int32_t hd_i; /* the indexer's key, one for all heads; 0: none */
} qsi_kv_shape;
qsi_kv_shape qsi_kv_shape_of(const qsi_config *c, int32_t layer);
/* type: QSI_F32, QSI_F16 or QSI_Q8_0. Memory is taken page by page as pages are first used. */
qs_status qsi_kv_create(qsi_kv **kv, const qsi_config *c, qsi_type type, int64_t max_pages,
                        qs_err *err) QS_MUST_CHECK;
void qsi_kv_free(qsi_kv *kv);
size_t qsi_kv_page_bytes(const qsi_kv *kv);
/* What a cache of n_pages has in memory when all are used (they lie in slabs of huge pages), and how
 * many pages a number of bytes holds. */
qs_status qsi_kv_need(const qsi_config *c, qsi_type type, int64_t n_pages, uint64_t *bytes,
                      qs_err *err) QS_MUST_CHECK;
qs_status qsi_kv_fit(const qsi_config *c, qsi_type type, uint64_t bytes, int64_t *n_pages,
                     qs_err *err) QS_MUST_CHECK;
/* A sequence's pages: position p stands in pages[p / 64]. Zero-initialise to start. */
typedef struct qsi_kv_table {
    int32_t *pages;
    size_t n_pages, cap;
} qsi_kv_table;
/* Makes room for positions [0, n_pos): QS_E_LIMIT when no page is free. */
qs_status qsi_kv_reserve(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos, qs_err *err) QS_MUST_CHECK;
/* Gives back pages beyond n_pos. */
void qsi_kv_truncate(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos);
void qsi_kv_table_release(qsi_kv *kv, qsi_kv_table *t);
/* Pages may stand in several tables, or be held by somebody without one. A page with one hold may be
 * written to: `own` makes the pages of positions from `from` on such, copying those that are shared
 * (QS_E_LIMIT: no page is free). `share` appends pages of others to a table; `take` gives a free one. */
qs_status qsi_kv_own(qsi_kv *kv, qsi_kv_table *t, int64_t from, qs_err *err) QS_MUST_CHECK;
qs_status qsi_kv_share(qsi_kv *kv, qsi_kv_table *t, const int32_t *pages, size_t n, qs_err *err)
    QS_MUST_CHECK;
qs_status qsi_kv_take(qsi_kv *kv, int32_t *page, qs_err *err) QS_MUST_CHECK;
void qsi_kv_hold(qsi_kv *kv, int32_t page);
void qsi_kv_drop(qsi_kv *kv, int32_t page);
int32_t qsi_kv_holds(const qsi_kv *kv, int32_t page);
int64_t qsi_kv_n_pages(const qsi_kv *kv);
int64_t qsi_kv_n_free(const qsi_kv *kv);
/* The bytes of a page that was taken, qsi_kv_page_bytes of them; what they mean depends on the shape and
 * on the type of the cache only. */
void *qsi_kv_page_data(const qsi_kv *kv, int32_t page);

/* ---- inference ---- */
typedef struct qsi_model qsi_model;
typedef struct qsi_model_opts {
    qsi_pool *pool;          /* borrowed */
    qsi_isa isa;             /* level of the kernels */
    int max_rows;            /* rows a step may have (chunk of prefill); 0: 512 */
    const qsi_comm *comm;    /* NULL: one process */
    uint64_t memory_bytes;   /* what the process may have in memory, this model's steps and cache
                                included: weights that do not fit are read from disk as they are
                                needed (QS_E_LIMIT: too little for that); 0: all in memory */
    uint64_t cache_bytes;    /* of it, kept free for the KV cache (qsi_kv_need); weights give way to
                                it; QS_E_LIMIT says what would fit. 0: F16, up to 4096 positions */
    bool cache_yields;       /* to less than that, where it would not fit, and to a quarter of all */
    /* rotary positions for sequences of n_ctx tokens; 0 and NULL: as the file says (see
     * rope_scaling.h: "auto", "none", "linear", "dynamic", "yarn", a factor or 0) */
    const char *rope_scaling;
    double rope_factor;
    int64_t n_ctx;
    uint64_t weight_room;    /* instead of memory_bytes: bytes for weights alone; 0: computed */
    bool plan_only;          /* with either: what would stay in memory is planned and no weight is read.
                                qsi_model_io_stats says the plan; steps are QS_E_STATE */
    bool exact;              /* quantised weights meet float activations, not int8 ones */
    bool mtp;                /* the layer that predicts further is wanted too. Where the file has
                                none, or weights do not all fit, a note says so (qsi_model_has_mtp) */
    /* A repacked copy of the weights (packed.h), used when it fits, else written anew while weights
     * are prepared; borrowed. What prevents either is a note, no error. Without use when weights do
     * not all fit. NULL: none */
    const char *packed_path;
    /* called after every tensor that was prepared, or piece of a copy that was read, with bytes, by
     * the owner's thread; may be NULL; non-zero cancels */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_model_opts;
/* Binds weights by name and shape, prepares them, and gives the pages they came from back to the
 * system. Keeps g borrowed (the mapping must outlive the model: it holds the embedding). Errors name
 * the tensor or key. */
qs_status qsi_model_open(qsi_model **m, const qsi_gguf *g, const qsi_model_opts *o, qs_err *err)
    QS_MUST_CHECK;
void qsi_model_close(qsi_model **m);
const qsi_config *qsi_model_config(const qsi_model *m);
/* QS_E_IO when a file it is mapped from changed meanwhile. */
qs_status qsi_model_intact(const qsi_model *m, qs_err *err) QS_MUST_CHECK;
int qsi_model_max_rows(const qsi_model *m);
qsi_pool *qsi_model_pool(const qsi_model *m); /* borrowed, as it was given */
/* Of memory_bytes, what KV caches may still take; UINT64_MAX without that limit. Who makes a cache
 * takes its bytes off, and gives them back (negative). */
uint64_t qsi_model_cache_room(const qsi_model *m);
void qsi_model_cache_take(qsi_model *m, int64_t bytes);

/* Running from disk (memory_bytes), since the last reset. */
typedef struct qsi_model_io {
    bool on;                 /* false: all weights are in memory, the rest is 0 */
    uint64_t file_bytes;     /* weights in the file, the embedding left out */
    uint64_t resident_bytes; /* in memory for good */
    uint64_t stream_bytes;   /* in the file, of the weights read anew in every step */
    uint64_t away_bytes;     /* in the file, of the weights that are not in memory: those, and
                                experts beyond the cache */
    uint64_t read_bytes;     /* from disk, whole blocks */
    uint64_t wasted_bytes;   /* of them, for guesses that were wrong */
    int64_t steps, wait_ns;  /* time that steps waited for the disk */
    int64_t busy_ns;         /* time that something was being read or packed */
    int64_t experts, slots;  /* experts of all layers, and how many of them the cache holds */
    int64_t uses, hits;      /* experts that steps needed; that were in the cache, or on their way as
                                certain to be used */
    int64_t guesses, foreseen; /* experts whose reading was begun, or planned, for a guess; of uses,
                                those that were guessed, and would have been missing */
    int64_t fixed_hits;      /* hits of the best fixed choice of as many experts, known afterwards */
} qsi_model_io;
void qsi_model_io_stats(qsi_model *m, qsi_model_io *out, bool reset);
/* The disk's sequential rate on this model's file, bytes per second, measured now by reading
 * `bytes`. */
qs_status qsi_model_disk_rate(qsi_model *m, uint64_t bytes, double *rate, qs_err *err) QS_MUST_CHECK;

typedef struct qsi_row {
    int32_t id;
    int32_t seq;             /* index into tables */
    int32_t pos;
    bool logits;             /* wanted */
    bool generated;          /* by this model, not a prompt's: where the two are computed on
                                different paths (latent attention), this alone chooses */
} qsi_row;
typedef struct qsi_step {
    const qsi_row *rows;     /* rows of one sequence are consecutive, positions ascending by 1 */
    int32_t n_rows;
    qsi_kv *kv;
    const qsi_kv_table *tables;
    int32_t n_tables;
    float *logits;           /* out: [rows with logits, n_vocab], in row order */
    float *hidden;           /* [n_rows, d_model] of all rows, after the final norm; NULL: not wanted */
} qsi_step;
/* Ids out of range, positions without a page: QS_E_ARG. NaN or infinity in wanted logits:
 * QS_E_NUMERIC, naming the first layer that produced one, the embedding or the output (found by a
 * second, watched run). */
qs_status qsi_model_step(qsi_model *m, const qsi_step *s, qs_err *err) QS_MUST_CHECK;

/* The layer that predicts further (DeepSeek-V3, arXiv:2412.19437, section 2.2): of position i it takes
 * hidden[i] (in, as qsi_model_step gave it) and the embedding of the token at i + 1, which is the row's
 * id, and its logits are for the token at i + 2. The row's pos is i; its cache has the pages that the
 * model's has. Errors as qsi_model_step. */
bool qsi_model_has_mtp(const qsi_model *m);
qs_status qsi_model_mtp_step(qsi_model *m, const qsi_step *s, qs_err *err) QS_MUST_CHECK;

/* ---- training ---- */
typedef enum qsi_precision { QSI_TRAIN_F32, QSI_TRAIN_BF16 } qsi_precision;
typedef struct qsi_param {
    const char *name;        /* GGUF name, whole tensor */
    int n_dims;
    int64_t ne[3], n;
    float *master, *grad;    /* owned by the trainer model */
    bool decay;              /* matrices and embeddings, not norms */
} qsi_param;
typedef struct qsi_train_opts {
    qsi_pool *pool;
    qsi_isa isa;
    qsi_precision precision; /* of products; masters, gradients and sums are float32 */
    int max_rows;            /* rows of a micro-batch */
    float balance_alpha;     /* expert-level balance loss factor (deepseek-facts 5.2) */
    bool balance_per_seq;    /* per sequence (seq_aux) or over the micro-batch */
    const qsi_comm *comm;
} qsi_train_opts;
typedef struct qsi_trainer_model qsi_trainer_model;
/* All parameters zero; fill masters by qsi_tm_init_random, or a checkpoint, or qsi_tm_load_gguf. */
qs_status qsi_tm_create(qsi_trainer_model **t, const qsi_config *c, const qsi_train_opts *o,
                        qs_err *err) QS_MUST_CHECK;
void qsi_tm_free(qsi_trainer_model *t);
size_t qsi_tm_n_params(const qsi_trainer_model *t);
qsi_param *qsi_tm_param(qsi_trainer_model *t, size_t i);
/* Normal(0, std) for matrices and embeddings (a stream of its own per tensor), ones for norms. */
void qsi_tm_init_random(qsi_trainer_model *t, uint64_t seed, float std);
qs_status qsi_tm_load_gguf(qsi_trainer_model *t, const qsi_gguf *g, qs_err *err) QS_MUST_CHECK;
/* Call after masters changed: prepares the weights for products. */
void qsi_tm_refresh(qsi_trainer_model *t);
void qsi_tm_zero_grad(qsi_trainer_model *t);

typedef struct qsi_train_batch { /* rows packed; documents are sequences, rows of one consecutive */
    int32_t n_rows;
    const int32_t *ids, *seq, *pos;
    const int32_t *targets;  /* id to predict, or -1: no loss here */
    float scale;             /* gradient and loss factor: 1 / targets of the whole global batch */
} qsi_train_batch;
typedef struct qsi_train_out {
    double loss_sum;         /* sum of -log p over rows with targets (not scaled) */
    int64_t n_targets;
    double balance;          /* balance loss, all layers, unscaled by alpha */
} qsi_train_out;
/* Forward and (backward: true) backward, accumulating into grads. The balance loss enters with
 * alpha * (rows of this micro-batch / rows of the global batch, given as balance_share). */
qs_status qsi_tm_loss(qsi_trainer_model *t, const qsi_train_batch *b, bool backward,
                      float balance_share, qsi_train_out *out, qs_err *err) QS_MUST_CHECK;
/* Tokens routed to each expert since the last call: [n_layer, n_expert] int64, dense layers 0. */
void qsi_tm_expert_load(qsi_trainer_model *t, int64_t *out);
/* Bytes of activations, gradients, masters. */
size_t qsi_tm_bytes(const qsi_trainer_model *t);

#endif
