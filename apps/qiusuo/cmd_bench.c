/* bench: speed of this machine, of a model on it, of training, of single kernels. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "args.h"
#include "commands.h"
#include "gen_args.h"
#include "qiusuo/measure.h"
#include "qiusuo/qiusuo.h"
#include "model_store.h"
#include "ui.h"

typedef struct form {
    bool json, csv;
    json_t *rows; /* of --kernels --json */
} form;

/* One line that says what is being measured; none in a pipe. */
static int show(void *user, const char *what) {
    const bool *terminal = user;
    if (*terminal) fprintf(stderr, "\r\033[K%s", what);
    return qsa_interrupted();
}

/* ---- one object ---- */

static double round_to(double x, double unit) { return (double)(int64_t)(x / unit + 0.5) * unit; }

static json_t *run_json(const qs_bench_run *r) {
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "test", r->test, "n",
                          (int)r->n, "depth", (int)r->depth, "batch", (int)r->batch, "tok_s",
                          r->tok_s, "limit_tok_s", r->limit_tok_s, "share", r->share, "read_gb_s",
                          r->read_gb_s, "drift", r->drift);
    if (r->bytes_ms > 0)
        json_object_update_new(o, json_pack("{s:f, s:f}", "limit_bytes_ms", r->bytes_ms,
                                            "limit_ops_ms", r->ops_ms));
    if (r->disk_gb_s > 0)
        json_object_update_new(
            o, json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "disk_gb_s", r->disk_gb_s,
                         "disk_read_gb_s", r->disk_read_gb_s, "disk_share",
                         r->disk_read_gb_s / r->disk_gb_s, "disk_token_bytes", r->disk_token_bytes,
                         "disk_away_bytes", r->disk_away_bytes, "disk_wasted_bytes",
                         r->disk_wasted_bytes, "disk_wait", r->disk_wait, "disk_busy",
                         r->disk_busy));
    if (r->cached > 0)
        json_object_update_new(
            o, json_pack("{s:f, s:f, s:f, s:f, s:f}", "experts_cached", r->cached,
                         "expert_hit_rate", r->hits, "best_fixed_hit_rate", r->fixed_hits,
                         "expert_foreseen_rate", r->foreseen, "guess_hit_rate", r->guess_hits));
    return o;
}

static int print_json(const qs_bench_report *r) {
    json_t *runs = json_array(), *model = json_object();
    for (int32_t i = 0; i < r->n_runs; i++) json_array_append_new(runs, run_json(&r->runs[i]));
    if (r->model_arch[0] != '\0')
        json_object_update_new(
            model, json_pack("{s:s, s:s, s:I, s:I, s:I}", "name", r->model_name, "arch",
                             r->model_arch, "params", (json_int_t)r->n_params, "active",
                             (json_int_t)r->n_active, "weight_bytes",
                             (json_int_t)r->weight_bytes));
    json_t *all = json_pack(
        "{s:{s:i, s:s, s:f, s:f, s:f, s:f, s:f}, s:o, s:o}", "machine", "threads",
        (int)r->threads, "isa", r->isa, "read_gb_s", r->read_gb_s, "int8_gop_s", r->int8_gop_s,
        "bf16_gflop_s", r->bf16_gflop_s, "fp32_gflop_s", r->fp32_gflop_s, "drift",
        round_to(r->drift, 1e-4), "model", model, "runs", runs);
    char *text = all != NULL ? json_dumps(all, JSON_REAL_PRECISION(6) | JSON_COMPACT) : NULL;
    if (text != NULL) puts(text);
    else qsa_say("out of memory");
    int rc = text != NULL ? QSA_EXIT_OK : QSA_EXIT_FAILED;
    free(text);
    json_decref(all);
    return rc;
}

static void print_csv(const qs_bench_report *r) {
    puts("test,n,depth,batch,tok_s,best_tok_s,limit_tok_s,share,threads,isa,read_gb_s,int8_gop_s,"
         "bf16_gflop_s,fp32_gflop_s,drift");
    for (int32_t i = 0; i < r->n_runs; i++) {
        const qs_bench_run *x = &r->runs[i];
        printf("%s,%d,%d,%d,%.2f,%.2f,%.2f,%.4f,%d,%s,%.2f,%.1f,%.1f,%.1f,%.4f\n", x->test,
               (int)x->n, (int)x->depth, (int)x->batch, x->tok_s, x->best_tok_s, x->limit_tok_s,
               x->share, (int)r->threads, r->isa, x->read_gb_s > 0 ? x->read_gb_s : r->read_gb_s,
               r->int8_gop_s, r->bf16_gflop_s, r->fp32_gflop_s,
               x->read_gb_s > 0 ? x->drift : r->drift);
    }
}

static void print_disk(const qs_bench_run *x) {
    char a[32], b[32];
    printf("  disk    %.2f GB/s of %.2f GB/s sequential; %s a token, %s of weights are not in memory\n",
           x->disk_read_gb_s, x->disk_gb_s,
           qsa_format_size(a, sizeof a, (uint64_t)x->disk_token_bytes),
           qsa_format_size(b, sizeof b, (uint64_t)x->disk_away_bytes));
    if (x->cached > 0)
        printf("  experts %.1f %% in the cache; found there %.1f %% (the best fixed choice: %.1f %%), "
               "foreseen %.1f %% (%.0f %% of the guesses were right)\n",
               x->cached * 100, x->hits * 100, x->fixed_hits * 100, x->foreseen * 100,
               x->guess_hits * 100);
}

static void print_text(const qs_bench_report *r) {
    char a[32], b[32], c[32];
    printf("machine   %d threads, %s: read %.1f GB/s, int8 %.0f GOP/s, bf16 %.0f GFLOP/s, fp32 "
           "%.0f GFLOP/s\n",
           (int)r->threads, r->isa, r->read_gb_s, r->int8_gop_s, r->bf16_gflop_s, r->fp32_gflop_s);
    if (r->drift > 0.05)
        printf("          (these moved by %.0f %% during the run: the machine is busy)\n",
               r->drift * 100);
    if (r->model_arch[0] != '\0')
        printf("model     %s, %s: %s weights, %s of them a token, %s\n", r->model_name,
               r->model_arch, qsa_format_count(a, sizeof a, (double)r->n_params),
               qsa_format_count(b, sizeof b, (double)r->n_active),
               qsa_format_size(c, sizeof c, (uint64_t)r->weight_bytes));
    for (int32_t i = 0; i < r->n_runs; i++) {
        const qs_bench_run *x = &r->runs[i];
        printf("%-9s n %-5d depth %-5d batch %-3d %10.1f tokens/s   limit %10.1f   %5.1f %%",
               x->test, (int)x->n, (int)x->depth, (int)x->batch, x->tok_s, x->limit_tok_s,
               x->share * 100);
        if (x->read_gb_s > 0) printf("   (memory %.1f GB/s)", x->read_gb_s);
        putchar('\n');
        if (x->bytes_ms > 0)
            printf("  limit   the longer of %.3f ms for a step's bytes, %.3f ms for its multiply-adds\n",
                   x->bytes_ms, x->ops_ms);
        if (x->disk_gb_s > 0) print_disk(x);
    }
}

/* ---- kernels ---- */

static void print_kernel(void *user, const qs_bench_kernel *k) {
    form *f = user;
    if (f->json) {
        json_array_append_new(
            f->rows, json_pack("{s:s, s:s, s:I, s:I, s:I, s:f, s:s, s:f}", "kernel", k->kernel,
                               "isa", k->isa, "m", (json_int_t)k->m, "n", (json_int_t)k->n, "k",
                               (json_int_t)k->k, "value", k->value, "unit", k->unit, "share",
                               k->share));
    } else if (f->csv) {
        printf("%s,%s,%lld,%lld,%lld,%.2f,%s,%.4f\n", k->kernel, k->isa, (long long)k->m,
               (long long)k->n, (long long)k->k, k->value, k->unit, k->share);
    } else {
        char shape[96];
        if (k->k > 0)
            snprintf(shape, sizeof shape, "[%lld x %lld] x [%lld x %lld]", (long long)k->m,
                     (long long)k->k, (long long)k->k, (long long)k->n);
        else
            snprintf(shape, sizeof shape, "%lld", (long long)k->n);
        printf("%-7s %-16s %-28s %9.1f %-8s", k->isa, k->kernel, shape, k->value, k->unit);
        if (k->share > 0) printf(" %5.1f %%", k->share * 100);
        putchar('\n');
    }
    fflush(stdout);
}

static int bench_kernels(const qs_bench_opts *o, form *f) {
    qs_err err;
    if (f->json) f->rows = json_array();
    else if (f->csv) puts("kernel,isa,m,n,k,value,unit,share");
    qs_status st = qs_bench_kernels(o, print_kernel, f, &err);
    if (f->json && st == QS_OK) {
        json_t *all = json_pack("{s:O}", "kernels", f->rows);
        char *text = all != NULL ? json_dumps(all, JSON_REAL_PRECISION(6) | JSON_COMPACT) : NULL;
        if (text != NULL) puts(text);
        free(text);
        json_decref(all);
    }
    json_decref(f->rows);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

int cmd_bench(int argc, char **argv) {
    const char *model = NULL, *isa = NULL, *kv = NULL, *repack = NULL;
    int64_t prompt = 512, gen = 64, depth = 0, batch = 1, threads = 0, repeats = 5, train = 2048;
    uint64_t memory = 0;
    bool numa = false, mlock = false, exact = false;
    bool kernels = false, trained = true, terminal = isatty(STDERR_FILENO) != 0;
    form f = {0};
    const qsa_opt opts[] = {
        QSA_OPT_STR('m', "model", "FILE", &model, "GGUF; the default model when none is named"),
        QSA_OPT_INT('p', "prompt", "N", &prompt, 0, 1 << 20, "positions of the prefill test (512)"),
        QSA_OPT_INT('n', "gen", "N", &gen, 0, 1 << 20, "steps of the decode test (64)"),
        QSA_OPT_INT(0, "predict", "N", &gen, 0, 1 << 20, NULL), /* as the other commands call it */
        QSA_OPT_INT(0, "n-predict", "N", &gen, 0, 1 << 20, NULL),
        QSA_OPT_INT('d', "depth", "N", &depth, 0, 1 << 20, "positions in the cache before (0)"),
        QSA_OPT_INT('b', "batch", "N", &batch, 1, 4096, "sequences (1)"),
        QSA_KV_OPT(kv),
        QSA_OPT_INT(0, "train", "N", &train, 1, 1 << 20, "rows of the training test (2048)"),
        QSA_OPT_UNSET(0, "no-train", &trained, "leave the training test out"),
        QSA_MACHINE_OPTS(threads, isa, numa, mlock, memory),
        QSA_EXACT_OPT(exact),
        QSA_REPACK_OPT(repack),
        QSA_OPT_INT('r', "repeats", "N", &repeats, 1, 101, "of each test; the median counts (5)"),
        QSA_OPT_FLAG(0, "kernels", &kernels, "the kernels one by one, at every level"),
        QSA_OPT_FLAG(0, "json", &f.json, "print one JSON object"),
        QSA_OPT_FLAG(0, "csv", &f.csv, "print CSV"),
    };
    const qsa_cmd cmd = {
        .name = "bench",
        .synopsis = "[-m FILE] [--prompt N] [--gen N] [--depth N] [--batch N] [--json]",
        .about =
            "Measures what this machine can do (reading memory, multiply-adds of each kind), then\n"
            "prefill and decode of a model and a step of training beside it. share is the speed by\n"
            "what the limits allow; it may pass 1 where a small model stays in the caches.\n",
        .examples = "qiusuo bench\n"
                    "qiusuo bench -m model.gguf --depth 4096 --json\n"
                    "qiusuo bench --kernels --isa avx2 --csv\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .max_pos = 1,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (model == NULL && pos.n == 1) model = pos.v[0];
    else if (pos.n == 1) return qsa_usage(&cmd, "the model is named twice");
    if (f.json && f.csv) return qsa_usage(&cmd, "--json or --csv, not both");
    char path[4096], copies[4096 + 16];
    qs_err err;
    if (model == NULL && qs_default_model(path, sizeof path, NULL) == QS_OK) model = path;
    qs_bench_opts o;
    qs_bench_opts_init(&o, sizeof o);
    o.model = model != NULL && model != path ? qsa_model_path(model, path, sizeof path) : model;
    o.prompt = (int32_t)prompt;
    o.gen = (int32_t)gen;
    o.depth = (int32_t)depth;
    o.batch = (int32_t)batch;
    o.threads = (int32_t)threads;
    o.train = trained ? (int32_t)train : 0;
    o.repeats = (int32_t)repeats;
    o.isa = isa != NULL ? isa : getenv("QIUSUO_ISA");
    o.kv_type = qsa_kv_type(kv);
    o.numa = numa;
    o.mlock = mlock;
    o.memory_bytes = memory;
    o.exact = exact;
    o.repack_cache = qsa_repack_dir(repack, copies, sizeof copies);
    qs_log_set(qsa_log, NULL);
    qsa_interrupt_catch(true);
    if (kernels) return bench_kernels(&o, &f);
    o.progress = show;
    o.user = &terminal;
    qs_bench_report r;
    qs_status st = qs_bench(&o, &r, &err);
    if (terminal) fputs("\r\033[K", stderr);
    if (st != QS_OK) return qsa_fail(st, &err);
    if (f.json) return print_json(&r);
    if (f.csv) print_csv(&r);
    else print_text(&r);
    return QSA_EXIT_OK;
}
