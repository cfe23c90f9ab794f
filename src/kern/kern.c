/* The tables of all levels, built once by overlaying, and the choice among them. Invariant: a table
 * handed out is complete and never changes. */
#include "kern/kern.h"

#include <stdatomic.h>

#include "base/status.h"
#include "kern/kern_levels.h"
#include "sys/build_levels.h"

static qsi_kern tables[QSI_ISA_COUNT];
static const char *refused[QSI_ISA_COUNT]; /* the product whose bits were wrong; complete with tables */
static atomic_int state; /* 0 empty, 1 being built, 2 complete (release; acquire in get) */

static void overlay(qsi_kern *t, qsi_isa isa) {
    switch (isa) {
    case QSI_ISA_REF:
        qsi_kern_fill_ref_mm(t);
        qsi_kern_fill_ref_mm_quant(t);
        qsi_kern_fill_ref_vec(t);
        qsi_kern_fill_ref_layer(t);
        qsi_kern_fill_ref_attn(t);
        qsi_kern_fill_ref_attn16(t);
        qsi_kern_fill_ref_attn8(t);
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
#if QSI_BUILD_AVXVNNI
    case QSI_ISA_AVXVNNI:
        qsi_kern_fill_avxvnni_mm_quant(t);
        qsi_kern_fill_avxvnni_peak(t);
        break;
#endif
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
        qsi_kern_fill_vnni_attn(t);
        qsi_kern_fill_vnni_peak(t);
        break;
    case QSI_ISA_AVX512_BF16:
        qsi_kern_fill_avx512bf16_mm(t);
        qsi_kern_fill_avx512bf16_vec(t);
        qsi_kern_fill_avx512bf16_attn(t);
        qsi_kern_fill_avx512bf16_peak(t);
        break;
#if QSI_BUILD_AMX
    case QSI_ISA_AMX:
        qsi_kern_fill_amx_mm_quant(t);
        qsi_kern_fill_amx_mm_bf16(t);
        qsi_kern_fill_amx_peak(t);
        break;
#endif
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

/* The level that this one is laid over: the one before it, but AVX-512 knows nothing of AVX-VNNI. */
static int base_of(int isa) {
#ifdef QSI_KERN_X86
    if (isa == QSI_ISA_AVX512) return QSI_ISA_AVX2;
#endif
    return isa - 1;
}

/* Levels that no machine of this project's tests has: checked where they first run. */
static bool is_unproven(int isa) {
#ifdef QSI_KERN_X86
    return isa == QSI_ISA_AVXVNNI || isa == QSI_ISA_AMX;
#else
    return false;
#endif
}

/* No level that the CPU lacks: even the functions that fill its table are compiled with its flags. */
static void build(void) {
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (!qsi_cpu_has((qsi_isa)i)) continue;
        if (i > 0) tables[i] = tables[base_of(i)];
        overlay(&tables[i], (qsi_isa)i);
        if (is_unproven(i)) refused[i] = qsi_kern_settle(&tables[i], &tables[base_of(i)]);
    }
}

static void build_once(void) {
    int expected = 0;
    if (atomic_compare_exchange_strong(&state, &expected, 1)) {
        build();
        atomic_store_explicit(&state, 2, memory_order_release);
    }
    while (atomic_load_explicit(&state, memory_order_acquire) != 2) {}
}

const qsi_kern *qsi_kern_get(qsi_isa isa) {
    QS_CHECK(qsi_cpu_has(isa));
    build_once();
    return &tables[isa];
}

const char *qsi_kern_refused(qsi_isa isa) {
    build_once();
    return (int)isa >= 0 && isa < QSI_ISA_COUNT ? refused[isa] : NULL;
}
