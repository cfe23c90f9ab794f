/* The vocabulary's checks and answers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tok_fixture.h"

static tok_fixture f;

static int setup(void **state) {
    tok_fixture_init(&f, "deepseek-llm");
    tok_fixture_token(&f, "ab", QSI_TOK_NORMAL);
    tok_fixture_merge(&f, "a", "b");
    return 0;
}

static void byte_alphabet_is_gpt2s(void **state) {
    bool seen[256] = {false};
    assert_int_equal(qsi_byte_symbol('a'), 'a');
    assert_int_equal(qsi_byte_symbol(' '), 0x120);
    assert_int_equal(qsi_byte_symbol('\n'), 0x10a);
    assert_int_equal(qsi_byte_symbol(0), 0x100);
    assert_int_equal(qsi_byte_symbol(0x7f), 0x121);
    assert_int_equal(qsi_byte_symbol(0xad), 0x143);
    assert_int_equal(qsi_byte_symbol(0xff), 0xff);
    for (int b = 0; b < 256; b++) {
        assert_int_equal(qsi_symbol_byte(qsi_byte_symbol((uint8_t)b)), b);
        seen[qsi_byte_by_order(b)] = true;
    }
    for (int b = 0; b < 256; b++) assert_true(seen[b]);
    assert_int_equal(qsi_symbol_byte(' '), -1);
    assert_int_equal(qsi_symbol_byte(0x144), -1);
    assert_int_equal(qsi_symbol_byte(0x4e00), -1);
}

static void answers_questions(void **state) {
    qsi_vocab *v;
    int32_t eot;
    tok_fixture_bos_eos(&f);
    eot = tok_fixture_token(&f, "<|EOT|>", QSI_TOK_USER);
    f.spec.pad = f.spec.eos;
    v = tok_fixture_build(&f);
    assert_int_equal(qsi_vocab_size(v), 260);
    assert_int_equal(qsi_vocab_bos(v), 257);
    assert_int_equal(qsi_vocab_eos(v), 258);
    assert_int_equal(qsi_vocab_pad(v), 258);
    assert_true(qsi_vocab_add_bos(v));
    assert_false(qsi_vocab_add_eos(v));
    assert_string_equal(qsi_vocab_pre(v), "deepseek-llm");
    assert_int_equal(qsi_vocab_type(v, 257), QSI_TOK_CONTROL);
    assert_int_equal(qsi_vocab_find(v, "ab", 2), 256);
    assert_int_equal(qsi_vocab_find(v, "abc", 3), -1);
    assert_int_equal(qsi_vocab_n_merges(v), 1);
    assert_true(qsi_vocab_is_end(v, 258));
    assert_true(qsi_vocab_is_end(v, eot));
    assert_false(qsi_vocab_is_end(v, 257));
    assert_false(qsi_vocab_is_end(v, -1));
    assert_false(qsi_vocab_is_end(v, 1000));
    assert_int_equal(qsi_vocab_bytes(v, qsi_vocab_find(v, "Ġ", 2)).n, 1);
    assert_int_equal(*qsi_vocab_bytes(v, qsi_vocab_find(v, "Ġ", 2)).p, ' ');
    qsi_vocab_free(v);
}

static void hash_sees_what_decides_ids(void **state) {
    qsi_vocab *a, *b, *c, *d;
    tok_fixture_bos_eos(&f);
    a = tok_fixture_build(&f);
    b = tok_fixture_build(&f);
    f.spec.add_bos = false;
    c = tok_fixture_build(&f);
    f.spec.add_bos = true;
    f.spec.pre = "deepseek-coder";
    d = tok_fixture_build(&f);
    assert_true(qsi_vocab_hash(a) == qsi_vocab_hash(b));
    assert_true(qsi_vocab_hash(a) != qsi_vocab_hash(c));
    assert_true(qsi_vocab_hash(a) != qsi_vocab_hash(d));
    qsi_vocab_free(a);
    qsi_vocab_free(b);
    qsi_vocab_free(c);
    qsi_vocab_free(d);
}

static void refuses_duplicate_tokens(void **state) {
    tok_fixture_token(&f, "ab", QSI_TOK_NORMAL);
    tok_fixture_fails(&f, QS_E_FORMAT, "tokens 256 and 257 are both 'ab'");
}

static void refuses_missing_bytes(void **state) {
    f.tokens[0] = (qsi_slice){"<odd>", 5};
    tok_fixture_fails(&f, QS_E_FORMAT, "no token for the byte 0x21");
}

/* The published vocabularies lack these: UTF-8 never has them. */
static void accepts_the_thirteen_bytes_missing(void **state) {
    static const int absent[] = {0xc0, 0xc1, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd,
                                 0xfe, 0xff};
    qsi_vocab *v;
    for (size_t i = 0; i < QSI_COUNT(absent); i++)
        for (int k = 0; k < 256; k++)
            if (qsi_byte_by_order(k) == absent[i]) f.types[k] = QSI_TOK_USER;
    v = tok_fixture_build(&f);
    assert_int_equal(qsi_vocab_bytes(v, qsi_vocab_find(v, "ÿ", 2)).n, 2);
    qsi_vocab_free(v);
    f.types[0] = QSI_TOK_USER;
    tok_fixture_fails(&f, QS_E_FORMAT, "0x21");
}

static void refuses_bad_merges(void **state) {
    tok_fixture_merge(&f, "a", "q");
    tok_fixture_fails(&f, QS_E_FORMAT, "merge 1 ('a' and 'q') makes no token");
    f.right[1] = (qsi_slice){"zz", 2};
    tok_fixture_fails(&f, QS_E_FORMAT, "merge 1 names 'zz'");
    f.right[1] = (qsi_slice){"b", 1};
    tok_fixture_fails(&f, QS_E_FORMAT, "merges 0 and 1 are the same");
}

/* A merge must not make a control token: text could write it then. */
static void refuses_merges_into_control_tokens(void **state) {
    f.types[256] = QSI_TOK_CONTROL;
    tok_fixture_fails(&f, QS_E_FORMAT, "makes no token");
}

static void refuses_bad_tokens(void **state) {
    int32_t id = tok_fixture_token(&f, "", QSI_TOK_NORMAL);
    tok_fixture_fails(&f, QS_E_FORMAT, "token 257 is 0 bytes long");
    f.tokens[id] = (qsi_slice){"x\xff", 2};
    tok_fixture_fails(&f, QS_E_FORMAT, "not UTF-8");
    f.tokens[id] = (qsi_slice){"xyz", 3};
    f.types[id] = 9;
    tok_fixture_fails(&f, QS_E_FORMAT, "unknown type 9");
    f.types[id] = 0;
    tok_fixture_fails(&f, QS_E_FORMAT, "unknown type 0");
}

static void refuses_bad_ids_and_names(void **state) {
    f.spec.bos = 257;
    tok_fixture_fails(&f, QS_E_FORMAT, "bos token's id 257");
    f.spec.bos = -2;
    tok_fixture_fails(&f, QS_E_FORMAT, "bos");
    f.spec.bos = -1;
    f.spec.pad = INT64_MAX;
    tok_fixture_fails(&f, QS_E_FORMAT, "padding");
    f.spec.pad = -1;
    f.spec.n_tokens = 0;
    tok_fixture_fails(&f, QS_E_FORMAT, "0 tokens");
    f.spec.pre = "gpt-2";
    tok_fixture_fails(&f, QS_E_UNSUPPORTED, "gpt-2");
}

static void fills_up_to_the_models_size(void **state) {
    qsi_vocab *v = tok_fixture_build(&f), *p = NULL;
    qs_err err;
    assert_int_equal(qsi_vocab_padded(&p, v, 260, &err), QS_OK);
    assert_int_equal(qsi_vocab_size(p), 260);
    assert_int_equal(qsi_vocab_find(p, "[PAD257]", 8), 257);
    assert_int_equal(qsi_vocab_n_merges(p), 1);
    qsi_vocab_free(p);
    p = NULL;
    assert_int_equal(qsi_vocab_padded(&p, v, 256, &err), QS_E_RANGE);
    qsi_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_alphabet_is_gpt2s),
        cmocka_unit_test_setup(answers_questions, setup),
        cmocka_unit_test_setup(hash_sees_what_decides_ids, setup),
        cmocka_unit_test_setup(refuses_duplicate_tokens, setup),
        cmocka_unit_test_setup(refuses_missing_bytes, setup),
        cmocka_unit_test_setup(accepts_the_thirteen_bytes_missing, setup),
        cmocka_unit_test_setup(refuses_bad_merges, setup),
        cmocka_unit_test_setup(refuses_merges_into_control_tokens, setup),
        cmocka_unit_test_setup(refuses_bad_tokens, setup),
        cmocka_unit_test_setup(refuses_bad_ids_and_names, setup),
        cmocka_unit_test_setup(fills_up_to_the_models_size, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
