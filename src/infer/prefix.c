/* The tree of pages: see prefix.h. Nodes stand in an array and refer to each other by index;
 * children of a node are a list. */
#include "infer/prefix.h"

#include <string.h>

#include "base/mem.h"

#define PAGE QSI_KV_PAGE
#define GENERATED (1 << 30)

qs_status qsi_prefix_create(qsi_prefix **out, const qsi_runner *r, bool exact, qs_err *err) {
    qs_status st = QS_OK;
    qsi_prefix *p = qsi_calloc(1, sizeof *p);
    if (!p) QS_FAIL(err, QS_E_NOMEM, "out of memory for the prefix cache");
    *p = (qsi_prefix){ .r = r, .exact = exact && r->two_paths, .root = -1, .spare = -1 };
    *out = p;
done:
    return st;
}

void qsi_prefix_free(qsi_prefix *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++)
        if (p->nodes[i].page >= 0) p->r->pages.drop(p->r->user, p->nodes[i].page);
    qsi_free(p->nodes);
    qsi_free(p);
}

static int32_t key_of(const qsi_prefix *p, const int32_t *ids, const bool *generated, size_t i) {
    return p->exact && generated && generated[i] ? ids[i] | GENERATED : ids[i];
}

/* The keys of the page that begins at id `from`; how many. */
static int32_t keys_at(const qsi_prefix *p, const int32_t *ids, const bool *generated, size_t from,
                       size_t n, int32_t keys[PAGE]) {
    int32_t m = 0;
    for (size_t i = from; i < n && m < PAGE; i++) keys[m++] = key_of(p, ids, generated, i);
    return m;
}

static int32_t common(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b) {
    int32_t n = n_a < n_b ? n_a : n_b, i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* The child of `parent` that has most of the keys in common, *n of them; -1 when none has any. */
static int32_t closest(const qsi_prefix *p, int32_t parent, const int32_t *keys, int32_t n_keys,
                       int32_t *n) {
    int32_t best = -1;
    *n = 0;
    for (int32_t i = parent < 0 ? p->root : p->nodes[parent].first; i >= 0; i = p->nodes[i].next) {
        int32_t m = common(p->nodes[i].keys, p->nodes[i].n, keys, n_keys);
        if (m <= *n) continue;
        best = i;
        *n = m;
        if (m == n_keys) break;
    }
    return best;
}

size_t qsi_prefix_match(qsi_prefix *p, const int32_t *ids, const bool *generated, size_t n,
                        int32_t *pages) {
    size_t at = 0, n_pages = 0;
    int32_t node = -1, keys[PAGE], m;
    p->clock++;
    while (at < n) {
        int32_t n_keys = keys_at(p, ids, generated, at, n, keys);
        node = closest(p, node, keys, n_keys, &m);
        if (node < 0) break;
        p->nodes[node].used = p->clock;
        pages[n_pages++] = p->nodes[node].page;
        at += (size_t)m;
        if (m < PAGE) break;
    }
    return at;
}

static int32_t new_node(qsi_prefix *p) {
    int32_t i = p->spare;
    if (i >= 0) {
        p->spare = p->nodes[i].next;
        return i;
    }
    if (qsi_grow((void **)&p->nodes, &p->cap, p->n + 1, sizeof *p->nodes) != QS_OK) return -1;
    return (int32_t)p->n++;
}

int32_t qsi_prefix_put(qsi_prefix *p, int32_t parent, const int32_t *keys, int32_t n, int32_t page) {
    int32_t i = new_node(p);
    if (i < 0) return -1;
    int32_t *list = parent < 0 ? &p->root : &p->nodes[parent].first;
    p->nodes[i] = (qsi_prefix_node){ .page = page, .n = n, .parent = parent, .first = -1,
                                     .next = *list, .used = p->clock };
    memcpy(p->nodes[i].keys, keys, (size_t)n * sizeof *keys);
    *list = i;
    p->r->pages.hold(p->r->user, page);
    return i;
}

/* A node that ended within its page learns that more follows there. */
static void extend(qsi_prefix *p, int32_t i, const int32_t *keys, int32_t n, int32_t page) {
    qsi_prefix_node *node = &p->nodes[i];
    p->r->pages.hold(p->r->user, page);
    p->r->pages.drop(p->r->user, node->page);
    node->page = page;
    node->n = n;
    memcpy(node->keys, keys, (size_t)n * sizeof *keys);
}

void qsi_prefix_add(qsi_prefix *p, const int32_t *ids, const bool *generated, size_t n,
                    const int32_t *pages) {
    int32_t node = -1, keys[PAGE], m;
    p->clock++;
    for (size_t at = 0; at < n; at += PAGE) {
        int32_t n_keys = keys_at(p, ids, generated, at, n, keys), page = pages[at / PAGE];
        int32_t near = closest(p, node, keys, n_keys, &m);
        if (near >= 0 && m == p->nodes[near].n && m < n_keys)
            extend(p, near, keys, n_keys, page);
        else if (near < 0 || m < n_keys)
            near = qsi_prefix_put(p, node, keys, n_keys, page);
        if (near < 0) return;
        p->nodes[near].used = p->clock;
        node = near;
        if (n_keys < PAGE) return;
    }
}

/* Without children; its page goes when nobody else holds it. */
static void cut(qsi_prefix *p, int32_t i) {
    qsi_prefix_node *node = &p->nodes[i];
    int32_t *at = node->parent < 0 ? &p->root : &p->nodes[node->parent].first;
    while (*at != i) at = &p->nodes[*at].next;
    *at = node->next;
    p->r->pages.drop(p->r->user, node->page);
    node->page = -1;
    node->next = p->spare;
    p->spare = i;
}

/* Of the nodes without children whose page the tree alone holds, the one longest without use. */
static int32_t oldest(const qsi_prefix *p) {
    int32_t best = -1;
    for (size_t i = 0; i < p->n; i++) {
        const qsi_prefix_node *node = &p->nodes[i];
        if (node->page < 0 || node->first >= 0) continue;
        if (p->r->pages.holds(p->r->user, node->page) > 1) continue;
        if (best < 0 || node->used < p->nodes[best].used) best = (int32_t)i;
    }
    return best;
}

bool qsi_prefix_make_room(qsi_prefix *p, int64_t n_free) {
    while (p->r->pages.n_free(p->r->user) < n_free) {
        int32_t i = oldest(p);
        if (i < 0) return false;
        cut(p, i);
    }
    return true;
}

int64_t qsi_prefix_n_own(const qsi_prefix *p) {
    int64_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->nodes[i].page >= 0 && p->r->pages.holds(p->r->user, p->nodes[i].page) == 1;
    return n;
}
