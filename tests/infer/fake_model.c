/* The scripted model: see fake_model.h. */
#include "fake_model.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

static qs_status fake_step(void *user, const qsi_step *s, qs_err *err) {
    fake_model *f = user;
    f->n_steps++;
    f->n_rows += s->n_rows;
    if (s->n_rows < 1 || s->n_rows > f->runner.max_rows)
        return qsi_err_set(err, QS_E_ARG, "bad n_rows");
    if (f->fail_at_step == f->n_steps) return qsi_err_set(err, QS_E_NUMERIC, "scripted failure");
    float *out = s->logits;
    int32_t *ids = malloc((size_t)f->runner.n_ctx * sizeof *ids);
    for (int32_t i = 0; i < s->n_rows; i++) {
        const qsi_row *r = &s->rows[i];
        f->n_generated += r->generated;
        const qsi_kv_table *t = &s->tables[r->seq];
        if ((size_t)(r->pos / QSI_KV_PAGE) >= t->n_pages || (i > 0 && s->rows[i - 1].seq == r->seq &&
                                                             s->rows[i - 1].pos + 1 != r->pos)) {
            free(ids);
            return qsi_err_set(err, QS_E_ARG, "bad position %d", (int)r->pos);
        }
        f->n_shared_writes += f->holds[t->pages[r->pos / QSI_KV_PAGE]] != 1;
        f->stored[t->pages[r->pos / QSI_KV_PAGE]][r->pos % QSI_KV_PAGE] = r->id;
        if (!r->logits) continue;
        for (int32_t p = 0; p <= r->pos; p++)
            ids[p] = f->stored[t->pages[p / QSI_KV_PAGE]][p % QSI_KV_PAGE];
        fake_logits(f, ids, r->pos + 1, out);
        out += f->runner.n_vocab;
    }
    free(ids);
    if (f->cancel_at && f->n_steps == f->cancel_step) atomic_store(f->cancel_at, 1);
    return QS_OK;
}

void fake_logits(const fake_model *f, const int32_t *ids, int32_t n, float *out) {
    uint64_t h = qsi_hash(ids, (size_t)n * sizeof *ids);
    for (int32_t i = 0; i < f->runner.n_vocab; i++)
        out[i] = (float)(qsi_hash_seed(&i, sizeof i, h) % 1000) / 250.0f;
    if (f->next) out[f->next(f->user, ids, n)] = 50;
}

static qs_status fake_take(void *user, int32_t *page, qs_err *err) {
    fake_model *f = user;
    int32_t p = 0;
    while (p < f->pages_max && f->holds[p] > 0) p++;
    if (p == f->pages_max) return qsi_err_set(err, QS_E_LIMIT, "no page");
    f->holds[p] = 1;
    f->pages_used++;
    memset(f->stored[p], 0xee, sizeof f->stored[p]);
    *page = p;
    return QS_OK;
}

static void fake_hold(void *user, int32_t page) { ((fake_model *)user)->holds[page]++; }

static void fake_drop(void *user, int32_t page) {
    fake_model *f = user;
    if (--f->holds[page] == 0) f->pages_used--;
}

static int32_t fake_holds(void *user, int32_t page) { return ((fake_model *)user)->holds[page]; }

static int64_t fake_n_free(void *user) {
    fake_model *f = user;
    return f->pages_max - f->pages_used;
}

static void *fake_data(void *user, int32_t page) { return ((fake_model *)user)->stored[page]; }

static void make_room(qsi_kv_table *t, size_t need) {
    if (need <= t->cap) return;
    t->pages = realloc(t->pages, need * sizeof *t->pages);
    t->cap = need;
}

static qs_status fake_reserve(void *user, qsi_kv_table *t, int64_t n_pos, qs_err *err) {
    size_t need = (size_t)((n_pos + QSI_KV_PAGE - 1) / QSI_KV_PAGE);
    make_room(t, need);
    while (t->n_pages < need) {
        qs_status st = fake_take(user, &t->pages[t->n_pages], err);
        if (st != QS_OK) return st;
        t->n_pages++;
    }
    return QS_OK;
}

static qs_status fake_share(void *user, qsi_kv_table *t, const int32_t *pages, size_t n, qs_err *err) {
    (void)err;
    make_room(t, t->n_pages + n);
    for (size_t i = 0; i < n; i++) {
        fake_hold(user, pages[i]);
        t->pages[t->n_pages++] = pages[i];
    }
    return QS_OK;
}

static qs_status fake_own(void *user, qsi_kv_table *t, int64_t from, qs_err *err) {
    fake_model *f = user;
    for (size_t i = (size_t)from / QSI_KV_PAGE; i < t->n_pages; i++) {
        int32_t old = t->pages[i], id;
        if (f->holds[old] == 1) continue;
        qs_status st = fake_take(user, &id, err);
        if (st != QS_OK) return st;
        memcpy(f->stored[id], f->stored[old], sizeof f->stored[id]);
        fake_drop(user, old);
        t->pages[i] = id;
        f->n_copies++;
    }
    return QS_OK;
}

static void fake_truncate(void *user, qsi_kv_table *t, int64_t n_pos) {
    size_t keep = (size_t)((n_pos + QSI_KV_PAGE - 1) / QSI_KV_PAGE);
    while (t->n_pages > keep) fake_drop(user, t->pages[--t->n_pages]);
}

static void fake_release(void *user, qsi_kv_table *t) {
    fake_truncate(user, t, 0);
    free(t->pages);
    memset(t, 0, sizeof *t);
}

void fake_model_init(fake_model *f, int32_t n_vocab, int32_t max_rows, int64_t n_ctx,
                     int32_t max_pages) {
    memset(f, 0, sizeof *f);
    f->pages_max = max_pages;
    f->stored = calloc((size_t)max_pages, sizeof *f->stored);
    f->holds = calloc((size_t)max_pages, sizeof *f->holds);
    f->runner = (qsi_runner){ .user = f, .n_vocab = n_vocab, .max_rows = max_rows, .n_ctx = n_ctx,
                              .step = fake_step, .reserve = fake_reserve,
                              .truncate = fake_truncate, .release = fake_release };
    f->runner.pages = (qsi_page_fns){ .own = fake_own, .share = fake_share, .take = fake_take,
                                      .hold = fake_hold, .drop = fake_drop, .holds = fake_holds,
                                      .n_free = fake_n_free, .data = fake_data,
                                      .n_pages = max_pages, .bytes = sizeof f->stored[0] };
}

void fake_model_release(fake_model *f) {
    free(f->stored);
    free(f->holds);
}
