/* The length of a run; see plan.h. */
#include "train/plan.h"

#include <math.h>
#include <string.h>

#define EPOCHS 8
#define TOKENS_PER_PARAM 20
#define MIN_STEPS 100
#define WARMUP_MAX 200 /* by default; small models need little, 2000 is for runs of millions */

static int64_t clamp_i(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

static qs_status make_sched(qsi_plan *p, const qsi_trainconf *c, qs_err *err) {
    qs_status st = QS_OK;
    qsi_sched *s = &p->sched;
    *s = (qsi_sched){.kind = QSI_SCHED_MULTISTEP, .lr = c->lr, .min_ratio = c->min_lr_ratio};
    if (strcmp(c->schedule, "cosine") == 0) s->kind = QSI_SCHED_COSINE;
    if (strcmp(c->schedule, "constant") == 0) s->kind = QSI_SCHED_CONSTANT;
    st = qsi_sched_parse_stages(s, c->stages, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "train");
        goto done;
    }
    s->warmup_steps = c->warmup_steps;
    if (s->warmup_steps == QSI_AUTO) {
        int64_t most = c->init != NULL ? WARMUP_MAX / 4 : WARMUP_MAX;
        s->warmup_steps = p->est_steps > 0 ? clamp_i(p->est_steps / 10, 0, most) : most / 4;
    }
done:
    return st;
}

qs_status qsi_plan_make(qsi_plan *p, const qsi_trainconf *c, int64_t text_tokens, int64_t params,
                        qs_err *err) {
    qs_status st = QS_OK;
    *p = (qsi_plan){.kind = QSI_LEN_STEPS, .ckpt_steps = c->ckpt_steps,
                    .ckpt_seconds = c->ckpt_seconds};
    int given = (c->steps != QSI_AUTO) + (c->tokens != QSI_AUTO) + (c->hours != QSI_AUTO);
    if (given > 1)
        QS_FAIL(err, QS_E_ARG, "give the length as one of steps, tokens, hours");
    if (c->tokens != QSI_AUTO) {
        p->kind = QSI_LEN_TOKENS;
        p->length = (double)c->tokens;
        p->est_steps = c->tokens / c->batch_tokens + 1;
    } else if (c->hours != QSI_AUTO) {
        p->kind = QSI_LEN_HOURS;
        p->length = c->hours;
    } else {
        double tokens = fmin(EPOCHS * (double)text_tokens, TOKENS_PER_PARAM * (double)params);
        p->est_steps = c->steps;
        if (c->steps == QSI_AUTO)
            p->est_steps = (int64_t)fmax(MIN_STEPS, ceil(tokens / (double)c->batch_tokens));
        p->length = (double)p->est_steps;
    }
    QS_TRY(make_sched(p, c, err));
    int64_t steps = p->est_steps > 0 ? p->est_steps : 2000;
    p->valid_every = c->valid_steps != QSI_AUTO ? c->valid_steps : clamp_i(steps / 20, 10, 1000);
    p->sample_every = c->sample_steps != QSI_AUTO ? c->sample_steps : clamp_i(steps / 10, 20, 2000);
done:
    return st;
}

double qsi_plan_share(const qsi_plan *p, int64_t step, int64_t tokens, double elapsed_s) {
    switch (p->kind) {
    case QSI_LEN_STEPS: return (double)step / p->length;
    case QSI_LEN_TOKENS: return (double)tokens / p->length;
    default: return elapsed_s / (p->length * 3600);
    }
}

bool qsi_plan_ckpt_due(const qsi_plan *p, int64_t steps, double seconds, double step_s) {
    if (p->ckpt_steps == QSI_AUTO && p->ckpt_seconds == QSI_AUTO)
        return step_s < 3 ? steps >= 10 : seconds >= 120;
    return (p->ckpt_steps > 0 && steps >= p->ckpt_steps) ||
           (p->ckpt_seconds > 0 && seconds >= p->ckpt_seconds);
}
