/* The tests: prefill and decode of a model, and a training step. Ids are random (seeded), so that
 * routing is as wide as in use; every test runs once unmeasured and then `repeats` times. */
#include "measure/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/file.h"

#define MAX_REPEATS 101
#define DRIFT_MAX 0.05        /* of the machine's limits around a repeat that counts */
#define PIECE_S 0.5           /* of a repeat between two measurements of memory */
#define DISK_BYTES ((uint64_t)3 << 29) /* read for measuring the disk */
#define TRAIN_DOC 80          /* positions of a document in the training test: a poem */
#define OWN_SHAPE 100000000   /* a model of at most so many weights is trained on in its own shape */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double qsi_median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, compare);
    return n % 2 != 0 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static qs_status tell(const qsi_bench_opts *o, const char *what, qs_err *err) {
    if (o->progress == NULL || o->progress(o->user, what) == 0) return QS_OK;
    return qsi_err_set(err, QS_E_CANCELLED, "cancelled");
}

/* ---- repeats ----
 *
 * Memory's rate is measured before and after every repeat, and about twice a second inside a long
 * one with the clock stopped. A repeat is compared with the mean over its own time; one whose rates
 * differ by more than DRIFT_MAX is done again, as long as the number of tries lasts. */

typedef struct sample {
    double s, read, drift; /* seconds, 10^9 bytes a second over them, how much that moved */
} sample;

typedef struct watch {
    qsi_read_probe *probe; /* NULL: time alone */
    double probe_s;
    double rate;           /* measured last */
    double s, bytes, least, most;
    int64_t t0;
} watch;

static double since(int64_t t) { return (double)(qsi_now_ns() - t) * 1e-9; }

static void watch_begin(watch *w) {
    if (w->probe != NULL && w->rate <= 0) w->rate = qsi_read_probe_run(w->probe, w->probe_s);
    w->s = w->bytes = 0;
    w->least = w->most = w->rate;
    w->t0 = qsi_now_ns();
}

/* Ends a piece of the repeat and begins the next. */
static void watch_cut(watch *w) {
    double s = since(w->t0), before = w->rate;
    if (w->probe != NULL) w->rate = qsi_read_probe_run(w->probe, w->probe_s);
    w->s += s;
    w->bytes += s * 0.5 * (before + w->rate);
    if (w->rate < w->least) w->least = w->rate;
    if (w->rate > w->most) w->most = w->rate;
    w->t0 = qsi_now_ns();
}

static void watch_tick(watch *w) {
    if (w->probe != NULL && since(w->t0) > PIECE_S) watch_cut(w);
}

static sample watch_end(watch *w) {
    watch_cut(w);
    return (sample){.s = w->s, .read = w->bytes / w->s,
                    .drift = w->most > 0 ? (w->most - w->least) / w->most : 0};
}

static int calmest_first(const void *a, const void *b) {
    double x = ((const sample *)a)->drift, y = ((const sample *)b)->drift;
    if (x < DRIFT_MAX) x = 0;
    if (y < DRIFT_MAX) y = 0;
    return (x > y) - (x < y);
}

/* Whether n samples are enough. */
static bool enough(const qsi_bench_opts *o, const sample *x, int n) {
    int calm = 0;
    for (int i = 0; i < n; i++) calm += x[i].drift <= DRIFT_MAX;
    return calm >= o->repeats || n >= 2 * o->repeats;
}

/* The calmest of n samples make a run of `tokens` each; n_runs grows by one. */
static void put_run(const qsi_bench_opts *o, qsi_bench_report *out, qsi_bench_run run, double tokens,
                    sample *x, int n) {
    double s[MAX_REPEATS], read[MAX_REPEATS];
    qsort(x, (size_t)n, sizeof *x, calmest_first);
    if (n > o->repeats) n = o->repeats;
    for (int i = 0; i < n; i++) {
        s[i] = x[i].s;
        read[i] = x[i].read;
        if (x[i].drift > run.drift) run.drift = x[i].drift;
    }
    run.tok_s = tokens / qsi_median(s, n);
    run.best_tok_s = tokens / s[0];
    run.read_gb_s = qsi_median(read, n);
    out->runs[out->n_runs++] = run;
}

/* ---- a model ---- */

typedef struct subject {
    const qsi_bench_opts *o;
    qsi_model *model;
    qsi_kv *kv;
    qsi_kv_table *tables; /* [batch] */
    qsi_row *rows;        /* [max_rows or batch] */
    float *logits;        /* [batch, n_vocab] */
    qsi_rng rng;
    watch watch;
    bool from_disk;
} subject;

static void subject_release(subject *s) {
    for (int32_t i = 0; s->tables != NULL && i < s->o->batch; i++)
        qsi_kv_table_release(s->kv, &s->tables[i]);
    qsi_free(s->tables);
    qsi_free(s->rows);
    qsi_free(s->logits);
    qsi_kv_free(s->kv);
    qsi_model_close(&s->model);
    qsi_read_probe_free(s->watch.probe);
}

static qs_status subject_init(subject *s, const qsi_bench_opts *o, const qsi_gguf *g, qsi_pool *pool,
                              qsi_isa isa, qs_err *err) {
    qs_status st = QS_OK;
    qsi_model_opts mo = {.pool = pool, .isa = isa, .memory_bytes = o->memory_bytes,
                         .exact = o->exact, .packed_path = o->packed_path};
    qsi_model_io io;
    qsi_config shape;
    *s = (subject){.o = o};
    qsi_rng_init(&s->rng, 1);
    int64_t n = (int64_t)o->depth + (o->prompt > o->gen ? o->prompt : o->gen) + 1;
    int64_t pages = (n + QSI_KV_PAGE - 1) / QSI_KV_PAGE * o->batch;
    QS_TRY(qsi_config_from_gguf(&shape, g, err));
    QS_TRY(qsi_config_check(&shape, err));
    QS_TRY(qsi_kv_create(&s->kv, &shape, o->kv_type, pages, err));
    QS_TRY(qsi_kv_need(&shape, o->kv_type, pages, &mo.cache_bytes, err));
    QS_TRY(qsi_model_open(&s->model, g, &mo, err));
    qsi_model_io_stats(s->model, &io, false);
    s->from_disk = io.on; /* where memory is not the limit */
    s->watch.probe_s = o->probe_s;
    if (o->probe_s > 0 && !io.on)
        QS_TRY(qsi_read_probe_open(&s->watch.probe, pool, isa, err));
    const qsi_config *c = qsi_model_config(s->model);
    if (o->batch > qsi_model_max_rows(s->model))
        QS_FAIL(err, QS_E_RANGE, "batch %d is more than the %d rows of a step", o->batch,
                qsi_model_max_rows(s->model));
    size_t rows = (size_t)qsi_model_max_rows(s->model);
    s->tables = qsi_calloc((size_t)o->batch, sizeof *s->tables);
    s->rows = qsi_calloc(rows, sizeof *s->rows);
    s->logits = qsi_calloc((size_t)o->batch * (size_t)c->n_vocab, sizeof *s->logits);
    if (s->tables == NULL || s->rows == NULL || s->logits == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for %d sequences", o->batch);
    for (int32_t i = 0; i < o->batch; i++)
        QS_TRY(qsi_kv_reserve(s->kv, &s->tables[i], n, err));
done:
    return st;
}

static qs_status step(subject *s, int32_t n_rows, qs_err *err) {
    const qsi_step step = {.rows = s->rows, .n_rows = n_rows, .kv = s->kv, .tables = s->tables,
                           .n_tables = s->o->batch, .logits = s->logits};
    return qsi_model_step(s->model, &step, err);
}

static qsi_row row(subject *s, int32_t seq, int32_t pos, bool logits, bool generated) {
    uint64_t n = (uint64_t)qsi_model_config(s->model)->n_vocab;
    return (qsi_row){.id = (int32_t)qsi_rng_below(&s->rng, n), .seq = seq, .pos = pos,
                     .logits = logits, .generated = generated};
}

/* n positions of every sequence from `from` on, logits of the last. */
static qs_status feed(subject *s, int32_t from, int32_t n, qs_err *err) {
    qs_status st = QS_OK;
    int32_t chunk = qsi_model_max_rows(s->model);
    for (int32_t seq = 0; seq < s->o->batch; seq++)
        for (int32_t at = 0; at < n; at += chunk) {
            int32_t rows = n - at < chunk ? n - at : chunk;
            for (int32_t i = 0; i < rows; i++)
                s->rows[i] = row(s, seq, from + at + i, at + i == n - 1, false);
            QS_TRY(step(s, rows, err));
            watch_tick(&s->watch);
        }
done:
    return st;
}

static qs_status decode(subject *s, int32_t steps, qs_err *err) {
    qs_status st = QS_OK;
    for (int32_t t = 0; t < steps; t++) {
        for (int32_t seq = 0; seq < s->o->batch; seq++)
            s->rows[seq] = row(s, seq, s->o->depth + t, true, true);
        QS_TRY(step(s, s->o->batch, err));
        watch_tick(&s->watch);
    }
done:
    return st;
}

/* ---- a model whose weights come from disk ---- */

static qs_status run_once(subject *s, bool prefill, qs_err *err) {
    return prefill ? feed(s, s->o->depth, s->o->prompt, err) : decode(s, s->o->gen, err);
}

static void put_disk(qsi_bench_run *r, const qsi_model_io *io, double seconds, double rate) {
    double tokens = (double)r->n * r->batch, uses = (double)io->uses;
    double useful = (double)io->read_bytes - (double)io->wasted_bytes;
    r->disk = (qsi_bench_disk){.on = true, .rate_gb_s = rate * 1e-9,
                               .read_gb_s = useful / seconds * 1e-9,
                               .token_bytes = (double)io->read_bytes / tokens,
                               .wasted_bytes = (double)io->wasted_bytes / tokens,
                               .wait = (double)io->wait_ns * 1e-9 / seconds,
                               .busy = (double)io->busy_ns * 1e-9 / seconds,
                               .away_bytes = (double)io->away_bytes};
    if (io->experts) r->disk.cached = (double)io->slots / (double)io->experts;
    if (!io->uses) return;
    r->disk.hits = (double)io->hits / uses;
    r->disk.fixed_hits = (double)io->fixed_hits / uses;
    r->disk.foreseen = (double)io->foreseen / uses;
    if (io->guesses) r->disk.guess_hits = (double)io->foreseen / (double)io->guesses;
}

/* Once unmeasured (the cache of experts fills and learns), then once, whatever `repeats` says, between
 * two measurements of the disk. */
static qs_status test_disk(subject *s, bool prefill, qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_bench_opts *o = s->o;
    qsi_bench_run run = {.test = prefill ? "prefill" : "decode", .depth = o->depth,
                         .n = prefill ? o->prompt : o->gen, .batch = o->batch};
    double before = 0, after = 0;
    qsi_model_io io;
    QS_TRY(tell(o, prefill ? "prefill from disk" : "decode from disk", err));
    QS_TRY(run_once(s, prefill, err));
    QS_TRY(qsi_model_disk_rate(s->model, DISK_BYTES, &before, err));
    qsi_model_io_stats(s->model, &io, true);
    watch_begin(&s->watch);
    QS_TRY(run_once(s, prefill, err));
    sample x = watch_end(&s->watch);
    qsi_model_io_stats(s->model, &io, false);
    QS_TRY(qsi_model_disk_rate(s->model, DISK_BYTES, &after, err));
    put_disk(&run, &io, x.s, 0.5 * (before + after));
    put_run(o, out, run, (double)run.n * run.batch, &x, 1);
done:
    return st;
}

static qs_status test_prefill(subject *s, qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_bench_opts *o = s->o;
    sample x[2 * MAX_REPEATS];
    int n = 0;
    QS_TRY(tell(o, "prefill", err));
    QS_TRY(feed(s, o->depth, o->prompt, err));
    s->watch.rate = 0;
    while (!enough(o, x, n)) {
        watch_begin(&s->watch);
        QS_TRY(feed(s, o->depth, o->prompt, err));
        x[n++] = watch_end(&s->watch);
    }
    put_run(o, out, (qsi_bench_run){"prefill", o->prompt, o->depth, o->batch, .share = 0},
            (double)o->prompt * o->batch, x, n);
done:
    return st;
}

static qs_status test_decode(subject *s, qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_bench_opts *o = s->o;
    sample x[2 * MAX_REPEATS];
    int n = 0;
    QS_TRY(tell(o, "decode", err));
    QS_TRY(decode(s, o->gen < 4 ? o->gen : 4, err));
    s->watch.rate = 0;
    while (!enough(o, x, n)) {
        watch_begin(&s->watch);
        QS_TRY(decode(s, o->gen, err));
        x[n++] = watch_end(&s->watch);
    }
    put_run(o, out, (qsi_bench_run){"decode", o->gen, o->depth, o->batch, .share = 0},
            (double)o->gen * o->batch, x, n);
done:
    return st;
}

static qs_status test_model(subject *s, qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    if (s->o->depth > 0) {
        QS_TRY(tell(s->o, "filling the cache", err));
        QS_TRY(feed(s, 0, s->o->depth, err));
    }
    if (s->o->prompt > 0)
        QS_TRY(s->from_disk ? test_disk(s, true, out, err) : test_prefill(s, out, err));
    if (s->o->gen > 0)
        QS_TRY(s->from_disk ? test_disk(s, false, out, err) : test_decode(s, out, err));
done:
    return st;
}

/* ---- training ---- */

/* The default model's shape. */
static const qsi_config default_shape = {
    .arch = QSI_ARCH_DEEPSEEK, .n_vocab = 8192, .n_layer = 8, .d_model = 256, .n_head = 4,
    .n_kv_head = 4, .head_dim = 64, .d_ff = 1024, .n_ctx = 1024, .rms_eps = 1e-6f,
    .rope_theta = 10000.0f, .rope_factor = 1.0f, .n_dense = 1, .n_expert = 10, .n_expert_used = 2,
    .n_shared = 1, .d_expert = 256, .expert_scale = 1.0f};

static qs_status train_shape(const qsi_gguf *g, qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    *c = default_shape;
    if (g == NULL) goto done;
    qsi_config own;
    QS_TRY(qsi_config_from_gguf(&own, g, err));
    if (qsi_config_params(&own, NULL) <= OWN_SHAPE) *c = own;
done:
    return st;
}

static qs_status test_train(const qsi_bench_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                            qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_trainer_model *t = NULL;
    int32_t *ids = NULL, rows = o->train;
    sample s[MAX_REPEATS];
    qsi_config c;
    qsi_train_out result;
    qsi_train_opts to = {.pool = pool, .isa = isa, .precision = QSI_TRAIN_BF16, .max_rows = rows,
                         .balance_alpha = 0.001f, .balance_per_seq = true};
    QS_TRY(tell(o, "training", err));
    QS_TRY(train_shape(g, &c, err));
    QS_TRY(qsi_tm_create(&t, &c, &to, err));
    qsi_tm_init_random(t, 1, 0.006f);
    qsi_tm_refresh(t);
    ids = qsi_alloc((size_t)rows * 4, sizeof *ids);
    if (ids == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %d rows", rows);
    int32_t *targets = ids + rows, *seq = targets + rows, *pos = seq + rows;
    qsi_rng r;
    qsi_rng_init(&r, 2);
    for (int32_t i = 0; i < rows; i++) {
        ids[i] = (int32_t)qsi_rng_below(&r, (uint64_t)c.n_vocab);
        targets[i] = (int32_t)qsi_rng_below(&r, (uint64_t)c.n_vocab);
        seq[i] = i / TRAIN_DOC;
        pos[i] = i % TRAIN_DOC;
    }
    const qsi_train_batch b = {.n_rows = rows, .ids = ids, .seq = seq, .pos = pos,
                               .targets = targets, .scale = 1.0f / (float)rows};
    for (int i = -1; i < o->repeats; i++) {
        int64_t t0 = qsi_now_ns();
        QS_TRY(qsi_tm_loss(t, &b, true, 1.0f, &result, err));
        if (i >= 0) s[i] = (sample){.s = since(t0)};
    }
    put_run(o, out, (qsi_bench_run){"train", rows, 0, 1, .share = 0}, rows, s, o->repeats);
done:
    qsi_free(ids);
    qsi_tm_free(t);
    return st;
}

/* ---- all ---- */

static qs_status describe(const qsi_gguf *g, qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c;
    qsi_cost cost;
    qsi_slice name = {0};
    QS_TRY(qsi_config_from_gguf(&c, g, err));
    if (qsi_gguf_str(g, "general.name", &name, NULL) != QS_OK) {
        const char *path = qsi_gguf_path(g), *slash = strrchr(path, '/');
        name.p = slash != NULL ? slash + 1 : path;
        name.n = strlen(name.p);
    }
    size_t n = name.n < sizeof out->model_name ? name.n : sizeof out->model_name - 1;
    memcpy(out->model_name, name.p, n);
    const char *arch = qsi_arch_name(c.arch);
    n = strlen(arch);
    if (n < sizeof out->model_arch) memcpy(out->model_arch, arch, n);
    out->n_params = qsi_config_params(&c, &out->n_active);
    qsi_cost_of(&cost, &c, g, 0);
    out->weight_bytes = cost.weight_bytes;
done:
    return st;
}

static qs_status check(const qsi_bench_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    if (o->prompt < 0 || o->gen < 0 || o->depth < 0 || o->train < 0 || o->batch < 1 ||
        o->prompt > 1 << 20 || o->gen > 1 << 20 || o->depth > 1 << 20 || o->train > 1 << 20 ||
        o->batch > 4096)
        QS_FAIL(err, QS_E_RANGE, "sizes of the tests: 0 to 1048576 positions, 1 to 4096 sequences");
    if (o->repeats < 1 || o->repeats > MAX_REPEATS)
        QS_FAIL(err, QS_E_RANGE, "repeats: 1 to %d", MAX_REPEATS);
done:
    return st;
}

qs_status qsi_bench_tests(const qsi_bench_opts *o, const qsi_gguf *g, qsi_pool *pool, qsi_isa isa,
                          qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    subject s = {.o = o};
    QS_TRY(check(o, err));
    out->n_runs = 0;
    if (g != NULL) {
        QS_TRY(describe(g, out, err));
        if (o->prompt > 0 || o->gen > 0) {
            QS_TRY(tell(o, "loading", err));
            QS_TRY(subject_init(&s, o, g, pool, isa, err));
            if (o->mlock) QS_TRY(qsi_mem_lock(err));
            QS_TRY(test_model(&s, out, err));
            subject_release(&s);
            s = (subject){.o = o};
        }
    }
    if (o->train > 0) QS_TRY(test_train(o, g, pool, isa, out, err));
done:
    if (o->mlock) qsi_mem_unlock();
    subject_release(&s);
    return st;
}

static double element_bytes(qsi_type t) {
    const qsi_type_info *ti = qsi_type_get(t);
    return (double)ti->bytes / ti->block;
}

qs_status qsi_bench_limits(const qsi_bench_opts *o, const qsi_gguf *g, const qsi_limits *l,
                           qsi_bench_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c, shape;
    qsi_cost cost = {0}, train_cost;
    QS_TRY(train_shape(g, &shape, err));
    qsi_cost_of(&train_cost, &shape, NULL, 2);
    if (g != NULL) {
        QS_TRY(qsi_config_from_gguf(&c, g, err));
        qsi_cost_of(&cost, &c, g, element_bytes(o->kv_type));
        if (o->exact) qsi_cost_exact(&cost);
    }
    for (int32_t i = 0; i < out->n_runs; i++) {
        qsi_bench_run *r = &out->runs[i];
        double s = 0; /* for n tokens of the batch */
        qsi_limits around = *l;
        if (r->read_gb_s > 0) around.read_gb_s = r->read_gb_s;
        if (strcmp(r->test, "prefill") == 0) {
            s = r->batch * qsi_limit_prefill(&cost, &around, r->n, r->depth);
        } else if (strcmp(r->test, "decode") == 0) {
            r->allowed = (qsi_decode_times){0};
            for (int32_t t = 0; t < r->n; t++) {
                qsi_decode_times x = qsi_decode_times_of(&cost, &around, r->batch, r->depth + t);
                s += fmax(x.bytes_s, x.ops_s);
                r->allowed.bytes_s += x.bytes_s / r->n;
                r->allowed.ops_s += x.ops_s / r->n;
            }
        } else {
            s = r->n * qsi_limit_train(&train_cost, l, TRAIN_DOC);
        }
        r->limit_tok_s = (double)r->n * r->batch / s;
        r->share = r->tok_s / r->limit_tok_s;
        if (!r->disk.on) continue;
        r->share = r->disk.read_gb_s / r->disk.rate_gb_s; /* the limit is the disk */
        r->limit_tok_s = r->tok_s / r->share;
    }
done:
    return st;
}
