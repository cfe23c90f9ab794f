/* serve/anthropic: blocks in and out, streamed events in their order, refusals in Anthropic's form. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"

#define PATH "/v1/messages"
#define HELLO "\"max_tokens\":100,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOLS                                                                                     \
    "\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"
#define CALL                                                                                      \
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"        \
    "<｜tool▁calls▁end｜>"

static void test_whole(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想</think>好" CALL } });
    api_answer a = api_ask(&h, PATH, "{" HELLO "," TOOLS ",\"thinking\":{\"type\":\"enabled\"}}");
    const char *b = a.body.data;
    assert_int_equal(a.status, 200);
    assert_string_equal(api_pick(b, "type"), "\"message\"");
    assert_string_equal(api_pick(b, "content.0.thinking"), "\"想\"");
    assert_string_equal(api_pick(b, "content.1"), "{\"type\": \"text\", \"text\": \"好\"}");
    assert_string_equal(api_pick(b, "content.2.name"), "\"f\"");
    assert_string_equal(api_pick(b, "content.2.input"), "{\"a\": 1}");
    assert_string_equal(api_pick(b, "stop_reason"), "\"tool_use\"");
    const char *in = api_pick(b, "usage.input_tokens");
    assert_true(strcmp(in, "0") != 0);
    api_release(&a);
    api_close(&h);
}

static void test_stops(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "one two three" } });
    api_want(&h, PATH, "{" HELLO ",\"stop_sequences\":[\"three\",\"two\"]}", 200,
        "stop_sequence", "\"two\"");
    api_want(&h, PATH, "{" HELLO ",\"stop_sequences\":[\"three\",\"two\"]}", 200, "content.0.text",
             "\"one \"");
    api_want(&h, PATH, "{" HELLO ",\"stop_sequences\":[\"two\"]}", 200, "stop_sequence", "\"two\"");
    api_want(&h, PATH, "{" HELLO "}", 200, "stop_reason", "\"end_turn\"");
    api_want(&h, PATH, "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        200,
             "stop_reason", "\"max_tokens\"");
    api_close(&h);
}

static void test_stream(void **state) {
    static const char *const order[] = {
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_stop", "content_block_start",
        "content_block_delta", "content_block_stop", "message_delta", "message_stop" };
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想</think>好" CALL } });
    api_answer a = api_ask(&h, PATH, "{" HELLO "," TOOLS ",\"stream\":true,"
                                     "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}}");
    const char *s = a.body.data;
    char last[64] = "", name[64];
    size_t k = 0;
    for (size_t i = 0, n = api_events(s); i < n; i++) {
        const char *data = api_event(s, i, name);
        char type[80];
        snprintf(type, sizeof type, "\"%s\"", name);
        assert_string_equal(api_pick(data, "type"), type);
        if (strcmp(name, last) == 0) continue; /* deltas come in pieces */
        assert_true(k < QSI_COUNT(order));
        assert_string_equal(name, order[k++]);
        memcpy(last, name, sizeof last);
    }
    assert_int_equal(k, QSI_COUNT(order));
    qsi_str text = api_join(s, "delta.text", "index", "1");
    qsi_str json = api_join(s, "delta.partial_json", "index", "2");
    qsi_str thinking = api_join(s, "delta.thinking", "index", "0");
    assert_string_equal(text.data, "好");
    assert_string_equal(json.data, "{\"a\": 1}");
    assert_string_equal(thinking.data, "想");
    qsi_str_release(&text);
    qsi_str_release(&json);
    qsi_str_release(&thinking);
    api_release(&a);
    api_close(&h);
}

static void check_prompt(const api_house *h, const char *want) {
    const qsi_job_opts *o = fake_last(h->b.sched);
    qsi_str text = { 0 };
    assert_int_equal(qsi_decode(h->vocab, o->ids, o->n_ids, true, &text), QS_OK);
    assert_string_equal(text.data, want);
    qsi_str_release(&text);
}

static void test_history(void **state) {
    static const char talk[] =
        "\"max_tokens\":9,\"system\":[{\"type\":\"text\",\"text\":\"s\"}],\"messages\":["
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\","
            "\"signature\":\"\"},"
        "{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"a\":1}}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"x\","
            "\"content\":"
        "[{\"type\":\"text\",\"text\":\"R\"}]},{\"type\":\"text\",\"text\":\"more\"}]}";
    char body[1200];
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "ok" } });
    snprintf(body, sizeof body, "{%s]}", talk);
    api_want(&h, PATH, body, 200, "content.0.text", "\"ok\"");
    check_prompt(&h, "<BOS>s<｜User｜>q<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
                     "f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜><EOS>"
                     "<｜tool▁output▁begin｜>R<｜tool▁output▁end｜><｜User｜>more<｜Assistant｜></think>");
    char count[32];
    snprintf(count, sizeof count, "%zu", fake_last(h.b.sched)->n_ids);
    api_want(&h, "/v1/messages/count_tokens", body, 200, "input_tokens", count);
    /* the answer begins as the assistant's last turn does */
    snprintf(body, sizeof body, "{%s,{\"role\":\"assistant\",\"content\":\"Well\"}]}", talk);
    api_want(&h, PATH, body, 200, "content.0.text", "\"ok\"");
    const qsi_job_opts *o = fake_last(h.b.sched);
    assert_int_equal(o->n_lead, 0);
    assert_int_equal(o->ids[o->n_ids - 1], 'l');
    api_close(&h);
}

static void test_refused(void **state) {
    static const char *const wrong[] = {
        "{}", "{\"max_tokens\":5}", "{\"max_tokens\":0,\"messages\":[{\"role\":\"user\","
            "\"content\":\"a\"}]}",
        "{\"max_tokens\":5,\"messages\":[]}",
        "{\"max_tokens\":5,\"messages\":[{\"role\":\"system\",\"content\":\"a\"}]}",
        "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
        "{\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
        "\"tool_use_id\":\"z\"}]}]}",
        "{" HELLO ",\"stop_sequences\":\"a\"}", "{" HELLO ",\"temperature\":3}",
        "{" HELLO ",\"thinking\":{\"type\":\"maybe\"}}", "{" HELLO ",\"tools\":[{\"name\":\"\"}]}",
        "{" HELLO ",\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}]}",
        "{" HELLO ",\"tool_choice\":{\"type\":\"any\"}}",
    };
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "x" }, .end = QS_E_IO,
        .n_before = 1 });
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        api_want(&h, PATH, wrong[i], 400, "error.type", "\"invalid_request_error\"");
        api_want(&h, PATH, wrong[i], 400, "type", "\"error\"");
    }
    api_want(&h, PATH, "{\"model\":\"claude\"," HELLO "}", 404, "error.type",
        "\"not_found_error\"");
    api_close(&h);
}

static void test_failing(void **state) {
    char name[64];
    api_house h;
    api_open(&h, "deepseek-v3.1", true,
             &(fake_script){ .answers = { "xyz" }, .end = QS_E_IO, .n_before = 1 });
    api_answer a = api_ask(&h, PATH, "{" HELLO ",\"stream\":true}");
    const char *last = api_event(a.body.data, api_events(a.body.data) - 1, name);
    assert_string_equal(name, "error");
    assert_string_equal(api_pick(last, "error.type"), "\"api_error\"");
    api_release(&a);
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),   cmocka_unit_test(test_stops),
            cmocka_unit_test(test_stream),
        cmocka_unit_test(test_history), cmocka_unit_test(test_refused),
            cmocka_unit_test(test_failing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
