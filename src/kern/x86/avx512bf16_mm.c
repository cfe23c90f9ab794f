/* BF16 products with the CPU's instruction (AVX512_BF16): a pair of A a step. It takes denormals as
 * zero and rounds after each of the two additions. Panels as in avx512_mm_bf16.c. */
#include "kern/kern_levels.h"

#define STEP_B 128
#define STEP_LOAD(b) __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512((b) + 64)
#define STEP_MUL(s0, s1, a)                                                                        \
    do {                                                                                           \
        __m512i x = _mm512_set1_epi32(word(a));                                                    \
        s0 = _mm512_dpbf16_ps(s0, (__m512bh)x, (__m512bh)b0);                                      \
        s1 = _mm512_dpbf16_ps(s1, (__m512bh)x, (__m512bh)b1);                                      \
    } while (0)

#include "kern/x86/avx512_mm.h"

static void run(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    int64_t pairs = (k + 1) / 2;
    run_panels(m, n, pairs, p0, p1, a, lda_bytes, packed, (size_t)pairs * STEP_B, c, ldc,
               accumulate);
}

void qsi_kern_fill_avx512bf16_mm(qsi_kern *t) {
    t->mm[QSI_MM_BF16].run = run;
    t->bf16_native = true;
}
