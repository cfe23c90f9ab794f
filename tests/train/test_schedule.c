/* Schedules against values worked out by hand. */
#include "train_testing.h"

#include "train/schedule.h"

static void multi_step(void **state) {
    (void)state;
    qsi_sched s = {.kind = QSI_SCHED_MULTISTEP, .lr = 1e-3, .warmup_steps = 4};
    qsi_sched_default_stages(&s);
    assert_true(fabs(qsi_sched_lr(&s, 0, 0.0) - 0.25e-3) < 1e-15);
    assert_true(fabs(qsi_sched_lr(&s, 2, 0.02) - 0.75e-3) < 1e-15);
    assert_true(fabs(qsi_sched_lr(&s, 3, 0.03) - 1e-3) < 1e-15);
    assert_true(qsi_sched_lr(&s, 4, 0.04) == 1e-3);
    assert_true(qsi_sched_lr(&s, 79, 0.7999) == 1e-3);
    assert_true(fabs(qsi_sched_lr(&s, 80, 0.8) - 3.16e-4) < 1e-15);
    assert_true(fabs(qsi_sched_lr(&s, 89, 0.8999) - 3.16e-4) < 1e-15);
    assert_true(fabs(qsi_sched_lr(&s, 90, 0.9) - 1e-4) < 1e-15);
    assert_true(fabs(qsi_sched_lr(&s, 99, 1.0) - 1e-4) < 1e-15);
    assert_true(qsi_sched_decay_from(&s) == 0.8);
    /* the warm-up wins where they overlap: a run of a few steps */
    assert_true(fabs(qsi_sched_lr(&s, 2, 0.95) - 0.75e-3) < 1e-15);
}

static void cosine_and_constant(void **state) {
    (void)state;
    qsi_sched s = {.kind = QSI_SCHED_COSINE, .lr = 2, .min_ratio = 0.1};
    assert_true(fabs(qsi_sched_lr(&s, 0, 0) - 2) < 1e-12);
    assert_true(fabs(qsi_sched_lr(&s, 5, 0.5) - 1.1) < 1e-12);       /* 0.2 + 1.8 / 2 */
    assert_true(fabs(qsi_sched_lr(&s, 5, 1.0 / 3) - 1.55) < 1e-12);  /* 0.2 + 1.8 * 3/4 */
    assert_true(fabs(qsi_sched_lr(&s, 9, 1) - 0.2) < 1e-12);
    assert_true(fabs(qsi_sched_lr(&s, 9, 7) - 0.2) < 1e-12);
    s.kind = QSI_SCHED_CONSTANT;
    assert_true(qsi_sched_lr(&s, 1000, 0.99) == 2);
    assert_true(qsi_sched_decay_from(&s) == 1);
}

static void stages(void **state) {
    (void)state;
    qsi_sched s = {.kind = QSI_SCHED_MULTISTEP, .lr = 1};
    qs_err err;
    assert_int_equal(qsi_sched_parse_stages(&s, " 0.5:0.5,0.75:0.25 , 0.9:0.01", &err), QS_OK);
    assert_int_equal(s.n_stages, 3);
    assert_true(qsi_sched_lr(&s, 1, 0.6) == 0.5);
    assert_true(qsi_sched_lr(&s, 1, 0.75) == 0.25);
    assert_true(qsi_sched_lr(&s, 1, 0.95) == 0.01);
    assert_int_equal(qsi_sched_parse_stages(&s, "", &err), QS_OK);
    assert_int_equal(s.n_stages, 0);
    static const char *const bad[] = {"0.5", "0.5:", "x:1", "0.9:0.1,0.8:0.3", "1:0.5", "0:0.5",
                                      "0.5:0", "0.5:2", "0.5:0.5:0.5", "nan:0.1",
                                      "0.1:1,0.2:1,0.3:1,0.4:1,0.5:1,0.6:1,0.7:1,0.8:1,0.9:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(qsi_sched_parse_stages(&s, bad[i], &err), QS_E_ARG);
    assert_int_equal(s.n_stages, 0); /* a failure leaves it alone */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(multi_step),
                                       cmocka_unit_test(cosine_and_constant),
                                       cmocka_unit_test(stages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
