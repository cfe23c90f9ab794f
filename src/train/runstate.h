/* Checkpoints of a run: what is in them, which are kept, which one a resumed run takes.
 *
 * DIR/checkpoints/step-00000120.ckpt (fmt/ckpt.h) holds "state" (below), "identity" (the settings
 * that decide the weights), "layout" (JSON: how the writing processes had cut the model; the tensors
 * themselves are whole), and for every parameter p: "master/p", "adam_m/p", "adam_v/p".
 * DIR/checkpoints/MANIFEST lists them, oldest first: `step bytes hash mark` a line. It is written
 * after the checkpoint it adds and before the ones it drops are removed; when it is missing or
 * damaged, the folder is read instead. A checkpoint that fails its checks is passed over for the
 * one before it, and a warning says so.
 *
 * Random numbers of a run are streams drawn from (seed, purpose, epoch), so that seed and cursor
 * are all the random state there is. Thread: owner. */
#ifndef QSI_TRAIN_RUNSTATE_H
#define QSI_TRAIN_RUNSTATE_H

#include "train/dataset.h"
#include "train/optim.h"

typedef struct qsi_run_state {
    int64_t step, tokens;      /* done */
    uint64_t seed;
    qsi_cursor_pos pos;
    uint64_t vocab_hash, data_key;
    double elapsed;            /* seconds of work, for runs by the hour */
    int64_t length_kind;       /* of the plan that was followed: 0 steps, 1 tokens, 2 hours */
    double length;
    bool decaying;             /* the last stages have begun */
} qsi_run_state;

typedef enum qsi_ckpt_mark { QSI_MARK_LAST = 0, QSI_MARK_STAGE = 1 } qsi_ckpt_mark;

/* Writes a checkpoint, then the manifest, then removes all but the last `keep` (and the last one
 * marked STAGE: the end of the constant stage, from which a run can be lengthened). */
qs_status qsi_run_save(const char *dir, const qsi_run_state *s, const char *identity,
                       const qsi_net *net, const qsi_optim *opt, qsi_ckpt_mark mark, int64_t keep,
                       qs_err *err) QS_MUST_CHECK;

/* Loads the newest sound checkpoint. *found false: there is none (and nothing was wrong).
 * before_decay: only those of the constant stage. The identity text is appended to *identity.
 * Nothing but s and identity is written when net is NULL. All damaged: QS_E_CORRUPT. */
qs_status qsi_run_load(const char *dir, bool before_decay, qsi_run_state *s, qsi_str *identity,
                       const qsi_net *net, qsi_optim *opt, bool *found, qs_err *err) QS_MUST_CHECK;

#endif
