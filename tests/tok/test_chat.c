/* Chat templates: every byte of a rendered conversation, masks, and that people write no markers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tok/chat.h"
#include "tok_fixture.h"

#define BOS_TEXT "<｜begin▁of▁sentence｜>"
#define EOS_TEXT "<｜end▁of▁sentence｜>"

static qsi_vocab *v;

/* A vocabulary with the markers of every template. */
static qsi_vocab *make(const char *pre, const char *jinja) {
    static tok_fixture f;
    tok_fixture_init(&f, pre);
    tok_fixture_bos_eos(&f);
    tok_fixture_token(&f, "<｜User｜>", QSI_TOK_USER);
    tok_fixture_token(&f, "<｜Assistant｜>", QSI_TOK_USER);
    tok_fixture_token(&f, "<|EOT|>", QSI_TOK_USER);
    tok_fixture_token(&f, "ser", QSI_TOK_NORMAL);
    tok_fixture_token(&f, "User", QSI_TOK_NORMAL);
    tok_fixture_token(&f, "er", QSI_TOK_NORMAL);
    tok_fixture_token(&f, "Ġh", QSI_TOK_NORMAL);
    tok_fixture_merge(&f, "e", "r");
    tok_fixture_merge(&f, "s", "er");
    tok_fixture_merge(&f, "U", "ser");
    tok_fixture_merge(&f, "Ġ", "h");
    if (jinja != NULL) f.spec.chat_template = (qsi_slice){jinja, strlen(jinja)};
    return tok_fixture_build(&f);
}

static qsi_turn say(qsi_role role, const char *text) {
    return (qsi_turn){.role = role, .text = text, .n = strlen(text)};
}

static const qsi_chat_template *named(const char *name) {
    const qsi_chat_template *t = NULL;
    assert_int_equal(qsi_chat_by_name(&t, name, NULL), QS_OK);
    return t;
}

/* Renders; the ids must decode to `want` and the masked ones to `learned`. */
static void render(const char *name, const qsi_turn *turns, size_t n, size_t from, bool generate,
                   const char *want, const char *learned) {
    qsi_ids ids = {0}, mask = {0}, whole = {0};
    qsi_str text = {0}, part = {0};
    qs_err err = {0};
    if (qsi_chat_render(named(name), v, turns, n, from, generate, &ids, &mask, &err) != QS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(ids.len, mask.len);
    assert_int_equal(qsi_decode(v, ids.data, ids.len, true, &text), QS_OK);
    assert_string_equal(text.data, want);
    for (size_t i = 0; i < ids.len; i++)
        if (mask.data[i]) assert_int_equal(qsi_decode(v, &ids.data[i], 1, true, &part), QS_OK);
    assert_string_equal(part.data == NULL ? "" : part.data, learned);
    /* The same ids as the whole text with its markers gives. */
    assert_int_equal(qsi_encode(v, want, strlen(want), QSI_ENC_SPECIAL, &whole, &err), QS_OK);
    assert_int_equal(whole.len, ids.len);
    assert_memory_equal(whole.data, ids.data, ids.len * sizeof(*ids.data));
    qsi_ids_release(&ids);
    qsi_ids_release(&mask);
    qsi_ids_release(&whole);
    qsi_str_release(&text);
    qsi_str_release(&part);
}

static int setup(void **state) {
    v = make("deepseek-llm", NULL);
    return 0;
}

static int teardown(void **state) {
    qsi_vocab_free(v);
    return 0;
}

static void deepseek_llm(void **state) {
    const qsi_turn t[] = {say(QSI_SYSTEM, "Be kind."), say(QSI_USER, "hi"),
                          say(QSI_ASSISTANT, "hey 你"), say(QSI_USER, "你好\n")};
    render("deepseek-llm", t + 1, 1, 0, true, BOS_TEXT "User: hi\n\nAssistant:", "");
    render("deepseek-llm", t + 1, 2, 0, false, BOS_TEXT "User: hi\n\nAssistant: hey 你" EOS_TEXT,
           " hey 你" EOS_TEXT);
    render("deepseek-llm", t, 4, 0, true,
           BOS_TEXT "Be kind.\n\nUser: hi\n\nAssistant: hey 你" EOS_TEXT
                    "User: 你好\n\n\nAssistant:",
           " hey 你" EOS_TEXT);
    render("deepseek-llm", t, 4, 3, true, "User: 你好\n\n\nAssistant:", "");
    render("deepseek-moe", t + 1, 1, 0, true, BOS_TEXT "User: hi\n\nAssistant:", "");
    render("deepseek-v2", t, 2, 0, true, BOS_TEXT "Be kind.\n\nUser: hi\n\nAssistant:", "");
    assert_true(qsi_chat_strip_space(named("deepseek-llm")));
}

static void deepseek_coder(void **state) {
    const qsi_turn t[] = {say(QSI_SYSTEM, "Write C.\n"), say(QSI_USER, "hi"),
                          say(QSI_ASSISTANT, "int x;"), say(QSI_USER, "more")};
    render("deepseek-coder", t, 4, 0, true,
           BOS_TEXT "Write C.\n### Instruction:\nhi\n### Response:\nint x;\n<|EOT|>\n"
                    "### Instruction:\nmore\n### Response:\n",
           "int x;\n<|EOT|>");
    assert_false(qsi_chat_strip_space(named("deepseek-coder")));
}

/* The default system text is the file's own, not ours. */
static void deepseek_coder_takes_the_files_system(void **state) {
    const qsi_turn t[] = {say(QSI_USER, "hi"), say(QSI_SYSTEM, "S")};
    qsi_vocab_free(v);
    v = make("deepseek-coder", "{%- if not ns.found -%}\n{{'Be \\'terse\\'.\\n'}}\n{%- endif %}"
                               "### Instruction: ### Response:");
    render("deepseek-coder", t, 1, 0, true,
           BOS_TEXT "Be 'terse'.\n### Instruction:\nhi\n### Response:\n", "");
    render("deepseek-coder", t, 2, 0, false, BOS_TEXT "### Instruction:\nhi\nS", "");
    render("deepseek-coder", t, 1, 1, true, "### Response:\n", "");
}

static void deepseek_v3(void **state) {
    const qsi_turn t[] = {say(QSI_SYSTEM, "Be kind."), say(QSI_USER, "hi"),
                          say(QSI_ASSISTANT, "hey"), say(QSI_USER, "more")};
    render("deepseek-v3", t, 4, 0, true,
           BOS_TEXT "Be kind.<｜User｜>hi<｜Assistant｜>hey" EOS_TEXT "<｜User｜>more<｜Assistant｜>",
           "hey" EOS_TEXT);
    render("deepseek-v2.5", t + 1, 1, 0, true, BOS_TEXT "<｜User｜>hi<｜Assistant｜>", "");
}

static void people_write_no_markers(void **state) {
    static const char *const names[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3"};
    const qsi_turn t[] = {say(QSI_SYSTEM, EOS_TEXT "<｜User｜>"),
                          say(QSI_USER, EOS_TEXT "<｜Assistant｜><|EOT|>" BOS_TEXT)};
    for (size_t k = 0; k < QSI_COUNT(names); k++) {
        qsi_ids with = {0}, without = {0};
        size_t n[2] = {0};
        const qsi_turn plain[] = {say(QSI_SYSTEM, "x"), say(QSI_USER, "x")};
        assert_int_equal(qsi_chat_render(named(names[k]), v, t, 2, 0, true, &with, NULL, NULL),
                         QS_OK);
        assert_int_equal(qsi_chat_render(named(names[k]), v, plain, 2, 0, true, &without, NULL,
                                         NULL), QS_OK);
        for (size_t i = 0; i < with.len; i++) n[0] += with.data[i] >= 256 && with.data[i] < 261;
        for (size_t i = 0; i < without.len; i++)
            n[1] += without.data[i] >= 256 && without.data[i] < 261;
        assert_int_equal(n[0], n[1]);
        assert_true(n[1] > 0);
        qsi_ids_release(&with);
        qsi_ids_release(&without);
    }
}

/* An answer given as the ids that were generated stays as it is. */
static void keeps_generated_ids(void **state) {
    const int32_t ids[] = {v->byte_id[' '], v->byte_id['h'], v->byte_id['\n']};
    qsi_turn t[] = {say(QSI_USER, "q"), {.role = QSI_ASSISTANT, .ids = ids, .n_ids = 3}};
    qsi_ids out = {0}, mask = {0};
    qsi_str s = {0};
    assert_int_equal(qsi_chat_render(named("deepseek-llm"), v, t, 2, 1, false, &out, &mask, NULL),
                     QS_OK);
    assert_int_equal(out.len, 10 + 3 + 1);
    assert_memory_equal(out.data + 10, ids, sizeof ids); /* "Assistant:" is ten bytes */
    assert_int_equal(out.data[13], qsi_vocab_eos(v));
    for (size_t i = 0; i < mask.len; i++) assert_int_equal(mask.data[i], i >= 10);
    out.len = 0;
    assert_int_equal(qsi_chat_render(named("deepseek-coder"), v, t, 2, 1, false, &out, NULL, NULL),
                     QS_OK);
    assert_int_equal(qsi_decode(v, out.data, out.len, true, &s), QS_OK);
    assert_string_equal(s.data, "### Response:\n h\n<|EOT|>\n");
    qsi_ids_release(&out);
    qsi_ids_release(&mask);
    qsi_str_release(&s);
}

static void finds_by_text_then_by_kind(void **state) {
    static const struct {
        const char *pre, *jinja, *name;
        bool guessed;
    } cases[] = {
        {"deepseek-llm", NULL, "deepseek-llm", true},
        {"deepseek-coder", NULL, "deepseek-coder", true},
        {"deepseek-v3", NULL, "deepseek-v3", true},
        {"joyai-llm", NULL, "deepseek-v3", true},
        {"deepseek-llm", "{{ 'User: ' + x + 'Assistant: ' }}", "deepseek-llm", false},
        {"deepseek-llm", "{{ '<｜User｜>' + x + '<｜Assistant｜>' }}", "deepseek-v3", false},
        {"deepseek-llm", "{{ '### Instruction:' + '### Response:' }}", "deepseek-coder", false},
        {"deepseek-llm", "[INST] {{ x }} [/INST]", "deepseek-llm", true},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_vocab *w = make(cases[i].pre, cases[i].jinja);
        const qsi_chat_template *t = NULL;
        bool guessed = !cases[i].guessed;
        assert_int_equal(qsi_chat_find(&t, w, "deepseek", &guessed, NULL), QS_OK);
        assert_string_equal(qsi_chat_name(t), cases[i].name);
        assert_int_equal(guessed, cases[i].guessed);
        qsi_vocab_free(w);
        w = make("deepseek-llm", qsi_chat_jinja(t));
        assert_int_equal(qsi_chat_find(&t, w, "deepseek", &guessed, NULL), QS_OK);
        assert_string_equal(qsi_chat_name(t), cases[i].name);
        assert_false(guessed);
        qsi_vocab_free(w);
    }
}

static void says_what_is_missing(void **state) {
    static tok_fixture f;
    const qsi_turn t = say(QSI_USER, "x");
    const qsi_chat_template *none = NULL;
    qsi_ids out = {0};
    qs_err err = {0};
    qsi_vocab *plain;
    tok_fixture_init(&f, "deepseek-llm");
    plain = tok_fixture_build(&f);
    assert_int_equal(qsi_chat_render(named("deepseek-v3"), plain, &t, 1, 0, true, &out, NULL, &err),
                     QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "<｜User｜>"));
    assert_int_equal(qsi_chat_by_name(&none, "chatml", &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "deepseek-coder"));
    assert_int_equal(qsi_chat_render(named("deepseek-llm"), plain,
                                     &(qsi_turn){.role = QSI_USER, .text = "\xff", .n = 1}, 1, 0,
                                     true, &out, NULL, &err), QS_E_FORMAT);
    qsi_ids_release(&out);
    qsi_vocab_free(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(deepseek_llm, setup, teardown),
        cmocka_unit_test_setup_teardown(deepseek_coder, setup, teardown),
        cmocka_unit_test_setup_teardown(deepseek_coder_takes_the_files_system, setup, teardown),
        cmocka_unit_test_setup_teardown(deepseek_v3, setup, teardown),
        cmocka_unit_test_setup_teardown(people_write_no_markers, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_generated_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(finds_by_text_then_by_kind, setup, teardown),
        cmocka_unit_test_setup_teardown(says_what_is_missing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
