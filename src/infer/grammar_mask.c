/* Masks of a grammar over one vocabulary: the walk through the tree of tokens, and what is kept of it.
 *
 * The cache has sets of its own. In them a counter that is far from its bounds (farther than the
 * longest token has bytes) is written as one fixed value, so that position 500 and position 70000 of a
 * long string are one set, with one mask.
 *
 * A mask is worked out in two parts. Most tokens stay within the rule that is being matched; which do
 * so does not depend on who called it, so that is worked out once per place in a rule, with the origin
 * unknown (GR_OUT), and shared by all who call it: `local`. The few nodes of the tree at which the rule
 * may end (a closing quote within a token) are remembered, and only what lies below them is walked
 * with the real origin. The idea of parting tokens so is XGrammar's (Dong et al. 2024,
 * arXiv:2411.15100); here it follows from Earley's items: what the union of items accepts is the union
 * of what each accepts.
 *
 * Everything of a grammar's caches happens under the grammar's lock. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "infer/grammar_impl.h"

typedef struct local {
    uint32_t *mask;    /* tokens that do not leave the rule, and those with which it ends */
    uint32_t *escapes; /* nodes of the tree at which it may end, with something below */
    size_t n_escapes, cap;
} local;

typedef struct known_set { /* what is known of a set */
    uint32_t *next;        /* [n_classes], UNKNOWN where not tried yet; NULL: none */
    uint32_t *mask;        /* whole, NULL: not yet */
    local *local;          /* sets with origin GR_OUT only */
} known_set;

enum { UNKNOWN = UINT32_MAX };

struct gr_cache {
    gr_cache *next;
    qsi_grammar *g;
    qsi_token_trie *trie;
    gr_store store;
    known_set *known; /* [store.n_sets] */
    size_t cap_known, n_known;
    size_t bytes; /* of all that hangs on `known` */
    uint64_t epoch;
    gr_work work;
    size_t work_end; /* work.done at which this mask has become too expensive */
    uint32_t *state; /* [longest + 1] sets along the walk's path */
};

static size_t mask_words(const gr_cache *c) {
    return ((size_t)c->trie->n_ids + 31) / 32;
}

static void drop_known(gr_cache *c) {
    for (size_t i = 0; i < c->n_known; i++) {
        qsi_free(c->known[i].next);
        qsi_free(c->known[i].mask);
        if (c->known[i].local) {
            qsi_free(c->known[i].local->mask);
            qsi_free(c->known[i].local->escapes);
            qsi_free(c->known[i].local);
        }
    }
    c->n_known = 0;
    c->bytes = 0;
}

static void cache_free(gr_cache *c) {
    if (!c) return;
    drop_known(c);
    qsi_free(c->known);
    qsi_free(c->state);
    gr_store_release(&c->store);
    gr_work_release(&c->work);
    qsi_token_trie_release(c->trie);
    qsi_free(c);
}

void gr_caches_free(qsi_grammar *g) {
    while (g->caches) {
        gr_cache *next = g->caches->next;
        cache_free(g->caches);
        g->caches = next;
    }
}

static qs_status cache_create(gr_cache **out, qsi_grammar *g, qsi_token_trie *t, qs_err *err) {
    qs_status st = QS_OK;
    gr_cache *c = qsi_calloc(1, sizeof *c);
    if (!c) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    c->g = g;
    c->trie = qsi_token_trie_retain(t);
    c->epoch = 1;
    c->state = qsi_alloc((size_t)t->longest + 1, sizeof *c->state);
    if (!c->state || gr_store_init(&c->store) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    *out = c;
    c = NULL;
done:
    cache_free(c);
    return st;
}

qs_status gr_cache_for(qsi_grammar *g, qsi_token_trie *t, gr_cache **out, qs_err *err) {
    qs_status st = QS_OK;
    gr_cache *c;
    qsi_monitor_lock(g->lock);
    for (c = g->caches; c && c->trie != t; c = c->next) continue;
    if (!c) {
        QS_TRY(cache_create(&c, g, t, err));
        c->next = g->caches;
        g->caches = c;
    }
    *out = c;
done:
    qsi_monitor_unlock(g->lock);
    return st;
}

static size_t cache_bytes(const gr_cache *c) {
    return c->bytes + gr_store_bytes(&c->store) + c->cap_known * sizeof *c->known;
}

/* Everything is forgotten when the cache has grown beyond its bound. */
static qs_status keep_small(gr_cache *c) {
    qs_status st = QS_OK;
    if (cache_bytes(c) <= c->g->limits.cache_bytes) goto done;
    drop_known(c);
    gr_store_release(&c->store);
    c->epoch++;
    QS_TRY(gr_store_init(&c->store));
done:
    return st;
}

static qs_status check_cost(const gr_cache *c) {
    return c->work.done > c->work_end || cache_bytes(c) > 2 * c->g->limits.cache_bytes ? QS_E_LIMIT
                                                                                       : QS_OK;
}

/* `known` has an entry for every set. */
static qs_status follow_store(gr_cache *c) {
    qs_status st = QS_OK;
    if (c->n_known == c->store.n_sets) goto done;
    QS_TRY(qsi_grow((void **)&c->known, &c->cap_known, c->store.n_sets, sizeof *c->known));
    memset(c->known + c->n_known, 0, (c->store.n_sets - c->n_known) * sizeof *c->known);
    c->n_known = c->store.n_sets;
done:
    return st;
}

/* ---- sets of a matcher become sets of the cache ---- */

static uint32_t clamp(uint32_t n, const gr_counter *c, uint32_t longest) {
    if (n < c->lo) return c->lo - n > longest ? 0 : n;
    return c->hi - n > longest ? c->lo : n; /* no bound: hi is the greatest number there is */
}

static qs_status bring_one(gr_cache *c, const gr_store *s, uint32_t at, gr_known *k) {
    qs_status st = QS_OK;
    const gr_set *x = &s->sets[at];
    gr_work *w = &c->work;
    gr_work_begin(w);
    for (uint32_t i = 0; i < x->n; i++) {
        gr_item item = s->items[x->first + i];
        uint32_t ctr = c->g->nodes[item.node].ctr;
        if (item.origin < GR_OUT) item.origin = k->id[item.origin];
        if (ctr) {
            item.lo = clamp(item.lo, &c->g->counters[ctr], (uint32_t)c->trie->longest);
            item.hi = clamp(item.hi, &c->g->counters[ctr], (uint32_t)c->trie->longest);
        }
        QS_TRY(gr_work_add(w, c->g, item));
    }
    w->accept = x->accept;
    w->out = x->out;
    QS_TRY(gr_work_intern(w, c->g, &c->store, &k->id[at]));
    QS_TRY(follow_store(c));
done:
    return st;
}

/* The sets that `at` needs and that are not known yet, greatest number first. */
static qs_status list_missing(const gr_store *s, uint32_t at, const gr_known *k, uint32_t **list,
                              size_t *n) {
    qs_status st = QS_OK;
    size_t cap = 0, n_list = 0;
    uint8_t *seen = qsi_calloc(s->n_sets, 1);
    if (!seen) QS_TRY(QS_E_NOMEM);
    QS_TRY(qsi_grow((void **)list, &cap, 1, sizeof **list));
    (*list)[n_list++] = at;
    for (size_t i = 0; i < n_list; i++) {
        const gr_set *x = &s->sets[(*list)[i]];
        for (uint32_t j = 0; j < x->n; j++) {
            uint32_t o = s->items[x->first + j].origin;
            if (o >= GR_OUT || seen[o] || k->id[o]) continue;
            seen[o] = 1;
            QS_TRY(qsi_grow((void **)list, &cap, n_list + 1, sizeof **list));
            (*list)[n_list++] = o;
        }
    }
    *n = n_list;
done:
    qsi_free(seen);
    return st;
}

static int ascending(const void *x, const void *y) {
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static qs_status bring(gr_cache *c, const gr_store *s, uint32_t at, gr_known *k) {
    qs_status st = QS_OK;
    uint32_t *list = NULL;
    size_t n = 0, cap = k->cap;
    if (k->epoch != c->epoch && k->cap) memset(k->id, 0, k->cap * sizeof *k->id);
    k->epoch = c->epoch;
    if (s->n_sets > k->cap) {
        QS_TRY(qsi_grow((void **)&k->id, &cap, s->n_sets, sizeof *k->id));
        memset(k->id + k->cap, 0, (cap - k->cap) * sizeof *k->id);
        k->cap = cap;
    }
    if (k->id[at]) goto done;
    QS_TRY(list_missing(s, at, k, &list, &n));
    qsort(list, n, sizeof *list, ascending);
    for (size_t i = 0; i < n; i++) QS_TRY(bring_one(c, s, list[i], k));
done:
    qsi_free(list);
    return st;
}

/* ---- the walk ---- */

/* next_set when it was not tried before. */
static qs_status try_byte(gr_cache *c, uint32_t from, uint8_t byte, uint32_t *to) {
    qs_status st = QS_OK;
    int k = c->g->byte_class[byte], n = c->g->n_classes;
    if (!c->known[from].next) {
        uint32_t *next = qsi_alloc((size_t)n, sizeof *next);
        if (!next) QS_TRY(QS_E_NOMEM);
        for (int i = 0; i < n; i++) next[i] = UNKNOWN;
        c->known[from].next = next;
        c->bytes += (size_t)n * sizeof *next;
    }
    QS_TRY(gr_step(&c->work, c->g, &c->store, from, byte, to));
    QS_TRY(follow_store(c));
    c->known[from].next[k] = *to;
    QS_TRY(check_cost(c));
done:
    return st;
}

static inline qs_status next_set(gr_cache *c, uint32_t from, uint8_t byte, uint32_t *to) {
    const uint32_t *next = c->known[from].next;
    if (next && (*to = next[c->g->byte_class[byte]]) != UNKNOWN) return QS_OK;
    return try_byte(c, from, byte, to);
}

static inline void set_ids(const qsi_token_trie *t, int32_t id, uint32_t *mask) {
    for (; id >= 0; id = t->same[id]) mask[id / 32] |= 1u << (id % 32);
}

static qs_status add_escape(local *l, uint32_t node) {
    qs_status st = QS_OK;
    QS_TRY(qsi_grow((void **)&l->escapes, &l->cap, l->n_escapes + 1, sizeof *l->escapes));
    l->escapes[l->n_escapes++] = node;
done:
    return st;
}

/* Sets the bits of all tokens in nodes [i, end), whose parent has depth `depth`, that are possible
 * from set `from`. l (may be NULL) gets the nodes at which a rule with unknown origin ends. */
static qs_status walk(gr_cache *c, uint32_t i, uint32_t end, int depth, uint32_t from, uint32_t *mask,
                      local *l) {
    qs_status st = QS_OK;
    const qsi_token_trie *t = c->trie;
    const gr_trie_node *nodes = t->nodes;
    uint32_t *state = c->state;
    state[depth] = from;
    while (i < end) {
        const gr_trie_node *nd = &nodes[i];
        uint32_t to;
        QS_TRY(next_set(c, state[nd->depth - 1], nd->byte, &to));
        if (to == GR_DEAD) {
            i = nd->skip;
            continue;
        }
        if (nd->id >= 0) set_ids(t, nd->id, mask);
        state[nd->depth] = to;
        i++;
        if (l && nd->skip > i && c->store.sets[to].out) QS_TRY(add_escape(l, i - 1));
    }
done:
    return st;
}

/* ---- the two parts of a mask ---- */

/* Set x's items of one caller, with the caller forgotten. */
static qs_status forget_origin(gr_cache *c, uint32_t x, uint32_t origin, uint32_t label,
                               uint32_t *id) {
    qs_status st = QS_OK;
    gr_work_begin(&c->work);
    for (uint32_t k = 0; k < c->store.sets[x].n; k++) {
        gr_item i = c->store.items[c->store.sets[x].first + k];
        if (i.origin != origin || i.label != label) continue;
        i.origin = GR_OUT;
        i.label = 0;
        QS_TRY(gr_work_add(&c->work, c->g, i));
    }
    QS_TRY(gr_work_close(&c->work, c->g, &c->store));
    c->work.out = false; /* an end before any byte is in x already */
    QS_TRY(gr_work_intern(&c->work, c->g, &c->store, id));
    QS_TRY(follow_store(c));
done:
    return st;
}

static qs_status find_local(gr_cache *c, uint32_t id, local **out) {
    qs_status st = QS_OK;
    local *l = NULL;
    *out = c->known[id].local;
    if (*out) goto done;
    l = qsi_calloc(1, sizeof *l);
    if (!l) QS_TRY(QS_E_NOMEM);
    l->mask = qsi_calloc(mask_words(c), sizeof *l->mask);
    if (!l->mask) QS_TRY(QS_E_NOMEM);
    QS_TRY(walk(c, 0, c->trie->n_nodes, 0, id, l->mask, l));
    c->bytes += sizeof *l + mask_words(c) * sizeof *l->mask + l->cap * sizeof *l->escapes;
    *out = c->known[id].local = l;
    l = NULL;
done:
    if (l) {
        qsi_free(l->mask);
        qsi_free(l->escapes);
        qsi_free(l);
    }
    return st;
}

/* Behind the rule: what lies below the nodes at which it may end. */
static qs_status add_behind(gr_cache *c, const local *l, uint32_t origin, uint32_t label,
                            uint32_t *mask) {
    qs_status st = QS_OK;
    uint32_t behind;
    if (origin == GR_ROOT || l->n_escapes == 0) goto done;
    gr_work_begin(&c->work);
    QS_TRY(gr_work_complete(&c->work, c->g, &c->store, origin, label));
    QS_TRY(gr_work_close(&c->work, c->g, &c->store));
    QS_TRY(gr_work_intern(&c->work, c->g, &c->store, &behind));
    QS_TRY(follow_store(c));
    for (size_t i = 0; i < l->n_escapes; i++) {
        const gr_trie_node *nd = &c->trie->nodes[l->escapes[i]];
        QS_TRY(walk(c, l->escapes[i] + 1, nd->skip, nd->depth, behind, mask, NULL));
    }
done:
    return st;
}

static qs_status find_mask(gr_cache *c, uint32_t id, uint32_t *mask) {
    qs_status st = QS_OK;
    uint32_t origin = GR_SELF, label = 0;
    gr_set x = c->store.sets[id];
    for (uint32_t k = 0; k < x.n; k++) { /* sorted by origin and label; GR_SELF comes last */
        gr_item i = c->store.items[x.first + k];
        local *l;
        uint32_t out;
        if (i.origin == GR_SELF) break;
        if (k > 0 && i.origin == origin && i.label == label) continue;
        origin = i.origin;
        label = i.label;
        QS_TRY(forget_origin(c, id, origin, label, &out));
        QS_TRY(find_local(c, out, &l));
        for (size_t j = 0; j < mask_words(c); j++) mask[j] |= l->mask[j];
        QS_TRY(add_behind(c, l, origin, label, mask));
    }
    for (size_t j = 0; x.accept && j < mask_words(c); j++) mask[j] |= c->trie->ends[j];
done:
    return st;
}

static qs_status mask_of(gr_cache *c, uint32_t id, const uint32_t **out) {
    qs_status st = QS_OK;
    size_t n = mask_words(c);
    uint32_t *mask = NULL;
    *out = c->known[id].mask;
    if (*out) goto done;
    mask = qsi_calloc(n, sizeof *mask);
    if (!mask) QS_TRY(QS_E_NOMEM);
    QS_TRY(find_mask(c, id, mask));
    c->bytes += n * sizeof *mask;
    *out = c->known[id].mask = mask;
    mask = NULL;
done:
    qsi_free(mask);
    return st;
}

qs_status gr_mask(gr_cache *c, const gr_store *s, uint32_t at, gr_known *known, uint32_t *mask) {
    qs_status st = QS_OK;
    const uint32_t *found;
    qsi_monitor_lock(c->g->lock);
    QS_TRY(keep_small(c));
    c->work_end = c->work.done + c->g->limits.work;
    QS_TRY(bring(c, s, at, known));
    QS_TRY(mask_of(c, known->id[at], &found));
    memcpy(mask, found, mask_words(c) * sizeof *mask);
done:
    qsi_monitor_unlock(c->g->lock);
    return st;
}
