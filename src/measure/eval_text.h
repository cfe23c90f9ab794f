/* How well a model predicts a text, and how near two models of one vocabulary are to each other.
 *
 * The text is read in windows of `ctx` positions, each `stride` further on; every token is scored
 * once, with at least ctx - stride positions before it as soon as the text has them. BOS, where the
 * vocabulary wants it, begins every window. Of the logits a few rows are in memory at a time; of
 * every scored token its divergence, four bytes. Natural logarithms. Thread: owner. */
#ifndef QSI_MEASURE_EVAL_TEXT_H
#define QSI_MEASURE_EVAL_TEXT_H

#include "infer/engine.h"

typedef struct qsi_eval_text_opts {
    int64_t ctx, stride;     /* 2 <= ctx, 1 <= stride < ctx (BOS counts as one) */
    int32_t bos;             /* id in front of every window; -1: none */
    const atomic_int *cancel;
    /* Tokens scored; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_eval_text_opts;

/* Means over scored tokens with their standard errors. */
typedef struct qsi_mean {
    double mean, se;
} qsi_mean;
typedef struct qsi_eval_text_report {
    int64_t n;               /* tokens scored: all, but the first where there is no BOS */
    qsi_mean nll;            /* of the model: -log p(token) */
    /* only with a base */
    qsi_mean base_nll, diff; /* of the base; nll - base_nll, paired */
    qsi_mean kl;             /* KL(base || model) */
    double kl_median, kl_p99, kl_max;
    qsi_mean agree;          /* 1 where both find the same token likeliest */
} qsi_eval_text_report;

/* ids: the text's, without BOS. base: NULL, or an engine of a model with the same vocabulary.
 * QS_E_ARG: ctx, stride, or a text of too few tokens. */
qs_status qsi_eval_text(qsi_engine *e, qsi_engine *base, const int32_t *ids, size_t n,
                        const qsi_eval_text_opts *o, qsi_eval_text_report *out, qs_err *err)
    QS_MUST_CHECK;

#endif
