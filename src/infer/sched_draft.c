/* Guesses for sequences that decode: from their own text, from a small model, from the model's own
 * further layer; as many as pay (spec.h). See sched_impl.h. */
#include "infer/sched_impl.h"
#include "sys/file.h"

#define SMALL_CHUNK 256 /* ids of a prompt that the small model takes in a step */
#define SMOOTH 0.2      /* weight of a new measurement */

/* Most guesses that make sense: positions and ids that are left. */
static int32_t most_guesses(const qsi_sched *s, const qsi_answer_run *a) {
    int64_t left = s->r->n_ctx - (int64_t)a->seq.n_ids;
    if (a->go.n_predict >= 0) {
        int64_t made = (int64_t)(a->seq.n_ids - a->job->o.n_ids);
        if (a->go.n_predict - made - 1 < left) left = a->go.n_predict - made - 1;
    }
    if (left > QSI_MAX_DRAFTS) left = QSI_MAX_DRAFTS;
    return left > 0 ? (int32_t)left : 0;
}

/* Brings the small model to where the answer is, a chunk at a time; true: it is there. */
static bool keep_up(qsi_sched *s, qsi_answer_run *a) {
    qsi_seq *d = &a->small;
    if (!d->engine && qsi_seq_init(d, s->small, NULL) != QS_OK) return false;
    if (qsi_seq_set(d, a->seq.ids, a->seq.n_ids, NULL, NULL) != QS_OK) return false;
    size_t left = d->n_ids - d->n_past;
    if (left <= SMALL_CHUNK) return true;
    qsi_take t = { .seq = d, .n_rows = SMALL_CHUNK };
    if (t.n_rows > s->o.draft->max_rows) t.n_rows = s->o.draft->max_rows;
    (void)!qsi_engine_step(s->small, &t, 1, NULL); /* what fails now fails later too: no guesses */
    return false;
}

/* k guesses of the small model; how many it made. */
static int32_t ask_small(qsi_sched *s, qsi_answer_run *a, int32_t k, int32_t *out) {
    qsi_seq *list[] = { &a->small };
    int64_t t0 = qsi_now_ns();
    int32_t n = 0;
    while (n < k && qsi_engine_run(s->small, list, 1, NULL, NULL) == QS_OK) {
        out[n] = qsi_argmax(a->small.logits, s->r->n_vocab);
        if (qsi_seq_push_generated(&a->small, out[n++], NULL) != QS_OK) break;
    }
    if (n > 0) {
        double each = (double)(qsi_now_ns() - t0) * 1e-9 / n;
        s->draft_s = s->draft_s == 0 ? each : s->draft_s + SMOOTH * (each - s->draft_s);
    }
    return n;
}

/* How many of n guesses from there to feed. */
static int32_t choose(qsi_sched *s, qsi_answer_run *a, guess_source from, int32_t rows, int32_t n_seqs,
                      int32_t n, double each_s) {
    a->source = from;
    if (s->o.speculate == QSI_SPECULATE_ALWAYS) return n;
    return qsi_spec_choose(&a->rate[from], &s->cost, rows, n_seqs, n, each_s);
}

int32_t qsi_sched_guess(qsi_sched *s, qsi_answer_run *a, int32_t rows, int32_t n_seqs, int32_t *out) {
    qsi_seq *q = &a->seq;
    int32_t n_match = 0, most = most_guesses(s, a), k = 0;
    if (s->o.speculate == QSI_SPECULATE_NEVER || q->n_ids != q->n_past + 1 || most == 0) return 0;
    int32_t n = qsi_spec_lookup(q->ids, q->n_ids, most, out, &n_match);
    if (n > 0) k = choose(s, a, SOURCE_TEXT, rows, n_seqs, n, 0);
    if (k > 0) return k;
    if (s->small) {
        if (!keep_up(s, a)) return 0;
        k = choose(s, a, SOURCE_SMALL, rows, n_seqs, most, s->draft_s);
        return k > 0 ? ask_small(s, a, k, out) : 0;
    }
    if (s->r->d_hidden) {
        k = choose(s, a, SOURCE_LAYER, rows, n_seqs, 1, 0);
        if (k > 0 && (qsi_engine_draft(s->engine, q, &out[0], NULL) != QS_OK || out[0] < 0)) k = 0;
    }
    return k;
}
