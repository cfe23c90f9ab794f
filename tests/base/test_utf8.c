/* UTF-8 against the definition, for every code point and every class of malformed sequence. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/str.h"

static int is_scalar(uint32_t cp) { return cp <= 0x10FFFF && (cp < 0xD800 || cp > 0xDFFF); }

/* The definition, written from Unicode's bit table and not from the code under test. */
static int encode_by_table(uint32_t cp, uint8_t out[4]) {
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xC0 + cp / 64);
        out[1] = (uint8_t)(0x80 + cp % 64);
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xE0 + cp / 4096);
        out[1] = (uint8_t)(0x80 + cp / 64 % 64);
        out[2] = (uint8_t)(0x80 + cp % 64);
        return 3;
    }
    out[0] = (uint8_t)(0xF0 + cp / 262144);
    out[1] = (uint8_t)(0x80 + cp / 4096 % 64);
    out[2] = (uint8_t)(0x80 + cp / 64 % 64);
    out[3] = (uint8_t)(0x80 + cp % 64);
    return 4;
}

static void every_code_point(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x1FFFFF; cp++) {
        uint8_t want[4];
        int n = encode_by_table(cp, want), len = 0;
        uint32_t got = qsi_utf8_decode((const char *)want, (size_t)n, &len);
        if (!is_scalar(cp)) {
            if (got != QSI_UTF8_BAD || len != 1) fail_msg("%06X decoded as %06X", cp, got);
            continue;
        }
        if (got != cp || len != n) fail_msg("%06X decoded as %06X, length %d", cp, got, len);
        char out[4];
        if (qsi_utf8_encode(cp, out) != n || memcmp(out, want, (size_t)n) != 0) {
            fail_msg("%06X encoded wrongly", cp);
        }
        for (int cut = 1; cut < n; cut++) {
            got = qsi_utf8_decode((const char *)want, (size_t)cut, &len);
            if (got != QSI_UTF8_BAD || len != 1) fail_msg("%06X cut at %d decoded", cp, cut);
            if (qsi_utf8_whole((const char *)want, (size_t)cut) != 0) {
                fail_msg("%06X cut at %d counts as whole", cp, cut);
            }
        }
        if (qsi_utf8_whole((const char *)want, (size_t)n) != (size_t)n) fail_msg("%06X open", cp);
    }
}

/* Every sequence of one, two or three bytes: valid exactly when it is made of encodings. */
static void every_short_sequence(void **state) {
    (void)state;
    static uint8_t good2[65536 / 8], good3[(1 << 24) / 8];
    for (uint32_t cp = 0x80; cp < 0x10000; cp++) {
        uint8_t b[4];
        int n = encode_by_table(cp, b);
        uint32_t key = n == 2 ? b[0] * 256u + b[1] : (b[0] * 256u + b[1]) * 256u + b[2];
        if (is_scalar(cp)) (n == 2 ? good2 : good3)[key / 8] |= (uint8_t)(1 << key % 8);
    }
    for (uint32_t key = 0; key < 1u << 24; key++) {
        uint8_t b[3] = {(uint8_t)(key >> 16), (uint8_t)(key >> 8), (uint8_t)key};
        int a0 = b[0] < 0x80, a1 = b[1] < 0x80, a2 = b[2] < 0x80;
        uint32_t k01 = key >> 8, k12 = key & 0xFFFF;
        int two01 = good2[k01 / 8] >> k01 % 8 & 1, two12 = good2[k12 / 8] >> k12 % 8 & 1;
        int want = (good3[key / 8] >> key % 8 & 1) || (a0 && two12) || (two01 && a2) ||
                   (a0 && a1 && a2);
        if (qsi_utf8_valid((const char *)b, 3, NULL) != want) fail_msg("%06X", key);
    }
}

static void malformed_classes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n, bad;
    } cases[] = {
        {"\x80", 1, 0},                     /* lone continuation */
        {"ab\xBFz", 4, 2},                  /* lone continuation inside */
        {"\xC0\x80", 2, 0},                 /* overlong NUL */
        {"\xC1\xBF", 2, 0},                 /* overlong 7F */
        {"\xE0\x9F\xBF", 3, 0},             /* overlong 7FF */
        {"\xF0\x8F\xBF\xBF", 4, 0},         /* overlong FFFF */
        {"\xED\xA0\x80", 3, 0},             /* first surrogate */
        {"\xED\xBF\xBF", 3, 0},             /* last surrogate */
        {"\xF4\x90\x80\x80", 4, 0},         /* 110000 */
        {"\xF5\x80\x80\x80", 4, 0},         /* lead byte that cannot be */
        {"\xFE", 1, 0},                     /* lead byte that cannot be */
        {"\xFF", 1, 0},                     /* lead byte that cannot be */
        {"\xE4\xBD", 2, 0},                 /* cut short at the end */
        {"\xE4\xBD\x61", 3, 0},             /* cut short by ASCII */
        {"12345678\xE4\xBD\xA0\xE5\xA5", 13, 11}, /* after eight ASCII bytes at once */
        {"\xE4\xBD\xE4\xBD\xA0", 5, 0},     /* cut short by another character */
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        size_t bad = 99;
        assert_false(qsi_utf8_valid(cases[i].text, cases[i].n, &bad));
        assert_int_equal(bad, cases[i].bad);
    }
    size_t bad = 99;
    assert_true(qsi_utf8_valid("", 0, &bad));
    assert_true(qsi_utf8_valid("床前明月光, fine ", strlen("床前明月光, fine "), &bad));
    assert_int_equal(bad, 99);
}

static void whole_of_a_stream(void **state) {
    (void)state;
    const char *text = "a你😀é";
    size_t n = strlen(text), whole[11] = {0, 1, 1, 1, 4, 4, 4, 4, 8, 8, 10};
    assert_int_equal(n, 10);
    for (size_t i = 0; i <= n; i++) assert_int_equal(qsi_utf8_whole(text, i), whole[i]);
    /* Invalid bytes are never waited for. */
    assert_int_equal(qsi_utf8_whole("\xFF", 1), 1);
    assert_int_equal(qsi_utf8_whole("\x80\x80\x80\x80", 4), 4);
    assert_int_equal(qsi_utf8_whole("\xE0\x80", 2), 2);
    assert_int_equal(qsi_utf8_whole("\xED\xA0", 2), 2);
    assert_int_equal(qsi_utf8_whole("\xF4\x90", 2), 2);
    assert_int_equal(qsi_utf8_whole("x\xF0\x9F", 3), 1);
    assert_int_equal(qsi_utf8_whole("\xF0\x9F\xFF", 3), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point),
        cmocka_unit_test(every_short_sequence),
        cmocka_unit_test(malformed_classes),
        cmocka_unit_test(whole_of_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
