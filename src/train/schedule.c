/* Learning-rate schedules; see schedule.h. */
#include "train/schedule.h"

#include <math.h>

#define PI 3.14159265358979323846

void qsi_sched_default_stages(qsi_sched *s) {
    s->n_stages = 2;
    s->at[0] = 0.8;
    s->factor[0] = 0.316;
    s->at[1] = 0.9;
    s->factor[1] = 0.1;
}

qs_status qsi_sched_parse_stages(qsi_sched *s, const char *text, qs_err *err) {
    qs_status st = QS_OK;
    const char *p = text;
    int n = 0;
    double last = 0, at[QSI_SCHED_MAX_STAGES], factor[QSI_SCHED_MAX_STAGES];
    while (*p == ' ') p++;
    while (*p != '\0') {
        char *end = NULL;
        if (n == QSI_SCHED_MAX_STAGES)
            QS_FAIL(err, QS_E_ARG, "stages: more than %d", QSI_SCHED_MAX_STAGES);
        at[n] = strtod(p, &end);
        if (end == p || *end != ':') QS_FAIL(err, QS_E_ARG, "stages: '%s' is not SHARE:FACTOR", p);
        p = end + 1;
        factor[n] = strtod(p, &end);
        if (end == p) QS_FAIL(err, QS_E_ARG, "stages: '%s' is not a factor", p);
        if (!(at[n] > last && at[n] < 1) || !(factor[n] > 0 && factor[n] <= 1))
            QS_FAIL(err, QS_E_ARG,
                    "stages: shares must ascend between 0 and 1, factors lie in (0, 1]: '%s'", text);
        last = at[n++];
        p = end;
        while (*p == ' ' || *p == ',') p++;
    }
    s->n_stages = n;
    for (int i = 0; i < n; i++) {
        s->at[i] = at[i];
        s->factor[i] = factor[i];
    }
done:
    return st;
}

double qsi_sched_lr(const qsi_sched *s, int64_t step, double share) {
    if (step < s->warmup_steps) return s->lr * (double)(step + 1) / (double)s->warmup_steps;
    double f = 1;
    if (s->kind == QSI_SCHED_MULTISTEP) {
        for (int i = 0; i < s->n_stages; i++)
            if (share >= s->at[i]) f = s->factor[i];
    } else if (s->kind == QSI_SCHED_COSINE) {
        double x = share < 0 ? 0 : share > 1 ? 1 : share;
        f = s->min_ratio + (1 - s->min_ratio) * 0.5 * (1 + cos(PI * x));
    }
    return s->lr * f;
}

double qsi_sched_decay_from(const qsi_sched *s) {
    if (s->kind == QSI_SCHED_COSINE) return 0;
    if (s->kind == QSI_SCHED_CONSTANT || s->n_stages == 0) return 1;
    return s->at[0];
}
