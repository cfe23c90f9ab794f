/* The engine: see engine.h. A run is a loop over plans: a plan takes pending ids from the sequences
 * in their order until the step is full; a sequence whose pending ids all fit asks for the logits
 * of its last row. The order of rows does not change any result (model.h).
 *
 * Drafting by the model. The layer that predicts further takes pairs of a position's hidden state
 * and the next id. After every step it gets the pairs that became known (follow), so that its
 * cache keeps up; the pairs up to the last position and the id just chosen give a draft of the one
 * after it (qsi_engine_draft). When a draft comes, it is in the cache and its logits are known
 * (qsi_seq_settle); when another id comes, the next step writes over its place. */
#include "infer/engine.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"

struct qsi_engine {
    const qsi_runner *runner;
    int32_t max_seqs, max_logits;
    qsi_row *rows;        /* [LEAD + max_rows] */
    qsi_kv_table *tables; /* [max_seqs], copies: a step does not change them */
    qsi_take *takes;      /* [max_seqs] of a run's plan */
    float *logits;        /* [max_logits, n_vocab] */
    float *hidden;        /* [LEAD + max_rows, d_model]: of a step's rows, from LEAD on; NULL until
                           * used */
};

enum { LEAD = 1 + QSI_MAX_DRAFTS }; /* hidden states that a sequence may have before a step's own */

/* Memory for hidden states, when they are first wanted. */
static qs_status need_hidden(qsi_engine *e, qs_err *err) {
    qs_status st = QS_OK;
    size_t n, rows = (size_t)e->runner->max_rows + LEAD;
    if (e->hidden) goto done;
    if (qsi_mul_size(rows, (size_t)e->runner->d_model, &n))
        e->hidden = qsi_alloc(n, sizeof *e->hidden);
    if (!e->hidden) QS_FAIL(err, QS_E_NOMEM, "out of memory for hidden states");
done:
    return st;
}

qs_status qsi_engine_create(qsi_engine **out, const qsi_runner *r, int32_t max_seqs, qs_err *err) {
    int32_t n = r->d_hidden && max_seqs < 2 ? 2 : max_seqs;
    return qsi_engine_create_wide(out, r, max_seqs, n, err);
}

qs_status qsi_engine_create_wide(qsi_engine **out, const qsi_runner *r, int32_t max_seqs,
                                 int32_t max_logits, qs_err *err) {
    qs_status st = QS_OK;
    qsi_engine *e = qsi_calloc(1, sizeof *e);
    if (!e) QS_FAIL(err, QS_E_NOMEM, "out of memory for the engine");
    size_t n_logits, n_rows = (size_t)r->max_rows;
    if (max_seqs < 1 || max_logits < max_seqs ||
        !qsi_mul_size((size_t)max_logits, (size_t)r->n_vocab, &n_logits))
        QS_FAIL(err, QS_E_LIMIT, "too many sequences: %d", (int)max_seqs);
    e->runner = r;
    e->max_seqs = max_seqs;
    e->max_logits = max_logits;
    e->rows = qsi_alloc(n_rows + LEAD, sizeof *e->rows);
    e->tables = qsi_alloc((size_t)max_seqs, sizeof *e->tables);
    e->takes = qsi_alloc((size_t)max_seqs, sizeof *e->takes);
    e->logits = qsi_alloc(n_logits, sizeof *e->logits);
    if (!e->rows || !e->tables || !e->takes || !e->logits)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the engine");
    if (r->d_hidden) QS_TRY(need_hidden(e, err));
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
    qsi_free(e->takes);
    qsi_free(e->logits);
    qsi_free(e->hidden);
    qsi_free(e);
}

const qsi_runner *qsi_engine_runner(const qsi_engine *e) {
    return e->runner;
}

qs_status qsi_seq_init(qsi_seq *s, qsi_engine *e, qs_err *err) {
    qs_status st = QS_OK;
    *s = (qsi_seq){ .engine = e };
    s->logits = qsi_alloc((size_t)e->runner->n_vocab, sizeof *s->logits);
    s->hidden = qsi_alloc(LEAD * (size_t)e->runner->d_hidden, sizeof *s->hidden);
    if (!s->logits || !s->hidden)
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
        s->n_ahead = s->at_ahead = 0;
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

/* ---- the layer that predicts further ---- */

/* Feeds it n pairs from position pos on: hidden states and the ids after them. logits: out, of the
 * last pair; NULL: not wanted. */
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

/* After a step that fed t, whose hidden states begin at `own` and have LEAD free places before
 * them: all pairs that are known now. Those of the last position and of drafts are kept. */
static qs_status follow(qsi_engine *e, const qsi_take *t, float *own, qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *s = t->seq;
    size_t d = (size_t)e->runner->d_hidden, lead = (size_t)s->n_hidden, took = (size_t)t->n_rows;
    size_t pos = s->n_past - took - lead, n = lead + took;
    float *from = own - lead * d;
    memcpy(from, s->hidden, lead * d * sizeof *from);
    memcpy(s->hidden, own + (took - 1) * d, (1 + (size_t)t->n_drafts) * d * sizeof *from);
    s->n_hidden = 1; /* the last has no next id yet */
    if (s->n_past < s->n_ids) s->n_hidden = 0; /* or it has */
    else n--;
    if (n > 0) QS_TRY(feed_pairs(e, s, pos, (int32_t)n, from, NULL, err));
done:
    return st;
}

/* One id was chosen from the logits, and the hidden state before it is known. */
static bool can_draft(const qsi_engine *e, const qsi_seq *s) {
    return e->runner->d_hidden && e->runner->max_rows > 1 && s->n_ids == s->n_past + 1 &&
           s->generated[s->n_past] && s->n_hidden > 0 &&
           (int64_t)s->n_past + 2 <= e->runner->n_ctx;
}

qs_status qsi_engine_draft(qsi_engine *e, qsi_seq *s, int32_t *id, qs_err *err) {
    qs_status st = QS_OK;
    *id = -1;
    if (!can_draft(e, s)) goto done;
    const qsi_runner *r = e->runner;
    size_t n = (size_t)s->n_hidden, d = (size_t)r->d_hidden;
    memcpy(e->hidden, s->hidden, n * d * sizeof *e->hidden);
    s->n_hidden = 0;
    QS_TRY(r->reserve(r->user, &s->table, (int64_t)s->n_past + 1, err));
    if (r->pages.own)
        QS_TRY(r->pages.own(r->user, &s->table, (int64_t)(s->n_past - n), err));
    QS_TRY(feed_pairs(e, s, s->n_past - n, (int32_t)n, e->hidden, e->logits, err));
    *id = 0;
    for (int32_t i = 1; i < r->n_vocab; i++)
        if (e->logits[i] > e->logits[*id]) *id = i;
done:
    return st;
}

/* ---- a step ---- */

/* Does this take end its sequence's pending ids? */
static bool completes(const qsi_take *t) {
    return t->seq->n_past + (size_t)t->n_rows == t->seq->n_ids;
}

/* Rows of take i of the step, from e->rows[n] on; returns the rows there are then. *n_logits
 * counts. */
static int32_t put_rows(qsi_engine *e, const qsi_take *t, int32_t i, int32_t n, int32_t *n_logits) {
    const qsi_seq *s = t->seq;
    for (int32_t j = 0; j < t->n_rows + t->n_drafts; j++) {
        bool draft = j >= t->n_rows;
        size_t pos = s->n_past + (size_t)j;
        qsi_row row = { .id = draft ? t->drafts[j - t->n_rows] : s->ids[pos], .seq = i,
                        .pos = (int32_t)pos, .generated = draft || s->generated[pos] };
        row.logits = draft || pos + 1 == s->n_ids || (s->on_row && s->row_logits);
        *n_logits += row.logits;
        e->rows[n++] = row;
    }
    return n;
}

/* Room in the cache, and pages that are nobody else's, for what t feeds. */
static qs_status make_pages(const qsi_runner *r, const qsi_take *t, qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *s = t->seq;
    int64_t from = (int64_t)s->n_past, lead = r->d_hidden ? s->n_hidden : 0;
    QS_TRY(r->reserve(r->user, &s->table, from + t->n_rows + t->n_drafts, err));
    if (r->pages.own) QS_TRY(r->pages.own(r->user, &s->table, from - lead, err));
done:
    return st;
}

static qs_status check_take(const qsi_engine *e, const qsi_take *t, qs_err *err) {
    const qsi_seq *s = t->seq;
    if (t->n_rows < 1 || (size_t)t->n_rows > s->n_ids - s->n_past || t->n_drafts < 0 ||
        t->n_drafts > QSI_MAX_DRAFTS || (t->n_drafts > 0 && !completes(t)) ||
        (int64_t)s->n_past + t->n_rows + t->n_drafts > e->runner->n_ctx)
        return qsi_err_set(err, QS_E_ARG, "a step with %d rows and %d drafts of a sequence of %zu ids",
                           (int)t->n_rows, (int)t->n_drafts, s->n_ids);
    return QS_OK;
}

static qs_status keep_ahead(qsi_seq *s, const qsi_take *t, const float *logits, size_t n_vocab,
                            qs_err *err) {
    qs_status st = QS_OK;
    size_t n = (size_t)t->n_drafts;
    s->at_ahead = 0;
    s->n_ahead = 0;
    if (n == 0) goto done;
    if (!s->ahead_logits) {
        s->ahead_logits = qsi_alloc(QSI_MAX_DRAFTS * n_vocab, sizeof *logits);
        if (!s->ahead_logits) QS_FAIL(err, QS_E_NOMEM, "out of memory for drafts");
    }
    memcpy(s->ahead, t->drafts, n * sizeof *s->ahead);
    memcpy(s->ahead_logits, logits, n * n_vocab * sizeof *logits);
    s->n_ahead = t->n_drafts;
    s->n_drafts += t->n_drafts;
done:
    return st;
}

/* What the step gave take t: its logits begin at *out, its hidden states at `own` (NULL: none). */
static qs_status settle_take(qsi_engine *e, const qsi_take *t, const float **out, const float *own,
                             qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *s = t->seq;
    size_t n_vocab = (size_t)e->runner->n_vocab, d = (size_t)e->runner->d_model, first = s->n_past;
    bool all = s->on_row && s->row_logits, ends = completes(t);
    s->n_past += (size_t)t->n_rows;
    for (size_t j = 0; j < (size_t)t->n_rows; j++) {
        bool last = ends && j + 1 == (size_t)t->n_rows;
        const float *logits = all || last ? *out : NULL;
        if (s->on_row)
            s->on_row(s->on_user, first + j, all ? logits : NULL,
                      s->row_hidden ? own + j * d : NULL);
        if (last) memcpy(s->logits, logits, n_vocab * sizeof *logits);
        if (logits) *out += n_vocab;
    }
    s->has_logits = ends;
    QS_TRY(keep_ahead(s, t, *out, n_vocab, err));
    *out += (size_t)t->n_drafts * n_vocab;
done:
    return st;
}

qs_status qsi_engine_step(qsi_engine *e, const qsi_take *takes, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = e->runner;
    int32_t n_rows = 0, n_logits = 0, want = 0;
    bool hidden = r->d_hidden > 0;
    if (n == 0 || n > (size_t)e->max_seqs) QS_FAIL(err, QS_E_ARG, "a step of %zu sequences", n);
    for (size_t i = 0; i < n; i++) {
        QS_TRY(check_take(e, &takes[i], err));
        want += takes[i].n_rows + takes[i].n_drafts;
        hidden |= takes[i].seq->on_row && takes[i].seq->row_hidden;
    }
    if (want > r->max_rows) QS_FAIL(err, QS_E_ARG, "a step of %d rows", (int)want);
    if (hidden) QS_TRY(need_hidden(e, err));
    for (size_t i = 0; i < n; i++) {
        QS_TRY(make_pages(r, &takes[i], err));
        e->tables[i] = takes[i].seq->table;
        n_rows = put_rows(e, &takes[i], (int32_t)i, n_rows, &n_logits);
    }
    if (n_logits > e->max_logits) QS_FAIL(err, QS_E_ARG, "a step with %d logits", (int)n_logits);
    qsi_step step = { .rows = e->rows, .n_rows = n_rows, .tables = e->tables,
                      .n_tables = (int32_t)n, .logits = e->logits };
    size_t d = (size_t)r->d_model;
    if (hidden) step.hidden = e->hidden + LEAD * d;
    QS_TRY(r->step(r->user, &step, err));
    const float *out = e->logits;
    float *own = step.hidden;
    for (size_t i = 0; i < n; i++) {
        QS_TRY(settle_take(e, &takes[i], &out, own, err));
        if (hidden) own += (size_t)(takes[i].n_rows + takes[i].n_drafts) * d;
    }
    own = step.hidden;
    for (size_t i = 0; r->d_hidden && i < n; i++) {
        QS_TRY(follow(e, &takes[i], own, err));
        own += (size_t)(takes[i].n_rows + takes[i].n_drafts) * d;
    }
done:
    return st;
}

bool qsi_seq_settle(qsi_seq *s) {
    size_t n = (size_t)s->engine->runner->n_vocab;
    int32_t at = s->at_ahead;
    if (s->n_ids != s->n_past + 1) return false;
    if (at >= s->n_ahead || s->ahead[at] != s->ids[s->n_past] || !s->generated[s->n_past]) {
        s->n_ahead = s->at_ahead = 0;
        return false;
    }
    memcpy(s->logits, s->ahead_logits + (size_t)at * n, n * sizeof *s->logits);
    s->at_ahead++;
    s->n_past++;
    s->n_hidden += s->n_hidden > 0;
    s->n_hits++;
    s->has_logits = true;
    return true;
}

/* ---- sequences that share ---- */

qs_status qsi_seq_reuse(qsi_seq *s, size_t n, const int32_t *pages, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = s->engine->runner;
    if (s->n_past > 0 || n > s->n_ids)
        QS_FAIL(err, QS_E_STATE, "%zu computed ids for a sequence of %zu", n, s->n_ids);
    r->truncate(r->user, &s->table, 0);
    QS_TRY(r->pages.share(r->user, &s->table, pages, (n + QSI_KV_PAGE - 1) / QSI_KV_PAGE, err));
    s->n_past = n;
done:
    return st;
}

void qsi_seq_rewind(qsi_seq *s) {
    const qsi_runner *r = s->engine->runner;
    s->n_past = 0;
    s->n_hidden = 0;
    s->n_ahead = s->at_ahead = 0;
    s->has_logits = false;
    r->truncate(r->user, &s->table, 0);
}

qs_status qsi_seq_fork(qsi_seq *to, const qsi_seq *from, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_runner *r = to->engine->runner;
    if (to->n_ids > 0) QS_FAIL(err, QS_E_STATE, "a sequence with ids becomes no copy");
    QS_TRY(make_room(to, from->n_past, err));
    memcpy(to->ids, from->ids, from->n_past * sizeof *to->ids);
    memcpy(to->generated, from->generated, from->n_past * sizeof *to->generated);
    to->n_ids = from->n_past;
    QS_TRY(qsi_seq_reuse(to, from->n_past, from->table.pages, err));
    memcpy(to->logits, from->logits, (size_t)r->n_vocab * sizeof *to->logits);
    memcpy(to->hidden, from->hidden,
           (size_t)from->n_hidden * (size_t)r->d_hidden * sizeof *to->hidden);
    to->n_hidden = from->n_hidden;
    to->has_logits = from->has_logits;
done:
    return st;
}

/* ---- runs ---- */

/* What a step takes from the sequences in their order; returns how many of them. */
static size_t plan(qsi_engine *e, qsi_seq *const *seqs, size_t n_seqs) {
    size_t n = 0;
    int32_t room = e->runner->max_rows;
    for (size_t i = 0; i < n_seqs && room > 0; i++) {
        size_t pending = seqs[i]->n_ids - seqs[i]->n_past;
        int32_t take = pending < (size_t)room ? (int32_t)pending : room;
        if (take == 0) continue;
        e->takes[n++] = (qsi_take){ .seq = seqs[i], .n_rows = take };
        room -= take;
    }
    return n;
}

/* A sequence alone, after one id was chosen: with the model's draft where there is one. */
static qs_status run_ahead(qsi_engine *e, qsi_seq *s, qs_err *err) {
    qs_status st = QS_OK;
    int32_t next = -1;
    if (qsi_seq_settle(s)) goto done;
    QS_TRY(qsi_engine_draft(e, s, &next, err));
    qsi_take t = { .seq = s, .n_rows = 1, .n_drafts = next >= 0, .drafts = &next };
    QS_TRY(qsi_engine_step(e, &t, 1, err));
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
        size_t n = plan(e, seqs, n_seqs);
        if (n == 0) break;
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        if (n_seqs == 1 && (can_draft(e, seqs[0]) || seqs[0]->n_ahead > 0))
            QS_TRY(run_ahead(e, seqs[0], err));
        else
            QS_TRY(qsi_engine_step(e, e->takes, n, err));
    }
done:
    return st;
}
