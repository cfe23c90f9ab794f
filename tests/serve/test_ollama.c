/* serve/ollama: chats and completions, lines of JSON, options, refusals in Ollama's form. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CALL                                                                                      \
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"        \
    "<｜tool▁calls▁end｜>"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"

static void test_chat(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想</think>好" CALL } });
    api_answer a = api_ask(&h, "/api/chat", "{\"model\":\"tiny:latest\"," HELLO "," TOOLS
                                            ",\"think\":true,\"stream\":false}");
    assert_int_equal(a.status, 200);
    assert_false(a.streamed);
    const char *b = a.body.data;
    assert_string_equal(api_pick(b, "message.content"), "\"好\"");
    assert_string_equal(api_pick(b, "message.thinking"), "\"想\"");
    assert_string_equal(api_pick(b, "message.tool_calls.0.function.arguments"), "{\"a\": 1}");
    assert_string_equal(api_pick(b, "done"), "true");
    assert_string_equal(api_pick(b, "prompt_eval_duration"), "2000000");
    api_release(&a);
    a = api_ask(&h, "/api/chat", "{" HELLO "," TOOLS ",\"think\":true}");
    assert_true(a.streamed);
    assert_string_equal(a.type, "application/x-ndjson");
    qsi_str text = api_join(a.body.data, "message.content", "done", "false");
    qsi_str name = api_join(a.body.data, "message.tool_calls.0.function.name", NULL, NULL);
    assert_string_equal(text.data, "好");
    assert_string_equal(name.data, "f");
    size_t n = api_events(a.body.data);
    assert_string_equal(api_pick(api_event(a.body.data, n - 1, NULL), "done"), "true");
    assert_string_equal(api_pick(api_event(a.body.data, n - 1, NULL), "done_reason"), "\"stop\"");
    qsi_str_release(&text);
    qsi_str_release(&name);
    api_release(&a);
    /* calls and results go back */
    api_want(&h, "/api/chat",
             "{\"stream\":false,\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
                 "{\"role\":\"assistant\","
             "\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                 "\"arguments\":{\"a\":1}}}]},"
             "{\"role\":\"tool\",\"content\":\"R\",\"tool_name\":\"f\"}]}",
             200, "done", "true");
    api_close(&h);
}

static void test_generate(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "abcdef" } });
    api_want(&h, "/api/generate", "{\"prompt\":\"q\",\"stream\":false,"
        "\"options\":{\"num_predict\":3,"
             "\"seed\":7,\"temperature\":0,\"stop\":[\"zz\"],\"num_ctx\":2048}}",
             200, "response", "\"abc\"");
    const qsi_job_opts *o = fake_last(h.b.sched);
    assert_true(o->seed == 7 && o->sampling.temp == 0 && o->n_stops == 1 && o->chat != NULL);
    api_want(&h, "/api/generate", "{\"prompt\":\"q\",\"stream\":false,"
        "\"options\":{\"num_predict\":3}}", 200,
             "done_reason", "\"length\"");
    api_want(&h, "/api/generate", "{\"prompt\":\"q\",\"raw\":true,\"stream\":false}", 200,
        "response",
             "\"abcdef\"");
    assert_null(fake_last(h.b.sched)->chat);
    assert_int_equal(fake_last(h.b.sched)->n_ids, 2);
    api_want(&h, "/api/generate", "{\"model\":\"tiny\"}", 200, "done_reason", "\"load\"");
    api_want(&h, "/api/show", "{\"model\":\"tiny\"}", 200, "model_info.n_vocab", "271");
    api_close(&h);
}

static void test_refused(void **state) {
    static const struct {
        const char *path, *body;
        int status;
    } wrong[] = {
        { "/api/chat", "{}", 400 },
        { "/api/chat", "{\"messages\":[]}", 400 },
        { "/api/chat", "{\"model\":\"llama\"," HELLO "}", 404 },
        { "/api/chat", "{" HELLO ",\"think\":true}", 400 },
        { "/api/chat", "{" HELLO ",\"format\":\"xml\"}", 400 },
        { "/api/chat", "{" HELLO ",\"options\":{\"temperature\":-1}}", 400 },
        { "/api/chat", "{" HELLO ",\"options\":[]}", 400 },
        { "/api/chat", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\","
            "\"images\":[\"eA==\"]}]}", 400 },
        { "/api/generate", "{\"prompt\":5}", 400 },
        { "/api/generate", "{\"prompt\":\"a\",\"template\":\"x\"}", 400 },
        { "/api/generate", "{\"prompt\":\"a\",\"context\":[1]}", 400 },
        { "/api/generate", "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400 },
    };
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "x" } });
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        api_answer a = api_ask(&h, wrong[i].path, wrong[i].body);
        assert_int_equal(a.status, wrong[i].status);
        assert_int_equal(api_pick(a.body.data, "error")[0], '"');
        api_release(&a);
    }
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
