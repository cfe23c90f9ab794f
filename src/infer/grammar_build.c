/* Expressions become automata over bytes: see grammar_impl.h. Everything is built from its end: `emit`
 * takes the node that follows and returns the node to begin with. Parts that can never be completed
 * (rules that only call themselves, empty classes) are left out, so that whatever matches so far can be
 * completed: that is why a mask is never empty before the end. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/str.h"
#include "infer/grammar_impl.h"

/* Up to so many copies of one character are written out instead of counted. */
enum { UNROLL = 8 };

typedef struct maker {
    gr_builder *b;
    qsi_grammar *g;
    size_t cap_nodes, cap_edges, cap_targets, cap_counters;
    uint32_t ctr;   /* the counter that runs around what is emitted */
    uint32_t *ends; /* [rules] */
    size_t cap_rules;
    gr_expr **bodies; /* [rules]: those of the builder, then lifted ones */
    size_t n_bodies, cap_bodies;
    uint32_t *chain; /* open addressing: nodes of one edge, so that equal ends are shared */
    size_t cap_chain, n_chain;
} maker;

/* ---- what can be completed, and what can be empty ---- */

static bool productive(const gr_builder *b, gr_expr *e);

static bool find_productive(const gr_builder *b, const gr_expr *e) {
    switch (e->kind) {
    case GR_NEVER: return false;
    case GR_TEXT: return true;
    case GR_CLASS: return true;
    case GR_RULE: return b->rules[e->rule].productive;
    case GR_REPEAT: return e->lo == 0 || productive(b, e->kids[0]);
    case GR_SEQ:
        for (size_t i = 0; i < e->n; i++)
            if (!productive(b, e->kids[i])) return false;
        return true;
    case GR_ALT:
        for (size_t i = 0; i < e->n; i++)
            if (productive(b, e->kids[i])) return true;
        return false;
    }
    return false;
}

static bool productive(const gr_builder *b, gr_expr *e) {
    if (e->can == 0 && find_productive(b, e)) e->can = 1;
    if (e->can == 0 && b->settled) e->can = 2;
    return e->can == 1;
}

static bool nullable(const gr_builder *b, gr_expr *e);

static bool find_nullable(const gr_builder *b, const gr_expr *e) {
    switch (e->kind) {
    case GR_NEVER: return false;
    case GR_TEXT: return e->n == 0;
    case GR_CLASS: return false;
    case GR_RULE: return b->rules[e->rule].nullable;
    case GR_REPEAT: return e->lo == 0 || nullable(b, e->kids[0]);
    case GR_SEQ:
        for (size_t i = 0; i < e->n; i++)
            if (!nullable(b, e->kids[i])) return false;
        return true;
    case GR_ALT:
        for (size_t i = 0; i < e->n; i++)
            if (nullable(b, e->kids[i])) return true;
        return false;
    }
    return false;
}

static bool nullable(const gr_builder *b, gr_expr *e) {
    if (e->empty == 0 && find_nullable(b, e)) e->empty = 1;
    if (e->empty == 0 && b->settled) e->empty = 2;
    return e->empty == 1;
}

/* Least fixed points, to and fro because rules stand in either order. */
static void mark_rules(gr_builder *b) {
    for (int what = 0; what < 2; what++) {
        bool again = true, back = true;
        while (again && !gr_stopped(b)) {
            again = false;
            back = !back;
            for (size_t k = 0; k < b->n_rules; k++) {
                gr_rule_expr *r = &b->rules[back ? b->n_rules - 1 - k : k];
                bool *mark = what ? &r->nullable : &r->productive;
                if (*mark || !(what ? nullable(b, r->body) : productive(b, r->body))) continue;
                *mark = again = true;
            }
        }
    }
    b->settled = true;
}

/* ---- nodes ---- */

static uint32_t fail(maker *m, qs_status st) {
    if (st == QS_E_LIMIT)
        gr_fail(m->b, st, "the grammar is too large: more than %zu states", m->b->limits.states);
    else gr_fail(m->b, st, "out of memory");
    return 0;
}

static uint32_t node(maker *m, gr_op op, uint32_t a, uint32_t n, uint32_t next) {
    qsi_grammar *g = m->g;
    if (m->b->st != QS_OK) return 0;
    if (g->n_nodes % 4096 == 4095 && gr_stopped(m->b)) return 0;
    if (g->n_nodes >= m->b->limits.states) return fail(m, QS_E_LIMIT);
    if (qsi_grow((void **)&g->nodes, &m->cap_nodes, g->n_nodes + 1, sizeof *g->nodes) != QS_OK)
        return fail(m, QS_E_NOMEM);
    g->nodes[g->n_nodes] =
        (gr_node){ .op = (uint8_t)op, .a = a, .n = n, .next = next, .ctr = m->ctr };
    return (uint32_t)g->n_nodes++;
}

static void edge(maker *m, uint32_t lo, uint32_t hi, uint32_t to) {
    qsi_grammar *g = m->g;
    if (m->b->st != QS_OK) return;
    if (g->n_edges >= 4 * m->b->limits.states) {
        fail(m, QS_E_LIMIT);
    } else if (qsi_grow((void **)&g->edges, &m->cap_edges, g->n_edges + 1, sizeof *g->edges) !=
               QS_OK) {
        fail(m, QS_E_NOMEM);
    } else {
        g->edges[g->n_edges++] = (gr_edge){ (uint8_t)lo, (uint8_t)hi, to };
    }
}

/* Room for n targets; returns where they begin. */
static uint32_t targets(maker *m, size_t n) {
    qsi_grammar *g = m->g;
    size_t at = g->n_targets;
    if (m->b->st != QS_OK) return 0;
    if (n > 4 * m->b->limits.states - at) return fail(m, QS_E_LIMIT);
    if (qsi_grow((void **)&g->targets, &m->cap_targets, at + n, sizeof *g->targets) != QS_OK)
        return fail(m, QS_E_NOMEM);
    memset(g->targets + at, 0, n * sizeof *g->targets);
    g->n_targets += n;
    return (uint32_t)at;
}

static void set_target(maker *m, uint32_t at, uint32_t to) {
    if (m->b->st == QS_OK) m->g->targets[at] = to;
}

static bool grow_chain(maker *m) {
    size_t cap = m->cap_chain ? 2 * m->cap_chain : 1024;
    uint32_t *t = qsi_calloc(cap, sizeof *t);
    if (!t) return fail(m, QS_E_NOMEM), false;
    for (size_t i = 0; i < m->cap_chain; i++) {
        if (!m->chain[i]) continue;
        const gr_node *nd = &m->g->nodes[m->chain[i] - 1];
        const gr_edge *e = &m->g->edges[nd->a];
        uint32_t key[4] = { e->lo, e->hi, e->to, nd->ctr };
        size_t at = qsi_hash(key, sizeof key) & (cap - 1);
        while (t[at]) at = (at + 1) & (cap - 1);
        t[at] = m->chain[i];
    }
    qsi_free(m->chain);
    m->chain = t;
    m->cap_chain = cap;
    return true;
}

/* The node with that one edge. */
static uint32_t one_edge(maker *m, uint32_t lo, uint32_t hi, uint32_t to) {
    uint32_t key[4] = { lo, hi, to, m->ctr };
    if (m->b->st != QS_OK || (2 * m->n_chain >= m->cap_chain && !grow_chain(m))) return 0;
    size_t at = qsi_hash(key, sizeof key) & (m->cap_chain - 1);
    for (; m->chain[at]; at = (at + 1) & (m->cap_chain - 1)) {
        const gr_node *nd = &m->g->nodes[m->chain[at] - 1];
        const gr_edge *e = &m->g->edges[nd->a];
        if (e->lo == lo && e->hi == hi && e->to == to && nd->ctr == m->ctr) return m->chain[at] - 1;
    }
    uint32_t nd = node(m, GR_BYTES, (uint32_t)m->g->n_edges, 1, 0);
    edge(m, lo, hi, to);
    if (m->b->st != QS_OK) return 0;
    m->chain[at] = nd + 1;
    m->n_chain++;
    return nd;
}

/* ---- characters ---- */

/* The characters lo..hi all have `len` bytes in UTF-8: emits what follows the first byte, and the edges
 * of the first byte go to `first` (lo, hi, target). */
typedef struct heads {
    gr_edge *e;
    size_t n, cap;
} heads;

static void add_head(maker *m, heads *h, uint32_t lo, uint32_t hi, uint32_t to) {
    if (m->b->st != QS_OK) return;
    if (h->n > 0 && h->e[h->n - 1].to == to && h->e[h->n - 1].hi + 1u == lo) {
        h->e[h->n - 1].hi = (uint8_t)hi;
        return;
    }
    if (qsi_grow((void **)&h->e, &h->cap, h->n + 1, sizeof *h->e) != QS_OK) {
        fail(m, QS_E_NOMEM);
        return;
    }
    h->e[h->n++] = (gr_edge){ (uint8_t)lo, (uint8_t)hi, to };
}

/* All of lo..hi share the bytes that are not ranges: one chain of byte ranges. */
static void chain(maker *m, heads *h, uint32_t lo, uint32_t hi, uint32_t next) {
    char a[4], z[4];
    int n = qsi_utf8_encode(lo, a);
    (void)qsi_utf8_encode(hi, z);
    for (int i = n - 1; i > 0; i--) next = one_edge(m, (uint8_t)a[i], (uint8_t)z[i], next);
    add_head(m, h, (uint8_t)a[0], (uint8_t)z[0], next);
}

static void split_range(maker *m, heads *h, uint32_t lo, uint32_t hi, uint32_t next) {
    static const uint32_t last[] = { 0x7F, 0x7FF, 0xFFFF, GR_MAX_CP };
    for (int i = 0; i < 3; i++)
        if (lo <= last[i] && hi > last[i]) {
            split_range(m, h, lo, last[i], next);
            split_range(m, h, last[i] + 1, hi, next);
            return;
        }
    if (hi > 0x7F) { /* trailing bytes must run over all of 80..BF, or lie under one leading part */
        for (int i = 1; i < 4; i++) {
            uint32_t low = (1u << (6 * i)) - 1;
            if ((lo & ~low) == (hi & ~low)) continue;
            if (lo & low) {
                split_range(m, h, lo, lo | low, next);
                split_range(m, h, (lo | low) + 1, hi, next);
                return;
            }
            if ((hi & low) != low) {
                split_range(m, h, lo, (hi & ~low) - 1, next);
                split_range(m, h, hi & ~low, hi, next);
                return;
            }
        }
    }
    chain(m, h, lo, hi, next);
}

static uint32_t emit_class(maker *m, gr_expr *e, uint32_t next) {
    heads h = { 0 };
    for (size_t i = 0; i < e->n; i++) split_range(m, &h, e->ranges[i].lo, e->ranges[i].hi, next);
    uint32_t nd = 0;
    if (h.n == 1) {
        nd = one_edge(m, h.e[0].lo, h.e[0].hi, h.e[0].to);
    } else if (m->b->st == QS_OK) {
        nd = node(m, GR_BYTES, (uint32_t)m->g->n_edges, (uint32_t)h.n, 0);
        for (size_t i = 0; i < h.n; i++) edge(m, h.e[i].lo, h.e[i].hi, h.e[i].to);
    }
    qsi_free(h.e);
    return nd;
}

static uint32_t emit_text(maker *m, const char *p, size_t n, uint32_t next) {
    for (size_t i = n; i > 0 && m->b->st == QS_OK; i--)
        next = one_edge(m, (uint8_t)p[i - 1], (uint8_t)p[i - 1], next);
    return next;
}

/* ---- a choice of many texts is a tree of their beginnings ---- */

static int by_bytes(const void *x, const void *y) {
    const gr_expr *a = *(const gr_expr *const *)x, *b = *(const gr_expr *const *)y;
    int c = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
    return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

/* Texts t[0..n), sorted, equal in their first `at` bytes. */
static uint32_t emit_tree(maker *m, const gr_expr **t, size_t n, size_t at, uint32_t next) {
    size_t same = at, first = 0;
    const gr_expr *last = t[n - 1];
    while (same < t[0]->n && same < last->n && t[0]->text[same] == last->text[same]) same++;
    while (first < n && t[first]->n == same) first++;
    uint32_t end = next, body = 0;
    if (first < n) {
        heads h = { 0 };
        for (size_t i = first; i < n && m->b->st == QS_OK;) {
            size_t to = i;
            uint8_t c = (uint8_t)t[i]->text[same];
            while (to < n && (uint8_t)t[to]->text[same] == c) to++;
            add_head(m, &h, c, c, emit_tree(m, t + i, to - i, same + 1, next));
            i = to;
        }
        body = node(m, GR_BYTES, (uint32_t)m->g->n_edges, (uint32_t)h.n, 0);
        for (size_t i = 0; i < h.n; i++) edge(m, h.e[i].lo, h.e[i].hi, h.e[i].to);
        qsi_free(h.e);
        end = body;
        if (first > 0) {
            uint32_t to = targets(m, 2);
            set_target(m, to, body);
            set_target(m, to + 1, next);
            end = node(m, GR_SPLIT, to, 2, 0);
        }
    }
    return emit_text(m, t[0]->text + at, same - at, end);
}

/* ---- expressions ---- */

static uint32_t emit(maker *m, gr_expr *e, uint32_t next);

static uint32_t emit_alt(maker *m, gr_expr *e, uint32_t next) {
    const gr_expr **texts = qsi_alloc(e->n, sizeof *texts);
    uint32_t *to = qsi_alloc(e->n, sizeof *to), nd = 0;
    size_t n = 0, n_texts = 0;
    if (!texts || !to) fail(m, QS_E_NOMEM);
    for (size_t i = 0; i < e->n && m->b->st == QS_OK; i++) {
        gr_expr *k = e->kids[i];
        if (!productive(m->b, k)) continue;
        if (k->kind == GR_TEXT) texts[n_texts++] = k;
        else to[n++] = emit(m, k, next);
    }
    if (m->b->st == QS_OK && n_texts > 0) {
        qsort(texts, n_texts, sizeof *texts, by_bytes);
        to[n++] = emit_tree(m, texts, n_texts, 0, next);
    }
    if (m->b->st == QS_OK && n == 1) nd = to[0];
    if (m->b->st == QS_OK && n != 1) {
        uint32_t at = targets(m, n);
        for (size_t i = 0; i < n; i++) set_target(m, at + (uint32_t)i, to[i]);
        nd = node(m, GR_SPLIT, at, (uint32_t)n, 0);
    }
    qsi_free(texts);
    qsi_free(to);
    return nd;
}

static uint32_t emit_call(maker *m, uint32_t rule, uint32_t next) {
    uint32_t nd = node(m, GR_CALL, rule, 0, next);
    if (m->b->st == QS_OK) m->g->nodes[nd].tail = m->g->nodes[next].op == GR_END && m->ctr == 0;
    return nd;
}

static uint32_t emit_star(maker *m, gr_expr *body, bool at_least_one, uint32_t next) {
    uint32_t to = targets(m, 2), loop = node(m, GR_SPLIT, to, 2, 0);
    uint32_t first = emit(m, body, loop);
    set_target(m, to, first);
    set_target(m, to + 1, next);
    return at_least_one ? first : loop;
}

static uint32_t emit_opt(maker *m, uint32_t body, uint32_t next) {
    uint32_t to = targets(m, 2);
    set_target(m, to, body);
    set_target(m, to + 1, next);
    return node(m, GR_SPLIT, to, 2, 0);
}

/* lo to hi characters of one class, written out. */
static uint32_t emit_copies(maker *m, gr_expr *e, uint32_t next) {
    gr_expr *body = e->kids[0];
    uint32_t nd = next;
    if (e->hi == GR_INF) nd = emit_star(m, body, false, next);
    else
        for (int64_t i = e->lo; i < e->hi; i++) nd = emit_opt(m, emit(m, body, nd), next);
    for (int64_t i = 0; i < e->lo; i++) nd = emit(m, body, nd);
    return nd;
}

/* A rule of its own for e, which holds a counter within a counter. */
static uint32_t lift(maker *m, gr_expr *e) {
    if (m->b->st != QS_OK) return 0;
    if (m->n_bodies >= m->b->limits.states) return fail(m, QS_E_LIMIT);
    if (qsi_grow((void **)&m->bodies, &m->cap_bodies, m->n_bodies + 1, sizeof *m->bodies) != QS_OK)
        return fail(m, QS_E_NOMEM);
    m->bodies[m->n_bodies] = e;
    return (uint32_t)m->n_bodies++;
}

static uint32_t emit_counted(maker *m, gr_expr *e, uint32_t next) {
    qsi_grammar *g = m->g;
    gr_expr *body = e->kids[0];
    int64_t lo = nullable(m->b, body) ? 0 : e->lo; /* empty rounds may fill up any number */
    if (lo == 0 && e->hi == GR_INF) return emit_star(m, body, false, next);
    if (qsi_grow((void **)&g->counters, &m->cap_counters, g->n_counters + 1, sizeof *g->counters) !=
        QS_OK)
        return fail(m, QS_E_NOMEM);
    uint32_t ctr = (uint32_t)g->n_counters++;
    g->counters[ctr] = (gr_counter){ (uint32_t)lo, e->hi == GR_INF ? UINT32_MAX : (uint32_t)e->hi,
                                     lo == 0           ? GR_KEEP_LEAST
                                     : e->hi == GR_INF ? GR_KEEP_MOST
                                                       : GR_KEEP_ALL };
    m->ctr = ctr;
    uint32_t loop = node(m, GR_LOOP, 0, 0, next), back = node(m, GR_BACK, 0, 0, loop);
    uint32_t first = emit(m, body, back);
    if (m->b->st == QS_OK) g->nodes[loop].a = first;
    uint32_t enter = node(m, GR_ENTER, 0, 0, loop);
    m->ctr = 0;
    if (m->b->st == QS_OK) g->nodes[enter].ctr = ctr;
    return enter;
}

static uint32_t emit_repeat(maker *m, gr_expr *e, uint32_t next) {
    gr_expr *body = e->kids[0];
    bool small = body->kind == GR_CLASS || (body->kind == GR_TEXT && body->n <= 4);
    if (!productive(m->b, body)) return next; /* then lo is 0 */
    if (body->kind == GR_TEXT && body->n == 0) return next;
    if (e->lo == 0 && e->hi == 1) return emit_opt(m, emit(m, body, next), next);
    if (e->lo <= 1 && e->hi == GR_INF) return emit_star(m, body, e->lo == 1, next);
    if (small && (e->hi == GR_INF ? e->lo : e->hi) <= UNROLL) return emit_copies(m, e, next);
    if (m->ctr != 0) return emit_call(m, lift(m, e), next);
    return emit_counted(m, e, next);
}

static uint32_t emit(maker *m, gr_expr *e, uint32_t next) {
    if (m->b->st != QS_OK) return 0;
    switch (e->kind) {
    case GR_NEVER: break; /* left out above */
    case GR_TEXT: return emit_text(m, e->text, e->n, next);
    case GR_CLASS: return emit_class(m, e, next);
    case GR_RULE: return emit_call(m, e->rule, next);
    case GR_REPEAT: return emit_repeat(m, e, next);
    case GR_ALT: return emit_alt(m, e, next);
    case GR_SEQ:
        for (size_t i = e->n; i > 0; i--) next = emit(m, e->kids[i - 1], next);
        return next;
    }
    return next;
}

/* ---- the whole ---- */

static qs_status grow_rules(maker *m) {
    qsi_grammar *g = m->g;
    qs_status st = QS_OK;
    size_t cap = m->cap_rules;
    QS_TRY(qsi_grow((void **)&g->rules, &cap, m->n_bodies, sizeof *g->rules));
    m->cap_rules = cap;
    g->n_rules = m->n_bodies;
done:
    return st;
}

/* Emits every rule; emitting may lift further ones. */
static qs_status emit_rules(maker *m) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < m->n_bodies && m->b->st == QS_OK; i++) {
        bool given = i < m->b->n_rules;
        QS_TRY(grow_rules(m));
        m->g->rules[i] = (gr_rule_info){ 0 };
        if (given && !m->b->rules[i].productive) continue;
        uint32_t end = node(m, GR_END, 0, 0, 0);
        uint32_t start = emit(m, m->bodies[i], end);
        m->g->rules[i] = (gr_rule_info){ start, nullable(m->b, m->bodies[i]) };
    }
    QS_TRY(grow_rules(m));
done:
    return st;
}

static void number_bytes(qsi_grammar *g) {
    bool cut[257] = { true };
    for (size_t i = 0; i < g->n_edges; i++) cut[g->edges[i].lo] = cut[g->edges[i].hi + 1] = true;
    int k = -1;
    for (int c = 0; c < 256; c++) g->byte_class[c] = (uint8_t)(k += cut[c]);
    g->n_classes = k + 1;
}

static qs_status make_grammar(maker *m) {
    qs_status st = QS_OK;
    gr_builder *b = m->b;
    m->g->n_counters = 1;
    QS_TRY(qsi_grow((void **)&m->g->counters, &m->cap_counters, 1, sizeof *m->g->counters));
    QS_TRY(qsi_grow((void **)&m->bodies, &m->cap_bodies, b->n_rules, sizeof *m->bodies));
    for (size_t i = 0; i < b->n_rules; i++) m->bodies[i] = b->rules[i].body;
    m->n_bodies = b->n_rules;
    (void)node(m, GR_END, 0, 0, 0); /* number 0 stands for no node */
    QS_TRY(emit_rules(m));
    QS_TRY(b->st);
    number_bytes(m->g);
done:
    return st;
}

qs_status gr_build(qsi_grammar **out, gr_builder *b, qs_err *err) {
    qs_status st = QS_OK;
    maker m = { .b = b };
    qsi_grammar *g = NULL;
    if (b->st != QS_OK) return b->st;
    mark_rules(b);
    QS_TRY(b->st);
    if (!b->rules[0].productive)
        QS_FAIL(err, QS_E_ARG, "nothing matches the grammar: no answer is possible");
    g = m.g = qsi_calloc(1, sizeof *g);
    if (!g) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    atomic_init(&g->refs, 1);
    g->limits = b->limits;
    QS_TRY(qsi_monitor_create(&g->lock, err));
    st = make_grammar(&m);
    if (st != QS_OK && b->st == QS_OK) QS_FAIL(err, st, "out of memory");
    QS_TRY(st);
    *out = g;
    g = NULL;
done:
    qsi_free(m.bodies);
    qsi_free(m.chain);
    qsi_grammar_release(g);
    return st;
}
