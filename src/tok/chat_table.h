/* The inside of the chat templates, shared by the files that find one, write a conversation and
 * write tools.
 *
 * In a frame \1 stands for BOS and \2 for the end token; markers (qsi_chat_marker_at) become their
 * tokens where the vocabulary has them, all else is text. */
#ifndef QSI_TOK_CHAT_TABLE_H
#define QSI_TOK_CHAT_TABLE_H

#include "tok/chat.h"
#include "tok/vocab.h"

#define QSI_M_USER "<｜User｜>"
#define QSI_M_ASSISTANT "<｜Assistant｜>"
#define QSI_M_THINK "<think>"
#define QSI_M_ANSWER "</think>"
#define QSI_M_DSML "｜DSML｜"
#define QSI_M_CALLS "<｜tool▁calls▁begin｜>"
#define QSI_M_CALLS_END "<｜tool▁calls▁end｜>"
#define QSI_M_CALL "<｜tool▁call▁begin｜>"
#define QSI_M_CALL_END "<｜tool▁call▁end｜>"
#define QSI_M_SEP "<｜tool▁sep｜>"
#define QSI_M_OUTPUTS "<｜tool▁outputs▁begin｜>"
#define QSI_M_OUTPUTS_END "<｜tool▁outputs▁end｜>"
#define QSI_M_OUTPUT "<｜tool▁output▁begin｜>"
#define QSI_M_OUTPUT_END "<｜tool▁output▁end｜>"

/* What a template knows of reasoning. */
typedef enum qsi_thinks {
    QSI_THINKS_NOT,
    QSI_THINKS_ITSELF,  /* the answer opens it */
    QSI_THINKS_OPENED,  /* the prompt opens it */
    QSI_THINKS_SWITCHED /* the prompt opens or closes it */
} qsi_thinks;

/* When the marker of the assistant is written. */
typedef enum qsi_opens {
    QSI_OPENS_ALWAYS,     /* with every answer, but not behind the results of tools */
    QSI_OPENS_WITH_USER,  /* at the end of a user's turn */
    QSI_OPENS_AFTER_USER  /* with an answer that follows a user's turn */
} qsi_opens;

struct qsi_chat_template {
    const char *name;
    const char *pre;          /* pre-tokenizer whose models speak it; NULL: no file is guessed */
    const char *end;          /* the token that ends an answer; NULL: EOS */
    const char *system[2];    /* around the text of a turn */
    const char *user[2];
    const char *marker;       /* of the assistant */
    const char *answer_end;
    const char *between;      /* two results of tools */
    qsi_opens opens;
    qsi_thinks thinks;
    qsi_call_form calls;
    bool gathers;             /* all system texts stand in front, with two line breaks between */
    bool space;               /* an answer starts with a space that is not shown */
    bool file_system;         /* without a system turn the file's default one is written */
    const char *jinja;
};

extern const qsi_chat_template qsi_chat_table[];
extern const size_t qsi_chat_table_n;

/* The marker at p, or NULL; *role: one of those without which a turn cannot be told from others. */
const char *qsi_chat_marker_at(const char *p, size_t n, bool *role);

/* True where the vocabulary has that marker as a token of its own. */
bool qsi_chat_has_part(const qsi_vocab *v, const char *marker);

/* A conversation being written. */
typedef struct qsi_chat_pen {
    const qsi_chat_template *t;
    const qsi_vocab *v;
    const qsi_chat_opts *o;
    bool thinking;
    const qsi_turn *turns;
    size_t n_turns;
    const qsi_turn *asked; /* the last turn that asks; NULL: none */
    qsi_ids *out, *mask;
    qsi_str text;  /* collected, not yet encoded */
    bool learn;    /* what is written now belongs to an answer */
    int last;      /* role of the turn before, but for system texts; -1: none */
    size_t n_due;  /* calls of the last answer whose results are still to come */
    size_t n_got;  /* and those that came */
    qs_err *err;
} qsi_chat_pen;

/* A string of the template: words and markers. */
qs_status qsi_chat_frame(qsi_chat_pen *r, const char *s) QS_MUST_CHECK;
/* What a person, a program or the model wrote: never a marker. */
qs_status qsi_chat_text(qsi_chat_pen *r, const char *p, size_t n) QS_MUST_CHECK;

/* chat_tools.c: the list of functions as the template (or, where it knows none, this program)
 * declares them; the calls of an answer; the result of one call. */
qs_status qsi_chat_put_tools(qsi_chat_pen *r) QS_MUST_CHECK;
qs_status qsi_chat_put_calls(qsi_chat_pen *r, const qsi_turn *turn) QS_MUST_CHECK;
qs_status qsi_chat_put_result(qsi_chat_pen *r, const qsi_turn *turn) QS_MUST_CHECK;

#endif
