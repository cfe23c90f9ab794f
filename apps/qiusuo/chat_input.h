/* Lines from a person at a terminal: editing and history by libedit where it is there, plain lines
 * where not. Several lines make one input: after a line that ends with a backslash, between triple
 * quotes, or pasted together at a terminal that brackets a paste. Thread: main. */
#ifndef QSA_CHAT_INPUT_H
#define QSA_CHAT_INPUT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct qsa_input qsa_input;

typedef enum qsa_input_kind {
    QSA_INPUT_TEXT,
    QSA_INPUT_END,       /* Ctrl-D, end of input */
    QSA_INPUT_BREAK,     /* Ctrl-C: what was typed is dropped */
    QSA_INPUT_FAILED     /* out of memory */
} qsa_input_kind;

/* history: the file to load and to keep (NULL: none). NULL when out of memory. */
qsa_input *qsa_input_open(const char *history);
/* Stores the history. Accepts NULL. */
void qsa_input_close(qsa_input *in);
/* The next input; *text (n bytes, NUL behind) is owned by in, valid until the next call. */
qsa_input_kind qsa_input_next(qsa_input *in, const char **text, size_t *n);

/* What one more line means for the input collected so far; the pure part, for tests. state: 0 at the
 * start, 1 after a backslash, 2 inside triple quotes. Appends to buf (cap bytes, *n used) what the
 * line contributes; returns the new state, or -1 when buf is too small. 0: the input is complete. */
int qsa_input_join(int state, const char *line, size_t n_line, char *buf, size_t cap, size_t *n);

#endif
