/* Planning, for the public API. */
#include <string.h>

#include "api/api.h"
#include "files/open_model.h"
#include "measure/forecast.h"
#include "qiusuo/measure.h"

static const qs_plan_opts defaults = {.size = sizeof(qs_plan_opts), .tmp = "/tmp"};

/* Types of cache in the order they are shown. */
static const struct { const char *name; int32_t type; } caches[] = {
    {"f16", QS_KV_F16}, {"bf16", QS_KV_BF16}, {"q8_0", QS_KV_Q8_0}, {"q4_0", QS_KV_Q4_0},
    {"f32", QS_KV_F32},
};
_Static_assert(QSI_COUNT(caches) < QS_PLAN_CACHES, "the last one's name is NULL");

void qs_plan_opts_init(qs_plan_opts *o, size_t size) {
    qs_plan_opts d = defaults;
    memset(o, 0, size);
    d.size = size;
    memcpy(o, &d, size < sizeof d ? size : sizeof d);
}

static void copy_text(char *out, size_t cap, const char *p, size_t n) {
    if (n >= cap) n = cap - 1;
    memcpy(out, p, n);
    out[n] = '\0';
}

static qs_status publish(const qsi_gguf *g, const qsi_forecast *f, qs_plan_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config c;
    qsi_slice name = {0};
    QS_TRY(qsi_config_from_gguf(&c, g, err));
    if (qsi_gguf_str(g, "general.name", &name, NULL) != QS_OK) {
        const char *path = qsi_gguf_path(g), *slash = strrchr(path, '/');
        name.p = slash != NULL ? slash + 1 : path;
        name.n = strlen(name.p);
    }
    copy_text(out->model_name, sizeof out->model_name, name.p, name.n);
    const char *arch = qsi_arch_name(c.arch);
    copy_text(out->model_arch, sizeof out->model_arch, arch, strlen(arch));
    out->n_params = qsi_config_params(&c, &out->n_active);
    out->n_ctx = f->n_ctx;
    out->n_ctx_train = c.n_ctx;
    out->weight_bytes = f->weight_bytes;
    out->cache_bytes = f->cache_bytes;
    out->scratch_bytes = f->scratch_bytes;
    out->available_bytes = f->available;
    out->fits = f->fits;
    out->from_disk = f->from_disk;
    out->disk_gb_s = f->disk_gb_s;
    out->disk_token_bytes = f->disk_token_bytes;
    out->disk_away_bytes = f->disk_away_bytes;
    for (size_t i = 0; i < QSI_COUNT(caches); i++) {
        qsi_type t = QSI_F16;
        QS_TRY(qsi_api_kv_type(caches[i].type, &t, err));
        out->caches[i] = (qs_plan_cache){caches[i].name, qsi_forecast_cache_bytes(&c, t),
                                         qsi_forecast_ctx(f, &c, t)};
    }
    out->prefill_tok_s = f->prefill_tok_s;
    out->decode_tok_s = f->decode_tok_s;
    out->deep_tok_s = f->deep_tok_s;
    out->read_gb_s = f->limits.read_gb_s;
    out->int8_gop_s = f->limits.int8_gop_s;
    out->bf16_gflop_s = f->limits.bf16_gflop_s;
    out->fp32_gflop_s = f->limits.fp32_gflop_s;
done:
    return st;
}

qs_status qs_plan(const qs_plan_opts *opts, qs_plan_report *out, qs_err *err) {
    qs_status st = QS_OK;
    qs_plan_opts o = defaults;
    qs_plan_report r = {0};
    qsi_forecast f;
    qsi_gguf *g = NULL;
    qsi_pool *pool = NULL;
    qsi_isa isa;
    qsi_api_opts(&o, sizeof o, opts);
    if (o.model == NULL) QS_FAIL(err, QS_E_ARG, "no model is named");
    if (o.n_ctx < 0) QS_FAIL(err, QS_E_ARG, "a context of %lld", (long long)o.n_ctx);
    qsi_forecast_opts in = {.n_ctx = o.n_ctx, .memory_bytes = o.memory_bytes,
                            .tmp = o.tmp != NULL ? o.tmp : "/tmp", .progress = o.progress,
                            .user = o.user};
    QS_TRY(qsi_api_kv_type(o.kv_type, &in.kv_type, err));
    QS_TRY(qsi_isa_parse(o.isa != NULL ? o.isa : "auto", &isa, err));
    QS_TRY(qsi_files_open_model(o.model, &g, err));
    if (qsi_gguf_n_tensors(g) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights", o.model);
    QS_TRY(qsi_pool_create(&pool, o.threads, err));
    QS_TRY(qsi_forecast_make(&in, g, pool, isa, &f, err));
    r.threads = qsi_pool_size(pool);
    r.isa = qsi_isa_name(isa);
    QS_TRY(publish(g, &f, &r, err));
    *out = r;
done:
    qsi_pool_free(pool);
    qsi_gguf_close(&g);
    return st;
}
