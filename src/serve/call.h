/* One request to the API, from its bytes to its answer's bytes, without HTTP: what HTTP does with it is
 * http.c's business.
 *
 * A call is begun with the whole body. Its reply (status, headers, and a body or a stream of it)
 * becomes ready later: at once for what needs no model and for errors in the request, when the answer is
 * complete for whole ones, when the job was accepted for streamed ones. */
#ifndef QSI_SERVE_CALL_H
#define QSI_SERVE_CALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "infer/sched.h"
#include "serve/stream.h"

/* A model that serves. Reloading makes a new one; calls under way keep the old by their holds. */
typedef struct qsi_backend {
    atomic_int holds;
    void (*free_fn)(struct qsi_backend *b); /* when the last hold is given up */
    void *user;
    qsi_sched *sched;
    const qsi_vocab *vocab;
    const struct qsi_token_trie *trie;      /* infer/grammar.h */
    const qsi_chat_template *chat;          /* NULL: chat is refused, chat_why says why */
    const char *chat_why;
    const char *id;                         /* the model's name in the API */
    const char *alias;                      /* a second one it answers to; may be NULL */
    int64_t created;                        /* seconds since 1970 */
    int64_t n_ctx, n_ctx_train, n_params, n_bytes;
    int32_t n_vocab, d_model;
    bool can_think, can_choose;             /* the template reasons; it may be asked to or not */
    qsi_sampling sampling;                  /* the model's own defaults */
} qsi_backend;
void qsi_backend_hold(qsi_backend *b);
void qsi_backend_drop(qsi_backend *b);

typedef struct qsi_service {
    /* The backend of now, held for the caller; NULL while there is none (503). Any thread. */
    qsi_backend *(*backend)(void *user);
    void *user;
    size_t max_body;                        /* bytes */
    size_t max_stream;                      /* bytes that may wait for a slow reader */
    int64_t default_predict;                /* ids of an answer whose request names no limit; -1: none */
    int64_t max_wait_ns;                    /* a forecast beyond it is refused; 0: none */
    int64_t ping_ns;                        /* SSE comments while a prompt is computed */
    int64_t deadline_ns;                    /* longest that a request may take; 0: none */
} qsi_service;

typedef struct qsi_request { /* borrowed by begin */
    const char *method, *path;              /* path without the query */
    const char *body;
    size_t n_body;
    /* A header by its name (any case), NULL when there is none. */
    const char *(*header)(void *user, const char *name);
    void *user;
    uint64_t client;                        /* who asks: of the key, else of the address */
    const char *request_id;                 /* goes into X-Request-Id and the access log */
} qsi_request;

#define QSI_REPLY_HEADERS 8
typedef struct qsi_reply {
    int status;
    const char *content_type;               /* static */
    struct { const char *name; char value[128]; } headers[QSI_REPLY_HEADERS];
    size_t n_headers;
    qsi_str body;
    qsi_stream *stream;                     /* instead of body; who reads it leaves it */
    /* for the access log; filled by the time the stream ends or the body is there */
    int64_t n_prompt, n_cached, n_generated, queue_ns, first_ns;
} qsi_reply;

typedef struct qsi_api_call qsi_api_call;
/* Every path of the API that this part serves (static list, NULL at its end), for routing: with /v1
 * where it belongs to it; one that ends with * stands for all that begin so. A call to another path, or
 * with a method that a path does not take, answers 404 or 405 (with Allow) by itself; /v1 may be left
 * out, and a slash may stand at the end. */
const char *const *qsi_call_paths(void);
/* ready(user) is called exactly once, by any thread, perhaps before this returns (*c is set before). It
 * must neither wait nor drop the call.
 * Always succeeds but for memory (QS_E_NOMEM: ready is not called). */
qs_status qsi_call_begin(qsi_api_call **c, const qsi_service *s, const qsi_request *r,
                         void (*ready)(void *), void *user, qs_err *err) QS_MUST_CHECK;
/* After ready. */
qsi_reply *qsi_call_reply(qsi_api_call *c);
/* The client has gone, or everything was sent: cancels what still runs; no callback comes after this
 * returned. Who has left the stream sets the reply's `stream` to NULL before; else it is left here. Must
 * not be called under a lock that `ready` or the stream's `wake` takes. Copes with NULL. */
void qsi_call_drop(qsi_api_call *c);
/* Waits until every call is freed (all were dropped before), and ends the thread that they share; the
 * next call starts it anew. No call may begin meanwhile. */
void qsi_calls_end(void);
/* An error as a reply of the API's form for that path (OpenAI's object, Anthropic's, Ollama's). */
void qsi_reply_error(qsi_reply *r, const char *path, int status, const char *type, const char *code,
                     const char *param, const char *fmt, ...) QS_PRINTF(7, 8);

#endif
