/* From a configuration to everything a run needs before its first step: files, vocabulary, shards,
 * model configuration, windows. What is expensive (vocabulary, shards) is kept in DIR and used again
 * as long as the text and the settings it came from are the same. Thread: owner. */
#ifndef QSI_TRAIN_PREPARE_H
#define QSI_TRAIN_PREPARE_H

#include "train/dataset.h"
#include "train/net.h"

typedef struct qsi_prepared {
    qsi_source_files files, valid_files;
    qsi_vocab *vocab;
    const qsi_chat_template *tmpl; /* NULL: none */
    bool add_template;             /* the vocabulary lacks it: the model file must name it */
    qsi_gguf *init;                /* open when the run starts from a model */
    qsi_config config;
    qsi_shard shard, valid_shard;
    qsi_windows train, valid;      /* valid.n 0: no validation */
    uint64_t data_key;             /* of all text and how it was encoded */
    double *weights;
    size_t n_weights;
} qsi_prepared;

/* Fills p; conf's automatic values are replaced by those chosen. */
qs_status qsi_prepare(qsi_prepared *p, qsi_trainconf *conf, const char *dir, qsi_pool *pool,
                      qsi_data_progress *progress, void *user, qs_err *err) QS_MUST_CHECK;
void qsi_prepared_release(qsi_prepared *p);

#endif
