/* The backward of all layers, last to first: the gradient of the residual stream passes through
 * every layer's FFN or experts, then its attention. */
#include "model/layer.h"

void qsi_layers_backward(qsi_op *o, const qsi_bwd *b, qsi_layer_save *const *saves,
                         const qsi_layer_grads *g) {
    for (int32_t l = b->f->c->n_layer - 1; l >= 0; l--) {
        if (qsi_layer_is_moe(b->f->c, l))
            qsi_moe_backward(o, b, l, saves[l], &g[l]);
        else
            qsi_ffn_backward(o, b, l, saves[l], &g[l]);
        qsi_attention_backward(o, b, l, saves[l], &g[l]);
    }
}
