/* The self-check: levels that are right pass it, a level that is wrong anywhere is replaced. Argument 1
 * may name a level whose instructions are emulated. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kern/kern_levels.h"
#ifdef QSI_EMULATED
#include "amx_emul.h"
#include "emulated.h"
#endif

static const qsi_kern *base;
static qsi_kern_mm real;
static int64_t wrong_from; /* rows of a product that comes out wrong */

/* Right but for the last bit of one element. */
static void wrong(int64_t m, int64_t n, int64_t k, int64_t p0, int64_t p1, const void *a, size_t lda,
                  const void *packed, float *c, int64_t ldc, bool add) {
    real.run(m, n, k, p0, p1, a, lda, packed, c, ldc, add);
    uint32_t bits;
    if (m < wrong_from) return;
    memcpy(&bits, &c[n / 2], 4);
    bits ^= 1;
    memcpy(&c[n / 2], &bits, 4);
}

/* Every level this CPU has gives the bits of ref. */
static void levels_agree(void **state) {
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (!qsi_cpu_has((qsi_isa)i)) continue;
        qsi_kern t = *qsi_kern_get((qsi_isa)i);
        const char *name = qsi_kern_settle(&t, qsi_kern_get(QSI_ISA_REF));
        if (name != NULL) fail_msg("%s: %s", qsi_isa_name((qsi_isa)i), name);
        assert_int_equal(t.isa, i);
        assert_null(qsi_kern_refused((qsi_isa)i));
    }
    assert_null(qsi_kern_refused(QSI_ISA_COUNT));
    assert_null(qsi_kern_refused((qsi_isa)-1));
}

static void wrong_is_found(void **state) {
    static const struct {
        qsi_mm kind;
        int64_t from;
        const char *name;
    } t[] = {{QSI_MM_Q8_0, 1, "Q8_0"}, {QSI_MM_Q4_K, 2, "Q4_K"}, {QSI_MM_Q6_K, 2, "Q6_K"},
             {QSI_MM_IQ4_XS, 2, "IQ4_XS"}, {QSI_MM_BF16, 2, "BF16"}};
    for (size_t i = 0; i < QSI_COUNT(t); i++) {
        qsi_kern k = *base;
        k.isa = QSI_ISA_COUNT;
        real = k.mm[t[i].kind];
        k.mm[t[i].kind].run = wrong;
        wrong_from = t[i].from;
        const char *name = qsi_kern_settle(&k, base);
        assert_non_null(name);
        assert_string_equal(name, t[i].name);
        assert_memory_equal(&k, base, sizeof k); /* the level below */
    }
}

#ifdef QSI_EMULATED
static const char *level;

static void emulated_agrees(void **state) {
    qsi_kern t = *emulated_kern(level, &base);
    const char *name = qsi_kern_settle(&t, base);
    if (name != NULL) fail_msg("%s", name);
    assert_ptr_not_equal(t.mm[QSI_MM_Q4_K].run, base->mm[QSI_MM_Q4_K].run);
    assert_true(amx_emul_idle()); /* tiles were given back */
}

static void peaks(void **state) {
    const qsi_kern *t = emulated_kern(level, &base);
    float x = 0.5f;
    int64_t once = t->peak_int8(1, &x), bf16 = t->peak_bf16(1, &x);
    assert_true(once >= 2 * 32 && bf16 >= 2);
    assert_int_equal(t->peak_int8(3, &x), 3 * once);
    assert_int_equal(t->peak_bf16(3, &x), 3 * bf16);
    assert_true(amx_emul_idle());
}
#endif

int main(int argc, char **argv) {
    base = qsi_kern_get(qsi_cpu_isa());
#ifdef QSI_EMULATED
    level = argc > 1 ? argv[1] : "amx";
    if (emulated_kern(level, &base) == NULL) {
        fprintf(stderr, "skipped: this CPU lacks the level below %s\n", level);
        return 77;
    }
#endif
    const struct CMUnitTest tests[] = {
#ifdef QSI_EMULATED
        cmocka_unit_test(emulated_agrees),
        cmocka_unit_test(peaks),
#endif
        cmocka_unit_test(levels_agree),
        cmocka_unit_test(wrong_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
