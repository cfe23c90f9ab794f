/* What a choice has so far: text, reasoning, calls, and log-probabilities in the API's form. A token's
 * entry waits in `held` until the text comes that it belongs to, so that entries and text agree at every
 * moment, and a stop string that is not shown has no entries. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "serve/call_impl.h"

void qsi_lp_clear(qsi_lp *lp) {
    for (int i = 0; i < QSI_LP_COLUMNS; i++) qsi_str_clear(&lp->column[i]);
    lp->n = 0;
}

void qsi_lp_release(qsi_lp *lp) {
    for (int i = 0; i < QSI_LP_COLUMNS; i++) qsi_str_release(&lp->column[i]);
    *lp = (qsi_lp){ 0 };
}

qs_status qsi_lp_append(qsi_lp *to, const qsi_lp *from) {
    qs_status st = QS_OK;
    for (int i = 0; i < QSI_LP_COLUMNS; i++) {
        const qsi_str *s = &from->column[i];
        if (s->len == 0) continue;
        if (to->column[i].len > 0) QS_TRY(qsi_str_putc(&to->column[i], ','));
        QS_TRY(qsi_str_append(&to->column[i], s->data, s->len));
    }
    to->n += from->n;
done:
    return st;
}

void qsi_choice_release(qsi_choice *h) {
    for (size_t i = 0; i < h->n_calls; i++) {
        qsi_str_release(&h->calls[i].name);
        qsi_str_release(&h->calls[i].args);
    }
    qsi_free(h->calls);
    qsi_str_release(&h->text);
    qsi_str_release(&h->reasoning);
    qsi_str_release(&h->raw);
    qsi_lp_release(&h->lp);
    for (size_t i = 0; i < h->n_held; i++) qsi_lp_release(&h->held[i].lp);
    qsi_free(h->held);
}

/* ---- one token ---- */

/* A token's bytes as far as they are part of the text: control tokens are not. */
static qsi_slice shown(const qsi_api_call *c, int32_t id) {
    const qsi_vocab *v = c->b->vocab;
    if (id < 0 || id >= qsi_vocab_size(v)) return (qsi_slice){ "", 0 };
    if (qsi_vocab_type(v, id) == QSI_TOK_CONTROL && !c->ask.o.special) return (qsi_slice){ "", 0 };
    return qsi_vocab_bytes(v, id);
}

/* A token's name: its text; bytes that are no text by themselves as OpenAI's text API writes them
 * ("bytes:\xe6\x98") there, as U+FFFD in the chat API, which gives the bytes beside. */
static void put_name(qsi_api_call *c, qsi_jw *w, int32_t id) {
    const qsi_vocab *v = c->b->vocab;
    char name[16 + 4 * 64] = "bytes:";
    if (id < 0 || id >= qsi_vocab_size(v)) {
        snprintf(name, sizeof name, "[id %d]", (int)id);
        qsi_jw_z(w, name);
        return;
    }
    qsi_slice s = qsi_vocab_bytes(v, id);
    if (!c->voice->legacy || s.n > 64 || qsi_utf8_valid(s.p, s.n, NULL)) {
        qsi_jw_str(w, s.p, s.n);
        return;
    }
    for (size_t i = 0; i < s.n; i++)
        snprintf(name + 6 + 4 * i, 5, "\\x%02x", (unsigned)(unsigned char)s.p[i]);
    qsi_jw_z(w, name);
}

/* What is impossible is -9999, as OpenAI says it. */
static double sent_logprob(double x) { return isinf(x) ? -9999 : x; }

static void put_chat_token(qsi_api_call *c, qsi_jw *w, int32_t id, double logprob) {
    qsi_slice s = shown(c, id);
    qsi_jw_key(w, "token");
    put_name(c, w, id);
    qsi_jw_key_f64(w, "logprob", sent_logprob(logprob));
    qsi_jw_key(w, "bytes");
    qsi_jw_arr(w);
    for (size_t i = 0; i < s.n; i++) qsi_jw_i64(w, (unsigned char)s.p[i]);
    qsi_jw_end_arr(w);
}

static qs_status add_chat(qsi_api_call *c, qsi_lp *lp, const qsi_event *e) {
    qsi_jw w = { .s = &lp->column[0], .comma = lp->column[0].len > 0 };
    qsi_jw_obj(&w);
    put_chat_token(c, &w, e->id, e->logprob);
    qsi_jw_key(&w, "top_logprobs");
    qsi_jw_arr(&w);
    for (int32_t i = 0; i < e->n_top; i++) {
        qsi_jw_obj(&w);
        put_chat_token(c, &w, e->top[i].id, e->top[i].logprob);
        qsi_jw_end_obj(&w);
    }
    qsi_jw_end_arr(&w);
    qsi_jw_end_obj(&w);
    return w.st;
}

/* Two ids may have one name; the likelier one has it then. */
static bool named_before(qsi_api_call *c, const qsi_event *e, int32_t i) {
    const qsi_vocab *v = c->b->vocab;
    int32_t id = e->top[i].id, n = qsi_vocab_size(v);
    if (id >= n) return false;
    qsi_slice a = qsi_vocab_bytes(v, id);
    for (int32_t k = 0; k < i; k++) {
        if (e->top[k].id >= n) continue;
        qsi_slice b = qsi_vocab_bytes(v, e->top[k].id);
        if (a.n == b.n && memcmp(a.p, b.p, a.n) == 0) return true;
    }
    return false;
}

/* An object from names to log-probabilities; a key is a value with a colon behind. */
static void put_top(qsi_api_call *c, qsi_jw *w, const qsi_event *e) {
    qsi_jw_obj(w);
    for (int32_t i = 0; i < e->n_top; i++) {
        if (named_before(c, e, i)) continue;
        put_name(c, w, e->top[i].id);
        if (w->st == QS_OK) w->st = qsi_str_putc(w->s, ':');
        w->comma = false;
        qsi_jw_f64(w, sent_logprob(e->top[i].logprob));
    }
    qsi_jw_end_obj(w);
}

static qs_status add_legacy(qsi_api_call *c, qsi_lp *lp, int64_t at, const qsi_event *e) {
    qs_status st = QS_OK;
    bool comma = lp->column[0].len > 0;
    qsi_jw name = { .s = &lp->column[0], .comma = comma }, p = { .s = &lp->column[1], .comma = comma },
           top = { .s = &lp->column[2], .comma = comma }, off = { .s = &lp->column[3], .comma = comma };
    put_name(c, &name, e->id);
    qsi_jw_f64(&p, sent_logprob(e->logprob));
    if (isnan(e->logprob)) qsi_jw_null(&top);
    else put_top(c, &top, e);
    qsi_jw_i64(&off, at);
    QS_TRY(name.st);
    QS_TRY(p.st);
    QS_TRY(top.st);
    QS_TRY(off.st);
done:
    return st;
}

static int64_t characters(qsi_slice s) {
    int64_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static qs_status add(qsi_api_call *c, qsi_lp *lp, int64_t *at, const qsi_event *e) {
    qs_status st = c->voice->legacy ? add_legacy(c, lp, *at, e) : add_chat(c, lp, e);
    *at += characters(shown(c, e->id));
    lp->n++;
    return st;
}

/* ---- events ---- */

qs_status qsi_choice_echo(qsi_api_call *c, qsi_run *r, const qsi_event *e) {
    return add(c, &r->echo, &r->echo.n_chars, e);
}

/* The first n of those that are held get their place, or (lost) none. */
static qs_status let_go(qsi_choice *h, size_t n, bool lost) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n; i++) {
        if (!lost && st == QS_OK) st = qsi_lp_append(&h->lp, &h->held[i].lp);
        if (!lost) h->n_bytes += h->held[i].n_bytes;
        qsi_lp_release(&h->held[i].lp);
    }
    if (n > 0) memmove(h->held, h->held + n, (h->n_held - n) * sizeof *h->held);
    h->n_held -= n;
    return st;
}

static qs_status hold(qsi_api_call *c, qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    QS_TRY(qsi_grow((void **)&h->held, &h->cap_held, h->n_held + 1, sizeof *h->held));
    qsi_held *x = &h->held[h->n_held++];
    *x = (qsi_held){ .n_bytes = shown(c, e->id).n };
    QS_TRY(add(c, &x->lp, &h->lp.n_chars, e));
done:
    return st;
}

static bool is_blank(qsi_slice s) {
    for (size_t i = 0; i < s.n; i++)
        if (strchr(" \n\r\t", s.p[i]) == NULL) return false;
    return true;
}

qs_status qsi_choice_token(qsi_api_call *c, qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    if (c->ask.keep_raw) QS_TRY(qsi_str_append(&h->raw, e->text != NULL ? e->text : "", e->n_text));
    if (!c->ask.o.logprobs || c->voice == NULL) goto done;
    /* markers of the template are no text, nor is the white space between them and the text */
    if (c->ask.o.chat != NULL && qsi_chat_is_part(c->b->vocab, e->id)) goto done;
    if (h->reasoning.len > 0 && h->text.len == 0 && is_blank(shown(c, e->id))) goto done;
    QS_TRY(hold(c, h, e));
done:
    return st;
}

static qs_status begin_call(qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    QS_TRY(qsi_grow((void **)&h->calls, &h->cap_calls, h->n_calls + 1, sizeof *h->calls));
    qsi_out_call *call = &h->calls[h->n_calls];
    *call = (qsi_out_call){ 0 };
    qsi_draw_name(call->id, "call_");
    h->n_calls++;
    QS_TRY(qsi_str_append(&call->name, e->text, e->n_text));
done:
    return st;
}

qs_status qsi_choice_part(qsi_api_call *c, qsi_choice *h, const qsi_event *e, bool *skip) {
    qs_status st = QS_OK;
    *skip = false;
    if (e->part == QSI_PART_TEXT) {
        size_t n = 0;
        QS_TRY(qsi_str_append(&h->text, e->text, e->n_text));
        for (size_t at = h->n_bytes; n < h->n_held && at < h->text.len; n++) at += h->held[n].n_bytes;
        return let_go(h, n, false);
    }
    QS_TRY(let_go(h, h->n_held, true));
    if (e->part == QSI_PART_REASONING) return qsi_str_append(&h->reasoning, e->text, e->n_text);
    if (e->part == QSI_PART_CALL) h->skips_call = c->ask.one_call && h->n_calls > 0;
    *skip = h->skips_call;
    if (*skip) goto done;
    if (e->part == QSI_PART_CALL) return begin_call(h, e);
    if (h->n_calls > 0) QS_TRY(qsi_str_append(&h->calls[h->n_calls - 1].args, e->text, e->n_text));
done:
    return st;
}

/* The stop string that comes first in what the tokens say. */
static const char *find_stop(const qsi_api_call *c, const qsi_choice *h) {
    const char *found = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < c->ask.o.n_stops; i++) {
        const char *stop = c->ask.o.stops[i];
        size_t n = strlen(stop);
        for (size_t at = 0; at + n <= h->raw.len && at < best; at++)
            if (memcmp(h->raw.data + at, stop, n) == 0) {
                best = at;
                found = stop;
            }
    }
    return found;
}

/* lm-eval and others take the last entry for the token that was generated: where the model ended at
 * once there is one for its end, without a number. */
static qs_status add_end(qsi_api_call *c, qsi_choice *h) {
    int32_t eos = qsi_vocab_eos(c->b->vocab);
    qsi_event e = { .id = eos, .logprob = NAN };
    return eos < 0 ? QS_OK : hold(c, h, &e);
}

qs_status qsi_choice_finish(qsi_api_call *c, qsi_choice *h, const qsi_event *e) {
    qs_status st = QS_OK;
    bool lost = false;
    h->over = true;
    h->finish = e->finish;
    if (e->finish == QSI_JOB_STOP) {
        h->stop = find_stop(c, h);
        if (h->stop == NULL && c->ask.o.n_stops == 1) h->stop = c->ask.o.stops[0];
        lost = true;
    } else if (h->n_calls > 0 || (h->reasoning.len > 0 && h->text.len == 0)) {
        lost = true;
    } else if (c->voice->legacy && c->ask.echo && c->ask.o.logprobs && e->finish == QSI_JOB_END) {
        QS_TRY(add_end(c, h));
    }
    QS_TRY(let_go(h, h->n_held, lost));
done:
    return st;
}
