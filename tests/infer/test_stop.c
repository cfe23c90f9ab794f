/* infer/stop: any cutting of a text into pieces gives the text before the first stop string. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "infer/stop.h"

static void check(const char *text, const char *const *stops, size_t n_stops, size_t piece,
                  const char *want, bool want_hit) {
    qsi_stop s;
    qsi_str out = { 0 };
    assert_int_equal(qsi_stop_init(&s, stops, n_stops, NULL), QS_OK);
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i += piece) {
        size_t take = piece < n - i ? piece : n - i;
        assert_int_equal(qsi_stop_push(&s, text + i, take, &out), QS_OK);
    }
    assert_int_equal(s.hit, want_hit);
    assert_int_equal(qsi_stop_finish(&s, &out), QS_OK);
    assert_int_equal(out.len, strlen(want));
    if (out.len > 0) assert_memory_equal(out.data, want, out.len);
    qsi_str_release(&out);
    qsi_stop_release(&s);
}

static void test_cuts(void **state) {
    static const char *const one[] = { "STOP" };
    static const char *const two[] = { "\n\nUser:", "。\n" };
    static const char *const overlap[] = { "abcd", "bc" };
    for (size_t piece = 1; piece < 12; piece++) {
        check("hello STOP there", one, 1, piece, "hello ", true);
        check("hello STO", one, 1, piece, "hello STO", false);
        check("SSTOSTOP", one, 1, piece, "SSTO", true);
        check("STOPSTOP", one, 1, piece, "", true);
        check("a\n\nUse\n\nUser: x", two, 2, piece, "a\n\nUse", true);
        check("床前明月光。\n疑是", two, 2, piece, "床前明月光", true);
        check("床前明月光。疑是", two, 2, piece, "床前明月光。疑是", false);
        check("xabce", overlap, 2, piece, "xa", true);
        check("", one, 1, piece, "", false);
        check("nothing asked", NULL, 0, piece, "nothing asked", false);
    }
}

/* Nothing that comes out before the end is taken back, and nothing is held without need. */
static void test_held_back(void **state) {
    static const char *const stops[] = { "END" };
    qsi_stop s;
    qsi_str out = { 0 };
    assert_int_equal(qsi_stop_init(&s, stops, 1, NULL), QS_OK);
    assert_int_equal(qsi_stop_push(&s, "abcE", 4, &out), QS_OK);
    assert_string_equal(out.data, "abc");
    assert_int_equal(qsi_stop_push(&s, "N", 1, &out), QS_OK);
    assert_string_equal(out.data, "abc");
    assert_int_equal(qsi_stop_push(&s, "x", 1, &out), QS_OK);
    assert_string_equal(out.data, "abcENx");
    qsi_str_release(&out);
    qsi_stop_release(&s);
}

/* Random texts over a small alphabet against a search in the whole text. */
static void test_random(void **state) {
    static const char *const stops[] = { "aab", "ba", "cccc", "abab" };
    qsi_rng rng;
    qsi_rng_init(&rng, 7);
    for (int round = 0; round < 2000; round++) {
        char text[33];
        size_t n = 1 + (size_t)qsi_rng_below(&rng, 32), first = 0;
        for (size_t i = 0; i < n; i++) text[i] = (char)('a' + qsi_rng_below(&rng, 3));
        text[n] = 0;
        /* the stop string that is complete first decides; then the earliest beginning */
        size_t end = n + 1;
        for (size_t e = 1; e <= n && end > n; e++)
            for (size_t i = 0; i < 4; i++) {
                size_t len = strlen(stops[i]);
                if (len > e || memcmp(text + e - len, stops[i], len) != 0) continue;
                if (end > n || e - len < first) first = e - len;
                end = e;
            }
        char want[33];
        size_t keep = end > n ? n : first;
        memcpy(want, text, keep);
        want[keep] = 0;
        check(text, stops, 4, 1, want, end <= n);
    }
}

static void test_empty_stop(void **state) {
    static const char *const stops[] = { "a", "" };
    qsi_stop s;
    qs_err err;
    assert_int_equal(qsi_stop_init(&s, stops, 2, &err), QS_E_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_held_back),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_empty_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
