/* How well a model predicts a text, and how near two models of one vocabulary are to each other.
 *
 * The text is read in windows of `ctx` positions, each `stride` further on; every token is scored
 * once, with at least ctx - stride positions before it as soon as the text has them. BOS, where the
 * vocabulary wants it, begins every window. Of the logits a few rows are in memory at a time; of
 * every scored token its divergence, four bytes. Natural logarithms.
 *
 * Every window is summed up by itself, and the sums of the windows are added in their order. So a
 * journal that has a line for each window is all it takes to go on, and the report is that of an
 * unbroken run to the last bit. Thread: owner. */
#ifndef QSI_MEASURE_EVAL_TEXT_H
#define QSI_MEASURE_EVAL_TEXT_H

#include "base/str.h"
#include "infer/engine.h"

/* Divergences that a line of a journal may hold: with a base and a journal no window is longer. */
#define QSI_EVAL_LINE_TOKENS ((int64_t)1 << 19)

typedef struct qsi_eval_text_opts {
    int64_t ctx, stride;     /* 2 <= ctx, 1 <= stride < ctx (BOS counts as one) */
    int32_t bos;             /* id in front of every window; -1: none */
    const char *journal;     /* path of one (task_journal.h) that gets a line a window; NULL: none */
    const char *head;        /* its first line, JSON: all that decides the results */
    bool resume;             /* go on where it ends */
    const atomic_int *cancel;
    /* Tokens scored by this call, and to be scored by it; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_eval_text_opts;

/* Means over scored tokens with their standard errors. */
typedef struct qsi_mean {
    double mean, se;
} qsi_mean;
typedef struct qsi_eval_text_report {
    int64_t n;               /* tokens scored: all, but the first where there is no BOS */
    int64_t n_resumed;       /* of these, scored before the journal was gone on with */
    qsi_mean nll;            /* of the model: -log p(token) */
    /* only with a base */
    qsi_mean base_nll, diff; /* of the base; nll - base_nll, paired */
    qsi_mean kl;             /* KL(base || model) */
    double kl_median, kl_p99, kl_max;
    qsi_mean agree;          /* 1 where both find the same token likeliest */
} qsi_eval_text_report;

/* ids: the text's, without BOS. base: NULL, or an engine of a model with the same vocabulary.
 * QS_E_ARG: ctx, stride, or a text of too few tokens. QS_E_STATE, QS_E_FORMAT: the journal is of
 * something else, or exists and is not to be gone on with, or has lines of no such run. QS_E_NUMERIC:
 * the model gave no number. QS_E_CANCELLED: windows that are done stand in the journal. */
qs_status qsi_eval_text(qsi_engine *e, qsi_engine *base, const int32_t *ids, size_t n,
                        const qsi_eval_text_opts *o, qsi_eval_text_report *out, qs_err *err)
    QS_MUST_CHECK;
/* Appends {"value":mean,"se":its error}; of one item alone there is none: null. */
qs_status qsi_mean_json(qsi_str *out, const qsi_mean *m) QS_MUST_CHECK;

#endif
