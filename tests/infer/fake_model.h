/* A scripted model for tests of the engine: its logits are a function of the ids it was fed at
 * positions 0..pos, so that any mistake with positions, pages, chunks or order shows. */
#ifndef QSI_TESTS_FAKE_MODEL_H
#define QSI_TESTS_FAKE_MODEL_H

#include "infer/engine.h"

typedef struct fake_model {
    qsi_runner runner;
    int32_t pages_used, pages_max, next_page;
    int32_t (*stored)[QSI_KV_PAGE]; /* [pages_max] ids by page */
    int32_t *holds;                 /* [pages_max] */
    int n_steps, n_rows;            /* since the start */
    int n_generated;                /* rows said to be of generated ids */
    int n_shared_writes;            /* rows written to a page that several hold: a mistake */
    int n_copies;                   /* pages */
    int fail_at_step;               /* that step fails (0: none) */
    atomic_int *cancel_at;          /* set after step cancel_step */
    int cancel_step;
    /* the id a continuation of ids[0..n) has; gets the highest logit */
    int32_t (*next)(void *user, const int32_t *ids, int32_t n);
    void *user;
} fake_model;

void fake_model_init(fake_model *f, int32_t n_vocab, int32_t max_rows, int64_t n_ctx,
                     int32_t max_pages);
void fake_model_release(fake_model *f);
/* A hash of the ids: the logits that the fake gives after them (id i gets one of its values). */
void fake_logits(const fake_model *f, const int32_t *ids, int32_t n, float *out);

#endif
