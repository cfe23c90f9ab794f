/* A number that every process draws anew: hash tables which strangers fill are seeded with it, so that
 * nobody can choose names that all fall on one slot. What a table answers must not depend on it, and
 * nothing that is stored may. Thread: any. */
#ifndef QSI_SYS_SEED_H
#define QSI_SYS_SEED_H

#include <stdint.h>

uint64_t qsi_process_seed(void);
/* For tests: the seed of tables that are made from now on. */
void qsi_process_seed_set(uint64_t seed);

#endif
