/* config.json and generation_config.json from a model's configuration and keys. Thread: any. */
#ifndef QSI_FILES_HF_CONFIG_H
#define QSI_FILES_HF_CONFIG_H

#include "base/str.h"
#include "model/model.h"
#include "tok/tok.h"

/* Appends a config.json of the shape c and of g's name and tasks (hf_about.h). v may be NULL.
 * QS_E_UNSUPPORTED: rope_freqs that no rule gives. */
qs_status qsi_hf_put_config(const qsi_config *c, const qsi_gguf *g, const qsi_vocab *v, bool tied,
                            qsi_type type, qsi_str *out, qs_err *err) QS_MUST_CHECK;
/* Appends a generation_config.json: ids of BOS and of all that ends an answer, and general.sampling.*
 * where g has them. */
qs_status qsi_hf_put_generation(const qsi_gguf *g, const qsi_vocab *v, qsi_str *out) QS_MUST_CHECK;

#endif
