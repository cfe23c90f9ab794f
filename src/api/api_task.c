/* Benchmarks, for the public API. */
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "infer/walk.h"
#include "measure/task_run.h"
#include "qiusuo/measure.h"
#include "sys/file.h"

#define PROBE 24        /* ids that a model is told apart by */
#define PROBE_BYTES 256 /* of each tensor, for the same */

/* A report and what it consists of. */
typedef struct task_report {
    qs_eval_task_report pub;
    qsi_task_report in;
    qs_eval_part *parts;
    qsi_str json;
} task_report;

_Static_assert(QS_EVAL_SCORES == QSI_TASK_METRICS, "as many scores in both");

void qs_eval_task_opts_init(qs_eval_task_opts *o, size_t size) {
    memset(o, 0, size);
    memcpy(o, &size, sizeof size);
    o->shots = -1;
}

/* The first data file of a folder. */
static qs_status first_file(const char *dir, qsi_str *path, qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0;
    QS_TRY(qsi_dir_list(dir, &names, &n, err));
    for (size_t i = 0; i < n && path->len == 0; i++)
        if (qsi_task_is_data(names[i]) && qsi_path_join(path, dir, names[i]) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (path->len == 0)
        QS_FAIL(err, QS_E_NOTFOUND, "'%s' holds no .csv, .json or .jsonl file", dir);
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    return st;
}

qs_status qs_eval_task_of(const char *path, const char **task, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str inside = { 0 };
    qsi_task_file f = { 0 };
    *task = NULL;
    if (qsi_path_is_dir(path)) {
        QS_TRY(first_file(path, &inside, err));
        path = inside.data;
    } else if (!qsi_task_is_data(path)) {
        goto done;
    }
    st = qsi_task_load(&f, path, NULL, err);
    if (st == QS_OK) *task = qsi_task_name(f.task);
done:
    qsi_task_release(&f);
    qsi_str_release(&inside);
    return st;
}

/* What the model says after a few ids, and a little of every tensor: two models, or one opened in two
 * ways that change its numbers, differ in it. */
static qs_status fingerprint(qs_session *s, uint64_t *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_walk w = { 0 };
    int32_t ids[PROBE], n_rows = 0, n_vocab = s->runner.runner.n_vocab;
    size_t n = s->runner.runner.n_ctx < PROBE ? (size_t)s->runner.runner.n_ctx : PROBE, pos;
    uint64_t h = qsi_vocab_hash(s->model->tok.vocab);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 7919 + 11) % (uint64_t)n_vocab);
    QS_TRY(qsi_walk_init(&w, s->engine, err));
    QS_TRY(qsi_walk_begin(&w, ids, n, n - 1, err));
    QS_TRY(qsi_walk_next(&w, 1, NULL, &pos, &n_rows, err));
    h = qsi_hash_seed(w.logits, (size_t)n_vocab * sizeof *w.logits, h);
    for (size_t i = 0; i < qsi_gguf_n_tensors(s->model->g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(s->model->g, i);
        h = qsi_hash_seed(t->data, t->bytes < PROBE_BYTES ? t->bytes : PROBE_BYTES, h);
    }
    *out = h;
done:
    qsi_walk_release(&w);
    return st;
}

qs_status qsi_api_describe(qs_session *s, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    uint64_t h = 0;
    QS_TRY(fingerprint(s, &h, err));
    st = qsi_str_printf(out, "{\"hash\":\"%016llx\",\"context\":%lld}", (unsigned long long)h,
                        (long long)s->runner.runner.n_ctx);
done:
    return st;
}

static qs_estimate estimate(qsi_mean m) { return (qs_estimate){ m.mean, m.se }; }

static qs_eval_part part_of(const qsi_task_part *p) {
    return (qs_eval_part){ .name = p->name ? p->name : "", .n_items = p->n, .n_cut = p->n_cut,
                           .score = { estimate(p->score[0]), estimate(p->score[1]) } };
}

/* The public face of r->in. */
static qs_status publish(task_report *r, const char *model, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_task_report *in = &r->in;
    r->parts = qsi_calloc(in->n_parts, sizeof *r->parts);
    if (!r->parts || qsi_task_report_json(in, model, &r->json) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a report");
    for (size_t i = 0; i < in->n_parts; i++) r->parts[i] = part_of(&in->parts[i]);
    r->pub = (qs_eval_task_report){ .task = qsi_task_name(in->task), .shots = in->shots,
                                    .n_scores = in->n_metrics, .all = part_of(&in->all),
                                    .parts = r->parts, .n_parts = in->n_parts,
                                    .n_resumed = in->n_resumed, .json = r->json.data };
    for (int k = 0; k < in->n_metrics; k++) {
        r->pub.score[k] = in->metric[k];
        r->pub.parts_mean[k] = in->parts_mean[k];
    }
done:
    return st;
}

qs_status qsi_api_write_report(const char *path, const qsi_str *json, qs_err *err) {
    qs_status st = QS_OK;
    qsi_writer *w = NULL;
    QS_TRY(qsi_writer_open(&w, path, err));
    QS_TRY(qsi_writer_write(w, json->data, json->len, err));
    QS_TRY(qsi_writer_write(w, "\n", 1, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    return st;
}

qs_status qsi_api_check_output(const char *path, qs_err *err) {
    qsi_writer *w = NULL;
    qs_status st = qsi_writer_open(&w, path, err);
    qsi_writer_abort(&w);
    return st;
}

static qs_status find_task(const char *name, qsi_task *task, qs_err *err) {
    *task = name ? qsi_task_find(name) : QSI_TASK_NONE;
    if (name == NULL || *task != QSI_TASK_NONE) return QS_OK;
    return qsi_err_set(err, QS_E_ARG, "unknown benchmark '%.40s': mmlu, ceval, cmmlu, hellaswag, arc, "
                       "piqa, gsm8k, humaneval are known", name);
}

/* The template of a conversation; NULL: prompts are continued. */
static qs_status find_chat(qs_session *s, int32_t how, const qsi_chat_template **chat, qs_err *err) {
    qs_status st = QS_OK;
    qs_model *m = s->model;
    bool own = m->chat && !m->guessed_template;
    if ((uint32_t)how > QS_EVAL_CHAT_OFF) QS_FAIL(err, QS_E_ARG, "unknown way of asking: %d", (int)how);
    *chat = how == QS_EVAL_CHAT_ON || (how == QS_EVAL_CHAT_AUTO && own) ? m->chat : NULL;
    if (how == QS_EVAL_CHAT_ON) QS_TRY(qs_chat_check(m, err));
    if (*chat) qsi_api_tell_template(m);
done:
    return st;
}

qs_status qs_eval_task(qs_session *s, const qs_eval_task_opts *opts, qs_eval_task_report **out,
                       qs_err *err) {
    qs_status st = QS_OK;
    qs_eval_task_opts o;
    qsi_str model = { 0 };
    task_report *r = qsi_calloc(1, sizeof *r);
    if (r == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    qs_eval_task_opts_init(&o, sizeof o);
    qsi_api_opts(&o, sizeof o, opts);
    if (o.n_paths == 0) QS_FAIL(err, QS_E_ARG, "no file is named");
    atomic_store(&s->cancel, 0);
    qsi_task_opts in = { .paths = o.paths, .n_paths = o.n_paths, .labels = o.labels, .dev = o.dev,
                         .shots = o.shots, .limit = o.limit, .output = o.output,
                         .resume = o.resume != 0, .cancel = &s->cancel, .progress = o.progress,
                         .user = o.user, .think = (qsi_think)o.think, .max_tokens = o.max_tokens,
                         .stops = o.stops, .n_stops = o.n_stops, .python = o.python,
                         .code_seconds = o.code_seconds > 0 ? o.code_seconds : 10 };
    if ((uint32_t)o.think > QS_THINK_OFF || o.max_tokens < 0)
        QS_FAIL(err, QS_E_ARG, "answers of %lld tokens, thinking %d: no such thing",
                (long long)o.max_tokens, (int)o.think);
    QS_TRY(find_chat(s, o.chat, &in.chat, err));
    in.lost_template = o.chat == QS_EVAL_CHAT_AUTO && s->model->chat == NULL &&
                       qsi_vocab_chat_template(s->model->tok.vocab).n > 0;
    if (o.think != QS_THINK_AUTO && in.chat == NULL)
        QS_FAIL(err, QS_E_ARG, "the questions are asked as texts to be continued, in which there is no "
                "reasoning to turn on or off: leave --think out, or ask in a conversation (--chat on)");
    QS_TRY(find_task(o.task, &in.task, err));
    if (o.output) QS_TRY(qsi_api_check_output(o.output, err));
    QS_TRY(qsi_api_describe(s, &model, err));
    in.model = model.data;
    QS_TRY(qsi_task_run(s->engine, s->model->tok.vocab, &in, &r->in, err));
    QS_TRY(publish(r, s->model->name, err));
    if (o.output) QS_TRY(qsi_api_write_report(o.output, &r->json, err));
    *out = &r->pub;
    r = NULL;
done:
    if (r) qs_eval_task_free(&r->pub);
    qsi_str_release(&model);
    return st;
}

void qs_eval_task_free(qs_eval_task_report *pub) {
    task_report *r = (task_report *)pub; /* its first member */
    if (r == NULL) return;
    qsi_task_report_release(&r->in);
    qsi_free(r->parts);
    qsi_str_release(&r->json);
    qsi_free(r);
}
