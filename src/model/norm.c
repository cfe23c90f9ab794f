/* RMSNorm of rows (Zhang and Sennrich 2019): y = w x r, r = 1/sqrt(mean(x^2) + eps).
 * Backward: dw = sum over rows of dy x r; the sum runs in blocks of QSI_OP_ROWS rows whose parts
 * are added in order, so that it does not depend on the number of workers. */
#include "model/layer.h"

#include <string.h>

void qsi_norm_forward(qsi_op *o, const float *x, const float *w, int64_t n, int64_t d, float eps,
                      float *r, const qsi_act *a) {
    float *tmp = (float *)o->scratch;
    const int64_t step = qsi_op_rows(o, n);
    for (int64_t i; (i = qsi_op_take(o) * step) < n;) {
        int64_t e = qsi_min64(i + step, n);
        for (int64_t t = i; t < e; t++) {
            float *y = a->f32 ? a->f32 + t * a->ld : tmp;
            float rt = o->k->rmsnorm(x + t * d, w, y, d, eps);
            if (r) r[t] = rt;
            qsi_act_put(o->k, a, t, y);
        }
    }
    qsi_op_end(o);
}

void qsi_norm_backward_item(const qsi_kern *k, int64_t item, const float *dy, const float *x,
                            const float *w, const float *r, float *dx, float *part, int64_t n,
                            int64_t d) {
    int64_t i = item * QSI_OP_ROWS, e = qsi_min64(i + QSI_OP_ROWS, n);
    float *dw = part + item * d;
    memset(dw, 0, (size_t)d * sizeof(float));
    for (int64_t t = i; t < e; t++)
        k->rmsnorm_bwd(dy + t * d, x + t * d, w, r[t], dx + t * d, dw, d);
}

void qsi_norm_backward_sum(qsi_op *o, const float *part, int64_t n, int64_t d, float *dw) {
    int64_t parts = qsi_ceil_div(n, QSI_OP_ROWS);
    for (int64_t i; (i = qsi_op_take(o) * 64) < d;) {
        int64_t m = qsi_min64(64, d - i);
        for (int64_t p = 0; p < parts; p++) o->k->add(part + p * d + i, dw + i, m);
    }
    qsi_op_end(o);
}
