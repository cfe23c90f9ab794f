/* train: from text to a model. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/train.h"
#include "ui.h"

static volatile sig_atomic_t terminated;

static void on_term(int sig) {
    (void)sig;
    terminated = 1;
}

typedef struct display {
    bool terminal;
    bool shown;             /* a progress line stands there */
    int64_t shown_ns;
    const char *preparing;
} display;

static void clear_line(display *d) {
    if (d->shown) fputs("\r\033[K", stderr);
    d->shown = false;
}

static bool due(display *d) {
    int64_t now = qsa_now_ns();
    if (!d->terminal || now - d->shown_ns < 100000000) return false;
    d->shown_ns = now;
    return true;
}

static void show_prepare(display *d, const qs_train_event *e) {
    if (!due(d)) return;
    clear_line(d);
    fprintf(stderr, "%s", e->text);
    if (e->of > 0) fprintf(stderr, "  %3.0f %%", 100.0 * (double)e->done / (double)e->of);
    fflush(stderr);
    d->shown = true;
}

/* "step 14/40  loss 5.124  ... 0:04 left"; the larger `less`, the fewer figures. */
static void format_step(char *line, size_t cap, const qs_train_event *e, int less) {
    char rate[32], left[32];
    int n = snprintf(line, cap, "step %lld", (long long)e->step);
    if (e->total_steps > 0)
        n += snprintf(line + n, cap - (size_t)n, "/%lld", (long long)e->total_steps);
    n += snprintf(line + n, cap - (size_t)n, "  loss %.3f", e->smooth_loss);
    if (!isnan(e->val_loss)) n += snprintf(line + n, cap - (size_t)n, "  val %.3f", e->val_loss);
    if (less < 2) n += snprintf(line + n, cap - (size_t)n, "  lr %.2e", e->lr);
    if (less < 1) n += snprintf(line + n, cap - (size_t)n, "  norm %.2f", e->grad_norm);
    n += snprintf(line + n, cap - (size_t)n, "  %s tok/s",
                  qsa_format_count(rate, sizeof(rate), e->tok_s));
    if (!isnan(e->peak_share) && less < 3)
        n += snprintf(line + n, cap - (size_t)n, "  %.0f %% of peak", 100 * e->peak_share);
    if (!isnan(e->imbalance) && less < 4)
        n += snprintf(line + n, cap - (size_t)n, "  experts %.1fx", e->imbalance);
    if (!isnan(e->left_s))
        snprintf(line + n, cap - (size_t)n, "  %s left",
                 qsa_format_time(left, sizeof(left), e->left_s));
}

/* Line ends where a line is wider than the terminal, between figures and not inside one. */
static void break_line(char *line, size_t columns) {
    for (char *at = line; strlen(at) > columns;) {
        char *gap = NULL;
        for (char *p = at; (p = strstr(p + 1, "  ")) != NULL && (size_t)(p - at) <= columns;) gap = p;
        if (gap == NULL) return;
        *gap = '\n';
        at = gap + 1;
    }
}

/* A step that was validated stays on the screen (and in a pipe); the others are overwritten, and
 * for that fit into one line of the terminal. */
static void show_step(display *d, const qs_train_event *e) {
    char line[512];
    bool keep = !isnan(e->val_loss);
    if (!keep && !due(d)) return;
    clear_line(d);
    format_step(line, sizeof(line), e, 0);
    if (keep) {
        if (d->terminal) break_line(line, qsa_columns());
        fprintf(stderr, "%s\n", line);
    } else {
        size_t columns = qsa_columns();
        for (int less = 1; less <= 4 && strlen(line) >= columns; less++)
            format_step(line, sizeof(line), e, less);
        if (strlen(line) >= columns) line[columns - 1] = '\0';
        fputs(line, stderr);
    }
    fflush(stderr);
    d->shown = !keep;
}

static void on_event(void *user, const qs_train_event *e) {
    display *d = user;
    switch (e->kind) {
    case QS_TRAIN_PREPARE: show_prepare(d, e); break;
    case QS_TRAIN_STEP: show_step(d, e); break;
    case QS_TRAIN_SAMPLE:
        clear_line(d);
        fprintf(stderr, "--- step %lld: %s\n%s\n---\n", (long long)e->step, e->prompt, e->text);
        break;
    case QS_TRAIN_NOTE:
    case QS_TRAIN_WARNING:
        clear_line(d);
        qsa_say("%s%s", e->kind == QS_TRAIN_WARNING ? "warning: " : "", e->text);
        break;
    default: break;
    }
}

static int on_stop(void *user) {
    (void)user;
    return qsa_interrupted() || terminated;
}

/* $XDG_STATE_HOME/qiusuo/train, or ~/.local/state/qiusuo/train; false when neither is set. */
static bool state_dir(char *buf, size_t cap) {
    const char *x = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (x != NULL && x[0] == '/') n = snprintf(buf, cap, "%s/qiusuo/train", x);
    else if (home != NULL && home[0] == '/')
        n = snprintf(buf, cap, "%s/.local/state/qiusuo/train", home);
    return n > 0 && (size_t)n < cap;
}

static bool is_config(const char *path) {
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".conf") == 0;
}

static int run(qs_train_opts *o) {
    display d = {.terminal = isatty(STDERR_FILENO)};
    qs_train_result r;
    qs_err err = {0};
    struct sigaction sa = {.sa_handler = on_term};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    qsa_interrupt_catch(true);
    o->user = &d;
    o->measure_peak = d.terminal;
    o->event = on_event;
    o->stop = on_stop;
    qs_status st = qs_train(o, &r, &err);
    clear_line(&d);
    if (st == QS_E_CANCELLED && terminated) return QSA_EXIT_OK;
    if (st != QS_OK) return qsa_fail(st, &err);
    if (r.was_finished) {
        printf("%s\n", r.model);
        return QSA_EXIT_OK;
    }
    if (r.stopped) {
        qsa_say("stopped and saved at step %lld; the same command goes on", (long long)r.step);
        return terminated ? QSA_EXIT_OK : QSA_EXIT_INTERRUPTED;
    }
    if (isnan(r.val_loss)) qsa_say("done: %lld steps, loss %.3f", (long long)r.step, r.loss);
    else qsa_say("done: %lld steps, loss %.3f, validation %.3f", (long long)r.step, r.loss,
                 r.val_loss);
    printf("%s\n", r.model);
    return QSA_EXIT_OK;
}

int cmd_train(int argc, char **argv) {
    qs_train_opts o = {0};
    int64_t threads = 0;
    bool seed_given = false;
    char state[1024];
    qsa_list settings = {.n = 0};
    const qsa_opt opts[] = {
        QSA_OPT_STR('o', "out", "DIR", &o.out,
                    "folder of the run (default: the configuration's, else qiusuo-run)"),
        QSA_OPT_STR(0, "preset", "NAME", &o.preset,
                    "tiny (1 M parameters, the default), mini (5 M), small (22 M), medium (110 M)"),
        QSA_OPT_COUNT(0, "steps", "N", &o.steps, 1, INT64_MAX, "length of the run in steps"),
        QSA_OPT_COUNT(0, "tokens", "N", &o.tokens, 1, INT64_MAX, "or in tokens: 25M"),
        QSA_OPT_NUM(0, "hours", "H", &o.hours, 0.0001, 1e6, "or in hours"),
        {.name = "seed", .value = "N", .help = "of weights and order of the data (default 1)",
         .kind = QSA_INT, .out = &o.seed, .min = 0, .max = 9000000000000000, .given = &seed_given},
        QSA_OPT_STR(0, "init", "MODEL", &o.init, "start from the weights of a GGUF model"),
        QSA_OPT_STR(0, "type", "TYPE", &o.type, "of model.gguf: F16 (default), F32, BF16, Q8_0, Q4_0"),
        QSA_OPT_LIST(0, "set", "KEY=VALUE", &settings, "any setting: --set train.lr=1e-3"),
        QSA_OPT_INT('t', "threads", "N", &threads, 1, 1024, "default: the physical cores"),
        QSA_OPT_STR(0, "isa", "LEVEL", &o.isa, "highest CPU level to use: ref, avx2, ..."),
    };
    const qsa_cmd cmd = {
        .name = "train",
        .synopsis = "TEXT-OR-FOLDER... | CONFIG.conf [TEXT-OR-FOLDER...]",
        .about = "Learns a vocabulary and trains a model on .txt, .md and .jsonl files. The same\n"
                 "command goes on where it was stopped. The folder of the run then holds\n"
                 "model.gguf, log.csv, loss.svg and the checkpoints. docs/training.md lists all\n"
                 "settings and the form of conversations.\n",
        .examples = "qiusuo train poems.txt --steps 500\n"
                    "qiusuo train corpus/ --preset small --tokens 25M --out poet\n"
                    "qiusuo train models/default/train.conf\n"
                    "qiusuo train more.txt --init poet/model.gguf --out poet2\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .max_pos = -1,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 0) return qsa_usage(&cmd, "on which text? name files or folders");
    if ((o.steps > 0) + (o.tokens > 0) + (o.hours > 0) > 1)
        return qsa_usage(&cmd, "give the length as one of --steps, --tokens, --hours");
    int first = is_config(pos.v[0]);
    if (first) o.config = pos.v[0];
    o.texts = (const char *const *)(pos.v + first);
    o.n_texts = (size_t)(pos.n - first);
    o.threads = (int)threads;
    o.seed_given = seed_given;
    o.settings = settings.v;
    o.n_settings = settings.n;
    if (state_dir(state, sizeof(state))) o.state_dir = state;
    return run(&o);
}
