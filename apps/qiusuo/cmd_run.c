/* qiusuo run: one prompt, one answer. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "chat_show.h"
#include "commands.h"
#include "gen_args.h"
#include "ui.h"

#define MAX_PROMPT ((size_t)64 << 20)
#define HOLE "<FILL_ME>" /* where --fim fills in, as in the libraries of others */

typedef struct args {
    qsa_model_args model;
    qsa_gen_args gen;
    const char *prompt, *file, *system;
    const char *hole, *prefix, *suffix; /* of --fim; the last two are files */
    bool raw, json, no_special, stats, fim;
    int64_t n_probs;
} args;

/* What is asked: a prompt, or for --fim what stands before the hole, and what behind it. */
typedef struct question {
    const char *text, *behind;
    size_t n, n_behind;
    char *owned[2];
} question;

static int print_part(void *user, qs_part part, const char *p, size_t n) {
    return qsa_show_part(user, part, p, n) || qsa_interrupted();
}

static int print_text(void *user, const char *p, size_t n) {
    return print_part(user, QS_PART_TEXT, p, n);
}

/* For --json: [{"id":..,"logprob":..,"top":[[id,logprob],...]},...] */
static int keep_token(void *user, const qs_token *t) {
    json_t *o = json_object(), *top = json_array();
    json_object_set_new(o, "id", json_integer(t->id));
    json_object_set_new(o, "logprob", json_real(t->logprob));
    for (int32_t i = 0; i < t->n_top; i++)
        json_array_append_new(top, json_pack("[i,f]", (int)t->top[i].id, t->top[i].logprob));
    json_object_set_new(o, "top", top);
    return json_array_append_new(user, o) != 0;
}

static void print_json(qs_session *s, const qs_gen_stats *st, json_t *tokens) {
    size_t n;
    const char *text = qs_session_text(s, &n);
    json_t *o = json_object();
    json_object_set_new(o, "text", json_stringn(text, n));
    qs_turn turn = qs_chat_turn(s, qs_chat_n_turns(s) - 1);
    if (turn.n_reasoning > 0)
        json_object_set_new(o, "reasoning", json_stringn(turn.reasoning, turn.n_reasoning));
    json_object_set_new(o, "finish", json_string(qs_finish_text(st->finish)));
    json_object_set_new(o, "n_prompt", json_integer(st->n_prompt));
    json_object_set_new(o, "n_generated", json_integer(st->n_generated));
    json_object_set_new(o, "prompt_s", json_real(st->prompt_s));
    json_object_set_new(o, "gen_s", json_real(st->gen_s));
    int64_t came = 0, drafts = qs_session_drafts(s, &came);
    if (drafts > 0) json_object_set_new(o, "n_drafts", json_integer(drafts));
    if (drafts > 0) json_object_set_new(o, "n_drafts_came", json_integer(came));
    json_object_set(o, "tokens", tokens);
    json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
    putchar('\n');
    json_decref(o);
}

static void print_stats(const qs_session *s, const qs_gen_stats *st) {
    char drafts[80];
    double fed = (double)(st->n_prompt - st->n_cached), made = (double)st->n_generated;
    qsa_say("%" PRId64 " tokens in %.2f s, %.1f tokens/s; prompt: %" PRId64 " in %.2f s, %.1f "
            "tokens/s%s", st->n_generated, st->gen_s, st->gen_s > 0 ? made / st->gen_s : 0.0,
            st->n_prompt, st->prompt_s, st->prompt_s > 0 ? fed / st->prompt_s : 0.0,
            qsa_drafts(s, drafts, sizeof drafts));
}

static qs_status generate(const args *a, qs_session *s, const question *q, const qs_gen_opts *o,
                          qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    if (a->fim)
        return qs_generate_fim(s, q->text, q->n, q->behind, q->n_behind, o, stats, err);
    if (a->raw)
        return qs_generate(s, q->text, q->n, QS_ENCODE_BOS | (a->no_special ? 0 : QS_ENCODE_SPECIAL), o,
                           stats, err);
    if (a->system != NULL) st = qs_chat_add(s, QS_SYSTEM, a->system, strlen(a->system), err);
    if (st == QS_OK) st = qs_chat_add(s, QS_USER, q->text, q->n, err);
    if (st == QS_OK) st = qs_chat_answer(s, o, stats, err);
    return st;
}

static int answer(args *a, const qsa_cmd *cmd, const qs_model *m, qs_session *s, const question *q) {
    qs_err err = { 0 };
    qs_gen_opts o;
    qs_gen_stats stats = { 0 };
    qsa_show show;
    int rc = qsa_gen_opts(cmd, &a->gen, m, &o);
    if (rc != QSA_GO) return rc;
    json_t *tokens = json_array();
    if (a->json) {
        o.on_token = keep_token;
        o.top_logprobs = (int32_t)a->n_probs;
        o.user = tokens;
    } else {
        bool plain = a->raw || a->fim || o.show_special;
        qsa_show_begin(&show);
        if (plain) o.on_text = print_text;
        else o.on_part = print_part;
        o.user = &show;
    }
    qsa_cancel_on_interrupt(s, true);
    qs_status st = generate(a, s, q, &o, &stats, &err);
    qsa_cancel_on_interrupt(s, false);
    if (st == QS_OK) {
        bool asked = stats.finish == QS_FINISH_LENGTH && a->gen.n_predict >= 0;
        const char *note = asked ? NULL : qsa_finish_note(stats.finish);
        if (a->json) print_json(s, &stats, tokens);
        else if (!a->fim || isatty(STDOUT_FILENO)) qsa_show_end(&show, s, -1); /* a file wants no more */
        if (note != NULL) qsa_say("%s", note);
        if (a->stats) print_stats(s, &stats);
        rc = qsa_interrupted() ? QSA_EXIT_INTERRUPTED : QSA_EXIT_OK;
    } else {
        rc = qsa_fail(st, &err);
    }
    json_decref(tokens);
    return rc;
}

/* No prompt at all: a text may begin from nothing when that was asked for, a conversation may not. */
static int check_empty(const args *a, bool given) {
    if (a->raw && given) {
        qsa_say("the prompt is empty: a text is begun from nothing");
        return QSA_GO;
    }
    if (given || a->model.model == NULL || a->file != NULL) qsa_say("the prompt is empty");
    else qsa_say("the prompt is empty ('%s' is the model)", a->model.model);
    return QSA_EXIT_FAILED;
}

/* The prompt from -p, the argument, -f or a pipe. */
static int read_prompt(const args *a, const qsa_cmd *cmd, const qsa_pos *pos, question *q) {
    qs_err err = { 0 };
    const char *text = a->prompt != NULL ? a->prompt : pos->n > 0 ? pos->v[0] : NULL;
    const char *file = a->file;
    if (text != NULL && file != NULL) return qsa_usage(cmd, "a prompt and -f exclude each other");
    if (text != NULL && strcmp(text, "-") == 0) file = text;
    if (text == NULL && file == NULL) {
        if (isatty(STDIN_FILENO) && a->model.model != NULL)
            return qsa_usage(cmd, "which prompt? '%s' is the model", a->model.model);
        if (isatty(STDIN_FILENO)) return qsa_usage(cmd, "which prompt?");
        file = "-";
    }
    if (file != NULL) {
        qs_status st = qsa_read_text(file, MAX_PROMPT, &q->owned[0], &q->n, &err);
        if (st != QS_OK) return qsa_fail(st, &err);
        q->text = q->owned[0];
        if (!a->raw && !a->fim && q->n > 0 && q->text[q->n - 1] == '\n') q->n--;
    } else {
        q->text = text;
        q->n = strlen(text);
    }
    return q->n > 0 || a->fim ? QSA_GO : check_empty(a, text != NULL);
}

static const char *find_text(const char *p, size_t n, const char *word, size_t n_word) {
    for (; n >= n_word; p++, n--)
        if (memcmp(p, word, n_word) == 0) return p;
    return NULL;
}

/* Cuts the prompt at its only hole. */
static int cut_at_hole(const args *a, const qsa_cmd *cmd, question *q) {
    const char *hole = a->hole != NULL ? a->hole : HOLE;
    size_t n = strlen(hole);
    const char *at = n > 0 ? find_text(q->text, q->n, hole, n) : NULL;
    if (at == NULL)
        return qsa_usage(cmd, "the prompt has no hole: write %s where text is "
                         "missing", hole);
    q->behind = at + n;
    q->n_behind = q->n - (size_t)(q->behind - q->text);
    q->n = (size_t)(at - q->text);
    if (find_text(q->behind, q->n_behind, hole, n) != NULL)
        return qsa_usage(cmd, "the prompt has more than one hole (%s)", hole);
    return QSA_GO;
}

static int read_around(const args *a, const qsa_cmd *cmd, const qsa_pos *pos, question *q) {
    qs_err err = { 0 };
    qs_status st = QS_OK;
    if (pos->n > 0 || a->prompt != NULL || a->file != NULL || a->hole != NULL)
        return qsa_usage(cmd, "--prefix and --suffix exclude another prompt");
    if (a->prefix != NULL && a->suffix != NULL && strcmp(a->prefix, "-") == 0 &&
        strcmp(a->suffix, "-") == 0)
        return qsa_usage(cmd, "only one of --prefix and --suffix can be standard input");
    if (a->prefix != NULL) st = qsa_read_text(a->prefix, MAX_PROMPT, &q->owned[0], &q->n, &err);
    if (st == QS_OK && a->suffix != NULL)
        st = qsa_read_text(a->suffix, MAX_PROMPT, &q->owned[1], &q->n_behind, &err);
    q->text = q->owned[0] != NULL ? q->owned[0] : "";
    q->behind = q->owned[1] != NULL ? q->owned[1] : "";
    return st == QS_OK ? QSA_GO : qsa_fail(st, &err);
}

static int read_asked(args *a, const qsa_cmd *cmd, const qsa_pos *pos, question *q) {
    if (pos->n > 1 || (pos->n == 1 && a->prompt != NULL))
        return qsa_usage(cmd, "more than one prompt: put the text in quotes");
    if (a->raw && a->system != NULL) return qsa_usage(cmd, "--raw has no system text");
    bool around = a->prefix != NULL || a->suffix != NULL;
    if (a->hole != NULL || around) a->fim = true;
    if (a->fim && (a->raw || a->system != NULL || a->no_special))
        return qsa_usage(cmd, "--fim excludes --raw, --system and --no-special");
    if (around) return read_around(a, cmd, pos, q);
    int rc = read_prompt(a, cmd, pos, q);
    return rc == QSA_GO && a->fim ? cut_at_hole(a, cmd, q) : rc;
}

int cmd_run(int argc, char **argv) {
    args a = { .gen = QSA_GEN_ARGS_INIT };
    const qsa_opt opts[] = {
        QSA_MODEL_OPTS(a.model),
        QSA_OPT_STR('p', "prompt", "TEXT", &a.prompt, "the prompt"),
        QSA_OPT_STR('f', "file", "FILE", &a.file, "the prompt from a file"),
        QSA_OPT_STR(0, "system", "TEXT", &a.system, "system text in front of the conversation"),
        QSA_OPT_FLAG(0, "raw", &a.raw, "continue the text as it is, without the chat template"),
        QSA_OPT_FLAG(0, "no-special", &a.no_special, "with --raw: control tokens are plain text"),
        QSA_OPT_FLAG(0, "fim", &a.fim, "fill in the middle: the prompt has a hole, " HOLE),
        QSA_OPT_STR(0, "hole", "TEXT", &a.hole, "with --fim: what is written for the hole"),
        QSA_OPT_STR(0, "prefix", "FILE", &a.prefix, "fill in what follows this file"),
        QSA_OPT_STR(0, "suffix", "FILE", &a.suffix, "fill in what comes before this file"),
        QSA_GEN_OPTS(a.gen),
        QSA_OPT_FLAG(0, "json", &a.json, "print one JSON object with text, ids and log-probabilities"),
        QSA_OPT_INT(0, "top-logprobs", "K", &a.n_probs, 0, 1000, "with --json: K alternatives a token"),
        QSA_OPT_FLAG(0, "stats", &a.stats, "say how fast it was"),
    };
    const qsa_cmd cmd = {
        .name = "run",
        .synopsis = "MODEL [PROMPT] [options]",
        .about = "Prints the model's answer to one prompt: the argument, -p, -f, or standard input\n"
                 "when it is piped. Sampling settings come from the model file, else temperature 0.7\n"
                 "and top-p 0.95. Without MODEL, the one that comes with the program answers -p, -f\n"
                 "or standard input.\n",
        .examples = "  qiusuo run model.gguf \"Who was Li Bai?\"\n"
                    "  qiusuo run model.gguf --raw -n 50 --temp 0 -p \"床前明月光\"\n"
                    "  cat question.txt | qiusuo run model.gguf --seed 7\n"
                    "  qiusuo run coder.gguf --fim \"def add(a, b):\\n    <FILL_ME>\\n\" --temp 0\n"
                    "  qiusuo run coder.gguf --prefix head.py --suffix tail.py -n 200\n",
        .opts = opts, .n_opts = sizeof opts / sizeof opts[0], .max_pos = 2,
    };
    qsa_pos pos;
    qs_model *m = NULL;
    qs_session *s = NULL;
    question q = { .text = "", .behind = "" };
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    qsa_take_model(&a.model, &pos);
    rc = read_asked(&a, &cmd, &pos, &q);
    if (rc == QSA_GO) rc = qsa_open(&a.model, &m, &s);
    if (rc == QSA_GO) rc = answer(&a, &cmd, m, s, &q);
    qs_session_free(s);
    qs_model_close(&m);
    qsa_gen_args_release(&a.gen);
    free(q.owned[0]);
    free(q.owned[1]);
    return rc;
}
