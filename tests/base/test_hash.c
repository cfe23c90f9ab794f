/* XXH3: values of the published algorithm (xxhsum -H3), so that stored hashes stay readable. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"

static void known_values(void **state) {
    (void)state;
    assert_true(qsi_hash("", 0) == UINT64_C(0x2D06800538D394C2));
    assert_true(qsi_hash("a", 1) == UINT64_C(0xE6C632B61E964E1F));
    assert_true(qsi_hash("abc", 3) == UINT64_C(0x78AF5F94892F3950));
}

static void seed_and_length_matter(void **state) {
    (void)state;
    const char *text = "床前明月光，疑是地上霜。";
    size_t n = strlen(text);
    assert_true(qsi_hash_seed(text, n, 0) == qsi_hash(text, n));
    assert_true(qsi_hash_seed(text, n, 1) != qsi_hash(text, n));
    for (size_t i = 0; i < n; i++) assert_true(qsi_hash(text, i) != qsi_hash(text, n));
    char copy[80];
    for (size_t off = 0; off < 8; off++) { /* alignment does not */
        memcpy(copy + off, text, n);
        assert_true(qsi_hash(copy + off, n) == qsi_hash(text, n));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(seed_and_length_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
