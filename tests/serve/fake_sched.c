/* See fake_sched.h. */
#include "fake_sched.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "infer/stop.h"
#include "sys/file.h"
#include "sys/thread.h"

struct qsi_job {
    qsi_sched *s;
    atomic_int holds, cancel;
    qsi_job_opts o;
    int64_t number;
    qsi_job *next;
};

struct qsi_sched {
    const qsi_vocab *v;
    fake_script script;
    qsi_monitor *m;
    qsi_thread *thread;
    qsi_job *first, *last;
    qsi_arena arena;
    qsi_job_opts seen;
    int n_submits;
    bool open, quit;
};

void qsi_job_opts_init(qsi_job_opts *o) {
    *o = (qsi_job_opts){ .n = 1, .best_of = 1, .n_predict = -1 };
    qsi_sampling_default(&o->sampling);
}

uint64_t qsi_job_seed(uint64_t seed, int32_t index) { return seed + (uint64_t)index; }

/* ---- one answer ---- */

typedef struct telling {
    qsi_job *j;
    int32_t index;
    qsi_answer reader;
    qsi_detok detok;
    qsi_stop stop;
    int64_t n;
} telling;

static int tell(telling *t, qsi_event *e) {
    e->index = t->index;
    if (atomic_load(&t->j->cancel)) return 1;
    if (t->j->o.on_event(t->j->o.user, e)) atomic_store(&t->j->cancel, 1);
    return 0;
}

static int on_part(void *user, qsi_part part, const char *p, size_t n) {
    qsi_event e = { .kind = QSI_EV_PART, .part = part, .text = p, .n_text = n };
    return tell(user, &e);
}

static void show(telling *t, const char *p, size_t n, bool last) {
    qsi_str out = { 0 };
    QS_CHECK(qsi_stop_push(&t->stop, p, n, &out) == QS_OK);
    if (last) QS_CHECK(qsi_stop_finish(&t->stop, &out) == QS_OK);
    if (out.len > 0 && t->j->o.chat != NULL)
        QS_CHECK(qsi_answer_text(&t->reader, out.data, out.len) == QS_OK);
    else if (out.len > 0) on_part(t, QSI_PART_TEXT, out.data, out.len);
    qsi_str_release(&out);
}

static void say_id(telling *t, int32_t id, bool told) {
    const qsi_vocab *v = t->j->s->v;
    qsi_str piece = { 0 };
    qsi_slice b = qsi_vocab_bytes(v, id);
    qsi_logprob top[64];
    qsi_event e = { .kind = QSI_EV_TOKEN, .id = id, .logprob = -0.25, .top = top, .text = b.p,
                    .n_text = b.n };
    for (e.n_top = 0; e.n_top < t->j->o.top_logprobs && e.n_top < 64; e.n_top++)
        top[e.n_top] = (qsi_logprob){ (id + e.n_top) % qsi_vocab_size(v),
                                      e.n_top == 0 ? -0.25 : e.n_top == 1 ? -2 : -INFINITY };
    if (told && t->j->o.logprobs) tell(t, &e);
    if (t->j->o.chat != NULL && qsi_answer_takes(&t->reader, id)) {
        QS_CHECK(qsi_detok_finish(&t->detok, &piece) == QS_OK);
        show(t, piece.data, piece.len, false);
        QS_CHECK(qsi_answer_marker(&t->reader, b.p, b.n) == QS_OK);
    } else {
        QS_CHECK(qsi_detok_push(&t->detok, id, &piece) == QS_OK);
        if (piece.len > 0) show(t, piece.data, piece.len, false);
    }
    qsi_str_release(&piece);
}

/* Ids of the script until something ends the answer. */
static qsi_job_finish say(telling *t, const qsi_ids *ids, bool *broken) {
    const fake_script *f = &t->j->s->script;
    for (size_t i = 0; i < ids->len; i++) {
        if (t->j->o.n_predict >= 0 && t->n >= t->j->o.n_predict) return QSI_JOB_LENGTH;
        if (atomic_load(&t->j->cancel)) return QSI_JOB_END;
        if (f->end != QS_OK && t->n >= f->n_before) {
            *broken = true;
            return QSI_JOB_END;
        }
        say_id(t, ids->data[i], true);
        t->n++;
        if (t->stop.hit) return QSI_JOB_STOP;
    }
    return t->j->o.n_predict >= 0 && t->n >= t->j->o.n_predict ? QSI_JOB_LENGTH : QSI_JOB_END;
}

static void answer(qsi_job *j, int32_t index, qsi_usage *u, bool *broken) {
    const qsi_job_opts *o = &j->o;
    const char *text = j->s->script.answers[index % 4];
    telling t = { .j = j, .index = index };
    qsi_ids ids = { 0 };
    qsi_str rest = { 0 };
    if (text == NULL) text = j->s->script.answers[0];
    QS_CHECK(qsi_encode(j->s->v, text, strlen(text), QSI_ENC_SPECIAL, &ids, NULL) == QS_OK);
    QS_CHECK(qsi_stop_init(&t.stop, o->stops, o->n_stops, NULL) == QS_OK);
    qsi_detok_init(&t.detok, j->s->v, o->special);
    if (o->chat != NULL)
        QS_CHECK(qsi_answer_init(&t.reader, &(qsi_answer_opts){ .chat = o->chat, .vocab = j->s->v,
                                     .think = o->think, .tools = o->tools, .n_tools = o->n_tools,
                                     .on_part = on_part, .user = &t }, NULL) == QS_OK);
    for (int32_t i = o->n_lead; i > 0; i--) say_id(&t, o->ids[o->n_ids - (size_t)i], false);
    qsi_job_finish why = say(&t, &ids, broken);
    if (!*broken) {
        QS_CHECK(qsi_detok_finish(&t.detok, &rest) == QS_OK);
        show(&t, rest.data != NULL ? rest.data : "", rest.len, true);
        if (o->chat != NULL) QS_CHECK(qsi_answer_finish(&t.reader) == QS_OK);
        u->n_generated += t.n;
        qsi_event e = { .kind = QSI_EV_FINISH, .finish = why, .usage = u };
        tell(&t, &e);
    }
    if (o->chat != NULL) qsi_answer_release(&t.reader);
    qsi_stop_release(&t.stop);
    qsi_ids_release(&ids);
    qsi_str_release(&rest);
}

/* ---- one job ---- */

static void prompt(qsi_job *j, telling *t) {
    int64_t n = (int64_t)j->o.n_ids, step = j->s->script.chunk > 0 ? j->s->script.chunk : n;
    qsi_event start = { .kind = QSI_EV_START, .n_done = n / 2, .n_all = n };
    tell(t, &start);
    for (int64_t i = step; i < n; i += step) {
        qsi_event e = { .kind = QSI_EV_PROMPT, .n_done = i, .n_all = n };
        tell(t, &e);
    }
    for (int64_t i = 0; j->o.echo && i < n; i++) {
        int32_t id = j->o.ids[i];
        qsi_logprob top = { id, -0.5 };
        bool first = i == 0;
        qsi_event e = { .kind = QSI_EV_ECHO, .pos = i, .id = id, .logprob = first ? NAN : -0.5,
                        .top = &top, .n_top = first || j->o.top_logprobs == 0 ? 0 : 1 };
        qsi_slice b = qsi_vocab_bytes(j->s->v, id);
        e.text = b.p;
        e.n_text = b.n;
        tell(t, &e);
    }
}

static void run(qsi_job *j) {
    const qsi_job_opts *o = &j->o;
    telling t = { .j = j };
    bool broken = false;
    qsi_usage u = { .n_prompt = (int64_t)o->n_ids, .n_cached = (int64_t)o->n_ids / 2,
                    .queue_ns = 1000000, .prompt_ns = 2000000, .gen_ns = 4000000 };
    prompt(j, &t);
    if (o->embed) {
        float x[4] = { 0.5f, -0.5f, 0.5f, (float)o->n_ids };
        qsi_event e = { .kind = QSI_EV_EMBEDDING, .embedding = x, .n_embedding = 4 };
        tell(&t, &e);
    }
    for (int32_t i = 0; !o->embed && i < o->n && !broken; i++) answer(j, i, &u, &broken);
    qs_err err = { 0 };
    qsi_event end = { .kind = QSI_EV_END, .status = QS_OK, .usage = &u, .err = &err };
    if (broken) end.status = qsi_err_set(&err, j->s->script.end, "a scripted failure");
    if (atomic_load(&j->cancel)) end.status = QS_E_CANCELLED;
    o->on_event(o->user, &end);
    qsi_job_release(j);
}

static bool may_run(const qsi_sched *s) {
    if (s->first == NULL) return false;
    if (s->open || s->quit || atomic_load(&s->first->cancel)) return true;
    return s->first->o.deadline_ns > 0 && qsi_now_ns() >= s->first->o.deadline_ns;
}

static void work(void *user) {
    qsi_sched *s = user;
    qsi_monitor_lock(s->m);
    while (!s->quit || s->first != NULL) {
        if (!may_run(s)) {
            qsi_monitor_wait(s->m, qsi_now_ns() + 5000000);
            continue;
        }
        qsi_job *j = s->first;
        if (!s->open) atomic_store(&j->cancel, 1);
        s->first = j->next;
        if (s->first == NULL) s->last = NULL;
        qsi_monitor_unlock(s->m);
        run(j);
        qsi_monitor_lock(s->m);
    }
    qsi_monitor_unlock(s->m);
}

/* ---- sched.h ---- */

qsi_sched *fake_create(const qsi_vocab *v, const fake_script *script) {
    qsi_sched *s = qsi_calloc(1, sizeof *s);
    QS_CHECK(s != NULL && qsi_monitor_create(&s->m, NULL) == QS_OK);
    s->v = v;
    s->script = *script;
    s->open = !script->fenced;
    qsi_arena_init(&s->arena);
    QS_CHECK(qsi_thread_start(&s->thread, work, s, NULL) == QS_OK);
    return s;
}

void fake_open(qsi_sched *s) {
    qsi_monitor_lock(s->m);
    s->open = true;
    qsi_monitor_wake(s->m);
    qsi_monitor_unlock(s->m);
}

const qsi_job_opts *fake_last(const qsi_sched *s) { return &s->seen; }
int fake_submits(const qsi_sched *s) { return s->n_submits; }

qs_status qsi_sched_create(qsi_sched **s, const qsi_sched_opts *o, qs_err *err) {
    return QS_E_UNSUPPORTED;
}

void qsi_sched_free(qsi_sched *s) {
    if (s == NULL) return;
    qsi_monitor_lock(s->m);
    s->quit = true;
    for (qsi_job *j = s->first; j != NULL; j = j->next) atomic_store(&j->cancel, 1);
    qsi_monitor_wake(s->m);
    qsi_monitor_unlock(s->m);
    qsi_thread_join(&s->thread);
    qsi_monitor_free(s->m);
    qsi_arena_release(&s->arena);
    qsi_free(s);
}

bool qsi_sched_drain(qsi_sched *s, int64_t deadline_ns) { return true; }

void qsi_sched_forecast(qsi_sched *s, int64_t n_prompt, int64_t n_predict, int32_t n_answers,
                        qsi_forecast *out) {
    *out = s->script.forecast;
}

static void *copy(qsi_arena *a, const void *p, size_t n) {
    void *q = qsi_arena_alloc(a, n + 1, 1);
    QS_CHECK(q != NULL);
    if (n > 0) memcpy(q, p, n);
    return q;
}

static void copy_opts(qsi_arena *a, qsi_job_opts *o) {
    const char **stops = qsi_arena_alloc(a, o->n_stops + 1, sizeof *stops);
    qsi_tool *tools = qsi_arena_alloc(a, o->n_tools + 1, sizeof *tools);
    QS_CHECK(stops != NULL && tools != NULL);
    o->ids = copy(a, o->ids, o->n_ids * sizeof *o->ids);
    o->sampling.bias = copy(a, o->sampling.bias, o->sampling.n_bias * sizeof *o->sampling.bias);
    for (size_t i = 0; i < o->n_stops; i++)
        stops[i] = qsi_arena_strndup(a, o->stops[i], strlen(o->stops[i]));
    for (size_t i = 0; i < o->n_tools; i++)
        tools[i] = (qsi_tool){ copy(a, o->tools[i].json, o->tools[i].n), o->tools[i].n };
    o->stops = stops;
    o->tools = tools;
}

qs_status qsi_sched_submit(qsi_sched *s, const qsi_job_opts *o, qsi_job **job, qs_err *err) {
    qs_status st = QS_OK;
    qsi_monitor_lock(s->m);
    if (s->script.submit != QS_OK && s->n_submits >= s->script.n_submits)
        QS_FAIL(err, s->script.submit, "a scripted refusal");
    qsi_job *j = qsi_calloc(1, sizeof *j);
    QS_CHECK(j != NULL);
    *j = (qsi_job){ .s = s, .o = *o, .number = s->n_submits++ };
    atomic_init(&j->holds, 2);
    atomic_init(&j->cancel, 0);
    copy_opts(&s->arena, &j->o);
    s->seen = j->o;
    if (s->last != NULL) s->last->next = j;
    else s->first = j;
    s->last = j;
    qsi_monitor_wake(s->m);
    *job = j;
done:
    qsi_monitor_unlock(s->m);
    return st;
}

void qsi_job_cancel(qsi_job *j) { atomic_store(&j->cancel, 1); }
int32_t qsi_job_ahead(qsi_job *j) { return (int32_t)j->number; }
int64_t qsi_job_number(const qsi_job *j) { return j->number; }
void qsi_job_release(qsi_job *j) {
    if (atomic_fetch_sub(&j->holds, 1) == 1) qsi_free(j);
}
void qsi_sched_stats_get(qsi_sched *s, qsi_sched_stats *out) { *out = (qsi_sched_stats){ 0 }; }
int32_t qsi_sched_slots(qsi_sched *s, qsi_slot *out, int32_t n) { return 0; }
