/* What a model is written anew from: a GGUF, one file or several, or a Hugging Face folder. Both give
 * keys, a list of tensors, and each tensor's bytes in order; neither is held in memory as a whole.
 * Thread: one owner. */
#ifndef QSI_FILES_MODEL_SOURCE_H
#define QSI_FILES_MODEL_SOURCE_H

#include "base/status.h"
#include "files/hf_import.h"
#include "fmt/gguf.h"
#include "model/model.h"

typedef struct qsi_msource qsi_msource;
/* QS_E_UNSUPPORTED: a vocabulary without weights. */
qs_status qsi_msource_open(qsi_msource **s, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_msource_close(qsi_msource **s);
/* The model's shape; of a GGUF it is read now. */
qs_status qsi_msource_config(const qsi_msource *s, qsi_config *out, qs_err *err) QS_MUST_CHECK;
/* All keys but those that `drop` names; drop may be NULL. */
typedef bool qsi_drop_key_fn(void *user, const char *key);
qs_status qsi_msource_put_keys(qsi_msource *s, qsi_gguf_writer *w, qsi_drop_key_fn *drop, void *user,
                               qs_err *err) QS_MUST_CHECK;
size_t qsi_msource_n_tensors(const qsi_msource *s);
/* Borrowed; its data may be NULL. */
const qsi_gguf_tensor *qsi_msource_tensor(const qsi_msource *s, size_t i);
/* The index of a name; n_tensors when there is none. */
size_t qsi_msource_find(const qsi_msource *s, const char *name);
/* Gives the bytes of tensor i to `sink`, from first to last in pieces of any size, and gives their
 * memory back. QS_E_IO when a file changed meanwhile. */
qs_status qsi_msource_read(qsi_msource *s, size_t i, qsi_bytes_fn *sink, void *user,
                           qs_err *err) QS_MUST_CHECK;
/* QS_E_IO when a file of weights changed while it was open. */
qs_status qsi_msource_intact(const qsi_msource *s, qs_err *err) QS_MUST_CHECK;
/* Another value means that the weights may be others (qsi_map_stamp). */
uint64_t qsi_msource_stamp(const qsi_msource *s);

#endif
