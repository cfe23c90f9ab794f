/* The objects behind the public API, for the files of this room. Each group of public functions has
 * a file api_*.c of its own. */
#ifndef QSI_API_H
#define QSI_API_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/status.h"
#include "base/str.h"
#include "fmt/gguf.h"
#include "infer/engine.h"
#include "infer/generate.h"
#include "infer/sampler.h"
#include "model/model.h"
#include "qiusuo/qiusuo.h"
#include "sys/pool.h"
#include "tok/answer.h"
#include "tok/chat.h"
#include "tok/tok.h"

struct qs_tokenizer {
    qsi_vocab *vocab;
};

struct qs_model {
    char *path, *name, *arch;
    qsi_gguf *g;
    qs_tokenizer tok;
    qsi_isa isa;
    qsi_pool *pool;                    /* NULL with vocab_only */
    qsi_model *model;                  /* NULL with vocab_only */
    const qsi_chat_template *chat;     /* NULL when none is known: chat_err says why */
    qs_err chat_err;
    bool guessed_template;             /* by the architecture: the file names none */
    bool tell_template;                /* and nobody was told yet */
    char **tasks;
    size_t n_tasks;
    bool locked;                       /* the process's memory, for this model */
};

typedef struct qsi_api_turn {
    qs_role role;
    qsi_str text, reasoning;
    qsi_answer_call *calls;
    size_t n_calls;
    int32_t *ids;                      /* as generated; NULL: the text stands for itself */
    size_t n_ids;
} qsi_api_turn;

struct qs_session {
    qs_model *model;                   /* borrowed */
    qsi_model_runner runner;
    qsi_engine *engine;
    qsi_seq seq;
    qsi_sampler *sampler;
    qsi_rng rng;
    atomic_int cancel;
    qsi_str text;                      /* of the last generation */
    qsi_str report;                    /* of the last evaluation of a text */
    qsi_api_turn *turns;
    size_t n_turns, cap_turns;
    qsi_str *tools;                    /* a JSON object each */
    size_t n_tools;
};

/* Copies an option struct that may be of another version: fields beyond o->size keep what *full had
 * before. full_size = sizeof *full. NULL leaves everything. */
void qsi_api_opts(void *full, size_t full_size, const void *o);

/* QS_KV_* as the type of cache elements; QS_E_ARG for others. */
qs_status qsi_api_kv_type(int32_t public_type, qsi_type *out, qs_err *err) QS_MUST_CHECK;
/* The pool of a model; with numa its workers are bound, and one node is worth a note. */
qs_status qsi_api_pool(qsi_pool **pool, int32_t threads, bool numa, qs_err *err) QS_MUST_CHECK;
/* Appends the path of a model's repacked copy; nothing, with a note, when the model is a folder, and
 * nothing without a folder for copies. */
qs_status qsi_api_packed_path(qsi_str *out, const char *folder, const char *model, bool exact,
                              qs_err *err) QS_MUST_CHECK;
/* Says once that the model's template was guessed, when it is used. */
void qsi_api_tell_template(qs_model *m);
/* Generates after the session's sequence was set to the prompt (n_cached of it in the cache). With
 * `answer` (may be NULL) the text goes there instead of to on_text. */
qs_status qsi_api_generate(qs_session *s, const qs_gen_opts *o, bool strip_space,
                           qsi_answer *answer, size_t n_cached, qs_gen_stats *stats,
                           int64_t *exact_ids, qs_err *err) QS_MUST_CHECK;
/* Appends a turn; text and ids are copied. */
qs_status qsi_api_add_turn(qs_session *s, qs_role role, const char *text, size_t n,
                           const int32_t *ids, size_t n_ids, qs_err *err) QS_MUST_CHECK;
void qsi_api_drop_turns(qs_session *s, size_t from);
/* Gives a turn one more call. */
qs_status qsi_api_add_call(qsi_api_turn *t, const char *name, size_t n_name, const char *args,
                           size_t n_args, qs_err *err) QS_MUST_CHECK;
/* Of evaluations: whether a report can be written to path, asked before hours of work for it; writes
 * one; appends as JSON what of a session decides the results (a fingerprint of the model as it was
 * opened, and the context). */
qs_status qsi_api_check_output(const char *path, qs_err *err) QS_MUST_CHECK;
qs_status qsi_api_write_report(const char *path, const qsi_str *json, qs_err *err) QS_MUST_CHECK;
qs_status qsi_api_describe(qs_session *s, qsi_str *out, qs_err *err) QS_MUST_CHECK;
/* "system", "user", ...; the role of such a word, or -1. */
const char *qsi_api_role_name(qs_role role);
int qsi_api_role_of(const char *name);
/* The tools of a JSON array into *list (each a JSON object), the caller's. */
qs_status qsi_api_read_tools(const char *json, size_t n, qsi_str **list, size_t *n_list,
                             qs_err *err) QS_MUST_CHECK;
void qsi_api_drop_tools(qs_session *s);
/* Appends the turns of a saved conversation. Its ids are used when it names this vocabulary. `into`
 * needs no model. */
qs_status qsi_api_parse_chat(qs_session *into, const char *text, size_t n, const char *vocab_hash,
                             int32_t n_vocab, qs_err *err) QS_MUST_CHECK;

#endif
