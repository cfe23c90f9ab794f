/* Attention, NEON: the shared body at this level's width, blocks of 4 rows by 2 vectors. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define ROWS 4
#define VECS 2

QSI_INLINE vf attn_f16(const char *p) {
    return widen_f16(ld_u16(lanes(8), (const uint16_t *)(const void *)p));
}
QSI_INLINE vf attn_i8(const char *p) {
    int16x8_t h = vmovl_s8(vld1_s8((const int8_t *)p));
    return (vf){vcvtq_f32_s32(vmovl_s16(vget_low_s16(h))), vcvtq_f32_s32(vmovl_high_s16(h))};
}
QSI_INLINE vf attn_i8_tail(vm m, const char *p) {
    char t[W] = {0};
    memcpy(t, p, (size_t)m.n);
    return attn_i8(t);
}
QSI_INLINE void attn_transpose(vf r[W]) { transpose8(r); }

#include "kern/x86/attn_body.h"

void qsi_kern_fill_neon_attn(qsi_kern *t) {
    t->attn_qk = attn_qk;
    t->attn_pv = attn_pv;
    t->attn_turn = attn_turn;
}
