/* serve/responses: output items whole and streamed, events in their order, input of every kind. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"

#define PATH "/v1/responses"
#define TOOLS                                                                                     \
    "\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"},"       \
    "\"strict\":true}]"
#define CALL                                                                                      \
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"        \
    "<｜tool▁calls▁end｜>"

static void test_whole(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想</think>好" CALL } });
    api_answer a = api_ask(&h, PATH, "{\"input\":\"hi\",\"instructions\":\"be\","
        "\"metadata\":{\"k\":\"v\"},"
                                     "\"reasoning\":{\"effort\":\"low\"}," TOOLS "}");
    const char *b = a.body.data;
    assert_int_equal(a.status, 200);
    assert_string_equal(api_pick(b, "status"), "\"completed\"");
    assert_string_equal(api_pick(b, "output.0.content.0.text"), "\"想\"");
    assert_string_equal(api_pick(b, "output.1.content.0.text"), "\"好\"");
    assert_string_equal(api_pick(b, "output.1.content.0.type"), "\"output_text\"");
    assert_string_equal(api_pick(b, "output.2.arguments"), "\"{\\\"a\\\": 1}\"");
    assert_string_equal(api_pick(b, "output.2.type"), "\"function_call\"");
    assert_string_equal(api_pick(b, "instructions"), "\"be\"");
    assert_string_equal(api_pick(b, "metadata.k"), "\"v\"");
    assert_string_equal(api_pick(b, "tools.0.name"), "\"f\"");
    assert_string_equal(api_pick(b, "reasoning.effort"), "\"low\"");
    assert_string_equal(api_pick(b, "usage.output_tokens_details.reasoning_tokens"), "3");
    api_release(&a);
    api_want(&h, PATH, "{\"input\":\"hi\",\"max_output_tokens\":1}", 200,
        "incomplete_details.reason",
             "\"max_output_tokens\"");
    api_close(&h);
}

static void test_stream(void **state) {
    static const char *const order[] = {
        "response.created", "response.in_progress",
        "response.output_item.added", "response.content_part.added",
            "response.reasoning_text.delta",
        "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done",
            "response.completed" };
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想</think>好的" CALL } });
    api_answer a = api_ask(&h, PATH, "{\"input\":\"hi\",\"stream\":true,\"top_logprobs\":1,"
                                     "\"reasoning\":{\"effort\":\"low\"}," TOOLS "}");
    const char *s = a.body.data;
    char last[64] = "", name[64], number[24];
    size_t k = 0, n = api_events(s);
    for (size_t i = 0; i < n; i++) {
        const char *data = api_event(s, i, name);
        snprintf(number, sizeof number, "%zu", i);
        assert_string_equal(api_pick(data, "sequence_number"), number);
        if (strcmp(name, last) == 0) continue;
        assert_true(k < QSI_COUNT(order));
        assert_string_equal(name, order[k++]);
        memcpy(last, name, sizeof last);
    }
    assert_int_equal(k, QSI_COUNT(order));
    const char *end = api_event(s, n - 1, NULL);
    assert_string_equal(api_pick(end, "response.output.0.content.0.text"), "\"想\"");
    assert_string_equal(api_pick(end, "response.output.1.content.0.text"), "\"好的\"");
    assert_string_equal(api_pick(end, "response.output.1.content.0.logprobs.5.bytes"), "[132]");
    assert_string_equal(api_pick(end, "response.output.2.arguments"), "\"{\\\"a\\\": 1}\"");
    assert_string_equal(api_pick(end, "response.status"), "\"completed\"");
    qsi_str text = api_join(s, "delta", "output_index", "1");
    assert_string_equal(text.data, "好的");
    qsi_str_release(&text);
    api_release(&a);
    api_close(&h);
}

static void test_input(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "ok" } });
    api_want(&h, PATH,
             "{\"instructions\":\"s\",\"input\":[{\"role\":\"user\","
                 "\"content\":[{\"type\":\"input_text\","
             "\"text\":\"q\"}]},{\"type\":\"reasoning\",\"summary\":[]},"
                 "{\"type\":\"function_call\","
             "\"call_id\":\"x\",\"name\":\"f\",\"arguments\":\"{}\"},"
                 "{\"type\":\"function_call\",\"call_id\":"
             "\"y\",\"name\":\"g\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\","
                 "\"call_id\":\"x\","
             "\"output\":\"X\"},{\"type\":\"function_call_output\",\"call_id\":\"y\","
                 "\"output\":\"Y\"}]}",
             200, "output.0.content.0.text", "\"ok\"");
    const qsi_job_opts *o = fake_last(h.b.sched);
    qsi_str text = { 0 };
    assert_int_equal(qsi_decode(h.vocab, o->ids, o->n_ids, true, &text), QS_OK);
    assert_string_equal(text.data,
        "<BOS>s<｜User｜>q<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        "<EOS><｜tool▁output▁begin｜>X<｜tool▁output▁end｜><｜tool▁output▁begin｜>Y<｜tool▁output▁end｜>");
    qsi_str_release(&text);
    api_close(&h);
}

static void test_refused(void **state) {
    static const struct {
        const char *body, *param;
    } wrong[] = {
        { "{}", "\"input\"" },
        { "{\"input\":[]}", "\"input\"" },
        { "{\"input\":5}", "\"input\"" },
        { "{\"input\":\"a\",\"previous_response_id\":\"resp_1\"}", "\"previous_response_id\"" },
        { "{\"input\":\"a\",\"background\":true}", "\"background\"" },
        { "{\"input\":\"a\",\"max_output_tokens\":0}", "\"max_output_tokens\"" },
        { "{\"input\":\"a\",\"text\":{\"format\":{\"type\":\"yaml\"}}}", "\"text.format.type\"" },
        { "{\"input\":[{\"type\":\"computer_call\"}]}", "\"input[0].type\"" },
        { "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}",
          "\"input[0].content[0].type\"" },
        { "{\"input\":\"a\",\"tools\":[{\"type\":\"web_search\"}]}", "\"tools[0].type\"" },
        { "{\"input\":\"a\",\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}," TOOLS "}",
          "\"tool_choice\"" },
        { "{\"input\":\"a\",\"include\":[5]}", "\"include\"" },
    };
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "x" } });
    for (size_t i = 0; i < QSI_COUNT(wrong); i++)
        api_want(&h, PATH, wrong[i].body, 400, "error.param", wrong[i].param);
    api_close(&h);
    char name[64];
    api_open(&h, "deepseek-v3.1", true,
             &(fake_script){ .answers = { "xyz" }, .end = QS_E_IO, .n_before = 1 });
    api_answer a = api_ask(&h, PATH, "{\"input\":\"a\",\"stream\":true}");
    const char *last = api_event(a.body.data, api_events(a.body.data) - 1, name);
    assert_string_equal(name, "response.failed");
    assert_string_equal(api_pick(last, "response.error.message"), "\"a scripted failure\"");
    api_release(&a);
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
