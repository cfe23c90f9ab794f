/* Hand-made GGUF files for tests: every field is written by the test, so that any of them can lie.
 */
#ifndef TESTS_GGUF_BYTES_H
#define TESTS_GGUF_BYTES_H

#include <stdint.h>
#include <string.h>

#include "fmt/gguf.h"

typedef struct bytes {
    uint8_t p[1 << 14];
    size_t n;
} bytes;

static inline void add(bytes *b, const void *p, size_t n) {
    QS_CHECK(n <= sizeof b->p - b->n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void add_le(bytes *b, uint64_t v, int n) {
    for (int i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(v >> (8 * i));
        add(b, &byte, 1);
    }
}

static inline void add_str(bytes *b, const char *z) {
    add_le(b, strlen(z), 8);
    add(b, z, strlen(z));
}

static inline void add_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    b->n = 0;
    add(b, "GGUF", 4);
    add_le(b, version, 4);
    add_le(b, n_tensors, 8);
    add_le(b, n_kv, 8);
}

static inline void add_key(bytes *b, const char *key, uint32_t type) {
    add_str(b, key);
    add_le(b, type, 4);
}

static inline void add_info(bytes *b, const char *name, uint32_t n_dims, const uint64_t *ne,
                            uint32_t type, uint64_t offset) {
    add_str(b, name);
    add_le(b, n_dims, 4);
    for (uint32_t d = 0; d < n_dims && d < 8; d++) add_le(b, ne[d], 8);
    add_le(b, type, 4);
    add_le(b, offset, 8);
}

static inline void pad_to(bytes *b, size_t multiple) {
    while (b->n % multiple != 0) add_le(b, 0, 1);
}

/* A sound file with every value type, three tensors, 96 bytes of data. */
static inline void sound_file(bytes *b) {
    static const uint64_t ne_a[2] = {8, 2}, ne_b[1] = {4}, ne_c[1] = {32};
    add_head(b, 3, 3, 17);
    add_key(b, "general.architecture", QSI_GV_STR);
    add_str(b, "llama");
    add_key(b, "general.alignment", QSI_GV_U32);
    add_le(b, 32, 4);
    static const int width[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    for (uint32_t t = 0; t <= QSI_GV_F64; t++) {
        char key[] = "scalar.a";
        if (t == QSI_GV_STR || t == QSI_GV_ARR) continue;
        key[7] = (char)('a' + t);
        add_key(b, key, t);
        add_le(b, t == QSI_GV_F32 ? 0x3fc00000u : t == QSI_GV_F64 ? 0x3ff8000000000000u
               : t == QSI_GV_BOOL ? 1 : UINT64_MAX - 4, width[t]);
    }
    add_key(b, "list.text", QSI_GV_ARR);
    add_le(b, QSI_GV_STR, 4);
    add_le(b, 3, 8);
    add_str(b, "one");
    add_str(b, "");
    add_str(b, "三");
    add_key(b, "list.number", QSI_GV_ARR);
    add_le(b, QSI_GV_I16, 4);
    add_le(b, 2, 8);
    add_le(b, 7, 2);
    add_le(b, 0xfffe, 2);
    add_key(b, "list.bool", QSI_GV_ARR);
    add_le(b, QSI_GV_BOOL, 4);
    add_le(b, 2, 8);
    add_le(b, 0x0100, 2);
    add_key(b, "list.float", QSI_GV_ARR);
    add_le(b, QSI_GV_F32, 4);
    add_le(b, 1, 8);
    add_le(b, 0xc0000000u, 4);
    add_info(b, "a", 2, ne_a, QSI_F16, 0);
    add_info(b, "b", 1, ne_b, QSI_F32, 32);
    add_info(b, "c", 1, ne_c, QSI_Q4_0, 64);
    pad_to(b, 32);
    for (int i = 0; i < 64 + 18; i++) add_le(b, (uint64_t)i, 1);
}

#endif
