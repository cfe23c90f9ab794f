/* The forecast. A small model, with the file's own matrix types and shapes, is built twice, with few
 * layers (near) and with about twice as many (far), and bench's own tests run on both. What the layers
 * between them take, by what the limits would allow for these, is the efficiency of a layer; the rest
 * of the model is that much of its limit:
 *
 *     t(whole) = t(far) + (limit(whole) - limit(far)) * (t(far) - t(near)) / (limit(far) - limit(near))
 *
 * So nothing is assumed of kernels, levels or threads, and what they gain is seen at once. The rate of
 * memory of each test enters its own limit. A model of few bytes is built whole: there the caches
 * decide, and near is not needed.
 *
 * Weights that do not fit are read from disk: the model itself says what its plan would be, the disk is
 * measured, and a step takes as long as the slower of computing and reading, but for experts: which
 * ones, is known when their layer computes. */
#include "measure/forecast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/file.h"

#define PROMPT 512
#define GEN 64
/* Positions, for the cost of looking back: with fewer the cache is a few hundredths of what a step of
 * few layers reads, and what memory's rate moves is taken for it (of a MoE at 4096 the forecast from 512
 * was off by 30 %). */
#define DEEP_LEAST 512
#define DEEP_MOST 2048
#define REPEATS 2             /* calm ones; a disturbed one is tried again */
#define PROBE_S 0.03
#define FAR_BYTES (256 << 20) /* of weights at least: far beyond the caches */
#define FAR_LAYERS 2
#define FEW_IDS 8192          /* of the vocabulary: the head costs as a layer does */
#define DISK_BYTES ((uint64_t)3 << 29) /* read for measuring the disk */
#define USUAL_CONTEXT 4096    /* whose cache is kept free where none is asked for */
#define SAME_RATE 0.1         /* memory's rates that differ by no more are one state of the machine */
#define CHUNK 65537           /* blocks of made-up weights, repeated; odd, so that rows differ */
#define CHUNK_VALUES (1 << 20)

/* ---- the small model ---- */

static void small_config(const qsi_config *c, int32_t layers, qsi_config *out) {
    *out = *c;
    out->n_layer = layers;
    out->n_next = 0;
    if (out->n_dense > 1) out->n_dense = 1;
    if (out->n_dense > layers) out->n_dense = layers;
    if (out->n_vocab > FEW_IDS) out->n_vocab = FEW_IDS;
}

/* The tensor of the file that a tensor of the small model stands for: layers past the leading dense
 * ones come from the middle of the model. */
static const qsi_gguf_tensor *original(const qsi_gguf *g, const qsi_config *whole,
                                       const qsi_config *small, const qsi_tensor_spec *s) {
    char name[96];
    const char *rest = strchr(s->name, '.');
    if (s->layer < small->n_dense || small->n_layer == whole->n_layer || rest == NULL)
        return qsi_gguf_tensor_find(g, s->name);
    int32_t l = whole->n_layer / 2 + s->layer - small->n_dense;
    if (l >= whole->n_layer) l = whole->n_layer - 1;
    rest = strchr(rest + 1, '.');
    if (rest == NULL) return NULL;
    snprintf(name, sizeof name, "blk.%d%s", (int)l, rest);
    return qsi_gguf_tensor_find(g, name);
}

/* Made-up weights of each type in turn. */
typedef struct filler {
    qsi_type type;
    float *values;   /* [CHUNK_VALUES] */
    uint8_t *chunk;
    size_t n_chunk;  /* bytes */
    qsi_rng rng;
} filler;

static qs_status filler_init(filler *f, qs_err *err) {
    *f = (filler){.type = QSI_TYPE_NONE};
    qsi_rng_init(&f->rng, 3);
    f->values = qsi_alloc(CHUNK_VALUES, sizeof *f->values);
    f->chunk = qsi_alloc(CHUNK_VALUES, sizeof(float));
    if (f->values != NULL && f->chunk != NULL) return QS_OK;
    return qsi_err_set(err, QS_E_NOMEM, "out of memory for a forecast");
}

static void filler_release(filler *f) {
    qsi_free(f->values);
    qsi_free(f->chunk);
}

static void filler_take(filler *f, const qsi_type_info *ti) {
    if (f->type == ti->type) return;
    int64_t blocks = CHUNK_VALUES / ti->block;
    if (blocks > CHUNK) blocks = CHUNK;
    blocks -= blocks % 2 == 0; /* odd */
    int64_t n = blocks * ti->block;
    for (int64_t i = 0; i < n; i++) { /* sum of uniforms: near enough to normal */
        double u = 0;
        for (int j = 0; j < 3; j++) u += qsi_rng_f64(&f->rng);
        f->values[i] = (float)((u - 1.5) * 0.02);
    }
    ti->encode(f->values, f->chunk, n);
    f->n_chunk = (size_t)blocks * (size_t)ti->bytes;
    f->type = ti->type;
}

static qs_status write_ones(qsi_gguf_writer *w, int64_t n, qs_err *err) {
    qs_status st = QS_OK;
    const float one = 1;
    for (int64_t i = 0; i < n; i++) QS_TRY(qsi_gguf_write(w, &one, sizeof one, err));
done:
    return st;
}

static qs_status write_tensor(filler *f, qsi_gguf_writer *w, const qsi_tensor_spec *s, qsi_type type,
                              qs_err *err) {
    qs_status st = QS_OK;
    const qsi_type_info *ti = qsi_type_get((int32_t)type);
    int64_t n = 1;
    for (int d = 0; d < s->n_dims; d++) n *= s->ne[d];
    if ((s->role == QSI_ROLE_NORM || s->role == QSI_ROLE_FREQS) && type == QSI_F32)
        return write_ones(w, n, err);
    filler_take(f, ti);
    size_t left = (size_t)(n / ti->block) * (size_t)ti->bytes;
    while (left > 0) {
        size_t part = left < f->n_chunk ? left : f->n_chunk;
        QS_TRY(qsi_gguf_write(w, f->chunk, part, err));
        left -= part;
    }
done:
    return st;
}

/* Types of what the file stores; NONE for a tensor it has not (a tied head). */
static qsi_type type_of(const qsi_gguf *g, const qsi_config *whole, const qsi_config *small,
                        const qsi_tensor_spec *s) {
    const qsi_gguf_tensor *t = original(g, whole, small, s);
    if (t == NULL) return QSI_TYPE_NONE;
    const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
    return ti != NULL && ti->encode != NULL ? t->type : QSI_F16;
}

static qs_status build(const qsi_forecast_opts *o, const qsi_gguf *g, const qsi_config *whole,
                       int32_t layers, qsi_gguf **out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c;
    filler f = {0};
    qsi_gguf_writer *w = NULL;
    small_config(whole, layers, &c);
    QS_TRY(filler_init(&f, err));
    QS_TRY(qsi_gguf_writer_open_temp(&w, o->tmp, err));
    if (qsi_config_put_gguf(&c, w) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < qsi_config_n_tensors(&c); i++) {
            qsi_tensor_spec s;
            qsi_config_tensor(&c, i, &s);
            qsi_type type = type_of(g, whole, &c, &s);
            if (type == QSI_TYPE_NONE) continue;
            if (pass == 0) QS_TRY(qsi_gguf_declare(w, s.name, type, s.n_dims, s.ne, err));
            else QS_TRY(write_tensor(&f, w, &s, type, err));
        }
    QS_TRY(qsi_gguf_finish_open(&w, "(a small model)", out, err));
done:
    qsi_gguf_writer_abort(&w);
    filler_release(&f);
    return st;
}

/* Layers of the far model. */
static int32_t far_layers(const qsi_config *c, double layer_bytes) {
    int32_t n = FAR_LAYERS;
    while (n < c->n_layer && n * layer_bytes < FAR_BYTES) n++;
    return n < c->n_layer ? n : c->n_layer;
}

/* ---- measuring ---- */

static int64_t deep_of(int64_t n_ctx) {
    return n_ctx < DEEP_LEAST ? DEEP_LEAST : n_ctx > DEEP_MOST ? DEEP_MOST : n_ctx;
}

static double element_bytes(qsi_type t) {
    const qsi_type_info *ti = qsi_type_get((int32_t)t);
    return (double)ti->bytes / ti->block;
}

typedef struct timing {
    double s, limit; /* seconds; what the limits allow */
    double read;     /* 10^9 bytes a second around it; 0 of a prefill, which memory does not decide */
} timing;

typedef struct point {
    timing prefill, decode, deep;
    qsi_cost cost;
} point;

static qs_status tests(const qsi_forecast_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                       const qsi_limits *l, int32_t depth, timing *prefill, timing *decode,
                       qs_err *err) {
    qs_status st = QS_OK;
    qsi_bench_report r = {0};
    const qsi_bench_opts b = {.prompt = prefill != NULL ? PROMPT : 0, .gen = GEN, .depth = depth,
                              .batch = 1, .repeats = REPEATS, .probe_s = PROBE_S,
                              .kv_type = o->kv_type};
    QS_TRY(qsi_bench_tests(&b, g, pool, isa, &r, err));
    QS_TRY(qsi_bench_limits(&b, g, l, &r, err));
    for (int32_t i = 0; i < r.n_runs; i++) {
        const qsi_bench_run *x = &r.runs[i];
        timing t = {1 / x->tok_s, 1 / x->limit_tok_s, x->read_gb_s};
        if (strcmp(x->test, "prefill") == 0) *prefill = (timing){t.s, t.limit, .read = 0};
        else *decode = t;
    }
done:
    return st;
}

static qs_status measure(const qsi_forecast_opts *o, const qsi_gguf *g, const qsi_config *whole,
                         int32_t layers, qsi_pool *pool, qsi_isa isa, const qsi_limits *l,
                         int32_t deep, point *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *small = NULL;
    qsi_config c;
    if (o->progress != NULL && o->progress(o->user, "trying layers of these shapes") != 0)
        QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    QS_TRY(build(o, g, whole, layers, &small, err));
    small_config(whole, layers, &c);
    qsi_cost_of(&out->cost, &c, small, element_bytes(o->kv_type));
    QS_TRY(tests(o, small, pool, isa, l, 0, &out->prefill, &out->decode, err));
    if (deep > 0) QS_TRY(tests(o, small, pool, isa, l, deep, NULL, &out->deep, err));
done:
    qsi_gguf_close(&small);
    return st;
}

/* Seconds of the whole model, whose limit is `whole`, at the rate of memory that far met. Rates may
 * differ between the tests, and a share of the limit holds near its own rate only (of a model .90 at 36
 * GB/s and .70 at 65, where more of a step is arithmetic): near counts where its rate was the same. */
static double extend(timing near, timing far, double whole_limit, double far_limit,
                     double near_limit, bool all) {
    double far_s = far.s / far.limit * far_limit; /* as if at the common rate */
    if (all) return far_s;
    double near_s = near.s / near.limit * near_limit;
    double slope = (far_s - near_s) / (far_limit - near_limit);
    double plain = far.s / far.limit;
    if (fabs(near.read - far.read) > SAME_RATE * far.read) slope = plain;
    if (!(slope > 0.5 * plain && slope < 2 * plain)) slope = plain; /* disturbed: fall back */
    return far_s + (whole_limit - far_limit) * slope;
}

/* ---- all ---- */

double qsi_forecast_cache_bytes(const qsi_config *c, qsi_type kv_type) {
    qsi_cost cost;
    qsi_cost_of(&cost, c, NULL, element_bytes(kv_type));
    return cost.cache_bytes + cost.index_bytes;
}

int64_t qsi_forecast_ctx(const qsi_forecast *f, const qsi_config *c, qsi_type kv_type) {
    uint64_t used = f->weight_bytes + f->scratch_bytes;
    if (used >= f->available) return 0;
    double n = (double)(f->available - used) / qsi_forecast_cache_bytes(c, kv_type);
    int64_t pages = n < 1e12 ? (int64_t)n / QSI_KV_PAGE : (int64_t)(1e12 / QSI_KV_PAGE);
    return pages * QSI_KV_PAGE;
}

/* Activations of a step: what ops keep of 512 rows. Widths as the layers have them, float32, and one
 * quantised copy of the widest input. */
static uint64_t scratch_of(const qsi_config *c, qsi_pool *pool) {
    double rows = PROMPT, d = c->d_model;
    double heads = (double)c->n_head * c->head_dim, kv = (double)c->n_kv_head * c->head_dim;
    double ffn = fmax(c->d_ff, (double)(c->n_expert_used + c->n_shared) * c->d_expert);
    double floats = rows * (3 * d + 2 * heads + 2 * kv + 3 * ffn) + c->n_vocab;
    floats += c->n_expert > 0 ? rows * (c->n_expert + (double)c->n_expert_used * d) : 0;
    floats += (double)qsi_pool_size(pool) * (1 << 18);
    return (uint64_t)(floats * sizeof(float));
}

static void sizes(const qsi_forecast_opts *o, const qsi_gguf *g, const qsi_config *c, qsi_pool *pool,
                  qsi_forecast *f) {
    qsi_cost cost;
    qsi_cost_of(&cost, c, g, 0);
    f->n_ctx = o->n_ctx > 0 ? o->n_ctx : c->n_ctx;
    f->weight_bytes = (uint64_t)cost.weight_bytes;
    f->cache_bytes = (uint64_t)(qsi_forecast_cache_bytes(c, o->kv_type) * (double)f->n_ctx);
    f->scratch_bytes = scratch_of(c, pool);
    f->available = qsi_mem_available();
    if (o->memory_bytes > 0 && o->memory_bytes < f->available) f->available = o->memory_bytes;
    f->fits = f->weight_bytes + f->cache_bytes + f->scratch_bytes <= f->available;
}

/* ---- a model larger than memory ---- */

/* What a token, or a prompt, reads: streamed weights, and of the experts it meets those that are not in
 * their cache, which holds as many of each when they are used evenly. */
static void put_reads(const qsi_cost *whole, const qsi_model_io *io, qsi_forecast *f) {
    double missing = io->experts > 0 ? 1 - (double)io->slots / (double)io->experts : 0;
    double stream = (double)io->stream_bytes, experts = missing * whole->expert_bytes;
    f->disk_token_bytes = stream + experts * qsi_cost_touched(whole, 1);
    f->disk_prompt_bytes = stream + experts * qsi_cost_touched(whole, PROMPT);
    f->disk_away_bytes = (double)io->away_bytes;
}

/* Asks the model what it would keep, and measures the disk. No plan (a folder, too little memory, a
 * cache too large beside the weights) is no error here: the sizes say it. */
static qs_status plan_disk(const qsi_forecast_opts *o, const qsi_gguf *g, const qsi_config *c,
                           const qsi_cost *whole, qsi_pool *pool, qsi_isa isa, qsi_forecast *f,
                           qs_err *err) {
    qs_status st = QS_OK;
    qsi_model *m = NULL;
    qsi_model_io io;
    qs_err why;
    double rate = 0;
    int64_t n = o->n_ctx > 0 ? o->n_ctx : c->n_ctx < USUAL_CONTEXT ? c->n_ctx : USUAL_CONTEXT;
    /* no n_ctx: how positions are stretched changes no size */
    qsi_model_opts mo = {.pool = pool, .isa = isa, .memory_bytes = f->available,
                         .cache_yields = o->n_ctx == 0, .plan_only = true};
    QS_TRY(qsi_kv_need(c, o->kv_type, (n + QSI_KV_PAGE - 1) / QSI_KV_PAGE, &mo.cache_bytes, err));
    if (f->weight_bytes + f->scratch_bytes + mo.cache_bytes < 0.75 * (double)f->available) goto done;
    qs_status opened = qsi_model_open(&m, g, &mo, &why);
    if (opened == QS_E_LIMIT || opened == QS_E_UNSUPPORTED) goto done;
    if (opened != QS_OK) {
        if (err) *err = why;
        st = opened;
        goto done;
    }
    qsi_model_io_stats(m, &io, false);
    if (!io.on) goto done; /* all in memory after all: the embedding stays in the file */
    if (o->progress != NULL && o->progress(o->user, "rate of the disk") != 0)
        QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    qs_status rated = qsi_model_disk_rate(m, DISK_BYTES, &rate, &why);
    if (rated == QS_E_RANGE) goto done; /* a file of few bytes */
    if (rated != QS_OK) {
        if (err) *err = why;
        st = rated;
        goto done;
    }
    f->from_disk = true;
    f->disk_gb_s = rate * 1e-9;
    put_reads(whole, &io, f);
done:
    qsi_model_close(&m);
    return st;
}

/* Seconds of a generated token that takes `here` in memory. Streamed weights are read ahead; experts
 * are asked for when their layer is there. */
static double token_from_disk(const qsi_cost *whole, const qsi_forecast *f, double here) {
    if (!f->from_disk) return here;
    double read = f->disk_token_bytes / (f->disk_gb_s * 1e9);
    return whole->experts > 0 ? here + read : fmax(here, read);
}

/* The same of a prompt: all experts of a layer are read ahead. */
static double prompt_from_disk(const qsi_forecast *f, double here) {
    return f->from_disk ? fmax(here, f->disk_prompt_bytes / (f->disk_gb_s * 1e9)) : here;
}

static void speeds(const qsi_cost *whole, const point *pf, const point *pn, bool all,
                   qsi_forecast *f) {
    const qsi_limits *l = &f->limits;
    const qsi_cost *far = &pf->cost, *near = &pn->cost;
#define PRE(c) (qsi_limit_prefill(c, l, PROMPT, 0) / PROMPT)
#define DEC(c, at) qsi_limit_decode(c, l, 1, at)
    int64_t mid = GEN / 2, from = deep_of(f->n_ctx), deep = from + GEN / 2;
    double prefill = extend(pn->prefill, pf->prefill, PRE(whole), PRE(far), PRE(near), all);
    f->prefill_tok_s = PROMPT / prompt_from_disk(f, prefill * PROMPT);
    double t0 = extend(pn->decode, pf->decode, DEC(whole, mid), DEC(far, mid), DEC(near, mid), all);
    /* looking back costs every layer the same */
    double back = pf->deep.s / pf->deep.limit * DEC(far, deep) -
                  pf->decode.s / pf->decode.limit * DEC(far, mid);
    back *= whole->cache_bytes / far->cache_bytes / (double)from;
#undef PRE
#undef DEC
    f->decode_tok_s = 1 / token_from_disk(whole, f, t0);
    f->deep_tok_s = 1 / token_from_disk(whole, f, t0 + fmax(back, 0) * (double)f->n_ctx);
}

/* No plan for a file that cannot be run. */
static qs_status check_types(const qsi_gguf *g, const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_config_n_tensors(c); i++) {
        qsi_tensor_spec want;
        qsi_config_tensor(c, i, &want);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, want.name);
        if (t != NULL) QS_TRY(qsi_type_runs(qsi_type_get((int32_t)t->type), t->name, err));
    }
done:
    return st;
}

qs_status qsi_forecast_make(const qsi_forecast_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                            qsi_forecast *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c;
    qsi_forecast f = {0};
    qsi_cost whole;
    point far = {0}, near = {0};
    QS_TRY(qsi_config_from_gguf(&c, g, err));
    QS_TRY(check_types(g, &c, err));
    sizes(o, g, &c, pool, &f);
    qsi_cost_of(&whole, &c, g, element_bytes(o->kv_type));
    QS_TRY(plan_disk(o, g, &c, &whole, pool, isa, &f, err));
    double layer = (whole.shared_bytes + whole.expert_bytes) / c.n_layer;
    int32_t n_far = far_layers(&c, layer), n_near = n_far / 2 > 0 ? n_far / 2 : 1;
    bool all = n_far == c.n_layer && c.n_vocab <= FEW_IDS;
    if (o->progress != NULL && o->progress(o->user, "limits of the machine") != 0)
        QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    QS_TRY(qsi_probe(pool, isa, &f.limits, err));
    /* The file of the small model and the copy that is prepared from it, both in memory. */
    if (2.2 * n_far * layer < (double)qsi_mem_available()) {
        int32_t deep = (int32_t)deep_of(f.n_ctx);
        QS_TRY(measure(o, g, &c, n_far, pool, isa, &f.limits, deep, &far, err));
        if (!all) QS_TRY(measure(o, g, &c, n_near, pool, isa, &f.limits, 0, &near, err));
        if (far.decode.read > 0) f.limits.read_gb_s = far.decode.read;
        speeds(&whole, &far, all ? &far : &near, all, &f);
    }
    *out = f;
done:
    return st;
}
