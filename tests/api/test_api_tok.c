/* The public tokenizer: opening by every kind of path, buffers, streams. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "qiusuo/tokenizer.h"

static const char *json_path;
static qs_tokenizer *t;
static qs_err err;

static int setup(void **state) {
    return qs_tokenizer_open(&t, json_path, &err) == QS_OK ? 0 : -1;
}

static int teardown(void **state) {
    qs_tokenizer_close(&t);
    qs_tokenizer_close(&t);
    return t == NULL ? 0 : -1;
}

static void says_what_it_holds(void **state) {
    qs_token_info info;
    int32_t bos = qs_tokenizer_bos(t);
    assert_string_equal(qs_tokenizer_pre(t), "deepseek-llm");
    assert_true(qs_tokenizer_size(t) > 256);
    assert_int_equal(qs_tokenizer_add_bos(t), 1);
    assert_int_equal(qs_tokenizer_pad(t), -1);
    assert_true(qs_tokenizer_n_merges(t) > 100);
    assert_int_equal(qs_tokenizer_token(t, bos, &info, &err), QS_OK);
    assert_int_equal(info.type, 3);
    assert_int_equal(info.ends, 0);
    assert_int_equal(qs_tokenizer_find(t, info.text, info.n), bos);
    assert_int_equal(qs_tokenizer_token(t, qs_tokenizer_eos(t), &info, &err), QS_OK);
    assert_int_equal(info.ends, 1);
    assert_int_equal(qs_tokenizer_token(t, qs_tokenizer_size(t), &info, &err), QS_E_RANGE);
    assert_int_equal(qs_tokenizer_token(t, -1, &info, &err), QS_E_RANGE);
}

static void fills_the_callers_buffers(void **state) {
    const char text[] = "the river \xe6\xb2\xb3 7";
    const size_t n = sizeof text - 1;
    int32_t ids[sizeof text];
    size_t n_ids = 0, n_back = 0;
    char back[64];
    assert_int_equal(qs_tokenizer_encode(t, text, n, QS_ENCODE_BOS, ids, n + 1, &n_ids, &err),
                     QS_OK);
    assert_true(n_ids > 3 && n_ids <= n + 1);
    assert_int_equal(ids[0], qs_tokenizer_bos(t));
    assert_int_equal(qs_tokenizer_decode(t, ids, n_ids, 0, back, sizeof back, &n_back, &err),
                     QS_OK);
    assert_int_equal(n_back, n);
    assert_memory_equal(back, text, n);
    size_t need = n_ids;
    assert_int_equal(qs_tokenizer_encode(t, text, n, QS_ENCODE_BOS, ids, 2, &n_ids, &err),
                     QS_E_LIMIT);
    assert_int_equal(n_ids, need);
    assert_int_equal(qs_tokenizer_decode(t, ids, need, 0, back, 3, &n_back, &err), QS_E_LIMIT);
    assert_int_equal(n_back, n);
    ids[1] = qs_tokenizer_size(t);
    assert_int_equal(qs_tokenizer_decode(t, ids, 2, 0, back, 64, &n_back, &err), QS_E_RANGE);
    assert_int_equal(qs_tokenizer_encode(t, "a\xff", 2, 0, ids, 9, &n_ids, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 1);
    assert_int_equal(qs_tokenizer_encode(t, "", 0, 0, NULL, 0, &n_ids, &err), QS_OK);
    assert_int_equal(n_ids, 0);
}

static void streams_whole_characters(void **state) {
    const char text[] = "\xf0\x9f\x98\x80 \xe6\xb2\xb3";
    int32_t ids[sizeof text];
    size_t n_ids, n, at = 0;
    const char *part;
    qs_decoder *d = NULL;
    assert_int_equal(qs_tokenizer_encode(t, text, sizeof text - 1, 0, ids, sizeof text, &n_ids,
                                         &err), QS_OK);
    assert_int_equal(qs_decoder_create(&d, t, 0, &err), QS_OK);
    for (size_t i = 0; i < n_ids; i++) {
        assert_int_equal(qs_decoder_push(d, ids[i], &part, &n, &err), QS_OK);
        assert_memory_equal(part, text + at, n);
        assert_int_equal(part[n], 0);
        at += n;
        assert_true(at == 0 || at == 4 || at == 5 || at == 8);
    }
    assert_int_equal(at, sizeof text - 1);
    assert_int_equal(qs_decoder_push(d, -1, &part, &n, &err), QS_E_RANGE);
    assert_int_equal(qs_decoder_push(d, ids[0], &part, &n, &err), QS_OK);
    assert_int_equal(qs_decoder_finish(d, &part, &n, &err), QS_OK);
    assert_string_equal(part, "\xef\xbf\xbd");
    qs_decoder_free(d);
    qs_decoder_free(NULL);
}

static void opens_folders_and_refuses_others(void **state) {
    char folder[512];
    qs_tokenizer *u = NULL;
    snprintf(folder, sizeof folder, "%s", json_path);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(qs_tokenizer_open(&u, folder, &err), QS_OK);
    assert_int_equal(qs_tokenizer_size(u), qs_tokenizer_size(t));
    qs_tokenizer_close(&u);
    assert_int_equal(qs_tokenizer_open(&u, "no/such/file.gguf", &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "no/such/file.gguf"));
    assert_int_equal(qs_tokenizer_open(&u, "no/such/tokenizer.json", &err), QS_E_NOTFOUND);
    assert_null(u);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_it_holds),
        cmocka_unit_test(fills_the_callers_buffers),
        cmocka_unit_test(streams_whole_characters),
        cmocka_unit_test(opens_folders_and_refuses_others),
    };
    if (argc != 2) return 2;
    json_path = argv[1];
    return cmocka_run_group_tests(tests, setup, teardown);
}
