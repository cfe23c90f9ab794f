/* The page as the server gets it: sizes, forms and headers of the embedded bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "serve/page.h"

static void test_plain(void **state)
{
    static const char head[] = "<!doctype html>", tail[] = "</html>\n";
    assert_true(qsi_page_bytes > 10000);
    assert_memory_equal(qsi_page, head, sizeof head - 1);
    assert_memory_equal(qsi_page + qsi_page_bytes - (sizeof tail - 1), tail, sizeof tail);
}

/* The gzip trailer holds the length of what was packed. */
static void test_gzip(void **state)
{
    const unsigned char *end = qsi_page_gzip + qsi_page_gzip_bytes;
    assert_true(qsi_page_gzip_bytes > 1000 && qsi_page_gzip_bytes < qsi_page_bytes);
    assert_int_equal(qsi_page_gzip[0], 0x1f);
    assert_int_equal(qsi_page_gzip[1], 0x8b);
    uint32_t n = 0;
    for (int i = 1; i <= 4; i++)
        n = n << 8 | end[-i];
    assert_int_equal(n, qsi_page_bytes);
    assert_int_equal(*end, 0);
}

static void test_headers(void **state)
{
    assert_non_null(strstr(qsi_page_policy, "default-src 'none'; script-src 'sha256-"));
    assert_non_null(strstr(qsi_page_policy, "frame-ancestors 'none'"));
    assert_null(strstr(qsi_page_policy, "unsafe"));
    assert_null(strpbrk(qsi_page_policy, "\r\n"));
    assert_int_equal(strlen(qsi_page_etag), 18);
    assert_int_equal(qsi_page_etag[0], '"');
    assert_int_equal(qsi_page_etag[17], '"');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
