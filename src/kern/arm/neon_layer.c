/* Pieces of layers, NEON: the shared body at this level's width. */
#include "kern/kern_levels.h"
#include "kern/arm/simdneon.h"
#include "kern/x86/layer_body.h"

void qsi_kern_fill_neon_layer(qsi_kern *t) { fill_layer(t); }
