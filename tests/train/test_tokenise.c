/* Text to vocabulary and shards: the same for any number of threads; BOS, EOS and masks where they
 * belong; errors say where. */
#include "train_testing.h"

#include "train/dataset.h"

static qsi_source_files files;
static qsi_vocab *vocab;
static qsi_pool *pools[2];
static const qsi_source_opts src = {.doc_bytes = 400, .split_blank = true};

static int setup(void **state) {
    qs_err err = {0};
    qsi_str s = {0}, j = {0};
    qsi_rng r;
    if (make_test_dir(state) != 0) return -1;
    qsi_rng_init(&r, 4);
    static const char *const words[] = {"stone ", "water ", "the ", "\u6c42\u7d22", "moon ", "a ",
                                        "\u660e\u6708", "river ", "\n\n", "of "};
    for (int i = 0; i < 4000; i++)
        assert_int_equal(qsi_str_puts(&s, words[qsi_rng_below(&r, 10)]), QS_OK);
    put_file(in_dir("a.txt"), s.data, s.len);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(qsi_str_printf(&j, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s%s\"},"
                                        "{\"role\":\"assistant\",\"content\":\"%s%s\"}]}\n",
                                        words[qsi_rng_below(&r, 8)], words[qsi_rng_below(&r, 8)],
                                        words[qsi_rng_below(&r, 8)], words[qsi_rng_below(&r, 8)]),
                         QS_OK);
    }
    put_file(in_dir("b.jsonl"), j.data, j.len);
    qsi_str_release(&s);
    qsi_str_release(&j);
    const char *list[2] = {in_dir("a.txt"), in_dir("b.jsonl")};
    const qsi_strlist paths = {.v = list, .n = 2};
    return qsi_source_scan(&files, &paths, &err) != QS_OK ||
           qsi_pool_create(&pools[0], 1, &err) != QS_OK ||
           qsi_pool_create(&pools[1], 3, &err) != QS_OK ||
           qsi_dataset_learn_vocab(&files, &src, "deepseek-llm", 320, 1 << 20, NULL, NULL, &vocab,
                                   &err) != QS_OK;
}

static int teardown(void **state) {
    qsi_vocab_free(vocab);
    qsi_source_files_release(&files);
    qsi_pool_free(pools[0]);
    qsi_pool_free(pools[1]);
    return drop_test_dir(state);
}

static void vocabulary(void **state) {
    (void)state;
    qsi_vocab *again = NULL, *less = NULL;
    qs_err err = {0};
    assert_true(qsi_vocab_size(vocab) > 258 && qsi_vocab_size(vocab) <= 320);
    assert_int_equal(qsi_dataset_learn_vocab(&files, &src, "deepseek-llm", 320, 1 << 20, NULL, NULL,
                                             &again, &err), QS_OK);
    assert_true(qsi_vocab_hash(again) == qsi_vocab_hash(vocab));
    /* the template's words became tokens */
    assert_true(qsi_vocab_find(vocab, "User", 4) >= 0);
    assert_true(qsi_vocab_find(vocab, "Assistant", 9) >= 0);
    /* a sample of the text is enough to learn from, and another text to the learner */
    assert_int_equal(qsi_dataset_learn_vocab(&files, &src, "deepseek-llm", 320, 3000, NULL, NULL,
                                             &less, &err), QS_OK);
    assert_true(qsi_vocab_size(less) >= 258);
    qsi_vocab_free(again);
    qsi_vocab_free(less);
    assert_int_equal(qsi_dataset_learn_vocab(&files, &src, "nonsense", 320, 3000, NULL, NULL, &less,
                                             &err), QS_E_UNSUPPORTED);
}

static void shards(void **state) {
    (void)state;
    qs_err err = {0};
    const qsi_chat_template *tmpl = NULL;
    qsi_str a = {0}, b = {0};
    qsi_shard s;
    assert_int_equal(qsi_chat_by_name(&tmpl, "deepseek-llm", &err), QS_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(qsi_dataset_write_shard(in_dir(i ? "s1" : "s0"), &files, &src, vocab, tmpl,
                                                 pools[i], 77, NULL, NULL, &err), QS_OK);
    read_all(in_dir("s0"), &a);
    read_all(in_dir("s1"), &b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    assert_int_equal(qsi_shard_open(&s, in_dir("s0"), &err), QS_OK);
    assert_int_equal(s.key, 77);
    assert_true(s.vocab_hash == qsi_vocab_hash(vocab));
    int64_t chats = 0;
    qsi_str text = {0};
    for (int64_t d = 0; d < s.n_docs; d++) {
        int64_t from = (int64_t)s.begin[d], to = (int64_t)s.begin[d + 1];
        assert_int_equal(s.ids[to - 1], qsi_vocab_eos(vocab));
        assert_int_equal(s.ids[from], qsi_vocab_bos(vocab));
        chats += s.source[d] == 1;
        qsi_str_clear(&text);
        for (int64_t t = from; t < to; t++) {
            /* plain text is learned whole; of a conversation the answer and its end */
            if (s.source[d] == 0) assert_true(qsi_shard_learned(&s, t));
            else if (qsi_shard_learned(&s, t))
                assert_int_equal(qsi_decode(vocab, &s.ids[t], 1, false, &text), QS_OK);
        }
        if (s.source[d] == 1) {
            assert_true(text.len > 0 && qsi_shard_learned(&s, to - 1));
            assert_null(strstr(text.data, "User"));
            assert_null(strstr(text.data, "Assistant"));
        }
    }
    assert_int_equal(chats, 300);
    qsi_shard_close(&s);
    qsi_str_release(&a);
    qsi_str_release(&b);
    qsi_str_release(&text);
}

static void no_template(void **state) {
    (void)state;
    qs_err err = {0};
    assert_int_equal(qsi_dataset_write_shard(in_dir("s"), &files, &src, vocab, NULL, pools[1], 1,
                                             NULL, NULL, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "b.jsonl' line 1"));
    assert_false(qsi_path_exists(in_dir("s")));
}

static int cancel(void *user, const char *what, int64_t done, int64_t of) {
    (void)what;
    (void)done;
    (void)of;
    return ++*(int *)user > 0;
}

static void cancelled(void **state) {
    (void)state;
    qs_err err = {0};
    int n = 0;
    const qsi_chat_template *tmpl = NULL;
    qsi_vocab *v = NULL;
    assert_int_equal(qsi_chat_by_name(&tmpl, "deepseek-llm", &err), QS_OK);
    assert_int_equal(qsi_dataset_write_shard(in_dir("s"), &files, &src, vocab, tmpl, pools[0], 1,
                                             cancel, &n, &err), QS_E_CANCELLED);
    assert_false(qsi_path_exists(in_dir("s")));
    assert_int_equal(qsi_dataset_learn_vocab(&files, &src, "deepseek-llm", 320, 1 << 20, cancel, &n,
                                             &v, &err), QS_E_CANCELLED);
    assert_null(v);
    assert_true(n >= 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(vocabulary), cmocka_unit_test(shards),
                                       cmocka_unit_test(no_template), cmocka_unit_test(cancelled)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
