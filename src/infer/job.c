/* A job and its answers: see sched.h and sched_impl.h. */
#include <math.h>
#include <string.h>

#include "infer/sched_impl.h"
#include "sys/file.h"

#define MAX_ANSWERS 128
#define MAX_STOPS 64

struct note {
    note *next;
    qsi_ev_kind kind;
    qsi_part part;
    int32_t id, n_top;
    double logprob;
    qsi_logprob *top;
    const char *text;
    size_t n_text;
    qsi_job_finish finish;
};

void qsi_job_opts_init(qsi_job_opts *o) {
    *o = (qsi_job_opts){ .n = 1, .best_of = 1, .n_predict = -1 };
    qsi_sampling_default(&o->sampling);
}

uint64_t qsi_job_seed(uint64_t seed, int32_t index) {
    return index == 0 ? seed : qsi_hash_seed(&index, sizeof index, seed);
}

/* ---- options ---- */

static qs_status check_opts(const qsi_sched *s, const qsi_job_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    if (o->n_ids == 0) QS_FAIL(err, QS_E_ARG, "the prompt has no token");
    for (size_t i = 0; i < o->n_ids; i++)
        if (o->ids[i] < 0 || o->ids[i] >= s->r->n_vocab)
            QS_FAIL(err, QS_E_ARG, "id %d at position %zu: the model has ids 0 to %d",
                    (int)o->ids[i], i, (int)s->r->n_vocab - 1);
    if (o->n < 1 || o->best_of < o->n || o->best_of > MAX_ANSWERS)
        QS_FAIL(err, QS_E_ARG, "%d of %d answers: 1 to %d are possible", (int)o->n, (int)o->best_of,
                MAX_ANSWERS);
    if (o->n_lead < 0 || (size_t)o->n_lead > o->n_ids)
        QS_FAIL(err, QS_E_ARG, "a lead of %d ids in a prompt of %zu", (int)o->n_lead, o->n_ids);
    if (o->n_predict < -1 || o->n_min < 0)
        QS_FAIL(err, QS_E_ARG, "%lld tokens to generate, at least %lld: numbers from 0 on (-1: no "
                "limit)", (long long)o->n_predict, (long long)o->n_min);
    if (o->top_logprobs < 0 || o->top_logprobs > QSI_MAX_TOP_LOGPROBS)
        QS_FAIL(err, QS_E_ARG, "%d alternatives asked for: 0 to %d are possible",
                (int)o->top_logprobs, QSI_MAX_TOP_LOGPROBS);
    if (o->n_stops > MAX_STOPS)
        QS_FAIL(err, QS_E_ARG, "%zu stop strings: at most %d", o->n_stops, MAX_STOPS);
    for (size_t i = 0; i < o->n_stops; i++)
        if (!o->stops[i] || !o->stops[i][0]) QS_FAIL(err, QS_E_ARG, "a stop string is empty");
    if (o->grammar && !s->o.trie)
        QS_FAIL(err, QS_E_UNSUPPORTED, "no grammar can be kept to: the vocabulary's tree is missing");
    if (o->embed && (s->r->d_model == 0 || o->best_of != 1))
        QS_FAIL(err, QS_E_ARG, "the model gives no states for an embedding");
    QS_TRY(qsi_sampling_check(&o->sampling, s->r->n_vocab, err));
done:
    return st;
}

static void *copy(qsi_arena *a, const void *p, size_t n, size_t size) {
    void *q = qsi_arena_alloc(a, n + 1, size);
    if (q && n > 0) memcpy(q, p, n * size);
    return q;
}

/* What o points to, into the job's arena. */
static qs_status copy_opts(qsi_job *j, const qsi_job_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_arena *a = &j->arena;
    const char **stops = qsi_arena_alloc(a, o->n_stops + 1, sizeof *stops);
    qsi_tool *tools = qsi_arena_alloc(a, o->n_tools + 1, sizeof *tools);
    bool ok = stops && tools;
    j->o = *o;
    if (o->grammar) qsi_grammar_retain(o->grammar);
    j->o.ids = copy(a, o->ids, o->n_ids, sizeof *o->ids);
    j->o.sampling.bias = copy(a, o->sampling.bias, o->sampling.n_bias, sizeof *o->sampling.bias);
    j->o.sampling.mask = NULL;
    for (size_t i = 0; ok && i < o->n_stops; i++)
        ok = (stops[i] = qsi_arena_strndup(a, o->stops[i], strlen(o->stops[i]))) != NULL;
    for (size_t i = 0; ok && i < o->n_tools; i++) {
        tools[i] = (qsi_tool){ qsi_arena_strndup(a, o->tools[i].json, o->tools[i].n), o->tools[i].n };
        ok = tools[i].json != NULL;
    }
    j->o.stops = stops;
    j->o.tools = tools;
    if (!ok || !j->o.ids || !j->o.sampling.bias) QS_FAIL(err, QS_E_NOMEM, "out of memory for a request");
done:
    return st;
}

qs_status qsi_job_create(qsi_job **out, qsi_sched *s, const qsi_job_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_job *j = NULL;
    QS_TRY(check_opts(s, o, err));
    j = qsi_calloc(1, sizeof *j);
    if (!j) QS_FAIL(err, QS_E_NOMEM, "out of memory for a request");
    j->sched = s;
    atomic_init(&j->holds, 1);
    qsi_arena_init(&j->arena);
    QS_TRY(copy_opts(j, o, err));
    size_t n = (size_t)o->best_of;
    j->answers = qsi_arena_calloc(&j->arena, n, sizeof *j->answers);
    j->echo_top = qsi_arena_calloc(&j->arena, (size_t)o->top_logprobs + 1, sizeof *j->echo_top);
    if (o->embed) {
        j->embedding = qsi_arena_calloc(&j->arena, (size_t)s->r->d_model, sizeof *j->embedding);
        if (!j->embedding) QS_FAIL(err, QS_E_NOMEM, "out of memory for an embedding");
    }
    if (!j->answers || !j->echo_top) QS_FAIL(err, QS_E_NOMEM, "out of memory for a request");
    for (size_t i = 0; i < n; i++) {
        j->answers[i].job = j;
        j->answers[i].index = (int32_t)i;
        for (int k = 0; k < N_SOURCES; k++) qsi_spec_rate_init(&j->answers[i].rate[k]);
    }
    j->t_submit = qsi_now_ns();
    j->usage.n_prompt = (int64_t)o->n_ids;
    *out = j;
    j = NULL;
done:
    if (j) qsi_job_drop(j);
    return st;
}

void qsi_job_drop(qsi_job *j) {
    if (atomic_fetch_sub(&j->holds, 1) > 1) return;
    qsi_grammar_release(j->o.grammar);
    qsi_arena_release(&j->arena);
    qsi_free(j);
}

void qsi_job_release(qsi_job *j) {
    if (j) qsi_job_drop(j);
}

int32_t qsi_job_ahead(qsi_job *j) { return atomic_load(&j->ahead); }
int64_t qsi_job_number(const qsi_job *j) { return j->number; }

/* ---- events ---- */

void qsi_job_tell(qsi_job *j, qsi_event *e) {
    if (e->kind != QSI_EV_END && atomic_load(&j->cancel)) return;
    if (j->o.on_event && j->o.on_event(j->o.user, e)) atomic_store(&j->cancel, 1);
}

static bool keeps(const qsi_job *j) { return j->o.best_of > j->o.n; }

/* Remembers an event of an answer of which it is not known yet whether it is told. */
static qs_status keep(qsi_answer_run *a, const qsi_event *e) {
    qsi_arena *m = &a->job->arena;
    note *n = qsi_arena_calloc(m, 1, sizeof *n);
    if (!n) return QS_E_NOMEM;
    *n = (note){ .kind = e->kind, .part = e->part, .id = e->id, .n_top = e->n_top,
                 .logprob = e->logprob, .n_text = e->n_text, .finish = e->finish };
    n->text = qsi_arena_strndup(m, e->text ? e->text : "", e->n_text);
    n->top = copy(m, e->top, (size_t)e->n_top, sizeof *e->top);
    if (!n->text || !n->top) return QS_E_NOMEM;
    if (a->last_note) a->last_note->next = n;
    else a->notes = n;
    a->last_note = n;
    return QS_OK;
}

/* Tells or keeps; non-zero ends the answer. */
static int tell(qsi_answer_run *a, qsi_event *e) {
    e->index = a->index;
    if (keeps(a->job)) return keep(a, e) != QS_OK;
    qsi_job_tell(a->job, e);
    return atomic_load(&a->job->cancel);
}

static int hear_text(void *user, const char *p, size_t n) {
    qsi_event e = { .kind = QSI_EV_PART, .part = QSI_PART_TEXT, .text = p, .n_text = n };
    return tell(user, &e);
}

static int hear_part(void *user, qsi_part part, const char *p, size_t n) {
    qsi_event e = { .kind = QSI_EV_PART, .part = part, .text = p, .n_text = n };
    return tell(user, &e);
}

static int hear_token(void *user, const qsi_gen_token *t) {
    qsi_answer_run *a = user;
    a->sum_logprob += t->logprob;
    if (!a->job->o.logprobs) return 0;
    qsi_event e = { .kind = QSI_EV_TOKEN, .id = t->id, .logprob = t->logprob, .top = t->top,
                    .n_top = t->n_top, .text = t->text, .n_text = t->n_text };
    return tell(a, &e);
}

/* ---- rows of the prompt ---- */

static void sum_state(qsi_job *j, const float *hidden) {
    for (int32_t i = 0; i < j->sched->r->d_model; i++) j->embedding[i] += (double)hidden[i];
}

/* The prompt's id at pos with what was known before it; then what follows it. */
static void tell_echo(qsi_job *j, size_t pos, const float *logits) {
    const qsi_sched *s = j->sched;
    int32_t id = j->o.ids[pos];
    qsi_event e = { .kind = QSI_EV_ECHO, .pos = (int64_t)pos, .id = id,
                    .logprob = pos == 0 ? NAN : j->echo_logprob, .top = j->echo_top,
                    .n_top = pos == 0 ? 0 : j->n_echo_top };
    if (id < qsi_vocab_size(s->o.vocab)) {
        qsi_slice b = qsi_vocab_bytes(s->o.vocab, id);
        e.text = b.p;
        e.n_text = b.n;
    }
    qsi_job_tell(j, &e);
    j->n_echo++;
    if (pos + 1 >= j->o.n_ids) return;
    j->echo_logprob = qsi_logprob_of(logits, s->r->n_vocab, j->o.ids[pos + 1]);
    j->n_echo_top = qsi_logprob_top(s->samplers[0], logits, j->o.top_logprobs, j->echo_top);
}

static void hear_row(void *user, size_t pos, const float *logits, const float *hidden) {
    qsi_job *j = user;
    if (pos >= j->o.n_ids || (int64_t)pos < j->n_echo) return; /* computed again */
    if (j->o.embed) {
        sum_state(j, hidden);
        j->n_echo++;
    } else {
        tell_echo(j, pos, logits);
    }
}

/* ---- grammars ---- */

static const uint32_t *guide_mask(void *user, qs_err *err) {
    const uint32_t *mask = qsi_matcher_mask(user);
    if (!mask && qsi_matcher_error(user, err) == QS_OK)
        (void)qsi_err_set(err, QS_E_NOMEM, "no memory for a mask");
    return mask;
}

static bool guide_accept(void *user, int32_t id) { return qsi_matcher_accept(user, id); }
static bool guide_done(void *user) { return qsi_matcher_done(user); }

static qs_status start_guide(qsi_answer_run *a, qs_err *err) {
    qs_status st = QS_OK;
    qsi_token_trie *trie = a->job->sched->o.trie;
    if (!a->job->o.grammar) goto done;
    QS_TRY(qsi_matcher_create(&a->matcher, a->job->o.grammar, trie, err));
    a->guide = (qsi_guide){ .mask = guide_mask, .accept = guide_accept, .done = guide_done,
                            .n_ids = qsi_token_trie_size(trie), .user = a->matcher };
    a->go.guide = &a->guide;
done:
    return st;
}

/* ---- answers ---- */

qs_status qsi_job_begin(qsi_job *j, qs_err *err) {
    qs_status st = QS_OK;
    qsi_answer_run *a = &j->answers[0];
    QS_TRY(qsi_seq_init(&a->seq, j->sched->engine, err));
    if (j->o.echo || j->o.embed) {
        a->seq.on_row = hear_row;
        a->seq.on_user = j;
        a->seq.row_logits = j->o.echo;
        a->seq.row_hidden = j->o.embed;
    }
    QS_TRY(qsi_seq_push(&a->seq, j->o.ids, j->o.n_ids, err));
    a->state = ANSWER_FEEDS;
    j->n_begun = 1;
done:
    return st;
}

/* The generation of an answer whose prompt is computed. */
static qs_status start_gen(qsi_answer_run *a, qs_err *err) {
    qs_status st = QS_OK;
    qsi_job *j = a->job;
    qsi_sched *s = j->sched;
    const qsi_job_opts *o = &j->o;
    a->go = (qsi_gen_opts){ .sampling = o->sampling, .n_predict = o->n_predict, .n_min = o->n_min,
                            .stops = o->stops, .n_stops = o->n_stops, .ignore_end = o->ignore_end,
                            .special = o->special, .strip_space = o->strip_space,
                            .top_logprobs = o->logprobs ? o->top_logprobs : 0, .user = a };
    if (o->logprobs || keeps(j)) a->go.on_token = hear_token;
    if (o->chat) {
        QS_TRY(qsi_answer_init(&a->reader, &(qsi_answer_opts){ .chat = o->chat, .vocab = s->o.vocab,
                                                               .think = o->think, .tools = o->tools,
                                                               .n_tools = o->n_tools,
                                                               .on_part = hear_part, .user = a }, err));
        a->go.answer = &a->reader;
    } else {
        a->go.on_text = hear_text;
    }
    QS_TRY(start_guide(a, err));
    qsi_rng_init(&a->rng, qsi_job_seed(o->seed, a->index));
    QS_TRY(qsi_gen_init(&a->gen, &a->go, &a->seq, s->samplers[0], s->o.vocab, &a->rng, err));
    a->has_gen = true;
    if (o->n_lead > 0) QS_TRY(qsi_gen_lead(&a->gen, (size_t)o->n_lead, err));
    a->state = ANSWER_DECODES;
done:
    return st;
}

static qs_status tell_embedding(qsi_job *j, qs_err *err) {
    qs_status st = QS_OK;
    int32_t n = j->sched->r->d_model;
    double sum = 0;
    float *out = qsi_arena_alloc(&j->arena, (size_t)n, sizeof *out);
    if (!out) QS_FAIL(err, QS_E_NOMEM, "out of memory for an embedding");
    for (int32_t i = 0; i < n; i++) sum += j->embedding[i] * j->embedding[i];
    double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int32_t i = 0; i < n; i++) out[i] = (float)(j->embedding[i] * scale);
    qsi_event e = { .kind = QSI_EV_EMBEDDING, .embedding = out, .n_embedding = n };
    qsi_job_tell(j, &e);
done:
    return st;
}

qs_status qsi_answer_begin(qsi_answer_run *a, qs_err *err) {
    qs_status st = QS_OK;
    qsi_job *j = a->job;
    j->t_first = qsi_now_ns();
    j->usage.prompt_ns = j->t_first - j->t_start;
    a->seq.on_row = NULL;
    if (j->o.embed) {
        QS_TRY(tell_embedding(j, err));
        a->state = ANSWER_IDLE;
        j->n_over++;
        goto done;
    }
    if (j->o.best_of > 1) {
        QS_TRY(qsi_seq_init(&j->base, a->seq.engine, err));
        j->has_base = true;
        QS_TRY(qsi_seq_fork(&j->base, &a->seq, err));
    }
    QS_TRY(start_gen(a, err));
done:
    return st;
}

qs_status qsi_job_begin_copy(qsi_job *j, int32_t i, qs_err *err) {
    qs_status st = QS_OK;
    qsi_answer_run *a = &j->answers[i];
    QS_TRY(qsi_seq_init(&a->seq, j->sched->engine, err));
    QS_TRY(qsi_seq_fork(&a->seq, &j->base, err));
    QS_TRY(start_gen(a, err));
    if (i + 1 == j->o.best_of) {
        qsi_seq_release(&j->base);
        j->has_base = false;
    }
done:
    return st;
}

void qsi_answer_release_run(qsi_answer_run *a) {
    if (a->has_gen) {
        a->job->usage.n_generated += (int64_t)(a->seq.n_ids - a->job->o.n_ids);
        a->job->usage.n_drafts += a->seq.n_drafts;
        a->job->usage.n_hits += a->seq.n_hits;
    }
    qsi_gen_release(&a->gen);
    a->has_gen = false;
    qsi_answer_release(&a->reader);
    qsi_matcher_free(a->matcher);
    a->matcher = NULL;
    qsi_seq_release(&a->seq);
    qsi_seq_release(&a->small);
    a->state = ANSWER_IDLE;
}

static qsi_job_finish finish_of(qsi_finish why) {
    switch (why) {
    case QSI_FINISH_STOP: return QSI_JOB_STOP;
    case QSI_FINISH_LENGTH: return QSI_JOB_LENGTH;
    case QSI_FINISH_CONTEXT: return QSI_JOB_CONTEXT;
    default: return QSI_JOB_END;
    }
}

void qsi_answer_over(qsi_answer_run *a, qsi_finish why) {
    qsi_job *j = a->job;
    a->n_made = (int64_t)(a->seq.n_ids - j->o.n_ids);
    j->usage.gen_ns = qsi_now_ns() - j->t_first;
    qsi_usage so_far = j->usage;
    so_far.n_generated += a->n_made;
    qsi_event e = { .kind = QSI_EV_FINISH, .finish = finish_of(why), .usage = &so_far };
    if (tell(a, &e) && keeps(j)) atomic_store(&j->cancel, 1); /* no memory to keep it */
    j->n_over++;
}

/* ---- the end ---- */

static void replay(qsi_answer_run *a, int32_t index) {
    qsi_job *j = a->job;
    for (const note *n = a->notes; n; n = n->next) {
        qsi_event e = { .kind = n->kind, .index = index, .id = n->id, .logprob = n->logprob,
                        .top = n->top, .n_top = n->n_top, .part = n->part, .text = n->text,
                        .n_text = n->n_text, .finish = n->finish, .usage = &j->usage };
        qsi_job_tell(j, &e);
    }
}

static double mean_logprob(const qsi_answer_run *a) {
    return a->n_made > 0 ? a->sum_logprob / (double)a->n_made : 0;
}

/* Tells the n best, best first; of equal ones the first. */
static void tell_best(qsi_job *j) {
    for (int32_t k = 0; k < j->o.n; k++) {
        qsi_answer_run *best = NULL;
        for (int32_t i = 0; i < j->o.best_of; i++) {
            qsi_answer_run *a = &j->answers[i];
            if (a->notes && (!best || mean_logprob(a) > mean_logprob(best))) best = a;
        }
        if (!best) return;
        replay(best, k);
        best->notes = NULL;
    }
}

void qsi_job_over(qsi_job *j, qs_status st, const qs_err *err) {
    if (st == QS_OK && keeps(j)) tell_best(j);
    if (j->has_base) qsi_seq_release(&j->base);
    j->has_base = false;
    if (st == QS_OK && atomic_load(&j->cancel)) st = QS_E_CANCELLED;
    qsi_event e = { .kind = QSI_EV_END, .status = st, .err = err, .usage = &j->usage };
    qsi_job_tell(j, &e);
}
