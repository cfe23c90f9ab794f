/* The engine's view of a real model: its step and its paged cache. */
#include <string.h>

#include "infer/engine.h"

static qs_status model_step(void *user, const qsi_step *s, qs_err *err) {
    qsi_model_runner *r = user;
    qsi_step step = *s;
    step.kv = r->kv;
    qs_status st = qsi_model_step(r->model, &step, err);
    /* A file that failed explains whatever the step says. */
    if (r->file != NULL && qsi_model_intact(r->model, NULL) != QS_OK)
        return qsi_model_intact(r->model, err);
    return st;
}

static qs_status model_reserve(void *user, qsi_kv_table *t, int64_t n_pos, qs_err *err) {
    qsi_model_runner *r = user;
    return qsi_kv_reserve(r->kv, t, n_pos, err);
}

static void model_truncate(void *user, qsi_kv_table *t, int64_t n_pos) {
    qsi_model_runner *r = user;
    qsi_kv_truncate(r->kv, t, n_pos);
}

static void model_release(void *user, qsi_kv_table *t) {
    qsi_model_runner *r = user;
    qsi_kv_table_release(r->kv, t);
}

qs_status qsi_model_runner_init(qsi_model_runner *r, qsi_model *m, int64_t n_ctx, qsi_type kv_type,
                                int32_t max_seqs, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = qsi_model_config(m);
    memset(r, 0, sizeof *r);
    if (n_ctx < 1 || n_ctx > INT32_MAX)
        QS_FAIL(err, QS_E_ARG, "context of %lld: 1 to %d is possible", (long long)n_ctx, INT32_MAX);
    int64_t pages = (n_ctx + QSI_KV_PAGE - 1) / QSI_KV_PAGE * max_seqs;
    QS_TRY(qsi_kv_create(&r->kv, c, kv_type, pages, err));
    r->model = m;
    r->runner = (qsi_runner){ .user = r, .n_vocab = c->n_vocab, .max_rows = qsi_model_max_rows(m),
                              .n_ctx = n_ctx, .step = model_step, .reserve = model_reserve,
                              .truncate = model_truncate, .release = model_release };
done:
    return st;
}

void qsi_model_runner_release(qsi_model_runner *r) {
    qsi_kv_free(r->kv);
    r->kv = NULL;
}
