/* One generation of one sequence: logits -> sampler -> id -> whole characters -> stop rules, as a
 * state that takes one id at a time, so that several can share the engine's steps.
 * Thread: owner. */
#ifndef QSI_INFER_GENERATE_H
#define QSI_INFER_GENERATE_H

#include "infer/engine.h"
#include "infer/sampler.h"
#include "infer/stop.h"
#include "tok/answer.h"
#include "tok/tok.h"

typedef enum qsi_finish {
    QSI_FINISH_END,       /* an end token */
    QSI_FINISH_STOP,      /* a stop string */
    QSI_FINISH_LENGTH,    /* n_predict */
    QSI_FINISH_CONTEXT,   /* no position is left */
    QSI_FINISH_CANCELLED,
    QSI_FINISH_CALLBACK
} qsi_finish;

typedef struct qsi_gen_token {
    int32_t id;
    double logprob;           /* of the unmodified distribution */
    const qsi_logprob *top;
    int32_t n_top;
    const char *text;         /* bytes of the id, perhaps part of a character */
    size_t n_text;
} qsi_gen_token;

#define QSI_MAX_TOP_LOGPROBS 1000

/* What the answer's text must keep to (a grammar), id by id. It holds behind the reasoning. */
typedef struct qsi_guide {
    /* Bits of the ids that may come, as qsi_sampling.mask, of ids 0 to n_ids - 1 (no other may); valid
     * until accept. NULL: it failed, err says why. */
    const uint32_t *(*mask)(void *user, qs_err *err);
    int32_t n_ids;
    bool (*accept)(void *user, int32_t id); /* false: it may not */
    bool (*done)(void *user);               /* nothing but the end may come */
    void *user;
} qsi_guide;

typedef struct qsi_gen_opts { /* borrowed while the generation lives */
    qsi_sampling sampling;
    int64_t n_predict;        /* -1: no limit */
    const char *const *stops;
    size_t n_stops;
    int64_t n_min;            /* end tokens are not chosen before so many ids */
    bool ignore_end;          /* end tokens are never chosen */
    const qsi_guide *guide;   /* NULL: free */
    bool special;             /* control tokens appear in the text */
    bool strip_space;         /* one space at the text's beginning is not part of it */
    qsi_answer *answer;       /* takes the text apart; may be NULL. Then on_text hears nothing, and
                               * stop strings are looked for between two markers */
    int32_t top_logprobs;
    /* May be NULL. A return other than 0 ends the generation. */
    int (*on_text)(void *user, const char *p, size_t n);
    int (*on_token)(void *user, const qsi_gen_token *t);
    void *user;
} qsi_gen_opts;

typedef struct qsi_gen {
    const qsi_gen_opts *opts;
    qsi_seq *seq;
    qsi_sampler *sampler;
    const qsi_vocab *vocab;
    qsi_rng *rng;
    qsi_sampling sampling;    /* with the end tokens forbidden where asked */
    qsi_logit_bias *bias;     /* the user's, then one for each end token */
    size_t n_bias, n_ends;
    uint32_t *mask;           /* the ids that the guide lets come */
    qsi_logprob *top;
    size_t start;             /* ids before this index are the prompt */
    bool at_start;            /* nothing of the text was seen yet */
    qsi_detok detok;
    qsi_stop stop;
    qsi_str piece, fresh;
    qsi_str text;             /* all that was shown, but for markers */
    bool done;
    qsi_finish finish;
    /* what pick has found, for accept */
    enum { QSI_PICK_NONE, QSI_PICK_ID, QSI_PICK_END } picked;
    int32_t id, n_top;
    double logprob;
    qsi_finish why;
} qsi_gen;

/* The sequence holds the prompt. All pointers are borrowed until release, which copes with a zeroed
 * struct. Settings out of range: QS_E_ARG. */
qs_status qsi_gen_init(qsi_gen *g, const qsi_gen_opts *o, qsi_seq *seq, qsi_sampler *sampler,
                       const qsi_vocab *vocab, qsi_rng *rng, qs_err *err) QS_MUST_CHECK;
void qsi_gen_release(qsi_gen *g);
/* The last n ids of the prompt begin the answer: they are shown, or given to the reader, as if
 * they had been generated. Once, before the first accept. */
qs_status qsi_gen_lead(qsi_gen *g, size_t n, qs_err *err) QS_MUST_CHECK;
/* The sequence has logits: finds what comes next, an id or the end, without showing it.
 * Generations of different sequences may do so at the same time, each thread with a sampler of its
 * own. */
qs_status qsi_gen_pick(qsi_gen *g, qsi_sampler *sampler, qs_err *err) QS_MUST_CHECK;
/* The sequence has logits: chooses the next id (unless pick has), appends it, shows what is
 * certain; or sets done and finish, and shows what was held back. */
qs_status qsi_gen_accept(qsi_gen *g, qs_err *err) QS_MUST_CHECK;
/* Ends it from outside (cancelled): shows what was held back. */
qs_status qsi_gen_end(qsi_gen *g, qsi_finish why, qs_err *err) QS_MUST_CHECK;
/* How many generated ids spell exactly the shown text (they can stand for it in a history), or -1
 * when a stop string ended inside a token. */
int64_t qsi_gen_exact_ids(const qsi_gen *g);

/* Runs it alone to its end. Cancelling is an end, not an error. t_first_ns (may be NULL): when the
 * first logits were there. */
qs_status qsi_gen_run(qsi_gen *g, const atomic_int *cancel, int64_t *t_first_ns, qs_err *err)
    QS_MUST_CHECK;

#endif
