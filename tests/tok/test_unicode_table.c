/* The generated table: sizes of its classes as the reference counts them (Unicode 16 in its regex
 * engine), and its edges. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/status.h"
#include "tok/unicode_table.h"

static void classes_have_the_references_size(void **state) {
    static const struct {
        unsigned cls;
        int n;
    } want[] = {
        {QSI_UC_L, 141028},      {QSI_UC_M, 2501},       {QSI_UC_N, 1911},
        {QSI_UC_P, 855},         {QSI_UC_S, 8514},       {QSI_UC_SPACE, 25},
        {QSI_UC_DIGIT, 1924},    {QSI_UC_NEWLINE, 2},    {QSI_UC_ALPHA, 52},
        {QSI_UC_APUNCT, 32},     {QSI_UC_BLANK, 1},      {QSI_UC_LLM_PUNCT, 15 + 69 + 15 + 69 + 11},
        {QSI_UC_LLM_CJK, (0x9fa6 - 0x800) + (0xd800 - 0xac00)},
        {QSI_UC_V3_CJK, (0x9fa6 - 0x4e00) + 96 + 96},
    };
    for (size_t i = 0; i < QSI_COUNT(want); i++) {
        int n = 0;
        for (uint32_t c = 0; c <= 0x10ffff; c++) n += (qsi_uc_flags(c) & want[i].cls) != 0;
        assert_int_equal(n, want[i].n);
    }
}

static void edges_are_where_they_belong(void **state) {
    assert_true(qsi_uc_flags(0x9fa5) & QSI_UC_LLM_CJK);
    assert_false(qsi_uc_flags(0x9fa6) & QSI_UC_LLM_CJK);
    assert_true(qsi_uc_flags(0x800) & QSI_UC_LLM_CJK);
    assert_false(qsi_uc_flags(0x7ff) & QSI_UC_LLM_CJK);
    assert_true(qsi_uc_flags(0x3000) & QSI_UC_SPACE && qsi_uc_flags(0x3000) & QSI_UC_LLM_PUNCT);
    assert_true(qsi_uc_flags(0x85) & QSI_UC_SPACE && qsi_uc_flags(0xa0) & QSI_UC_SPACE);
    assert_false(qsi_uc_flags(0x200b) & QSI_UC_SPACE);
    assert_true(qsi_uc_flags('a') & QSI_UC_LLM_PUNCT && qsi_uc_flags('a') & QSI_UC_LLM_LETTER);
    assert_false(qsi_uc_flags('0') & (QSI_UC_LLM_PUNCT | QSI_UC_LLM_LETTER | QSI_UC_L));
    assert_true(qsi_uc_flags('+') & QSI_UC_S && !(qsi_uc_flags('+') & QSI_UC_P));
    assert_true(qsi_uc_flags(0x4e00) & QSI_UC_L);
    assert_int_equal(qsi_uc_flags(0x10ffff), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_have_the_references_size),
        cmocka_unit_test(edges_are_where_they_belong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
