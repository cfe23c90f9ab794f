/* Walks over given ids; see walk.h. */
#include "infer/walk.h"

#include "base/mem.h"

#define WALK_BYTES ((size_t)8 << 20) /* of logits that a walk asks for at once */

qs_status qsi_walk_init(qsi_walk *w, qsi_engine *e, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = qsi_engine_runner(e);
    size_t row = (size_t)r->n_vocab * sizeof(float), n = WALK_BYTES / (row > 0 ? row : 1);
    *w = (qsi_walk){ 0 };
    if (n < 1) n = 1;
    w->max_logits = n < (size_t)r->max_rows ? (int32_t)n : r->max_rows;
    w->logits = qsi_alloc((size_t)w->max_logits * (size_t)r->n_vocab, sizeof *w->logits);
    w->rows = qsi_alloc((size_t)r->max_rows, sizeof *w->rows);
    if (!w->logits || !w->rows) QS_FAIL(err, QS_E_NOMEM, "out of memory for logits");
    QS_TRY(qsi_seq_init(&w->seq, e, err));
done:
    if (st != QS_OK) qsi_walk_release(w);
    return st;
}

void qsi_walk_release(qsi_walk *w) {
    if (w->seq.engine) qsi_seq_release(&w->seq);
    qsi_free(w->rows);
    qsi_free(w->logits);
    *w = (qsi_walk){ 0 };
}

qs_status qsi_walk_begin(qsi_walk *w, const int32_t *ids, size_t n, size_t from, qs_err *err) {
    qs_status st = QS_OK;
    size_t kept;
    if (from >= n) QS_FAIL(err, QS_E_ARG, "a walk over %zu ids cannot begin at %zu", n, from);
    QS_TRY(qsi_seq_set(&w->seq, ids, n, &kept, err));
    if (kept > from) { /* its logits are wanted: feed it again */
        qsi_seq_truncate(&w->seq, from);
        QS_TRY(qsi_seq_push(&w->seq, ids + from, n - from, err));
    }
    w->from = from;
done:
    return st;
}

/* Feeds the next positions, all with logits or all without; returns their number in *take. */
static qs_status feed(qsi_walk *w, int32_t most, int32_t *take, qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *s = &w->seq;
    const qsi_runner *r = qsi_engine_runner(s->engine);
    bool wanted = s->n_past >= w->from;
    size_t left = (wanted ? s->n_ids : w->from) - s->n_past;
    int32_t n = wanted ? w->max_logits : r->max_rows;
    if (wanted && most > 0 && n > most) n = most;
    if (left < (size_t)n) n = (int32_t)left;
    QS_TRY(r->reserve(r->user, &s->table, (int64_t)s->n_past + n, err));
    for (int32_t i = 0; i < n; i++) {
        size_t pos = s->n_past + (size_t)i;
        w->rows[i] = (qsi_row){ .id = s->ids[pos], .pos = (int32_t)pos, .logits = wanted };
    }
    qsi_step step = { .rows = w->rows, .n_rows = n, .tables = &s->table, .n_tables = 1,
                      .logits = w->logits };
    QS_TRY(r->step(r->user, &step, err));
    s->n_past += (size_t)n;
    *take = n;
done:
    return st;
}

qs_status qsi_walk_next(qsi_walk *w, int32_t most, const atomic_int *cancel, size_t *pos,
                        int32_t *n_rows, qs_err *err) {
    qs_status st = QS_OK;
    *n_rows = 0;
    while (*n_rows == 0 && w->seq.n_past < w->seq.n_ids) {
        size_t at = w->seq.n_past;
        int32_t take;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        QS_TRY(feed(w, most, &take, err));
        *pos = at;
        if (at >= w->from) *n_rows = take;
    }
done:
    return st;
}

qs_status qsi_engine_walk(qsi_engine *e, const int32_t *ids, size_t n, qsi_logits_fn *fn, void *user,
                          const atomic_int *cancel, qs_err *err) {
    qs_status st = QS_OK;
    const size_t n_vocab = (size_t)qsi_engine_runner(e)->n_vocab;
    qsi_walk w = { 0 };
    size_t pos = 0;
    int32_t n_rows = 0;
    if (n == 0) goto done;
    QS_TRY(qsi_walk_init(&w, e, err));
    QS_TRY(qsi_walk_begin(&w, ids, n, 0, err));
    do {
        QS_TRY(qsi_walk_next(&w, 0, cancel, &pos, &n_rows, err));
        for (int32_t i = 0; i < n_rows; i++)
            if (fn(user, pos + (size_t)i, w.logits + (size_t)i * n_vocab))
                QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    } while (n_rows > 0);
done:
    qsi_walk_release(&w);
    return st;
}
