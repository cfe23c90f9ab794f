/* F16 products, AVX2: panels [k][16] halves, widened at use. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"

#define B_BYTES 32
#define LOAD_B(b, j) ld_f16(lanes(8), (const uint16_t *)(const void *)(b) + 8 * (j))
#define A_BYTES 4
#define LOAD_A(p) ldu((const float *)(const void *)(p))

#include "kern/x86/avx2_mm.h"
#include "kern/x86/avx2_pack16.h"

void qsi_kern_fill_avx2_mm_f16(qsi_kern *t) {
    t->mm[QSI_MM_F16] = (qsi_kern_mm){NR, panel_bytes, pack16, run};
}
