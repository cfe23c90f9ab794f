/* Generated answers: the number that stands in one, and the program that a piece of code makes.
 * Thread: any. */
#ifndef QSI_MEASURE_TASK_ANSWER_H
#define QSI_MEASURE_TASK_ANSWER_H

#include <stdbool.h>

#include "base/str.h"
#include "measure/task_file.h"

/* Whether an answer gives the number of GSM8K's solution (after its "#### "). strict: the first number
 * that follows "#### " in the answer counts; otherwise the last number anywhere. Compared as text,
 * without commas, dollar signs and a point at the end; rules of lm-evaluation-harness. Any of the two
 * without a number: false. QS_E_NOMEM. */
qs_status qsi_answer_number(const char *answer, const char *solution, bool strict, bool *right,
                            qs_err *err) QS_MUST_CHECK;

/* Whether a worked solution ends with "#### " and a number. */
bool qsi_solution_counts(const char *solution);

/* Appends the Python program that tests a completion of a HumanEval item: prompt, completion, tests, and
 * the call of them. fenced: the completion is a chat's answer, whose first code block that defines the
 * function (or else the whole) is taken instead. */
qs_status qsi_answer_program(qsi_str *out, const qsi_task_item *it, const char *completion, bool fenced,
                             qs_err *err) QS_MUST_CHECK;

#endif
