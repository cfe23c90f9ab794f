/* Block formats: ids (those of GGML, as stored in GGUF), sizes, scalar encode and decode. This room
 * is the definition of each type; kernels are checked against it. Thread: any. */
#ifndef QSI_QUANT_H
#define QSI_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum qsi_type {
    QSI_F32 = 0,
    QSI_F16 = 1,
    QSI_Q4_0 = 2,
    QSI_Q8_0 = 8,
    QSI_I8 = 24,
    QSI_I16 = 25,
    QSI_I32 = 26,
    QSI_I64 = 27,
    QSI_F64 = 28,
    QSI_BF16 = 30,
    QSI_TYPE_NONE = -1
} qsi_type;

typedef struct qsi_q4_0 { /* value j of 32: (nibble - 8) * d; j < 16 low nibbles, j+16 high */
    uint16_t d;
    uint8_t qs[16];
} qsi_q4_0;
typedef struct qsi_q8_0 { /* value j of 32: qs[j] * d */
    uint16_t d;
    int8_t qs[32];
} qsi_q8_0;
_Static_assert(sizeof(qsi_q4_0) == 18, "q4_0 is 18 bytes a block");
_Static_assert(sizeof(qsi_q8_0) == 34, "q8_0 is 34 bytes a block");

typedef struct qsi_type_info {
    qsi_type type;
    const char *name; /* "Q8_0" */
    int block;        /* values a block */
    int bytes;        /* bytes a block */
    bool weights;     /* may hold model weights here */
    /* n a multiple of block; NULL where the type is not decoded here. */
    void (*decode)(const void *src, float *dst, int64_t n);
    void (*encode)(const float *src, void *dst, int64_t n);
} qsi_type_info;

/* NULL for an unknown id. Known ids without decode (types this program names but cannot read) have
 * block and bytes set. */
const qsi_type_info *qsi_type_get(int32_t type);
/* By name, case-insensitive ("q8_0"); NULL when unknown. */
const qsi_type_info *qsi_type_find(const char *name);
/* Bytes of a row of n values; false when n is no multiple of the block or on overflow. */
bool qsi_row_bytes(const qsi_type_info *ti, int64_t n, size_t *out);

float qsi_f16_to_f32(uint16_t h);
uint16_t qsi_f32_to_f16(float f);  /* round to nearest even, overflow to infinity */
float qsi_bf16_to_f32(uint16_t h);
uint16_t qsi_f32_to_bf16(float f); /* round to nearest even, NaN kept quiet */

#endif
