/* The jobs of a call: handing them in, a few at a time, and what their events do. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"
#include "sys/file.h"

#define MAX_LIVE 8        /* jobs of one call that are with the scheduler */
#define RETRY_NS 50000000 /* until a full queue is asked again */

bool qsi_runs_create(qsi_api_call *c, size_t n, qsi_refusal *no) {
    size_t n_choices = n * (size_t)c->ask.o.n;
    c->runs = qsi_arena_calloc(&c->arena, n, sizeof *c->runs);
    c->choices = qsi_arena_calloc(&c->arena, n_choices, sizeof *c->choices);
    if (c->runs == NULL || c->choices == NULL) {
        qsi_refuse_memory(no);
        return false;
    }
    c->n_runs = n;
    c->n_choices = n_choices;
    for (size_t i = 0; i < n; i++) {
        c->runs[i].call = c;
        c->runs[i].first = i * (size_t)c->ask.o.n;
    }
    return true;
}

/* ---- events: the scheduler's thread, under the monitor ---- */

static qs_status hear_part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    bool skip;
    QS_TRY(qsi_choice_part(c, h, e, &skip));
    if (skip || c->out == NULL) goto done;
    c->voice->part(c, r, h, e);
    h->begun = true;
    qsi_lp_clear(&h->lp);
done:
    return st;
}

static qs_status hear_finish(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    if (e->usage != NULL) r->usage = *e->usage;
    QS_TRY(qsi_choice_finish(c, h, e));
    if (c->out == NULL) goto done;
    c->voice->over(c, r, h);
    h->begun = true;
    qsi_lp_clear(&h->lp);
done:
    return st;
}

static qs_status hear_embedding(qsi_api_call *c, qsi_run *r, const qsi_event *e) {
    r->embedding = qsi_arena_alloc(&c->arena, (size_t)e->n_embedding, sizeof *r->embedding);
    if (r->embedding == NULL) return QS_E_NOMEM;
    memcpy(r->embedding, e->embedding, (size_t)e->n_embedding * sizeof *r->embedding);
    r->n_embedding = e->n_embedding;
    return QS_OK;
}

static void hear_end(qsi_api_call *c, qsi_run *r, const qsi_event *e) {
    r->live = false;
    r->over = true;
    c->n_live--;
    c->n_over++;
    if (e->usage != NULL) r->usage = *e->usage;
    if (e->status == QS_E_CANCELLED && c->st != QS_OK)
        qsi_refuse_memory(&c->failure);
    else if (e->status == QS_E_CANCELLED)
        qsi_refuse(&c->failure, 504, "timeout", NULL,
                   "the request took longer than this server lets one take (%.0f s), or it stops",
                   (double)c->service.deadline_ns / 1e9);
    else if (e->status == QS_E_NUMERIC && c->ask.o.sampling.n_bias > 0)
        qsi_refuse(&c->failure, 400, NULL, "logit_bias", "no token is left to choose: %s",
                   e->err != NULL ? e->err->text : "all are forbidden");
    else if (e->status != QS_OK)
        qsi_refuse_err(&c->failure, NULL, e->status, e->err);
}

static qs_status hear(qsi_api_call *c, qsi_run *r, const qsi_event *e) {
    qsi_choice *h = &c->choices[r->first + (size_t)e->index];
    if (e->kind == QSI_EV_START || e->kind == QSI_EV_PROMPT) {
        r->started = true;
        r->n_done = e->n_done;
        r->n_all = e->n_all;
        return QS_OK;
    }
    if (e->kind == QSI_EV_ECHO) return qsi_choice_echo(c, r, e);
    r->computed = true;
    if (c->reply.first_ns == 0) c->reply.first_ns = qsi_now_ns() - c->begun_ns;
    if (h->lp.n_chars == 0) h->lp.n_chars = r->echo.n_chars;
    switch (e->kind) {
    case QSI_EV_TOKEN: return qsi_choice_token(c, h, e);
    case QSI_EV_PART: return hear_part(c, r, h, e);
    case QSI_EV_FINISH: return hear_finish(c, r, h, e);
    default: return hear_embedding(c, r, e);
    }
}

static int on_event(void *user, const qsi_event *e) {
    qsi_run *r = user;
    qsi_api_call *c = r->call;
    bool end = e->kind == QSI_EV_END;
    qsi_monitor_lock(c->m);
    if (end) {
        hear_end(c, r, e);
    } else if (!c->dropped && !c->finished && c->st == QS_OK) {
        qs_status st = hear(c, r, e);
        if (c->st == QS_OK) c->st = st;
    }
    int stop = c->dropped || c->finished || c->st != QS_OK;
    qsi_monitor_unlock(c->m);
    if (end) {
        qsi_call_post(c, 0);
        qsi_call_let_go(c);
    }
    return stop;
}

/* ---- handing in ---- */

bool qsi_runs_left(const qsi_api_call *c) { return c->n_begun < c->n_runs; }

static qs_status submit(qsi_api_call *c, qsi_run *r, qs_err *err) {
    qsi_job_opts o = c->ask.o;
    qsi_job *job = NULL;
    o.ids = r->ids;
    o.n_ids = r->n_ids;
    o.n_lead = r->n_lead;
    o.on_event = on_event;
    o.user = r;
    o.client = c->client;
    o.deadline_ns = c->service.deadline_ns > 0 ? c->begun_ns + c->service.deadline_ns : 0;
    qsi_monitor_lock(c->m);
    r->live = true;
    c->n_live++;
    qsi_monitor_unlock(c->m);
    qsi_call_hold(c);
    qs_status st = qsi_sched_submit(c->b->sched, &o, &job, err);
    qsi_monitor_lock(c->m);
    if (st == QS_OK) {
        r->job = job;
        if ((c->dropped || c->finished) && r->live) qsi_job_cancel(job);
    } else {
        r->live = false;
        c->n_live--;
    }
    qsi_monitor_unlock(c->m);
    if (st != QS_OK) qsi_call_let_go(c);
    return st;
}

/* One thread at a time: that which begins the call, afterwards the chores'. */
void qsi_runs_submit(qsi_api_call *c, qsi_refusal *no) {
    while (qsi_runs_left(c)) {
        qs_err err = { 0 };
        qsi_monitor_lock(c->m);
        size_t live = c->n_live;
        bool stop = c->dropped || c->finished || c->failure.status != 0;
        qsi_monitor_unlock(c->m);
        if (stop || live >= MAX_LIVE) return;
        qs_status st = submit(c, &c->runs[c->n_begun], &err);
        if (st == QS_E_STATE && (live > 0 || c->n_begun > 0)) {
            qsi_call_post(c, qsi_now_ns() + RETRY_NS);
            return;
        }
        if (st != QS_OK) {
            qsi_refuse_err(no, NULL, st, &err);
            if (st == QS_E_STATE) no->retry_s = 1;
            return;
        }
        c->n_begun++;
    }
}

/* Under the monitor. */
void qsi_runs_cancel(qsi_api_call *c) {
    for (size_t i = 0; i < c->n_runs; i++)
        if (c->runs[i].live && c->runs[i].job != NULL) qsi_job_cancel(c->runs[i].job);
}

void qsi_runs_release(qsi_api_call *c) {
    for (size_t i = 0; i < c->n_runs; i++) {
        if (c->runs[i].job != NULL) qsi_job_release(c->runs[i].job);
        qsi_lp_release(&c->runs[i].echo);
    }
    for (size_t i = 0; i < c->n_choices; i++) qsi_choice_release(&c->choices[i]);
}

qsi_usage qsi_runs_usage(const qsi_api_call *c) {
    qsi_usage sum = { 0 };
    for (size_t i = 0; i < c->n_runs; i++) {
        const qsi_usage *u = &c->runs[i].usage;
        sum.n_prompt += u->n_prompt;
        sum.n_cached += u->n_cached;
        sum.n_generated += u->n_generated;
        sum.n_drafts += u->n_drafts;
        sum.n_hits += u->n_hits;
        sum.queue_ns += u->queue_ns;
        sum.prompt_ns += u->prompt_ns;
        sum.gen_ns += u->gen_ns;
    }
    return sum;
}
