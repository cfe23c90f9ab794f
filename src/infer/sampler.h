/* Choosing the next id from logits: logit bias, penalties, top-k, top-p, min-p, temperature, draw,
 * in this order (that of llama.cpp's default chain, so that its users find their settings again).
 *
 * Deterministic: candidates are ordered by logit, ties by the lower id; sums run in that order, or
 * by id where nothing is cut, in double; one draw of the generator a token, none when greedy. The
 * same logits, settings, history and generator give the same id.
 * Sources: Holtzman et al. 2020 (top-p), Keskar et al. 2019 (repetition penalty), Nguyen et al.
 * 2024 (min-p). Thread: owner. */
#ifndef QSI_INFER_SAMPLER_H
#define QSI_INFER_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

typedef struct qsi_logit_bias {
    int32_t id;
    float bias;               /* added to the logit; -INFINITY forbids the id */
} qsi_logit_bias;

typedef struct qsi_sampling {
    double temp;              /* 0 or less: the likeliest id */
    int32_t top_k;            /* 0 or less: all */
    double top_p;             /* 1 or more: all */
    double min_p;             /* 0 or less: all */
    double repeat_penalty;    /* 1: none */
    double presence_penalty;  /* 0: none */
    double frequency_penalty; /* 0: none */
    int32_t penalty_last_n;   /* window of the penalties: 0 none, -1 the whole history */
    const qsi_logit_bias *bias; /* borrowed; several entries for one id add up */
    size_t n_bias;
    const uint32_t *mask;     /* borrowed: bit id % 32 of word id / 32 is set for ids that may come;
                               * NULL: all */
} qsi_sampling;

/* Temperature 0.7, top-p 0.95, everything else off (window 64). */
void qsi_sampling_default(qsi_sampling *s);
/* Finite numbers, sensible signs, bias ids below n_vocab: QS_E_ARG names the setting. */
qs_status qsi_sampling_check(const qsi_sampling *s, int32_t n_vocab, qs_err *err) QS_MUST_CHECK;

typedef struct qsi_logprob {
    int32_t id;
    double logprob;
} qsi_logprob;

/* Working memory for one vocabulary; one sampler serves any number of sequences in turn. */
typedef struct qsi_sampler qsi_sampler;
qs_status qsi_sampler_create(qsi_sampler **out, int32_t n_vocab, qs_err *err) QS_MUST_CHECK;
void qsi_sampler_free(qsi_sampler *sm);

/* logits [n_vocab] are not changed. history: the sequence so far, prompt included (the penalties'
 * window is its end). QS_E_NUMERIC when no id is left (everything forbidden, or NaN). No
 * allocation. */
qs_status qsi_sampler_pick(qsi_sampler *sm, const qsi_sampling *s, const float *logits,
                           const int32_t *history, size_t n_history, qsi_rng *rng, int32_t *id,
                           qs_err *err) QS_MUST_CHECK;

/* The likeliest id; ties: the lowest. n is 1 or more. */
int32_t qsi_argmax(const float *x, int32_t n);
/* log softmax of unmodified logits: of one id, and the k likeliest, best first (ties: lower id).
 * top may be NULL when k is 0; k is cut to n_vocab. Sums by id in double. */
double qsi_logprob_of(const float *logits, int32_t n_vocab, int32_t id);
int32_t qsi_logprob_top(qsi_sampler *sm, const float *logits, int32_t k, qsi_logprob *top);

#endif
