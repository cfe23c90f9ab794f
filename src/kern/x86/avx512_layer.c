/* Pieces of layers, AVX-512: the shared body at this level's width. */
#include "kern/kern_levels.h"
#include "kern/x86/simd512.h"
#include "kern/x86/layer_body.h"

void qsi_kern_fill_avx512_layer(qsi_kern *t) { fill_layer(t); }
