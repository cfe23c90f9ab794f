/* generation_config.json of a Hugging Face folder: how to sample, and which ids end an answer. */
#ifndef QSI_FILES_HF_GENERATION_H
#define QSI_FILES_HF_GENERATION_H

#include "fmt/gguf.h"
#include "tok/tok.h"

/* Puts its sampling values as general.sampling.* into w. They are advice: a file that is missing or
 * makes no sense puts nothing (the latter says so), and where sampling is off they do not count. A note
 * names ids that should end an answer and do not by the vocabulary. Fails with QS_E_NOMEM only. */
qs_status qsi_hf_put_sampling(const char *folder, const qsi_vocab *v, qsi_gguf_writer *w,
                              qs_err *err) QS_MUST_CHECK;

#endif
