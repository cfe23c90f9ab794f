/* qs_train: puts configuration, pool, net and hooks together for the training driver. */
#include "qiusuo/train.h"

#include <string.h>

#include "base/log.h"
#include "op/probe.h"
#include "qiusuo/qiusuo.h"
#include "sys/cpu.h"
#include "sys/file.h"
#include "train/driver.h"

#define DEFAULT_OUT "qiusuo-run"

static const qs_train_event_kind kinds[] = {
    [QSI_TE_NOTE] = QS_TRAIN_NOTE, [QSI_TE_PREPARE] = QS_TRAIN_PREPARE,
    [QSI_TE_STEP] = QS_TRAIN_STEP, [QSI_TE_SAVED] = QS_TRAIN_SAVED,
    [QSI_TE_SAMPLE] = QS_TRAIN_SAMPLE};

static void on_event(void *user, const qsi_train_event *e) {
    const qs_train_opts *o = user;
    if (o->event == NULL) return;
    const qs_train_event x = {
        .kind = kinds[e->kind], .text = e->text, .prompt = e->prompt, .done = e->done, .of = e->of,
        .step = e->step, .total_steps = e->total_steps, .tokens = e->tokens, .loss = e->loss,
        .smooth_loss = e->smooth, .val_loss = e->val_loss, .lr = e->lr, .grad_norm = e->grad_norm,
        .tok_s = e->tok_s, .peak_share = e->peak_share, .imbalance = e->imbalance,
        .left_s = e->left_s};
    o->event(o->user, &x);
}

static int on_stop(void *user) {
    const qs_train_opts *o = user;
    return o->stop != NULL ? o->stop(o->user) : 0;
}

/* Notes of the models that samples are taken from are not this run's. */
static void on_log(void *user, qsi_log_level level, const char *text) {
    const qs_train_opts *o = user;
    const qs_train_event x = {.kind = QS_TRAIN_WARNING, .text = text};
    if (o->event != NULL && level == QSI_LOG_WARN) o->event(o->user, &x);
}

static double on_peak(void *user, qsi_pool *pool, qsi_isa isa, bool bf16) {
    const qs_train_opts *o = user;
    qsi_limits l = {0};
    if (!o->measure_peak || qsi_probe(pool, isa, &l, NULL) != QS_OK) return 0;
    return 1e9 * (bf16 ? l.bf16_gflop_s : l.fp32_gflop_s);
}

static qs_status on_sample(void *user, const qsi_sample_ask *ask, qsi_str *out, qs_err *err) {
    const qs_train_opts *o = user;
    qs_status st = QS_OK;
    qs_model *m = NULL;
    qs_session *s = NULL;
    qs_model_opts mo;
    qs_gen_opts go;
    size_t n = strlen(ask->prompt), n_text = 0;
    qs_model_opts_init(&mo, sizeof(mo));
    mo.threads = o->threads;
    mo.isa = o->isa;
    QS_TRY(qs_model_open(&m, ask->model, &mo, err));
    QS_TRY(qs_session_create(&s, m, NULL, err));
    qs_gen_opts_init(&go, sizeof(go), m);
    go.temp = ask->temp;
    go.seed = ask->seed;
    go.n_predict = ask->max_tokens;
    if (ask->chat) {
        QS_TRY(qs_chat_add(s, QS_USER, ask->prompt, n, err));
        QS_TRY(qs_chat_answer(s, &go, NULL, err));
    } else {
        QS_TRY(qs_generate(s, ask->prompt, n, QS_ENCODE_BOS, &go, NULL, err));
    }
    const char *text = qs_session_text(s, &n_text);
    if (qsi_str_append(out, text, n_text) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a sample");
done:
    qs_session_free(s);
    qs_model_close(&m);
    return st;
}

static qs_status set(qsi_trainconf *c, const char *key, const char *value, qs_err *err) {
    return value != NULL ? qsi_trainconf_set(c, key, value, err) : QS_OK;
}

static qs_status set_number(qsi_trainconf *c, const char *key, double v, qs_err *err) {
    char text[40];
    snprintf(text, sizeof(text), "%.17g", v);
    return qsi_trainconf_set(c, key, text, err);
}

static qs_status apply_setting(qsi_trainconf *c, const char *s, qs_err *err) {
    char key[160];
    const char *eq = strchr(s, '=');
    size_t n = eq != NULL ? (size_t)(eq - s) : 0;
    if (n == 0 || n >= sizeof(key))
        return qsi_err_set(err, QS_E_ARG, "'%.80s' is not section.key=value", s);
    memcpy(key, s, n);
    key[n] = '\0';
    return qsi_trainconf_set(c, key, eq + 1, err);
}

/* A length given by the caller replaces the configuration's, of whatever kind that was. */
static qs_status apply_length(const qs_train_opts *o, qsi_trainconf *c, qs_err *err) {
    qs_status st = QS_OK;
    if (o->steps <= 0 && o->tokens <= 0 && !(o->hours > 0)) goto done;
    c->steps = c->tokens = QSI_AUTO;
    c->hours = QSI_AUTO;
    if (o->steps > 0) QS_TRY(set_number(c, "train.steps", (double)o->steps, err));
    if (o->tokens > 0) QS_TRY(set_number(c, "train.tokens", (double)o->tokens, err));
    if (o->hours > 0) QS_TRY(set_number(c, "train.hours", o->hours, err));
done:
    return st;
}

static qs_status configure(const qs_train_opts *o, qsi_trainconf *c, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    if (o->config != NULL) {
        QS_TRY(qsi_file_read(o->config, QSI_TRAINCONF_MAX_BYTES + 1, &text, err));
        QS_TRY(qsi_trainconf_parse(c, o->config, text.data != NULL ? text.data : "", text.len,
                                   err));
    }
    if (o->n_texts > 0) {
        c->train.n = 0;
        if (qsi_grow((void **)&c->train.v, &c->train.cap, o->n_texts, sizeof(*c->train.v)) !=
            QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for the list of texts");
        for (size_t i = 0; i < o->n_texts; i++) c->train.v[c->train.n++] = o->texts[i];
    }
    QS_TRY(set(c, "run.out", o->out, err));
    QS_TRY(set(c, "model.preset", o->preset, err));
    QS_TRY(set(c, "model.init", o->init, err));
    QS_TRY(set(c, "output.type", o->type, err));
    if (o->seed_given) QS_TRY(set_number(c, "run.seed", (double)o->seed, err));
    if (o->threads > 0) QS_TRY(set_number(c, "run.threads", o->threads, err));
    QS_TRY(apply_length(o, c, err));
    for (size_t i = 0; i < o->n_settings; i++) QS_TRY(apply_setting(c, o->settings[i], err));
done:
    qsi_str_release(&text);
    return st;
}

static qs_status choose_dir(const qs_train_opts *o, const qsi_trainconf *c, qsi_str *dir,
                            qs_err *err) {
    qs_status st = QS_OK;
    const char *out = c->out != NULL ? c->out : DEFAULT_OUT;
    if (strncmp(out, "state:", 6) != 0) {
        QS_TRY(qsi_str_puts(dir, out));
        goto done;
    }
    if (o->state_dir == NULL || out[6] == '\0')
        QS_FAIL(err, QS_E_ARG, "'%s': there is no state folder; name a folder with --out", out);
    QS_TRY(qsi_path_join(dir, o->state_dir, out + 6));
done:
    return st;
}

qs_status qs_train(const qs_train_opts *o, qs_train_result *result, qs_err *err) {
    qs_status st = QS_OK;
    qsi_trainconf c;
    qsi_pool *pool = NULL;
    qsi_str dir = {0};
    qsi_isa isa = qsi_cpu_isa();
    qsi_train_result r = {0};
    qs_train_opts mine = *o;
    qsi_trainconf_init(&c);
    qsi_log_set(on_log, &mine);
    QS_TRY(configure(o, &c, err));
    QS_TRY(choose_dir(o, &c, &dir, err));
    QS_TRY(qsi_isa_parse(o->isa != NULL ? o->isa : "auto", &isa, err));
    QS_TRY(qsi_pool_create(&pool, (int)c.threads, err));
    qsi_train_job job = {.conf = &c, .dir = dir.data, .pool = pool, .isa = isa,
                         .make = qsi_net_model,
                         .hooks = {.user = &mine, .event = on_event, .stop = on_stop,
                                   .sample = on_sample, .peak = on_peak}};
    QS_TRY(qsi_train_run(&job, &r, err));
    *result = (qs_train_result){.step = r.step, .tokens = r.tokens, .params = r.params,
                                .active_params = r.active_params, .loss = r.loss,
                                .val_loss = r.val_loss, .was_finished = r.was_finished,
                                .stopped = r.stopped};
    snprintf(result->model, sizeof(result->model), "%s/model.gguf", dir.data);
done:
    qsi_log_set(NULL, NULL);
    qsi_pool_free(pool);
    qsi_str_release(&dir);
    qsi_trainconf_release(&c);
    return st;
}
