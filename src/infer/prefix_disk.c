/* The prefix cache as a file: see prefix.h.
 *
 *   header   magic, version, key, bytes of a page, number of nodes, hash of these
 *   node     parent (index in this file, -1: none), ids, [64] keys, hash of these and of the
 * page's bytes
 *   page     its bytes
 *
 * Little-endian, as the numbers in the pages are the machine's own (the key tells machines apart).
 * Nodes follow their parents. What does not fit its hash ends the reading: what came before it is
 * good. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "infer/prefix.h"
#include "sys/file.h"

#define MAGIC 0x3158465053514951ull
#define VERSION 1

typedef struct file_head {
    uint64_t magic, version, key, page_bytes, n_nodes, hash;
} file_head;
_Static_assert(sizeof(file_head) == 48, "as on disk");

typedef struct file_node {
    int32_t parent, n;
    int32_t keys[QSI_KV_PAGE];
    uint64_t hash;
} file_node;
_Static_assert(sizeof(file_node) == 8 + 4 * QSI_KV_PAGE + 8, "as on disk");

static uint64_t head_hash(const file_head *h) { return qsi_hash(h, offsetof(file_head, hash)); }

static uint64_t node_hash(const file_node *n, const void *page, size_t bytes) {
    return qsi_hash_seed(page, bytes, qsi_hash(n, offsetof(file_node, hash)));
}

/* ---- saving ---- */

static int falling(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The use that a node must have so that about n nodes have it. A node was used whenever its
 * children were, so those nodes hang together. */
static qs_status least_use(const qsi_prefix *p, size_t n, uint64_t *out, qs_err *err) {
    qs_status st = QS_OK;
    size_t m = 0;
    uint64_t *uses = qsi_alloc(p->n, sizeof *uses);
    if (!uses) QS_FAIL(err, QS_E_NOMEM, "out of memory for saving the prefix cache");
    for (size_t i = 0; i < p->n; i++)
        if (p->nodes[i].page >= 0) uses[m++] = p->nodes[i].used;
    qsort(uses, m, sizeof *uses, falling);
    *out = m == 0 ? 1 : uses[n < m ? n - 1 : m - 1];
done:
    qsi_free(uses);
    return st;
}

/* The node after i in an order that has parents first; -1 after the last. `inside`: i's children
 * too. */
static int32_t next_node(const qsi_prefix *p, int32_t i, bool inside) {
    if (inside && p->nodes[i].first >= 0) return p->nodes[i].first;
    while (i >= 0 && p->nodes[i].next < 0) i = p->nodes[i].parent;
    return i < 0 ? -1 : p->nodes[i].next;
}

static qs_status write_node(qsi_writer *w, const qsi_prefix *p, int32_t i, int32_t parent, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_prefix_node *node = &p->nodes[i];
    const void *page = p->r->pages.data(p->r->user, node->page);
    file_node n = { .parent = parent, .n = node->n };
    memcpy(n.keys, node->keys, (size_t)node->n * sizeof *n.keys);
    n.hash = node_hash(&n, page, p->r->pages.bytes);
    QS_TRY(qsi_writer_write(w, &n, sizeof n, err));
    QS_TRY(qsi_writer_write(w, page, p->r->pages.bytes, err));
done:
    return st;
}

/* Writes up to `most` nodes used at `least` or later; *n: how many. places [p->n] is working
 * memory. */
static qs_status write_nodes(qsi_writer *w, const qsi_prefix *p, uint64_t least, uint64_t most,
                             int32_t *places, uint64_t *n, qs_err *err) {
    qs_status st = QS_OK;
    bool taken = false;
    *n = 0;
    for (int32_t i = p->root; i >= 0 && *n < most; i = next_node(p, i, taken)) {
        int32_t parent = p->nodes[i].parent;
        taken = p->nodes[i].used >= least;
        if (!taken) continue;
        QS_TRY(write_node(w, p, i, parent < 0 ? -1 : places[parent], err));
        places[i] = (int32_t)(*n)++;
    }
done:
    return st;
}

qs_status qsi_prefix_save(qsi_prefix *p, const char *path, uint64_t key, uint64_t max_bytes,
                          int64_t *n_saved, qs_err *err) {
    qs_status st = QS_OK;
    qsi_writer *w = NULL;
    uint64_t each = sizeof(file_node) + p->r->pages.bytes, least = 0, n = 0;
    uint64_t most = max_bytes < sizeof(file_head) ? 0 : (max_bytes - sizeof(file_head)) / each;
    file_head h = { .magic = MAGIC, .version = VERSION, .key = key,
                    .page_bytes = p->r->pages.bytes };
    int32_t *places = qsi_alloc(p->n, sizeof *places);
    if (!places) QS_FAIL(err, QS_E_NOMEM, "out of memory for saving the prefix cache");
    if (most > 0) QS_TRY(least_use(p, most < SIZE_MAX ? (size_t)most : SIZE_MAX, &least, err));
    QS_TRY(qsi_writer_open(&w, path, err));
    QS_TRY(qsi_writer_write(w, &h, sizeof h, err));
    QS_TRY(write_nodes(w, p, least, most, places, &n, err));
    h.n_nodes = n;
    h.hash = head_hash(&h);
    QS_TRY(qsi_writer_patch(w, 0, &h, sizeof h, err));
    QS_TRY(qsi_writer_commit(&w, err));
    *n_saved = (int64_t)n;
done:
    qsi_writer_abort(&w);
    qsi_free(places);
    return st;
}

/* ---- loading ---- */

static bool head_fits(const qsi_prefix *p, const qsi_map *m, const file_head *h, uint64_t key,
                      const char *path) {
    uint64_t each = sizeof(file_node) + p->r->pages.bytes;
    const char *why = NULL;
    if (h->magic != MAGIC) why = "it is no prefix cache";
    else if (h->hash != head_hash(h)) why = "its beginning is damaged";
    else if (h->version != VERSION) why = "another version of the program wrote it";
    else if (h->key != key || h->page_bytes != p->r->pages.bytes)
        why = "it belongs to another model or other settings";
    else if (h->n_nodes > (m->size - sizeof *h) / each) why = "its end is missing";
    if (why) qsi_log(QSI_LOG_NOTE, "the prefix cache '%s' is not used: %s", path, why);
    return !why;
}

/* A node whose parent was read, with keys that a model can have. */
static bool node_is_sound(const qsi_prefix *p, const file_node *n, const int32_t *places, uint64_t i) {
    if (n->n < 1 || n->n > QSI_KV_PAGE || n->parent < -1 || n->parent >= (int64_t)i) return false;
    if (n->parent >= 0 && p->nodes[places[n->parent]].n < QSI_KV_PAGE) return false;
    for (int32_t k = 0; k < n->n; k++) {
        int32_t id = p->exact ? n->keys[k] & ~(1 << 30) : n->keys[k];
        if (id < 0 || id >= p->r->n_vocab) return false;
    }
    return true;
}

/* Reads node i at `at`; *good false: it is damaged. */
static qs_status read_node(qsi_prefix *p, const qsi_map *m, size_t at, uint64_t i, int32_t *places,
                           bool *good, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_page_fns *f = &p->r->pages;
    file_node n;
    int32_t page = -1;
    *good = false;
    QS_TRY(qsi_map_peek(m, at, &n, sizeof n, err));
    if (!node_is_sound(p, &n, places, i)) goto done;
    QS_TRY(f->take(p->r->user, &page, err));
    QS_TRY(qsi_map_peek(m, at + sizeof n, f->data(p->r->user, page), f->bytes, err));
    if (n.hash != node_hash(&n, f->data(p->r->user, page), f->bytes)) goto done;
    places[i] = qsi_prefix_put(p, n.parent < 0 ? -1 : places[n.parent], n.keys, n.n, page);
    if (places[i] < 0) QS_FAIL(err, QS_E_NOMEM, "out of memory for the prefix cache");
    *good = true;
done:
    if (page >= 0) f->drop(p->r->user, page);
    return st;
}

qs_status qsi_prefix_load(qsi_prefix *p, const char *path, uint64_t key, int64_t *n_loaded,
                          qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = { .fd = -1 };
    file_head h;
    int32_t *places = NULL;
    uint64_t i = 0;
    bool good = true;
    size_t each = sizeof(file_node) + p->r->pages.bytes;
    *n_loaded = 0;
    QS_TRY(qsi_map_open(&m, path, err));
    if (m.size < sizeof h) {
        qsi_log(QSI_LOG_NOTE, "the prefix cache '%s' is not used: it is no prefix cache", path);
        goto done;
    }
    QS_TRY(qsi_map_peek(&m, 0, &h, sizeof h, err));
    if (!head_fits(p, &m, &h, key, path)) goto done;
    places = qsi_alloc((size_t)h.n_nodes, sizeof *places);
    if (!places) QS_FAIL(err, QS_E_NOMEM, "out of memory for the prefix cache");
    p->clock++;
    for (; i < h.n_nodes && good && p->r->pages.n_free(p->r->user) > 0; i++)
        QS_TRY(read_node(p, &m, sizeof h + (size_t)i * each, i, places, &good, err));
    *n_loaded = (int64_t)i - !good;
    if (!good)
        qsi_log(QSI_LOG_NOTE, "the prefix cache '%s' is damaged behind its first %lld pages", path,
                (long long)*n_loaded);
done:
    qsi_map_close(&m);
    qsi_free(places);
    return st;
}
