/* NFC against the reference (tools/golden_tok.py), and time on long runs of marks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tok/nfc.h"
#include "tok_golden.h"

static const char *golden_path;

static void equals(const char *text, size_t n, const char *want, size_t n_want) {
    qsi_str out = {0};
    bool same = false;
    assert_int_equal(qsi_nfc(text, n, &out, &same), QS_OK);
    if (same) {
        assert_int_equal(out.len, 0);
        assert_int_equal(n, n_want);
        assert_memory_equal(text, want, n);
    } else {
        assert_int_equal(out.len, n_want);
        assert_memory_equal(out.data, want, n_want);
    }
    qsi_str_release(&out);
}

static void equals_the_reference(void **state) {
    size_t size, cases = 0;
    char *file = tok_read_file(golden_path, &size), *at = file, *text;
    while ((text = tok_field(&at)) != NULL) {
        char *want = tok_field(&at);
        size_t n = tok_unhex(text), n_want = tok_unhex(want);
        equals(text, n, want, n_want);
        equals(want, n_want, want, n_want); /* twice is once */
        cases++;
    }
    assert_int_equal(cases, 500);
    free(file);
}

static void leaves_quiet_text_alone(void **state) {
    static const char text[] = "caf\xc3\xa9 \xe6\xb1\x82\xe7\xb4\xa2 \xea\xb0\x80 \xf0\x9f\x98\x80\n";
    qsi_str out = {0};
    bool same = false;
    assert_int_equal(qsi_nfc(text, sizeof text - 1, &out, &same), QS_OK);
    assert_true(same && out.data == NULL);
    assert_int_equal(qsi_nfc("", 0, &out, &same), QS_OK);
    assert_true(same);
    equals("e\xcc\x81", 3, "\xc3\xa9", 2);
    equals("\xcc\x81", 2, "\xcc\x81", 2);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Eight times the text in at most sixteen times the time; quadratic would be 64. */
static void takes_linear_time(void **state) {
    enum { SMALL = 40000, LARGE = 8 * SMALL };
    char *text = malloc(LARGE);
    assert_non_null(text);
    for (size_t i = 0; i + 3 < LARGE; i += 4) memcpy(text + i, "\xcc\x81\xcc\xa3", 4); /* 230, 220 */
    double t[3];
    for (int i = 0; i < 3; i++) {
        qsi_str out = {0};
        bool same;
        t[i] = seconds();
        if (i < 2) assert_int_equal(qsi_nfc(text, i ? LARGE : SMALL, &out, &same), QS_OK);
        if (i < 2) assert_memory_equal(out.data, "\xcc\xa3\xcc\xa3", 4);
        qsi_str_release(&out);
    }
    assert_true(t[2] - t[1] < 16 * (t[1] - t[0]) + 0.02);
    free(text);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(leaves_quiet_text_alone),
        cmocka_unit_test(takes_linear_time),
    };
    if (argc != 2) return 2;
    golden_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
