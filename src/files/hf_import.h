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

/* Puts all keys, declares and writes all tensors into w, one tensor after another: memory does not
 * grow with the model. Matrices keep their type (F32, F16, BF16; F8_E4M3 with scales of 128 x 128
 * becomes BF16), norms and routers become F32, rows of q and k are permuted for interleaved rotation
 * (not with latent attention), experts are stacked, layers that predict further tokens are left out.
 * A tensor that is missing, has the wrong shape or belongs to no known part is an error that names
 * it. */
qs_status qsi_hf_import(const char *folder, qsi_gguf_writer *w,
                        int (*progress)(void *user, int64_t done, int64_t of), void *user,
                        qs_err *err) QS_MUST_CHECK;

#endif
