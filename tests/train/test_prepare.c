/* From a configuration to a run that can begin: what is kept in the folder is used again only while
 * text and settings are the same; a model to start from decides the shapes. */
#include "train_testing.h"

#include "base/log.h"
#include "fmt/gguf.h"
#include "train/export.h"
#include "train/prepare.h"

static qsi_pool *pool;
static int prepared_texts; /* calls of progress that were about encoding */

static int on_progress(void *user, const char *what, int64_t done, int64_t of) {
    (void)user;
    (void)done;
    (void)of;
    prepared_texts += strcmp(what, "encoding text") == 0;
    return 0;
}

static int setup(void **state) {
    qs_err err = {0};
    if (make_test_dir(state) != 0) return -1;
    qsi_str s = {0};
    for (int i = 0; i < 1500; i++)
        if (qsi_str_printf(&s, "line %d of \u6c42\u7d22\n", i * i % 97) != QS_OK) return -1;
    put_file(in_dir("a.txt"), s.data, s.len);
    put_file(in_dir("v.txt"), s.data, 300);
    qsi_str_release(&s);
    return qsi_pool_create(&pool, 2, &err) != QS_OK;
}

static int teardown(void **state) {
    qsi_pool_free(pool);
    return drop_test_dir(state);
}

static qs_status prepare(qsi_prepared *p, qsi_trainconf *c, const char *more, qs_err *err) {
    qsi_trainconf_init(c);
    prepared_texts = 0;
    assert_int_equal(qsi_trainconf_set(c, "data.train", in_dir("a.txt"), err), QS_OK);
    assert_int_equal(qsi_trainconf_set(c, "model.context", "32", err), QS_OK);
    if (qsi_trainconf_parse(c, "more", more, strlen(more), err) != QS_OK) fail_msg("%s", err->text);
    return qsi_prepare(p, c, in_dir("run"), pool, on_progress, NULL, err);
}

static void drop(qsi_prepared *p, qsi_trainconf *c) {
    qsi_prepared_release(p);
    qsi_trainconf_release(c);
}

static void kept(void **state) {
    (void)state;
    qsi_prepared p;
    qsi_trainconf c;
    qs_err err = {0};
    assert_int_equal(prepare(&p, &c, "", &err), QS_OK);
    assert_int_equal(prepared_texts, 1);
    assert_int_equal(p.config.n_ctx, 32);
    assert_int_equal(p.config.n_vocab, qsi_vocab_size(p.vocab));
    assert_true(p.train.n > 0 && p.valid.n > 0);
    uint64_t key = p.data_key, hash = qsi_vocab_hash(p.vocab);
    drop(&p, &c);
    assert_int_equal(prepare(&p, &c, "", &err), QS_OK); /* again: nothing to do */
    assert_int_equal(prepared_texts, 0);
    assert_true(p.data_key == key && qsi_vocab_hash(p.vocab) == hash);
    drop(&p, &c);
    assert_int_equal(prepare(&p, &c, "[data]\nsplit = blank\n", &err), QS_OK);
    assert_int_equal(prepared_texts, 1);
    assert_true(p.data_key != key);
    drop(&p, &c);
    put_file(in_dir("run/train.shard"), "QSSHARD1", 8); /* damaged: made again */
    assert_int_equal(prepare(&p, &c, "", &err), QS_OK);
    assert_int_equal(prepared_texts, 1);
    assert_true(p.data_key == key);
    drop(&p, &c);
    put_file(in_dir("run/vocab.gguf"), "GGUF", 4);
    assert_int_equal(prepare(&p, &c, "", &err), QS_OK);
    assert_true(qsi_vocab_hash(p.vocab) == hash);
    drop(&p, &c);
}

static void valid_files(void **state) {
    (void)state;
    qsi_prepared p;
    qsi_trainconf c;
    qs_err err = {0};
    char more[300];
    snprintf(more, sizeof(more), "[data]\nvalid = \"%s\"\n", in_dir("v.txt"));
    assert_int_equal(prepare(&p, &c, more, &err), QS_OK);
    assert_int_equal(p.valid.shard == &p.valid_shard, 1);
    assert_true(p.valid.n > 0);
    assert_int_equal(p.train.n_tokens + p.shard.n_docs, p.shard.n_tokens); /* nothing held out */
    drop(&p, &c);
}

static void from_a_model(void **state) {
    (void)state;
    qsi_prepared p;
    qsi_trainconf c;
    qs_err err = {0};
    char more[400];
    qsi_net net;
    assert_int_equal(prepare(&p, &c, "[model]\narch = llama\nlayers = 2\n", &err), QS_OK);
    assert_int_equal(fake_make(&net, &p.config, NULL, NULL, &err), QS_OK);
    const qsi_export x = {.net = &net, .config = &p.config, .vocab = p.vocab, .type = QSI_F32,
                          .conf = &c};
    assert_int_equal(qsi_export_write(&x, in_dir("m.gguf"), &err), QS_OK);
    uint64_t hash = qsi_vocab_hash(p.vocab);
    net.free(net.self);
    drop(&p, &c);
    snprintf(more, sizeof(more), "[model]\ninit = \"%s\"\n", in_dir("m.gguf"));
    assert_int_equal(prepare(&p, &c, more, &err), QS_OK);
    assert_int_equal(p.config.n_layer, 2);
    assert_int_equal(p.config.arch, QSI_ARCH_LLAMA);
    assert_true(qsi_vocab_hash(p.vocab) == hash);
    assert_int_equal(c.n_layer, 2); /* and the run's settings say so */
    assert_string_equal(c.arch, "llama");
    int32_t ctx = p.config.n_ctx;
    drop(&p, &c);
    snprintf(more, sizeof(more), "[model]\ninit = \"%s\"\nlayers = 3\n", in_dir("m.gguf"));
    assert_int_equal(prepare(&p, &c, more, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "model.layers = 3"));
    qsi_trainconf_release(&c);
    snprintf(more, sizeof(more), "[model]\ninit = \"%s\"\ncontext = %d\n", in_dir("m.gguf"), ctx * 4);
    assert_int_equal(prepare(&p, &c, more, &err), QS_OK);
    assert_int_equal(p.config.n_ctx, ctx * 4);
    assert_int_equal(p.config.rope_scaling, QSI_ROPE_YARN);
    assert_true(p.config.rope_factor == 4 && p.config.rope_orig_ctx == ctx);
    drop(&p, &c);
    snprintf(more, sizeof(more), "[model]\ninit = \"%s\"\ncontext = %d\nrope_scaling = none\n",
             in_dir("m.gguf"), ctx * 4);
    assert_int_equal(prepare(&p, &c, more, &err), QS_OK);
    assert_int_equal(p.config.n_ctx, ctx * 4);
    assert_int_equal(p.config.rope_scaling, QSI_ROPE_NONE);
    drop(&p, &c);
    assert_int_equal(prepare(&p, &c, "[model]\nrope_scaling = yarn\n", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "init"));
    qsi_trainconf_release(&c);
    snprintf(more, sizeof(more), "[tokenizer]\nvocab = \"%s\"\n", in_dir("m.gguf"));
    assert_int_equal(prepare(&p, &c, more, &err), QS_OK); /* its vocabulary alone */
    assert_true(qsi_vocab_hash(p.vocab) == hash && p.init == NULL);
    drop(&p, &c);
}

static char said[1024];

static void on_log(void *user, qsi_log_level level, const char *text) {
    (void)user;
    if (level == QSI_LOG_WARN) snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", text);
}

/* What is said while the conversations of c.jsonl are prepared for this context. */
static void prepare_chats(int64_t n_ctx) {
    qsi_prepared p;
    qsi_trainconf c;
    qs_err err = {0};
    char ctx[24];
    snprintf(ctx, sizeof ctx, "%lld", (long long)n_ctx);
    qsi_trainconf_init(&c);
    said[0] = '\0';
    qsi_log_set(on_log, NULL);
    assert_int_equal(qsi_trainconf_set(&c, "data.train", in_dir("c.jsonl"), &err), QS_OK);
    assert_int_equal(qsi_trainconf_set(&c, "model.context", ctx, &err), QS_OK);
    if (qsi_prepare(&p, &c, in_dir("chats"), pool, NULL, NULL, &err) != QS_OK)
        fail_msg("%s", err.text);
    qsi_log_set(NULL, NULL);
    drop(&p, &c);
}

/* A conversation that is longer than the context: said once, with the longest. */
static void long_conversations(void **state) {
    (void)state;
    qsi_str s = {0};
    for (int i = 0; i < 6; i++) { /* the third and the fifth are long */
        assert_int_equal(qsi_str_puts(&s, "{\"messages\":[{\"role\":\"user\",\"content\":\"ask\"},"
                                          "{\"role\":\"assistant\",\"content\":\""), QS_OK);
        for (int k = i == 2 ? 90 : i == 4 ? 60 : 1; k > 0; k--)
            assert_int_equal(qsi_str_printf(&s, "%d ", k * 7919 % 997), QS_OK);
        assert_int_equal(qsi_str_puts(&s, "\"}]}\n"), QS_OK);
    }
    put_file(in_dir("c.jsonl"), s.data, s.len);
    qsi_str_release(&s);
    prepare_chats(32);
    if (strstr(said, "2 conversations are longer than the context of 32 tokens") == NULL ||
        strstr(said, "the longest, number 3 of '") == NULL)
        fail_msg("%s", said);
    const char *has = strstr(said, "has ");
    long long most = 0;
    if (has == NULL || sscanf(has, "has %lld tokens", &most) != 1) fail_msg("%s", said);
    prepare_chats(most - 1); /* the last token is learned, never read */
    assert_string_equal(said, "");
    prepare_chats(most - 2);
    if (strstr(said, "1 conversation is longer") == NULL) fail_msg("%s", said);
}

static void mistakes(void **state) {
    (void)state;
    static const struct {
        const char *more, *says;
    } bad[] = {{"[data]\nweights = 1, 2\n", "2 values for 1 sources"},
               {"[data]\nweights = -1\n", "data.weights"},
               {"[model]\nheads = 3\nkv_heads = 2\n", "[model]"},
               {"[model]\npreset = none\n", "presets are"},
               {"[tokenizer]\nvocab = nowhere.gguf\n", "nowhere.gguf"},
               {"[tokenizer]\npre = odd\n", "odd"},
               {"[output]\nchat_template = odd\n", "odd"}};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        qsi_prepared p;
        qsi_trainconf c;
        qs_err err = {0};
        assert_int_not_equal(prepare(&p, &c, bad[i].more, &err), QS_OK);
        if (strstr(err.text, bad[i].says) == NULL)
            fail_msg("'%s' lacks '%s'", err.text, bad[i].says);
        qsi_trainconf_release(&c);
    }
}

/* The n-th allocation fails (debug builds; elsewhere nothing fails): an error that says so, nothing
 * leaked, and the folder is good for the next try. */
static void out_of_memory(void **state) {
    (void)state;
    qsi_prepared p;
    qsi_trainconf c;
    qs_err err = {0};
    int failed = 0;
    for (int64_t n = 1; n < FAIL_MAX; n += n < 300 ? 1 : 37) {
        unlink(in_dir("run/vocab.gguf"));
        unlink(in_dir("run/train.shard"));
        qsi_trainconf_init(&c);
        if (qsi_trainconf_set(&c, "data.train", in_dir("v.txt"), &err) != QS_OK) fail();
        qsi_mem_fail_after(n);
        qs_status st = qsi_prepare(&p, &c, in_dir("run"), pool, on_progress, NULL, &err);
        qsi_mem_fail_after(-1);
        if (st == QS_OK) qsi_prepared_release(&p);
        else {
            failed++;
            if (st != QS_E_NOMEM) fail_msg("allocation %d: %s", (int)n, err.text);
        }
        qsi_trainconf_release(&c);
        if (st == QS_OK && n > 300) break;
    }
#ifdef QS_DEBUG
    assert_true(failed > 100);
#else
    assert_int_equal(failed, 0);
#endif
    assert_int_equal(prepare(&p, &c, "", &err), QS_OK);
    drop(&p, &c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept), cmocka_unit_test(valid_files),
                                       cmocka_unit_test(from_a_model), cmocka_unit_test(mistakes),
                                       cmocka_unit_test(long_conversations),
                                       cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
