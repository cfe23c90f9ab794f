/* Perplexity and divergence over a text; see eval_text.h. */
#include "measure/eval_text.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmt/json.h"
#include "infer/sampler.h"
#include "infer/walk.h"
#include "measure/task_journal.h"

typedef struct sums {
    double sum, squares;
} sums;

/* What is summed up; without a base the first alone. Names are the journal's. */
enum { NLL, BASE_NLL, DIFF, KL, AGREE, N_SUMS };
static const char *const sum_names[] = { "nll", "base_nll", "nll_difference", "kl", "same_top" };
_Static_assert(QSI_COUNT(sum_names) == N_SUMS, "a name for each sum");

typedef struct eval {
    const qsi_eval_text_opts *o;
    const int32_t *ids;   /* [n] */
    size_t n;
    qsi_walk model, base;
    bool has_base;
    int32_t n_vocab;
    int32_t *window;      /* [ctx] */
    int64_t n_windows;    /* done; the next one begins at ids[begin] */
    size_t begin, scored; /* ids before `scored` are done, or cannot be scored */
    float *kl;            /* [n] of the tokens scored */
    int64_t done, of, n_resumed;
    sums here[N_SUMS], all[N_SUMS]; /* of the window at hand; of those before it */
    qsi_journal journal;
    qsi_str line;
} eval;

static void add(sums *s, double x) {
    s->sum += x;
    s->squares += x * x;
}

static int n_sums(const eval *v) { return v->has_base ? N_SUMS : 1; }

static qsi_mean mean_of(const sums *s, int64_t n) {
    double k = (double)n, mean = s->sum / k, left = s->squares - k * mean * mean;
    return (qsi_mean){ mean, n < 2 ? NAN : left > 0 ? sqrt(left / (k - 1) / k) : 0 };
}

static double log_sum(const float *x, int32_t n, double top) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

/* KL(b || m) = sum p_b (b - m) - (log Z_b - log Z_m); rounding may make it a little negative. */
static double divergence(const float *m, const float *b, int32_t n, double log_m, double log_b) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp(b[i] - log_b) * ((double)b[i] - m[i]);
    return fmax(0, sum - log_b + log_m);
}

static void score(eval *v, int32_t id, const float *m, const float *b) {
    int32_t top_m = qsi_argmax(m, v->n_vocab);
    double log_m = log_sum(m, v->n_vocab, m[top_m]), nll = log_m - m[id];
    add(&v->here[NLL], nll);
    if (b != NULL) {
        int32_t top_b = qsi_argmax(b, v->n_vocab);
        double log_b = log_sum(b, v->n_vocab, b[top_b]), base_nll = log_b - b[id];
        double kl = divergence(m, b, v->n_vocab, log_m, log_b);
        add(&v->here[BASE_NLL], base_nll);
        add(&v->here[DIFF], nll - base_nll);
        add(&v->here[KL], kl);
        add(&v->here[AGREE], top_m == top_b);
        v->kl[v->done] = (float)kl;
    }
    v->done++;
}

/* Scores the ids of the window from `first` on: each by the logits of the position before. */
static qs_status run_window(eval *v, size_t n, size_t first, qs_err *err) {
    qs_status st = QS_OK;
    size_t pos = 0, base_pos = 0;
    int32_t rows = 0, base_rows = 0;
    /* the last id has nothing after it in this window */
    QS_TRY(qsi_walk_begin(&v->model, v->window, n - 1, first - 1, err));
    if (v->has_base) QS_TRY(qsi_walk_begin(&v->base, v->window, n - 1, first - 1, err));
    for (;;) {
        int32_t most = v->has_base ? v->base.max_logits : 0;
        if (most > v->model.max_logits) most = v->model.max_logits;
        QS_TRY(qsi_walk_next(&v->model, most, v->o->cancel, &pos, &rows, err));
        if (v->has_base)
            QS_TRY(qsi_walk_next(&v->base, most, v->o->cancel, &base_pos, &base_rows, err));
        if (rows == 0) break;
        QS_CHECK(!v->has_base || (base_pos == pos && base_rows == rows));
        for (int32_t i = 0; i < rows; i++) {
            size_t at = (size_t)i * (size_t)v->n_vocab;
            score(v, v->window[pos + (size_t)i + 1], v->model.logits + at,
                  v->has_base ? v->base.logits + at : NULL);
        }
        if (v->o->progress && v->o->progress(v->o->user, v->done - v->n_resumed,
                                             v->of - v->n_resumed) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    }
done:
    return st;
}

/* ---- windows ---------------------------------------------------------------------------------- */

/* Where the window that begins at v->begin ends. */
static size_t window_end(const eval *v) {
    size_t room = (size_t)v->o->ctx - (v->o->bos >= 0 ? 1 : 0);
    return v->n - v->begin < room ? v->n : v->begin + room;
}

/* The window's sums, and the divergences of its last `tokens`, are numbers that a journal can hold. */
static bool all_finite(const eval *v, int64_t tokens) {
    for (int i = 0; i < n_sums(v); i++)
        if (!isfinite(v->here[i].sum) || !isfinite(v->here[i].squares)) return false;
    for (int64_t i = v->done - tokens; v->has_base && i < v->done; i++)
        if (!isfinite(v->kl[i])) return false;
    return true;
}

/* Adds the window's sums to those before it and goes to the next. */
static void end_window(eval *v) {
    for (int i = 0; i < n_sums(v); i++) {
        v->all[i].sum += v->here[i].sum;
        v->all[i].squares += v->here[i].squares;
        v->here[i] = (sums){ 0 };
    }
    v->scored = window_end(v);
    v->begin += (size_t)v->o->stride;
    v->n_windows++;
}

/* The window's line: numbers with as many digits as tell them from all others of their type. */
static qs_status put_line(eval *v, int64_t tokens) {
    qs_status st = QS_OK;
    qsi_str *s = &v->line;
    qsi_str_clear(s);
    QS_TRY(qsi_str_printf(s, "{\"window\":%lld,\"tokens\":%lld", (long long)v->n_windows,
                          (long long)tokens));
    for (int i = 0; i < n_sums(v); i++)
        QS_TRY(qsi_str_printf(s, ",\"%s\":[%.17g,%.17g]", sum_names[i], v->here[i].sum,
                              v->here[i].squares));
    if (v->has_base) QS_TRY(qsi_str_puts(s, ",\"kl_of_tokens\":["));
    for (int64_t i = v->done - tokens; v->has_base && i < v->done; i++)
        QS_TRY(qsi_str_printf(s, "%s%.9g", i > v->done - tokens ? "," : "", (double)v->kl[i]));
    QS_TRY(qsi_str_puts(s, v->has_base ? "]}" : "}"));
done:
    return st;
}

/* Two numbers of a journal's line. */
static bool read_sums(const qsi_json *j, sums *out) {
    return qsi_json_size(j) == 2 && qsi_json_as_f64(qsi_json_at(j, 0), &out->sum) &&
           qsi_json_as_f64(qsi_json_at(j, 1), &out->squares);
}

/* A window of the journal that goes on. They stand there in order. */
static qs_status take_line(void *user, const qsi_json *j, qs_err *err) {
    qs_status st = QS_OK;
    eval *v = user;
    int64_t window, tokens;
    const qsi_json *kl = qsi_json_get(j, "kl_of_tokens");
    QS_TRY(qsi_json_i64(j, "window", &window, err));
    QS_TRY(qsi_json_i64(j, "tokens", &tokens, err));
    if (v->scored >= v->n || window != v->n_windows ||
        tokens != (int64_t)(window_end(v) - v->scored) ||
        qsi_json_size(kl) != (v->has_base ? (size_t)tokens : 0))
        QS_FAIL(err, QS_E_FORMAT, "not the next window of this run");
    for (int i = 0; i < n_sums(v); i++)
        if (!read_sums(qsi_json_get(j, sum_names[i]), &v->here[i]))
            QS_FAIL(err, QS_E_FORMAT, "'%s' is no pair of numbers", sum_names[i]);
    for (size_t i = 0; i < qsi_json_size(kl); i++) {
        double x;
        if (!qsi_json_as_f64(qsi_json_at(kl, i), &x) || x < 0 || x > FLT_MAX)
            QS_FAIL(err, QS_E_FORMAT, "a divergence is no number from 0 on");
        v->kl[v->done + (int64_t)i] = (float)x;
    }
    v->done += tokens;
    v->n_resumed += tokens;
    end_window(v);
done:
    return st == QS_E_NOTFOUND ? QS_E_FORMAT : st;
}

static qs_status open_journal(eval *v, qs_err *err) {
    qs_status st = QS_OK;
    if (v->o->journal == NULL) goto done;
    if (v->has_base && v->o->ctx > QSI_EVAL_LINE_TOKENS)
        QS_FAIL(err, QS_E_ARG, "windows of %lld tokens are too long for a journal that holds the "
                "divergence of each: at most %lld", (long long)v->o->ctx,
                (long long)QSI_EVAL_LINE_TOKENS);
    QS_TRY(qsi_journal_open(&v->journal, v->o->journal, v->o->head, v->o->resume, take_line, v, err));
done:
    return st;
}

static qs_status run_text(eval *v, qs_err *err) {
    qs_status st = QS_OK;
    size_t bos = v->o->bos >= 0 ? 1 : 0;
    if (bos) v->window[0] = v->o->bos;
    while (v->scored < v->n) {
        size_t take = window_end(v) - v->begin;
        int64_t tokens = (int64_t)(window_end(v) - v->scored);
        memcpy(v->window + bos, v->ids + v->begin, take * sizeof *v->ids);
        QS_TRY(run_window(v, bos + take, bos + v->scored - v->begin, err));
        if (!all_finite(v, tokens))
            QS_FAIL(err, QS_E_NUMERIC, "tokens %zu to %zu: the model gave no number", v->scored,
                    window_end(v) - 1);
        if (v->journal.open) {
            if (put_line(v, tokens) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory for a journal");
            QS_TRY(qsi_journal_add(&v->journal, &v->line, err));
        }
        end_window(v);
    }
done:
    if (v->journal.open) {
        qs_status synced = qsi_journal_sync(&v->journal, st == QS_OK ? err : NULL);
        if (st == QS_OK) st = synced;
    }
    return st;
}

/* ---- the report ------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(eval *v, qsi_eval_text_report *out) {
    int64_t n = v->done;
    *out = (qsi_eval_text_report){ .n = n, .n_resumed = v->n_resumed,
                                   .nll = mean_of(&v->all[NLL], n) };
    if (!v->has_base) return;
    out->base_nll = mean_of(&v->all[BASE_NLL], n);
    out->diff = mean_of(&v->all[DIFF], n);
    out->kl = mean_of(&v->all[KL], n);
    out->agree = mean_of(&v->all[AGREE], n);
    qsort(v->kl, (size_t)n, sizeof *v->kl, by_value);
    out->kl_median = 0.5 * ((double)v->kl[(n - 1) / 2] + v->kl[n / 2]);
    out->kl_p99 = v->kl[(int64_t)ceil(0.99 * (double)n) - 1];
    out->kl_max = v->kl[n - 1];
}

qs_status qsi_mean_json(qsi_str *out, const qsi_mean *m) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "{\"value\":%.17g,\"se\":", m->mean));
    QS_TRY(isnan(m->se) ? qsi_str_puts(out, "null") : qsi_str_printf(out, "%.17g", m->se));
    QS_TRY(qsi_str_putc(out, '}'));
done:
    return st;
}

qs_status qsi_eval_text(qsi_engine *e, qsi_engine *base, const int32_t *ids, size_t n,
                        const qsi_eval_text_opts *o, qsi_eval_text_report *out, qs_err *err) {
    qs_status st = QS_OK;
    int64_t bos = o->bos >= 0 ? 1 : 0;
    eval v = { .o = o, .ids = ids, .n = n, .has_base = base != NULL,
               .n_vocab = qsi_engine_runner(e)->n_vocab, .scored = (size_t)(1 - bos) };
    if (o->ctx < 2)
        QS_FAIL(err, QS_E_ARG, "a window of %lld token: it takes two to predict one from another",
                (long long)o->ctx);
    if (o->stride < 1 || o->stride >= o->ctx)
        QS_FAIL(err, QS_E_ARG, "windows of %lld tokens, each %lld further: the stride must be from 1 to "
                "%lld", (long long)o->ctx, (long long)o->stride, (long long)o->ctx - 1);
    if (n < (size_t)(2 - bos))
        QS_FAIL(err, QS_E_ARG, "the text has %zu tokens: too few to predict one from another", n);
    if (base && qsi_engine_runner(base)->n_vocab != v.n_vocab)
        QS_FAIL(err, QS_E_ARG, "the models give logits for %d and %d tokens", (int)v.n_vocab,
                (int)qsi_engine_runner(base)->n_vocab);
    v.of = (int64_t)n - 1 + bos;
    v.window = qsi_alloc((size_t)o->ctx, sizeof *v.window);
    v.kl = qsi_alloc(base ? n : 0, sizeof *v.kl);
    if (!v.window || !v.kl) QS_FAIL(err, QS_E_NOMEM, "out of memory for a text of %zu tokens", n);
    QS_TRY(qsi_walk_init(&v.model, e, err));
    if (base) QS_TRY(qsi_walk_init(&v.base, base, err));
    QS_TRY(open_journal(&v, err));
    QS_TRY(run_text(&v, err));
    report(&v, out);
done:
    qsi_walk_release(&v.model);
    qsi_walk_release(&v.base);
    qsi_journal_close(&v.journal);
    qsi_str_release(&v.line);
    qsi_free(v.window);
    qsi_free(v.kl);
    return st;
}
