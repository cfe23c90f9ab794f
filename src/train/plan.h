/* The length of a run and what follows from it: share done, warm-up, cadences. Thread: any. */
#ifndef QSI_TRAIN_PLAN_H
#define QSI_TRAIN_PLAN_H

#include "train/schedule.h"
#include "train/trainconf.h"

typedef enum qsi_length_kind { QSI_LEN_STEPS, QSI_LEN_TOKENS, QSI_LEN_HOURS } qsi_length_kind;

typedef struct qsi_plan {
    qsi_length_kind kind;
    double length;         /* steps, tokens, or hours */
    int64_t est_steps;     /* about how many; 0: by the hour */
    qsi_sched sched;
    int64_t valid_every;   /* steps */
    int64_t sample_every;
    int64_t ckpt_steps;    /* > 0: every so many steps, whatever they take */
    double ckpt_seconds;   /* > 0: every so many seconds */
} qsi_plan;

/* More than one of steps, tokens, hours: QS_E_ARG. None: eight times through the text, but no more
 * than 20 tokens a parameter and no less than 100 steps. */
qs_status qsi_plan_make(qsi_plan *p, const qsi_trainconf *c, int64_t text_tokens, int64_t params,
                        qs_err *err) QS_MUST_CHECK;
/* Share of the run done after so much, 1 or more: finished. */
double qsi_plan_share(const qsi_plan *p, int64_t step, int64_t tokens, double elapsed_s);
/* Whether a checkpoint is due: steps and seconds since the last, seconds of the last step. Without
 * settings: every 10 steps while steps are shorter than 3 s, else every two minutes. */
bool qsi_plan_ckpt_due(const qsi_plan *p, int64_t steps, double seconds, double step_s);

#endif
