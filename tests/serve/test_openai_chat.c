/* serve/openai_chat: whole and streamed answers, reasoning, calls, log-probabilities, prompts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"

#define CHAT "/v1/chat/completions"
#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOL(name)                                                                                \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"description\":\"d\","            \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},"         \
    "\"required\":[\"city\"]}}}"
#define CALL_PLAIN                                                                                \
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"杭州\"}"          \
    "<｜tool▁call▁end｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{}<｜tool▁call▁end｜>"               \
    "<｜tool▁calls▁end｜>"

static void test_whole(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { " 春眠不觉晓\n", "two" } });
    api_answer a = api_ask(&h, CHAT, "{\"n\":2," HELLO "}");
    const char *b = a.body.data;
    assert_int_equal(a.status, 200);
    assert_string_equal(a.type, "application/json");
    assert_string_equal(api_pick(b, "object"), "\"chat.completion\"");
    assert_string_equal(api_pick(b, "choices.0.message.content"), "\" 春眠不觉晓\\n\"");
    assert_string_equal(api_pick(b, "choices.0.message.role"), "\"assistant\"");
    assert_string_equal(api_pick(b, "choices.0.logprobs"), "null");
    assert_string_equal(api_pick(b, "choices.1.message.content"), "\"two\"");
    assert_string_equal(api_pick(b, "choices.1.index"), "1");
    assert_string_equal(api_pick(b, "usage.completion_tokens"), "20");
    assert_string_equal(api_pick(b, "timings.predicted_n"), "20");
    assert_string_equal(api_pick(b, "truncation"), "");
    /* BOS, the template's words, the user's, and what begins the answer */
    const qsi_job_opts *o = fake_last(h.b.sched);
    static const char prompt[] = "User: hi\n\nAssistant:";
    assert_int_equal(o->ids[0], 256);
    assert_int_equal(o->n_ids, sizeof prompt);
    for (size_t i = 0; i + 1 < sizeof prompt; i++) {
        qsi_slice s = qsi_vocab_bytes(h.vocab, o->ids[i + 1]);
        assert_int_equal(s.p[0], prompt[i]);
    }
    assert_int_equal(o->n, 2);
    assert_false(o->strip_space);
    api_release(&a);
    api_close(&h);
}

static void test_settings(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "abcdefgh" } });
    h.client = 99;
    api_want(&h, CHAT, "{" HELLO ",\"temperature\":0,\"top_p\":0.5,\"top_k\":7,\"min_p\":0.1,"
        "\"seed\":-3,"
             "\"repetition_penalty\":1.1,\"presence_penalty\":1,\"frequency_penalty\":-1,"
                 "\"min_tokens\":2,"
             "\"max_completion_tokens\":4,\"ignore_eos\":true,\"priority\":-5,"
                 "\"cache_prompt\":false,"
             "\"best_of\":3,\"logit_bias\":{\"5\":-100,\"6\":2.5},\"stop\":[\"x\",\"yz\"]}",
             200, "choices.0.finish_reason", "\"length\"");
    const qsi_job_opts *o = fake_last(h.b.sched);
    assert_true(o->sampling.temp == 0 && o->sampling.top_p == 0.5 && o->sampling.top_k == 7);
    assert_true(o->sampling.min_p == 0.1 && o->sampling.repeat_penalty == 1.1);
    assert_true(o->sampling.presence_penalty == 1 && o->sampling.frequency_penalty == -1);
    assert_true(o->seed == (uint64_t)-3 && o->n_min == 2 && o->n_predict == 4 && o->ignore_end);
    assert_true(o->priority == -5 && o->no_cache && o->best_of == 3 && o->n == 1 && o->client == 99);
    assert_int_equal(o->sampling.n_bias, 2);
    assert_true(isinf(o->sampling.bias[0].bias) && o->sampling.bias[1].bias == 2.5f);
    assert_int_equal(o->n_stops, 2);
    assert_string_equal(o->stops[1], "yz");
    uint64_t seed = o->seed;
    api_want(&h, CHAT, "{" HELLO "}", 200, "choices.0.finish_reason", "\"stop\"");
    assert_true(fake_last(h.b.sched)->seed != seed);
    assert_true(fake_last(h.b.sched)->sampling.temp == 0.7);
    api_close(&h);
}

static void test_stop(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "one STOP two" } });
    api_want(&h, CHAT, "{" HELLO ",\"stop\":\"STOP\"}", 200, "choices.0.message.content",
        "\"one \"");
    api_want(&h, CHAT, "{" HELLO ",\"stop\":\"STOP\"}", 200, "choices.0.finish_reason", "\"stop\"");
    /* a character that is cut */
    api_close(&h);
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "晓" } });
    api_want(&h, CHAT, "{" HELLO ",\"max_tokens\":2}", 200, "choices.0.message.content",
        "\"\xef\xbf\xbd\"");
    api_close(&h);
}

static void test_stream(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { " 你好, world", "二" } });
    api_answer a = api_ask(&h, CHAT, "{" HELLO ",\"stream\":true,\"n\":2,"
                                     "\"stream_options\":{\"include_usage\":true}}");
    assert_true(a.streamed);
    assert_string_equal(a.type, "text/event-stream");
    const char *s = a.body.data;
    size_t n = api_events(s);
    qsi_str one = api_join(s, "choices.0.delta.content", "choices.0.index", "0");
    qsi_str two = api_join(s, "choices.0.delta.content", "choices.0.index", "1");
    assert_string_equal(one.data, " 你好, world");
    assert_string_equal(two.data, "二");
    assert_string_equal(api_pick(api_event(s, 0, NULL), "choices.0.delta.role"), "\"assistant\"");
    assert_string_equal(api_pick(api_event(s, 0, NULL), "choices.0.finish_reason"), "null");
    assert_string_equal(api_pick(api_event(s, 1, NULL), "choices.0.delta.role"), "");
    assert_string_equal(api_pick(api_event(s, 1, NULL), "usage"), "null");
    assert_string_equal(api_pick(api_event(s, n - 3, NULL), "choices.0.finish_reason"), "\"stop\"");
    assert_string_equal(api_pick(api_event(s, n - 2, NULL), "choices"), "[]");
    assert_string_equal(api_pick(api_event(s, n - 2, NULL), "usage.completion_tokens"), "17");
    assert_string_equal(api_event(s, n - 1, NULL), "[DONE]");
    const char *id = api_pick(api_event(s, 0, NULL), "id");
    for (size_t i = 1; i + 1 < n; i++) assert_string_equal(api_pick(api_event(s, i, NULL), "id"),
        id);
    qsi_str_release(&one);
    qsi_str_release(&two);
    api_release(&a);
    api_close(&h);
}

/* The bytes of the tokens join to the text, streamed or not, and stop strings have none. */
static void check_logprobs(api_house *h, const char *fields, const char *text) {
    char body[300];
    for (int stream = 0; stream < 2; stream++) {
        uint8_t bytes[200];
        size_t n = 0;
        snprintf(body, sizeof body, "{" HELLO ",\"logprobs\":true,\"top_logprobs\":3%s%s}", fields,
                 stream ? ",\"stream\":true" : "");
        api_answer a = api_ask(h, CHAT, body);
        assert_int_equal(a.status, 200);
        size_t n_events = stream ? api_events(a.body.data) - 1 : 1;
        for (size_t e = 0; e < n_events; e++) {
            const char *event = stream ? api_event(a.body.data, e, NULL) : a.body.data;
            for (int i = 0;; i++) {
                char path[80];
                snprintf(path, sizeof path, "choices.0.logprobs.content.%d", i);
                if (api_pick(event, path)[0] == '\0') break;
                snprintf(path, sizeof path, "choices.0.logprobs.content.%d.logprob", i);
                assert_string_equal(api_pick(event, path), "-0.25");
                snprintf(path, sizeof path,
                    "choices.0.logprobs.content.%d.top_logprobs.2.logprob", i);
                assert_string_equal(api_pick(event, path), "-9999");
                snprintf(path, sizeof path, "choices.0.logprobs.content.%d.bytes.0", i);
                int b = -1;
                sscanf(api_pick(event, path), "%d", &b);
                assert_true(b >= 0 && b < 256 && n < sizeof bytes);
                bytes[n++] = (uint8_t)b;
            }
        }
        assert_int_equal(n, strlen(text));
        assert_memory_equal(bytes, text, n);
        api_release(&a);
    }
}

static void test_logprobs(void **state) {
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { " 晓 STOP no" } });
    check_logprobs(&h, "", " 晓 STOP no");
    check_logprobs(&h, ",\"stop\":\"STOP\"", " 晓 ");
    api_close(&h);
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "let me</think>\n\n好" } });
    check_logprobs(&h, ",\"chat_template_kwargs\":{\"thinking\":true}", "好");
    api_close(&h);
}

static void test_reasoning(void **state) {
    static const char asks[] = "{" HELLO ",\"stream\":true,\"reasoning_effort\":\"high\"}";
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "想一想</think>\n\n好。" } });
    api_want(&h, CHAT, "{" HELLO ",\"chat_template_kwargs\":{\"enable_thinking\":true}}", 200,
             "choices.0.message.reasoning_content", "\"想一想\"");
    assert_int_equal(fake_last(h.b.sched)->think, QSI_THINK_ON);
    api_want(&h, CHAT, "{" HELLO ",\"reasoning_effort\":\"none\"}", 200,
        "choices.0.message.reasoning_content",
             "");
    assert_int_equal(fake_last(h.b.sched)->think, QSI_THINK_OFF);
    api_answer a = api_ask(&h, CHAT, asks);
    qsi_str r = api_join(a.body.data, "choices.0.delta.reasoning_content", NULL, NULL);
    qsi_str t = api_join(a.body.data, "choices.0.delta.content", NULL, NULL);
    assert_string_equal(r.data, "想一想");
    assert_string_equal(t.data, "好。");
    qsi_str_release(&r);
    qsi_str_release(&t);
    api_release(&a);
    api_close(&h);
    api_open(&h, "deepseek-r1", true, &(fake_script){ .answers = { "a" } });
    if (!h.b.can_choose)
        api_want(&h, CHAT, "{" HELLO ",\"reasoning_effort\":\"none\"}", 400, "error.param",
                 "\"reasoning_effort\"");
    api_close(&h);
}

static void test_calls(void **state) {
    static const char tools[] = "{" HELLO ",\"tools\":[" TOOL("weather") "," TOOL("time") "]}";
    static const char one[] = "{" HELLO ",\"parallel_tool_calls\":false,"
        "\"tools\":[" TOOL("weather") "]}";
    static const char streamed[] = "{" HELLO ",\"stream\":true,\"tools\":[" TOOL("weather") "]}";
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "看看" CALL_PLAIN } });
    api_answer a = api_ask(&h, CHAT, tools);
    const char *b = a.body.data;
    assert_string_equal(api_pick(b, "choices.0.finish_reason"), "\"tool_calls\"");
    assert_string_equal(api_pick(b, "choices.0.message.content"), "\"看看\"");
    assert_string_equal(api_pick(b, "choices.0.message.tool_calls.0.function.name"), "\"weather\"");
    assert_string_equal(api_pick(b, "choices.0.message.tool_calls.0.function.arguments"),
                        "\"{\\\"city\\\": \\\"杭州\\\"}\"");
    assert_string_equal(api_pick(b, "choices.0.message.tool_calls.1.function.name"), "\"time\"");
    assert_true(strncmp(api_pick(b, "choices.0.message.tool_calls.0.id"), "\"call_", 6) == 0);
    assert_int_equal(fake_last(h.b.sched)->n_tools, 2);
    api_release(&a);
    api_want(&h, CHAT, one, 200, "choices.0.message.tool_calls.1", "");
    a = api_ask(&h, CHAT, streamed);
    qsi_str args = api_join(a.body.data, "choices.0.delta.tool_calls.0.function.arguments",
                            "choices.0.delta.tool_calls.0.index", "0");
    qsi_str names = api_join(a.body.data, "choices.0.delta.tool_calls.0.function.name", NULL, NULL);
    qsi_str ids = api_join(a.body.data, "choices.0.delta.tool_calls.0.id",
                           "choices.0.delta.tool_calls.0.index", "1");
    assert_string_equal(args.data, "{\"city\": \"杭州\"}");
    assert_string_equal(names.data, "weathertime");
    assert_int_equal(strncmp(ids.data, "call_", 5), 0);
    qsi_str_release(&args);
    qsi_str_release(&names);
    qsi_str_release(&ids);
    api_release(&a);
    api_close(&h);
}

/* The ids of the last job as text. */
static void check_prompt(const api_house *h, const char *want) {
    const qsi_job_opts *o = fake_last(h->b.sched);
    qsi_str text = { 0 };
    assert_int_equal(qsi_decode(h->vocab, o->ids, o->n_ids, true, &text), QS_OK);
    assert_string_equal(text.data, want);
    qsi_str_release(&text);
}

/* A call of some function is begun for the model: in front of the name, behind an empty reasoning where
 * the prompt opens one. */
static void test_forced(void **state) {
    static const char body[] = "{" HELLO ",\"tool_choice\":\"required\",\"tools\":[" TOOL("weather")
                               "," TOOL("time") "]}";
    api_house h;
    api_open(&h, "deepseek-v3.1", true,
             &(fake_script){ .answers = { "time<｜tool▁sep｜>{}<｜tool▁call▁end｜>" } });
    api_want(&h, CHAT, body, 200, "choices.0.message.tool_calls.0.function.name", "\"time\"");
    api_want(&h, CHAT, body, 200, "choices.0.finish_reason", "\"tool_calls\"");
    assert_int_equal(fake_last(h.b.sched)->n_lead, 2);
    assert_int_equal(fake_last(h.b.sched)->think, QSI_THINK_OFF);
    const qsi_job_opts *o = fake_last(h.b.sched);
    assert_int_equal(o->ids[o->n_ids - 1], qsi_vocab_find(h.vocab, "<｜tool▁call▁begin｜>", 27));
    api_want(&h, CHAT, "{" HELLO ",\"tool_choice\":\"none\",\"tools\":[" TOOL("weather") "]}", 200,
             "choices.0.finish_reason", "\"stop\"");
    assert_int_equal(fake_last(h.b.sched)->n_tools, 0);
    api_want(&h, CHAT, "{" HELLO ",\"reasoning_effort\":\"high\",\"tool_choice\":\"required\","
        "\"tools\":["
             TOOL("weather") "," TOOL("time") "]}", 400, "error.param", "\"tool_choice\"");
    api_want(&h, CHAT, "{" HELLO ",\"tool_choice\":{\"type\":\"function\","
        "\"function\":{\"name\":\"x\"}},"
             "\"tools\":[" TOOL("weather") "]}", 400, "error.param", "\"tool_choice\"");
    api_close(&h);
    api_open(&h, "deepseek-r1-0528", true, &(fake_script){ .answers = {
             "time\n```json\n{\"a\": 2}\n```<｜tool▁call▁end｜>" } });
    api_want(&h, CHAT, body, 200, "choices.0.message.tool_calls.0.function.arguments",
        "\"{\\\"a\\\": 2}\"");
    api_close(&h);
}

static void test_constraints(void **state) {
    static const struct {
        const char *fields;
        bool good;
        const char *param;
    } forms[] = {
        { "\"grammar\":\"root ::= \\\"a\\\" | \\\"b\\\"\"", true, NULL },
        { "\"guided_regex\":\"[ab]+\"", true, NULL },
        { "\"guided_choice\":[\"yes\",\"no\"]", true, NULL },
        { "\"guided_grammar\":\"root ::= [a-z]+\"", true, NULL },
        { "\"structured_outputs\":{\"choice\":[\"yes\"]}", true, NULL },
        { "\"structured_outputs\":{\"regex\":\"a*\"}", true, NULL },
        { "\"response_format\":{\"type\":\"text\"}", false, NULL },
        { "\"response_format\":{\"type\":\"json_object\"}", true, NULL },
        { "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
            "\"strict\":true,"
          "\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}}}}}",
              true, NULL },
        { "\"guided_json\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}", true, NULL },
        { "\"guided_json\":\"{}\"", true, NULL },
        { "\"structured_outputs\":{\"json\":{\"enum\":[1,2]}}", true, NULL },
        { "\"response_format\":{\"type\":\"json_schema\"}", false,
            "\"response_format.json_schema\"" },
        { "\"guided_json\":{\"type\":\"thing\"}", false, "\"guided_json\"" },
        { "\"guided_json\":{\"not\":{\"type\":\"string\"}}", false, "\"guided_json\"" },
        { "\"guided_json\":5", false, "\"guided_json\"" },
        { "\"grammar\":\"\"", false, NULL },
        { "\"grammar\":\"root ::= (\"", false, "\"grammar\"" },
        { "\"grammar\":5", false, "\"grammar\"" },
        { "\"guided_regex\":\"(\"", false, "\"guided_regex\"" },
        { "\"guided_choice\":[]", false, "\"guided_choice\"" },
        { "\"guided_choice\":[\"a\",5]", false, "\"guided_choice\"" },
        { "\"structured_outputs\":{\"structural_tag\":{}}", false,
            "\"structured_outputs.structural_tag\"" },
        { "\"guided_choice\":[\"a\"],\"guided_regex\":\"a\"", false, "\"guided_choice\"" },
        { "\"guided_choice\":[\"a\"],\"tools\":[" TOOL("f") "]", false, "\"tools\"" },
    };
    char body[600];
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "a" } });
    for (size_t i = 0; i < QSI_COUNT(forms); i++) {
        snprintf(body, sizeof body, "{" HELLO ",%s}", forms[i].fields);
        if (forms[i].param != NULL) {
            api_want(&h, CHAT, body, 400, "error.param", forms[i].param);
            continue;
        }
        api_want(&h, CHAT, body, 200, "choices.0.finish_reason", "\"stop\"");
        assert_int_equal(fake_last(h.b.sched)->grammar != NULL, forms[i].good);
    }
    api_close(&h);
}

/* A named call: its parameters keep to their schema. Bare JSON: the whole answer is a call. */
static void test_named(void **state) {
    static const char body[] = "{" HELLO ",\"tool_choice\":{\"type\":\"function\","
        "\"function\":{\"name\":"
                               "\"weather\"}},\"tools\":[" TOOL("weather") "," TOOL("time") "]}";
    static const char *const templates[] = { "deepseek-v3.1", "deepseek-r1-0528" };
    api_house h;
    for (size_t i = 0; i < QSI_COUNT(templates); i++) {
        api_open(&h, templates[i], true, &(fake_script){ .answers = { "{\"city\": \"x\"}" } });
        api_want(&h, CHAT, body, 200, "choices.0.message.tool_calls.0.function.name",
            "\"weather\"");
        api_want(&h, CHAT, body, 200, "choices.0.message.tool_calls.0.function.arguments",
                 "\"{\\\"city\\\": \\\"x\\\"}\"");
        assert_non_null(fake_last(h.b.sched)->grammar);
        assert_true(fake_last(h.b.sched)->n_lead > 2);
        api_close(&h);
    }
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = {
             "{\"name\": \"weather\", \"arguments\": {\"city\": \"y\"}}" } });
    api_want(&h, CHAT, body, 200, "choices.0.message.tool_calls.0.function.arguments",
             "\"{\\\"city\\\": \\\"y\\\"}\"");
    assert_non_null(fake_last(h.b.sched)->grammar);
    assert_int_equal(fake_last(h.b.sched)->n_lead, 0);
    api_close(&h);
}

/* Calls and results go back into the template; results in the order of their calls. */
static void test_history(void **state) {
    static const char body[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"<｜User｜>\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"r\",\"tool_calls\":["
        "{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
        "{\"id\":\"y\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"y\",\"content\":\"Y\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":\"X\"}]}";
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "ok" } });
    api_want(&h, CHAT, body, 200, "choices.0.message.content", "\"ok\"");
    check_prompt(&h, "<BOS>s<｜User｜>a\n<｜User｜><｜Assistant｜></think><｜tool▁calls▁begin｜>"
                     "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁call▁begin｜>"
                     "g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜><EOS>"
                     "<｜tool▁output▁begin｜>X<｜tool▁output▁end｜>"
                     "<｜tool▁output▁begin｜>Y<｜tool▁output▁end｜>");
    /* the role's marker that the person wrote is text */
    const qsi_job_opts *o = fake_last(h.b.sched);
    int n = 0;
    for (size_t i = 0; i < o->n_ids; i++) n += o->ids[i] == 258;
    assert_int_equal(n, 1);
    api_close(&h);
}

static void test_truncation(void **state) {
    static const char talk[] =
        "\"messages\":[{\"role\":\"system\",\"content\":\"sys\"},"
        "{\"role\":\"user\",\"content\":\"first question\"},{\"role\":\"assistant\","
            "\"content\":\"a1\"},"
        "{\"role\":\"user\",\"content\":\"second question\"},{\"role\":\"assistant\","
            "\"content\":\"a2\"},"
        "{\"role\":\"user\",\"content\":\"third\"}]";
    char body[800];
    api_house h;
    api_open(&h, "deepseek-llm", true, &(fake_script){ .answers = { "ok" } });
    snprintf(body, sizeof body, "{%s}", talk);
    api_want(&h, CHAT, body, 200, "truncation", "");
    h.b.n_ctx = 100;
    api_want(&h, CHAT, body, 400, "error.code", "\"context_length_exceeded\"");
    snprintf(body, sizeof body, "{%s,\"truncation\":\"disabled\"}", talk);
    api_want(&h, CHAT, body, 400, "error.code", "\"context_length_exceeded\"");
    snprintf(body, sizeof body, "{%s,\"truncation\":\"auto\",\"max_tokens\":8}", talk);
    api_want(&h, CHAT, body, 200, "truncation.dropped_messages", "2");
    check_prompt(&h, "<BOS>sys\n\nUser: second question\n\nAssistant: a2<EOS>User: "
        "third\n\nAssistant:");
    snprintf(body, sizeof body, "{%s,\"truncation\":\"auto\"}", talk);
    h.b.n_ctx = 60;
    api_want(&h, CHAT, body, 200, "truncation.dropped_messages", "4");
    h.b.n_ctx = 20;
    api_want(&h, CHAT, body, 400, "error.code", "\"context_length_exceeded\"");
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_forced),
        cmocka_unit_test(test_constraints),
        cmocka_unit_test(test_named),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
