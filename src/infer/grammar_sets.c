/* Sets of items: see grammar_impl.h. An interned set holds only items that wait for a byte or for a
 * rule, sorted, so that equal sets are equal bytes. Sets only refer to sets with smaller numbers (or to
 * themselves, as GR_SELF). */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "infer/grammar_impl.h"

/* ---- stores ---- */

static qs_status intern(gr_store *s, const gr_item *items, size_t n, bool accept, bool out,
                        uint32_t *id);

qs_status gr_store_init(gr_store *s) {
    uint32_t dead;
    *s = (gr_store){ 0 };
    return intern(s, NULL, 0, false, false, &dead);
}

void gr_store_release(gr_store *s) {
    qsi_free(s->items);
    qsi_free(s->sets);
    qsi_free(s->table);
    *s = (gr_store){ 0 };
}

size_t gr_store_bytes(const gr_store *s) {
    return s->cap_items * sizeof *s->items + s->cap_sets * sizeof *s->sets +
           s->cap_table * sizeof *s->table;
}

qs_status gr_store_copy(gr_store *to, const gr_store *from) {
    qs_status st = QS_OK;
    *to = (gr_store){ 0 };
    QS_TRY(qsi_grow((void **)&to->items, &to->cap_items, from->n_items, sizeof *to->items));
    QS_TRY(qsi_grow((void **)&to->sets, &to->cap_sets, from->n_sets, sizeof *to->sets));
    QS_TRY(qsi_grow((void **)&to->table, &to->cap_table_alloc, from->cap_table, sizeof *to->table));
    if (from->n_items) memcpy(to->items, from->items, from->n_items * sizeof *to->items);
    memcpy(to->sets, from->sets, from->n_sets * sizeof *to->sets);
    memcpy(to->table, from->table, from->cap_table * sizeof *to->table);
    to->n_items = from->n_items;
    to->n_sets = from->n_sets;
    to->cap_table = from->cap_table;
done:
    if (st != QS_OK) gr_store_release(to);
    return st;
}

static qs_status grow_table(gr_store *s) {
    size_t cap = s->cap_table ? 2 * s->cap_table : 64;
    qs_status st = QS_OK;
    uint32_t *t = qsi_calloc(cap, sizeof *t);
    if (!t) return QS_E_NOMEM;
    for (uint32_t i = 1; i < s->n_sets; i++) {
        size_t at = s->sets[i].hash & (cap - 1);
        while (t[at]) at = (at + 1) & (cap - 1);
        t[at] = i;
    }
    qsi_free(s->table);
    s->table = t;
    s->cap_table = s->cap_table_alloc = cap;
    return st;
}

static bool same_set(const gr_store *s, const gr_set *x, const gr_item *items, size_t n) {
    return x->n == n && (n == 0 || memcmp(s->items + x->first, items, n * sizeof *items) == 0);
}

static qs_status intern(gr_store *s, const gr_item *items, size_t n, bool accept, bool out,
                        uint32_t *id) {
    qs_status st = QS_OK;
    uint32_t hash = (uint32_t)qsi_hash_seed(items ? items : (const void *)"", n * sizeof *items,
                                            (uint64_t)accept * 2 + (uint64_t)out);
    if (2 * s->n_sets >= s->cap_table) QS_TRY(grow_table(s));
    size_t at = hash & (s->cap_table - 1);
    if (n == 0 && !accept && !out && s->n_sets > 0) {
        *id = GR_DEAD;
        goto done;
    }
    for (; s->table[at]; at = (at + 1) & (s->cap_table - 1)) {
        const gr_set *x = &s->sets[s->table[at]];
        if (x->hash == hash && x->accept == accept && x->out == out && same_set(s, x, items, n)) {
            *id = s->table[at];
            goto done;
        }
    }
    if (s->n_items + n >= GR_OUT || s->n_sets >= GR_OUT) QS_TRY(QS_E_LIMIT);
    QS_TRY(qsi_grow((void **)&s->items, &s->cap_items, s->n_items + n, sizeof *items));
    QS_TRY(qsi_grow((void **)&s->sets, &s->cap_sets, s->n_sets + 1, sizeof *s->sets));
    if (n) memcpy(s->items + s->n_items, items, n * sizeof *items);
    s->sets[s->n_sets] = (gr_set){ (uint32_t)s->n_items, (uint32_t)n, hash, accept, out };
    s->n_items += n;
    *id = (uint32_t)s->n_sets++;
    if (*id != GR_DEAD) s->table[at] = *id;
done:
    return st;
}

static void mark_used(const gr_store *s, uint32_t *map, const uint32_t *roots, size_t n) {
    for (size_t i = 0; i < n; i++) map[roots[i]] = 1;
    for (size_t i = s->n_sets; i > 0; i--) { /* origins have smaller numbers */
        const gr_set *x = &s->sets[i - 1];
        for (uint32_t k = 0; map[i - 1] && k < x->n; k++) {
            uint32_t origin = s->items[x->first + k].origin;
            if (origin < GR_OUT) map[origin] = 1;
        }
    }
}

static int by_item(const void *x, const void *y);

qs_status gr_store_compact(gr_store *s, uint32_t *roots, size_t n) {
    qs_status st = QS_OK;
    gr_store to = { 0 };
    gr_item *items = NULL;
    size_t cap = 0;
    uint32_t *map = qsi_calloc(s->n_sets, sizeof *map);
    if (!map) QS_TRY(QS_E_NOMEM);
    QS_TRY(gr_store_init(&to));
    mark_used(s, map, roots, n);
    for (size_t i = 1; i < s->n_sets; i++) {
        const gr_set *x = &s->sets[i];
        if (!map[i]) continue;
        QS_TRY(qsi_grow((void **)&items, &cap, x->n, sizeof *items));
        for (uint32_t k = 0; k < x->n; k++) {
            items[k] = s->items[x->first + k];
            if (items[k].origin < GR_OUT) items[k].origin = map[items[k].origin];
        }
        QS_TRY(intern(&to, items, x->n, x->accept, x->out, &map[i]));
    }
    for (size_t i = 0; i < n; i++)
        if (roots[i] != GR_DEAD) roots[i] = map[roots[i]];
    gr_store_release(s);
    *s = to;
    to = (gr_store){ 0 };
done:
    gr_store_release(&to);
    qsi_free(items);
    qsi_free(map);
    return st;
}

/* ---- making a set ---- */

void gr_work_release(gr_work *w) {
    qsi_free(w->items);
    qsi_free(w->slots);
    qsi_free(w->stamps);
    *w = (gr_work){ 0 };
}

void gr_work_begin(gr_work *w) {
    w->n = 0;
    w->accept = w->out = false;
    if (++w->stamp == 0) { /* once in four billion sets: old stamps would be taken for new ones */
        if (w->stamps) memset(w->stamps, 0, w->cap_slots * sizeof *w->stamps);
        w->stamp = 1;
    }
}

static size_t slot_of(const gr_work *w, const gr_item *i) {
    uint64_t h = i->node * UINT64_C(0x9E3779B97F4A7C15) ^ i->origin * UINT64_C(0xC2B2AE3D27D4EB4F) ^
                 i->label * UINT64_C(0x165667B19E3779F9);
    return (h ^ h >> 29) & (w->cap_slots - 1);
}

static void put_slot(gr_work *w, uint32_t index) {
    size_t at = slot_of(w, &w->items[index]);
    while (w->stamps[at] == w->stamp) at = (at + 1) & (w->cap_slots - 1);
    w->stamps[at] = w->stamp;
    w->slots[at] = index;
}

static qs_status grow_slots(gr_work *w) {
    qs_status st = QS_OK;
    size_t cap = w->cap_slots ? 2 * w->cap_slots : 64;
    uint32_t *slots = qsi_alloc(cap, sizeof *slots), *stamps = qsi_calloc(cap, sizeof *stamps);
    if (!slots || !stamps) QS_TRY(QS_E_NOMEM);
    qsi_free(w->slots);
    qsi_free(w->stamps);
    w->slots = slots;
    w->stamps = stamps;
    w->cap_slots = cap;
    slots = stamps = NULL;
    w->stamp = 1;
    for (size_t i = 0; i < w->n; i++) put_slot(w, (uint32_t)i);
done:
    qsi_free(slots);
    qsi_free(stamps);
    return st;
}

/* Does `old` say all that `item` says? Else *better: item says all that old does. */
static bool covers(const gr_counter *c, const gr_item *old, const gr_item *item, bool *better) {
    *better = false;
    switch (c->keep) {
    case GR_KEEP_LEAST: *better = item->lo < old->lo; return !*better;
    case GR_KEEP_MOST: *better = item->lo > old->lo; return !*better;
    case GR_KEEP_ALL: return old->lo <= item->lo && item->hi <= old->hi;
    }
    return true;
}

qs_status gr_work_add(gr_work *w, const qsi_grammar *g, gr_item item) {
    qs_status st = QS_OK;
    uint32_t ctr = g->nodes[item.node].ctr;
    static const gr_counter none = { .keep = GR_KEEP_LEAST };
    if (2 * (w->n + 1) > w->cap_slots) QS_TRY(grow_slots(w));
    size_t at = slot_of(w, &item);
    w->done++;
    for (; w->stamps[at] == w->stamp; at = (at + 1) & (w->cap_slots - 1)) {
        gr_item *old = &w->items[w->slots[at]];
        bool better;
        if (old->node != item.node || old->origin != item.origin || old->label != item.label)
            continue;
        if (covers(ctr ? &g->counters[ctr] : &none, old, &item, &better)) goto done;
        if (!better) continue;
        old->node = 0; /* node 0 is an end that nothing waits at: the item is void */
        w->slots[at] = (uint32_t)w->n;
        break;
    }
    QS_TRY(qsi_grow((void **)&w->items, &w->cap, w->n + 1, sizeof *w->items));
    w->items[w->n++] = item;
    if (w->stamps[at] != w->stamp) {
        w->stamps[at] = w->stamp;
        w->slots[at] = (uint32_t)w->n - 1;
    }
done:
    return st;
}

qs_status gr_work_complete(gr_work *w, const qsi_grammar *g, const gr_store *s, uint32_t origin,
                           uint32_t label) {
    qs_status st = QS_OK;
    const gr_set *x = &s->sets[origin];
    for (uint32_t k = 0; k < x->n; k++) {
        gr_item i = s->items[x->first + k];
        const gr_node *nd = &g->nodes[i.node];
        if (nd->op != GR_CALL || nd->a != label) continue;
        i.node = nd->next;
        if (i.origin == GR_SELF) i.origin = origin;
        QS_TRY(gr_work_add(w, g, i));
    }
    w->done += x->n;
done:
    return st;
}

static gr_item at_node(gr_item i, uint32_t node) {
    i.node = node;
    return i;
}

static gr_item counted(gr_item i, uint32_t node, uint32_t lo, uint32_t hi) {
    i.node = node;
    i.lo = lo;
    i.hi = hi;
    return i;
}

/* Round again, or out, or both. */
static qs_status loop(gr_work *w, const qsi_grammar *g, gr_item i, const gr_node *nd) {
    qs_status st = QS_OK;
    const gr_counter *c = &g->counters[nd->ctr];
    if (i.lo < c->hi)
        QS_TRY(gr_work_add(w, g, counted(i, nd->a, i.lo, i.hi < c->hi ? i.hi : c->hi - 1)));
    if (i.hi >= c->lo) QS_TRY(gr_work_add(w, g, counted(i, nd->next, 0, 0)));
done:
    return st;
}

static qs_status back(gr_work *w, const qsi_grammar *g, gr_item i, const gr_node *nd) {
    const gr_counter *c = &g->counters[nd->ctr];
    uint32_t lo = i.lo + 1, hi = i.hi + 1;
    if (c->keep == GR_KEEP_MOST && lo > c->lo) lo = hi = c->lo;
    return gr_work_add(w, g, counted(i, nd->next, lo, hi));
}

static qs_status call(gr_work *w, const qsi_grammar *g, gr_item i, const gr_node *nd) {
    qs_status st = QS_OK;
    const gr_rule_info *r = &g->rules[nd->a];
    gr_item start = { .node = r->start, .origin = GR_SELF, .label = nd->a };
    if (nd->tail) { /* what is complete with the rule is complete with the caller */
        start.origin = i.origin;
        start.label = i.label;
    }
    QS_TRY(gr_work_add(w, g, start));
    if (r->nullable) QS_TRY(gr_work_add(w, g, at_node(i, nd->next)));
done:
    return st;
}

static qs_status end(gr_work *w, const qsi_grammar *g, const gr_store *s, gr_item i) {
    if (i.origin == GR_SELF) return QS_OK; /* an empty rule: the caller went on already */
    w->accept |= i.origin == GR_ROOT;
    w->out |= i.origin == GR_OUT;
    return i.origin >= GR_OUT ? QS_OK : gr_work_complete(w, g, s, i.origin, i.label);
}

qs_status gr_work_close(gr_work *w, const qsi_grammar *g, const gr_store *s) {
    qs_status st = QS_OK;
    for (size_t k = 0; k < w->n; k++) {
        gr_item i = w->items[k];
        const gr_node *nd = &g->nodes[i.node];
        if (i.node == 0) continue;
        switch (nd->op) {
        case GR_BYTES: break;
        case GR_SPLIT:
            for (uint32_t t = 0; t < nd->n; t++)
                QS_TRY(gr_work_add(w, g, at_node(i, g->targets[nd->a + t])));
            break;
        case GR_CALL: QS_TRY(call(w, g, i, nd)); break;
        case GR_ENTER: QS_TRY(gr_work_add(w, g, counted(i, nd->next, 0, 0))); break;
        case GR_LOOP: QS_TRY(loop(w, g, i, nd)); break;
        case GR_BACK: QS_TRY(back(w, g, i, nd)); break;
        case GR_END: QS_TRY(end(w, g, s, i)); break;
        }
    }
done:
    return st;
}

static int by_item(const void *x, const void *y) {
    const gr_item *a = x, *b = y;
    if (a->origin != b->origin) return a->origin < b->origin ? -1 : 1;
    if (a->label != b->label) return a->label < b->label ? -1 : 1;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Sorted, without items that wait for nothing, intervals that touch joined. */
static void tidy(gr_work *w, const qsi_grammar *g) {
    size_t m = 0;
    for (size_t i = 0; i < w->n; i++) {
        const gr_node *nd = &g->nodes[w->items[i].node];
        if (nd->op == GR_BYTES || (nd->op == GR_CALL && !nd->tail)) w->items[m++] = w->items[i];
    }
    w->n = m;
    if (m > 1) qsort(w->items, m, sizeof *w->items, by_item);
    m = 0;
    for (size_t i = 0; i < w->n; i++) {
        gr_item *a = m ? &w->items[m - 1] : NULL, b = w->items[i];
        if (a && a->node == b.node && a->origin == b.origin && a->label == b.label &&
            b.lo <= a->hi + 1) {
            if (b.hi > a->hi) a->hi = b.hi;
        } else {
            w->items[m++] = b;
        }
    }
    w->n = m;
}

qs_status gr_work_intern(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t *id) {
    tidy(w, g);
    return intern(s, w->items, w->n, w->accept, w->out, id);
}

qs_status gr_first(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t *id) {
    qs_status st = QS_OK;
    gr_work_begin(w);
    QS_TRY(gr_work_add(w, g, (gr_item){ .node = g->rules[0].start, .origin = GR_ROOT }));
    QS_TRY(gr_work_close(w, g, s));
    QS_TRY(gr_work_intern(w, g, s, id));
done:
    return st;
}

qs_status gr_step(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t from, uint8_t byte,
                  uint32_t *id) {
    qs_status st = QS_OK;
    gr_set x = s->sets[from];
    gr_work_begin(w);
    for (uint32_t k = 0; k < x.n; k++) {
        gr_item i = s->items[x.first + k];
        const gr_node *nd = &g->nodes[i.node];
        if (nd->op != GR_BYTES) continue;
        if (i.origin == GR_SELF) i.origin = from;
        for (uint32_t e = 0; e < nd->n; e++) {
            const gr_edge *ed = &g->edges[nd->a + e];
            if (byte >= ed->lo && byte <= ed->hi) QS_TRY(gr_work_add(w, g, at_node(i, ed->to)));
        }
    }
    w->done += x.n;
    QS_TRY(gr_work_close(w, g, s));
    QS_TRY(gr_work_intern(w, g, s, id));
done:
    return st;
}
