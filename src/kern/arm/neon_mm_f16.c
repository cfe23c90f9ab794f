/* F16 products, NEON: panels [k][16] halves, packed as ref does, widened at use. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define B_BYTES 32
#define LOAD_B(b, j) ld_f16(lanes(8), (const uint16_t *)(const void *)(b) + 8 * (j))
#define A_BYTES 4
#define LOAD_A(p) ldu((const float *)(const void *)(p))

#include "kern/x86/avx2_mm.h"

void qsi_kern_fill_neon_mm_f16(qsi_kern *t) { t->mm[QSI_MM_F16].run = run; }
