/* Attention, NEON: the shared body at this level's width, blocks of 4 rows by 2 vectors. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define ROWS 4
#define VECS 2

QSI_INLINE vf attn_f16(const char *p) {
    return widen_f16(ld_u16(lanes(8), (const uint16_t *)(const void *)p));
}
/* Half r of four words. */
QSI_INLINE float32x4_t attn_half(const char *p, int32x4_t shift) {
    uint32x4_t x = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p));
    return vreinterpretq_f32_u32(vandq_u32(vshlq_u32(x, shift), vdupq_n_u32(0xffff0000u)));
}
QSI_INLINE vf attn_bf16(const char *p, int r) {
    int32x4_t shift = vdupq_n_s32(16 - 16 * r);
    return (vf){attn_half(p, shift), attn_half(p + 16, shift)};
}
QSI_INLINE vf attn_bf16_tail(vm m, const char *p, int r) {
    char t[4 * W] = {0};
    memcpy(t, p, (size_t)m.n * 4);
    return attn_bf16(t, r);
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
/* The nibble of words that stands above -down bits, less 8. */
QSI_INLINE float32x4_t attn_nibble(const char *p, int32x4_t down) {
    uint32x4_t x = vshlq_u32(vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p)), down);
    int32x4_t y = vreinterpretq_s32_u32(vandq_u32(x, vdupq_n_u32(15)));
    return vcvtq_f32_s32(vsubq_s32(y, vdupq_n_s32(8)));
}
QSI_INLINE vf attn_i4(const char *p, int shift) {
    int32x4_t down = vdupq_n_s32(-shift);
    return (vf){attn_nibble(p, down), attn_nibble(p + 16, down)};
}
QSI_INLINE void attn_transpose(vf r[W]) { transpose8(r); }

#include "kern/x86/attn_body.h"

void qsi_kern_fill_neon_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
