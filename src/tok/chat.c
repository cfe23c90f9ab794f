/* Chat templates: conversation -> ids.
 *
 * A template is a row of chat_table.c: strings around a turn's text and a few rules. Their markers
 * become ids directly. Everything else, the template's words and what people wrote, is collected and
 * encoded together up to the next marker (pieces may reach from one into the other), with no marker
 * matching in it. Before an answer the collected text is always encoded on its own: the
 * pre-tokenizers end a piece there in any case (after a colon before a space, after a line break,
 * after a marker), so masks do not change ids.
 *
 * Source: deepseek-facts 3.2 and the official templates, whose output for well-formed conversations
 * is in tests/golden/tok/chat.json. */
#include "tok/chat.h"

#include <string.h>

#include "tok/chat_table.h"

bool qsi_chat_strip_space(const qsi_chat_template *t) {
    return t->space;
}

qsi_call_form qsi_chat_calls(const qsi_chat_template *t) {
    return t->calls;
}

static const char *const role_markers[] = {QSI_M_USER, QSI_M_ASSISTANT};
static const char *const part_markers[] = {
    QSI_M_THINK, QSI_M_ANSWER, QSI_M_DSML, QSI_M_CALLS, QSI_M_CALLS_END, QSI_M_CALL,
    QSI_M_CALL_END, QSI_M_SEP, QSI_M_OUTPUTS, QSI_M_OUTPUTS_END, QSI_M_OUTPUT, QSI_M_OUTPUT_END};

static const char *in_list(const char *const *list, size_t n_list, const char *p, size_t n) {
    for (size_t i = 0; i < n_list; i++) {
        size_t len = strlen(list[i]);
        if (len <= n && memcmp(p, list[i], len) == 0) return list[i];
    }
    return NULL;
}

const char *qsi_chat_marker_at(const char *p, size_t n, bool *role) {
    const char *m = in_list(role_markers, QSI_COUNT(role_markers), p, n);
    *role = m != NULL;
    return m != NULL ? m : in_list(part_markers, QSI_COUNT(part_markers), p, n);
}

bool qsi_chat_is_part(const qsi_vocab *v, int32_t id) {
    if (id < 0 || id >= v->n || v->type[id] == QSI_TOK_NORMAL) return false;
    qsi_slice s = v->text[id];
    const char *m = in_list(part_markers, QSI_COUNT(part_markers), s.p, s.n);
    return m != NULL && strlen(m) == s.n;
}

bool qsi_chat_has_part(const qsi_vocab *v, const char *marker) {
    return qsi_chat_is_part(v, qsi_vocab_find(v, marker, strlen(marker)));
}

/* *on: the template's own habit, or what is asked where it has a choice. */
static qs_status thinking(const qsi_chat_template *t, qsi_think think, bool *on, qs_err *err) {
    bool can = t->thinks != QSI_THINKS_NOT, must = can && t->thinks != QSI_THINKS_SWITCHED;
    if (think == QSI_THINK_ON && !can)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "chat template %s knows no thinking", t->name);
    if (think == QSI_THINK_OFF && must)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "chat template %s always thinks; one that can do without: deepseek-v3.1",
                           t->name);
    *on = must || think == QSI_THINK_ON;
    return QS_OK;
}

qs_status qsi_chat_begin(const qsi_chat_template *t, qsi_think think, qsi_begin *b, qs_err *err) {
    qs_status st = QS_OK;
    bool on = false;
    QS_TRY(thinking(t, think, &on, err));
    *b = !on ? QSI_BEGIN_ANSWER
             : t->thinks == QSI_THINKS_ITSELF ? QSI_BEGIN_EITHER : QSI_BEGIN_REASONING;
done:
    return st;
}

/* ---- ids ---- */

static qs_status no_memory(qsi_chat_pen *r) {
    return qsi_err_set(r->err, QS_E_NOMEM, "out of memory for a conversation");
}

/* Gives the ids written since `from` their mask. */
static qs_status mask_from(qsi_chat_pen *r, size_t from) {
    for (; r->mask != NULL && from < r->out->len; from++)
        if (qsi_ids_push(r->mask, r->learn) != QS_OK) return no_memory(r);
    return QS_OK;
}

static qs_status flush(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    size_t from = r->out->len;
    if (r->text.len == 0) return QS_OK;
    QS_TRY(qsi_encode(r->v, r->text.data, r->text.len, QSI_ENC_PERSON, r->out, r->err));
    qsi_str_clear(&r->text);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

static qs_status put_id(qsi_chat_pen *r, int32_t id, const char *what) {
    qs_status st = QS_OK;
    size_t from;
    if (id < 0)
        QS_FAIL(r->err, QS_E_UNSUPPORTED,
                "the vocabulary has no token %s, which chat template %s needs", what, r->t->name);
    QS_TRY(flush(r));
    from = r->out->len;
    if (qsi_ids_push(r->out, id) != QS_OK) return no_memory(r);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

qs_status qsi_chat_text(qsi_chat_pen *r, const char *p, size_t n) {
    return qsi_str_append(&r->text, p, n) == QS_OK ? QS_OK : no_memory(r);
}

/* The id of a marker, -1 when it is none of the vocabulary's added tokens. */
static int32_t marker_id(const qsi_vocab *v, const char *m) {
    int32_t id = qsi_vocab_find(v, m, strlen(m));
    return id >= 0 && v->type[id] != QSI_TOK_NORMAL ? id : -1;
}

/* Older vocabularies lack the markers of thinking and of tools: there they are text, as they are to
 * the tokenizers these models come with. */
static qs_status put_marker(qsi_chat_pen *r, const char *m, bool role) {
    int32_t id = marker_id(r->v, m);
    return id >= 0 || role ? put_id(r, id, m) : qsi_chat_text(r, m, strlen(m));
}

/* A newline after the end token is no longer part of the answer. */
qs_status qsi_chat_frame(qsi_chat_pen *r, const char *s) {
    qs_status st = QS_OK;
    for (size_t n = strlen(s); n > 0;) {
        bool role;
        const char *m = qsi_chat_marker_at(s, n, &role);
        size_t step = m != NULL ? strlen(m) : 1;
        if (m != NULL) {
            QS_TRY(put_marker(r, m, role));
        } else if (*s == '\1') {
            if (r->v->bos >= 0) QS_TRY(put_id(r, r->v->bos, "BOS"));
        } else if (*s == '\2') {
            const char *end = r->t->end;
            int32_t id = end != NULL ? qsi_vocab_find(r->v, end, strlen(end)) : r->v->eos;
            QS_TRY(put_id(r, id, end != NULL ? end : "EOS"));
            r->learn = false;
        } else {
            QS_TRY(qsi_chat_text(r, s, 1));
        }
        s += step;
        n -= step;
    }
done:
    return st;
}

/* ---- system texts ---- */

/* The default system text that the file's own template carries: its first string literal that is
 * printed as it is, {{'...'}}. A backslash there stands before n, a quote or itself. */
static qs_status put_file_system(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    qsi_slice s = r->v->chat_template;
    size_t i = 0, end;
    while (i + 3 < s.n && !(memcmp(s.p + i, "{{'", 3) == 0)) i++;
    if (i + 3 >= s.n) return QS_OK;
    for (end = i += 3; end < s.n && s.p[end] != '\''; end++)
        if (s.p[end] == '\\') end++;
    if (end + 2 >= s.n || memcmp(s.p + end, "'}}", 3) != 0) return QS_OK;
    for (; i < end; i++) {
        bool escape = s.p[i] == '\\' && i + 1 < end;
        if (escape) i++;
        QS_TRY(qsi_chat_text(r, escape && s.p[i] == 'n' ? "\n" : s.p + i, 1));
    }
done:
    return st;
}

/* A developer speaks with the system's voice, but where the template gives it its own. */
static bool is_system(const qsi_chat_pen *r, const qsi_turn *turn) {
    return turn->role == QSI_SYSTEM ||
           (turn->role == QSI_DEVELOPER && r->t->calls != QSI_CALLS_DSML);
}

/* The one system turn whose text the tools follow. */
static const qsi_turn *first_system(const qsi_chat_pen *r) {
    for (size_t i = 0; i < r->n_turns; i++)
        if (is_system(r, &r->turns[i])) return &r->turns[i];
    return NULL;
}

static qs_status put_system(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    QS_TRY(qsi_chat_frame(r, r->t->system[0]));
    QS_TRY(qsi_chat_text(r, turn->text, turn->n));
    if (r->o->n_tools > 0 && turn == first_system(r)) {
        QS_TRY(qsi_chat_text(r, "\n\n", 2));
        QS_TRY(qsi_chat_put_tools(r));
    }
    QS_TRY(qsi_chat_frame(r, r->t->system[1]));
done:
    return st;
}

/* What stands before the first turn. */
static qs_status put_start(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    bool none = first_system(r) == NULL, first = true;
    QS_TRY(qsi_chat_frame(r, "\1"));
    for (size_t i = 0; r->t->gathers && i < r->n_turns; i++) {
        if (!is_system(r, &r->turns[i])) continue;
        if (!first) QS_TRY(qsi_chat_text(r, "\n\n", 2));
        QS_TRY(qsi_chat_text(r, r->turns[i].text, r->turns[i].n));
        first = false;
    }
    if (r->t->file_system && none) QS_TRY(put_file_system(r));
    if (r->o->n_tools == 0 || (!none && !r->t->gathers)) goto done;
    if (r->t->gathers || r->t->calls == QSI_CALLS_DSML) QS_TRY(qsi_chat_text(r, "\n\n", 2));
    QS_TRY(qsi_chat_put_tools(r));
    QS_TRY(qsi_chat_frame(r, r->t->system[1]));
done:
    return st;
}

/* ---- turns ---- */

static const qsi_turn *last_question(const qsi_turn *turns, size_t n) {
    for (size_t i = n; i-- > 0;)
        if (turns[i].role == QSI_USER || turns[i].role == QSI_DEVELOPER) return &turns[i];
    return NULL;
}

/* Opens or closes the reasoning of the answer that follows. */
static qs_status put_think(qsi_chat_pen *r, bool on) {
    if (r->t->thinks == QSI_THINKS_OPENED) return qsi_chat_frame(r, QSI_M_THINK "\n");
    if (r->t->thinks != QSI_THINKS_SWITCHED) return QS_OK;
    return qsi_chat_frame(r, on ? QSI_M_THINK : QSI_M_ANSWER);
}

/* Here the reasoning stays while the functions called in it answer. */
static bool keeps_reasoning(const qsi_chat_pen *r, const qsi_turn *turn) {
    return r->t->calls == QSI_CALLS_DSML && r->thinking && (r->asked == NULL || turn > r->asked);
}

static qs_status put_user(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    QS_TRY(qsi_chat_frame(r, r->t->user[0]));
    if (turn->role == QSI_DEVELOPER) QS_TRY(qsi_chat_frame(r, "\n\n# The user's message is: "));
    QS_TRY(qsi_chat_text(r, turn->text, turn->n));
    QS_TRY(qsi_chat_frame(r, r->t->user[1]));
    if (r->t->opens != QSI_OPENS_WITH_USER) goto done;
    QS_TRY(qsi_chat_frame(r, r->t->marker));
    QS_TRY(put_think(r, r->thinking && turn == r->asked));
done:
    return st;
}

/* What of an answer stays in the history: that behind its reasoning. */
static qsi_slice without_reasoning(const qsi_chat_pen *r, const qsi_turn *turn) {
    size_t len = strlen(QSI_M_ANSWER), from = 0;
    if (r->t->thinks == QSI_THINKS_NOT || r->t->calls == QSI_CALLS_DSML)
        return (qsi_slice){turn->text, turn->n};
    for (size_t i = 0; i + len <= turn->n; i++) {
        if (memcmp(turn->text + i, QSI_M_ANSWER, len) != 0) continue;
        from = i + len;
        if (r->t->thinks == QSI_THINKS_SWITCHED) break; /* the first; R1's goes by the last */
    }
    return (qsi_slice){turn->text + from, turn->n - from};
}

/* The generated ids of a turn, without its reasoning where that is not kept. False: they cannot
 * stand for it. */
static bool usable_ids(const qsi_chat_pen *r, const qsi_turn *turn, size_t *from) {
    int32_t mark = marker_id(r->v, QSI_M_ANSWER);
    *from = 0;
    if (turn->ids == NULL || turn->n_calls > 0) return false;
    if (r->t->thinks == QSI_THINKS_NOT) return true;
    for (size_t i = 0; mark >= 0 && i < turn->n_ids; i++)
        if (turn->ids[i] == mark) *from = i + 1;
    return *from > 0 || turn->n_reasoning == 0;
}

/* The answer itself: text, or ids as they were generated. */
static qs_status put_answer(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    size_t from, begin;
    if (!usable_ids(r, turn, &begin)) {
        qsi_slice s = without_reasoning(r, turn);
        if (r->t->space) QS_TRY(qsi_chat_text(r, " ", 1));
        return qsi_chat_text(r, s.p, s.n);
    }
    from = r->out->len;
    for (size_t i = begin; i < turn->n_ids; i++)
        if (qsi_ids_push(r->out, turn->ids[i]) != QS_OK) return no_memory(r);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

/* True when generated ids already end with the line break that the template puts before its end. */
static bool ends_with_break(const qsi_chat_pen *r, const qsi_turn *turn) {
    qsi_slice s;
    if (turn->ids == NULL || turn->n_ids == 0 || turn->n_calls > 0) return false;
    s = qsi_vocab_bytes(r->v, turn->ids[turn->n_ids - 1]);
    return s.n > 0 && s.p[s.n - 1] == '\n';
}

/* The marker in front of an answer in the history, or nothing where none is due. */
static qs_status open_answer(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    if (r->last == QSI_TOOL && r->t->calls == QSI_CALLS_FENCED)
        return qsi_chat_frame(r, QSI_M_OUTPUTS_END);
    if (r->t->opens == QSI_OPENS_WITH_USER) return QS_OK;
    if (r->last == QSI_TOOL && r->t->calls == QSI_CALLS_PLAIN) return QS_OK;
    if (r->t->opens == QSI_OPENS_AFTER_USER && r->last != QSI_USER) return QS_OK;
    QS_TRY(qsi_chat_frame(r, r->t->marker));
    if (r->t->thinks == QSI_THINKS_SWITCHED) QS_TRY(put_think(r, false));
done:
    return st;
}

static qs_status put_assistant(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    const char *tail = r->t->answer_end;
    QS_TRY(open_answer(r));
    QS_TRY(flush(r));
    r->learn = true;
    if (keeps_reasoning(r, turn)) {
        QS_TRY(qsi_chat_text(r, turn->reasoning, turn->n_reasoning));
        QS_TRY(qsi_chat_frame(r, QSI_M_ANSWER));
    }
    QS_TRY(put_answer(r, turn));
    if (turn->n_calls > 0) QS_TRY(qsi_chat_put_calls(r, turn));
    if (*tail == '\n' && ends_with_break(r, turn)) tail++;
    QS_TRY(qsi_chat_frame(r, tail));
    r->learn = false;
    r->n_due = turn->n_calls;
    r->n_got = 0;
done:
    return st;
}

static qs_status put_turn(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    if (is_system(r, turn)) return r->t->gathers ? QS_OK : put_system(r, turn);
    if (turn->role == QSI_TOOL) QS_TRY(qsi_chat_put_result(r, turn));
    else if (turn->role == QSI_ASSISTANT) QS_TRY(put_assistant(r, turn));
    else QS_TRY(put_user(r, turn));
    r->last = turn->role == QSI_DEVELOPER ? QSI_USER : (int)turn->role;
done:
    return st;
}

/* Ready for an answer. */
static qs_status put_prompt(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    bool asked = r->last == QSI_USER;
    if (r->t->calls == QSI_CALLS_DSML && (asked || r->last == QSI_TOOL)) return QS_OK;
    if (r->last == QSI_TOOL && r->t->calls == QSI_CALLS_FENCED)
        return qsi_chat_frame(r, QSI_M_OUTPUTS_END);
    if (r->last == QSI_TOOL && r->t->calls == QSI_CALLS_PLAIN) return QS_OK;
    if (r->t->opens == QSI_OPENS_WITH_USER && asked) return QS_OK;
    QS_TRY(qsi_chat_frame(r, r->t->marker));
    QS_TRY(put_think(r, r->thinking));
done:
    return st;
}

qs_status qsi_chat_write(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                         size_t n_turns, const qsi_chat_opts *o, qsi_ids *out, qsi_ids *loss_mask,
                         qs_err *err) {
    qs_status st = QS_OK;
    qsi_chat_pen r = {.t = t, .v = v, .o = o, .turns = turns, .n_turns = n_turns, .out = out,
                      .mask = loss_mask, .asked = last_question(turns, n_turns), .last = -1,
                      .err = err};
    QS_TRY(thinking(t, o->think, &r.thinking, err));
    if (o->from_turn == 0) QS_TRY(put_start(&r));
    else if (o->from_turn <= n_turns) r.last = (int)turns[o->from_turn - 1].role;
    for (size_t i = o->from_turn; i < n_turns; i++) QS_TRY(put_turn(&r, &turns[i]));
    if (o->generate) QS_TRY(put_prompt(&r));
    QS_TRY(flush(&r));
done:
    qsi_str_release(&r.text);
    return st;
}

qs_status qsi_chat_render(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                          size_t n_turns, size_t from_turn, bool generate, qsi_ids *out,
                          qsi_ids *loss_mask, qs_err *err) {
    qsi_chat_opts o = {.generate = generate, .from_turn = from_turn};
    return qsi_chat_write(t, v, turns, n_turns, &o, out, loss_mask, err);
}
