/* Showing an answer as it comes: its text, the reasoning before it (grey, and only to people), the
 * functions it calls. Thread: main. */
#ifndef QSA_CHAT_SHOW_H
#define QSA_CHAT_SHOW_H

#include <stdbool.h>
#include <stddef.h>

#include "qiusuo/qiusuo.h"

typedef struct qsa_show {
    bool people;   /* standard output is a terminal: reasoning is shown */
    bool colours;
    int part;      /* the last one shown; -1: none of this answer */
    bool line;     /* what was shown ended with a line break */
} qsa_show;

void qsa_show_begin(qsa_show *s);
/* A qs_gen_opts.on_part; user: a qsa_show. Calls are shown by qsa_show_end. */
int qsa_show_part(void *user, qs_part part, const char *p, size_t n);
/* Ends the answer's last line; then each call of that turn as a line {"name": .., "arguments": ..}.
 * Returns how many calls there are. turn -1: there is none. */
int64_t qsa_show_end(qsa_show *s, const qs_session *session, int64_t turn);

#endif
