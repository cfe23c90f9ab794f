#include "emulated.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "amx_emul.h"

void emulated_fill_avxvnni_mm_quant(qsi_kern *t);
void emulated_fill_avxvnni_peak(qsi_kern *t);
void emulated_fill_amx_mm_quant(qsi_kern *t);
void emulated_fill_amx_mm_bf16(qsi_kern *t);
void emulated_fill_amx_peak(qsi_kern *t);

void amx_emul_misuse(const char *what) { fail_msg("AMX: %s", what); }

const qsi_kern *emulated_kern(const char *level, const qsi_kern **base) {
    static qsi_kern t;
    bool amx = strcmp(level, "amx") == 0;
    qsi_isa isa = amx ? QSI_ISA_AVX512_VNNI : QSI_ISA_AVX2;
    if (!qsi_cpu_has(isa)) return NULL;
    *base = qsi_kern_get(isa);
    t = **base;
    if (amx) {
        emulated_fill_amx_mm_quant(&t);
        emulated_fill_amx_mm_bf16(&t);
        emulated_fill_amx_peak(&t);
    } else {
        emulated_fill_avxvnni_mm_quant(&t);
        emulated_fill_avxvnni_peak(&t);
    }
    return &t;
}
