/* Fill-in-the-middle: where its tokens are found, the order of the prompt, and that nothing a person
 * writes becomes one of them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "tok_fixture.h"

#define BEGIN "<｜fim▁begin｜>"
#define HOLE "<｜fim▁hole｜>"
#define END "<｜fim▁end｜>"

static tok_fixture f;

static void add_marks(int type) {
    tok_fixture_init(&f, "deepseek-coder");
    tok_fixture_bos_eos(&f);
    tok_fixture_token(&f, HOLE, type); /* in the order of the published vocabulary */
    tok_fixture_token(&f, BEGIN, type);
    tok_fixture_token(&f, END, type);
}

static qs_status encode(const qsi_vocab *v, const char *before, const char *behind, qsi_ids *ids,
                        qs_err *err) {
    return qsi_encode_fim(v, before, strlen(before), behind, strlen(behind), ids, err);
}

static void puts_what_is_missing_last(void **state) {
    static const int types[] = {QSI_TOK_USER, QSI_TOK_CONTROL};
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        add_marks(types[i]);
        qsi_vocab *v = tok_fixture_build(&f);
        qsi_ids ids = {0};
        int32_t bos = qsi_vocab_bos(v), hole = bos + 2, a = v->byte_id['a'], b = v->byte_id['b'];
        const int32_t want[] = {bos, hole + 1, a, hole, b, hole + 2};
        const int32_t empty[] = {bos, hole + 1, hole, hole + 2};
        assert_int_equal(encode(v, "a", "b", &ids, NULL), QS_OK);
        assert_int_equal(ids.len, QSI_COUNT(want));
        assert_memory_equal(ids.data, want, sizeof want);
        ids.len = 0;
        assert_int_equal(encode(v, "", "", &ids, NULL), QS_OK);
        assert_int_equal(ids.len, QSI_COUNT(empty));
        assert_memory_equal(ids.data, empty, sizeof empty);
        qsi_ids_release(&ids);
        qsi_vocab_free(v);
    }
    f.spec.add_bos = false;
    qsi_vocab *v = tok_fixture_build(&f);
    qsi_ids ids = {0};
    assert_int_equal(encode(v, "", "", &ids, NULL), QS_OK);
    assert_int_equal(ids.len, 3);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

static void a_persons_text_stays_text(void **state) {
    add_marks(QSI_TOK_USER);
    qsi_vocab *v = tok_fixture_build(&f);
    qsi_ids ids = {0};
    qs_err err = {0};
    assert_int_equal(encode(v, "x" END, BEGIN HOLE "<｜end▁of▁sentence｜>", &ids, &err), QS_OK);
    int marks = 0;
    for (size_t i = 0; i < ids.len; i++) marks += ids.data[i] >= 256;
    assert_int_equal(marks, 4); /* BOS and the three */
    size_t len = ids.len;
    assert_int_equal(encode(v, "a", "b\xff", &ids, &err), QS_E_FORMAT);
    assert_int_equal(ids.len, len);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

/* Qwen's names; keys before names, through a file and back; two of three are none. */
static void finds_them_by_key_or_name(void **state) {
    static const char path[] = "test_fim.tmp.gguf";
    qsi_fim got = {0};
    tok_fixture_init(&f, "qwen2");
    int32_t one = tok_fixture_token(&f, "<|fim_prefix|>", QSI_TOK_CONTROL);
    tok_fixture_token(&f, "<|fim_middle|>", QSI_TOK_CONTROL);
    tok_fixture_token(&f, "<|fim_suffix|>", QSI_TOK_CONTROL);
    qsi_vocab *v = tok_fixture_build(&f), *back = NULL, *padded = NULL;
    assert_true(qsi_vocab_fim(v, &got));
    assert_true(got.begin == one && got.hole == one + 2 && got.end == one + 1);
    qsi_vocab_free(v);

    for (int i = 0; i < 3; i++) f.spec.fim[i] = 'x' + i + 1; /* ids 120, 121, 122 */
    v = tok_fixture_build(&f);
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_save_gguf(v, w, &err), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_load_gguf(&back, g, &err), QS_OK);
    assert_int_equal(qsi_vocab_padded(&padded, back, qsi_vocab_size(back) + 2, &err), QS_OK);
    qsi_vocab *const all[] = {v, back, padded};
    for (size_t i = 0; i < QSI_COUNT(all); i++) {
        assert_true(qsi_vocab_fim(all[i], &got));
        assert_true(got.begin == 120 && got.hole == 121 && got.end == 122);
        qsi_vocab_free(all[i]);
    }
    qsi_gguf_close(&g);
    remove(path);
    f.spec.fim[2] = 1000000;
    tok_fixture_fails(&f, QS_E_FORMAT, "fim_mid");
}

static void says_when_there_are_none(void **state) {
    qsi_ids ids = {0};
    qs_err err = {0};
    tok_fixture_init(&f, "deepseek-llm");
    tok_fixture_token(&f, BEGIN, QSI_TOK_USER);
    tok_fixture_token(&f, HOLE, QSI_TOK_USER);
    qsi_vocab *v = tok_fixture_build(&f);
    assert_int_equal(encode(v, "a", "b", &ids, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "fill in the middle"));
    assert_int_equal(ids.len, 0);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puts_what_is_missing_last),
        cmocka_unit_test(a_persons_text_stays_text),
        cmocka_unit_test(finds_them_by_key_or_name),
        cmocka_unit_test(says_when_there_are_none),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
