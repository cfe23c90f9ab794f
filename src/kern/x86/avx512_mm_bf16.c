/* BF16 products, AVX-512 without the bfloat16 instruction: a pair of A a step, both widened; the
 * even element first. Panels [ceil(k/2)][32][2] (avx512_pack.c). */
#include "kern/kern_levels.h"

#define STEP_B 128
#define STEP_LOAD(b)                                                                               \
    __m512i w0 = _mm512_load_si512(b), w1 = _mm512_load_si512((b) + 64);                           \
    __m512 e0 = even(w0), e1 = even(w1), o0 = odd(w0), o1 = odd(w1)
#define STEP_MUL(s0, s1, a)                                                                        \
    do {                                                                                           \
        __m512i x = _mm512_set1_epi32(word(a));                                                    \
        __m512 xe = even(x), xo = odd(x);                                                          \
        s0 = _mm512_fmadd_ps(xo, o0, _mm512_fmadd_ps(xe, e0, s0));                                 \
        s1 = _mm512_fmadd_ps(xo, o1, _mm512_fmadd_ps(xe, e1, s1));                                 \
    } while (0)

#include "kern/x86/simd512.h"

QSI_INLINE __m512 even(__m512i w) { return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)); }

QSI_INLINE __m512 odd(__m512i w) {
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000u)));
}

#include "kern/x86/avx512_mm.h"

static void run(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a,
                size_t lda_bytes, const void *packed, float *c, int64_t ldc, bool accumulate) {
    int64_t pairs = (k + 1) / 2;
    run_panels(m, n, pairs, p0, p1, a, lda_bytes, packed, (size_t)pairs * STEP_B, c, ldc,
               accumulate);
}

void qsi_kern_fill_avx512_mm_bf16(qsi_kern *t) {
    t->mm[QSI_MM_BF16].run = run;
}
