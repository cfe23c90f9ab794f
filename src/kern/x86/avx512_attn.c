/* Attention, AVX-512: the shared body at this level's width, blocks of 6 rows by 4 vectors. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"

#define ROWS 6
#define VECS 4

QSI_INLINE vf attn_f16(const char *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
/* Half r of words, as a float: what stands above it in the word is shifted out, what stands below is
 * cleared. */
QSI_INLINE vf attn_half(__m512i x, int r) {
    x = _mm512_sll_epi32(x, _mm_cvtsi32_si128(16 - 16 * r));
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000)));
}
QSI_INLINE vf attn_bf16(const char *p, int r) { return attn_half(_mm512_loadu_si512(p), r); }
QSI_INLINE vf attn_bf16_tail(vm m, const char *p, int r) {
    return attn_half(_mm512_maskz_loadu_epi32(m, p), r);
}
/* Byte r of words. */
QSI_INLINE vf attn_byte(__m512i x, int r) {
    x = _mm512_sll_epi32(x, _mm_cvtsi32_si128(24 - 8 * r));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(x, 24));
}
QSI_INLINE vf attn_i8(const char *p, int r) { return attn_byte(_mm512_loadu_si512(p), r); }
QSI_INLINE vf attn_i8_tail(vm m, const char *p, int r) {
    return attn_byte(_mm512_maskz_loadu_epi32(m, p), r);
}
/* The nibble of words that stands above `shift` bits, less 8. */
QSI_INLINE vf attn_i4(const char *p, int shift) {
    vi x = _mm512_srl_epi32(_mm512_loadu_si512(p), _mm_cvtsi32_si128(shift));
    return to_float(isub(iand(x, alli(15)), alli(8)));
}
QSI_INLINE void attn_transpose(vf r[W]) {
    __m512i t[16];
    for (int i = 0; i < 16; i++) t[i] = _mm512_castps_si512(r[i]);
    transpose16(t);
    for (int i = 0; i < 16; i++) r[i] = _mm512_castsi512_ps(t[i]);
}

#include "kern/x86/attn_body.h"

void qsi_kern_fill_avx512_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
