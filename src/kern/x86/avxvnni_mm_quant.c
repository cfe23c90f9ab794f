/* Products of quantised weights, AVX-VNNI: panels of 8 columns as AVX2's, the dots of AVX-512 VNNI in
 * 256 bits. A tile is 6 rows: 6 running dots and 6 sums in 16 registers. */
#include "kern/x86/simd256.h"

#define BIASED 1
#ifdef QSI_SMALL_TILES /* sanitizers: the same code, compiled in a tenth of the time */
#define MR 2
#define FEW 2
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2)
#else
#define FEW 2
#define MR 6
#define NP 1
#define ALL_ROWS(X, name) X(name, 1) X(name, 2) X(name, 3) X(name, 4) X(name, 5) X(name, 6)
#endif

#define dot4(s, w, x) _mm256_dpbusd_avx_epi32(s, w, x)
#define dot4s(s, w, x) (s)
#define dot2(s, w, x) _mm256_dpwssd_avx_epi32(s, w, x)

#include "kern/x86/mm_quant.h"

ALL_TILES
QSI_MM_QUANT_LIST(QUANT_FUNCTIONS)

void qsi_kern_fill_avxvnni_mm_quant(qsi_kern *t) { QSI_MM_QUANT_LIST(QUANT_FILL) }
