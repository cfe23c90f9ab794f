/* qiusuo chat: a conversation at a terminal, or one turn a line from a pipe. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat_input.h"
#include "chat_show.h"
#include "chat_state.h"
#include "commands.h"
#include "gen_args.h"
#include "ui.h"

typedef struct chat {
    qs_model *m;
    qs_session *s;
    qs_gen_opts o;
    qs_gen_stats last;
    bool has_last;
    qsa_show show;
    char *stop;              /* of /set stop */
    const char *stop_list[1];
} chat;

/* The answer is shown as it comes and ends its line. On failure the turn that asked is taken back. */
static qs_status answer(chat *c, qs_err *err) {
    qsa_show_begin(&c->show);
    qs_status st = qs_chat_answer(c->s, &c->o, &c->last, err);
    c->has_last = st == QS_OK;
    int64_t turn = qs_chat_n_turns(c->s) - 1;
    if (st == QS_OK && turn >= 0 && qs_chat_turn(c->s, turn).role != QS_ASSISTANT) turn = -1;
    if (st == QS_OK) qsa_show_end(&c->show, c->s, turn);
    c->o.seed = -1; /* one stream of random numbers for the conversation */
    return st;
}

static int show_text(void *user, const char *p, size_t n) {
    return qsa_show_part(user, QS_PART_TEXT, p, n);
}

/* Results of called functions that are still to come. */
static int64_t n_due(const qs_session *s) {
    int64_t i = qs_chat_n_turns(s) - 1, results = 0;
    while (i >= 0 && qs_chat_turn(s, i).role == QS_TOOL) i--, results++;
    return i >= 0 ? qs_chat_turn(s, i).n_calls - results : 0;
}

/* Adds what came in: a question, or the result of a function that was called. */
static qs_status add(chat *c, const char *text, size_t n, qs_err *err) {
    return qs_chat_add(c->s, n_due(c->s) > 0 ? QS_TOOL : QS_USER, text, n, err);
}

/* ---- from a pipe ------------------------------------------------------------------------------ */

static bool is_blank(const char *p, size_t n) {
    while (n > 0 && isspace((unsigned char)p[n - 1])) n--;
    return n == 0;
}

static int talk_piped(chat *c) {
    char *line = NULL;
    size_t cap = 0;
    qs_err err = { 0 };
    qs_status st = QS_OK;
    for (int64_t number = 1; st == QS_OK; number++) {
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        if (is_blank(line, (size_t)n)) continue;
        st = add(c, line, (size_t)n, &err);
        if (st == QS_OK && n_due(c->s) > 0) continue;
        if (st == QS_OK) st = answer(c, &err);
        bool asked = c->last.finish == QS_FINISH_LENGTH && c->o.n_predict >= 0;
        if (st == QS_OK && qsa_finish_note(c->last.finish) != NULL && !asked)
            qsa_say("line %" PRId64 ": %s", number, qsa_finish_note(c->last.finish));
        if (st != QS_OK)
            qsa_say("line %" PRId64 " of the input: %s", number,
                    err.text[0] != '\0' ? err.text : qs_status_text(st));
        if (ferror(stdout)) break;
    }
    if (st == QS_OK && ferror(stdin)) {
        qsa_say("cannot read standard input");
        st = QS_E_IO;
    }
    free(line);
    return st == QS_OK ? QSA_EXIT_OK : QSA_EXIT_FAILED;
}

/* ---- at a terminal ---------------------------------------------------------------------------- */

static bool colours(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && getenv("NO_COLOR") == NULL && term != NULL &&
           strcmp(term, "dumb") != 0;
}

/* A line of text, wrapped between words where the terminal is narrower. */
static void say(const char *fmt, ...) QS_PRINTF(1, 2);
static void say(const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    qsa_harmless(text);
    if (isatty(STDERR_FILENO)) qsa_wrap(text, qsa_columns());
    fprintf(stderr, "%s\n", text);
}

static void say_dim(const char *text) {
    fprintf(stderr, colours() ? "\033[2m%s\033[0m\n" : "%s\n", text);
}

static double rate(int64_t n, double s) { return s > 0 ? (double)n / s : 0.0; }

static void say_speed(const chat *c) {
    char buf[256], drafts[80];
    const qs_gen_stats *t = &c->last;
    snprintf(buf, sizeof buf, "[%" PRId64 " tokens, %.1f tokens/s; first after %.2f s%s%s]",
             t->n_generated, rate(t->n_generated, t->gen_s), t->prompt_s,
             qsa_drafts(c->s, drafts, sizeof drafts),
             t->finish == QS_FINISH_CANCELLED ? "; cancelled" : "");
    say_dim(buf);
}

/* Answers the turns so far; keep_on_failure is how many of them stay when that fails. */
static void answer_shown(chat *c, int64_t keep_on_failure) {
    qs_err err = { 0 };
    qsa_interrupt_clear();
    qsa_cancel_on_interrupt(c->s, true);
    qs_status st = answer(c, &err);
    qsa_interrupt_call(NULL, NULL);
    qsa_interrupt_clear();
    if (st != QS_OK) {
        qsa_say("%s", err.text[0] != '\0' ? err.text : qs_status_text(st));
        qs_chat_truncate(c->s, keep_on_failure);
        if (st == QS_E_LIMIT && keep_on_failure > 0) say("(/clear begins a new conversation)");
        return;
    }
    if (qsa_finish_note(c->last.finish) != NULL) qsa_say("%s", qsa_finish_note(c->last.finish));
    say_speed(c);
}

static bool has_task(const qs_model *m, const char *task) {
    for (int32_t i = 0; qs_model_task(m, i) != NULL; i++)
        if (strcmp(qs_model_task(m, i), task) == 0) return true;
    return false;
}

/* What a model that names its tasks is good for. */
static void say_hint(const qs_model *m) {
    static const struct {
        const char *task, *en, *zh;
    } known[] = {
        { "poem", "write classical Chinese poems", "写古诗词" },
        { "couplet", "complete couplets", "对对联" },
        { "translate", "translate simple sentences", "中英互译简单的句子" },
    };
    char en[256] = "", zh[256] = "";
    size_t n = 0, at = 0, n_known = sizeof known / sizeof known[0];
    for (size_t i = 0; i < n_known; i++) n += has_task(m, known[i].task);
    for (size_t i = 0; i < n_known; i++) {
        if (!has_task(m, known[i].task)) continue;
        const char *comma = at == 0 ? "" : at + 1 < n ? ", " : " and ";
        size_t k = strlen(en), z = strlen(zh);
        snprintf(en + k, sizeof en - k, "%s%s", comma, known[i].en);
        snprintf(zh + z, sizeof zh - z, "%s%s", at > 0 ? "、" : "", known[i].zh);
        at++;
    }
    if (en[0] == '\0') return;
    say("This small model can %s. Try: Write a five-character quatrain titled 春雨.", en);
    say("这个小模型会%s。试试：写一首五绝，题为《春雨》。", zh);
}

static void say_welcome(const chat *c) {
    char count[32];
    say("%s (%s, %s parameters, context %" PRId64 "). /help shows the commands.",
        qs_model_name(c->m), qs_model_arch(c->m),
        qsa_format_count(count, sizeof count, (double)qs_model_n_params(c->m)),
        qs_session_n_ctx(c->s));
    say_hint(c->m);
}

/* ---- commands --------------------------------------------------------------------------------- */

static bool do_help(chat *c, const char *arg);

static bool do_system(chat *c, const char *arg) {
    qs_err err = { 0 };
    qs_turn first = qs_chat_turn(c->s, 0);
    bool has = qs_chat_n_turns(c->s) > 0 && first.role == QS_SYSTEM;
    if (arg[0] == '\0') {
        fprintf(stderr, "%s\n", has ? first.text : "no system text");
        return true;
    }
    bool off = strcmp(arg, "off") == 0;
    qs_status st = qs_chat_system(c->s, arg, off ? 0 : strlen(arg), &err);
    if (st != QS_OK) qsa_fail(st, &err);
    return true;
}

static bool do_file(chat *c, const char *arg,
                    qs_status (*fn)(chat *, const char *, qs_err *), const char *what,
                    const char *done) {
    char path[4096];
    qs_err err = { 0 };
    if (arg[0] == '\0' || !qsa_home_path(arg, path, sizeof path)) {
        qsa_say("which file? %s NAME", what);
        return true;
    }
    qs_status st = fn(c, path, &err);
    if (st != QS_OK) qsa_fail(st, &err);
    else fprintf(stderr, "%s: %" PRId64 " turns\n", done, qs_chat_n_turns(c->s));
    return true;
}

static qs_status save(chat *c, const char *path, qs_err *err) {
    return qs_chat_save(c->s, path, err);
}
static qs_status load(chat *c, const char *path, qs_err *err) {
    return qs_chat_load(c->s, path, err);
}
static bool do_save(chat *c, const char *arg) { return do_file(c, arg, save, "/save", "saved"); }
static bool do_load(chat *c, const char *arg) { return do_file(c, arg, load, "/load", "loaded"); }

static bool do_regen(chat *c, const char *arg) {
    int64_t n = qs_chat_n_turns(c->s);
    (void)arg;
    if (n > 0 && qs_chat_turn(c->s, n - 1).role == QS_ASSISTANT) qs_chat_truncate(c->s, --n);
    if (n == 0 || qs_chat_turn(c->s, n - 1).role == QS_SYSTEM || n_due(c->s) > 0) {
        qsa_say("there is no answer to make again");
        return true;
    }
    answer_shown(c, n);
    return true;
}

static bool do_clear(chat *c, const char *arg) {
    (void)arg;
    bool keep = qs_chat_n_turns(c->s) > 0 && qs_chat_turn(c->s, 0).role == QS_SYSTEM;
    qs_chat_truncate(c->s, keep ? 1 : 0);
    c->has_last = false;
    return true;
}

static bool do_stats(chat *c, const char *arg) {
    (void)arg;
    say("%" PRId64 " turns, %" PRId64 " of %" PRId64 " tokens of context; %d threads, %s",
        qs_chat_n_turns(c->s), qs_chat_n_turns(c->s) > 0 ? qs_session_n_ids(c->s) : 0,
        qs_session_n_ctx(c->s), (int)qs_model_threads(c->m), qs_model_isa(c->m));
    if (!c->has_last) return true;
    const qs_gen_stats *t = &c->last;
    say("last answer: %" PRId64 " tokens in %.2f s, %.1f tokens/s; prompt: %" PRId64 " tokens, %" PRId64
        " of them cached, %.2f s, %.1f tokens/s; ended by %s", t->n_generated, t->gen_s,
        rate(t->n_generated, t->gen_s), t->n_prompt, t->n_cached, t->prompt_s,
        rate(t->n_prompt - t->n_cached, t->prompt_s), qs_finish_text(t->finish));
    return true;
}

static bool do_quit(chat *c, const char *arg) {
    (void)c;
    (void)arg;
    return false;
}

/* One setting of /set: a number in [lo, hi], whole where its type is int. */
typedef struct setting {
    const char *name;
    double lo, hi;
    double *num;
    int32_t *i32;
    int64_t *i64;
} setting;

static void show_setting(const setting *t) {
    fprintf(stderr, "  %-18s %g\n", t->name,
            t->num != NULL ? *t->num : t->i32 != NULL ? (double)*t->i32 : (double)*t->i64);
}

static bool set_number(const setting *t, const char *text) {
    char *end;
    double v = strtod(text, &end);
    bool whole = t->num == NULL;
    if (end == text || *end != '\0' || !isfinite(v) || v < t->lo || v > t->hi ||
        (whole && v != floor(v))) {
        qsa_say("%s needs a %snumber from %g to %g, not '%s'", t->name, whole ? "whole " : "",
                t->lo, t->hi, text);
        return false;
    }
    if (t->num != NULL) *t->num = v;
    else if (t->i32 != NULL) *t->i32 = (int32_t)v;
    else *t->i64 = (int64_t)v;
    return true;
}

static bool set_stop(chat *c, const char *text) {
    free(c->stop);
    c->stop = text[0] != '\0' ? strdup(text) : NULL;
    c->stop_list[0] = c->stop;
    c->o.stops = c->stop_list;
    c->o.n_stops = c->stop != NULL;
    return true;
}

static bool do_set(chat *c, const char *arg) {
    qs_gen_opts *o = &c->o;
    const setting table[] = {
        { .name = "temp", .hi = 100, .num = &o->temp },
        { .name = "top-k", .hi = 1e9, .i32 = &o->top_k },
        { .name = "top-p", .hi = 1, .num = &o->top_p },
        { .name = "min-p", .hi = 1, .num = &o->min_p },
        { .name = "repeat-penalty", .lo = 1e-3, .hi = 1e3, .num = &o->repeat_penalty },
        { .name = "presence-penalty", .lo = -100, .hi = 100, .num = &o->presence_penalty },
        { .name = "frequency-penalty", .lo = -100, .hi = 100, .num = &o->frequency_penalty },
        { .name = "repeat-last-n", .lo = -1, .hi = 1e9, .i32 = &o->penalty_last_n },
        { .name = "n", .lo = -1, .hi = 1e9, .i64 = &o->n_predict },
        { .name = "seed", .lo = -1, .hi = 9e15, .i64 = &o->seed },
    };
    enum { N = sizeof table / sizeof table[0] };
    size_t n = strcspn(arg, " \t=");
    const char *value = arg + n + strspn(arg + n, " \t=");
    if (n == 0) {
        for (size_t i = 0; i < N; i++) show_setting(&table[i]);
        fprintf(stderr, "  %-18s %s\n", "stop", c->o.n_stops > 0 ? c->o.stops[0] : "");
        return true;
    }
    if (n == 4 && memcmp(arg, "stop", 4) == 0) return set_stop(c, value);
    for (size_t i = 0; i < N; i++) {
        if (strlen(table[i].name) != n || memcmp(table[i].name, arg, n) != 0) continue;
        if (value[0] == '\0') show_setting(&table[i]);
        else set_number(&table[i], value);
        return true;
    }
    qsa_say("there is no setting '%.*s'; /set alone shows them", (int)n, arg);
    return true;
}

static const struct command {
    const char *name, *args, *help;
    bool (*run)(chat *c, const char *arg); /* false: the chat ends */
} commands[] = {
    { "help", "", "this list", do_help },
    { "system", "[TEXT|off]", "show, set or remove the system text", do_system },
    { "save", "FILE", "write the conversation to a file", do_save },
    { "load", "FILE", "go on with a saved conversation", do_load },
    { "regen", "", "make the last answer again", do_regen },
    { "set", "[NAME VALUE]", "show or change sampling: temp, top-k, top-p, seed, n, stop ...", do_set },
    { "clear", "", "begin a new conversation (the system text stays)", do_clear },
    { "stats", "", "tokens, context and speed", do_stats },
    { "quit", "", "end (as Ctrl-D does)", do_quit },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static bool do_help(chat *c, const char *arg) {
    (void)c;
    (void)arg;
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  /%-6s %-13s %s\n", commands[i].name, commands[i].args, commands[i].help);
    fputs("  A line that ends with \\ goes on; \"\"\" begins and ends a text of several lines;\n"
          "  lines pasted together are one text, Enter sends it.\n"
          "  Ctrl-C ends the answer, Ctrl-D the chat.\n", stderr);
    return true;
}

/* text begins with a slash */
static bool run_command(chat *c, char *text) {
    size_t n = strcspn(text + 1, " \t\n");
    char *arg = text + 1 + n;
    arg += strspn(arg, " \t");
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, text + 1, n) == 0)
            return commands[i].run(c, arg);
    qsa_say("there is no command /%.*s; /help lists them (a text may begin with a space)", (int)n,
            text + 1);
    return true;
}

/* Trailing white space off; true when nothing is left. */
static bool trim(char *text, size_t *n) {
    while (*n > 0 && isspace((unsigned char)text[*n - 1])) --*n;
    text[*n] = '\0';
    return *n == 0;
}

/* One input; false: the chat ends. */
static bool take(chat *c, char *text, size_t n) {
    qs_err err = { 0 };
    if (trim(text, &n)) return true;
    if (text[0] == '/') return run_command(c, text);
    int64_t before = qs_chat_n_turns(c->s);
    qs_status st = add(c, text, n, &err);
    if (st != QS_OK) qsa_fail(st, &err);
    else if (n_due(c->s) == 0) answer_shown(c, before);
    if (n_due(c->s) > 0)
        say("(the result of a called function is wanted; %" PRId64 " to come)", n_due(c->s));
    return true;
}

static int talk(chat *c) {
    char history[4096];
    bool has_state = qsa_state_file("chat-history", history, sizeof history);
    qsa_input *in = qsa_input_open(has_state ? history : NULL);
    bool go_on = in != NULL;
    say_welcome(c);
    qsa_interrupt_catch(true);
    while (go_on && !ferror(stdout)) {
        const char *text = NULL;
        size_t n = 0;
        qsa_input_kind kind = qsa_input_next(in, &text, &n);
        qsa_interrupt_clear();
        if (kind == QSA_INPUT_BREAK) {
            fputs("\n(Ctrl-D or /quit ends the chat)\n", stderr);
        } else if (kind == QSA_INPUT_TEXT) {
            char *copy = strdup(text);
            go_on = copy != NULL && take(c, copy, strlen(copy));
            free(copy);
        } else {
            if (kind == QSA_INPUT_END) fputc('\n', stderr);
            go_on = false;
        }
    }
    qsa_interrupt_catch(false);
    qsa_input_close(in);
    return QSA_EXIT_OK;
}

static int take_tools(qs_session *s, const char *file) {
    qs_err err = { 0 };
    char *text = NULL;
    size_t n = 0;
    qs_status st = qsa_read_text(file, (size_t)4 << 20, &text, &n, &err);
    bool read = st == QS_OK;
    if (read) st = qs_chat_tools(s, text, n, &err);
    free(text);
    if (st == QS_OK) return QSA_GO;
    qsa_say("--tools %s%s%s%s", read ? "'" : "", read ? file : "", read ? "': " : "", err.text);
    return QSA_EXIT_FAILED;
}

int cmd_chat(int argc, char **argv) {
    qsa_model_args model = { 0 };
    qsa_gen_args gen = QSA_GEN_ARGS_INIT;
    const char *system = NULL, *saved = NULL, *tools = NULL;
    const qsa_opt opts[] = {
        QSA_MODEL_OPTS(model),
        QSA_OPT_STR(0, "system", "TEXT", &system, "system text in front of the conversation"),
        QSA_OPT_STR(0, "tools", "FILE", &tools,
                    "functions the model may call, as OpenAI's JSON array; the next lines are results"),
        QSA_OPT_STR(0, "load", "FILE", &saved, "go on with a conversation written by /save"),
        QSA_GEN_OPTS(gen),
    };
    const qsa_cmd cmd = {
        .name = "chat",
        .synopsis = "[MODEL] [options]",
        .about = "Talks with a model; without MODEL, with the small one that comes with the program.\n"
                 "From a pipe it reads one turn a line and prints only the answers. Sampling\n"
                 "settings come from the model file, else temperature 0.7 and top-p 0.95.\n",
        .examples = "  qiusuo chat\n"
                    "  qiusuo chat model.gguf --system \"Answer in one sentence.\"\n"
                    "  echo 写一首五绝，题为《春雨》 | qiusuo chat\n",
        .opts = opts, .n_opts = sizeof opts / sizeof opts[0], .max_pos = 1,
    };
    chat c = { 0 };
    qsa_pos pos;
    qs_err err = { 0 };
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    qsa_take_model(&model, &pos);
    if (pos.n > 0) return qsa_usage(&cmd, "the model is named twice");
    if (model.chat_template != NULL) { /* a chat needs it: said before the model is loaded */
        qs_status known = qs_chat_template_check(model.chat_template, &err);
        if (known != QS_OK) return qsa_fail(known, &err);
    }
    rc = qsa_open(&model, &c.m, &c.s);
    if (rc == QSA_GO) { /* and whether the file's own is known, before anybody types */
        qs_status known = qs_chat_check(c.m, &err);
        if (known != QS_OK) rc = qsa_fail(known, &err);
    }
    if (rc == QSA_GO && tools != NULL) rc = take_tools(c.s, tools);
    if (rc == QSA_GO) rc = qsa_gen_opts(&cmd, &gen, c.m, &c.o);
    if (rc == QSA_GO) {
        qs_status st = QS_OK;
        c.o.on_part = qsa_show_part;
        if (c.o.show_special) c.o.on_text = show_text; /* the answer is not taken apart then */
        c.o.user = &c.show;
        if (saved != NULL) st = qs_chat_load(c.s, saved, &err);
        if (st == QS_OK && system != NULL)
            st = qs_chat_system(c.s, system, strlen(system), &err);
        if (st != QS_OK) rc = qsa_fail(st, &err);
        else rc = isatty(STDIN_FILENO) ? talk(&c) : talk_piped(&c);
    }
    qs_session_free(c.s);
    qs_model_close(&c.m);
    qsa_gen_args_release(&gen);
    free(c.stop);
    return rc;
}
