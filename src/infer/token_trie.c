/* The texts of ordinary tokens as a tree, depth first in one array: a walk reads it from left to right
 * and jumps over what cannot match. See grammar_impl.h. */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "infer/grammar_impl.h"

/* A token longer than this never comes in a guided answer (there is none in any vocabulary we know). */
enum { MAX_BYTES = 4096 };

typedef struct text_of {
    const char *p;
    uint32_t n;
    int32_t id;
} text_of;

static int by_text(const void *x, const void *y) {
    const text_of *a = x, *b = y;
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    if (c == 0 && a->n != b->n) c = a->n < b->n ? -1 : 1;
    return c ? c : a->id < b->id ? -1 : 1;
}

/* Markers and fillers are longer than a character; what is one character is text. */
static bool is_text(const qsi_vocab *v, int32_t id) {
    qsi_slice s = qsi_vocab_bytes(v, id);
    int len;
    if (s.n == 0 || s.n > MAX_BYTES || qsi_vocab_is_end(v, id)) return false;
    switch (qsi_vocab_type(v, id)) {
    case QSI_TOK_NORMAL: return true;
    case QSI_TOK_BYTE: return true;
    case QSI_TOK_USER: return qsi_utf8_decode(s.p, s.n, &len) != QSI_UTF8_BAD && (size_t)len == s.n;
    case QSI_TOK_UNKNOWN:
    case QSI_TOK_CONTROL:
    case QSI_TOK_UNUSED: break;
    }
    return false;
}

static qs_status copy_texts(qsi_token_trie *t, const qsi_vocab *v, text_of **list, size_t *n_list,
                            qs_err *err) {
    qs_status st = QS_OK;
    size_t total = 0, n = 0, cap = 0;
    for (int32_t id = 0; id < t->n_ids; id++) total += is_text(v, id) ? qsi_vocab_bytes(v, id).n : 0;
    if (total > UINT32_MAX / 2)
        QS_FAIL(err, QS_E_LIMIT, "the vocabulary's texts are too long for a tree");
    t->bytes = qsi_alloc(total + 1, 1);
    t->start = qsi_calloc((size_t)t->n_ids + 1, sizeof *t->start);
    t->ends = qsi_calloc(((size_t)t->n_ids + 31) / 32, sizeof *t->ends);
    t->same = qsi_alloc((size_t)t->n_ids + 1, sizeof *t->same);
    if (!t->bytes || !t->start || !t->ends || !t->same) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    total = 0;
    for (int32_t id = 0; id < t->n_ids; id++) {
        t->same[id] = -1;
        t->start[id] = (uint32_t)total;
        if (qsi_vocab_is_end(v, id)) t->ends[id / 32] |= 1u << (id % 32);
        if (!is_text(v, id)) continue;
        qsi_slice s = qsi_vocab_bytes(v, id);
        if (qsi_grow((void **)list, &cap, n + 1, sizeof **list) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
        memcpy(t->bytes + total, s.p, s.n);
        (*list)[n++] = (text_of){ t->bytes + total, (uint32_t)s.n, id };
        if ((int32_t)s.n > t->longest) t->longest = (int32_t)s.n;
        total += s.n;
    }
    t->start[t->n_ids] = (uint32_t)total;
    *n_list = n;
done:
    return st;
}

static size_t shared_prefix(const text_of *a, const text_of *b) {
    size_t n = 0;
    while (n < a->n && n < b->n && a->p[n] == b->p[n]) n++;
    return n;
}

static qs_status build(qsi_token_trie *t, const text_of *list, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    size_t total = 0, at = 0;
    uint32_t *open = qsi_alloc((size_t)t->longest + 1, sizeof *open); /* nodes of the current text */
    for (size_t i = 0; i < n; i++)
        total += list[i].n - (i ? shared_prefix(&list[i - 1], &list[i]) : 0);
    t->nodes = qsi_alloc(total + 1, sizeof *t->nodes);
    if (!open || !t->nodes) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = i ? shared_prefix(&list[i - 1], &list[i]) : 0;
        while (depth > same) t->nodes[open[--depth]].skip = (uint32_t)at;
        if (same == list[i].n) { /* as the one before: texts are never empty */
            int32_t *link = &t->nodes[at - 1].id;
            while (*link >= 0) link = &t->same[*link];
            *link = list[i].id;
            continue;
        }
        for (; depth < list[i].n; at++) {
            t->nodes[at] = (gr_trie_node){ .id = -1, .byte = (uint8_t)list[i].p[depth] };
            open[depth++] = (uint32_t)at;
            t->nodes[at].depth = (uint16_t)depth;
        }
        t->nodes[at - 1].id = list[i].id;
    }
    while (depth > 0) t->nodes[open[--depth]].skip = (uint32_t)at;
    t->n_nodes = (uint32_t)at;
done:
    qsi_free(open);
    return st;
}

qs_status qsi_token_trie_create(qsi_token_trie **out, const qsi_vocab *v, qs_err *err) {
    qs_status st = QS_OK;
    text_of *list = NULL;
    size_t n = 0;
    qsi_token_trie *t = qsi_calloc(1, sizeof *t);
    if (!t) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    atomic_init(&t->refs, 1);
    t->n_ids = qsi_vocab_size(v);
    QS_TRY(copy_texts(t, v, &list, &n, err));
    if (n > 1) qsort(list, n, sizeof *list, by_text);
    QS_TRY(build(t, list, n, err));
    *out = t;
    t = NULL;
done:
    qsi_free(list);
    qsi_token_trie_release(t);
    return st;
}

qsi_token_trie *qsi_token_trie_retain(qsi_token_trie *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void qsi_token_trie_release(qsi_token_trie *t) {
    /* pairs with the other releases: the last one sees all that was done */
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    qsi_free(t->nodes);
    qsi_free(t->same);
    qsi_free(t->ends);
    qsi_free(t->bytes);
    qsi_free(t->start);
    qsi_free(t);
}

int32_t qsi_token_trie_size(const qsi_token_trie *t) {
    return t->n_ids;
}
