/* The model file: types of tensors, values, metadata of every kind, and what is refused. */
#include "train_testing.h"

#include "fmt/gguf.h"
#include "train/export.h"

static qsi_net net;
static qsi_config config;
static qsi_vocab *vocab;

static int setup(void **state) {
    qs_err err = {0};
    qsi_bpe_trainer *t = NULL;
    if (make_test_dir(state) != 0 || qsi_bpe_trainer_create(&t, "deepseek-llm", &err) != QS_OK ||
        qsi_bpe_trainer_add(t, "a b c", 5, &err) != QS_OK ||
        qsi_bpe_trainer_finish(t, 258, NULL, NULL, &vocab, &err) != QS_OK)
        return -1;
    qsi_bpe_trainer_free(t);
    config = fake_config(qsi_vocab_size(vocab));
    config.arch = QSI_ARCH_DEEPSEEK;
    config.n_layer = 2;
    config.n_dense = 1;
    config.d_model = 32;
    config.head_dim = 32;
    config.d_ff = 64;
    config.n_expert = 4;
    config.n_expert_used = 2;
    config.n_shared = 1;
    config.d_expert = 40; /* no multiple of 32: rows of ffn_down cannot be blocks */
    qs_status st = fake_make(&net, &config, NULL, NULL, &err);
    net.init_random(net.self, 3, 0.5f);
    return st != QS_OK;
}

static int teardown(void **state) {
    net.free(net.self);
    qsi_vocab_free(vocab);
    return drop_test_dir(state);
}

static void write_as(const char *type, const char *more, qsi_gguf **g) {
    qsi_trainconf c;
    qs_err err = {0};
    qsi_export x = {.net = &net, .config = &config, .vocab = vocab, .conf = &c};
    qsi_trainconf_init(&c);
    assert_int_equal(qsi_trainconf_set(&c, "output.type", type, &err), QS_OK);
    assert_int_equal(qsi_trainconf_parse(&c, "m", more, strlen(more), &err), QS_OK);
    if (qsi_export_check(&c, &x.type, &err) != QS_OK ||
        qsi_export_write(&x, in_dir("m.gguf"), &err) != QS_OK ||
        qsi_gguf_open(g, in_dir("m.gguf"), &err) != QS_OK)
        fail_msg("%s", err.text);
    qsi_trainconf_release(&c);
}

static void types(void **state) {
    (void)state;
    static const struct {
        const char *name;
        qsi_type type;
        double tolerance; /* of a value of at most about 2 */
    } t[] = {{"F32", QSI_F32, 0}, {"F16", QSI_F16, 1.1e-3}, {"bf16", QSI_BF16, 8e-3},
             {"q8_0", QSI_Q8_0, 1e-2}};
    for (size_t k = 0; k < QSI_COUNT(t); k++) {
        qsi_gguf *g = NULL;
        write_as(t[k].name, "", &g);
        assert_int_equal(qsi_gguf_n_tensors(g), net.n_params(net.self));
        for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
            const qsi_gguf_tensor *x = qsi_gguf_tensor_at(g, i);
            const qsi_param *p = net.param(net.self, i);
            bool plain = strstr(x->name, "norm") != NULL || strstr(x->name, "gate_inp") != NULL;
            assert_string_equal(x->name, p->name);
            assert_int_equal(x->type, plain ? QSI_F32
                             : x->ne[0] % qsi_type_get(t[k].type)->block != 0 ? QSI_F16
                             : t[k].type);
            float *back = qsi_alloc((size_t)p->n, sizeof(float));
            qsi_type_get(x->type)->decode(x->data, back, p->n);
            for (int64_t j = 0; j < p->n; j++)
                assert_true(fabs((double)back[j] - (double)p->master[j]) <= t[k].tolerance);
            qsi_free(back);
        }
        qsi_gguf_close(&g);
    }
}

static void metadata(void **state) {
    (void)state;
    qsi_gguf *g = NULL;
    qs_err err = {0};
    int64_t i = 0;
    double x = 0;
    bool b = false;
    qsi_slice s;
    write_as("F16", "[metadata]\ngeneral.name = \"A \\\"b\\\" \u6c42\"\ngeneral.license = mit\n"
             "a.count = 7\na.less = -3\na.temp = 0.75\na.on = true\na.number_text = \"5\"\n"
             "qiusuo.tasks = [poem, \"two words\", couplet]\n", &g);
    assert_int_equal(qsi_gguf_str(g, "general.name", &s, &err), QS_OK);
    assert_int_equal(s.n, 9);
    assert_memory_equal(s.p, "A \"b\" \u6c42", 9);
    assert_int_equal(qsi_gguf_i64(g, "a.count", &i, &err), QS_OK);
    assert_int_equal(i, 7);
    assert_int_equal(qsi_gguf_i64(g, "a.less", &i, &err), QS_OK);
    assert_int_equal(i, -3);
    assert_int_equal(qsi_gguf_f64(g, "a.temp", &x, &err), QS_OK);
    assert_true(x == 0.75);
    assert_int_equal(qsi_gguf_bool(g, "a.on", &b, &err), QS_OK);
    assert_true(b);
    assert_int_equal(qsi_gguf_str(g, "a.number_text", &s, &err), QS_OK);
    const qsi_gguf_kv *kv = qsi_gguf_find(g, "qiusuo.tasks");
    assert_int_equal(kv->count, 3);
    assert_memory_equal(qsi_gguf_arr_str(kv, 1).p, "two words", 9);
    assert_int_equal(qsi_gguf_i64(g, "general.file_type", &i, &err), QS_OK);
    assert_int_equal(i, 1);
    qsi_gguf_close(&g);
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "[output]\ntype = Q9\n", "[output]\ntype = I32\n", "[metadata]\ngeneral.architecture = x\n",
        "[metadata]\ntokenizer.ggml.model = x\n", "[metadata]\na = [x\n", "[metadata]\na = [x, \"y]\n",
        "[metadata]\na = \"x\" y\n"};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        qsi_trainconf c;
        qsi_type type;
        qs_err err = {0};
        qsi_trainconf_init(&c);
        assert_int_equal(qsi_trainconf_parse(&c, "m", bad[i], strlen(bad[i]), &err), QS_OK);
        assert_int_not_equal(qsi_export_check(&c, &type, &err), QS_OK);
        assert_true(err.text[0] != '\0');
        qsi_trainconf_release(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(types), cmocka_unit_test(metadata),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
