/* Products: a list of jobs cut into tiles, and the operands of the backward products.
 *
 * A tile is QSI_OP_MM_ROWS rows of C by a range of panels; no tile splits the sum along K, so an
 * element's bits do not depend on the cut (kern.h). For y = x Wt:
 *     dx = dy W, dW = dyT x. */
#include "op/op.h"

#include <string.h>

static int64_t row_blocks(const qsi_mm_job *j) {
    return qsi_ceil_div(j->m, QSI_OP_MM_ROWS);
}

/* First row of block rb: blocks are equal up to the kernels' rows at a time, so that the last one
 * is not the small one that uses its weights badly. */
static int64_t block_row(const qsi_mm_job *j, int64_t rb) {
    int64_t nb = row_blocks(j);
    return rb == nb ? j->m : j->m * rb / nb / 6 * 6;
}

/* Pieces the panels of a job are cut into so that all workers have work. */
static int64_t panel_pieces(const qsi_op *o, const qsi_mm_job *jobs, int n_jobs) {
    int64_t blocks = 0;
    for (int i = 0; i < n_jobs; i += 1 + jobs[i].chain) blocks += row_blocks(&jobs[i]);
    int64_t want = 8 * (int64_t)o->w->count;
    return o->w->count == 1 || blocks >= want ? 1 : qsi_ceil_div(want, qsi_max64(blocks, 1));
}

static void run_tile(const qsi_op *o, const qsi_mm_job *jobs, int64_t rb, int64_t piece,
                     int64_t per) {
    int64_t r0 = block_row(jobs, rb), m = block_row(jobs, rb + 1) - r0;
    for (int c = 0; c <= jobs->chain; c++) {
        const qsi_mm_job *j = &jobs[c];
        const qsi_kern_mm *mm = &o->k->mm[j->kind];
        int64_t p0 = piece * per, p1 = qsi_min64(p0 + per, qsi_ceil_div(j->n, mm->nr));
        mm->run(m, j->n, j->k, p0, p1, (const char *)j->a + (size_t)r0 * j->lda, j->lda, j->b,
                j->c + r0 * j->ldc, j->ldc, j->acc);
    }
}

/* The walk over the pieces of a list whose jobs are one row block each: panels in order, a piece
 * being PARTS_LEFT-th part of what is left for a worker (guided self-scheduling, Polychronopoulos
 * and Kuck 1987), so that memory is read in long runs and all workers end at nearly the same time.
 * A piece lies within one job. Every worker walks the same pieces and runs those whose ticket it
 * has.
 *
 * Jobs of few rows wait for memory, those of more rows leave it idle: where a list has both, the
 * walk takes from each kind as much of its whole as from the other, so that some workers read
 * while others compute. */
enum { PARTS_LEFT = 2, PIECE_BYTES = 48 * 1024, FEW_ROWS = 4 };

typedef struct line { /* jobs of one kind, in order */
    int i;            /* job; n_jobs: no more */
    int64_t p;        /* its panels so far */
    double all, left; /* cost of the line; from p on */
} line;

typedef struct walk {
    line lines[2];   /* of jobs of more rows, of few rows */
    int i;           /* job */
    int64_t p0, p1;  /* its panels of this piece */
    int64_t ticket;  /* of this piece */
} walk;

static int64_t job_panels(const qsi_op *o, const qsi_mm_job *j) {
    return j->k > 0 && j->m > 0 ? qsi_ceil_div(j->n, o->k->mm[j->kind].nr) : 0;
}

static int line_of(const qsi_mm_job *j) { return j->m <= FEW_ROWS; }

/* Of a panel: bytes, and where arithmetic decides as many as memory would give in that time. */
static double panel_cost(const qsi_op *o, const qsi_mm_job *j) {
    return (double)o->k->mm[j->kind].panel_bytes(j->k) * (double)qsi_max64(j->m, FEW_ROWS) / FEW_ROWS;
}

static void skip_done(const qsi_op *o, const qsi_mm_job *jobs, int n_jobs, line *l, int which) {
    while (l->i < n_jobs && (line_of(&jobs[l->i]) != which || l->p == job_panels(o, &jobs[l->i])))
        l->i++, l->p = 0;
}

static walk walk_start(const qsi_op *o, const qsi_mm_job *jobs, int n_jobs) {
    walk w = {.ticket = -1};
    for (int i = 0; i < n_jobs; i++)
        w.lines[line_of(&jobs[i])].all += (double)job_panels(o, &jobs[i]) * panel_cost(o, &jobs[i]);
    for (int i = 0; i < 2; i++) {
        w.lines[i].left = w.lines[i].all;
        skip_done(o, jobs, n_jobs, &w.lines[i], i);
    }
    return w;
}

/* To the next piece; false after the last. */
static bool walk_on(const qsi_op *o, const qsi_mm_job *jobs, int n_jobs, walk *w) {
    line *a = &w->lines[0], *b = &w->lines[1];
    if (a->i == n_jobs && b->i == n_jobs) return false;
    bool few = a->i == n_jobs || (b->i < n_jobs && b->left * a->all > a->left * b->all);
    line *l = few ? b : a;
    const qsi_mm_job *j = &jobs[l->i];
    double left = a->left + b->left, cost = panel_cost(o, j);
    double part = o->w->count == 1 ? left : left / (PARTS_LEFT * o->w->count);
    int64_t two = job_panels(o, j) > 2 * (int64_t)o->w->count ? 2 : 1; /* kernels take two */
    int64_t n = qsi_round_up((int64_t)((part < PIECE_BYTES ? PIECE_BYTES : part) / cost), two);
    n = qsi_max64(n, two);
    w->i = l->i;
    w->p0 = l->p;
    w->p1 = l->p = qsi_min64(w->p0 + n, job_panels(o, j));
    w->ticket++;
    l->left -= (double)(w->p1 - w->p0) * cost;
    skip_done(o, jobs, n_jobs, l, few);
    return true;
}

static void run_walk(qsi_op *o, const qsi_mm_job *jobs, int n_jobs) {
    walk w = walk_start(o, jobs, n_jobs);
    for (int64_t t = qsi_op_take(o); walk_on(o, jobs, n_jobs, &w);) {
        if (w.ticket < t) continue;
        const qsi_mm_job *j = &jobs[w.i];
        o->k->mm[j->kind].run(j->m, j->n, j->k, w.p0, w.p1, j->a, j->lda, j->b, j->c, j->ldc,
                              j->acc);
        t = qsi_op_take(o);
    }
}

/* Lists with jobs of several row blocks: tiles of equal size. */
static void run_tiles(qsi_op *o, const qsi_mm_job *jobs, int n_jobs) {
    int64_t pieces = panel_pieces(o, jobs, n_jobs);
    int64_t first = 0; /* ticket of job i's first tile; tickets only grow, so i moves on */
    int i = 0;
    while (i < n_jobs) {
        int64_t t = qsi_op_take(o), per = 0, np = 0, nb = 0;
        for (; i < n_jobs; i += 1 + jobs[i].chain) {
            int64_t p = qsi_ceil_div(jobs[i].n, o->k->mm[jobs[i].kind].nr);
            per = qsi_round_up(qsi_max64(1, qsi_ceil_div(p, pieces)), 2); /* kernels take two */
            np = qsi_ceil_div(p, per);
            nb = jobs[i].k > 0 ? row_blocks(&jobs[i]) : 0;
            if (t - first < nb * np) break;
            first += nb * np;
        }
        if (i < n_jobs) run_tile(o, &jobs[i], (t - first) % nb, (t - first) / nb, per);
    }
}

void qsi_op_mm(qsi_op *o, const qsi_mm_job *jobs, int n_jobs) {
    bool one = true;
    if (o->tap != NULL && o->w->index == 0) o->tap(o->tap_user, jobs, n_jobs);
    for (int i = 0; i < n_jobs; i++) one = one && row_blocks(&jobs[i]) <= 1 && !jobs[i].chain;
    if (one)
        run_walk(o, jobs, n_jobs);
    else
        run_tiles(o, jobs, n_jobs);
    qsi_op_end(o);
}

void qsi_job_run(const qsi_kern *k, const qsi_mm_job *j) {
    const qsi_kern_mm *mm = &k->mm[j->kind];
    mm->run(j->m, j->n, j->k, 0, qsi_ceil_div(j->n, mm->nr), j->a, j->lda, j->b, j->c, j->ldc,
            j->acc);
}

static size_t elem(qsi_mm kind) {
    return kind == QSI_MM_F32 ? sizeof(float) : sizeof(uint16_t);
}

static int64_t ld_cols(int64_t m) {
    /* 32 more: rows of the transposed matrix then do not all start in one cache set */
    return qsi_round_up(m, 32) + 32;
}

size_t qsi_dy_bytes(qsi_mm kind, int64_t m, int64_t n) {
    size_t rows = kind == QSI_MM_F32 ? 0 : (size_t)(m * qsi_round_up(n, 32)) * elem(kind);
    return rows + (size_t)(n * ld_cols(m)) * elem(kind) + 2 * QSI_ALIGN;
}

size_t qsi_xpack_bytes(const qsi_kern *k, qsi_mm kind, int64_t m, int64_t n) {
    const qsi_kern_mm *mm = &k->mm[kind];
    return mm->panel_bytes(m) * (size_t)qsi_ceil_div(n, mm->nr) + QSI_ALIGN;
}

void qsi_dy_init(qsi_dy *d, qsi_bump *b, qsi_mm kind, int64_t m, int64_t n, float *dy,
                 int64_t ld_dy) {
    *d = (qsi_dy){.kind = kind, .m = m, .n = n, .ld_rows = ld_dy, .ld_cols = ld_cols(m),
                  .rows = dy};
    if (kind != QSI_MM_F32) {
        d->ld_rows = qsi_round_up(n, 32);
        d->rows = qsi_bump_take(b, (size_t)(m * d->ld_rows) * elem(kind));
    }
    d->cols = qsi_bump_take(b, (size_t)(n * d->ld_cols) * elem(kind));
}

void qsi_xpack_init(qsi_xpack *p, qsi_bump *b, const qsi_kern *k, qsi_mm kind, int64_t m,
                    int64_t n) {
    const qsi_kern_mm *mm = &k->mm[kind];
    *p = (qsi_xpack){.kind = kind, .m = m, .k = n};
    p->b = qsi_bump_take(b, mm->panel_bytes(m) * (size_t)qsi_ceil_div(n, mm->nr));
}

/* y[c][r0 + r] = x[r][c], in squares that stay in the cache. */
static void transpose_f32(const float *x, int64_t ldx, int64_t rows, int64_t cols, float *y,
                          int64_t ldy) {
    for (int64_t c0 = 0; c0 < cols; c0 += 16) {
        int64_t c1 = qsi_min64(c0 + 16, cols);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = c0; c < c1; c++) y[c * ldy + r] = x[r * ldx + c];
    }
}

void qsi_dy_put(const qsi_kern *k, const qsi_dy *d, const float *dy, int64_t ld_dy, int64_t r0,
                int64_t r1) {
    if (d->kind == QSI_MM_F32) {
        transpose_f32(dy, ld_dy, r1 - r0, d->n, (float *)d->cols + r0, d->ld_cols);
        return;
    }
    uint16_t *rows = d->rows, *cols = d->cols;
    for (int64_t r = r0; r < r1; r++) {
        uint16_t *y = rows + r * d->ld_rows;
        k->f32_to_bf16(dy + (r - r0) * ld_dy, y, d->n);
        if (d->n & 1) y[d->n] = 0;
    }
    k->f32_to_bf16_t(dy, ld_dy, r1 - r0, d->n, cols + r0, d->ld_cols);
    if (r1 == d->m && (d->m & 1))
        for (int64_t c = 0; c < d->n; c++) cols[c * d->ld_cols + d->m] = 0;
}

int64_t qsi_xpack_items(const qsi_kern *k, const qsi_xpack *p) {
    return p->m ? qsi_ceil_div(p->k, k->mm[p->kind].nr) : 0;
}

void qsi_xpack_put(const qsi_kern *k, const qsi_xpack *p, const qsi_act *x, int64_t row0,
                   int64_t i) {
    size_t lda = 0;
    const void *a = qsi_act_row(x, p->kind, row0, &lda);
    k->mm[p->kind].pack(a, 1, x->ld, p->k, p->m, i, i + 1, p->b);
}

qsi_mm_job qsi_job_dw(const qsi_dy *dy, const qsi_xpack *x, float *dw) {
    QS_ASSERT(dy->kind == x->kind && dy->m == x->m);
    return (qsi_mm_job){.kind = dy->kind, .a = dy->cols,
                        .lda = (size_t)dy->ld_cols * elem(dy->kind), .b = x->b, .c = dw,
                        .m = dy->n, .n = x->k, .k = dy->m, .ldc = x->k, .acc = true};
}
