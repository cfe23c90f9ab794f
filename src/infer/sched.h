/* The scheduler: one thread owns a model, its cache and its steps; jobs come from any thread. A
 * job is one prompt and the answers to it (or its embedding). What happens to it is told by
 * events, in order, on the scheduler's thread; the last one is always QSI_EV_END, exactly once.
 *
 * Every step takes an id of each sequence that decodes, with drafts where they pay, and fills up
 * with chunks of prompts, short enough that nobody's next token waits long. Results do not depend
 * on who else runs, on chunks, or on what was cached (model.h): seeds, and nothing else, decide an
 * answer. Prompts share their cache pages with earlier ones that begin alike (prefix.h).
 *
 * Order: by priority; within one by how much a client was served so far (a virtual clock of
 * tokens, as in Sheng et al. 2024, arXiv:2401.00588); then by arrival. Where the cache is full,
 * the sequence that came last gives way and is computed again later: its answer is the same. */
#ifndef QSI_INFER_SCHED_H
#define QSI_INFER_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "infer/sampler.h"
#include "tok/answer.h"
#include "tok/tok.h"

typedef struct qsi_runner qsi_runner;
typedef struct qsi_grammar qsi_grammar;
typedef struct qsi_token_trie qsi_token_trie;
typedef struct qsi_sched qsi_sched;
typedef struct qsi_job qsi_job;

typedef enum qsi_ev_kind {
    QSI_EV_START,    /* the prompt's turn has come: n_all ids, n_done of them were cached */
    QSI_EV_PROMPT,   /* n_done of n_all ids of the prompt are computed */
    QSI_EV_ECHO,     /* an id of the prompt with its log-probability (echo); `pos` tells which. The first
                      * id of a prompt has none: logprob is NAN, n_top 0 */
    QSI_EV_TOKEN,    /* an id of answer `index`; comes before the text that it completes */
    QSI_EV_PART,     /* text of answer `index`: whole characters. What `part` is see tok/answer.h;
                      * QSI_PART_TEXT when the job has no chat template */
    QSI_EV_FINISH,   /* answer `index` is complete: `finish` */
    QSI_EV_EMBEDDING,
    QSI_EV_END       /* of the job: status, err, usage */
} qsi_ev_kind;

/* Why an answer ended. */
typedef enum qsi_job_finish {
    QSI_JOB_END,       /* an end token, or the grammar is complete */
    QSI_JOB_STOP,      /* a stop string */
    QSI_JOB_LENGTH,    /* n_predict */
    QSI_JOB_CONTEXT    /* no position is left */
} qsi_job_finish;

typedef struct qsi_usage {
    int64_t n_prompt, n_cached;    /* ids of the prompt; those that were not computed again */
    int64_t n_generated;           /* of all answers, those of best_of that nobody sees too */
    int64_t n_drafts, n_hits;      /* speculation: ids fed ahead; those that came */
    int64_t queue_ns, prompt_ns, gen_ns;
} qsi_usage;

typedef struct qsi_event { /* valid during the call; pointers too */
    qsi_ev_kind kind;
    int32_t index;                 /* of the answer */
    int64_t n_done, n_all, pos;
    int32_t id;                    /* ECHO, TOKEN */
    double logprob;                /* of the model's own distribution */
    const qsi_logprob *top;        /* likeliest ids at that place, best first */
    int32_t n_top;
    qsi_part part;
    const char *text;              /* PART: text; ECHO, TOKEN: the id's bytes, perhaps part of a
                                    * character */
    size_t n_text;
    qsi_job_finish finish;
    const float *embedding;        /* [n_embedding], length 1 */
    int32_t n_embedding;
    qs_status status;              /* END: QS_OK, QS_E_CANCELLED, or what failed */
    const qs_err *err;
    const qsi_usage *usage;        /* END; FINISH: so far */
} qsi_event;
/* Scheduler's thread. Must not block, nor call back into the scheduler but for qsi_job_cancel. A
 * return other than 0 cancels the job. */
typedef int qsi_event_fn(void *user, const qsi_event *e);

typedef struct qsi_job_opts { /* copied by submit, texts too; chat is borrowed, grammar retained */
    const int32_t *ids;        /* the prompt, at least one id */
    size_t n_ids;
    int32_t n_lead;            /* so many ids at its end begin the answer: they go to the reader of the
                                * answer as if generated (a call that was begun for the model) */
    int32_t n, best_of;        /* answers; of best_of ones the n with the highest mean log-probability
                                * are told, after all are complete, best first */
    qsi_sampling sampling;
    uint64_t seed;             /* answer i draws from qsi_job_seed(seed, i) */
    int64_t n_predict;         /* -1: until the context is full */
    int64_t n_min;             /* no end before so many ids */
    const char *const *stops;
    size_t n_stops;
    bool ignore_end, special, strip_space;
    bool logprobs;             /* TOKEN events; without it none come */
    int32_t top_logprobs;      /* with that many alternatives */
    bool echo;                 /* ECHO events, with as many alternatives */
    bool embed;                /* no answer but the mean of the last layer's states */
    bool no_cache;             /* the prompt is computed anew, and not kept */
    qsi_grammar *grammar;      /* the answer's text keeps to it, behind the reasoning; NULL: free */
    const qsi_chat_template *chat; /* the answer is taken apart; NULL: it is text as it comes */
    qsi_think think;
    const qsi_tool *tools;
    size_t n_tools;
    int32_t priority;          /* higher goes first */
    uint64_t client;           /* whose it is: clients share alike */
    int64_t deadline_ns;       /* on the clock of qsi_now_ns: cancelled then; 0: none */
    qsi_event_fn *on_event;
    void *user;
} qsi_job_opts;
void qsi_job_opts_init(qsi_job_opts *o); /* one answer, sampler's defaults, no limit */

/* Ids are fed ahead of what is known: never; as long as measured time says that it pays; always. */
typedef enum qsi_speculate {
    QSI_SPECULATE_NEVER, QSI_SPECULATE_PAYING, QSI_SPECULATE_ALWAYS
} qsi_speculate;

typedef struct qsi_sched_opts {
    const qsi_runner *runner;  /* borrowed */
    const qsi_vocab *vocab;    /* borrowed */
    qsi_token_trie *trie;      /* of the vocabulary, borrowed, for grammars; NULL: none can be asked
                                * for */
    int32_t max_seqs;          /* sequences that run at once */
    int32_t max_queue;         /* answers that wait beyond those */
    bool exact_cache;          /* latent attention: generated ids are no substitute for a prompt's */
    qsi_speculate speculate;   /* drafts by what was said before, by the model's own further layer */
    const qsi_runner *draft;   /* of a small model of the same vocabulary that drafts where `speculate`
                                * lets it; NULL: none */
    const char *cache_path;    /* file that the prefix cache is kept in over restarts; NULL: none */
    uint64_t cache_key;        /* of weights, template, vocabulary, settings that decide values */
    uint64_t cache_bytes;      /* most that file may have */
} qsi_sched_opts;
/* Starts the thread. */
qs_status qsi_sched_create(qsi_sched **s, const qsi_sched_opts *o, qs_err *err) QS_MUST_CHECK;
/* Cancels what is left (their END events come), keeps the prefix cache, ends the thread. Owner. */
void qsi_sched_free(qsi_sched *s);
/* No job is taken any more (QS_E_STATE); returns when none is left or at the deadline (qsi_now_ns;
 * 0: none), false then. Any thread. */
bool qsi_sched_drain(qsi_sched *s, int64_t deadline_ns);

/* What a job of that size may expect now. Any thread. */
typedef struct qsi_forecast {
    bool fits;                 /* the cache can hold it at all */
    int64_t most_ids;          /* that a sequence may have */
    bool room;                 /* the queue takes it */
    int32_t ahead;             /* jobs that wait before it */
    double first_s, finish_s;  /* until its first and its last token, by measured speed; negative while
                                * nothing was measured yet */
} qsi_forecast;
void qsi_sched_forecast(qsi_sched *s, int64_t n_prompt, int64_t n_predict, int32_t n_answers,
                        qsi_forecast *out);

/* Any thread. QS_E_ARG: an option out of range; QS_E_LIMIT: it never fits; QS_E_STATE: the queue is
 * full, or the scheduler is being drained. Events may come before this returns. On failure none
 * come. */
qs_status qsi_sched_submit(qsi_sched *s, const qsi_job_opts *o, qsi_job **job, qs_err *err)
    QS_MUST_CHECK;
/* Ends a job at the next step, in its prompt too; END comes with QS_E_CANCELLED, unless it was
 * over. Any thread, before release. */
void qsi_job_cancel(qsi_job *j);
/* Jobs that wait before it, 0 when it runs. Any thread. */
int32_t qsi_job_ahead(qsi_job *j);
/* The submitter's hold on it, to be given up once, before or after its END. */
void qsi_job_release(qsi_job *j);
uint64_t qsi_job_seed(uint64_t seed, int32_t index);

typedef struct qsi_sched_stats {
    int64_t n_jobs, n_cancelled, n_failed;      /* that ended, so far */
    int64_t n_prompt, n_cached, n_generated;    /* ids */
    int64_t n_drafts, n_hits, n_preempted, n_steps;
    double prompt_s, decode_s, busy_s;          /* time of steps: with prompts, without, together */
    int32_t n_running, n_waiting;               /* answers, jobs; now */
    int64_t pages, pages_used, pages_cached;    /* of 64 positions; cached: kept for prefixes alone */
} qsi_sched_stats;
void qsi_sched_stats_get(qsi_sched *s, qsi_sched_stats *out); /* any thread */

typedef struct qsi_slot {
    int64_t job;               /* a number of its own, -1: free */
    int32_t index;             /* of its answer */
    bool prompt;               /* computes the prompt */
    int64_t n_prompt, n_past, n_generated;
} qsi_slot;
/* Up to n slots as they are now; returns max_seqs. Any thread. */
int32_t qsi_sched_slots(qsi_sched *s, qsi_slot *out, int32_t n);
int64_t qsi_job_number(const qsi_job *j);

#endif
