/* Numbers and names that nobody can foresee: seeds of requests that name none, names of answers. */
#include <string.h>
#include <sys/random.h>
#include <stdio.h>

#include "serve/call_impl.h"
#include "sys/seed.h"

uint64_t qsi_draw(void) {
    static _Atomic uint64_t n;
    uint64_t x = 0;
    if (getrandom(&x, sizeof x, GRND_NONBLOCK) == (ssize_t)sizeof x) return x;
    x = atomic_fetch_add(&n, 1); /* the system has none yet: different ones at least */
    return qsi_hash_seed(&x, sizeof x, qsi_process_seed() ^ (uint64_t)(uintptr_t)&x);
}

void qsi_draw_name(char out[40], const char *prefix) {
    snprintf(out, 40, "%.15s%016llx%08llx", prefix, (unsigned long long)qsi_draw(),
             (unsigned long long)(qsi_draw() & 0xffffffff));
}
