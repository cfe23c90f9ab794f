/* Training data: text sources -> vocabulary -> token shard -> windows -> batches.
 *
 * A document is a sequence of its own with positions from 0; one longer than the context is cut
 * into windows of n_ctx inputs. Window (at, n) has the inputs ids[at, at+n) and the targets
 * ids[at+1, at+n]; so every id but a document's first is a target once an epoch. Windows without an
 * id to learn are left out. A batch packs whole windows, one after another, each under its own
 * sequence number: nothing is padded and nothing sees its neighbour.
 *
 * Order: a permutation of the windows for every epoch, drawn from (seed, epoch) alone. The cursor
 * (epoch, index) is therefore all the random state that a resumed run needs. Thread: owner. */
#ifndef QSI_TRAIN_DATASET_H
#define QSI_TRAIN_DATASET_H

#include "fmt/shard.h"
#include "sys/pool.h"
#include "tok/chat.h"
#include "train/source.h"

/* Called now and then with bytes (or merges) done and wanted; non-zero cancels. */
typedef int qsi_data_progress(void *user, const char *what, int64_t done, int64_t of);

/* Learns a byte-level BPE vocabulary of at most n_vocab ids from at most about sample_bytes of the
 * documents (chosen by their hash when there are more). Conversations are shown with the words that
 * DeepSeek's template puts around their turns, so that those become tokens. */
qs_status qsi_dataset_learn_vocab(const qsi_source_files *f, const qsi_source_opts *o,
                                  const char *pre, int64_t n_vocab, int64_t sample_bytes,
                                  qsi_data_progress *progress, void *user, qsi_vocab **out,
                                  qs_err *err) QS_MUST_CHECK;

/* Encodes all documents on the pool and writes them, in order, to a shard. tmpl: for conversations;
 * NULL: a conversation is an error. */
qs_status qsi_dataset_write_shard(const char *path, const qsi_source_files *f,
                                  const qsi_source_opts *o, const qsi_vocab *v,
                                  const qsi_chat_template *tmpl, qsi_pool *pool, uint64_t key,
                                  qsi_data_progress *progress, void *user, qs_err *err)
    QS_MUST_CHECK;

typedef struct qsi_window {
    int64_t at;
    int32_t n;         /* inputs */
    int32_t n_targets; /* of them with a target to learn, >= 1 */
    uint32_t source;
} qsi_window;

typedef struct qsi_windows {
    const qsi_shard *shard; /* borrowed */
    qsi_window *v;
    size_t n, cap;
    int64_t n_tokens, n_targets; /* sums over v */
} qsi_windows;
typedef enum qsi_part { QSI_PART_ALL, QSI_PART_TRAIN, QSI_PART_VALID } qsi_part;
/* Windows of one part of a shard: a document belongs to validation when its hash falls into the
 * lowest valid_share of all. With ten documents or more and a share above 0 the document of the
 * lowest hash always does. */
qs_status qsi_windows_init(qsi_windows *w, const qsi_shard *s, int32_t n_ctx, qsi_part part,
                           double valid_share, qs_err *err) QS_MUST_CHECK;
void qsi_windows_release(qsi_windows *w);

/* Where in the data a run stands. */
typedef struct qsi_cursor_pos {
    int64_t epoch, index;
} qsi_cursor_pos;

/* Deals windows out. weights: of sources, [n_weights], missing ones 1; a window of weight w stands
 * floor(w) times in an epoch and once more with probability w - floor(w). */
typedef struct qsi_dealer {
    const qsi_windows *w;
    uint64_t seed;
    const double *weights; /* borrowed */
    size_t n_weights;
    qsi_cursor_pos pos;
    uint32_t *order;       /* of epoch pos.epoch */
    size_t n_order, cap_order;
    int64_t order_epoch;   /* -1: none yet */
} qsi_dealer;
qs_status qsi_dealer_init(qsi_dealer *d, const qsi_windows *w, uint64_t seed,
                          const double *weights, size_t n_weights, qs_err *err) QS_MUST_CHECK;
void qsi_dealer_release(qsi_dealer *d);
/* The windows of the next step: as many as fit into batch_tokens (at least one), indices into w->v
 * appended to *out (owned by the caller, grown). Moves the cursor; an epoch's end inside a step is
 * crossed. */
typedef struct qsi_deal {
    uint32_t *v;
    size_t n, cap;
    int64_t n_tokens, n_targets;
} qsi_deal;
qs_status qsi_dealer_next(qsi_dealer *d, int64_t batch_tokens, qsi_deal *out, qs_err *err)
    QS_MUST_CHECK;

/* One micro-batch. */
typedef struct qsi_micro {
    int32_t cap, n_rows;
    int64_t n_targets;
    int32_t *ids, *seq, *pos, *targets; /* [cap] */
} qsi_micro;
qs_status qsi_micro_init(qsi_micro *m, int32_t max_rows, qs_err *err) QS_MUST_CHECK;
void qsi_micro_release(qsi_micro *m);
/* Packs windows picked by list[i] (NULL: i itself), from i = *next in steps of `stride` below n,
 * while they fit; moves *next. A window longer than the capacity is a programmer error. */
void qsi_micro_fill(qsi_micro *m, const qsi_windows *w, const uint32_t *list, size_t n,
                    size_t stride, size_t *next);

#endif
