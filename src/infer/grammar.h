/* Structured output: JSON Schema, GBNF, regular expressions and lists of choices become one form, a
 * grammar over bytes, and a grammar says for every state of an answer which ids may come next.
 *
 * Everything is matched byte by byte, so a token may hold part of a character, and a class of Chinese
 * characters is as good as one of letters. docs/structured-output.md says what each language may hold,
 * what is refused, and what a mask costs. What cannot be enforced is an error, never free text.
 *
 * A compiled grammar is immutable but for its cache of masks, which locks itself; a trie is immutable;
 * a matcher has one owner. */
#ifndef QSI_INFER_GRAMMAR_H
#define QSI_INFER_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "tok/tok.h"

/* What compiling and matching may take. Compiling beyond them is QS_E_LIMIT. */
typedef struct qsi_grammar_limits {
    size_t bytes;  /* of the text that is compiled */
    size_t states; /* of the automaton; also bounds rules and expressions */
    size_t
        cache_bytes; /* kept for masks, of all sequences together; one mask may take as much again */
    size_t work;     /* items looked at for one mask; a usual mask takes some thousand */
    int64_t time_ns; /* of compiling */
} qsi_grammar_limits;
#define QSI_GRAMMAR_LIMITS                                                                           \
    ((qsi_grammar_limits){ 4u << 20, 1u << 20, 64u << 20, 1u << 19, INT64_C(2000000000) })

typedef struct qsi_grammar qsi_grammar;

/* All: *g is owned by the caller, who gives it up with qsi_grammar_release; `l` may be NULL (the
 * defaults). Any thread. QS_E_FORMAT: the text is malformed, with the offset; QS_E_ARG: nothing can
 * ever match; QS_E_UNSUPPORTED: it cannot be enforced; QS_E_LIMIT: too large.
 *
 * From GBNF as llama.cpp writes it: rules `name ::= ...`, "literals", [classes], ., |, ( ), ?, *, +,
 * {m}, {m,}, {m,n}, # comments, escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH; rule `root`. */
qs_status qsi_grammar_from_gbnf(qsi_grammar **g, const char *text, size_t n,
                                const qsi_grammar_limits *l, qs_err *err) QS_MUST_CHECK;
/* From a regular expression that the whole answer must match; ^ and $ at its ends change nothing.
 * Python's and ECMAScript's common ground: classes, \d \w \s \D \W \S (of ASCII), escapes, groups
 * (capturing, (?:...), named), |, quantifiers (lazy ones mean the same). Look-around, back references
 * and \b are QS_E_UNSUPPORTED. */
qs_status qsi_grammar_from_regex(qsi_grammar **g, const char *text, size_t n,
                                 const qsi_grammar_limits *l, qs_err *err) QS_MUST_CHECK;
/* The answer is one of n texts (NUL-terminated UTF-8, none empty). */
qs_status qsi_grammar_from_choices(qsi_grammar **g, const char *const *list, size_t n,
                                   const qsi_grammar_limits *l, qs_err *err) QS_MUST_CHECK;

/* From a JSON Schema: the answer is JSON text that satisfies it. QS_E_UNSUPPORTED begins with the
 * keyword and where it stands: `"uniqueItems" at #/properties/a: ...`. Formats that are enforced: date,
 * time, date-time, uuid, email, ipv4, ipv6; others are annotations, as the standard has it. */
qs_status qsi_grammar_from_schema(qsi_grammar **g, const char *json, size_t n,
                                  const qsi_grammar_limits *l, qs_err *err) QS_MUST_CHECK;
/* Any JSON object. */
qs_status qsi_grammar_json_object(qsi_grammar **g, const qsi_grammar_limits *l,
                                  qs_err *err) QS_MUST_CHECK;

qsi_grammar *qsi_grammar_retain(qsi_grammar *g);
void qsi_grammar_release(qsi_grammar *g); /* NULL: nothing */

/* The texts of a vocabulary's ordinary tokens as a tree. Control tokens never match text, nor do
 * user-defined ones longer than a character (markers, fillers). Built once per vocabulary; reference-
 * counted; needs the vocabulary while it is built only. */
typedef struct qsi_token_trie qsi_token_trie;
qs_status qsi_token_trie_create(qsi_token_trie **t, const qsi_vocab *v, qs_err *err) QS_MUST_CHECK;
qsi_token_trie *qsi_token_trie_retain(qsi_token_trie *t);
void qsi_token_trie_release(qsi_token_trie *t);       /* NULL: nothing */
int32_t qsi_token_trie_size(const qsi_token_trie *t); /* ids of its vocabulary */

/* Where one answer stands. Owner thread; grammar and trie are retained. */
typedef struct qsi_matcher qsi_matcher;
enum { QSI_MATCHER_BACK = 64 }; /* ids that can be taken back */
qs_status qsi_matcher_create(qsi_matcher **m, qsi_grammar *g, qsi_token_trie *t,
                             qs_err *err) QS_MUST_CHECK;
void qsi_matcher_free(qsi_matcher *m);
qs_status qsi_matcher_clone(qsi_matcher **out, const qsi_matcher *m, qs_err *err) QS_MUST_CHECK;
/* Bit id % 32 of word id / 32: that id may come next. End tokens exactly when the answer may be
 * complete. Never empty when the vocabulary has every byte that the grammar uses. Valid until the
 * next call with m; (qsi_token_trie_size + 31) / 32 words. NULL: no memory, or the grammar is so
 * ambiguous here that a limit was met (qsi_matcher_error). */
const uint32_t *qsi_matcher_mask(qsi_matcher *m);
/* Takes an id. false, and the state is unchanged: it is not allowed, or memory failed
 * (qsi_matcher_error). */
bool qsi_matcher_accept(qsi_matcher *m, int32_t id);
/* The same for bytes that belong to no id: text that was begun for the model. Counts as one id. */
bool qsi_matcher_accept_bytes(qsi_matcher *m, const char *p, size_t n);
/* Takes back the last n ids: n at most QSI_MATCHER_BACK and the ids accepted so far, else false. */
bool qsi_matcher_rollback(qsi_matcher *m, int32_t n);
/* The answer may end here. */
bool qsi_matcher_may_end(const qsi_matcher *m);
/* Nothing but an end token may come. */
bool qsi_matcher_done(const qsi_matcher *m);
/* What made mask or accept fail; QS_OK when nothing did. */
qs_status qsi_matcher_error(const qsi_matcher *m, qs_err *err);

#endif
