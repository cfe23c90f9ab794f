/* Tokenizers: text <-> ids, and learning a vocabulary. Part of the stable public API.
 *
 * A qs_tokenizer is immutable once open: any number of threads may use one. Text is UTF-8, given
 * with its length; ids are int32_t. */
#ifndef QIUSUO_TOKENIZER_H
#define QIUSUO_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qs_tokenizer qs_tokenizer;

/* Opens the vocabulary in `path`: a GGUF file (with or without tensors), a tokenizer.json, or a
 * folder that holds one. *t is owned by the caller. */
QS_API qs_status qs_tokenizer_open(qs_tokenizer **t, const char *path, qs_err *err) QS_MUST_CHECK;
/* Frees and sets to NULL; NULL and *t == NULL are fine. */
QS_API void qs_tokenizer_close(qs_tokenizer **t);

QS_API int32_t qs_tokenizer_size(const qs_tokenizer *t);
/* -1 when the vocabulary has none. */
QS_API int32_t qs_tokenizer_bos(const qs_tokenizer *t);
QS_API int32_t qs_tokenizer_eos(const qs_tokenizer *t);
QS_API int32_t qs_tokenizer_pad(const qs_tokenizer *t);
/* 1 when a text starts with BOS in this vocabulary. */
QS_API int qs_tokenizer_add_bos(const qs_tokenizer *t);
/* Name of the pre-tokenizer ("deepseek-llm"); borrowed. */
QS_API const char *qs_tokenizer_pre(const qs_tokenizer *t);
QS_API int64_t qs_tokenizer_n_merges(const qs_tokenizer *t);

/* What a token is; text is borrowed and lives as long as t. */
typedef struct qs_token_info {
    const char *text; /* what it decodes to: bytes, not always whole characters; may hold NUL */
    size_t n;
    int32_t type;     /* GGUF's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused */
    int32_t ends;     /* 1: it ends an answer */
} qs_token_info;
QS_API qs_status qs_tokenizer_token(const qs_tokenizer *t, int32_t id, qs_token_info *info,
                                    qs_err *err) QS_MUST_CHECK;
/* The id of a token by its written form, or -1. */
QS_API int32_t qs_tokenizer_find(const qs_tokenizer *t, const char *text, size_t n);

#define QS_ENCODE_BOS 1u     /* BOS first, where the vocabulary wants it */
#define QS_ENCODE_SPECIAL 2u /* control tokens written in the text become their ids */
/* Ids of n bytes of text into ids[0 .. cap); *n_ids is how many there are. 3 n + 1 are always enough,
 * n + 1 where the vocabulary does not normalise text (Qwen's do); QS_E_LIMIT when cap is too small
 * (*n_ids is then what is needed). QS_E_FORMAT with the offset in err when the text is not UTF-8. */
QS_API qs_status qs_tokenizer_encode(const qs_tokenizer *t, const char *text, size_t n,
                                     unsigned flags, int32_t *ids, size_t cap, size_t *n_ids,
                                     qs_err *err) QS_MUST_CHECK;
/* Bytes of ids into text[0 .. cap) (no NUL is added); control tokens only when special != 0.
 * QS_E_LIMIT when cap is too small (*n is then what is needed), QS_E_RANGE for an id outside. */
QS_API qs_status qs_tokenizer_decode(const qs_tokenizer *t, const int32_t *ids, size_t n_ids,
                                     int special, char *text, size_t cap, size_t *n, qs_err *err)
    QS_MUST_CHECK;

/* Decoding id by id, in whole characters: what push gives is always UTF-8. One owner; t must outlive
 * it. */
typedef struct qs_decoder qs_decoder;
QS_API qs_status qs_decoder_create(qs_decoder **d, const qs_tokenizer *t, int special, qs_err *err)
    QS_MUST_CHECK;
QS_API void qs_decoder_free(qs_decoder *d);
/* *text (n bytes, NUL-terminated) is borrowed until the next call; it may be empty. */
QS_API qs_status qs_decoder_push(qs_decoder *d, int32_t id, const char **text, size_t *n,
                                 qs_err *err) QS_MUST_CHECK;
/* What is left (half a character gives U+FFFD); the decoder can then start again. */
QS_API qs_status qs_decoder_finish(qs_decoder *d, const char **text, size_t *n, qs_err *err)
    QS_MUST_CHECK;

/* Learning a vocabulary. Zero-initialise, then set what is wanted. */
typedef struct qs_tokenizer_training {
    const char *const *paths; /* text files; .jsonl (fields "text", "content"); folders of these */
    size_t n_paths;
    int32_t n_vocab;          /* tokens wanted, 258 or more; a short text may give fewer */
    const char *pre;          /* pre-tokenizer; NULL: "deepseek-llm" */
    const char *out;          /* GGUF to write */
    /* NULL, or called with bytes read (merging 0) or merges made (merging 1); non-zero cancels. */
    int (*progress)(void *user, int merging, int64_t done, int64_t of);
    void *user;
} qs_tokenizer_training;
typedef struct qs_tokenizer_trained {
    int32_t n_vocab;
    int64_t n_bytes, n_files;
} qs_tokenizer_trained;
/* Learns byte-level BPE and writes it as a GGUF without tensors. The same text and settings give the
 * same file. result may be NULL. */
QS_API qs_status qs_tokenizer_train(const qs_tokenizer_training *settings,
                                    qs_tokenizer_trained *result, qs_err *err) QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
