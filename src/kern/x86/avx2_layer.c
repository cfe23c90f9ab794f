/* Pieces of layers, AVX2: the shared body at this level's width. */
#include "kern/kern_levels.h"
#include "kern/x86/simd256.h"
#include "kern/x86/layer_body.h"

void qsi_kern_fill_avx2_layer(qsi_kern *t) { fill_layer(t); }
