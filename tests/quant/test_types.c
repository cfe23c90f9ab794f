/* The type table; encode and decode against the reference dump (tools/golden_quant.py), and on
 * values no reference defines. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quant/quant.h"

static const char *golden_path, *decode_path;

static uint8_t *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    long size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    uint8_t *p = malloc((size_t)size);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)size, f), (size_t)size);
    fclose(f);
    *n = (size_t)size;
    return p;
}

static uint32_t take_u32(const uint8_t *file, size_t *pos) {
    uint32_t v;
    memcpy(&v, file + *pos, 4);
    *pos += 4;
    return v;
}

static void equals_the_reference(void **state) {
    size_t size = 0, pos = 0;
    uint8_t *file = read_file(golden_path, &size);
    uint32_t n = take_u32(file, &pos);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    uint8_t *enc = malloc(n * sizeof *x);
    assert_true(x && y && enc);
    memcpy(x, file + pos, n * sizeof *x);
    pos += n * sizeof *x;
    int records = 0;
    for (; pos < size; records++) {
        const qsi_type_info *ti = qsi_type_get((int32_t)take_u32(file, &pos));
        uint32_t bytes = take_u32(file, &pos);
        size_t row = 0;
        assert_true(ti && ti->weights && qsi_row_bytes(ti, n, &row));
        assert_int_equal(row, bytes);
        ti->encode(x, enc, n);
        assert_memory_equal(enc, file + pos, bytes);
        ti->decode(file + pos, y, n);
        pos += bytes;
        assert_memory_equal(y, file + pos, n * sizeof *y);
        pos += n * sizeof *y;
    }
    assert_int_equal(records, 9);
    assert_int_equal(pos, size);
    free(file);
    free(x);
    free(y);
    free(enc);
}

/* Blocks of random bytes: the decoded values bit for bit, any NaN for a NaN. */
static void decodes_as_the_reference(void **state) {
    size_t size = 0, pos = 0;
    uint8_t *file = read_file(decode_path, &size);
    int records = 0;
    for (; pos < size; records++) {
        const qsi_type_info *ti = qsi_type_get((int32_t)take_u32(file, &pos));
        uint32_t n = take_u32(file, &pos);
        size_t row = 0;
        assert_true(ti && ti->decode && qsi_row_bytes(ti, n, &row) && row < size - pos);
        float *want = malloc(n * sizeof *want), *y = malloc(n * sizeof *y);
        assert_true(want && y);
        ti->decode(file + pos, y, n);
        memcpy(want, file + pos + row, n * sizeof *want);
        for (uint32_t i = 0; i < n; i++) {
            if (memcmp(&want[i], &y[i], sizeof *y) != 0 && !(isnan(want[i]) && isnan(y[i])))
                fail_msg("%s value %u: %a, not %a", ti->name, i, (double)y[i], (double)want[i]);
        }
        pos += row + n * sizeof *y;
        free(want);
        free(y);
    }
    assert_int_equal(records, 13);
    assert_int_equal(pos, size);
    free(file);
}

static void the_table_is_consistent(void **state) {
    int known = 0;
    for (int32_t id = -2; id < 64; id++) {
        const qsi_type_info *ti = qsi_type_get(id);
        if (!ti) continue;
        known++;
        assert_int_equal(ti->type, id);
        assert_true(ti->block > 0 && ti->bytes > 0);
        assert_ptr_equal(qsi_type_find(ti->name), ti);
        assert_int_equal(ti->weights, ti->decode != NULL);
        assert_int_equal(ti->weights, ti->encode != NULL);
    }
    assert_int_equal(known, 33);
    assert_null(qsi_type_get(4)); /* removed by ggml */
    assert_null(qsi_type_get(INT32_MAX));
    assert_int_equal(qsi_type_find("q8_0")->type, QSI_Q8_0);
    assert_int_equal(qsi_type_find("mxfp4")->bytes, 17);
    assert_null(qsi_type_find("Q8_"));
    assert_null(qsi_type_find("Q8_00"));
    assert_null(qsi_type_find(""));
}

/* Types that are refused say which to take in their place; those that run say nothing. */
static void refused_types_name_another(void **state) {
    static const struct {
        const char *name, *instead;
    } cases[] = {{"IQ1_S", "Q2_K"},   {"IQ1_M", "Q2_K"},  {"IQ2_XXS", "Q2_K"}, {"IQ2_XS", "Q2_K"},
                 {"IQ2_S", "Q2_K"},   {"IQ3_S", "Q3_K"},  {"IQ3_XXS", "Q3_K"}, {"TQ1_0", "Q2_K"},
                 {"TQ2_0", "Q2_K"},   {"IQ4_NL", ""},     {"IQ4_XS", ""},      {"MXFP4", ""},
                 {"Q2_K", ""},        {"Q8_0", ""},       {"F32", ""}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        const qsi_type_info *ti = qsi_type_find(cases[i].name);
        assert_non_null(ti);
        assert_string_equal(qsi_type_instead(ti), cases[i].instead);
        assert_int_equal(ti->weights, cases[i].instead[0] == '\0');
        qs_err err = {0};
        assert_int_equal(qsi_type_runs(ti, "a.weight", &err), ti->weights ? QS_OK : QS_E_UNSUPPORTED);
        assert_true(ti->weights || (strstr(err.text, "a.weight") && strstr(err.text, ti->name) &&
                                    strstr(err.text, cases[i].instead)));
    }
    assert_int_equal(qsi_type_runs(NULL, "a", NULL), QS_E_UNSUPPORTED);
    assert_int_equal(qsi_type_runs(qsi_type_find("Q8_1"), "a", NULL), QS_E_UNSUPPORTED);
}

static void row_bytes_are_checked(void **state) {
    const qsi_type_info *q = qsi_type_get(QSI_Q4_0), *f = qsi_type_get(QSI_F32);
    size_t n = 7;
    assert_true(qsi_row_bytes(q, 64, &n));
    assert_int_equal(n, 36);
    assert_true(qsi_row_bytes(q, 0, &n));
    assert_int_equal(n, 0);
    n = 7;
    assert_false(qsi_row_bytes(q, 33, &n));
    assert_false(qsi_row_bytes(q, -32, &n));
    assert_false(qsi_row_bytes(f, INT64_MAX, &n));
    assert_int_equal(n, 7);
}

/* A NaN or infinity in the plain types (block formats: test_block32.c, test_kquant.c). */
static void damage_stays_visible(void **state) {
    const qsi_type ids[] = {QSI_F32, QSI_F16, QSI_BF16};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t t = 0; t < QSI_COUNT(ids); t++) {
        const qsi_type_info *ti = qsi_type_get(ids[t]);
        for (size_t b = 0; b < QSI_COUNT(bad); b++) {
            float y;
            uint8_t enc[4];
            ti->encode(&bad[b], enc, 1);
            ti->decode(enc, &y, 1);
            assert_false(isfinite(y));
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: test_types blocks.bin decode.bin\n");
        return 2;
    }
    golden_path = argv[1];
    decode_path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_reference),
        cmocka_unit_test(decodes_as_the_reference),
        cmocka_unit_test(the_table_is_consistent),
        cmocka_unit_test(refused_types_name_another),
        cmocka_unit_test(row_bytes_are_checked),
        cmocka_unit_test(damage_stays_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
