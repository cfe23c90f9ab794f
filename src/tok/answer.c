/* Answers taken apart: see answer.h.
 *
 * `in` holds what is not yet understood. A marker that came as a token stands in it behind a byte that
 * no text has (0xff), so that one search by bytes tells it from the same letters in a text. What a
 * state looks for are needles; bytes that may begin one wait for the rest of it. */
#include "tok/answer.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tok/chat_table.h"

#define TOKEN '\xff'
#define MAX_NAME 256   /* bytes; where a bound ends a wait, what came in one piece must end there too */
#define MAX_FENCE 16   /* of the line that opens a code block */
#define MAX_OBJECT ((size_t)1 << 20)
#define LIMITS ((qsi_json_limits){MAX_OBJECT, 1u << 16})

enum { M_THINK, M_ANSWER, M_CALLS, M_CALLS_END, M_CALL, M_CALL_END, M_SEP };
static const char *const markers[QSI_ANSWER_MARKERS] = {
    QSI_M_THINK, QSI_M_ANSWER, QSI_M_CALLS, QSI_M_CALLS_END, QSI_M_CALL, QSI_M_CALL_END, QSI_M_SEP};

enum { D_OPEN, D_CLOSE, D_INVOKE, D_INVOKE_END, D_PARAMETER, D_PARAMETER_END };
static const char *const tags[6][2] = {
    {"<", "function_calls>"}, {"</", "function_calls>"}, {"<", "invoke name=\""},
    {"</", "invoke>"}, {"<", "parameter name=\""}, {"</", "parameter>"}};

enum {
    S_EITHER,     /* a marker opens the reasoning, or the text begins */
    S_REASONING,
    S_BEGIN,      /* of the text: perhaps a bare JSON object */
    S_TEXT,
    S_OBJECT,     /* a JSON object that may be a call */
    S_NEXT,       /* behind such a call */
    S_CALLS,      /* between two calls */
    S_KIND,       /* the word in front of the name's separator */
    S_NAME,
    S_FENCE,      /* the line that opens a code block */
    S_ARGS,
    S_TAIL,       /* to the call's end marker */
    S_INVOKE,     /* V3.2: between two calls */
    S_INVOKED,    /* its name */
    S_PARAMETER,  /* between two parameters */
    S_KEY,
    S_VALUE_KIND,
    S_VALUE
};

/* ---- input ---- */

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void drop(qsi_answer *a, size_t n) {
    memmove(a->in.data, a->in.data + n, a->in.len - n + 1);
    a->in.len -= n;
}

static void drop_space(qsi_answer *a) {
    size_t n = 0;
    while (n < a->in.len && is_space(a->in.data[n])) n++;
    if (n > 0) drop(a, n);
}

/* How many bytes of needle stand at p: all of them, fewer when the input ends within (*open), or 0. */
static size_t match(const char *p, size_t n, const char *needle, bool *open) {
    size_t want = strlen(needle), have = want < n ? want : n;
    if (memcmp(p, needle, have) != 0) return 0;
    *open = have < want;
    return have;
}

/* The first needle in the input: *which and its offset. Without one, *which is -1 and the offset that
 * of the first byte that may begin one (the end when nothing more comes). */
static size_t search(const qsi_answer *a, const char *const *needles, size_t n_needles, bool last,
                     int *which) {
    size_t held = a->in.len;
    *which = -1;
    for (size_t at = 0; at < a->in.len; at++)
        for (size_t i = 0; i < n_needles; i++) {
            bool open = false;
            if (match(a->in.data + at, a->in.len - at, needles[i], &open) == 0) continue;
            if (!open) {
                *which = (int)i;
                return at;
            }
            if (!last && held == a->in.len) held = at;
        }
    return held;
}

/* Which needle the input begins with; -1 none, -2 not known yet. */
static int begins(const qsi_answer *a, const char *const *needles, size_t n_needles, bool last) {
    int maybe = a->in.len == 0 && !last ? -2 : -1;
    for (size_t i = 0; i < n_needles && a->in.len > 0; i++) {
        bool open = false;
        if (match(a->in.data, a->in.len, needles[i], &open) == 0) continue;
        if (!open) return (int)i;
        if (!last) maybe = -2;
    }
    return maybe;
}

/* ---- output ---- */

static qs_status give(qsi_answer *a, qsi_part part, const char *p, size_t n) {
    qs_status st = QS_OK;
    qsi_str *to = part == QSI_PART_REASONING ? &a->reasoning : part == QSI_PART_TEXT ? &a->text
                  : part == QSI_PART_CALL ? &a->calls[a->n_calls - 1].name
                                          : &a->calls[a->n_calls - 1].args;
    if (n == 0 && part != QSI_PART_CALL) goto done;
    QS_TRY(qsi_str_append(to, p, n));
    if (a->o.on_part != NULL && a->o.on_part(a->o.user, part, p, n) != 0) a->stopped = true;
done:
    return st;
}

/* Bytes of a marker's token that stands where it means nothing. */
static size_t stray(const char *p, size_t n) {
    bool role;
    const char *m = *p == TOKEN ? qsi_chat_marker_at(p + 1, n - 1, &role) : NULL;
    return m != NULL ? 1 + strlen(m) : *p == TOKEN ? 1 : 0;
}

/* The first n bytes of the input become prose; white space at its end waits, at its beginning it goes
 * where the frame ends with it. */
static qs_status prose(qsi_answer *a, qsi_part part, size_t n) {
    qs_status st = QS_OK;
    const char *p = a->in.data;
    size_t i = 0;
    while (i < n) {
        size_t skip = stray(p + i, n - i), from = i;
        if (skip > 0) {
            i += skip;
            continue;
        }
        bool space = is_space(p[i]);
        while (i < n && p[i] != TOKEN && is_space(p[i]) == space) i++;
        if (space) {
            if (a->any || !a->trim) QS_TRY(qsi_str_append(&a->space, p + from, i - from));
            continue;
        }
        if (a->space.len > 0) QS_TRY(give(a, part, a->space.data, a->space.len));
        qsi_str_clear(&a->space);
        a->any = true;
        QS_TRY(give(a, part, p + from, i - from));
    }
    drop(a, n);
done:
    return st;
}

/* The prose so far ends; its last white space is the frame's. What follows is of another kind. */
static void turn_to(qsi_answer *a, int state, bool trim) {
    qsi_str_clear(&a->space);
    a->state = state;
    a->trim = trim;
    a->any = false;
}

static qs_status begin_call(qsi_answer *a, const char *name, size_t n) {
    qs_status st = QS_OK;
    while (n > 0 && is_space(*name)) name++, n--;
    while (n > 0 && is_space(name[n - 1])) n--;
    QS_TRY(qsi_grow((void **)&a->calls, &a->cap_calls, a->n_calls + 1, sizeof *a->calls));
    a->calls[a->n_calls++] = (qsi_answer_call){.whole = false};
    QS_TRY(give(a, QSI_PART_CALL, name, n));
done:
    return st;
}

static void end_call(qsi_answer *a) {
    qsi_answer_call *c = &a->calls[a->n_calls - 1];
    qsi_json *j = NULL;
    qs_status st = qsi_json_parse(&j, c->args.data ? c->args.data : "", c->args.len, LIMITS, NULL);
    c->whole = st == QS_OK && qsi_json_kind_of(j) == QSI_JSON_OBJECT && c->name.len > 0;
    qsi_json_free(&j);
}

/* ---- prose ---- */

static qs_status step_either(qsi_answer *a, bool last, bool *more) {
    size_t n = 0;
    while (n < a->in.len && is_space(a->in.data[n])) n++;
    bool open = false;
    size_t have = match(a->in.data + n, a->in.len - n, a->marker[M_THINK], &open);
    if (!last && (n == a->in.len || (have > 0 && open))) {
        *more = false;
    } else if (have > 0 && !open) {
        drop(a, n + have);
        turn_to(a, S_REASONING, true);
    } else {
        turn_to(a, S_BEGIN, false);
    }
    return QS_OK;
}

static qs_status step_reasoning(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    const char *const needles[] = {a->marker[M_ANSWER]};
    int which;
    size_t at = search(a, needles, 1, last, &which);
    QS_TRY(prose(a, QSI_PART_REASONING, at));
    *more = which == 0;
    if (which == 0) {
        drop(a, strlen(needles[0]));
        turn_to(a, S_BEGIN, true);
    }
done:
    return st;
}

static qs_status step_begin(qsi_answer *a, bool last, bool *more) {
    size_t n = 0;
    if (qsi_chat_calls(a->o.chat) != QSI_CALLS_JSON || a->o.n_tools == 0) {
        a->state = S_TEXT;
        return QS_OK;
    }
    while (n < a->in.len && is_space(a->in.data[n])) n++;
    const char *p = a->in.data + n;
    size_t left = a->in.len - n, line = 0;
    if (left > 0 && *p == '`') {
        while (line < left && p[line] != '\n') line++;
        a->fence = line < left && line >= 3 && line <= MAX_FENCE && memcmp(p, "```", 3) == 0;
        if (line == left && line <= MAX_FENCE && !last) left = 0; /* the line may still become a fence */
    }
    if (left == 0 && !last) {
        *more = false;
    } else if (a->fence || (left > 0 && *p == '{')) {
        a->state = S_OBJECT;
        a->at = n + (a->fence ? line + 1 : 0);
        a->depth = 0;
        a->quoted = a->escaped = false;
    } else {
        a->state = S_TEXT;
    }
    return QS_OK;
}

static qs_status step_text(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    qsi_call_form form = qsi_chat_calls(a->o.chat);
    const char *const tokens[] = {a->marker[M_CALLS], a->marker[M_CALL]};
    const char *const dsml[] = {a->dsml[D_OPEN]};
    bool d = form == QSI_CALLS_DSML;
    int which;
    size_t at = search(a, d ? dsml : tokens, form == QSI_CALLS_JSON ? 0 : d ? 1 : 2, last, &which);
    QS_TRY(prose(a, QSI_PART_TEXT, at));
    *more = which >= 0;
    if (which < 0) goto done;
    if (d || which == 0) drop(a, strlen(d ? dsml[0] : tokens[0]));
    turn_to(a, d ? S_INVOKE : S_CALLS, true);
done:
    return st;
}

/* ---- a bare JSON object ---- */

/* Moves a->at behind the object that begins there; false when it is not complete. */
static bool object_end(qsi_answer *a) {
    for (; a->at < a->in.len; a->at++) {
        char c = a->in.data[a->at];
        if (a->escaped) a->escaped = false;
        else if (a->quoted && c == '\\') a->escaped = true;
        else if (c == '"') a->quoted = !a->quoted;
        else if (a->quoted) continue;
        else if (c == '{') a->depth++;
        else if (c == '}' && a->depth > 0 && --a->depth == 0) {
            a->at++;
            return true;
        } else if (a->depth == 0 && !is_space(c)) {
            return true; /* no object: whoever parses it will say so */
        }
    }
    return false;
}

static bool is_tool(const qsi_answer *a, const char *name) {
    for (size_t i = 0; i < a->o.n_tools; i++) {
        qsi_json *j = NULL;
        if (qsi_json_parse(&j, a->o.tools[i].json, a->o.tools[i].n, LIMITS, NULL) != QS_OK) continue;
        const char *s = qsi_json_as_str(qsi_json_get(j, "name"));
        bool same = s != NULL && strcmp(s, name) == 0;
        qsi_json_free(&j);
        if (same) return true;
    }
    return false;
}

/* Gives out the call that the first a->at bytes of the input are, if they are one. */
static qs_status object_call(qsi_answer *a, bool *is_call) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    qsi_str args = {0};
    const char *p = memchr(a->in.data, '{', a->at);
    size_t n = p != NULL ? a->at - (size_t)(p - a->in.data) : 0;
    *is_call = false;
    if (p == NULL || qsi_json_parse(&j, p, n, LIMITS, NULL) != QS_OK) goto done;
    const char *name = qsi_json_as_str(qsi_json_get(j, "name"));
    const qsi_json *value = qsi_json_get(j, "arguments");
    if (name == NULL || qsi_json_kind_of(value) != QSI_JSON_OBJECT || !is_tool(a, name)) goto done;
    QS_TRY(qsi_chat_dump(&args, value));
    QS_TRY(begin_call(a, name, strlen(name)));
    QS_TRY(give(a, QSI_PART_ARGS, args.data, args.len));
    end_call(a);
    *is_call = true;
done:
    qsi_json_free(&j);
    qsi_str_release(&args);
    return st;
}

static qs_status step_object(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    bool whole = object_end(a), call = false;
    if (!whole && !last && a->in.len < MAX_OBJECT) {
        *more = false;
        goto done;
    }
    if (whole && a->at <= MAX_OBJECT) QS_TRY(object_call(a, &call));
    if (call) {
        drop(a, a->at);
        turn_to(a, S_NEXT, true);
    } else {
        a->state = S_TEXT;
    }
done:
    return st;
}

static qs_status step_next(qsi_answer *a, bool last, bool *more) {
    static const char *const fence[] = {"```"};
    drop_space(a);
    int which = a->fence ? begins(a, fence, 1, last) : a->in.len == 0 && !last ? -2 : -1;
    if (which == -2) {
        *more = false;
        return QS_OK;
    }
    if (which == 0) drop(a, 3);
    a->fence = false;
    /* one more object, or text */
    if (which != 0) a->state = S_BEGIN;
    return QS_OK;
}

/* ---- calls between tokens ---- */

static qs_status step_calls(qsi_answer *a, bool last, bool *more) {
    const char *const needles[] = {a->marker[M_CALL], a->marker[M_CALLS_END]};
    drop_space(a);
    int which = begins(a, needles, 2, last);
    *more = which != -2;
    if (which >= 0) drop(a, strlen(needles[which]));
    if (which == 0)
        a->state = qsi_chat_calls(a->o.chat) == QSI_CALLS_FENCED ? S_KIND : S_NAME;
    else if (which != -2) turn_to(a, S_TEXT, true);
    return QS_OK;
}

/* What stands in front of a needle: *n bytes, or the state waits. A name never grows beyond a bound:
 * then, or when the end of the call comes first, there is none. */
static int word(qsi_answer *a, const char *needle, bool last, size_t *n, bool *more) {
    const char *const needles[] = {needle, a->marker[M_CALL_END], a->marker[M_CALLS_END]};
    int which;
    *n = search(a, needles, 3, last, &which);
    if (*n > MAX_NAME) which = 1;
    *more = which >= 0;
    return which;
}

static qs_status step_kind(qsi_answer *a, bool last, bool *more) {
    size_t n;
    int which = word(a, a->marker[M_SEP], last, &n, more);
    if (which == 0) {
        drop(a, n + strlen(a->marker[M_SEP]));
        a->state = S_NAME;
    } else if (which > 0) {
        a->state = S_TAIL;
    }
    return QS_OK;
}

static qs_status step_name(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    bool fenced = qsi_chat_calls(a->o.chat) == QSI_CALLS_FENCED;
    const char *needle = fenced ? "\n" : a->marker[M_SEP];
    size_t n;
    int which = word(a, needle, last, &n, more);
    if (which < 0) goto done;
    QS_TRY(begin_call(a, a->in.data, n < MAX_NAME ? n : 0));
    drop(a, n + (which == 0 ? strlen(needle) : 0));
    a->state = which > 0 ? S_TAIL : fenced ? S_FENCE : S_ARGS;
done:
    return st;
}

static qs_status step_fence(qsi_answer *a, bool last, bool *more) {
    static const char *const fence[] = {"```"};
    drop_space(a);
    int which = begins(a, fence, 1, last);
    size_t most = a->in.len < MAX_NAME ? a->in.len : MAX_NAME;
    const char *end = which == 0 ? memchr(a->in.data, '\n', most) : NULL;
    if (which == -2 || (which == 0 && end == NULL && !last && a->in.len < MAX_NAME)) {
        *more = false;
        return QS_OK;
    }
    if (end != NULL) drop(a, (size_t)(end - a->in.data) + 1);
    a->state = S_ARGS;
    return QS_OK;
}

/* Arguments as they come, but for stray markers. */
static qs_status give_args(qsi_answer *a, size_t n) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n;) {
        size_t skip = stray(a->in.data + i, n - i), from = i;
        i += skip;
        if (skip > 0) continue;
        while (i < n && a->in.data[i] != TOKEN) i++;
        QS_TRY(give(a, QSI_PART_ARGS, a->in.data + from, i - from));
    }
    drop(a, n);
done:
    return st;
}

static qs_status step_args(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    bool fenced = qsi_chat_calls(a->o.chat) == QSI_CALLS_FENCED;
    const char *const needles[] = {a->marker[M_CALL_END], a->marker[M_CALLS_END], "\n```"};
    int which;
    size_t at = search(a, needles, fenced ? 3 : 2, last, &which);
    QS_TRY(give_args(a, at));
    *more = which >= 0;
    if (which < 0) goto done;
    end_call(a);
    a->state = S_TAIL;
done:
    return st;
}

static qs_status step_tail(qsi_answer *a, bool last, bool *more) {
    const char *const needles[] = {a->marker[M_CALL_END], a->marker[M_CALLS_END]};
    int which;
    drop(a, search(a, needles, 2, last, &which));
    *more = which >= 0;
    if (which == 0) drop(a, strlen(needles[0]));
    if (which >= 0) a->state = S_CALLS;
    return QS_OK;
}

/* ---- calls of V3.2 ---- */

static qs_status step_invoke(qsi_answer *a, bool last, bool *more) {
    const char *const needles[] = {a->dsml[D_INVOKE], a->dsml[D_CLOSE]};
    drop_space(a);
    int which = begins(a, needles, 2, last);
    *more = which != -2;
    if (which >= 0) drop(a, strlen(needles[which]));
    if (which == 0) a->state = S_INVOKED;
    else if (which != -2) turn_to(a, S_TEXT, true);
    return QS_OK;
}

static qs_status step_invoked(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    const char *const needles[] = {"\">", a->dsml[D_INVOKE_END]};
    int which;
    size_t n = search(a, needles, 2, last, &which);
    bool none = n > MAX_NAME;
    *more = which >= 0 || none;
    if (!*more) goto done;
    QS_TRY(begin_call(a, a->in.data, which == 0 && n < MAX_NAME ? n : 0));
    if (!none) drop(a, n + (which == 0 ? 2 : 0)); /* else it becomes text */
    a->first = true;
    a->state = S_PARAMETER;
done:
    return st;
}

static qs_status step_parameter(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    const char *const needles[] = {a->dsml[D_PARAMETER], a->dsml[D_INVOKE_END]};
    drop_space(a);
    int which = begins(a, needles, 2, last);
    *more = which != -2;
    if (which == -2) goto done;
    if (which >= 0) drop(a, strlen(needles[which]));
    if (which == 0) {
        a->state = S_KEY;
        goto done;
    }
    if (which == 1) {
        QS_TRY(give(a, QSI_PART_ARGS, a->first ? "{}" : "}", a->first ? 2 : 1));
        end_call(a);
    }
    a->state = S_INVOKE; /* or something else stands there: it becomes text */
done:
    return st;
}

static qs_status step_key(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    qsi_str key = {0};
    const char *const needles[] = {"\" string=\"", a->dsml[D_INVOKE_END]};
    int which;
    size_t n = search(a, needles, 2, last, &which);
    *more = which >= 0 || n > MAX_NAME;
    if (!*more) goto done;
    if (which != 0 || n > MAX_NAME) {
        a->state = S_INVOKE;
        goto done;
    }
    QS_TRY(qsi_str_puts(&key, a->first ? "{\"" : ", \""));
    QS_TRY(qsi_chat_dump_chars(&key, a->in.data, n));
    QS_TRY(qsi_str_puts(&key, "\": "));
    QS_TRY(give(a, QSI_PART_ARGS, key.data, key.len));
    drop(a, n + strlen(needles[0]));
    a->first = false;
    a->state = S_VALUE_KIND;
done:
    qsi_str_release(&key);
    return st;
}

static qs_status step_value_kind(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    static const char *const needles[] = {"true\">", "false\">"};
    int which = begins(a, needles, 2, last);
    *more = which != -2;
    if (which == -2) goto done;
    if (which < 0) {
        a->state = S_INVOKE;
        goto done;
    }
    drop(a, strlen(needles[which]));
    a->string = which == 0;
    a->state = S_VALUE;
    if (a->string) QS_TRY(give(a, QSI_PART_ARGS, "\"", 1));
done:
    return st;
}

static qs_status step_value(qsi_answer *a, bool last, bool *more) {
    qs_status st = QS_OK;
    const char *const needles[] = {a->dsml[D_PARAMETER_END]};
    qsi_str text = {0};
    int which;
    size_t n = search(a, needles, 1, last, &which);
    if (a->string) {
        QS_TRY(qsi_chat_dump_chars(&text, a->in.data, n));
        QS_TRY(give(a, QSI_PART_ARGS, text.data, text.len));
        drop(a, n);
    } else {
        QS_TRY(give_args(a, n));
    }
    *more = which == 0;
    if (which < 0) goto done;
    drop(a, strlen(needles[0]));
    if (a->string) QS_TRY(give(a, QSI_PART_ARGS, "\"", 1));
    a->state = S_PARAMETER;
done:
    qsi_str_release(&text);
    return st;
}

/* ---- the whole ---- */

static qs_status run(qsi_answer *a, bool last) {
    static qs_status (*const steps[])(qsi_answer *a, bool last, bool *more) = {
        [S_EITHER] = step_either, [S_REASONING] = step_reasoning, [S_BEGIN] = step_begin,
        [S_TEXT] = step_text, [S_OBJECT] = step_object, [S_NEXT] = step_next,
        [S_CALLS] = step_calls, [S_KIND] = step_kind, [S_NAME] = step_name,
        [S_FENCE] = step_fence, [S_ARGS] = step_args, [S_TAIL] = step_tail,
        [S_INVOKE] = step_invoke, [S_INVOKED] = step_invoked, [S_PARAMETER] = step_parameter,
        [S_KEY] = step_key, [S_VALUE_KIND] = step_value_kind, [S_VALUE] = step_value};
    qs_status st = QS_OK;
    /* every state either uses input up or leads to one that does */
    for (bool more = true; more && a->in.len > 0;) QS_TRY(steps[a->state](a, last, &more));
done:
    return st;
}

qs_status qsi_answer_init(qsi_answer *a, const qsi_answer_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_begin begin;
    *a = (qsi_answer){.o = *o};
    QS_TRY(qsi_chat_begin(o->chat, o->think, &begin, err));
    a->state = begin == QSI_BEGIN_ANSWER ? S_BEGIN
               : begin == QSI_BEGIN_EITHER ? S_EITHER : S_REASONING;
    a->trim = begin == QSI_BEGIN_REASONING;
    for (size_t i = 0; i < QSI_COUNT(markers); i++) {
        bool token = qsi_chat_has_part(o->vocab, markers[i]);
        snprintf(a->marker[i], sizeof a->marker[i], "%s%s", token ? "\xff" : "", markers[i]);
    }
    bool token = qsi_chat_has_part(o->vocab, QSI_M_DSML);
    for (size_t i = 0; i < QSI_COUNT(tags); i++)
        snprintf(a->dsml[i], sizeof a->dsml[i], "%s%s" QSI_M_DSML "%s", tags[i][0],
                 token ? "\xff" : "", tags[i][1]);
done:
    return st;
}

void qsi_answer_release(qsi_answer *a) {
    for (size_t i = 0; i < a->n_calls; i++) {
        qsi_str_release(&a->calls[i].name);
        qsi_str_release(&a->calls[i].args);
    }
    qsi_free(a->calls);
    qsi_str_release(&a->in);
    qsi_str_release(&a->space);
    qsi_str_release(&a->reasoning);
    qsi_str_release(&a->text);
    *a = (qsi_answer){.state = S_TEXT};
}

bool qsi_answer_reasons(const qsi_answer *a, bool *maybe) {
    if (maybe) *maybe = a->state == S_EITHER;
    return a->state == S_REASONING;
}

bool qsi_answer_takes(const qsi_answer *a, int32_t id) {
    const qsi_vocab *v = a->o.vocab;
    if (!qsi_chat_is_part(v, id)) return false;
    qsi_slice s = v->text[id];
    bool think = s.n >= 7 && memcmp(s.p + s.n - 6, "think>", 6) == 0;
    bool dsml = s.n == strlen(QSI_M_DSML) && memcmp(s.p, QSI_M_DSML, s.n) == 0;
    qsi_call_form form = qsi_chat_calls(a->o.chat);
    if (think) return a->o.chat->thinks != QSI_THINKS_NOT;
    return dsml ? form == QSI_CALLS_DSML : form == QSI_CALLS_FENCED || form == QSI_CALLS_PLAIN;
}

qs_status qsi_answer_text(qsi_answer *a, const char *p, size_t n) {
    qs_status st = QS_OK;
    while (n > 0) { /* the byte that marks tokens is in no UTF-8 */
        const char *bad = memchr(p, TOKEN, n);
        size_t k = bad != NULL ? (size_t)(bad - p) : n;
        QS_TRY(qsi_str_append(&a->in, p, k));
        p += k + (bad != NULL);
        n -= k + (bad != NULL);
    }
    QS_TRY(run(a, false));
done:
    return st;
}

qs_status qsi_answer_marker(qsi_answer *a, const char *p, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_append(&a->in, "\xff", 1));
    QS_TRY(qsi_str_append(&a->in, p, n));
    QS_TRY(run(a, false));
done:
    return st;
}

qs_status qsi_answer_finish(qsi_answer *a) {
    qs_status st = QS_OK;
    QS_TRY(run(a, true));
    if (a->state == S_ARGS) end_call(a);
    if (a->space.len > 0 && (a->state == S_TEXT || a->state == S_REASONING))
        QS_TRY(give(a, a->state == S_TEXT ? QSI_PART_TEXT : QSI_PART_REASONING, a->space.data,
                    a->space.len));
    qsi_str_clear(&a->space);
done:
    return st;
}
