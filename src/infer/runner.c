/* The engine's view of a real model: its step and its paged cache. */
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "infer/engine.h"
#include "op/op.h"

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

static qs_status model_draft(void *user, const qsi_step *s, qs_err *err) {
    qsi_model_runner *r = user;
    qsi_step step = *s;
    step.kv = r->kv;
    return qsi_model_mtp_step(r->model, &step, err);
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

static qs_status model_own(void *user, qsi_kv_table *t, int64_t from, qs_err *err) {
    qsi_model_runner *r = user;
    return qsi_kv_own(r->kv, t, from, err);
}

static qs_status model_share(void *user, qsi_kv_table *t, const int32_t *pages, size_t n,
                             qs_err *err) {
    qsi_model_runner *r = user;
    return qsi_kv_share(r->kv, t, pages, n, err);
}

static qs_status model_take(void *user, int32_t *page, qs_err *err) {
    qsi_model_runner *r = user;
    return qsi_kv_take(r->kv, page, err);
}

static void model_hold(void *user, int32_t page) { qsi_kv_hold(((qsi_model_runner *)user)->kv, page); }
static void model_drop(void *user, int32_t page) { qsi_kv_drop(((qsi_model_runner *)user)->kv, page); }

static int32_t model_holds(void *user, int32_t page) {
    return qsi_kv_holds(((qsi_model_runner *)user)->kv, page);
}

static int64_t model_n_free(void *user) { return qsi_kv_n_free(((qsi_model_runner *)user)->kv); }

static void *model_data(void *user, int32_t page) {
    return qsi_kv_page_data(((qsi_model_runner *)user)->kv, page);
}

/* Pages that there is room for; *n_ctx, when it is 0, becomes what they hold. */
static qs_status plan_pages(const qsi_model *m, qsi_type type, int64_t *n_ctx, int64_t max_seqs,
                            int64_t *pages, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = qsi_model_config(m);
    uint64_t room = qsi_model_cache_room(m);
    int64_t fit = INT32_MAX, wish = *n_ctx ? *n_ctx : c->n_ctx;
    int64_t one = qsi_ceil_div(wish, QSI_KV_PAGE);
    if (room != UINT64_MAX) QS_TRY(qsi_kv_fit(c, type, room, &fit, err));
    if (fit == 0 || (*n_ctx && fit < one))
        QS_FAIL(err, QS_E_LIMIT, "a cache of %s for %lld tokens does not fit: of the memory allowed, "
                "%llu MB are left for it, which hold %lld (-c N, --cache-type T, or more --memory)",
                qsi_type_get((int32_t)type)->name, (long long)wish,
                (unsigned long long)(room / 1000000), (long long)(fit * QSI_KV_PAGE));
    if (fit < one) {
        wish = fit * QSI_KV_PAGE;
        qsi_log(QSI_LOG_NOTE, "a context of %lld tokens, not the model's %d: the memory allowed holds "
                "no larger cache (-c N makes weights give way to one)", (long long)wish,
                (int)c->n_ctx);
    }
    *n_ctx = wish;
    *pages = qsi_min64(qsi_ceil_div(wish, QSI_KV_PAGE) * max_seqs, fit);
done:
    return st;
}

typedef struct parallel_call {
    void (*fn)(void *arg, int worker, int n_workers);
    void *arg;
} parallel_call;

static void parallel_worker(const qsi_worker *w, void *arg) {
    const parallel_call *c = arg;
    c->fn(c->arg, w->index, w->count);
}

static void model_parallel(void *user, void (*fn)(void *arg, int worker, int n_workers), void *arg) {
    qsi_model_runner *r = user;
    qsi_pool_run_alloc(qsi_model_pool(r->model), parallel_worker, &(parallel_call){ fn, arg });
}

static qs_status init_pages(qsi_model_runner *r, qsi_model *m, int64_t n_ctx, qsi_type kv_type,
                            int64_t pages, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = qsi_model_config(m);
    QS_TRY(qsi_kv_create(&r->kv, c, kv_type, pages, err));
    QS_TRY(qsi_kv_need(c, kv_type, pages, &r->cache_bytes, err));
    qsi_model_cache_take(m, (int64_t)r->cache_bytes);
    r->model = m;
    r->runner = (qsi_runner){ .user = r, .n_vocab = c->n_vocab, .max_rows = qsi_model_max_rows(m),
                              .n_ctx = n_ctx, .step = model_step, .reserve = model_reserve,
                              .truncate = model_truncate, .release = model_release, .draft = model_draft,
                              .d_model = c->d_model, .two_paths = qsi_config_is_latent(c),
                              .d_hidden = qsi_model_has_mtp(m) ? c->d_model : 0 };
    r->runner.parallel = model_parallel;
    r->runner.n_workers = qsi_pool_size(qsi_model_pool(m));
    r->runner.pages = (qsi_page_fns){ .own = model_own, .share = model_share, .take = model_take,
                                      .hold = model_hold, .drop = model_drop, .holds = model_holds,
                                      .n_free = model_n_free, .data = model_data, .n_pages = pages,
                                      .bytes = qsi_kv_page_bytes(r->kv) };
done:
    return st;
}

static qs_status check_ctx(int64_t n_ctx, qs_err *err) {
    if (n_ctx >= 0 && n_ctx <= INT32_MAX) return QS_OK;
    return qsi_err_set(err, QS_E_ARG, "context of %lld: 1 to %d is possible", (long long)n_ctx,
                       INT32_MAX);
}

qs_status qsi_model_runner_init(qsi_model_runner *r, qsi_model *m, int64_t n_ctx, qsi_type kv_type,
                                int32_t max_seqs, qs_err *err) {
    qs_status st = QS_OK;
    int64_t pages = 0;
    memset(r, 0, sizeof *r);
    QS_TRY(check_ctx(n_ctx, err));
    QS_TRY(plan_pages(m, kv_type, &n_ctx, max_seqs, &pages, err));
    QS_TRY(init_pages(r, m, n_ctx, kv_type, pages, err));
done:
    return st;
}

qs_status qsi_model_runner_init_pages(qsi_model_runner *r, qsi_model *m, int64_t n_ctx,
                                      qsi_type kv_type, int64_t n_pages, qs_err *err) {
    qs_status st = QS_OK;
    memset(r, 0, sizeof *r);
    QS_TRY(check_ctx(n_ctx, err));
    if (n_ctx == 0) n_ctx = qsi_model_config(m)->n_ctx;
    QS_TRY(init_pages(r, m, n_ctx, kv_type, n_pages, err));
done:
    return st;
}

void qsi_model_runner_release(qsi_model_runner *r) {
    qsi_kv_free(r->kv);
    r->kv = NULL;
    if (r->model) qsi_model_cache_take(r->model, -(int64_t)r->cache_bytes);
    r->model = NULL;
}
