/* The bounded cache of experts: what it keeps, and what it counts. */
#include "from_disk.h"

/* Experts that are used again are hits; the best fixed choice is no worse than chance. */
static void test_statistics(void **state) {
    (void)state;
    qsi_config c = config_of(&(shape){.moe = true});
    qs_err err = {0};
    qsi_model_io io;
    char path[512];
    run r;
    path_of(path, sizeof path);
    write_model(&c, path, QSI_F32);
    run_open_part(&r, path, 1);
    qsi_model_io_stats(r.m, &io, false);
    assert_true(io.on && io.slots > 0 && io.slots < io.experts);
    assert_int_equal(io.experts, 3 * 8);
    double rate = 0; /* measuring it waits until the slots are filled */
    if (qsi_model_disk_rate(r.m, 3 << 22, &rate, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, true);
    uint64_t expert = 3 * 256 * 256 * sizeof(float); /* layers' beginnings: with what is resident */
    assert_true(io.read_bytes >= (uint64_t)io.slots * expert);
    if (feed(&r, 0, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, true);
    assert_int_equal(io.uses, 3 * 2);
    assert_int_equal(io.fixed_hits, 3 * 2);
    assert_true(io.hits < io.uses && io.guesses == 0);
    assert_true(io.read_bytes >= (uint64_t)(io.uses - io.hits) * expert);
    if (feed(&r, 0, 1, true, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, false);
    assert_int_equal(io.uses, 3 * 2);
    assert_int_equal(io.hits, 3 * 2); /* the same row uses the same experts */
    assert_int_equal(io.steps, 1);
    assert_int_equal(io.read_bytes, io.stream_bytes);
    run_close(&r);
    unlink(path);
}

/* Many rows at once: experts of the next layers are read ahead, whatever the router says. */
static void test_read_ahead(void **state) {
    (void)state;
    qsi_config c = config_of(&(shape){.moe = true});
    qs_err err = {0};
    qsi_model_io io;
    char path[512];
    run r;
    c.n_expert_used = 7; /* of 8: with 8 rows all but certain */
    path_of(path, sizeof path);
    write_model(&c, path, QSI_F32);
    if (run_open(&r, path, 1, weights(path) * 98 / 100, &err) != QS_OK) fail_msg("%s", err.text);
    if (feed(&r, 0, ROWS, false, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(r.m, &io, true);
    assert_true(io.slots >= 2 * 8 && io.slots < io.experts);
    assert_int_equal(io.uses, 3 * 8);
    /* all but those of the first layer, as certain; some of these, when the slots were filled before */
    assert_true(io.hits >= 2 * 8 && io.guesses == 0);
    run_close(&r);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_read_ahead),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
