/* Windows, order and batches of training data; see dataset.h. Text to shards is in tokenise.c. */
#include "train/dataset.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"

/* Streams of random numbers of a run's seed; parameters have streams from 0 on (model/). */
#define STREAM_ORDER ((uint64_t)0x6f72646572 << 24)
#define STREAM_WEIGHT ((uint64_t)0x776569676874 << 16)

/* ---- windows ---- */

static qs_status add_window(qsi_windows *w, int64_t at, int64_t n, uint32_t source, qs_err *err) {
    qs_status st = QS_OK;
    qsi_window x = {.at = at, .n = (int32_t)n, .source = source};
    for (int64_t t = at; t < at + n; t++) x.n_targets += qsi_shard_learned(w->shard, t + 1);
    if (x.n_targets == 0) goto done;
    if (w->n >= UINT32_MAX || qsi_grow((void **)&w->v, &w->cap, w->n + 1, sizeof(*w->v)) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for %zu windows of the data", w->n);
    w->v[w->n++] = x;
    w->n_tokens += n;
    w->n_targets += x.n_targets;
done:
    return st;
}

qs_status qsi_windows_init(qsi_windows *w, const qsi_shard *s, int32_t n_ctx, qsi_part part,
                           double valid_share, qs_err *err) {
    qs_status st = QS_OK;
    *w = (qsi_windows){.shard = s};
    uint64_t limit = (uint64_t)ldexp(valid_share, 63) * 2;
    int64_t lowest = -1;
    if (valid_share > 0 && s->n_docs >= 10)
        for (int64_t d = 0; d < s->n_docs; d++)
            if (lowest < 0 || s->hash[d] < s->hash[lowest]) lowest = d;
    for (int64_t d = 0; d < s->n_docs; d++) {
        /* equal texts have equal hashes: all of them go where the first goes */
        bool valid = s->hash[d] < limit || (lowest >= 0 && s->hash[d] == s->hash[lowest]);
        if (part != QSI_PART_ALL && valid != (part == QSI_PART_VALID)) continue;
        int64_t b = (int64_t)s->begin[d], e = (int64_t)s->begin[d + 1];
        for (int64_t at = b; at < e - 1; at += n_ctx)
            QS_TRY(add_window(w, at, e - 1 - at < n_ctx ? e - 1 - at : n_ctx, s->source[d], err));
    }
done:
    if (st != QS_OK) qsi_windows_release(w);
    return st;
}

void qsi_windows_release(qsi_windows *w) {
    qsi_free(w->v);
    *w = (qsi_windows){0};
}

/* ---- order ---- */

qs_status qsi_dealer_init(qsi_dealer *d, const qsi_windows *w, uint64_t seed,
                          const double *weights, size_t n_weights, qs_err *err) {
    *d = (qsi_dealer){.w = w, .seed = seed, .weights = weights, .n_weights = n_weights,
                      .order_epoch = -1};
    bool any = false;
    for (size_t i = 0; i < w->n && !any; i++)
        any = w->v[i].source >= n_weights || weights[w->v[i].source] >= 1;
    if (!any)
        return qsi_err_set(err, QS_E_ARG, "there is no text to train on (or none of a weight of "
                           "at least 1)");
    return QS_OK;
}

void qsi_dealer_release(qsi_dealer *d) {
    qsi_free(d->order);
    *d = (qsi_dealer){0};
}

static qs_status make_order(qsi_dealer *d, qs_err *err) {
    qs_status st = QS_OK;
    qsi_rng r;
    d->n_order = 0;
    qsi_rng_init_stream(&r, d->seed, STREAM_WEIGHT + (uint64_t)d->pos.epoch);
    for (size_t i = 0; i < d->w->n; i++) {
        uint32_t src = d->w->v[i].source;
        double x = src < d->n_weights ? d->weights[src] : 1;
        int64_t copies = (int64_t)floor(x);
        if (x != floor(x)) copies += qsi_rng_f64(&r) < x - floor(x);
        if (qsi_grow((void **)&d->order, &d->cap_order, d->n_order + (size_t)copies,
                     sizeof(*d->order)) != QS_OK || d->n_order + (size_t)copies > UINT32_MAX)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for the order of %zu windows", d->w->n);
        for (int64_t k = 0; k < copies; k++) d->order[d->n_order++] = (uint32_t)i;
    }
    qsi_rng_init_stream(&r, d->seed, STREAM_ORDER + (uint64_t)d->pos.epoch);
    for (size_t i = d->n_order; i > 1; i--) {
        size_t j = (size_t)qsi_rng_below(&r, i);
        uint32_t t = d->order[i - 1];
        d->order[i - 1] = d->order[j];
        d->order[j] = t;
    }
    d->order_epoch = d->pos.epoch;
done:
    return st;
}

qs_status qsi_dealer_next(qsi_dealer *d, int64_t batch_tokens, qsi_deal *out, qs_err *err) {
    qs_status st = QS_OK;
    out->n = 0;
    out->n_tokens = out->n_targets = 0;
    for (;;) {
        if (d->order_epoch != d->pos.epoch) QS_TRY(make_order(d, err));
        if (d->pos.index >= (int64_t)d->n_order) {
            d->pos.epoch++;
            d->pos.index = 0;
            continue;
        }
        uint32_t i = d->order[d->pos.index];
        const qsi_window *x = &d->w->v[i];
        if (out->n > 0 && out->n_tokens + x->n > batch_tokens) break;
        if (qsi_grow((void **)&out->v, &out->cap, out->n + 1, sizeof(*out->v)) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for a batch");
        out->v[out->n++] = i;
        out->n_tokens += x->n;
        out->n_targets += x->n_targets;
        d->pos.index++;
    }
done:
    return st;
}

/* ---- micro-batches ---- */

qs_status qsi_micro_init(qsi_micro *m, int32_t max_rows, qs_err *err) {
    *m = (qsi_micro){.cap = max_rows};
    m->ids = qsi_calloc((size_t)max_rows, 4 * sizeof(int32_t));
    if (m->ids == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory for a batch");
    m->seq = m->ids + max_rows;
    m->pos = m->seq + max_rows;
    m->targets = m->pos + max_rows;
    return QS_OK;
}

void qsi_micro_release(qsi_micro *m) {
    qsi_free(m->ids);
    *m = (qsi_micro){0};
}

void qsi_micro_fill(qsi_micro *m, const qsi_windows *w, const uint32_t *list, size_t n,
                    size_t stride, size_t *next) {
    const qsi_shard *s = w->shard;
    int32_t seq = 0;
    m->n_rows = 0;
    m->n_targets = 0;
    for (; *next < n; *next += stride) {
        const qsi_window *x = &w->v[list != NULL ? list[*next] : *next];
        QS_CHECK(x->n <= m->cap);
        if (m->n_rows + x->n > m->cap) break;
        for (int32_t i = 0; i < x->n; i++) {
            int32_t k = m->n_rows + i;
            m->ids[k] = s->ids[x->at + i];
            m->seq[k] = seq;
            m->pos[k] = i;
            m->targets[k] = qsi_shard_learned(s, x->at + i + 1) ? s->ids[x->at + i + 1] : -1;
        }
        seq++;
        m->n_rows += x->n;
        m->n_targets += x->n_targets;
    }
}
