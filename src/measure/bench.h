/* Speed against the machine's limits: how operations and bytes are counted, and the tests. The
 * counting is that of docs: a prefill token does 2 operations a weight of the layers (head: only rows
 * whose logits are asked for) and 4 * heads * head_dim for each earlier position; a decode step
 * touches every weight byte once and the cache; training does 6 a weight and 12 * heads * head_dim
 * times half the positions. Thread: owner of the pool. */
#ifndef QSI_MEASURE_BENCH_H
#define QSI_MEASURE_BENCH_H

#include "base/status.h"
#include "fmt/gguf.h"
#include "model/model.h"
#include "op/probe.h"
#include "sys/pool.h"

typedef struct qsi_bench_opts {
    int32_t prompt, gen, depth, batch, train, repeats; /* as in the public header */
    int (*progress)(void *user, const char *what);     /* may be NULL; non-zero cancels */
    void *user;
    uint64_t memory_bytes;                             /* as in qsi_model_opts */
    bool mlock;
    double probe_s;                                    /* of measuring memory around repeats; 0: not */
    qsi_type kv_type;                                  /* of the cache */
    bool exact;                                        /* as in qsi_model_opts, these two */
    const char *packed_path;
} qsi_bench_opts;

/* The two times that a step of decode takes at least, in seconds: its bytes at the rate of memory, its
 * multiply-adds at their peaks. They can go on at once, so the longer one is the limit. */
typedef struct qsi_decode_times {
    double bytes_s, ops_s;
} qsi_decode_times;

/* Of a run whose weights come from disk (memory_bytes). */
typedef struct qsi_bench_disk {
    bool on;
    double rate_gb_s, read_gb_s;     /* the disk's sequential rate around it, and what it read */
    double token_bytes, away_bytes;  /* read a token; weights in the file that are not in memory */
    double wasted_bytes;             /* of the bytes of a token, in vain; read_gb_s has no part of it */
    double wait, busy;               /* share of the time that steps waited for the disk; that
                                        something was being read or packed */
    double hits, fixed_hits;         /* share of experts found in the cache; by the best fixed choice */
    double foreseen, guess_hits;     /* share of experts not there, but guessed in time; share of the
                                        guesses that were right */
    double cached;                   /* share of all experts that the cache holds; 0: no experts */
} qsi_bench_disk;

typedef struct qsi_bench_run {
    const char *test; /* "prefill", "decode", "train" */
    int32_t n, depth, batch;
    double tok_s, best_tok_s, limit_tok_s, share;
    double read_gb_s, drift; /* what memory gave just around it, and how much that moved; 0: not
                                measured there */
    qsi_decode_times allowed; /* of a step of decode, on average; 0 of other tests */
    qsi_bench_disk disk;
} qsi_bench_run;

#define QSI_BENCH_RUNS 4
typedef struct qsi_bench_report {
    char model_name[128], model_arch[32]; /* "" without a model */
    int64_t n_params, n_active, weight_bytes;
    int32_t n_runs;
    qsi_bench_run runs[QSI_BENCH_RUNS];
} qsi_bench_report;

/* One kernel at one level. k > 0: a product of m x k by k x n; else n values. */
typedef struct qsi_bench_kernel {
    const char *kernel, *isa, *unit; /* static */
    int64_t m, n, k;
    double value, share;             /* share of this thread's peak; 0: not compared */
} qsi_bench_kernel;
typedef void qsi_bench_kernel_fn(void *user, const qsi_bench_kernel *row);

/* What one token costs in a given file. */
typedef struct qsi_cost {
    /* operations a token, by the peak they are bound by; layers and head apart */
    double layer_ops[3], head_ops[3];  /* QSI_PEAK_* */
    double shared_bytes;               /* weights every step touches, head included */
    double expert_bytes;               /* all routed experts */
    double experts, experts_used;
    double attn_ops, attn_decode_ops;  /* for each position looked at */
    bool attn_bf16;                    /* taken in bfloat16, where the CPU has it (model.h) */
    double cache_bytes;                /* for each position looked at */
    /* sparse attention: positions looked at are so many at most (0: no such bound); beyond that many an
     * indexer scores each one */
    double attn_most, index_ops, index_bytes;
    int64_t weight_bytes;
} qsi_cost;
enum { QSI_PEAK_FP32, QSI_PEAK_BF16, QSI_PEAK_INT8 };

/* g may be NULL: the shape alone, bf16 weights. cache: bytes an element. */
void qsi_cost_of(qsi_cost *out, const qsi_config *c, const qsi_gguf *g, double cache);
/* The same when quantised weights meet float activations: their operations are float ones. */
void qsi_cost_exact(qsi_cost *c);
/* Share of all experts that `batch` tokens touch, each choosing evenly at random; 0: no experts. */
double qsi_cost_touched(const qsi_cost *c, double batch);
/* Seconds that the limits leave for n prompt tokens of one sequence after `depth` positions, logits
 * of the last only; for one decode step of `batch` sequences at `depth`; for a training token in
 * documents of n_pos positions. */
double qsi_limit_prefill(const qsi_cost *c, const qsi_limits *l, int64_t n, int64_t depth);
double qsi_limit_decode(const qsi_cost *c, const qsi_limits *l, int64_t batch, int64_t depth);
qsi_decode_times qsi_decode_times_of(const qsi_cost *c, const qsi_limits *l, int64_t batch,
                                     int64_t depth);
double qsi_limit_train(const qsi_cost *c, const qsi_limits *l, int64_t n_pos);

/* Fills runs of the model (g NULL: none) and of training, with speeds; limits come later by
 * qsi_bench_limits. */
qs_status qsi_bench_tests(const qsi_bench_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                          qsi_bench_report *out, qs_err *err) QS_MUST_CHECK;
/* Limits and shares of the runs from the machine's limits; where a run has a rate of memory of its
 * own, that counts. Of o only kv_type and exact are read. */
qs_status qsi_bench_limits(const qsi_bench_opts *o, const qsi_gguf *g, const qsi_limits *l,
                           qsi_bench_report *out, qs_err *err) QS_MUST_CHECK;
/* Every kernel at every level up to isa, on the calling thread. */
qs_status qsi_bench_kernels(const qsi_bench_opts *o, qsi_isa isa, qsi_bench_kernel_fn *fn,
                            void *user, qs_err *err) QS_MUST_CHECK;

/* Median of n values, which it sorts. */
double qsi_median(double *x, int n);

#endif
