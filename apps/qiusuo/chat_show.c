/* Showing an answer as it comes; see chat_show.h. */
#include "chat_show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void qsa_show_begin(qsa_show *s) {
    const char *term = getenv("TERM");
    s->people = isatty(STDOUT_FILENO);
    s->colours = s->people && getenv("NO_COLOR") == NULL && term != NULL && strcmp(term, "dumb") != 0;
    s->part = -1;
    s->line = true;
}

/* From the reasoning to another part: an empty line between. */
static void leave_reasoning(qsa_show *s) {
    if (s->part != QS_PART_REASONING) return;
    if (s->colours) fputs("\033[0m", stdout);
    fputs("\n\n", stdout);
    s->line = true;
}

int qsa_show_part(void *user, qs_part part, const char *p, size_t n) {
    qsa_show *s = user;
    if (part == QS_PART_CALL || part == QS_PART_ARGUMENTS) return 0;
    if (part == QS_PART_REASONING && !s->people) return 0;
    if (part == QS_PART_TEXT) leave_reasoning(s);
    if (part == QS_PART_REASONING && s->part != QS_PART_REASONING && s->colours)
        fputs("\033[2m", stdout);
    s->part = part;
    fwrite(p, 1, n, stdout);
    s->line = p[n - 1] == '\n';
    fflush(stdout);
    return ferror(stdout);
}

/* A string of JSON. */
static void put_string(const char *p, size_t n) {
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20) printf("\\u%04x", c);
        else putchar(c);
    }
    putchar('"');
}

int64_t qsa_show_end(qsa_show *s, const qs_session *session, int64_t turn) {
    int64_t n = turn >= 0 ? qs_chat_turn(session, turn).n_calls : 0;
    bool reasoned = s->part == QS_PART_REASONING;
    if (reasoned && s->colours) fputs("\033[0m", stdout);
    if (!s->line || (s->part < 0 && n == 0)) putchar('\n');
    for (int64_t i = 0; i < n; i++) {
        qs_call c = qs_chat_call(session, turn, i);
        fputs("{\"name\": ", stdout);
        put_string(c.name, c.n_name);
        fputs(", \"arguments\": ", stdout);
        if (c.whole) fwrite(c.arguments, 1, c.n_arguments, stdout);
        else put_string(c.arguments, c.n_arguments);
        fputs("}\n", stdout);
    }
    s->line = true;
    fflush(stdout);
    return n;
}
