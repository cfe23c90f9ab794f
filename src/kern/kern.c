/* The tables of all levels, built once by overlaying, and the choice among them. Invariant: a table
 * handed out is complete and never changes. */
#include "kern/kern.h"

#include <stdatomic.h>

#include "base/status.h"
#include "kern/kern_levels.h"

static qsi_kern tables[QSI_ISA_COUNT];
static atomic_int state; /* 0 empty, 1 being built, 2 complete (release; acquire in get) */

static void overlay(qsi_kern *t, qsi_isa isa) {
    switch (isa) {
    case QSI_ISA_REF:
        qsi_kern_fill_ref_mm(t);
        qsi_kern_fill_ref_mm_quant(t);
        qsi_kern_fill_ref_vec(t);
        qsi_kern_fill_ref_layer(t);
        qsi_kern_fill_ref_attn(t);
        qsi_kern_fill_ref_peak(t);
        break;
#ifdef QSI_KERN_X86
    case QSI_ISA_AVX2:
        qsi_kern_fill_avx2_mm_f32(t);
        qsi_kern_fill_avx2_mm_f16(t);
        qsi_kern_fill_avx2_mm_bf16(t);
        qsi_kern_fill_avx2_mm_quant(t);
        qsi_kern_fill_avx2_vec(t);
        qsi_kern_fill_avx2_layer(t);
        qsi_kern_fill_avx2_attn(t);
        qsi_kern_fill_avx2_peak(t);
        break;
    case QSI_ISA_AVX512:
        qsi_kern_fill_avx512_pack(t);
        qsi_kern_fill_avx512_mm_f32(t);
        qsi_kern_fill_avx512_mm_f16(t);
        qsi_kern_fill_avx512_mm_bf16(t);
        qsi_kern_fill_avx512_mm_quant(t);
        qsi_kern_fill_avx512_vec(t);
        qsi_kern_fill_avx512_layer(t);
        qsi_kern_fill_avx512_attn(t);
        qsi_kern_fill_avx512_peak(t);
        break;
    case QSI_ISA_AVX512_VNNI:
        qsi_kern_fill_vnni_mm_quant(t);
        qsi_kern_fill_vnni_peak(t);
        break;
    case QSI_ISA_AVX512_BF16:
        qsi_kern_fill_avx512bf16_mm(t);
        qsi_kern_fill_avx512bf16_vec(t);
        qsi_kern_fill_avx512bf16_peak(t);
        break;
#endif
#ifdef QSI_KERN_ARM
    case QSI_ISA_NEON:
        qsi_kern_fill_neon_mm_f32(t);
        qsi_kern_fill_neon_mm_f16(t);
        qsi_kern_fill_neon_mm_bf16(t);
        qsi_kern_fill_neon_mm_quant(t);
        qsi_kern_fill_neon_mm_exact(t);
        qsi_kern_fill_neon_vec(t);
        qsi_kern_fill_neon_layer(t);
        qsi_kern_fill_neon_attn(t);
        break;
    case QSI_ISA_DOTPROD: qsi_kern_fill_dotprod_mm_quant(t); break;
    case QSI_ISA_I8MM: qsi_kern_fill_i8mm_mm_quant(t); break;
#endif
    default: break;
    }
    t->isa = isa;
}

/* No level above the CPU's: even the functions that fill its table are compiled with its flags. */
static void build(void) {
    for (int i = 0; i <= (int)qsi_cpu_isa(); i++) {
        if (i > 0) tables[i] = tables[i - 1];
        overlay(&tables[i], (qsi_isa)i);
    }
}

const qsi_kern *qsi_kern_get(qsi_isa isa) {
    QS_CHECK((int)isa >= 0 && isa < QSI_ISA_COUNT && isa <= qsi_cpu_isa());
    int expected = 0;
    if (atomic_compare_exchange_strong(&state, &expected, 1)) {
        build();
        atomic_store_explicit(&state, 2, memory_order_release);
    }
    while (atomic_load_explicit(&state, memory_order_acquire) != 2) {}
    return &tables[isa];
}
