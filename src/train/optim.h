/* The optimizer: AdamW (Loshchilov and Hutter 2019) with clipping by the global norm
 * (Pascanu et al. 2013). Moments are float32 and stand beside the parameters of a net in its order.
 * Work is split over the pool in blocks of fixed size, and the norm adds the blocks' sums in order:
 * the result does not depend on the number of threads. Thread: owner; the pool's workers inside. */
#ifndef QSI_TRAIN_OPTIM_H
#define QSI_TRAIN_OPTIM_H

#include "comm/comm.h"
#include "kern/kern.h"
#include "sys/pool.h"
#include "train/net.h"

typedef struct qsi_adamw_opts {
    float beta1, beta2, eps, decay, clip; /* clip 0: none */
} qsi_adamw_opts;

typedef struct qsi_optim_block { /* values [begin, begin + n) of parameter `param` */
    size_t param;
    int64_t begin, n;
} qsi_optim_block;

typedef struct qsi_optim {
    qsi_adamw_opts o;
    const qsi_net *net;    /* borrowed */
    qsi_pool *pool;        /* borrowed */
    const qsi_kern *kern;
    size_t n_params;
    float **m, **v;        /* [n_params], each as long as its parameter */
    qsi_optim_block *blocks;
    size_t n_blocks;
    double *sums;          /* [n_blocks] */
} qsi_optim;

qs_status qsi_optim_init(qsi_optim *a, const qsi_net *net, qsi_pool *pool, const qsi_kern *kern,
                         const qsi_adamw_opts *o, qs_err *err) QS_MUST_CHECK;
void qsi_optim_release(qsi_optim *a);
/* Euclidean norm of all gradients, in double. */
double qsi_optim_grad_norm(qsi_optim *a);
/* One update with the gradients as they are; t counts updates from 1; norm as returned above. */
void qsi_optim_step(qsi_optim *a, int64_t t, double lr, double norm);

#endif
