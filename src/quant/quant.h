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
    QSI_Q4_1 = 3,
    QSI_Q5_0 = 6,
    QSI_Q5_1 = 7,
    QSI_Q8_0 = 8,
    QSI_Q2_K = 10,
    QSI_Q3_K = 11,
    QSI_Q4_K = 12,
    QSI_Q5_K = 13,
    QSI_Q6_K = 14,
    QSI_IQ4_NL = 20,
    QSI_IQ4_XS = 23,
    QSI_I8 = 24,
    QSI_I16 = 25,
    QSI_I32 = 26,
    QSI_I64 = 27,
    QSI_F64 = 28,
    QSI_BF16 = 30,
    QSI_MXFP4 = 39,
    QSI_TYPE_NONE = -1
} qsi_type;

/* Blocks of 32. Nibbles: value j < 16 is the low half of qs[j], value j + 16 the high half. Fifth
 * bits: bit j of the 32-bit little-endian number qh belongs to value j. */
typedef struct qsi_q4_0 { /* (q - 8) * d */
    uint16_t d;
    uint8_t qs[16];
} qsi_q4_0;
typedef struct qsi_q4_1 { /* q * d + m */
    uint16_t d, m;
    uint8_t qs[16];
} qsi_q4_1;
typedef struct qsi_q5_0 { /* (q - 16) * d */
    uint16_t d;
    uint8_t qh[4], qs[16];
} qsi_q5_0;
typedef struct qsi_q5_1 { /* q * d + m */
    uint16_t d, m;
    uint8_t qh[4], qs[16];
} qsi_q5_1;
typedef struct qsi_q8_0 { /* value j of 32: qs[j] * d */
    uint16_t d;
    int8_t qs[32];
} qsi_q8_0;
typedef struct qsi_iq4_nl { /* qsi_iq4_values[q] * d */
    uint16_t d;
    uint8_t qs[16];
} qsi_iq4_nl;

typedef struct qsi_mxfp4 { /* qsi_mxfp4_values[q] * 2^(e - 128): OCP's E2M1, here twice as large */
    uint8_t e, qs[16];
} qsi_mxfp4;

/* Blocks of 256: groups of 16 or 32 values, each with a small scale of its own.
 * Two-bit fields of Q2_K and Q3_K: value 128 h + 32 s + l (h < 2, s < 4, l < 32) is bits 2s and
 * 2s + 1 of qs[32 h + l]. Nibbles of Q4_K and Q5_K: value 64 c + l (l < 32) is the low half of
 * qs[32 c + l], value 64 c + 32 + l the high half. */
typedef struct qsi_q2_k { /* group g of 16: d * (scales[g] & 15) * q - dmin * (scales[g] >> 4) */
    uint8_t scales[16], qs[64];
    uint16_t d, dmin;
} qsi_q2_k;
typedef struct qsi_q3_k { /* group g of 16: d * sc[g] * (q - 4), sc by qsi_q3k_scales; the third bit
                           * of value 32 s + l (s < 8) is bit s of hmask[l] */
    uint8_t hmask[32], qs[64], scales[12];
    uint16_t d;
} qsi_q3_k;
typedef struct qsi_q4_k { /* group g of 32: d * sc[g] * q - dmin * mn[g], by qsi_q4k_scales */
    uint16_t d, dmin;
    uint8_t scales[12], qs[128];
} qsi_q4_k;
typedef struct qsi_q5_k { /* as Q4_K; the fifth bit of value 32 g + l is bit g of qh[l] */
    uint16_t d, dmin;
    uint8_t scales[12], qh[32], qs[128];
} qsi_q5_k;
typedef struct qsi_q6_k { /* group g of 16: d * scales[g] * (q - 32). Value 128 h + 32 s + l: low four
                           * bits in ql[64 h + 32 (s & 1) + l], low half for s < 2; high two in bits
                           * 2s and 2s + 1 of qh[32 h + l] */
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint16_t d;
} qsi_q6_k;
typedef struct qsi_iq4_xs { /* group g of 32: d * (sc[g] - 32) * qsi_iq4_values[q], by qsi_iq4xs_scales;
                             * nibbles of a group as in blocks of 32, at qs[16 g] */
    uint16_t d, scales_h;
    uint8_t scales_l[4], qs[128];
} qsi_iq4_xs;
_Static_assert(sizeof(qsi_q4_0) == 18, "q4_0 is 18 bytes a block");
_Static_assert(sizeof(qsi_q4_1) == 20, "q4_1 is 20 bytes a block");
_Static_assert(sizeof(qsi_q5_0) == 22, "q5_0 is 22 bytes a block");
_Static_assert(sizeof(qsi_q5_1) == 24, "q5_1 is 24 bytes a block");
_Static_assert(sizeof(qsi_q8_0) == 34, "q8_0 is 34 bytes a block");
_Static_assert(sizeof(qsi_iq4_nl) == 18, "iq4_nl is 18 bytes a block");
_Static_assert(sizeof(qsi_mxfp4) == 17, "mxfp4 is 17 bytes a block");
_Static_assert(sizeof(qsi_iq4_xs) == 136, "iq4_xs is 136 bytes a block");
_Static_assert(sizeof(qsi_q2_k) == 84, "q2_k is 84 bytes a block");
_Static_assert(sizeof(qsi_q3_k) == 110, "q3_k is 110 bytes a block");
_Static_assert(sizeof(qsi_q4_k) == 144, "q4_k is 144 bytes a block");
_Static_assert(sizeof(qsi_q5_k) == 176, "q5_k is 176 bytes a block");
_Static_assert(sizeof(qsi_q6_k) == 210, "q6_k is 210 bytes a block");

extern const int8_t qsi_iq4_values[16];
extern const int8_t qsi_mxfp4_values[16];
/* 2^(e - 128); e = 0 and 1 are below the normal floats, 255 is 2^127 as in ggml. */
float qsi_mxfp4_scale(uint8_t e);
/* The packed 6-bit numbers of Q4_K and Q5_K (scales and minima of eight groups), and those of Q3_K
 * (16 scales, -32 .. 31). */
void qsi_q4k_scales(const uint8_t s[12], uint8_t sc[8], uint8_t mn[8]);
void qsi_q3k_scales(const uint8_t s[12], int8_t sc[16]);
/* Those of IQ4_XS, -32 .. 31. */
void qsi_iq4xs_scales(uint16_t high, const uint8_t low[4], int8_t sc[8]);

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
/* For types that are known but not computed with (IQ1_S to IQ3_S, TQ1_0, ...): the name of the type to
 * make from the original weights instead; "" for others. */
const char *qsi_type_instead(const qsi_type_info *ti);
/* Whether weights of this type can be computed with; QS_E_UNSUPPORTED names `tensor`, the type and what
 * to take instead. ti may be NULL. */
qs_status qsi_type_runs(const qsi_type_info *ti, const char *tensor, qs_err *err) QS_MUST_CHECK;
/* Bytes of a row of n values; false when n is no multiple of the block or on overflow. */
bool qsi_row_bytes(const qsi_type_info *ti, int64_t n, size_t *out);

float qsi_f16_to_f32(uint16_t h);
uint16_t qsi_f32_to_f16(float f);  /* round to nearest even, overflow to infinity */
float qsi_bf16_to_f32(uint16_t h);
uint16_t qsi_f32_to_bf16(float f); /* round to nearest even, NaN kept quiet */

#endif
