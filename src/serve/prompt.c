/* Prompts: a conversation or ids become what the model reads, checked against the context, cut where
 * that was asked for, and admitted where there is room. See call_impl.h. */
#include <math.h>
#include <string.h>

#include "serve/call_impl.h"

/* ---- the context ---- */

/* Positions that are kept for the answer when a prompt is cut. */
static int64_t reserve(const qsi_api_call *c) {
    int64_t n_ctx = c->b->n_ctx, want = c->ask.max_tokens >= 0 ? c->ask.max_tokens : n_ctx / 4;
    if (want > n_ctx / 2) want = n_ctx / 2;
    return want > 0 || c->ask.max_tokens == 0 ? want : 1;
}

static int64_t most_ids(const qsi_api_call *c) {
    bool answers = !c->ask.o.embed && c->ask.max_tokens != 0;
    return c->b->n_ctx - (answers ? 1 : 0);
}

void qsi_prompt_fits(qsi_api_call *c, size_t n_ids, const char *param, qsi_refusal *no) {
    if (n_ids == 0)
        qsi_refuse(no, 400, NULL, param, "'%s' is empty: there is no token to begin with", param);
    else if ((int64_t)n_ids > most_ids(c))
        qsi_refuse(no, 400, "context_length_exceeded", param,
                   "the prompt has %zu tokens; the context has %lld, the answer included. Shorten it, "
                   "or set \"truncation\": \"auto\"", n_ids, (long long)c->b->n_ctx);
}

static void put_run(qsi_api_call *c, size_t i, const int32_t *ids, size_t n, qsi_refusal *no) {
    int32_t *copy = qsi_arena_alloc(&c->arena, n, sizeof *copy);
    if (copy == NULL) {
        qsi_refuse_memory(no);
        return;
    }
    memcpy(copy, ids, n * sizeof *copy);
    c->runs[i].ids = copy;
    c->runs[i].n_ids = n;
}

void qsi_prompt_ids(qsi_api_call *c, size_t i, const int32_t *ids, size_t n, const char *param,
                    qsi_refusal *no) {
    int64_t most = c->b->n_ctx - reserve(c);
    if (!c->ask.truncate || (int64_t)n <= most) {
        qsi_prompt_fits(c, n, param, no);
        if (no->status == 0) put_run(c, i, ids, n, no);
        return;
    }
    /* the last ids, behind the BOS if there was one */
    bool bos = n > 0 && ids[0] == qsi_vocab_bos(c->b->vocab);
    size_t cut = n - (size_t)most;
    put_run(c, i, ids + cut, n - cut, no);
    if (no->status != 0) return;
    if (bos) *(int32_t *)(uintptr_t)c->runs[i].ids = ids[0];
    c->ask.n_cut += (int64_t)cut;
}

bool qsi_prompt_read_ids(const qsi_in *in, const char *key, const qsi_json *list, int32_t n_vocab,
                         qsi_ids *out) {
    size_t n = qsi_json_size(list);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        if (!qsi_json_as_i64(qsi_json_at(list, i), &id) || id < 0 || id >= n_vocab) {
            qsi_in_refuse(in, key, "holds something that is no token id (0 to %d) at place %zu",
                          (int)n_vocab - 1, i);
            return false;
        }
        if (qsi_ids_push(out, (int32_t)id) != QS_OK) {
            qsi_refuse_memory(in->no);
            return false;
        }
    }
    return true;
}

/* ---- conversations ---- */

/* Where the conversation may be cut: turns [*out] of those before the last question, but for system
 * texts; n_dropped counts the questions that go, with what follows each. */
static size_t questions(const qsi_talk *t) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_turns; i++) n += t->turns[i].role == QSI_USER;
    return n;
}

/* The turns that stay when n questions go. */
static size_t keep_turns(const qsi_talk *t, size_t n, qsi_turn *out) {
    size_t seen = 0, kept = 0;
    for (size_t i = 0; i < t->n_turns; i++) {
        const qsi_turn *turn = &t->turns[i];
        bool system = turn->role == QSI_SYSTEM || turn->role == QSI_DEVELOPER;
        seen += turn->role == QSI_USER;
        if (system || seen > n || n == 0) out[kept++] = *turn;
    }
    return kept;
}

/* The beginning of an answer, as if the model had written it. */
static qs_status put_lead(const qsi_talk *t, qsi_ids *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_vocab *v = t->c->b->vocab;
    const qsi_turn *last = t->n_turns > 0 ? &t->turns[t->n_turns - 1] : NULL;
    if (t->prefilled && last != NULL && last->n > 0) {
        if (qsi_chat_strip_space(t->c->b->chat)) {
            qsi_str s = { 0 };
            st = qsi_str_putc(&s, ' ');
            if (st == QS_OK) st = qsi_str_append(&s, last->text, last->n);
            if (st == QS_OK) st = qsi_encode(v, s.data, s.len, QSI_ENC_PERSON, out, err);
            qsi_str_release(&s);
            QS_TRY(st);
        } else {
            QS_TRY(qsi_encode(v, last->text, last->n, QSI_ENC_PERSON, out, err));
        }
    }
    if (t->lead != NULL) QS_TRY(qsi_encode(v, t->lead, strlen(t->lead), QSI_ENC_SPECIAL, out, err));
done:
    return st;
}

static qs_status render(qsi_talk *t, size_t n_dropped, qsi_ids *out, size_t *n_kept, size_t *n_lead,
                        qs_err *err) {
    qs_status st = QS_OK;
    qsi_turn *kept = qsi_alloc(t->n_turns + 1, sizeof *kept);
    qsi_chat_opts o = { .think = t->think, .generate = true, .tools = t->tools, .n_tools = t->n_tools };
    if (kept == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a conversation");
    size_t n = keep_turns(t, n_dropped, kept);
    *n_kept = n;
    if (t->prefilled) n--;
    QS_TRY(qsi_chat_write(t->c->b->chat, t->c->b->vocab, kept, n, &o, out, NULL, err));
    size_t before = out->len;
    QS_TRY(put_lead(t, out, err));
    *n_lead = t->lead != NULL ? out->len - before : 0;
done:
    qsi_free(kept);
    return st;
}

qs_status qsi_prompt_render(qsi_talk *t, size_t n_dropped, qsi_ids *out, qs_err *err) {
    size_t kept, lead;
    return render(t, n_dropped, out, &kept, &lead, err);
}

typedef struct rendered {
    qsi_ids ids;
    size_t n_kept, n_lead;
} rendered;

static void again(qsi_talk *t, size_t n_dropped, rendered *r, const char *param, qsi_refusal *no) {
    qs_err err = { 0 };
    r->ids.len = 0;
    qs_status st = render(t, n_dropped, &r->ids, &r->n_kept, &r->n_lead, &err);
    if (st == QS_E_FORMAT || st == QS_E_UNSUPPORTED || st == QS_E_ARG)
        qsi_refuse(no, 400, NULL, param, "%s", err.text);
    else if (st != QS_OK)
        qsi_refuse_err(no, param, st, &err);
}

/* The fewest questions that must go: halving, since the more go the shorter it is. */
static void shorten(qsi_talk *t, rendered *r, const char *param, qsi_refusal *no) {
    qsi_api_call *c = t->c;
    int64_t most = c->b->n_ctx - reserve(c), whole = (int64_t)r->ids.len;
    size_t asked = questions(t), lo = 0, hi = asked > 0 ? asked - 1 : 0; /* lo is too few */
    while (lo + 1 < hi && no->status == 0) {
        size_t mid = lo + (hi - lo) / 2;
        again(t, mid, r, param, no);
        if ((int64_t)r->ids.len <= most) hi = mid;
        else lo = mid;
    }
    if (no->status != 0) return;
    again(t, hi, r, param, no);
    c->ask.n_cut = whole - (int64_t)r->ids.len;
    c->ask.n_cut_turns = (int64_t)(t->n_turns - r->n_kept);
}

void qsi_prompt_talk(qsi_api_call *c, qsi_talk *t, const char *param, qsi_refusal *no) {
    rendered r = { 0 };
    qsi_job_opts *o = &c->ask.o;
    if (no->status != 0) return;
    again(t, 0, &r, param, no);
    if (no->status == 0 && c->ask.truncate && (int64_t)r.ids.len > c->b->n_ctx - reserve(c))
        shorten(t, &r, param, no);
    if (no->status == 0) qsi_prompt_fits(c, r.ids.len, param, no);
    if (no->status == 0 && qsi_runs_create(c, 1, no)) put_run(c, 0, r.ids.data, r.ids.len, no);
    if (no->status == 0) {
        c->runs[0].n_lead = (int32_t)r.n_lead;
        o->chat = c->b->chat;
        o->think = t->think;
        o->tools = t->tools;
        o->n_tools = t->n_tools;
    }
    qsi_ids_release(&r.ids);
}

/* ---- room ---- */

static int64_t whole_seconds(double s) { return s < 1 ? 1 : s > 600 ? 600 : (int64_t)ceil(s); }

void qsi_prompt_admit(qsi_api_call *c, qsi_refusal *no) {
    const qsi_job_opts *o = &c->ask.o;
    size_t longest = 0;
    qsi_forecast f;
    for (size_t i = 0; i < c->n_runs; i++)
        if (c->runs[i].n_ids > longest) longest = c->runs[i].n_ids;
    qsi_sched_forecast(c->b->sched, (int64_t)longest, o->embed ? 0 : o->n_predict,
                       o->embed ? 1 : o->best_of, &f);
    if (!f.fits) {
        qsi_refuse(no, 413, "never_fits", NULL,
                   "a prompt of %zu tokens and %d answers never fit the cache: a sequence may have %lld "
                   "tokens here", longest, (int)o->best_of, (long long)f.most_ids);
    } else if (!f.room) {
        qsi_refuse(no, 503, "queue_full", NULL, "the queue is full: %d requests wait before this one",
                   (int)f.ahead);
        no->retry_s = whole_seconds(f.first_s);
    } else if (c->service.max_wait_ns > 0 && f.first_s * 1e9 > (double)c->service.max_wait_ns) {
        qsi_refuse(no, 503, "wait_too_long", NULL,
                   "the first token would come after about %.0f s (%d requests before this one); this "
                   "server lets nobody wait longer than %.0f s", f.first_s, (int)f.ahead,
                   (double)c->service.max_wait_ns / 1e9);
        no->retry_s = whole_seconds(f.first_s - (double)c->service.max_wait_ns / 1e9);
    }
}
