/* Chat templates. A template writes control tokens; a person's text is encoded with them off.
 * Source: deepseek-facts 3.2. Thread: any (immutable). */
#ifndef QSI_TOK_CHAT_H
#define QSI_TOK_CHAT_H

#include "fmt/json.h"
#include "tok/tok.h"

/* A developer's turn is a system text, but for deepseek-v3.2, which has a form of its own for it. A
 * tool's turn is the result of one call, in the order of the calls. */
typedef enum qsi_role { QSI_SYSTEM, QSI_USER, QSI_ASSISTANT, QSI_DEVELOPER, QSI_TOOL } qsi_role;

/* A function the assistant calls; args: a JSON object as text. */
typedef struct qsi_call {
    const char *name, *args;
    size_t n_name, n_args;
} qsi_call;

typedef struct qsi_turn {
    qsi_role role;
    const char *text;    /* NULL when ids are given */
    size_t n;
    const int32_t *ids;  /* an assistant turn as it was generated (without the end token) */
    size_t n_ids;
    const char *reasoning; /* of an assistant turn; most templates leave it out of the history */
    size_t n_reasoning;
    const qsi_call *calls; /* of an assistant turn */
    size_t n_calls;
} qsi_turn;

/* A function that may be called: its JSON object {"name", "description", "parameters"} as text. */
typedef struct qsi_tool {
    const char *json;
    size_t n;
} qsi_tool;

typedef struct qsi_chat_template qsi_chat_template;
/* The template a vocabulary names (tokenizer.chat_template): a known text by its hash, another by
 * what it writes around a user's and an assistant's turn; its words are read, never executed.
 * Without one that of architecture and pre-tokenizer; *guessed tells. Unknown: QS_E_UNSUPPORTED,
 * listing the known names. */
qs_status qsi_chat_find(const qsi_chat_template **t, const qsi_vocab *v, const char *arch,
                        bool *guessed, qs_err *err) QS_MUST_CHECK;
/* Longer texts are not read; the published ones have a few thousand bytes. */
#define QSI_JINJA_MAX ((size_t)1 << 20)
/* The template that a Jinja text is, or NULL. */
const qsi_chat_template *qsi_chat_of_jinja(qsi_slice jinja);
qs_status qsi_chat_by_name(const qsi_chat_template **t, const char *name, qs_err *err)
    QS_MUST_CHECK;
const char *qsi_chat_name(const qsi_chat_template *t);
/* The i-th template, NULL after the last. */
const qsi_chat_template *qsi_chat_at(size_t i);
/* The Jinja text that other programs read from tokenizer.chat_template. */
const char *qsi_chat_jinja(const qsi_chat_template *t);

typedef enum qsi_think { QSI_THINK_AUTO, QSI_THINK_ON, QSI_THINK_OFF } qsi_think;
typedef struct qsi_chat_opts {
    qsi_think think;     /* auto: as the template does */
    bool generate;       /* ends ready for the assistant's answer */
    size_t from_turn;    /* renders only turns from that index on (a continued chat) */
    const qsi_tool *tools;
    size_t n_tools;
} qsi_chat_opts;

/* Appends the ids of a conversation. loss_mask (may be NULL, len as out) receives 1 for ids of
 * assistant answers and their end token, as training wants them. QS_E_UNSUPPORTED: a role's token
 * that the vocabulary lacks, or thinking that the template cannot turn on or off. QS_E_FORMAT: text
 * that is not UTF-8, arguments or tools that are not JSON. */
qs_status qsi_chat_write(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                         size_t n_turns, const qsi_chat_opts *o, qsi_ids *out, qsi_ids *loss_mask,
                         qs_err *err) QS_MUST_CHECK;
/* The same without tools, thinking as the template does. */
qs_status qsi_chat_render(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                          size_t n_turns, size_t from_turn, bool generate, qsi_ids *out,
                          qsi_ids *loss_mask, qs_err *err) QS_MUST_CHECK;
/* True when the answer's first character is a space that belongs to the template and is not shown
 * ("Assistant: answer"). */
bool qsi_chat_strip_space(const qsi_chat_template *t);
/* True for a token that the template's answers are made of (thinking, tool calls), to be seen by
 * those who take an answer apart though it may be a control token. */
bool qsi_chat_is_part(const qsi_vocab *v, int32_t id);

/* How an answer of the template begins: with its text, within the reasoning (the prompt has opened
 * it), or with either (a <think> of its own). QS_E_UNSUPPORTED as for qsi_chat_write. */
typedef enum qsi_begin { QSI_BEGIN_ANSWER, QSI_BEGIN_REASONING, QSI_BEGIN_EITHER } qsi_begin;
qs_status qsi_chat_begin(const qsi_chat_template *t, qsi_think think, qsi_begin *b, qs_err *err)
    QS_MUST_CHECK;

/* The written form of tool calls. */
typedef enum qsi_call_form {
    QSI_CALLS_JSON,     /* {"name": .., "arguments": ..}: a template that knows no tools */
    QSI_CALLS_FENCED,   /* DeepSeek-V2.5 to R1-0528: function, separator, name, fenced JSON */
    QSI_CALLS_PLAIN,    /* DeepSeek-V3.1: name, separator, JSON */
    QSI_CALLS_DSML      /* DeepSeek-V3.2 */
} qsi_call_form;
qsi_call_form qsi_chat_calls(const qsi_chat_template *t);

/* JSON as Python's json.dumps writes it without escaping what is not ASCII; the inside of a string. */
qs_status qsi_chat_dump(qsi_str *out, const qsi_json *j) QS_MUST_CHECK;
qs_status qsi_chat_dump_chars(qsi_str *out, const char *s, size_t n) QS_MUST_CHECK;

#endif
