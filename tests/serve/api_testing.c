/* See api_testing.h. */
#include "api_testing.h"

#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/mem.h"
#include "sys/file.h"
#include "tok/vocab.h"

static const struct {
    const char *text;
    qsi_tok_type type;
} specials[] = {
    { "<BOS>", QSI_TOK_CONTROL }, { "<EOS>", QSI_TOK_CONTROL },
    { "<｜User｜>", QSI_TOK_CONTROL }, { "<｜Assistant｜>", QSI_TOK_CONTROL },
    { "<think>", QSI_TOK_USER }, { "</think>", QSI_TOK_USER },
    { "<｜tool▁calls▁begin｜>", QSI_TOK_USER }, { "<｜tool▁calls▁end｜>", QSI_TOK_USER },
    { "<｜tool▁call▁begin｜>", QSI_TOK_USER }, { "<｜tool▁call▁end｜>", QSI_TOK_USER },
    { "<｜tool▁sep｜>", QSI_TOK_USER }, { "<｜tool▁outputs▁begin｜>", QSI_TOK_USER },
    { "<｜tool▁outputs▁end｜>", QSI_TOK_USER }, { "<｜tool▁output▁begin｜>", QSI_TOK_USER },
    { "<｜tool▁output▁end｜>", QSI_TOK_USER },
};

static qsi_vocab *make_vocab(bool markers) {
    static char symbols[256][3];
    qsi_slice text[256 + QSI_COUNT(specials)];
    uint8_t types[QSI_COUNT(text)] = { 0 };
    int32_t next = 0x100;
    size_t n_specials = markers ? QSI_COUNT(specials) : 2;
    for (int b = 0; b < 256; b++) {
        bool own = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        int32_t c = own ? b : next++;
        size_t n = 0;
        if (c < 0x80) symbols[b][n++] = (char)c;
        else {
            symbols[b][n++] = (char)(0xc0 | c >> 6);
            symbols[b][n++] = (char)(0x80 | (c & 0x3f));
        }
        text[b] = (qsi_slice){ symbols[b], n };
        types[b] = QSI_TOK_NORMAL;
    }
    for (size_t i = 0; i < n_specials; i++) {
        text[256 + i] = (qsi_slice){ specials[i].text, strlen(specials[i].text) };
        types[256 + i] = (uint8_t)specials[i].type;
    }
    qsi_vocab_spec spec = { .tokens = text, .types = types, .n_tokens = 256 + n_specials,
                            .pre = "deepseek-llm", .bos = 256, .eos = 257, .pad = -1, .add_bos = true };
    qsi_vocab *v = NULL;
    qs_err err = { 0 };
    QS_CHECK(qsi_vocab_build(&v, &spec, &err) == QS_OK);
    return v;
}

static qsi_backend *backend(void *user) {
    api_house *h = user;
    if (h->b.sched == NULL) return NULL;
    qsi_backend_hold(&h->b);
    return &h->b;
}

void api_open(api_house *h, const char *template_name, bool markers, const fake_script *script) {
    fake_script f = *script;
    *h = (api_house){ 0 };
    if (!f.forecast.fits && f.forecast.most_ids == 0)
        f.forecast = (qsi_forecast){ .fits = true, .room = true, .most_ids = 4096 };
    h->vocab = make_vocab(markers);
    h->b = (qsi_backend){ .vocab = h->vocab, .id = "tiny", .alias = "other", .created = 1700000000,
                          .n_ctx = 4096, .n_ctx_train = 4096, .n_params = 22000000,
                          .n_bytes = 24000000, .n_vocab = qsi_vocab_size(h->vocab), .d_model = 4 };
    atomic_init(&h->b.holds, 1);
    if (template_name != NULL) {
        QS_CHECK(qsi_chat_by_name(&h->b.chat, template_name, NULL) == QS_OK);
        qsi_begin begin;
        h->b.can_think = qsi_chat_begin(h->b.chat, QSI_THINK_ON, &begin, NULL) == QS_OK;
        h->b.can_choose = h->b.can_think &&
                          qsi_chat_begin(h->b.chat, QSI_THINK_OFF, &begin, NULL) == QS_OK;
    } else {
        h->b.chat_why = "none is known";
    }
    qsi_sampling_default(&h->b.sampling);
    h->b.sched = fake_create(h->vocab, &f);
    h->s = (qsi_service){ .backend = backend, .user = h, .max_body = 1 << 20, .max_stream = 1 << 20,
                          .default_predict = -1 };
}

void api_close(api_house *h) {
    qsi_calls_end();
    QS_CHECK(atomic_load(&h->b.holds) == 1);
    qsi_sched_free(h->b.sched);
    qsi_vocab_free(h->vocab);
}

static const char *header(void *user, const char *name) {
    const api_house *h = user;
    for (size_t i = 0; i + 1 < QSI_COUNT(h->headers) && h->headers[i] != NULL; i += 2)
        if (strcasecmp(h->headers[i], name) == 0) return h->headers[i + 1];
    return NULL;
}

static void ready(void *user) {
    api_call *a = user;
    qsi_monitor_lock(a->m);
    a->n_ready++;
    qsi_monitor_wake(a->m);
    qsi_monitor_unlock(a->m);
}

static void wake(void *user) {
    api_call *a = user;
    qsi_monitor_lock(a->m);
    a->woken = true;
    qsi_monitor_wake(a->m);
    qsi_monitor_unlock(a->m);
}

void api_begin(api_call *a, api_house *h, const char *method, const char *path, const char *body,
               size_t n_body) {
    *a = (api_call){ 0 };
    QS_CHECK(qsi_monitor_create(&a->m, NULL) == QS_OK);
    qsi_request r = { .method = method, .path = path, .body = body, .n_body = n_body, .header = header,
                      .user = h, .client = h->client, .request_id = "req-1" };
    QS_CHECK(qsi_call_begin(&a->c, &h->s, &r, ready, a, NULL) == QS_OK);
}

void api_wait(api_call *a) {
    int64_t limit = qsi_now_ns() + INT64_C(20000000000);
    qsi_monitor_lock(a->m);
    while (a->n_ready == 0 && qsi_now_ns() < limit) qsi_monitor_wait(a->m, limit);
    QS_CHECK(a->n_ready == 1);
    qsi_monitor_unlock(a->m);
}

bool api_read(api_call *a, qsi_str *out, bool whole) {
    qsi_stream *s = qsi_call_reply(a->c)->stream;
    bool end = false;
    while (!end) {
        char piece[100];
        a->woken = false;
        size_t n = qsi_stream_read(s, piece, sizeof piece, &end, wake, a);
        QS_CHECK(qsi_str_append(out, piece, n) == QS_OK);
        if (n > 0 || end) continue;
        int64_t limit = qsi_now_ns() + INT64_C(20000000000);
        qsi_monitor_lock(a->m);
        while (!a->woken && qsi_now_ns() < limit) qsi_monitor_wait(a->m, limit);
        QS_CHECK(a->woken);
        qsi_monitor_unlock(a->m);
        if (!whole) return true;
    }
    return false;
}

void api_drop(api_call *a) {
    qsi_call_drop(a->c);
    qsi_monitor_free(a->m);
}

static void take_headers(api_answer *a, const qsi_reply *r) {
    for (size_t i = 0; i < r->n_headers; i++) {
        const char *v = r->headers[i].value;
        if (strcmp(r->headers[i].name, "Retry-After") == 0) snprintf(a->retry, sizeof a->retry, "%s", v);
        if (strcmp(r->headers[i].name, "Allow") == 0) snprintf(a->allow, sizeof a->allow, "%s", v);
    }
}

api_answer api_ask(api_house *h, const char *path, const char *body) {
    api_answer out = { 0 };
    api_call a;
    api_begin(&a, h, body != NULL ? "POST" : "GET", path, body, body != NULL ? strlen(body) : 0);
    api_wait(&a);
    qsi_reply *r = qsi_call_reply(a.c);
    out.status = r->status;
    snprintf(out.type, sizeof out.type, "%s", r->content_type);
    take_headers(&out, r);
    out.streamed = r->stream != NULL;
    if (out.streamed) api_read(&a, &out.body, true);
    else if (r->body.len > 0)
        QS_CHECK(qsi_str_append(&out.body, r->body.data, r->body.len) == QS_OK);
    api_drop(&a);
    return out;
}

void api_release(api_answer *a) { qsi_str_release(&a->body); }

/* ---- looking at answers ---- */

#define LIMITS ((qsi_json_limits){ 1u << 24, 1u << 20 })

static const qsi_json *walk(const qsi_json *j, const char *path) {
    while (*path != '\0' && j != NULL) {
        char step[64];
        size_t n = strcspn(path, ".");
        snprintf(step, sizeof step, "%.*s", (int)n, path);
        bool digits = step[0] >= '0' && step[0] <= '9';
        j = digits ? qsi_json_at(j, strtoul(step, NULL, 10)) : qsi_json_get(j, step);
        path += n + (path[n] == '.');
    }
    return j;
}

static qsi_json *parse(const char *text) {
    qsi_json *j = NULL;
    qs_err err = { 0 };
    if (qsi_json_parse(&j, text, strlen(text), LIMITS, &err) != QS_OK) {
        fprintf(stderr, "no JSON (%s): %s\n", err.text, text);
        QS_CHECK(false);
    }
    return j;
}

const char *api_pick(const char *json, const char *path) {
    static qsi_str kept[4];
    static size_t turn;
    qsi_str *out = &kept[turn++ % 4];
    qsi_json *j = parse(json);
    const qsi_json *at = walk(j, path);
    qsi_str_clear(out);
    if (at != NULL) QS_CHECK(qsi_chat_dump(out, at) == QS_OK);
    else QS_CHECK(qsi_str_append(out, "", 0) == QS_OK);
    qsi_json_free(&j);
    return out->data != NULL ? out->data : "";
}

/* Events of SSE, lines of NDJSON; comments are no events. */
const char *api_event(const char *stream, size_t i, char event[64]) {
    static qsi_str out;
    char name[64] = "";
    qsi_str_clear(&out);
    for (const char *p = stream; *p != '\0';) {
        size_t n = strcspn(p, "\n");
        bool sse = strncmp(p, "data: ", 6) == 0;
        if (strncmp(p, "event: ", 7) == 0) snprintf(name, sizeof name, "%.*s", (int)(n - 7), p + 7);
        if ((sse || p[0] == '{') && i-- == 0) {
            size_t skip = sse ? 6 : 0;
            QS_CHECK(qsi_str_append(&out, p + skip, n - skip) == QS_OK);
            if (event != NULL) snprintf(event, 64, "%s", name);
            return out.data;
        }
        if (n == 0) name[0] = '\0';
        p += n + (p[n] == '\n');
    }
    return "";
}

size_t api_events(const char *stream) {
    size_t n = 0;
    while (api_event(stream, n, NULL)[0] != '\0') n++;
    return n;
}

qsi_str api_join(const char *stream, const char *path, const char *if_path, const char *if_value) {
    qsi_str out = { 0 };
    QS_CHECK(qsi_str_append(&out, "", 0) == QS_OK);
    for (size_t i = 0, n = api_events(stream); i < n; i++) {
        const char *text = api_event(stream, i, NULL);
        if (text[0] != '{') continue;
        if (if_path != NULL && strcmp(api_pick(text, if_path), if_value) != 0) continue;
        qsi_json *j = parse(text);
        const char *s = qsi_json_as_str(walk(j, path));
        if (s != NULL) QS_CHECK(qsi_str_puts(&out, s) == QS_OK);
        qsi_json_free(&j);
    }
    return out;
}

void api_want(api_house *h, const char *path, const char *body, int status, const char *at,
              const char *want) {
    api_answer a = api_ask(h, path, body);
    const char *got = a.body.len > 0 ? api_pick(a.body.data, at) : "";
    if (a.status != status || strcmp(got, want) != 0)
        fprintf(stderr, "%s %s\nstatus %d, wanted %d; %s is %s, wanted %s\n%s\n", path,
                body != NULL ? body : "", a.status, status, at, got, want, a.body.data);
    QS_CHECK(a.status == status && strcmp(got, want) == 0);
    api_release(&a);
}
