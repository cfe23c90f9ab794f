/* Evaluation of models, for the public API. */
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "measure/eval_text.h"
#include "qiusuo/measure.h"

#define WINDOW 2048 /* the longest window by default */

void qs_eval_opts_init(qs_eval_opts *o, size_t size) {
    memset(o, 0, size);
    memcpy(o, &size, sizeof size);
}

/* QS_E_ARG names the first token that differs. */
static qs_status same_vocab(const qs_model *a, const qs_model *b, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_vocab *va = a->tok.vocab, *vb = b->tok.vocab;
    int32_t na = qsi_vocab_size(va), nb = qsi_vocab_size(vb);
    if (na != nb)
        QS_FAIL(err, QS_E_ARG, "'%s' has %d tokens and '%s' %d: only models of one vocabulary can be "
                "compared", a->path, (int)na, b->path, (int)nb);
    for (int32_t i = 0; i < na; i++) {
        qsi_slice x = qsi_vocab_bytes(va, i), y = qsi_vocab_bytes(vb, i);
        if (x.n != y.n || (x.n > 0 && memcmp(x.p, y.p, x.n) != 0))
            QS_FAIL(err, QS_E_ARG, "token %d of '%s' and '%s' differs: only models of one vocabulary "
                    "can be compared", (int)i, a->path, b->path);
    }
done:
    return st;
}

static qs_estimate estimate(qsi_mean m) { return (qs_estimate){ m.mean, m.se }; }

static void publish(const qsi_eval_text_report *r, double n_bytes, qs_eval_text_report *out) {
    *out = (qs_eval_text_report){
        .n_resumed = r->n_resumed,
        .n_tokens = r->n, .n_bytes = (int64_t)n_bytes, .nll = estimate(r->nll),
        .ppl = { exp(r->nll.mean), exp(r->nll.mean) * r->nll.se },
        .bits_per_byte = r->nll.mean * (double)r->n / n_bytes / log(2.0),
        .base_nll = estimate(r->base_nll),
        .base_ppl = { exp(r->base_nll.mean), exp(r->base_nll.mean) * r->base_nll.se },
        .diff = estimate(r->diff), .kl = estimate(r->kl), .kl_median = r->kl_median,
        .kl_p99 = r->kl_p99, .kl_max = r->kl_max, .agree = estimate(r->agree) };
}

/* ,"key":{"value":x,"se":y} */
static qs_status put(qsi_str *out, const char *key, qs_estimate e) {
    qs_status st = qsi_str_printf(out, ",\"%s\":", key);
    return st == QS_OK ? qsi_mean_json(out, &(qsi_mean){ e.value, e.se }) : st;
}

static qs_status put_path(qsi_str *out, const char *key, const qs_model *m) {
    qs_status st = qsi_str_printf(out, "{\"%s\":", key);
    return st == QS_OK ? qsi_str_json(out, m->path, strlen(m->path)) : st;
}

static qs_status put_base(qsi_str *out, const qs_eval_text_report *r, const qs_model *base) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, ",\"against\":"));
    QS_TRY(put_path(out, "model", base));
    QS_TRY(put(out, "nll", r->base_nll));
    QS_TRY(put(out, "perplexity", r->base_ppl));
    QS_TRY(put(out, "nll_difference", r->diff));
    QS_TRY(put(out, "kl", r->kl));
    out->len--; /* into its object */
    QS_TRY(qsi_str_printf(out, ",\"median\":%.17g,\"p99\":%.17g,\"max\":%.17g}", r->kl_median,
                          r->kl_p99, r->kl_max));
    QS_TRY(put(out, "same_top", r->agree));
    QS_TRY(qsi_str_putc(out, '}'));
done:
    return st;
}

/* The report as one JSON object. */
static qs_status put_report(qsi_str *out, const qs_eval_text_report *r, const qs_model *m,
                            const qs_model *base) {
    qs_status st = QS_OK;
    qsi_str_clear(out);
    QS_TRY(put_path(out, "model", m));
    QS_TRY(qsi_str_printf(out, ",\"tokens\":%lld,\"bytes\":%lld,\"window\":%lld,\"stride\":%lld",
                          (long long)r->n_tokens, (long long)r->n_bytes, (long long)r->ctx,
                          (long long)r->stride));
    QS_TRY(put(out, "nll", r->nll));
    QS_TRY(put(out, "perplexity", r->ppl));
    QS_TRY(qsi_str_printf(out, ",\"bits_per_byte\":%.17g", r->bits_per_byte));
    if (base) QS_TRY(put_base(out, r, base));
    QS_TRY(qsi_str_putc(out, '}'));
done:
    return st;
}

/* The journal's first line: all that decides the results. */
static qs_status put_head(qsi_str *out, qs_session *s, qs_session *base, const char *text, size_t n,
                          const qsi_eval_text_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, "{\"qiusuo_eval\":1,\"task\":\"text\",\"model\":"));
    QS_TRY(qsi_api_describe(s, out, err));
    QS_TRY(qsi_str_puts(out, ",\"against\":"));
    if (base) QS_TRY(qsi_api_describe(base, out, err));
    else QS_TRY(qsi_str_puts(out, "null"));
    QS_TRY(qsi_str_printf(out, ",\"text\":{\"hash\":\"%016llx\",\"bytes\":%zu},\"window\":%lld,"
                          "\"stride\":%lld,\"bos\":%d}", (unsigned long long)qsi_hash(text, n), n,
                          (long long)o->ctx, (long long)o->stride, (int)o->bos));
done:
    return st;
}

qs_status qs_eval_text(qs_session *s, qs_session *base, const char *text, size_t n,
                       const qs_eval_opts *opts, qs_eval_text_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qs_eval_opts o;
    qsi_eval_text_report r;
    qsi_ids ids = { 0 };
    qsi_str journal = { 0 }, head = { 0 };
    const qsi_vocab *v = s->model->tok.vocab;
    int64_t room = qs_session_n_ctx(s);
    qs_eval_opts_init(&o, sizeof o);
    qsi_api_opts(&o, sizeof o, opts);
    if (base && qs_session_n_ctx(base) < room) room = qs_session_n_ctx(base);
    if (o.ctx == 0) o.ctx = room < WINDOW ? room : WINDOW;
    if (o.stride == 0) o.stride = o.ctx > 2 ? o.ctx / 2 : 1;
    if (o.ctx > room)
        QS_FAIL(err, QS_E_ARG, "windows of %lld tokens: the context has %lld", (long long)o.ctx,
                (long long)room);
    if (base) QS_TRY(same_vocab(s->model, base->model, err));
    if (o.output) QS_TRY(qsi_api_check_output(o.output, err));
    atomic_store(&s->cancel, 0);
    qsi_eval_text_opts in = { .ctx = o.ctx, .stride = o.stride, .bos = -1, .resume = o.resume != 0,
                              .cancel = &s->cancel, .progress = o.progress, .user = o.user };
    if (qsi_vocab_add_bos(v)) in.bos = qsi_vocab_bos(v);
    if (o.output) {
        QS_TRY(put_head(&head, s, base, text, n, &in, err));
        if (qsi_str_printf(&journal, "%s.journal", o.output) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for a journal");
        in.journal = journal.data;
        in.head = head.data;
    }
    QS_TRY(qsi_encode(v, text, n, 0, &ids, err));
    QS_TRY(qsi_eval_text(s->engine, base ? base->engine : NULL, ids.data, ids.len, &in, &r, err));
    size_t unscored = in.bos >= 0 ? 0 : qsi_vocab_bytes(v, ids.data[0]).n;
    publish(&r, (double)(n - unscored), out);
    out->ctx = o.ctx;
    out->stride = o.stride;
    if (put_report(&s->report, out, s->model, base ? base->model : NULL) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a report");
    out->json = s->report.data;
    if (o.output) QS_TRY(qsi_api_write_report(o.output, &s->report, err));
done:
    qsi_ids_release(&ids);
    qsi_str_release(&journal);
    qsi_str_release(&head);
    return st;
}
