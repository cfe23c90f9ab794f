/* Training: from text to a model. Unstable until 1.0. Strings are UTF-8 and borrowed. */
#ifndef QIUSUO_TRAIN_H
#define QIUSUO_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qs_train_event_kind {
    QS_TRAIN_NOTE,    /* text: something a person should know */
    QS_TRAIN_WARNING, /* text */
    QS_TRAIN_PREPARE, /* text names the work; done, of */
    QS_TRAIN_STEP,    /* one step is done and in the log */
    QS_TRAIN_SAVED,   /* checkpoint and model of `step` are written */
    QS_TRAIN_SAMPLE   /* text: what the model says to prompt */
} qs_train_event_kind;

typedef struct qs_train_event { /* valid during the call; fields beyond the kind's are zero */
    qs_train_event_kind kind;
    const char *text, *prompt;
    int64_t done, of;
    int64_t step, total_steps; /* total 0: not known */
    int64_t tokens;
    double loss, smooth_loss;
    double val_loss;           /* NaN: not measured at this step */
    double lr, grad_norm, tok_s;
    double peak_share;         /* share of the machine's peak, NaN: not known */
    double imbalance;          /* busiest expert over the mean, worst layer; NaN: no experts */
    double left_s;             /* NaN: not known */
} qs_train_event;

typedef struct qs_train_opts { /* zero means: not given */
    const char *config;        /* configuration file (docs/training.md) */
    const char *const *texts;  /* files and folders; instead of the configuration's */
    size_t n_texts;
    const char *out;           /* folder; else the configuration's, else "qiusuo-run". "state:NAME"
                                * lies in state_dir */
    const char *state_dir;
    const char *preset, *init, *type, *isa;
    int64_t steps, tokens;     /* length of the run: at most one of the three */
    double hours;
    int64_t seed;              /* used when seed_given */
    int seed_given;
    int threads;               /* 0: the configuration's, else all processors */
    int measure_peak;          /* non-zero: measure what the machine can do first (a second), so that
                                * events say which share of it training reaches */
    const char *const *settings; /* "section.key=value", applied last */
    size_t n_settings;
    void *user;
    void (*event)(void *user, const qs_train_event *e); /* may be NULL */
    /* Asked often; non-zero: save, write the model, stop. May be NULL. Called on the caller's
     * thread. */
    int (*stop)(void *user);
} qs_train_opts;

typedef struct qs_train_result {
    int64_t step, tokens, params, active_params;
    double loss, val_loss; /* NaN: none */
    int was_finished;      /* the run had reached its length before */
    int stopped;           /* by `stop`: the same call goes on */
    char model[1024];      /* path of the model */
} qs_train_result;

/* Trains, or goes on with, the run in `out`. Blocks. QS_E_CANCELLED: stopped before the first step.
 * Thread: one call at a time in a process (warnings of the library are passed on as events). */
QS_API qs_status qs_train(const qs_train_opts *o, qs_train_result *result, qs_err *err)
    QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
