/* Learning-rate schedules: linear warm-up, then multi-step (DeepSeek's), cosine or constant.
 * Source: deepseek-facts 5.1 (1, 0.316 and 0.1 of the maximum, changed at 80 % and 90 % of the
 * tokens); cosine: Loshchilov and Hutter 2017, one cycle. Pure functions. Thread: any. */
#ifndef QSI_TRAIN_SCHEDULE_H
#define QSI_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "base/status.h"

#define QSI_SCHED_MAX_STAGES 8

typedef enum qsi_sched_kind { QSI_SCHED_MULTISTEP, QSI_SCHED_COSINE, QSI_SCHED_CONSTANT }
    qsi_sched_kind;

typedef struct qsi_sched {
    qsi_sched_kind kind;
    double lr;             /* maximum */
    int64_t warmup_steps;  /* step s of them (from 0) has (s + 1) / warmup_steps of the rate */
    double min_ratio;      /* cosine ends at this share of the maximum */
    int n_stages;          /* multi-step: from share at[i] of the run on, factor[i] */
    double at[QSI_SCHED_MAX_STAGES], factor[QSI_SCHED_MAX_STAGES];
} qsi_sched;

/* DeepSeek's stages. */
void qsi_sched_default_stages(qsi_sched *s);
/* "0.8:0.316, 0.9:0.1": shares ascending in (0, 1), factors positive. */
qs_status qsi_sched_parse_stages(qsi_sched *s, const char *text, qs_err *err) QS_MUST_CHECK;
/* Rate of step `step` (from 0); share: of the run already done when it begins, in [0, 1]. */
double qsi_sched_lr(const qsi_sched *s, int64_t step, double share);
/* Share at which the last stages begin: a run may be lengthened from any point before it. 1 when
 * there are none (constant), 0 for cosine, whose every step knows the length. */
double qsi_sched_decay_from(const qsi_sched *s);

#endif
