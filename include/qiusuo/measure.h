/* Measuring: speed against this machine's limits. Unstable until 1.0.
 *
 * A limit is what the machine was measured to do in the same run, right before and after: reading
 * memory, and multiply-adds of the types that the model's products use. `share` is speed by limit. */
#ifndef QIUSUO_MEASURE_H
#define QIUSUO_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qs_bench_opts {
    size_t size;         /* set by init */
    const char *model;   /* GGUF; NULL: no model, machine and training only */
    int32_t prompt;      /* positions of the prefill test; 0: not run. Default 512 */
    int32_t gen;         /* steps of the decode test; 0: not run. Default 64 */
    int32_t depth;       /* positions in the cache before either. Default 0 */
    int32_t batch;       /* sequences. Default 1 */
    int32_t threads;     /* 0: the physical cores this process may use */
    int32_t train;       /* rows of the training test; 0: not run. Default 2048 */
    int32_t repeats;     /* of each test, the median counts. Default 5 */
    const char *isa;     /* cap of the kernels' level; NULL: the highest */
    /* What is being done, for a progress line; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, const char *what);
    void *user;
    int32_t numa;          /* as in qs_model_opts, these three */
    int32_t mlock;
    uint64_t memory_bytes;
    int32_t kv_type;       /* QS_KV_* of qiusuo.h */
    int32_t exact;         /* as in qs_model_opts; the limit is then that of float arithmetic */
    const char *repack_cache; /* as in qs_model_opts */
} qs_bench_opts;
QS_API void qs_bench_opts_init(qs_bench_opts *o, size_t size);

typedef struct qs_bench_run {
    const char *test;    /* "prefill", "decode", "train"; static */
    int32_t n, depth, batch;
    double tok_s;        /* median of the repeats */
    double best_tok_s;
    double limit_tok_s;  /* what the limits allow */
    double share;        /* tok_s / limit_tok_s; above 1 where weights stay in the caches */
    double read_gb_s;    /* what memory gave while it ran, which its limit is made of; 0: as the
                            report's */
    double drift;        /* how much that moved around a repeat, relatively; repeats of more than
                            5 % are done again while tries last */
    /* With memory_bytes, when weights come from disk: the limit is the disk. Once unmeasured, then
     * once. 0 otherwise. */
    double disk_gb_s, disk_read_gb_s; /* the disk's sequential rate around the run; what it read */
    double disk_token_bytes;          /* read a token */
    double disk_away_bytes;           /* weights in the file that are not in memory */
    double cached, hits, fixed_hits;  /* experts: share in the cache, share of uses that found theirs
                                         there, and that with the best fixed choice (as many
                                         experts, those most used in this very run) */
    double foreseen, guess_hits;      /* share of uses that were not there but had been guessed and
                                         were being read; share of guesses that were right */
    double disk_wasted_bytes;         /* of a token's bytes, read for guesses that were wrong;
                                         disk_read_gb_s leaves them out */
    double disk_wait, disk_busy;      /* share of the time that steps waited for the disk; that
                                         something was being read or packed */
    /* Decode, of weights in memory: milliseconds that a step's bytes take at the rate of memory, and its
     * multiply-adds at their peaks. The longer one makes limit_tok_s. 0 otherwise. */
    double bytes_ms, ops_ms;
} qs_bench_run;

#define QS_BENCH_RUNS 4
typedef struct qs_bench_report {
    int32_t threads;
    const char *isa;           /* static */
    double read_gb_s, int8_gop_s, bf16_gflop_s, fp32_gflop_s; /* all threads together */
    double drift;              /* how much the limits before and after differed, relatively */
    char model_name[128];      /* "" without a model */
    char model_arch[32];
    int64_t n_params, n_active;
    int64_t weight_bytes;
    int32_t n_runs;
    qs_bench_run runs[QS_BENCH_RUNS];
} qs_bench_report;

/* Measures. When the limits before and after differ by more than 5 %, it is all done again, up to
 * three times; the report of least drift counts. Thread: any. */
QS_API qs_status qs_bench(const qs_bench_opts *o, qs_bench_report *out, qs_err *err) QS_MUST_CHECK;

/* Speed of the kernels on one thread, at every level the CPU has up to o->isa. */
typedef struct qs_bench_kernel {
    const char *kernel, *isa, *unit; /* unit "GFLOP/s", "GOP/s" or "GB/s"; static */
    int64_t m, n, k;                 /* shape of a product; else n values */
    double value;                    /* median of the repeats */
    double share;                    /* of this thread's peak of that kind; 0: not compared */
} qs_bench_kernel;
typedef void qs_bench_kernel_fn(void *user, const qs_bench_kernel *row);
QS_API qs_status qs_bench_kernels(const qs_bench_opts *o, qs_bench_kernel_fn *fn, void *user,
                                  qs_err *err) QS_MUST_CHECK;

/* ---- what will fit, and how fast it will be --------------------------------------------------- */

typedef struct qs_plan_opts {
    size_t size;            /* set by init */
    const char *model;      /* GGUF file or Hugging Face folder; its header is read */
    int64_t n_ctx;          /* 0: the model's context */
    int32_t kv_type;        /* QS_KV_* of qiusuo.h */
    int32_t threads;        /* 0: the physical cores this process may use */
    const char *isa;        /* cap of the kernels' level; NULL: the highest */
    uint64_t memory_bytes;  /* memory to plan with; 0: what is available */
    const char *tmp;        /* folder for a small model to measure with; NULL: "/tmp" */
    int (*progress)(void *user, const char *what); /* may be NULL; a return other than 0 cancels */
    void *user;
} qs_plan_opts;
QS_API void qs_plan_opts_init(qs_plan_opts *o, size_t size);

typedef struct qs_plan_cache {
    const char *type;       /* "f16"; static; NULL after the last */
    double pos_bytes;       /* of a position */
    int64_t n_ctx;          /* positions that fit memory beside weights and scratch */
} qs_plan_cache;

#define QS_PLAN_CACHES 8
typedef struct qs_plan_report {
    char model_name[128], model_arch[32];
    int64_t n_params, n_active;
    int64_t n_ctx, n_ctx_train;
    uint64_t weight_bytes, cache_bytes, scratch_bytes; /* cache: of n_ctx positions */
    uint64_t available_bytes;     /* what this process may use, or opts.memory_bytes if less */
    int32_t fits;                 /* non-zero: all of it at once */
    /* Non-zero: weights do not fit and would be read from disk (qs_model_opts.memory_bytes); the speeds
     * below are those. The disk's rate now; bytes that a generated token reads, experts used evenly;
     * bytes of weights that do not stay in memory. */
    int32_t from_disk;
    double disk_gb_s, disk_token_bytes, disk_away_bytes;
    qs_plan_cache caches[QS_PLAN_CACHES];
    int32_t threads;
    const char *isa;              /* static */
    double prefill_tok_s;         /* a prompt of 512; 0: not tried, as the next two, when there is too
                                     little memory for a few layers */
    double decode_tok_s, deep_tok_s; /* at the beginning; with the context full */
    double read_gb_s, int8_gop_s, bf16_gflop_s, fp32_gflop_s;
} qs_plan_report;
/* Measures for some seconds: the machine's limits, and layers of the model's shapes and types with
 * made-up weights. The model itself is not loaded. Thread: any. */
QS_API qs_status qs_plan(const qs_plan_opts *o, qs_plan_report *out, qs_err *err) QS_MUST_CHECK;

/* ---- the machine ------------------------------------------------------------------------------- */

/* One finding about this machine; texts are valid during the call. */
typedef struct qs_finding {
    const char *key;     /* "cpu", "huge pages", ...; static */
    int32_t ok;          /* 0: something could be better */
    const char *value;
    const char *advice;  /* a sentence on what would make it faster or possible; "" when ok */
} qs_finding;
typedef void qs_doctor_fn(void *user, const qs_finding *f);
/* Looks at CPU, cores, memory, pages, nodes, limits, sandbox and disk; measures nothing. cache: the
 * folder whose disk is looked at. Thread: any. */
QS_API void qs_doctor(const char *cache, qs_doctor_fn *fn, void *user);

/* ---- how well a model predicts a text ---------------------------------------------------------- */

struct qs_session; /* qiusuo.h */

typedef struct qs_eval_opts {
    size_t size;         /* set by init */
    int64_t ctx, stride; /* tokens of a window, and how far the next begins; 0: the context, at most
                            2048, and half of it. At least ctx - stride tokens stand before every
                            scored one, but at the beginning of the text */
    /* Tokens done and to be done by this call; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
    const char *output;  /* these two as in qs_eval_task_opts; the journal has a line for each window */
    int32_t resume;
} qs_eval_opts;
QS_API void qs_eval_opts_init(qs_eval_opts *o, size_t size);

typedef struct qs_estimate {
    double value, se;    /* and its standard error, tokens taken as independent; NaN: of one alone */
} qs_estimate;

typedef struct qs_eval_text_report {
    int64_t n_tokens, n_bytes; /* scored */
    int64_t ctx, stride;
    qs_estimate nll, ppl;      /* nats a token; perplexity */
    double bits_per_byte;
    /* With a base, 0 without: the base's figures; nll - base_nll, paired; KL(base || model) in nats
     * a token; share of tokens where both find the same one likeliest */
    qs_estimate base_nll, base_ppl, diff, kl;
    double kl_median, kl_p99, kl_max;
    qs_estimate agree;
    int64_t n_resumed;         /* tokens that the journal had */
    const char *json;          /* all of this as one JSON object, with the paths of the models; the
                                  session's, valid until its next evaluation of a text */
} qs_eval_text_report;
/* Text that is written control tokens counts as plain text. base: NULL, or a session of a model with
 * the same vocabulary (QS_E_ARG names the first token that differs). The sessions' own sequences stay
 * as they are. QS_E_NUMERIC: the model gave no number. Thread: their owner; qs_session_cancel on s ends
 * the call. */
QS_API qs_status qs_eval_text(struct qs_session *s, struct qs_session *base, const char *text,
                              size_t n, const qs_eval_opts *o, qs_eval_text_report *out,
                              qs_err *err) QS_MUST_CHECK;

/* ---- benchmarks -------------------------------------------------------------------------------- */

/* The name of the benchmark whose form a file (or a folder's first file) has: "mmlu", "ceval", "cmmlu",
 * "hellaswag", "arc", "piqa", "gsm8k", "humaneval"; static. Files whose names end in .csv, .json or
 * .jsonl are looked at, and folders; others are texts: NULL. QS_E_UNSUPPORTED: of no known form;
 * QS_E_NOTFOUND: there is no such file, or none of these in the folder. Thread: any. */
QS_API qs_status qs_eval_task_of(const char *path, const char **task, qs_err *err) QS_MUST_CHECK;

typedef struct qs_eval_task_opts {
    size_t size;             /* set by init */
    const char *task;        /* ask in the manner of this benchmark; NULL: as the files say */
    const char *const *paths; /* files, or folders of .csv, .json and .jsonl files: at least one */
    size_t n_paths;
    const char *labels;      /* PIQA's right choices, one a line; NULL: in the items, or in the file
                                X-labels.lst beside X.jsonl */
    const char *dev;         /* examples that stand before a question: a file, or a folder that has one
                                for each subject. NULL: none */
    int32_t shots;           /* how many, the first ones; -1: five, or fewer where dev has fewer */
    int64_t limit;           /* of each file the first so many items; 0: all */
    /* The report is written there as JSON. Beside it, in the file of that name and ".journal", stands a
     * line for each item that is done, on the disk a few seconds later. resume non-zero: what it has is
     * not done again, and the report is that of an unbroken run (QS_E_STATE: the journal is of another
     * model, of other files or options). Otherwise it must not exist. NULL: nothing is written */
    const char *output;
    int32_t resume;
    /* Items done and to be done by this call; a return other than 0 cancels. May be NULL. */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
    /* Of benchmarks whose answers are generated (gsm8k, humaneval), greedily: */
    int32_t chat;            /* QS_EVAL_CHAT_*: the prompt is a user's turn, or is continued */
    int32_t think;           /* QS_THINK_* of qiusuo.h, in a conversation */
    int64_t max_tokens;      /* of an answer; 0: 512, of humaneval 1024 */
    const char *const *stops; /* an answer ends before any of these; none: the benchmark's own, and in
                                a conversation none */
    size_t n_stops;
    /* Absolute path of a Python 3, which allows running the programs that the model writes for
     * humaneval: in a child process that can write nothing, start nothing and has no network, and may
     * read the system's files alone where the kernel has Landlock. QS_E_UNSUPPORTED where there is no
     * such sandbox. NULL: humaneval is QS_E_ARG */
    const char *python;
    double code_seconds;     /* that such a program may run; 0: 10 */
} qs_eval_task_opts;
enum { QS_EVAL_CHAT_AUTO = 0, /* where the model's file has a template, or one was chosen */
       QS_EVAL_CHAT_ON = 1, QS_EVAL_CHAT_OFF = 2 };
QS_API void qs_eval_task_opts_init(qs_eval_task_opts *o, size_t size);

#define QS_EVAL_SCORES 2
typedef struct qs_eval_part {
    const char *name;        /* the file's, without its ending and _test, _val, ... */
    int64_t n_items;
    int64_t n_cut;           /* prompts that lost their beginning: the context is too short for them */
    qs_estimate score[QS_EVAL_SCORES];
} qs_eval_part;
typedef struct qs_eval_task_report {
    const char *task;        /* static */
    int32_t shots, n_scores;
    const char *score[QS_EVAL_SCORES]; /* "acc", "acc_norm", "strict_match", "flexible_match",
                                          "pass@1"; static */
    qs_eval_part all;        /* of all items; its name is "" */
    const qs_eval_part *parts; /* of each file, in order */
    size_t n_parts;
    double parts_mean[QS_EVAL_SCORES]; /* of the files' scores */
    int64_t n_resumed;       /* items that the journal had */
    const char *json;        /* all of this as one JSON object */
} qs_eval_task_report;
/* Asks a model the items of benchmark files and scores what it finds likeliest, or writes; how, by
 * benchmark, says docs/evaluation.md. *out is the caller's (qs_eval_task_free). The session's own
 * sequence stays as it is. Errors name file and line; nothing is computed before all files were read.
 * Thread: the session's owner; qs_session_cancel ends the call with QS_E_CANCELLED. */
QS_API qs_status qs_eval_task(struct qs_session *s, const qs_eval_task_opts *o,
                              qs_eval_task_report **out, qs_err *err) QS_MUST_CHECK;
QS_API void qs_eval_task_free(qs_eval_task_report *r);

typedef struct qs_imatrix_report {
    qs_eval_text_report text;    /* how the model did on the text meanwhile */
    int64_t n_chunks;            /* windows it was read in, without overlap */
    int32_t n_tensors, n_matrices;
    int32_t n_experts, n_unseen; /* experts of all layers, and those that no token was sent to */
} qs_imatrix_report;
/* Importance matrix of a text: for every matrix of the model the mean square of what enters each of
 * its columns, per expert, written to the file `out` in llama.cpp's GGUF form (qs_convert_opts.imatrix
 * takes it). name: what to call the text in it. The log's notes list experts that no token was sent
 * to. o->ctx: tokens of a window (0: the session's, at most 512); o->stride and o->output are not
 * used. */
QS_API qs_status qs_imatrix(struct qs_session *s, const char *text, size_t n, const char *name,
                            const qs_eval_opts *o, const char *out, qs_imatrix_report *report,
                            qs_err *err) QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
