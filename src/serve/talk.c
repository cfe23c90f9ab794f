/* Conversations of OpenAI's form, and what all forms share: turns, text parts, results in the order of
 * their calls. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

qsi_turn *qsi_talk_add(qsi_talk *t, qsi_role role, const char *text, size_t n, qsi_refusal *no) {
    if (t->n_turns == t->cap_turns) {
        size_t cap = t->cap_turns * 2 + 8;
        qsi_turn *turns = qsi_arena_calloc(&t->c->arena, cap, sizeof *turns);
        int32_t *ranks = qsi_arena_calloc(&t->c->arena, cap, sizeof *ranks);
        if (turns == NULL || ranks == NULL) {
            qsi_refuse_memory(no);
            return NULL;
        }
        if (t->n_turns > 0) {
            memcpy(turns, t->turns, t->n_turns * sizeof *turns);
            memcpy(ranks, t->ranks, t->n_turns * sizeof *ranks);
        }
        t->turns = turns;
        t->ranks = ranks;
        t->cap_turns = cap;
    }
    t->turns[t->n_turns] = (qsi_turn){ .role = role, .text = text, .n = n };
    if (role != QSI_TOOL) t->n_call_ids = role == QSI_ASSISTANT ? 0 : t->n_call_ids;
    return &t->turns[t->n_turns++];
}

void qsi_talk_calls(qsi_talk *t, qsi_turn *turn, const qsi_call *calls, const char *const *ids, size_t n,
                    qsi_refusal *no) {
    const char **copy = qsi_arena_calloc(&t->c->arena, n + 1, sizeof *copy);
    if (copy == NULL) {
        qsi_refuse_memory(no);
        return;
    }
    for (size_t i = 0; i < n; i++) copy[i] = ids[i];
    turn->calls = calls;
    turn->n_calls = n;
    t->call_ids = copy;
    t->n_call_ids = n;
}

void qsi_talk_result(qsi_talk *t, const char *id, const char *text, size_t n, const qsi_in *in,
                     const char *key) {
    int32_t rank = -1;
    size_t before = t->n_turns;
    while (before > 0 && t->turns[before - 1].role == QSI_TOOL) before--;
    for (size_t i = 0; id != NULL && i < t->n_call_ids && rank < 0; i++)
        if (t->call_ids[i] != NULL && strcmp(t->call_ids[i], id) == 0) rank = (int32_t)i;
    if (id == NULL) rank = (int32_t)(t->n_turns - before);
    if (rank < 0) {
        qsi_in_refuse(in, key, "belongs to no call of the answer in front of it");
        return;
    }
    if (qsi_talk_add(t, QSI_TOOL, text, n, in->no) == NULL) return;
    size_t at = t->n_turns - 1;
    qsi_turn turn = t->turns[at];
    for (; at > before && t->ranks[at - 1] > rank; at--) {
        t->turns[at] = t->turns[at - 1];
        t->ranks[at] = t->ranks[at - 1];
    }
    t->turns[at] = turn;
    t->ranks[at] = rank;
}

/* ---- text ---- */

static const char *keep(qsi_talk *t, const char *s, size_t n, qsi_refusal *no) {
    char *copy = qsi_arena_strndup(&t->c->arena, s, n);
    if (copy == NULL) qsi_refuse_memory(no);
    return copy;
}

static bool is_text_part(const char *type) {
    static const char *const types[] = { "text", "input_text", "output_text", "refusal" };
    for (size_t i = 0; i < QSI_COUNT(types); i++)
        if (strcmp(type, types[i]) == 0) return true;
    return false;
}

static void add_part(const qsi_in *in, const char *key, size_t i, qsi_str *out) {
    qsi_in part = qsi_in_element(in, key, i);
    const char *type = qsi_in_text(&part, "type");
    if (in->no->status != 0) return;
    if (type != NULL && !is_text_part(type)) {
        qsi_in_refuse(&part, "type", "is not text: this model reads no images, sounds or files");
        return;
    }
    const char *field = type != NULL && strcmp(type, "refusal") == 0 ? "refusal" : "text";
    const char *s = qsi_in_need(&part, field) ? qsi_in_text(&part, field) : NULL;
    if (s == NULL) return;
    qs_status st = i > 0 ? qsi_str_putc(out, '\n') : QS_OK;
    if (st == QS_OK) st = qsi_str_puts(out, s);
    if (st != QS_OK) qsi_refuse_memory(in->no);
}

const char *qsi_talk_text(qsi_talk *t, const qsi_in *in, const char *key, size_t *n) {
    const qsi_json *j = qsi_json_get(in->j, key);
    const char *out = NULL;
    qsi_str s = { 0 };
    if (!qsi_in_need(in, key)) return NULL;
    if (qsi_json_kind_of(j) == QSI_JSON_STR) {
        const char *z = qsi_json_as_str(j);
        *n = strlen(z);
        return keep(t, z, *n, in->no);
    }
    if (qsi_json_kind_of(j) != QSI_JSON_ARRAY) {
        qsi_in_refuse(in, key, "is neither a string nor an array of parts");
        return NULL;
    }
    for (size_t i = 0; i < qsi_json_size(j) && in->no->status == 0; i++) add_part(in, key, i, &s);
    if (in->no->status == 0) out = keep(t, s.data != NULL ? s.data : "", s.len, in->no);
    *n = s.len;
    qsi_str_release(&s);
    return out;
}

char *qsi_arena_json(qsi_api_call *c, const qsi_json *j, size_t *n, qsi_refusal *no) {
    qsi_str s = { 0 };
    char *out = NULL;
    if (qsi_chat_dump(&s, j) == QS_OK) out = qsi_arena_strndup(&c->arena, s.data, s.len);
    if (out == NULL) qsi_refuse_memory(no);
    *n = s.len;
    qsi_str_release(&s);
    return out;
}

/* ---- OpenAI's messages ---- */

static void read_call(qsi_talk *t, const qsi_in *in, size_t i, qsi_call *call, const char **id) {
    qsi_in e = qsi_in_element(in, "tool_calls", i);
    if (in->no->status != 0 || !qsi_in_need(&e, "function")) return;
    if (qsi_in_object(&e, "function") == NULL) return;
    qsi_in f = qsi_in_member(&e, "function");
    const char *name = qsi_in_need(&f, "name") ? qsi_in_text(&f, "name") : NULL;
    const char *args = qsi_in_need(&f, "arguments") ? qsi_in_text(&f, "arguments") : NULL;
    const char *given = qsi_in_text(&e, "id");
    if (in->no->status != 0 || name == NULL || args == NULL) return;
    qsi_json *j = NULL;
    qs_err err = { 0 };
    if (args[0] == '\0') args = "{}";
    qs_status st = qsi_json_parse(&j, args, strlen(args), QSI_JSON_SMALL, &err);
    if (st != QS_OK || qsi_json_kind_of(j) != QSI_JSON_OBJECT)
        qsi_in_refuse(&f, "arguments", "is not the text of a JSON object");
    qsi_json_free(&j);
    call->n_name = strlen(name);
    call->n_args = strlen(args);
    call->name = keep(t, name, call->n_name, in->no);
    call->args = keep(t, args, call->n_args, in->no);
    *id = given != NULL ? keep(t, given, strlen(given), in->no) : NULL;
}

static void read_calls(qsi_talk *t, const qsi_in *in, qsi_turn *turn) {
    const qsi_json *list = qsi_in_array(in, "tool_calls");
    size_t n = qsi_json_size(list);
    if (n == 0) return;
    qsi_call *calls = qsi_arena_calloc(&t->c->arena, n, sizeof *calls);
    const char **ids = qsi_arena_calloc(&t->c->arena, n, sizeof *ids);
    if (calls == NULL || ids == NULL) {
        qsi_refuse_memory(in->no);
        return;
    }
    for (size_t i = 0; i < n && in->no->status == 0; i++) read_call(t, in, i, &calls[i], &ids[i]);
    qsi_talk_calls(t, turn, calls, ids, n, in->no);
}

static void read_assistant(qsi_talk *t, const qsi_in *in) {
    size_t n = 0, n_reasoning = 0;
    bool calls = qsi_json_size(qsi_in_array(in, "tool_calls")) > 0;
    const char *text = "", *reasoning = NULL;
    if (!calls || qsi_in_has(in, "content")) text = qsi_talk_text(t, in, "content", &n);
    const char *key = qsi_in_has(in, "reasoning_content") ? "reasoning_content" : "reasoning";
    if (qsi_in_has(in, key)) reasoning = qsi_talk_text(t, in, key, &n_reasoning);
    if (in->no->status != 0) return;
    qsi_turn *turn = qsi_talk_add(t, QSI_ASSISTANT, text, n, in->no);
    if (turn == NULL) return;
    turn->reasoning = reasoning;
    turn->n_reasoning = n_reasoning;
    read_calls(t, in, turn);
}

static void read_message(qsi_talk *t, const qsi_in *in) {
    static const char *const roles[] = { "system", "user", "assistant", "developer", "tool", NULL };
    int role = qsi_in_need(in, "role") ? qsi_in_word(in, "role", roles) : -1;
    size_t n = 0;
    qsi_in_text(in, "name");
    if (role < 0 || in->no->status != 0) return;
    if (role == QSI_ASSISTANT) {
        read_assistant(t, in);
        return;
    }
    const char *text = qsi_talk_text(t, in, "content", &n);
    if (text == NULL) return;
    const char *id = role == QSI_TOOL ? qsi_in_text(in, "tool_call_id") : NULL;
    if (role == QSI_TOOL) qsi_talk_result(t, id, text, n, in, "tool_call_id");
    else qsi_talk_add(t, (qsi_role)role, text, n, in->no);
}

void qsi_talk_messages(qsi_talk *t, const qsi_in *in, const char *key) {
    const qsi_json *list = qsi_in_need(in, key) ? qsi_in_array(in, key) : NULL;
    size_t n = qsi_json_size(list);
    if (in->no->status == 0 && n == 0) qsi_in_refuse(in, key, "is empty");
    for (size_t i = 0; i < n && in->no->status == 0; i++) {
        qsi_in m = qsi_in_element(in, key, i);
        if (in->no->status == 0) read_message(t, &m);
    }
}

/* ---- reasoning ---- */

static void think(qsi_talk *t, bool on) {
    t->think = on ? QSI_THINK_ON : QSI_THINK_OFF;
    t->think_asked = on;
}

/* A model that does not reason is content with being told not to. */
static void refuse_thinking(qsi_talk *t, const qsi_in *in, const char *key) {
    const qsi_backend *b = t->c->b;
    if (t->think == QSI_THINK_ON && !b->can_think)
        qsi_in_refuse(in, key, "asks for reasoning, which this model does not do");
    else if (t->think == QSI_THINK_OFF && b->can_think && !b->can_choose)
        qsi_in_refuse(in, key, "asks for no reasoning; this model always reasons");
    else if (t->think == QSI_THINK_OFF && !b->can_think)
        t->think = QSI_THINK_AUTO;
}

void qsi_talk_thinking(qsi_talk *t, const qsi_in *in) {
    static const char *const efforts[] = { "none", "minimal", "low", "medium", "high", "xhigh", NULL };
    bool on;
    int effort = qsi_in_word(in, "reasoning_effort", efforts);
    if (effort >= 0) {
        think(t, effort > 0);
        refuse_thinking(t, in, "reasoning_effort");
    }
    if (qsi_in_object(in, "chat_template_kwargs") == NULL) return;
    qsi_in kw = qsi_in_member(in, "chat_template_kwargs");
    static const char *const names[] = { "thinking", "enable_thinking" };
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        if (!qsi_in_bool(&kw, names[i], &on)) continue;
        think(t, on);
        refuse_thinking(t, &kw, names[i]);
    }
}
