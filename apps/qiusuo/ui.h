/* What every command shares: messages, progress, input, interruption. Results go to standard
 * output, everything here to standard error. Thread: main, but for qsa_interrupted. */
#ifndef QSA_UI_H
#define QSA_UI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

/* "qiusuo: text" and a newline on standard error; clears a progress line first. */
void qsa_say(const char *fmt, ...) QS_PRINTF(1, 2);
/* Says err's text and returns the exit code that fits: 130 for QS_E_CANCELLED, else 1. */
int qsa_fail(qs_status st, const qs_err *err);
/* False, said with a line, when writing `out` would replace what is read from `in`; either may be
 * NULL. */
bool qsa_apart(const char *in, const char *out);

/* Progress on a terminal: one line "label  42 %  3.1 M tokens/s  1:05 left", none in a pipe. */
typedef struct qsa_progress {
    const char *label, *unit; /* borrowed; unit "B" shows sizes */
    uint64_t total;           /* 0: unknown */
    int64_t start_ns, shown_ns;
    bool on;
} qsa_progress;
void qsa_progress_begin(qsa_progress *p, const char *label, const char *unit, uint64_t total);
void qsa_progress_update(qsa_progress *p, uint64_t done);
/* Removes the line. */
void qsa_progress_end(qsa_progress *p);

/* For the callbacks of the library: user is a qsa_progress; 1 once Ctrl-C was pressed. */
int qsa_on_progress(void *user, int64_t done, int64_t of);

/* "1.5 GiB" in buf; returns buf. */
char *qsa_format_size(char *buf, size_t cap, uint64_t bytes);
/* "1.5 M", "300" in buf; returns buf. */
char *qsa_format_count(char *buf, size_t cap, double n);
/* "1:05", "2:03:10" in buf; returns buf. */
char *qsa_format_time(char *buf, size_t cap, double seconds);
/* Columns of the terminal at standard error; 80 when it does not say. At least 20. */
size_t qsa_columns(void);
/* What a terminal would obey, and bytes that are not UTF-8, become '?' in text: messages repeat words
 * of files that may be hostile. Tabs and line ends stay. */
void qsa_harmless(char *text);
/* Turns spaces of UTF-8 text into line ends, so that no line is wider than `columns` as far as its
 * words allow; East Asian characters count as two. */
void qsa_wrap(char *text, size_t columns);
/* Monotonic nanoseconds. */
int64_t qsa_now_ns(void);

/* Reads a file, or standard input for "-", byte for byte. *text is NUL-terminated (bytes may be NUL
 * too) and owned by the caller: free(). At most `max` bytes. */
qs_status qsa_read_text(const char *path, size_t max, char **text, size_t *n, qs_err *err)
    QS_MUST_CHECK;
/* QS_E_FORMAT with the offset when the n bytes are not UTF-8; `what` names them in the message. */
qs_status qsa_check_utf8(const char *text, size_t n, const char *what, qs_err *err) QS_MUST_CHECK;

/* The folder for what may be computed again: $XDG_CACHE_HOME/qiusuo, else ~/.cache/qiusuo. It may not
 * exist. Returns buf. */
char *qsa_cache_dir(char *buf, size_t cap);

/* Ctrl-C. By default it ends the program with exit code 130. After qsa_interrupt_catch it sets a
 * flag which the command looks at; a second one before qsa_interrupt_clear ends the program. */
void qsa_interrupt_init(void);
void qsa_interrupt_catch(bool on);
/* What a caught Ctrl-C calls at once, inside the signal handler (fn must be safe there); NULL:
 * nothing. */
void qsa_interrupt_call(void (*fn)(void *), void *arg);
bool qsa_interrupted(void);
void qsa_interrupt_clear(void);

#endif
