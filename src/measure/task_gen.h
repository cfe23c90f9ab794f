/* Answers that a model writes: always the likeliest token, until a stop string, an end token or a number
 * of tokens. A prompt is continued as it is, or is the turn of a user in a conversation, whose answer's
 * text counts without its reasoning. Thread: owner. */
#ifndef QSI_MEASURE_TASK_GEN_H
#define QSI_MEASURE_TASK_GEN_H

#include "base/str.h"
#include "infer/generate.h"
#include "tok/chat.h"

typedef struct qsi_answerer {
    const qsi_vocab *vocab;        /* borrowed */
    const qsi_chat_template *chat; /* NULL: prompts are continued */
    qsi_think think;
    int64_t max_tokens;
    const char *const *stops;      /* borrowed */
    size_t n_stops;
    qsi_seq seq;
    qsi_sampler *sampler;
    qsi_rng rng;                   /* never drawn from */
    qsi_ids ids;
} qsi_answerer;

/* In place; the engine is borrowed, too. max_tokens is at least 1. Release copes with a zeroed struct. */
qs_status qsi_answerer_init(qsi_answerer *a, qsi_engine *e, const qsi_vocab *v,
                            const qsi_chat_template *chat, qsi_think think, int64_t max_tokens,
                            const char *const *stops, size_t n_stops, qs_err *err) QS_MUST_CHECK;
void qsi_answerer_release(qsi_answerer *a);
/* The answer to a prompt, into *text (cleared first). A prompt to be continued that leaves no room for
 * max_tokens (or half the context, if that is less) loses its beginning: *cut. QS_E_LIMIT: a turn that
 * does not fit the context. QS_E_CANCELLED. */
qs_status qsi_answerer_run(qsi_answerer *a, const qsi_str *prompt, const atomic_int *cancel,
                           qsi_str *text, bool *cut, qsi_finish *finish, qs_err *err) QS_MUST_CHECK;

#endif
