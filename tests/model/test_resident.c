/* Weights are held once: a model of some 100 MB in a file takes about its size of resident memory when
 * it is opened, at the peak too, and no more after steps. Resident memory counts pages of the file
 * that are mapped in, so that a second copy in the mapping shows. The same while a repacked copy is
 * written, and when it is mapped. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/packed.h"
#include "large_model.h"
#include "../sys/tmpdir.h"

static qsi_config config_of(qsi_arch arch) {
    qsi_config c = {.arch = arch, .n_vocab = 2000, .n_layer = 6, .d_model = 1024, .n_head = 16,
                    .n_kv_head = 16, .head_dim = 64, .d_ff = 4096, .n_ctx = 256, .rms_eps = 1e-6f,
                    .rope_theta = 10000.0f, .rope_factor = 1.0f, .expert_scale = 1.0f};
    if (arch == QSI_ARCH_DEEPSEEK) {
        c.n_dense = 1;
        c.n_expert = 12;
        c.n_expert_used = 2;
        c.n_shared = 2;
        c.d_expert = 640;
    }
    return c;
}

static void step(qsi_model *m) {
    qs_err err = {0};
    qsi_kv *kv = NULL;
    qsi_kv_table t = {0};
    float *z = qsi_alloc((size_t)qsi_model_config(m)->n_vocab, sizeof *z);
    if (qsi_kv_create(&kv, qsi_model_config(m), QSI_F16, 1, &err) != QS_OK ||
        qsi_kv_reserve(kv, &t, 8, &err) != QS_OK)
        fail_msg("%s", err.text);
    qsi_row rows[8];
    for (int i = 0; i < 8; i++)
        rows[i] = (qsi_row){.id = 200 * i, .pos = i, .logits = i == 7};
    qsi_step s = {.rows = rows, .n_rows = 8, .kv = kv, .tables = &t, .n_tables = 1, .logits = z};
    if (qsi_model_step(m, &s, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_kv_table_release(kv, &t);
    qsi_kv_free(kv);
    qsi_free(z);
}

/* The peak counts from now on; false where the system does not allow that. */
static bool reset_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    bool ok = f && fputs("5", f) >= 0;
    if (f) ok = fclose(f) == 0 && ok;
    return ok;
}

/* At most 5 % over the file: when it is opened, at the peak, and after a step. */
static void check_open(const char *path, const char *packed) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_pool *pool = NULL;
    qsi_model *m = NULL;
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
#ifdef __GLIBC__
    malloc_trim(0); /* what earlier models left in the heap would be taken again, and not count */
#endif
    reset_peak();
    double before = status_bytes("VmRSS:");
    if (qsi_gguf_open(&g, path, &err) != QS_OK) fail_msg("%s", err.text);
    double file = (double)qsi_gguf_size(g);
    qsi_model_opts o = {.pool = pool, .isa = qsi_cpu_isa(), .max_rows = 8, .packed_path = packed};
    if (qsi_model_open(&m, g, &o, &err) != QS_OK) fail_msg("%s", err.text);
    double opened = status_bytes("VmRSS:") - before, peak = status_bytes("VmHWM:") - before;
    step(m);
    double stepped = status_bytes("VmRSS:") - before;
    print_message("file %.0f MB; resident %.0f, at most %.0f, after a step %.0f%s\n", file / 1e6,
                  opened / 1e6, peak / 1e6, stepped / 1e6, packed ? " (repacked copy)" : "");
    qsi_model_close(&m);
    qsi_pool_free(pool);
    qsi_gguf_close(&g);
    assert_true(file > 8e7);
    assert_true(opened > 0.5 * file); /* it is measured at all; the embedding is read when needed */
    assert_true(opened < 1.05 * file);
    assert_true(peak < 1.05 * file);
    assert_true(peak < opened + 0.05 * file); /* nor is a large tensor held twice meanwhile */
    assert_true(stepped < 1.05 * file);
}

static void check(qsi_config c, qsi_type type) {
    char path[512], packed[530], lock[540];
    snprintf(path, sizeof path, "%s", tmp_path("resident.gguf"));
    snprintf(packed, sizeof packed, "%s.qspacked", path);
    snprintf(lock, sizeof lock, "%s.lock", packed);
    write_model(&c, path, type);
    check_open(path, NULL);
    check_open(path, packed); /* written */
    assert_int_equal(access(packed, R_OK), 0);
    check_open(path, packed); /* mapped */
    unlink(path);
    unlink(packed);
    unlink(lock);
}

static void test_dense(void **s) {
    (void)s;
    if (status_bytes("VmHWM:") == 0) skip();
    check(config_of(QSI_ARCH_LLAMA), QSI_Q8_0);
}

static void test_moe(void **s) {
    (void)s;
    if (status_bytes("VmHWM:") == 0) skip();
    check(config_of(QSI_ARCH_DEEPSEEK), QSI_Q8_0);
}

/* Most of the weights are one tensor. */
static void test_large_head(void **s) {
    (void)s;
    if (status_bytes("VmHWM:") == 0) skip();
    qsi_config c = config_of(QSI_ARCH_LLAMA);
    c.n_vocab = 60000;
    c.n_layer = 1;
    check(c, QSI_Q8_0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_head), /* first: the peak is the process's */
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_moe),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
