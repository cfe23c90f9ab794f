/* The training run: from a configuration to DIR/model.gguf, resumable at every step.
 *
 * DIR holds model.gguf (the latest), log.csv, loss.svg, checkpoints/, vocab.gguf, train.shard,
 * valid.shard and a lock. The weights after step N depend on text, settings, seed and CPU level only,
 * not on threads, interruptions or time (but for runs by the hour, whose length time decides).
 *
 * A run whose length grows goes on from the end of its constant stage: the checkpoint of that place
 * is kept, and steps made in the last stages are given up and made again at the new end.
 * Thread: owner; hooks are called on it. */
#ifndef QSI_TRAIN_DRIVER_H
#define QSI_TRAIN_DRIVER_H

#include "train/net.h"
#include "train/trainconf.h"

typedef enum qsi_train_event_kind {
    QSI_TE_NOTE,     /* text: something a person should know */
    QSI_TE_PREPARE,  /* text, done, of: before the first step */
    QSI_TE_STEP,     /* a step is done and logged */
    QSI_TE_SAVED,    /* a checkpoint and model.gguf are written */
    QSI_TE_SAMPLE    /* text: a sample; prompt */
} qsi_train_event_kind;

typedef struct qsi_train_event {
    qsi_train_event_kind kind;
    const char *text, *prompt;
    int64_t done, of;
    int64_t step, total_steps;   /* total 0: not known */
    int64_t tokens;
    double loss, smooth, val_loss; /* val_loss NaN: not measured at this step */
    double lr, grad_norm, tok_s;
    double peak_share;           /* of the machine's peak; NaN: peak not known */
    double imbalance;            /* busiest expert / mean, worst layer; NaN: no experts */
    double left_s;               /* time left, NaN: not known */
} qsi_train_event;

typedef struct qsi_sample_ask {
    const char *model, *prompt;
    bool chat;                   /* the prompt is a user's turn, else text to be continued */
    int64_t max_tokens, seed;
    double temp;
} qsi_sample_ask;

typedef struct qsi_train_hooks {
    void *user;
    void (*event)(void *user, const qsi_train_event *e);
    /* Operations a second that this machine's pool can do at most, in the run's precision; 0: not
     * known. Asked once, before the first step. May be NULL. */
    double (*peak)(void *user, qsi_pool *pool, qsi_isa isa, bool bf16);
    /* 0: go on; else save, write the model and stop. */
    int (*stop)(void *user);
    /* Runs the model in a file; its text is appended to out. May be NULL. */
    qs_status (*sample)(void *user, const qsi_sample_ask *ask, qsi_str *out, qs_err *err);
} qsi_train_hooks;

typedef struct qsi_train_job {
    qsi_trainconf *conf;         /* borrowed; automatic values are filled in */
    const char *dir;
    qsi_pool *pool;              /* borrowed */
    qsi_isa isa;
    qsi_net_make *make;
    void *make_user;
    const qsi_comm *comm;        /* over which data is split; NULL: one process */
    qsi_train_hooks hooks;
} qsi_train_job;

typedef struct qsi_train_result {
    int64_t step, tokens, params, active_params;
    double loss, val_loss;       /* NaN: none */
    bool was_finished;           /* nothing was left to do */
    bool stopped;                /* by the stop hook, before the end */
} qsi_train_result;

/* QS_E_CANCELLED: stopped while preparing. A stop during training is QS_OK with result->stopped.
 * QS_E_NUMERIC: loss or gradients are not finite; the last checkpoint is intact. */
qs_status qsi_train_run(const qsi_train_job *job, qsi_train_result *result, qs_err *err)
    QS_MUST_CHECK;

#endif
