/* Chat templates. A template writes control tokens; a person's text is encoded with them off.
 * Source: deepseek-facts 3.2. Thread: any (immutable). */
#ifndef QSI_TOK_CHAT_H
#define QSI_TOK_CHAT_H

#include "tok/tok.h"

typedef enum qsi_role { QSI_SYSTEM, QSI_USER, QSI_ASSISTANT } qsi_role;
typedef struct qsi_turn {
    qsi_role role;
    const char *text;    /* NULL when ids are given */
    size_t n;
    const int32_t *ids;  /* an assistant turn as it was generated (without the end token) */
    size_t n_ids;
} qsi_turn;

typedef struct qsi_chat_template qsi_chat_template;
/* The template a vocabulary names (tokenizer.chat_template), else that of architecture and
 * pre-tokenizer; *guessed tells. Unknown: QS_E_UNSUPPORTED, listing the known names. */
qs_status qsi_chat_find(const qsi_chat_template **t, const qsi_vocab *v, const char *arch,
                        bool *guessed, qs_err *err) QS_MUST_CHECK;
qs_status qsi_chat_by_name(const qsi_chat_template **t, const char *name, qs_err *err)
    QS_MUST_CHECK;
const char *qsi_chat_name(const qsi_chat_template *t);
/* The Jinja text that other programs read from tokenizer.chat_template. */
const char *qsi_chat_jinja(const qsi_chat_template *t);
/* Appends the ids of a conversation. generate: ends ready for the assistant's answer. loss_mask
 * (may be NULL, len as out) receives 1 for ids of assistant answers and their end token, as training
 * wants them. from_turn: renders only turns from that index on (a continued chat). */
qs_status qsi_chat_render(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                          size_t n_turns, size_t from_turn, bool generate, qsi_ids *out,
                          qsi_ids *loss_mask, qs_err *err) QS_MUST_CHECK;
/* True when the answer's first character is a space that belongs to the template and is not shown
 * ("Assistant: answer"). */
bool qsi_chat_strip_space(const qsi_chat_template *t);

#endif
