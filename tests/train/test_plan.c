/* Length of a run, warm-up, cadences. */
#include "train_testing.h"

#include "train/plan.h"

static void make(qsi_plan *p, const char *const *settings, int64_t text, int64_t params) {
    qsi_trainconf c;
    qs_err err = {0};
    qsi_trainconf_init(&c);
    for (; *settings != NULL; settings += 2)
        assert_int_equal(qsi_trainconf_set(&c, settings[0], settings[1], &err), QS_OK);
    assert_int_equal(qsi_trainconf_apply_preset(&c, 1000000, &err), QS_OK);
    assert_int_equal(qsi_plan_make(p, &c, text, params, &err), QS_OK);
    qsi_trainconf_release(&c);
}

static void lengths(void **state) {
    (void)state;
    qsi_plan p;
    make(&p, (const char *const[]){"train.steps", "40", NULL}, 100000, 1000000);
    assert_int_equal(p.kind, QSI_LEN_STEPS);
    assert_int_equal(p.sched.warmup_steps, 4); /* a tenth */
    assert_true(qsi_plan_share(&p, 20, 0, 0) == 0.5);
    make(&p, (const char *const[]){"train.tokens", "2M", NULL}, 100000, 1000000);
    assert_int_equal(p.kind, QSI_LEN_TOKENS);
    assert_true(qsi_plan_share(&p, 3, 500000, 0) == 0.25);
    make(&p, (const char *const[]){"train.hours", "0.5", NULL}, 100000, 1000000);
    assert_true(qsi_plan_share(&p, 3, 500000, 1800) == 1);
    /* eight times through 1 M tokens of text, 2048 a step */
    make(&p, (const char *const[]){NULL}, 1000000, 1000000);
    assert_int_equal(p.est_steps, 3907);
    assert_int_equal(p.sched.warmup_steps, 200);
    /* no more than 20 tokens a parameter */
    make(&p, (const char *const[]){NULL}, 100000000, 1000000);
    assert_int_equal(p.est_steps, 9766);
    /* no less than 100 steps */
    make(&p, (const char *const[]){NULL}, 1000, 1000000);
    assert_int_equal(p.est_steps, 100);
    make(&p, (const char *const[]){"train.warmup_steps", "0", NULL}, 1000, 1000000);
    assert_int_equal(p.sched.warmup_steps, 0);
}

static void one_length_only(void **state) {
    (void)state;
    qsi_trainconf c;
    qsi_plan p;
    qs_err err = {0};
    qsi_trainconf_init(&c);
    c.steps = 10;
    c.hours = 1;
    c.batch_tokens = 100;
    assert_int_equal(qsi_plan_make(&p, &c, 100, 100, &err), QS_E_ARG);
    qsi_trainconf_release(&c);
}

static void checkpoints(void **state) {
    (void)state;
    qsi_plan p = {.ckpt_steps = QSI_AUTO, .ckpt_seconds = QSI_AUTO};
    assert_false(qsi_plan_ckpt_due(&p, 9, 1000, 1.0));
    assert_true(qsi_plan_ckpt_due(&p, 10, 1, 1.0));
    assert_false(qsi_plan_ckpt_due(&p, 10, 100, 5.0));
    assert_true(qsi_plan_ckpt_due(&p, 3, 121, 5.0));
    p.ckpt_seconds = 30;
    assert_false(qsi_plan_ckpt_due(&p, 1000, 29, 0.01));
    assert_true(qsi_plan_ckpt_due(&p, 1, 30, 0.01));
    p.ckpt_steps = 5;
    assert_true(qsi_plan_ckpt_due(&p, 5, 0, 0.01));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths), cmocka_unit_test(one_length_only),
                                       cmocka_unit_test(checkpoints)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
