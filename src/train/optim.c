/* AdamW over the pool; see optim.h. */
#include "train/optim.h"

#include <math.h>

#include "base/mem.h"

/* Values a block: large enough that a block outweighs handing it out, small enough that two
 * threads share the work of one matrix. Part of the result's definition (order of the norm's sum):
 * a change of it changes the last bits of every run. */
#define BLOCK 32768

qs_status qsi_optim_init(qsi_optim *a, const qsi_net *net, qsi_pool *pool, const qsi_kern *kern,
                         const qsi_adamw_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    *a = (qsi_optim){.o = *o, .net = net, .pool = pool, .kern = kern};
    size_t n = net->n_params(net->self);
    a->m = qsi_calloc(n, sizeof(*a->m));
    a->v = qsi_calloc(n, sizeof(*a->v));
    if (a->m == NULL || a->v == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for the optimizer");
    a->n_params = n;
    for (size_t i = 0; i < n; i++) {
        const qsi_param *p = net->param(net->self, i);
        a->m[i] = qsi_calloc((size_t)p->n, sizeof(float));
        a->v[i] = qsi_calloc((size_t)p->n, sizeof(float));
        if (a->m[i] == NULL || a->v[i] == NULL)
            QS_FAIL(err, QS_E_NOMEM,
                    "out of memory for the optimizer's moments of '%s' (%lld values, twice)",
                    p->name, (long long)p->n);
        a->n_blocks += (size_t)((p->n + BLOCK - 1) / BLOCK);
    }
    a->blocks = qsi_calloc(a->n_blocks, sizeof(*a->blocks));
    a->sums = qsi_calloc(a->n_blocks, sizeof(*a->sums));
    if (a->blocks == NULL || a->sums == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the optimizer");
    size_t b = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t len = net->param(net->self, i)->n;
        for (int64_t at = 0; at < len; at += BLOCK)
            a->blocks[b++] = (qsi_optim_block){i, at, len - at < BLOCK ? len - at : BLOCK};
    }
done:
    if (st != QS_OK) qsi_optim_release(a);
    return st;
}

void qsi_optim_release(qsi_optim *a) {
    for (size_t i = 0; i < a->n_params; i++) {
        qsi_free(a->m[i]);
        qsi_free(a->v[i]);
    }
    qsi_free(a->m);
    qsi_free(a->v);
    qsi_free(a->blocks);
    qsi_free(a->sums);
    *a = (qsi_optim){0};
}

static void norm_worker(const qsi_worker *w, void *arg) {
    qsi_optim *a = arg;
    int64_t b0, b1;
    qsi_share(w, (int64_t)a->n_blocks, 1, &b0, &b1);
    for (int64_t b = b0; b < b1; b++) {
        const qsi_optim_block *k = &a->blocks[b];
        const qsi_param *p = a->net->param(a->net->self, k->param);
        a->sums[b] = a->kern->sum_sq(p->grad + k->begin, k->n);
    }
}

double qsi_optim_grad_norm(qsi_optim *a) {
    double s = 0;
    qsi_pool_run(a->pool, norm_worker, a);
    for (size_t b = 0; b < a->n_blocks; b++) s += a->sums[b];
    return sqrt(s);
}

typedef struct step_job {
    qsi_optim *a;
    float clip, lr, c1, c2;
} step_job;

static void step_worker(const qsi_worker *w, void *arg) {
    const step_job *j = arg;
    qsi_optim *a = j->a;
    int64_t b0, b1;
    qsi_share(w, (int64_t)a->n_blocks, 1, &b0, &b1);
    for (int64_t b = b0; b < b1; b++) {
        const qsi_optim_block *k = &a->blocks[b];
        const qsi_param *p = a->net->param(a->net->self, k->param);
        a->kern->adamw(p->master + k->begin, p->grad + k->begin, a->m[k->param] + k->begin,
                       a->v[k->param] + k->begin, k->n, j->clip, j->lr, a->o.beta1, a->o.beta2,
                       j->c1, j->c2, a->o.eps, p->decay ? a->o.decay : 0.0f);
    }
}

void qsi_optim_step(qsi_optim *a, int64_t t, double lr, double norm) {
    double clip = a->o.clip > 0 && norm > a->o.clip ? a->o.clip / norm : 1;
    step_job j = {.a = a, .clip = (float)clip, .lr = (float)lr,
                  .c1 = (float)(1 - pow(a->o.beta1, (double)t)),
                  .c2 = (float)(1 - pow(a->o.beta2, (double)t))};
    qsi_pool_run(a->pool, step_worker, &j);
}
