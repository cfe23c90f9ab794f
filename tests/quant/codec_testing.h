/* What every block format owes, whatever its layout. */
#ifndef CODEC_TESTING_H
#define CODEC_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "quant/quant.h"

enum { CODEC_MAX = 256 }; /* values of the largest block */

static inline uint32_t codec_random(uint32_t *s) {
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static inline float codec_number(uint32_t *s) { /* -1 .. 1 */
    return (float)codec_random(s) * 0x1p-23f - 1;
}

static inline void codec_round_trip(const qsi_type_info *ti, const float *x, float *y) {
    uint8_t enc[CODEC_MAX * 4];
    ti->encode(x, enc, ti->block);
    ti->decode(enc, y, ti->block);
}

/* A NaN or infinity anywhere in a block must not vanish, and neither must values too large for the
 * format. */
static inline void codec_damage_stays_visible(qsi_type type) {
    const qsi_type_info *ti = qsi_type_get((int32_t)type);
    const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e12f};
    for (size_t b = 0; b < QSI_COUNT(bad); b++) {
        for (int at = 0; at < ti->block; at += ti->block > 32 ? 5 : 1) {
            float x[CODEC_MAX], y[CODEC_MAX];
            for (int j = 0; j < ti->block; j++) x[j] = (float)(j % 32) - 12;
            x[at] = bad[b];
            codec_round_trip(ti, x, y);
            assert_false(isfinite(y[at]));
        }
    }
    float x[CODEC_MAX], y[CODEC_MAX];
    for (int j = 0; j < ti->block; j++) x[j] = j & 1 ? 3.4e38f : -3.4e38f; /* the span overflows */
    codec_round_trip(ti, x, y);
    for (int j = 0; j < ti->block; j++) assert_false(isfinite(y[j]));
}

/* Zeros of both signs, and scales too small for a binary16 or for a reciprocal. */
static inline void codec_tiny_blocks_become_zero(qsi_type type) {
    const qsi_type_info *ti = qsi_type_get((int32_t)type);
    const float tiny[] = {0, -0.0f, 1e-12f, 1e-38f, 1e-40f, 1e-45f};
    for (size_t k = 0; k < QSI_COUNT(tiny); k++) {
        for (int sign = 0; sign < 3; sign++) {
            float x[CODEC_MAX], y[CODEC_MAX];
            for (int j = 0; j < ti->block; j++)
                x[j] = sign == 0 || (sign == 1 && j % 2) ? tiny[k] : -tiny[k];
            codec_round_trip(ti, x, y);
            for (int j = 0; j < ti->block; j++) assert_true(y[j] == 0);
        }
    }
}

/* Any bytes decode, from any address, and nothing beyond the row is written; encoding at an odd
 * address gives the same bytes. */
static inline void codec_takes_any_bytes(qsi_type type) {
    const qsi_type_info *ti = qsi_type_get((int32_t)type);
    uint8_t buf[2 * CODEC_MAX * 4 + 8], copy[2 * CODEC_MAX * 4 + 8];
    float y[2 * CODEC_MAX + 1], z[2 * CODEC_MAX + 1];
    uint32_t s = (uint32_t)type;
    size_t bytes = 2 * (size_t)ti->bytes;
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof buf; i++) buf[i] = (uint8_t)codec_random(&s);
        y[2 * ti->block] = z[2 * ti->block] = 42;
        ti->decode(buf, y, 2 * ti->block);
        memmove(copy + 1 + round % 7, buf, bytes);
        ti->decode(copy + 1 + round % 7, z, 2 * ti->block);
        assert_memory_equal(y, z, sizeof(float) * 2 * (size_t)ti->block);
        assert_true(y[2 * ti->block] == 42 && z[2 * ti->block] == 42);
        for (int j = 0; j < 2 * ti->block; j++) y[j] = codec_number(&s);
        memset(buf, 0xa5, sizeof buf);
        memset(copy, 0xa5, sizeof copy);
        ti->encode(y, buf, 2 * ti->block);
        ti->encode(y, copy + 1, 2 * ti->block);
        assert_memory_equal(buf, copy + 1, bytes);
        assert_true(buf[bytes] == 0xa5 && copy[bytes + 1] == 0xa5 && copy[0] == 0xa5);
    }
}

/* Rows of every character; bound(x, j) is the most that value j may be off. */
static inline void codec_errors_are_bounded(qsi_type type,
                                            float (*bound)(qsi_type type, const float *x, int j)) {
    const qsi_type_info *ti = qsi_type_get((int32_t)type);
    uint32_t s = 1;
    for (int round = 0; round < 300; round++) {
        float x[CODEC_MAX], y[CODEC_MAX];
        for (int j = 0; j < ti->block; j++) {
            float u = codec_number(&s);
            switch (round % 6) {
            case 0: x[j] = u; break;                                       /* even */
            case 1: x[j] = u * u * u * u * u; break;                       /* mostly small */
            case 2: x[j] = -0.5f - fabsf(u) / 2; break;                    /* negative */
            case 3: x[j] = 10 + u / 10; break;                             /* far from zero */
            case 4: x[j] = j == round % ti->block ? -100 : u / 8; break;   /* one spike */
            default: x[j] = j / 16 % 2 ? 2.5f : -2.5f; break;              /* flat groups */
            }
        }
        codec_round_trip(ti, x, y);
        for (int j = 0; j < ti->block; j++) {
            if (!(fabsf(x[j] - y[j]) <= bound(type, x, j)))
                fail_msg("%s round %d value %d: %g became %g, allowed %g", ti->name, round, j,
                         (double)x[j], (double)y[j], (double)bound(type, x, j));
        }
    }
}

#endif
