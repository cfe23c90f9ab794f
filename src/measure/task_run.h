/* Evaluation of a model on benchmark files: every item is asked and scored, the journal keeps what is
 * done, the report sums up. The scores, by task:
 *
 *   mmlu, ceval, cmmlu     acc: the letter found likeliest is the right one
 *   hellaswag, arc, piqa   acc: the same of the choices' texts; acc_norm: by log-likelihood over the
 *                          bytes of the text (without the space before it)
 *   gsm8k                  strict_match, flexible_match: see qsi_answer_number
 *   humaneval              pass@1: the program passes its tests, in the sandbox of sys/jail.h
 *
 * Ties go to the first choice. Standard errors are those of a mean, items taken as independent.
 * Thread: owner. */
#ifndef QSI_MEASURE_TASK_RUN_H
#define QSI_MEASURE_TASK_RUN_H

#include "base/str.h"
#include "infer/generate.h"
#include "measure/eval_text.h"
#include "measure/task_file.h"
#include "tok/chat.h"
#include "tok/tok.h"

#define QSI_TASK_METRICS 2

typedef struct qsi_task_opts {
    qsi_task task;               /* NONE: what the files are */
    const char *const *paths;    /* files; folders stand for their .csv, .json and .jsonl files */
    size_t n_paths;
    const char *labels;          /* of PIQA; NULL: see qsi_task_load */
    const char *dev;             /* examples: a file, or a folder with one for each subject; or NULL */
    int32_t shots;               /* examples before a question; -1: up to 5 where there is a dev */
    int64_t limit;               /* items of each file, the first ones; 0: all */
    /* of generated answers */
    const qsi_chat_template *chat; /* asked in a conversation; NULL: prompts are continued */
    bool lost_template; /* ... though the model has a template: it is not known, and a note says so */
    qsi_think think;
    int64_t max_tokens;          /* of an answer; 0: 512 for gsm8k, 1024 for humaneval */
    const char *const *stops;    /* strings that end one */
    size_t n_stops;              /* 0: the task's own, where prompts are continued */
    const char *python;          /* the interpreter's absolute path, allows running what the model
                                    writes; NULL: humaneval is refused */
    double code_seconds;         /* that a program may take */
    const char *output;          /* the report goes there, the journal beside it; NULL: neither */
    bool resume;
    const char *model;           /* JSON: what else decides the results */
    const atomic_int *cancel;    /* may be NULL */
    /* Items done by this call, and to be done by it; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_task_opts;

typedef struct qsi_task_part {
    char *name;                  /* the file's subject; owned by the report */
    int64_t n, n_cut;            /* items; of these, prompts that lost their beginning */
    qsi_mean score[QSI_TASK_METRICS];
} qsi_task_part;

typedef struct qsi_task_report {
    qsi_task task;
    int32_t shots;
    int32_t n_metrics;
    const char *metric[QSI_TASK_METRICS]; /* static */
    qsi_task_part *parts;        /* a file each */
    size_t n_parts;
    qsi_task_part all;           /* of all items; name NULL */
    double parts_mean[QSI_TASK_METRICS]; /* mean over the files */
    int64_t n_resumed;           /* items that the journal had */
} qsi_task_report;

/* QS_E_ARG, QS_E_STATE, QS_E_FORMAT, QS_E_NOTFOUND (a file of no known form) say what is wrong before
 * anything is computed. QS_E_CANCELLED: what is done stands in the journal. *out is written on
 * success; release copes with a zeroed struct. */
qs_status qsi_task_run(qsi_engine *e, const qsi_vocab *v, const qsi_task_opts *o, qsi_task_report *out,
                       qs_err *err) QS_MUST_CHECK;
void qsi_task_report_release(qsi_task_report *r);
/* Appends the report as one JSON object; model: the model's name. */
qs_status qsi_task_report_json(const qsi_task_report *r, const char *model, qsi_str *out)
    QS_MUST_CHECK;

#endif
