/* api/api_model: opening sound and damaged files, what a model says of itself, option structs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define MOE "model_moe.gguf"
#define VOCAB "model_vocab.gguf"
#define BROKEN "model_broken.gguf"

static int write_models(void **state) {
    tiny_model_opts moe = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1, .tasks = true };
    tiny_model_opts vocab = { .arch = QSI_ARCH_LLAMA, .vocab_only = true };
    qs_err err;
    if (tmp_enter(state) != 0) return -1;
    return tiny_model_write(MOE, &moe, &err) || tiny_model_write(VOCAB, &vocab, &err);
}

static void test_describe(void **state) {
    qs_model *m;
    qs_session *s;
    qs_model_opts mo;
    qs_model_opts_init(&mo, sizeof mo);
    mo.threads = 1;
    assert_int_equal(qs_model_open(&m, MOE, &mo, NULL), QS_OK);
    assert_int_equal(qs_session_create(&s, m, NULL, NULL), QS_OK);
    assert_string_equal(qs_model_name(m), "tiny");
    assert_string_equal(qs_model_arch(m), "deepseek");
    assert_string_equal(qs_model_path(m), MOE);
    assert_string_equal(qs_model_template(m), "deepseek-llm");
    assert_int_equal(qs_model_threads(m), 1);
    assert_int_equal(qs_model_n_ctx(m), 256);
    assert_int_equal(qs_session_n_ctx(s), 256);
    assert_int_equal(qs_model_n_vocab(m), qs_tokenizer_size(qs_model_tokenizer(m)));
    assert_true(qs_model_n_params(m) > 100000);
    assert_string_equal(qs_model_task(m, 0), "poem");
    assert_string_equal(qs_model_task(m, 2), "translate");
    assert_null(qs_model_task(m, 3));
    assert_null(qs_model_task(m, -1));
    /* the file's own sampling, and the house's where it has none */
    qs_gen_opts o;
    qs_gen_opts_init(&o, sizeof o, m);
    assert_true(o.temp == 0.5 && o.top_p == 0.75 && o.top_k == 20 && o.repeat_penalty == 1.125);
    assert_true(o.min_p == 0 && o.seed == -1 && o.n_predict == -1 && o.size == sizeof o);
    qs_session_free(s);
    qs_model_close(&m);
    assert_null(m);
    qs_gen_opts_init(&o, sizeof o, NULL);
    assert_true(o.temp == 0.7 && o.top_p == 0.95 && o.top_k == 0 && o.repeat_penalty == 1);
    /* a program built against a shorter struct: nothing beyond its size is touched */
    memset(&o, 0x5a, sizeof o);
    qs_gen_opts_init(&o, offsetof(qs_gen_opts, min_p), NULL);
    assert_true(o.size == offsetof(qs_gen_opts, min_p) && o.temp == 0.7 && o.top_p == 0.95);
    unsigned char rest[sizeof(double)];
    memcpy(rest, &o.min_p, sizeof rest);
    for (size_t i = 0; i < sizeof rest; i++) assert_int_equal(rest[i], 0x5a);
}

static void cut_file(const char *from, const char *to, double share) {
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    assert_non_null(f);
    assert_non_null(g);
    fseek(f, 0, SEEK_END);
    long n = (long)((double)ftell(f) * share);
    rewind(f);
    for (long i = 0; i < n; i++) fputc(fgetc(f), g);
    fclose(f);
    fclose(g);
}

static void test_bad_files(void **state) {
    qs_model *m = NULL;
    qs_session *s = NULL;
    qs_model_opts mo;
    qs_err err = { 0 };
    assert_int_not_equal(qs_model_open(&m, "no-such-file.gguf", NULL, &err), QS_OK);
    assert_non_null(strstr(err.text, "no-such-file.gguf"));
    for (int i = 0; i < 20; i++) {
        cut_file(MOE, BROKEN, i / 20.0);
        memset(&err, 0, sizeof err);
        assert_int_not_equal(qs_model_open(&m, BROKEN, NULL, &err), QS_OK);
        assert_non_null(strstr(err.text, BROKEN));
        assert_null(m);
    }
    assert_int_equal(qs_model_open(&m, VOCAB, NULL, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "vocabulary"));
    qs_model_opts_init(&mo, sizeof mo);
    mo.vocab_only = 1;
    assert_int_equal(qs_model_open(&m, VOCAB, &mo, &err), QS_OK);
    assert_int_equal(qs_session_create(&s, m, NULL, &err), QS_E_UNSUPPORTED);
    qs_model_close(&m);
    mo.vocab_only = 0;
    mo.isa = "no-such-level";
    assert_int_equal(qs_model_open(&m, MOE, &mo, &err), QS_E_ARG);
    mo.isa = NULL;
    mo.threads = -1;
    assert_int_equal(qs_model_open(&m, MOE, &mo, &err), QS_E_ARG);
}

static void hear(void *user, int level, const char *text) {
    (void)level;
    (void)text;
    ++*(int *)user;
}

/* A file without a chat template: the guess is told once, to the sink that is set. */
static void test_log(void **state) {
    int heard = 0;
    tiny_model_opts bare = { .arch = QSI_ARCH_LLAMA, .type = QSI_F16, .no_template = true };
    qs_model *m;
    qs_session *s;
    qs_gen_opts o;
    qs_err err;
    assert_int_equal(tiny_model_write(BROKEN, &bare, &err), QS_OK);
    qs_log_set(hear, &heard);
    assert_int_equal(qs_model_open(&m, BROKEN, NULL, &err), QS_OK);
    assert_string_equal(qs_model_template(m), "deepseek-llm");
    assert_int_equal(qs_session_create(&s, m, NULL, &err), QS_OK);
    assert_int_equal(heard, 0);
    qs_gen_opts_init(&o, sizeof o, m);
    o.n_predict = 1;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qs_chat_add(s, QS_USER, "hi", 2, &err), QS_OK);
        assert_int_equal(qs_chat_answer(s, &o, NULL, &err), QS_OK);
    }
    assert_int_equal(heard, 1);
    qs_log_set(NULL, NULL);
    qs_session_free(s);
    qs_model_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, write_models, tmp_leave);
}
