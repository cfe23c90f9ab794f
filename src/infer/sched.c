/* The scheduler's thread, its queue and its order: see sched.h and sched_impl.h. */
#include "infer/sched.h"

#include <string.h>

#include "base/log.h"
#include "infer/sched_impl.h"
#include "sys/file.h"

/* Rows of logits in a step beyond those of a sequence each, for drafts and echoes: what so many
 * bytes hold, within bounds. */
#define LOGIT_BYTES ((int64_t)32 << 20)
#define LOGIT_LEAST 32
#define LOGIT_MOST 256

/* ---- order ---- */

qsi_client *qsi_sched_client(qsi_sched *s, uint64_t id) {
    for (size_t i = 0; i < s->n_clients; i++)
        if (s->clients[i].id == id) return &s->clients[i];
    return NULL;
}

/* A client that comes, or comes back, has been served as much as the least served of those that are
 * here: nobody saves up turns by staying away. */
static void client_comes(qsi_sched *s, uint64_t id) {
    qsi_client *c = qsi_sched_client(s, id);
    double least = -1;
    for (size_t i = 0; i < s->n_clients; i++)
        if (s->clients[i].n_jobs > 0 && (least < 0 || s->clients[i].served < least))
            least = s->clients[i].served;
    if (!c) {
        for (size_t i = 0; i < s->n_clients && !c; i++)
            if (s->clients[i].n_jobs == 0) c = &s->clients[i];
        if (!c && qsi_grow((void **)&s->clients, &s->cap_clients, s->n_clients + 1,
                           sizeof *s->clients) != QS_OK)
            return; /* it counts as nobody's */
        if (!c) c = &s->clients[s->n_clients++];
        *c = (qsi_client){ .id = id };
    }
    if (c->n_jobs == 0 && least > c->served) c->served = least;
    c->n_jobs++;
}

static double served(qsi_sched *s, const qsi_job *j) {
    const qsi_client *c = qsi_sched_client(s, j->o.client);
    return c ? c->served : 0;
}

bool qsi_sched_before(qsi_sched *s, const qsi_job *a, const qsi_job *b) {
    if (a->o.priority != b->o.priority) return a->o.priority > b->o.priority;
    double x = served(s, a), y = served(s, b);
    if (x != y) return x < y;
    return a->number < b->number;
}

/* ---- slots ---- */

static int32_t free_slot(const qsi_sched *s) {
    for (int32_t i = 0; i < s->o.max_seqs; i++)
        if (!s->running[i]) return i;
    return -1;
}

void qsi_sched_leave(qsi_sched *s, qsi_answer_run *a) {
    qsi_answer_release_run(a);
    for (int32_t i = 0; i < s->o.max_seqs; i++)
        if (s->running[i] == a) s->running[i] = NULL;
}

void qsi_sched_end_job(qsi_sched *s, qsi_job *j, qs_status st, const qs_err *err) {
    qsi_client *c = qsi_sched_client(s, j->o.client);
    for (int32_t i = 0; i < j->n_begun; i++)
        if (j->answers[i].seq.engine) qsi_sched_leave(s, &j->answers[i]);
    if (c && j->running) c->n_jobs--;
    for (qsi_job **at = &s->bases; *at; at = &(*at)->next) {
        if (*at != j) continue;
        *at = j->next;
        break;
    }
    j->running = false;
    if (st == QS_OK && atomic_load(&j->cancel)) st = QS_E_CANCELLED;
    qsi_monitor_lock(s->m);
    s->stats.n_jobs++;
    s->stats.n_cancelled += st == QS_E_CANCELLED;
    s->stats.n_failed += st != QS_OK && st != QS_E_CANCELLED;
    s->stats.n_prompt += j->usage.n_prompt;
    s->stats.n_cached += j->usage.n_cached;
    s->stats.n_generated += j->usage.n_generated;
    s->stats.n_drafts += j->usage.n_drafts;
    s->stats.n_hits += j->usage.n_hits;
    qsi_monitor_unlock(s->m);
    qsi_job_over(j, st, err);
    qsi_monitor_lock(s->m);
    s->n_jobs--;
    qsi_monitor_wake(s->m); /* who drains */
    qsi_monitor_unlock(s->m);
    qsi_job_drop(j);
}

/* ---- admission ---- */

/* Takes j off the list of those that wait. Under the monitor. */
static void unlink_job(qsi_sched *s, qsi_job *j) {
    qsi_job **at = &s->waiting;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    j->next = NULL;
    s->n_waiting--;
    s->n_waiting_answers -= j->o.best_of;
    int32_t n = 0;
    for (qsi_job *k = s->waiting; k; k = k->next) atomic_store(&k->ahead, n++ + 1);
    atomic_store(&j->ahead, 0);
}

static bool is_late(const qsi_job *j, int64_t now) {
    return j->o.deadline_ns > 0 && now >= j->o.deadline_ns;
}

/* A job that waits and was cancelled, taken off the list; NULL: there is none. */
static qsi_job *waiting_cancelled(qsi_sched *s, int64_t now) {
    qsi_job *j = NULL;
    qsi_monitor_lock(s->m);
    for (j = s->waiting; j; j = j->next)
        if (atomic_load(&j->cancel) || is_late(j, now) || s->quit) break;
    if (j) unlink_job(s, j);
    qsi_monitor_unlock(s->m);
    return j;
}

static void end_cancelled(qsi_sched *s) {
    int64_t now = qsi_now_ns();
    qsi_job *j, *next;
    while ((j = waiting_cancelled(s, now)) != NULL) qsi_sched_end_job(s, j, QS_E_CANCELLED, NULL);
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        if (!s->running[i]) continue;
        j = s->running[i]->job;
        if (atomic_load(&j->cancel) || is_late(j, now) || s->quit)
            qsi_sched_end_job(s, j, QS_E_CANCELLED, NULL);
    }
    for (j = s->bases; j; j = next) {
        next = j->next;
        if (atomic_load(&j->cancel) || is_late(j, now) || s->quit)
            qsi_sched_end_job(s, j, QS_E_CANCELLED, NULL);
    }
}

/* Answers of running jobs that begin behind their computed prompt. */
static void begin_copies(qsi_sched *s) {
    int32_t slot;
    while (s->bases && (slot = free_slot(s)) >= 0) {
        qs_err err = { 0 };
        qsi_job *j = s->bases;
        int32_t n = j->n_begun;
        s->running[slot] = &j->answers[n];
        qs_status st = qsi_job_begin_copy(j, n, &err);
        j->n_begun = n + 1;
        if (st != QS_OK) qsi_sched_end_job(s, j, st, &err);
        else if (!j->has_base) s->bases = j->next;
        if (st == QS_OK) qsi_sched_choose(s, &j->answers[n]);
    }
}

static int64_t free_pages(const qsi_sched *s) {
    if (!s->prefix) return INT32_MAX;
    return s->r->pages.n_free(s->r->user) + qsi_prefix_n_own(s->prefix);
}

/* Pages of prompts that are being computed, which they will still take. */
static int64_t promised_pages(const qsi_sched *s) {
    int64_t n = 0;
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        const qsi_answer_run *a = s->running[i];
        if (!a) continue;
        int64_t all = (int64_t)a->seq.n_ids / QSI_KV_PAGE + 1;
        n += all > (int64_t)a->seq.table.n_pages ? all - (int64_t)a->seq.table.n_pages : 0;
    }
    return n;
}

static bool is_idle(const qsi_sched *s) {
    if (s->bases) return false;
    for (int32_t i = 0; i < s->o.max_seqs; i++)
        if (s->running[i]) return false;
    return true;
}

static bool any_away(const qsi_sched *s) {
    for (int32_t i = 0; i < s->o.max_seqs; i++)
        if (s->running[i] && s->running[i]->state == ANSWER_AWAY) return true;
    return false;
}

/* The job whose turn it is, taken off the list, if there is room for its prompt; else NULL. */
static qsi_job *next_job(qsi_sched *s) {
    qsi_job *best = NULL;
    qsi_monitor_lock(s->m);
    for (qsi_job *j = s->waiting; j; j = j->next)
        if (!best || qsi_sched_before(s, j, best)) best = j;
    if (best && !is_idle(s)) {
        int64_t need = (int64_t)best->o.n_ids / QSI_KV_PAGE + 2;
        if (any_away(s) || need + promised_pages(s) > free_pages(s)) best = NULL;
    }
    if (best) unlink_job(s, best);
    qsi_monitor_unlock(s->m);
    return best;
}

static void start_job(qsi_sched *s, qsi_job *j, int32_t slot) {
    qs_err err = { 0 };
    qsi_answer_run *a = &j->answers[0];
    j->t_start = qsi_now_ns();
    j->usage.queue_ns = j->t_start - j->t_submit;
    j->running = true;
    s->running[slot] = a;
    qs_status st = qsi_job_begin(j, &err);
    if (st != QS_OK) {
        j->n_begun = 1;
        qsi_sched_end_job(s, j, st, &err);
        return;
    }
    st = qsi_sched_reuse(s, a, &err);
    if (st != QS_OK) {
        qsi_sched_end_job(s, j, st, &err);
        return;
    }
    qsi_event e = { .kind = QSI_EV_START, .n_done = j->usage.n_cached, .n_all = (int64_t)j->o.n_ids };
    qsi_job_tell(j, &e);
}

static void admit(qsi_sched *s) {
    int32_t slot;
    qsi_job *j;
    begin_copies(s);
    while ((slot = free_slot(s)) >= 0 && (j = next_job(s)) != NULL) {
        client_comes(s, j->o.client);
        start_job(s, j, slot);
    }
}

/* ---- the thread ---- */

/* What others may look at. */
static void publish(qsi_sched *s) {
    qsi_monitor_lock(s->m);
    s->stats.n_running = 0;
    s->left_ids = s->left_prompt = 0;
    for (int32_t i = 0; i < s->o.max_seqs; i++) {
        const qsi_answer_run *a = s->running[i];
        s->slots[i] = (qsi_slot){ .job = -1 };
        if (!a) continue;
        const qsi_job *j = a->job;
        int64_t made = (int64_t)(a->seq.n_ids - j->o.n_ids);
        int64_t most = s->r->n_ctx - (int64_t)j->o.n_ids;
        if (j->o.n_predict >= 0 && j->o.n_predict < most) most = j->o.n_predict;
        s->slots[i] = (qsi_slot){ .job = j->number, .index = a->index,
                                  .prompt = a->state == ANSWER_FEEDS,
                                  .n_prompt = (int64_t)j->o.n_ids, .n_past = (int64_t)a->seq.n_past,
                                  .n_generated = made };
        s->stats.n_running++;
        if (most > made) s->left_ids += most - made;
        if (a->state == ANSWER_FEEDS) s->left_prompt += (int64_t)(a->seq.n_ids - a->seq.n_past);
    }
    if (s->prefix) {
        s->stats.pages = s->n_pages;
        s->stats.pages_used = s->n_pages - s->r->pages.n_free(s->r->user);
        s->stats.pages_cached = qsi_prefix_n_own(s->prefix);
    }
    qsi_monitor_unlock(s->m);
}

/* Sleeps until there is something to do; false: the end. */
static bool wait_for_work(qsi_sched *s) {
    bool go;
    qsi_monitor_lock(s->m);
    while (!s->waiting && !s->quit && is_idle(s)) qsi_monitor_wait(s->m, 0);
    go = s->waiting || !is_idle(s);
    qsi_monitor_unlock(s->m);
    return go;
}

static void thread_main(void *arg) {
    qsi_sched *s = arg;
    while (wait_for_work(s)) {
        end_cancelled(s);
        admit(s);
        qsi_sched_step(s);
        publish(s);
    }
}

/* ---- life ---- */

static int n_workers(const qsi_runner *r) { return r->n_workers > 1 ? r->n_workers : 1; }

static qs_status make_tables(qsi_sched *s, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = (size_t)s->o.max_seqs;
    s->running = qsi_calloc(n, sizeof *s->running);
    s->takes = qsi_calloc(n, sizeof *s->takes);
    s->taken = qsi_calloc(n, sizeof *s->taken);
    s->drafts = qsi_calloc(n, sizeof *s->drafts);
    s->slots = qsi_calloc(n, sizeof *s->slots);
    s->samplers = qsi_calloc((size_t)n_workers(s->r), sizeof *s->samplers);
    s->pages = qsi_calloc((size_t)(s->r->n_ctx / QSI_KV_PAGE) + 1, sizeof *s->pages);
    if (!s->running || !s->takes || !s->taken || !s->drafts || !s->slots || !s->samplers ||
        !s->pages)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for %d sequences", (int)s->o.max_seqs);
    for (size_t i = 0; i < n; i++) s->slots[i].job = -1;
done:
    return st;
}

static int32_t logit_rows(const qsi_runner *r) {
    int64_t n = LOGIT_BYTES / ((int64_t)r->n_vocab * (int64_t)sizeof(float));
    return n < LOGIT_LEAST ? LOGIT_LEAST : n > LOGIT_MOST ? LOGIT_MOST : (int32_t)n;
}

static void load_cache(qsi_sched *s) {
    qs_err err = { 0 };
    int64_t n = 0;
    if (!s->prefix || !s->o.cache_path) return;
    qs_status st = qsi_prefix_load(s->prefix, s->o.cache_path, s->o.cache_key, &n, &err);
    if (st != QS_OK && st != QS_E_NOTFOUND)
        qsi_log(QSI_LOG_NOTE, "the prefix cache was not read: %s", err.text);
    else if (n > 0)
        qsi_log(QSI_LOG_NOTE, "%lld pages of earlier prompts are in the cache", (long long)n);
}

qs_status qsi_sched_create(qsi_sched **out, const qsi_sched_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_sched *s = NULL;
    if (o->max_seqs < 1 || o->max_seqs > 4096 || o->max_queue < 0)
        QS_FAIL(err, QS_E_ARG, "%d sequences at once, %d that wait: 1 to 4096, and 0 or more",
                (int)o->max_seqs, (int)o->max_queue);
    s = qsi_calloc(1, sizeof *s);
    if (!s) QS_FAIL(err, QS_E_NOMEM, "out of memory for the scheduler");
    s->o = *o;
    s->r = o->runner;
    if (s->o.max_seqs > s->r->max_rows) s->o.max_seqs = s->r->max_rows;
    s->logit_rows = logit_rows(s->r);
    s->max_logits = s->o.max_seqs + s->logit_rows;
    s->n_pages = s->r->pages.n_pages;
    QS_TRY(qsi_monitor_create(&s->m, err));
    QS_TRY(make_tables(s, err));
    QS_TRY(qsi_engine_create_wide(&s->engine, s->r, s->o.max_seqs, s->max_logits, err));
    for (int i = 0; i < n_workers(s->r); i++)
        QS_TRY(qsi_sampler_create(&s->samplers[i], s->r->n_vocab, err));
    if (s->r->pages.own) QS_TRY(qsi_prefix_create(&s->prefix, s->r, o->exact_cache, err));
    if (o->draft && o->draft->n_vocab != s->r->n_vocab)
        QS_FAIL(err, QS_E_ARG, "the model that drafts has %d ids, the model %d: they must be the same",
                (int)o->draft->n_vocab, (int)s->r->n_vocab);
    if (o->draft) QS_TRY(qsi_engine_create(&s->small, o->draft, 1, err));
    load_cache(s);
    publish(s);
    QS_TRY(qsi_thread_start(&s->thread, thread_main, s, err));
    *out = s;
    s = NULL;
done:
    qsi_sched_free(s);
    return st;
}

static void save_cache(qsi_sched *s) {
    qs_err err = { 0 };
    int64_t n = 0;
    if (!s->prefix || !s->o.cache_path) return;
    if (qsi_prefix_save(s->prefix, s->o.cache_path, s->o.cache_key, s->o.cache_bytes, &n, &err) != QS_OK)
        qsi_log(QSI_LOG_WARN, "the prefix cache was not kept: %s", err.text);
}

void qsi_sched_free(qsi_sched *s) {
    if (!s) return;
    if (s->thread) {
        qsi_monitor_lock(s->m);
        s->drain = true;
        s->quit = true;
        qsi_monitor_wake(s->m);
        qsi_monitor_unlock(s->m);
        qsi_thread_join(&s->thread);
        save_cache(s);
    }
    qsi_prefix_free(s->prefix);
    for (int i = 0; s->samplers && i < n_workers(s->r); i++) qsi_sampler_free(s->samplers[i]);
    qsi_free(s->samplers);
    qsi_engine_free(s->engine);
    qsi_engine_free(s->small);
    qsi_free(s->running);
    qsi_free(s->takes);
    qsi_free(s->taken);
    qsi_free(s->drafts);
    qsi_free(s->slots);
    qsi_free(s->pages);
    qsi_free(s->clients);
    qsi_monitor_free(s->m);
    qsi_free(s);
}

bool qsi_sched_drain(qsi_sched *s, int64_t deadline_ns) {
    qsi_monitor_lock(s->m);
    s->drain = true;
    while (s->n_jobs > 0 && (deadline_ns == 0 || qsi_now_ns() < deadline_ns))
        qsi_monitor_wait(s->m, deadline_ns);
    bool none = s->n_jobs == 0;
    qsi_monitor_unlock(s->m);
    return none;
}

/* ---- from any thread ---- */

/* Ids that a sequence of the job has at most, and whether the cache holds so many. */
static int64_t most_ids(const qsi_sched *s, int64_t n_prompt, int64_t n_predict) {
    int64_t n = s->r->n_ctx;
    if (n_predict >= 0 && n_predict < n - n_prompt) n = n_prompt + n_predict;
    return n;
}

static bool fits(const qsi_sched *s, int64_t n_prompt, int64_t n_predict) {
    if (n_prompt > s->r->n_ctx) return false;
    if (!s->r->pages.own) return true;
    int64_t n = n_predict < 0 ? n_prompt + 1 : most_ids(s, n_prompt, n_predict);
    return n / QSI_KV_PAGE + 2 <= s->n_pages || (n + QSI_KV_PAGE - 1) / QSI_KV_PAGE < s->n_pages;
}

static qs_status check_fit(const qsi_sched *s, const qsi_job_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    if ((uint64_t)o->n_ids > (uint64_t)s->r->n_ctx)
        QS_FAIL(err, QS_E_LIMIT, "the prompt has %zu tokens, the context %lld", o->n_ids,
                (long long)s->r->n_ctx);
    if (!fits(s, (int64_t)o->n_ids, o->n_predict))
        QS_FAIL(err, QS_E_LIMIT, "a prompt of %zu tokens and an answer of up to %lld: the cache holds "
                "%lld in all", o->n_ids, (long long)o->n_predict, (long long)(s->n_pages * QSI_KV_PAGE));
done:
    return st;
}

qs_status qsi_sched_submit(qsi_sched *s, const qsi_job_opts *o, qsi_job **out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_job *j = NULL;
    QS_TRY(check_fit(s, o, err));
    QS_TRY(qsi_job_create(&j, s, o, err));
    atomic_fetch_add(&j->holds, 1);
    qsi_monitor_lock(s->m);
    if (s->drain) st = qsi_err_set(err, QS_E_STATE, "the server is being stopped");
    else if (s->n_waiting_answers > 0 && s->n_waiting_answers + o->best_of > s->o.max_queue)
        st = qsi_err_set(err, QS_E_STATE, "the queue is full: %d requests wait", (int)s->n_waiting);
    else if (s->o.max_queue == 0 && s->n_jobs > 0 && s->stats.n_running >= s->o.max_seqs)
        st = qsi_err_set(err, QS_E_STATE, "all %d places are taken", (int)s->o.max_seqs);
    if (st == QS_OK) {
        qsi_job **at = &s->waiting;
        while (*at) at = &(*at)->next;
        j->number = s->n_numbers++;
        *at = j;
        s->n_waiting++;
        s->n_waiting_answers += o->best_of;
        s->n_jobs++;
        atomic_store(&j->ahead, s->n_waiting);
        *out = j;
        qsi_monitor_wake(s->m);
    }
    qsi_monitor_unlock(s->m);
    if (st == QS_OK) j = NULL;
done:
    if (j) { /* nobody holds it */
        qsi_job_drop(j);
        qsi_job_drop(j);
    }
    return st;
}

void qsi_job_cancel(qsi_job *j) { atomic_store(&j->cancel, 1); }

void qsi_sched_forecast(qsi_sched *s, int64_t n_prompt, int64_t n_predict, int32_t n_answers,
                        qsi_forecast *out) {
    qsi_monitor_lock(s->m);
    int64_t prompts = s->left_prompt, ids = s->left_ids;
    for (const qsi_job *j = s->waiting; j; j = j->next) {
        int64_t most = most_ids(s, (int64_t)j->o.n_ids, j->o.n_predict) - (int64_t)j->o.n_ids;
        prompts += (int64_t)j->o.n_ids;
        ids += most * j->o.best_of;
    }
    int32_t busy = s->stats.n_running + s->n_waiting_answers;
    bool measured = s->row_s > 0;
    double row = s->row_s, step = s->step_s > 0 ? s->step_s : row;
    *out = (qsi_forecast){ .fits = fits(s, n_prompt, n_predict), .most_ids = s->r->n_ctx,
                           .room = !s->drain && (s->n_waiting_answers == 0 ||
                                   s->n_waiting_answers + n_answers <= s->o.max_queue),
                           .ahead = s->n_waiting, .first_s = -1, .finish_s = -1 };
    if (measured) {
        double before = (double)prompts * row;
        int32_t over = busy + n_answers - s->o.max_seqs;
        /* a place becomes free when an answer ends; all together end after ids / places steps */
        if (over > 0 && busy > 0) before += (double)ids / s->o.max_seqs * step * over / busy;
        out->first_s = before + (double)n_prompt * row;
        int64_t own = most_ids(s, n_prompt, n_predict) - n_prompt;
        out->finish_s = out->first_s + (double)own * step;
    }
    qsi_monitor_unlock(s->m);
}

void qsi_sched_stats_get(qsi_sched *s, qsi_sched_stats *out) {
    qsi_monitor_lock(s->m);
    *out = s->stats;
    out->n_waiting = s->n_waiting;
    qsi_monitor_unlock(s->m);
}

int32_t qsi_sched_slots(qsi_sched *s, qsi_slot *out, int32_t n) {
    qsi_monitor_lock(s->m);
    for (int32_t i = 0; i < n && i < s->o.max_seqs; i++) out[i] = s->slots[i];
    qsi_monitor_unlock(s->m);
    return s->o.max_seqs;
}
