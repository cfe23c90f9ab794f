/* Models that do not fit: with room for a part of their weights they give the same bits as in memory,
 * read what the plan says and nothing else, and failures of the disk end a step with a message. */
#include "from_disk.h"

/* A prompt in two chunks, the first without logits, then single rows. */
static qs_status whole(run *r, qs_err *err) {
    qs_status st = feed(r, 0, ROWS, false, err);
    if (st == QS_OK) st = feed(r, ROWS, PROMPT - ROWS, true, err);
    for (int i = 0; i < STEPS && st == QS_OK; i++) st = feed(r, PROMPT + i, 1, true, err);
    return st;
}

static void check(const shape *s) {
    qsi_config c = config_of(s);
    qs_err err = {0};
    char path[512];
    path_of(path, sizeof path);
    write_model(&c, path, s->type);
    uint64_t all = weights(path);
    size_t n = (size_t)(PROMPT + STEPS) * (size_t)c.n_vocab;
    run want, got;
    int streamed = 0, cached = 0;
    if (run_open(&want, path, 1, 0, &err) != QS_OK) fail_msg("%s", err.text);
    if (whole(&want, &err) != QS_OK) fail_msg("%s", err.text);
    for (int threads = 1; threads <= 2; threads++)
        for (int part = 0; part < 4; part++) {
            /* from little to almost all; buffers of the crew count too */
            static const int percent[] = {40, 50, 60, 95};
            qs_status st = run_open(&got, path, threads, all * (uint64_t)percent[part] / 100, &err);
            if (st == QS_E_LIMIT && part < 2) continue;
            if (st != QS_OK) fail_msg("%s", err.text);
            qsi_model_io io;
            if (whole(&got, &err) != QS_OK) fail_msg("%s", err.text);
            assert_memory_equal(got.z, want.z, n * sizeof *got.z);
            qsi_model_io_stats(got.m, &io, false);
            streamed += io.stream_bytes > 0;
            cached += io.slots > 0;
            if (io.on && io.slots == 0) {
                /* each step reads every streamed weight once, and the next one's are on their way;
                 * whole blocks of 4096 bytes at both ends of a piece */
                assert_true(io.read_bytes >= io.stream_bytes * (uint64_t)io.steps);
                assert_int_equal(io.steps, 2 + STEPS);
                assert_true(io.read_bytes <=
                            (io.resident_bytes + io.stream_bytes * (uint64_t)(io.steps + 1)) * 5 / 4);
            }
            run_close(&got);
        }
    print_message("%s %s: %d runs streamed, %d with a cache of experts\n",
                  qsi_type_get(s->type)->name, s->moe ? "moe" : "dense", streamed, cached);
    run_close(&want);
    unlink(path);
    assert_true(streamed >= 4);
    assert_true(!s->moe || cached >= 4);
}

static void test_dense(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__ /* slow, and the types change nothing for it */
    const qsi_type types[] = {QSI_Q8_0};
#else
    const qsi_type types[] = {QSI_F32, QSI_F16, QSI_BF16, QSI_Q8_0, QSI_Q4_K};
#endif
    for (size_t i = 0; i < QSI_COUNT(types); i++) check(&(shape){.type = types[i]});
}

static void test_moe(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    const qsi_type types[] = {QSI_Q8_0};
#else
    const qsi_type types[] = {QSI_BF16, QSI_Q8_0};
#endif
    for (size_t i = 0; i < QSI_COUNT(types); i++)
        check(&(shape){.moe = true, .type = types[i]});
}

/* A plan alone is the plan of a run, and reads nothing. */
static void test_plan_only(void **state) {
    (void)state;
    char path[512];
    qs_err err = {0};
    path_of(path, sizeof path);
    for (int moe = 0; moe < 2; moe++) {
        run r;
        qsi_model *m = NULL;
        qsi_model_io want, got;
        qsi_config c = config_of(&(shape){.moe = moe});
        write_model(&c, path, QSI_F32);
        uint64_t room = weights(path) * 9 / 10;
        if (run_open(&r, path, 1, room, &err) != QS_OK) fail_msg("%s", err.text);
        qsi_model_opts o = {.pool = r.pool, .isa = qsi_cpu_isa(), .max_rows = ROWS,
                            .weight_room = room, .plan_only = true};
        if (qsi_model_open(&m, r.g, &o, &err) != QS_OK) fail_msg("%s", err.text);
        qsi_model_io_stats(r.m, &want, false);
        qsi_model_io_stats(m, &got, false);
        assert_true(got.on && got.read_bytes == 0);
        assert_true(got.away_bytes > 0 && got.away_bytes == want.away_bytes);
        assert_true(got.stream_bytes == want.stream_bytes && got.resident_bytes == want.resident_bytes);
        assert_true(got.slots == want.slots && got.experts == want.experts);
        double rate = 0;
        /* reads of 4 MiB: a file of less than two says so */
        qs_status rated = qsi_model_disk_rate(m, 1 << 22, &rate, &err);
        if (qsi_gguf_size(r.g) < (size_t)8 << 20) {
            assert_int_equal(rated, QS_E_RANGE);
            assert_non_null(strstr(err.text, "too small to measure"));
        } else {
            assert_int_equal(rated, QS_OK);
            assert_true(rate > 0);
        }
        qsi_model *planned = m, *loaded = r.m;
        r.m = planned;
        assert_int_equal(feed(&r, 0, 1, true, &err), QS_E_STATE);
        r.m = loaded;
        qsi_model_close(&m);
        /* all of it fits */
        o.weight_room = 2 * room;
        if (qsi_model_open(&m, r.g, &o, &err) != QS_OK) fail_msg("%s", err.text);
        qsi_model_io_stats(m, &got, false);
        assert_false(got.on);
        qsi_model_close(&m);
        run_close(&r);
    }
    unlink(path);
}

static void test_too_little(void **state) {
    (void)state;
    char path[512];
    qs_err err = {0};
    run r;
    path_of(path, sizeof path);
    qsi_config c = config_of(&(shape){0});
    write_model(&c, path, QSI_F32);
    assert_int_equal(run_open(&r, path, 1, 1000, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "too little"));
    unlink(path);
}

/* The file is cut short while it is in use. */
static void test_truncated(void **state) {
    (void)state;
    char path[512];
    qs_err err = {0};
    run r;
    path_of(path, sizeof path);
    for (int moe = 0; moe < 2; moe++)
        for (int threads = 1; threads <= 2; threads++) {
            qsi_config c = config_of(&(shape){.moe = moe});
            write_model(&c, path, QSI_F32);
            if (run_open(&r, path, threads, weights(path) * 9 / 10, &err) != QS_OK)
                fail_msg("%s", err.text);
            long size = (long)qsi_gguf_size(r.g);
            assert_int_equal(truncate(path, size * 6 / 10), 0);
            qs_status st = QS_OK;
            for (int i = 0; i < PROMPT + STEPS && st == QS_OK; i++) st = feed(&r, i, 1, false, &err);
            assert_int_equal(st, QS_E_IO);
            assert_non_null(strstr(err.text, "cut short"));
            assert_int_equal(feed(&r, 0, 1, true, &err), QS_E_IO); /* for good */
            run_close(&r);
        }
    unlink(path);
}

#ifdef QS_DEBUG
/* Every read in turn fails, while loading or in a step: an error each time. */
static void test_disk_fails(void **state) {
    (void)state;
    char path[512];
    run r;
    path_of(path, sizeof path);
    for (int moe = 0; moe < 2; moe++) {
        qsi_config c = config_of(&(shape){.moe = moe});
        write_model(&c, path, QSI_Q8_0);
        uint64_t room = weights(path) * 12 / 10;
        for (int at = 1; at < 60; at += 3) {
            qs_err err = {0};
            qsi_direct_fail_after(at);
            qs_status st = run_open(&r, path, 2, room, &err);
            if (st == QS_OK) st = whole(&r, &err);
            qsi_direct_fail_after(-1);
            if (st == QS_OK) break; /* fewer reads than that */
            assert_int_equal(st, QS_E_IO);
            assert_non_null(strstr(err.text, "cannot read"));
            run_close(&r);
            assert_true(at < 58);
        }
        run_close(&r);
    }
    unlink(path);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
        cmocka_unit_test(test_plan_only), cmocka_unit_test(test_too_little),
        cmocka_unit_test(test_truncated),
#ifdef QS_DEBUG
        cmocka_unit_test(test_disk_fails),
#endif
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
