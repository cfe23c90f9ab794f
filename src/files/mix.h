/* What `--type` may name: a type for every matrix, or a mix of types as other programs write them.
 * Thread: any. */
#ifndef QSI_FILES_MIX_H
#define QSI_FILES_MIX_H

#include "base/str.h"
#include "model/model.h"
#include "quant/quant.h"

typedef struct qsi_mix {
    const char *name;  /* "Q8_0", "Q4_K_M" */
    qsi_type base;     /* of most matrices */
    int file_type;     /* general.file_type, ggml's number */
    const char *about; /* of mixes: what differs from base; NULL for plain types */
} qsi_mix;

/* The i-th, NULL after the last. */
const qsi_mix *qsi_mix_at(size_t i);
/* By name, case-insensitive; QS_E_ARG with all names in the text. */
qs_status qsi_mix_find(const qsi_mix **out, const char *name, qs_err *err) QS_MUST_CHECK;

/* The type a tensor gets: F32 for what has one dimension and for routers; else the mix's choice, and
 * where a row is no multiple of that type's block, the type llama.cpp puts in its place: Q4_0 for
 * Q2_K and Q3_K, Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, IQ4_NL for IQ4_XS, F16 for
 * blocks of 32. *asked (may be
 * NULL) is the choice before that. */
qsi_type qsi_mix_type(const qsi_mix *m, const qsi_config *c, const qsi_tensor_spec *t,
                      qsi_type *asked);
/* The same for one type wanted for all. */
qsi_type qsi_fit_type(const qsi_tensor_spec *t, qsi_type wanted);

#endif
