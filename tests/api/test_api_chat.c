/* api/api_chat on a tiny random model: turns, the cache between them, files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define MODEL "chat_model.gguf"
#define FILE_A "chat_a.json"
#define FILE_B "chat_b.json"

static qs_model *model;

static int open_model(void **state) {
    tiny_model_opts o = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 5 };
    qs_err err;
    if (tmp_enter(state) != 0 || tiny_model_write(MODEL, &o, &err) != QS_OK) return -1;
    return qs_model_open(&model, MODEL, NULL, &err);
}

static int close_model(void **state) {
    qs_model_close(&model);
    return tmp_leave(state);
}

static qs_session *new_session(int64_t n_ctx) {
    qs_session *s = NULL;
    qs_session_opts o;
    qs_session_opts_init(&o, sizeof o);
    o.n_ctx = n_ctx;
    assert_int_equal(qs_session_create(&s, model, &o, NULL), QS_OK);
    return s;
}

static void ask(qs_session *s, const char *text, int64_t seed, qs_gen_stats *st) {
    qs_gen_opts o;
    qs_err err;
    qs_gen_opts_init(&o, sizeof o, model);
    o.seed = seed;
    o.n_predict = 14;
    assert_int_equal(qs_chat_add(s, QS_USER, text, strlen(text), &err), QS_OK);
    assert_int_equal(qs_chat_answer(s, &o, st, &err), QS_OK);
}

static void check_same_turns(const qs_session *a, const qs_session *b) {
    assert_int_equal(qs_chat_n_turns(a), qs_chat_n_turns(b));
    for (int64_t i = 0; i < qs_chat_n_turns(a); i++) {
        qs_turn x = qs_chat_turn(a, i), y = qs_chat_turn(b, i);
        assert_int_equal(x.role, y.role);
        assert_int_equal(x.n, y.n);
        assert_memory_equal(x.text, y.text, x.n);
    }
}

/* The second turn computes only what is new: everything fed before is still in the cache, the
 * generated ids among it. */
static void test_cache_between_turns(void **state) {
    qs_session *s = new_session(0), *cold = new_session(0);
    qs_gen_stats a, b, c;
    ask(s, "hello, who are you?", 1, &a);
    assert_true(a.n_generated > 0);
    int64_t fed = a.n_prompt + a.n_generated;
    ask(s, "写一首诗", 2, &b);
    /* the last generated id was not fed when the length ended the answer */
    assert_true(b.n_cached >= fed - 1);
    assert_true(b.n_prompt > fed);
    assert_int_equal(qs_chat_n_turns(s), 4);
    /* the generated ids stand in the history as they were made */
    ask(cold, "hello, who are you?", 1, &c);
    for (int64_t i = 0; i < fed; i++)
        assert_int_equal(qs_session_id(s, i), qs_session_id(cold, i));
    /* a session that was loaded and has an empty cache gives the same answer */
    assert_int_equal(qs_chat_save(cold, FILE_A, NULL), QS_OK);
    qs_session *loaded = new_session(0);
    assert_int_equal(qs_chat_load(loaded, FILE_A, NULL), QS_OK);
    ask(loaded, "写一首诗", 2, &c);
    assert_int_equal(c.n_cached, 0);
    check_same_turns(s, loaded);
    qs_session_free(s);
    qs_session_free(cold);
    qs_session_free(loaded);
}

static void test_truncate_and_system(void **state) {
    qs_session *s = new_session(0), *t = new_session(0);
    qs_gen_stats a, b;
    qs_err err;
    ask(s, "hello", 1, &a);
    ask(s, "again", 2, &a);
    qs_chat_truncate(s, 2);
    ask(s, "again", 2, &b); /* made again with the same seed: the same */
    assert_true(b.n_cached > 0);
    ask(t, "hello", 1, &a);
    ask(t, "again", 2, &a);
    check_same_turns(s, t);
    assert_int_equal(qs_chat_add(s, QS_SYSTEM, "x", 1, &err), QS_E_STATE);
    assert_int_equal(qs_chat_system(s, "be brief", 8, &err), QS_OK);
    assert_int_equal(qs_chat_n_turns(s), 5);
    assert_int_equal(qs_chat_turn(s, 0).role, QS_SYSTEM);
    assert_string_equal(qs_chat_turn(s, 0).text, "be brief");
    assert_string_equal(qs_chat_turn(s, 1).text, "hello");
    assert_int_equal(qs_chat_system(s, "be long", 7, &err), QS_OK);
    assert_int_equal(qs_chat_n_turns(s), 5);
    assert_string_equal(qs_chat_turn(s, 0).text, "be long");
    assert_int_equal(qs_chat_system(s, "", 0, &err), QS_OK);
    check_same_turns(s, t);
    assert_int_equal(qs_chat_add(s, QS_USER, "a\xc3", 2, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 1);
    qs_session_free(s);
    qs_session_free(t);
}

/* A conversation that no longer fits is refused with the numbers, and nothing is lost. */
static void test_context_full(void **state) {
    qs_session *s = new_session(40);
    qs_gen_stats st;
    qs_err err;
    qs_status got = QS_OK;
    int turns = 0;
    for (; turns < 20 && got == QS_OK; turns++) {
        assert_int_equal(qs_chat_add(s, QS_USER, "the moon", 8, &err), QS_OK);
        qs_gen_opts o;
        qs_gen_opts_init(&o, sizeof o, model);
        o.n_predict = 5;
        got = qs_chat_answer(s, &o, &st, &err);
    }
    assert_int_equal(got, QS_E_LIMIT);
    assert_non_null(strstr(err.text, "40"));
    assert_true(turns > 1);
    assert_int_equal(qs_chat_n_turns(s), 2 * turns - 1);
    qs_chat_truncate(s, 0);
    ask(s, "hi", 1, &st);
    assert_int_equal(qs_chat_n_turns(s), 2);
    qs_session_free(s);
}

typedef struct canceller {
    qs_session *s;
    int left;
} canceller;

static int cancel_later(void *user, const qs_token *t) {
    canceller *c = user;
    if (--c->left == 0) qs_session_cancel(c->s);
    return 0;
}

static void test_cancel(void **state) {
    qs_session *s = new_session(0);
    canceller c = { s, 4 };
    qs_gen_stats st;
    qs_gen_opts o;
    qs_err err;
    qs_gen_opts_init(&o, sizeof o, model);
    o.on_token = cancel_later;
    o.user = &c;
    o.ignore_end = 1;
    assert_int_equal(qs_chat_add(s, QS_USER, "hello", 5, &err), QS_OK);
    assert_int_equal(qs_chat_answer(s, &o, &st, &err), QS_OK);
    assert_int_equal(st.finish, QS_FINISH_CANCELLED);
    assert_int_equal(st.n_generated, 4);
    assert_int_equal(qs_chat_n_turns(s), 2); /* what was said stays said */
    ask(s, "go on", 1, &st);
    assert_int_equal(qs_chat_n_turns(s), 4);
    qs_session_free(s);
}

/* An answer that a stop string ended inside a token stays in the history as its text. */
static void test_stop_in_history(void **state) {
    qs_session *s = new_session(0);
    qs_gen_stats st;
    qs_gen_opts o;
    qs_err err;
    ask(s, "hello", 9, &st);
    qs_turn turn = qs_chat_turn(s, 1);
    assert_true(turn.n > 3);
    char stop[2] = { 0 };
    for (size_t i = 1; i < turn.n && !stop[0]; i++) /* an ASCII letter somewhere inside */
        if ((unsigned char)turn.text[i] < 128) stop[0] = turn.text[i];
    assert_true(stop[0] != 0);
    const char *list[] = { stop };
    qs_gen_opts_init(&o, sizeof o, model);
    o.seed = 9;
    o.n_predict = 14;
    o.stops = list;
    o.n_stops = 1;
    size_t want = (size_t)(strchr(turn.text, stop[0]) - turn.text);
    qs_chat_truncate(s, 1);
    assert_int_equal(qs_chat_answer(s, &o, &st, &err), QS_OK);
    assert_int_equal(st.finish, QS_FINISH_STOP);
    assert_int_equal(qs_chat_turn(s, 1).n, want);
    ask(s, "go on", 1, &st);
    assert_int_equal(qs_chat_n_turns(s), 4);
    qs_session_free(s);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_files(void **state) {
    static const char *const bad[] = {
        "", "{", "[]", "{\"messages\":3}", "{\"messages\":[{\"role\":\"user\"}]}",
        "{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"system\",\"content\":\"y\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
    };
    qs_session *s = new_session(0), *t = new_session(0);
    qs_gen_stats st;
    qs_err err = { 0 };
    assert_int_equal(qs_chat_system(s, "用诗回答 \"quoted\"", strlen("用诗回答 \"quoted\""), &err),
                     QS_OK);
    ask(s, "hello\nsecond line", 1, &st);
    assert_int_equal(qs_chat_save(s, FILE_B, &err), QS_OK);
    ask(t, "something else", 1, &st);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_file(FILE_A, bad[i]);
        assert_int_not_equal(qs_chat_load(t, FILE_A, &err), QS_OK);
        assert_non_null(strstr(err.text, FILE_A));
        assert_int_equal(qs_chat_n_turns(t), 2);
        assert_string_equal(qs_chat_turn(t, 0).text, "something else");
    }
    assert_int_not_equal(qs_chat_load(t, "no-such-file.json", &err), QS_OK);
    assert_int_equal(qs_chat_load(t, FILE_B, &err), QS_OK);
    check_same_turns(s, t);
    assert_int_not_equal(qs_chat_save(s, "no/such/folder/x.json", &err), QS_OK);
    /* ids of another vocabulary are not used, the texts are */
    write_file(FILE_A, "{\"vocabulary\":\"0000\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                       "{\"role\":\"assistant\",\"content\":\"b\",\"ids\":[999999]}]}");
    assert_int_equal(qs_chat_load(t, FILE_A, &err), QS_OK);
    assert_string_equal(qs_chat_turn(t, 1).text, "b");
    ask(t, "c", 1, &st);
    qs_session_free(s);
    qs_session_free(t);
}

typedef struct heard {
    size_t text, reasoning, other;
} heard;

static int hear_text(void *user, const char *p, size_t n) {
    ((heard *)user)->text += n;
    return 0;
}

static int hear_part(void *user, qs_part part, const char *p, size_t n) {
    heard *h = user;
    *(part == QS_PART_REASONING ? &h->reasoning : part == QS_PART_TEXT ? &h->other : &h->text) += n;
    return 0;
}

/* A template whose prompt opens the reasoning, and a model that never closes it. */
static void test_reasoning(void **state) {
    qs_model *m = NULL;
    qs_session *s = NULL, *t = NULL;
    qs_model_opts mo;
    qs_gen_opts o;
    qs_gen_stats st;
    qs_err err = { 0 };
    heard h = { 0 };
    qs_model_opts_init(&mo, sizeof mo);
    mo.chat_template = "deepseek-r1-distill-open";
    assert_int_equal(qs_model_open(&m, qs_model_path(model), &mo, &err), QS_OK);
    assert_int_equal(qs_session_create(&s, m, NULL, &err), QS_OK);
    assert_int_equal(qs_session_create(&t, m, NULL, &err), QS_OK);
    qs_gen_opts_init(&o, sizeof o, m);
    o.seed = 1;
    o.n_predict = 14;
    o.on_text = hear_text;
    o.on_part = hear_part;
    o.user = &h;
    assert_int_equal(qs_chat_add(s, QS_USER, "hello", 5, &err), QS_OK);
    qs_status got = qs_chat_answer(s, &o, &st, &err);
    if (got == QS_E_UNSUPPORTED) { /* this vocabulary has no tokens for the roles */
        assert_non_null(strstr(err.text, "User"));
    } else {
        assert_int_equal(got, QS_OK);
        qs_turn turn = qs_chat_turn(s, 1);
        assert_true(turn.n_reasoning > 0 && turn.n_reasoning == h.reasoning);
        assert_true(turn.n == 0 && h.text == 0 && h.other == 0);
    }
    o.think = QS_THINK_OFF;
    assert_int_equal(qs_chat_answer(s, &o, &st, &err), QS_E_UNSUPPORTED);
    qs_session_free(s);
    qs_session_free(t);
    qs_model_close(&m);
}

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"Of a city\","
    "\"parameters\": {\"type\": \"object\"}}}, {\"name\": \"time\"}]";

/* What the session holds now, as text. */
static void whole_text(const qs_session *s, char *buf, size_t cap) {
    int64_t n = qs_session_n_ids(s);
    int32_t ids[4096];
    size_t k = 0;
    assert_true(n <= 4096);
    for (int64_t i = 0; i < n; i++) ids[i] = qs_session_id(s, i);
    assert_int_equal(qs_tokenizer_decode(qs_model_tokenizer(model), ids, (size_t)n, 1, buf, cap - 1,
                                         &k, NULL), QS_OK);
    buf[k] = '\0';
}

static void test_tools(void **state) {
    static const char chat[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"How is it?\"},"
        "{\"role\": \"assistant\", \"content\": \"\", \"reasoning_content\": \"hm\", \"tool_calls\": "
        "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"arguments\": "
        "\"{\\\"city\\\": \\\"Köln\\\"}\"}}]},"
        "{\"role\": \"tool\", \"content\": \"12 degrees\"}]}";
    static const char *const bad[] = { "{}", "[1]", "[{\"name\": \"\"}]", "[{\"description\": \"x\"}]",
                                       "[{\"name\": \"f\", \"parameters\": 3}]", "[" };
    qs_session *s = new_session(2048), *t = new_session(0);
    qs_gen_stats st;
    qs_err err = { 0 };
    char text[8192];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(qs_chat_tools(s, bad[i], strlen(bad[i]), &err), QS_E_FORMAT);
    assert_int_equal(qs_chat_tools(s, tools, sizeof tools - 1, &err), QS_OK);
    write_file(FILE_A, chat);
    assert_int_equal(qs_chat_load(s, FILE_A, &err), QS_OK);
    qs_turn turn = qs_chat_turn(s, 1);
    assert_string_equal(turn.reasoning, "hm");
    assert_int_equal(turn.n_calls, 1);
    qs_call c = qs_chat_call(s, 1, 0);
    assert_true(c.whole);
    assert_string_equal(c.name, "weather");
    assert_string_equal(c.arguments, "{\"city\": \"Köln\"}");
    assert_int_equal(qs_chat_call(s, 1, 1).n_name, 0);
    assert_int_equal(qs_chat_call(s, 7, 0).n_name, 0);
    assert_int_equal(qs_chat_save(s, FILE_B, &err), QS_OK);
    assert_int_equal(qs_chat_load(t, FILE_B, &err), QS_OK);
    check_same_turns(s, t);
    assert_string_equal(qs_chat_call(t, 1, 0).arguments, c.arguments);
    assert_string_equal(qs_chat_turn(t, 1).reasoning, "hm");
    ask(s, "And now?", 1, &st);
    whole_text(s, text, sizeof text);
    /* the functions are described, the call and its result stand in the history */
    assert_non_null(strstr(text, "\"description\": \"Of a city\""));
    assert_non_null(strstr(text, "\"arguments\": {\"city\": \"Köln\"}"));
    assert_non_null(strstr(text, "12 degrees"));
    assert_int_equal(qs_chat_tools(s, NULL, 0, &err), QS_OK);
    ask(s, "And now?", 1, &st);
    whole_text(s, text, sizeof text);
    assert_null(strstr(text, "Of a city"));
    assert_int_equal(qs_chat_template_check("deepseek-v3", &err), QS_OK);
    assert_int_equal(qs_chat_template_check("chatml", &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "deepseek-v3.1"));
    qs_session_free(s);
    qs_session_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_between_turns), cmocka_unit_test(test_truncate_and_system),
        cmocka_unit_test(test_context_full),        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_stop_in_history),     cmocka_unit_test(test_files),
        cmocka_unit_test(test_reasoning),            cmocka_unit_test(test_tools),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
