/* Tables of levels whose instructions are emulated, so that their kernels run on CPUs without them. */
#ifndef EMULATED_H
#define EMULATED_H

#include "kern/kern.h"

/* "amx" over vnni, "avxvnni" over avx2. NULL: the CPU lacks the level below. *base: that level's. */
const qsi_kern *emulated_kern(const char *level, const qsi_kern **base);

#endif
