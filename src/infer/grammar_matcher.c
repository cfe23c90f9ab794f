/* Where one answer stands in a grammar: see grammar.h. A matcher keeps its own store of sets, with true
 * counters; the grammar's cache translates its current set when a mask is asked for. */
#include <string.h>

#include "infer/grammar_impl.h"

enum { COMPACT_AT = 4096 }; /* sets, at least, before what is not needed any more is dropped */

struct qsi_matcher {
    qsi_grammar *g;
    qsi_token_trie *trie;
    gr_cache *cache;
    gr_store store;
    gr_work work;
    gr_known known;
    uint32_t
        at[QSI_MATCHER_BACK + 2]; /* sets before the last ids; the current one; one more to be new */
    bool over[QSI_MATCHER_BACK + 2]; /* an end token came */
    int n_back;                      /* ids that can be taken back */
    size_t compact_at;
    uint32_t *mask;
    qs_status failed;
};

static uint32_t now(const qsi_matcher *m) {
    return m->at[m->n_back];
}

static bool is_over(const qsi_matcher *m) {
    return m->over[m->n_back];
}

static qs_status create(qsi_matcher **out, qsi_grammar *g, qsi_token_trie *t, qs_err *err) {
    qs_status st = QS_OK;
    qsi_matcher *m = qsi_calloc(1, sizeof *m);
    if (!m) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    m->g = qsi_grammar_retain(g);
    m->trie = qsi_token_trie_retain(t);
    m->compact_at = COMPACT_AT;
    QS_TRY(gr_cache_for(g, t, &m->cache, err));
    m->mask = qsi_calloc(((size_t)t->n_ids + 31) / 32 + 1, sizeof *m->mask);
    if (!m->mask) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    *out = m;
    m = NULL;
done:
    qsi_matcher_free(m);
    return st;
}

qs_status qsi_matcher_create(qsi_matcher **out, qsi_grammar *g, qsi_token_trie *t, qs_err *err) {
    qs_status st = QS_OK;
    qsi_matcher *m = NULL;
    QS_TRY(create(&m, g, t, err));
    st = gr_store_init(&m->store);
    if (st == QS_OK) st = gr_first(&m->work, g, &m->store, &m->at[0]);
    if (st != QS_OK) QS_FAIL(err, st, "cannot begin with the grammar: %s", qs_status_text(st));
    *out = m;
    m = NULL;
done:
    qsi_matcher_free(m);
    return st;
}

void qsi_matcher_free(qsi_matcher *m) {
    if (!m) return;
    gr_store_release(&m->store);
    gr_work_release(&m->work);
    qsi_free(m->known.id);
    qsi_free(m->mask);
    qsi_token_trie_release(m->trie);
    qsi_grammar_release(m->g);
    qsi_free(m);
}

qs_status qsi_matcher_clone(qsi_matcher **out, const qsi_matcher *from, qs_err *err) {
    qs_status st = QS_OK;
    qsi_matcher *m = NULL;
    QS_TRY(create(&m, from->g, from->trie, err));
    if (gr_store_copy(&m->store, &from->store) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    memcpy(m->at, from->at, sizeof m->at);
    memcpy(m->over, from->over, sizeof m->over);
    m->n_back = from->n_back;
    m->compact_at = from->compact_at;
    m->failed = from->failed;
    *out = m;
    m = NULL;
done:
    qsi_matcher_free(m);
    return st;
}

const uint32_t *qsi_matcher_mask(qsi_matcher *m) {
    size_t n = ((size_t)m->trie->n_ids + 31) / 32;
    if (is_over(m)) {
        memcpy(m->mask, m->trie->ends, n * sizeof *m->mask);
        return m->mask;
    }
    qs_status st = gr_mask(m->cache, &m->store, now(m), &m->known, m->mask);
    if (st == QS_OK) return m->mask;
    m->failed = st;
    return NULL;
}

/* Forgets what no id that can be taken back leads to. */
static qs_status compact(qsi_matcher *m) {
    qs_status st = QS_OK;
    if (m->store.n_sets < m->compact_at) goto done;
    QS_TRY(gr_store_compact(&m->store, m->at, (size_t)m->n_back + 1));
    if (m->known.cap) memset(m->known.id, 0, m->known.cap * sizeof *m->known.id);
    m->compact_at = 2 * m->store.n_sets > COMPACT_AT ? 2 * m->store.n_sets : COMPACT_AT;
    if (gr_store_bytes(&m->store) > m->g->limits.cache_bytes) st = QS_E_LIMIT;
done:
    return st;
}

static void push(qsi_matcher *m, uint32_t set, bool over) {
    m->at[m->n_back + 1] = set;
    m->over[m->n_back + 1] = over;
    if (m->n_back < QSI_MATCHER_BACK) {
        m->n_back++;
        return;
    }
    memmove(m->at, m->at + 1, (QSI_MATCHER_BACK + 1) * sizeof *m->at);
    memmove(m->over, m->over + 1, (QSI_MATCHER_BACK + 1) * sizeof *m->over);
}

bool qsi_matcher_accept_bytes(qsi_matcher *m, const char *p, size_t n) {
    qs_status st = QS_OK;
    if (is_over(m) && n > 0) return false;
    QS_TRY(compact(m));
    uint32_t set = now(m);
    size_t end = m->work.done + m->g->limits.work;
    for (size_t i = 0; i < n && set != GR_DEAD; i++) {
        QS_TRY(gr_step(&m->work, m->g, &m->store, set, (uint8_t)p[i], &set));
        if (m->work.done > end) QS_TRY(QS_E_LIMIT);
    }
    if (set == GR_DEAD) return false;
    push(m, set, false);
    return true;
done:
    m->failed = st;
    return false;
}

bool qsi_matcher_accept(qsi_matcher *m, int32_t id) {
    const qsi_token_trie *t = m->trie;
    if (id < 0 || id >= t->n_ids) return false;
    if (t->ends[id / 32] >> (id % 32) & 1) {
        if (!qsi_matcher_may_end(m)) return false;
        push(m, now(m), true);
        return true;
    }
    uint32_t from = t->start[id], to = t->start[id + 1];
    return from < to && qsi_matcher_accept_bytes(m, t->bytes + from, to - from);
}

bool qsi_matcher_rollback(qsi_matcher *m, int32_t n) {
    if (n < 0 || n > m->n_back) return false;
    m->n_back -= n;
    return true;
}

bool qsi_matcher_may_end(const qsi_matcher *m) {
    return is_over(m) || m->store.sets[now(m)].accept;
}

bool qsi_matcher_done(const qsi_matcher *m) {
    return is_over(m) || (m->store.sets[now(m)].accept && m->store.sets[now(m)].n == 0);
}

qs_status qsi_matcher_error(const qsi_matcher *m, qs_err *err) {
    if (m->failed == QS_E_LIMIT)
        return qsi_err_set(err, QS_E_LIMIT,
                           "the grammar is too ambiguous here: finding the next tokens took "
                           "more than %zu steps",
                           m->g->limits.work);
    return m->failed == QS_OK ? QS_OK : qsi_err_set(err, m->failed, "%s", qs_status_text(m->failed));
}
