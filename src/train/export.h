/* Writing a net as a GGUF model: weights in a chosen type, vocabulary, configuration, and the keys
 * the run's configuration asks for. The file depends on these alone. Thread: owner. */
#ifndef QSI_TRAIN_EXPORT_H
#define QSI_TRAIN_EXPORT_H

#include "train/net.h"
#include "tok/chat.h"
#include "train/trainconf.h"

typedef struct qsi_export {
    const qsi_net *net;
    const qsi_config *config;
    const qsi_vocab *vocab;
    const char *jinja;             /* chat template to add; NULL: the vocabulary's, if any */
    qsi_type type;                 /* of matrices; others: see qsi_export_type */
    const qsi_trainconf *conf;     /* [metadata] */
} qsi_export;

/* The type a tensor gets: norms and routers are F32; a matrix whose rows are no whole number of
 * blocks is F16. */
qsi_type qsi_export_type(qsi_type wanted, const qsi_tensor_spec *spec);
/* Checks type name and [metadata] of a configuration before a run begins. */
qs_status qsi_export_check(const qsi_trainconf *c, qsi_type *type, qs_err *err) QS_MUST_CHECK;
/* Atomic: the old file stays until the new one is whole. */
qs_status qsi_export_write(const qsi_export *x, const char *path, qs_err *err) QS_MUST_CHECK;

#endif
