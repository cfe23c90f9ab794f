/* The command line parser: every form of every kind, ranges, messages, exit codes, help. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "args.h"

static bool verbose, color, temp_given;
static const char *model, *mode;
static qsa_list stops;
static int64_t n_predict, tokens, any;
static double temp;
static uint64_t memory;

static const qsa_opt opts[] = {
    QSA_OPT_STR('m', "model", "FILE", &model, "the model"),
    QSA_OPT_INT('n', "n-predict", "N", &n_predict, -1, 1000, "how many tokens"),
    QSA_OPT_INT('n', "predict", "N", &n_predict, -1, 1000, NULL),
    QSA_OPT_INT(0, "seed", "N", &any, INT64_MIN, INT64_MAX, "the seed"),
    QSA_OPT_COUNT(0, "tokens", "N", &tokens, 1, INT64_MAX, "how many tokens to train on"),
    {.letter = 't', .name = "temp", .value = "T", .kind = QSA_NUM, .out = &temp, .lo = 0,
     .hi = 5, .given = &temp_given,
     .help = "a sentence that does not fit beside its option: the wording is long and says that the "
             "temperature of the text, from 0 to 5, is what it sets"},
    QSA_OPT_SIZE(0, "memory", "SIZE", &memory, "how much memory"),
    QSA_OPT_LIST('r', "stop", "TEXT", &stops, "stop at this text"),
    QSA_OPT_CHOICE(0, "mode", "fast|exact", &mode, "how"),
    QSA_OPT_FLAG('v', "verbose", &verbose, "say more"),
    QSA_OPT_UNSET(0, "no-color", &color, "no colours"),
};
static const qsa_cmd cmd = {
    .name = "try",
    .synopsis = "[OPTIONS] FILE...",
    .about = "Tries things.\n",
    .examples = "  qiusuo try -m x.gguf 诗.txt\n",
    .opts = opts,
    .n_opts = sizeof(opts) / sizeof(opts[0]),
    .max_pos = 3,
};

static qsa_pos pos;
static char out[8192], err_text[8192];

static void slurp(int fd, int saved, FILE *f, char *buf, size_t cap) {
    fflush(fd == 1 ? stdout : stderr);
    dup2(saved, fd);
    close(saved);
    rewind(f);
    buf[fread(buf, 1, cap - 1, f)] = '\0';
    fclose(f);
}

static FILE *capture(int fd, int *saved) {
    FILE *f = tmpfile();
    assert_non_null(f);
    fflush(fd == 1 ? stdout : stderr);
    *saved = dup(fd);
    dup2(fileno(f), fd);
    return f;
}

/* Parses the words up to NULL; out and err_text hold what was printed. */
static int parse(const char *first, ...) {
    static char words[32][256];
    static char *argv[33];
    int argc = 0, saved1, saved2;
    va_list ap;
    const char *w = first;
    verbose = false;
    color = true;
    temp_given = false;
    model = mode = NULL;
    stops.n = 0;
    n_predict = tokens = any = -99;
    temp = -99;
    memory = 99;
    pos = (qsa_pos){NULL, -1};
    snprintf(words[argc], sizeof(words[0]), "try");
    argv[argc] = words[argc];
    argc++;
    for (va_start(ap, first); w != NULL; w = va_arg(ap, const char *)) {
        snprintf(words[argc], sizeof(words[0]), "%s", w);
        argv[argc] = words[argc];
        argc++;
    }
    va_end(ap);
    argv[argc] = NULL;
    FILE *f1 = capture(1, &saved1), *f2 = capture(2, &saved2);
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    slurp(1, saved1, f1, out, sizeof(out));
    slurp(2, saved2, f2, err_text, sizeof(err_text));
    return rc;
}

static void forms(void **state) {
    (void)state;
    assert_int_equal(parse("-m", "a.gguf", "-n64", "--temp=0.5", "--seed", "-7", "x", NULL), QSA_GO);
    assert_string_equal(model, "a.gguf");
    assert_int_equal(n_predict, 64);
    assert_true(temp == 0.5 && temp_given);
    assert_int_equal(any, -7);
    assert_int_equal(pos.n, 1);
    assert_string_equal(pos.v[0], "x");
    assert_int_equal(parse("--model=", "--n-predict=-1", "--predict", "5", NULL), QSA_GO);
    assert_string_equal(model, "");
    assert_int_equal(n_predict, 5); /* the last one counts */
    assert_int_equal(parse("-mb", "-v", "--no-color", NULL), QSA_GO);
    assert_string_equal(model, "b");
    assert_true(verbose && !color && !temp_given);
    assert_int_equal(pos.n, 0);
    assert_int_equal(parse("--model", "--verbose", NULL), QSA_GO); /* a value as it stands */
    assert_string_equal(model, "--verbose");
    assert_false(verbose);
}

static void positionals(void **state) {
    (void)state;
    assert_int_equal(parse("一", "-v", "-", "--", "-v", NULL), QSA_GO);
    assert_int_equal(pos.n, 3);
    assert_string_equal(pos.v[0], "一");
    assert_string_equal(pos.v[1], "-");
    assert_string_equal(pos.v[2], "-v");
    assert_int_equal(parse("a", "b", "c", "d", NULL), QSA_EXIT_USAGE);
    assert_non_null(strstr(err_text, "too many arguments: 'd'"));
    assert_int_equal(parse("--", "--help", NULL), QSA_GO);
    assert_string_equal(pos.v[0], "--help");
    char name[] = "two";
    char *argv[] = {name, NULL};
    qsa_cmd two = {.name = "two", .min_pos = 1, .max_pos = -1};
    int saved;
    FILE *f = capture(2, &saved);
    int rc = qsa_parse(&two, 1, argv, NULL);
    slurp(2, saved, f, err_text, sizeof(err_text));
    assert_int_equal(rc, QSA_EXIT_USAGE);
    assert_non_null(strstr(err_text, "qiusuo: two: an argument is missing (see: qiusuo two --help)"));
}

static void lists(void **state) {
    (void)state;
    assert_int_equal(parse("-r", "。", "--stop=", "--stop", "x", NULL), QSA_GO);
    assert_int_equal(stops.n, 3);
    assert_string_equal(stops.v[0], "。");
    assert_string_equal(stops.v[1], "");
    assert_string_equal(stops.v[2], "x");
    stops.n = QSA_LIST_MAX;
    char name[] = "t", opt[] = "-rx";
    char *argv[] = {name, opt, NULL};
    int saved;
    FILE *f = capture(2, &saved);
    assert_int_equal(qsa_parse(&cmd, 2, argv, NULL), QSA_EXIT_USAGE);
    slurp(2, saved, f, err_text, sizeof(err_text));
    assert_int_equal(stops.n, QSA_LIST_MAX);
}

/* A wrong command line: exit code 2, one line on standard error that holds `want`, nothing set. */
static void wrong(int rc, const char *want) {
    assert_int_equal(rc, QSA_EXIT_USAGE);
    assert_string_equal(out, "");
    assert_memory_equal(err_text, "qiusuo: try: ", 13);
    if (strstr(err_text, want) == NULL) fail_msg("'%s' lacks '%s'", err_text, want);
    assert_ptr_equal(strchr(err_text, '\n'), err_text + strlen(err_text) - 1);
}

static void mistakes(void **state) {
    (void)state;
    wrong(parse("--modle", "x", NULL), "unknown option --modle; did you mean --model?");
    wrong(parse("--sede=3", NULL), "did you mean --seed?");
    wrong(parse("--zzzzzz", NULL), "unknown option --zzzzzz (see");
    wrong(parse("-x", NULL), "unknown option -x");
    wrong(parse("-m", NULL), "-m needs a value (FILE)");
    wrong(parse("--verbose=1", NULL), "--verbose takes no value");
    wrong(parse("-vv", NULL), "-v takes no value");
    wrong(parse("-n", "x", NULL), "-n needs a whole number, not 'x'");
    wrong(parse("-n", "", NULL), "whole number");
    wrong(parse("-n", " 5", NULL), "whole number");
    wrong(parse("-n", "5x", NULL), "whole number");
    wrong(parse("-n", "1.5", NULL), "whole number");
    wrong(parse("-n", "0x10", NULL), "whole number");
    wrong(parse("-n", "99999999999999999999", NULL), "whole number");
    wrong(parse("-n", "1001", NULL), "-n must be from -1 to 1000, not 1001");
    wrong(parse("-n", "-2", NULL), "must be from -1");
    wrong(parse("--tokens", "0", NULL), "--tokens must be at least 1, not 0");
    wrong(parse("--tokens", "5Q", NULL), "25M means");
    wrong(parse("--temp", "warm", NULL), "--temp needs a number, not 'warm'");
    wrong(parse("--temp", "nan", NULL), "needs a number");
    wrong(parse("--temp", "inf", NULL), "needs a number");
    wrong(parse("--temp", "5.01", NULL), "--temp must be from 0 to 5, not 5.01");
    wrong(parse("--temp", "-0.1", NULL), "from 0 to 5");
    wrong(parse("--memory", "much", NULL), "--memory needs a size such as 512M or 2G, not 'much'");
    wrong(parse("--mode", "quick", NULL), "--mode must be one of fast|exact, not 'quick'");
    wrong(parse("--mode", "", NULL), "must be one of");
    wrong(parse("--mode", "fast|exact", NULL), "must be one of");
    wrong(parse("--mode", "fas", NULL), "must be one of");
}

static void values(void **state) {
    (void)state;
    assert_int_equal(parse("--mode", "exact", "--memory", "1.5G", "--tokens", "25M", NULL), QSA_GO);
    assert_string_equal(mode, "exact");
    assert_true(memory == UINT64_C(3) << 29);
    assert_int_equal(tokens, 25000000);
    assert_int_equal(parse("--seed", "9223372036854775807", NULL), QSA_GO);
    assert_true(any == INT64_MAX);
    assert_int_equal(parse("--seed", "-9223372036854775808", NULL), QSA_GO);
    assert_true(any == INT64_MIN);
    assert_int_equal(parse("--temp", "0", NULL), QSA_GO);
    assert_true(temp == 0);
}

static void sizes_and_counts(void **state) {
    (void)state;
    uint64_t b;
    int64_t c;
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},         {"4096", 4096},     {"4096B", 4096},  {"1k", 1024},
                 {"2M", 2097152},  {"2MB", 2097152},   {"2MiB", 2097152}, {"0.5G", 536870912},
                 {"3T", UINT64_C(3) << 40}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        assert_true(qsa_parse_size(sizes[i].text, &b));
        assert_true(b == sizes[i].bytes);
    }
    static const char *const bad[] = {"",    "G",   "-1",   "+1",  "1X",
                                      "1GG", "1 G", "1e30", "nan", "99999999T"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (qsa_parse_size(bad[i], &b)) fail_msg("'%s' taken as a size", bad[i]);
    }
    assert_true(qsa_parse_count("12", &c) && c == 12);
    assert_true(qsa_parse_count("9007199254740993", &c) && c == INT64_C(9007199254740993));
    assert_true(qsa_parse_count("1.5k", &c) && c == 1500);
    assert_true(qsa_parse_count("2G", &c) && c == 2000000000);
    assert_false(qsa_parse_count("2iB", &c));
    assert_false(qsa_parse_count("", &c));
}

static void help(void **state) {
    (void)state;
    assert_int_equal(parse("-n", "5", "--help", "--nonsense", NULL), QSA_EXIT_OK);
    assert_string_equal(err_text, "");
    assert_memory_equal(out, "usage: qiusuo try [OPTIONS] FILE...\n", 36);
    assert_non_null(strstr(out, "Tries things."));
    assert_non_null(strstr(out, "  -m, --model FILE        the model\n"));
    assert_non_null(strstr(out, "      --seed N            the seed\n"));
    assert_non_null(strstr(out, "--mode fast|exact"));
    assert_null(strstr(out, "--predict ")); /* an alias stays hidden */
    assert_non_null(strstr(out, "examples:\n  qiusuo try -m x.gguf 诗.txt\n"));
    assert_non_null(strstr(out, "\n                          and says that the temperature"));
    for (const char *line = out; *line != '\0'; line += strcspn(line, "\n") + 1) {
        assert_true(strcspn(line, "\n") <= 96);
    }
    assert_int_equal(parse("-h", NULL), QSA_EXIT_OK);
}

static void nearest(void **state) {
    (void)state;
    static const char *const words[] = {"chat", "run", "train", "tokenize", "tokenizer", "score"};
    const size_t n = sizeof(words) / sizeof(words[0]);
    assert_string_equal(qsa_nearest("caht", words, n), "chat");
    assert_string_equal(qsa_nearest("trian", words, n), "train");
    assert_string_equal(qsa_nearest("tok", words, n), "tokenize"); /* a beginning */
    assert_string_equal(qsa_nearest("tokenise", words, n), "tokenize");
    assert_string_equal(qsa_nearest("rn", words, n), "run");
    assert_null(qsa_nearest("xyz", words, n));
    assert_null(qsa_nearest("", words, n));
    assert_null(qsa_nearest("chat", words, 0));
    assert_null(qsa_nearest("a-word-that-is-much-longer-than-any-command-could-be", words, n));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),   cmocka_unit_test(positionals),      cmocka_unit_test(lists),
        cmocka_unit_test(values),  cmocka_unit_test(mistakes),         cmocka_unit_test(help),
        cmocka_unit_test(nearest), cmocka_unit_test(sizes_and_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
