/* XXH3, 64 bits, from libxxhash. The values are stable across machines: files store them. */
#include "base/hash.h"

#include <xxhash.h>

uint64_t qsi_hash(const void *p, size_t n) { return XXH3_64bits(p, n); }

uint64_t qsi_hash_seed(const void *p, size_t n, uint64_t seed) {
    return XXH3_64bits_withSeed(p, n, seed);
}
