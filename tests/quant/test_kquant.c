/* Blocks of 256: damage, zeros, errors, any bytes, packed scales. Equality of the decoders with the
 * reference: test_types.c. */
#include "codec_testing.h"

static const qsi_type ids[] = {QSI_Q2_K, QSI_Q3_K, QSI_Q4_K, QSI_Q5_K, QSI_Q6_K, QSI_IQ4_XS};

static void damage_stays_visible(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_damage_stays_visible(ids[t]);
}

static void tiny_blocks_become_zero(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_tiny_blocks_become_zero(ids[t]);
}

static void any_bytes_decode(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_takes_any_bytes(ids[t]);
}

/* Signed formats, values of -h .. h - 1 steps and group scales of -s .. s - 1 of the block's factor:
 * the largest value on the far side of the extreme one is a step off, 1/h of it; its group's scale is
 * up to one factor off, 1/s. Formats with a minimum, top steps, scales up to t: half a step of the
 * group; scale and minimum are each half a factor off, of the block's largest span and depth. Then
 * the rounding of two factors to binary16, 2^-11 each, and of sums. */
static float bound(qsi_type type, const float *x, int j) {
    float span = 0, depth = 0, mag = 0, top, t;
    int group = type == QSI_Q2_K ? 16 : 32;
    for (int g = 0; g < 256; g += group) {
        float lo = 0, hi = 0;
        for (int i = g; i < g + group; i++) {
            lo = fminf(lo, x[i]);
            hi = fmaxf(hi, x[i]);
        }
        span = fmaxf(span, hi - lo);
        depth = fmaxf(depth, -lo);
        mag = fmaxf(mag, fmaxf(hi, -lo));
    }
    float round = 3 * (span + depth) * 0x1p-11f;
    switch (type) {
    case QSI_Q3_K: return mag * (1.0f / 4 + 1.0f / 32) + round;
    case QSI_Q6_K: return mag * (1.0f / 32 + 1.0f / 128) + round;
    /* steps are up to 24 of 127 apart; the fitted scale may move the extreme value by as much, and it
     * is up to a 32nd of the block's largest off */
    case QSI_IQ4_XS: return mag * (24.0f / 127 + 1.0f / 32) + round;
    case QSI_Q2_K: top = 3, t = 15; break;
    case QSI_Q4_K: top = 15, t = 63; break;
    default: top = 31, t = 63; break;
    }
    return 0.5f * span / top * (1 + 1 / t) + 0.5f * span / t + 0.5f * depth / t + round;
}

static void errors_are_bounded(void **state) {
    for (size_t t = 0; t < QSI_COUNT(ids); t++) codec_errors_are_bounded(ids[t], bound);
}

/* Twelve bytes hold sixteen numbers of six bits: each number has its bits alone. */
static void packed_scales_hold_every_bit(void **state) {
    for (int bit = 0; bit < 96; bit++) {
        uint8_t s[12] = {0}, sc[8], mn[8];
        int8_t signed_scales[16];
        int set = 0, set3 = 0;
        s[bit / 8] = (uint8_t)(1 << bit % 8);
        qsi_q4k_scales(s, sc, mn);
        qsi_q3k_scales(s, signed_scales);
        for (int j = 0; j < 8; j++) {
            for (int b = 0; b < 8; b++) set += (sc[j] >> b & 1) + (mn[j] >> b & 1);
        }
        for (int j = 0; j < 16; j++) {
            for (int b = 0; b < 8; b++) set3 += (signed_scales[j] + 32) >> b & 1;
        }
        assert_int_equal(set, 1);
        assert_int_equal(set3, 1);
    }
}

/* Groups of different size in one block: each keeps a scale of its own. The quiet ones (0.1 of the
 * loud ones' 1) are off by half a step of their own scale (a whole one in signed formats), and by half
 * a factor of the block in scale and minimum. */
static void groups_have_their_own_scale(void **state) {
    static const float limit[] = {
        0.5f * 0.2f / 3 + 0.5f * 2 / 15 + 0.5f / 15, /* Q2_K */
        0.1f / 4 + 0.5f / 32,                        /* Q3_K */
        0.5f * 0.2f / 15 + 0.5f * 2 / 63 + 0.5f / 63, /* Q4_K */
        0.5f * 0.2f / 31 + 0.5f * 2 / 63 + 0.5f / 63, /* Q5_K */
        0.1f / 32 + 0.5f / 128,                      /* Q6_K */
        0.1f * 24 / 127 + 0.5f / 32,                 /* IQ4_XS */
    };
    for (size_t t = 0; t < QSI_COUNT(ids); t++) {
        float x[256], y[256];
        uint32_t s = 5;
        for (int j = 0; j < 256; j++) x[j] = codec_number(&s) * (j / 32 % 2 ? 1 : 0.1f);
        codec_round_trip(qsi_type_get((int32_t)ids[t]), x, y);
        for (int j = 0; j < 256; j++)
            if (j / 32 % 2 == 0) assert_true(fabsf(x[j] - y[j]) < limit[t] * 1.01f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_stays_visible),
        cmocka_unit_test(tiny_blocks_become_zero),
        cmocka_unit_test(any_bytes_decode),
        cmocka_unit_test(errors_are_bounded),
        cmocka_unit_test(packed_scales_hold_every_bit),
        cmocka_unit_test(groups_have_their_own_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
