/* A model as a Hugging Face folder: safetensors in shards, config.json, tokenizer.json and its config,
 * generation_config.json. Thread: any; one call at a time per folder. */
#ifndef QSI_FILES_HF_EXPORT_H
#define QSI_FILES_HF_EXPORT_H

#include "fmt/gguf.h"

typedef struct qsi_hf_export_opts {
    qsi_type type;        /* of matrices: F32, F16 or BF16; QSI_TYPE_NONE: their own, BF16 where they are
                           * quantised */
    uint64_t shard_bytes; /* most bytes of tensors in a file, but one tensor at least; 0: 5 GB */
    int (*progress)(void *user, int64_t done, int64_t of); /* bytes written; may be NULL */
    void *user;
} qsi_hf_export_opts;

/* Writes g into `folder`, which is made where it is missing; memory stays within a tensor. Every file
 * appears when it is complete, config.json last: a folder without it is not finished. Vectors and
 * routers stay F32. A vocabulary that has no tokenizer.json is left out with a note.
 * QS_E_UNSUPPORTED: what such a folder cannot say; QS_E_IO: no room. */
qs_status qsi_hf_export(const qsi_gguf *g, const char *folder, const qsi_hf_export_opts *o,
                        qs_err *err) QS_MUST_CHECK;

#endif
