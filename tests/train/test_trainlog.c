/* log.csv: rows, and what opening does with an old file. */
#include "train_testing.h"

#include "train/trainlog.h"

#define HEADER "step,tokens,loss,val_loss,lr,grad_norm,tok_s\n"

static void opened(const char *old, int64_t step, const char *want, size_t want_rows) {
    qsi_trainlog l;
    qs_err err = {0};
    qsi_str text = {0};
    if (old != NULL) put_file(in_dir("log.csv"), old, strlen(old));
    else unlink(in_dir("log.csv"));
    assert_int_equal(qsi_trainlog_open(&l, in_dir("log.csv"), step, &err), QS_OK);
    assert_int_equal(l.n, want_rows);
    qsi_trainlog_close(&l);
    read_all(in_dir("log.csv"), &text);
    assert_string_equal(text.data, want);
    qsi_str_release(&text);
}

static void old_files(void **state) {
    (void)state;
    opened(NULL, 0, HEADER, 0);
    opened("", 5, HEADER, 0);
    opened(HEADER "1,10,2.5,,0.1,1,100\n2,20,2.4,2.6,0.1,1,100\n", 9,
           HEADER "1,10,2.5,,0.1,1,100\n2,20,2.4,2.6,0.1,1,100\n", 2);
    /* rows after the checkpoint, a half-written last row, doubles, and junk go */
    opened(HEADER "1,10,2.5,,0.1,1,100\n2,20,2.4,,0.1,1,100\n3,30,2.3,,0.1,1,100\n", 2,
           HEADER "1,10,2.5,,0.1,1,100\n2,20,2.4,,0.1,1,100\n", 2);
    opened(HEADER "1,10,2.5,,0.1,1,100\n2,20,2.4,,0.", 9, HEADER "1,10,2.5,,0.1,1,100\n", 1);
    opened(HEADER "1,10,2.5,,0.1,1,100\n1,10,2.5,,0.1,1,100\nhello\n2,x,2,,1,1,1\n", 9,
           HEADER "1,10,2.5,,0.1,1,100\n", 1);
}

static void adding(void **state) {
    (void)state;
    qsi_trainlog l;
    qs_err err = {0};
    qsi_str text = {0};
    unlink(in_dir("log.csv"));
    assert_int_equal(qsi_trainlog_open(&l, in_dir("log.csv"), 0, &err), QS_OK);
    for (int64_t s = 1; s <= 3; s++) {
        const qsi_log_row r = {.step = s, .tokens = s * 2000, .loss = 7.25 / (double)s,
                               .val_loss = s == 2 ? 6.5 : NAN, .lr = 1e-3, .grad_norm = 0.5,
                               .tok_s = 1234.56};
        assert_int_equal(qsi_trainlog_add(&l, &r, &err), QS_OK);
        read_all(in_dir("log.csv"), &text); /* there at once */
        qsi_log_row back;
        const char *last = text.data + text.len - 1;
        while (last > text.data && last[-1] != '\n') last--;
        assert_true(qsi_trainlog_parse(last, (size_t)(text.data + text.len - 1 - last), &back));
        assert_int_equal(back.step, s);
        assert_int_equal(back.tokens, s * 2000);
        assert_true(fabs(back.loss - r.loss) < 1e-6 && back.lr == 1e-3);
        assert_int_equal(isnan(back.val_loss), s != 2);
    }
    qsi_trainlog_close(&l);
    qsi_str_release(&text);
}

static void lines(void **state) {
    (void)state;
    qsi_log_row r;
    static const char *const bad[] = {"", "1", "1,2,3", "1,2,3,,4,5", "1,2,3,,4,5,6,7", "a,2,3,,4,5,6",
                                      "1.5,2,3,,4,5,6", "0,2,3,,4,5,6", "1,2,,,4,5,6", "1,2,3,,4,5,6 "};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(qsi_trainlog_parse(bad[i], strlen(bad[i]), &r));
    assert_true(qsi_trainlog_parse("1,2,3,,4,5,6", 12, &r));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(old_files), cmocka_unit_test(adding),
                                       cmocka_unit_test(lines)};
    return cmocka_run_group_tests(tests, make_test_dir, drop_test_dir);
}
