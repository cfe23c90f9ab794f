/* Routers whose experts are used unevenly, for measuring what a cache of experts is worth. */
#ifndef QSI_FILES_SKEW_H
#define QSI_FILES_SKEW_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_SKEW_MOST 0.4 /* of the tokens: the largest share an expert gets */

/* Share of the tokens that the expert of rank r (from 0) gets when k of n experts serve each token:
 * proportional to (r + 1)^-s, but at most QSI_SKEW_MOST; the n shares add up to k. QS_E_ARG when s is
 * not in 0 .. 10 or k is not below 0.4 n. */
qs_status qsi_skew_shares(double s, int n, int k, double *share, qs_err *err) QS_MUST_CHECK;

/* A router: it chooses k of n experts for each token. With groups (n_group > 1) the experts compete in
 * n_group_used of them alone, which are chosen first (op.h). */
typedef struct qsi_skew_router {
    int n, k, n_group, n_group_used;
    bool sigmoid;      /* scores are sigmoids of the logits, not a softmax */
    double deviation;  /* of the logits, when all factors are 1; with a softmax nothing depends on it */
} qsi_skew_router;

/* Factors for router rows by which the expert of each rank gets its share; their mean square is 1. */
qs_status qsi_skew_factors(double s, const qsi_skew_router *r, float *by_rank, qs_err *err)
    QS_MUST_CHECK;
/* Deals ranks to experts by the random stream (seed, stream). Groups get their ranks in turns, to and
 * fro, so that all are about equally popular. */
void qsi_skew_deal(const qsi_skew_router *r, const float *by_rank, uint64_t seed, uint64_t stream,
                   float *by_expert);

#endif
