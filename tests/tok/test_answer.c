/* Answers taken apart: every template's reasoning and calls, whole and byte by byte, with markers as
 * tokens and as letters; quoted markers; what breaks off. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tok/answer.h"
#include "tok_fixture.h"

#define CALLS "{<｜tool▁calls▁begin｜>}"
#define CALLS_END "{<｜tool▁calls▁end｜>}"
#define CALL "{<｜tool▁call▁begin｜>}"
#define CALL_END "{<｜tool▁call▁end｜>}"
#define SEP "{<｜tool▁sep｜>}"
#define D "{｜DSML｜}"
#define THINK "{<think>}"
#define ANSWER "{</think>}"

static const char *const tokens[] = {
    "<think>", "</think>", "｜DSML｜", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"};

static qsi_vocab *with, *without;

static int make(void **state) {
    (void)state;
    static tok_fixture f;
    for (int i = 0; i < 2; i++) {
        tok_fixture_init(&f, "deepseek-v3");
        tok_fixture_bos_eos(&f);
        for (size_t k = 0; i == 0 && k < QSI_COUNT(tokens); k++)
            tok_fixture_token(&f, tokens[k], QSI_TOK_USER);
        *(i == 0 ? &with : &without) = tok_fixture_build(&f);
    }
    return 0;
}

static int drop(void **state) {
    (void)state;
    qsi_vocab_free(with);
    qsi_vocab_free(without);
    return 0;
}

static const char tool[] = "{\"name\": \"weather\", \"parameters\": {}}";

/* What on_part heard: R(...) T(...) C(...) A(...), pieces of one kind joined. */
typedef struct heard {
    qsi_str s;
    int last;
} heard;

static int hear(void *user, qsi_part part, const char *p, size_t n) {
    heard *h = user;
    assert_true(n > 0 || part == QSI_PART_CALL);
    if ((int)part != h->last || part == QSI_PART_CALL)
        assert_int_equal(qsi_str_printf(&h->s, "%s%c:", h->s.len ? "|" : "", "RTCA"[part]), QS_OK);
    assert_int_equal(qsi_str_append(&h->s, p, n), QS_OK);
    h->last = (int)part;
    return 0;
}

/* Feeds `spec`, in which {marker} is a marker's token, in pieces of at most `piece` bytes. */
static void feed(qsi_answer *a, const char *spec, size_t piece, bool as_tokens) {
    for (const char *p = spec; *p != '\0';) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        bool marker = false;
        size_t n = end != NULL ? (size_t)(end - p) - 1 : 0;
        for (size_t k = 0; end != NULL && k < QSI_COUNT(tokens); k++)
            marker |= strlen(tokens[k]) == n && memcmp(tokens[k], p + 1, n) == 0;
        if (marker && as_tokens) {
            assert_int_equal(qsi_answer_marker(a, p + 1, n), QS_OK);
        } else if (marker) {
            for (size_t i = 0; i < n; i += piece)
                assert_int_equal(qsi_answer_text(a, p + 1 + i, n - i < piece ? n - i : piece), QS_OK);
        } else {
            n = 1 + strcspn(p + 1, "{");
            for (size_t i = 0; i < n; i += piece)
                assert_int_equal(qsi_answer_text(a, p + i, n - i < piece ? n - i : piece), QS_OK);
            p += n;
            continue;
        }
        p = end + 1;
    }
}

static void check(const char *name, qsi_think think, const char *spec, const char *want,
                  const char *whole) {
    const qsi_chat_template *t = NULL;
    static const size_t pieces[] = {1, 2, 3, 7, 1000};
    const qsi_tool tools[] = {{tool, sizeof tool - 1}};
    assert_int_equal(qsi_chat_by_name(&t, name, NULL), QS_OK);
    for (size_t i = 0; i < 2 * QSI_COUNT(pieces); i++) {
        bool as_tokens = i < QSI_COUNT(pieces);
        heard h = {.last = -1};
        qsi_answer a;
        const qsi_answer_opts o = {.chat = t, .vocab = as_tokens ? with : without, .think = think,
                                   .tools = tools, .n_tools = 1, .on_part = hear, .user = &h};
        assert_int_equal(qsi_answer_init(&a, &o, NULL), QS_OK);
        feed(&a, spec, pieces[i % QSI_COUNT(pieces)], as_tokens);
        assert_int_equal(qsi_answer_finish(&a), QS_OK);
        assert_string_equal(h.s.data ? h.s.data : "", want);
        assert_int_equal(a.n_calls, strlen(whole));
        for (size_t k = 0; k < a.n_calls; k++) assert_int_equal(a.calls[k].whole, whole[k] == 'y');
        qsi_answer_release(&a);
        qsi_str_release(&h.s);
    }
}

static void reasoning(void **state) {
    (void)state;
    check("deepseek-r1", QSI_THINK_AUTO, "\n" THINK "\nOne.\n\nTwo.\n" ANSWER "\n\nSo: 3 < 4\n",
          "R:One.\n\nTwo.|T:So: 3 < 4\n", "");
    check("deepseek-r1", QSI_THINK_AUTO, "  No thought.", "T:  No thought.", "");
    check("deepseek-r1", QSI_THINK_AUTO, THINK "never ends ", "R:never ends ", "");
    check("deepseek-r1-open", QSI_THINK_AUTO, "思考。\n" ANSWER "\n答。", "R:思考。|T:答。", "");
    check("deepseek-v3.1", QSI_THINK_ON, "Hm." ANSWER "Yes.", "R:Hm.|T:Yes.", "");
    check("deepseek-v3.1", QSI_THINK_OFF, "\nYes. ", "T:\nYes. ", "");
    check("deepseek-v3", QSI_THINK_AUTO, "", "", "");
}

static void fenced(void **state) {
    (void)state;
    check("deepseek-v3-0324", QSI_THINK_AUTO,
          "I look.\n" CALLS CALL "function" SEP "weather\n```json\n{\"city\": \"Köln\"}\n```" CALL_END
          "\n" CALL "function" SEP "time\n```json\n{}\n```" CALL_END CALLS_END,
          "T:I look.|C:weather|A:{\"city\": \"Köln\"}|C:time|A:{}", "yy");
    check("deepseek-r1-0528", QSI_THINK_AUTO,
          THINK "\nA call.\n" ANSWER "\n\n" CALLS CALL "function" SEP "f\n```json\n{\"a\": \"`\\n```\"}"
          "\n```" CALL_END CALLS_END "Done.", "R:A call.|C:f|A:{\"a\": \"`\\n```\"}|T:Done.", "y");
    check("deepseek-v3-0324", QSI_THINK_AUTO, CALLS CALL "function" SEP "f\n```json\n{\"a\": 1",
          "C:f|A:{\"a\": 1", "n");
    check("deepseek-v3-0324", QSI_THINK_AUTO, CALLS CALL "function" SEP "f\n{\"a\": 1}" CALL_END
          CALLS_END, "C:f|A:{\"a\": 1}", "y");
}

static void plain(void **state) {
    (void)state;
    check("deepseek-v3.1", QSI_THINK_OFF,
          "Let me see." CALLS CALL "weather" SEP "{\"city\": \"北京\"}" CALL_END CALL "time" SEP "[1]"
          CALL_END CALLS_END, "T:Let me see.|C:weather|A:{\"city\": \"北京\"}|C:time|A:[1]", "yn");
    check("deepseek-v3.1", QSI_THINK_OFF, CALLS "\ntext", "T:text", "");
    check("deepseek-v3.1", QSI_THINK_OFF, CALLS CALL "no separator" CALL_END CALLS_END,
          "C:no separator", "n");
}

static void dsml(void **state) {
    (void)state;
    check("deepseek-v3.2", QSI_THINK_ON,
          "Hm." ANSWER "I ask.\n\n<" D "function_calls>\n<" D "invoke name=\"weather\">\n<" D
          "parameter name=\"city\" string=\"true\">Köln \"am\" Rhein\n</" D "parameter>\n<" D
          "parameter name=\"days\" string=\"false\">[1, 2]</" D "parameter>\n</" D "invoke>\n<" D
          "invoke name=\"time\">\n\n</" D "invoke>\n</" D "function_calls>",
          "R:Hm.|T:I ask.|C:weather|A:{\"city\": \"Köln \\\"am\\\" Rhein\\n\", \"days\": [1, 2]}"
          "|C:time|A:{}", "yy");
    check("deepseek-v3.2", QSI_THINK_OFF, "1 < 2 and <b>", "T:1 < 2 and <b>", "");
    check("deepseek-v3.2", QSI_THINK_OFF, "<" D "function_calls>\n<" D "invoke name=\"f\">\n<" D
          "parameter name=\"x\" string=\"true\">half", "C:f|A:{\"x\": \"half", "n");
}

static void bare(void **state) {
    (void)state;
    check("deepseek-llm", QSI_THINK_AUTO,
          " {\"name\": \"weather\", \"arguments\": {\"city\": \"a}b\"}}\n{\"name\":\"weather\","
          "\"arguments\":{}}", "C:weather|A:{\"city\": \"a}b\"}|C:weather|A:{}", "yy");
    check("deepseek-llm", QSI_THINK_AUTO,
          "```json\n{\"name\": \"weather\", \"arguments\": {\"n\": 1.5}}\n```\nThere.",
          "C:weather|A:{\"n\": 1.5}|T:There.", "y");
    /* another function, no object, an object that ends early */
    check("deepseek-llm", QSI_THINK_AUTO, "{\"name\": \"rm\", \"arguments\": {}}",
          "T:{\"name\": \"rm\", \"arguments\": {}}", "");
    check("deepseek-llm", QSI_THINK_AUTO, "```c\nint x;\n```", "T:```c\nint x;\n```", "");
    check("deepseek-llm", QSI_THINK_AUTO, "{\"name\": \"weather\", \"arg",
          "T:{\"name\": \"weather\", \"arg", "");
    check("deepseek-llm", QSI_THINK_AUTO, "It is {cold}.", "T:It is {cold}.", "");
}

/* Letters are no marker where the vocabulary has tokens for them. */
static void quoted(void **state) {
    (void)state;
    const qsi_chat_template *t = NULL;
    heard h = {.last = -1};
    qsi_answer a;
    assert_int_equal(qsi_chat_by_name(&t, "deepseek-r1", NULL), QS_OK);
    const qsi_answer_opts o = {.chat = t, .vocab = with, .on_part = hear, .user = &h};
    const char text[] = "R1 writes <think> and <｜tool▁calls▁begin｜>.";
    assert_int_equal(qsi_answer_init(&a, &o, NULL), QS_OK);
    assert_int_equal(qsi_answer_text(&a, text, sizeof text - 1), QS_OK);
    assert_int_equal(qsi_answer_finish(&a), QS_OK);
    assert_string_equal(a.text.data, text);
    assert_int_equal(a.n_calls, 0);
    qsi_answer_release(&a);
    qsi_str_release(&h.s);
    assert_int_equal(qsi_answer_init(&a, &(qsi_answer_opts){.chat = t, .vocab = with,
                                                            .think = QSI_THINK_OFF}, NULL),
                     QS_E_UNSUPPORTED);
}

static void takes(void **state) {
    (void)state;
    const struct {
        const char *name, *marker;
        bool want;
    } rows[] = {{"deepseek-llm", "<think>", false},
                {"deepseek-v3", "<think>", false},
                {"deepseek-v3", "<｜tool▁sep｜>", true},
                {"deepseek-r1", "</think>", true},
                {"deepseek-r1", "｜DSML｜", false},
                {"deepseek-v3.2", "｜DSML｜", true},
                {"deepseek-v3.2", "<｜tool▁sep｜>", false}};
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        const qsi_chat_template *t = NULL;
        qsi_answer a;
        assert_int_equal(qsi_chat_by_name(&t, rows[i].name, NULL), QS_OK);
        assert_int_equal(qsi_answer_init(&a, &(qsi_answer_opts){.chat = t, .vocab = with}, NULL), QS_OK);
        int32_t id = qsi_vocab_find(with, rows[i].marker, strlen(rows[i].marker));
        assert_true(id >= 0);
        assert_int_equal(qsi_answer_takes(&a, id), rows[i].want);
        assert_false(qsi_answer_takes(&a, 0));
        qsi_answer_release(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reasoning), cmocka_unit_test(fenced), cmocka_unit_test(plain),
        cmocka_unit_test(dsml), cmocka_unit_test(bare), cmocka_unit_test(quoted),
        cmocka_unit_test(takes),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
