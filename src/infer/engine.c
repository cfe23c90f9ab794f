/* The engine: see engine.h. A run is a loop over plans: a plan takes pending ids from the sequences
 * in their order until the step is full; a sequence whose pending ids all fit asks for the logits of
 * its last row. The order of rows does not change any result (model.h).
 *
 * Drafting. The layer that predicts further takes pairs of a position's hidden state and the next id.
 * After every step it gets the pairs that became known (follow), so that its cache keeps up; the pair of
 * the last position and the id just chosen gives a draft of the one after it (draft). Both are then fed
 * (run_ahead). When the draft comes, it is in the cache and its logits are known (hit); when another id
 * comes, the next step writes over its place. */
#include "infer/engine.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"


struct qsi_engine {
    const qsi_runner *runner;
    int32_t max_seqs;
    qsi_row *rows;        /* [LEAD + max_rows] */
    qsi_kv_table *tables; /* [max_seqs], copies: a step does not change them */
    int32_t *took;        /* [max_seqs] rows of each sequence in the plan */
    float *logits;        /* [max_seqs, n_vocab]; two at least where the runner drafts */
    float *hidden;        /* [LEAD + max_rows, d_hidden]: of a step's rows, from LEAD on */
};

enum { LEAD = 2 }; /* hidden states that a sequence may have before a step's own */

qs_status qsi_engine_create(qsi_engine **out, const qsi_runner *r, int32_t max_seqs, qs_err *err) {
    qs_status st = QS_OK;
    qsi_engine *e = qsi_calloc(1, sizeof *e);
    if (!e) QS_FAIL(err, QS_E_NOMEM, "out of memory for the engine");
    size_t n_logits;
    size_t n_rows = (size_t)r->max_rows, n_out = (size_t)max_seqs, n_hidden = 0;
    if (r->d_hidden && n_out < 2) n_out = 2;
    if (!qsi_mul_size(n_out, (size_t)r->n_vocab, &n_logits) ||
        !qsi_mul_size(n_rows + LEAD, (size_t)r->d_hidden, &n_hidden))
        QS_FAIL(err, QS_E_LIMIT, "too many sequences: %d", (int)max_seqs);
    e->runner = r;
    e->max_seqs = max_seqs;
    e->rows = qsi_alloc(n_rows + LEAD, sizeof *e->rows);
    e->tables = qsi_alloc((size_t)max_seqs, sizeof *e->tables);
    e->took = qsi_alloc((size_t)max_seqs, sizeof *e->took);
    e->logits = qsi_alloc(n_logits, sizeof *e->logits);
    e->hidden = qsi_alloc(n_hidden, sizeof *e->hidden);
    if (!e->rows || !e->tables || !e->took || !e->logits || !e->hidden)
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
    qsi_free(e->hidden);
    qsi_free(e);
}

const qsi_runner *qsi_engine_runner(const qsi_engine *e) {
    return e->runner;
}

qs_status qsi_seq_init(qsi_seq *s, qsi_engine *e, qs_err *err) {
    qs_status st = QS_OK;
    *s = (qsi_seq){ .engine = e, .ahead = -1 };
    size_t d = (size_t)e->runner->d_hidden, n = (size_t)e->runner->n_vocab;
    s->logits = qsi_alloc(n, sizeof *s->logits);
    s->hidden = qsi_alloc(2 * d, sizeof *s->hidden);
    s->ahead_logits = qsi_alloc(d ? n : 0, sizeof *s->ahead_logits);
    if (!s->logits || !s->hidden || !s->ahead_logits)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a sequence");
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
    qsi_free(s->hidden);
    qsi_free(s->ahead_logits);
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
        s->n_hidden = 0;
        s->ahead = -1;
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

/* Feeds the layer that predicts further with n pairs from position pos on: hidden states and the ids
 * after them. logits: out, of the last pair; NULL: not wanted. */
static qs_status feed_pairs(qsi_engine *e, const qsi_seq *s, size_t pos, int32_t n, float *hidden,
                            float *logits, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = e->runner;
    for (int32_t i = 0; i < n; i++)
        e->rows[i] = (qsi_row){ .id = s->ids[pos + (size_t)i + 1], .pos = (int32_t)pos + i,
                                .logits = logits && i == n - 1,
                                .generated = s->generated[pos + (size_t)i + 1] };
    for (int32_t i = 0; i < n; i += r->max_rows) {
        int32_t m = n - i < r->max_rows ? n - i : r->max_rows;
        qsi_step step = { .rows = e->rows + i, .n_rows = m, .tables = &s->table, .n_tables = 1,
                          .logits = logits, .hidden = hidden + (size_t)i * (size_t)r->d_hidden };
        QS_TRY(r->draft(r->user, &step, err));
    }
done:
    return st;
}

/* After a step that fed `took` rows of s, whose hidden states begin at `own` and have LEAD free places
 * before them: all pairs that are known now. */
static qs_status follow(qsi_engine *e, qsi_seq *s, int32_t took, float *own, qs_err *err) {
    qs_status st = QS_OK;
    size_t d = (size_t)e->runner->d_hidden, lead = (size_t)s->n_hidden;
    size_t pos = s->n_past - (size_t)took - lead, n = lead + (size_t)took;
    float *from = own - lead * d;
    memcpy(from, s->hidden, lead * d * sizeof *from);
    memcpy(s->hidden, own + ((size_t)took - 1) * d, d * sizeof *from); /* the last has no next id yet */
    s->n_hidden = 1;
    if (s->n_past < s->n_ids) s->n_hidden = 0; /* or it has */
    else n--;
    if (n > 0) QS_TRY(feed_pairs(e, s, pos, (int32_t)n, from, NULL, err));
done:
    return st;
}

static qs_status follow_all(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs, qs_err *err) {
    qs_status st = QS_OK;
    float *own = e->hidden + LEAD * (size_t)e->runner->d_hidden;
    for (size_t i = 0; i < n_seqs; i++) {
        seqs[i]->ahead = -1;
        if (e->took[i] > 0) QS_TRY(follow(e, seqs[i], e->took[i], own, err));
        own += (size_t)e->took[i] * (size_t)e->runner->d_hidden;
    }
done:
    return st;
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
    if (r->d_hidden) step.hidden = e->hidden + LEAD * (size_t)r->d_hidden;
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
    if (r->d_hidden) QS_TRY(follow_all(e, seqs, n_seqs, err));
done:
    return st;
}

/* One id was chosen from the logits, and the hidden state before it is known. */
static bool can_draft(const qsi_engine *e, const qsi_seq *s) {
    return e->runner->d_hidden && e->runner->max_rows > 1 && s->n_ids == s->n_past + 1 &&
           s->generated[s->n_past] && s->n_hidden > 0 &&
           (int64_t)s->n_past + 2 <= e->runner->n_ctx;
}

/* The draft was right: its place in the cache and its logits are the sequence's. */
static bool hit(qsi_engine *e, qsi_seq *s) {
    size_t n = (size_t)e->runner->n_vocab;
    bool right = s->ahead >= 0 && s->ahead == s->ids[s->n_past];
    s->ahead = -1;
    if (!right) return false;
    memcpy(s->logits, s->ahead_logits, n * sizeof *s->logits);
    s->n_past++;
    s->n_hidden = 2;
    s->n_hits++;
    s->has_logits = true;
    return true;
}

/* The likeliest id after the one that is pending. */
static qs_status draft(qsi_engine *e, qsi_seq *s, int32_t *id, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = (size_t)s->n_hidden, d = (size_t)e->runner->d_hidden;
    memcpy(e->hidden, s->hidden, n * d * sizeof *e->hidden);
    QS_TRY(feed_pairs(e, s, s->n_past - n, (int32_t)n, e->hidden, e->logits, err));
    *id = 0;
    for (int32_t i = 1; i < e->runner->n_vocab; i++)
        if (e->logits[i] > e->logits[*id]) *id = i;
done:
    return st;
}

/* Feeds the pending id, and after it its draft. */
static qs_status run_ahead(qsi_engine *e, qsi_seq *s, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = e->runner;
    int32_t next = 0, pos = (int32_t)s->n_past;
    size_t n = (size_t)r->n_vocab, d = (size_t)r->d_hidden;
    QS_TRY(draft(e, s, &next, err));
    QS_TRY(r->reserve(r->user, &s->table, (int64_t)pos + 2, err));
    for (int32_t i = 0; i < 2; i++)
        e->rows[i] = (qsi_row){ .id = i ? next : s->ids[s->n_past], .pos = pos + i, .logits = true,
                                .generated = true };
    qsi_step step = { .rows = e->rows, .n_rows = 2, .tables = &s->table, .n_tables = 1,
                      .logits = e->logits, .hidden = e->hidden };
    QS_TRY(r->step(r->user, &step, err));
    memcpy(s->logits, e->logits, n * sizeof *s->logits);
    memcpy(s->ahead_logits, e->logits + n, n * sizeof *s->logits);
    memcpy(s->hidden, e->hidden, 2 * d * sizeof *s->hidden);
    s->n_past++;
    s->n_hidden = 1;
    s->has_logits = true;
    s->ahead = next;
    s->n_drafts++;
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
        if (n_seqs == 1 && can_draft(e, seqs[0])) {
            if (!hit(e, seqs[0])) QS_TRY(run_ahead(e, seqs[0], err));
            continue;
        }
        QS_TRY(run_plan(e, seqs, n_seqs, n_rows, err));
    }
done:
    return st;
}
