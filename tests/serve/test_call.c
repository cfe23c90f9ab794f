/* serve/call: routing, errors in the request, refusals by the scheduler, clients that leave, and every
 * way in which a body can be wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"
#include "sys/file.h"

#define CHAT "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void test_routes(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" } });
    for (size_t i = 0; qsi_call_paths()[i] != NULL; i++) assert_int_equal(qsi_call_paths()[i][0],
        '/');
    api_want(&h, "/v1/models", NULL, 200, "data.0.id", "\"tiny\"");
    api_want(&h, "/models/", NULL, 200, "data.0.meta.n_ctx", "4096");
    api_want(&h, "/v1/models/tiny", NULL, 200, "meta.thinking", "false");
    api_want(&h, "/v1/models/other", NULL, 200, "id", "\"tiny\"");
    api_want(&h, "/v1/models/none", NULL, 404, "error.code", "\"model_not_found\"");
    api_want(&h, "/v1/nothing", NULL, 404, "error.type", "\"not_found_error\"");
    api_want(&h, "/api/version", NULL, 200, "version", "\"" QSI_VERSION "\"");
    api_want(&h, "/api/tags", NULL, 200, "models.0.model", "\"tiny\"");
    api_want(&h, "/props", NULL, 200, "eos_token", "\"<EOS>\"");
    api_want(&h, "/chat/completions", "{" HELLO "}", 200, "choices.0.message.content", "\"hello\"");
    api_answer a = api_ask(&h, CHAT, NULL);
    assert_int_equal(a.status, 405);
    assert_string_equal(a.allow, "POST");
    api_release(&a);
    api_close(&h);
}

static void test_no_model(void **state) {
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { "x" } });
    qsi_sched *s = h.b.sched;
    h.b.sched = NULL;
    api_answer a = api_ask(&h, "/v1/models", NULL);
    assert_int_equal(a.status, 503);
    assert_string_equal(a.retry, "2");
    api_release(&a);
    h.b.sched = s;
    api_want(&h, CHAT, "{" HELLO "}", 400, "error.code", "\"no_chat_template\"");
    api_close(&h);
}

/* Each is wrong in one way: 400 with the field's name. */
static const struct {
    const char *fields, *param;
} wrong[] = {
    { "\"temperature\":-0.1", "temperature" },
    { "\"temperature\":2.01", "temperature" },
    { "\"temperature\":\"1\"", "temperature" },
    { "\"temperature\":true", "temperature" },
    { "\"top_p\":1.5", "top_p" },
    { "\"top_k\":-2", "top_k" },
    { "\"top_k\":1.5", "top_k" },
    { "\"min_p\":[]", "min_p" },
    { "\"presence_penalty\":-3", "presence_penalty" },
    { "\"frequency_penalty\":2.5", "frequency_penalty" },
    { "\"max_tokens\":0", "max_tokens" },
    { "\"max_tokens\":-5", "max_tokens" },
    { "\"max_completion_tokens\":\"7\"", "max_completion_tokens" },
    { "\"max_tokens\":5,\"min_tokens\":6", "min_tokens" },
    { "\"min_tokens\":-1", "min_tokens" },
    { "\"n\":0", "n" },
    { "\"n\":129", "n" },
    { "\"n\":3,\"best_of\":2", "best_of" },
    { "\"stream\":true,\"best_of\":2", "best_of" },
    { "\"stream\":\"yes\"", "stream" },
    { "\"stream_options\":{\"include_usage\":true}", "stream_options" },
    { "\"stream\":true,\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage" },
    { "\"stop\":\"\"", "stop" },
    { "\"stop\":[\"a\",null]", "stop" },
    { "\"stop\":7", "stop" },
    { "\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\","
      "\"14\",\"15\",\"16\",\"17\"]", "stop" },
    { "\"seed\":1.5", "seed" },
    { "\"seed\":\"a\"", "seed" },
    { "\"logit_bias\":{\"x\":1}", "logit_bias" },
    { "\"logit_bias\":{\"999999\":1}", "logit_bias" },
    { "\"logit_bias\":{\"1\":101}", "logit_bias" },
    { "\"logit_bias\":{\"1\":null}", "logit_bias" },
    { "\"logit_bias\":[1]", "logit_bias" },
    { "\"logprobs\":5", "logprobs" },
    { "\"top_logprobs\":5", "top_logprobs" },
    { "\"logprobs\":true,\"top_logprobs\":21", "top_logprobs" },
    { "\"response_format\":\"json\"", "response_format" },
    { "\"response_format\":{\"type\":\"xml\"}", "response_format.type" },
    { "\"truncation\":\"middle\"", "truncation" },
    { "\"priority\":5000", "priority" },
    { "\"user\":5", "user" },
    { "\"metadata\":[]", "metadata" },
    { "\"reasoning_effort\":\"huge\"", "reasoning_effort" },
    { "\"reasoning_effort\":\"high\"", "reasoning_effort" },
    { "\"chat_template_kwargs\":{\"thinking\":1}", "chat_template_kwargs.thinking" },
    { "\"tools\":{}", "tools" },
    { "\"tools\":[5]", "tools[0]" },
    { "\"tools\":[{\"type\":\"browser\"}]", "tools[0].type" },
    { "\"tools\":[{\"type\":\"function\"}]", "tools[0].function" },
    { "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]",
        "tools[0].function.name" },
    { "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},"
      "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", "tools" },
    { "\"tool_choice\":\"required\"", "tool_choice" },
    { "\"tool_choice\":\"sometimes\"", "tool_choice" },
    { "\"ignore_eos\":0", "ignore_eos" },
};

static const struct {
    const char *body, *param;
} wrong_bodies[] = {
    { "{}", "\"messages\"" },
    { "{\"messages\":null}", "\"messages\"" },
    { "{\"messages\":[]}", "\"messages\"" },
    { "{\"messages\":\"hi\"}", "\"messages\"" },
    { "{\"messages\":[1]}", "\"messages[0]\"" },
    { "{\"messages\":[{}]}", "\"messages[0].role\"" },
    { "{\"messages\":[{\"role\":\"user\"}]}", "\"messages[0].content\"" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "\"messages[0].content\"" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "\"messages[0].content\"" },
    { "{\"messages\":[{\"role\":\"king\",\"content\":\"a\"}]}", "\"messages[0].role\"" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}"
        "]}]}",
      "\"messages[0].content[0].type\"" },
    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
      "\"messages[0].content[0].text\"" },
    { "{\"messages\":[{\"role\":\"assistant\",\"content\":null,"
        "\"tool_calls\":[{\"type\":\"function\","
      "\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}]}",
      "\"messages[0].tool_calls[0].function.arguments\"" },
    { "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\",\"tool_call_id\":\"x\"}]}",
      "\"messages[0].tool_call_id\"" },
    { "[]", "null" },
    { "5", "null" },
};

static void test_wrong_fields(void **state) {
    api_house h;
    char body[1024], param[128];
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" } });
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        snprintf(body, sizeof body, "{" HELLO ",%s}", wrong[i].fields);
        snprintf(param, sizeof param, "\"%s\"", wrong[i].param);
        api_want(&h, CHAT, body, 400, "error.param", param);
        api_want(&h, CHAT, body, 400, "error.type", "\"invalid_request_error\"");
    }
    for (size_t i = 0; i < QSI_COUNT(wrong_bodies); i++)
        api_want(&h, CHAT, wrong_bodies[i].body, 400, "error.param", wrong_bodies[i].param);
    assert_int_equal(fake_submits(h.b.sched), 0);
    /* null is as if it was not there, and what nobody knows is ignored */
    api_want(&h, CHAT, "{" HELLO ",\"temperature\":null,\"stop\":null,\"tools\":null,"
        "\"frobnicate\":[1]}",
             200, "choices.0.finish_reason", "\"stop\"");
    api_close(&h);
}

static void test_bad_json(void **state) {
    static const char *const bodies[] = {
        "", "{", "nul", "{\"a\":1,\"a\":2}", "{\"temperature\":NaN}", "{\"a\":1e999}", "{'a':1}",
        "{\"a\":123456789012345678901234567890}", "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}",
            "{} {}",
        "{\"a\":\"\\u0000\"}",
    };
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" } });
    for (size_t i = 0; i < QSI_COUNT(bodies); i++)
        api_want(&h, CHAT, bodies[i], 400, "error.code", "\"invalid_json\"");
    char deep[300];
    memset(deep, '[', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    api_want(&h, CHAT, deep, 400, "error.param", "null");
    api_close(&h);
}

static void test_models_names(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" } });
    static const char *const good[] = { "tiny", "other", "", "tiny:latest" };
    char body[200];
    for (size_t i = 0; i < QSI_COUNT(good); i++) {
        snprintf(body, sizeof body, "{\"model\":\"%s\"," HELLO "}", good[i]);
        api_want(&h, CHAT, body, 200, "model", "\"tiny\"");
    }
    api_want(&h, CHAT, "{\"model\":\"gpt-9\"," HELLO "}", 404, "error.code", "\"model_not_found\"");
    api_want(&h, CHAT, "{\"model\":9," HELLO "}", 400, "error.param", "\"model\"");
    api_close(&h);
}

static void refused(const fake_script *script, int status, const char *code, bool retry) {
    api_house h;
    api_open(&h, "deepseek-llm", true, script);
    for (int i = 0; i < 2; i++) {
        api_answer a = api_ask(&h, CHAT, i ? "{" HELLO ",\"stream\":true}" : "{" HELLO "}");
        assert_int_equal(a.status, status);
        assert_false(a.streamed);
        assert_string_equal(api_pick(a.body.data, "error.code"), code);
        assert_int_equal(a.retry[0] != '\0', retry);
        api_release(&a);
    }
    api_close(&h);
}

static void test_refusals(void **state) {
    refused(&(fake_script){ .answers = { "x" }, .submit = QS_E_STATE }, 503, "\"queue_full\"",
        true);
    refused(&(fake_script){ .answers = { "x" }, .submit = QS_E_LIMIT }, 413, "null", false);
    refused(&(fake_script){ .answers = { "x" }, .submit = QS_E_ARG }, 400, "null", false);
    refused(&(fake_script){ .answers = { "x" }, .forecast = { .room = true, .most_ids = 10 } }, 413,
            "\"never_fits\"", false);
    refused(&(fake_script){ .answers = { "x" }, .forecast = { .fits = true, .ahead = 7,
        .most_ids = 10,
                                                              .first_s = 3.5 } },
            503, "\"queue_full\"", true);
}

static void test_long_wait(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "x" },
             .forecast = { .fits = true, .room = true, .most_ids = 10, .first_s = 100 } });
    h.s.max_wait_ns = INT64_C(60000000000);
    api_answer a = api_ask(&h, CHAT, "{" HELLO "}");
    assert_int_equal(a.status, 503);
    assert_string_equal(a.retry, "40");
    api_release(&a);
    h.s.max_wait_ns = INT64_C(200000000000);
    api_want(&h, CHAT, "{" HELLO "}", 200, "choices.0.message.content", "\"x\"");
    api_close(&h);
}

/* A job that fails: an error where nothing was sent, an error event where the stream had begun. */
static void test_failing_jobs(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" }, .end = QS_E_IO,
                                                       .n_before = 2 });
    api_want(&h, CHAT, "{" HELLO "}", 500, "error.message", "\"a scripted failure\"");
    api_answer a = api_ask(&h, CHAT, "{" HELLO ",\"stream\":true}");
    assert_int_equal(a.status, 200);
    size_t n = api_events(a.body.data);
    assert_string_equal(api_pick(api_event(a.body.data, n - 1, NULL), "error.type"),
        "\"server_error\"");
    assert_null(strstr(a.body.data, "[DONE]"));
    api_release(&a);
    api_close(&h);
}

static void test_deadline(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "x" }, .fenced = true });
    h.s.deadline_ns = 20000000;
    api_want(&h, CHAT, "{" HELLO "}", 504, "error.code", "\"timeout\"");
    api_close(&h);
}

/* Clients that leave before, during and after the answer; waiting ones hear comments. */
static void test_leaving(void **state) {
    static const char stream[] = "{" HELLO ",\"stream\":true}", whole[] = "{" HELLO "}";
    api_house h;
    api_call a, b;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" }, .fenced = true });
    api_begin(&a, &h, "POST", CHAT, whole, strlen(whole));
    assert_int_equal(a.n_ready, 0);
    api_drop(&a);
    api_begin(&b, &h, "POST", CHAT, stream, strlen(stream));
    api_wait(&b);
    api_drop(&b);
    fake_open(h.b.sched);
    for (int i = 0; i < 20; i++) {
        api_begin(&a, &h, "POST", CHAT, i % 2 ? stream : whole, strlen(i % 2 ? stream : whole));
        if (i % 3) api_wait(&a);
        api_drop(&a);
    }
    api_close(&h);
}

static void test_pings(void **state) {
    static const char stream[] = "{" HELLO ",\"stream\":true}";
    api_house h;
    api_call a;
    qsi_str out = { 0 };
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "hello" }, .fenced = true });
    h.s.ping_ns = 5000000;
    api_begin(&a, &h, "POST", CHAT, stream, strlen(stream));
    api_wait(&a);
    while (out.len == 0 || strstr(out.data, ": queue 0\n\n: queue 0\n\n") == NULL) api_read(&a,
        &out, false);
    fake_open(h.b.sched);
    api_read(&a, &out, true);
    assert_non_null(strstr(out.data, "data: [DONE]"));
    assert_int_equal(strncmp(out.data, ": queue", 7), 0);
    api_drop(&a);
    qsi_str_release(&out);
    api_close(&h);
}

/* Who reads too slowly loses the answer, and nobody else is harmed. */
static void test_slow_reader(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "a long answer, byte by "
        "byte" } });
    h.s.max_stream = 1500;
    api_call a;
    static const char stream[] = "{" HELLO ",\"stream\":true}";
    api_begin(&a, &h, "POST", CHAT, stream, strlen(stream));
    api_wait(&a);
    for (int i = 0; i < 3; i++)
        api_want(&h, CHAT, "{" HELLO "}", 200, "choices.0.finish_reason", "\"stop\"");
    qsi_str out = { 0 };
    api_read(&a, &out, true);
    assert_null(strstr(out.data != NULL ? out.data : "", "[DONE]"));
    qsi_str_release(&out);
    api_drop(&a);
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_wrong_fields),
        cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_models_names),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_long_wait),
        cmocka_unit_test(test_failing_jobs),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_leaving),
        cmocka_unit_test(test_pings),
        cmocka_unit_test(test_slow_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
