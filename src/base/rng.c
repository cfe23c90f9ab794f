/* Random numbers: xoshiro256++ 1.0 (Blackman, Vigna: Scrambled linear pseudorandom number
 * generators, 2019), its state filled by splitmix64 as its authors advise; bounded numbers by
 * Lemire's multiplication (Fast random integer generation in an interval, 2019). */
#include <math.h>

#include "base/hash.h"
#include "base/status.h"

#define GOLDEN_GAMMA UINT64_C(0x9E3779B97F4A7C15)

static uint64_t rotl(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* splitmix64's output function. */
static uint64_t mix64(uint64_t z) {
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

static uint64_t splitmix64(uint64_t *x) {
    *x += GOLDEN_GAMMA;
    return mix64(*x);
}

void qsi_rng_init(qsi_rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) r->s[i] = splitmix64(&seed);
}

void qsi_rng_init_stream(qsi_rng *r, uint64_t seed, uint64_t stream) {
    /* Two rounds: seed and stream are both spread over all bits before they meet. */
    uint64_t x = seed;
    uint64_t a = splitmix64(&x);
    uint64_t y = stream + GOLDEN_GAMMA;
    qsi_rng_init(r, mix64(a ^ splitmix64(&y)));
}

uint64_t qsi_rng_u64(qsi_rng *r) {
    uint64_t *s = r->s;
    uint64_t out = rotl(s[0] + s[3], 23) + s[0];
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

uint64_t qsi_rng_below(qsi_rng *r, uint64_t n) {
    QS_ASSERT(n > 0);
    if (n == 0) return 0;
    unsigned __int128 m = (unsigned __int128)qsi_rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t reject = (0 - n) % n;
        while ((uint64_t)m < reject) m = (unsigned __int128)qsi_rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

double qsi_rng_f64(qsi_rng *r) { return (double)(qsi_rng_u64(r) >> 11) * 0x1p-53; }

float qsi_rng_f32(qsi_rng *r) { return (float)(qsi_rng_u64(r) >> 40) * 0x1p-24f; }

double qsi_rng_normal(qsi_rng *r) {
    const double two_pi = 6.283185307179586476925286766559;
    double u = 1.0 - qsi_rng_f64(r); /* (0, 1]: the logarithm is finite */
    double v = qsi_rng_f64(r);
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}
