/* Qiusuo: trains, runs and serves DeepSeek-family language models. The stable public API.
 *
 *     qs_model *m; qs_session *s; qs_gen_opts o; qs_gen_stats st; qs_err err;
 *     if (qs_model_open(&m, "model.gguf", NULL, &err) != QS_OK) ...err.text...
 *     qs_session_create(&s, m, NULL, &err);
 *     qs_gen_opts_init(&o, sizeof o, m);          the model's own sampling settings
 *     o.on_text = print_piece;
 *     qs_chat_add(s, QS_USER, "Hello!", 6, &err);
 *     qs_chat_answer(s, &o, &st, &err);
 *
 * Ownership: every pointer parameter is borrowed for the call unless its function says otherwise;
 * what a function returns through `**` is the caller's and goes back by the matching close or free,
 * which accept NULL. Text is UTF-8 with a length; what the library returns is also NUL-terminated.
 * Option structs: fill them by their init function with sizeof, so that a program built against an
 * older header keeps working; then set single fields.
 * Threads: a model and its sessions have one owner thread at a time; qs_session_cancel may be called
 * from any thread and from signal handlers. The library prints nothing and never ends the program. */
#ifndef QIUSUO_QIUSUO_H
#define QIUSUO_QIUSUO_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"
#include "qiusuo/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the library ------------------------------------------------------------------------------ */

/* "0.1.0" */
QS_API const char *qs_version(void);

/* Offset of the first byte that is not well-formed UTF-8, or -1 when all n bytes are. Thread: any.
 * */
QS_API int64_t qs_utf8_check(const char *text, size_t n);

/* Notes (level 0) and warnings (1) for people. Without a sink there are none. Not for use while
 * another thread is inside the library. */
typedef void qs_log_fn(void *user, int level, const char *text);
QS_API void qs_log_set(qs_log_fn *fn, void *user);

/* A mapped file that becomes shorter while it is in use, or whose disk fails, raises SIGBUS, which
 * ends a process that does not catch it. After this call the library does, for mappings of its own
 * (models, repacked copies, shards): what cannot be read counts as zeros, and the call that used the
 * file (qs_generate, qs_chat_answer, ...) fails with QS_E_IO and the file's name; that model can only
 * be closed. Faults of other mappings go to the handler that was there before.
 * When: once, early, before the program installs a SIGBUS handler of its own (which would replace this
 * one) and before it opens files that others may change; files that are open already are covered too.
 * Further calls do nothing; it cannot be undone. Threads: any; the handler is the process's, and works
 * in whichever thread meets the fault, without locks or allocation. A library that is loaded into a
 * program leaves the call to that program. QS_E_IO: the system refused the handler. */
QS_API qs_status qs_catch_file_faults(qs_err *err) QS_MUST_CHECK;
/* QS_E_IO, naming a file, when any failed that way since, closed ones included; for a program to ask
 * before it believes a result. Thread: any. */
QS_API qs_status qs_files_intact(qs_err *err) QS_MUST_CHECK;

/* The default model that belongs to the running program, found from the program's own real path: in
 * the source tree it was built in, or under its prefix. Writes a NUL-terminated path into `path` of
 * `cap` bytes. QS_E_NOTFOUND when there is none. Thread: any. */
QS_API qs_status qs_default_model(char *path, size_t cap, qs_err *err) QS_MUST_CHECK;

/* ---- models ----------------------------------------------------------------------------------- */

typedef struct qs_model qs_model;
/* Type of the cache of keys and values. Bytes an element: F16 and BF16 2, F32 4, Q8_0 1.0625,
 * Q4_0 0.5625 (V3.2's indexer keys: as in Q8_0). */
enum { QS_KV_F16 = 0, QS_KV_F32 = 1, QS_KV_Q8_0 = 2, QS_KV_BF16 = 3, QS_KV_Q4_0 = 4 };

typedef struct qs_model_opts {
    size_t size;             /* set by init */
    int32_t threads;         /* 0: the physical cores this process may use */
    int32_t max_rows;        /* rows of a prefill chunk; 0: a default. Results do not depend on it */
    const char *isa;         /* cap of the kernels' level: "ref", "avx2", ...; NULL: the highest */
    int32_t vocab_only;      /* non-zero: only the vocabulary is loaded; also works for a file
                                without weights, which otherwise is QS_E_UNSUPPORTED */
    /* Called with bytes done and of all, by the calling thread, after every tensor that was
     * prepared, if not NULL; a return other than 0 cancels. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
    int32_t numa;            /* non-zero: threads are bound to NUMA nodes and weights lie near those
                                who use them; the calling thread is bound until the model is closed.
                                A machine with one node says so in a note */
    int32_t mlock;           /* non-zero: what the process has in memory stays there (mlockall).
                                QS_E_LIMIT when the system does not allow it */
    uint64_t memory_bytes;   /* what the process may have in memory, cache and buffers included:
                                weights beyond it are read from disk as they are needed.
                                QS_E_LIMIT: too little for that. 0: all in memory */
    int64_t n_ctx;           /* tokens that sessions will be as long as; 0: the trained context, and
                                with memory_bytes room for up to 4096 of them */
    /* Rotary positions beyond the trained context: "none", "linear", "dynamic" (NTK) or "yarn" by
     * rope_factor, or where that is 0 by n_ctx to the trained context. "auto" or NULL: as the file
     * says, and where n_ctx is more than was trained on, YaRN (or what the file declares, further),
     * with a note in the log. QS_E_ARG, QS_E_RANGE: a word or a number that makes no sense */
    const char *rope_scaling;
    double rope_factor;
    int32_t exact;           /* non-zero: quantised weights meet float activations. Slower: by
                                default activations are rounded to 8 bits for them, one scale for
                                at most 256 values. F32, F16 and BF16 weights are not concerned */
    const char *chat_template; /* its name, instead of the file's; NULL: the file's. An unknown one
                                fails with the first answer, and lists the known */
    /* A folder (made when missing) that keeps a copy of the weights as the kernels want them, about
     * as large as the file: written by the first opening, mapped by later ones, which then prepare
     * nothing. A copy that does not fit (the model's file changed, another CPU, a newer program) or
     * is damaged is written anew; what prevents one is a note in the log, no error. NULL: none */
    const char *repack_cache;
    int32_t kv_type;         /* QS_KV_*, of the cache of a session of n_ctx tokens: with memory_bytes
                                weights give way to it. QS_E_LIMIT: they cannot; what fits is said */
    int32_t mtp;             /* non-zero: the layer with which DeepSeek-V3's files predict a further
                                token is loaded, and sessions draft with it: the same answers, in
                                fewer steps. A note in the log where the file has none, or where
                                memory_bytes is given */
} qs_model_opts;
QS_API void qs_model_opts_init(qs_model_opts *o, size_t size);

/* Opens a GGUF file or a Hugging Face folder. o may be NULL. Errors name the file, the tensor or
 * key, and the reason. */
QS_API qs_status qs_model_open(qs_model **m, const char *path, const qs_model_opts *o, qs_err *err)
    QS_MUST_CHECK;
/* Sessions of the model must be gone. Nulls *m. */
QS_API void qs_model_close(qs_model **m);

QS_API const char *qs_model_path(const qs_model *m);
QS_API const char *qs_model_name(const qs_model *m);  /* general.name, or the file's name */
QS_API const char *qs_model_arch(const qs_model *m);  /* "llama", "deepseek"; "" when unknown */
QS_API const char *qs_model_isa(const qs_model *m);   /* level of the kernels in use */
QS_API int32_t qs_model_threads(const qs_model *m);
QS_API int64_t qs_model_n_ctx(const qs_model *m);     /* trained context, or what it was
                                                         scaled to; 0 when unknown */
QS_API int32_t qs_model_n_vocab(const qs_model *m);
QS_API int64_t qs_model_n_params(const qs_model *m);  /* 0 for a vocabulary */
/* What the model says it can do (qiusuo.tasks: "poem", ...): i-th word, NULL after the last. */
QS_API const char *qs_model_task(const qs_model *m, int32_t i);
/* The chat template in use, NULL when there is none. */
QS_API const char *qs_model_template(const qs_model *m);
/* Its tokenizer: borrowed, lives as long as m (not to be closed). */
QS_API const qs_tokenizer *qs_model_tokenizer(const qs_model *m);

/* ---- sessions: one sequence of ids and its cache ---------------------------------------------- */

typedef struct qs_session qs_session;

typedef struct qs_session_opts {
    size_t size;       /* set by init */
    int64_t n_ctx;     /* positions; 0: the model's context, or with memory_bytes what there is room
                          for (the log says so). Its memory is taken page by page */
    int32_t kv_type;   /* QS_KV_* */
} qs_session_opts;
QS_API void qs_session_opts_init(qs_session_opts *o, size_t size);

/* o may be NULL. The model is borrowed until qs_session_free. */
QS_API qs_status qs_session_create(qs_session **s, qs_model *m, const qs_session_opts *o,
                                   qs_err *err) QS_MUST_CHECK;
QS_API void qs_session_free(qs_session *s);
QS_API int64_t qs_session_n_ctx(const qs_session *s);
/* Ids the session holds now, and the i-th of them. */
QS_API int64_t qs_session_n_ids(const qs_session *s);
QS_API int32_t qs_session_id(const qs_session *s, int64_t i);
/* Ends the running call at its next step (prefill too); a generation then returns QS_OK with finish
 * QS_FINISH_CANCELLED. The flag is cleared when a call begins. Any thread, signal handlers. */
QS_API void qs_session_cancel(qs_session *s);
/* Starts the session's random numbers anew. Without it, or a seed in qs_gen_opts, they start from a
 * number nobody knows. */
QS_API void qs_session_seed(qs_session *s, uint64_t seed);

/* ---- generation ------------------------------------------------------------------------------- */

typedef struct qs_bias {
    int32_t id;
    float bias;              /* added to the logit; -INFINITY forbids the id */
} qs_bias;

typedef struct qs_logprob {
    int32_t id;
    double logprob;
} qs_logprob;

/* A generated id with its text (bytes, perhaps part of a character). Valid during the call. */
typedef struct qs_token {
    int32_t id, n_top;
    double logprob;          /* of the model's own distribution, before bias, penalties and cuts */
    const qs_logprob *top;   /* the likeliest ids, best first */
    const char *text;
    size_t n_text;
} qs_token;

enum { QS_THINK_AUTO = 0, QS_THINK_ON = 1, QS_THINK_OFF = 2 };

/* What an answer is made of. */
typedef enum qs_part {
    QS_PART_REASONING,       /* a piece of it */
    QS_PART_TEXT,            /* a piece of it */
    QS_PART_CALL,            /* a function is called: its name, whole */
    QS_PART_ARGUMENTS        /* a piece of the JSON object that this call passes */
} qs_part;

typedef struct qs_gen_opts {
    size_t size;             /* set by init */
    double temp;             /* 0: always the likeliest id */
    double top_p, min_p;     /* 1 / 0: off */
    double repeat_penalty;   /* 1: off */
    double presence_penalty, frequency_penalty; /* 0: off */
    int32_t top_k;           /* 0: off */
    int32_t penalty_last_n;  /* window of the penalties; -1: everything */
    int64_t seed;            /* >= 0: the random numbers start anew; -1: they go on */
    int64_t n_predict;       /* most ids to generate; -1: until the model ends or the context is full */
    int32_t ignore_end;      /* non-zero: end tokens are never chosen */
    int32_t show_special;    /* non-zero: control tokens appear in the text */
    int32_t top_logprobs;    /* how many qs_token.top has */
    const char *const *stops; /* generation ends before any of these strings */
    size_t n_stops;
    const qs_bias *bias;
    size_t n_bias;
    /* Whole characters as they become certain; a return other than 0 ends the generation. Of an answer
     * (qs_chat_answer) only the text: no reasoning, no calls. */
    int (*on_text)(void *user, const char *text, size_t n);
    /* Every generated id. */
    int (*on_token)(void *user, const qs_token *t);
    void *user;
    int32_t think;           /* QS_THINK_*: an answer with reasoning, where the template has a choice;
                                without one, asking for what it does not do is QS_E_UNSUPPORTED */
    /* The parts of an answer as they come, its text among them. */
    int (*on_part)(void *user, qs_part part, const char *text, size_t n);
} qs_gen_opts;
/* The model's own settings (general.sampling.*), else temperature 0.7 and top-p 0.95. m may be NULL. */
QS_API void qs_gen_opts_init(qs_gen_opts *o, size_t size, const qs_model *m);

typedef enum qs_finish {
    QS_FINISH_END,           /* the model ended its answer */
    QS_FINISH_STOP,          /* a stop string */
    QS_FINISH_LENGTH,        /* n_predict ids */
    QS_FINISH_CONTEXT,       /* the context is full */
    QS_FINISH_CANCELLED,     /* qs_session_cancel */
    QS_FINISH_CALLBACK       /* a callback asked for the end */
} qs_finish;
/* "end", "stop", "length", "context", "cancelled", "callback" */
QS_API const char *qs_finish_text(qs_finish f);

typedef struct qs_gen_stats {
    int64_t n_prompt;        /* ids of the prompt */
    int64_t n_cached;        /* of these, already in the cache */
    int64_t n_generated;
    double prompt_s;         /* until the first logits */
    double gen_s;            /* from then on */
    qs_finish finish;
} qs_gen_stats;

/* How many ids the last generation drafted (qs_model_opts.mtp), and how many of them came (may be
 * NULL). */
QS_API int64_t qs_session_drafts(const qs_session *s, int64_t *came);

/* Continues text as it is. flags: QS_ENCODE_BOS, QS_ENCODE_SPECIAL. A beginning shared with what the
 * session holds is not computed again. stats may be NULL. A prompt that does not fit the context:
 * QS_E_LIMIT. */
QS_API qs_status qs_generate(qs_session *s, const char *text, size_t n, uint32_t flags,
                             const qs_gen_opts *o, qs_gen_stats *stats, qs_err *err) QS_MUST_CHECK;
/* Fills in what is missing between two texts (QS_E_UNSUPPORTED: the model's vocabulary has no tokens for
 * that). Nothing in the texts is taken for a token of that kind. */
QS_API qs_status qs_generate_fim(qs_session *s, const char *before, size_t n_before,
                                 const char *behind, size_t n_behind, const qs_gen_opts *o,
                                 qs_gen_stats *stats, qs_err *err) QS_MUST_CHECK;
QS_API qs_status qs_generate_ids(qs_session *s, const int32_t *ids, size_t n, const qs_gen_opts *o,
                                 qs_gen_stats *stats, qs_err *err) QS_MUST_CHECK;
/* Text of the last generation. Owned by the session, valid until its next call. */
QS_API const char *qs_session_text(const qs_session *s, size_t *n);

/* ---- conversations: turns kept by the session ------------------------------------------------- */

typedef enum qs_role {
    QS_SYSTEM,
    QS_USER,
    QS_ASSISTANT,
    QS_DEVELOPER,            /* a system text, but for a template that has a form of its own for it */
    QS_TOOL                  /* what a called function returned: one turn for each call, in order */
} qs_role;
typedef struct qs_turn {
    qs_role role;
    const char *text;        /* owned by the session, valid until the turns change */
    size_t n;
    const char *reasoning;   /* of an assistant's turn */
    size_t n_reasoning;
    int64_t n_calls;         /* functions that an assistant's turn calls */
} qs_turn;
/* A call. Owned by the session, valid until the turns change. */
typedef struct qs_call {
    const char *name, *arguments;
    size_t n_name, n_arguments;
    int32_t whole;           /* 0: arguments are no JSON object, or the call has no name */
} qs_call;

/* QS_E_UNSUPPORTED when there is no chat template of that name; the message lists those there are. */
QS_API qs_status qs_chat_template_check(const char *name, qs_err *err) QS_MUST_CHECK;
/* QS_E_UNSUPPORTED when no chat template is known for the model: the message says why and lists those
 * there are. Text can be continued all the same. */
QS_API qs_status qs_chat_check(const qs_model *m, qs_err *err) QS_MUST_CHECK;
/* The functions that may be called, from now on: a JSON array of {"name", "description",
 * "parameters"}, or of {"type": "function", "function": {...}} as OpenAI's clients send them. n 0:
 * none. A template that knows no tools gets them described in the system text. QS_E_FORMAT. */
QS_API qs_status qs_chat_tools(qs_session *s, const char *json, size_t n, qs_err *err) QS_MUST_CHECK;
/* Call i of turn `turn`; all zero when there is none. */
QS_API qs_call qs_chat_call(const qs_session *s, int64_t turn, int64_t i);

/* Adds a turn. A system turn only as the first. Text that is not UTF-8: QS_E_FORMAT. */
QS_API qs_status qs_chat_add(qs_session *s, qs_role role, const char *text, size_t n, qs_err *err)
    QS_MUST_CHECK;
/* Generates the assistant's answer to the turns so far and adds it, with the very ids that were
 * generated. The leading space that belongs to the template is not part of the text. When it fails,
 * or is cancelled before the first id, no turn is added. QS_E_UNSUPPORTED: no template is known.
 * QS_E_LIMIT: the conversation does not fit the context. */
QS_API qs_status qs_chat_answer(qs_session *s, const qs_gen_opts *o, qs_gen_stats *stats,
                                qs_err *err) QS_MUST_CHECK;
QS_API int64_t qs_chat_n_turns(const qs_session *s);
QS_API qs_turn qs_chat_turn(const qs_session *s, int64_t i);
/* Keeps the first n turns. The cache of what is kept stays. */
QS_API void qs_chat_truncate(qs_session *s, int64_t n);
/* Sets, replaces or (n 0) removes the system turn. */
QS_API qs_status qs_chat_system(qs_session *s, const char *text, size_t n, qs_err *err)
    QS_MUST_CHECK;
/* A conversation as JSON: roles, texts, reasoning and calls, and the generated ids with the hash of
 * their vocabulary.
 * Saving replaces the file as a whole or not at all. Loading replaces the session's turns; on failure
 * they stay. Another vocabulary's ids are dropped, their texts are kept. */
QS_API qs_status qs_chat_save(const qs_session *s, const char *path, qs_err *err) QS_MUST_CHECK;
QS_API qs_status qs_chat_load(qs_session *s, const char *path, qs_err *err) QS_MUST_CHECK;

/* ---- scoring ---------------------------------------------------------------------------------- */

typedef struct qs_score_pos {
    int64_t pos;
    int32_t id, n_top;
    double logprob;          /* of id given those before it; NAN at position 0 */
    const qs_logprob *top;   /* the likeliest ids for position pos + 1, best first */
} qs_score_pos;
/* Log-probabilities of ids, position by position, from an empty cache; the session's own sequence
 * stays as it is. top: how many of the likeliest. fn: a return other than 0 ends the call with
 * QS_E_CANCELLED. Nothing is masked. */
typedef int qs_score_fn(void *user, const qs_score_pos *p);
QS_API qs_status qs_score(qs_session *s, const int32_t *ids, size_t n, int32_t top, qs_score_fn *fn,
                          void *user, qs_err *err) QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
