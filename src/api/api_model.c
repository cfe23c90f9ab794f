/* Models of the public API: opening, description, ids of text, recommended sampling. */
#include <string.h>

#include "api/api.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/open_model.h"
#include "model/packed.h"
#include "op/op.h"
#include "sys/cpu.h"
#include "sys/file.h"
#include "sys/mapguard.h"

#define DEFAULT_ROWS 512
#define USUAL_CONTEXT 4096 /* what a limit of memory leaves room for when nobody asked */

void qsi_api_opts(void *full, size_t full_size, const void *o) {
    size_t size;
    if (!o) return;
    memcpy(&size, o, sizeof size);
    memcpy(full, o, size < full_size ? size : full_size);
}

/* Writes the defaults that fit into a struct of the caller's size. */
static void init_opts(void *o, size_t size, void *defaults, size_t full_size) {
    size_t n = size < full_size ? size : full_size;
    memset(o, 0, size);
    memcpy(defaults, &size, sizeof size);
    memcpy(o, defaults, n);
}

void qs_model_opts_init(qs_model_opts *o, size_t size) {
    qs_model_opts d = { 0 };
    init_opts(o, size, &d, sizeof d);
}

void qs_session_opts_init(qs_session_opts *o, size_t size) {
    qs_session_opts d = { .kv_type = QS_KV_F16 };
    init_opts(o, size, &d, sizeof d);
}

/* ---- recommended sampling --------------------------------------------------------------------- */

/* True and *out when the file has a usable number under the key. */
static bool read_number(const qsi_gguf *g, const char *key, double *out) {
    double v;
    int64_t i;
    if (qsi_gguf_f64(g, key, &v, NULL) != QS_OK) {
        if (qsi_gguf_i64(g, key, &i, NULL) != QS_OK) return false;
        v = (double)i;
    }
    *out = v;
    return true;
}

/* What the file recommends, in the words of llama.cpp's keys. Values that make no sense are left
 * out with a warning: they are advice, not structure. */
static void read_sampling(const qsi_gguf *g, qs_gen_opts *o) {
    qsi_sampling s;
    double v;
    qsi_sampling_default(&s);
    bool any = false;
    if (read_number(g, "general.sampling.temp", &v)) any = true, s.temp = v;
    if (read_number(g, "general.sampling.top_p", &v)) any = true, s.top_p = v;
    if (read_number(g, "general.sampling.min_p", &v)) any = true, s.min_p = v;
    if (read_number(g, "general.sampling.penalty_repeat", &v)) any = true, s.repeat_penalty = v;
    if (read_number(g, "general.sampling.top_k", &v) && v >= 0 && v < 1e9)
        any = true, s.top_k = (int32_t)v;
    if (read_number(g, "general.sampling.penalty_last_n", &v) && v >= -1 && v < 1e9)
        any = true, s.penalty_last_n = (int32_t)v;
    qs_err why;
    if (!any) return;
    if (qsi_sampling_check(&s, 1, &why) != QS_OK) {
        qsi_log(QSI_LOG_WARN, "the file's general.sampling.* is not used: %s", why.text);
        return;
    }
    o->temp = s.temp;
    o->top_k = s.top_k;
    o->top_p = s.top_p;
    o->min_p = s.min_p;
    o->repeat_penalty = s.repeat_penalty;
    o->penalty_last_n = s.penalty_last_n;
}

void qs_gen_opts_init(qs_gen_opts *o, size_t size, const qs_model *m) {
    qsi_sampling s;
    qsi_sampling_default(&s);
    qs_gen_opts d = { .temp = s.temp, .top_p = s.top_p, .min_p = s.min_p, .top_k = s.top_k,
                      .repeat_penalty = s.repeat_penalty, .penalty_last_n = s.penalty_last_n,
                      .seed = -1, .n_predict = -1 };
    if (m) read_sampling(m->g, &d);
    init_opts(o, size, &d, sizeof d);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static char *copy_slice(const char *p, size_t n) {
    char *z = qsi_alloc(n + 1, 1);
    if (!z) return NULL;
    memcpy(z, p, n);
    z[n] = 0;
    return z;
}

/* The text under a key, or `fallback`. */
static qs_status text_of(const qsi_gguf *g, const char *key, const char *fallback, char **out,
                         qs_err *err) {
    qs_status st = QS_OK;
    qsi_slice s = { fallback, strlen(fallback) };
    if (qsi_gguf_str(g, key, &s, NULL) != QS_OK) s = (qsi_slice){ fallback, strlen(fallback) };
    *out = copy_slice(s.p, s.n);
    if (!*out) QS_FAIL(err, QS_E_NOMEM, "out of memory");
done:
    return st;
}

static qs_status read_tasks(qs_model *m, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv = qsi_gguf_find(m->g, "qiusuo.tasks");
    if (!kv || kv->type != QSI_GV_ARR || kv->elem != QSI_GV_STR || kv->count > 64) goto done;
    m->tasks = qsi_calloc((size_t)kv->count, sizeof *m->tasks);
    if (!m->tasks) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    for (uint64_t i = 0; i < kv->count; i++) {
        qsi_slice s = qsi_gguf_arr_str(kv, i);
        m->tasks[i] = copy_slice(s.p, s.n);
        if (!m->tasks[i]) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        m->n_tasks++;
    }
done:
    return st;
}

/* Name, architecture, template: what can be said of any file with a vocabulary. */
static qs_status describe(qs_model *m, const char *path, const char *chat_template, qs_err *err) {
    qs_status st = QS_OK;
    bool guessed = false;
    const char *base = strrchr(path, '/');
    m->path = qsi_strdup(path);
    if (!m->path) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(text_of(m->g, "general.name", base ? base + 1 : path, &m->name, err));
    QS_TRY(text_of(m->g, "general.architecture", "", &m->arch, err));
    QS_TRY(read_tasks(m, err));
    if ((chat_template ? qsi_chat_by_name(&m->chat, chat_template, &m->chat_err)
                       : qsi_chat_find(&m->chat, m->tok.vocab, m->arch, &guessed,
                                       &m->chat_err)) != QS_OK)
        m->chat = NULL;
    m->guessed_template = m->tell_template = m->chat && guessed;
done:
    return st;
}

qs_status qsi_api_pool(qsi_pool **pool, int32_t threads, bool numa, qs_err *err) {
    qs_status st = QS_OK;
    if (!numa) return qsi_pool_create(pool, threads, err);
    QS_TRY(qsi_pool_create_numa(pool, threads, err));
    if (qsi_pool_nodes(*pool) == 1)
        qsi_log(QSI_LOG_NOTE, "this machine has one NUMA node: --numa changes nothing");
done:
    return st;
}

qs_status qsi_api_packed_path(qsi_str *out, const char *folder, const char *model, bool exact,
                              qs_err *err) {
    if (folder == NULL) return QS_OK;
    if (!qsi_path_is_dir(model)) return qsi_packed_path(out, folder, model, exact, err);
    qsi_log(QSI_LOG_NOTE, "no repacked copy of a folder is kept: convert it to a GGUF file first "
            "(qiusuo convert)");
    return QS_OK;
}

/* Bytes of the cache that sessions will have. */
static qs_status cache_bytes(const qs_model *m, const qs_model_opts *o, uint64_t *bytes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_type type = QSI_F16;
    qsi_config c;
    *bytes = 0;
    QS_TRY(qsi_api_kv_type(o->kv_type, &type, err));
    if (!o->memory_bytes) goto done;
    QS_TRY(qsi_config_from_gguf(&c, m->g, err));
    QS_TRY(qsi_config_check(&c, err));
    int64_t n = o->n_ctx > 0 ? o->n_ctx : qsi_min64(c.n_ctx, USUAL_CONTEXT);
    QS_TRY(qsi_kv_need(&c, type, qsi_ceil_div(n, QSI_KV_PAGE), bytes, err));
done:
    return st;
}

static qs_status load_weights(qs_model *m, const qs_model_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str copy = {0};
    if (qsi_gguf_n_tensors(m->g) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights: it can be described "
                "(info) and can tokenize, but not run", m->path);
    QS_TRY(qsi_api_packed_path(&copy, o->repack_cache, m->path, o->exact != 0, err));
    QS_TRY(qsi_api_pool(&m->pool, o->threads, o->numa != 0, err));
    qsi_model_opts mo = { .pool = m->pool, .isa = m->isa, .progress = o->progress, .user = o->user,
                          .max_rows = o->max_rows > 0 ? o->max_rows : DEFAULT_ROWS,
                          .memory_bytes = o->memory_bytes, .n_ctx = o->n_ctx,
                          .rope_scaling = o->rope_scaling, .rope_factor = o->rope_factor,
                          .exact = o->exact != 0, .mtp = o->mtp != 0, .packed_path = copy.data };
    QS_TRY(cache_bytes(m, o, &mo.cache_bytes, err));
    mo.cache_yields = o->n_ctx == 0;
    st = qsi_model_open(&m->model, m->g, &mo, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot run '%s'", m->path);
        goto done;
    }
    int32_t n_model = qsi_model_config(m->model)->n_vocab, n_vocab = qsi_vocab_size(m->tok.vocab);
    if (n_vocab > n_model)
        QS_FAIL(err, QS_E_FORMAT, "cannot run '%s': its vocabulary has %d tokens, its weights only "
                "%d rows for them", m->path, (int)n_vocab, (int)n_model);
done:
    qsi_str_release(&copy);
    return st;
}

qs_status qs_model_open(qs_model **out, const char *path, const qs_model_opts *opts, qs_err *err) {
    qs_status st = QS_OK;
    qs_model_opts o;
    qs_model_opts_init(&o, sizeof o);
    qsi_api_opts(&o, sizeof o, opts);
    qs_model *m = qsi_calloc(1, sizeof *m);
    if (!m) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (o.mlock && o.memory_bytes > 0)
        QS_FAIL(err, QS_E_ARG, "--mlock keeps all weights in memory, --memory does not: give one");
    if (o.threads < 0) QS_FAIL(err, QS_E_ARG, "%d threads: 0 (all) or a number", (int)o.threads);
    QS_TRY(qsi_isa_parse(o.isa ? o.isa : "auto", &m->isa, err));
    QS_TRY(qsi_files_open_model_progress(path, &m->g, o.progress, o.user, err));
    st = qsi_vocab_load_gguf(&m->tok.vocab, m->g, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot use '%s'", path);
        goto done;
    }
    QS_TRY(describe(m, path, o.chat_template, err));
    if (!o.vocab_only) QS_TRY(load_weights(m, &o, err));
    QS_TRY(qsi_gguf_intact(m->g, err));
    if (o.mlock && !o.vocab_only) {
        QS_TRY(qsi_mem_lock(err));
        m->locked = true;
    }
    *out = m;
    m = NULL;
done:
    qs_model_close(&m);
    return st;
}

void qs_model_close(qs_model **pm) {
    qs_model *m = pm ? *pm : NULL;
    if (!m) return;
    *pm = NULL;
    if (m->locked) qsi_mem_unlock();
    qsi_model_close(&m->model);
    qsi_pool_free(m->pool);
    qsi_vocab_free(m->tok.vocab);
    qsi_gguf_close(&m->g);
    for (size_t i = 0; i < m->n_tasks; i++) qsi_free(m->tasks[i]);
    qsi_free(m->tasks);
    qsi_free(m->path);
    qsi_free(m->name);
    qsi_free(m->arch);
    qsi_free(m);
}

/* ---- description ------------------------------------------------------------------------------ */

const char *qs_model_path(const qs_model *m) { return m->path; }
const char *qs_model_name(const qs_model *m) { return m->name; }
const char *qs_model_arch(const qs_model *m) { return m->arch; }
const char *qs_model_isa(const qs_model *m) { return qsi_isa_name(m->isa); }
int32_t qs_model_threads(const qs_model *m) { return m->pool ? qsi_pool_size(m->pool) : 0; }

int64_t qs_model_n_ctx(const qs_model *m) {
    return m->model ? qsi_model_config(m->model)->n_ctx : 0;
}

int32_t qs_model_n_vocab(const qs_model *m) {
    return m->model ? qsi_model_config(m->model)->n_vocab : qsi_vocab_size(m->tok.vocab);
}

int64_t qs_model_n_params(const qs_model *m) {
    int64_t active;
    return m->model ? qsi_config_params(qsi_model_config(m->model), &active) : 0;
}

const char *qs_model_task(const qs_model *m, int32_t i) {
    return i >= 0 && (size_t)i < m->n_tasks ? m->tasks[i] : NULL;
}

const qs_tokenizer *qs_model_tokenizer(const qs_model *m) { return &m->tok; }

const char *qs_model_template(const qs_model *m) {
    return m->chat ? qsi_chat_name(m->chat) : NULL;
}

/* ---- log -------------------------------------------------------------------------------------- */

static qs_log_fn *log_fn;

static void forward_log(void *user, qsi_log_level level, const char *text) {
    if (log_fn) log_fn(user, level == QSI_LOG_WARN, text);
}

void qs_log_set(qs_log_fn *fn, void *user) {
    log_fn = fn;
    qsi_log_set(fn ? forward_log : NULL, user);
}

/* ---- faults of mapped files ------------------------------------------------------------------- */

qs_status qs_catch_file_faults(qs_err *err) { return qsi_fault_catch(err); }

qs_status qs_files_intact(qs_err *err) { return qsi_maps_intact(err); }
