/* Options, opening and interruption shared by chat, run and score. */
#include "gen_args.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_store.h"
#include "ui.h"

void qsa_take_model(qsa_model_args *a, qsa_pos *pos) {
    if (a->model != NULL || pos->n == 0) return;
    a->model = pos->v[0];
    pos->v++;
    pos->n--;
}

int qsa_no_drafts(const qsa_cmd *cmd, const qsa_model_args *a) {
    if (a->spec == NULL || strcmp(a->spec, "none") == 0) return QSA_GO;
    return qsa_usage(cmd, "--spec %s drafts tokens of an answer, and none is generated here", a->spec);
}

void qsa_log(void *user, int level, const char *text) {
    (void)user;
    qsa_say("%s%s", level > 0 ? "warning: " : "", text);
}

int32_t qsa_kv_type(const char *name) {
    static const struct { const char *name; int32_t type; } types[] = {
        {"f16", QS_KV_F16}, {"bf16", QS_KV_BF16}, {"f32", QS_KV_F32}, {"q8_0", QS_KV_Q8_0},
        {"q4_0", QS_KV_Q4_0},
    };
    for (size_t i = 0; name != NULL && i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0) return types[i].type;
    return QS_KV_F16;
}

const char *qsa_repack_dir(const char *given, char *buf, size_t cap) {
    char cache[4096];
    if (given == NULL || given[0] != '\0') return given;
    int n = snprintf(buf, cap, "%s/repacked", qsa_cache_dir(cache, sizeof cache));
    return n > 0 && (size_t)n < cap ? buf : NULL;
}

void qsa_model_opts(const qsa_model_args *a, qs_model_opts *mo, char *copies, size_t cap) {
    qs_model_opts_init(mo, sizeof *mo);
    mo->threads = (int32_t)a->threads;
    mo->isa = a->isa != NULL ? a->isa : getenv("QIUSUO_ISA");
    mo->numa = a->numa;
    mo->mlock = a->mlock;
    mo->memory_bytes = a->memory;
    mo->n_ctx = a->ctx;
    mo->kv_type = qsa_kv_type(a->kv);
    mo->rope_scaling = a->rope_scaling;
    mo->chat_template = a->chat_template;
    mo->rope_factor = a->rope_factor;
    mo->exact = a->exact;
    mo->mtp = a->spec != NULL && strcmp(a->spec, "mtp") == 0;
    mo->repack_cache = qsa_repack_dir(a->repack_cache, copies, cap);
    mo->progress = qsa_on_progress;
}

int qsa_open(const qsa_model_args *a, qs_model **m, qs_session **s) {
    qs_err err = { 0 };
    char path[4096], copies[4096 + 16];
    const char *file = a->model;
    qs_model_opts mo;
    qs_session_opts so;
    qsa_progress progress;
    qs_log_set(qsa_log, NULL);
    if (file == NULL) {
        qs_status st = qs_default_model(path, sizeof path, &err);
        if (st != QS_OK) return qsa_fail(st, &err);
        file = path;
    } else {
        file = qsa_model_path(file, path, sizeof path);
    }
    qsa_model_opts(a, &mo, copies, sizeof copies);
    mo.user = &progress;
    qsa_progress_begin(&progress, "loading", "B", 0);
    qs_status st = qs_model_open(m, file, &mo, &err);
    qsa_progress_end(&progress);
    if (st != QS_OK) {
        int rc = qsa_fail(st, &err);
        int n = snprintf(path, sizeof path, "%s/model.gguf", file);
        if (n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0)
            qsa_say("there is a model in that folder: '%s'", path);
        return rc;
    }
    qs_session_opts_init(&so, sizeof so);
    so.n_ctx = a->ctx;
    so.kv_type = qsa_kv_type(a->kv);
    st = qs_session_create(s, *m, &so, &err);
    if (st == QS_OK) {
        int64_t trained = qs_model_n_ctx(*m);
        if (a->ctx > trained)
            qsa_say("warning: the model was trained on %lld tokens of context; beyond them its "
                    "answers may be poor (--rope-scaling yarn helps)", (long long)trained);
        return QSA_GO;
    }
    qs_model_close(m);
    return qsa_fail(st, &err);
}

/* "ID=X", "ID+X", "ID-X" */
static bool parse_bias(const char *text, qs_bias *out) {
    char *end;
    long id = strtol(text, &end, 10);
    if (end == text || id < 0 || id > INT32_MAX) return false;
    if (*end != '=' && *end != '+' && *end != '-') return false;
    const char *num = *end == '=' ? end + 1 : end;
    double x = strtod(num, &end);
    if (end == num || *end != '\0' || isnan(x)) return false;
    *out = (qs_bias){ (int32_t)id, (float)x };
    return true;
}

/* A copy with \n, \t, \\ decoded. */
static char *unescape(const char *text) {
    size_t n = 0, len = strlen(text);
    char *out = malloc(len + 1);
    if (out == NULL) return NULL;
    for (const char *p = text; *p != '\0'; p++) {
        char c = *p;
        if (c == '\\' && (p[1] == 'n' || p[1] == 't' || p[1] == '\\')) {
            p++;
            c = *p == 'n' ? '\n' : *p == 't' ? '\t' : '\\';
        }
        out[n++] = c;
    }
    out[n] = '\0';
    return out;
}

int32_t qsa_think(const char *word) {
    return word == NULL || strcmp(word, "auto") == 0 ? QS_THINK_AUTO
           : strcmp(word, "on") == 0 ? QS_THINK_ON : QS_THINK_OFF;
}

int qsa_take_stops(const qsa_cmd *cmd, const qsa_list *stops, char **text) {
    for (size_t i = 0; i < stops->n; i++) {
        if (stops->v[i][0] == '\0') return qsa_usage(cmd, "--stop needs a text");
        text[i] = unescape(stops->v[i]);
        if (text[i] == NULL) return qsa_fail(QS_E_NOMEM, NULL);
    }
    return QSA_GO;
}

int qsa_gen_opts(const qsa_cmd *cmd, qsa_gen_args *a, const qs_model *m, qs_gen_opts *o) {
    qs_gen_opts_init(o, sizeof *o, m);
    if (a->has_temp) o->temp = a->temp;
    if (a->has_top_p) o->top_p = a->top_p;
    if (a->has_min_p) o->min_p = a->min_p;
    if (a->has_repeat) o->repeat_penalty = a->repeat;
    if (a->has_presence) o->presence_penalty = a->presence;
    if (a->has_frequency) o->frequency_penalty = a->frequency;
    if (a->has_top_k) o->top_k = (int32_t)a->top_k;
    if (a->has_last_n) o->penalty_last_n = (int32_t)a->last_n;
    o->seed = a->seed;
    o->n_predict = a->n_predict;
    o->think = qsa_think(a->think);
    o->ignore_end = a->ignore_eos;
    o->show_special = a->special;
    int rc = qsa_take_stops(cmd, &a->stops, a->stop_text);
    if (rc != QSA_GO) return rc;
    o->stops = (const char *const *)a->stop_text;
    o->n_stops = a->stops.n;
    for (size_t i = 0; i < a->bias.n; i++)
        if (!parse_bias(a->bias.v[i], &a->bias_value[i]))
            return qsa_usage(cmd, "--logit-bias needs ID=X, such as 42=-1.5 or 42=-inf, not '%s'",
                             a->bias.v[i]);
    o->bias = a->bias_value;
    o->n_bias = a->bias.n;
    return QSA_GO;
}

void qsa_gen_args_release(qsa_gen_args *a) {
    for (size_t i = 0; i < a->stops.n; i++) free(a->stop_text[i]);
}

const char *qsa_drafts(const qs_session *s, char *buf, size_t cap) {
    int64_t came = 0, all = qs_session_drafts(s, &came);
    buf[0] = '\0';
    if (all > 0) snprintf(buf, cap, "; %lld of %lld drafts came", (long long)came, (long long)all);
    return buf;
}

const char *qsa_finish_note(qs_finish f) {
    if (f == QS_FINISH_CONTEXT) return "the context is full: the answer was cut (-c N makes it larger)";
    if (f == QS_FINISH_LENGTH) return "the answer reached the limit of tokens (-n)";
    return NULL;
}

static void cancel(void *session) { qs_session_cancel(session); }

void qsa_cancel_on_interrupt(qs_session *s, bool on) {
    qsa_interrupt_call(on ? cancel : NULL, s);
    qsa_interrupt_catch(on);
}
