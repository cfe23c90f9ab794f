/* Sharing work among the workers: tickets and the barrier. See op.h.
 *
 * Two ticket counters alternate: while workers draw from next[turn & 1], the other one is idle, so
 * worker 0 may zero it before the barrier that starts its turn. */
#include "op/op.h"

void qsi_op_init(qsi_op *o, const qsi_worker *w, const qsi_kern *k, qsi_op_shared *sh,
                 char *scratch, size_t scratch_bytes) {
    *o = (qsi_op){w, k, sh, 0, scratch, scratch_bytes};
}

int64_t qsi_op_take(qsi_op *o) {
    /* Relaxed: what an item reads was published by the barrier before. */
    return atomic_fetch_add_explicit(&o->sh->next[o->turn & 1], 1, memory_order_relaxed);
}

void qsi_op_end(qsi_op *o) {
    /* Pairs with the drawing after the barrier. */
    if (o->w->index == 0)
        atomic_store_explicit(&o->sh->next[(o->turn + 1) & 1], 0, memory_order_relaxed);
    qsi_barrier(o->w);
    o->turn++;
}

void *qsi_bump_take(qsi_bump *b, size_t n) {
    n = (n + QSI_ALIGN - 1) / QSI_ALIGN * QSI_ALIGN;
    QS_CHECK(n <= b->left);
    void *p = b->p;
    b->p += n;
    b->left -= n;
    return p;
}
