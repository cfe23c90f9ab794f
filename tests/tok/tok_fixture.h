/* Small vocabularies for tests: the 256 byte symbols, then what a test adds. */
#ifndef TOK_FIXTURE_H
#define TOK_FIXTURE_H

#include "tok/vocab.h"

#define TOK_FIXTURE_MAX 512

typedef struct tok_fixture {
    qsi_slice tokens[TOK_FIXTURE_MAX], left[TOK_FIXTURE_MAX], right[TOK_FIXTURE_MAX];
    uint8_t types[TOK_FIXTURE_MAX];
    char symbols[256][4];
    qsi_vocab_spec spec; /* points at the arrays above */
} tok_fixture;

void tok_fixture_init(tok_fixture *f, const char *pre);
/* Returns the new token's id. */
int32_t tok_fixture_token(tok_fixture *f, const char *text, int type);
void tok_fixture_merge(tok_fixture *f, const char *left, const char *right);
/* BOS and EOS as deepseek-llm writes them. */
void tok_fixture_bos_eos(tok_fixture *f);
/* Builds, which must succeed. */
qsi_vocab *tok_fixture_build(const tok_fixture *f);
/* Building must fail with that code and a message that contains `words`. */
void tok_fixture_fails(const tok_fixture *f, qs_status code, const char *words);

#endif
