/* The vocabulary: checks a spec completely, builds the tables that encoding and decoding use, and
 * answers questions about tokens. After qsi_vocab_build a vocabulary is sound: every id in a table
 * is in range, every byte of UTF-8 has a symbol, every merge makes a token.
 *
 * Source: deepseek-facts 3.1; the byte alphabet is GPT-2's (printable Latin-1 stands for itself, the
 * other bytes for U+0100 and up). Thread: immutable after build. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "sys/seed.h"
#include "tok/vocab.h"

#define QUOTE_MAX 48 /* bytes of a token shown in a message */

/* ---- the byte alphabet ---- */

static bool is_printable(int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t qsi_byte_symbol(uint8_t byte) {
    uint32_t n = 0;
    if (is_printable(byte)) return byte;
    for (int b = 0; b < byte; b++) n += !is_printable(b);
    return 0x100 + n;
}

int qsi_symbol_byte(uint32_t cp) {
    uint32_t n = cp - 0x100;
    if (cp < 0x100) return is_printable((int)cp) ? (int)cp : -1;
    for (int b = 0; b < 256; b++)
        if (!is_printable(b) && n-- == 0) return b;
    return -1;
}

uint8_t qsi_byte_by_order(int i) {
    for (int pass = 1; pass >= 0; pass--)
        for (int b = 0; b < 256; b++)
            if (is_printable(b) == (pass == 1) && i-- == 0) return (uint8_t)b;
    return 0;
}

/* ---- messages ---- */

/* The start of a token's text that fits a message. */
static int quote_len(qsi_slice s) {
    size_t n = s.n < QUOTE_MAX ? s.n : QUOTE_MAX;
    return (int)qsi_utf8_whole(s.p, n);
}
#define QUOTED(s) quote_len(s), (s).p

/* ---- hash tables over slices ---- */

static uint32_t slot_of(const qsi_vocab *v, const char *p, size_t n) {
    return (uint32_t)qsi_hash_seed(p, n, v->seed) & v->hash_mask;
}

/* Slot that holds the id of that string in `strings`, or the empty slot where it belongs. */
static uint32_t probe(const qsi_vocab *v, const uint32_t *table, const qsi_slice *strings,
                      const char *p, size_t n) {
    uint32_t i = slot_of(v, p, n);
    for (; table[i] != 0; i = (i + 1) & v->hash_mask) {
        const qsi_slice *s = &strings[table[i] - 1];
        if (s->n == n && memcmp(s->p, p, n) == 0) break;
    }
    return i;
}

int32_t qsi_vocab_find(const qsi_vocab *v, const char *text, size_t n) {
    return (int32_t)v->by_text[probe(v, v->by_text, v->text, text, n)] - 1;
}

int32_t qsi_vocab_find_bytes(const qsi_vocab *v, const char *p, size_t n) {
    return (int32_t)v->by_bytes[probe(v, v->by_bytes, v->bytes, p, n)] - 1;
}

/* ---- building ---- */

static qs_status check_spec(const qsi_vocab_spec *s, qs_err *err) {
    qs_status st = QS_OK;
    const struct {
        const char *name;
        int64_t id;
    } ids[] = {{"bos", s->bos}, {"eos", s->eos}, {"padding", s->pad}, {"fim_pre", s->fim[0] - 1},
               {"fim_suf", s->fim[1] - 1}, {"fim_mid", s->fim[2] - 1}};
    if (!qsi_pretok_known(s->pre))
        QS_FAIL(err, QS_E_UNSUPPORTED,
                "unknown pre-tokenizer '%.40s' (known: " QSI_PRETOK_NAMES ")", s->pre);
    if (s->n_tokens < 1 || s->n_tokens > QSI_VOCAB_MAX)
        QS_FAIL(err, QS_E_FORMAT, "a vocabulary of %lld tokens (1 to %d are possible)",
                (long long)s->n_tokens, QSI_VOCAB_MAX);
    if (s->n_merges < 0 || s->n_merges >= INT32_MAX / 4)
        QS_FAIL(err, QS_E_FORMAT, "a vocabulary with %lld merges", (long long)s->n_merges);
    for (size_t i = 0; i < QSI_COUNT(ids); i++)
        if (ids[i].id < -1 || ids[i].id >= s->n_tokens)
            QS_FAIL(err, QS_E_FORMAT, "the %s token's id %lld is outside the %lld tokens",
                    ids[i].name, (long long)ids[i].id, (long long)s->n_tokens);
done:
    return st;
}

/* By how much a 64-bit hash is shifted to be one of n places; n is a power of two, not 1. */
static int shift_for(size_t n) {
    int shift = 64;
    for (; n > 1; n /= 2) shift--;
    return shift;
}

static qs_status alloc_tables(qsi_vocab *v, const qsi_vocab_spec *s) {
    size_t n = (size_t)s->n_tokens, slots = 64, merge_slots = 64, bits = 64;
    size_t blob = 0;
    qsi_arena *a = &v->arena;
    for (size_t i = 0; i < n; i++)
        if (!qsi_add_size(blob, s->tokens[i].n, &blob)) return QS_E_NOMEM;
    while (slots < 2 * n) slots *= 2;
    while (merge_slots < 2 * (size_t)s->n_merges) merge_slots *= 2;
    while (bits < 8 * (size_t)s->n_merges) bits *= 2;
    v->seed = qsi_process_seed();
    v->merge_bit_shift = shift_for(bits);
    v->merge_shift = shift_for(merge_slots);
    v->merge_bits = qsi_arena_calloc(a, bits / 64, sizeof *v->merge_bits);
    v->n = (int32_t)n;
    v->n_merges = s->n_merges;
    v->hash_mask = (uint32_t)slots - 1;
    v->merge_mask = (uint32_t)merge_slots - 1;
    v->text = qsi_arena_alloc(a, n, sizeof *v->text);
    v->bytes = qsi_arena_alloc(a, n, sizeof *v->bytes);
    v->blob = qsi_arena_alloc(a, blob, 2);
    v->type = qsi_arena_alloc(a, n, 1);
    v->flags = qsi_arena_calloc(a, n, 1);
    v->by_text = qsi_arena_calloc(a, slots, sizeof *v->by_text);
    v->by_bytes = qsi_arena_calloc(a, slots, sizeof *v->by_bytes);
    v->merges = qsi_arena_alloc(a, merge_slots, sizeof *v->merges);
    v->merge_list = qsi_arena_alloc(a, (size_t)s->n_merges, sizeof *v->merge_list);
    v->byte_rank = qsi_arena_alloc(a, 65536, sizeof *v->byte_rank);
    v->pre = qsi_arena_strndup(a, s->pre, strlen(s->pre));
    v->chat_template.p = qsi_arena_strndup(a, s->chat_template.p == NULL ? "" : s->chat_template.p,
                                           s->chat_template.n);
    v->chat_template.n = s->chat_template.n;
    if (v->text == NULL || v->bytes == NULL || v->blob == NULL || v->type == NULL ||
        v->flags == NULL || v->by_text == NULL || v->by_bytes == NULL || v->merges == NULL ||
        v->merge_bits == NULL || v->merge_list == NULL || v->byte_rank == NULL ||
        v->pre == NULL || v->chat_template.p == NULL)
        return QS_E_NOMEM;
    for (size_t i = 0; i < merge_slots; i++) v->merges[i].key = UINT64_MAX;
    for (int i = 0; i < 256; i++) v->byte_id[i] = -1;
    memset(v->byte_rank, 0xff, 65536 * sizeof *v->byte_rank);
    return QS_OK;
}

/* "[PAD17]": fills a vocabulary up to the model's size; never matches. */
static bool is_pad_filler(qsi_slice s) {
    if (s.n < 6 || memcmp(s.p, "[PAD", 4) != 0 || s.p[s.n - 1] != ']') return false;
    for (size_t i = 4; i + 1 < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9') return false;
    return true;
}

/* Writes what a token in the byte alphabet decodes to; false when it has another character. */
static bool decode_symbols(qsi_slice text, const int16_t *byte_of, char *out, size_t *n_out) {
    size_t n = 0;
    for (size_t i = 0; i < text.n;) {
        int len;
        uint32_t cp = qsi_utf8_decode(text.p + i, text.n - i, &len);
        if (cp >= 0x144 || byte_of[cp] < 0) return false;
        out[n++] = (char)byte_of[cp];
        i += (size_t)len;
    }
    *n_out = n;
    return true;
}

static unsigned token_flags(qsi_slice text, int type) {
    int len;
    if (type != QSI_TOK_CONTROL && type != QSI_TOK_USER) return 0;
    if (is_pad_filler(text)) return 0;
    (void)qsi_utf8_decode(text.p, text.n, &len);
    return QSI_TF_MATCH |
           (type == QSI_TOK_USER && (size_t)len == text.n ? QSI_TF_ONECHAR : 0u);
}

static qs_status add_token(qsi_vocab *v, int32_t id, qsi_slice text, int type,
                           const int16_t *byte_of, qs_err *err) {
    qs_status st = QS_OK;
    char *bytes = v->blob + v->blob_len + text.n;
    size_t n_bytes = 0;
    uint32_t slot;
    if (type < QSI_TOK_NORMAL || type > QSI_TOK_BYTE)
        QS_FAIL(err, QS_E_FORMAT, "token %d has the unknown type %d", (int)id, type);
    if (text.n == 0 || text.n > QSI_TOKEN_MAX_BYTES)
        QS_FAIL(err, QS_E_FORMAT, "token %d is %zu bytes long (1 to %d are possible)", (int)id,
                text.n, QSI_TOKEN_MAX_BYTES);
    if (!qsi_utf8_valid(text.p, text.n, NULL))
        QS_FAIL(err, QS_E_FORMAT, "the text of token %d is not UTF-8", (int)id);
    slot = probe(v, v->by_text, v->text, text.p, text.n);
    if (v->by_text[slot] != 0)
        QS_FAIL(err, QS_E_FORMAT, "tokens %d and %d are both '%.*s'", (int)v->by_text[slot] - 1,
                (int)id, QUOTED(text));
    memcpy(v->blob + v->blob_len, text.p, text.n);
    v->text[id] = (qsi_slice){v->blob + v->blob_len, text.n};
    v->blob_len += 2 * text.n;
    v->bytes[id] = v->text[id];
    v->type[id] = (uint8_t)type;
    v->flags[id] = (uint8_t)token_flags(text, type);
    v->by_text[slot] = (uint32_t)id + 1;
    if (type != QSI_TOK_NORMAL && type != QSI_TOK_BYTE) return QS_OK;
    if (!decode_symbols(text, byte_of, bytes, &n_bytes)) return QS_OK;
    v->bytes[id] = (qsi_slice){bytes, n_bytes};
    v->flags[id] |= QSI_TF_BPE;
    if (n_bytes == 1) v->byte_id[(unsigned char)bytes[0]] = id;
done:
    return st;
}

/* All bytes of UTF-8 must have a symbol; C0, C1 and F5 to FF cannot occur. */
static qs_status check_bytes(const qsi_vocab *v, qs_err *err) {
    for (int b = 0; b < 256; b++)
        if (v->byte_id[b] < 0 && b != 0xc0 && b != 0xc1 && b < 0xf5)
            return qsi_err_set(err, QS_E_FORMAT, "the vocabulary has no token for the byte 0x%02x",
                               (unsigned)b);
    return QS_OK;
}

static int32_t find_bpe(const qsi_vocab *v, const char *p, size_t n) {
    int32_t id = qsi_vocab_find(v, p, n);
    return id >= 0 && (v->flags[id] & QSI_TF_BPE) ? id : -1;
}

static qs_status add_merge(qsi_vocab *v, int64_t rank, qsi_slice l, qsi_slice r, qsi_str *buf,
                           qs_err *err) {
    qs_status st = QS_OK;
    int32_t left = find_bpe(v, l.p, l.n), right = find_bpe(v, r.p, r.n), made;
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, h = qsi_merge_hash(v, key);
    uint64_t bit = h >> v->merge_bit_shift;
    uint32_t i;
    if (left < 0 || right < 0)
        QS_FAIL(err, QS_E_FORMAT, "merge %lld names '%.*s', which is no token", (long long)rank,
                QUOTED(left < 0 ? l : r));
    qsi_str_clear(buf);
    if (qsi_str_append(buf, l.p, l.n) != QS_OK || qsi_str_append(buf, r.p, r.n) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the merges");
    made = find_bpe(v, buf->data, buf->len);
    if (made < 0)
        QS_FAIL(err, QS_E_FORMAT, "merge %lld ('%.*s' and '%.*s') makes no token", (long long)rank,
                QUOTED(l), QUOTED(r));
    for (i = (uint32_t)(h >> v->merge_shift); v->merges[i].key != UINT64_MAX;
         i = (i + 1) & v->merge_mask)
        if (v->merges[i].key == key)
            QS_FAIL(err, QS_E_FORMAT, "merges %u and %lld are the same ('%.*s' and '%.*s')",
                    (unsigned)v->merges[i].rank, (long long)rank, QUOTED(l), QUOTED(r));
    v->merges[i] = (qsi_merge){key, (uint32_t)rank, made};
    v->merge_bits[bit >> 6] |= (uint64_t)1 << (bit & 63);
    v->merge_list[rank] = key;
    if (v->bytes[left].n == 1 && v->bytes[right].n == 1)
        v->byte_rank[(uint8_t)v->bytes[left].p[0] << 8 | (uint8_t)v->bytes[right].p[0]] =
            (uint32_t)rank;
done:
    return st;
}

static bool has_symbols(const qsi_vocab *v, qsi_slice bytes) {
    for (size_t i = 0; i < bytes.n; i++)
        if (v->byte_id[(unsigned char)bytes.p[i]] < 0) return false;
    return true;
}

/* Marks the tokens that their own bytes encode to, and makes them findable by their bytes; where
 * whole tokens come before merges, all of them. */
static qs_status mark_whole(qsi_vocab *v) {
    qs_status st = QS_OK;
    bool all = qsi_pretok_whole(v->pre);
    qsi_bpe_scratch scratch = {0};
    qsi_ids ids = {0};
    for (int32_t id = 0; id < v->n; id++) {
        qsi_slice b = v->bytes[id];
        if (!(v->flags[id] & QSI_TF_BPE) || !has_symbols(v, b)) continue;
        ids.len = 0;
        if (b.n > 1 && !all) QS_TRY(qsi_bpe_piece(v, &scratch, b.p, b.n, &ids));
        if (b.n > 1 && !all && (ids.len != 1 || ids.data[0] != id)) continue;
        v->flags[id] |= QSI_TF_WHOLE;
        v->by_bytes[probe(v, v->by_bytes, v->bytes, b.p, b.n)] = (uint32_t)id + 1;
    }
done:
    qsi_bpe_scratch_release(&scratch);
    qsi_ids_release(&ids);
    return st;
}

static qs_status trie_add(qsi_vocab *v, size_t *cap, int32_t id) {
    qs_status st = QS_OK;
    qsi_slice s = v->text[id];
    uint32_t at = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t b = (uint8_t)s.p[i];
        uint32_t c = v->trie[at].child;
        while (c != 0 && v->trie[c].byte != b) c = v->trie[c].next;
        if (c == 0) {
            QS_TRY(qsi_grow((void **)&v->trie, cap, (size_t)v->n_trie + 1, sizeof *v->trie));
            c = v->n_trie++;
            v->trie[c] = (qsi_trie_node){.next = v->trie[at].child, .id = -1, .byte = b};
            v->trie[at].child = c;
        }
        at = c;
    }
    v->trie[at].id = id;
    v->trie_first[(uint8_t)s.p[0]] = true;
done:
    return st;
}

static qs_status build_trie(qsi_vocab *v) {
    qs_status st = QS_OK;
    size_t cap = 0;
    QS_TRY(qsi_grow((void **)&v->trie, &cap, 16, sizeof *v->trie));
    v->trie[0] = (qsi_trie_node){.id = -1};
    v->n_trie = 1;
    for (int32_t id = 0; id < v->n; id++)
        if (v->flags[id] & QSI_TF_MATCH) QS_TRY(trie_add(v, &cap, id));
done:
    return st;
}

/* Everything that decides ids: pre-tokenizer, tokens with types, merges, special ids. Files keep it: it
 * knows nothing of this process's seed. */
static uint64_t hash_vocab(const qsi_vocab *v) {
    int32_t ids[6] = {v->n, v->bos, v->eos, v->pad, v->add_bos, v->add_eos};
    uint64_t h = qsi_hash(v->pre, strlen(v->pre));
    h = qsi_hash_seed(ids, sizeof ids, h + v->nfc);
    for (int32_t i = 0; i < v->n; i++)
        h = qsi_hash_seed(v->text[i].p, v->text[i].n, h + v->type[i]);
    return qsi_hash_seed(v->merge_list, (size_t)v->n_merges * sizeof *v->merge_list, h);
}

static qs_status fill_tables(qsi_vocab *v, const qsi_vocab_spec *s, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str buf = {0};
    int16_t byte_of[0x144];
    for (uint32_t cp = 0; cp < 0x144; cp++) byte_of[cp] = (int16_t)qsi_symbol_byte(cp);
    for (int32_t i = 0; i < v->n; i++)
        QS_TRY(add_token(v, i, s->tokens[i], s->types[i], byte_of, err));
    QS_TRY(check_bytes(v, err));
    for (int64_t i = 0; i < s->n_merges; i++)
        QS_TRY(add_merge(v, i, s->left[i], s->right[i], &buf, err));
    st = mark_whole(v);
    if (st == QS_OK) st = build_trie(v);
    if (st != QS_OK) QS_FAIL(err, st, "out of memory for the vocabulary");
    v->bos = (int32_t)s->bos;
    v->eos = (int32_t)s->eos;
    v->pad = (int32_t)s->pad;
    v->nfc = s->nfc;
    for (int i = 0; i < 3; i++) v->fim[i] = (int32_t)(s->fim[i] - 1);
    v->add_bos = s->add_bos && v->bos >= 0;
    v->add_eos = s->add_eos && v->eos >= 0;
    v->hash = hash_vocab(v);
done:
    qsi_str_release(&buf);
    return st;
}

qs_status qsi_vocab_build(qsi_vocab **v, const qsi_vocab_spec *s, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab *n = NULL;
    QS_TRY(check_spec(s, err));
    n = qsi_calloc(1, sizeof *n);
    if (n == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for the vocabulary");
    qsi_arena_init(&n->arena);
    if (alloc_tables(n, s) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %lld tokens",
                (long long)s->n_tokens);
    QS_TRY(fill_tables(n, s, err));
    *v = n;
    n = NULL;
done:
    qsi_vocab_free(n);
    return st;
}

#define FILLER_BYTES 24

/* The arrays of a spec that equals v with room for n tokens. */
static qs_status copy_spec(const qsi_vocab *v, size_t n, qsi_arena *a, qsi_vocab_spec *s) {
    qsi_slice *tokens = qsi_arena_alloc(a, n, sizeof(*tokens));
    uint8_t *types = qsi_arena_alloc(a, n, 1);
    qsi_slice *left = qsi_arena_alloc(a, (size_t)v->n_merges, sizeof(*left));
    qsi_slice *right = qsi_arena_alloc(a, (size_t)v->n_merges, sizeof(*right));
    char *fill = qsi_arena_alloc(a, n - (size_t)v->n, FILLER_BYTES);
    if (tokens == NULL || types == NULL || left == NULL || right == NULL || fill == NULL)
        return QS_E_NOMEM;
    memcpy(tokens, v->text, (size_t)v->n * sizeof(*tokens));
    memcpy(types, v->type, (size_t)v->n);
    for (size_t i = (size_t)v->n; i < n; i++, fill += FILLER_BYTES) {
        tokens[i] = (qsi_slice){fill, (size_t)snprintf(fill, FILLER_BYTES, "[PAD%zu]", i)};
        types[i] = QSI_TOK_USER;
    }
    for (int64_t i = 0; i < v->n_merges; i++) {
        left[i] = v->text[v->merge_list[i] >> 32];
        right[i] = v->text[(uint32_t)v->merge_list[i]];
    }
    *s = (qsi_vocab_spec){tokens,   types,  (int64_t)n,  left,      right,     v->n_merges,
                          v->bos,   v->eos, v->pad,      v->add_bos, v->add_eos, v->pre,
                          v->chat_template, v->nfc, {0}};
    for (int i = 0; i < 3; i++) s->fim[i] = (int64_t)v->fim[i] + 1;
    return QS_OK;
}

qs_status qsi_vocab_padded(qsi_vocab **out, const qsi_vocab *v, int32_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_arena a;
    qsi_vocab_spec s;
    qsi_arena_init(&a);
    if (n < v->n)
        QS_FAIL(err, QS_E_RANGE, "the vocabulary has %d tokens, more than the model's %d", (int)v->n,
                (int)n);
    if (copy_spec(v, (size_t)n, &a, &s) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %d tokens", (int)n);
    QS_TRY(qsi_vocab_build(out, &s, err));
done:
    qsi_arena_release(&a);
    return st;
}

qs_status qsi_vocab_with_template(qsi_vocab **out, const qsi_vocab *v, qsi_slice text, qs_err *err) {
    qs_status st = QS_OK;
    qsi_arena a;
    qsi_vocab_spec s;
    qsi_arena_init(&a);
    if (copy_spec(v, (size_t)v->n, &a, &s) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %d tokens", (int)v->n);
    s.chat_template = text;
    QS_TRY(qsi_vocab_build(out, &s, err));
done:
    qsi_arena_release(&a);
    return st;
}

void qsi_vocab_free(qsi_vocab *v) {
    if (v == NULL) return;
    qsi_arena_release(&v->arena);
    qsi_free(v->trie);
    qsi_free(v);
}

/* ---- questions ---- */

int32_t qsi_vocab_size(const qsi_vocab *v) {
    return v->n;
}

int32_t qsi_vocab_bos(const qsi_vocab *v) {
    return v->bos;
}

int32_t qsi_vocab_eos(const qsi_vocab *v) {
    return v->eos;
}

int32_t qsi_vocab_pad(const qsi_vocab *v) {
    return v->pad;
}

bool qsi_vocab_add_bos(const qsi_vocab *v) {
    return v->add_bos;
}

bool qsi_vocab_add_eos(const qsi_vocab *v) {
    return v->add_eos;
}

const char *qsi_vocab_pre(const qsi_vocab *v) {
    return v->pre;
}

qsi_slice qsi_vocab_chat_template(const qsi_vocab *v) {
    return v->chat_template;
}

int64_t qsi_vocab_n_merges(const qsi_vocab *v) {
    return v->n_merges;
}

uint64_t qsi_vocab_hash(const qsi_vocab *v) {
    return v->hash;
}

qsi_tok_type qsi_vocab_type(const qsi_vocab *v, int32_t id) {
    QS_CHECK(id >= 0 && id < v->n);
    return (qsi_tok_type)v->type[id];
}

qsi_slice qsi_vocab_text(const qsi_vocab *v, int32_t id) {
    QS_CHECK(id >= 0 && id < v->n);
    return v->text[id];
}

qsi_slice qsi_vocab_bytes(const qsi_vocab *v, int32_t id) {
    QS_CHECK(id >= 0 && id < v->n);
    return v->bytes[id];
}

bool qsi_vocab_is_end(const qsi_vocab *v, int32_t id) {
    static const char *const ends[] = {"<｜end▁of▁sentence｜>", "<|EOT|>", "<|eot_id|>",
                                       "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"};
    qsi_slice s;
    if (id < 0 || id >= v->n) return false;
    if (id == v->eos) return true;
    s = v->text[id];
    if (v->type[id] != QSI_TOK_CONTROL && v->type[id] != QSI_TOK_USER) return false;
    for (size_t i = 0; i < QSI_COUNT(ends); i++)
        if (s.n == strlen(ends[i]) && memcmp(s.p, ends[i], s.n) == 0) return true;
    return false;
}
