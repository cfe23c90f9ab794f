/* Contexts beyond the trained one; see rope_scaling.c. */
#ifndef QSI_MODEL_ROPE_SCALING_H
#define QSI_MODEL_ROPE_SCALING_H

#include "model/model.h"

typedef enum qsi_stretch {
    QSI_STRETCH_AUTO, QSI_STRETCH_NONE, QSI_STRETCH_LINEAR, QSI_STRETCH_DYNAMIC, QSI_STRETCH_YARN
} qsi_stretch;
/* "auto", "none", ...; QS_E_ARG: another word. */
qs_status qsi_stretch_parse(qsi_stretch *out, const char *name, qs_err *err) QS_MUST_CHECK;

/* Changes the rotation of c for sequences of n_ctx tokens (0: those of training). AUTO changes nothing
 * within c->n_ctx; beyond it what the file declares is scaled further, and a file that declares nothing
 * gets YaRN. NONE takes away what the file declares. The others take the place of it, by `factor`, or
 * where that is 0 by n_ctx to the length of training. c->n_ctx becomes what can be reached.
 * QS_E_ARG, QS_E_RANGE: a factor or length that makes no sense. */
qs_status qsi_config_stretch(qsi_config *c, qsi_stretch kind, double factor, int64_t n_ctx,
                             qs_err *err) QS_MUST_CHECK;

/* What attention's scores are multiplied by: 1 / sqrt(head_dim), with YaRN times
 * ((1 + yarn_log_mul ln(rope_factor)) yarn_attn)^2. */
double qsi_config_attn_scale(const qsi_config *c);

/* The values of tensor rope_freqs [rotated width / 2] by Llama 3.1's rule: pairs whose period is below
 * freqs_orig_ctx / freqs_high positions keep it (1), those above freqs_orig_ctx / freqs_low get one
 * freqs_factor times as long; between them 1 / value goes linearly with the turns in that context. */
void qsi_config_rope_freqs(const qsi_config *c, float *out);

#endif
