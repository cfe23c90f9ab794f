/* Files of benchmarks in the forms their makers publish, as items that can be asked:
 *
 *   MMLU       CSV without a header: question,A,B,C,D,answer; JSON "question", "choices" [..], "answer"
 *              (an index or a letter)
 *   C-Eval     CSV with a header: id,question,A,B,C,D,answer and perhaps explanation; JSON the same
 *   CMMLU      CSV with a header: (a number),Question,A,B,C,D,Answer; JSON the same
 *   HellaSwag  JSON "ctx_a", "ctx_b", "activity_label" (or "ctx"), "endings" [..], "label"
 *   ARC        JSON "question": {"stem", "choices": [{"text", "label"}]}, "answerKey", or
 *              "question", "choices": {"text": [..], "label": [..]}, "answerKey"; CSV with a header:
 *              AnswerKey, question with its choices in the same cell, "Which? (A) this (B) that"
 *   PIQA       JSON "goal", "sol1", "sol2", "label" or a file of labels, one a line
 *   GSM8K      JSON "question", "answer" with "#### n" at its end
 *   HumanEval  JSON "task_id", "prompt", "canonical_solution", "test", "entry_point"
 *
 * JSON is one object a line, or one array of objects. The form is told from the content, by the first
 * row or object; the others must be of the same. Files are strangers': errors name the line, memory is
 * a few times the file's. Sources: the files themselves and the readers of lm-evaluation-harness.
 * Thread: owner. */
#ifndef QSI_MEASURE_TASK_FILE_H
#define QSI_MEASURE_TASK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"

#define QSI_TASK_MAX_CHOICES 26
#define QSI_TASK_MAX_BYTES ((size_t)256 << 20) /* of a file */
#define QSI_TASK_MAX_ITEM ((size_t)1 << 20)    /* of an object in its line */

typedef enum qsi_task {
    QSI_TASK_NONE,
    QSI_TASK_MMLU, QSI_TASK_CEVAL, QSI_TASK_CMMLU,     /* the letter of the answer */
    QSI_TASK_HELLASWAG, QSI_TASK_ARC, QSI_TASK_PIQA,   /* the text of the answer */
    QSI_TASK_GSM8K, QSI_TASK_HUMANEVAL                 /* generated */
} qsi_task;
/* "mmlu", ...; "" for NONE. */
const char *qsi_task_name(qsi_task t);
/* NONE for an unknown name. */
qsi_task qsi_task_find(const char *name);
/* One of several choices is the answer; of those, the letter is asked for. */
bool qsi_task_has_choices(qsi_task t);
bool qsi_task_asks_letter(qsi_task t);

typedef struct qsi_task_item { /* strings in the file's arena */
    int64_t line;          /* in the file, or the number of the array's element (see unit); from 1 */
    const char *question;  /* HumanEval: the prompt */
    const char *subject;   /* its own; NULL: the file's */
    const char *choices[QSI_TASK_MAX_CHOICES];
    int32_t n_choices;     /* 0: none, the answer is written */
    int32_t answer;        /* index of the right choice; -1: the file does not say */
    const char *solution;  /* GSM8K: the worked answer; HumanEval: the function's body; else NULL */
    const char *test, *entry; /* HumanEval */
} qsi_task_item;

typedef struct qsi_task_file {
    char *path, *subject;  /* subject: the file's name without ending and _test, _val, _dev, ... */
    qsi_task task;         /* as the content says */
    const char *unit;      /* what the items' lines are: "line" or "element"; static */
    qsi_task_item *items;
    size_t n, cap;
    uint64_t hash;         /* of the bytes, labels included */
    qsi_arena arena;
} qsi_task_file;

/* In place. *f is zeroed first, and released on failure; release copes with a zeroed struct.
 * QS_E_UNSUPPORTED: of no form above (nothing else is wrong). QS_E_FORMAT: nothing is in it, or file
 * and line; QS_E_LIMIT: the same. */
qs_status qsi_task_parse(qsi_task_file *f, const char *path, const char *text, size_t n,
                         qs_err *err) QS_MUST_CHECK;
/* The right choices of a PIQA file: an index a line, as many as the file has items. */
qs_status qsi_task_labels(qsi_task_file *f, const char *path, const char *text, size_t n,
                          qs_err *err) QS_MUST_CHECK;
/* Reads and parses; labels: a file of labels, NULL: where the items lack them, X-labels.lst beside
 * X.jsonl. */
qs_status qsi_task_load(qsi_task_file *f, const char *path, const char *labels, qs_err *err)
    QS_MUST_CHECK;
void qsi_task_release(qsi_task_file *f);
/* By its name's ending: .csv, .json, .jsonl. */
bool qsi_task_is_data(const char *path);
/* How many bytes of a file's name are the subject. */
size_t qsi_task_subject_len(const char *name);

#endif
