/* What the CPU's level is said to be: argument 1 is the level it must have. */
#include <stdio.h>
#include <string.h>

#include "kern/kern.h"
#include "sys/cpu.h"

int main(int argc, char **argv) {
    const char *is = qsi_isa_name(qsi_cpu_isa());
    if (argc != 2 || strcmp(is, argv[1]) != 0) {
        fprintf(stderr, "the CPU has level %s, not %s\n", is, argc > 1 ? argv[1] : "?");
        return 1;
    }
    return qsi_kern_get(qsi_cpu_isa())->isa == qsi_cpu_isa() ? 0 : 1;
}
