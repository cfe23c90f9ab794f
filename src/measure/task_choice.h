/* How likely a model finds each of several continuations of a prompt.
 *
 * A continuation's log-likelihood is the sum over its tokens, given the prompt and its own tokens
 * before. Where prompt and continuation meet, the ids are those of the whole text: of these the first
 * as many as the prompt has alone count as the prompt. The prompt is computed once for all of them.
 * What is longer than the context loses ids at its beginning (BOS stays). Natural logarithms. Thread:
 * owner. */
#ifndef QSI_MEASURE_TASK_CHOICE_H
#define QSI_MEASURE_TASK_CHOICE_H

#include "base/str.h"
#include "infer/walk.h"
#include "tok/tok.h"

typedef struct qsi_chooser {
    qsi_walk walk;
    const qsi_vocab *vocab; /* borrowed */
    qsi_ids ids;            /* prompt and continuation */
    qsi_ids fed;            /* ids whose last position's logits are in walk.logits; empty: none */
} qsi_chooser;

/* In place; engine and vocabulary are borrowed. Release copes with a zeroed struct. */
qs_status qsi_chooser_init(qsi_chooser *c, qsi_engine *e, const qsi_vocab *v, qs_err *err)
    QS_MUST_CHECK;
void qsi_chooser_release(qsi_chooser *c);
/* Log-likelihoods ll[n] of the continuations. *cut: something did not fit the context. QS_E_LIMIT: a
 * continuation is longer than the context; QS_E_FORMAT: text that is not UTF-8; QS_E_CANCELLED. */
qs_status qsi_chooser_run(qsi_chooser *c, const qsi_str *prompt, const qsi_str *next, int32_t n,
                          const atomic_int *cancel, double *ll, bool *cut, qs_err *err) QS_MUST_CHECK;

#endif
