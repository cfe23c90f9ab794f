/* What the AMX files share: the shape of tiles, and the compiler's view of memory. Only those files
 * include it, compiled with the flags of AMX.
 *
 * A product sets the shape when it starts and gives the tiles back when it ends, so that no thread is
 * left with 8 KiB more to save. Of the eight tiles the first four are sums; a shape says how many rows
 * of A the tiles have, and how many words of a row of A one dot takes.
 *
 * gcc's tile loads (12) do not say that they read memory: fence() stands between what writes it and
 * the loads. */
#ifndef QSI_KERN_AMX_TILE_H
#define QSI_KERN_AMX_TILE_H

#include "kern/x86/simd512.h"

#define TILE_ROWS 16

/* As LDTILECFG reads it: palette 1, bytes of a row and rows of each tile. */
typedef struct shape {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} shape;
_Static_assert(sizeof(shape) == 64, "a tile configuration is 64 bytes");

QSI_INLINE void fence(void) { __asm__ volatile("" ::: "memory"); }

QSI_INLINE void shape_set(shape *s, int tile, int64_t rows, int64_t words) {
    s->rows[tile] = (uint8_t)rows;
    s->row_bytes[tile] = (uint16_t)(words * 4);
}

/* gcc takes LDTILECFG to read 8 bytes: here it learns that all of *s must be written. */
QSI_INLINE void shape_use(const shape *s) {
    __asm__ volatile("" : : "r"(s) : "memory");
    _tile_loadconfig(s);
}

QSI_INLINE void shape_drop(void) {
    fence();
    _tile_release();
}

#endif
