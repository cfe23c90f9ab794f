/* The vocabulary's inside, shared by the files of this room. A vocabulary is described by a spec
 * (whoever read or learned it), checked and built once by qsi_vocab_build, and immutable after. */
#ifndef QSI_TOK_VOCAB_H
#define QSI_TOK_VOCAB_H

#include "base/mem.h"
#include "tok/tok.h"

#define QSI_VOCAB_MAX 4000000     /* tokens */
#define QSI_TOKEN_MAX_BYTES 65536 /* written form of one token */

/* What a loader hands over; borrowed during the call. Token texts are in written form: byte
 * alphabet for normal tokens, literal for the others. A merge is two written forms. */
typedef struct qsi_vocab_spec {
    const qsi_slice *tokens;
    const uint8_t *types; /* qsi_tok_type, one per token */
    int64_t n_tokens;
    const qsi_slice *left, *right;
    int64_t n_merges;
    int64_t bos, eos, pad; /* -1: none */
    bool add_bos, add_eos;
    const char *pre;
    qsi_slice chat_template; /* n == 0: none */
    bool nfc;                /* text is brought to NFC first */
    int64_t fim[3];          /* before, hole, end of fill-in-the-middle: id + 1; 0: not named */
} qsi_vocab_spec;

/* Result of a merge and its rank (line number in the list of merges). */
typedef struct qsi_merge {
    uint64_t key; /* left << 32 | right; UINT64_MAX: empty slot */
    uint32_t rank;
    int32_t id;
} qsi_merge;

/* Added tokens as a trie over bytes: children are linked by `next`. Node 0 is the root. */
typedef struct qsi_trie_node {
    uint32_t child, next; /* 0: none */
    int32_t id;           /* -1: no token ends here */
    uint8_t byte;
} qsi_trie_node;

/* Flags of a token. */
#define QSI_TF_BPE 1u    /* written in the byte alphabet; may be part of a merge */
#define QSI_TF_WHOLE 2u  /* a piece that equals it encodes to it alone */
#define QSI_TF_ONECHAR 4u /* added token of one character: matches in any text */
#define QSI_TF_MATCH 8u  /* added token that may match in text */

struct qsi_vocab {
    qsi_arena arena;
    int32_t n;
    qsi_slice *text;  /* written form */
    qsi_slice *bytes; /* what it decodes to */
    char *blob;       /* where both lie */
    size_t blob_len;
    uint8_t *type, *flags;
    uint32_t *by_text, *by_bytes; /* open addressing: id + 1, 0 empty */
    uint32_t hash_mask;
    uint64_t seed;        /* of the tables: of this process, not of the vocabulary */
    int32_t byte_id[256]; /* -1: the vocabulary lacks this byte */
    qsi_merge *merges;    /* open addressing */
    uint32_t merge_mask;
    int merge_shift;      /* what is left of a hash is a slot of them ... */
    uint64_t *merge_bits; /* filter: a key whose bit is 0 is no merge. Most lookups end here, and the
                             filter stays in the cache where the table does not */
    int merge_bit_shift;  /* ... and a bit of the filter */
    uint32_t *byte_rank;  /* rank of the merge of two bytes at [first << 8 | second], or UINT32_MAX */
    uint64_t *merge_list; /* keys by rank */
    int64_t n_merges;
    qsi_trie_node *trie;
    uint32_t n_trie;
    bool trie_first[256]; /* bytes an added token starts with */
    int32_t bos, eos, pad;
    bool add_bos, add_eos;
    const char *pre;
    qsi_slice chat_template;
    bool nfc;
    int32_t fim[3]; /* -1: not named */
    uint64_t hash;
};

/* Appends the pre-tokenizer as tokenizer.json has it. QS_E_UNSUPPORTED: no such one. */
qs_status qsi_pretok_put_json(qsi_str *out, const char *pre) QS_MUST_CHECK;

/* Checks the spec and builds. QS_E_FORMAT says which token or merge is wrong. */
qs_status qsi_vocab_build(qsi_vocab **v, const qsi_vocab_spec *s, qs_err *err) QS_MUST_CHECK;

/* The byte alphabet of GPT-2: the character that stands for a byte, and back (-1: none). */
uint32_t qsi_byte_symbol(uint8_t byte);
int qsi_symbol_byte(uint32_t cp);
/* The bytes in the order of their symbols: the ids of the single bytes in a learned vocabulary. */
uint8_t qsi_byte_by_order(int i);

#define QSI_PRETOK_NAMES                                                                           \
    "deepseek-llm, deepseek-coder, deepseek-v3, llama-bpe, qwen2, deepseek-r1-qwen"
bool qsi_pretok_known(const char *pre);
/* A piece that is a token as a whole becomes that token, whatever its merges ("ignore_merges"). */
bool qsi_pretok_whole(const char *pre);

/* "left right" -> both; false when it is not two words with one space between them. */
bool qsi_split_merge(qsi_slice s, qsi_slice *left, qsi_slice *right);

/* The high bits of a product with an odd number that nobody else knows: of two keys, whoever chose
 * them, few such numbers make the same slot (multiply-shift hashing, Dietzfelbinger et al. 1997). */
static inline uint64_t qsi_merge_hash(const qsi_vocab *v, uint64_t key) { return key * (v->seed | 1); }

/* The merge of two tokens, or NULL. */
static inline const qsi_merge *qsi_merge_find(const qsi_vocab *v, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, h = qsi_merge_hash(v, key);
    uint64_t bit = h >> v->merge_bit_shift;
    if (!(v->merge_bits[bit >> 6] >> (bit & 63) & 1)) return NULL;
    for (uint32_t i = (uint32_t)(h >> v->merge_shift);; i = (i + 1) & v->merge_mask) {
        const qsi_merge *m = &v->merges[i];
        if (m->key == key) return m;
        if (m->key == UINT64_MAX) return NULL;
    }
}

/* The BPE token whose bytes these are, or -1. */
int32_t qsi_vocab_find_bytes(const qsi_vocab *v, const char *p, size_t n);

/* BPE inside one piece (bpe.c): appends its ids. Work memory is kept in the scratch. */
typedef struct qsi_bpe_scratch {
    void *mem;
    size_t bytes;
} qsi_bpe_scratch;
void qsi_bpe_scratch_release(qsi_bpe_scratch *s);
qs_status qsi_bpe_piece(const qsi_vocab *v, qsi_bpe_scratch *s, const char *p, size_t n,
                        qsi_ids *out) QS_MUST_CHECK;

#endif
