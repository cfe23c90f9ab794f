/* What the commands that run a model share: options of model, session and sampling; opening. */
#ifndef QSA_GEN_ARGS_H
#define QSA_GEN_ARGS_H

#include "args.h"
#include "qiusuo/qiusuo.h"

typedef struct qsa_model_args {
    const char *model;        /* NULL: the default one */
    const char *isa, *kv;
    int64_t threads, ctx;     /* 0: the physical cores; the model's context */
    const char *chat_template; /* NULL: the file's */
    const char *rope_scaling; /* NULL: auto */
    double rope_factor;       /* 0: the context by the trained one */
    uint64_t memory;          /* 0: as much as the weights take */
    bool numa, mlock, exact;
    const char *repack_cache; /* NULL: none; "": the program's own */
    const char *spec;         /* how to draft; NULL: not */
} qsa_model_args;

typedef struct qsa_gen_args {
    double temp, top_p, min_p, repeat, presence, frequency;
    int64_t top_k, last_n, seed, n_predict;
    bool has_temp, has_top_p, has_min_p, has_repeat, has_presence, has_frequency, has_top_k,
        has_last_n;
    bool ignore_eos, special;
    const char *think;
    qsa_list stops, bias;
    /* decoded from the lists by qsa_gen_opts */
    char *stop_text[QSA_LIST_MAX];
    qs_bias bias_value[QSA_LIST_MAX];
} qsa_gen_args;
#define QSA_GEN_ARGS_INIT { .seed = -1, .n_predict = -1 }

/* The type of the cache, of those that qsa_kv_type knows. */
#define QSA_KV_TYPES "f16|bf16|f32|q8_0|q4_0"
#define QSA_KV_NAME(name, kv, text) QSA_OPT_CHOICE(0, name, QSA_KV_TYPES, &(kv), text)
/* With the names that llama.cpp gives to the types of keys and of values: here they are one. */
#define QSA_KV_OPT(kv)                                                                             \
    QSA_KV_NAME("cache-type", kv,                                                                  \
                "type of the cache (f16); bf16 is as large, q8_0 half, q4_0 a quarter"),           \
    QSA_KV_NAME("kv", kv, NULL), QSA_KV_NAME("cache-type-k", kv, NULL),                            \
    QSA_KV_NAME("cache-type-v", kv, NULL), QSA_KV_NAME("ctk", kv, NULL),                           \
    QSA_KV_NAME("ctv", kv, NULL)
#define QSA_ISA_HELP                                                                               \
    "cap the CPU level: ref, avx2, avxvnni, avx512, vnni, bf16, amx; ARM: neon, dotprod, i8mm"
/* How the machine is used: every command that opens a model has these. */
#define QSA_MACHINE_OPTS(threads, isa, numa, mlock, memory)                                        \
    QSA_OPT_INT('t', "threads", "N", &(threads), 0, 1024,                                          \
                "threads (0: the physical cores this process may use)"),                           \
    QSA_OPT_STR(0, "isa", "LEVEL", &(isa), QSA_ISA_HELP),                                          \
    QSA_OPT_FLAG(0, "numa", &(numa), "bind threads to NUMA nodes, weights near their threads"),    \
    QSA_OPT_FLAG(0, "mlock", &(mlock), "keep the model in memory; never let it be paged out"),     \
    QSA_OPT_SIZE(0, "memory", "SIZE", &(memory),                                                   \
                 "at most SIZE for the process (12G); weights beyond it are read from disk")
#define QSA_EXACT_OPT(exact)                                                                       \
    QSA_OPT_FLAG(0, "exact", &(exact), "no activations of 8 bits: slower, a little more precise")

#define QSA_REPACK_OPT(dir)                                                                        \
    QSA_OPT_BARE(0, "repack-cache", "DIR", &(dir), "",                                             \
                 "keep a copy of the weights as the CPU wants them, about as large as the file, in " \
                 "DIR (the program's cache folder): the next start maps it and repacks nothing")

#define QSA_MODEL_OPTS(a)                                                                          \
    QSA_OPT_STR('m', "model", "FILE", &(a).model, "the model (GGUF file or Hugging Face folder)"), \
    QSA_OPT_INT('c', "ctx-size", "N", &(a).ctx, 0, 16777216,                                       \
                "context in tokens (0: the model's)"),                                             \
    QSA_OPT_STR(0, "chat-template", "NAME", &(a).chat_template,                                    \
                "chat template by name (deepseek-v3.1, ...) instead of the file's"),               \
    QSA_OPT_CHOICE(0, "rope-scaling", "auto|none|linear|dynamic|yarn", &(a).rope_scaling,          \
                   "positions beyond the trained context (auto: YaRN where -c goes beyond)"),      \
    QSA_OPT_NUM(0, "rope-scale", "N", &(a).rope_factor, 1, 1e6,                                    \
                "factor of --rope-scaling (0: the context by the trained one)"),                   \
    QSA_MACHINE_OPTS((a).threads, (a).isa, (a).numa, (a).mlock, (a).memory),                       \
    QSA_EXACT_OPT((a).exact), QSA_REPACK_OPT((a).repack_cache),                                    \
    QSA_OPT_CHOICE(0, "spec", "none|mtp", &(a).spec,                                               \
                   "draft a further token with the layer that V3's files have for it: the same "   \
                   "answer, in fewer steps"),                                                      \
    QSA_KV_OPT((a).kv)

/* How many tokens are generated, with llama.cpp's other name. */
#define QSA_PREDICT_OPT(n, least, text)                                                            \
    QSA_OPT_INT('n', "predict", "N", &(n), least, INT64_MAX, text),                                \
    QSA_OPT_INT(0, "n-predict", "N", &(n), least, INT64_MAX, NULL)

#define QSA_GEN_NUM(n, val, a, field, from, to, text)                                              \
    { .name = (n), .value = (val), .help = (text), .kind = QSA_NUM, .out = &(a).field,             \
      .lo = (from), .hi = (to), .given = &(a).has_##field }
#define QSA_GEN_INT(n, val, a, field, from, to, text)                                              \
    { .name = (n), .value = (val), .help = (text), .kind = QSA_INT, .out = &(a).field,             \
      .min = (from), .max = (to), .given = &(a).has_##field }
#define QSA_GEN_OPTS(a)                                                                            \
    QSA_PREDICT_OPT((a).n_predict, -1, "at most N tokens an answer (-1: until it ends)"),          \
    QSA_GEN_NUM("temp", "T", a, temp, 0, 100, "temperature; 0 always takes the likeliest token"),  \
    QSA_GEN_INT("top-k", "K", a, top_k, 0, INT32_MAX, "only the K likeliest tokens (0: off)"),     \
    QSA_GEN_NUM("top-p", "P", a, top_p, 0, 1, "only the likeliest that sum to P (1: off)"),        \
    QSA_GEN_NUM("min-p", "P", a, min_p, 0, 1, "only those at least P times the best (0: off)"),    \
    QSA_GEN_NUM("repeat-penalty", "X", a, repeat, 1e-3, 1e3, "repetition penalty (1: off)"),       \
    QSA_GEN_NUM("presence-penalty", "X", a, presence, -100, 100, "presence penalty (0: off)"),     \
    QSA_GEN_NUM("frequency-penalty", "X", a, frequency, -100, 100, "frequency penalty (0: off)"),  \
    QSA_GEN_INT("repeat-last-n", "N", a, last_n, -1, INT32_MAX,                                    \
                "tokens the penalties look back (-1: all)"),                                       \
    { .letter = 's', .name = "seed", .value = "N", .help = "the same seed gives the same text",    \
      .kind = QSA_INT, .out = &(a).seed, .min = -1, .max = INT64_MAX },                            \
    QSA_OPT_LIST(0, "stop", "TEXT", &(a).stops,                                                    \
                 "end before TEXT (\\n, \\t, \\\\ are understood); may be repeated"),              \
    QSA_OPT_LIST(0, "logit-bias", "ID=X", &(a).bias,                                               \
                 "add X (-inf forbids) to the logit of token ID; may be repeated"),                \
    QSA_OPT_CHOICE(0, "think", "auto|on|off", &(a).think,                                          \
                   "reasoning before an answer, where the template has a choice"),                 \
    QSA_OPT_FLAG(0, "ignore-eos", &(a).ignore_eos, "never choose an end token"),                   \
    QSA_OPT_FLAG(0, "special", &(a).special, "show control tokens")

/* The options of a model, with a progress line (`user` is to be a qsa_progress). copies: where the name
 * of a folder may be kept. */
void qsa_model_opts(const qsa_model_args *a, qs_model_opts *mo, char *copies, size_t cap);
/* Opens model and session; on failure says why and returns the exit code, else QSA_GO. The model is
 * a->model, else the default one. Warnings and notes of the library go to qsa_say from then on. */
int qsa_open(const qsa_model_args *a, qs_model **m, qs_session **s);
/* The model's own settings, then what was given. Pointers into *a stay in *o. QSA_GO or exit code. */
int qsa_gen_opts(const qsa_cmd *cmd, qsa_gen_args *a, const qs_model *m, qs_gen_opts *o);
void qsa_gen_args_release(qsa_gen_args *a);

/* Folder of repacked copies that --repack-cache asks for, in buf where it is the program's own; NULL:
 * none. */
const char *qsa_repack_dir(const char *given, char *buf, size_t cap);
/* QS_KV_* of one of QSA_KV_TYPES; NULL: the default. */
int32_t qsa_kv_type(const char *name);
/* QS_THINK_* of auto, on, off; NULL: auto. */
int32_t qsa_think(const char *word);
/* The texts of --stop with \n, \t and \\ decoded, the caller's to free() each (NULL beyond the first
 * error). QSA_GO or exit code. */
int qsa_take_stops(const qsa_cmd *cmd, const qsa_list *stops, char **text);
/* The library's notes and warnings as messages of the program (a qs_log_fn). */
void qsa_log(void *user, int level, const char *text);
/* For commands that generate nothing: --spec is refused. QSA_GO or exit code. */
int qsa_no_drafts(const qsa_cmd *cmd, const qsa_model_args *a);
/* Takes the model off the positionals when -m did not name it. */
void qsa_take_model(qsa_model_args *a, qsa_pos *pos);

/* "; 3 of 5 drafts came", or nothing where nothing was drafted. */
const char *qsa_drafts(const qs_session *s, char *buf, size_t cap);
/* Why an answer ended early, for people; NULL when it did not. */
const char *qsa_finish_note(qs_finish f);
/* Ctrl-C ends the session's running call (a second one the program) until `on` is false. */
void qsa_cancel_on_interrupt(qs_session *s, bool on);

#endif
