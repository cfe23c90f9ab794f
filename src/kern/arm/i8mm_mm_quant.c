/* Quantised weights with the 2 x 8 by 8 x 2 product instruction (FEAT_I8MM) for pairs of rows. */
#include "kern/arm/simdneon.h"

#define DOT(a, b) vdotq_s32(vdupq_n_s32(0), a, b)
#define MMLA(s, a, b) vmmlaq_s32(s, a, b)

#include "kern/arm/quant_body.h"

void qsi_kern_fill_i8mm_mm_quant(qsi_kern *t) { fill_quant(t); }
