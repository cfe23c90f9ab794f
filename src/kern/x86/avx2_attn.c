/* Attention, AVX2: the shared body at this level's width, blocks of 4 rows by 2 vectors. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define ROWS 4
#define VECS 2

QSI_INLINE vf attn_f16(const char *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
/* Half r of words, as a float: what stands above it in the word is shifted out, what stands below is
 * cleared. */
QSI_INLINE vf attn_half(__m256i x, int r) {
    x = _mm256_sll_epi32(x, _mm_cvtsi32_si128(16 - 16 * r));
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000)));
}
QSI_INLINE vf attn_bf16(const char *p, int r) {
    return attn_half(_mm256_loadu_si256((const __m256i *)(const void *)p), r);
}
QSI_INLINE vf attn_bf16_tail(vm m, const char *p, int r) {
    return attn_half(_mm256_castps_si256(ld(m, (const float *)(const void *)p)), r);
}
/* Byte r of words. */
QSI_INLINE vf attn_byte(__m256i x, int r) {
    x = _mm256_sll_epi32(x, _mm_cvtsi32_si128(24 - 8 * r));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 24));
}
QSI_INLINE vf attn_i8(const char *p, int r) {
    return attn_byte(_mm256_loadu_si256((const __m256i *)(const void *)p), r);
}
QSI_INLINE vf attn_i8_tail(vm m, const char *p, int r) {
    return attn_byte(_mm256_castps_si256(ld(m, (const float *)(const void *)p)), r);
}
/* The nibble of words that stands above `shift` bits, less 8. */
QSI_INLINE vf attn_i4(const char *p, int shift) {
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);
    x = iand(_mm256_srl_epi32(x, _mm_cvtsi32_si128(shift)), alli(15));
    return to_float(isub(x, alli(8)));
}
QSI_INLINE void attn_transpose(vf r[W]) {
    __m256i t[W];
    for (int i = 0; i < W; i++) t[i] = _mm256_castps_si256(r[i]);
    transpose8(t);
    for (int i = 0; i < W; i++) r[i] = _mm256_castsi256_ps(t[i]);
}

#include "kern/x86/attn_body.h"

void qsi_kern_fill_avx2_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
