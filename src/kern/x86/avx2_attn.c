/* Attention, AVX2: the shared body at this level's width, blocks of 4 rows by 2 vectors. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define ROWS 4
#define VECS 2

QSI_INLINE vf attn_f16(const char *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
QSI_INLINE vf attn_i8(const char *p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
QSI_INLINE vf attn_i8_tail(vm m, const char *p) {
    char t[W] = {0};
    memcpy(t, p, (size_t)m.n);
    return attn_i8(t);
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
