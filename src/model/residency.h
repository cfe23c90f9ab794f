/* Out of core: running a model whose weights are larger than the memory they may take.
 *
 * Design. Every weight that stands in the file is registered while the model is bound (qsi_res_add),
 * none is loaded. Then a plan is made (qsi_res_start), once, for good:
 *   - Weights that every token meets (attention, dense and shared FFN, head) are either resident, or
 *     streamed: read anew in each step, in the order of use, spread evenly over the layers. A crew of
 *     threads reads them past the page cache and packs them into a ring of memory, ahead of the step
 *     and across its end, as far as the ring is free: the plan alone decides what is read, so a step
 *     reads each streamed weight once and nothing twice. Weights of an attention, of an FFN, and the
 *     head are groups: a step enters a group (waits until it is there), computes, and leaves it.
 *   - Experts live in a cache of slots of one size. After the router, the missing ones are read in
 *     parallel, in the place of those least likely to be used: the probability that a row uses an
 *     expert is counted (with forgetting); among equals the one whose layer comes last is taken. A
 *     layer computes its experts in waves: first those that are here, then the others as they come.
 *     Experts of the next layer are read meanwhile: with many rows those that are all but certain to
 *     be used; with few rows those which its router chooses for the residual stream as it is now
 *     (foresee.c), as long as most such guesses have been right. They are read when nothing else is to
 *     be read, and when they were wrong they are dropped, or given away first. Slots that are free are
 *     filled when there is nothing to do at all.
 * Packing is deterministic and products do not know where their weights stand, so results are those
 * of a run in memory, bit for bit. A read that fails ends the step with its error, and the model.
 *
 * Thread: a step's functions are called by all workers of the pool, with equal arguments, and end in a
 * barrier; worker 0 does the waiting. Nothing is allocated after start. */
#ifndef QSI_MODEL_RESIDENCY_H
#define QSI_MODEL_RESIDENCY_H

#include "model/model.h"
#include "op/op.h"
#include "sys/crew.h"
#include "sys/direct.h"

typedef struct qsi_res_unit { /* a weight as it stands in the file */
    qsi_weight *w;
    uint64_t off;      /* of its first row in the file */
    size_t src_row;    /* bytes of a row there */
    int64_t n_out, panel_rows, panels;
    size_t bytes;      /* packed */
    int32_t group;     /* -1: of an expert */
    bool resident;
    char *mem;         /* where it is packed to; of experts NULL: not in the cache */
    int64_t next, left; /* panels: next to hand out; not packed yet */
    bool queued[2];     /* stands in that queue */
} qsi_res_unit;

typedef struct qsi_res_slot { /* of the expert cache */
    int32_t owner; /* layer * n_expert + expert, -1: free */
    uint64_t stamp; /* of the last use: qsi_res.turn */
    uint64_t due;   /* guessed to be used at that turn */
    bool guess;     /* being read, or read, for a guess; not used yet */
    float worth;
    char *mem;
} qsi_res_slot;

typedef struct qsi_res_ring { /* first in, first out; strictly fewer bytes than cap are taken */
    char *mem;
    size_t cap, head, tail;
} qsi_res_ring;

typedef struct qsi_res_queue { /* of units, each at most once */
    int32_t *unit; /* circular, [n_units + 1] */
    size_t head, tail;
} qsi_res_queue;
enum { QSI_RES_WANTED, QSI_RES_GUESSED, QSI_RES_QUEUES };

/* Steps of at most QSI_FORESEE_ROWS rows guess, for the next layer. */
enum { QSI_FORESEE_ROWS = 16 };
typedef struct qsi_res_foresee {
    bool *named;         /* [n_expert] missing, and guessed for the layer that comes */
    double right, tried; /* of those named, with forgetting */
    qsi_act x;    /* [rows, d] */
    float *z, *wt; /* [rows, E], [rows, K] */
    int32_t *idx; /* [rows, K] */
} qsi_res_foresee;

typedef struct qsi_res {
    const qsi_config *c;
    const qsi_gguf *g;
    qsi_direct file;
    qsi_crew *crew;
    qsi_res_unit *units;
    size_t n_units, cap_units;
    char *fixed; /* memory of resident units */
    void *block; /* what mem of ring, slots, buffers is cut from */
    char *buf[8]; /* of the crew's threads */
    int n_threads;
    size_t piece_max; /* bytes of the largest piece */
    /* streaming: positions count from the start of the run, stream[pos % n_stream] */
    int32_t *stream, *group_first; /* [n_stream], [n_groups + 1] */
    int64_t n_stream, n_groups, issued, used;
    int64_t handing; /* position being handed out; -1: none */
    qsi_res_ring ring;
    /* what is wanted at once (resident units at the start, then experts), and what is guessed */
    qsi_res_queue queue[2];
    /* experts */
    int32_t *expert_units; /* [n_layer, n_expert, 3] */
    int32_t *expert_slot;  /* [n_layer, n_expert], -1: absent */
    double *expert_rows;   /* [n_layer, n_expert] rows that used it, with forgetting */
    double *layer_rows;    /* [n_layer] */
    int64_t *expert_uses;  /* [n_layer, n_expert] since the statistics were reset */
    qsi_res_slot *slots;
    int64_t n_slots;
    size_t slot_bytes;
    bool filling;      /* all else is loaded */
    int64_t fill_slot; /* those before it have been filled */
    int32_t fill_expert; /* those before it have been looked at */
    uint64_t turn;
    int32_t *wave; /* [n_expert] rows of the experts that are computed now */
    bool *taken;   /* [n_expert] was in a wave of this layer */
    int32_t wave_left; /* experts of this layer that are not */
    bool first_wave;
    qsi_res_foresee foresee;
    qsi_arena ar; /* of foresee */
    /* results */
    uint64_t fixed_bytes, stream_file_bytes;
    uint64_t total_file_bytes, expert_file_bytes;
    _Atomic uint64_t moved;
    qsi_model_io io;
    int64_t flying, since; /* jobs of the crew under way, and since when there are any */
    bool stopped; /* what worker 0 saw of st; read by the others after its barrier */
    qs_status st; /* of a failed read, for good */
    qs_err err;
} qsi_res;

enum { QSI_RES_ATTENTION, QSI_RES_FFN, QSI_RES_PARTS };
static inline int32_t qsi_res_group(int32_t layer, int part) {
    return layer * QSI_RES_PARTS + part;
}
static inline int32_t qsi_res_head_group(const qsi_config *c) {
    return c->n_layer * QSI_RES_PARTS;
}

/* g (borrowed) must be a file; memory is not planned yet. */
qs_status qsi_res_create(qsi_res **r, const qsi_config *c, const qsi_gguf *g, qs_err *err)
    QS_MUST_CHECK;
/* Before the weights are freed. */
void qsi_res_free(qsi_res *r);
/* Whether data stands in the file, as opposed to something computed from it. */
bool qsi_res_holds(const qsi_res *r, const void *data);
/* A weight without memory whose rows begin at data, in the mapping. expert: layer * n_expert +
 * expert, and part 0 to 2; or -1 and the group. Groups come in ascending order. */
qs_status qsi_res_add(qsi_res *r, qsi_weight *w, const void *data, int32_t group, int32_t expert,
                      int part, qs_err *err) QS_MUST_CHECK;
/* Packed bytes of all that was added. */
uint64_t qsi_res_bytes(const qsi_res *r);
/* The least room that qsi_res_start takes. */
uint64_t qsi_res_least(qsi_res *r, int64_t rows);
/* Plans for `room` bytes, as qsi_res_start does, and no more: qsi_res_io then says what would stay. */
qs_status qsi_res_plan(qsi_res *r, uint64_t room, int64_t rows, qs_err *err) QS_MUST_CHECK;
/* Plans for `room` bytes and steps of at most `rows` rows, loads what is resident and begins to read
 * ahead. QS_E_LIMIT, with the least that is needed, when room is too small. */
qs_status qsi_res_start(qsi_res *r, uint64_t room, int64_t rows, const qsi_model_opts *o, qs_err *err)
    QS_MUST_CHECK;

/* ---- in a step ---- */
/* Waits for the group's weights; false: reading failed, the step ends. r NULL: true at once. */
bool qsi_res_enter(const qsi_worker *wk, qsi_res *r, int32_t group);
/* After the barrier that ended the group's last use. */
void qsi_res_leave(const qsi_worker *wk, qsi_res *r, int32_t group);
/* Begins the experts of a layer: those whose count of rows is not 0 are read where they are missing.
 * They stay until the next call. */
bool qsi_res_experts(const qsi_worker *wk, qsi_res *r, int32_t layer, const int32_t *count,
                     int64_t n_rows);
/* The next wave of that layer: now [E] has the rows of the experts that can be computed, left says how
 * many are missing still. The first wave does not wait. r NULL: all at once. */
bool qsi_res_wave(const qsi_worker *wk, qsi_res *r, int32_t layer, const int32_t *count,
                  const int32_t **now, int *left);
/* Worker 0: n experts of `layer`, which is the next one, will be asked for, presumably. */
void qsi_res_guess(qsi_res *r, int32_t layer, const int32_t *idx, int64_t n);
/* The error of a failed read, or QS_OK. Owner, outside a run. */
qs_status qsi_res_status(qsi_res *r, qs_err *err) QS_MUST_CHECK;
/* Counts a step; its error when reading failed in it. */
qs_status qsi_res_step_done(qsi_res *r, qs_err *err) QS_MUST_CHECK;
/* Waits until nothing more is to be read before the next step. */
void qsi_res_settle(qsi_res *r);
/* See qsi_model_disk_rate; r may be NULL. */
qs_status qsi_res_disk_rate(qsi_res *r, const qsi_gguf *g, uint64_t bytes, double *rate,
                            qs_err *err) QS_MUST_CHECK;
void qsi_res_io(qsi_res *r, qsi_model_io *out, bool reset);

/* ---- between its files ---- */
/* Queues the loading of a unit to mem; the crew's lock is held. */
void qsi_res_load(qsi_res *r, int32_t unit, char *mem, int queue);
/* Puts a unit that is being loaded into a queue as well. */
void qsi_res_enqueue(qsi_res *r, int32_t unit, int queue);
/* Begins to fill one more free slot; false: none is left. */
bool qsi_res_fill(qsi_res *r);
/* Cache of n_slots slots cut from mem. */
void qsi_res_slots_init(qsi_res *r, char *mem);

#endif
