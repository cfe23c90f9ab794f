/* A small random model with a vocabulary of its own, written as GGUF: enough to run every path of
 * the public API. Weights are large on purpose, so that distributions are far from flat. */
#ifndef QSI_TESTS_TINY_MODEL_H
#define QSI_TESTS_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "model/model.h"
#include "quant/quant.h"

typedef struct tiny_model_opts {
    qsi_arch arch;
    qsi_type type;         /* of the matrices: QSI_F32, QSI_F16, QSI_Q8_0 ... */
    uint64_t seed;
    int32_t n_ctx;         /* 0: 256 */
    bool vocab_only;       /* no tensors */
    bool tasks;            /* qiusuo.tasks and general.sampling.* */
    bool nan;              /* one weight is not a number */
    bool no_template;      /* no tokenizer.chat_template */
    bool mtp;              /* deepseek2: with a layer that predicts further. The next token is mostly
                              decided by the last one, and the layer sees it: many drafts come */
} tiny_model_opts;
qs_status tiny_model_write(const char *path, const tiny_model_opts *o, qs_err *err);

#endif
