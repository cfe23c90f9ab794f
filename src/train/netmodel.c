/* The real model behind the driver's table (net.h). */
#include "train/net.h"

static size_t n_params(void *self) { return qsi_tm_n_params(self); }
static qsi_param *param(void *self, size_t i) { return qsi_tm_param(self, i); }
static void init_random(void *self, uint64_t seed, float std) {
    qsi_tm_init_random(self, seed, std);
}
static qs_status load_gguf(void *self, const qsi_gguf *g, qs_err *err) {
    return qsi_tm_load_gguf(self, g, err);
}
static void refresh(void *self) { qsi_tm_refresh(self); }
static void zero_grad(void *self) { qsi_tm_zero_grad(self); }
static qs_status loss(void *self, const qsi_train_batch *b, bool backward, float balance_share,
                      qsi_train_out *out, qs_err *err) {
    return qsi_tm_loss(self, b, backward, balance_share, out, err);
}
static void expert_load(void *self, int64_t *out) { qsi_tm_expert_load(self, out); }
static void free_self(void *self) { qsi_tm_free(self); }

qs_status qsi_net_model(qsi_net *net, const qsi_config *c, const qsi_train_opts *o, void *user,
                        qs_err *err) {
    qsi_trainer_model *t = NULL;
    qs_status st = qsi_tm_create(&t, c, o, err);
    if (st != QS_OK) return st;
    *net = (qsi_net){.self = t, .n_params = n_params, .param = param, .init_random = init_random,
                     .load_gguf = load_gguf, .refresh = refresh, .zero_grad = zero_grad,
                     .loss = loss, .expert_load = c->n_expert > 0 ? expert_load : NULL,
                     .free = free_self};
    return QS_OK;
}
