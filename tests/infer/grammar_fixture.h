/* A small vocabulary for tests of grammars (all bytes, and tokens that cut across everything: quotes,
 * digits, parts of Chinese characters), and ways to drive a matcher through texts. */
#ifndef QSI_TESTS_GRAMMAR_FIXTURE_H
#define QSI_TESTS_GRAMMAR_FIXTURE_H

#include "infer/grammar.h"

typedef struct grammar_fixture {
    qsi_vocab *vocab;
    qsi_token_trie *trie;
    int32_t byte_id[256], eos;
} grammar_fixture;
void grammar_fixture_init(grammar_fixture *f);
void grammar_fixture_release(grammar_fixture *f);

/* Does the whole text match? Byte by byte; on the way every mask must agree with the next byte's fate,
 * and the same text as the longest tokens must fare alike. */
bool grammar_matches(grammar_fixture *f, qsi_grammar *g, const char *text);
bool grammar_matches_n(grammar_fixture *f, qsi_grammar *g, const char *p, size_t n);
/* All that has to hold in the matcher's state: the mask of every id is what a trial of that id says, it
 * is not empty, end tokens are in it exactly when the text may end. Returns how many ids may come. */
int grammar_check_mask(grammar_fixture *f, qsi_matcher *m);
/* Walks at random along what masks allow, checking every mask, until the end or n_ids; then back. */
void grammar_random_walk(grammar_fixture *f, qsi_grammar *g, uint64_t seed, int n_ids);

#endif
