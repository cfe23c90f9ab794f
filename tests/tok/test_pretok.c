/* Pre-tokenizers against the reference (tools/golden_tok.py), and time on hard texts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tok/vocab.h"
#include "tok_golden.h"

static char **golden_paths; /* NULL at the end */

typedef struct pieces {
    const char *next; /* where the next piece must start */
    size_t len[4096], n;
} pieces;

static qs_status collect(void *user, const char *p, size_t n) {
    pieces *got = user;
    assert_ptr_equal(p, got->next);
    got->next = p + n;
    if (got->n < QSI_COUNT(got->len)) got->len[got->n] = n;
    got->n++;
    return QS_OK;
}

static size_t check_file(const char *path) {
    size_t size, cases = 0;
    char *file = tok_read_file(path, &size), *at = file, *pre;
    while ((pre = tok_field(&at)) != NULL) {
        char *text = tok_field(&at), *lens = tok_field(&at);
        size_t n = tok_unhex(text), i = 0;
        pieces got = {.next = text};
        qs_err err;
        assert_int_equal(qsi_pretok(pre, text, n, collect, &got, &err), QS_OK);
        assert_ptr_equal(got.next, text + n);
        for (char *end; *lens != '\0'; lens = *end == ',' ? end + 1 : end, i++) {
            assert_true(i < got.n);
            assert_int_equal(got.len[i], strtoul(lens, &end, 10));
        }
        assert_int_equal(i, got.n);
        cases++;
    }
    free(file);
    return cases;
}

static void equals_the_reference(void **state) {
    size_t cases = 0;
    for (char **path = golden_paths; *path != NULL; path++) cases += check_file(*path);
    assert_int_equal(cases, 2500);
}

/* What the distilled Qwen models are split by is Qwen's own; the first files of Llama 3 say llama3. */
static void some_have_two_names(void **state) {
    static const char text[] = "It'S  1234 \xe4\xbd\xa0 !?\r\n \n x";
    static const char *const names[][2] = {{"qwen2", "deepseek-r1-qwen"}, {"llama-bpe", "llama3"}};
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        pieces a = {.next = text}, b = {.next = text};
        assert_int_equal(qsi_pretok(names[i][0], text, sizeof text - 1, collect, &a, NULL), QS_OK);
        assert_int_equal(qsi_pretok(names[i][1], text, sizeof text - 1, collect, &b, NULL), QS_OK);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.len, b.len, a.n * sizeof a.len[0]);
        assert_int_equal(qsi_pretok_whole(names[i][0]), qsi_pretok_whole(names[i][1]));
    }
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds for the first n bytes of a text. */
static double time_of(const char *pre, const char *text, size_t n) {
    double t = seconds();
    pieces got = {.next = text};
    assert_int_equal(qsi_pretok(pre, text, n, collect, &got, NULL), QS_OK);
    return seconds() - t;
}

/* Texts on which a backtracking engine needs quadratic time: twice the text must not take much more
 * than twice the time. 16 leaves room for noise; quadratic growth would be 64 for a text 8 times as
 * long. A text that looked slow is timed again: other programs may have had the caches. */
static void takes_linear_time(void **state) {
    static const char *const units[] = {" ", "\xe3\x80\x80", "a", "\xe6\x98\xa5", "1", "\n ", "\r",
                                        " !", "\xcc\x81", "\x01", ". ", "'l", "\n"};
    static const char *const pres[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3", "llama-bpe",
                                       "qwen2"};
    enum { SMALL = 40000, LARGE = 8 * SMALL };
    char *text = malloc(LARGE + 8);
    assert_non_null(text);
    for (size_t u = 0; u < QSI_COUNT(units); u++) {
        size_t k = strlen(units[u]);
        for (size_t i = 0; i + k <= LARGE; i += k) memcpy(text + i, units[u], k);
        for (size_t p = 0; p < QSI_COUNT(pres); p++) {
            bool linear = false;
            for (int i = 0; i < 3 && !linear; i++) {
                double small = time_of(pres[p], text, SMALL / k * k);
                linear = time_of(pres[p], text, LARGE / k * k) < 16 * small + 0.02;
            }
            assert_true(linear);
        }
    }
    free(text);
}

static void names_the_bad_byte(void **state) {
    pieces got = {.next = NULL};
    qs_err err;
    const char text[] = "ab\ncd\xff";
    got.next = text;
    assert_int_equal(qsi_pretok("deepseek-llm", text, 6, collect, &got, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 5);
    assert_int_equal(qsi_pretok("gpt-2", text, 6, collect, &got, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "deepseek-coder"));
}

static qs_status stop(void *user, const char *p, size_t n) {
    return QS_E_CANCELLED;
}

static void forwards_the_callers_error(void **state) {
    assert_int_equal(qsi_pretok("deepseek-v3", "a b", 3, stop, NULL, NULL), QS_E_CANCELLED);
    assert_int_equal(qsi_pretok("deepseek-v3", "", 0, stop, NULL, NULL), QS_OK);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(some_have_two_names),
        cmocka_unit_test(takes_linear_time),
        cmocka_unit_test(names_the_bad_byte),
        cmocka_unit_test(forwards_the_callers_error),
    };
    if (argc != 4) return 2;
    golden_paths = argv + 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
