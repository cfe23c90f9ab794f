/* BPE inside one piece: starts from the bytes and joins, again and again, the neighbours whose merge
 * has the lowest rank, the leftmost first among equals.
 *
 * Short pieces keep symbols and ranks in two arrays and look for the lowest rank by scanning; long
 * ones use a linked list and a heap, O(n log n). Both give the same ids.
 * Source: Sennrich et al. 2016; Hugging Face tokenizers (order of equal ranks). Thread: any; a
 * scratch has one owner. */
#include <string.h>

#include "tok/vocab.h"

#define SCAN_BYTES 96 /* longest piece that is scanned: measured on English and Chinese text */
#define NO_RANK UINT32_MAX

void qsi_bpe_scratch_release(qsi_bpe_scratch *s) {
    qsi_free(s->mem);
    s->mem = NULL;
    s->bytes = 0;
}

static uint32_t rank_of(const qsi_vocab *v, int32_t left, int32_t right) {
    const qsi_merge *m = qsi_merge_find(v, left, right);
    return m == NULL ? NO_RANK : m->rank;
}

/* Appends n ids. */
static qs_status push_ids(qsi_ids *out, const int32_t *ids, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(qsi_grow((void **)&out->data, &out->cap, out->len + n, sizeof *out->data));
    memcpy(out->data + out->len, ids, n * sizeof *ids);
    out->len += n;
done:
    return st;
}

static qs_status encode_short(const qsi_vocab *v, const char *p, size_t n, qsi_ids *out) {
    int32_t ids[SCAN_BYTES];
    uint32_t rank[SCAN_BYTES]; /* of the pair (i, i + 1); the last is NO_RANK */
    for (size_t i = 0; i < n; i++) ids[i] = v->byte_id[(unsigned char)p[i]];
    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = v->byte_rank[(uint8_t)p[i] << 8 | (uint8_t)p[i + 1]];
    rank[n - 1] = NO_RANK;
    for (;;) {
        size_t best = 0;
        uint32_t low = rank[0];
        for (size_t i = 1; i < n; i++) {
            best = rank[i] < low ? i : best;
            low = rank[i] < low ? rank[i] : low;
        }
        if (low == NO_RANK) break;
        ids[best] = qsi_merge_find(v, ids[best], ids[best + 1])->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        memmove(rank + best, rank + best + 1, (n - best) * sizeof *rank);
        rank[best] = best + 1 < n ? rank_of(v, ids[best], ids[best + 1]) : NO_RANK;
        if (best > 0) rank[best - 1] = rank_of(v, ids[best - 1], ids[best]);
    }
    return push_ids(out, ids, n);
}

/* ---- long pieces ---- */

/* Symbols as a list over positions; id -1: merged into its left neighbour. A heap entry is
 * rank << 32 | position and counts only while the pair there still has that rank. */
typedef struct chain {
    const qsi_vocab *v;
    int32_t *id;
    uint32_t *prev, *next; /* n: the end; prev of the first is n too */
    uint64_t *heap;
    size_t n_heap;
    uint32_t n;
} chain;

static void heap_push(chain *c, uint64_t item) {
    size_t i = c->n_heap++;
    for (; i > 0 && item < c->heap[(i - 1) / 2]; i = (i - 1) / 2)
        c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = item;
}

static uint64_t heap_pop(chain *c) {
    uint64_t top = c->heap[0], last = c->heap[--c->n_heap];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= c->n_heap) break;
        if (k + 1 < c->n_heap && c->heap[k + 1] < c->heap[k]) k++;
        if (last <= c->heap[k]) break;
        c->heap[i] = c->heap[k];
        i = k;
    }
    c->heap[i] = last;
    return top;
}

static void offer(chain *c, uint32_t at) {
    uint32_t rank, next = c->next[at];
    if (next == c->n) return;
    rank = rank_of(c->v, c->id[at], c->id[next]);
    if (rank != NO_RANK) heap_push(c, (uint64_t)rank << 32 | at);
}

static void run_chain(chain *c) {
    for (uint32_t i = 0; i + 1 < c->n; i++) offer(c, i);
    while (c->n_heap > 0) {
        uint64_t item = heap_pop(c);
        uint32_t at = (uint32_t)item, right = c->next[at];
        const qsi_merge *m;
        if (c->id[at] < 0 || right == c->n) continue;
        m = qsi_merge_find(c->v, c->id[at], c->id[right]);
        if (m == NULL || m->rank != (uint32_t)(item >> 32)) continue;
        c->id[at] = m->id;
        c->id[right] = -1;
        c->next[at] = c->next[right];
        if (c->next[at] != c->n) c->prev[c->next[at]] = at;
        if (c->prev[at] != c->n) offer(c, c->prev[at]);
        offer(c, at);
    }
}

/* Memory for n symbols: every merge puts at most two new entries in the heap, n - 1 are there from
 * the start, so 3 n entries are enough. */
static qs_status reserve_chain(qsi_bpe_scratch *s, size_t n, chain *c) {
    size_t unit = sizeof *c->id + sizeof *c->prev + sizeof *c->next + 3 * sizeof *c->heap, bytes;
    if (!qsi_mul_size(n, unit, &bytes)) return QS_E_NOMEM;
    if (bytes > s->bytes) {
        void *mem = qsi_alloc(bytes, 1);
        if (mem == NULL) return QS_E_NOMEM;
        qsi_free(s->mem);
        s->mem = mem;
        s->bytes = bytes;
    }
    c->heap = s->mem;
    c->id = (int32_t *)(c->heap + 3 * n);
    c->prev = (uint32_t *)(c->id + n);
    c->next = c->prev + n;
    return QS_OK;
}

static qs_status encode_long(const qsi_vocab *v, qsi_bpe_scratch *s, const char *p, size_t n,
                             qsi_ids *out) {
    qs_status st = QS_OK;
    chain c = {.v = v, .n = (uint32_t)n};
    size_t k = 0;
    if (n >= UINT32_MAX) return QS_E_LIMIT;
    QS_TRY(reserve_chain(s, n, &c));
    for (uint32_t i = 0; i < c.n; i++) {
        c.id[i] = v->byte_id[(unsigned char)p[i]];
        c.prev[i] = i == 0 ? c.n : i - 1;
        c.next[i] = i + 1;
    }
    run_chain(&c);
    for (uint32_t i = 0; i < c.n; i++)
        if (c.id[i] >= 0) c.id[k++] = c.id[i];
    QS_TRY(push_ids(out, c.id, k));
done:
    return st;
}

qs_status qsi_bpe_piece(const qsi_vocab *v, qsi_bpe_scratch *s, const char *p, size_t n,
                        qsi_ids *out) {
    int32_t id;
    if (n == 0) return QS_OK;
    id = n == 1 ? v->byte_id[(unsigned char)p[0]] : qsi_vocab_find_bytes(v, p, n);
    if (id >= 0) return qsi_ids_push(out, id);
    return n <= SCAN_BYTES ? encode_short(v, p, n, out) : encode_long(v, s, p, n, out);
}
