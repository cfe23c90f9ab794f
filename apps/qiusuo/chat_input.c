/* Input of the chat: see chat_input.h. libedit reads bytes and knows characters by the locale; where
 * the environment names none with UTF-8, C.UTF-8 is taken so that Chinese can be edited. */
#include "chat_input.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "ui.h"

#ifdef QSA_HAVE_EDIT
#include <histedit.h>
#endif

#define HISTORY_LINES 1000

struct qsa_input {
    char *history_file;
    char *line;      /* of getline */
    size_t line_cap;
    char *text;
    size_t n, cap;
    int state;
#ifdef QSA_HAVE_EDIT
    EditLine *el;
    History *hist;
    bool eof_off;    /* the terminal's end-of-file character is set aside */
    cc_t eof_char;
#endif
};

static const char *prompt_text(const qsa_input *in) { return in->state == 0 ? ">>> " : "... "; }

#ifdef QSA_HAVE_EDIT
static char *el_prompt(EditLine *el) {
    static char buf[8];
    qsa_input *in = NULL;
    el_get(el, EL_CLIENTDATA, &in);
    snprintf(buf, sizeof buf, "%s", prompt_text(in));
    return buf;
}

/* While an answer comes the line discipline collects what is typed. It would swallow a Ctrl-D; with
 * its end-of-file character off the byte waits for the next prompt, where it means what it says. */
static void set_eof_aside(qsa_input *in, bool aside) {
    struct termios t;
    if (aside == in->eof_off || tcgetattr(STDIN_FILENO, &t) != 0) return;
    if (aside) in->eof_char = t.c_cc[VEOF];
    t.c_cc[VEOF] = aside ? _POSIX_VDISABLE : in->eof_char;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0) in->eof_off = aside;
}

/* Bracketed paste: the terminal puts ESC[200~ before and ESC[201~ behind what is pasted. */
static void ask_brackets(bool on) {
    const char *term = getenv("TERM");
    if (term == NULL || strcmp(term, "dumb") == 0) return;
    fputs(on ? "\033[?2004h" : "\033[?2004l", stdout);
    fflush(stdout);
}

/* Bound to ESC[200~: all lines of a paste become one input, which Enter sends. */
static unsigned char paste(EditLine *el, int ch) {
    static const wchar_t last[] = L"\033[201~";
    enum { N_LAST = sizeof last / sizeof last[0] - 1 };
    size_t n = 0, cap = 0;
    wchar_t *text = NULL, c;
    bool failed = true;
    (void)ch;
    do {
        if (n + 2 > cap) {
            wchar_t *more = realloc(text, (cap = 2 * cap + 256) * sizeof *text);
            if (more == NULL) goto done;
            text = more;
        }
        if (el_wgetc(el, &c) <= 0) goto done;
        if (c == L'\r') c = L'\n';
        if (c >= L' ' || c == L'\n' || c == L'\t' || c == L'\033') text[n++] = c;
    } while (n < N_LAST || wmemcmp(text + n - N_LAST, last, N_LAST) != 0);
    n -= N_LAST;
    while (n > 0 && text[n - 1] == L'\n') n--;
    text[n] = L'\0';
    failed = n > 0 && el_winsertstr(el, text) != 0;
done:
    free(text);
    return failed ? CC_ERROR : CC_REFRESH;
}

static void edit_open(qsa_input *in) {
    HistEvent ev;
    in->hist = history_init();
    in->el = el_init("qiusuo", stdin, stdout, stderr);
    if (in->hist == NULL || in->el == NULL) return;
    history(in->hist, &ev, H_SETSIZE, HISTORY_LINES);
    history(in->hist, &ev, H_SETUNIQUE, 1);
    if (in->history_file != NULL) history(in->hist, &ev, H_LOAD, in->history_file);
    el_set(in->el, EL_CLIENTDATA, in);
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_PROMPT, el_prompt);
    el_set(in->el, EL_HIST, history, in->hist);
    el_set(in->el, EL_SIGNAL, 0);
    el_set(in->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(in->el, EL_ADDFN, "qiusuo-paste", "Insert what is pasted", paste);
    el_set(in->el, EL_BIND, "\\e[200~", "qiusuo-paste", NULL);
    el_source(in->el, NULL);
}

static void edit_close(qsa_input *in) {
    set_eof_aside(in, false);
    if (in->el != NULL) el_end(in->el);
    if (in->hist != NULL) history_end(in->hist);
}

static void remember(qsa_input *in, const char *line) {
    HistEvent ev;
    if (in->hist == NULL || line[strspn(line, " \t\r\n")] == '\0') return;
    history(in->hist, &ev, H_ENTER, line);
    /* kept at once: a killed program loses nothing. The file is for its owner's eyes */
    mode_t old = umask(077);
    if (in->history_file != NULL) history(in->hist, &ev, H_SAVE, in->history_file);
    umask(old);
}
#endif

qsa_input *qsa_input_open(const char *history_file) {
    qsa_input *in = calloc(1, sizeof *in);
    if (in == NULL) return NULL;
    if (history_file != NULL) in->history_file = strdup(history_file);
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
#ifdef QSA_HAVE_EDIT
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) edit_open(in);
#endif
    return in;
}

void qsa_input_close(qsa_input *in) {
    if (in == NULL) return;
#ifdef QSA_HAVE_EDIT
    edit_close(in);
#endif
    free(in->history_file);
    free(in->line);
    free(in->text);
    free(in);
}

/* One line with its line end; NULL with *kind set when there is none. */
static const char *read_line(qsa_input *in, size_t *n, qsa_input_kind *kind) {
#ifdef QSA_HAVE_EDIT
    if (in->el != NULL) {
        int count = 0;
        el_resize(in->el);
        set_eof_aside(in, false);
        /* before the prompt is shown: what is typed at it must not meet the line discipline, where a
         * Ctrl-D would be lost */
        el_set(in->el, EL_PREP_TERM, 1);
        ask_brackets(true);
        errno = 0;
        const char *line = el_gets(in->el, &count);
        ask_brackets(false);
        set_eof_aside(in, true);
        *kind = qsa_interrupted() ? QSA_INPUT_BREAK : QSA_INPUT_END;
        if (line == NULL || count <= 0 || *kind == QSA_INPUT_BREAK) return NULL;
        remember(in, line);
        *n = (size_t)count;
        return line;
    }
#endif
    fputs(prompt_text(in), stderr);
    fflush(stderr);
    ssize_t k = getline(&in->line, &in->line_cap, stdin);
    *kind = qsa_interrupted() ? QSA_INPUT_BREAK : QSA_INPUT_END;
    if (k <= 0) clearerr(stdin);
    if (k <= 0 || *kind == QSA_INPUT_BREAK) return NULL;
    *n = (size_t)k;
    return in->line;
}

static size_t without_line_end(const char *line, size_t n) {
    if (n > 0 && line[n - 1] == '\n') n--;
    if (n > 0 && line[n - 1] == '\r') n--;
    return n;
}

static bool ends_quotes(const char *line, size_t n) {
    return n >= 3 && memcmp(line + n - 3, "\"\"\"", 3) == 0;
}

int qsa_input_join(int state, const char *line, size_t n_line, char *buf, size_t cap, size_t *n) {
    size_t k = without_line_end(line, n_line);
    int next = 0;
    bool newline = false; /* stands between this line and the following one */
    if (state == 0 && k >= 3 && memcmp(line, "\"\"\"", 3) == 0) {
        line += 3;
        k -= 3;
        state = 2;
        next = ends_quotes(line, k) ? 0 : 2;
        newline = next == 2 && k > 0;
    } else if (state == 2) {
        next = ends_quotes(line, k) ? 0 : 2;
        newline = next == 2;
    } else if (k > 0 && line[k - 1] == '\\') {
        next = 1;
        newline = true;
    }
    if (state == 2 && next == 0) {
        k -= 3;
        /* the closing quotes on a line of their own add no empty line */
        if (k == 0 && *n > 0 && buf[*n - 1] == '\n') --*n;
    }
    if (next == 1) k--;
    if (k + 2 > cap - *n) return -1;
    memcpy(buf + *n, line, k);
    *n += k;
    if (newline) buf[(*n)++] = '\n';
    buf[*n] = '\0';
    return next;
}

qsa_input_kind qsa_input_next(qsa_input *in, const char **text, size_t *n) {
    qsa_input_kind kind;
    in->state = 0;
    in->n = 0;
    do {
        size_t n_line = 0;
        const char *line = read_line(in, &n_line, &kind);
        if (line == NULL) return kind;
        if (in->n + n_line + 2 > in->cap) {
            size_t cap = 2 * (in->n + n_line + 2);
            char *more = realloc(in->text, cap);
            if (more == NULL) return QSA_INPUT_FAILED;
            in->text = more;
            in->cap = cap;
        }
        in->state = qsa_input_join(in->state, line, n_line, in->text, in->cap, &in->n);
    } while (in->state > 0);
    in->state = 0;
    *text = in->text;
    *n = in->n;
    return QSA_INPUT_TEXT;
}
