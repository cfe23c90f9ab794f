/* Products of quantised weights, AVX-512 VNNI: four byte products and their sum in one instruction.
 * A tile is 6 rows x 32 columns: 12 running dots, 12 sums and the rest in 32 registers. */
#include "kern/x86/simd512.h"

#define BIASED 1
#ifdef QSI_SMALL_TILES /* sanitizers: the same code, compiled in a tenth of the time */
#define MR 2
#define FEW 2
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2)
#else
#define FEW 4
#define MR 6
#define NP 2
#define ALL_ROWS(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4) X(name, 5) X(name, 6)
#endif

#define dot4(s, w, x) _mm512_dpbusd_epi32(s, w, x)
#define dot4s(s, w, x) (s)
#define dot2(s, w, x) _mm512_dpwssd_epi32(s, w, x)

#include "kern/x86/mm_quant.h"

ALL_TILES
QSI_MM_QUANT_LIST(QUANT_FUNCTIONS)

void qsi_kern_fill_vnni_mm_quant(qsi_kern *t) { QSI_MM_QUANT_LIST(QUANT_FILL) }
