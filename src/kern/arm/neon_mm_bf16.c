/* BF16 products, NEON: panels [k][16] bfloat16, packed as ref does, both sides widened. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"

#define B_BYTES 32
#define LOAD_B(b, j) ld_bf16(lanes(8), (const uint16_t *)(const void *)(b) + 8 * (j))
#define A_BYTES 2
#define LOAD_A(p) ld_bf16(lanes(8), (const uint16_t *)(const void *)(p))

#include "kern/x86/avx2_mm.h"

void qsi_kern_fill_neon_mm_bf16(qsi_kern *t) { t->mm[QSI_MM_BF16].run = run; }
