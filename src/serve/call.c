/* Calls: see call.h and call_impl.h. From the bytes of a request to its endpoint, and the life of what
 * comes of it. Who frees a call is always the chores' thread: the last hold may be given up on the
 * scheduler's, and with the call perhaps goes the model that this thread serves. */
#include "serve/call_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sys/file.h"

#define MAX_VALUES ((size_t)1 << 20) /* of a request's JSON; a prompt's ids are values */

static const qsi_endpoint endpoints[] = {
    { "/v1/chat/completions", true, qsi_chat_completions },
    { "/v1/completions", true, qsi_text_completions },
    { "/v1/responses", true, qsi_responses },
    { "/v1/embeddings", true, qsi_embeddings },
    { "/v1/models", false, qsi_models },
    { "/v1/models/*", false, qsi_model_one },
    { "/v1/messages", true, qsi_messages },
    { "/v1/messages/count_tokens", true, qsi_count_tokens },
    { "/tokenize", true, qsi_tokenize },
    { "/detokenize", true, qsi_detokenize },
    { "/apply-template", true, qsi_apply_template },
    { "/props", false, qsi_props },
    { "/api/chat", true, qsi_ollama_chat },
    { "/api/generate", true, qsi_ollama_generate },
    { "/api/tags", false, qsi_ollama_tags },
    { "/api/show", true, qsi_ollama_show },
    { "/api/version", false, qsi_ollama_version },
};

const char *const *qsi_call_paths(void) {
    static const char *paths[QSI_COUNT(endpoints) + 1];
    static _Atomic bool filled;
    if (!atomic_load(&filled)) { /* every thread writes the same */
        for (size_t i = 0; i < QSI_COUNT(endpoints); i++) paths[i] = endpoints[i].path;
        atomic_store(&filled, true);
    }
    return paths;
}

void qsi_backend_hold(qsi_backend *b) { atomic_fetch_add(&b->holds, 1); }

void qsi_backend_drop(qsi_backend *b) {
    if (b != NULL && atomic_fetch_sub(&b->holds, 1) == 1 && b->free_fn != NULL) b->free_fn(b);
}

void qsi_calls_end(void) { qsi_chores_stop(); }

/* ---- routing ---- */

/* Does `path` name the endpoint? *tail: what a * stands for. */
static bool matches(const char *pattern, const char *path, const char **tail) {
    size_t n = strlen(pattern), len = strlen(path);
    if (pattern[n - 1] == '*') {
        *tail = path + n - 1;
        return len > n - 1 && memcmp(pattern, path, n - 1) == 0;
    }
    if (len > 1 && path[len - 1] == '/') len--;
    return len == n && memcmp(pattern, path, n) == 0;
}

static const qsi_endpoint *find(const char *path, const char **tail) {
    for (size_t i = 0; i < QSI_COUNT(endpoints); i++) {
        const char *p = endpoints[i].path;
        if (matches(p, path, tail)) return &endpoints[i];
        if (strncmp(p, "/v1/", 4) == 0 && matches(p + 3, path, tail)) return &endpoints[i];
    }
    return NULL;
}

static const qsi_endpoint *route(qsi_api_call *c, const qsi_request *r, qsi_refusal *no) {
    const qsi_endpoint *e = find(r->path, &c->path_tail);
    if (e == NULL) {
        qsi_refuse(no, 404, "not_found", NULL, "there is nothing at this path");
        return NULL;
    }
    if (strcmp(r->method, e->post ? "POST" : "GET") == 0) return e;
    qsi_refuse(no, 405, "method_not_allowed", NULL, "this path takes %s", e->post ? "POST" : "GET");
    qsi_reply_header(&c->reply, "Allow", e->post ? "POST" : "GET");
    return NULL;
}

/* ---- life ---- */

void qsi_call_hold(qsi_api_call *c) { atomic_fetch_add(&c->holds, 1); }

static void destroy(qsi_api_call *c) {
    qsi_runs_release(c);
    qsi_grammar_release(c->ask.o.grammar);
    if (c->out != NULL) qsi_stream_end(c->out);
    if (c->reply.stream != NULL) qsi_stream_leave(c->reply.stream);
    qsi_str_release(&c->line);
    qsi_str_release(&c->reply.body);
    qsi_arena_release(&c->arena);
    qsi_backend_drop(c->b);
    qsi_monitor_free(c->m);
    qsi_free(c);
    qsi_chores_leave();
}

void qsi_call_post(qsi_api_call *c, int64_t due_ns) {
    qsi_call_hold(c); /* the chore's */
    if (!qsi_chore_post(&c->chore, due_ns)) atomic_fetch_sub(&c->holds, 1); /* it has one already */
}

void qsi_call_let_go(qsi_api_call *c) {
    if (atomic_fetch_sub(&c->holds, 1) > 1) return;
    qsi_call_hold(c);
    qsi_chore_post(&c->chore, 0);
}

/* Under the monitor, which is given up meanwhile. */
static void tell_ready(qsi_api_call *c) {
    if (c->replied || c->dropped) return;
    c->replied = true;
    c->readying = true;
    qsi_monitor_unlock(c->m);
    c->ready(c->user);
    qsi_monitor_lock(c->m);
    c->readying = false;
    qsi_monitor_wake(c->m);
}

static void end_stream(qsi_api_call *c) {
    if (c->out == NULL) return;
    qsi_stream_end(c->out);
    c->out = NULL;
}

/* ---- the end of an answer: chores' thread, under the monitor ---- */

static void note_usage(qsi_api_call *c) {
    qsi_usage u = qsi_runs_usage(c);
    c->reply.n_prompt = u.n_prompt;
    c->reply.n_cached = u.n_cached;
    c->reply.n_generated = u.n_generated;
    c->reply.queue_ns = u.queue_ns;
}

static void finish_failed(qsi_api_call *c) {
    if (c->replied) {
        if (c->out != NULL && c->voice->fail != NULL) c->voice->fail(c, &c->failure);
        end_stream(c);
    } else {
        qsi_refusal_reply(&c->reply, &c->failure, c->api);
        tell_ready(c);
    }
}

static void finish_whole(qsi_api_call *c) {
    qsi_jw w = { .s = &c->reply.body };
    c->voice->whole(c, &w);
    qsi_call_body(c, &w, &c->failure);
    if (c->failure.status != 0) qsi_refusal_reply(&c->reply, &c->failure, c->api);
    tell_ready(c);
}

static void finish(qsi_api_call *c) {
    c->finished = true;
    note_usage(c);
    qsi_runs_cancel(c);
    if (c->failure.status == 0 && c->st != QS_OK && c->st != QS_E_CANCELLED && c->out == NULL)
        qsi_refuse_memory(&c->failure);
    if (c->failure.status != 0) {
        finish_failed(c);
    } else if (c->out != NULL) {
        c->voice->close(c);
        end_stream(c);
    } else {
        finish_whole(c);
    }
}

/* Until the first piece of the answer a waiting client hears from us. */
static void ping(qsi_api_call *c) {
    int64_t now = qsi_now_ns();
    if (c->out == NULL || c->service.ping_ns <= 0) return;
    if (now - c->said_ns >= c->service.ping_ns) qsi_say_ping(c);
    qsi_call_post(c, c->said_ns + c->service.ping_ns > now ? c->said_ns + c->service.ping_ns
                                                          : now + c->service.ping_ns);
}

static void do_chore(qsi_chore *chore) {
    qsi_api_call *c = (qsi_api_call *)((char *)chore - offsetof(qsi_api_call, chore));
    qsi_refusal no = { 0 };
    qsi_monitor_lock(c->m);
    bool go = c->n_runs > 0 && !c->starting && !c->dropped && !c->finished;
    if (go && c->failure.status == 0 && c->n_over < c->n_runs && qsi_runs_left(c)) {
        qsi_monitor_unlock(c->m);
        qsi_runs_submit(c, &no);
        qsi_monitor_lock(c->m);
        if (no.status != 0 && c->failure.status == 0) c->failure = no;
    }
    go = go && !c->dropped;
    if (go && (c->failure.status != 0 || c->n_over == c->n_runs)) finish(c);
    else if (go) ping(c);
    qsi_monitor_unlock(c->m);
    if (atomic_fetch_sub(&c->holds, 1) == 1) destroy(c);
}

/* ---- beginning ---- */

void qsi_call_body(qsi_api_call *c, const qsi_jw *w, qsi_refusal *no) {
    if (w->st != QS_OK) {
        qsi_refuse_memory(no);
        return;
    }
    c->reply.status = 200;
    c->reply.content_type = "application/json";
}

static void read_request(qsi_api_call *c, const qsi_endpoint *e, const qsi_request *r, qsi_refusal *no) {
    qsi_json *j = NULL;
    qs_err err = { 0 };
    if (e->post) {
        size_t most = c->service.max_body > 0 ? c->service.max_body : (size_t)8 << 20;
        qs_status st = qsi_json_parse(&j, r->body != NULL ? r->body : "", r->n_body,
                                      (qsi_json_limits){ most, MAX_VALUES }, &err);
        if (st == QS_E_FORMAT)
            qsi_refuse(no, 400, "invalid_json", NULL,
                       "the request's body is no JSON: an error at byte %lld", (long long)err.offset);
        else if (st == QS_E_LIMIT) /* deeper, or with more values, than anybody means */
            qsi_refuse(no, 400, "invalid_json", NULL, "the request's body is refused: %s", err.text);
        else if (st != QS_OK)
            qsi_refuse_err(no, NULL, st, &err);
    }
    if (no->status == 0) e->prepare(c, j, no);
    qsi_json_free(&j);
}

static void open_stream(qsi_api_call *c, qsi_refusal *no) {
    qsi_stream *s = NULL;
    qs_err err = { 0 };
    size_t most = c->service.max_stream > 0 ? c->service.max_stream : (size_t)4 << 20;
    qs_status st = qsi_stream_create(&s, most, &err);
    if (st != QS_OK) {
        qsi_refuse_err(no, NULL, st, &err);
        return;
    }
    c->out = s;
    c->reply.stream = s;
    c->said_ns = qsi_now_ns();
    if (c->voice->open != NULL) c->voice->open(c);
}

static void close_unused(qsi_api_call *c) {
    end_stream(c);
    if (c->reply.stream != NULL) qsi_stream_leave(c->reply.stream);
    c->reply.stream = NULL;
}

/* The jobs of a call that was understood. */
static void start(qsi_api_call *c, qsi_refusal *no) {
    c->starting = true; /* nobody else knows of the call yet */
    qsi_prompt_admit(c, no);
    if (no->status == 0 && c->ask.stream) open_stream(c, no);
    if (no->status == 0) qsi_runs_submit(c, no);
    qsi_monitor_lock(c->m);
    if (no->status != 0) {
        /* some may run already: what they say is no longer heard */
        c->finished = true;
        qsi_runs_cancel(c);
        close_unused(c);
    } else if (c->ask.stream) {
        c->reply.status = 200;
        c->reply.content_type = c->voice->stream_type;
        qsi_reply_header(&c->reply, "Cache-Control", "no-cache");
        tell_ready(c);
    }
    c->starting = false;
    qsi_monitor_unlock(c->m);
    qsi_call_post(c, 0);
}

static void handle(qsi_api_call *c, const qsi_request *r, qsi_refusal *no) {
    const qsi_endpoint *e = route(c, r, no);
    if (e == NULL) return;
    c->b = c->service.backend(c->service.user);
    if (c->b == NULL) {
        qsi_refuse(no, 503, "model_not_ready", NULL, "the model is not loaded yet");
        no->retry_s = 2;
        return;
    }
    read_request(c, e, r, no);
    if (no->status == 0 && c->n_runs > 0) start(c, no);
}

/* NULL: *err tells. */
static qsi_api_call *create(const qsi_service *s, const qsi_request *r, void (*ready)(void *),
                            void *user, qs_err *err) {
    qsi_api_call *c = qsi_calloc(1, sizeof *c);
    if (c == NULL) {
        qsi_err_set(err, QS_E_NOMEM, "out of memory for a request");
        return NULL;
    }
    if (qsi_monitor_create(&c->m, err) != QS_OK || qsi_chores_enter(err) != QS_OK) {
        qsi_monitor_free(c->m);
        qsi_free(c);
        return NULL;
    }
    atomic_init(&c->holds, 1);
    c->chore.fn = do_chore;
    qsi_arena_init(&c->arena);
    c->service = *s;
    c->api = qsi_api_of(r->path);
    c->client = r->client;
    c->ready = ready;
    c->user = user;
    c->begun_ns = qsi_now_ns();
    c->wall_s = (int64_t)time(NULL);
    snprintf(c->request_id, sizeof c->request_id, "%s", r->request_id != NULL ? r->request_id : "");
    return c;
}

qs_status qsi_call_begin(qsi_api_call **out, const qsi_service *s, const qsi_request *r,
                         void (*ready)(void *), void *user, qs_err *err) {
    qsi_refusal no = { 0 };
    qsi_api_call *c = create(s, r, ready, user, err);
    if (c == NULL) return QS_E_NOMEM;
    *out = c;
    qsi_call_hold(c); /* who is told that it is ready may drop it before this is over */
    if (c->request_id[0] != '\0') qsi_reply_header(&c->reply, "X-Request-Id", c->request_id);
    handle(c, r, &no);
    qsi_monitor_lock(c->m);
    if (no.status != 0) qsi_refusal_reply(&c->reply, &no, c->api);
    if (no.status != 0 || c->n_runs == 0) tell_ready(c);
    qsi_monitor_unlock(c->m);
    qsi_call_let_go(c);
    return QS_OK;
}

qsi_reply *qsi_call_reply(qsi_api_call *c) { return &c->reply; }

void qsi_call_drop(qsi_api_call *c) {
    if (c == NULL) return;
    qsi_monitor_lock(c->m);
    while (c->readying) qsi_monitor_wait(c->m, 0);
    c->dropped = true;
    qsi_runs_cancel(c);
    end_stream(c);
    if (c->reply.stream != NULL) qsi_stream_leave(c->reply.stream);
    c->reply.stream = NULL;
    qsi_monitor_unlock(c->m);
    qsi_call_post(c, 0);
    qsi_call_let_go(c);
}
