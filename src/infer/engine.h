/* Sequences over the model's step: prompts are cut into chunks, decoded ids follow, several
 * sequences share one step. A sequence is a list of ids; the first `n_past` of them stand in the
 * cache, the rest are pending. Running feeds what is pending and leaves the logits that follow the
 * last id.
 *
 * Drafts are ids fed ahead of what is known (from the model's own further layer, MTP; or from
 * whoever has a guess): when such an id is then pushed, its logits are there already. A step's
 * rows do not influence each other, so logits are those of a run without drafts, bit for bit.
 *
 * What the engine needs of a model stands behind qsi_runner, so that tests script the logits.
 * Thread: an engine and its sequences have one owner; the cancel flag may be set from any thread or
 * signal handler and is read before every step. */
#ifndef QSI_INFER_ENGINE_H
#define QSI_INFER_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "model/model.h"

/* Pages of 64 positions that several sequences may have; functions as those of model.h. */
typedef struct qsi_page_fns {
    qs_status (*own)(void *user, qsi_kv_table *t, int64_t from, qs_err *err);
    qs_status (*share)(void *user, qsi_kv_table *t, const int32_t *pages, size_t n, qs_err *err);
    qs_status (*take)(void *user, int32_t *page, qs_err *err);
    void (*hold)(void *user, int32_t page);
    void (*drop)(void *user, int32_t page);
    int32_t (*holds)(void *user, int32_t page);
    int64_t (*n_free)(void *user);
    void *(*data)(void *user, int32_t page);
    int64_t n_pages;
    size_t bytes;       /* of a page's data */
} qsi_page_fns;

typedef struct qsi_runner {
    void *user;
    int32_t n_vocab;
    int32_t max_rows;   /* rows a step may have */
    int64_t n_ctx;      /* positions a sequence may have */
    qs_status (*step)(void *user, const qsi_step *s, qs_err *err); /* s->kv is filled in by it */
    qs_status (*reserve)(void *user, qsi_kv_table *t, int64_t n_pos, qs_err *err);
    void (*truncate)(void *user, qsi_kv_table *t, int64_t n_pos);
    void (*release)(void *user, qsi_kv_table *t);
    int32_t d_model;    /* width of hidden states; 0: it gives none */
    int32_t d_hidden;   /* the same where the model can draft; 0: it cannot */
    qs_status (*draft)(void *user, const qsi_step *s, qs_err *err); /* as qsi_model_mtp_step */
    bool two_paths;     /* prompts and generated ids are computed on different paths (latent attention):
                         * their cache differs by rounding */
    /* Runs fn(arg, worker, n_workers) on every thread the model computes with; NULL: there is
     * one. */
    void (*parallel)(void *user, void (*fn)(void *arg, int worker, int n_workers), void *arg);
    int n_workers;
    qsi_page_fns pages; /* own NULL: pages are not shared */
} qsi_runner;

/* The runner of an open model with a cache of its own for n_ctx positions a sequence. The model is
 * borrowed. Release after the engines that use it. */
typedef struct qsi_model_runner {
    qsi_runner runner;
    qsi_model *model;
    qsi_kv *kv;
    const qsi_gguf *file;    /* borrowed: asked after every step whether it is intact; may be NULL */
    uint64_t cache_bytes;    /* taken of the model's room for caches */
} qsi_model_runner;
/* A cache of pages for max_seqs sequences of n_ctx positions, or for as many, one at least, as the
 * model's limit of memory leaves room for (QS_E_LIMIT otherwise: how long it may be). n_ctx 0: the
 * model's context, or as much of it as there is room for, which the log then says. */
qs_status qsi_model_runner_init(qsi_model_runner *r, qsi_model *m, int64_t n_ctx, qsi_type kv_type,
                                int32_t max_seqs, qs_err *err) QS_MUST_CHECK;
/* The same with a cache of n_pages, whatever the sequences are. */
qs_status qsi_model_runner_init_pages(qsi_model_runner *r, qsi_model *m, int64_t n_ctx,
                                      qsi_type kv_type, int64_t n_pages, qs_err *err) QS_MUST_CHECK;
void qsi_model_runner_release(qsi_model_runner *r);

typedef struct qsi_engine qsi_engine;
/* max_seqs: sequences one run may have; max_logits: rows of a step that may have logits, max_seqs
 * at least (2 at least where the runner drafts). The runner is borrowed. */
qs_status qsi_engine_create(qsi_engine **e, const qsi_runner *r, int32_t max_seqs, qs_err *err)
    QS_MUST_CHECK;
qs_status qsi_engine_create_wide(qsi_engine **e, const qsi_runner *r, int32_t max_seqs,
                                 int32_t max_logits, qs_err *err) QS_MUST_CHECK;
void qsi_engine_free(qsi_engine *e);
const qsi_runner *qsi_engine_runner(const qsi_engine *e);

#define QSI_MAX_DRAFTS 8

/* A position of a sequence was computed: logits [n_vocab] that follow it and its hidden state
 * [d_model], where the sequence asks for them, else NULL. */
typedef void qsi_row_fn(void *user, size_t pos, const float *logits, const float *hidden);

typedef struct qsi_seq {
    qsi_engine *engine;
    int32_t *ids;
    bool *generated;    /* of each id: made by this model; such ids are fed on the decode path */
    size_t n_ids, cap, generated_cap;
    size_t n_past;      /* ids in the cache; <= n_ids */
    bool has_logits;    /* logits follow ids[n_ids - 1] */
    float *logits;      /* [n_vocab] */
    qsi_kv_table table;
    /* asks for what every position gives; set before ids are pushed */
    qsi_row_fn *on_row;
    void *on_user;
    bool row_logits, row_hidden;
    /* drafts: ids fed from position n_past on before they are known to come */
    int32_t ahead[QSI_MAX_DRAFTS];
    int32_t n_ahead, at_ahead; /* those from at_ahead on may still come */
    float *ahead_logits; /* [QSI_MAX_DRAFTS, n_vocab] that follow them; NULL until first used */
    float *hidden;      /* [1 + QSI_MAX_DRAFTS, d_hidden]: the first n_hidden are of the positions before
                           n_past; those behind them of the drafts */
    int32_t n_hidden;   /* 0: they are gone; what is drafted next may be poor */
    int64_t n_drafts, n_hits; /* drafts fed; those that came, so far */
} qsi_seq;
/* In place; release copes with a zeroed struct. */
qs_status qsi_seq_init(qsi_seq *s, qsi_engine *e, qs_err *err) QS_MUST_CHECK;
void qsi_seq_release(qsi_seq *s);

/* Appends ids, to be fed by the next run. QS_E_ARG: an id out of range (position named).
 * QS_E_LIMIT: more than n_ctx; nothing is appended. */
qs_status qsi_seq_push(qsi_seq *s, const int32_t *ids, size_t n, qs_err *err) QS_MUST_CHECK;
/* The same for an id picked from the sequence's logits. */
qs_status qsi_seq_push_generated(qsi_seq *s, int32_t id, qs_err *err) QS_MUST_CHECK;
/* Keeps the first n ids (n <= n_ids) and what the cache holds of them. */
void qsi_seq_truncate(qsi_seq *s, size_t n);
/* Makes the sequence equal to ids, keeping the cache of the common beginning, generated ids in it
 * as they were computed; what is fed anew counts as prompt. *n_kept (optional) is the length kept.
 * The last id is always fed again, so that a run yields logits. Errors as push; the sequence is
 * then unchanged. */
qs_status qsi_seq_set(qsi_seq *s, const int32_t *ids, size_t n, size_t *n_kept, qs_err *err)
    QS_MUST_CHECK;

/* Feeds everything pending of all sequences; each has logits afterwards (a sequence without ids is
 * QS_E_STATE). cancel (may be NULL): QS_E_CANCELLED between steps when set; what was fed stays fed,
 * and the run can be repeated. */
qs_status qsi_engine_run(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs, const atomic_int *cancel,
                         qs_err *err) QS_MUST_CHECK;

/* What a step takes of a sequence: the first n_rows of its pending ids, at least one; when those
 * are all, drafts may follow. */
typedef struct qsi_take {
    qsi_seq *seq;
    int32_t n_rows, n_drafts;
    const int32_t *drafts;
} qsi_take;
/* One step. Rows in all at most the runner's max_rows; rows with logits (of each sequence that is
 * then complete one, of each draft one, of sequences with row_logits all) at most max_logits. When
 * it fails nothing was fed. */
qs_status qsi_engine_step(qsi_engine *e, const qsi_take *takes, size_t n, qs_err *err) QS_MUST_CHECK;
/* Of a sequence whose one pending id was fed as a draft: it is in the cache, its logits are there,
 * true. Otherwise the drafts are forgotten. */
bool qsi_seq_settle(qsi_seq *s);
/* The model's own draft of the id after the pending one; *id -1: it cannot tell. */
qs_status qsi_engine_draft(qsi_engine *e, qsi_seq *s, int32_t *id, qs_err *err) QS_MUST_CHECK;
/* Makes `to`, which has no ids, equal to `from`, sharing its pages and copying its logits. The
 * runner shares pages. */
qs_status qsi_seq_fork(qsi_seq *to, const qsi_seq *from, qs_err *err) QS_MUST_CHECK;
/* Of a sequence that has computed nothing yet: its first n ids (not more than it has) stand in
 * these pages, the last of which perhaps holds more. The runner shares pages. */
qs_status qsi_seq_reuse(qsi_seq *s, size_t n, const int32_t *pages, qs_err *err) QS_MUST_CHECK;
/* Gives its pages back; all its ids are pending again, those that were generated as such. */
void qsi_seq_rewind(qsi_seq *s);

/* Logits of every position of ids, from an empty cache, in chunks: fn gets position pos and the
 * logits that follow ids[pos]; non-zero ends the walk with QS_E_CANCELLED. */
typedef int qsi_logits_fn(void *user, size_t pos, const float *logits);
qs_status qsi_engine_walk(qsi_engine *e, const int32_t *ids, size_t n, qsi_logits_fn *fn, void *user,
                          const atomic_int *cancel, qs_err *err) QS_MUST_CHECK;

#endif
