/* Digests against published values: SHA-256 of FIPS 180-2, git's id of an empty blob. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hub/digest.h"

static int stop(void *user, uint64_t bytes) { return 1; }

static void known_values(void **state) {
    static const struct { const char *text; qsi_digest_kind kind; const char *hex; } cases[] = {
        {"abc", QSI_SHA256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"", QSI_SHA256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"", QSI_GIT_BLOB, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
        {"hello\n", QSI_GIT_BLOB, "ce013625030ba8dba906f756967f9e9ca394464a"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char hex[QSI_DIGEST_HEX];
        qs_err err = {0};
        FILE *f = tmpfile();
        size_t n = strlen(cases[i].text);
        assert_non_null(f);
        assert_int_equal(fwrite(cases[i].text, 1, n, f), n);
        assert_int_equal(fflush(f), 0);
        assert_int_equal(qsi_digest_fd(fileno(f), n, cases[i].kind, hex, NULL, NULL, &err), QS_OK);
        assert_string_equal(hex, cases[i].hex);
        assert_int_equal(qsi_digest_fd(fileno(f), n + 1, cases[i].kind, hex, NULL, NULL, &err),
                         QS_E_CORRUPT);
        if (n > 0)
            assert_int_equal(qsi_digest_fd(fileno(f), n, cases[i].kind, hex, stop, NULL, &err),
                             QS_E_CANCELLED);
        fclose(f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
