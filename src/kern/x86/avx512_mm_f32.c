/* F32 products, AVX-512: one float of A a step, panels [k][32] floats (avx512_pack.c). */
#include "kern/kern_levels.h"

#define STEP_B 128
#define STEP_LOAD(b) __m512 b0 = _mm512_load_ps(b), b1 = _mm512_load_ps((b) + 64)
#define STEP_MUL(s0, s1, a)                                                                        \
    do {                                                                                           \
        __m512 x = _mm512_castsi512_ps(_mm512_set1_epi32(word(a)));                                \
        s0 = _mm512_fmadd_ps(x, b0, s0);                                                           \
        s1 = _mm512_fmadd_ps(x, b1, s1);                                                           \
    } while (0)

#include "kern/x86/avx512_mm.h"

static void run(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    run_panels(m, n, k, p0, p1, a, lda_bytes, packed, (size_t)k * STEP_B, c, ldc, accumulate);
}

void qsi_kern_fill_avx512_mm_f32(qsi_kern *t) {
    t->mm[QSI_MM_F32].run = run;
}
