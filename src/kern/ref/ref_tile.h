/* What a tile of a cache holds, element by element: kern.h states the layouts. Static inline only. */
#ifndef QSI_KERN_REF_TILE_H
#define QSI_KERN_REF_TILE_H

#include "kern/kern.h"

/* Nibble number i of a word. */
static inline float qsi_tile_nibble(const void *p, int64_t word, int i) {
    int byte = ((const uint8_t *)p)[word * 4 + i % 4];
    return (float)((i < 4 ? byte & 15 : byte >> 4) - 8);
}

/* Element (r, c) of rows of ld elements, without its scale: values, and keys that stand by position. */
static inline float qsi_tile_at(qsi_type t, const void *p, int64_t ld, int64_t r, int64_t c) {
    switch (t) {
    case QSI_Q4_0:
        return qsi_tile_nibble(p, (r / 4 * (ld / 32) + c / 32) * 16 + c % 16,
                               (int)(r % 4 + c / 16 % 2 * 4));
    case QSI_Q8_0: return (float)((const int8_t *)p)[(r / 4 * ld + c) * 4 + r % 4];
    case QSI_BF16: return qsi_bf16_to_f32(((const uint16_t *)p)[(r / 2 * ld + c) * 2 + r % 2]);
    case QSI_F16: return qsi_f16_to_f32(((const uint16_t *)p)[r * ld + c]);
    default: return ((const float *)p)[r * ld + c];
    }
}

/* Element i of the key of position p, of turned keys. */
static inline float qsi_tile_key(qsi_type t, const void *kt, int64_t i, int64_t p) {
    if (t == QSI_Q4_0) return qsi_tile_nibble(kt, i / 8 * QSI_ATTN_TILE + p, (int)(i % 8));
    return qsi_tile_at(t, kt, QSI_ATTN_TILE, i, p);
}

#endif
