/* The sampler: see sampler.h for order and sources.
 *
 * Cuts need the candidates from the best downward, but rarely many of them: a binary heap is built
 * over the whole vocabulary in O(n) and popped until the cut is reached, which gives the order of a
 * full sort without its cost. */
#include "infer/sampler.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

typedef struct cand {
    float logit;
    int32_t id;
} cand;

struct qsi_sampler {
    int32_t n_vocab;
    float *logits;   /* [n_vocab] after bias and penalties */
    cand *heap;      /* [n_vocab] */
    cand *kept;      /* [n_vocab] candidates popped, best first */
    double *weight;  /* [n_vocab] */
    int32_t *count;  /* [n_vocab] occurrences in the window; all zero between calls */
};

void qsi_sampling_default(qsi_sampling *s) {
    *s = (qsi_sampling){ .temp = 0.7, .top_p = 0.95, .repeat_penalty = 1.0, .penalty_last_n = 64 };
}

qs_status qsi_sampling_check(const qsi_sampling *s, int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    if (!isfinite(s->temp)) QS_FAIL(err, QS_E_ARG, "temperature is not a finite number");
    if (isnan(s->top_p) || s->top_p < 0)
        QS_FAIL(err, QS_E_ARG, "top-p %g: a number from 0 to 1 is wanted", s->top_p);
    if (isnan(s->min_p) || s->min_p > 1)
        QS_FAIL(err, QS_E_ARG, "min-p %g: a number from 0 to 1 is wanted", s->min_p);
    if (!isfinite(s->repeat_penalty) || s->repeat_penalty <= 0)
        QS_FAIL(err, QS_E_ARG, "repeat penalty %g: a number above 0 is wanted (1: none)",
                s->repeat_penalty);
    if (!isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty))
        QS_FAIL(err, QS_E_ARG, "presence and frequency penalties must be finite numbers");
    if (s->penalty_last_n < -1)
        QS_FAIL(err, QS_E_ARG, "penalty window %d: 0 (none), -1 (everything) or a length",
                (int)s->penalty_last_n);
    for (size_t i = 0; i < s->n_bias; i++) {
        if (s->bias[i].id < 0 || s->bias[i].id >= n_vocab)
            QS_FAIL(err, QS_E_ARG, "logit bias for id %d: the vocabulary has ids 0 to %d",
                    (int)s->bias[i].id, (int)n_vocab - 1);
        if (isnan(s->bias[i].bias) || s->bias[i].bias == INFINITY)
            QS_FAIL(err, QS_E_ARG, "logit bias for id %d: a finite number or -inf is wanted",
                    (int)s->bias[i].id);
    }
done:
    return st;
}

qs_status qsi_sampler_create(qsi_sampler **out, int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    qsi_sampler *sm = qsi_calloc(1, sizeof *sm);
    if (!sm) QS_FAIL(err, QS_E_NOMEM, "out of memory for the sampler");
    size_t n = (size_t)n_vocab;
    sm->n_vocab = n_vocab;
    sm->logits = qsi_alloc(n, sizeof *sm->logits);
    sm->heap = qsi_alloc(n, sizeof *sm->heap);
    sm->kept = qsi_alloc(n, sizeof *sm->kept);
    sm->weight = qsi_alloc(n, sizeof *sm->weight);
    sm->count = qsi_calloc(n, sizeof *sm->count);
    if (!sm->logits || !sm->heap || !sm->kept || !sm->weight || !sm->count)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the sampler");
    *out = sm;
    sm = NULL;
done:
    qsi_sampler_free(sm);
    return st;
}

void qsi_sampler_free(qsi_sampler *sm) {
    if (!sm) return;
    qsi_free(sm->logits);
    qsi_free(sm->heap);
    qsi_free(sm->kept);
    qsi_free(sm->weight);
    qsi_free(sm->count);
    qsi_free(sm);
}

static bool better(cand a, cand b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(cand *h, int32_t n, int32_t i) {
    cand x = h[i];
    for (;;) {
        int32_t c = 2 * i + 1;
        if (c >= n) break;
        if (c + 1 < n && better(h[c + 1], h[c])) c++;
        if (!better(h[c], x)) break;
        h[i] = h[c];
        i = c;
    }
    h[i] = x;
}

static void heap_build(cand *h, const float *logits, int32_t n) {
    for (int32_t i = 0; i < n; i++) h[i] = (cand){ logits[i], i };
    for (int32_t i = n / 2 - 1; i >= 0; i--) sift_down(h, n, i);
}

/* *n > 0 */
static cand heap_pop(cand *h, int32_t *n) {
    cand best = h[0];
    h[0] = h[--*n];
    if (*n > 0) sift_down(h, *n, 0);
    return best;
}

/* A repeated id's positive logit is divided by the repetition penalty, a negative one multiplied;
 * then frequency times its count and presence once are taken off. */
static void apply_penalties(qsi_sampler *sm, const qsi_sampling *s, const int32_t *history,
                            size_t n_history) {
    size_t window = n_history;
    if (s->penalty_last_n >= 0 && (size_t)s->penalty_last_n < window)
        window = (size_t)s->penalty_last_n;
    if (s->repeat_penalty == 1.0 && s->presence_penalty == 0 && s->frequency_penalty == 0) return;
    const int32_t *h = history + (n_history - window);
    for (size_t i = 0; i < window; i++)
        if (h[i] >= 0 && h[i] < sm->n_vocab) sm->count[h[i]]++;
    for (size_t i = 0; i < window; i++) {
        if (h[i] < 0 || h[i] >= sm->n_vocab || sm->count[h[i]] == 0) continue;
        double x = sm->logits[h[i]];
        x = x > 0 ? x / s->repeat_penalty : x * s->repeat_penalty;
        x -= (double)sm->count[h[i]] * s->frequency_penalty + s->presence_penalty;
        sm->logits[h[i]] = (float)x;
        sm->count[h[i]] = 0;
    }
}

int32_t qsi_argmax(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Sum over the vocabulary of exp(logit - max), by id. */
static double total_weight(const float *x, int32_t n, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return sum;
}

/* Pops the candidates that survive top-k, top-p and min-p into kept; at least one. */
static int32_t cut(qsi_sampler *sm, const qsi_sampling *s, float max) {
    int32_t left = sm->n_vocab, n = 0;
    int32_t k = s->top_k > 0 && s->top_k < left ? s->top_k : left;
    bool nucleus = s->top_p < 1;
    double floor_logit = s->min_p > 0 ? (double)max + log(s->min_p) : -INFINITY;
    double total = 0, cum = 0;
    heap_build(sm->heap, sm->logits, left);
    if (k < sm->n_vocab) {
        /* top-p is a share of what top-k kept */
        while (n < k) sm->kept[n++] = heap_pop(sm->heap, &left);
        for (int32_t i = 0; i < n; i++) total += exp((double)sm->kept[i].logit - (double)max);
    } else if (nucleus) {
        total = total_weight(sm->logits, sm->n_vocab, max);
    }
    int32_t m = 0;
    while (m < k) {
        if (m == n) sm->kept[n++] = heap_pop(sm->heap, &left);
        if (m > 0 && (double)sm->kept[m].logit < floor_logit) break;
        cum += exp((double)sm->kept[m].logit - (double)max);
        m++;
        if (nucleus && cum >= s->top_p * total) break;
    }
    return m;
}

/* Index drawn in proportion to weight[0..n), whose sum is `total`. */
static int32_t draw(const double *weight, int32_t n, double total, qsi_rng *rng) {
    double u = qsi_rng_f64(rng) * total, cum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < n; i++) {
        if (weight[i] <= 0) continue;
        cum += weight[i];
        last = i;
        if (u < cum) break;
    }
    return last;
}

static void apply_mask(qsi_sampler *sm, const uint32_t *mask) {
    for (int32_t i = 0; i < sm->n_vocab; i += 32) {
        uint32_t word = mask[i / 32];
        if (word == UINT32_MAX) continue;
        for (int32_t j = 0; j < 32 && i + j < sm->n_vocab; j++)
            if (!(word >> j & 1)) sm->logits[i + j] = -INFINITY;
    }
}

qs_status qsi_sampler_pick(qsi_sampler *sm, const qsi_sampling *s, const float *logits,
                           const int32_t *history, size_t n_history, qsi_rng *rng, int32_t *id,
                           qs_err *err) {
    qs_status st = QS_OK;
    int32_t n = sm->n_vocab;
    memcpy(sm->logits, logits, (size_t)n * sizeof *logits);
    for (size_t i = 0; i < s->n_bias; i++) sm->logits[s->bias[i].id] += s->bias[i].bias;
    apply_penalties(sm, s, history, n_history);
    if (s->mask) apply_mask(sm, s->mask);

    int32_t best = qsi_argmax(sm->logits, n);
    float max = sm->logits[best];
    if (!isfinite(max))
        QS_FAIL(err, QS_E_NUMERIC,
                "no id can follow: every logit is -inf or not a number (logit bias%s?)",
                s->mask ? ", or what was asked for leaves none" : "");
    if (s->temp <= 0) {
        *id = best;
        goto done;
    }
    bool whole = (s->top_k <= 0 || s->top_k >= n) && s->top_p >= 1 && s->min_p <= 0;
    int32_t m = whole ? n : cut(sm, s, max);
    double total = 0;
    for (int32_t i = 0; i < m; i++) {
        double x = whole ? sm->logits[i] : sm->kept[i].logit;
        sm->weight[i] = exp((x - (double)max) / s->temp);
        total += sm->weight[i];
    }
    int32_t i = draw(sm->weight, m, total, rng);
    *id = whole ? i : sm->kept[i].id;
done:
    return st;
}

static double log_total(const float *logits, int32_t n_vocab) {
    float max = logits[qsi_argmax(logits, n_vocab)];
    return (double)max + log(total_weight(logits, n_vocab, max));
}

double qsi_logprob_of(const float *logits, int32_t n_vocab, int32_t id) {
    return (double)logits[id] - log_total(logits, n_vocab);
}

int32_t qsi_logprob_top(qsi_sampler *sm, const float *logits, int32_t k, qsi_logprob *top) {
    if (k > sm->n_vocab) k = sm->n_vocab;
    if (k <= 0) return 0;
    double lt = log_total(logits, sm->n_vocab);
    int32_t left = sm->n_vocab;
    heap_build(sm->heap, logits, left);
    for (int32_t i = 0; i < k; i++) {
        cand c = heap_pop(sm->heap, &left);
        top[i] = (qsi_logprob){ c.id, (double)c.logit - lt };
    }
    return k;
}
