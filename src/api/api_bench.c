/* Measuring, for the public API: limits before, tests, limits after; again while they differ. */
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "files/open_model.h"
#include "measure/bench.h"
#include "qiusuo/measure.h"

#define DRIFT_MAX 0.05
#define TRIES 3
#define PROBE_S 0.06

_Static_assert(QS_BENCH_RUNS == QSI_BENCH_RUNS, "reports hold the same runs");

static const qs_bench_opts defaults = {.size = sizeof(qs_bench_opts), .prompt = 512, .gen = 64,
                                       .batch = 1, .train = 2048, .repeats = 5};

void qs_bench_opts_init(qs_bench_opts *o, size_t size) {
    qs_bench_opts d = defaults;
    memset(o, 0, size);
    d.size = size;
    memcpy(o, &d, size < sizeof d ? size : sizeof d);
}

static qsi_bench_opts inner(const qs_bench_opts *o) {
    return (qsi_bench_opts){.prompt = o->prompt, .gen = o->gen, .depth = o->depth,
                            .batch = o->batch, .train = o->train, .repeats = o->repeats,
                            .progress = o->progress, .user = o->user,
                            .probe_s = PROBE_S, .memory_bytes = o->memory_bytes, .mlock = o->mlock != 0,
                            .exact = o->exact != 0};
}

static void publish(const qsi_bench_report *r, const qsi_limits *l, qs_bench_report *out) {
    out->read_gb_s = l->read_gb_s;
    out->fp32_gflop_s = l->fp32_gflop_s;
    out->bf16_gflop_s = l->bf16_gflop_s;
    out->int8_gop_s = l->int8_gop_s;
    memcpy(out->model_name, r->model_name, sizeof out->model_name);
    memcpy(out->model_arch, r->model_arch, sizeof out->model_arch);
    out->n_params = r->n_params;
    out->n_active = r->n_active;
    out->weight_bytes = r->weight_bytes;
    out->n_runs = r->n_runs;
    for (int32_t i = 0; i < r->n_runs; i++) {
        const qsi_bench_run *x = &r->runs[i];
        out->runs[i] = (qs_bench_run){x->test, x->n, x->depth, x->batch, x->tok_s, x->best_tok_s,
                                      x->limit_tok_s, x->share, x->read_gb_s, x->drift,
                                      x->disk.rate_gb_s, x->disk.read_gb_s, x->disk.token_bytes,
                                      x->disk.away_bytes, x->disk.cached, x->disk.hits,
                                      x->disk.fixed_hits, x->disk.foreseen,
                                      x->disk.guess_hits, x->disk.wasted_bytes, x->disk.wait,
                                      x->disk.busy, x->allowed.bytes_s * 1e3,
                                      x->allowed.ops_s * 1e3};
        if (x->disk.on) out->runs[i].bytes_ms = out->runs[i].ops_ms = 0; /* the disk decides */
    }
}

/* *moved: drift of what cannot be put right by repeating a test alone. Runs of a model watch memory's
 * rate themselves. */
static qs_status once(const qsi_bench_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                      qs_bench_report *out, double *moved, qs_err *err) {
    qs_status st = QS_OK;
    qsi_limits before, after, mean;
    qsi_bench_report r = {0};
    *out = (qs_bench_report){.threads = qsi_pool_size(pool), .isa = qsi_isa_name(isa)};
    if (o->progress != NULL && o->progress(o->user, "limits of the machine") != 0)
        QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    QS_TRY(qsi_probe(pool, isa, &before, err));
    QS_TRY(qsi_bench_tests(o, g, pool, isa, &r, err));
    QS_TRY(qsi_probe(pool, isa, &after, err));
    mean.read_gb_s = 0.5 * (before.read_gb_s + after.read_gb_s);
    mean.fp32_gflop_s = 0.5 * (before.fp32_gflop_s + after.fp32_gflop_s);
    mean.bf16_gflop_s = 0.5 * (before.bf16_gflop_s + after.bf16_gflop_s);
    mean.int8_gop_s = 0.5 * (before.int8_gop_s + after.int8_gop_s);
    QS_TRY(qsi_bench_limits(o, g, &mean, &r, err));
    publish(&r, &mean, out);
    if (r.n_runs > 0) before.read_gb_s = after.read_gb_s;
    *moved = out->drift = qsi_limits_differ(&before, &after);
    for (int32_t i = 0; i < r.n_runs; i++) out->drift = fmax(out->drift, r.runs[i].drift);
done:
    return st;
}

qs_status qs_bench(const qs_bench_opts *opts, qs_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qs_bench_opts o = defaults;
    qs_bench_report best = {0}, r;
    double least = INFINITY, moved = INFINITY;
    qsi_gguf *g = NULL;
    qsi_pool *pool = NULL;
    qsi_str copy = {0};
    qsi_isa isa;
    qsi_api_opts(&o, sizeof o, opts);
    qsi_bench_opts in = inner(&o);
    QS_TRY(qsi_api_kv_type(o.kv_type, &in.kv_type, err));
    QS_TRY(qsi_isa_parse(o.isa != NULL ? o.isa : "auto", &isa, err));
    if (o.mlock && o.memory_bytes > 0)
        QS_FAIL(err, QS_E_ARG, "--mlock keeps all weights in memory, --memory does not: give one");
    if (o.model != NULL)
        QS_TRY(qsi_api_packed_path(&copy, o.repack_cache, o.model, o.exact != 0, err));
    in.packed_path = copy.data;
    QS_TRY(qsi_api_pool(&pool, o.threads, o.numa != 0, err));
    if (o.model != NULL) QS_TRY(qsi_files_open_model(o.model, &g, err));
    /* from disk each try takes minutes, and memory's rate matters little */
    int tries = o.memory_bytes > 0 ? 1 : TRIES;
    for (int i = 0; i < tries && least > DRIFT_MAX; i++) {
        QS_TRY(once(&in, g, pool, isa, &r, &moved, err));
        if (moved < least) {
            best = r;
            least = moved;
        }
    }
    *out = best;
done:
    qsi_gguf_close(&g);
    qsi_pool_free(pool);
    qsi_str_release(&copy);
    return st;
}

typedef struct relay {
    qs_bench_kernel_fn *fn;
    void *user;
} relay;

static void relay_row(void *user, const qsi_bench_kernel *k) {
    const relay *r = user;
    const qs_bench_kernel row = {k->kernel, k->isa, k->unit, k->m, k->n, k->k, k->value, k->share};
    r->fn(r->user, &row);
}

qs_status qs_bench_kernels(const qs_bench_opts *opts, qs_bench_kernel_fn *fn, void *user,
                           qs_err *err) {
    qs_status st = QS_OK;
    qs_bench_opts o = defaults;
    relay r = {fn, user};
    qsi_isa isa;
    qsi_api_opts(&o, sizeof o, opts);
    qsi_bench_opts in = inner(&o);
    QS_TRY(qsi_api_kv_type(o.kv_type, &in.kv_type, err));
    QS_TRY(qsi_isa_parse(o.isa != NULL ? o.isa : "auto", &isa, err));
    QS_TRY(qsi_bench_kernels(&in, isa, relay_row, &r, err));
done:
    return st;
}
