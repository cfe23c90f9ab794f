/* The configuration: values of every kind, messages for mistakes, presets, identity, and what any
 * garbage does (nothing but an error). */
#include "train_testing.h"

#include "train/trainconf.h"

static qs_status parse(qsi_trainconf *c, const char *text, qs_err *err) {
    qsi_trainconf_init(c);
    *err = (qs_err){.offset = -1};
    return qsi_trainconf_parse(c, "t.conf", text, strlen(text), err);
}

static void values(void **state) {
    (void)state;
    qsi_trainconf c;
    qs_err err;
    const char *text = "\xEF\xBB\xBF# a run\r\n"
                       "[run]\r\nout = some folder/x  # where\nseed=7\n"
                       "[data]\ntrain = a.txt, \"b, c#.txt\" ,d\ntrain = e\n"
                       "[train]\ntokens = 25M\nlr = 1.5e-3\nstages = 0.5:0.5, 0.9:0.1\n"
                       "batch_tokens = 16_384\nschedule = cosine\n"
                       "[model]\nnorm_topk = yes\n"
                       "[sample]\nprompt = \"say \\\"hi\\\"\\n\", \u5199\u4e00\u9996\u8bd7\n"
                       "[metadata]\ngeneral.name = \"My model\"\nx.tasks = [a, b]\n";
    assert_int_equal(parse(&c, text, &err), QS_OK);
    assert_string_equal(c.out, "some folder/x");
    assert_int_equal(c.seed, 7);
    assert_int_equal(c.train.n, 4);
    assert_string_equal(c.train.v[1], "b, c#.txt");
    assert_string_equal(c.train.v[3], "e");
    assert_int_equal(c.tokens, 25000000);
    assert_true(c.lr == 1.5e-3);
    assert_string_equal(c.stages, "0.5:0.5, 0.9:0.1");
    assert_int_equal(c.batch_tokens, 16384);
    assert_string_equal(c.schedule, "cosine");
    assert_true(c.norm_topk);
    assert_int_equal(c.prompts.n, 2);
    assert_string_equal(c.prompts.v[0], "say \"hi\"\n");
    assert_string_equal(c.prompts.v[1], "\u5199\u4e00\u9996\u8bd7");
    assert_string_equal(c.meta_keys.v[1], "x.tasks");
    assert_string_equal(c.meta_values.v[1], "[a, b]");
    assert_true(qsi_trainconf_given(&c, "train.lr"));
    assert_false(qsi_trainconf_given(&c, "train.clip"));
    assert_int_equal(qsi_trainconf_set(&c, "data.train", "z", &err), QS_OK);
    assert_int_equal(c.train.n, 1);
    qsi_trainconf_release(&c);
}

static void mistake(const char *text, qs_status want, const char *says) {
    qsi_trainconf c;
    qs_err err;
    assert_int_equal(parse(&c, text, &err), want);
    if (strstr(err.text, says) == NULL) fail_msg("'%s' lacks '%s'", err.text, says);
    qsi_trainconf_release(&c);
}

static void mistakes(void **state) {
    (void)state;
    mistake("[train]\n\nlearning_rat = 1", QS_E_ARG, "line 3");
    mistake("[train]\nstepps = 1", QS_E_ARG, "'steps' in [train]");
    mistake("[model]\nlr = 1", QS_E_ARG, "'lr' in [train]");
    mistake("[modle]\n", QS_E_ARG, "unknown section [modle]");
    mistake("[train]\nlr = fast", QS_E_FORMAT, "'fast' is not a number");
    mistake("[train]\nlr = 11", QS_E_RANGE, "outside");
    mistake("[train]\nlr = nan", QS_E_FORMAT, "not a number");
    mistake("[train]\nsteps = 1.5", QS_E_FORMAT, "whole number");
    mistake("[train]\nsteps = -4", QS_E_RANGE, "outside");
    mistake("[train]\nsteps = 1, 2", QS_E_FORMAT, "one value");
    mistake("[train]\nsteps =", QS_E_FORMAT, "no value");
    mistake("[train]\nschedule = multi", QS_E_ARG, "multi-step|cosine|constant");
    mistake("[model]\nnorm_topk = maybe", QS_E_FORMAT, "neither");
    mistake("steps = 1", QS_E_FORMAT, "before any [section]");
    mistake("[run]\nout", QS_E_FORMAT, "not key = value");
    mistake("[run\n", QS_E_FORMAT, "not a [section]");
    mistake("[run]\nout = \"open", QS_E_FORMAT, "quote");
    mistake("[metadata]\na = 1\na = 2", QS_E_FORMAT, "twice");
    mistake("[run]\nout = \xff", QS_E_FORMAT, "UTF-8");
    qsi_trainconf c;
    qs_err err;
    qsi_trainconf_init(&c);
    assert_int_equal(qsi_trainconf_set(&c, "train.stps", "1", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "train.steps"));
    assert_int_equal(qsi_trainconf_set(&c, "steps", "1", &err), QS_E_ARG);
    qsi_trainconf_release(&c);
}

static void numbers(void **state) {
    (void)state;
    double x = 0;
    assert_true(qsi_parse_number("2.5k", &x) && x == 2500);
    assert_true(qsi_parse_number("1_000_000", &x) && x == 1e6);
    assert_true(qsi_parse_number("3G", &x) && x == 3e9);
    static const char *const bad[] = {"", "k", "_", "1x", "0x10", "inf", "1e999", "--1", "1 2"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(qsi_parse_number(bad[i], &x));
}

static void presets(void **state) {
    (void)state;
    qsi_trainconf c;
    qs_err err;
    assert_int_equal(parse(&c, "[model]\nlayers = 3\n", &err), QS_OK);
    assert_int_equal(qsi_trainconf_apply_preset(&c, 300000, &err), QS_OK);
    assert_int_equal(c.n_layer, 3); /* what was given stays */
    assert_int_equal(c.d_model, 128);
    assert_int_equal(c.vocab_size, 1024);
    assert_int_equal(c.n_ctx, 256);
    assert_int_equal(c.batch_tokens, 2048);
    qsi_trainconf_release(&c);
    assert_int_equal(parse(&c, "", &err), QS_OK); /* a short text gets less of both */
    assert_int_equal(qsi_trainconf_apply_preset(&c, 10000, &err), QS_OK);
    assert_int_equal(c.vocab_size, 320);
    assert_int_equal(c.n_ctx, 64);
    qsi_trainconf_release(&c);
    assert_int_equal(parse(&c, "[model]\npreset = huge\n", &err), QS_OK);
    assert_int_equal(qsi_trainconf_apply_preset(&c, 10000, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "tiny, mini, small, medium"));
    qsi_trainconf_release(&c);
    assert_int_equal(parse(&c, "[train]\nbatch_tokens = 100\n", &err), QS_OK);
    assert_int_equal(qsi_trainconf_apply_preset(&c, 1000000, &err), QS_E_ARG);
    qsi_trainconf_release(&c);
}

static void identity(void **state) {
    (void)state;
    qsi_trainconf a, b;
    qs_err err;
    qsi_str sa = {0}, sb = {0};
    const char *line, *other;
    size_t n_line, n_other;
    assert_int_equal(parse(&a, "[train]\nlr = 1e-3\nsteps = 10\n[run]\nthreads = 1\n", &err), QS_OK);
    assert_int_equal(parse(&b, "[train]\nlr = 1e-3\nsteps = 99\n[run]\nout = x\n", &err), QS_OK);
    assert_int_equal(qsi_trainconf_identity(&a, &sa), QS_OK);
    assert_int_equal(qsi_trainconf_identity(&b, &sb), QS_OK);
    assert_true(qsi_trainconf_same(sa.data, sb.data, &line, &n_line, &other, &n_other));
    qsi_str_clear(&sb);
    assert_int_equal(qsi_trainconf_set(&b, "train.lr", "2e-3", &err), QS_OK);
    assert_int_equal(qsi_trainconf_identity(&b, &sb), QS_OK);
    assert_false(qsi_trainconf_same(sa.data, sb.data, &line, &n_line, &other, &n_other));
    assert_int_equal(strncmp(line, "train.lr = 0.002", 16), 0);
    assert_int_equal(strncmp(other, "train.lr = 0.001", 16), 0);
    qsi_str_release(&sa);
    qsi_str_release(&sb);
    qsi_trainconf_release(&a);
    qsi_trainconf_release(&b);
}

/* Pieces of configurations in random order, and random bytes: no crash, no leak, no endless loop. */
static void garbage(void **state) {
    (void)state;
    static const char *const parts[] = {
        "[run]\n", "[train", "]\n", "out", "=", " = ", "\"", "\\", "\n", "#", ",", "steps", "1e5",
        "lr", "[metadata]\n", "[data]\n", "train = a, b\n", "\xE6\xB1\x82", "\xff",
        "stages = 0.5:1\n", "\t", "[", "999999999999999999999999", "-", "k"};
    qsi_rng r;
    qsi_rng_init(&r, 42);
    for (int i = 0; i < 20000; i++) {
        char text[256];
        size_t n = 0;
        for (uint64_t k = qsi_rng_below(&r, 12); k > 0; k--) {
            const char *p = parts[qsi_rng_below(&r, sizeof(parts) / sizeof(parts[0]))];
            size_t len = strlen(p);
            if (n + len >= sizeof(text)) break;
            memcpy(text + n, p, len);
            n += len;
        }
        text[n] = '\0';
        qsi_trainconf c;
        qs_err err;
        qs_status st = parse(&c, text, &err);
        if (st != QS_OK) assert_true(err.text[0] != '\0');
        qsi_trainconf_release(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values), cmocka_unit_test(mistakes), cmocka_unit_test(numbers),
        cmocka_unit_test(presets), cmocka_unit_test(identity), cmocka_unit_test(garbage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
