/* Tile products in four sums, as the products use them. */
#include "kern/kern_levels.h"
#include "kern/x86/amx_tile.h"

static _Alignas(64) const char zeros[TILE_ROWS][64];

/* All tiles of 16 rows of 64 bytes, zero: time does not depend on the values. */
static void open_tiles(void) {
    shape s = {.palette = 1};
    for (int i = 0; i < 8; i++) shape_set(&s, i, TILE_ROWS, 16);
    shape_use(&s);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
}

static void close_tiles(float *out) {
    _Alignas(64) float sum[TILE_ROWS][16];
    _tile_stored(3, sum, 64);
    shape_drop();
    *out = sum[0][0];
}

static int64_t peak_int8(int64_t rounds, float *out) {
    open_tiles();
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    close_tiles(out);
    return rounds * 4 * 16 * 16 * 64 * 2;
}

static int64_t peak_bf16(int64_t rounds, float *out) {
    open_tiles();
    for (int64_t i = 0; i < rounds; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    close_tiles(out);
    return rounds * 4 * 16 * 16 * 32 * 2;
}

void qsi_kern_fill_amx_peak(qsi_kern *t) {
    t->peak_int8 = peak_int8;
    t->peak_bf16 = peak_bf16;
}
