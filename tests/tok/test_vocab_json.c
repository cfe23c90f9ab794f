/* tokenizer.json: the golden one, its other spellings, and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "tok/vocab.h"
#include "tok_golden.h"

static const char *golden_path, *llama_path, *qwen_path;
static char *golden;
static size_t n_golden;

static int setup(void **state) {
    golden = tok_read_file(golden_path, &n_golden);
    return tmp_enter(state);
}

static int teardown(void **state) {
    free(golden);
    return tmp_leave(state);
}

/* The golden text with the first `old` replaced. */
static char *edited(const char *old, const char *new) {
    char *at = strstr(golden, old), *out;
    size_t head;
    if (at == NULL) fail_msg("the golden file lacks %s", old);
    head = (size_t)(at - golden);
    out = malloc(n_golden + strlen(new) + 1);
    assert_non_null(out);
    memcpy(out, golden, head);
    memcpy(out + head, new, strlen(new));
    memcpy(out + head + strlen(new), at + strlen(old), n_golden - head - strlen(old) + 1);
    return out;
}

static qs_status load(qsi_vocab **v, const char *json, const char *config, qs_err *err) {
    return qsi_vocab_load_json(v, json, strlen(json), config, config == NULL ? 0 : strlen(config),
                               err);
}

static void refuse(const char *old, const char *new, qs_status code, const char *words) {
    char *json = edited(old, new);
    qsi_vocab *v = NULL;
    qs_err err = {0};
    assert_int_equal(load(&v, json, NULL, &err), code);
    if (strstr(err.text, words) == NULL) fail_msg("'%s' lacks '%s'", err.text, words);
    free(json);
}

static void reads_the_golden_one(void **state) {
    qsi_vocab *v = NULL;
    assert_int_equal(load(&v, golden, NULL, NULL), QS_OK);
    assert_string_equal(qsi_vocab_pre(v), "deepseek-llm");
    assert_int_equal(qsi_vocab_bos(v), qsi_vocab_find(v, "<｜begin▁of▁sentence｜>", 29));
    assert_int_equal(qsi_vocab_eos(v), qsi_vocab_bos(v) + 1);
    assert_int_equal(qsi_vocab_type(v, qsi_vocab_bos(v)), QSI_TOK_CONTROL);
    assert_int_equal(qsi_vocab_type(v, qsi_vocab_bos(v) + 2), QSI_TOK_USER);
    assert_true(qsi_vocab_add_bos(v));
    qsi_vocab_free(v);
}

/* A step's class may be spelled in another way; another set is another tokenizer. */
static void compares_classes_by_their_set(void **state) {
    char *json = edited("[\\\\r\\\\n]", "[\\n\\r]");
    qsi_vocab *v = NULL;
    qs_err err = {0};
    if (load(&v, json, NULL, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_vocab_free(v);
    free(json);
    json = edited("A-Za-z", "a-zA-MN-Z");
    v = NULL;
    if (load(&v, json, NULL, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_vocab_free(v);
    free(json);
    refuse("A-Za-z", "A-Ya-z", QS_E_UNSUPPORTED, "none of deepseek-llm");
    refuse("[\\\\r\\\\n]", "[\\\\r\\\\n\\\\t]", QS_E_UNSUPPORTED, "the first");
    refuse("[\\\\r\\\\n]", "[^\\\\r\\\\n]", QS_E_UNSUPPORTED, "none of");
    refuse("\\\\s+$", "\\\\s*$", QS_E_UNSUPPORTED, "none of");
}

static void refuses_what_it_does_not_do(void **state) {
    refuse("\"Isolated\"", "\"Removed\"", QS_E_UNSUPPORTED, "step 1");
    refuse("\"individual_digits\":true", "\"individual_digits\":false", QS_E_UNSUPPORTED, "Digits");
    refuse("\"use_regex\":false", "\"use_regex\":true", QS_E_UNSUPPORTED, "ByteLevel");
    refuse("\"ignore_merges\":false", "\"ignore_merges\":true", QS_E_UNSUPPORTED, "ignore_merges");
    refuse("\"dropout\":null", "\"dropout\":0.1", QS_E_UNSUPPORTED, "dropout");
    refuse("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", QS_E_UNSUPPORTED, "NFKC");
    refuse("\"type\":\"BPE\"", "\"type\":\"Unigram\"", QS_E_UNSUPPORTED, "Unigram");
    refuse("\"type\":\"Sequence\"", "\"type\":\"Metaspace\"", QS_E_UNSUPPORTED, "Metaspace");
}

/* Qwen's normaliser is known, and goes through a file. */
static void reads_the_normaliser(void **state) {
    static const char path[] = "test_vocab_json.tmp.gguf";
    char *json = edited("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}");
    qsi_vocab *plain = NULL, *v[2] = {NULL, NULL};
    qsi_gguf_writer *w = NULL;
    qsi_gguf *g = NULL;
    qs_err err = {0};
    assert_int_equal(load(&plain, golden, NULL, &err), QS_OK);
    assert_int_equal(load(&v[0], json, NULL, &err), QS_OK);
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_save_gguf(v[0], w, &err), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, path, &err), QS_OK);
    assert_int_equal(qsi_vocab_load_gguf(&v[1], g, &err), QS_OK);
    assert_true(qsi_vocab_hash(v[0]) == qsi_vocab_hash(v[1]));
    assert_true(qsi_vocab_hash(v[0]) != qsi_vocab_hash(plain));
    qsi_str text = {0}, config = {0};
    qsi_vocab *again = NULL;
    assert_int_equal(qsi_vocab_save_json(v[0], &text, &config, &err), QS_OK);
    assert_non_null(strstr(text.data, "\"normalizer\":{\"type\":\"NFC\"}"));
    assert_int_equal(qsi_vocab_load_json(&again, text.data, text.len, config.data, config.len, &err),
                     QS_OK);
    assert_true(qsi_vocab_hash(v[0]) == qsi_vocab_hash(again));
    qsi_vocab_free(again);
    qsi_str_release(&text);
    qsi_str_release(&config);
    qsi_ids composed = {0}, apart = {0};
    assert_int_equal(qsi_encode(plain, "caf\xc3\xa9", 5, 0, &composed, &err), QS_OK);
    for (int i = 0; i < 3; i++) {
        apart.len = 0;
        assert_int_equal(qsi_encode(i < 2 ? v[i] : plain, "cafe\xcc\x81", 6, 0, &apart, &err), QS_OK);
        bool same = apart.len == composed.len &&
                    memcmp(apart.data, composed.data, apart.len * sizeof *apart.data) == 0;
        assert_int_equal(same, i < 2);
        if (i < 2) qsi_vocab_free(v[i]);
    }
    qsi_ids_release(&composed);
    qsi_ids_release(&apart);
    qsi_vocab_free(plain);
    qsi_gguf_close(&g);
    remove(path);
    free(json);
}

static void refuses_broken_vocabularies(void **state) {
    refuse("\"!\":0", "\"!\":1", QS_E_FORMAT, "same id 1");
    refuse("\"!\":0", "\"!\":-1", QS_E_FORMAT, "id -1");
    refuse("\"!\":0", "\"!\":\"0\"", QS_E_FORMAT, "no integer");
    refuse("\"!\":0", "\"!\":9000", QS_E_FORMAT, "no token has the id 0");
    refuse("\"!\":0", "\"!\":99999999999", QS_E_FORMAT, "highest id");
    refuse("[\"Ġ\",\"t\"]", "[\"Ġ\"]", QS_E_FORMAT, "is not two tokens");
    refuse("[\"Ġ\",\"t\"]", "[\"Ġ\",\"↑\"]", QS_E_FORMAT, "which is no token");
    refuse("[\"Ġ\",\"t\"]", "\"Ġ  t\"", QS_E_FORMAT, "is not two tokens");
    refuse("{\"version\"", "{\"version\":[", QS_E_FORMAT, "tokenizer.json");
}

static void reads_merges_as_strings(void **state) {
    char *json = edited("[\"Ġ\",\"t\"]", "\"Ġ t\"");
    qsi_vocab *a = NULL, *b = NULL;
    assert_int_equal(load(&a, golden, NULL, NULL), QS_OK);
    assert_int_equal(load(&b, json, NULL, NULL), QS_OK);
    assert_true(qsi_vocab_hash(a) == qsi_vocab_hash(b));
    qsi_vocab_free(a);
    qsi_vocab_free(b);
    free(json);
}

static void configuration_decides_special_ids(void **state) {
    qsi_vocab *v = NULL;
    qs_err err = {0};
    const char *config = "{\"add_bos_token\":false,\"add_eos_token\":true,"
                         "\"bos_token\":{\"content\":\"<｜begin▁of▁sentence｜>\"},"
                         "\"eos_token\":\"<｜end▁of▁sentence｜>\","
                         "\"pad_token\":\"<｜end▁of▁sentence｜>\","
                         "\"chat_template\":[{\"name\":\"tool\",\"template\":\"x\"},"
                         "{\"name\":\"default\",\"template\":\"{{ y }}\"}]}";
    assert_int_equal(load(&v, golden, config, &err), QS_OK);
    assert_false(qsi_vocab_add_bos(v));
    assert_true(qsi_vocab_add_eos(v));
    assert_int_equal(qsi_vocab_pad(v), qsi_vocab_eos(v));
    assert_int_equal(qsi_vocab_chat_template(v).n, 7);
    qsi_vocab_free(v);
    v = NULL;
    assert_int_equal(load(&v, golden, "{\"bos_token\":\"<s>\"}", &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "bos_token '<s>'"));
    assert_int_equal(load(&v, golden, "{", &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "tokenizer_config.json"));
}

static void names_the_distilled_models_pre_tokenizers(void **state) {
    static const char qwen_config[] = "{\"bos_token\":\"<think>\"}";
    const struct {
        const char *path, *config, *pre;
    } cases[] = {{llama_path, NULL, "llama-bpe"},
                 {qwen_path, NULL, "deepseek-r1-qwen"},
                 {qwen_path, qwen_config, "qwen2"}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_vocab *v = NULL;
        qs_err err = {0};
        size_t n;
        char *json = tok_read_file(cases[i].path, &n), *whole = strstr(json, "\"ignore_merges\":");
        if (load(&v, json, cases[i].config, &err) != QS_OK) fail_msg("%s", err.text);
        assert_string_equal(qsi_vocab_pre(v), cases[i].pre);
        qsi_vocab_free(v);
        v = NULL;
        assert_non_null(whole); /* the other way round */
        whole += strlen("\"ignore_merges\":");
        bool was = *whole == 't';
        memcpy(whole, was ? "null" : "true ", was ? 4 : 5);
        assert_int_equal(load(&v, json, cases[i].config, &err), QS_E_UNSUPPORTED);
        assert_non_null(strstr(err.text, "ignore_merges"));
        free(json);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_golden_one),
        cmocka_unit_test(compares_classes_by_their_set),
        cmocka_unit_test(refuses_what_it_does_not_do),
        cmocka_unit_test(reads_the_normaliser),
        cmocka_unit_test(refuses_broken_vocabularies),
        cmocka_unit_test(reads_merges_as_strings),
        cmocka_unit_test(configuration_decides_special_ids),
        cmocka_unit_test(names_the_distilled_models_pre_tokenizers),
    };
    if (argc != 4) return 2;
    golden_path = argv[1];
    llama_path = argv[2];
    qwen_path = argv[3];
    return cmocka_run_group_tests(tests, setup, teardown);
}
