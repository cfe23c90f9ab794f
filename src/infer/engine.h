/* Sequences over the model's step: prompts are cut into chunks, decoded ids follow, several
 * sequences share one step. A sequence is a list of ids; the first `n_past` of them stand in the
 * cache, the rest are pending. Running feeds what is pending and leaves the logits that follow the
 * last id.
 *
 * Where the model can draft (MTP), a sequence that decodes alone feeds with its new id the draft of the
 * one after it, ahead of what is known: when that id is then pushed, its logits are there already. A
 * step's rows do not influence each other, so logits are those of a run without drafts, bit for bit.
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

typedef struct qsi_runner {
    void *user;
    int32_t n_vocab;
    int32_t max_rows;   /* rows a step may have */
    int64_t n_ctx;      /* positions a sequence may have */
    qs_status (*step)(void *user, const qsi_step *s, qs_err *err); /* s->kv is filled in by it */
    qs_status (*reserve)(void *user, qsi_kv_table *t, int64_t n_pos, qs_err *err);
    void (*truncate)(void *user, qsi_kv_table *t, int64_t n_pos);
    void (*release)(void *user, qsi_kv_table *t);
    int32_t d_hidden;   /* width of the hidden states that drafting needs; 0: the model cannot */
    qs_status (*draft)(void *user, const qsi_step *s, qs_err *err); /* as qsi_model_mtp_step */
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
void qsi_model_runner_release(qsi_model_runner *r);

typedef struct qsi_engine qsi_engine;
/* max_seqs: sequences one run may have. The runner is borrowed. */
qs_status qsi_engine_create(qsi_engine **e, const qsi_runner *r, int32_t max_seqs, qs_err *err)
    QS_MUST_CHECK;
void qsi_engine_free(qsi_engine *e);
const qsi_runner *qsi_engine_runner(const qsi_engine *e);

typedef struct qsi_seq {
    qsi_engine *engine;
    int32_t *ids;
    bool *generated;    /* of each id: made by this model; such ids are fed on the decode path */
    size_t n_ids, cap, generated_cap;
    size_t n_past;      /* ids in the cache; <= n_ids */
    bool has_logits;    /* logits follow ids[n_ids - 1] */
    float *logits;      /* [n_vocab] */
    qsi_kv_table table;
    /* drafting */
    float *hidden;      /* [2, d_hidden]: the first n_hidden are of the positions before n_past; one
                           more is of the draft */
    int32_t n_hidden;   /* 0: they are gone; what is drafted next may be poor */
    int32_t ahead;      /* id fed at position n_past before it is known to come; -1: none */
    float *ahead_logits; /* [n_vocab] that follow it */
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
/* Makes the sequence equal to ids, keeping the cache of the common beginning, generated ids in it as
 * they were computed; what is fed anew counts as prompt. *n_kept (optional) is the length kept. The
 * last id is always fed again, so that a run yields logits. Errors as push; the sequence is then
 * unchanged. */
qs_status qsi_seq_set(qsi_seq *s, const int32_t *ids, size_t n, size_t *n_kept, qs_err *err)
    QS_MUST_CHECK;

/* Feeds everything pending of all sequences; each has logits afterwards (a sequence without ids is
 * QS_E_STATE). cancel (may be NULL): QS_E_CANCELLED between steps when set; what was fed stays fed,
 * and the run can be repeated. */
qs_status qsi_engine_run(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs, const atomic_int *cancel,
                         qs_err *err) QS_MUST_CHECK;

/* Logits of every position of ids, from an empty cache, in chunks: fn gets position pos and the
 * logits that follow ids[pos]; non-zero ends the walk with QS_E_CANCELLED. */
typedef int qsi_logits_fn(void *user, size_t pos, const float *logits);
qs_status qsi_engine_walk(qsi_engine *e, const int32_t *ids, size_t n, qsi_logits_fn *fn, void *user,
                          const atomic_int *cancel, qs_err *err) QS_MUST_CHECK;

#endif
