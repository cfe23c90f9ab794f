/* Log-likelihoods of continuations; see task_choice.h. */
#include "measure/task_choice.h"

#include <string.h>

#include "base/mem.h"
#include "infer/sampler.h"

qs_status qsi_chooser_init(qsi_chooser *c, qsi_engine *e, const qsi_vocab *v, qs_err *err) {
    *c = (qsi_chooser){ .vocab = v };
    return qsi_walk_init(&c->walk, e, err);
}

void qsi_chooser_release(qsi_chooser *c) {
    qsi_walk_release(&c->walk);
    qsi_ids_release(&c->ids);
    qsi_ids_release(&c->fed);
}

/* The ids of prompt and continuation; *from: where the continuation's begin. */
static qs_status encode(qsi_chooser *c, const qsi_str *prompt, const qsi_str *next, size_t *from,
                        qs_err *err) {
    qs_status st = QS_OK;
    qsi_str whole = { 0 };
    unsigned flags = qsi_vocab_add_bos(c->vocab) ? QSI_ENC_BOS : 0;
    c->ids.len = 0;
    QS_TRY(qsi_encode(c->vocab, prompt->data ? prompt->data : "", prompt->len, flags, &c->ids, err));
    *from = c->ids.len;
    c->ids.len = 0;
    if ((prompt->len > 0 && qsi_str_append(&whole, prompt->data, prompt->len) != QS_OK) ||
        qsi_str_append(&whole, next->data, next->len) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a prompt");
    QS_TRY(qsi_encode(c->vocab, whole.data, whole.len, flags, &c->ids, err));
    if (c->ids.len < 2) QS_FAIL(err, QS_E_ARG, "prompt and choice are one token together");
    /* a prompt that ends within a token leaves at least the last one to be scored; the very first
     * token follows nothing */
    if (*from >= c->ids.len) *from = c->ids.len - 1;
    if (*from == 0) *from = 1;
done:
    qsi_str_release(&whole);
    return st;
}

/* Drops ids behind BOS until all but the last fit the context. */
static qs_status fit(qsi_chooser *c, size_t *from, bool *cut, qs_err *err) {
    qs_status st = QS_OK;
    size_t room = (size_t)qsi_engine_runner(c->walk.seq.engine)->n_ctx + 1;
    size_t bos = qsi_vocab_add_bos(c->vocab) ? 1 : 0;
    if (c->ids.len <= room) goto done;
    size_t drop = c->ids.len - room;
    if (bos + drop >= *from)
        QS_FAIL(err, QS_E_LIMIT, "a choice of %zu tokens does not fit the context of %zu",
                c->ids.len - *from, room - 1);
    memmove(c->ids.data + bos, c->ids.data + bos + drop,
            (c->ids.len - bos - drop) * sizeof *c->ids.data);
    c->ids.len -= drop;
    *from -= drop;
    *cut = true;
done:
    return st;
}

/* True when the logits in the walk are those after ids[0, n). */
static bool at_hand(const qsi_chooser *c, size_t n) {
    return c->fed.len == n && n > 0 && memcmp(c->fed.data, c->ids.data, n * sizeof *c->ids.data) == 0;
}

static qs_status remember(qsi_chooser *c, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    c->fed.len = 0;
    for (size_t i = 0; i < n; i++)
        if (qsi_ids_push(&c->fed, c->ids.data[i]) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for a prompt");
done:
    return st;
}

static qs_status sum(qsi_chooser *c, size_t from, const atomic_int *cancel, double *ll, qs_err *err) {
    qs_status st = QS_OK;
    const int32_t *ids = c->ids.data, n_vocab = qsi_engine_runner(c->walk.seq.engine)->n_vocab;
    size_t n = c->ids.len, pos = 0;
    int32_t rows = 0;
    *ll = 0;
    if (n == from + 1 && at_hand(c, from)) { /* letters: all follow one position */
        *ll = qsi_logprob_of(c->walk.logits, n_vocab, ids[from]);
        goto done;
    }
    c->fed.len = 0;
    QS_TRY(qsi_walk_begin(&c->walk, ids, n - 1, from - 1, err)); /* nothing follows the last */
    for (;;) {
        QS_TRY(qsi_walk_next(&c->walk, 0, cancel, &pos, &rows, err));
        if (rows == 0) break;
        for (int32_t i = 0; i < rows; i++)
            *ll += qsi_logprob_of(c->walk.logits + (size_t)i * (size_t)n_vocab, n_vocab,
                                  ids[pos + (size_t)i + 1]);
    }
    if (n == from + 1) QS_TRY(remember(c, from, err));
done:
    return st;
}

qs_status qsi_chooser_run(qsi_chooser *c, const qsi_str *prompt, const qsi_str *next, int32_t n,
                          const atomic_int *cancel, double *ll, bool *cut, qs_err *err) {
    qs_status st = QS_OK;
    *cut = false;
    for (int32_t i = 0; i < n; i++) {
        size_t from;
        QS_TRY(encode(c, prompt, &next[i], &from, err));
        QS_TRY(fit(c, &from, cut, err));
        QS_TRY(sum(c, from, cancel, &ll[i], err));
    }
done:
    if (st != QS_OK) c->fed.len = 0;
    return st;
}
