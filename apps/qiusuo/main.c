/* The program: finds the command and runs it. Each command lives in a file of its own. */
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

typedef struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
#define ROW(suffix, name, summary) {name, summary, cmd_##suffix},
    QSA_COMMANDS(ROW)
#undef ROW
    {"help", "show the help of a command", NULL},
};
enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(void) {
    printf("usage: qiusuo COMMAND [ARGUMENTS]\n"
           "\n"
           "Qiusuo %s trains and runs DeepSeek-family language models.\n"
           "\n"
           "commands:\n",
           qs_version());
    for (int i = 0; i < N_COMMANDS; i++) {
        printf("  %-12s %s\n", commands[i].name, commands[i].summary);
    }
    printf("\n"
           "'qiusuo COMMAND --help' shows a command's options and examples.\n"
           "'qiusuo --version' prints the version.\n");
}

static int unknown(const char *word) {
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    const char *near = qsa_nearest(word, names, N_COMMANDS);
    if (near != NULL) qsa_say("unknown command '%s'; did you mean '%s'?", word, near);
    else qsa_say("unknown command '%s'; 'qiusuo --help' lists them", word);
    return QSA_EXIT_USAGE;
}

static const command *find(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    }
    return NULL;
}

/* qiusuo help [COMMAND...] */
static int help(int argc, char **argv) {
    char flag[] = "--help";
    if (argc < 2 || argv[1][0] == '-' || strcmp(argv[1], "help") == 0) {
        print_help();
        return QSA_EXIT_OK;
    }
    const command *c = find(argv[1]);
    if (c == NULL) return unknown(argv[1]);
    char *sub[4] = {argv[1], argc > 2 ? argv[2] : flag, argc > 2 ? flag : NULL, NULL};
    return c->run(argc > 2 ? 3 : 2, sub);
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        qsa_say("which command? 'qiusuo --help' lists them");
        return QSA_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help();
        return QSA_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0) {
        printf("qiusuo %s\n", qs_version());
        return QSA_EXIT_OK;
    }
    if (strcmp(word, "help") == 0) return help(argc - 1, argv + 1);
    const command *c = find(word);
    return c != NULL ? c->run(argc - 1, argv + 1) : unknown(word);
}

/* A standard stream that the caller has closed is opened the wrong way round, so that its use stays
 * an error and no file opened later, a checkpoint for instance, takes its number and its text. */
static void hold_standard_streams(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) == -1)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    }
}

int main(int argc, char **argv) {
    hold_standard_streams();
    setlocale(LC_CTYPE, ""); /* character widths for line editing; numbers stay as in C */
    qsa_interrupt_init();
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then an error that can be reported */
    qs_err err = {0};
    if (qs_catch_file_faults(&err) != QS_OK) qsa_say("warning: %s", err.text);
    int rc = dispatch(argc, argv);
    if (rc == QSA_EXIT_OK && qs_files_intact(&err) != QS_OK) rc = qsa_fail(QS_E_IO, &err);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        qsa_say("cannot write the result to standard output");
        if (rc == QSA_EXIT_OK) rc = QSA_EXIT_FAILED;
    }
    return rc;
}
