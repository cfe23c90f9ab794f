/* Experts of the next layer are guessed from the residual stream: always rightly where layers do not
 * change it; where they are mostly wrong nothing is read for them. */
#include "from_disk.h"

enum { MANY = 12 };

static void test_right(void **state) {
    (void)state;
    qsi_config c = config_of(&(shape){.moe = true});
    qs_err err = {0};
    qsi_model_io io;
    char path[512];
    run r;
    path_of(path, sizeof path);
    layer_scale = 0;
    write_model(&c, path, QSI_F32);
    layer_scale = 1;
    run_open_part(&r, path, 2);
    for (int i = 0; i < MANY * PROMPT; i++) { /* none is read before some were right */
        if (feed(&r, i % PROMPT, 1, false, &err) != QS_OK) fail_msg("%s", err.text);
        if (i == (MANY - 4) * PROMPT) qsi_model_io_stats(r.m, &io, true);
    }
    qsi_model_io_stats(r.m, &io, false);
    assert_true(io.slots > 0 && io.slots < io.experts);
    assert_true(io.guesses > 4);
    assert_int_equal(io.foreseen, io.guesses);
    assert_int_equal(io.wasted_bytes, 0);
    run_close(&r);
    unlink(path);
}

static void test_wrong(void **state) {
    (void)state;
    qsi_config c = config_of(&(shape){.moe = true});
    qs_err err = {0};
    qsi_model_io io;
    char path[512];
    run want, got;
    path_of(path, sizeof path);
    write_model(&c, path, QSI_Q8_0);
    if (run_open(&want, path, 1, 0, &err) != QS_OK) fail_msg("%s", err.text);
    run_open_part(&got, path, 2);
    /* wrong more often than not: they are judged, and not read */
    for (int i = 0; i < MANY * PROMPT; i++)
        if (feed(&got, i % PROMPT, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(got.m, &io, false);
    assert_true(io.slots > 0 && io.hits < io.uses);
    assert_int_equal(io.guesses, 0);
    assert_int_equal(io.foreseen, 0);
    assert_int_equal(io.wasted_bytes, 0);
    for (int i = 0; i < PROMPT + STEPS; i++) {
        if (feed(&want, i, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
        if (feed(&got, i, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    }
    size_t n = (size_t)(PROMPT + STEPS) * (size_t)c.n_vocab;
    assert_memory_equal(got.z, want.z, n * sizeof *got.z);
    run_close(&got);
    run_close(&want);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_wrong),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
