/* How a table comes together: every level overlays the one below it. A level's file fills only
 * what it speeds up; kern.c applies them upward. Not for other rooms. */
#ifndef QSI_KERN_LEVELS_H
#define QSI_KERN_LEVELS_H

#include "kern/kern.h"

#define QSI_ACT8_MIN 1.5e-36f /* blocks whose largest value is below this quantise to zero */

/* Runs a small product of every quantised type and of BF16 through both tables. Where the bits differ, t
 * becomes base and the type's name is returned; NULL: they agree. Not for two threads at once. */
const char *qsi_kern_settle(qsi_kern *t, const qsi_kern *base);

/* ref/: complete. */
void qsi_kern_fill_ref_mm(qsi_kern *t);
void qsi_kern_fill_ref_mm_quant(qsi_kern *t);
void qsi_kern_fill_ref_vec(qsi_kern *t);
void qsi_kern_fill_ref_layer(qsi_kern *t);
void qsi_kern_fill_ref_attn(qsi_kern *t);
void qsi_kern_fill_ref_attn16(qsi_kern *t);
void qsi_kern_fill_ref_attn8(qsi_kern *t);
void qsi_kern_fill_ref_peak(qsi_kern *t);

#if defined(__x86_64__)
/* x86/: overlays, in the order in which a level applies them. */
#define QSI_KERN_X86 1
void qsi_kern_fill_avx2_mm_f32(qsi_kern *t);
void qsi_kern_fill_avx2_mm_f16(qsi_kern *t);
void qsi_kern_fill_avx2_mm_bf16(qsi_kern *t);
void qsi_kern_fill_avx2_mm_quant(qsi_kern *t);
void qsi_kern_fill_avx2_vec(qsi_kern *t);
void qsi_kern_fill_avx2_layer(qsi_kern *t);
void qsi_kern_fill_avx2_attn(qsi_kern *t);
void qsi_kern_fill_avx2_peak(qsi_kern *t);
void qsi_kern_fill_avxvnni_mm_quant(qsi_kern *t);
void qsi_kern_fill_avxvnni_peak(qsi_kern *t);
void qsi_kern_fill_avx512_pack(qsi_kern *t);
void qsi_kern_fill_avx512_mm_f32(qsi_kern *t);
void qsi_kern_fill_avx512_mm_f16(qsi_kern *t);
void qsi_kern_fill_avx512_mm_bf16(qsi_kern *t);
void qsi_kern_fill_avx512_mm_quant(qsi_kern *t);
void qsi_kern_fill_avx512_vec(qsi_kern *t);
void qsi_kern_fill_avx512_layer(qsi_kern *t);
void qsi_kern_fill_avx512_attn(qsi_kern *t);
void qsi_kern_fill_avx512_peak(qsi_kern *t);
void qsi_kern_fill_vnni_mm_quant(qsi_kern *t);
void qsi_kern_fill_vnni_attn(qsi_kern *t);
void qsi_kern_fill_vnni_peak(qsi_kern *t);
void qsi_kern_fill_avx512bf16_mm(qsi_kern *t);
void qsi_kern_fill_avx512bf16_vec(qsi_kern *t);
void qsi_kern_fill_avx512bf16_attn(qsi_kern *t);
void qsi_kern_fill_avx512bf16_peak(qsi_kern *t);
void qsi_kern_fill_amx_mm_quant(qsi_kern *t);
void qsi_kern_fill_amx_mm_bf16(qsi_kern *t);
void qsi_kern_fill_amx_peak(qsi_kern *t);
#elif defined(__aarch64__)
/* arm/: overlays of the products, packing stays ref's. */
#define QSI_KERN_ARM 1
void qsi_kern_fill_neon_mm_f32(qsi_kern *t);
void qsi_kern_fill_neon_mm_f16(qsi_kern *t);
void qsi_kern_fill_neon_mm_bf16(qsi_kern *t);
void qsi_kern_fill_neon_mm_quant(qsi_kern *t);
void qsi_kern_fill_neon_mm_exact(qsi_kern *t);
void qsi_kern_fill_neon_vec(qsi_kern *t);
void qsi_kern_fill_neon_layer(qsi_kern *t);
void qsi_kern_fill_neon_attn(qsi_kern *t);
void qsi_kern_fill_dotprod_mm_quant(qsi_kern *t);
void qsi_kern_fill_i8mm_mm_quant(qsi_kern *t);
#endif

#endif
