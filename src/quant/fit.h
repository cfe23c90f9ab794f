/* Encoders that search for the scales that lose least. Thread: any. */
#ifndef QSI_QUANT_FIT_H
#define QSI_QUANT_FIT_H

#include "quant/quant.h"

/* As ti->encode, but what is least is the sum of importance * (value - what is read back)^2, and then
 * every block is made as long along its values as they are: the sums of importance * value * what is
 * read back and of importance * value^2 become alike (not MXFP4's, whose scales are powers of 2).
 * importance: n values at least 0, or NULL: all count alike, in Q3_K and MXFP4 large values more. Types
 * without a search (F32 to BF16, Q8_0), and blocks whose values are no numbers, are encoded as by
 * encode. n a multiple of the block. */
void qsi_quant_fit(const qsi_type_info *ti, const float *src, const float *importance, void *dst,
                   int64_t n);

#endif
