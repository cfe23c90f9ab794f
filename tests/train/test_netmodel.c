/* The real model behind the driver's table: both architectures and precisions learn, and a run is the
 * same bytes for any number of threads. */
#include "train_testing.h"

#include "train/driver.h"

static int setup(void **state) {
    qsi_str s = {0};
    if (make_test_dir(state) != 0) return -1;
    for (int i = 0; i < 800; i++)
        if (qsi_str_printf(&s, "%d and %d are \u6570.\n", i % 7, i % 5) != QS_OK) return -1;
    put_file(in_dir("a.txt"), s.data, s.len);
    qsi_str_release(&s);
    return 0;
}

static void train(const char *dir, int threads, const char *more, qsi_train_result *r) {
    qsi_trainconf c;
    qsi_pool *pool = NULL;
    qs_err err = {0};
    static const char base[] =
        "[model]\nlayers = 2\nd_model = 32\nheads = 2\nhead_dim = 16\nd_ff = 64\ncontext = 32\n"
        "[tokenizer]\nsize = 300\n[data]\ndoc_bytes = 300\nvalid_share = 0.1\n"
        "[train]\nsteps = 12\nbatch_tokens = 256\nmicro_tokens = 128\nlr = 0.01\n";
    qsi_trainconf_init(&c);
    assert_int_equal(qsi_trainconf_parse(&c, "base", base, strlen(base), &err), QS_OK);
    assert_int_equal(qsi_trainconf_parse(&c, "more", more, strlen(more), &err), QS_OK);
    assert_int_equal(qsi_trainconf_set(&c, "data.train", in_dir("a.txt"), &err), QS_OK);
    assert_int_equal(qsi_pool_create(&pool, threads, &err), QS_OK);
    const qsi_train_job job = {.conf = &c, .dir = dir, .pool = pool, .isa = qsi_cpu_isa(),
                               .make = qsi_net_model};
    if (qsi_train_run(&job, r, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_pool_free(pool);
    qsi_trainconf_release(&c);
}

static void learns(void **state, const char *name, const char *more) {
    qsi_train_result one, three, more_steps;
    char a[64], b[64], pa[96], pb[96];
    qsi_str x = {0}, y = {0};
    (void)state;
    snprintf(a, sizeof(a), "%s-1", name);
    snprintf(b, sizeof(b), "%s-3", name);
    train(in_dir(a), 1, more, &one);
    train(in_dir(b), 3, more, &three);
    assert_true(one.loss < 5.0); /* from log(300) = 5.7 */
    assert_true(fabs(one.loss - one.val_loss) < 0.5);
    snprintf(pa, sizeof(pa), "%s/model.gguf", a);
    snprintf(pb, sizeof(pb), "%s/model.gguf", b);
    read_all(in_dir(pa), &x);
    read_all(in_dir(pb), &y);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    /* goes on from a model: begins where that one ended, not where it began */
    char init[400];
    snprintf(init, sizeof(init), "[model]\ninit = \"%s\"\n[train]\nlr = 1e-6\n", in_dir(pa));
    snprintf(b, sizeof(b), "%s-init", name);
    train(in_dir(b), 2, init, &more_steps);
    assert_true(fabs(more_steps.loss - one.loss) < 0.3);
    qsi_str_release(&x);
    qsi_str_release(&y);
}

static void dense(void **state) {
    learns(state, "dense", "[model]\narch = llama\n[train]\nprecision = f32\n");
}

static void experts(void **state) {
    learns(state, "moe", "[model]\nexperts = 4\nexpert_ff = 32\n[train]\nprecision = f32\n");
}

static void experts_bf16(void **state) {
    learns(state, "bf16", "[model]\nexperts = 4\nexpert_ff = 32\n[train]\nprecision = bf16\n"
           "balance_per = batch\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(dense), cmocka_unit_test(experts),
                                       cmocka_unit_test(experts_bf16)};
    return cmocka_run_group_tests(tests, setup, drop_test_dir);
}
