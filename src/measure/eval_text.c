/* Perplexity and divergence over a text; see eval_text.h. */
#include "measure/eval_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "infer/sampler.h"
#include "infer/walk.h"

typedef struct sums {
    double sum, squares;
} sums;

typedef struct eval {
    const qsi_eval_text_opts *o;
    qsi_walk model, base;
    bool has_base;
    int32_t n_vocab;
    int32_t *window;      /* [ctx] */
    float *kl;            /* [n] of the tokens scored */
    int64_t done, of;
    sums nll, base_nll, diff, kls, agree;
} eval;

static void add(sums *s, double x) {
    s->sum += x;
    s->squares += x * x;
}

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
    add(&v->nll, nll);
    if (b != NULL) {
        int32_t top_b = qsi_argmax(b, v->n_vocab);
        double log_b = log_sum(b, v->n_vocab, b[top_b]), base_nll = log_b - b[id];
        double kl = divergence(m, b, v->n_vocab, log_m, log_b);
        add(&v->base_nll, base_nll);
        add(&v->diff, nll - base_nll);
        add(&v->kls, kl);
        add(&v->agree, top_m == top_b);
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
        if (v->o->progress && v->o->progress(v->o->user, v->done, v->of) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    }
done:
    return st;
}

static qs_status run_text(eval *v, const int32_t *ids, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    size_t bos = v->o->bos >= 0 ? 1 : 0, room = (size_t)v->o->ctx - bos;
    size_t scored = 1 - bos; /* ids that are done, or cannot be scored */
    if (bos) v->window[0] = v->o->bos;
    for (size_t begin = 0; scored < n; begin += (size_t)v->o->stride) {
        size_t take = n - begin < room ? n - begin : room;
        memcpy(v->window + bos, ids + begin, take * sizeof *ids);
        QS_TRY(run_window(v, bos + take, bos + scored - begin, err));
        scored = begin + take;
    }
done:
    return st;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(eval *v, qsi_eval_text_report *out) {
    int64_t n = v->done;
    *out = (qsi_eval_text_report){ .n = n, .nll = mean_of(&v->nll, n) };
    if (!v->has_base) return;
    out->base_nll = mean_of(&v->base_nll, n);
    out->diff = mean_of(&v->diff, n);
    out->kl = mean_of(&v->kls, n);
    out->agree = mean_of(&v->agree, n);
    qsort(v->kl, (size_t)n, sizeof *v->kl, by_value);
    out->kl_median = 0.5 * ((double)v->kl[(n - 1) / 2] + v->kl[n / 2]);
    out->kl_p99 = v->kl[(int64_t)ceil(0.99 * (double)n) - 1];
    out->kl_max = v->kl[n - 1];
}

qs_status qsi_eval_text(qsi_engine *e, qsi_engine *base, const int32_t *ids, size_t n,
                        const qsi_eval_text_opts *o, qsi_eval_text_report *out, qs_err *err) {
    qs_status st = QS_OK;
    int64_t bos = o->bos >= 0 ? 1 : 0;
    eval v = { .o = o, .has_base = base != NULL, .n_vocab = qsi_engine_runner(e)->n_vocab };
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
    QS_TRY(run_text(&v, ids, n, err));
    report(&v, out);
done:
    qsi_walk_release(&v.model);
    qsi_walk_release(&v.base);
    qsi_free(v.window);
    qsi_free(v.kl);
    return st;
}
