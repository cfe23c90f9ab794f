/* Quantised weights, NEON: int8 products by widening multiplications. */
#include "kern/arm/simdneon.h"

QSI_INLINE int32x4_t dot(int8x16_t a, int8x16_t b) {
    int16x8_t lo = vmull_s8(vget_low_s8(a), vget_low_s8(b)), hi = vmull_high_s8(a, b);
    return vpadalq_s16(vpaddlq_s16(lo), hi);
}
#define DOT(a, b) dot(a, b)

#include "kern/arm/quant_body.h"

void qsi_kern_fill_neon_mm_quant(qsi_kern *t) { fill_quant(t); }
