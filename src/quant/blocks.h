/* Between the files of this room: the codecs that the table in types.c lists. */
#ifndef QSI_QUANT_BLOCKS_H
#define QSI_QUANT_BLOCKS_H

#include "quant/quant.h"

static inline uint16_t qsi_load16(const void *p) {
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline void qsi_store16(void *p, uint16_t v) {
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

#define QSI_CODEC(name)                                                                            \
    void qsi_decode_##name(const void *src, float *dst, int64_t n);                                \
    void qsi_encode_##name(const float *src, void *dst, int64_t n)

QSI_CODEC(q4_0);
QSI_CODEC(q4_1);
QSI_CODEC(q5_0);
QSI_CODEC(q5_1);
QSI_CODEC(q8_0);
QSI_CODEC(iq4_nl);
QSI_CODEC(mxfp4);
QSI_CODEC(q2_k);
QSI_CODEC(q3_k);
QSI_CODEC(q4_k);
QSI_CODEC(q5_k);
QSI_CODEC(q6_k);
QSI_CODEC(iq4_xs);

/* What a block is made of, before it is packed: a type uses what it has. q is the code as stored
 * (signed steps plus half, an index of a table); dmin of Q4_1 and Q5_1 is what is stored as m, d of
 * MXFP4 the exponent. */
enum { QSI_PARTS_MOST = 256 };
typedef struct qsi_parts {
    uint16_t d, dmin;
    int8_t sc[16];
    uint8_t mn[16], q[QSI_PARTS_MOST];
} qsi_parts;
#define QSI_PACK(name) void qsi_pack_##name(const qsi_parts *p, void *dst)
QSI_PACK(q4_0);
QSI_PACK(q4_1);
QSI_PACK(q5_0);
QSI_PACK(q5_1);
QSI_PACK(iq4_nl);
QSI_PACK(mxfp4);
QSI_PACK(q2_k);
QSI_PACK(q3_k);
QSI_PACK(q4_k);
QSI_PACK(q5_k);
QSI_PACK(q6_k);
QSI_PACK(iq4_xs);

/* The step of qsi_iq4_values next to v. */
uint8_t qsi_iq4_step(float v);
/* The code of the value next to x for the scale d, a power of two. */
uint8_t qsi_mxfp4_step(float x, float d);

#endif
