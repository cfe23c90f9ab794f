/* Messages, progress, input and interruption of the program. */
#include "ui.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "qiusuo/qiusuo.h"

static bool line_shown; /* a progress line stands on the terminal */

static void clear_line(void) {
    if (line_shown) fputs("\r\033[K", stderr);
    line_shown = false;
}

void qsa_say(const char *fmt, ...) {
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    qsa_harmless(text);
    fflush(stdout);
    clear_line();
    fprintf(stderr, "qiusuo: %s\n", text);
}

void qsa_harmless(char *text) {
    size_t n = strlen(text);
    for (int64_t bad = 0; (bad = qs_utf8_check(text, n)) >= 0;) text[bad] = '?';
    for (char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p, next = (unsigned char)p[1];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) *p = '?';
        if (c == 0xC2 && next < 0xA0) p[0] = p[1] = '?'; /* U+0080 to U+009F */
    }
}

int qsa_fail(qs_status st, const qs_err *err) {
    bool text = err != NULL && err->code != QS_OK && err->text[0] != '\0';
    if (st == QS_E_CANCELLED && qsa_interrupted()) return QSA_EXIT_INTERRUPTED;
    qsa_say("%s", text ? err->text : qs_status_text(st));
    return QSA_EXIT_FAILED;
}

bool qsa_apart(const char *in, const char *out) {
    struct stat a, b;
    if (in == NULL || out == NULL) return true;
    bool same = strcmp(in, out) == 0 || (stat(in, &a) == 0 && stat(out, &b) == 0 &&
                                         a.st_dev == b.st_dev && a.st_ino == b.st_ino);
    if (same) qsa_say("writing '%s' would replace '%s': name another file", out, in);
    return !same;
}

size_t qsa_columns(void) {
    struct winsize w = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) return 80;
    return w.ws_col < 20 ? 20 : w.ws_col;
}

/* Columns of the character that begins at p: by its lead byte, and from U+1100 on two. */
static size_t char_columns(const char *p) {
    const unsigned char *u = (const unsigned char *)p;
    if (*u < 0x80) return 1;
    if (*u < 0xC0) return 0; /* not the first byte of a character */
    return *u < 0xE1 || (*u == 0xE1 && u[1] < 0x84) || (*u == 0xE2 && u[1] < 0xBA) ? 1 : 2;
}

void qsa_wrap(char *text, size_t columns) {
    char *space = NULL; /* the last one of this line */
    size_t column = 0;
    for (char *p = text; *p != '\0'; p++) {
        column += char_columns(p);
        if (*p == ' ') {
            space = p;
        } else if (*p == '\n') {
            space = NULL;
            column = 0;
        }
        if (column <= columns || space == NULL || *p == ' ') continue;
        *space = '\n';
        column = 0;
        for (const char *q = space + 1; q <= p; q++) column += char_columns(q);
        space = NULL;
    }
}

int64_t qsa_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* n with a unit of powers of `base`: three significant digits, none after the point for whole
 * units. */
static char *format_scaled(char *buf, size_t cap, double n, double base, const char *const *units) {
    size_t u = 0;
    while (units[u + 1] != NULL && n >= base * 0.9995) {
        n /= base;
        u++;
    }
    int digits = u == 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
    snprintf(buf, cap, "%.*f%s%s", digits, n, units[u][0] != '\0' ? " " : "", units[u]);
    return buf;
}

char *qsa_format_size(char *buf, size_t cap, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", NULL};
    return format_scaled(buf, cap, (double)bytes, 1024.0, units);
}

char *qsa_format_count(char *buf, size_t cap, double n) {
    static const char *const units[] = {"", "k", "M", "G", "T", NULL};
    return format_scaled(buf, cap, n, 1000.0, units);
}

char *qsa_format_time(char *buf, size_t cap, double seconds) {
    long long s = seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (s >= 3600) snprintf(buf, cap, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(buf, cap, "%lld:%02lld", s / 60, s % 60);
    return buf;
}

void qsa_progress_begin(qsa_progress *p, const char *label, const char *unit, uint64_t total) {
    const char *term = getenv("TERM");
    bool dumb = term == NULL || strcmp(term, "dumb") == 0;
    *p = (qsa_progress){.label = label, .unit = unit, .total = total, .start_ns = qsa_now_ns(),
                        .on = isatty(STDERR_FILENO) && !dumb};
}

void qsa_progress_update(qsa_progress *p, uint64_t done) {
    enum { EVERY_NS = 100000000 };
    char rate[32], left[32];
    int64_t now = qsa_now_ns();
    if (!p->on || now - p->shown_ns < EVERY_NS) return;
    p->shown_ns = now;
    double spent = (double)(now - p->start_ns) * 1e-9;
    double speed = spent > 0 ? (double)done / spent : 0;
    if (strcmp(p->unit, "B") == 0) qsa_format_size(rate, sizeof(rate), (uint64_t)speed);
    else qsa_format_count(rate, sizeof(rate), speed);
    const char *unit = strcmp(p->unit, "B") == 0 ? "" : p->unit;
    fprintf(stderr, "\r\033[K%s", p->label);
    if (p->total > 0) fprintf(stderr, "  %3.0f %%", 100.0 * (double)done / (double)p->total);
    fprintf(stderr, "  %s%s%s/s", rate, unit[0] != '\0' ? " " : "", unit);
    if (p->total > done && speed > 0 && spent > 1) {
        double rest = (double)(p->total - done) / speed;
        fprintf(stderr, "  %s left", qsa_format_time(left, sizeof(left), rest));
    }
    fflush(stderr);
    line_shown = true;
}

void qsa_progress_end(qsa_progress *p) {
    if (p->on) clear_line();
    p->on = false;
}

int qsa_on_progress(void *user, int64_t done, int64_t of) {
    qsa_progress *p = user;
    p->total = of > 0 ? (uint64_t)of : 0;
    qsa_progress_update(p, done > 0 ? (uint64_t)done : 0);
    return qsa_interrupted();
}

/* Reads to the end; grows by doubling. */
static qs_status read_stream(FILE *f, const char *name, size_t max, char **text, size_t *n,
                             qs_err *err) {
    size_t cap = 1 << 16, len = 0;
    char *buf = malloc(cap);
    while (buf != NULL) {
        len += fread(buf + len, 1, cap - 1 - len, f);
        if (ferror(f) || feof(f) || len > max) break;
        if (len < cap - 1) continue;
        char *more = cap <= SIZE_MAX / 2 ? realloc(buf, cap * 2) : NULL;
        if (more == NULL) free(buf);
        buf = more;
        cap *= 2;
    }
    qs_status st = QS_OK;
    if (buf == NULL) st = QS_E_NOMEM;
    else if (ferror(f)) st = QS_E_IO;
    else if (len > max) st = QS_E_LIMIT;
    if (st != QS_OK) {
        *err = (qs_err){.code = st, .offset = -1};
        if (st == QS_E_LIMIT) {
            snprintf(err->text, sizeof(err->text), "%s is longer than the %zu bytes allowed here",
                     name, max);
        } else {
            snprintf(err->text, sizeof(err->text), "cannot read %s: %s", name,
                     st == QS_E_IO ? strerror(errno) : "out of memory");
        }
        free(buf);
        return st;
    }
    buf[len] = '\0';
    *text = buf;
    *n = len;
    return QS_OK;
}

qs_status qsa_read_text(const char *path, size_t max, char **text, size_t *n, qs_err *err) {
    qs_err none;
    char name[512];
    struct stat sb;
    if (err == NULL) err = &none;
    if (strcmp(path, "-") == 0) return read_stream(stdin, "standard input", max, text, n, err);
    snprintf(name, sizeof(name), "'%s'", path);
    FILE *f = fopen(path, "rb");
    bool dir = f != NULL && fstat(fileno(f), &sb) == 0 && S_ISDIR(sb.st_mode);
    if (f == NULL || dir) {
        int e = dir ? EISDIR : errno;
        if (f != NULL) fclose(f);
        *err = (qs_err){.code = e == ENOENT ? QS_E_NOTFOUND : QS_E_IO, .offset = -1};
        snprintf(err->text, sizeof(err->text), "cannot open %s: %s", name, strerror(e));
        return err->code;
    }
    qs_status st = read_stream(f, name, max, text, n, err);
    fclose(f);
    return st;
}

qs_status qsa_check_utf8(const char *text, size_t n, const char *what, qs_err *err) {
    int64_t bad = qs_utf8_check(text, n);
    if (bad < 0) return QS_OK;
    bool gzip = n >= 2 && memcmp(text, "\x1F\x8B", 2) == 0;
    if (err != NULL) {
        *err = (qs_err){.code = QS_E_FORMAT, .offset = bad};
        snprintf(err->text, sizeof(err->text), "%s is not UTF-8: byte 0x%02X at offset %lld%s", what,
                 (unsigned)(unsigned char)text[bad], (long long)bad,
                 gzip ? " (it is compressed: unpack it with gunzip)" : "");
    }
    return QS_E_FORMAT;
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupt_count, interrupt_caught;
/* What the handler calls; fn is NULL while arg changes. */
static void (*volatile interrupt_fn)(void *);
static void *volatile interrupt_arg;

static void on_interrupt(int sig) {
    (void)sig;
    interrupt_count++;
    if (!interrupt_caught || interrupt_count > 1) _exit(QSA_EXIT_INTERRUPTED);
    if (interrupt_fn != NULL) interrupt_fn(interrupt_arg);
}

void qsa_interrupt_init(void) {
    struct sigaction sa = {.sa_handler = on_interrupt}; /* no SA_RESTART: a blocked read returns */
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

void qsa_interrupt_catch(bool on) { interrupt_caught = on; }

void qsa_interrupt_call(void (*fn)(void *), void *arg) {
    interrupt_fn = NULL;
    interrupt_arg = arg;
    interrupt_fn = fn;
}

bool qsa_interrupted(void) { return interrupt_count > 0; }
void qsa_interrupt_clear(void) { interrupt_count = 0; }

char *qsa_cache_dir(char *buf, size_t cap) {
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg != NULL && xdg[0] == '/') snprintf(buf, cap, "%s/qiusuo", xdg);
    else snprintf(buf, cap, "%s/.cache/qiusuo", home != NULL && home[0] != '\0' ? home : ".");
    return buf;
}
