/* The engine: see engine.h. A run is a loop over plans: a plan takes pending ids from the sequences
 * in their order until the step is full; a sequence whose pending ids all fit asks for the logits of
 * its last row. The order of rows does not change any result (model.h). */
#include "infer/engine.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"


struct qsi_engine {
    const qsi_runner *runner;
    int32_t max_seqs;
    qsi_row *rows;        /* [max_rows] */
    qsi_kv_table *tables; /* [max_seqs], copies: a step does not change them */
    int32_t *took;        /* [max_seqs] rows of each sequence in the plan */
    float *logits;        /* [max_seqs, n_vocab] */
};

qs_status qsi_engine_create(qsi_engine **out, const qsi_runner *r, int32_t max_seqs, qs_err *err) {
    qs_status st = QS_OK;
    qsi_engine *e = qsi_calloc(1, sizeof *e);
    if (!e) QS_FAIL(err, QS_E_NOMEM, "out of memory for the engine");
    size_t n_logits;
    if (!qsi_mul_size((size_t)max_seqs, (size_t)r->n_vocab, &n_logits))
        QS_FAIL(err, QS_E_LIMIT, "too many sequences: %d", (int)max_seqs);
    e->runner = r;
    e->max_seqs = max_seqs;
    e->rows = qsi_alloc((size_t)r->max_rows, sizeof *e->rows);
    e->tables = qsi_alloc((size_t)max_seqs, sizeof *e->tables);
    e->took = qsi_alloc((size_t)max_seqs, sizeof *e->took);
    e->logits = qsi_alloc(n_logits, sizeof *e->logits);
    if (!e->rows || !e->tables || !e->took || !e->logits)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the engine");
    *out = e;
    e = NULL;
done:
    qsi_engine_free(e);
    return st;
}

void qsi_engine_free(qsi_engine *e) {
    if (!e) return;
    qsi_free(e->rows);
    qsi_free(e->tables);
    qsi_free(e->took);
    qsi_free(e->logits);
    qsi_free(e);
}

const qsi_runner *qsi_engine_runner(const qsi_engine *e) {
    return e->runner;
}

qs_status qsi_seq_init(qsi_seq *s, qsi_engine *e, qs_err *err) {
    qs_status st = QS_OK;
    *s = (qsi_seq){ .engine = e };
    s->logits = qsi_alloc((size_t)e->runner->n_vocab, sizeof *s->logits);
    if (!s->logits) QS_FAIL(err, QS_E_NOMEM, "out of memory for a sequence");
done:
    return st;
}

void qsi_seq_release(qsi_seq *s) {
    if (!s->engine) return;
    const qsi_runner *r = s->engine->runner;
    r->release(r->user, &s->table);
    qsi_free(s->ids);
    qsi_free(s->generated);
    qsi_free(s->logits);
    *s = (qsi_seq){ 0 };
}

static qs_status check_ids(const qsi_seq *s, const int32_t *ids, size_t n, size_t before,
                           qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = s->engine->runner;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= r->n_vocab)
            QS_FAIL(err, QS_E_ARG, "id %d at position %zu: the model has ids 0 to %d", (int)ids[i],
                    before + i, (int)r->n_vocab - 1);
    if ((uint64_t)before + n > (uint64_t)r->n_ctx)
        QS_FAIL(err, QS_E_LIMIT, "%zu tokens do not fit the context of %" PRId64
                " (a larger one: -c N; or shorten the text)", before + n, r->n_ctx);
done:
    return st;
}

/* Room for n ids in all. */
static qs_status make_room(qsi_seq *s, size_t n, qs_err *err) {
    qs_status st = qsi_grow((void **)&s->ids, &s->cap, n, sizeof *s->ids);
    if (st == QS_OK)
        st = qsi_grow((void **)&s->generated, &s->generated_cap, n, sizeof *s->generated);
    if (st != QS_OK) st = qsi_err_set(err, QS_E_NOMEM, "out of memory for a sequence");
    return st;
}

static qs_status push(qsi_seq *s, const int32_t *ids, size_t n, bool generated, qs_err *err) {
    qs_status st = QS_OK;
    if (n == 0) goto done;
    QS_TRY(check_ids(s, ids, n, s->n_ids, err));
    QS_TRY(make_room(s, s->n_ids + n, err));
    memcpy(s->ids + s->n_ids, ids, n * sizeof *ids);
    for (size_t i = 0; i < n; i++) s->generated[s->n_ids + i] = generated;
    s->n_ids += n;
    s->has_logits = false;
done:
    return st;
}

qs_status qsi_seq_push(qsi_seq *s, const int32_t *ids, size_t n, qs_err *err) {
    return push(s, ids, n, false, err);
}

qs_status qsi_seq_push_generated(qsi_seq *s, int32_t id, qs_err *err) {
    return push(s, &id, 1, true, err);
}

void qsi_seq_truncate(qsi_seq *s, size_t n) {
    if (n >= s->n_ids) return;
    const qsi_runner *r = s->engine->runner;
    s->n_ids = n;
    s->has_logits = false;
    if (s->n_past > n) {
        s->n_past = n;
        r->truncate(r->user, &s->table, (int64_t)n);
    }
}

qs_status qsi_seq_set(qsi_seq *s, const int32_t *ids, size_t n, size_t *n_kept, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(check_ids(s, ids, n, 0, err));
    size_t same = 0;
    while (same < n && same < s->n_past && ids[same] == s->ids[same]) same++;
    if (same == n && n > 0) same--;
    QS_TRY(make_room(s, n, err));
    qsi_seq_truncate(s, same);
    QS_TRY(qsi_seq_push(s, ids + same, n - same, err));
    if (n_kept) *n_kept = same;
done:
    return st;
}

/* Fills rows from the sequences; returns how many. Sequence i gets took[i] of them. */
static int32_t plan(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs) {
    int32_t n = 0;
    for (size_t i = 0; i < n_seqs; i++) {
        const qsi_seq *s = seqs[i];
        size_t pending = s->n_ids - s->n_past, room = (size_t)(e->runner->max_rows - n);
        int32_t take = (int32_t)(pending < room ? pending : room);
        for (int32_t j = 0; j < take; j++) {
            size_t pos = s->n_past + (size_t)j;
            e->rows[n++] = (qsi_row){ .id = s->ids[pos], .seq = (int32_t)i, .pos = (int32_t)pos,
                                      .logits = pos + 1 == s->n_ids,
                                      .generated = s->generated[pos] };
        }
        e->took[i] = take;
    }
    return n;
}

static qs_status run_plan(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs, int32_t n_rows,
                          qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = e->runner;
    for (size_t i = 0; i < n_seqs; i++) {
        int64_t n_pos = (int64_t)seqs[i]->n_past + e->took[i];
        if (e->took[i] > 0) QS_TRY(r->reserve(r->user, &seqs[i]->table, n_pos, err));
        e->tables[i] = seqs[i]->table;
    }
    qsi_step step = { .rows = e->rows, .n_rows = n_rows, .tables = e->tables,
                      .n_tables = (int32_t)n_seqs, .logits = e->logits };
    QS_TRY(r->step(r->user, &step, err));
    const float *out = e->logits;
    for (size_t i = 0; i < n_seqs; i++) {
        if (e->took[i] == 0) continue;
        seqs[i]->n_past += (size_t)e->took[i];
        if (seqs[i]->n_past < seqs[i]->n_ids) continue;
        memcpy(seqs[i]->logits, out, (size_t)r->n_vocab * sizeof *out);
        seqs[i]->has_logits = true;
        out += r->n_vocab;
    }
done:
    return st;
}

qs_status qsi_engine_run(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs, const atomic_int *cancel,
                         qs_err *err) {
    qs_status st = QS_OK;
    if (n_seqs > (size_t)e->max_seqs)
        QS_FAIL(err, QS_E_ARG, "%zu sequences in a run of at most %d", n_seqs, (int)e->max_seqs);
    for (size_t i = 0; i < n_seqs; i++)
        if (seqs[i]->n_ids == 0)
            QS_FAIL(err, QS_E_STATE, "nothing to continue: the prompt has no token");
    for (;;) {
        int32_t n_rows = plan(e, seqs, n_seqs);
        if (n_rows == 0) break;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        QS_TRY(run_plan(e, seqs, n_seqs, n_rows, err));
    }
done:
    return st;
}
