/* Importance matrices: a text is evaluated while the model's products are watched. */
#include <string.h>

#include "api/api.h"
#include "base/log.h"
#include "files/imatrix.h"
#include "qiusuo/measure.h"

#define CHUNK 512 /* tokens of a window by default */

/* Whether the entry is one of experts' matrices that stands for the three of its layer. */
static bool stands_for_experts(const qsi_importance_entry *e) {
    return strstr(e->name, ".ffn_gate_exps.") != NULL;
}

/* "blk.3: experts 1, 5, 9 and 12 more": notes of what no token was sent to. */
static qs_status tell_unseen(const qsi_importance_entry *e, qs_imatrix_report *r) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    int32_t unseen = 0;
    for (int32_t i = 0; i < e->n; i++) {
        if (e->count[i] > 0) continue;
        if (unseen < 16) QS_TRY(qsi_str_printf(&s, "%s%d", unseen > 0 ? ", " : "", (int)i));
        unseen++;
    }
    r->n_experts += e->n;
    r->n_unseen += unseen;
    if (unseen > 0)
        qsi_log(QSI_LOG_NOTE, "%.*s: %d of %d experts saw no token of the text: %s%s",
                (int)strcspn(e->name + 4, ".") + 4, e->name, (int)unseen, (int)e->n, s.data,
                unseen > 16 ? ", ..." : "");
done:
    qsi_str_release(&s);
    return st;
}

static qs_status summarise(const qsi_importance *x, qs_imatrix_report *r) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_importance_count(x); i++) {
        const qsi_importance_entry *e = qsi_importance_at(x, i);
        r->n_tensors++;
        r->n_matrices += e->n;
        if (stands_for_experts(e)) QS_TRY(tell_unseen(e, r));
    }
done:
    return st;
}

qs_status qs_imatrix(qs_session *s, const char *text, size_t n, const char *name,
                     const qs_eval_opts *opts, const char *out, qs_imatrix_report *report,
                     qs_err *err) {
    qs_status st = QS_OK;
    qsi_importance *x = NULL;
    qs_imatrix_report r = {0};
    qs_eval_opts o;
    qs_eval_opts_init(&o, sizeof o);
    qsi_api_opts(&o, sizeof o, opts);
    if (o.ctx == 0) o.ctx = qs_session_n_ctx(s) < CHUNK ? qs_session_n_ctx(s) : CHUNK;
    if (o.ctx < 3) QS_FAIL(err, QS_E_ARG, "windows of %lld tokens are too short", (long long)o.ctx);
    o.stride = o.ctx - 1; /* BOS is one of ctx: no overlap */
    o.output = NULL;      /* a journal would skip what is to be watched */
    QS_TRY(qsi_importance_create(&x, s->model->model, err));
    qsi_model_watch(s->model->model, x);
    st = qs_eval_text(s, NULL, text, n, &o, &r.text, err);
    qsi_model_watch(s->model->model, NULL);
    if (st != QS_OK) goto done;
    r.n_chunks = (r.text.n_tokens + o.stride - 1) / o.stride;
    if (summarise(x, &r) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(qsi_imatrix_save(x, out, name, r.n_chunks, o.ctx, err));
    *report = r;
done:
    qsi_importance_free(x);
    return st;
}
