/* Attention of many blocks of rows over the workers. An item is a block and a kv head, with all its
 * positions; or, where a block has few rows and many positions behind it (decoding), a block, a kv
 * head and one span of positions, whose parts are then merged. Which of the two it is changes no
 * bit (op.h). In a step of few rows every worker has heads of its own in blocks that are not cut,
 * those whose keys and values it has just stored. Neighbouring heads lie side by side in a page: a
 * cut block's item takes several of them, so that it reads memory in long runs. On two threads
 * with two-byte keys, runs of 16 KB (one head) read 27 GB/s where runs of 256 KB read 36. */
#include "model/layer.h"

enum {
    FEW_ROWS = 4,      /* blocks that are cut whatever else there is */
    ITEMS_A_WORKER = 4, /* fewer whole blocks than that: larger ones are cut too */
    RUN_BYTES = 256 << 10
};

bool qsi_attend_own(const qsi_op *o, const qsi_fwd *f, int64_t n_kv, int64_t *h0, int64_t *h1) {
    int64_t i = o->w->index, n = o->w->count;
    *h0 = n_kv * i / n;
    *h1 = n_kv * (i + 1) / n;
    return qsi_op_rows(o, f->n) == 1 && (n_kv % n == 0 || n_kv >= ITEMS_A_WORKER * n);
}

typedef struct plan { /* of one block */
    qsi_kv_view view;
    qsi_attend_rows rows;
    int64_t spans;   /* 0: not cut */
    int64_t side;    /* kv heads of an item of a cut block */
    int64_t items, merges;
    float *parts;
} plan;

/* A walk over the blocks in order; tickets only grow, so each worker walks once. */
typedef struct walk {
    const qsi_op *o;
    const qsi_fwd *f;
    const qsi_attend_set *a;
    int64_t block, first, used; /* items before this block; floats of parts before it */
    int64_t h0, h1;             /* own heads */
    plan p;
    bool there, own;
} walk;

/* Heads of an item: a long run of memory, but items enough for the workers. */
static int64_t side_of(const walk *w, int64_t spans) {
    const qsi_attend_set *a = w->a;
    int64_t tile = qsi_max64(1, (int64_t)w->p.view.k_tile);
    int64_t side = qsi_min64(qsi_attend_side(w->p.rows.n_rows, a->group), a->n_kv);
    side = qsi_min64(side, qsi_ceil_div(RUN_BYTES, tile));
    int64_t want = ITEMS_A_WORKER * (int64_t)w->o->w->count;
    while (side > 1 && a->n_blocks * spans * qsi_ceil_div(a->n_kv, side) < want)
        side = qsi_ceil_div(side, 2);
    return side;
}

static void look(walk *w) {
    const qsi_attend_set *a = w->a;
    plan *p = &w->p;
    *p = (plan){0};
    w->there = w->block < a->n_blocks;
    if (!w->there) return;
    a->block(a->arg, w->block, &p->view, &p->rows);
    int64_t spans = qsi_attend_spans(p->rows.pos0 + p->rows.n_rows - 1), heads = a->n_kv * a->group;
    int64_t n = p->rows.n_rows * heads * spans * qsi_attend_part_floats(p->view.hd_v);
    bool few = p->rows.n_rows <= FEW_ROWS ||
               a->n_blocks * a->n_kv < ITEMS_A_WORKER * (int64_t)w->o->w->count;
    bool cut = spans > 1 && w->o->w->count > 1 && few && w->used + n <= w->f->n_parts;
    p->items = w->own ? 0 : a->n_kv;
    if (!cut) return;
    p->view.stride = w->o->w->count;
    p->spans = spans;
    p->side = side_of(w, spans);
    p->items = spans * qsi_ceil_div(a->n_kv, p->side);
    p->merges = p->rows.n_rows * heads;
    p->parts = w->f->parts + w->used;
}

static walk walk_start(const qsi_op *o, const qsi_fwd *f, const qsi_attend_set *a) {
    walk w = {.o = o, .f = f, .a = a};
    w.own = qsi_attend_own(o, f, a->n_kv, &w.h0, &w.h1);
    look(&w);
    return w;
}

static void next_block(walk *w, int64_t items) {
    w->first += items;
    w->used += w->p.merges * w->p.spans * qsi_attend_part_floats(w->p.view.hd_v);
    w->block++;
    look(w);
}

static void run_item(const walk *w, int64_t i) {
    const plan *p = &w->p;
    const qsi_attend_set *a = w->a;
    const qsi_op *o = w->o;
    if (!p->spans) {
        qsi_attend(o->k, &p->view, &p->rows, i, a->group, a->scale, o->scratch);
        return;
    }
    int64_t groups = qsi_ceil_div(a->n_kv, p->side), h = i % groups * p->side;
    int64_t n = qsi_min64(p->side, a->n_kv - h);
    if (n == 1)
        qsi_attend_part(o->k, &p->view, &p->rows, h, a->group, a->scale, i / groups, p->parts,
                        a->n_kv * a->group, p->spans, o->scratch);
    else
        qsi_attend_part_side(o->k, &p->view, &p->rows, h, n, a->group, a->scale, i / groups,
                             p->parts, a->n_kv * a->group, p->spans, o->scratch);
}

static void run_merge(const walk *w, int64_t i) {
    const plan *p = &w->p;
    int64_t heads = w->a->n_kv * w->a->group, row = i / heads, h = i % heads, hd = p->view.hd_v;
    qsi_attend_merge(w->o->k, hd, p->parts + i * p->spans * qsi_attend_part_floats(hd),
                     qsi_attend_spans(p->rows.pos0 + row),
                     p->rows.out + row * p->rows.ldo + h * hd);
}

void qsi_attend_run(qsi_op *o, const qsi_fwd *f, const qsi_attend_set *a) {
    walk w = walk_start(o, f, a);
    for (; w.own && w.there; next_block(&w, 0))
        for (int64_t h = w.h0; !w.p.spans && h < w.h1; h++) run_item(&w, h);
    w = walk_start(o, f, a);
    while (w.there) {
        int64_t i = qsi_op_take(o);
        while (w.there && i >= w.first + w.p.items) next_block(&w, w.p.items);
        if (w.there) run_item(&w, i - w.first);
    }
    qsi_op_end(o);
    bool any = false;
    for (w = walk_start(o, f, a); w.there && !any; next_block(&w, 0)) any = w.p.spans > 0;
    if (!any) return;
    for (w = walk_start(o, f, a); w.there;) {
        int64_t i = qsi_op_take(o);
        while (w.there && i >= w.first + w.p.merges) next_block(&w, w.p.merges);
        if (w.there) run_merge(&w, i - w.first);
    }
    qsi_op_end(o);
}

int64_t qsi_attend_parts(const qsi_config *c) {
    int64_t hd = c->kv_rank ? c->kv_rank : c->head_dim;
    int64_t spans = qsi_attend_spans(qsi_max64(c->n_ctx, 4096));
    int64_t n = qsi_max64(c->n_head * spans, 4096) * qsi_attend_part_floats(hd);
    return qsi_min64(n, 1 << 24);
}
