/* Which template a file speaks: by hash, by what it writes, by kind; strange Jinja is unknown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tok/chat.h"
#include "tok_fixture.h"

static qsi_vocab *make(const char *pre, const char *jinja, bool markers) {
    static tok_fixture f;
    tok_fixture_init(&f, pre);
    tok_fixture_bos_eos(&f);
    if (markers) {
        tok_fixture_token(&f, "<｜User｜>", QSI_TOK_USER);
        tok_fixture_token(&f, "<｜Assistant｜>", QSI_TOK_USER);
    }
    if (jinja != NULL) f.spec.chat_template = (qsi_slice){jinja, strlen(jinja)};
    return tok_fixture_build(&f);
}

static const char *name_of(const char *jinja) {
    const qsi_chat_template *t = qsi_chat_of_jinja((qsi_slice){jinja, strlen(jinja)});
    return t == NULL ? "" : qsi_chat_name(t);
}

static void guesses_without_a_text(void **state) {
    static const struct {
        const char *pre, *name, *arch;
        bool plain; /* without tokens for the two roles */
    } cases[] = {{"deepseek-llm", "deepseek-llm"},
                 {"deepseek-llm", "deepseek-llm", "llama", true},
                 {"deepseek-llm", "deepseek-v2.5", "deepseek2"},
                 {"deepseek-llm", "deepseek-llm", "deepseek2", true},
                 {"deepseek-v3", "deepseek-v3", "deepseek2"},
                 {"deepseek-coder", "deepseek-coder"},
                 {"deepseek-v3", "deepseek-v3"},
                 {"joyai-llm", "deepseek-v3"},
                 {"deepseek-v3", "deepseek-v3.2", "deepseek32"},
                 {"llama-bpe", "deepseek-r1-distill-open"},
                 {"qwen2", "deepseek-r1-distill-open"},
                 {"deepseek-r1-qwen", "deepseek-r1-distill-open", "qwen2"},
                 {"deepseek-r1-qwen", "deepseek-r1-0528", "qwen3"}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_vocab *v = make(cases[i].pre, NULL, !cases[i].plain);
        const qsi_chat_template *t = NULL;
        bool guessed = false;
        const char *arch = cases[i].arch != NULL ? cases[i].arch : "deepseek";
        assert_int_equal(qsi_chat_find(&t, v, arch, &guessed, NULL), QS_OK);
        assert_string_equal(qsi_chat_name(t), cases[i].name);
        assert_true(guessed);
        qsi_vocab_free(v);
    }
}

/* Another family's vocabulary without DeepSeek's markers: its template is not known. */
static void guesses_nothing_for_others(void **state) {
    static const char *const pres[] = {"llama-bpe", "qwen2"};
    for (size_t i = 0; i < QSI_COUNT(pres); i++) {
        qsi_vocab *v = make(pres[i], NULL, false);
        const qsi_chat_template *t = NULL;
        bool guessed = false;
        qs_err err = {0};
        assert_int_equal(qsi_chat_find(&t, v, "llama", &guessed, &err), QS_E_UNSUPPORTED);
        assert_non_null(strstr(err.text, pres[i]));
        qsi_vocab_free(v);
    }
}

/* What this program writes into a file it reads again. */
static void knows_its_own_texts(void **state) {
    for (size_t i = 0; qsi_chat_at(i) != NULL; i++) {
        const qsi_chat_template *t = qsi_chat_at(i), *again = NULL;
        qsi_vocab *v = make("deepseek-llm", qsi_chat_jinja(t), false);
        bool guessed = true;
        qs_err err = {0};
        if (qsi_chat_find(&again, v, "deepseek", &guessed, &err) != QS_OK)
            fail_msg("%s: %s", qsi_chat_name(t), err.text);
        assert_string_equal(qsi_chat_name(again), qsi_chat_name(t));
        assert_false(guessed);
        qsi_vocab_free(v);
    }
}

#define LOOP "{%- for m in messages -%}"
#define IF_USER "{%- if m.role == 'user' -%}"
#define ELSE "{%- else -%}"
#define ENDS "{%- endif -%}{%- endfor -%}"

static void reads_what_is_written(void **state) {
    static const struct {
        const char *jinja, *name;
    } cases[] = {
        {LOOP IF_USER "User: {{ m.content | trim + '\\n\\n' }}" ELSE "Assistant: {{ m['content'] }}" ENDS
         "Assistant:", "deepseek-llm"},
        {LOOP IF_USER "{{ '<｜User｜>' + (m.content or '') }}" ELSE
         "{{- \"<｜Assistant｜>\" ~ m.content ~ eos_token -}}" ENDS, "deepseek-v2.5"},
        {LOOP IF_USER "\n  <｜User｜>{{ m.content }}\n" ELSE
         "{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] }}" ENDS
         "{{ '<｜Assistant｜><think>\\n' }}", "deepseek-r1-distill-open"},
        {"{%- set sep = '\\n\\n' -%}" LOOP IF_USER "{{ '<｜User｜>' + m.content }}" ELSE
         "{%- set c = m.content.split('</think>')[-1] -%}{{ '<｜Assistant｜>' + c }}" ENDS
         "{%- if add_generation_prompt -%}{{ '<｜Assistant｜>' }}{%- endif -%}", "deepseek-r1"},
        {LOOP IF_USER "{{ '<｜User｜>' + m.content }}" ELSE "{{ '<｜Assistant｜></think>' }}"
         "{%- if x -%}{%- endif -%}{{ m.content }}" ENDS
         "{{ '<｜Assistant｜>' }}{%- if thinking -%}{{ '<think>' }}{%- endif -%}", "deepseek-v3.1"},
        {"{%- if not found %}\n{{'A system text.\\n'}}\n{%- endif %}" LOOP IF_USER
         "{{'### Instruction:\\n' + m['content'] + '\\n'}}" ELSE
         "{{'### Response:\\n' + m['content'] + '\\n<|EOT|>\\n'}}" ENDS "{{'### Response:\\n'}}",
         "deepseek-coder"},
        /* other people's templates, and DeepSeek's with a difference */
        {"[INST] {{ x }} [/INST]", ""},
        {"{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}", ""},
        {LOOP IF_USER "{{ '<｜User｜>' + m.content + '\\n' }}" ELSE
         "{{ '<｜Assistant｜>' + m.content }}" ENDS, ""},
        {LOOP IF_USER "{{ '<｜User｜>' + m.content }}" ELSE "{{ '<｜Assistant｜> ' + m.content }}"
         ENDS, ""},
        {LOOP IF_USER "{{ 'User: ' + m.content + '\\n' }}" ELSE "{{ 'Assistant: ' + m.content }}"
         ENDS, ""},
        {LOOP IF_USER "{{ 'User: ' + m.content + '\\n\\n' }}" ELSE "{{ m.content }}" ENDS, ""},
        {LOOP "{%- if m.role == '<｜User｜>' or m.role == '<｜Assistant｜>' -%}{{ m.content }}" ENDS,
         ""},
        {"{# <｜User｜>{{ x }}<｜Assistant｜> #}", ""},
        {"", ""},
        {"{{", ""},
        {"{% '", ""},
        {"{{ ((( '<｜User｜>' + m", ""},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++)
        if (strcmp(name_of(cases[i].jinja), cases[i].name) != 0)
            fail_msg("'%s' is taken for '%s', not '%s'", cases[i].jinja, name_of(cases[i].jinja),
                     cases[i].name);
}

static void says_what_is_known(void **state) {
    const qsi_chat_template *t = NULL;
    qs_err err = {0};
    bool guessed;
    qsi_vocab *v = make("deepseek-llm", "[INST] {{ x }} [/INST]", true);
    assert_int_equal(qsi_chat_find(&t, v, "llama", &guessed, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--raw"));
    for (size_t i = 0; qsi_chat_at(i) != NULL; i++)
        assert_non_null(strstr(err.text, qsi_chat_name(qsi_chat_at(i))));
    qsi_vocab_free(v);
    assert_int_equal(qsi_chat_by_name(&t, "chatml", &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "deepseek-v3.2"));
    assert_int_equal(qsi_chat_by_name(&t, "deepseek-moe", &err), QS_OK);
    assert_string_equal(qsi_chat_name(t), "deepseek-llm");
    assert_int_equal(qsi_chat_by_name(&t, "coder-instruct", &err), QS_OK);
    assert_string_equal(qsi_chat_name(t), "deepseek-coder");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guesses_without_a_text),
        cmocka_unit_test(guesses_nothing_for_others),
        cmocka_unit_test(knows_its_own_texts),
        cmocka_unit_test(reads_what_is_written),
        cmocka_unit_test(says_what_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
