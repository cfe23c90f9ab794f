/* A scheduler without a model, for tests of the API: it says what a script tells it to, through the same
 * detokenizer, stop strings and reader of answers as the real one, and refuses or fails when told so.
 * It takes the place of infer/sched.c where it is linked. */
#ifndef QSI_TESTS_FAKE_SCHED_H
#define QSI_TESTS_FAKE_SCHED_H

#include <stdatomic.h>

#include "infer/sched.h"

typedef struct fake_script {
    const char *answers[4]; /* answer i says [i % 4]; NULL: [0]. A control token written in it is that
                             * token. The end token comes at its end */
    int64_t chunk;          /* ids of the prompt between two QSI_EV_PROMPT; 0: all at once */
    bool fenced;            /* jobs wait until fake_open */
    qs_status submit;       /* what submit says */
    int n_submits;          /* after so many good ones, when not 0 */
    qs_status end;          /* how jobs end, after `n_before` ids */
    int64_t n_before;
    qsi_forecast forecast;
} fake_script;

qsi_sched *fake_create(const qsi_vocab *v, const fake_script *script);
void fake_open(qsi_sched *s);
/* Options of the job that came last, as they were submitted; ids and texts are copies that live as long
 * as the scheduler. */
const qsi_job_opts *fake_last(const qsi_sched *s);
int fake_submits(const qsi_sched *s);

#endif
