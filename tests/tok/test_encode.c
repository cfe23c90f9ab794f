/* Encoding: added tokens, flags, errors; every id of the golden texts (tools/golden_tok.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tok_fixture.h"
#include "tok_golden.h"

static char **golden_paths; /* a vocabulary and its ids, and again; NULL at the end */

static void assert_ids(const qsi_vocab *v, const char *text, unsigned flags, const int32_t *want,
                       size_t n) {
    qsi_ids ids = {0};
    assert_int_equal(qsi_encode(v, text, strlen(text), flags, &ids, NULL), QS_OK);
    assert_int_equal(ids.len, n);
    if (n > 0) assert_memory_equal(ids.data, want, n * sizeof(*want));
    qsi_ids_release(&ids);
}
#define ASSERT_IDS(v, text, flags, ...)                                                            \
    do {                                                                                           \
        const int32_t want[] = {__VA_ARGS__};                                                      \
        assert_ids(v, text, flags, want, QSI_COUNT(want));                                         \
    } while (0)

enum { BOS = 256, EOS, HOLE, HOLES, A_UMLAUT, PAD };

static qsi_vocab *fixture(void) {
    static tok_fixture f;
    tok_fixture_init(&f, "deepseek-llm");
    for (int i = 0; i < 256; i++)
        if (qsi_byte_by_order(i) == 0xfc) f.tokens[i] = (qsi_slice){"(fc)", 4};
    tok_fixture_bos_eos(&f);
    tok_fixture_token(&f, "<hole>", QSI_TOK_USER);
    tok_fixture_token(&f, "<hole>s", QSI_TOK_USER);
    tok_fixture_token(&f, "ü", QSI_TOK_USER);
    tok_fixture_token(&f, "[PAD261]", QSI_TOK_USER);
    return tok_fixture_build(&f);
}

static int32_t byte_id(const qsi_vocab *v, char c) { return v->byte_id[(unsigned char)c]; }

static void added_tokens_match_longest_first(void **state) {
    qsi_vocab *v = fixture();
    int32_t x = byte_id(v, 'x');
    ASSERT_IDS(v, "x<hole>x", 0, x, HOLE, x);
    ASSERT_IDS(v, "<hole>s<hole>", 0, HOLES, HOLE);
    ASSERT_IDS(v, "xüx", 0, x, A_UMLAUT, x);
    ASSERT_IDS(v, "<hol", 0, byte_id(v, '<'), byte_id(v, 'h'), byte_id(v, 'o'), byte_id(v, 'l'));
    assert_ids(v, "", 0, NULL, 0);
    qsi_vocab_free(v);
}

static void control_tokens_match_only_when_asked(void **state) {
    qsi_vocab *v = fixture();
    qsi_ids plain = {0};
    ASSERT_IDS(v, "<｜end▁of▁sentence｜>", QSI_ENC_SPECIAL, EOS);
    ASSERT_IDS(v, "x", QSI_ENC_BOS, BOS, byte_id(v, 'x'));
    assert_int_equal(qsi_encode(v, "<｜end▁of▁sentence｜>", 27, 0, &plain, NULL), QS_OK);
    assert_int_equal(plain.len, 27);
    for (size_t i = 0; i < plain.len; i++) assert_true(plain.data[i] < 256);
    qsi_ids_release(&plain);
    qsi_vocab_free(v);
}

/* What a person types never becomes a marker, whatever the flags; one-character tokens are text. */
static void a_persons_text_has_no_markers(void **state) {
    qsi_vocab *v = fixture();
    ASSERT_IDS(v, "ü", QSI_ENC_PERSON, A_UMLAUT);
    ASSERT_IDS(v, "<hole>", QSI_ENC_PERSON, byte_id(v, '<'), byte_id(v, 'h'), byte_id(v, 'o'),
               byte_id(v, 'l'), byte_id(v, 'e'), byte_id(v, '>'));
    qsi_vocab_free(v);
}

static void fillers_never_match(void **state) {
    qsi_vocab *v = fixture();
    qsi_ids ids = {0};
    assert_int_equal(qsi_encode(v, "[PAD261]", 8, QSI_ENC_SPECIAL, &ids, NULL), QS_OK);
    assert_int_equal(ids.len, 8);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

static void bad_bytes_are_named_and_nothing_is_added(void **state) {
    qsi_vocab *v = fixture();
    qsi_ids ids = {0};
    qs_err err;
    assert_int_equal(qsi_encode(v, "ab", 2, 0, &ids, &err), QS_OK);
    assert_int_equal(qsi_encode(v, "ab<hole>\xc3(", 10, QSI_ENC_BOS, &ids, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 8);
    assert_non_null(strstr(err.text, "0xc3 at offset 8"));
    assert_int_equal(ids.len, 2);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

static qsi_vocab *load(const char *path) {
    size_t n;
    char *json = tok_read_file(path, &n);
    qsi_vocab *v = NULL;
    qs_err err = {0};
    if (qsi_vocab_load_json(&v, json, n, NULL, 0, &err) != QS_OK) fail_msg("%s", err.text);
    free(json);
    return v;
}

static size_t check_files(const char *vocab_path, const char *ids_path) {
    size_t size, cases = 0;
    char *file = tok_read_file(ids_path, &size), *at = file, *text;
    qsi_vocab *v = load(vocab_path);
    qsi_ids ids = {0};
    qsi_str back = {0};
    while ((text = tok_field(&at)) != NULL) {
        char *want = tok_field(&at);
        size_t n = tok_unhex(text), i = 0;
        ids.len = 0;
        qsi_str_clear(&back);
        assert_int_equal(qsi_encode(v, text, n, QSI_ENC_SPECIAL, &ids, NULL), QS_OK);
        for (char *end; *want != '\0'; want = *end == ' ' ? end + 1 : end, i++) {
            assert_true(i < ids.len);
            assert_int_equal(ids.data[i], strtol(want, &end, 10));
        }
        assert_int_equal(i, ids.len);
        assert_int_equal(qsi_decode(v, ids.data, ids.len, true, &back), QS_OK);
        assert_int_equal(back.len, n);
        assert_memory_equal(back.data, text, n);
        cases++;
    }
    qsi_ids_release(&ids);
    qsi_str_release(&back);
    qsi_vocab_free(v);
    free(file);
    return cases;
}

static void equals_the_reference(void **state) {
    size_t cases = 0;
    for (char **p = golden_paths; *p != NULL; p += 2) cases += check_files(p[0], p[1]);
    assert_int_equal(cases, 419 + 2 * 319);
}

/* The n-th allocation fails, for every n (in builds that can): said, and nothing lost. */
static void survives_want_of_memory(void **state) {
    enum { N = 6000 };
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'x', N);
    for (int64_t n = 1; n < 10000; n++) {
        qsi_ids ids = {0};
        qs_err err = {0};
        qsi_vocab *v = NULL;
        qs_status st;
        static tok_fixture f;
        tok_fixture_init(&f, "deepseek-llm");
        tok_fixture_bos_eos(&f);
        qsi_mem_fail_after(n);
        st = qsi_vocab_build(&v, &f.spec, &err);
        if (st == QS_OK) st = qsi_encode(v, text, N, QSI_ENC_BOS, &ids, &err);
        qsi_mem_fail_after(-1);
        assert_true(st == QS_OK || st == QS_E_NOMEM);
        assert_int_equal(ids.len, st == QS_OK ? N + 1 : 0);
        if (st != QS_OK) assert_int_equal(err.code, QS_E_NOMEM);
        qsi_ids_release(&ids);
        qsi_vocab_free(v);
        if (st == QS_OK) {
            free(text);
            return;
        }
    }
    fail_msg("never succeeds");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_tokens_match_longest_first),
        cmocka_unit_test(control_tokens_match_only_when_asked),
        cmocka_unit_test(a_persons_text_has_no_markers),
        cmocka_unit_test(fillers_never_match),
        cmocka_unit_test(bad_bytes_are_named_and_nothing_is_added),
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(survives_want_of_memory),
    };
    if (argc != 7) return 2;
    golden_paths = argv + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
