/* Windows, order, batches: every token once an epoch, no document sees another, a cursor is enough. */
#include "train_testing.h"

#include "train/dataset.h"

#define CTX 8

/* 40 documents of 2 to 31 ids; the id at t of the shard is t itself, so that a batch tells where its
 * rows come from. Document 3 is masked but for its last two ids, document 5 wholly. */
static void make_shard(qsi_shard *s) {
    qsi_shard_writer *w = NULL;
    qs_err err = {0};
    int32_t ids[64], mask[64];
    int32_t t = 0;
    assert_int_equal(qsi_shard_writer_open(&w, in_dir("s"), 1, 4096, 1, &err), QS_OK);
    for (int d = 0; d < 40; d++) {
        int n = 2 + d * 7 % 30;
        for (int i = 0; i < n; i++) {
            ids[i] = t++;
            mask[i] = d == 3 ? i >= n - 2 : d != 5;
        }
        assert_int_equal(qsi_shard_put(w, ids, mask, (size_t)n, (uint64_t)d << 58, d % 2, &err),
                         QS_OK);
    }
    assert_int_equal(qsi_shard_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_shard_open(s, in_dir("s"), &err), QS_OK);
}

static void windows_cover(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows w;
    qs_err err = {0};
    static int target_of[4096];
    memset(target_of, 0, sizeof(target_of));
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&w, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    for (size_t i = 0; i < w.n; i++) {
        assert_true(w.v[i].n >= 1 && w.v[i].n <= CTX);
        for (int64_t t = w.v[i].at + 1; t <= w.v[i].at + w.v[i].n; t++) target_of[t]++;
    }
    for (int64_t d = 0; d < s.n_docs; d++)
        for (uint64_t t = s.begin[d]; t < s.begin[d + 1]; t++) {
            /* windows without anything to learn are left out: parts of 3, all of 5 */
            if (d == 3 || d == 5) continue;
            assert_int_equal(target_of[t], t == s.begin[d] ? 0 : 1);
        }
    uint64_t end3 = s.begin[4];
    assert_int_equal(target_of[end3 - 1], 1);
    assert_int_equal(target_of[end3 - 2], 1);
    for (uint64_t t = s.begin[5]; t < s.begin[6]; t++) assert_int_equal(target_of[t], 0);
    qsi_windows_release(&w);
    qsi_shard_close(&s);
}

static void parts(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows all, train, valid;
    qs_err err = {0};
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&all, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    for (int k = 0; k < 2; k++) {
        double share = k == 0 ? 0.25 : 1e-9; /* the lowest hash always goes to validation */
        assert_int_equal(qsi_windows_init(&train, &s, CTX, QSI_PART_TRAIN, share, &err), QS_OK);
        assert_int_equal(qsi_windows_init(&valid, &s, CTX, QSI_PART_VALID, share, &err), QS_OK);
        assert_int_equal(train.n + valid.n, all.n);
        assert_int_equal(train.n_tokens + valid.n_tokens, all.n_tokens);
        assert_true(valid.n > 0);
        if (k == 1) assert_true(valid.v[valid.n - 1].at + valid.v[valid.n - 1].n <
                                (int64_t)s.begin[1]);
        qsi_windows_release(&train);
        qsi_windows_release(&valid);
    }
    qsi_windows_release(&all);
    qsi_shard_close(&s);
}

static void epochs(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows w;
    qsi_dealer d;
    qsi_deal deal = {0};
    qs_err err = {0};
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&w, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    assert_int_equal(qsi_dealer_init(&d, &w, 9, NULL, 0, &err), QS_OK);
    int *seen = qsi_calloc(w.n, sizeof(int));
    int64_t dealt = 0;
    while (dealt < (int64_t)w.n * 3) {
        assert_int_equal(qsi_dealer_next(&d, 40, &deal, &err), QS_OK);
        assert_true(deal.n_tokens <= 40);
        int64_t tokens = 0, targets = 0;
        for (size_t i = 0; i < deal.n && dealt < (int64_t)w.n * 3; i++, dealt++) {
            /* no window a second time before all had their first, and so on */
            assert_int_equal(seen[deal.v[i]], dealt / (int64_t)w.n);
            seen[deal.v[i]]++;
        }
        for (size_t i = 0; i < deal.n; i++) {
            tokens += w.v[deal.v[i]].n;
            targets += w.v[deal.v[i]].n_targets;
        }
        assert_int_equal(tokens, deal.n_tokens);
        assert_int_equal(targets, deal.n_targets);
    }
    qsi_free(seen);
    qsi_free(deal.v);
    qsi_dealer_release(&d);
    qsi_windows_release(&w);
    qsi_shard_close(&s);
}

static void cursor_resumes(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows w;
    qsi_dealer a, b;
    qsi_deal da = {0}, db = {0};
    qs_err err = {0};
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&w, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    assert_int_equal(qsi_dealer_init(&a, &w, 77, NULL, 0, &err), QS_OK);
    for (int step = 0; step < 60; step++) {
        qsi_cursor_pos pos = a.pos;
        assert_int_equal(qsi_dealer_next(&a, 50, &da, &err), QS_OK);
        assert_int_equal(qsi_dealer_init(&b, &w, 77, NULL, 0, &err), QS_OK);
        b.pos = pos; /* a new process knows the cursor only */
        assert_int_equal(qsi_dealer_next(&b, 50, &db, &err), QS_OK);
        assert_int_equal(da.n, db.n);
        assert_memory_equal(da.v, db.v, da.n * sizeof(*da.v));
        assert_int_equal(a.pos.epoch, b.pos.epoch);
        assert_int_equal(a.pos.index, b.pos.index);
        qsi_dealer_release(&b);
    }
    assert_true(a.pos.epoch >= 2);
    qsi_free(da.v);
    qsi_free(db.v);
    qsi_dealer_release(&a);
    qsi_windows_release(&w);
    qsi_shard_close(&s);
}

static void weights(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows w;
    qsi_dealer d;
    qsi_deal deal = {0};
    qs_err err = {0};
    const double x[2] = {2, 0.5};
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&w, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    assert_int_equal(qsi_dealer_init(&d, &w, 9, x, 2, &err), QS_OK);
    int64_t count[2] = {0}, have[2] = {0};
    for (size_t i = 0; i < w.n; i++) have[w.v[i].source]++;
    while (d.pos.epoch < 40) {
        assert_int_equal(qsi_dealer_next(&d, 1, &deal, &err), QS_OK); /* one window a step */
        assert_int_equal(deal.n, 1);
        count[w.v[deal.v[0]].source]++; /* the last of an epoch moves the cursor to the next */
    }
    assert_int_equal(count[0], 80 * have[0]);
    /* half of them, 40 times: within four standard deviations */
    double mean = 20.0 * (double)have[1], sd = sqrt(10.0 * (double)have[1]);
    assert_true(fabs((double)count[1] - mean) < 4 * sd);
    const double none[2] = {0, 0};
    qsi_dealer_release(&d);
    assert_int_equal(qsi_dealer_init(&d, &w, 9, none, 2, &err), QS_E_ARG);
    qsi_free(deal.v);
    qsi_windows_release(&w);
    qsi_shard_close(&s);
}

static void micro_batches(void **state) {
    (void)state;
    qsi_shard s;
    qsi_windows w;
    qsi_micro m;
    qs_err err = {0};
    make_shard(&s);
    assert_int_equal(qsi_windows_init(&w, &s, CTX, QSI_PART_ALL, 0, &err), QS_OK);
    assert_int_equal(qsi_micro_init(&m, 20, &err), QS_OK);
    for (size_t stride = 1; stride < 4; stride++) { /* stride: processes that share a step */
        int64_t rows = 0, targets = 0;
        for (size_t rank = 0; rank < stride; rank++)
            for (size_t next = rank; next < w.n;) {
                qsi_micro_fill(&m, &w, NULL, w.n, stride, &next);
                assert_true(m.n_rows > 0 && m.n_rows <= 20);
                int64_t learned = 0;
                for (int32_t i = 0; i < m.n_rows; i++) {
                    /* rows of one sequence are neighbours in the text, from position 0 on */
                    if (m.pos[i] == 0) assert_true(i == 0 || m.seq[i] == m.seq[i - 1] + 1);
                    else assert_true(m.seq[i] == m.seq[i - 1] && m.pos[i] == m.pos[i - 1] + 1 &&
                                     m.ids[i] == m.ids[i - 1] + 1);
                    if (m.targets[i] >= 0) assert_int_equal(m.targets[i], m.ids[i] + 1);
                    learned += m.targets[i] >= 0;
                }
                assert_int_equal(learned, m.n_targets);
                rows += m.n_rows;
                targets += learned;
            }
        assert_int_equal(rows, w.n_tokens);
        assert_int_equal(targets, w.n_targets);
    }
    qsi_micro_release(&m);
    qsi_windows_release(&w);
    qsi_shard_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_cover), cmocka_unit_test(parts), cmocka_unit_test(epochs),
        cmocka_unit_test(cursor_resumes), cmocka_unit_test(weights),
        cmocka_unit_test(micro_batches)};
    return cmocka_run_group_tests(tests, make_test_dir, drop_test_dir);
}
