/* F32 products, NEON: panels [k][16] floats, packed as ref does. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define B_BYTES 64
#define LOAD_B(b, j) ldu((const float *)(const void *)(b) + 8 * (j))
#define A_BYTES 4
#define LOAD_A(p) ldu((const float *)(const void *)(p))

#include "kern/x86/avx2_mm.h"

void qsi_kern_fill_neon_mm_f32(qsi_kern *t) { t->mm[QSI_MM_F32].run = run; }
