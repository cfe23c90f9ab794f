/* plan: what of a model will fit this machine, and how fast it will be. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <jansson.h>

#include "args.h"
#include "commands.h"
#include "gen_args.h"
#include "model_store.h"
#include "qiusuo/measure.h"
#include "ui.h"

static int show(void *user, const char *what) {
    const bool *terminal = user;
    if (*terminal) fprintf(stderr, "\r\033[K%s", what);
    return qsa_interrupted();
}

static json_t *speed(double x) { return x > 0 ? json_real(x) : json_null(); }

static int print_json(const qs_plan_report *r) {
    json_t *caches = json_array();
    for (const qs_plan_cache *c = r->caches; c->type != NULL; c++)
        json_array_append_new(caches, json_pack("{s:s, s:f, s:I}", "type", c->type, "pos_bytes",
                                                c->pos_bytes, "n_ctx", (json_int_t)c->n_ctx));
    json_t *all = json_pack(
        "{s:{s:s, s:s, s:I, s:I, s:I}, s:{s:i, s:s, s:f, s:f, s:f, s:f}, "
        "s:{s:b, s:I, s:I, s:I, s:I, s:I}, s:o, s:{s:o, s:o, s:o}}",
        "model", "name", r->model_name, "arch", r->model_arch, "params", (json_int_t)r->n_params,
        "active", (json_int_t)r->n_active, "n_ctx_train", (json_int_t)r->n_ctx_train, "machine",
        "threads", (int)r->threads, "isa", r->isa, "read_gb_s", r->read_gb_s, "int8_gop_s",
        r->int8_gop_s, "bf16_gflop_s", r->bf16_gflop_s, "fp32_gflop_s", r->fp32_gflop_s, "memory",
        "fits", (int)r->fits, "n_ctx", (json_int_t)r->n_ctx, "weight_bytes",
        (json_int_t)r->weight_bytes, "cache_bytes", (json_int_t)r->cache_bytes, "scratch_bytes",
        (json_int_t)r->scratch_bytes, "available_bytes", (json_int_t)r->available_bytes, "caches",
        caches, "speed", "prefill_tok_s", speed(r->prefill_tok_s), "decode_tok_s",
        speed(r->decode_tok_s), "deep_tok_s", speed(r->deep_tok_s));
    if (all != NULL && r->from_disk)
        json_object_set_new(all, "disk", json_pack("{s:f, s:f, s:f}", "read_gb_s", r->disk_gb_s,
                                                   "token_bytes", r->disk_token_bytes, "away_bytes",
                                                   r->disk_away_bytes));
    char *text = all != NULL ? json_dumps(all, JSON_REAL_PRECISION(6) | JSON_COMPACT) : NULL;
    if (text != NULL) puts(text);
    else qsa_say("out of memory");
    json_decref(all);
    int rc = text != NULL ? QSA_EXIT_OK : QSA_EXIT_FAILED;
    free(text);
    return rc;
}

/* Tokens a second: two places where there is less than ten. */
static const char *tok_s(char *buf, size_t n, double x) {
    snprintf(buf, n, x < 10 ? "%.2f" : "%.1f", x);
    return buf;
}

static void print_fit(const qs_plan_report *r) {
    char a[32], b[32];
    if (r->fits) printf("          fits\n");
    else if (r->from_disk)
        printf("          does not fit: --memory %lluM reads the rest from disk\n",
               (unsigned long long)(r->available_bytes >> 20));
    else if (r->caches[0].n_ctx > 0)
        printf("          does not fit with this context: a smaller one does (-c), see below\n");
    else printf("          does not fit: --memory SIZE runs it from disk, more slowly\n");
    if (r->from_disk)
        printf("disk      %.2f GB/s: a token reads %s; %s of weights do not stay in memory\n",
               r->disk_gb_s, qsa_format_size(a, sizeof a, (uint64_t)r->disk_token_bytes),
               qsa_format_size(b, sizeof b, (uint64_t)r->disk_away_bytes));
}

static void print_text(const qs_plan_report *r) {
    char a[32], b[32], c[32], d[32];
    printf("model     %s, %s: %s weights, %s of them a token\n", r->model_name, r->model_arch,
           qsa_format_count(a, sizeof a, (double)r->n_params),
           qsa_format_count(b, sizeof b, (double)r->n_active));
    printf("memory    weights %s, cache %s for %lld tokens, scratch %s; %s available\n",
           qsa_format_size(a, sizeof a, r->weight_bytes),
           qsa_format_size(b, sizeof b, r->cache_bytes), (long long)r->n_ctx,
           qsa_format_size(c, sizeof c, r->scratch_bytes),
           qsa_format_size(d, sizeof d, r->available_bytes));
    print_fit(r);
    for (const qs_plan_cache *x = r->caches; x->type != NULL; x++)
        printf("context   %-5s cache: %lld tokens fit%s\n", x->type, (long long)x->n_ctx,
               x->n_ctx > r->n_ctx_train ? ", more than the model was trained on" : "");
    printf("machine   %d threads, %s: read %.1f GB/s, int8 %.0f GOP/s, bf16 %.0f GFLOP/s, fp32 %.0f "
           "GFLOP/s\n",
           (int)r->threads, r->isa, r->read_gb_s, r->int8_gop_s, r->bf16_gflop_s, r->fp32_gflop_s);
    if (r->prefill_tok_s <= 0) {
        printf("speed     not tried: too little memory for a few layers\n");
        return;
    }
    printf("speed     prefill about %s tokens/s, decode about %s, %s with the context full%s\n",
           tok_s(a, sizeof a, r->prefill_tok_s), tok_s(b, sizeof b, r->decode_tok_s),
           tok_s(c, sizeof c, r->deep_tok_s),
           r->from_disk ? ", from disk" : r->fits || r->caches[0].n_ctx > 0 ? "" :
           " (if it were in memory)");
}

int cmd_plan(int argc, char **argv) {
    const char *model = NULL, *isa = NULL, *kv = NULL, *tmp = getenv("TMPDIR");
    int64_t ctx = 0, threads = 0;
    uint64_t memory = 0;
    bool json = false, terminal = isatty(STDERR_FILENO) != 0;
    const qsa_opt opts[] = {
        QSA_OPT_STR('m', "model", "FILE", &model, "the model (or name it without -m)"),
        QSA_OPT_INT('c', "ctx-size", "N", &ctx, 0, 16777216, "context in tokens (0: the model's)"),
        QSA_KV_OPT(kv),
        QSA_OPT_SIZE(0, "memory", "SIZE", &memory, "memory to plan with, 12G (what is available)"),
        QSA_OPT_INT('t', "threads", "N", &threads, 0, 1024, "threads (0: the physical cores)"),
        QSA_OPT_STR(0, "isa", "LEVEL", &isa, QSA_ISA_HELP),
        QSA_OPT_FLAG(0, "json", &json, "print one JSON object"),
    };
    const qsa_cmd cmd = {
        .name = "plan",
        .synopsis = "MODEL [-c N] [--cache-type T] [--memory SIZE] [--json]",
        .about =
            "Says what of a model fits this machine's memory, the longest context, and the speed to\n"
            "expect. Only the model's header is read; for the speed, a few layers of its shapes and\n"
            "types are tried with made-up weights, which takes some seconds.\n",
        .examples = "qiusuo plan model.gguf\n"
                    "qiusuo plan model.gguf -c 32768 --memory 12G --json\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .max_pos = 1,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (model != NULL && pos.n == 1) return qsa_usage(&cmd, "the model is named twice");
    if (pos.n == 1) model = pos.v[0];
    if (model == NULL) return qsa_usage(&cmd, "which model?");
    qs_plan_opts o;
    char stored[4096];
    qs_plan_report r;
    qs_err err = {0};
    qs_plan_opts_init(&o, sizeof o);
    o.model = qsa_model_path(model, stored, sizeof stored);
    o.n_ctx = ctx;
    o.kv_type = qsa_kv_type(kv);
    o.threads = (int32_t)threads;
    o.isa = isa != NULL ? isa : getenv("QIUSUO_ISA");
    o.memory_bytes = memory;
    if (tmp != NULL && tmp[0] != '\0') o.tmp = tmp;
    o.progress = show;
    o.user = &terminal;
    qs_log_set(qsa_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_plan(&o, &r, &err);
    if (terminal) fputs("\r\033[K", stderr);
    if (st != QS_OK) return qsa_fail(st, &err);
    if (json) return print_json(&r);
    print_text(&r);
    return QSA_EXIT_OK;
}
