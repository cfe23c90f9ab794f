/* Decoding, and streams of whole characters. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/hash.h"
#include "tok_fixture.h"

static qsi_vocab *v;

static int setup(void **state) {
    static tok_fixture f;
    tok_fixture_init(&f, "deepseek-llm");
    tok_fixture_bos_eos(&f);
    tok_fixture_token(&f, "<hole>", QSI_TOK_USER);
    v = tok_fixture_build(&f);
    return 0;
}

static int teardown(void **state) {
    qsi_vocab_free(v);
    return 0;
}

static int32_t byte_id(char c) { return v->byte_id[(unsigned char)c]; }

static void control_tokens_show_only_when_asked(void **state) {
    const int32_t ids[] = {256, byte_id('a'), 258, byte_id('\xe6'), 257};
    qsi_str s = {0};
    assert_int_equal(qsi_decode(v, ids, 5, false, &s), QS_OK);
    assert_int_equal(s.len, 8);
    assert_memory_equal(s.data, "a<hole>\xe6", 8);
    qsi_str_clear(&s);
    assert_int_equal(qsi_decode(v, ids, 5, true, &s), QS_OK);
    assert_string_equal(s.data, "<｜begin▁of▁sentence｜>a<hole>\xe6<｜end▁of▁sentence｜>");
    qsi_str_release(&s);
}

/* Feeds bytes one by one; every output must be UTF-8 by itself. */
static void stream(const char *bytes, size_t n, qsi_str *out) {
    qsi_detok d;
    qsi_str part = {0};
    qsi_detok_init(&d, v, false);
    for (size_t i = 0; i <= n; i++) {
        qsi_str_clear(&part);
        assert_int_equal(i < n ? qsi_detok_push(&d, byte_id(bytes[i]), &part)
                               : qsi_detok_finish(&d, &part), QS_OK);
        if (part.len > 0) assert_true(qsi_utf8_valid(part.data, part.len, NULL));
        if (part.len > 0) assert_int_equal(qsi_str_append(out, part.data, part.len), QS_OK);
    }
    qsi_str_release(&part);
}

static void streams_whole_characters(void **state) {
    const char text[] = "aé春😀 \xf4\x8f\xbf\xbf\xed\x9f\xbf";
    qsi_str out = {0};
    stream(text, strlen(text), &out);
    assert_string_equal(out.data, text);
    qsi_str_release(&out);
}

/* The examples of the Unicode standard, table 3-8 and its neighbours. */
static void replaces_what_is_no_character(void **state) {
    static const struct {
        const char *bytes, *shown;
    } cases[] = {
        {"\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64",
         "a\ufffd\ufffd\ufffd" "b\ufffd" "c\ufffd\ufffd" "d"},
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd" "A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
         "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd" "A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "\ufffd\ufffd\ufffd\ufffd\ufffd" "A\ufffd\ufffd" "B"},
        {"\xe6\x98", "\ufffd"},
        {"\xf0\x9f\x98", "\ufffd"},
        {"\xe6\x98\xe6\x98\xa5", "\ufffd春"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_str out = {0};
        stream(cases[i].bytes, strlen(cases[i].bytes), &out);
        assert_string_equal(out.data, cases[i].shown);
        qsi_str_release(&out);
    }
}

static void holds_back_at_most_three_bytes(void **state) {
    qsi_rng r;
    qsi_detok d;
    qsi_str out = {0};
    qsi_rng_init(&r, 4);
    qsi_detok_init(&d, v, false);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(qsi_detok_push(&d, (int32_t)qsi_rng_below(&r, 259), &out), QS_OK);
        assert_true(d.n_held <= 3);
    }
    assert_int_equal(qsi_detok_finish(&d, &out), QS_OK);
    assert_true(qsi_utf8_valid(out.data, out.len, NULL));
    qsi_str_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(control_tokens_show_only_when_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(streams_whole_characters, setup, teardown),
        cmocka_unit_test_setup_teardown(replaces_what_is_no_character, setup, teardown),
        cmocka_unit_test_setup_teardown(holds_back_at_most_three_bytes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
