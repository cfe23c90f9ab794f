/* Vectors and the optimizer, AVX2 (vec_body.h); here the transposed conversion and the int8
 * activations. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"
#include "kern/x86/vec_body.h"

/* Eight columns x 16 rows at a time: two rows make words, words are transposed. */
static void f32_to_bf16_t(const float *x, int64_t ldx, int64_t rows, int64_t cols, uint16_t *y,
                          int64_t ldy) {
    for (int64_t c = 0; c < cols; c += 8) {
        vm mc = lanes(cols - c);
        for (int64_t r = 0; r < rows; r += 16) {
            int64_t nr = rows - r < 16 ? rows - r : 16;
            __m256i v[8];
            const float *p = x + r * ldx + c;
            for (int64_t i = 0; i < 8; i++) {
                vf a = 2 * i < nr ? ld(mc, p + 2 * i * ldx) : zero();
                vf b = 2 * i + 1 < nr ? ld(mc, p + (2 * i + 1) * ldx) : zero();
                v[i] = _mm256_or_si256(_mm256_cvtepu16_epi32(bf16_of(a)),
                                       _mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16_of(b)), 16));
            }
            transpose8(v);
            for (int64_t i = 0; i < 8 && c + i < cols; i++) {
                uint16_t *q = y + (c + i) * ldy + r;
                if (nr == 16)
                    _mm256_storeu_si256((__m256i *)(void *)q, v[i]);
                else
                    memcpy(q, &v[i], (size_t)nr * 2);
            }
        }
    }
}

/* Bits of the largest magnitude of n values (n % 8 == 0), as integers: NaN above infinity above
 * numbers. */
QSI_INLINE uint32_t act_top(const float *x, int n) {
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8)
        top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(ldu(x + i)),
                                                     _mm256_set1_epi32(0x7fffffff)));
    uint32_t t[8], bits = 0;
    memcpy(t, &top, 32);
    for (int i = 0; i < 8; i++)
        if (t[i] > bits) bits = t[i];
    return bits;
}

/* Scale and its reciprocal. A block with NaN or infinity keeps that as its scale and is zero
 * otherwise, so that products of it are NaN. */
QSI_INLINE float act_scale(uint32_t top, vf *inv) {
    float amax;
    memcpy(&amax, &top, 4);
    float d = top >= 0x7f800000u ? amax : amax < QSI_ACT8_MIN ? 0.0f : amax / 127.0f;
    *inv = all(top >= 0x7f800000u || d == 0.0f ? 0.0f : 1.0f / d);
    return d;
}

/* 32 values to bytes at qs; their sum in eight parts. */
QSI_INLINE void act_bytes(const float *x, vf inv, bool finite, int8_t *qs, __m256i q[4]) {
    const vf half = all(0.49999997f); /* largest below 0.5: trunc(x + half) rounds half away from
                                         zero, for |x| < 2^22 */
    for (int i = 0; i < 4; i++) {
        vf s = vmul(ldu(x + 8 * i), inv);
        q[i] = _mm256_cvttps_epi32(vadd(s, _mm256_or_ps(half, _mm256_and_ps(s, all(-0.0f)))));
        if (!finite) q[i] = _mm256_setzero_si256();
    }
    /* packs work in halves: words come out in the order 0 2 4 6 1 3 5 7 */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                       _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)qs, bytes);
}

QSI_INLINE int32_t sum_words(__m256i v) {
    int32_t t[8];
    memcpy(t, &v, 32);
    return t[0] + t[1] + t[2] + t[3] + t[4] + t[5] + t[6] + t[7];
}

static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        uint32_t top = act_top(x, 32);
        __m256i q[4];
        vf inv;
        y->d = act_scale(top, &inv);
        act_bytes(x, inv, top < 0x7f800000u, y->qs, q);
        y->z = -128 * sum_words(_mm256_add_epi32(_mm256_add_epi32(q[0], q[1]),
                                                 _mm256_add_epi32(q[2], q[3])));
    }
}

static void f32_to_actk(const float *x, qsi_actk *y, int64_t n) {
    for (int64_t b = 0; b < n / 256; b++, x += 256, y++) {
        uint32_t top = act_top(x, 256);
        __m256i q[4];
        vf inv;
        y->d = act_scale(top, &inv);
        for (int g = 0; g < 8; g++) {
            act_bytes(x + 32 * g, inv, top < 0x7f800000u, y->qs + 32 * g, q);
            int32_t lo = sum_words(_mm256_add_epi32(q[0], q[1]));
            int32_t hi = sum_words(_mm256_add_epi32(q[2], q[3]));
            int f = 2 * g % 4; /* 0 or 2: groups f and f + 1 of four stand at 0, 2 or 1, 3 */
            y->z16[2 * g] = -128 * lo;
            y->z16[2 * g + 1] = -128 * hi;
            y->s16[2 * g - f + f / 2] = (int16_t)lo;
            y->s16[2 * g - f + f / 2 + 2] = (int16_t)hi;
            y->s32[(g & ~3) + (g & 1) * 2 + (g >> 1 & 1)] = (int16_t)(lo + hi);
        }
        memset(y->pad, 0, sizeof y->pad);
    }
}

void qsi_kern_fill_avx2_vec(qsi_kern *t) {
    fill_vec(t);
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_actk = f32_to_actk;
    t->f32_to_bf16_t = f32_to_bf16_t;
}
