/* serve/openai_text, embeddings, tokenize: prompts of every kind, echo, log-probabilities in columns. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api_testing.h"
#include "base/mem.h"

#define TEXT "/v1/completions"

static void test_prompts(void **state) {
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { " on", " two" } });
    api_want(&h, TEXT, "{\"prompt\":\"go\"}", 200, "choices.0.text", "\" on\"");
    assert_int_equal(fake_last(h.b.sched)->ids[0], 256); /* BOS before a text */
    assert_int_equal(fake_last(h.b.sched)->n_ids, 3);
    assert_null(fake_last(h.b.sched)->chat);
    api_want(&h, TEXT, "{\"prompt\":[103,111]}", 200, "choices.0.text", "\" on\"");
    assert_int_equal(fake_last(h.b.sched)->ids[0], 103); /* none before ids */
    assert_int_equal(fake_last(h.b.sched)->n_ids, 2);
    api_answer a = api_ask(&h, TEXT, "{\"prompt\":[\"a\",[98,99],\"d\"],\"n\":2}");
    for (int i = 0; i < 6; i++) {
        char path[40], want[16];
        snprintf(path, sizeof path, "choices.%d.text", i);
        assert_string_equal(api_pick(a.body.data, path), i % 2 ? "\" two\"" : "\" on\"");
        snprintf(path, sizeof path, "choices.%d.index", i);
        snprintf(want, sizeof want, "%d", i);
        assert_string_equal(api_pick(a.body.data, path), want);
    }
    api_release(&a);
    /* control tokens in a text are text */
    api_want(&h, TEXT, "{\"prompt\":\"<EOS>\",\"echo\":true}", 200, "choices.0.text",
        "\"<EOS> on\"");
    assert_int_equal(fake_last(h.b.sched)->n_ids, 6);
    api_close(&h);
}

static void test_refused(void **state) {
    static const struct {
        const char *body, *param;
    } wrong[] = {
        { "{}", "\"prompt\"" },
        { "{\"prompt\":null}", "\"prompt\"" },
        { "{\"prompt\":[]}", "\"prompt\"" },
        { "{\"prompt\":{}}", "\"prompt\"" },
        { "{\"prompt\":[1,\"a\"]}", "\"prompt\"" },
        { "{\"prompt\":[\"a\",5]}", "\"prompt\"" },
        { "{\"prompt\":[-1]}", "\"prompt\"" },
        { "{\"prompt\":[258]}", "\"prompt\"" },
        { "{\"prompt\":[1.5]}", "\"prompt\"" },
        { "{\"prompt\":[[]]}", "\"prompt\"" },
        { "{\"prompt\":\"a\",\"logprobs\":51}", "\"logprobs\"" },
        { "{\"prompt\":\"a\",\"logprobs\":true}", "\"logprobs\"" },
        { "{\"prompt\":\"a\",\"max_tokens\":0}", "\"max_tokens\"" },
        { "{\"prompt\":\"a\",\"max_tokens\":-1}", "\"max_tokens\"" },
        { "{\"prompt\":\"a\",\"suffix\":\"b\"}", "\"suffix\"" },
        { "{\"prompt\":[1],\"suffix\":\"b\"}", "\"suffix\"" },
    };
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { "x" } });
    for (size_t i = 0; i < QSI_COUNT(wrong); i++)
        api_want(&h, TEXT, wrong[i].body, 400, "error.param", wrong[i].param);
    h.b.n_ctx = 8;
    api_want(&h, TEXT, "{\"prompt\":\"12345678\"}", 400, "error.code",
        "\"context_length_exceeded\"");
    api_want(&h, TEXT, "{\"prompt\":\"1234567\",\"max_tokens\":1}", 400, "error.code",
             "\"context_length_exceeded\"");
    api_want(&h, TEXT, "{\"prompt\":\"1234567\",\"max_tokens\":0,\"echo\":true}", 200,
        "choices.0.text",
             "\"1234567\"");
    api_want(&h, TEXT, "{\"prompt\":\"123456789\",\"truncation\":\"auto\"}", 200,
             "truncation.dropped_tokens", "4");
    assert_int_equal(fake_last(h.b.sched)->ids[0], 256);
    assert_int_equal(fake_last(h.b.sched)->n_ids, 6);
    assert_int_equal(fake_last(h.b.sched)->ids[5], '9');
    api_close(&h);
}

static void test_echo(void **state) {
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { "é" } });
    api_answer a = api_ask(&h, TEXT, "{\"prompt\":\"晓a\",\"echo\":true,\"logprobs\":1,"
        "\"max_tokens\":2}");
    const char *b = a.body.data;
    assert_string_equal(api_pick(b, "choices.0.text"), "\"晓aé\"");
    assert_string_equal(api_pick(b, "choices.0.logprobs.tokens"),
        "[\"<BOS>\", \"bytes:\\\\xe6\", \"bytes:\\\\x99\", \"bytes:\\\\x93\", \"a\", "
            "\"bytes:\\\\xc3\", "
        "\"bytes:\\\\xa9\"]");
    assert_string_equal(api_pick(b, "choices.0.logprobs.token_logprobs"),
                        "[null, -0.5, -0.5, -0.5, -0.5, -0.25, -0.25]");
    assert_string_equal(api_pick(b, "choices.0.logprobs.text_offset"), "[0, 0, 1, 1, 1, 2, 3]");
    assert_string_equal(api_pick(b, "choices.0.logprobs.top_logprobs.0"), "null");
    assert_string_equal(api_pick(b, "choices.0.logprobs.top_logprobs.4"), "{\"a\": -0.5}");
    api_release(&a);
    /* the prompt alone, whole and streamed */
    api_want(&h, TEXT, "{\"prompt\":[97,98],\"echo\":true,\"logprobs\":0,\"max_tokens\":0}", 200,
             "choices.0.logprobs.token_logprobs", "[null, -0.5]");
    a = api_ask(&h, TEXT, "{\"prompt\":\"ab\",\"echo\":true,\"logprobs\":0,\"max_tokens\":0,"
        "\"stream\":true}");
    assert_string_equal(api_pick(api_event(a.body.data, 0, NULL), "choices.0.text"), "\"ab\"");
    assert_string_equal(api_pick(api_event(a.body.data, 0, NULL), "choices.0.logprobs.text_offset"),
                        "[0, 0, 1]");
    assert_string_equal(api_event(a.body.data, 1, NULL), "[DONE]");
    api_release(&a);
    /* an answer that ends at once still has an entry behind the prompt's */
    api_close(&h);
    api_open(&h, NULL, false, &(fake_script){ .answers = { "" } });
    api_want(&h, TEXT, "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":0,\"max_tokens\":1}", 200,
             "choices.0.logprobs.token_logprobs", "[null, -0.5, null]");
    api_close(&h);
}

static void test_stream(void **state) {
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { "床前明月光" } });
    api_answer a = api_ask(&h, TEXT, "{\"prompt\":[\"x\",\"y\"],\"stream\":true,\"echo\":true}");
    qsi_str one = api_join(a.body.data, "choices.0.text", "choices.0.index", "0");
    qsi_str two = api_join(a.body.data, "choices.0.text", "choices.0.index", "1");
    assert_string_equal(one.data, "x床前明月光");
    assert_string_equal(two.data, "y床前明月光");
    qsi_str_release(&one);
    qsi_str_release(&two);
    api_release(&a);
    api_close(&h);
}

/* More prompts than run at once, with a queue that is full now and then. */
static void test_many(void **state) {
    api_house h;
    qsi_str body = { 0 };
    assert_int_equal(qsi_str_puts(&body, "{\"input\":[\"abc\""), QS_OK);
    for (int i = 1; i < 40; i++) assert_int_equal(qsi_str_puts(&body, ",\"abc\""), QS_OK);
    assert_int_equal(qsi_str_puts(&body, "]}"), QS_OK);
    api_open(&h, NULL, false, &(fake_script){ .answers = { "x" } });
    api_answer a = api_ask(&h, "/v1/embeddings", body.data);
    assert_int_equal(a.status, 200);
    assert_string_equal(api_pick(a.body.data, "data.39.embedding"), "[0.5, -0.5, 0.5, 4]");
    assert_string_equal(api_pick(a.body.data, "usage.prompt_tokens"), "160");
    assert_int_equal(fake_submits(h.b.sched), 40);
    api_release(&a);
    qsi_str_release(&body);
    api_close(&h);
}

static void test_embeddings(void **state) {
    api_house h;
    api_open(&h, NULL, false, &(fake_script){ .answers = { "x" } });
    api_want(&h, "/v1/embeddings", "{\"input\":[97,98]}", 200, "data.0.embedding",
        "[0.5, -0.5, 0.5, 2]");
    api_want(&h, "/v1/embeddings", "{\"input\":\"a\",\"encoding_format\":\"base64\","
        "\"dimensions\":4}", 200,
             "data.0.embedding", "\"AAAAPwAAAL8AAAA/AAAAQA==\"");
    assert_true(fake_last(h.b.sched)->embed);
    api_want(&h, "/v1/embeddings", "{\"input\":\"a\",\"dimensions\":3}", 400, "error.param",
             "\"dimensions\"");
    api_want(&h, "/v1/embeddings", "{\"input\":\"\"}", 400, "error.param", "\"input\"");
    api_want(&h, "/v1/embeddings", "{\"input\":[]}", 400, "error.param", "\"input\"");
    api_want(&h, "/v1/embeddings", "{\"input\":[\"a\",null]}", 400, "error.param", "\"input\"");
    api_want(&h, "/v1/embeddings", "{\"input\":\"a\",\"encoding_format\":\"hex\"}", 400,
        "error.param",
             "\"encoding_format\"");
    api_close(&h);
}

static void test_tokenize(void **state) {
    api_house h;
    api_open(&h, "deepseek-v3.1", true, &(fake_script){ .answers = { "x" } });
    api_want(&h, "/tokenize", "{\"content\":\"a<EOS>\"}", 200, "tokens",
        "[97, 60, 69, 79, 83, 62]");
    api_want(&h, "/tokenize", "{\"content\":\"a\",\"add_special\":true}", 200, "tokens",
        "[256, 97]");
    api_want(&h, "/tokenize", "{\"content\":\"a<EOS>\",\"parse_special\":true}", 200, "tokens",
        "[97, 257]");
    api_want(&h, "/tokenize", "{\"content\":\"é\",\"with_pieces\":true}", 200, "tokens",
             "[{\"id\": 195, \"piece\": [195]}, {\"id\": 169, \"piece\": [169]}]");
    api_want(&h, "/tokenize", "{}", 400, "error.param", "\"content\"");
    api_want(&h, "/tokenize", "{\"content\":[]}", 400, "error.param", "\"content\"");
    api_want(&h, "/detokenize", "{\"tokens\":[230,153,147,257]}", 200, "content", "\"晓<EOS>\"");
    api_want(&h, "/detokenize", "{\"tokens\":[230]}", 200, "content", "\"\xef\xbf\xbd\"");
    api_want(&h, "/detokenize", "{\"tokens\":[5000]}", 400, "error.param", "\"tokens\"");
    api_want(&h, "/apply-template", "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
        200, "prompt",
             "\"<BOS><｜User｜>q<｜Assistant｜></think>\"");
    api_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),  cmocka_unit_test(test_refused),
            cmocka_unit_test(test_echo),
        cmocka_unit_test(test_stream),   cmocka_unit_test(test_many),
            cmocka_unit_test(test_embeddings),
        cmocka_unit_test(test_tokenize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
