/* A vocabulary of 290 tokens for tests that generate from the scripted model: learned from a sentence
 * about the moon, in English and Chinese. Group setup and teardown of cmocka. */
#ifndef QSI_TESTS_MOON_VOCAB_H
#define QSI_TESTS_MOON_VOCAB_H

#include "tok/tok.h"

extern qsi_vocab *vocab;
int make_vocab(void **state);
int free_vocab(void **state);

#endif
