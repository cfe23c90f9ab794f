/* The index of names against a plain list, and which names are fit to be shown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "fmt/names.h"

enum { N = 5000 };
static char texts[N][16];

static void finds_what_was_added(void **state) {
    qsi_names t = {0};
    bool had = false;
    assert_int_equal(qsi_names_find(&t, "a"), -1);
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], "blk.%d", i * 3);
        assert_int_equal(qsi_names_add(&t, texts[i], (uint32_t)i, &had), QS_OK);
        assert_false(had);
    }
    for (int i = 0; i < 3 * N; i++) {
        char name[16];
        snprintf(name, sizeof name, "blk.%d", i);
        assert_int_equal(qsi_names_find(&t, name), i % 3 == 0 ? i / 3 : -1);
    }
    assert_int_equal(qsi_names_add(&t, "blk.3", 99, &had), QS_OK);
    assert_true(had);
    assert_int_equal(qsi_names_find(&t, "blk.3"), 1);
    assert_int_equal(qsi_names_find(&t, ""), -1);
    qsi_names_release(&t);
    qsi_names_release(&t);
}

static bool ok(const char *z) { return qsi_name_ok(z, strlen(z)); }

static void names_fit_to_be_shown(void **state) {
    assert_true(ok("blk.0.attn_q.weight"));
    assert_true(ok("词 é"));
    assert_true(ok("\xc2\xa0")); /* U+00A0, just above C1 */
    assert_false(ok(""));
    assert_false(qsi_name_ok("a\0b", 3));
    assert_false(ok("a\x1b[0m"));
    assert_false(ok("\x7f"));
    assert_false(ok("\xc2\x80"));
    assert_false(ok("\xc2\x9f"));
    assert_false(ok("\xc3"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_added),
        cmocka_unit_test(names_fit_to_be_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
