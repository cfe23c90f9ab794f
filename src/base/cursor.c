/* Bounded reads of untrusted little-endian bytes: `n <= size - pos` before every read, never
 * `pos + n <= size`. After the first failure everything reads as zero. */
#include "base/cursor.h"

#include <string.h>

void qsi_cursor_init(qsi_cursor *c, const void *data, size_t size) {
    c->data = data;
    c->size = size;
    c->pos = 0;
    c->failed = false;
    c->fail_pos = 0;
}

const uint8_t *qsi_cursor_bytes(qsi_cursor *c, uint64_t n) {
    static const uint8_t nothing[1];
    if (c->failed) return NULL;
    if (n > c->size - c->pos) {
        c->failed = true;
        c->fail_pos = c->pos;
        return NULL;
    }
    const uint8_t *p = c->data != NULL ? c->data + c->pos : nothing;
    c->pos += (size_t)n;
    return p;
}

/* An unsigned number of n <= 8 bytes, lowest byte first. */
static uint64_t read_le(qsi_cursor *c, unsigned n) {
    const uint8_t *p = qsi_cursor_bytes(c, n);
    uint64_t v = 0;
    if (p == NULL) return 0;
    for (unsigned i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

uint8_t qsi_cursor_u8(qsi_cursor *c) { return (uint8_t)read_le(c, 1); }
uint16_t qsi_cursor_u16(qsi_cursor *c) { return (uint16_t)read_le(c, 2); }
uint32_t qsi_cursor_u32(qsi_cursor *c) { return (uint32_t)read_le(c, 4); }
uint64_t qsi_cursor_u64(qsi_cursor *c) { return read_le(c, 8); }

float qsi_cursor_f32(qsi_cursor *c) {
    uint32_t bits = qsi_cursor_u32(c);
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

double qsi_cursor_f64(qsi_cursor *c) {
    uint64_t bits = qsi_cursor_u64(c);
    double v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

size_t qsi_cursor_left(const qsi_cursor *c) { return c->failed ? 0 : c->size - c->pos; }
