/* Hashing (XXH3) and seeded random numbers. Thread: any; an rng has one owner. */
#ifndef QSI_BASE_HASH_H
#define QSI_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t qsi_hash(const void *p, size_t n);
uint64_t qsi_hash_seed(const void *p, size_t n, uint64_t seed);

/* xoshiro256++ (Blackman, Vigna 2019), seeded by splitmix64. The state is plain data: a checkpoint
 * stores it as it is. */
typedef struct qsi_rng {
    uint64_t s[4];
} qsi_rng;
void qsi_rng_init(qsi_rng *r, uint64_t seed);
/* A stream of its own for (seed, stream): tensors, data order and sampling never share one. */
void qsi_rng_init_stream(qsi_rng *r, uint64_t seed, uint64_t stream);
uint64_t qsi_rng_u64(qsi_rng *r);
/* Uniform in [0, n), n > 0, without bias. */
uint64_t qsi_rng_below(qsi_rng *r, uint64_t n);
/* Uniform in [0, 1) with 53 bits / 24 bits. */
double qsi_rng_f64(qsi_rng *r);
float qsi_rng_f32(qsi_rng *r);
/* Standard normal (Box-Muller; two draws a value, no hidden state). */
double qsi_rng_normal(qsi_rng *r);

#endif
