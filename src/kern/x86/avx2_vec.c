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

/* A block with NaN or infinity keeps that in d, so that products of it are NaN. */
static void f32_to_act8(const float *x, qsi_act8 *y, int64_t n) {
    const __m256i abs_bits = _mm256_set1_epi32(0x7fffffff);
    const vf half = all(0.49999997f); /* largest below 0.5: trunc(x + half) rounds half away from
                                         zero, for |x| < 2^22 */
    for (int64_t b = 0; b < n / 32; b++, x += 32, y++) {
        __m256i top = _mm256_setzero_si256(), q[4], sum = top;
        for (int i = 0; i < 4; i++) /* as integers: NaN above infinity above numbers */
            top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(ldu(x + 8 * i)),
                                                         abs_bits));
        uint32_t t[8], bits = 0;
        memcpy(t, &top, 32);
        for (int i = 0; i < 8; i++)
            if (t[i] > bits) bits = t[i];
        float amax;
        memcpy(&amax, &bits, 4);
        const int finite = bits < 0x7f800000u;
        float d = finite ? amax < QSI_ACT8_MIN ? 0.0f : amax / 127.0f : amax;
        vf inv = all(!finite || d == 0.0f ? 0.0f : 1.0f / d);
        for (int i = 0; i < 4; i++) {
            vf s = vmul(ldu(x + 8 * i), inv);
            q[i] = _mm256_cvttps_epi32(vadd(s, _mm256_or_ps(half, _mm256_and_ps(s, all(-0.0f)))));
            if (!finite) q[i] = _mm256_setzero_si256();
            sum = _mm256_add_epi32(sum, q[i]);
        }
        /* packs work in halves: words come out in the order 0 2 4 6 1 3 5 7 */
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]),
                                           _mm256_packs_epi32(q[2], q[3]));
        bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(void *)y->qs, bytes);
        memcpy(t, &sum, 32);
        y->sum = (int32_t)(t[0] + t[1] + t[2] + t[3] + t[4] + t[5] + t[6] + t[7]);
        y->d = d;
    }
}

void qsi_kern_fill_avx2_vec(qsi_kern *t) {
    fill_vec(t);
    t->f32_to_act8 = f32_to_act8;
    t->f32_to_bf16_t = f32_to_bf16_t;
}
