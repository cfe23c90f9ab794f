/* Vocabularies through GGUF files: what is written is read back; damaged keys are named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tok_fixture.h"

static tok_fixture f;
static char path[64];

static int setup(void **state) {
    snprintf(path, sizeof path, "test_vocab_gguf.%ld.gguf", (long)getpid());
    tok_fixture_init(&f, "deepseek-coder");
    tok_fixture_token(&f, "ab", QSI_TOK_NORMAL);
    tok_fixture_token(&f, "Ġab", QSI_TOK_NORMAL);
    tok_fixture_merge(&f, "a", "b");
    tok_fixture_merge(&f, "Ġ", "ab");
    tok_fixture_bos_eos(&f);
    tok_fixture_token(&f, "<hole>", QSI_TOK_USER);
    f.spec.chat_template = (qsi_slice){"{{ bos_token }}", 15};
    return 0;
}

static int teardown(void **state) {
    unlink(path);
    return 0;
}

static void assert_same(const qsi_vocab *a, const qsi_vocab *b) {
    assert_true(qsi_vocab_hash(a) == qsi_vocab_hash(b));
    assert_int_equal(qsi_vocab_size(a), qsi_vocab_size(b));
    assert_int_equal(qsi_vocab_n_merges(a), qsi_vocab_n_merges(b));
    assert_int_equal(qsi_vocab_add_bos(a), qsi_vocab_add_bos(b));
    assert_int_equal(qsi_vocab_chat_template(a).n, qsi_vocab_chat_template(b).n);
    for (int32_t i = 0; i < qsi_vocab_size(a); i++) {
        assert_int_equal(qsi_vocab_type(a, i), qsi_vocab_type(b, i));
        assert_int_equal(qsi_vocab_text(a, i).n, qsi_vocab_text(b, i).n);
        assert_memory_equal(qsi_vocab_text(a, i).p, qsi_vocab_text(b, i).p,
                            qsi_vocab_text(a, i).n);
    }
}

static void reads_what_it_wrote(void **state) {
    qsi_vocab *v = tok_fixture_build(&f), *back = NULL;
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_save_gguf(v, w, &err), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    if (qsi_vocab_load_gguf(&back, g, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_gguf_close(&g);
    assert_same(v, back);
    qsi_vocab_free(v);
    qsi_vocab_free(back);
}

/* What a file holds, and how it may be wrong. */
typedef struct file_spec {
    const char *model, *pre;
    size_t n_types, n_tokens;
    const char *merge;
    int32_t bos;
    bool no_merges, tokens_are_numbers;
} file_spec;

static void write_file(const file_spec *s) {
    qsi_gguf_writer *w = NULL;
    int32_t types[TOK_FIXTURE_MAX];
    qsi_slice merge = {s->merge, s->merge == NULL ? 0 : strlen(s->merge)};
    for (size_t i = 0; i < TOK_FIXTURE_MAX; i++) types[i] = f.types[i];
    assert_int_equal(qsi_gguf_writer_open(&w, path, NULL), QS_OK);
    if (s->model != NULL)
        assert_int_equal(qsi_gguf_put_str(w, "tokenizer.ggml.model", s->model, strlen(s->model)),
                         QS_OK);
    if (s->pre != NULL)
        assert_int_equal(qsi_gguf_put_str(w, "tokenizer.ggml.pre", s->pre, strlen(s->pre)), QS_OK);
    if (s->tokens_are_numbers)
        assert_int_equal(qsi_gguf_put_arr_i32(w, "tokenizer.ggml.tokens", types, 260), QS_OK);
    else
        assert_int_equal(qsi_gguf_put_arr_str(w, "tokenizer.ggml.tokens", f.tokens, s->n_tokens),
                         QS_OK);
    if (s->n_types > 0)
        assert_int_equal(qsi_gguf_put_arr_i32(w, "tokenizer.ggml.token_type", types, s->n_types),
                         QS_OK);
    if (!s->no_merges)
        assert_int_equal(qsi_gguf_put_arr_str(w, "tokenizer.ggml.merges", &merge,
                                              s->merge == NULL ? 0 : 1), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "tokenizer.ggml.bos_token_id", s->bos), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, NULL), QS_OK);
}

static void load_file(const file_spec *s, qs_status code, const char *words) {
    qsi_gguf *g = NULL;
    qsi_vocab *v = NULL;
    qs_err err = {0};
    write_file(s);
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), code);
    if (words != NULL && strstr(err.text, words) == NULL)
        fail_msg("'%s' lacks '%s'", err.text, words);
    qsi_gguf_close(&g);
    qsi_vocab_free(v);
}

static void names_what_is_wrong(void **state) {
    const file_spec good = {"gpt2", "deepseek-llm", 260, 260, "a b", 258, false, false};
    file_spec s = good;
    load_file(&s, QS_OK, NULL);
    s.model = "llama";
    load_file(&s, QS_E_UNSUPPORTED, "'llama'");
    s.model = NULL;
    load_file(&s, QS_E_FORMAT, "tokenizer.ggml.model");
    s = good;
    s.pre = "smaug-bpe";
    load_file(&s, QS_E_UNSUPPORTED, "smaug-bpe");
    s.pre = NULL;
    load_file(&s, QS_E_UNSUPPORTED, "none of the vocabularies known");
    s = good;
    s.n_types = 259;
    load_file(&s, QS_E_FORMAT, "260 tokens but 259 token types");
    s = good;
    s.merge = "ab";
    load_file(&s, QS_E_FORMAT, "merge 0");
    s.merge = "a b c";
    load_file(&s, QS_E_FORMAT, "merge 0");
    s.merge = NULL;
    load_file(&s, QS_OK, NULL);
    s.no_merges = true;
    load_file(&s, QS_E_FORMAT, "tokenizer.ggml.merges");
    s = good;
    s.bos = 260;
    load_file(&s, QS_E_FORMAT, "bos");
    s.bos = -1;
    load_file(&s, QS_OK, NULL);
    s = good;
    s.tokens_are_numbers = true;
    load_file(&s, QS_E_FORMAT, "array of strings");
}

/* A file that names no pre-tokenizer: n tokens, the BOS of DeepSeek at one id, byte symbols and
 * fillers elsewhere. */
static void write_unnamed(int32_t n, int32_t bos_id) {
    static const char bos[] = "<\xef\xbd\x9c" "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>";
    qsi_gguf_writer *w = NULL;
    qsi_slice *tokens = qsi_calloc((size_t)n, sizeof *tokens);
    int32_t *types = qsi_calloc((size_t)n, sizeof *types);
    char(*text)[16] = qsi_calloc((size_t)n, sizeof *text);
    assert_true(tokens && types && text);
    for (int32_t i = 0, symbol = 0; i < n; i++) {
        if (i == bos_id) {
            tokens[i] = (qsi_slice){bos, sizeof bos - 1};
            types[i] = QSI_TOK_CONTROL;
        } else if (symbol < 256) {
            tokens[i] = f.tokens[symbol++];
            types[i] = QSI_TOK_NORMAL;
        } else {
            snprintf(text[i], sizeof text[i], "[u%d]", (int)i);
            tokens[i] = (qsi_slice){text[i], strlen(text[i])};
            types[i] = QSI_TOK_UNUSED;
        }
    }
    assert_int_equal(qsi_gguf_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_str(w, "tokenizer.ggml.tokens", tokens, (size_t)n), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_i32(w, "tokenizer.ggml.token_type", types, (size_t)n), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_str(w, "tokenizer.ggml.merges", NULL, 0), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, NULL), QS_OK);
    qsi_free(tokens);
    qsi_free(types);
    qsi_free(text);
}

static void recognises_what_is_not_named(void **state) {
    static const struct {
        int32_t n, bos;
        const char *pre; /* NULL: refused */
    } cases[] = {{102400, 100000, "deepseek-llm"}, {100015, 100000, "deepseek-llm"},
                 {32256, 32013, "deepseek-coder"}, {129280, 0, "deepseek-v3"},
                 {128256, 128000, "llama-bpe"}, {151936, 151646, "deepseek-r1-qwen"},
                 {152064, 151646, "deepseek-r1-qwen"},
                 {102400, 99999, NULL},            {1000, 0, NULL}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_gguf *g = NULL;
        qsi_vocab *v = NULL;
        qs_err err = {0};
        write_unnamed(cases[i].n, cases[i].bos);
        assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
        qs_status st = qsi_vocab_load_gguf(&v, g, &err);
        if (cases[i].pre == NULL) {
            assert_int_equal(st, QS_E_UNSUPPORTED);
        } else {
            if (st != QS_OK) fail_msg("case %zu: %s", i, err.text);
            assert_string_equal(qsi_vocab_pre(v), cases[i].pre);
        }
        qsi_vocab_free(v);
        qsi_gguf_close(&g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_what_it_wrote, setup, teardown),
        cmocka_unit_test_setup_teardown(names_what_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(recognises_what_is_not_named, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
