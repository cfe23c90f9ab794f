/* The scheduler's insides, shared by sched.c (the thread, the queue, the order), sched_step.c
 * (what a step takes, and what it gave) and job.c (a job and its answers). See sched.h. */
#ifndef QSI_INFER_SCHED_IMPL_H
#define QSI_INFER_SCHED_IMPL_H

#include <stdatomic.h>

#include "base/mem.h"
#include "infer/engine.h"
#include "infer/generate.h"
#include "infer/grammar.h"
#include "infer/prefix.h"
#include "infer/sched.h"
#include "infer/spec.h"
#include "sys/thread.h"

typedef enum answer_state {
    ANSWER_IDLE,     /* not begun, or over */
    ANSWER_FEEDS,    /* its ids go through the model: a prompt, or again what gave way */
    ANSWER_DECODES,
    ANSWER_AWAY      /* gave way: waits for room to be computed again */
} answer_state;

/* Where guesses come from. */
typedef enum guess_source { SOURCE_TEXT, SOURCE_SMALL, SOURCE_LAYER, N_SOURCES } guess_source;

typedef struct note note; /* an event that is kept for later (best_of) */

/* One answer of a job, or its prompt alone. */
typedef struct qsi_answer_run {
    qsi_job *job;
    int32_t index;
    answer_state state;
    qsi_seq seq;              /* has an engine while it lives */
    qsi_gen gen;
    qsi_gen_opts go;
    qsi_answer reader;
    qsi_rng rng;
    qsi_guide guide;
    qsi_matcher *matcher;     /* of its grammar; NULL: free */
    bool has_gen;
    bool again;               /* it gave way: what is computed, or taken, now was so before */
    qs_status pick_st;        /* of choosing its next id */
    qs_err pick_err;
    double sum_logprob;
    int64_t n_made;
    note *notes, *last_note;
    qsi_spec_rate rate[N_SOURCES];
    guess_source source;      /* of the drafts of its last step */
    qsi_seq small;            /* the small model's, when there is one */
    int32_t n_fed;            /* drafts of its last step */
    int64_t hits_before;
    size_t n_kept;            /* ids that the prefix cache has of it */
} qsi_answer_run;

struct qsi_job {
    atomic_int holds;         /* the scheduler's and the submitter's */
    atomic_int cancel;
    atomic_int ahead;         /* jobs that wait before it */
    qsi_sched *sched;
    int64_t number;
    qsi_job_opts o;           /* what it points to is in the arena */
    qsi_arena arena;
    qsi_answer_run *answers;  /* [best_of] */
    int32_t n_begun, n_over;
    bool running;
    qsi_seq base;             /* the prompt, computed, while answers are still to begin from it */
    bool has_base;
    double *embedding;        /* [d_model] sums; NULL without */
    int64_t n_echo;           /* ids of the prompt that were told */
    double echo_logprob;      /* of the next */
    qsi_logprob *echo_top;
    int32_t n_echo_top;
    qsi_usage usage;
    int64_t t_submit, t_start, t_first;
    qsi_job *next;            /* in the list of those that wait, or of those with a base */
};

typedef struct qsi_client {
    uint64_t id;
    double served;            /* ids, weighted */
    int32_t n_jobs;           /* now */
} qsi_client;

struct qsi_sched {
    qsi_sched_opts o;
    const qsi_runner *r;
    qsi_engine *engine;
    qsi_prefix *prefix;       /* NULL: the runner shares no pages */
    qsi_sampler **samplers;   /* [n_workers] */
    qsi_thread *thread;
    int32_t max_logits, logit_rows; /* of a step; of them for a prompt that is echoed */
    int64_t n_pages;
    /* under the monitor */
    qsi_monitor *m;
    qsi_job *waiting;         /* by number */
    int32_t n_waiting, n_waiting_answers, n_jobs; /* n_jobs: not over */
    int64_t n_numbers;
    bool drain;
    atomic_bool quit;         /* set under it, read without */
    qsi_sched_stats stats;
    qsi_slot *slots;          /* [max_seqs] */
    double row_s;             /* seconds a row of a prompt takes; 0: not measured */
    double step_s;            /* seconds of a step that only decodes */
    int64_t left_ids;         /* of the answers that run: ids to come at most */
    int64_t left_prompt;      /* ids of prompts to compute */
    /* the thread's own */
    qsi_answer_run **running; /* [max_seqs] those with a slot; NULL: free */
    qsi_job *bases;           /* jobs of which answers are to begin behind the computed prompt */
    qsi_take *takes;          /* [max_seqs] */
    qsi_answer_run **taken;   /* [max_seqs] whose they are */
    int32_t (*drafts)[QSI_MAX_DRAFTS]; /* [max_seqs] */
    int32_t *pages;           /* [n_ctx / 64 + 1] */
    qsi_engine *small;        /* of the model that drafts; NULL: none */
    double draft_s;           /* seconds that one of its drafts takes; 0: not measured */
    qsi_spec_cost cost;
    qsi_client *clients;
    size_t n_clients, cap_clients;
    int64_t n_steps;
};

/* ---- job.c ---- */
qs_status qsi_job_create(qsi_job **out, qsi_sched *s, const qsi_job_opts *o, qs_err *err)
    QS_MUST_CHECK;
void qsi_job_drop(qsi_job *j); /* a hold */
/* Tells; an unwilling listener cancels. */
void qsi_job_tell(qsi_job *j, qsi_event *e);
/* Answer 0 gets a sequence with the prompt. */
qs_status qsi_job_begin(qsi_job *j, qs_err *err) QS_MUST_CHECK;
/* Answer i begins behind a copy of the computed prompt. */
qs_status qsi_job_begin_copy(qsi_job *j, int32_t i, qs_err *err) QS_MUST_CHECK;
/* The prompt of a is computed: embeddings are told, answers begin. */
qs_status qsi_answer_begin(qsi_answer_run *a, qs_err *err) QS_MUST_CHECK;
/* Tells that a is complete, or keeps it for the choice of the best. */
void qsi_answer_over(qsi_answer_run *a, qsi_finish why);
void qsi_answer_release_run(qsi_answer_run *a);
/* All its answers are over, or it failed: the last event. */
void qsi_job_over(qsi_job *j, qs_status st, const qs_err *err);

/* ---- sched_step.c ---- */
/* One step of what runs, and all that follows from it. */
void qsi_sched_step(qsi_sched *s);
/* Takes what the cache has of a's ids by now, if that is more than it has computed. The last id is
 * computed in any case: its logits are wanted. */
qs_status qsi_sched_reuse(qsi_sched *s, qsi_answer_run *a, qs_err *err) QS_MUST_CHECK;
/* The sequence has logits: ids are chosen as long as they are known ahead. */
void qsi_sched_choose(qsi_sched *s, qsi_answer_run *a);

/* ---- sched_draft.c ---- */
/* Guesses for a, whose next id is pending, in a step that has `rows` rows of n_seqs sequences; how
 * many went to out [QSI_MAX_DRAFTS]. */
int32_t qsi_sched_guess(qsi_sched *s, qsi_answer_run *a, int32_t rows, int32_t n_seqs, int32_t *out);

/* ---- sched.c ---- */
void qsi_sched_leave(qsi_sched *s, qsi_answer_run *a); /* gives up its slot */
void qsi_sched_end_job(qsi_sched *s, qsi_job *j, qs_status st, const qs_err *err);
qsi_client *qsi_sched_client(qsi_sched *s, uint64_t id);
/* Goes a before b? */
bool qsi_sched_before(qsi_sched *s, const qsi_job *a, const qsi_job *b);

#endif
