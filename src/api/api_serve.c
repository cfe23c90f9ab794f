/* The server of the public API: a model, a scheduler and HTTP wired together; reloading; stopping.
 *
 * A served model stands behind a qsi_backend with holds. The last hold may be given up on any thread,
 * the scheduler's own among them, so what nobody holds any more goes to a list that the owner's loop
 * frees. */
#include "qiusuo/serve.h"

#include <string.h>
#include <time.h>

#include "api/api.h"
#include "base/log.h"
#include "base/mem.h"
#include "infer/grammar.h"
#include "infer/sched.h"
#include "serve/httpd.h"
#include "serve/notify.h"
#include "serve/page.h"
#include "sys/file.h"
#include "sys/futex.h"
#include "sys/thread.h"

void qs_serve_opts_init(qs_serve_opts *o, size_t size) {
    qs_serve_opts d = { .size = size, .host = "127.0.0.1", .port = 8080, .kv_type = QS_KV_F16,
                        .parallel = 32, .max_queue = 256, .prompt_cache_bytes = (uint64_t)1 << 30,
                        .default_predict = -1, .drain_s = 30, .max_connections = 256 };
    memset(o, 0, size);
    memcpy(o, &d, size < sizeof d ? size : sizeof d);
}

#ifdef QSI_HAVE_SERVE

enum { ORDER_STOP = 1, ORDER_NOW = 2, ORDER_RELOAD = 4, ORDER_SWEEP = 8 };

/* Servers of this process: with the last one the thread that all calls share ends. */
static atomic_int n_servers;

#define POLL_NS 20000000 /* how often the end of the last answers is looked for */

typedef struct served {
    qsi_backend b;
    struct qs_server *server;
    struct served *next;     /* of those that nobody holds */
    qs_model *model, *draft;
    qsi_model_runner runner, draft_runner;
    qsi_token_trie *trie;
} served;

struct qs_server {
    qs_serve_opts o;
    qsi_httpd *http;
    qsi_service service;
    qsi_call_part part;
    qsi_httpd_page page;
    qsi_monitor *m;
    served *now;             /* under the monitor */
    served *dead;            /* those that nobody holds */
    int32_t n_alive;         /* served models, those among them */
    _Atomic uint32_t orders;
    int32_t parallel;
    int64_t n_ctx, cache_tokens;
};

/* ---- a served model ---- */

static void served_free(served *v) {
    if (!v) return;
    qsi_sched_free(v->b.sched);
    qsi_model_runner_release(&v->runner);
    qsi_model_runner_release(&v->draft_runner);
    qsi_token_trie_release(v->trie);
    qs_model_close(&v->draft);
    qs_model_close(&v->model);
    qsi_free(v);
}

/* Nobody holds it: the owner's loop frees it. */
static void served_over(qsi_backend *b) {
    served *v = b->user;
    qs_server *s = v->server;
    qsi_monitor_lock(s->m);
    v->next = s->dead;
    s->dead = v;
    qsi_monitor_unlock(s->m);
    atomic_fetch_or(&s->orders, ORDER_SWEEP);
    qsi_futex_wake_all(&s->orders);
}

static void sweep(qs_server *s) {
    qsi_monitor_lock(s->m);
    served *v = s->dead;
    s->dead = NULL;
    qsi_monitor_unlock(s->m);
    while (v) {
        served *next = v->next;
        served_free(v);
        v = next;
        s->n_alive--;
    }
}

static void rest(qs_server *s) {
    qsi_monitor_lock(s->m);
    qsi_monitor_wait(s->m, qsi_now_ns() + POLL_NS);
    qsi_monitor_unlock(s->m);
}

/* Pages of the cache: as many as were asked for, else what all places need, or half of what memory is
 * free (of the memory allowed, where that is bounded). */
static qs_status plan_pages(const qs_server *s, const served *v, qsi_type type, int64_t n_ctx,
                            int64_t *pages, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = qsi_model_config(v->model->model);
    uint64_t room = qsi_model_cache_room(v->model->model);
    int64_t one = (n_ctx + QSI_KV_PAGE - 1) / QSI_KV_PAGE, fit = 0, least = one < 16 ? one : 16;
    *pages = s->o.cache_tokens > 0 ? (s->o.cache_tokens + QSI_KV_PAGE - 1) / QSI_KV_PAGE
                                   : one * s->o.parallel;
    if (room == UINT64_MAX) room = qsi_mem_available() / 2;
    QS_TRY(qsi_kv_fit(c, type, room, &fit, err));
    if (s->o.cache_tokens == 0 && *pages > fit) *pages = fit;
    if (*pages < least)
        QS_FAIL(err, QS_E_LIMIT, "the cache of conversations has room for %lld tokens: too little to "
                "serve (a smaller cache type, --cache-type q8_0, or fewer weights in memory)",
                (long long)(*pages * QSI_KV_PAGE));
done:
    return st;
}

/* What the bytes of cached prompts depend on, beside their shape. */
static uint64_t cache_key(const served *v, const qs_server *s) {
    const qs_model *m = v->model;
    uint64_t parts[8] = { (uint64_t)m->isa, (uint64_t)s->o.kv_type, (uint64_t)s->n_ctx,
                          s->o.model_opts ? (uint64_t)s->o.model_opts->exact : 0,
                          qsi_vocab_hash(m->tok.vocab), (uint64_t)s->o.exact_cache };
    uint64_t h = qsi_hash_seed(parts, sizeof parts, qsi_gguf_stamp(m->g));
    if (m->chat) h = qsi_hash_seed(qsi_chat_name(m->chat), strlen(qsi_chat_name(m->chat)), h);
    return h;
}

static qs_status open_model(const qs_server *s, const char *path, qs_model **m, qs_err *err) {
    qs_model_opts mo;
    qs_model_opts_init(&mo, sizeof mo);
    qsi_api_opts(&mo, sizeof mo, s->o.model_opts);
    mo.n_ctx = s->o.n_ctx;
    mo.kv_type = s->o.kv_type;
    if (mo.max_rows <= 0) mo.max_rows = 512;
    return qs_model_open(m, path, &mo, err);
}

static qs_status open_draft(const qs_server *s, served *v, qs_err *err) {
    qs_status st = QS_OK;
    if (!s->o.draft_model) goto done;
    QS_TRY(open_model(s, s->o.draft_model, &v->draft, err));
    if (qsi_vocab_hash(v->draft->tok.vocab) != qsi_vocab_hash(v->model->tok.vocab))
        QS_FAIL(err, QS_E_ARG, "'%s' cannot draft for '%s': their vocabularies differ",
                s->o.draft_model, s->o.model);
    int64_t pages = v->runner.runner.pages.n_pages;
    QS_TRY(qsi_model_runner_init_pages(&v->draft_runner, v->draft->model, v->runner.runner.n_ctx,
                                       QSI_F16, pages, err));
    v->draft_runner.file = v->draft->g;
done:
    return st;
}

static void describe(const qs_server *s, served *v) {
    const qs_model *m = v->model;
    const qsi_config *c = qsi_model_config(m->model);
    qs_gen_opts go;
    qsi_begin begin;
    int64_t active = 0;
    qs_gen_opts_init(&go, sizeof go, m);
    qsi_backend *b = &v->b;
    b->vocab = m->tok.vocab;
    b->trie = v->trie;
    b->chat = m->chat;
    b->chat_why = m->chat ? NULL : m->chat_err.text;
    b->id = s->o.alias ? s->o.alias : m->name;
    b->alias = s->o.alias ? m->name : NULL;
    b->created = (int64_t)time(NULL);
    b->n_ctx = v->runner.runner.n_ctx;
    b->n_ctx_train = c->n_ctx;
    b->n_params = qsi_config_params(c, &active);
    b->n_vocab = c->n_vocab;
    b->d_model = c->d_model;
    const qsi_map *map;
    for (size_t i = 0; (map = qsi_gguf_map(m->g, i)) != NULL; i++) b->n_bytes += (int64_t)map->size;
    if (m->chat) {
        bool on = qsi_chat_begin(m->chat, QSI_THINK_ON, &begin, NULL) == QS_OK;
        bool off = qsi_chat_begin(m->chat, QSI_THINK_OFF, &begin, NULL) == QS_OK;
        b->can_think = on;
        b->can_choose = on && off;
    }
    b->sampling = (qsi_sampling){ .temp = go.temp, .top_k = go.top_k, .top_p = go.top_p,
                                  .min_p = go.min_p, .repeat_penalty = go.repeat_penalty,
                                  .penalty_last_n = go.penalty_last_n };
}

static qs_status served_open(served **out, qs_server *s, qs_err *err) {
    qs_status st = QS_OK;
    qsi_type type = QSI_F16;
    int64_t pages = 0;
    served *v = qsi_calloc(1, sizeof *v);
    if (!v) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    v->server = s;
    v->b.user = v;
    v->b.free_fn = served_over;
    atomic_init(&v->b.holds, 1);
    QS_TRY(qsi_api_kv_type(s->o.kv_type, &type, err));
    QS_TRY(open_model(s, s->o.model, &v->model, err));
    int64_t n_ctx = s->o.n_ctx > 0 ? s->o.n_ctx : qsi_model_config(v->model->model)->n_ctx;
    QS_TRY(plan_pages(s, v, type, n_ctx, &pages, err));
    if (n_ctx > pages * QSI_KV_PAGE) n_ctx = pages * QSI_KV_PAGE;
    QS_TRY(qsi_model_runner_init_pages(&v->runner, v->model->model, n_ctx, type, pages, err));
    v->runner.file = v->model->g;
    QS_TRY(open_draft(s, v, err));
    QS_TRY(qsi_token_trie_create(&v->trie, v->model->tok.vocab, err));
    describe(s, v);
    s->n_ctx = n_ctx;
    s->cache_tokens = pages * QSI_KV_PAGE;
    qsi_sched_opts so = { .runner = &v->runner.runner, .vocab = v->b.vocab, .trie = v->trie,
                          .max_seqs = s->o.parallel, .max_queue = s->o.max_queue,
                          .exact_cache = s->o.exact_cache != 0,
                          .speculate = s->o.no_speculation ? QSI_SPECULATE_NEVER
                                                           : QSI_SPECULATE_PAYING,
                          .draft = v->draft ? &v->draft_runner.runner : NULL,
                          .cache_path = s->o.prompt_cache, .cache_bytes = s->o.prompt_cache_bytes };
    if (s->o.prompt_cache) so.cache_key = cache_key(v, s);
    QS_TRY(qsi_sched_create(&v->b.sched, &so, err));
    s->n_alive++;
    *out = v;
    v = NULL;
done:
    served_free(v);
    return st;
}

/* ---- the server ---- */

static qsi_backend *current(void *user) {
    qs_server *s = user;
    qsi_backend *b = NULL;
    qsi_monitor_lock(s->m);
    if (s->now) {
        b = &s->now->b;
        qsi_backend_hold(b);
    }
    qsi_monitor_unlock(s->m);
    return b;
}

static void replace(qs_server *s, served *v) {
    qsi_monitor_lock(s->m);
    served *old = s->now;
    s->now = v;
    qsi_monitor_unlock(s->m);
    if (old) qsi_backend_drop(&old->b);
}

static qs_status check(const qs_serve_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    if (!o->model) QS_FAIL(err, QS_E_ARG, "no model is named");
    if (o->parallel < 1 || o->parallel > 4096)
        QS_FAIL(err, QS_E_ARG, "%d answers at once: 1 to 4096 are possible", (int)o->parallel);
    if (o->max_queue < 0) QS_FAIL(err, QS_E_ARG, "a queue of %d", (int)o->max_queue);
    if (o->n_ctx < 0 || o->cache_tokens < 0)
        QS_FAIL(err, QS_E_ARG, "a context of %lld, a cache of %lld tokens", (long long)o->n_ctx,
                (long long)o->cache_tokens);
done:
    return st;
}

static qs_status listen_http(qs_server *s, qs_err *err) {
    const qs_serve_opts *o = &s->o;
    qsi_httpd_opts h;
    qsi_httpd_opts_init(&h);
    s->service = (qsi_service){ .backend = current, .user = s, .max_body = (size_t)8 << 20,
                                .max_stream = (size_t)4 << 20, .default_predict = o->default_predict,
                                .max_wait_ns = (int64_t)(o->max_wait_s * 1e9),
                                .ping_ns = INT64_C(5000000000),
                                .deadline_ns = (int64_t)(o->timeout_s * 1e9) };
    s->part = (qsi_call_part){ .paths = qsi_call_paths, .begin = qsi_call_begin,
                               .reply = qsi_call_reply, .drop = qsi_call_drop,
                               .error = qsi_reply_error, .let_go = qsi_backend_drop };
    s->page = (qsi_httpd_page){ .gzip = qsi_page_gzip, .plain = qsi_page, .n_gzip = qsi_page_gzip_bytes,
                          .n_plain = qsi_page_bytes, .csp = qsi_page_policy, .etag = qsi_page_etag };
    h.service = &s->service;
    h.part = &s->part;
    h.page = o->no_page ? NULL : &s->page;
    h.host = o->host;
    h.port = o->port;
    h.unix_path = o->unix_path;
    h.key_file = o->key_file;
    h.origins = o->origins;
    h.n_origins = o->n_origins;
    h.hosts = o->hosts;
    h.n_hosts = o->n_hosts;
    h.tls_cert = o->tls_cert;
    h.tls_key = o->tls_key;
    if (o->max_connections > 0) h.max_connections = o->max_connections;
    h.max_calls = o->parallel + o->max_queue;
    h.access_log = o->access_log;
    h.log_bodies = o->log_prompts != 0;
    return qsi_httpd_start(&s->http, &h, err);
}

qs_status qs_server_create(qs_server **out, const qs_serve_opts *opts, qs_err *err) {
    qs_status st = QS_OK;
    qs_server *s = qsi_calloc(1, sizeof *s);
    if (!s) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    atomic_fetch_add(&n_servers, 1);
    qs_serve_opts_init(&s->o, sizeof s->o);
    qsi_api_opts(&s->o, sizeof s->o, opts);
    QS_TRY(check(&s->o, err));
    QS_TRY(qsi_monitor_create(&s->m, err));
    QS_TRY(listen_http(s, err)); /* first: a busy port is known before minutes of loading */
    served *v = NULL;
    QS_TRY(served_open(&v, s, err));
    replace(s, v);
    *out = s;
    s = NULL;
done:
    qs_server_free(s);
    return st;
}

void qs_server_free(qs_server *s) {
    if (!s) return;
    qsi_httpd_free(s->http);
    if (s->m) {
        replace(s, NULL);
        sweep(s);
        while (s->n_alive > 0) { /* what was cancelled ends within a step */
            rest(s);
            sweep(s);
        }
    }
    if (atomic_fetch_sub(&n_servers, 1) == 1) qsi_calls_end();
    qsi_monitor_free(s->m);
    qsi_free(s);
}

static void reload(qs_server *s) {
    qs_err err = { 0 };
    served *v = NULL;
    qsi_notify(s->o.notify, "RELOADING=1");
    if (qsi_httpd_reopen(s->http, &err) != QS_OK)
        qsi_log(QSI_LOG_WARN, "the access log: %s", err.text);
    if (served_open(&v, s, &err) == QS_OK) {
        replace(s, v);
        qsi_log(QSI_LOG_NOTE, "the model was opened anew: %s", v->b.id);
    } else {
        qsi_log(QSI_LOG_WARN, "the model was not opened anew, the old one stays: %s", err.text);
    }
    qsi_notify(s->o.notify, "READY=1");
}

/* Answers under way may end. */
static void drain(qs_server *s) {
    int64_t end = qsi_now_ns() + (int64_t)(s->o.drain_s * 1e9);
    qsi_notify(s->o.notify, "STOPPING=1");
    qsi_httpd_drain(s->http);
    while (qsi_httpd_calls(s->http) > 0 && qsi_now_ns() < end &&
           !(atomic_load(&s->orders) & ORDER_NOW)) {
        rest(s);
        sweep(s);
    }
}

qs_status qs_server_run(qs_server *s, qs_err *err) {
    (void)err;
    qsi_notify(s->o.notify, "READY=1");
    for (;;) {
        uint32_t orders = atomic_load(&s->orders);
        if (orders & (ORDER_STOP | ORDER_NOW)) break;
        if (orders & ORDER_RELOAD) {
            atomic_fetch_and(&s->orders, ~(uint32_t)ORDER_RELOAD);
            reload(s);
        }
        if (orders & ORDER_SWEEP) {
            atomic_fetch_and(&s->orders, ~(uint32_t)ORDER_SWEEP);
            sweep(s);
        }
        if (atomic_load(&s->orders) == 0) qsi_futex_wait(&s->orders, 0);
    }
    drain(s);
    return QS_OK;
}

void qs_server_stop(qs_server *s) {
    uint32_t before = atomic_fetch_or(&s->orders, ORDER_STOP);
    if (before & ORDER_STOP) atomic_fetch_or(&s->orders, ORDER_NOW);
    qsi_futex_wake_all(&s->orders);
}

void qs_server_reload(qs_server *s) {
    atomic_fetch_or(&s->orders, ORDER_RELOAD);
    qsi_futex_wake_all(&s->orders);
}

const char *qs_server_address(const qs_server *s) { return qsi_httpd_address(s->http); }
int32_t qs_server_port(const qs_server *s) { return qsi_httpd_port(s->http); }
const char *qs_server_model(const qs_server *s) { return s->now ? s->now->b.id : ""; }
int64_t qs_server_n_ctx(const qs_server *s) { return s->n_ctx; }
int64_t qs_server_cache_tokens(const qs_server *s) { return s->cache_tokens; }
int32_t qs_server_parallel(const qs_server *s) { return s->o.parallel; }
int32_t qs_server_has_page(const qs_server *s) { return !s->o.no_page; }

#else /* built without libmicrohttpd */

qs_status qs_server_create(qs_server **s, const qs_serve_opts *o, qs_err *err) {
    (void)s, (void)o;
    return qsi_err_set(err, QS_E_UNSUPPORTED, "this program was built without libmicrohttpd, which a "
                       "server needs (libmicrohttpd-dev)");
}

qs_status qs_server_run(qs_server *s, qs_err *err) {
    (void)s;
    return qsi_err_set(err, QS_E_STATE, "there is no server");
}

void qs_server_stop(qs_server *s) { (void)s; }
void qs_server_reload(qs_server *s) { (void)s; }
void qs_server_free(qs_server *s) { (void)s; }
const char *qs_server_address(const qs_server *s) { return (void)s, ""; }
int32_t qs_server_port(const qs_server *s) { return (void)s, 0; }
const char *qs_server_model(const qs_server *s) { return (void)s, ""; }
int64_t qs_server_n_ctx(const qs_server *s) { return (void)s, 0; }
int64_t qs_server_cache_tokens(const qs_server *s) { return (void)s, 0; }
int32_t qs_server_parallel(const qs_server *s) { return (void)s, 0; }
int32_t qs_server_has_page(const qs_server *s) { return (void)s, 0; }

#endif
