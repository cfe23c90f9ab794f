/* Attention, NEON: the shared body at this level's width, blocks of 4 rows by 2 vectors. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define ROWS 4
#define VECS 2

QSI_INLINE vf attn_f16(const char *p) {
    return widen_f16(ld_u16(lanes(8), (const uint16_t *)(const void *)p));
}
/* Byte r of four words. */
QSI_INLINE float32x4_t attn_byte(const char *p, int32x4_t shift) {
    int32x4_t x = vreinterpretq_s32_s8(vld1q_s8((const int8_t *)p));
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_s32(x, shift), 24));
}
QSI_INLINE vf attn_i8(const char *p, int r) {
    int32x4_t shift = vdupq_n_s32(24 - 8 * r);
    return (vf){attn_byte(p, shift), attn_byte(p + 16, shift)};
}
QSI_INLINE vf attn_i8_tail(vm m, const char *p, int r) {
    char t[4 * W] = {0};
    memcpy(t, p, (size_t)m.n * 4);
    return attn_i8(t, r);
}
QSI_INLINE void attn_transpose(vf r[W]) { transpose8(r); }

#include "kern/x86/attn_body.h"

void qsi_kern_fill_neon_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
