/* How an item is asked: the words of lm-evaluation-harness, so that figures can be compared with those
 * that others report. A prompt is
 *
 *     description, examples (question, answer, an empty line), question
 *
 * and what is scored or generated follows it directly. Thread: any. */
#ifndef QSI_MEASURE_TASK_PROMPT_H
#define QSI_MEASURE_TASK_PROMPT_H

#include "base/str.h"
#include "measure/task_file.h"

typedef struct qsi_subject {
    const char *file, *name; /* NULL: the end */
} qsi_subject;
extern const qsi_subject qsi_ceval_subjects[], qsi_cmmlu_subjects[];

/* Appends the prompt for an item of a file with the first n_shots items of `examples` before it (may be
 * NULL with n_shots 0; they must have answers). A task of choices asks every item that has some. chat:
 * it is a turn in a conversation; that only changes HumanEval, which then asks in words. */
qs_status qsi_task_prompt(qsi_str *out, qsi_task t, bool chat, const qsi_task_file *f,
                          const qsi_task_item *it, const qsi_task_file *examples, size_t n_shots,
                          qs_err *err) QS_MUST_CHECK;
/* Appends choice i as it follows the prompt. */
qs_status qsi_task_choice(qsi_str *out, qsi_task t, const qsi_task_item *it, int32_t i) QS_MUST_CHECK;
/* Strings before which a generated answer ends, where the text is continued as it is; NULL after the
 * last. */
const char *const *qsi_task_stops(qsi_task t);
/* QS_E_ARG when t cannot ask the items of f, or f does not say what is right: the first such item is
 * named. */
qs_status qsi_task_fits(qsi_task t, const qsi_task_file *f, qs_err *err) QS_MUST_CHECK;

#endif
