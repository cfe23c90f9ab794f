/* Strings: growing, formatting, JSON literals, failures. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static void building(void **state) {
    (void)state;
    qsi_str s = {0};
    qsi_str_clear(&s);
    assert_null(s.data);
    assert_int_equal(qsi_str_puts(&s, "春眠"), QS_OK);
    assert_int_equal(qsi_str_putc(&s, '!'), QS_OK);
    assert_int_equal(qsi_str_append(&s, "a\0b", 3), QS_OK);
    assert_int_equal(qsi_str_append(&s, NULL, 0), QS_OK);
    assert_int_equal(s.len, 10);
    assert_memory_equal(s.data, "春眠!a\0b", 11); /* NUL after the end */
    qsi_str_clear(&s);
    assert_string_equal(s.data, "");
    for (int i = 0; i < 5000; i++) assert_int_equal(qsi_str_printf(&s, "%d,", i % 10), QS_OK);
    assert_int_equal(s.len, 10000);
    assert_memory_equal(s.data + 9994, "7,8,9,", 7);
    qsi_str_release(&s);
    assert_null(s.data);
    assert_int_equal(s.cap, 0);
    qsi_str_release(&s);
}

static void json_is(const char *text, size_t n, const char *want) {
    qsi_str s = {0};
    assert_int_equal(qsi_str_json(&s, text, n), QS_OK);
    assert_string_equal(s.data, want);
    qsi_str_release(&s);
}

static void json(void **state) {
    (void)state;
    json_is("", 0, "\"\"");
    json_is("诗 \"x\" \\ /", strlen("诗 \"x\" \\ /"), "\"诗 \\\"x\\\" \\\\ /\"");
    json_is("\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\"");
    json_is("a\0b\x1f\x7f", 5, "\"a\\u0000b\\u001f\\u007f\"");
    json_is("😀", 4, "\"😀\"");
}

static void ends(void **state) {
    (void)state;
    assert_true(qsi_ends_with("a.gguf", ".gguf") && qsi_ends_with(".gguf", ".gguf"));
    assert_true(qsi_ends_with("诗.txt", ".txt") && qsi_ends_with("x", "") && qsi_ends_with("", ""));
    assert_false(qsi_ends_with("gguf", ".gguf") || qsi_ends_with("a.gguf.part", ".gguf"));
    assert_false(qsi_ends_with("", "x") || qsi_ends_with("a.GGUF", ".gguf"));
}

static void sizes_that_overflow(void **state) {
    (void)state;
    qsi_str s = {0};
    assert_int_equal(qsi_str_puts(&s, "abc"), QS_OK);
    assert_int_equal(qsi_str_append(&s, "x", SIZE_MAX - 1), QS_E_NOMEM);
    assert_string_equal(s.data, "abc");
    assert_int_equal(s.len, 3);
    qsi_str_release(&s);
}

static void size_text(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } known[] = {{0, "0 bytes"},         {999, "999 bytes"},        {1000, "1.0 kB"},
                 {999949, "999.9 kB"},   {999950, "1.0 MB"},        {7436704, "7.4 MB"},
                 {1340000000, "1.3 GB"}, {UINT64_MAX, "18.4 EB"}};
    char buf[QSI_SIZE_TEXT];
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        assert_string_equal(qsi_size_text(buf, known[i].bytes), known[i].text);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    for (int n = 1;; n++) {
        qsi_str s = {0};
        qs_status st = QS_OK;
        qsi_mem_fail_after(n);
        for (int i = 0; i < 300 && st == QS_OK; i++) {
            st = qsi_str_puts(&s, "abcdef");
            if (st == QS_OK) st = qsi_str_json(&s, "\"\n", 2);
            if (st == QS_OK) st = qsi_str_printf(&s, "%d", i);
            if (s.data != NULL) assert_int_equal(s.data[s.len], 0);
        }
        qsi_mem_fail_after(-1);
        qsi_str_release(&s);
        if (st == QS_OK) {
            assert_true(n > 5);
            return;
        }
        assert_int_equal(st, QS_E_NOMEM);
    }
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(building),
        cmocka_unit_test(json),
        cmocka_unit_test(ends),
        cmocka_unit_test(sizes_that_overflow),
        cmocka_unit_test(size_text),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
