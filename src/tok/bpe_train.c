/* Learning a byte-level BPE vocabulary from text.
 *
 * Text is cut into pieces; equal pieces are kept once, with their count. Every byte starts as a
 * symbol. The most frequent pair of neighbours becomes a new symbol, everywhere, until the
 * vocabulary is full or no pair occurs twice.
 *
 * Data: `syms` holds the symbols of all pieces one after another, a piece shrinks in place. For each
 * pair: how often it occurs and the pieces that have (or had) it: for pairs of bytes a slice of one
 * array, for later pairs a linked list. Pairs wait in a heap by count; a count only falls after the
 * step that created the pair, so an entry that is too high is put back with its true count.
 * Invariant: pair counts are exact after each step; lists may name a piece that lost the pair.
 *
 * Choice: a merge never joins a part of a character to anything outside that character, so that a
 * token is whole characters or a part of one. This costs nothing in compression that was measurable
 * and keeps half characters out of long tokens. Long pieces are learned from in chunks.
 *
 * Source: Sennrich, Haddow, Birch 2016. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/seed.h"
#include "tok/chat.h"
#include "tok/vocab.h"

#define CHUNK_BYTES 256 /* longest piece, and so the longest token */
#define NONE UINT32_MAX

typedef struct word {
    size_t start; /* in the trainer's text, later in syms: one symbol per byte */
    uint32_t len;
    uint64_t count;
} word;

struct qsi_bpe_trainer {
    char pre[32];
    char *text; /* bytes of the distinct pieces */
    size_t n_text, cap_text;
    word *words;
    size_t n_words, cap_words;
    uint32_t *slots; /* open addressing: word + 1 */
    size_t n_slots;
    uint64_t seed; /* of this process: which slot, never which word */
    qs_err *err; /* of the add that is running */
};

typedef struct pair {
    uint64_t key; /* left << 32 | right */
    int64_t count;
    uint32_t list; /* first node, NONE when empty */
    uint32_t step; /* the merge that touched it last */
} pair;

typedef struct node {
    uint32_t word, next;
} node;

typedef struct heap_item {
    int64_t count;
    uint64_t key;
} heap_item;

typedef struct symbol {
    uint32_t start, len; /* its bytes in `bytes` */
    bool whole;          /* they are whole characters */
} symbol;

typedef struct learner {
    word *words;
    size_t n_words;
    uint32_t *syms;
    pair *pairs;
    size_t n_pairs, cap_pairs;
    uint32_t *slots; /* open addressing: pair + 1 */
    size_t n_slots;
    uint64_t seed; /* as the trainer's */
    node *nodes;
    size_t n_nodes, cap_nodes;
    uint32_t free_node;
    heap_item *heap;
    size_t n_heap, cap_heap;
    uint32_t *first;       /* pieces that have a pair of bytes ... */
    size_t *first_at;      /* ... of pair i at [first_at[i], first_at[i + 1]) */
    uint32_t *touched;     /* pairs the current step made */
    size_t n_touched, cap_touched;
    symbol *symbols;
    size_t n_symbols;
    char *bytes;
    size_t n_bytes, cap_bytes;
    uint64_t *merges;
    size_t n_merges;
} learner;

qs_status qsi_bpe_trainer_create(qsi_bpe_trainer **t, const char *pre, qs_err *err) {
    qsi_bpe_trainer *n;
    if (!qsi_pretok_known(pre) || strlen(pre) >= sizeof n->pre)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "unknown pre-tokenizer '%s' (known: deepseek-llm, deepseek-coder, "
                           "deepseek-v3)",
                           pre);
    n = qsi_calloc(1, sizeof *n);
    if (n == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    memcpy(n->pre, pre, strlen(pre) + 1);
    n->seed = qsi_process_seed();
    *t = n;
    return QS_OK;
}

void qsi_bpe_trainer_free(qsi_bpe_trainer *t) {
    if (t == NULL) return;
    qsi_free(t->text);
    qsi_free(t->words);
    qsi_free(t->slots);
    qsi_free(t);
}

/* ---- collecting pieces ---- */

static qs_status grow_slots(qsi_bpe_trainer *t) {
    size_t n = t->n_slots == 0 ? 1u << 16 : t->n_slots * 2;
    uint32_t *slots = qsi_calloc(n, sizeof *slots);
    if (slots == NULL) return QS_E_NOMEM;
    for (size_t i = 0; i < t->n_words; i++) {
        const word *w = &t->words[i];
        size_t s = (size_t)qsi_hash_seed(t->text + w->start, w->len, t->seed) & (n - 1);
        while (slots[s] != 0) s = (s + 1) & (n - 1);
        slots[s] = (uint32_t)i + 1;
    }
    qsi_free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return QS_OK;
}

static qs_status count_chunk(qsi_bpe_trainer *t, const char *p, size_t n) {
    qs_status st = QS_OK;
    size_t s;
    word *w;
    if (n < 2) return QS_OK;
    if (t->n_words * 3 >= t->n_slots * 2) QS_TRY(grow_slots(t));
    s = (size_t)qsi_hash_seed(p, n, t->seed) & (t->n_slots - 1);
    for (; t->slots[s] != 0; s = (s + 1) & (t->n_slots - 1)) {
        w = &t->words[t->slots[s] - 1];
        if (w->len == n && memcmp(t->text + w->start, p, n) == 0) {
            w->count++;
            return QS_OK;
        }
    }
    if (t->n_words == NONE - 1) return QS_E_LIMIT;
    QS_TRY(qsi_grow((void **)&t->text, &t->cap_text, t->n_text + n, 1));
    QS_TRY(qsi_grow((void **)&t->words, &t->cap_words, t->n_words + 1, sizeof *t->words));
    memcpy(t->text + t->n_text, p, n);
    w = &t->words[t->n_words++];
    w->start = t->n_text;
    w->len = (uint32_t)n;
    w->count = 1;
    t->n_text += n;
    t->slots[s] = (uint32_t)t->n_words;
done:
    return st;
}

/* A piece, in chunks of whole characters. */
static qs_status count_piece(void *user, const char *p, size_t n) {
    qsi_bpe_trainer *t = user;
    qs_status st = QS_OK;
    while (n > CHUNK_BYTES) {
        size_t k = CHUNK_BYTES;
        while (((unsigned char)p[k] & 0xc0) == 0x80) k--;
        QS_TRY(count_chunk(t, p, k));
        p += k;
        n -= k;
    }
    QS_TRY(count_chunk(t, p, n));
done:
    if (st == QS_E_NOMEM) qsi_err_set(t->err, st, "out of memory for %zu pieces", t->n_words);
    if (st == QS_E_LIMIT) qsi_err_set(t->err, st, "the text has too many different pieces");
    return st;
}

qs_status qsi_bpe_trainer_add(qsi_bpe_trainer *t, const char *text, size_t n, qs_err *err) {
    t->err = err;
    return qsi_pretok(t->pre, text, n, count_piece, t, err);
}

/* ---- pairs ---- */

static uint64_t pair_key(uint32_t left, uint32_t right) {
    return (uint64_t)left << 32 | right;
}

static size_t pair_slot(const learner *l, uint64_t key) {
    uint64_t h = qsi_hash_seed(&key, sizeof key, l->seed);
    return (size_t)h & (l->n_slots - 1);
}

static qs_status grow_pairs(learner *l) {
    size_t n = l->n_slots == 0 ? 1u << 16 : l->n_slots * 2;
    uint32_t *slots = qsi_calloc(n, sizeof *slots);
    if (slots == NULL) return QS_E_NOMEM;
    qsi_free(l->slots);
    l->slots = slots;
    l->n_slots = n;
    for (size_t i = 0; i < l->n_pairs; i++) {
        size_t s = pair_slot(l, l->pairs[i].key);
        while (slots[s] != 0) s = (s + 1) & (n - 1);
        slots[s] = (uint32_t)i + 1;
    }
    return QS_OK;
}

/* The pair of that key; made with count 0 when `make`, else NULL when there is none. */
static qs_status find_pair(learner *l, uint64_t key, bool make, pair **out) {
    qs_status st = QS_OK;
    size_t s;
    *out = NULL;
    if (l->n_pairs * 3 >= l->n_slots * 2) QS_TRY(grow_pairs(l));
    for (s = pair_slot(l, key); l->slots[s] != 0; s = (s + 1) & (l->n_slots - 1)) {
        pair *p = &l->pairs[l->slots[s] - 1];
        if (p->key == key) {
            *out = p;
            return QS_OK;
        }
    }
    if (!make) return QS_OK;
    if (l->n_pairs == NONE - 1) return QS_E_LIMIT;
    QS_TRY(qsi_grow((void **)&l->pairs, &l->cap_pairs, l->n_pairs + 1, sizeof *l->pairs));
    *out = &l->pairs[l->n_pairs++];
    **out = (pair){.key = key, .list = NONE, .step = NONE};
    l->slots[s] = (uint32_t)l->n_pairs;
done:
    return st;
}

/* True when the bytes are whole characters, or a part of one character. */
static bool is_clean(const char *p, size_t n) {
    unsigned char c = (unsigned char)p[0];
    size_t want = c < 0x80 ? 1 : c < 0xc0 ? 3 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (n <= want) {
        size_t i = 1;
        while (i < n && ((unsigned char)p[i] & 0xc0) == 0x80) i++;
        if (i == n) return true;
    }
    return qsi_utf8_valid(p, n, NULL);
}

static bool may_merge(const learner *l, uint32_t left, uint32_t right) {
    const symbol *a = &l->symbols[left], *b = &l->symbols[right];
    char both[2 * CHUNK_BYTES];
    if (a->whole || b->whole) return a->whole && b->whole;
    if (a->len + b->len > sizeof both) return false;
    memcpy(both, l->bytes + a->start, a->len);
    memcpy(both + a->len, l->bytes + b->start, b->len);
    return is_clean(both, a->len + b->len);
}

/* ---- the heap: highest count first, then the lower pair ---- */

static bool before(const heap_item *a, const heap_item *b) {
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

static qs_status heap_push(learner *l, int64_t count, uint64_t key) {
    qs_status st = QS_OK;
    heap_item item = {count, key};
    size_t i = l->n_heap;
    QS_TRY(qsi_grow((void **)&l->heap, &l->cap_heap, i + 1, sizeof item));
    l->n_heap++;
    for (; i > 0 && before(&item, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = item;
done:
    return st;
}

static heap_item heap_pop(learner *l) {
    heap_item top = l->heap[0], last = l->heap[--l->n_heap];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= l->n_heap) break;
        if (c + 1 < l->n_heap && before(&l->heap[c + 1], &l->heap[c])) c++;
        if (!before(&l->heap[c], &last)) break;
        l->heap[i] = l->heap[c];
        i = c;
    }
    if (l->n_heap > 0) l->heap[i] = last;
    return top;
}

/* ---- setting up ---- */

static void learner_release(learner *l) {
    qsi_free(l->words);
    qsi_free(l->syms);
    qsi_free(l->pairs);
    qsi_free(l->slots);
    qsi_free(l->nodes);
    qsi_free(l->heap);
    qsi_free(l->first);
    qsi_free(l->first_at);
    qsi_free(l->touched);
    qsi_free(l->symbols);
    qsi_free(l->bytes);
    qsi_free(l->merges);
}

/* The 256 byte symbols, in the order of the byte alphabet. */
static qs_status init_symbols(learner *l, size_t n_max) {
    qs_status st = QS_OK;
    l->symbols = qsi_alloc(n_max, sizeof *l->symbols);
    l->merges = qsi_alloc(n_max, sizeof *l->merges);
    if (l->symbols == NULL || l->merges == NULL) return QS_E_NOMEM;
    QS_TRY(qsi_grow((void **)&l->bytes, &l->cap_bytes, 4096, 1));
    for (int i = 0; i < 256; i++) {
        l->bytes[i] = (char)qsi_byte_by_order(i);
        l->symbols[i] = (symbol){(uint32_t)i, 1, (unsigned char)l->bytes[i] < 0x80};
    }
    l->n_bytes = l->n_symbols = 256;
done:
    return st;
}

static qs_status init_words(learner *l, const qsi_bpe_trainer *t) {
    uint32_t id[256];
    for (int i = 0; i < 256; i++) id[qsi_byte_by_order(i)] = (uint32_t)i;
    l->n_words = t->n_words;
    l->words = qsi_alloc(t->n_words, sizeof *l->words);
    l->syms = qsi_alloc(t->n_text, sizeof *l->syms);
    if (l->words == NULL || l->syms == NULL) return QS_E_NOMEM;
    if (t->n_words > 0) memcpy(l->words, t->words, t->n_words * sizeof *l->words);
    for (size_t i = 0; i < t->n_text; i++) l->syms[i] = id[(unsigned char)t->text[i]];
    return QS_OK;
}

/* Counts the pairs of bytes and lists the pieces of each. */
static qs_status init_pairs(learner *l) {
    qs_status st = QS_OK;
    int64_t *count = qsi_calloc(65536, sizeof *count);
    size_t *fill = qsi_alloc(65536, sizeof *fill), total = 0;
    bool *ok = qsi_alloc(65536, sizeof *ok);
    l->first_at = qsi_calloc(65537, sizeof *l->first_at);
    if (count == NULL || fill == NULL || ok == NULL || l->first_at == NULL) {
        st = QS_E_NOMEM;
        goto done;
    }
    for (uint32_t i = 0; i < 65536; i++) ok[i] = may_merge(l, i >> 8, i & 255);
    for (size_t w = 0; w < l->n_words; w++) {
        const uint32_t *s = l->syms + l->words[w].start;
        for (uint32_t k = 0; k + 1 < l->words[w].len; k++) {
            count[s[k] << 8 | s[k + 1]] += (int64_t)l->words[w].count;
            l->first_at[s[k] << 8 | s[k + 1]]++;
        }
    }
    for (size_t i = 0; i <= 65536; i++) {
        size_t n = i < 65536 && ok[i] ? l->first_at[i] : 0;
        l->first_at[i] = total;
        if (i < 65536) fill[i] = total;
        total += n;
    }
    l->first = qsi_alloc(total, sizeof *l->first);
    if (l->first == NULL) {
        st = QS_E_NOMEM;
        goto done;
    }
    for (size_t w = 0; w < l->n_words; w++) {
        const uint32_t *s = l->syms + l->words[w].start;
        for (uint32_t k = 0; k + 1 < l->words[w].len; k++) {
            uint32_t i = s[k] << 8 | s[k + 1];
            if (ok[i]) l->first[fill[i]++] = (uint32_t)w;
        }
    }
    for (uint32_t i = 0; i < 65536; i++) {
        pair *p;
        if (!ok[i] || count[i] == 0) continue;
        QS_TRY(find_pair(l, pair_key(i >> 8, i & 255), true, &p));
        p->count = count[i];
        QS_TRY(heap_push(l, p->count, p->key));
    }
done:
    qsi_free(count);
    qsi_free(fill);
    qsi_free(ok);
    return st;
}

/* ---- one merge ---- */

static void lower(learner *l, uint32_t left, uint32_t right, int64_t by) {
    pair *p;
    if (find_pair(l, pair_key(left, right), false, &p) == QS_OK && p != NULL) p->count -= by;
}

/* Counts a new occurrence, in piece w, of a pair with the symbol made in this step. */
static qs_status raise(learner *l, uint32_t left, uint32_t right, uint32_t w, uint32_t step) {
    qs_status st = QS_OK;
    pair *p;
    uint32_t i;
    QS_TRY(find_pair(l, pair_key(left, right), false, &p));
    if (p == NULL) {
        if (!may_merge(l, left, right)) return QS_OK;
        QS_TRY(find_pair(l, pair_key(left, right), true, &p));
    }
    if (p->step != step) {
        p->step = step;
        QS_TRY(qsi_grow((void **)&l->touched, &l->cap_touched, l->n_touched + 1,
                        sizeof *l->touched));
        l->touched[l->n_touched++] = (uint32_t)(p - l->pairs);
    }
    p->count += (int64_t)l->words[w].count;
    if (p->list != NONE && l->nodes[p->list].word == w) return QS_OK;
    i = l->free_node;
    if (i != NONE) {
        l->free_node = l->nodes[i].next;
    } else {
        if (l->n_nodes == NONE) return QS_E_LIMIT;
        QS_TRY(qsi_grow((void **)&l->nodes, &l->cap_nodes, l->n_nodes + 1, sizeof *l->nodes));
        i = (uint32_t)l->n_nodes++;
    }
    l->nodes[i] = (node){w, p->list};
    p->list = i;
done:
    return st;
}

/* Replaces left right by `made` in piece w. */
static qs_status merge_in(learner *l, uint32_t w, uint32_t left, uint32_t right, uint32_t made) {
    qs_status st = QS_OK;
    word *wd = &l->words[w];
    uint32_t *s = l->syms + wd->start, j = 0;
    int64_t by = (int64_t)wd->count;
    for (uint32_t i = 0; i < wd->len;) {
        if (i + 1 >= wd->len || s[i] != left || s[i + 1] != right) {
            s[j++] = s[i++];
            continue;
        }
        if (j > 0) {
            lower(l, s[j - 1], left, by);
            QS_TRY(raise(l, s[j - 1], made, w, made));
        }
        if (i + 2 < wd->len) {
            lower(l, right, s[i + 2], by);
            QS_TRY(raise(l, made, s[i + 2], w, made));
        }
        s[j++] = made;
        i += 2;
    }
    wd->len = j;
done:
    return st;
}

/* The symbol that a pair makes; its number is also that of the step. */
static qs_status add_symbol(learner *l, uint32_t left, uint32_t right) {
    qs_status st = QS_OK;
    symbol a = l->symbols[left], b = l->symbols[right];
    size_t need = l->n_bytes + a.len + b.len;
    if (need >= NONE) return QS_E_LIMIT;
    QS_TRY(qsi_grow((void **)&l->bytes, &l->cap_bytes, need, 1));
    memcpy(l->bytes + l->n_bytes, l->bytes + a.start, a.len);
    memcpy(l->bytes + l->n_bytes + a.len, l->bytes + b.start, b.len);
    l->merges[l->n_merges++] = pair_key(left, right);
    l->symbols[l->n_symbols++] =
        (symbol){(uint32_t)l->n_bytes, a.len + b.len,
                 qsi_utf8_valid(l->bytes + l->n_bytes, a.len + b.len, NULL)};
    l->n_bytes = need;
done:
    return st;
}

static qs_status merge_step(learner *l, uint64_t key) {
    qs_status st = QS_OK;
    uint32_t left = (uint32_t)(key >> 32), right = (uint32_t)key, made = (uint32_t)l->n_symbols;
    uint32_t list;
    pair *p;
    QS_TRY(find_pair(l, key, true, &p));
    list = p->list;
    p->list = NONE;
    l->n_touched = 0;
    QS_TRY(add_symbol(l, left, right));
    if (left < 256 && right < 256) {
        size_t i = l->first_at[left << 8 | right], end = l->first_at[(left << 8 | right) + 1];
        for (; i < end; i++) QS_TRY(merge_in(l, l->first[i], left, right, made));
    }
    while (list != NONE) {
        uint32_t next = l->nodes[list].next;
        QS_TRY(merge_in(l, l->nodes[list].word, left, right, made));
        l->nodes[list].next = l->free_node;
        l->free_node = list;
        list = next;
    }
    QS_TRY(find_pair(l, key, true, &p));
    p->count = 0;
    for (size_t i = 0; i < l->n_touched; i++) {
        const pair *q = &l->pairs[l->touched[i]];
        if (q->count > 1) QS_TRY(heap_push(l, q->count, q->key));
    }
done:
    return st;
}

static qs_status learn(learner *l, size_t n_symbols,
                       int (*progress)(void *user, int64_t done, int64_t of), void *user) {
    qs_status st = QS_OK;
    while (l->n_symbols < n_symbols && l->n_heap > 0) {
        heap_item top = heap_pop(l);
        pair *p;
        QS_TRY(find_pair(l, top.key, false, &p));
        if (p == NULL || p->count < 2) continue;
        if (p->count != top.count) {
            QS_TRY(heap_push(l, p->count, p->key));
            continue;
        }
        QS_TRY(merge_step(l, top.key));
        if (progress != NULL && progress(user, (int64_t)l->n_merges, (int64_t)n_symbols - 256) != 0)
            return QS_E_CANCELLED;
    }
done:
    return st;
}

/* ---- the vocabulary ---- */

#define N_SPECIAL 2
static const char *const specials[N_SPECIAL] = {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"};

/* Written forms of the symbols, into arena memory. */
static qs_status write_symbols(const learner *l, qsi_arena *a, qsi_slice *out) {
    for (size_t i = 0; i < l->n_symbols; i++) {
        const symbol *s = &l->symbols[i];
        char *p = qsi_arena_alloc(a, (size_t)s->len, 2);
        if (p == NULL) return QS_E_NOMEM;
        out[i].p = p;
        for (uint32_t k = 0; k < s->len; k++)
            p += qsi_utf8_encode(qsi_byte_symbol((uint8_t)l->bytes[s->start + k]), p);
        out[i].n = (size_t)(p - out[i].p);
    }
    return QS_OK;
}

static qs_status build(const learner *l, const char *pre, qsi_vocab **out, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = l->n_symbols + N_SPECIAL;
    qsi_arena a;
    qsi_slice *tokens, *left, *right;
    uint8_t *types;
    qsi_vocab_spec spec = {.pre = pre, .add_bos = true};
    const qsi_chat_template *chat;
    qsi_arena_init(&a);
    tokens = qsi_arena_alloc(&a, n, sizeof *tokens);
    types = qsi_arena_alloc(&a, n, 1);
    left = qsi_arena_alloc(&a, l->n_merges, sizeof *left);
    right = qsi_arena_alloc(&a, l->n_merges, sizeof *right);
    if (tokens == NULL || types == NULL || left == NULL || right == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %zu tokens", n);
    st = write_symbols(l, &a, tokens);
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for a vocabulary of %zu tokens", n);
    memset(types, QSI_TOK_NORMAL, l->n_symbols);
    for (size_t i = 0; i < N_SPECIAL; i++) {
        tokens[l->n_symbols + i] = (qsi_slice){specials[i], strlen(specials[i])};
        types[l->n_symbols + i] = QSI_TOK_CONTROL;
    }
    for (size_t i = 0; i < l->n_merges; i++) {
        left[i] = tokens[l->merges[i] >> 32];
        right[i] = tokens[(uint32_t)l->merges[i]];
    }
    QS_TRY(qsi_chat_by_name(&chat, "deepseek-llm", err));
    spec.chat_template.p = qsi_chat_jinja(chat);
    spec.chat_template.n = strlen(spec.chat_template.p);
    spec.tokens = tokens;
    spec.types = types;
    spec.n_tokens = (int64_t)n;
    spec.left = left;
    spec.right = right;
    spec.n_merges = (int64_t)l->n_merges;
    spec.bos = (int64_t)n - 2;
    spec.eos = spec.pad = (int64_t)n - 1;
    QS_TRY(qsi_vocab_build(out, &spec, err));
done:
    qsi_arena_release(&a);
    return st;
}

qs_status qsi_bpe_trainer_finish(qsi_bpe_trainer *t, int32_t n_vocab,
                                 int (*progress)(void *user, int64_t done, int64_t of), void *user,
                                 qsi_vocab **out, qs_err *err) {
    qs_status st = QS_OK;
    learner l = {.free_node = NONE, .seed = t->seed};
    if (n_vocab < 256 + N_SPECIAL || n_vocab > QSI_VOCAB_MAX)
        QS_FAIL(err, QS_E_RANGE, "a vocabulary of %d tokens: choose %d to %d", (int)n_vocab,
                256 + N_SPECIAL, QSI_VOCAB_MAX);
    st = init_symbols(&l, (size_t)n_vocab);
    if (st == QS_OK) st = init_words(&l, t);
    if (st == QS_OK) st = init_pairs(&l);
    if (st == QS_OK) st = learn(&l, (size_t)n_vocab - N_SPECIAL, progress, user);
    if (st == QS_E_CANCELLED) QS_FAIL(err, st, "stopped after %zu merges", l.n_merges);
    if (st == QS_E_LIMIT) QS_FAIL(err, st, "the text has too many different pairs");
    if (st != QS_OK)
        QS_FAIL(err, st, "out of memory while learning from %zu bytes of distinct pieces",
                t->n_text);
    QS_TRY(build(&l, t->pre, out, err));
done:
    learner_release(&l);
    return st;
}
