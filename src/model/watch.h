/* What importance.c needs of model.c, and the other way round. */
#ifndef QSI_MODEL_WATCH_H
#define QSI_MODEL_WATCH_H

#include "model/layer.h"

const qsi_weights *qsi_model_weights(const qsi_model *m);
/* Whether the head is the embedding. */
bool qsi_model_tied(const qsi_model *m);
/* Adds the rows of jobs to an importance (a tap of op.h). */
void qsi_importance_add(void *user, const qsi_mm_job *jobs, int n_jobs);

#endif
