/* F32 products, AVX2: panels [k][16] floats. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define B_BYTES 64
#define LOAD_B(b, j) ldu((const float *)(const void *)(b) + 8 * (j))
#define A_BYTES 4
#define LOAD_A(p) ldu((const float *)(const void *)(p))

#include "kern/x86/avx2_mm.h"

/* Both fast layouts of the source as in avx512_pack.c. */
static void pack(const void *src, int64_t ld_col, int64_t ld_k, int64_t n, int64_t k, int64_t p0,
                 int64_t p1, void *dst) {
    for (int64_t p = p0; p < p1; p++) {
        const float *s = (const float *)src + p * NR * ld_col;
        float *d = (float *)dst + (size_t)p * panel_bytes(k) / 4;
        int64_t cols = n - p * NR < NR ? n - p * NR : NR, i = 0;
        if (ld_k == 1)
            for (; i + 8 <= k; i += 8)
                for (int64_t j = 0; j < NR; j += 8) {
                    __m256i v[8];
                    for (int64_t c = 0; c < 8; c++)
                        v[c] = j + c < cols ? _mm256_castps_si256(ldu(s + (j + c) * ld_col + i))
                                            : _mm256_setzero_si256();
                    transpose8(v);
                    for (int64_t r = 0; r < 8; r++)
                        stu(d + (i + r) * NR + j, _mm256_castsi256_ps(v[r]));
                }
        if (ld_col == 1)
            for (; i < k; i++)
                for (int64_t j = 0; j < NR; j += 8)
                    stu(d + i * NR + j, ld(lanes(cols - j), s + i * ld_k + j));
        for (; i < k; i++)
            for (int64_t j = 0; j < NR; j++)
                d[i * NR + j] = j < cols ? s[j * ld_col + i * ld_k] : 0.0f;
    }
}

void qsi_kern_fill_avx2_mm_f32(qsi_kern *t) {
    t->mm[QSI_MM_F32] = (qsi_kern_mm){NR, panel_bytes, pack, run};
}
