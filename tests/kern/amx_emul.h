/* AMX in plain C, for CPUs without it: included before a kernel's own lines (-include), it puts these
 * functions in the place of the intrinsics of the same names. Eight tiles of 16 rows of 64 bytes;
 * whatever the CPU would answer with a fault is amx_emul_misuse (Intel SDM, LDTILECFG, TILELOADD,
 * TDPBSSD, TDPBF16PS). One thread. */
#ifndef AMX_EMUL_H
#define AMX_EMUL_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

void amx_emul_config(const void *config);
void amx_emul_release(void);
void amx_emul_zero(int t);
void amx_emul_load(int t, const void *base, size_t stride);
void amx_emul_store(int t, void *base, size_t stride);
void amx_emul_dpbssd(int c, int a, int b);
void amx_emul_dpbf16ps(int c, int a, int b);
/* No tile is configured. */
bool amx_emul_idle(void);
/* Fails the test. */
void amx_emul_misuse(const char *what);

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbssd
#undef _tile_dpbf16ps
#define _tile_loadconfig(p) amx_emul_config(p)
#define _tile_release() amx_emul_release()
#define _tile_zero(t) amx_emul_zero(t)
#define _tile_loadd(t, base, stride) amx_emul_load(t, base, stride)
#define _tile_stored(t, base, stride) amx_emul_store(t, base, stride)
#define _tile_dpbssd(c, a, b) amx_emul_dpbssd(c, a, b)
#define _tile_dpbf16ps(c, a, b) amx_emul_dpbf16ps(c, a, b)

#endif
