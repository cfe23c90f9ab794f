/* Shared by the kernel tests: the level under test (argument 1), memory that ends at an unreadable
 * page, seeded values. A CPU without the level: exit 77, which meson reports as skipped. With
 * QSI_EMULATED the level is one of emulated.h. */
#ifndef KERN_TESTING_H
#define KERN_TESTING_H

#define _DEFAULT_SOURCE /* anonymous mappings */

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kern/kern.h"
#include "quant/quant.h"
#ifdef QSI_EMULATED
#include "emulated.h"
#endif

#define U 5.9604644775390625e-8 /* 2^-24, half a unit in the last place of 1 */
#define TINY 1.1754943508222875e-38 /* smallest normal float: what flushing may lose */

static const qsi_kern *kern;
static qsi_rng rng;

/* n bytes whose last one is the last of a readable page, so that reading or writing one byte more
 * is a fault. The first byte is aligned to nothing in particular. */
static void *guarded(size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (n + page - 1) / page * page;
    char *p = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + whole, page, PROT_NONE), 0);
    return p + (whole - n);
}

static inline void guarded_free(void *p, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (n + page - 1) / page * page;
    assert_int_equal(munmap((char *)p - (whole - n), whole + page), 0);
}

/* Normal values, a few of them large, tiny or zero. */
static inline float random_value(void) {
    float x = (float)qsi_rng_normal(&rng);
    switch (qsi_rng_below(&rng, 32)) {
    case 0: return x * 1e4f;
    case 1: return x * 1e-6f;
    case 2: return 0.0f;
    default: return x;
    }
}

static inline float *random_floats(size_t n) {
    float *x = guarded(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_value();
    return x;
}

static inline void floats_free(float *x, size_t n) { guarded_free(x, n * sizeof *x); }

/* Sets kern; returns 0, or the exit code to leave with. */
static inline int level_from_args(int argc, char **argv) {
    qsi_rng_init(&rng, 2024);
#ifdef QSI_EMULATED
    const qsi_kern *base;
    kern = argc > 1 ? emulated_kern(argv[1], &base) : NULL;
    if (kern != NULL) return 0;
    fprintf(stderr, "skipped: this CPU lacks the level below\n");
    return 77;
#else
    qs_err err = {0};
    qsi_isa isa;
    qs_status st = qsi_isa_parse(argc > 1 ? argv[1] : "auto", &isa, &err);
    if (st == QS_E_UNSUPPORTED) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return 77;
    }
    if (st != QS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    kern = qsi_kern_get(isa);
    return 0;
#endif
}

#endif
