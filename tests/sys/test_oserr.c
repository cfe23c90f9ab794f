/* errno -> status and sentence. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "sys/oserr.h"

static void codes_and_texts(void **state) {
    (void)state;
    qs_err err;
    assert_int_equal(qsi_err_errno(&err, ENOENT, "cannot open '%s'", "x"), QS_E_NOTFOUND);
    assert_string_equal(err.text, "cannot open 'x': No such file or directory");
    assert_int_equal(qsi_err_errno(&err, ENOMEM, "x"), QS_E_NOMEM);
    assert_int_equal(qsi_err_errno(&err, EACCES, "x"), QS_E_IO);
    assert_int_equal(qsi_err_errno(&err, ENOSPC, "cannot write '%s'", "y"), QS_E_IO);
    assert_non_null(strstr(err.text, "No space left"));
    assert_non_null(strstr(err.text, "free some space"));
    assert_int_equal(qsi_err_errno(NULL, EIO, "x"), QS_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_and_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
