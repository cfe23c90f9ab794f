/* Quantised weights with the dot product instruction (FEAT_DotProd). */
#include "kern/arm/simdneon.h"

#define DOT(a, b) vdotq_s32(vdupq_n_s32(0), a, b)

#include "kern/arm/quant_body.h"

void qsi_kern_fill_dotprod_mm_quant(qsi_kern *t) { fill_quant(t); }
