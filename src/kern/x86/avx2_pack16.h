/* Packing of 2-byte elements into panels [k][16], AVX2. After simd256.h; the fast layouts as in
 * avx512_pack.c. */
#ifndef QSI_KERN_AVX2_PACK16_H
#define QSI_KERN_AVX2_PACK16_H

#include "kern/x86/simd256.h"

/* k pairs [i, i + 8) of eight columns: words transposed, low halves one k, high halves the next. */
QSI_INLINE void pack16_square(const uint16_t *s, int64_t ld_col, int64_t cols, uint16_t *d) {
    __m256i v[8];
    for (int64_t c = 0; c < 8; c++)
        v[c] = c < cols ? _mm256_loadu_si256((const __m256i *)(const void *)(s + c * ld_col))
                        : _mm256_setzero_si256();
    transpose8(v);
    for (int r = 0; r < 8; r++) {
        __m256i lo = _mm256_and_si256(v[r], _mm256_set1_epi32(0xffff));
        __m256i both = _mm256_packus_epi32(lo, _mm256_srli_epi32(v[r], 16));
        both = _mm256_permute4x64_epi64(both, 0xd8);
        _mm_storeu_si128((__m128i *)(void *)(d + 2 * r * 16), _mm256_castsi256_si128(both));
        _mm_storeu_si128((__m128i *)(void *)(d + (2 * r + 1) * 16),
                         _mm256_extracti128_si256(both, 1));
    }
}

static void pack16(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k, int64_t p0,
                   int64_t p1, void *dst) {
    size_t panel = ((size_t)k * 32 + 63) / 64 * 64;
    for (int64_t p = p0; p < p1; p++) {
        const uint16_t *s = (const uint16_t *)src + p * 16 * ld_col;
        uint16_t *d = (uint16_t *)dst + (size_t)p * panel / 2;
        int64_t cols = n - p * 16 < 16 ? n - p * 16 : 16, i = 0;
        if (ld_k == 1)
            for (; i + 16 <= k; i += 16)
                for (int64_t j = 0; j < 16; j += 8)
                    pack16_square(s + j * ld_col + i, ld_col, cols - j, d + i * 16 + j);
        if (ld_col == 1)
            for (; i < k; i++)
                for (int64_t j = 0; j < 16; j += 8)
                    st_u16(lanes(8), d + i * 16 + j, ld_u16(lanes(cols - j), s + i * ld_k + j));
        for (; i < k; i++)
            for (int64_t j = 0; j < 16; j++)
                d[i * 16 + j] = j < cols ? s[j * ld_col + i * ld_k] : 0;
        memset(d + k * 16, 0, panel - (size_t)k * 32);
    }
}

#endif
