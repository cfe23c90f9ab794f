/* A Hugging Face folder (config.json, safetensors or PyTorch files, tokenizer.json) as a GGUF: dense
 * LLaMA-type models, DeepSeekMoE v1, DeepSeek-V2 and V3. Source: deepseek-facts 2.1 (rotation), 4.1,
 * 4.3 (names). Thread: any. */
#ifndef QSI_FILES_HF_IMPORT_H
#define QSI_FILES_HF_IMPORT_H

#include "base/status.h"
#include "fmt/gguf.h"
#include "model/model.h"

#define QSI_HF_NAME_CAP 160
/* What (an expert of) tensor t is called in a folder; "" when it has no name there. */
void qsi_hf_name(const qsi_tensor_spec *t, int expert, char *out, size_t cap);

/* A folder whose every tensor has found its place. Matrices keep their type (F32, F16, BF16; F8_E4M3
 * with scales of 128 x 128 becomes BF16), norms and routers become F32, rows of q and k are permuted
 * for interleaved rotation (not with latent attention), experts are stacked, layers that predict
 * further tokens are left out. A tensor that is missing, has the wrong shape or belongs to no known
 * part is an error that names it. The error's text is the reason alone: whoever asked says what for
 * and of which folder. Thread: one owner. */
typedef struct qsi_hf qsi_hf;
qs_status qsi_hf_open(qsi_hf **h, const char *folder, qs_err *err) QS_MUST_CHECK;
void qsi_hf_close(qsi_hf **h);
const qsi_config *qsi_hf_config(const qsi_hf *h);
/* All keys of the GGUF. */
qs_status qsi_hf_put_keys(qsi_hf *h, qsi_gguf_writer *w, qs_err *err) QS_MUST_CHECK;
/* The tensors of the GGUF in order; a tensor's data is NULL: qsi_hf_read gives its bytes. */
size_t qsi_hf_n_tensors(const qsi_hf *h);
const qsi_gguf_tensor *qsi_hf_tensor(const qsi_hf *h, size_t i);
/* Gives the bytes of tensor i to `sink` from first to last, in pieces of any size. Memory does not
 * grow with the tensor. QS_E_IO when a file changed meanwhile: what was given is not to be used. */
typedef qs_status qsi_bytes_fn(void *user, const void *p, size_t n, qs_err *err);
qs_status qsi_hf_read(qsi_hf *h, size_t i, qsi_bytes_fn *sink, void *user, qs_err *err) QS_MUST_CHECK;
/* QS_E_IO when a file of weights changed while it was open. */
qs_status qsi_hf_intact(const qsi_hf *h, qs_err *err) QS_MUST_CHECK;
/* Another value means that the weights' files may be others (qsi_map_stamp). */
uint64_t qsi_hf_stamp(const qsi_hf *h);

#endif
