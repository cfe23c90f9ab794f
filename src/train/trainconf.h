/* The configuration of a training run: one documented file (docs/training.md), presets, defaults.
 *
 * File: lines `key = value` under [section] lines; `#` starts a comment at the beginning of a line
 * or after a blank; a value may stand in double quotes (\" \\ \n \t inside). Lists are separated by
 * commas or given by repeating the key. Numbers may carry _ and end in k, M or G (powers of 1000).
 * An unknown section or key is an error that names the line and the nearest known key.
 * All strings lie in the configuration's arena. Thread: owner. */
#ifndef QSI_TRAIN_TRAINCONF_H
#define QSI_TRAIN_TRAINCONF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/str.h"

#define QSI_TRAINCONF_MAX_BYTES (1u << 20)
#define QSI_TRAINCONF_MAX_LIST 4096
#define QSI_AUTO (-1) /* numbers: choose from the preset, the text and the length of the run */

typedef struct qsi_strlist {
    const char **v;
    size_t n, cap;
} qsi_strlist;

typedef struct qsi_trainconf {
    qsi_arena arena;
    uint64_t given;            /* bit of every table row the file or a caller set */
    /* [run] */
    const char *out;           /* folder; NULL: chosen by the caller */
    int64_t seed;
    int64_t threads;           /* 0: all */
    /* [data] */
    qsi_strlist train, valid;
    qsi_strlist weights;       /* of train, in its order; missing ones are 1 */
    double valid_share;
    int64_t doc_bytes;         /* longer documents are cut */
    const char *split;         /* text files: "file" or "blank" */
    /* [tokenizer] */
    const char *vocab, *pre;
    int64_t vocab_size, sample_bytes;
    /* [model] */
    const char *preset, *arch, *init;
    int64_t n_ctx, n_layer, d_model, n_head, n_kv_head, head_dim, d_ff;
    int64_t n_dense, n_expert, n_expert_used, n_shared, d_expert;
    bool norm_topk;
    double expert_scale, rms_eps, rope_theta, init_std;
    const char *rope_scaling;  /* with init, for a longer context: auto (YaRN), none, linear, yarn */
    /* [train] */
    int64_t steps, tokens;
    double hours;
    int64_t batch_tokens, micro_tokens;
    const char *precision, *schedule, *stages, *balance_per;
    double lr, min_lr_ratio;
    int64_t warmup_steps;
    double beta1, beta2, eps, decay, clip, balance_alpha;
    /* [checkpoint] */
    int64_t ckpt_steps, keep;
    double ckpt_seconds;
    /* [valid] */
    int64_t valid_steps, valid_tokens;
    /* [sample] */
    qsi_strlist prompts;
    int64_t sample_steps, sample_tokens;
    double sample_temp;
    /* [output] */
    const char *type, *chat_template;
    /* [metadata] */
    qsi_strlist meta_keys, meta_values; /* of one length; values as written */
} qsi_trainconf;

/* Defaults; nothing given. */
void qsi_trainconf_init(qsi_trainconf *c);
void qsi_trainconf_release(qsi_trainconf *c);
/* Applies a file's text on top of c; `name` is used in messages. */
qs_status qsi_trainconf_parse(qsi_trainconf *c, const char *name, const char *text, size_t n,
                              qs_err *err) QS_MUST_CHECK;
/* Sets one key, "section.key"; a list is replaced. */
qs_status qsi_trainconf_set(qsi_trainconf *c, const char *key, const char *value, qs_err *err)
    QS_MUST_CHECK;
/* Whether "section.key" was given by a file or by set. */
bool qsi_trainconf_given(const qsi_trainconf *c, const char *key);
/* Fills what is still QSI_AUTO in [model] and [train] from the preset. text_bytes: of the training
 * text, for what shrinks with it. Unknown preset: QS_E_ARG with the list. */
qs_status qsi_trainconf_apply_preset(qsi_trainconf *c, int64_t text_bytes, qs_err *err)
    QS_MUST_CHECK;
/* The settings that decide the weights, one "section.key = value" a line in a fixed order: what a
 * resumed run must share with the one it continues. Length of the run, logging, checkpoints,
 * threads and output are left out. */
qs_status qsi_trainconf_identity(const qsi_trainconf *c, qsi_str *out) QS_MUST_CHECK;
/* Compares two such texts: true when equal, else *line (borrowed from `b`, not terminated) and
 * *n_line are the first line of `b` that differs, *other / *n_other its counterpart in `a`. */
bool qsi_trainconf_same(const char *a, const char *b, const char **line, size_t *n_line,
                        const char **other, size_t *n_other);
/* Number with _ and k, M, G; false when it is none. */
bool qsi_parse_number(const char *s, double *out);

#endif
