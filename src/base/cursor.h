/* Bounded reading of untrusted little-endian bytes. The first error sticks with its offset; later
 * reads return zero. Invariant: pos <= size. Borrowed data. */
#ifndef QSI_BASE_CURSOR_H
#define QSI_BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_cursor {
    const uint8_t *data;
    size_t size, pos;
    bool failed;
    size_t fail_pos;
} qsi_cursor;

void qsi_cursor_init(qsi_cursor *c, const void *data, size_t size);
uint8_t qsi_cursor_u8(qsi_cursor *c);
uint16_t qsi_cursor_u16(qsi_cursor *c);
uint32_t qsi_cursor_u32(qsi_cursor *c);
uint64_t qsi_cursor_u64(qsi_cursor *c);
float qsi_cursor_f32(qsi_cursor *c);
double qsi_cursor_f64(qsi_cursor *c);
/* n bytes in place, or NULL (and failed) when fewer are left. */
const uint8_t *qsi_cursor_bytes(qsi_cursor *c, uint64_t n);
size_t qsi_cursor_left(const qsi_cursor *c);

#endif
