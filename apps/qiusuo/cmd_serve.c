/* qiusuo serve: a model behind HTTP, for the clients of OpenAI, Anthropic and Ollama, and a page. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "gen_args.h"
#include "model_store.h"
#include "qiusuo/serve.h"
#include "ui.h"

typedef struct args {
    qsa_model_args model;
    const char *host, *unix_path, *key_file, *tls_cert, *tls_key, *alias, *draft, *prompt_cache;
    const char *access_log;
    int64_t port, parallel, max_queue, cache_tokens, max_connections, predict;
    uint64_t prompt_cache_size;
    double max_wait, timeout, drain;
    qsa_list origins, hosts;
    bool no_page, log_prompts, no_drafts, exact_cache;
} args;

/* ---- signals ---- */

static qs_server *server; /* what signals act on */

static void stop(void *user) {
    (void)user;
    if (server) qs_server_stop(server);
}

static void on_signal(int sig) {
    if (!server) return;
    if (sig == SIGHUP) qs_server_reload(server);
    else qs_server_stop(server);
}

static void catch_signals(bool on) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on ? on_signal : SIG_DFL;
    a.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGHUP, &a, NULL);
    qsa_interrupt_catch(on);
    qsa_interrupt_call(on ? stop : NULL, NULL);
}

/* ---- */

static void greet(const qs_serve_opts *o) {
    qsa_say("model %s, context %lld tokens, %d answers at once; the cache holds %lld tokens of all "
            "conversations", qs_server_model(server), (long long)qs_server_n_ctx(server),
            (int)qs_server_parallel(server), (long long)qs_server_cache_tokens(server));
    qsa_say("API: %s/v1%s", qs_server_address(server), o->key_file ? " (with a key)" : "");
    if (qs_server_has_page(server) && !o->unix_path)
        qsa_say("chat in a browser: %s", qs_server_address(server));
}

static int serve(const args *a, qs_serve_opts *o) {
    qs_err err = { 0 };
    char copies[4096 + 16];
    qs_model_opts mo;
    qsa_progress progress;
    qs_log_set(qsa_log, NULL);
    qsa_model_opts(&a->model, &mo, copies, sizeof copies);
    mo.user = &progress;
    o->model_opts = &mo;
    qsa_progress_begin(&progress, "loading", "B", 0);
    qs_status st = qs_server_create(&server, o, &err);
    qsa_progress_end(&progress);
    if (st != QS_OK) return qsa_fail(st, &err);
    catch_signals(true);
    greet(o);
    st = qs_server_run(server, &err);
    qs_server_free(server);
    server = NULL;
    catch_signals(false);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

static int check(const qsa_cmd *cmd, const args *a) {
    if ((a->tls_cert == NULL) != (a->tls_key == NULL))
        return qsa_usage(cmd, "--tls-cert and --tls-key go together");
    if (a->prompt_cache_size > 0 && a->prompt_cache == NULL)
        return qsa_usage(cmd, "--prompt-cache-size is for --prompt-cache FILE");
    return QSA_GO;
}

static void take(const args *a, qs_serve_opts *o) {
    o->alias = a->alias;
    o->n_ctx = a->model.ctx;
    o->kv_type = qsa_kv_type(a->model.kv);
    o->parallel = (int32_t)a->parallel;
    o->max_queue = (int32_t)a->max_queue;
    o->cache_tokens = a->cache_tokens;
    o->no_speculation = a->no_drafts;
    o->exact_cache = a->exact_cache;
    o->prompt_cache = a->prompt_cache;
    if (a->prompt_cache_size > 0) o->prompt_cache_bytes = a->prompt_cache_size;
    o->default_predict = a->predict;
    o->max_wait_s = a->max_wait;
    o->timeout_s = a->timeout;
    o->drain_s = a->drain;
    o->host = a->host;
    o->port = (int32_t)a->port;
    o->unix_path = a->unix_path;
    o->key_file = a->key_file;
    o->tls_cert = a->tls_cert;
    o->tls_key = a->tls_key;
    o->origins = a->origins.v;
    o->n_origins = a->origins.n;
    o->hosts = a->hosts.v;
    o->n_hosts = a->hosts.n;
    o->max_connections = (int32_t)a->max_connections;
    o->no_page = a->no_page;
    o->access_log = a->access_log;
    o->log_prompts = a->log_prompts;
    o->notify = getenv("NOTIFY_SOCKET");
}

int cmd_serve(int argc, char **argv) {
    args a = { .host = "127.0.0.1", .port = 8080, .parallel = 32, .max_queue = 256, .drain = 30,
               .max_connections = 256, .predict = -1 };
    const qsa_opt opts[] = {
        QSA_OPT_STR(0, "host", "ADDRESS", &a.host,
                    "address to listen at (127.0.0.1); beyond this machine only with --api-key-file"),
        QSA_OPT_INT(0, "port", "N", &a.port, 0, 65535, "port (8080; 0: any free one)"),
        QSA_OPT_STR(0, "unix", "PATH", &a.unix_path, "a Unix socket instead"),
        QSA_OPT_STR(0, "api-key-file", "FILE", &a.key_file,
                    "keys that requests must bring, a line each (# begins a comment)"),
        QSA_OPT_STR(0, "tls-cert", "FILE", &a.tls_cert, "certificate (PEM): HTTPS; with --tls-key"),
        QSA_OPT_STR(0, "tls-key", "FILE", &a.tls_key, "its key (PEM)"),
        QSA_OPT_LIST(0, "cors", "ORIGIN", &a.origins,
                     "web pages from ORIGIN may ask (https://example.org); may be repeated"),
        QSA_OPT_LIST(0, "allowed-host", "NAME", &a.hosts,
                     "requests without a key may name this host, besides localhost; may be repeated"),
        QSA_OPT_INT(0, "parallel", "N", &a.parallel, 1, 4096, "answers generated at once (32)"),
        QSA_OPT_INT(0, "np", "N", &a.parallel, 1, 4096, NULL),
        QSA_OPT_INT(0, "max-queue", "N", &a.max_queue, 0, 1000000,
                    "answers that wait beyond those (256); more are refused with 503"),
        QSA_OPT_COUNT(0, "cache-tokens", "N", &a.cache_tokens, 0, INT64_C(1) << 40,
                      "tokens of all conversations in the cache (0: what half of free memory holds)"),
        QSA_OPT_INT(0, "max-connections", "N", &a.max_connections, 1, 65536, "connections (256)"),
        QSA_PREDICT_OPT(a.predict, -1, "tokens of an answer whose request names no limit (-1: none)"),
        QSA_OPT_STR(0, "alias", "NAME", &a.alias, "the model's name in the API"),
        QSA_OPT_STR(0, "draft-model", "FILE", &a.draft,
                    "a small model of the same vocabulary that drafts, where that pays"),
        QSA_OPT_FLAG(0, "no-drafts", &a.no_drafts, "never feed guesses ahead of what is known"),
        QSA_OPT_FLAG(0, "exact-cache", &a.exact_cache,
                     "latent attention: compute earlier answers again instead of reusing their cache"),
        QSA_OPT_STR(0, "prompt-cache", "FILE", &a.prompt_cache,
                    "keep computed prompts in FILE over restarts"),
        QSA_OPT_SIZE(0, "prompt-cache-size", "SIZE", &a.prompt_cache_size, "its size at most (1G)"),
        QSA_OPT_NUM(0, "max-wait", "S", &a.max_wait, 0, 1e6,
                    "refuse requests that would wait longer for their first token (0: none)"),
        QSA_OPT_NUM(0, "timeout", "S", &a.timeout, 0, 1e6, "a request may take S seconds (0: any)"),
        QSA_OPT_NUM(0, "drain-seconds", "S", &a.drain, 0, 1e6,
                    "when stopped, answers under way may take S seconds (30)"),
        QSA_OPT_STR(0, "access-log", "FILE", &a.access_log,
                    "a JSON line a request to FILE (standard error; off: none)"),
        QSA_OPT_FLAG(0, "log-prompts", &a.log_prompts, "with what was asked"),
        QSA_OPT_FLAG(0, "no-page", &a.no_page, "no chat page at /"),
        QSA_MODEL_OPTS(a.model),
    };
    const qsa_cmd cmd = {
        .name = "serve",
        .synopsis = "[MODEL] [--port N] [--parallel N] [options]",
        .about = "Serves a model, or the default one, over HTTP: to the clients of OpenAI (/v1), of\n"
                 "Anthropic (/v1/messages) and of Ollama (/api), and to a browser at the same address.\n"
                 "Ctrl-C lets answers under way end; SIGHUP opens the model anew.\n",
        .examples = "qiusuo serve\n"
                    "qiusuo serve model.gguf --port 8000 --parallel 16 -c 8192\n"
                    "qiusuo serve model.gguf --host 0.0.0.0 --api-key-file keys --tls-cert c.pem "
                    "--tls-key k.pem\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof *opts,
        .max_pos = 1,
    };
    qsa_pos pos;
    qs_serve_opts o;
    qs_err err = { 0 };
    char path[4096], draft[4096];
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (a.model.model != NULL && pos.n == 1) return qsa_usage(&cmd, "the model is named twice");
    if (pos.n == 1) a.model.model = pos.v[0];
    rc = check(&cmd, &a);
    if (rc != QSA_GO) return rc;
    qs_serve_opts_init(&o, sizeof o);
    take(&a, &o);
    if (a.model.model != NULL) {
        o.model = qsa_model_path(a.model.model, path, sizeof path);
    } else {
        qs_status st = qs_default_model(path, sizeof path, &err);
        if (st != QS_OK) return qsa_fail(st, &err);
        o.model = path;
    }
    if (a.draft != NULL) o.draft_model = qsa_model_path(a.draft, draft, sizeof draft);
    return serve(&a, &o);
}
