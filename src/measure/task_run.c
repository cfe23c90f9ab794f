/* Runs of benchmark files; see task_run.h. */
#include "measure/task_run.h"

#include <math.h>
#include <string.h>

#include "base/log.h"
#include "fmt/json.h"
#include "measure/task_answer.h"
#include "measure/task_choice.h"
#include "measure/task_code.h"
#include "measure/task_gen.h"
#include "measure/task_journal.h"
#include "measure/task_prompt.h"
#include "sys/file.h"

#define SHOTS 5 /* as the benchmarks of letters and GSM8K are reported */
#define MAX_STOPS 256

/* What an item came to. */
typedef struct outcome {
    bool done, cut;
    double score[QSI_TASK_METRICS];
} outcome;

typedef struct run {
    const qsi_task_opts *o;
    const qsi_vocab *vocab;
    qsi_engine *engine;
    qsi_task task;
    int32_t shots;
    qsi_task_file *files;     /* [n_files], first item of each at first[i] of outcomes */
    size_t n_files, cap_files;
    qsi_task_file *examples;  /* [n_examples]: one for all, or one for each file */
    size_t n_examples;
    int64_t *first;           /* [n_files + 1] */
    outcome *outcomes;
    int64_t n_resumed, n_done;
    qsi_chooser chooser;      /* of tasks with choices */
    qsi_answerer answerer;    /* of others */
    const char *stops[MAX_STOPS];
    size_t n_stops;
    int64_t max_tokens;
    qsi_journal journal;
    qsi_str prompt, line;     /* of the item at hand */
    qsi_str text, program;
    qsi_str next[QSI_TASK_MAX_CHOICES];
} run;

static qs_status no_memory(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "out of memory for an evaluation");
}

/* ---- files ------------------------------------------------------------------------------------ */

static qs_status add_file(run *r, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    if (qsi_grow((void **)&r->files, &r->cap_files, r->n_files + 1, sizeof *r->files) != QS_OK)
        return no_memory(err);
    QS_TRY(qsi_task_load(&r->files[r->n_files], path, r->o->labels, err));
    r->n_files++;
done:
    return st;
}

/* Every data file of a folder, in order. */
static qs_status add_folder(run *r, const char *dir, qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0, used = 0;
    qsi_str path = { 0 };
    QS_TRY(qsi_dir_list(dir, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        if (!qsi_task_is_data(names[i])) continue;
        qsi_str_clear(&path);
        if (qsi_path_join(&path, dir, names[i]) != QS_OK) QS_TRY(no_memory(err));
        QS_TRY(add_file(r, path.data, err));
        used++;
    }
    if (used == 0)
        QS_FAIL(err, QS_E_ARG, "'%s' holds no .csv, .json or .jsonl file", dir);
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    qsi_str_release(&path);
    return st;
}

static qs_status load_files(run *r, qs_err *err) {
    qs_status st = QS_OK;
    if (r->o->labels && (r->o->n_paths != 1 || qsi_path_is_dir(r->o->paths[0])))
        QS_FAIL(err, QS_E_ARG, "labels belong to one file");
    for (size_t i = 0; i < r->o->n_paths; i++) {
        const char *path = r->o->paths[i];
        if (qsi_path_is_dir(path)) QS_TRY(add_folder(r, path, err));
        else QS_TRY(add_file(r, path, err));
    }
    r->task = r->o->task ? r->o->task : r->files[0].task;
    for (size_t i = 0; i < r->n_files; i++) {
        qsi_task_file *f = &r->files[i];
        if (!r->o->task && f->task != r->task)
            QS_FAIL(err, QS_E_ARG, "'%s' is of %s, '%s' of %s: one task at a time", r->files[0].path,
                    qsi_task_name(r->task), f->path, qsi_task_name(f->task));
        if (r->o->limit > 0 && f->n > (uint64_t)r->o->limit) f->n = (size_t)r->o->limit;
        QS_TRY(qsi_task_fits(r->task, f, err));
    }
done:
    return st;
}

static qs_status add_example_file(run *r, const char *path, qs_err *err) {
    qs_status st = qsi_task_load(&r->examples[r->n_examples], path, NULL, err);
    if (st == QS_OK) r->n_examples++;
    return st;
}

/* The file of a folder that has the subject, to *path; its name may say another split. */
static qs_status find_example_file(const char *dir, const char *subject, qsi_str *path, qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0, len = strlen(subject);
    QS_TRY(qsi_dir_list(dir, &names, &n, err));
    for (size_t i = 0; i < n && path->len == 0; i++) {
        if (!qsi_task_is_data(names[i]) || qsi_task_subject_len(names[i]) != len ||
            memcmp(names[i], subject, len) != 0)
            continue;
        if (qsi_path_join(path, dir, names[i]) != QS_OK) QS_TRY(no_memory(err));
    }
    if (path->len == 0)
        QS_FAIL(err, QS_E_NOTFOUND, "'%s' holds no examples for '%s'", dir, subject);
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    return st == QS_E_NOTFOUND ? QS_E_ARG : st;
}

static qs_status load_examples(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = { 0 };
    const char *dev = r->o->dev;
    int32_t shots = r->o->shots < 0 ? SHOTS : r->o->shots;
    if (dev == NULL && r->o->shots > 0)
        QS_FAIL(err, QS_E_ARG, "%d examples are wanted: --dev names a file of them", (int)r->o->shots);
    if (dev == NULL || shots == 0) goto done;
    r->examples = qsi_calloc(r->n_files, sizeof *r->examples);
    if (r->examples == NULL) QS_TRY(no_memory(err));
    if (!qsi_path_is_dir(dev)) QS_TRY(add_example_file(r, dev, err));
    while (qsi_path_is_dir(dev) && r->n_examples < r->n_files) {
        qsi_str_clear(&path);
        QS_TRY(find_example_file(dev, r->files[r->n_examples].subject, &path, err));
        QS_TRY(add_example_file(r, path.data, err));
    }
    for (size_t i = 0; i < r->n_examples; i++) {
        qsi_task_file *f = &r->examples[i];
        if (f->n > (uint64_t)shots) f->n = (size_t)shots;
        QS_TRY(qsi_task_fits(r->task, f, err));
        if (f->n < (uint64_t)shots && r->o->shots < 0) shots = (int32_t)f->n;
        if (f->n < (uint64_t)shots)
            QS_FAIL(err, QS_E_ARG, "'%s' has %zu examples, %d are wanted", f->path, f->n, (int)shots);
    }
    r->shots = shots;
done:
    qsi_str_release(&path);
    return st;
}

/* ---- the journal ------------------------------------------------------------------------------ */

static qs_status put_file(qsi_str *out, const qsi_task_file *f) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, "{\"name\":"));
    QS_TRY(qsi_str_json(out, f->subject, strlen(f->subject)));
    QS_TRY(qsi_str_printf(out, ",\"hash\":\"%016llx\",\"items\":%zu}", (unsigned long long)f->hash,
                          f->n));
done:
    return st;
}

static qs_status put_list(qsi_str *out, const char *key, const qsi_task_file *f, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, ",\"%s\":[", key));
    for (size_t i = 0; i < n; i++) {
        if (i > 0) QS_TRY(qsi_str_putc(out, ','));
        QS_TRY(put_file(out, &f[i]));
    }
    QS_TRY(qsi_str_putc(out, ']'));
done:
    return st;
}

static qs_status put_string(qsi_str *out, const char *z) { return qsi_str_json(out, z, strlen(z)); }

/* What decides how answers are generated. */
static qs_status put_settings(const run *r, qsi_str *out) {
    static const char *const think[] = { "auto", "on", "off" };
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, ",\"chat\":"));
    QS_TRY(put_string(out, r->o->chat ? qsi_chat_name(r->o->chat) : ""));
    QS_TRY(qsi_str_printf(out, ",\"think\":\"%s\",\"n-predict\":%lld,\"stop\":[",
                          think[r->o->think], (long long)r->max_tokens));
    for (size_t i = 0; i < r->n_stops; i++) {
        if (i > 0) QS_TRY(qsi_str_putc(out, ','));
        QS_TRY(put_string(out, r->stops[i]));
    }
    QS_TRY(qsi_str_putc(out, ']'));
    if (r->task == QSI_TASK_HUMANEVAL)
        QS_TRY(qsi_str_printf(out, ",\"code-timeout\":%.17g", r->o->code_seconds));
done:
    return st;
}

/* All that decides the scores. */
static qs_status put_head(const run *r, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "{\"qiusuo_eval\":1,\"task\":\"%s\",\"model\":%s,\"shots\":%d",
                          qsi_task_name(r->task), r->o->model, (int)r->shots));
    QS_TRY(put_list(out, "files", r->files, r->n_files));
    QS_TRY(put_list(out, "examples", r->examples, r->n_examples));
    if (!qsi_task_has_choices(r->task)) QS_TRY(put_settings(r, out));
    QS_TRY(qsi_str_putc(out, '}'));
done:
    return st;
}

/* Names of the scores; NULL: fewer. */
static const char *metric(qsi_task t, int i) {
    static const char *const choices[] = { "acc", "acc_norm" };
    static const char *const numbers[] = { "strict_match", "flexible_match" };
    if (t == QSI_TASK_HUMANEVAL) return i == 0 ? "pass@1" : NULL;
    if (t == QSI_TASK_GSM8K) return numbers[i];
    return i == 0 || !qsi_task_asks_letter(t) ? choices[i] : NULL;
}

static int n_metrics(qsi_task t) { return metric(t, 1) ? 2 : 1; }

/* An item of the journal that goes on. One that stands there twice is one. */
static qs_status take_line(void *user, const qsi_json *j, qs_err *err) {
    qs_status st = QS_OK;
    run *r = user;
    int64_t file, item;
    const qsi_json *score = qsi_json_get(j, "score");
    outcome x = { .done = true };
    QS_TRY(qsi_json_i64(j, "file", &file, err));
    QS_TRY(qsi_json_i64(j, "item", &item, err));
    QS_TRY(qsi_json_bool(j, "cut", &x.cut, err));
    if (file < 0 || (uint64_t)file >= r->n_files || item < 0 || (uint64_t)item >= r->files[file].n ||
        qsi_json_size(score) != (size_t)n_metrics(r->task))
        QS_FAIL(err, QS_E_FORMAT, "no item of this run");
    for (size_t i = 0; i < qsi_json_size(score); i++)
        if (!qsi_json_as_f64(qsi_json_at(score, i), &x.score[i]) || x.score[i] < 0 || x.score[i] > 1)
            QS_FAIL(err, QS_E_FORMAT, "a score is no number from 0 to 1");
    outcome *to = &r->outcomes[r->first[file] + item];
    r->n_resumed += !to->done;
    *to = x;
done:
    return st == QS_E_NOTFOUND ? QS_E_FORMAT : st;
}

static qs_status open_journal(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = { 0 }, head = { 0 };
    if (r->o->output == NULL) goto done;
    if (qsi_str_printf(&path, "%s.journal", r->o->output) != QS_OK || put_head(r, &head) != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(qsi_journal_open(&r->journal, path.data, head.data, r->o->resume, take_line, r, err));
done:
    qsi_str_release(&path);
    qsi_str_release(&head);
    return st;
}

static qs_status put_item(qsi_str *out, const run *r, size_t file, size_t item, const outcome *x) {
    qs_status st = QS_OK;
    qsi_str_clear(out);
    QS_TRY(qsi_str_printf(out, "{\"file\":%zu,\"item\":%zu,\"cut\":%s,\"score\":[", file, item,
                          x->cut ? "true" : "false"));
    for (int i = 0; i < n_metrics(r->task); i++)
        QS_TRY(qsi_str_printf(out, "%s%.17g", i > 0 ? "," : "", x->score[i]));
    QS_TRY(qsi_str_putc(out, ']'));
done:
    return st;
}

/* ---- items ------------------------------------------------------------------------------------ */

static int32_t best(const double *x, int32_t n) {
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static qs_status put_numbers(qsi_str *out, const char *key, const double *x, int32_t n) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, ",\"%s\":[", key));
    for (int32_t i = 0; i < n; i++) QS_TRY(qsi_str_printf(out, "%s%.9g", i > 0 ? "," : "", x[i]));
    QS_TRY(qsi_str_putc(out, ']'));
done:
    return st;
}

/* Scores of a question with choices. `seen` gets what was found, for the journal. */
static qs_status choose(run *r, const qsi_task_item *it, outcome *x, qsi_str *seen, qs_err *err) {
    qs_status st = QS_OK;
    double ll[QSI_TASK_MAX_CHOICES], per_byte[QSI_TASK_MAX_CHOICES];
    for (int32_t i = 0; i < it->n_choices; i++) {
        qsi_str_clear(&r->next[i]);
        if (qsi_task_choice(&r->next[i], r->task, it, i) != QS_OK) QS_TRY(no_memory(err));
    }
    QS_TRY(qsi_chooser_run(&r->chooser, &r->prompt, r->next, it->n_choices, r->o->cancel, ll, &x->cut,
                           err));
    for (int32_t i = 0; i < it->n_choices; i++) {
        if (isnan(ll[i])) QS_FAIL(err, QS_E_NUMERIC, "the model gave no number");
        per_byte[i] = ll[i] / (double)(r->next[i].len > 1 ? r->next[i].len - 1 : 1);
    }
    x->score[0] = best(ll, it->n_choices) == it->answer;
    x->score[1] = best(per_byte, it->n_choices) == it->answer;
    if (put_numbers(seen, "log_likelihood", ll, it->n_choices) != QS_OK) QS_TRY(no_memory(err));
done:
    return st;
}

/* Whether a generated program passes its tests. */
static qs_status test_program(run *r, const qsi_task_item *it, outcome *x, const char **how,
                              qs_err *err) {
    qs_status st = QS_OK;
    qsi_str_clear(&r->program);
    QS_TRY(qsi_answer_program(&r->program, it, r->text.data ? r->text.data : "", r->o->chat != NULL,
                              err));
    QS_TRY(qsi_code_run(r->o->python, &r->program, r->o->code_seconds, r->o->cancel, how, err));
    x->score[0] = strcmp(*how, "passed") == 0;
done:
    return st;
}

/* Scores of a generated answer. `seen` gets it, for the journal. */
static qs_status answer(run *r, const qsi_task_item *it, outcome *x, qsi_str *seen, qs_err *err) {
    qs_status st = QS_OK;
    qsi_finish finish = QSI_FINISH_END;
    const char *how = NULL;
    QS_TRY(qsi_answerer_run(&r->answerer, &r->prompt, r->o->cancel, &r->text, &x->cut, &finish, err));
    const char *text = r->text.data ? r->text.data : "";
    if (r->task == QSI_TASK_HUMANEVAL) {
        QS_TRY(test_program(r, it, x, &how, err));
    } else {
        bool right[2];
        for (int i = 0; i < 2; i++) {
            QS_TRY(qsi_answer_number(text, it->solution, i == 0, &right[i], err));
            x->score[i] = right[i];
        }
    }
    bool whole = finish == QSI_FINISH_END || finish == QSI_FINISH_STOP;
    if (qsi_str_printf(seen, ",\"whole\":%s,\"answer\":", whole ? "true" : "false") != QS_OK ||
        put_string(seen, text) != QS_OK ||
        (how && qsi_str_printf(seen, ",\"program\":\"%s\"", how) != QS_OK))
        QS_TRY(no_memory(err));
done:
    return st;
}

static qs_status run_item(run *r, size_t file, size_t item, outcome *x, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_task_file *f = &r->files[file];
    const qsi_task_item *it = &f->items[item];
    const qsi_task_file *examples = r->n_examples == 0 ? NULL
                                    : &r->examples[r->n_examples == 1 ? 0 : file];
    qsi_str seen = { 0 };
    qsi_str_clear(&r->prompt);
    QS_TRY(qsi_task_prompt(&r->prompt, r->task, r->o->chat != NULL, f, it, examples, (size_t)r->shots,
                           err));
    if (qsi_task_has_choices(r->task)) QS_TRY(choose(r, it, x, &seen, err));
    else QS_TRY(answer(r, it, x, &seen, err));
    if (put_item(&r->line, r, file, item, x) != QS_OK ||
        qsi_str_append(&r->line, seen.data, seen.len) != QS_OK || qsi_str_putc(&r->line, '}') != QS_OK)
        QS_TRY(no_memory(err));
    x->done = true;
done:
    qsi_str_release(&seen);
    if (st != QS_OK && st != QS_E_CANCELLED)
        qsi_err_prefix(err, "'%s' %s %lld", f->path, f->unit, (long long)it->line);
    return st;
}

static qs_status run_items(run *r, qs_err *err) {
    qs_status st = QS_OK;
    int64_t of = r->first[r->n_files] - r->n_resumed;
    for (size_t file = 0; file < r->n_files; file++) {
        for (size_t i = 0; i < r->files[file].n; i++) {
            outcome *x = &r->outcomes[r->first[file] + (int64_t)i];
            if (x->done) continue;
            QS_TRY(run_item(r, file, i, x, err));
            if (r->journal.open) QS_TRY(qsi_journal_add(&r->journal, &r->line, err));
            r->n_done++;
            if (r->o->progress && r->o->progress(r->o->user, r->n_done, of) != 0)
                QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        }
    }
done:
    if (r->journal.open) {
        qs_status synced = qsi_journal_sync(&r->journal, st == QS_OK ? err : NULL);
        if (st == QS_OK) st = synced;
    }
    return st;
}

/* ---- the report ------------------------------------------------------------------------------- */

static void sum_up(const outcome *x, int64_t n, qsi_task_part *p) {
    p->n = n;
    for (int64_t i = 0; i < n; i++) p->n_cut += x[i].cut;
    for (int k = 0; k < QSI_TASK_METRICS; k++) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += x[i].score[k];
        double mean = sum / (double)n;
        /* scores are 0 or 1 */
        p->score[k] = (qsi_mean){ mean, n > 1 ? sqrt(mean * (1 - mean) / (double)(n - 1)) : NAN };
    }
}

static qs_status report(const run *r, qsi_task_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_task_report p = { .task = r->task, .shots = r->shots, .n_metrics = n_metrics(r->task),
                          .n_resumed = r->n_resumed };
    for (int k = 0; k < p.n_metrics; k++) p.metric[k] = metric(r->task, k);
    p.parts = qsi_calloc(r->n_files, sizeof *p.parts);
    if (p.parts == NULL) QS_TRY(no_memory(err));
    for (; p.n_parts < r->n_files; p.n_parts++) {
        qsi_task_part *part = &p.parts[p.n_parts];
        int64_t first = r->first[p.n_parts];
        part->name = qsi_strdup(r->files[p.n_parts].subject);
        if (part->name == NULL) QS_TRY(no_memory(err));
        sum_up(r->outcomes + first, r->first[p.n_parts + 1] - first, part);
        for (int k = 0; k < p.n_metrics; k++)
            p.parts_mean[k] += part->score[k].mean / (double)r->n_files;
    }
    sum_up(r->outcomes, r->first[r->n_files], &p.all);
    *out = p;
    p = (qsi_task_report){ 0 };
done:
    qsi_task_report_release(&p);
    return st;
}

void qsi_task_report_release(qsi_task_report *r) {
    for (size_t i = 0; i < r->n_parts; i++) qsi_free(r->parts[i].name);
    qsi_free(r->parts);
    *r = (qsi_task_report){ 0 };
}

static qs_status put_part(qsi_str *out, const qsi_task_report *r, const qsi_task_part *p) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "\"items\":%lld,\"cut\":%lld", (long long)p->n, (long long)p->n_cut));
    for (int k = 0; k < r->n_metrics; k++) {
        QS_TRY(qsi_str_printf(out, ",\"%s\":", r->metric[k]));
        QS_TRY(qsi_mean_json(out, &p->score[k]));
    }
done:
    return st;
}

qs_status qsi_task_report_json(const qsi_task_report *r, const char *model, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "{\"task\":\"%s\",\"model\":", qsi_task_name(r->task)));
    QS_TRY(qsi_str_json(out, model, strlen(model)));
    QS_TRY(qsi_str_printf(out, ",\"shots\":%d,", (int)r->shots));
    QS_TRY(put_part(out, r, &r->all));
    QS_TRY(qsi_str_puts(out, ",\"mean_of_files\":{"));
    for (int k = 0; k < r->n_metrics; k++)
        QS_TRY(qsi_str_printf(out, "%s\"%s\":%.17g", k > 0 ? "," : "", r->metric[k], r->parts_mean[k]));
    QS_TRY(qsi_str_puts(out, "},\"files\":["));
    for (size_t i = 0; i < r->n_parts; i++) {
        QS_TRY(qsi_str_puts(out, i > 0 ? ",{\"name\":" : "{\"name\":"));
        QS_TRY(qsi_str_json(out, r->parts[i].name, strlen(r->parts[i].name)));
        QS_TRY(qsi_str_putc(out, ','));
        QS_TRY(put_part(out, r, &r->parts[i]));
        QS_TRY(qsi_str_putc(out, '}'));
    }
    QS_TRY(qsi_str_puts(out, "]}"));
done:
    return st;
}

/* ---- the run ---------------------------------------------------------------------------------- */

static qs_status make_room(run *r, qs_err *err) {
    qs_status st = QS_OK;
    r->first = qsi_calloc(r->n_files + 1, sizeof *r->first);
    if (r->first == NULL) QS_TRY(no_memory(err));
    for (size_t i = 0; i < r->n_files; i++) r->first[i + 1] = r->first[i] + (int64_t)r->files[i].n;
    r->outcomes = qsi_calloc((size_t)r->first[r->n_files], sizeof *r->outcomes);
    if (r->outcomes == NULL) QS_TRY(no_memory(err));
done:
    return st;
}

/* Programs of a model are run where that was allowed, and where there is a sandbox that works. */
static qs_status check_python(run *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str nothing = { 0 };
    const char *how;
    if (r->o->python == NULL)
        QS_FAIL(err, QS_E_ARG, "humaneval runs the programs that the model writes: --run-code allows "
                "that, in a sandbox without network that can write nothing");
    if (qsi_str_puts(&nothing, "import math, typing, collections, re, itertools\n") != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(qsi_code_run(r->o->python, &nothing, 60, r->o->cancel, &how, err));
    if (strcmp(how, "passed") != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' does not work in the sandbox: an empty program %s (a "
                "script around the interpreter? --python names another)", r->o->python, how);
done:
    qsi_str_release(&nothing);
    return st;
}

static qs_status prepare(run *r, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_task_opts *o = r->o;
    if (qsi_task_has_choices(r->task)) return qsi_chooser_init(&r->chooser, r->engine, r->vocab, err);
    const char *const *stops = o->n_stops > 0 ? o->stops : qsi_task_stops(r->task);
    while (r->n_stops < MAX_STOPS && (o->n_stops > 0 ? r->n_stops < o->n_stops
                                      : !o->chat && stops[r->n_stops] != NULL)) {
        r->stops[r->n_stops] = stops[r->n_stops];
        r->n_stops++;
    }
    if (o->lost_template)
        qsi_log(QSI_LOG_NOTE, "the model's chat template is not known: questions are asked as texts to "
                "be continued (--chat-template names one that fits)");
    r->max_tokens = o->max_tokens > 0 ? o->max_tokens : r->task == QSI_TASK_HUMANEVAL ? 1024 : 512;
    if (r->task == QSI_TASK_HUMANEVAL) QS_TRY(check_python(r, err));
    QS_TRY(qsi_answerer_init(&r->answerer, r->engine, r->vocab, o->chat, o->think, r->max_tokens,
                             r->stops, r->n_stops, err));
done:
    return st;
}

static void release(run *r) {
    qsi_journal_close(&r->journal);
    qsi_chooser_release(&r->chooser);
    qsi_answerer_release(&r->answerer);
    for (size_t i = 0; i < r->n_files; i++) qsi_task_release(&r->files[i]);
    for (size_t i = 0; i < r->n_examples; i++) qsi_task_release(&r->examples[i]);
    for (size_t i = 0; i < QSI_COUNT(r->next); i++) qsi_str_release(&r->next[i]);
    qsi_free(r->files);
    qsi_free(r->examples);
    qsi_free(r->first);
    qsi_free(r->outcomes);
    qsi_str_release(&r->prompt);
    qsi_str_release(&r->line);
    qsi_str_release(&r->text);
    qsi_str_release(&r->program);
    qsi_free(r);
}

qs_status qsi_task_run(qsi_engine *e, const qsi_vocab *v, const qsi_task_opts *o, qsi_task_report *out,
                       qs_err *err) {
    qs_status st = QS_OK;
    run *r = qsi_calloc(1, sizeof *r);
    if (r == NULL) return no_memory(err);
    r->o = o;
    r->engine = e;
    r->vocab = v;
    QS_TRY(load_files(r, err));
    QS_TRY(load_examples(r, err));
    QS_TRY(make_room(r, err));
    QS_TRY(prepare(r, err));
    QS_TRY(open_journal(r, err));
    QS_TRY(run_items(r, err));
    QS_TRY(report(r, out, err));
done:
    release(r);
    return st;
}
