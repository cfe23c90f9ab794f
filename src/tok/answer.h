/* An answer taken apart while it comes: the reasoning, the text, calls of functions.
 *
 * Markers count as such only when they come as their own tokens, where the vocabulary has them: a
 * model that quotes one in its text spells it with other tokens. A vocabulary without them is read by
 * the letters. White space that belongs to the template's frame (around the reasoning, in front of
 * calls) is left out; all else arrives byte for byte. Source: deepseek-facts 3.2. Thread: owner. */
#ifndef QSI_TOK_ANSWER_H
#define QSI_TOK_ANSWER_H

#include "tok/chat.h"

typedef enum qsi_part {
    QSI_PART_REASONING, /* a piece of it */
    QSI_PART_TEXT,      /* a piece of it */
    QSI_PART_CALL,      /* a call begins: the function's name, whole */
    QSI_PART_ARGS       /* a piece of the JSON text of that call's arguments */
} qsi_part;
/* A return other than 0 sets `stopped`. */
typedef int qsi_part_fn(void *user, qsi_part part, const char *p, size_t n);

typedef struct qsi_answer_call {
    qsi_str name, args;
    bool whole; /* args are one JSON object, and there is a name */
} qsi_answer_call;

typedef struct qsi_answer_opts {
    const qsi_chat_template *chat; /* borrowed, as all pointers here */
    const qsi_vocab *vocab;
    qsi_think think;
    const qsi_tool *tools; /* a template that knows no calls is read for them only with tools */
    size_t n_tools;
    qsi_part_fn *on_part;  /* may be NULL */
    void *user;
} qsi_answer_opts;

#define QSI_ANSWER_MARKERS 7

typedef struct qsi_answer {
    qsi_answer_opts o;
    int state;
    char marker[QSI_ANSWER_MARKERS][40]; /* as it stands in `in` */
    char dsml[6][64];                    /* the same for the tags of V3.2 */
    qsi_str in;        /* not yet understood */
    qsi_str space;     /* white space that may belong to the frame */
    bool trim;         /* white space at the beginning of the text belongs to it */
    bool any;          /* a part of the current kind was given out */
    bool string;       /* the parameter being read is a string */
    bool first;        /* no parameter of the call was written yet */
    bool fence;        /* the JSON object stands in a code block */
    size_t at, depth;  /* in a JSON object: how far it was looked at */
    bool quoted, escaped;
    qsi_str reasoning, text;
    qsi_answer_call *calls;
    size_t n_calls, cap_calls;
    bool stopped;      /* on_part asked for the end */
} qsi_answer;

/* QS_E_UNSUPPORTED as qsi_chat_write for `think`. */
qs_status qsi_answer_init(qsi_answer *a, const qsi_answer_opts *o, qs_err *err) QS_MUST_CHECK;
/* Copes with a zeroed struct. */
void qsi_answer_release(qsi_answer *a);
/* True for a token that is a marker of the answer's template: it goes to qsi_answer_marker. */
bool qsi_answer_takes(const qsi_answer *a, int32_t id);
/* Reasoning may be going on, so that rules for the answer's text do not hold yet; *maybe (may be NULL):
 * nothing has come, and it may begin with either. */
bool qsi_answer_reasons(const qsi_answer *a, bool *maybe);
/* Text in whole characters; a marker's token by its text. QS_E_NOMEM is their only error. */
qs_status qsi_answer_text(qsi_answer *a, const char *p, size_t n) QS_MUST_CHECK;
qs_status qsi_answer_marker(qsi_answer *a, const char *p, size_t n) QS_MUST_CHECK;
/* Nothing more comes: what was held back is given out. */
qs_status qsi_answer_finish(qsi_answer *a) QS_MUST_CHECK;

#endif
