/* What a model will need and how fast it will be here, before it is loaded: its header says the bytes;
 * the speed is measured on a model of the same shapes and types with few layers and made-up weights.
 * Thread: owner of the pool. */
#ifndef QSI_MEASURE_FORECAST_H
#define QSI_MEASURE_FORECAST_H

#include "base/status.h"
#include "fmt/gguf.h"
#include "measure/bench.h"
#include "model/model.h"

typedef struct qsi_forecast_opts {
    int64_t n_ctx;          /* 0: the model's */
    qsi_type kv_type;
    uint64_t memory_bytes;  /* to plan with, as in qsi_model_opts; 0: what is available */
    const char *tmp;        /* folder for the small model; nothing stays there */
    int (*progress)(void *user, const char *what); /* may be NULL; non-zero cancels */
    void *user;
} qsi_forecast_opts;

typedef struct qsi_forecast {
    int64_t n_ctx;
    uint64_t weight_bytes, cache_bytes, scratch_bytes; /* cache: of n_ctx positions */
    uint64_t available;     /* bytes this process may use, at most those to plan with */
    bool fits;              /* all of it in memory */
    /* Weights do not fit in `available` and some come from disk (qsi_model_opts.memory_bytes): the
     * disk's rate, measured; what a generated token reads, experts used evenly; what does not stay in
     * memory. The speeds are then those from disk. */
    bool from_disk;
    double disk_gb_s, disk_token_bytes, disk_prompt_bytes, disk_away_bytes; /* prompt: of 512 */
    double prefill_tok_s;   /* a prompt of 512; 0, as the other two: not tried for want of memory */
    double decode_tok_s, deep_tok_s; /* at the beginning; with the context full */
    qsi_limits limits;
} qsi_forecast;

qs_status qsi_forecast_make(const qsi_forecast_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                            qsi_forecast *out, qs_err *err) QS_MUST_CHECK;
/* Bytes the cache keeps of a position. */
double qsi_forecast_cache_bytes(const qsi_config *c, qsi_type kv_type);
/* Positions whose cache fits beside weights and scratch; whole pages, 0 when not one does. */
int64_t qsi_forecast_ctx(const qsi_forecast *f, const qsi_config *c, qsi_type kv_type);

#endif
