/* Blocks of 32: damage, zeros, errors, any bytes. Equality with the reference: test_types.c. */
#include "codec_testing.h"

static const qsi_type ids[] = {QSI_Q4_0, QSI_Q4_1, QSI_Q5_0, QSI_Q5_1, QSI_Q8_0, QSI_IQ4_NL};

static void damage_stays_visible(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_damage_stays_visible(ids[t]);
}

static void tiny_blocks_become_zero(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_tiny_blocks_become_zero(ids[t]);
}

static void any_bytes_decode(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_takes_any_bytes(ids[t]);
}

/* Half a step, but: a signed format's largest value on the side opposite to the extreme one loses a
 * whole step; the steps of IQ4_NL are up to 24 of 127 apart, its largest on the far side is 113, and
 * the fitted scale may leave the extreme value by as much again. To that the rounding of the stored
 * scale and minimum to binary16, 2^-11 of either. */
static float bound(qsi_type type, const float *x, int j) {
    float lo = x[0], hi = x[0], mag = 0;
    for (int i = 0; i < 32; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
        mag = fmaxf(mag, fabsf(x[i]));
    }
    float round = 2 * mag * 0x1p-11f;
    switch (type) {
    case QSI_Q4_0: return mag / 8 + round;
    case QSI_Q5_0: return mag / 16 + round;
    case QSI_Q8_0: return mag / 127 * 0.5f + round;
    case QSI_Q4_1: return (hi - lo) / 15 * 0.5f + round;
    case QSI_Q5_1: return (hi - lo) / 31 * 0.5f + round;
    default: return mag * 24 / 127 + round;
    }
}

static void errors_are_bounded(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_errors_are_bounded(ids[t], bound);
}

/* Values on the steps of a scale come back as they are. */
static void steps_are_kept(void **state) {
    const qsi_type_info *ti = qsi_type_get(QSI_IQ4_NL);
    float x[32], y[32];
    for (int j = 0; j < 32; j++) x[j] = 0.25f * (float)qsi_iq4_values[(5 * j) % 16];
    codec_round_trip(ti, x, y);
    assert_memory_equal(x, y, sizeof x);
}

/* MXFP4 has an exponent of eight bits: what is too large or too small for a binary16 is kept, damage
 * stays visible, and a value is half a step off at most (steps are 1/8, 1/4 or 1/2 of the block's
 * largest power of two; the largest value is 6/4 of that, what lies beyond loses the rest). */
static void mxfp4_keeps_the_range_of_floats(void **state) {
    const qsi_type_info *ti = qsi_type_get(QSI_MXFP4);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    const float sizes[] = {1, 1e12f, 1.5e38f, 1e-12f, 1e-30f, 3e-38f, 1e-40f, 0};
    uint32_t s = 9;
    float x[32], y[32];
    for (size_t b = 0; b < QSI_COUNT(bad); b++) {
        for (int j = 0; j < 32; j++) x[j] = (float)j - 12;
        x[5 * b] = bad[b];
        codec_round_trip(ti, x, y);
        for (int j = 0; j < 32; j++) assert_false(isfinite(y[j]));
    }
    for (size_t i = 0; i < QSI_COUNT(sizes); i++) {
        for (int round = 0; round < 50; round++) {
            float mag = 0;
            int e = 0;
            for (int j = 0; j < 32; j++) {
                x[j] = codec_number(&s) * sizes[i];
                mag = fmaxf(mag, fabsf(x[j]));
            }
            (void)frexpf(mag, &e);
            float top = fmaxf(ldexpf(1, e - 1), 0x1p-126f);
            codec_round_trip(ti, x, y);
            for (int j = 0; j < 32; j++) {
                float a = fabsf(x[j]) / top;
                float most = a < 0.5f ? 0.0625f : a < 1 ? 0.125f : a <= 1.5f ? 0.25f : a - 1.5f;
                assert_true(fabsf(x[j] - y[j]) <= most * top * 1.0001f);
            }
        }
    }
    for (int j = 0; j < 32; j++) x[j] = 0.125f * (float)qsi_mxfp4_values[(5 * j) % 16];
    codec_round_trip(ti, x, y);
    for (int j = 0; j < 32; j++) assert_true(x[j] == y[j]);
    codec_takes_any_bytes(QSI_MXFP4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_stays_visible),
        cmocka_unit_test(tiny_blocks_become_zero),
        cmocka_unit_test(any_bytes_decode),
        cmocka_unit_test(errors_are_bounded),
        cmocka_unit_test(steps_are_kept),
        cmocka_unit_test(mxfp4_keeps_the_range_of_floats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
