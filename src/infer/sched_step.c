/* A step of the scheduler: which rows it takes, pages for them, and what follows from it. See
 * sched_impl.h. */
#include <string.h>

#include "infer/sched_impl.h"
#include "sys/file.h"

#define STALL_S 0.2     /* what prompts may add to a step in which others wait for their next id */
#define LEAST_CHUNK 32  /* rows of prompts in such a step, at least */
#define FIRST_CHUNK 128 /* while nothing was measured */
#define SMOOTH 0.2      /* weight of a new measurement */

/* ---- prompts: whose turn it is ---- */

static size_t pending(const qsi_answer_run *a) { return a->seq.n_ids - a->seq.n_past; }

/* May it take and give cache pages of others? */
static bool shares(const qsi_answer_run *a) {
    const qsi_job_opts *o = &a->job->o;
    return a->job->sched->prefix && !o->no_cache && !o->echo && !o->embed;
}

static int magnitude(size_t n) {
    int m = 0;
    while (n >>= 1) m++;
    return m;
}

/* Goes a's prompt before b's? Of one client the short ones first, but in every fourth step the
 * oldest. */
static bool prompt_before(qsi_sched *s, const qsi_answer_run *a, const qsi_answer_run *b) {
    const qsi_job *x = a->job, *y = b->job;
    if (x->o.priority != y->o.priority || x->o.client != y->o.client) return qsi_sched_before(s, x, y);
    int m = magnitude(pending(a)), n = magnitude(pending(b));
    if (m != n && s->n_steps % 4 != 0) return m < n;
    return x->number < y->number || (x == y && a->index < b->index);
}

static size_t common(const qsi_seq *a, const qsi_seq *b) {
    size_t n = a->n_ids < b->n_ids ? a->n_ids : b->n_ids, i = 0;
    while (i < n && a->ids[i] == b->ids[i] && a->generated[i] == b->generated[i]) i++;
    return i;
}

qs_status qsi_sched_reuse(qsi_sched *s, qsi_answer_run *a, qs_err *err) {
    qs_status st = QS_OK;
    qsi_seq *q = &a->seq;
    if (!shares(a) || q->n_ids < 2) goto done;
    size_t n = qsi_prefix_match(s->prefix, q->ids, q->generated, q->n_ids - 1, s->pages);
    if (n <= q->n_past) goto done;
    if (!a->has_gen && !a->again) a->job->usage.n_cached += (int64_t)(n - q->n_past);
    qsi_seq_rewind(q);
    QS_TRY(qsi_seq_reuse(q, n, s->pages, err));
    a->n_kept = n / QSI_KV_PAGE * QSI_KV_PAGE;
done:
    return st;
}

/* Is somebody else computing a beginning that a can take over soon? */
static bool should_wait(const qsi_sched *s, const qsi_answer_run *a) {
    for (int32_t i = 0; shares(a) && i < s->o.max_seqs; i++) {
        const qsi_answer_run *b = s->running[i];
        if (!b || b == a || b->state != ANSWER_FEEDS || !shares(b)) continue;
        if (b->seq.n_past < a->seq.n_past) continue;
        if (b->seq.n_past == a->seq.n_past && b->job->number > a->job->number) continue;
        if (b->seq.n_past == a->seq.n_past && b->job == a->job) continue;
        if (common(&a->seq, &b->seq) >= a->seq.n_past + QSI_KV_PAGE &&
            b->seq.n_past / QSI_KV_PAGE * QSI_KV_PAGE + QSI_KV_PAGE <= common(&a->seq, &b->seq))
            return true;
    }
    return false;
}

/* The next prompt to take rows of, not taken yet; NULL: none. */
static qsi_answer_run *next_prompt(qsi_sched *s, size_t n_takes) {
    qsi_answer_run *best = NULL;
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        qsi_answer_run *a = s->running[i];
        bool taken = false;
        if (!a || a->state != ANSWER_FEEDS) continue;
        for (size_t k = 0; k < n_takes; k++) taken |= s->taken[k] == a;
        if (taken || should_wait(s, a)) continue;
        if (!best || prompt_before(s, a, best)) best = a;
    }
    return best;
}

/* ---- what a step takes ---- */

/* One row of each that decodes, and drafts; *rows and *logits count. */
static size_t take_decoders(qsi_sched *s, int32_t *rows, int32_t *logits) {
    size_t n = 0;
    for (int32_t i = 0; i < s->o.max_seqs; i++)
        if (s->running[i] && s->running[i]->state == ANSWER_DECODES) s->taken[n++] = s->running[i];
    *rows = *logits = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        qsi_answer_run *a = s->taken[i];
        int32_t room = s->r->max_rows - *rows, room2 = s->max_logits - *logits;
        int32_t m = qsi_sched_guess(s, a, *rows, (int32_t)n, s->drafts[i]);
        if (room2 < room) room = room2;
        if (m > room) m = room;
        a->n_fed = m;
        a->hits_before = a->seq.n_hits;
        s->takes[i] = (qsi_take){ .seq = &a->seq, .n_rows = 1, .n_drafts = m, .drafts = s->drafts[i] };
        *rows += m;
        *logits += m;
    }
    return n;
}

/* Rows of prompts that a step may have. */
static int32_t prompt_budget(const qsi_sched *s, size_t n_decoders, int32_t rows) {
    int32_t room = s->r->max_rows - rows, n = FIRST_CHUNK;
    if (n_decoders == 0) return room;
    if (s->row_s > 0) {
        double fit = STALL_S / s->row_s;
        n = fit > room ? room : (int32_t)fit;
        if (n < LEAST_CHUNK) n = LEAST_CHUNK;
    }
    return n < room ? n : room;
}

/* Chunks of prompts behind n takes; returns all takes. */
static size_t take_prompts(qsi_sched *s, size_t n, int32_t rows, int32_t logits, qs_err *err,
                           qsi_answer_run **failed) {
    int32_t budget = prompt_budget(s, n, rows);
    *failed = NULL;
    while (budget > 0 && logits < s->max_logits) {
        qsi_answer_run *a = next_prompt(s, n);
        if (!a) break;
        if (qsi_sched_reuse(s, a, err) != QS_OK) {
            *failed = a;
            break;
        }
        int32_t most = a->seq.on_row && a->seq.row_logits ? s->max_logits - logits : budget;
        if (a->seq.on_row && a->seq.row_logits && most > s->logit_rows) most = s->logit_rows;
        if (most > budget) most = budget;
        size_t left = pending(a);
        int32_t take = left < (size_t)most ? (int32_t)left : most;
        s->taken[n] = a;
        s->takes[n++] = (qsi_take){ .seq = &a->seq, .n_rows = take };
        budget -= take;
        logits += a->seq.on_row && a->seq.row_logits ? take : take == (int32_t)left;
    }
    return n;
}

/* ---- pages ---- */

static int64_t pages_for(const qsi_sched *s, const qsi_take *t) {
    const qsi_seq *q = t->seq;
    int64_t end = (int64_t)q->n_past + t->n_rows + t->n_drafts;
    int64_t need = (end + QSI_KV_PAGE - 1) / QSI_KV_PAGE - (int64_t)q->table.n_pages;
    size_t first = q->n_past > (size_t)q->n_hidden ? q->n_past - (size_t)q->n_hidden : 0;
    if (need < 0) need = 0;
    for (size_t i = first / QSI_KV_PAGE; i < q->table.n_pages; i++)
        need += s->r->pages.holds(s->r->user, q->table.pages[i]) > 1;
    return need;
}

/* Of those that run, the one to give way: of the lowest priority the last to come. */
static qsi_answer_run *who_gives_way(const qsi_sched *s) {
    qsi_answer_run *worst = NULL;
    int n = 0;
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        qsi_answer_run *a = s->running[i];
        if (!a || a->seq.table.n_pages == 0) continue;
        n++;
        if (!worst || a->job->o.priority < worst->job->o.priority ||
            (a->job->o.priority == worst->job->o.priority &&
             (a->job->number > worst->job->number ||
              (a->job == worst->job && a->index > worst->index))))
            worst = a;
    }
    return n > 1 ? worst : NULL;
}

static void give_way(qsi_sched *s, qsi_answer_run *a) {
    qsi_seq_rewind(&a->seq);
    a->state = ANSWER_AWAY;
    a->again = true;
    a->n_kept = 0;
    qsi_monitor_lock(s->m);
    s->stats.n_preempted++;
    qsi_monitor_unlock(s->m);
}

/* Takes that there are pages for; others lose their drafts, their turn, or give way altogether. */
static size_t fit(qsi_sched *s, size_t n) {
    for (;;) {
        int64_t need = 0;
        for (size_t i = 0; i < n; i++) need += pages_for(s, &s->takes[i]);
        if (need == 0 || !s->prefix || qsi_prefix_make_room(s->prefix, need)) return n;
        for (size_t i = 0; i < n; i++) s->takes[i].n_drafts = s->taken[i]->n_fed = 0;
        if (n > 1 && s->taken[n - 1]->state == ANSWER_FEEDS) { /* a prompt can wait */
            n--;
            continue;
        }
        qsi_answer_run *a = who_gives_way(s);
        if (!a) return n; /* it is alone: the cache holds it (submit) */
        give_way(s, a);
        size_t m = 0;
        for (size_t i = 0; i < n; i++) {
            if (s->taken[i] == a) continue;
            s->taken[m] = s->taken[i];
            s->takes[m++] = s->takes[i];
        }
        n = m;
        if (n == 0) return 0;
    }
}

/* ---- what a step gave ---- */

/* Whole pages of what was computed become known to others. */
static void keep_pages(qsi_sched *s, qsi_answer_run *a, size_t n) {
    if (!shares(a) || n <= a->n_kept || !a->seq.engine) return;
    qsi_prefix_add(s->prefix, a->seq.ids, a->seq.generated, n, a->seq.table.pages);
    a->n_kept = n;
}

/* The answer is complete or its job failed. */
static void finish(qsi_sched *s, qsi_answer_run *a, qs_status st, const qs_err *err) {
    qsi_job *j = a->job;
    bool cancelled = a->has_gen && (a->gen.finish == QSI_FINISH_CALLBACK);
    if (st == QS_OK && cancelled) st = QS_E_CANCELLED;
    if (st == QS_OK && a->has_gen) qsi_answer_over(a, a->gen.finish);
    if (st == QS_OK) keep_pages(s, a, a->seq.n_past);
    if (st != QS_OK) {
        qsi_sched_end_job(s, j, st, err);
        return;
    }
    qsi_sched_leave(s, a);
    if (j->n_over == j->o.best_of) qsi_sched_end_job(s, j, QS_OK, NULL);
}

/* A job has ended: none of its answers is looked at again in this step. */
static void drop_job(qsi_sched *s, size_t n, const qsi_job *j) {
    for (size_t i = 0; i < n; i++)
        if (s->taken[i] && s->taken[i]->job == j) s->taken[i] = NULL;
}

void qsi_sched_choose(qsi_sched *s, qsi_answer_run *a) {
    qs_err err = a->pick_err;
    qs_status st = a->pick_st;
    qsi_client *c = qsi_sched_client(s, a->job->o.client);
    a->pick_st = QS_OK;
    while (st == QS_OK && !a->gen.done) {
        st = qsi_gen_accept(&a->gen, &err);
        if (c) c->served += 2;
        if (st != QS_OK || a->gen.done || !qsi_seq_settle(&a->seq)) break;
    }
    if (a->n_fed > 0)
        qsi_spec_rate_add(&a->rate[a->source], a->n_fed, (int32_t)(a->seq.n_hits - a->hits_before));
    a->n_fed = 0;
    if (st != QS_OK || a->gen.done) finish(s, a, st, &err);
}

/* Its rows were computed: tells of the prompt's progress; behind its end the answer begins. False:
 * it failed, or that was all (an embedding). */
static bool fed(qsi_sched *s, qsi_answer_run *a, int32_t n_rows) {
    qs_err err = { 0 };
    qsi_job *j = a->job;
    qsi_client *c = qsi_sched_client(s, j->o.client);
    if (c) c->served += n_rows;
    if (!a->has_gen && a->seq.n_past <= j->o.n_ids) {
        qsi_event e = { .kind = QSI_EV_PROMPT, .n_done = (int64_t)a->seq.n_past,
                        .n_all = (int64_t)j->o.n_ids };
        qsi_job_tell(j, &e);
    }
    keep_pages(s, a, a->seq.n_past / QSI_KV_PAGE * QSI_KV_PAGE);
    if (!a->seq.has_logits) return true;
    qs_status st = a->has_gen ? QS_OK : qsi_answer_begin(a, &err);
    if (st != QS_OK || a->state == ANSWER_IDLE) {
        finish(s, a, st, &err);
        return false;
    }
    a->state = ANSWER_DECODES;
    if (j->has_base && a->index == 0 && j->n_begun == 1 && s->bases != j) {
        j->next = s->bases; /* the others begin as places become free */
        s->bases = j;
    }
    return true;
}

typedef struct picks {
    qsi_sched *s;
    size_t n;
} picks;

/* A worker's share of choosing the next ids of what was taken. */
static void pick_some(void *arg, int worker, int n_workers) {
    const picks *p = arg;
    for (size_t i = (size_t)worker; i < p->n; i += (size_t)n_workers) {
        qsi_answer_run *a = p->s->taken[i];
        if (!a || !a->has_gen || !a->seq.has_logits) continue;
        a->pick_st = qsi_gen_pick(&a->gen, p->s->samplers[worker], &a->pick_err);
    }
}

/* After a step: prompts go on, ids are chosen, those of different sequences at the same time. */
static void after(qsi_sched *s, size_t n) {
    picks p = { s, n };
    for (size_t i = 0; i < n; i++) {
        qsi_answer_run *a = s->taken[i];
        if (!a || a->state != ANSWER_FEEDS) continue;
        qsi_job *j = a->job;
        atomic_fetch_add(&j->holds, 1);
        if (!fed(s, a, s->takes[i].n_rows)) s->taken[i] = NULL;
        if (!j->running) drop_job(s, n, j);
        qsi_job_drop(j);
    }
    if (s->r->parallel && n > 1) s->r->parallel(s->r->user, pick_some, &p);
    for (size_t i = 0; i < n; i++) {
        qsi_answer_run *a = s->taken[i];
        if (!a || !a->has_gen || !a->seq.has_logits) continue;
        qsi_job *j = a->job;
        atomic_fetch_add(&j->holds, 1); /* it may end */
        qsi_sched_choose(s, a);
        if (!j->running) drop_job(s, n, j);
        qsi_job_drop(j);
    }
}

/* Running means of what steps take. */
static void measure(qsi_sched *s, int32_t decode_rows, int32_t prompt_rows, double seconds) {
    if (prompt_rows == 0) {
        qsi_spec_cost_add(&s->cost, decode_rows, seconds);
        s->step_s = s->step_s == 0 ? seconds : s->step_s + SMOOTH * (seconds - s->step_s);
    } else if (prompt_rows >= 16) {
        double rest = seconds - (decode_rows > 0 ? qsi_spec_cost_of(&s->cost, decode_rows) : 0);
        double row = (rest > 0 ? rest : seconds) / prompt_rows;
        s->row_s = s->row_s == 0 ? row : s->row_s + SMOOTH * (row - s->row_s);
    }
}

/* Runs the takes; when that fails, each alone, so that who is to blame falls alone. */
static void run(qsi_sched *s, size_t n) {
    qs_err err = { 0 };
    qs_status st = qsi_engine_step(s->engine, s->takes, n, &err);
    for (size_t i = 0; st != QS_OK && i < n; i++) {
        qsi_answer_run *a = s->taken[i];
        qs_status own = st;
        if (!a) continue;
        s->takes[i].n_drafts = a->n_fed = 0;
        if (n > 1) own = qsi_engine_step(s->engine, &s->takes[i], 1, &err);
        if (own == QS_OK) continue;
        qsi_job *j = a->job;
        atomic_fetch_add(&j->holds, 1);
        finish(s, a, own, &err);
        drop_job(s, n, j);
        qsi_job_drop(j);
    }
    after(s, n);
}

/* What gave way comes back as soon as half of the pages it needs are free. */
static void come_back(qsi_sched *s) {
    int64_t free_pages = s->r->pages.own ? s->r->pages.n_free(s->r->user) : INT32_MAX;
    if (s->prefix) free_pages += qsi_prefix_n_own(s->prefix);
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        qsi_answer_run *a = s->running[i];
        if (!a || a->state != ANSWER_AWAY) continue;
        int64_t need = (int64_t)(a->seq.n_ids / QSI_KV_PAGE) + 2;
        bool alone = true;
        for (int32_t k = 0; k < s->o.max_seqs; k++)
            alone &= !s->running[k] || s->running[k]->state == ANSWER_AWAY;
        if (need > free_pages && !alone) continue;
        a->state = ANSWER_FEEDS;
        free_pages -= need;
    }
}

void qsi_sched_step(qsi_sched *s) {
    qs_err err = { 0 };
    int32_t rows = 0, logits = 0, decode_rows = 0, prompt_rows = 0;
    qsi_answer_run *failed = NULL;
    come_back(s);
    size_t n = take_decoders(s, &rows, &logits);
    n = take_prompts(s, n, rows, logits, &err, &failed);
    if (failed) {
        finish(s, failed, QS_E_NOMEM, &err);
        return;
    }
    n = fit(s, n);
    if (n == 0) return;
    for (size_t i = 0; i < n; i++)
        *(s->taken[i]->state == ANSWER_FEEDS ? &prompt_rows : &decode_rows) +=
            s->takes[i].n_rows + s->takes[i].n_drafts;
    int64_t t0 = qsi_now_ns();
    run(s, n);
    double seconds = (double)(qsi_now_ns() - t0) * 1e-9;
    s->n_steps++;
    qsi_monitor_lock(s->m);
    measure(s, decode_rows, prompt_rows, seconds);
    s->stats.n_steps++;
    s->stats.busy_s += seconds;
    *(prompt_rows > 0 ? &s->stats.prompt_s : &s->stats.decode_s) += seconds;
    qsi_monitor_unlock(s->m);
}
