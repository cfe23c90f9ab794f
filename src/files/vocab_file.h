/* A vocabulary from whatever a person names: a GGUF file, a tokenizer.json, or a folder that holds
 * one. Thread: any. */
#ifndef QSI_FILES_VOCAB_FILE_H
#define QSI_FILES_VOCAB_FILE_H

#include "tok/tok.h"

/* Errors name the file. The vocabulary is the caller's. */
qs_status qsi_vocab_file_load(qsi_vocab **v, const char *path, qs_err *err) QS_MUST_CHECK;

#endif
