/* Tokenizers: vocabulary, pre-tokenizer, byte-level BPE. Source: deepseek-facts 3.1; Sennrich et al.
 * 2016 (BPE), GPT-2's byte alphabet. A qsi_vocab is immutable after load: any thread may encode. */
#ifndef QSI_TOK_H
#define QSI_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "fmt/gguf.h"

typedef struct qsi_vocab qsi_vocab;

typedef enum qsi_tok_type { /* tokenizer.ggml.token_type */
    QSI_TOK_NORMAL = 1,
    QSI_TOK_UNKNOWN = 2,
    QSI_TOK_CONTROL = 3,
    QSI_TOK_USER = 4,
    QSI_TOK_UNUSED = 5,
    QSI_TOK_BYTE = 6
} qsi_tok_type;

typedef struct qsi_ids {
    int32_t *data;
    size_t len, cap;
} qsi_ids;
void qsi_ids_release(qsi_ids *v);
qs_status qsi_ids_push(qsi_ids *v, int32_t id) QS_MUST_CHECK;

/* From the keys of a GGUF (tokenizer.ggml.*). Copies what it needs. */
qs_status qsi_vocab_load_gguf(qsi_vocab **v, const qsi_gguf *g, qs_err *err) QS_MUST_CHECK;
/* From a Hugging Face tokenizer.json (bytes), with optional tokenizer_config.json (may be NULL). */
qs_status qsi_vocab_load_json(qsi_vocab **v, const char *json, size_t n, const char *config,
                              size_t n_config, qs_err *err) QS_MUST_CHECK;
void qsi_vocab_free(qsi_vocab *v);
/* A copy of v with fillers [PADn] (user-defined, never matched in text) up to n tokens, as models
 * have that are wider than their vocabulary. QS_E_RANGE when n is less than v has. */
qs_status qsi_vocab_padded(qsi_vocab **out, const qsi_vocab *v, int32_t n, qs_err *err)
    QS_MUST_CHECK;
/* A copy of v with another chat template. */
qs_status qsi_vocab_with_template(qsi_vocab **out, const qsi_vocab *v, qsi_slice text, qs_err *err)
    QS_MUST_CHECK;
/* Writes all tokenizer.ggml.* keys (and the chat template key when there is one). */
qs_status qsi_vocab_save_gguf(const qsi_vocab *v, qsi_gguf_writer *w, qs_err *err) QS_MUST_CHECK;

/* Appends the vocabulary as a tokenizer.json, and what it does not hold (BOS, EOS, the chat template) as
 * a tokenizer_config.json. Fillers [PADn] are left out. */
qs_status qsi_vocab_save_json(const qsi_vocab *v, qsi_str *json, qsi_str *config, qs_err *err)
    QS_MUST_CHECK;

int32_t qsi_vocab_size(const qsi_vocab *v);
int32_t qsi_vocab_bos(const qsi_vocab *v); /* -1 when none */
int32_t qsi_vocab_eos(const qsi_vocab *v);
int32_t qsi_vocab_pad(const qsi_vocab *v);
bool qsi_vocab_add_bos(const qsi_vocab *v);
bool qsi_vocab_add_eos(const qsi_vocab *v);
const char *qsi_vocab_pre(const qsi_vocab *v); /* "deepseek-llm" ... */
/* tokenizer.chat_template; n == 0 when there is none. */
qsi_slice qsi_vocab_chat_template(const qsi_vocab *v);
int64_t qsi_vocab_n_merges(const qsi_vocab *v);
qsi_tok_type qsi_vocab_type(const qsi_vocab *v, int32_t id);
/* Hash of everything that decides ids: stored in token shards and checkpoints. */
uint64_t qsi_vocab_hash(const qsi_vocab *v);
/* The id's written form as the files have it (byte alphabet for ordinary tokens), borrowed. */
qsi_slice qsi_vocab_text(const qsi_vocab *v, int32_t id);
/* The id's text as bytes (decoded), borrowed, valid as long as v. Control tokens give their
 * written form. id must be in range. */
qsi_slice qsi_vocab_bytes(const qsi_vocab *v, int32_t id);
/* The id of a token by its written form (not pre-tokenized), -1 when none. */
int32_t qsi_vocab_find(const qsi_vocab *v, const char *text, size_t n);
/* True for EOS and the other tokens that end an answer (EOT and so on). */
bool qsi_vocab_is_end(const qsi_vocab *v, int32_t id);

#define QSI_ENC_BOS 1u        /* put BOS first (when the vocabulary has one) */
#define QSI_ENC_SPECIAL 2u    /* control tokens written in the text become their ids */
#define QSI_ENC_PERSON 4u     /* a person's text in a chat: no role, FIM or tool marker matches */
/* Appends the ids of text (UTF-8 of any script; else QS_E_FORMAT with the offset of the bad byte).
 * User-defined tokens match unless QSI_ENC_PERSON (added tokens of one character do in any case),
 * [PADn] never. */
qs_status qsi_encode(const qsi_vocab *v, const char *text, size_t n, unsigned flags, qsi_ids *out,
                     qs_err *err) QS_MUST_CHECK;
/* The tokens of fill-in-the-middle, by the file's keys or else by their usual names; false: none. */
typedef struct qsi_fim {
    int32_t begin, hole, end;
} qsi_fim;
bool qsi_vocab_fim(const qsi_vocab *v, qsi_fim *out);
/* Appends the ids of a prompt that asks for what is missing between two texts, BOS first where the
 * vocabulary wants it. Nothing in the texts becomes a marker. QS_E_UNSUPPORTED: no such tokens. */
qs_status qsi_encode_fim(const qsi_vocab *v, const char *before, size_t n_before, const char *behind,
                         size_t n_behind, qsi_ids *out, qs_err *err) QS_MUST_CHECK;

/* Appends the bytes of ids; control tokens are skipped unless `special`. */
qs_status qsi_decode(const qsi_vocab *v, const int32_t *ids, size_t n, bool special, qsi_str *out)
    QS_MUST_CHECK;

/* Streaming: holds back the bytes of a character that is not complete yet. push appends what may be
 * shown to out; finish appends the rest (invalid bytes as U+FFFD). */
typedef struct qsi_detok {
    const qsi_vocab *v;
    bool special;
    char held[8];
    int n_held;
} qsi_detok;
void qsi_detok_init(qsi_detok *d, const qsi_vocab *v, bool special);
qs_status qsi_detok_push(qsi_detok *d, int32_t id, qsi_str *out) QS_MUST_CHECK;
qs_status qsi_detok_finish(qsi_detok *d, qsi_str *out) QS_MUST_CHECK;

/* Pre-tokenizers (tok/pretok.c): calls fn with each piece of text in order. */
typedef qs_status qsi_piece_fn(void *user, const char *p, size_t n);
qs_status qsi_pretok(const char *pre, const char *text, size_t n, qsi_piece_fn *fn, void *user,
                     qs_err *err) QS_MUST_CHECK;

/* Learning a vocabulary (tok/bpe_train.c): byte-level BPE over pieces of pre-tokenizer `pre`, all
 * 256 byte symbols, then merges by count (ties: lower pair first) up to n_vocab minus the specials.
 * Specials <｜begin▁of▁sentence｜>, <｜end▁of▁sentence｜> come last. Deterministic. */
typedef struct qsi_bpe_trainer qsi_bpe_trainer;
qs_status qsi_bpe_trainer_create(qsi_bpe_trainer **t, const char *pre, qs_err *err) QS_MUST_CHECK;
void qsi_bpe_trainer_free(qsi_bpe_trainer *t);
qs_status qsi_bpe_trainer_add(qsi_bpe_trainer *t, const char *text, size_t n, qs_err *err)
    QS_MUST_CHECK;
/* progress may be NULL: called with merges done and wanted; non-zero return cancels. */
qs_status qsi_bpe_trainer_finish(qsi_bpe_trainer *t, int32_t n_vocab,
                                 int (*progress)(void *user, int64_t done, int64_t of), void *user,
                                 qsi_vocab **out, qs_err *err) QS_MUST_CHECK;

#endif
