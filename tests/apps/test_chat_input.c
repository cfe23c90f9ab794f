/* apps/qiusuo/chat_input: how lines join to one input. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "chat_input.h"

/* Feeds the lines; all must be taken before the input is complete. */
static void check(const char *const *lines, size_t n_lines, const char *want) {
    char buf[256];
    size_t n = 0;
    int state = 0;
    for (size_t i = 0; i < n_lines; i++) {
        state = qsa_input_join(state, lines[i], strlen(lines[i]), buf, sizeof buf, &n);
        assert_true(state >= 0);
        assert_int_equal(state == 0, i + 1 == n_lines);
    }
    assert_int_equal(n, strlen(want));
    assert_string_equal(buf, want);
}
#define CHECK(want, ...)                                                                           \
    check((const char *const[]){ __VA_ARGS__ },                                                    \
          sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *), want)

static void test_lines(void **state) {
    CHECK("hello", "hello\n");
    CHECK("hello", "hello\r\n");
    CHECK("hello", "hello");
    CHECK("", "\n");
    CHECK("你好", "你好\n");
    CHECK("/help", "/help\n");
}

static void test_backslash(void **state) {
    CHECK("one\ntwo", "one\\\n", "two\n");
    CHECK("one\ntwo\nthree", "one\\\n", "two\\\n", "three");
    CHECK("one\n", "one\\\n", "\n");
    CHECK("a\\b", "a\\b\n");
}

static void test_quotes(void **state) {
    CHECK("one\ntwo", "\"\"\"one\n", "two\"\"\"\n");
    CHECK("one\ntwo", "\"\"\"\n", "one\n", "two\n", "\"\"\"\n");
    CHECK("one", "\"\"\"one\"\"\"\n");
    CHECK("one\n\ntwo", "\"\"\"one\n", "\n", "two\n", "\"\"\"\n");
    CHECK("say \"\" and \\\nmore", "\"\"\"say \"\" and \\\n", "more\"\"\"\n");
    CHECK("", "\"\"\"\"\"\"\n");
    CHECK("say \"\"\"", "say \"\"\"\n");
}

static void test_room(void **state) {
    char buf[8];
    size_t n = 0;
    assert_int_equal(qsa_input_join(0, "123456\n", 7, buf, sizeof buf, &n), 0);
    n = 0;
    assert_int_equal(qsa_input_join(0, "1234567\n", 8, buf, sizeof buf, &n), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_backslash),
        cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
