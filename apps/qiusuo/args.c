/* The command line parser. Tables are small: options are found by a linear search. */
#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui.h"

/* ---- numbers --------------------------------------------------------------------------------- */

static bool parse_int(const char *text, int64_t *out) {
    char *end;
    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '+') return false;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') return false;
    *out = v;
    return true;
}

static bool parse_num(const char *text, double *out) {
    char *end;
    if (text[0] == '\0' || isspace((unsigned char)text[0])) return false;
    errno = 0;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v)) return false;
    *out = v;
    return true;
}

/* A number with a unit letter: text = NUMBER [K|M|G|T][more], value = NUMBER * base^power. */
static bool parse_scaled(const char *text, double base, const char *more, double *out) {
    static const char units[] = "KMGT";
    char *end;
    if (!isdigit((unsigned char)text[0]) && text[0] != '.') return false;
    double v = strtod(text, &end);
    if (end == text || !isfinite(v) || v < 0) return false;
    const char *unit = *end != '\0' ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit != NULL) {
        v *= pow(base, (double)(unit - units + 1));
        end++;
    }
    if (*end != '\0' && strcmp(end, "B") != 0 && strcmp(end, more) != 0) return false;
    *out = v;
    return true;
}

bool qsa_parse_size(const char *text, uint64_t *bytes) {
    double v;
    if (!parse_scaled(text, 1024.0, "iB", &v) || v >= 0x1p63) return false;
    *bytes = (uint64_t)v;
    return true;
}

bool qsa_parse_count(const char *text, int64_t *count) {
    double v;
    if (parse_int(text, count)) return true;
    if (!parse_scaled(text, 1000.0, "", &v) || v >= 0x1p63) return false;
    *count = (int64_t)llround(v);
    return true;
}

/* ---- nearest word ---------------------------------------------------------------------------- */

enum { WORD_MAX = 32 };

/* Edit distance with swaps of neighbours (optimal string alignment); words of at most WORD_MAX. */
static int distance(const char *a, const char *b) {
    int d[WORD_MAX + 1][WORD_MAX + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > WORD_MAX || m > WORD_MAX) return WORD_MAX;
    for (int i = 0; i <= n; i++) d[i][0] = i;
    for (int j = 0; j <= m; j++) d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            bool swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swap && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *qsa_nearest(const char *word, const char *const *candidates, size_t n) {
    const char *best = NULL;
    int best_d = WORD_MAX;
    for (size_t i = 0; i < n; i++) {
        int d = distance(word, candidates[i]);
        /* A start of three letters or more is near whatever its length. */
        if (strlen(word) >= 3 && strncmp(word, candidates[i], strlen(word)) == 0 && d > 1) d = 1;
        if (d < best_d) {
            best_d = d;
            best = candidates[i];
        }
    }
    int limit = strlen(word) <= 3 ? 1 : strlen(word) <= 6 ? 2 : 3;
    return best_d <= limit ? best : NULL;
}

/* ---- help ------------------------------------------------------------------------------------ */

static bool takes_value(const qsa_opt *o) { return o->kind != QSA_FLAG && o->kind != QSA_UNSET; }

enum { HELP_COLUMN = 26, HELP_WIDTH = 96 };

/* Prints a sentence in lines of at most HELP_WIDTH - HELP_COLUMN bytes, the first where the cursor
 * is, the others at HELP_COLUMN. */
static void print_wrapped(const char *text) {
    const size_t width = HELP_WIDTH - HELP_COLUMN;
    while (strlen(text) > width) {
        size_t n = width;
        while (n > 0 && text[n] != ' ') n--;
        if (n == 0) n = strcspn(text, " ");
        if (text[n] == '\0') break;
        printf("%.*s\n%*s", (int)n, text, HELP_COLUMN, "");
        text += n + 1;
    }
    printf("%s\n", text);
}

static void print_option(const qsa_opt *o) {
    char left[96];
    bool both = o->letter != 0 && o->name != NULL;
    char letter[3] = {'-', o->letter, '\0'};
    snprintf(left, sizeof(left), "  %s%s%s%s%s%s%s", o->letter != 0 ? letter : "    ",
             both ? ", " : "", o->name != NULL ? "--" : "", o->name != NULL ? o->name : "",
             o->bare != NULL ? "[=" : o->value != NULL ? " " : "", o->value != NULL ? o->value : "",
             o->bare != NULL ? "]" : "");
    if (strlen(left) + 2 > HELP_COLUMN) printf("%s\n%*s", left, HELP_COLUMN, "");
    else printf("%-*s", HELP_COLUMN, left);
    print_wrapped(o->help);
}

/* Lines of examples, each two columns in. */
static void print_examples(const char *text) {
    printf("\nexamples:\n");
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        size_t in = strspn(text, " ");
        if (in > n) in = n;
        printf("  %.*s\n", (int)(n - in), text + in);
        text += n + (text[n] == '\n');
    }
}

static void print_help(const qsa_cmd *cmd) {
    printf("usage: qiusuo %s %s\n", cmd->name, cmd->synopsis != NULL ? cmd->synopsis : "");
    if (cmd->about != NULL) printf("\n%s", cmd->about);
    printf("\noptions:\n");
    for (size_t i = 0; i < cmd->n_opts; i++) {
        if (cmd->opts[i].help != NULL) print_option(&cmd->opts[i]);
    }
    print_option(&(qsa_opt){.letter = 'h', .name = "help", .help = "show this help"});
    if (cmd->examples != NULL) print_examples(cmd->examples);
}

int qsa_usage(const qsa_cmd *cmd, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    qsa_say("%s: %s (see: qiusuo %s --help)", cmd->name, text, cmd->name);
    return QSA_EXIT_USAGE;
}

/* ---- options --------------------------------------------------------------------------------- */

static const qsa_opt *find_letter(const qsa_cmd *cmd, char letter) {
    for (size_t i = 0; i < cmd->n_opts; i++) {
        if (cmd->opts[i].letter == letter && letter != 0) return &cmd->opts[i];
    }
    return NULL;
}

static const qsa_opt *find_name(const qsa_cmd *cmd, const char *name, size_t n) {
    for (size_t i = 0; i < cmd->n_opts; i++) {
        const char *have = cmd->opts[i].name;
        if (have != NULL && strlen(have) == n && memcmp(have, name, n) == 0) return &cmd->opts[i];
    }
    return NULL;
}

static int unknown_option(const qsa_cmd *cmd, const char *arg) {
    const char *names[64];
    char word[WORD_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < cmd->n_opts && n < 64; i++) {
        if (cmd->opts[i].name != NULL) names[n++] = cmd->opts[i].name;
    }
    snprintf(word, sizeof(word), "%.*s", (int)strcspn(arg + 2, "="), arg + 2);
    const char *near = arg[1] == '-' ? qsa_nearest(word, names, n) : NULL;
    if (near != NULL) return qsa_usage(cmd, "unknown option %s; did you mean --%s?", arg, near);
    return qsa_usage(cmd, "unknown option %s", arg);
}

static bool is_choice(const char *choices, const char *value) {
    size_t n = strlen(value);
    for (const char *p = choices; n > 0;) {
        size_t k = strcspn(p, "|");
        if (k == n && memcmp(p, value, n) == 0) return true;
        if (p[k] == '\0') break;
        p += k + 1;
    }
    return false;
}

static int set_int(const qsa_cmd *cmd, const qsa_opt *o, const char *shown, const char *value) {
    int64_t v;
    bool ok = o->kind == QSA_INT ? parse_int(value, &v) : qsa_parse_count(value, &v);
    if (!ok) {
        return qsa_usage(cmd, "%s needs a whole number%s, not '%s'", shown,
                         o->kind == QSA_COUNT ? " (25M means 25,000,000)" : "", value);
    }
    if ((o->min != 0 || o->max != 0) && (v < o->min || v > o->max)) {
        if (o->max == INT64_MAX) {
            return qsa_usage(cmd, "%s must be at least %lld, not %s", shown, (long long)o->min,
                             value);
        }
        return qsa_usage(cmd, "%s must be from %lld to %lld, not %s", shown, (long long)o->min,
                         (long long)o->max, value);
    }
    *(int64_t *)o->out = v;
    return QSA_GO;
}

static int set_num(const qsa_cmd *cmd, const qsa_opt *o, const char *shown, const char *value) {
    double v;
    if (!parse_num(value, &v)) return qsa_usage(cmd, "%s needs a number, not '%s'", shown, value);
    if ((o->lo != 0 || o->hi != 0) && (v < o->lo || v > o->hi)) {
        return qsa_usage(cmd, "%s must be from %g to %g, not %s", shown, o->lo, o->hi, value);
    }
    *(double *)o->out = v;
    return QSA_GO;
}

static int set_option(const qsa_cmd *cmd, const qsa_opt *o, const char *shown, const char *value) {
    qsa_list *list;
    if (o->given != NULL) *o->given = true;
    switch (o->kind) {
    case QSA_FLAG: *(bool *)o->out = true; return QSA_GO;
    case QSA_UNSET: *(bool *)o->out = false; return QSA_GO;
    case QSA_STR:
        if (o->choices != NULL && !is_choice(o->choices, value)) {
            return qsa_usage(cmd, "%s must be one of %s, not '%s'", shown, o->choices, value);
        }
        if (o->choices != NULL && o->help == NULL && *(const char **)o->out != NULL &&
            strcmp(*(const char **)o->out, value) != 0)
            return qsa_usage(cmd, "%s %s after %s: it is one type for both", shown, value,
                             *(const char **)o->out);
        *(const char **)o->out = value;
        return QSA_GO;
    case QSA_LIST:
        list = o->out;
        if (list->n == QSA_LIST_MAX) {
            return qsa_usage(cmd, "%s is given more than %d times", shown, QSA_LIST_MAX);
        }
        list->v[list->n++] = value;
        return QSA_GO;
    case QSA_INT:
    case QSA_COUNT: return set_int(cmd, o, shown, value);
    case QSA_NUM: return set_num(cmd, o, shown, value);
    case QSA_SIZE:
        if (!qsa_parse_size(value, o->out)) {
            return qsa_usage(cmd, "%s needs a size such as 512M or 2G, not '%s'", shown, value);
        }
        return QSA_GO;
    }
    return QSA_GO;
}

/* One option at argv[*i]; advances *i past a value that stands on its own. */
static int parse_option(const qsa_cmd *cmd, int argc, char **argv, int *i) {
    char *arg = argv[*i];
    bool is_long = arg[1] == '-';
    const char *name = is_long ? arg + 2 : arg + 1;
    size_t n = is_long ? strcspn(name, "=") : 1, whole = strlen(name);
    const qsa_opt *o = is_long ? find_name(cmd, name, n) : find_letter(cmd, name[0]);
    /* -ctk: a hidden name behind one dash, as other programs spell it */
    const qsa_opt *word = is_long || whole < 3 ? NULL : find_name(cmd, name, whole);
    if (word != NULL && word->help == NULL) {
        o = word;
        n = whole;
    }
    if (o == NULL) return unknown_option(cmd, arg);
    char shown[64];
    snprintf(shown, sizeof(shown), "%s%.*s", is_long ? "--" : "-", (int)n, name);
    const char *rest = name + n;
    if (!takes_value(o)) {
        if (*rest != '\0') return qsa_usage(cmd, "%s takes no value", shown);
        return set_option(cmd, o, shown, NULL);
    }
    if (*rest != '\0') return set_option(cmd, o, shown, is_long ? rest + 1 : rest);
    if (o->bare != NULL) return set_option(cmd, o, shown, o->bare);
    if (*i + 1 >= argc) {
        return qsa_usage(cmd, "%s needs a value (%s)", shown,
                         o->value != NULL ? o->value : "VALUE");
    }
    return set_option(cmd, o, shown, argv[++*i]);
}

int qsa_parse(const qsa_cmd *cmd, int argc, char **argv, qsa_pos *pos) {
    int n = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        char *arg = argv[i];
        if (!options || arg[0] != '-' || arg[1] == '\0') {
            argv[n++] = arg; /* n < i: the head of argv is free */
        } else if (strcmp(arg, "--") == 0) {
            options = false;
        } else if (strcmp(arg, "--help") == 0 ||
                   (strcmp(arg, "-h") == 0 && find_letter(cmd, 'h') == NULL)) {
            print_help(cmd);
            return QSA_EXIT_OK;
        } else {
            int rc = parse_option(cmd, argc, argv, &i);
            if (rc != QSA_GO) return rc;
        }
    }
    if (n < cmd->min_pos) {
        return qsa_usage(cmd, "%s", n == 0 ? "an argument is missing" : "arguments are missing");
    }
    if (cmd->max_pos >= 0 && n > cmd->max_pos) {
        return qsa_usage(cmd, "too many arguments: '%s'", argv[cmd->max_pos]);
    }
    if (pos != NULL) *pos = (qsa_pos){argv, n};
    return QSA_GO;
}
