/* What the training driver needs of a model: parameters with gradients, and the loss of a batch.
 * One table, so that the driver is tested on nets of a few lines; qsi_net_model puts the real
 * model (model/model.h) behind it. Thread: owner. */
#ifndef QSI_TRAIN_NET_H
#define QSI_TRAIN_NET_H

#include "model/model.h"

typedef struct qsi_net qsi_net;
struct qsi_net {
    void *self;
    size_t (*n_params)(void *self);
    qsi_param *(*param)(void *self, size_t i);
    void (*init_random)(void *self, uint64_t seed, float std);
    qs_status (*load_gguf)(void *self, const qsi_gguf *g, qs_err *err);
    void (*refresh)(void *self);   /* after masters changed */
    void (*zero_grad)(void *self);
    qs_status (*loss)(void *self, const qsi_train_batch *b, bool backward, float balance_share,
                      qsi_train_out *out, qs_err *err);
    void (*expert_load)(void *self, int64_t *out); /* NULL: has no experts */
    void (*free)(void *self);
};

/* Makes a net for a configuration; user as given to the driver. */
typedef qs_status qsi_net_make(qsi_net *net, const qsi_config *c, const qsi_train_opts *o,
                               void *user, qs_err *err);
/* The real model. */
qs_status qsi_net_model(qsi_net *net, const qsi_config *c, const qsi_train_opts *o, void *user,
                        qs_err *err) QS_MUST_CHECK;

#endif
