/* Generation: see generate.h. Text flows piece (bytes of one id, whole characters only, by the
 * detokenizer) -> leading space -> stop strings -> fresh (shown now) -> text (all shown). */
#include "infer/generate.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sys/file.h"

/* The user's biases, and -inf for each end token behind them. */
static qs_status collect_bias(qsi_gen *g, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_sampling *s = &g->opts->sampling;
    int32_t n_vocab = qsi_vocab_size(g->vocab), n_model = g->seq->engine
        ? qsi_engine_runner(g->seq->engine)->n_vocab : n_vocab;
    size_t n = s->n_bias;
    for (int32_t i = 0; i < n_vocab; i++) n += qsi_vocab_is_end(g->vocab, i);
    g->bias = qsi_alloc(n, sizeof *g->bias);
    if (!g->bias) QS_FAIL(err, QS_E_NOMEM, "out of memory for logit biases");
    for (size_t i = 0; i < s->n_bias; i++) g->bias[i] = s->bias[i];
    n = s->n_bias;
    for (int32_t i = 0; i < n_vocab && i < n_model; i++)
        if (qsi_vocab_is_end(g->vocab, i)) g->bias[n++] = (qsi_logit_bias){ i, -INFINITY };
    g->n_bias = s->n_bias;
    g->n_ends = n - s->n_bias;
    g->sampling.bias = g->bias;
done:
    return st;
}

qs_status qsi_gen_init(qsi_gen *g, const qsi_gen_opts *o, qsi_seq *seq, qsi_sampler *sampler,
                       const qsi_vocab *vocab, qsi_rng *rng, qs_err *err) {
    qs_status st = QS_OK;
    *g = (qsi_gen){ .opts = o, .seq = seq, .sampler = sampler, .vocab = vocab, .rng = rng,
                    .sampling = o->sampling, .start = seq->n_ids, .at_start = true };
    QS_TRY(qsi_sampling_check(&o->sampling, qsi_engine_runner(seq->engine)->n_vocab, err));
    if (o->n_predict < -1)
        QS_FAIL(err, QS_E_ARG, "%lld tokens to generate: -1 (no limit) or a number is wanted",
                (long long)o->n_predict);
    if (o->top_logprobs < 0 || o->top_logprobs > QSI_MAX_TOP_LOGPROBS)
        QS_FAIL(err, QS_E_ARG, "%d alternatives asked for: 0 to %d are possible",
                (int)o->top_logprobs, QSI_MAX_TOP_LOGPROBS);
    QS_TRY(qsi_stop_init(&g->stop, o->stops, o->n_stops, err));
    if (o->ignore_end || o->n_min > 0) QS_TRY(collect_bias(g, err));
    if (o->guide) {
        size_t words = ((size_t)qsi_engine_runner(seq->engine)->n_vocab + 31) / 32;
        g->mask = qsi_calloc(words, sizeof *g->mask);
        if (!g->mask) QS_FAIL(err, QS_E_NOMEM, "out of memory for a mask");
    }
    g->top = qsi_alloc((size_t)o->top_logprobs, sizeof *g->top);
    if (!g->top) QS_FAIL(err, QS_E_NOMEM, "out of memory for alternatives");
    qsi_detok_init(&g->detok, vocab, o->special);
done:
    return st;
}

void qsi_gen_release(qsi_gen *g) {
    qsi_free(g->bias);
    qsi_free(g->mask);
    qsi_free(g->top);
    qsi_stop_release(&g->stop);
    qsi_str_release(&g->piece);
    qsi_str_release(&g->fresh);
    qsi_str_release(&g->text);
    *g = (qsi_gen){ 0 };
}

/* Moves the piece through the leading space and the stop strings, and shows what comes out. */
static qs_status show(qsi_gen *g, bool last) {
    qs_status st = QS_OK;
    const char *p = g->piece.data;
    size_t n = g->piece.len;
    qsi_str_clear(&g->fresh);
    if (n > 0 && g->at_start) {
        g->at_start = false;
        if (g->opts->strip_space && p[0] == ' ') {
            p++;
            n--;
        }
    }
    if (n > 0) QS_TRY(qsi_stop_push(&g->stop, p, n, &g->fresh));
    if (last) QS_TRY(qsi_stop_finish(&g->stop, &g->fresh));
    if (g->fresh.len > 0) {
        bool end = false;
        QS_TRY(qsi_str_append(&g->text, g->fresh.data, g->fresh.len));
        if (g->opts->answer) {
            QS_TRY(qsi_answer_text(g->opts->answer, g->fresh.data, g->fresh.len));
            end = g->opts->answer->stopped;
        } else if (g->opts->on_text) {
            end = g->opts->on_text(g->opts->user, g->fresh.data, g->fresh.len) != 0;
        }
        if (end && !g->done) {
            g->done = true;
            g->finish = QSI_FINISH_CALLBACK;
        }
    }
    qsi_str_clear(&g->piece);
done:
    return st;
}

/* A marker of the template: what was held back comes before it. */
static qs_status show_marker(qsi_gen *g, int32_t id) {
    qs_status st = QS_OK;
    QS_TRY(qsi_detok_finish(&g->detok, &g->piece));
    qsi_detok_init(&g->detok, g->vocab, g->opts->special);
    QS_TRY(show(g, true));
    if (g->stop.hit) goto done;
    qsi_slice s = qsi_vocab_text(g->vocab, id);
    g->at_start = false;
    QS_TRY(qsi_answer_marker(g->opts->answer, s.p, s.n));
done:
    return st;
}

qs_status qsi_gen_end(qsi_gen *g, qsi_finish why, qs_err *err) {
    qs_status st = QS_OK;
    if (g->done) goto done;
    g->done = true;
    g->finish = why;
    st = qsi_detok_finish(&g->detok, &g->piece);
    if (st == QS_OK) st = show(g, true);
    if (st == QS_OK && g->opts->answer) st = qsi_answer_finish(g->opts->answer);
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for the answer");
done:
    return st;
}

/* Tells the listener of the id that was picked. */
static qs_status tell_token(qsi_gen *g, qs_err *err) {
    qs_status st = QS_OK;
    if (!g->opts->on_token) goto done;
    qsi_gen_token t = { .id = g->id, .logprob = g->logprob, .top = g->top, .n_top = g->n_top };
    if (g->id < qsi_vocab_size(g->vocab)) {
        qsi_slice bytes = qsi_vocab_bytes(g->vocab, g->id);
        t.text = bytes.p;
        t.n_text = bytes.n;
    }
    if (g->opts->on_token(g->opts->user, &t)) QS_TRY(qsi_gen_end(g, QSI_FINISH_CALLBACK, err));
done:
    return st;
}

/* Shows what an id that was appended says. */
static qs_status show_id(qsi_gen *g, int32_t id, qs_err *err) {
    qs_status st = QS_OK;
    bool known = id < qsi_vocab_size(g->vocab); /* a model may have more rows than the vocabulary */
    if (known && g->opts->answer && qsi_answer_takes(g->opts->answer, id)) {
        st = show_marker(g, id);
    } else {
        if (known) st = qsi_detok_push(&g->detok, id, &g->piece);
        if (st == QS_OK) st = show(g, false);
    }
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for the answer");
done:
    return st;
}

qs_status qsi_gen_lead(qsi_gen *g, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = g->start - n; i < g->start; i++) QS_TRY(show_id(g, g->seq->ids[i], err));
done:
    return st;
}

/* Does the guide hold now? *maybe: reasoning may still begin. */
static bool guided(const qsi_gen *g, bool *maybe) {
    *maybe = false;
    return g->opts->guide && !(g->opts->answer && qsi_answer_reasons(g->opts->answer, maybe));
}

/* The ids that may come, in g->sampling. */
static qs_status look_at_guide(qsi_gen *g, bool maybe, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_guide *guide = g->opts->guide;
    const uint32_t *mask = guide->mask(guide->user, err);
    if (!mask) {
        st = err && err->code ? err->code : QS_E_NOMEM;
        goto done;
    }
    /* the model may have more rows than the vocabulary has ids: the rest stays zero */
    memcpy(g->mask, mask, ((size_t)guide->n_ids + 31) / 32 * sizeof *g->mask);
    int32_t id = maybe ? qsi_vocab_find(g->vocab, "<think>", 7) : -1;
    if (id >= 0 && qsi_answer_takes(g->opts->answer, id)) g->mask[id / 32] |= (uint32_t)1 << id % 32;
    g->sampling.mask = g->mask;
done:
    return st;
}

/* Is the answer over before another id is chosen? */
static bool at_end(qsi_gen *g, size_t n_made, bool holds, qsi_finish *why) {
    *why = QSI_FINISH_LENGTH;
    if (g->opts->n_predict >= 0 && n_made >= (uint64_t)g->opts->n_predict) return true;
    *why = QSI_FINISH_END;
    if (holds && g->opts->guide->done(g->opts->guide->user)) return true;
    *why = QSI_FINISH_CONTEXT;
    return g->seq->n_ids >= (uint64_t)qsi_engine_runner(g->seq->engine)->n_ctx;
}

/* The next id. */
static qs_status choose(qsi_gen *g, qsi_sampler *sampler, size_t n_made, bool holds, bool maybe,
                        int32_t *id, qs_err *err) {
    qs_status st = QS_OK;
    bool no_end = g->opts->ignore_end || (int64_t)n_made < g->opts->n_min;
    g->sampling.mask = NULL;
    if (g->bias) g->sampling.n_bias = g->n_bias + (no_end ? g->n_ends : 0);
    if (holds) QS_TRY(look_at_guide(g, maybe, err));
    QS_TRY(qsi_sampler_pick(sampler, &g->sampling, g->seq->logits, g->seq->ids, g->seq->n_ids, g->rng,
                            id, err));
done:
    return st;
}

static bool is_end(const qsi_gen *g, int32_t id) {
    return id < qsi_vocab_size(g->vocab) && qsi_vocab_is_end(g->vocab, id);
}

qs_status qsi_gen_pick(qsi_gen *g, qsi_sampler *sampler, qs_err *err) {
    qs_status st = QS_OK;
    size_t n_made = g->seq->n_ids - g->start;
    bool maybe, holds = guided(g, &maybe);
    const float *logits = g->seq->logits;
    int32_t n_vocab = qsi_engine_runner(g->seq->engine)->n_vocab;
    if (g->done || g->picked != QSI_PICK_NONE) goto done;
    if (at_end(g, n_made, holds, &g->why)) {
        g->picked = QSI_PICK_END;
        goto done;
    }
    QS_TRY(choose(g, sampler, n_made, holds, maybe, &g->id, err));
    if (is_end(g, g->id)) {
        g->why = QSI_FINISH_END;
        g->picked = QSI_PICK_END;
        goto done;
    }
    g->picked = QSI_PICK_ID;
    if (!g->opts->on_token) goto done;
    /* its log-probability is that of the logits as they came */
    g->logprob = qsi_logprob_of(logits, n_vocab, g->id);
    g->n_top = qsi_logprob_top(sampler, logits, g->opts->top_logprobs, g->top);
done:
    return st;
}

qs_status qsi_gen_accept(qsi_gen *g, qs_err *err) {
    qs_status st = QS_OK;
    size_t n_made = g->seq->n_ids - g->start;
    bool maybe, holds = guided(g, &maybe);
    if (g->done) goto done;
    QS_TRY(qsi_gen_pick(g, g->sampler, err));
    bool over = g->picked == QSI_PICK_END;
    g->picked = QSI_PICK_NONE;
    if (over) {
        QS_TRY(qsi_gen_end(g, g->why, err));
        goto done;
    }
    int32_t id = g->id;
    bool marker = id < qsi_vocab_size(g->vocab) && g->opts->answer &&
                  qsi_answer_takes(g->opts->answer, id);
    if (holds && !marker && !g->opts->guide->accept(g->opts->guide->user, id))
        QS_FAIL(err, QS_E_STATE, "the grammar does not take id %d, which it let come", (int)id);
    QS_TRY(tell_token(g, err));
    QS_TRY(qsi_seq_push_generated(g->seq, id, err));
    if (g->done) goto done;
    QS_TRY(show_id(g, id, err));
    if (g->stop.hit) QS_TRY(qsi_gen_end(g, QSI_FINISH_STOP, err));
    /* the end is known now: no step for logits that nobody reads */
    if (guided(g, &maybe) && g->opts->guide->done(g->opts->guide->user))
        QS_TRY(qsi_gen_end(g, QSI_FINISH_END, err));
    if (g->opts->n_predict >= 0 && n_made + 1 >= (uint64_t)g->opts->n_predict)
        QS_TRY(qsi_gen_end(g, QSI_FINISH_LENGTH, err));
done:
    return st;
}

int64_t qsi_gen_exact_ids(const qsi_gen *g) {
    size_t n = g->seq->n_ids, bytes = 0, want = g->text.len;
    if (g->finish != QSI_FINISH_STOP) return (int64_t)(n - g->start);
    bool first = true;
    for (size_t i = g->start; i <= n; i++) {
        if (bytes == want) return (int64_t)(i - g->start);
        if (i == n || bytes > want) break;
        int32_t id = g->seq->ids[i];
        if (g->opts->answer && qsi_answer_takes(g->opts->answer, id)) {
            first = false;
            continue;
        }
        bool shown = id < qsi_vocab_size(g->vocab) &&
                     (g->opts->special || qsi_vocab_type(g->vocab, id) != QSI_TOK_CONTROL);
        if (!shown) continue;
        qsi_slice s = qsi_vocab_bytes(g->vocab, id);
        bytes += s.n;
        if (first && s.n > 0) {
            if (g->opts->strip_space && s.p[0] == ' ') bytes--;
            first = false;
        }
    }
    return -1;
}

qs_status qsi_gen_run(qsi_gen *g, const atomic_int *cancel, int64_t *t_first_ns, qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *list[] = { g->seq };
    bool first = true;
    while (!g->done) {
        st = qsi_engine_run(g->seq->engine, list, 1, cancel, err);
        if (st == QS_E_CANCELLED) {
            QS_TRY(qsi_gen_end(g, QSI_FINISH_CANCELLED, err));
            break;
        }
        QS_TRY(st);
        if (first && t_first_ns) *t_first_ns = qsi_now_ns();
        first = false;
        QS_TRY(qsi_gen_accept(g, err));
    }
done:
    return st;
}
