/* Tensors for small programs: float32 arrays of up to six dimensions with the operations that neural
 * layers are written with. Unstable until 1.0.
 *
 * Values lie row-major: the last dimension is contiguous. A permuted tensor is a view: it shares its
 * values with the tensor it came from, and either may be freed first. Operations give new tensors
 * (owned by the caller, qs_tensor_free) except those that say "in place".
 * Shapes that do not fit: QS_E_ARG with both shapes in the text. No argument is changed on failure.
 * Products run on the CPU's best level; the order of every sum is fixed, so that a result does not
 * depend on neighbours. Thread: any, but for tensors that share values one at a time. */
#ifndef QIUSUO_TENSOR_H
#define QIUSUO_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define QS_TENSOR_MAX_DIMS 6

typedef struct qs_tensor qs_tensor;

/* ---- making, reading -------------------------------------------------------------------------- */

/* All zero. Every dim at least 1. */
QS_API qs_status qs_tensor_create(qs_tensor **t, int n_dims, const int64_t *dims, qs_err *err)
    QS_MUST_CHECK;
/* From row-major values, copied. */
QS_API qs_status qs_tensor_from(qs_tensor **t, int n_dims, const int64_t *dims, const float *values,
                                qs_err *err) QS_MUST_CHECK;
/* Accepts NULL. */
QS_API void qs_tensor_free(qs_tensor *t);

QS_API int qs_tensor_n_dims(const qs_tensor *t);
QS_API int64_t qs_tensor_dim(const qs_tensor *t, int i);
/* How many values. */
QS_API int64_t qs_tensor_size(const qs_tensor *t);
/* The value at index[n_dims]; every index in range. */
QS_API float qs_tensor_at(const qs_tensor *t, const int64_t *index);
/* All values row-major into out[qs_tensor_size]. */
QS_API void qs_tensor_read(const qs_tensor *t, float *out);
/* Their sum, in double, row-major order. */
QS_API double qs_tensor_sum(const qs_tensor *t);
/* "(64, 10, 256)" in buf; returns buf. */
QS_API char *qs_tensor_shape(const qs_tensor *t, char *buf, size_t cap);

/* In place: lo + (hi - lo) * u, in float, row-major order; u = (x >> 40) * 2^-24 for the numbers x of
 * xoshiro256++ (Blackman, Vigna 2019). Its state is four numbers of splitmix64 started at
 * mix(a ^ b), where mix is splitmix64's output function, a the first number of splitmix64 started at
 * `seed`, b the first of it started at `stream` + 0x9E3779B97F4A7C15. Equal (seed, stream) give equal
 * numbers on every machine. */
QS_API void qs_tensor_random(qs_tensor *t, uint64_t seed, uint64_t stream, float lo, float hi);

/* ---- shapes ----------------------------------------------------------------------------------- */

/* The same values in another shape of the same size. A view where the values already lie
 * row-major, else a copy. */
QS_API qs_status qs_tensor_reshape(qs_tensor **out, const qs_tensor *t, int n_dims,
                                   const int64_t *dims, qs_err *err) QS_MUST_CHECK;
/* A view whose dim i is dim order[i] of t; order is a permutation of 0 .. n_dims-1. */
QS_API qs_status qs_tensor_permute(qs_tensor **out, const qs_tensor *t, const int *order,
                                   qs_err *err) QS_MUST_CHECK;

/* ---- operations ------------------------------------------------------------------------------- */

/* y = x Wᵀ + b on the last dimension: x [..., k], w [n, k], bias [n] or NULL; out [..., n]. */
QS_API qs_status qs_tensor_linear(qs_tensor **out, const qs_tensor *x, const qs_tensor *w,
                                  const qs_tensor *bias, qs_err *err) QS_MUST_CHECK;
/* a [..., m, k] times b [..., k, n]: [..., m, n]; the dims in front are equal. */
QS_API qs_status qs_tensor_matmul(qs_tensor **out, const qs_tensor *a, const qs_tensor *b,
                                  qs_err *err) QS_MUST_CHECK;
/* a + b; the dims of b are those of a or 1 (aligned at the last; missing ones count as 1). */
QS_API qs_status qs_tensor_add(qs_tensor **out, const qs_tensor *a, const qs_tensor *b, qs_err *err)
    QS_MUST_CHECK;
/* In place: t = factor * t. */
QS_API void qs_tensor_scale(qs_tensor *t, float factor);
/* In place: value where the mask is 0. The mask's shape as in add. */
QS_API qs_status qs_tensor_masked_fill(qs_tensor *t, const qs_tensor *mask, float value, qs_err *err)
    QS_MUST_CHECK;
/* In place: softmax over the last dimension. */
QS_API qs_status qs_tensor_softmax(qs_tensor *t, qs_err *err) QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
