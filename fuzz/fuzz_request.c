/* Requests to the API (serve/call.h): the first byte chooses the path and the chat template, the rest is
 * the body. A scripted scheduler answers. Whatever comes, the status is none of a server's own faults,
 * an answer is JSON, and a stream's events are. */
#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "fmt/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = {
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages",
    "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/apply-template", "/api/chat",
    "/api/generate", "/api/show" };
static const char *const templates[] = { "deepseek-llm", "deepseek-v3.1", "deepseek-r1-0528" };
static api_house houses[QSI_COUNT(templates)];

static void open_houses(void) {
    static bool open;
    const fake_script script = { .answers = { "想</think>好 <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f"
                                              "<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜>", "b" },
                                 .chunk = 3 };
    for (size_t i = 0; !open && i < QSI_COUNT(templates); i++) {
        api_open(&houses[i], templates[i], true, &script);
        houses[i].b.n_ctx = 600;
    }
    open = true;
}

static void check_json(const char *p, size_t n) {
    qsi_json *j = NULL;
    QS_CHECK(qsi_json_parse(&j, p, n, (qsi_json_limits){ 1u << 26, 1u << 22 }, NULL) == QS_OK);
    qsi_json_free(&j);
}

/* Lines of a stream: data and plain lines are JSON, or the word for the end. */
static void check_stream(const char *p, size_t n) {
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t len = end != NULL ? (size_t)(end - p) : n;
        if (len > 6 && memcmp(p, "data: {", 7) == 0) check_json(p + 6, len - 6);
        else if (len > 0 && p[0] == '{') check_json(p, len);
        p += len + (end != NULL);
        n -= len + (end != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    open_houses();
    api_house *h = &houses[data[0] / QSI_COUNT(paths) % QSI_COUNT(templates)];
    const char *path = paths[data[0] % QSI_COUNT(paths)];
    api_call a;
    qsi_str out = { 0 };
    api_begin(&a, h, "POST", path, (const char *)data + 1, size - 1);
    api_wait(&a);
    const qsi_reply *r = qsi_call_reply(a.c);
    if (r->status >= 500)
        fprintf(stderr, "%s: %d: %s\n", path, r->status, r->body.data != NULL ? r->body.data : "");
    QS_CHECK(r->status == 200 || r->status == 400 || r->status == 404 || r->status == 413);
    if (r->stream != NULL) {
        api_read(&a, &out, true);
        check_stream(out.data, out.len);
    } else {
        check_json(r->body.data, r->body.len);
    }
    api_drop(&a);
    qsi_str_release(&out);
    return 0;
}
