/* Declarative command line: a command lists its options once; parsing, checking of values and
 * --help follow from the list.
 *
 * Forms: `-m FILE`, `-mFILE`, `--model FILE`, `--model=FILE`, flags without a value, and options that
 * mean something without one, whose value stands behind `=` alone. `-` is a
 * positional (standard input), `--` ends the options. A value is taken as it stands, even when it
 * starts with a dash. An option given twice counts with its last value, a list collects. */
#ifndef QSA_ARGS_H
#define QSA_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

/* Exit codes of every command. */
enum { QSA_EXIT_OK = 0, QSA_EXIT_FAILED = 1, QSA_EXIT_USAGE = 2, QSA_EXIT_INTERRUPTED = 130 };
/* qsa_parse: go on. */
enum { QSA_GO = -1 };

enum { QSA_LIST_MAX = 256 };
typedef struct qsa_list {
    const char *v[QSA_LIST_MAX];
    size_t n;
} qsa_list;

/* Kind and what `out` points to. */
typedef enum qsa_kind {
    QSA_FLAG,  /* bool: set to true */
    QSA_UNSET, /* bool: set to false (--no-...) */
    QSA_STR,   /* const char *, borrowed from argv */
    QSA_LIST,  /* qsa_list */
    QSA_INT,   /* int64_t in [min, max] */
    QSA_COUNT, /* int64_t in [min, max]; K, M, G mean 10^3, 10^6, 10^9: "25M" */
    QSA_NUM,   /* double in [lo, hi] */
    QSA_SIZE   /* uint64_t bytes; K, M, G, T mean 2^10 ...: "2G" */
} qsa_kind;

typedef struct qsa_opt {
    char letter;         /* 0: none */
    const char *name;    /* long name without dashes; NULL: none */
    const char *value;   /* the value's name in --help; NULL for flags */
    const char *help;    /* one sentence; NULL hides the option (an alias) */
    qsa_kind kind;
    void *out;
    int64_t min, max;    /* INT and COUNT; not checked when both are 0 */
    double lo, hi;       /* NUM; not checked when both are 0 */
    const char *choices; /* STR: "a|b|c"; NULL: anything */
    const char *bare;    /* STR: what the option means without =VALUE; NULL: it needs a value */
    bool *given;         /* set when the option occurs; may be NULL */
} qsa_opt;

/* One line of the table for each kind. */
#define QSA_OPT_FLAG(l, n, ptr, text) {.letter = (l), .name = (n), .help = (text), .out = (ptr)}
#define QSA_OPT_UNSET(l, n, ptr, text)                                                             \
    {.letter = (l), .name = (n), .help = (text), .kind = QSA_UNSET, .out = (ptr)}
#define QSA_OPT_STR(l, n, val, ptr, text)                                                          \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_STR, .out = (ptr)}
#define QSA_OPT_BARE(l, n, val, ptr, without, text)                                                \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_STR, .out = (ptr),    \
     .bare = (without)}
#define QSA_OPT_CHOICE(l, n, list, ptr, text)                                                      \
    {.letter = (l), .name = (n), .value = (list), .help = (text), .kind = QSA_STR, .out = (ptr),   \
     .choices = (list)}
#define QSA_OPT_LIST(l, n, val, ptr, text)                                                         \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_LIST, .out = (ptr)}
#define QSA_OPT_INT(l, n, val, ptr, from, to, text)                                                \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_INT, .out = (ptr),    \
     .min = (from), .max = (to)}
#define QSA_OPT_COUNT(l, n, val, ptr, from, to, text)                                              \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_COUNT, .out = (ptr),  \
     .min = (from), .max = (to)}
#define QSA_OPT_NUM(l, n, val, ptr, from, to, text)                                                \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_NUM, .out = (ptr),    \
     .lo = (from), .hi = (to)}
#define QSA_OPT_SIZE(l, n, val, ptr, text)                                                         \
    {.letter = (l), .name = (n), .value = (val), .help = (text), .kind = QSA_SIZE, .out = (ptr)}

typedef struct qsa_cmd {
    const char *name;     /* "tokenize", "tokenizer train" */
    const char *synopsis; /* what follows the name in the usage line: "[-m FILE] < text" */
    const char *about;    /* a paragraph; lines end with \n */
    const char *examples; /* whole command lines, each ends with \n */
    const qsa_opt *opts;
    size_t n_opts;
    int min_pos, max_pos; /* how many positionals; max_pos < 0: any number */
} qsa_cmd;

/* The positionals, in order; borrowed from argv, whose head they fill. */
typedef struct qsa_pos {
    char **v;
    int n;
} qsa_pos;

/* Parses argv[1..]. Returns QSA_GO, or the exit code to return at once: 0 after --help (on standard
 * output), 2 after a message about wrong usage. */
int qsa_parse(const qsa_cmd *cmd, int argc, char **argv, qsa_pos *pos);
/* Says what is wrong with the usage and how to see the help; returns 2. */
int qsa_usage(const qsa_cmd *cmd, const char *fmt, ...) QS_PRINTF(2, 3);
/* The candidate nearest to `word` by edit distance, or NULL when none is near. */
const char *qsa_nearest(const char *word, const char *const *candidates, size_t n);

/* "2G", "1.5M", "4096" -> bytes (powers of 1024); false when it is no size. */
bool qsa_parse_size(const char *text, uint64_t *bytes);
/* "25M", "1.5G", "300" -> number (powers of 1000). */
bool qsa_parse_count(const char *text, int64_t *count);

#endif
