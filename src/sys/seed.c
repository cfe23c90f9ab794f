/* Linux gives every program 16 random bytes when it starts (AT_RANDOM, getauxval(3)). Their second half
 * is taken: the C library makes its stack canary of the first. Elsewhere the time and where things lie
 * in memory must do. */
#include "sys/seed.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

#include "base/hash.h"
#include "sys/file.h"

static _Atomic uint64_t chosen;
static atomic_bool is_chosen;

static uint64_t draw(void) {
    uint64_t from[2] = {(uint64_t)qsi_now_ns(), (uint64_t)(uintptr_t)&from};
#ifdef __linux__
    const char *random = (const char *)(uintptr_t)getauxval(AT_RANDOM);
    if (random != NULL) {
        memcpy(from, random + 8, 8);
        from[1] = 0;
    }
#endif
    return qsi_hash(from, sizeof from);
}

/* Two threads that ask first at once: the one that is later takes what the other drew. */
uint64_t qsi_process_seed(void) {
    if (!atomic_load(&is_chosen)) {
        uint64_t none = 0, s = draw() | 1;
        (void)atomic_compare_exchange_strong(&chosen, &none, s);
        atomic_store(&is_chosen, true);
    }
    return atomic_load(&chosen);
}

void qsi_process_seed_set(uint64_t seed) {
    atomic_store(&chosen, seed);
    atomic_store(&is_chosen, true);
}
