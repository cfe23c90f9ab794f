/* A server: a model behind the APIs that OpenAI's, Anthropic's and Ollama's clients speak, and a
 * page to chat with in a browser. Unstable until 1.0.
 *
 * A server is created (the model is opened, the address taken), run until it is stopped, and freed.
 * Thread: one owner, but for stop and reload. */
#ifndef QIUSUO_SERVE_H
#define QIUSUO_SERVE_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/qiusuo.h"
#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Everything is borrowed until qs_server_free: the model is opened again from it when it is
 * reloaded. */
typedef struct qs_serve_opts {
    size_t size;               /* set by init */
    /* the model */
    const char *model;         /* GGUF file or Hugging Face folder */
    const qs_model_opts *model_opts; /* NULL: defaults */
    const char *alias;         /* its name in the API; NULL: the model's own */
    const char *draft_model;   /* a small model of the same vocabulary that drafts; NULL: none */
    int64_t n_ctx;             /* tokens of one conversation; 0: the model's context */
    int32_t kv_type;           /* QS_KV_* */
    int32_t parallel;          /* answers that are generated at once. Default 32 */
    int32_t max_queue;         /* answers that wait beyond those. Default 256 */
    int64_t cache_tokens;      /* of all conversations together; 0: parallel times n_ctx, or what half of
                                  the free memory holds */
    int32_t no_speculation;    /* non-zero: no drafts */
    int32_t exact_cache;       /* non-zero: with latent attention, earlier answers are computed again as
                                  prompts instead of taken as they were generated (they differ by
                                  rounding) */
    const char *prompt_cache;  /* file in which computed prompts outlive the server; NULL: none */
    uint64_t prompt_cache_bytes; /* its size at most. Default 1 GiB */
    int64_t default_predict;   /* tokens of an answer when the request names no limit; -1: no limit */
    double max_wait_s;         /* requests that would wait longer are refused; 0: none. Default 0 */
    double timeout_s;          /* a request may take so long; 0: no limit. Default 0 */
    double drain_s;            /* what is under way may take so long when the server is stopped.
                                  Default 30 */
    /* the address */
    const char *host;          /* default "127.0.0.1" */
    int32_t port;              /* default 8080; 0: any free one */
    const char *unix_path;     /* a Unix socket instead; NULL: none */
    const char *key_file;      /* API keys, a line each; required for an address beyond loopback */
    const char *tls_cert, *tls_key; /* PEM files; both or none */
    const char *const *origins; /* web pages of other origins that may ask (CORS); none by default */
    size_t n_origins;
    const char *const *hosts;  /* names in Host: that are let in without a key, besides loopback's */
    size_t n_hosts;
    int32_t max_connections;   /* default 256 */
    int32_t no_page;           /* non-zero: no page at "/" */
    const char *access_log;    /* a JSON line a request; NULL: standard error, "off": none */
    int32_t log_prompts;       /* non-zero: with what was asked */
    const char *notify;        /* address of systemd's socket ($NOTIFY_SOCKET); NULL: none */
} qs_serve_opts;
QS_API void qs_serve_opts_init(qs_serve_opts *o, size_t size);

typedef struct qs_server qs_server;
/* Opens the model and listens. Errors name the file, the address or the setting. QS_E_UNSUPPORTED:
 * built without libmicrohttpd. */
QS_API qs_status qs_server_create(qs_server **s, const qs_serve_opts *o, qs_err *err) QS_MUST_CHECK;
/* Serves until it is stopped: then what is under way may end (drain_s), and computed prompts are
 * kept. */
QS_API qs_status qs_server_run(qs_server *s, qs_err *err) QS_MUST_CHECK;
/* Any thread, signal handlers. A second stop does not wait for what is under way. */
QS_API void qs_server_stop(qs_server *s);
/* Opens the model anew, for requests from then on; those under way go on with the old one. A model
 * that does not open is a warning in the log, and the old one stays. The access log is opened anew
 * too. Any thread, signal handlers. */
QS_API void qs_server_reload(qs_server *s);
QS_API void qs_server_free(qs_server *s);

QS_API const char *qs_server_address(const qs_server *s); /* "http://127.0.0.1:8080" */
QS_API int32_t qs_server_port(const qs_server *s);
QS_API const char *qs_server_model(const qs_server *s);   /* its name in the API */
QS_API int64_t qs_server_n_ctx(const qs_server *s);
QS_API int64_t qs_server_cache_tokens(const qs_server *s);
QS_API int32_t qs_server_parallel(const qs_server *s);
QS_API int32_t qs_server_has_page(const qs_server *s);

#ifdef __cplusplus
}
#endif
#endif
