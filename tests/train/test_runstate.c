/* Checkpoints of a run: what is saved comes back; whatever happens to the newest file, the one before
 * it is taken; the last N and the end of the constant stage are kept. */
#include "train_testing.h"

#include "base/log.h"
#include "train/runstate.h"

static qsi_pool *pool;
static qsi_net net;
static qsi_optim opt;
static int warnings;

static void count_warning(void *user, qsi_log_level level, const char *text) {
    (void)user;
    (void)text;
    warnings += level == QSI_LOG_WARN;
}

static int setup(void **state) {
    qs_err err = {0};
    const qsi_config c = fake_config(7);
    const qsi_adamw_opts o = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f};
    qsi_log_set(count_warning, NULL);
    return make_test_dir(state) != 0 || qsi_pool_create(&pool, 1, &err) != QS_OK ||
           fake_make(&net, &c, NULL, NULL, &err) != QS_OK ||
           qsi_optim_init(&opt, &net, pool, qsi_kern_get(QSI_ISA_REF), &o, &err) != QS_OK;
}

static int teardown(void **state) {
    qsi_log_set(NULL, NULL);
    qsi_optim_release(&opt);
    net.free(net.self);
    qsi_pool_free(pool);
    return drop_test_dir(state);
}

/* Every value of the run becomes a function of the step. */
static void paint(float base) {
    for (size_t i = 0; i < opt.n_params; i++) {
        qsi_param *p = net.param(net.self, i);
        for (int64_t k = 0; k < p->n; k++) {
            p->master[k] = base + (float)k;
            opt.m[i][k] = base * 2 + (float)k;
            opt.v[i][k] = base * 3 + (float)k;
        }
    }
}

static bool painted(float base) {
    for (size_t i = 0; i < opt.n_params; i++) {
        const qsi_param *p = net.param(net.self, i);
        for (int64_t k = 0; k < p->n; k++)
            if (p->master[k] != base + (float)k || opt.m[i][k] != base * 2 + (float)k ||
                opt.v[i][k] != base * 3 + (float)k)
                return false;
    }
    return true;
}

static void save(const char *dir, int64_t step, qsi_ckpt_mark mark, bool decaying, int64_t keep) {
    qs_err err = {0};
    const qsi_run_state s = {.step = step, .tokens = step * 100, .seed = 5, .pos = {2, step * 3},
                             .vocab_hash = 11, .data_key = 12, .elapsed = 1.5, .length_kind = 1,
                             .length = 1000, .decaying = decaying};
    paint((float)step);
    if (qsi_run_save(dir, &s, "identity text", &net, &opt, mark, keep, &err) != QS_OK)
        fail_msg("%s", err.text);
}

/* Step of the checkpoint that a resumed run takes, -1: none, -2: error. */
static int64_t loaded(const char *dir, bool before_decay) {
    qs_err err = {0};
    qsi_run_state s = {0};
    qsi_str identity = {0};
    bool found = false;
    paint(-1);
    qs_status st = qsi_run_load(dir, before_decay, &s, &identity, &net, &opt, &found, &err);
    if (st == QS_OK && found) {
        assert_true(painted((float)s.step));
        assert_string_equal(identity.data, "identity text");
        assert_int_equal(s.tokens, s.step * 100);
        assert_int_equal(s.seed, 5);
        assert_int_equal(s.pos.epoch, 2);
        assert_int_equal(s.pos.index, s.step * 3);
        assert_true(s.vocab_hash == 11 && s.data_key == 12 && s.elapsed == 1.5 &&
                    s.length_kind == 1 && s.length == 1000);
    } else {
        assert_true(painted(-1)); /* nothing half-loaded */
    }
    qsi_str_release(&identity);
    return st != QS_OK ? -2 : found ? s.step : -1;
}

static void round_trip_and_keep(void **state) {
    (void)state;
    const char *d = in_dir("keep");
    assert_int_equal(loaded(d, false), -1); /* no folder yet */
    for (int64_t step = 10; step <= 50; step += 10) {
        save(d, step, QSI_MARK_LAST, false, 2);
        assert_int_equal(loaded(d, false), step);
    }
    assert_false(qsi_path_exists(in_dir("keep/checkpoints/step-00000030.ckpt")));
    assert_true(qsi_path_exists(in_dir("keep/checkpoints/step-00000040.ckpt")));
    /* the end of the constant stage outlives the last two */
    save(d, 60, QSI_MARK_STAGE, false, 2);
    for (int64_t step = 70; step <= 90; step += 10) save(d, step, QSI_MARK_LAST, true, 2);
    assert_true(qsi_path_exists(in_dir("keep/checkpoints/step-00000060.ckpt")));
    assert_false(qsi_path_exists(in_dir("keep/checkpoints/step-00000070.ckpt")));
    assert_int_equal(loaded(d, false), 90);
    assert_int_equal(loaded(d, true), 60);
    /* a branch that goes on from there gives the others up */
    save(d, 65, QSI_MARK_LAST, false, 2);
    assert_int_equal(loaded(d, false), 65);
    assert_false(qsi_path_exists(in_dir("keep/checkpoints/step-00000090.ckpt")));
    /* the manifest is a help, not a need */
    put_file(in_dir("keep/checkpoints/MANIFEST"), "junk", 4);
    assert_int_equal(loaded(d, false), 65);
    save(d, 66, QSI_MARK_LAST, false, 2);
    unlink(in_dir("keep/checkpoints/MANIFEST"));
    assert_int_equal(loaded(d, false), 66);
}

static void damage(void **state) {
    (void)state;
    const char *d = in_dir("damage"), *newest = in_dir("damage/checkpoints/step-00000020.ckpt");
    qsi_str whole = {0};
    save(d, 10, QSI_MARK_LAST, false, 3);
    save(d, 20, QSI_MARK_LAST, false, 3);
    read_all(newest, &whole);
    size_t n = whole.len, tried = 0;
    for (size_t at = 0; at < n; at += at < 128 || at > n - 1200 ? 1 : 13) {
        put_file(newest, whole.data, at); /* cut off here */
        assert_int_equal(loaded(d, false), 10);
        char old = whole.data[at];
        whole.data[at] ^= 0x10;
        put_file(newest, whole.data, n);
        int64_t got = loaded(d, false);
        if (got != 10) assert_true(got == 20 && old == 0); /* padding */
        whole.data[at] = old;
        tried++;
    }
    assert_true(tried > 1000);
    assert_true(warnings > 1000); /* and each time it was said */
    put_file(in_dir("damage/checkpoints/step-00000010.ckpt"), "", 0);
    put_file(newest, whole.data, n / 2);
    assert_int_equal(loaded(d, false), -2); /* all are damaged: an error, not a new beginning */
    qsi_str_release(&whole);
}

static void other_shapes(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_net big;
    qsi_optim bo;
    const qsi_config c = fake_config(8);
    const qsi_adamw_opts o = {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f};
    const char *d = in_dir("shape");
    save(d, 10, QSI_MARK_LAST, false, 3);
    assert_int_equal(fake_make(&big, &c, NULL, NULL, &err), QS_OK);
    assert_int_equal(qsi_optim_init(&bo, &big, pool, qsi_kern_get(QSI_ISA_REF), &o, &err), QS_OK);
    qsi_run_state s;
    qsi_str identity = {0};
    bool found = false;
    assert_int_equal(qsi_run_load(d, false, &s, &identity, &big, &bo, &found, &err),
                     QS_E_CORRUPT);
    assert_non_null(strstr(err.text, "shape of 'master/token_embd.weight'"));
    qsi_str_release(&identity);
    qsi_optim_release(&bo);
    big.free(big.self);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip_and_keep),
                                       cmocka_unit_test(damage), cmocka_unit_test(other_shapes)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
