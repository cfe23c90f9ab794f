/* qiusuo eval: how well a model predicts a text, how near it is to another one, and how it does on
 * benchmarks. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "gen_args.h"
#include "model_store.h"
#include "qiusuo/measure.h"
#include "ui.h"

#define MAX_TEXT ((size_t)1 << 30)

#define TASKS "text|mmlu|ceval|cmmlu|hellaswag|arc|piqa|gsm8k|humaneval"

typedef struct args {
    qsa_model_args model;
    const char *against;
    int64_t window, stride;
    bool json;
    const char *task, *labels, *dev, *output;
    int64_t shots, limit;
    bool resume;
    const char *chat, *think, *python; /* of generated answers */
    int64_t n_predict;
    double code_seconds;
    qsa_list stops;
    char *stop_text[QSA_LIST_MAX];
    bool run_code;
} args;

/* ---- texts ------------------------------------------------------------------------------------ */

static void row(const char *what, qs_estimate e) {
    printf("%-28s %14.6f +- ", what, e.value);
    if (isnan(e.se)) puts("n/a");
    else printf("%.6f\n", e.se);
}

static void print_table(const args *a, const qs_eval_text_report *r) {
    printf("%-28s %14" PRId64 " (%" PRId64 " bytes)\n", "tokens scored", r->n_tokens, r->n_bytes);
    printf("%-28s %14" PRId64 " (stride %" PRId64 ")\n", "window", r->ctx, r->stride);
    row("nats a token", r->nll);
    row("perplexity", r->ppl);
    printf("%-28s %14.6f\n", "bits a byte", r->bits_per_byte);
    if (a->against == NULL) return;
    row("nats a token, other model", r->base_nll);
    row("perplexity, other model", r->base_ppl);
    row("nats more than the other", r->diff);
    row("KL(other || model), mean", r->kl);
    printf("%-28s %14.6f\n", "KL, median", r->kl_median);
    printf("%-28s %14.6f\n", "KL, 99th percentile", r->kl_p99);
    printf("%-28s %14.6f\n", "KL, greatest", r->kl_max);
    row("same likeliest token", r->agree);
}

/* An evaluation that failed; one that was interrupted can go on. */
static int failed(const args *a, qs_status st, const qs_err *err) {
    int rc = qsa_fail(st, err);
    if (rc == QSA_EXIT_INTERRUPTED && a->output != NULL)
        qsa_say("stopped; the same command with --resume goes on");
    return rc;
}

static int evaluate(const args *a, const char *file, qs_session *s, qs_session *base) {
    qs_err err = { 0 };
    qs_eval_opts o;
    qs_eval_text_report r;
    qsa_progress progress;
    char *text = NULL;
    size_t n;
    qs_status st = qsa_read_text(file, MAX_TEXT, &text, &n, &err);
    if (st == QS_OK) st = qsa_check_utf8(text, n, file, &err);
    if (st == QS_OK) {
        qs_eval_opts_init(&o, sizeof o);
        o.ctx = a->window;
        o.stride = a->stride;
        o.output = a->output;
        o.resume = a->resume;
        o.progress = qsa_on_progress;
        o.user = &progress;
        qsa_progress_begin(&progress, "evaluating", "tokens", 0);
        qsa_cancel_on_interrupt(s, true);
        st = qs_eval_text(s, base, text, n, &o, &r, &err);
        qsa_cancel_on_interrupt(s, false);
        qsa_progress_end(&progress);
    }
    free(text);
    if (st != QS_OK) return failed(a, st, &err);
    if (r.n_resumed > 0)
        qsa_say("resumed: %" PRId64 " of %" PRId64 " tokens were done before", r.n_resumed, r.n_tokens);
    if (a->json) puts(r.json);
    else print_table(a, &r);
    return QSA_EXIT_OK;
}

/* ---- benchmarks ------------------------------------------------------------------------------- */

/* Columns of a UTF-8 name, characters of East Asia counted as two. */
static int columns(const char *z) {
    int n = 0;
    for (; *z != '\0'; z++) {
        unsigned char c = (unsigned char)*z;
        if ((c & 0xC0) != 0x80) n += c >= 0xE3 ? 2 : 1;
    }
    return n;
}

static void print_part(const char *name, const qs_eval_task_report *r, const qs_eval_part *p) {
    int n = columns(name);
    printf("%s%*s %8" PRId64, name, n < 40 ? 40 - n : 0, "", p->n_items);
    for (int k = 0; k < r->n_scores; k++) {
        printf("   %6.2f %% +- ", 100 * p->score[k].value);
        if (isnan(p->score[k].se)) printf("%5s", "n/a");
        else printf("%5.2f", 100 * p->score[k].se);
    }
    putchar('\n');
}

static void print_tasks(const qs_eval_task_report *r) {
    char about[64], shots[32];
    snprintf(shots, sizeof shots, r->shots == 1 ? "1 example" : "%d examples", (int)r->shots);
    snprintf(about, sizeof about, "%s, %s", r->task, r->shots > 0 ? shots : "no examples");
    printf("%-40s %8s", about, "items");
    for (int k = 0; k < r->n_scores; k++) printf("   %-18s", r->score[k]);
    putchar('\n');
    for (size_t i = 0; i < r->n_parts; i++) print_part(r->parts[i].name, r, &r->parts[i]);
    if (r->n_parts == 1) return;
    print_part("all items", r, &r->all);
    printf("%-40s %8s", "mean of the files", "");
    for (int k = 0; k < r->n_scores; k++) printf("   %6.2f %%         ", 100 * r->parts_mean[k]);
    putchar('\n');
}

/* A file that can be executed and is no script: those would have to start the interpreter. */
static bool is_program(const char *path) {
    char head[2] = { '#', '!' };
    FILE *f = access(path, X_OK) == 0 ? fopen(path, "rb") : NULL;
    bool read = f != NULL && fread(head, 1, 2, f) == 2;
    if (f != NULL) fclose(f);
    return read && memcmp(head, "#!", 2) != 0;
}

/* The absolute path of a program, in path; a bare name is looked for along PATH. NULL: there is none. */
static const char *find_program(const char *name, char path[PATH_MAX]) {
    const char *dirs = getenv("PATH");
    char here[PATH_MAX];
    bool bare = strchr(name, '/') == NULL;
    if (!bare && (name[0] == '/' || getcwd(here, sizeof here) == NULL)) here[0] = '\0';
    int k = bare ? 0 : snprintf(path, PATH_MAX, here[0] != '\0' ? "%s/%s" : "%s%s", here, name);
    if (!bare) return k > 0 && k < PATH_MAX && is_program(path) ? path : NULL;
    while (dirs != NULL && *dirs != '\0') {
        size_t n = strcspn(dirs, ":");
        k = snprintf(path, PATH_MAX, "%.*s/%s", (int)n, dirs, name);
        if (dirs[0] == '/' && k > 0 && k < PATH_MAX && is_program(path)) return path;
        dirs += n + (dirs[n] == ':');
    }
    return NULL;
}

/* The options of generated answers. path: room for the interpreter's. QSA_GO or an exit code. */
static int set_answers(const qsa_cmd *cmd, args *a, qs_eval_task_opts *o, char path[PATH_MAX]) {
    o->chat = a->chat == NULL || strcmp(a->chat, "auto") == 0 ? QS_EVAL_CHAT_AUTO
              : strcmp(a->chat, "on") == 0 ? QS_EVAL_CHAT_ON : QS_EVAL_CHAT_OFF;
    o->think = qsa_think(a->think);
    o->max_tokens = a->n_predict;
    o->code_seconds = a->code_seconds;
    int rc = qsa_take_stops(cmd, &a->stops, a->stop_text);
    o->stops = (const char *const *)a->stop_text;
    o->n_stops = a->stops.n;
    if (rc != QSA_GO || !a->run_code) return rc;
    o->python = find_program(a->python != NULL ? a->python : "python3", path);
    if (o->python != NULL) return QSA_GO;
    qsa_say("there is no program '%s' (scripts do not count): --python names a Python 3",
            a->python != NULL ? a->python : "python3");
    return QSA_EXIT_FAILED;
}

static int evaluate_tasks(const qsa_cmd *cmd, args *a, char **files, int n, qs_session *s) {
    char python[PATH_MAX];
    qs_err err = { 0 };
    qs_eval_task_opts o;
    qs_eval_task_report *r = NULL;
    qsa_progress progress;
    qs_eval_task_opts_init(&o, sizeof o);
    o.task = a->task;
    o.paths = (const char *const *)files;
    o.n_paths = (size_t)n;
    o.labels = a->labels;
    o.dev = a->dev;
    o.shots = (int32_t)a->shots;
    o.limit = a->limit;
    o.output = a->output;
    o.resume = a->resume;
    o.progress = qsa_on_progress;
    o.user = &progress;
    int rc = set_answers(cmd, a, &o, python);
    if (rc != QSA_GO) return rc;
    qsa_progress_begin(&progress, "evaluating", "items", 0);
    qsa_cancel_on_interrupt(s, true);
    qs_status st = qs_eval_task(s, &o, &r, &err);
    qsa_cancel_on_interrupt(s, false);
    qsa_progress_end(&progress);
    if (st != QS_OK) return failed(a, st, &err);
    if (r->n_resumed > 0)
        qsa_say("resumed: %" PRId64 " of %" PRId64 " items were done before", r->n_resumed,
                r->all.n_items);
    if (r->all.n_cut > 0)
        qsa_say("warning: %" PRId64 " prompts were longer than the context and lost their beginning "
                "(-c N makes it larger)", r->all.n_cut);
    if (a->json) puts(r->json);
    else print_tasks(r);
    qs_eval_task_free(r);
    return QSA_EXIT_OK;
}

/* ---- the command ------------------------------------------------------------------------------ */

/* By its name something to be evaluated, not a model. */
static bool is_data(const char *path) {
    static const char *const ends[] = { ".csv", ".json", ".jsonl", ".txt" };
    size_t n = strlen(path);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        size_t k = strlen(ends[i]);
        if (n > k && strcmp(path + n - k, ends[i]) == 0) return true;
    }
    return false;
}

/* Before a model is loaded for them: is what should be evaluated there, and is it no model? */
static int check_files(const qsa_cmd *cmd, const args *a, const qsa_pos *pos) {
    for (int i = 0; i < pos->n; i++) {
        const char *path = pos->v[i];
        if (qsa_is_model(path) && pos->n == 1 && a->model.model == NULL)
            return qsa_usage(cmd, "which text or benchmark? '%s' is the model", path);
        if (qsa_is_model(path)) return qsa_usage(cmd, "'%s' is a model, no text or benchmark", path);
        if (strcmp(path, "-") == 0 || access(path, R_OK) == 0) continue;
        qsa_say("cannot open '%s': %s", path, strerror(errno));
        return QSA_EXIT_FAILED;
    }
    return QSA_GO;
}

/* Whether the files are benchmarks; QSA_GO or an exit code. */
static int find_kind(const qsa_cmd *cmd, const args *a, const qsa_pos *pos, bool *tasks) {
    qs_err err = { 0 };
    const char *task = a->task;
    *tasks = task != NULL && strcmp(task, "text") != 0;
    if (task == NULL) {
        qs_status st = qs_eval_task_of(pos->v[0], &task, &err);
        if (st == QS_E_UNSUPPORTED) {
            qsa_say("%s (the forms of mmlu, ceval, cmmlu, hellaswag, arc, piqa, gsm8k and humaneval are "
                    "known; --task text reads it as a text)", err.text);
            return QSA_EXIT_FAILED;
        }
        if (st != QS_OK) return qsa_fail(st, &err);
        *tasks = task != NULL;
    }
    if (*tasks && (a->against != NULL || a->window > 0 || a->stride > 0))
        return qsa_usage(cmd, "--against, --window and --stride are for texts; '%s' is a benchmark "
                         "(--task text reads it as a text)", pos->v[0]);
    if (!*tasks && (a->labels || a->dev || a->shots >= 0 || a->limit > 0))
        return qsa_usage(cmd, "'%s' is read as a text: --labels, --dev, --shots and --limit are for "
                         "benchmarks (--task names one)", pos->v[0]);
    if (!*tasks && pos->n > 1) return qsa_usage(cmd, "one text at a time");
    bool code = *tasks && strcmp(task, "humaneval") == 0;
    bool written = code || (*tasks && strcmp(task, "gsm8k") == 0);
    if (!written && (a->chat || a->think || a->n_predict > 0 || a->stops.n > 0))
        return qsa_usage(cmd, "--chat, --think, -n and --stop are for benchmarks whose answers are "
                         "written (gsm8k, humaneval)");
    int rc = written ? QSA_GO : qsa_no_drafts(cmd, &a->model);
    if (rc != QSA_GO) return rc;
    if (!code && (a->run_code || a->python || a->code_seconds > 0))
        return qsa_usage(cmd, "--run-code, --python and --code-timeout are for humaneval");
    if (a->resume && a->output == NULL) return qsa_usage(cmd, "--resume needs --output");
    if (!qsa_apart(a->model.model, a->output) || !qsa_apart(a->against, a->output) ||
        !qsa_apart(a->dev, a->output) || !qsa_apart(a->labels, a->output))
        return QSA_EXIT_FAILED;
    for (int i = 0; i < pos->n; i++)
        if (!qsa_apart(pos->v[i], a->output)) return QSA_EXIT_FAILED;
    bool asked = written && (a->chat == NULL || strcmp(a->chat, "off") != 0);
    if (asked && a->model.chat_template != NULL) { /* else the prompt would be continued as a text */
        qs_status st = qs_chat_template_check(a->model.chat_template, &err);
        if (st != QS_OK) return qsa_fail(st, &err);
    }
    return QSA_GO;
}

int cmd_eval(int argc, char **argv) {
    args a = { .shots = -1 };
    const qsa_opt opts[] = {
        QSA_MODEL_OPTS(a.model),
        QSA_OPT_STR(0, "against", "MODEL", &a.against,
                    "compare with this model of the same vocabulary"),
        QSA_OPT_INT(0, "window", "N", &a.window, 0, 16777216,
                    "tokens of a window (0: the context, at most 2048)"),
        QSA_OPT_INT(0, "stride", "N", &a.stride, 0, 16777216,
                    "tokens from window to window (0: half a window)"),
        QSA_OPT_CHOICE(0, "task", TASKS, &a.task,
                       "what the files are, or how to ask them (default: by their content)"),
        QSA_OPT_STR(0, "dev", "FILE", &a.dev,
                    "examples before each question; a folder: a file for each subject"),
        QSA_OPT_INT(0, "shots", "N", &a.shots, 0, 1000,
                    "how many of them (default: 5, or as many as there are)"),
        QSA_OPT_STR(0, "labels", "FILE", &a.labels,
                    "PIQA's answers (default: X-labels.lst beside X.jsonl)"),
        QSA_OPT_INT(0, "limit", "N", &a.limit, 0, INT64_MAX,
                    "the first N items of each file (0: all)"),
        QSA_OPT_STR('o', "output", "FILE", &a.output,
                    "write the report there, and FILE.journal with a line for every item or window"),
        QSA_OPT_FLAG(0, "resume", &a.resume, "go on where FILE.journal ends"),
        QSA_OPT_CHOICE(0, "chat", "auto|on|off", &a.chat,
                       "generated answers: ask in a conversation (auto: if the model has a template)"),
        QSA_OPT_CHOICE(0, "think", "auto|on|off", &a.think,
                       "reasoning before an answer, where the template has a choice"),
        QSA_PREDICT_OPT(a.n_predict, 0, "tokens of a generated answer (0: 512, of humaneval 1024)"),
        QSA_OPT_LIST(0, "stop", "TEXT", &a.stops,
                     "end generated answers before TEXT instead of the benchmark's own stop strings"),
        QSA_OPT_FLAG(0, "run-code", &a.run_code,
                     "humaneval: run the programs that the model writes, in a sandbox"),
        QSA_OPT_STR(0, "python", "FILE", &a.python, "what runs them (python3)"),
        QSA_OPT_NUM(0, "code-timeout", "SECONDS", &a.code_seconds, 0.1, 3600,
                    "how long each may take (10)"),
        QSA_OPT_FLAG(0, "json", &a.json, "print one JSON object"),
    };
    const qsa_cmd cmd = {
        .name = "eval",
        .synopsis = "[MODEL] TEXT-OR-BENCHMARK... [options]",
        .about = "Of a text: its perplexity, read in windows that overlap; every token is scored\n"
                 "once, and all but the first have at least window - stride tokens before them. With\n"
                 "--against also how far the model is from another: the Kullback-Leibler divergence\n"
                 "from that one's distribution, and how often both find the same token likeliest.\n"
                 "Logarithms are natural; standard errors take tokens as independent.\n"
                 "\n"
                 "Of benchmarks (.csv, .json and .jsonl files as they are published, or folders of\n"
                 "them): how often the choice that the model finds likeliest is the right one (MMLU,\n"
                 "C-Eval, CMMLU, HellaSwag, ARC, PIQA), the number that it comes to (GSM8K), or the\n"
                 "program that it writes (HumanEval, only with --run-code). They are asked as\n"
                 "lm-evaluation-harness asks them.\n",
        .examples = "  qiusuo eval -m model.gguf text.txt\n"
                    "  qiusuo eval -m model-q4_0.gguf --against model-f16.gguf text.txt --json\n"
                    "  qiusuo eval -m model.gguf long.txt --output long.json --resume\n"
                    "  qiusuo eval -m model.gguf hellaswag_val.jsonl\n"
                    "  qiusuo eval -m model.gguf gsm8k_test.jsonl --dev gsm8k_train.jsonl\n"
                    "  qiusuo eval -m model.gguf HumanEval.jsonl --run-code\n"
                    "  qiusuo eval -m model.gguf mmlu/test --dev mmlu/dev --output mmlu.json\n"
                    "  qiusuo eval -m model.gguf mmlu/test --dev mmlu/dev --output mmlu.json --resume\n",
        .opts = opts, .n_opts = sizeof opts / sizeof opts[0], .min_pos = 1, .max_pos = -1,
    };
    qsa_pos pos;
    qs_model *m = NULL, *other = NULL;
    qs_session *s = NULL, *base = NULL;
    bool tasks = false;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n > 1 && a.model.model == NULL && !is_data(pos.v[0])) qsa_take_model(&a.model, &pos);
    rc = check_files(&cmd, &a, &pos);
    if (rc == QSA_GO) rc = find_kind(&cmd, &a, &pos, &tasks);
    if (rc != QSA_GO) return rc;
    rc = qsa_open(&a.model, &m, &s);
    if (rc == QSA_GO && a.against != NULL) {
        qsa_model_args second = a.model;
        second.model = a.against;
        rc = qsa_open(&second, &other, &base);
    }
    if (rc == QSA_GO && tasks) rc = evaluate_tasks(&cmd, &a, pos.v, pos.n, s);
    else if (rc == QSA_GO) rc = evaluate(&a, pos.v[0], s, base);
    for (size_t i = 0; i < a.stops.n; i++) free(a.stop_text[i]);
    qs_session_free(base);
    qs_session_free(s);
    qs_model_close(&other);
    qs_model_close(&m);
    return rc;
}
