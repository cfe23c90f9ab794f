/* BF16 products, AVX2: panels [k][16] bfloat16, both sides widened; products are exact in float. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define B_BYTES 32
#define LOAD_B(b, j) ld_bf16(lanes(8), (const uint16_t *)(const void *)(b) + 8 * (j))
#define A_BYTES 2
#define LOAD_A(p) ld_bf16(lanes(8), (const uint16_t *)(const void *)(p))

#include "kern/x86/avx2_mm.h"
#include "kern/x86/avx2_pack16.h"

void qsi_kern_fill_avx2_mm_bf16(qsi_kern *t) {
    t->mm[QSI_MM_BF16] = (qsi_kern_mm){NR, panel_bytes, pack16, run};
    t->bf16_native = false;
}
