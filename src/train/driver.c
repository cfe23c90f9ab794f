/* The training run; see driver.h. Owns the order of a step: learning rate, batch, gradients over the
 * micro-batches, their reduction over processes, norm and clip, update, validation, log row,
 * checkpoint. The run's state changes only when a step is complete, so that a stop in its middle
 * leaves the last complete step to be saved. */
#include "train/driver.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "sys/file.h"
#include "sys/runfile.h"
#include "train/export.h"
#include "train/plan.h"
#include "train/prepare.h"
#include "train/runstate.h"
#include "train/trainlog.h"

typedef struct run {
    const qsi_train_job *job;
    const qsi_comm *comm;
    qsi_prepared p;
    qsi_plan plan;
    qsi_net net;
    qsi_optim opt;
    qsi_dealer dealer;
    qsi_deal deal;
    qsi_micro micro;
    qsi_trainlog log;
    qsi_run_state s;
    qsi_str identity;
    qsi_type type;
    int64_t params, active;
    int64_t *load;           /* [n_layer * n_expert] */
    qsi_lock lock;
    int64_t saved_step;      /* of the last checkpoint; -1: none */
    int64_t saved_ns;
    double smooth, smooth_w; /* running mean of the loss, for people only */
    double last_val, peak;
    bool stopped, bf16;
} run;

static void send(const run *r, const qsi_train_event *e) {
    if (r->job->hooks.event != NULL) r->job->hooks.event(r->job->hooks.user, e);
}

static void note(const run *r, const char *fmt, ...) QS_PRINTF(2, 3);
static void note(const run *r, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    qsi_train_event e = {.kind = QSI_TE_NOTE, .text = text};
    send(r, &e);
}

static bool want_stop(const run *r) {
    return r->job->hooks.stop != NULL && r->job->hooks.stop(r->job->hooks.user) != 0;
}

static int on_prepare(void *user, const char *what, int64_t done, int64_t of) {
    const run *r = user;
    qsi_train_event e = {.kind = QSI_TE_PREPARE, .text = what, .done = done, .of = of};
    send(r, &e);
    return want_stop(r);
}

/* ---- files of the run ---- */

/* One process trains in a folder. The lock goes with the process, however it ends. */
static qs_status take_lock(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    QS_TRY(qsi_path_join(&path, r->job->dir, "lock"));
    st = qsi_lock_take(&r->lock, path.data, err);
    if (st == QS_E_STATE)
        QS_FAIL(err, QS_E_STATE, "another process is training in '%s'; wait for it, stop it, or use "
                "another --out", r->job->dir);
done:
    qsi_str_release(&path);
    return st;
}

static qs_status write_model(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qsi_export x = {.net = &r->net, .config = &r->p.config, .vocab = r->p.vocab, .type = r->type,
                    .conf = r->job->conf};
    /* a template belongs to a model that has seen conversations */
    if (r->p.add_template && r->p.shard.mask != NULL) x.jinja = qsi_chat_jinja(r->p.tmpl);
    QS_TRY(qsi_path_join(&path, r->job->dir, "model.gguf"));
    QS_TRY(qsi_export_write(&x, path.data, err));
done:
    qsi_str_release(&path);
    return st;
}

static qs_status write_curve(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, svg = {0};
    qsi_writer *w = NULL;
    QS_TRY(qsi_path_join(&path, r->job->dir, "loss.svg"));
    if (qsi_curve_svg(r->log.rows, r->log.n, NULL, &svg) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the loss curve");
    QS_TRY(qsi_writer_open(&w, path.data, err));
    QS_TRY(qsi_writer_write(w, svg.data, svg.len, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&path);
    qsi_str_release(&svg);
    return st;
}

static qs_status save(run *r, qsi_ckpt_mark mark, qs_err *err) {
    qs_status st = QS_OK;
    if (r->comm->rank != 0) return QS_OK;
    st = qsi_run_save(r->job->dir, &r->s, r->identity.data, &r->net, &r->opt, mark,
                      r->job->conf->keep, err);
    if (st == QS_OK) {
        r->saved_step = r->s.step;
        r->saved_ns = qsi_now_ns();
        st = write_model(r, err);
    }
    if (st == QS_OK) st = write_curve(r, err);
    if (st != QS_OK) {
        char whole[64] = "there is no checkpoint yet";
        if (r->saved_step > 0)
            snprintf(whole, sizeof whole, "the checkpoint of step %" PRId64 " is whole",
                     r->saved_step);
        qsi_err_prefix(err, "step %" PRId64 ", while saving (%s; make room and run the same command "
                       "again)", r->s.step, whole);
        goto done;
    }
    qsi_train_event e = {.kind = QSI_TE_SAVED, .step = r->s.step};
    send(r, &e);
done:
    return st;
}

/* ---- starting and resuming ---- */

/* Half-written files of a process that was killed; the lock says that it is gone. */
static void clean_folder(const run *r) {
    static const char *const names[] = {"model.gguf.", "log.csv.", "loss.svg.", "vocab.gguf.",
                                        "train.shard.", "valid.shard."};
    qsi_str path = {0};
    for (size_t i = 0; i < QSI_COUNT(names); i++) qsi_remove_leftovers(r->job->dir, names[i]);
    if (qsi_path_join(&path, r->job->dir, "checkpoints") == QS_OK) {
        qsi_remove_leftovers(path.data, "step-");
        qsi_remove_leftovers(path.data, "MANIFEST.");
    }
    qsi_str_release(&path);
}

/* Settings that are derived, unless they are given. */
static bool follows_text(const char *line, size_t n) {
    static const char *const keys[] = {"data.doc_bytes ", "tokenizer.size "};
    for (size_t i = 0; i < QSI_COUNT(keys); i++)
        if (n > strlen(keys[i]) && memcmp(line, keys[i], strlen(keys[i])) == 0) return true;
    return false;
}

static qs_status check_same(run *r, const qsi_run_state *s, const char *was, qs_err *err) {
    qs_status st = QS_OK;
    const char *now_line, *was_line;
    size_t n_now, n_was;
    /* settings first: another preset also makes another vocabulary and other data */
    if (!qsi_trainconf_same(was, r->identity.data, &now_line, &n_now, &was_line, &n_was))
        QS_FAIL(err, QS_E_STATE, "the run in '%s' was made with '%.*s', now it is '%.*s'%s; set "
                "it back or use another --out", r->job->dir, (int)(n_was > 120 ? 120 : n_was),
                was_line, (int)(n_now > 120 ? 120 : n_now), now_line,
                follows_text(was_line, n_was)
                    ? " (not set, it follows from preset and length of the text)" : "");
    /* a vocabulary that was learned changes with the text */
    if (s->vocab_hash != qsi_vocab_hash(r->p.vocab) || s->data_key != r->p.data_key)
        QS_FAIL(err, QS_E_STATE, "the text%s is not what the run in '%s' began with; use another "
                "--out, with --init '%s/model.gguf' to go on from its weights",
                r->job->conf->vocab != NULL ? " or the vocabulary" : "", r->job->dir, r->job->dir);
done:
    return st;
}

static double share_at(const run *r, const qsi_run_state *s) {
    return qsi_plan_share(&r->plan, s->step, s->tokens, s->elapsed);
}

static qs_status try_resume(run *r, bool *found, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str was = {0};
    qsi_run_state s = {0}, before = {0};
    const char *dir = r->job->dir;
    bool earlier = false;
    QS_TRY(qsi_run_load(dir, false, &s, &was, NULL, NULL, found, err));
    if (!*found) goto done;
    QS_TRY(check_same(r, &s, was.data, err));
    double from = qsi_sched_decay_from(&r->plan.sched);
    bool other = s.length_kind != (int64_t)r->plan.kind, inside = share_at(r, &s) < from;
    /* lengthened after its last stages had begun: back to where they began, also when the old end
     * lies in the new last stages, since its steps had the rates of the old ones */
    if (s.decaying && (inside || other || r->plan.length > s.length)) {
        QS_TRY(qsi_run_load(dir, true, &before, &was, NULL, NULL, &earlier, err));
        if (!earlier && (inside || !other))
            qsi_log(QSI_LOG_WARN, "the end of the constant stage was not kept: the longer run goes "
                    "on from step %" PRId64 ", whose rate had been lowered", s.step);
        earlier = earlier && share_at(r, &before) < from;
    }
    QS_TRY(qsi_run_load(dir, earlier, &r->s, &was, &r->net, &r->opt, found, err));
    if (!earlier && r->s.decaying && share_at(r, &r->s) < from) r->s.decaying = false;
    if (earlier)
        note(r, "the run is longer now: the last stages, steps %" PRId64 " to %" PRId64
             ", are given up and will be made again at its end", r->s.step + 1, s.step);
    r->saved_step = r->s.step;
done:
    qsi_str_release(&was);
    return st;
}

static qs_status begin_fresh(run *r, qs_err *err) {
    qs_status st = QS_OK;
    r->s = (qsi_run_state){.seed = (uint64_t)r->job->conf->seed,
                           .vocab_hash = qsi_vocab_hash(r->p.vocab), .data_key = r->p.data_key};
    if (r->p.init != NULL) {
        st = r->net.load_gguf(r->net.self, r->p.init, err);
        if (st != QS_OK) qsi_err_prefix(err, "'%s'", r->job->conf->init);
    } else {
        r->net.init_random(r->net.self, r->s.seed, (float)r->job->conf->init_std);
    }
    return st;
}

/* A little less than what a run of `rows` at a time takes, so that nothing is refused that fits
 * (measured for tiny, mini and small with 512, 2048 and 4096 rows: 7 to 18 % less for the rows). */
static qs_status check_memory(run *r, int64_t rows, qs_err *err) {
    const qsi_config *c = &r->p.config;
    /* masters, gradients, two moments, and the prepared copies of the products */
    double need = 22.0 * (double)r->params, have = (double)qsi_mem_available();
    /* what the backward pass needs of every row and layer */
    need += 70.0 * (double)c->d_model * (double)c->n_layer * (double)rows;
    char need_text[QSI_SIZE_TEXT], have_text[QSI_SIZE_TEXT];
    if (have > 0 && need > have)
        return qsi_err_set(err, QS_E_NOMEM, "training %.1f M parameters, %" PRId64 " tokens at a "
                           "time, needs about %s, %s are free; choose a smaller preset, fewer "
                           "experts, or a smaller train.micro_tokens", (double)r->params / 1e6, rows,
                           qsi_size_text(need_text, (uint64_t)need),
                           qsi_size_text(have_text, (uint64_t)have));
    return QS_OK;
}

static qs_status make_net(run *r, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_trainconf *c = r->job->conf;
    const qsi_kern *kern = qsi_kern_get(r->job->isa);
    r->bf16 = strcmp(c->precision, "bf16") == 0 ||
              (strcmp(c->precision, "auto") == 0 && kern->bf16_native);
    r->params = qsi_config_params(&r->p.config, &r->active);
    int64_t rows = c->micro_tokens < c->batch_tokens ? c->micro_tokens : c->batch_tokens;
    if (rows < r->p.config.n_ctx) rows = r->p.config.n_ctx;
    QS_TRY(check_memory(r, rows, err));
    qsi_train_opts o = {.pool = r->job->pool, .isa = r->job->isa,
                        .precision = r->bf16 ? QSI_TRAIN_BF16 : QSI_TRAIN_F32, .max_rows = (int)rows,
                        .balance_alpha = (float)c->balance_alpha,
                        .balance_per_seq = strcmp(c->balance_per, "sequence") == 0,
                        .comm = qsi_comm_self()};
    QS_TRY(r->job->make(&r->net, &r->p.config, &o, r->job->make_user, err));
    qsi_adamw_opts a = {.beta1 = (float)c->beta1, .beta2 = (float)c->beta2, .eps = (float)c->eps,
                        .decay = (float)c->decay, .clip = (float)c->clip};
    QS_TRY(qsi_optim_init(&r->opt, &r->net, r->job->pool, kern, &a, err));
    QS_TRY(qsi_micro_init(&r->micro, (int32_t)rows, err));
    if (r->net.expert_load != NULL) {
        r->load = qsi_calloc((size_t)r->p.config.n_layer * (size_t)r->p.config.n_expert,
                             sizeof(*r->load));
        if (r->load == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for expert counts");
    }
done:
    return st;
}

static qs_status begin(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_trainconf *c = r->job->conf;
    qsi_str path = {0};
    bool found = false;
    QS_TRY(qsi_export_check(c, &r->type, err));
    QS_TRY(qsi_make_dirs(r->job->dir, err));
    QS_TRY(take_lock(r, err));
    clean_folder(r);
    QS_TRY(qsi_prepare(&r->p, c, r->job->dir, r->job->pool, on_prepare, r, err));
    int64_t params = qsi_config_params(&r->p.config, NULL);
    QS_TRY(qsi_plan_make(&r->plan, c, r->p.train.n_tokens, params, err));
    if (qsi_trainconf_identity(c, &r->identity) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(make_net(r, err));
    QS_TRY(try_resume(r, &found, err));
    if (!found) QS_TRY(begin_fresh(r, err));
    r->s.length_kind = r->plan.kind;
    r->s.length = r->plan.length;
    r->net.refresh(r->net.self);
    QS_TRY(qsi_dealer_init(&r->dealer, &r->p.train, r->s.seed, r->p.weights, r->p.n_weights, err));
    r->dealer.pos = r->s.pos;
    QS_TRY(qsi_path_join(&path, r->job->dir, "log.csv"));
    QS_TRY(qsi_trainlog_open(&r->log, path.data, r->s.step, err));
    if (found && share_at(r, &r->s) < 1) note(r, "resumed at step %" PRId64, r->s.step);
    if (!found)
        note(r, "%.2f M parameters (%.2f M active), vocabulary %d, context %d; text: %" PRId64
             " documents, %" PRId64 " tokens to train on, %" PRId64 " to validate",
             (double)r->params / 1e6, (double)r->active / 1e6, r->p.config.n_vocab,
             r->p.config.n_ctx, r->p.shard.n_docs, r->p.train.n_tokens, r->p.valid.n_tokens);
done:
    qsi_str_release(&path);
    return st;
}

/* ---- one step ---- */

/* Loss and gradients of the windows dealt: *loss is the mean over all targets of all processes. */
static qs_status gradients(run *r, double *loss, qs_err *err) {
    qs_status st = QS_OK;
    double sum = 0;
    const qsi_deal *d = &r->deal;
    r->net.zero_grad(r->net.self);
    for (size_t next = (size_t)r->comm->rank; next < d->n;) {
        qsi_train_out out = {0};
        if (want_stop(r)) {
            r->stopped = true;
            goto done;
        }
        qsi_micro_fill(&r->micro, &r->p.train, d->v, d->n, (size_t)r->comm->size, &next);
        qsi_train_batch b = {.n_rows = r->micro.n_rows, .ids = r->micro.ids, .seq = r->micro.seq,
                             .pos = r->micro.pos, .targets = r->micro.targets,
                             .scale = (float)(1.0 / (double)d->n_targets)};
        float share = (float)((double)r->micro.n_rows / (double)d->n_tokens);
        QS_TRY(r->net.loss(r->net.self, &b, true, share, &out, err));
        sum += out.loss_sum;
    }
    QS_TRY(r->comm->sum_f64(r->comm, &sum, 1, err));
    for (size_t i = 0; r->comm->size > 1 && i < r->net.n_params(r->net.self); i++) {
        qsi_param *p = r->net.param(r->net.self, i);
        QS_TRY(r->comm->sum_f32(r->comm, p->grad, (size_t)p->n, err));
    }
    *loss = sum / (double)d->n_targets;
done:
    return st;
}

/* Goes to its end even when a stop is wanted: the log of a run that was stopped must be that of one
 * that was not. */
static qs_status validate(run *r, double *val, qs_err *err) {
    qs_status st = QS_OK;
    double sum = 0;
    int64_t n = 0, tokens = 0;
    *val = NAN;
    for (size_t next = 0; next < r->p.valid.n && tokens < r->job->conf->valid_tokens;) {
        qsi_train_out out = {0};
        qsi_micro_fill(&r->micro, &r->p.valid, NULL, r->p.valid.n, 1, &next);
        qsi_train_batch b = {.n_rows = r->micro.n_rows, .ids = r->micro.ids, .seq = r->micro.seq,
                             .pos = r->micro.pos, .targets = r->micro.targets, .scale = 1};
        QS_TRY(r->net.loss(r->net.self, &b, false, 0, &out, err));
        sum += out.loss_sum;
        n += out.n_targets;
        tokens += r->micro.n_rows;
    }
    if (n > 0) *val = sum / (double)n;
done:
    return st;
}

/* Busiest expert over the mean, of the worst layer, since the last call. */
static double imbalance(run *r) {
    double worst = NAN;
    int32_t ne = r->p.config.n_expert;
    if (r->load == NULL) return worst;
    r->net.expert_load(r->net.self, r->load);
    for (int32_t l = 0; l < r->p.config.n_layer; l++) {
        int64_t sum = 0, most = 0;
        for (int32_t e = 0; e < ne; e++) {
            int64_t k = r->load[(int64_t)l * ne + e];
            sum += k;
            if (k > most) most = k;
        }
        if (sum > 0) worst = fmax(worst, (double)most * ne / (double)sum);
    }
    return worst;
}

/* Operations of a trained token: 6 a weight it meets, and 12 x heads x head_dim for half the
 * positions before it, per layer; recomputation does not count. */
static double token_flops(const run *r) {
    double pos = 0;
    for (size_t i = 0; i < r->deal.n; i++) {
        double n = r->p.train.v[r->deal.v[i]].n;
        pos += n * n / 2;
    }
    const qsi_config *k = &r->p.config;
    return 6.0 * (double)r->active +
           12.0 * k->n_layer * k->n_head * k->head_dim * pos / (double)r->deal.n_tokens;
}

static void tell_step(run *r, const qsi_log_row *row, double step_s) {
    r->smooth = 0.95 * r->smooth + 0.05 * row->loss;
    r->smooth_w = 0.95 * r->smooth_w + 0.05;
    double share = share_at(r, &r->s), left = NAN;
    if (r->plan.kind == QSI_LEN_HOURS) left = r->plan.length * 3600 - r->s.elapsed;
    else if (share > 0) left = (1 / share - 1) * (double)r->s.step * step_s;
    qsi_train_event e = {
        .kind = QSI_TE_STEP, .step = row->step, .tokens = row->tokens, .loss = row->loss,
        .total_steps = r->plan.kind == QSI_LEN_HOURS
                           ? 0 : (int64_t)ceil((double)row->step / fmin(share, 1) - 1e-9),
        .smooth = r->smooth / r->smooth_w, .val_loss = row->val_loss, .lr = row->lr,
        .grad_norm = row->grad_norm, .tok_s = row->tok_s, .imbalance = imbalance(r),
        .peak_share = r->peak > 0 ? row->tok_s * token_flops(r) / r->peak : NAN,
        .left_s = left < 0 ? 0 : left};
    send(r, &e);
}

static qs_status not_finite(const run *r, const char *what, double v, qs_err *err) {
    return qsi_err_set(err, QS_E_NUMERIC, "step %" PRId64 ": the %s is %s; the checkpoint of step %"
                       PRId64 " is intact. A lower learning rate or more warm-up steps usually "
                       "help (train.lr, train.warmup_steps)", r->s.step + 1, what,
                       isnan(v) ? "not a number" : "infinite", r->saved_step < 0 ? 0 : r->saved_step);
}

static qs_status one_step(run *r, double *step_s, qs_err *err) {
    qs_status st = QS_OK;
    double loss = 0, val = NAN;
    int64_t t0 = qsi_now_ns();
    double lr = qsi_sched_lr(&r->plan.sched, r->s.step, share_at(r, &r->s));
    r->dealer.pos = r->s.pos;
    QS_TRY(qsi_dealer_next(&r->dealer, r->job->conf->batch_tokens, &r->deal, err));
    st = gradients(r, &loss, err);
    if (st == QS_E_NUMERIC) qsi_err_prefix(err, "step %" PRId64, r->s.step + 1);
    if (st != QS_OK || r->stopped) goto done;
    if (!isfinite(loss)) {
        st = not_finite(r, "loss", loss, err);
        goto done;
    }
    double norm = qsi_optim_grad_norm(&r->opt);
    if (!isfinite(norm)) {
        st = not_finite(r, "norm of the gradients", norm, err);
        goto done;
    }
    qsi_optim_step(&r->opt, r->s.step + 1, lr, norm);
    r->net.refresh(r->net.self);
    *step_s = (double)(qsi_now_ns() - t0) * 1e-9;
    r->s.step++;
    r->s.tokens += r->deal.n_tokens;
    r->s.pos = r->dealer.pos;
    r->s.elapsed += *step_s;
    bool end = share_at(r, &r->s) >= 1;
    if (r->p.valid.n > 0 && (r->s.step % r->plan.valid_every == 0 || end)) {
        int64_t v0 = qsi_now_ns();
        QS_TRY(validate(r, &val, err));
        r->s.elapsed += (double)(qsi_now_ns() - v0) * 1e-9;
        if (!isnan(val)) r->last_val = val;
    }
    qsi_log_row row = {.step = r->s.step, .tokens = r->s.tokens, .loss = loss, .val_loss = val,
                       .lr = lr, .grad_norm = norm,
                       .tok_s = (double)r->deal.n_tokens / fmax(*step_s, 1e-9)};
    if (r->comm->rank == 0) QS_TRY(qsi_trainlog_add(&r->log, &row, err));
    tell_step(r, &row, *step_s);
done:
    return st;
}

/* ---- the loop ---- */

static void take_samples(run *r) {
    const qsi_trainconf *c = r->job->conf;
    qsi_str path = {0}, text = {0};
    if (r->job->hooks.sample == NULL || c->prompts.n == 0 || r->comm->rank != 0) return;
    if (qsi_path_join(&path, r->job->dir, "model.gguf") != QS_OK) goto done;
    for (size_t i = 0; i < c->prompts.n && !want_stop(r); i++) {
        qs_err why = {0};
        qsi_str_clear(&text);
        const qsi_sample_ask ask = {.model = path.data, .prompt = c->prompts.v[i],
                                    .chat = r->p.shard.mask != NULL && r->p.tmpl != NULL,
                                    .max_tokens = c->sample_tokens, .temp = c->sample_temp,
                                    .seed = c->seed};
        qs_status st = r->job->hooks.sample(r->job->hooks.user, &ask, &text, &why);
        if (st != QS_OK) { /* a sample is for people; training goes on without it */
            qsi_log(QSI_LOG_WARN, "no sample: %s", why.text);
            break;
        }
        qsi_train_event e = {.kind = QSI_TE_SAMPLE, .step = r->s.step, .prompt = c->prompts.v[i],
                             .text = text.data != NULL ? text.data : ""};
        send(r, &e);
    }
done:
    qsi_str_release(&path);
    qsi_str_release(&text);
}

static qs_status loop(run *r, qs_err *err) {
    qs_status st = QS_OK;
    double step_s = 0, from = qsi_sched_decay_from(&r->plan.sched);
    int64_t last_sample = r->s.step;
    r->saved_ns = qsi_now_ns();
    while (share_at(r, &r->s) < 1 && !r->stopped) {
        if (!r->s.decaying && r->plan.sched.kind == QSI_SCHED_MULTISTEP &&
            share_at(r, &r->s) >= from) {
            if (r->s.step > 0) QS_TRY(save(r, QSI_MARK_STAGE, err));
            r->s.decaying = true;
        }
        if (want_stop(r)) {
            r->stopped = true;
            break;
        }
        QS_TRY(one_step(r, &step_s, err));
        if (r->stopped) break;
        double since = (double)(qsi_now_ns() - r->saved_ns) * 1e-9;
        int64_t steps = r->s.step - (r->saved_step < 0 ? 0 : r->saved_step);
        bool sample = r->job->conf->prompts.n > 0 &&
                      r->s.step - last_sample >= r->plan.sample_every;
        if (sample || qsi_plan_ckpt_due(&r->plan, steps, since, step_s)) {
            int64_t v0 = qsi_now_ns();
            QS_TRY(save(r, QSI_MARK_LAST, err));
            if (sample) {
                take_samples(r);
                last_sample = r->s.step;
            }
            r->s.elapsed += (double)(qsi_now_ns() - v0) * 1e-9;
        }
    }
    if (r->saved_step != r->s.step && r->s.step > 0) QS_TRY(save(r, QSI_MARK_LAST, err));
done:
    return st;
}

/* The model and the curve are written again: the process may have ended between the last checkpoint
 * and them, or someone removed them. The bytes are those of the finished run. */
static qs_status already_done(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    QS_TRY(qsi_path_join(&path, r->job->dir, "model.gguf"));
    QS_TRY(write_model(r, err));
    QS_TRY(write_curve(r, err));
    note(r, "already finished: %" PRId64 " steps, %" PRId64 " tokens; the model is '%s'. Ask for "
         "more steps to go on", r->s.step, r->s.tokens, path.data);
done:
    qsi_str_release(&path);
    return st;
}

static void release(run *r) {
    qsi_trainlog_close(&r->log);
    qsi_dealer_release(&r->dealer);
    qsi_free(r->deal.v);
    qsi_micro_release(&r->micro);
    qsi_optim_release(&r->opt);
    if (r->net.free != NULL) r->net.free(r->net.self);
    qsi_prepared_release(&r->p);
    qsi_str_release(&r->identity);
    qsi_free(r->load);
    qsi_lock_release(&r->lock);
    qsi_free(r);
}

qs_status qsi_train_run(const qsi_train_job *job, qsi_train_result *result, qs_err *err) {
    qs_status st = QS_OK;
    bool done_before = false;
    run *r = qsi_calloc(1, sizeof(*r));
    if (r == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory for a training run");
    r->job = job;
    r->comm = job->comm != NULL ? job->comm : qsi_comm_self();
    r->lock.fd = -1;
    r->log.file.fd = -1;
    r->saved_step = -1;
    r->last_val = NAN;
    r->p.shard.map.fd = r->p.valid_shard.map.fd = -1;
    QS_TRY(begin(r, err));
    done_before = share_at(r, &r->s) >= 1;
    if (done_before) QS_TRY(already_done(r, err));
    else {
        if (job->hooks.peak != NULL)
            r->peak = job->hooks.peak(job->hooks.user, job->pool, job->isa, r->bf16);
        QS_TRY(loop(r, err));
    }
    const qsi_log_row *last = r->log.n > 0 ? &r->log.rows[r->log.n - 1] : NULL;
    *result = (qsi_train_result){.step = r->s.step, .tokens = r->s.tokens, .params = r->params,
                                 .active_params = r->active,
                                 .loss = last != NULL ? last->loss : NAN, .val_loss = r->last_val,
                                 .was_finished = done_before, .stopped = r->stopped};
done:
    release(r);
    return st;
}
