/* KV pages: taken when first needed, given back, limits, a failed reservation leaves all as it was. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/layer.h"

static qsi_config config(void) {
    return (qsi_config){.n_layer = 2, .n_kv_head = 3, .head_dim = 4};
}

static void test_pages(void **s) {
    (void)s;
    qsi_config c = config();
    qsi_kv *kv = NULL;
    qs_err err = {0};
    qsi_kv_table a = {0}, b = {0};
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_Q4_1, 4, &err), QS_E_ARG);
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_F16, 0, &err), QS_E_ARG);
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_F16, 4, &err), QS_OK);
    assert_int_equal(qsi_kv_page_bytes(kv), 2 * 2 * 3 * 4 * QSI_KV_PAGE * 2);
    assert_int_equal(qsi_kv_reserve(kv, &a, 65, &err), QS_OK);
    assert_int_equal(a.n_pages, 2);
    assert_int_equal(qsi_kv_reserve(kv, &b, 64, &err), QS_OK);
    assert_int_equal(b.n_pages, 1);
    assert_true(a.pages[0] != a.pages[1] && a.pages[0] != b.pages[0] && a.pages[1] != b.pages[0]);
    assert_int_equal(qsi_kv_reserve(kv, &b, 64 * 3, &err), QS_E_LIMIT); /* one is left, two needed */
    assert_int_equal(b.n_pages, 1);
    qsi_kv_truncate(kv, &a, 64);
    assert_int_equal(a.n_pages, 1);
    assert_int_equal(qsi_kv_reserve(kv, &b, 64 * 3, &err), QS_OK);
    assert_int_equal(qsi_kv_reserve(kv, &a, 65, &err), QS_E_LIMIT);
    qsi_kv_table_release(kv, &a);
    assert_null(a.pages);
    assert_int_equal(qsi_kv_reserve(kv, &b, 64 * 4, &err), QS_OK);
    qsi_kv_table_release(kv, &b);
    qsi_kv_free(kv);
}

/* Pages in two tables: who writes gets a copy, who only reads keeps the page; the last hold frees it. */
static void test_sharing(void **s) {
    (void)s;
    qsi_config c = config();
    qsi_kv *kv = NULL;
    qs_err err = {0};
    qsi_kv_table a = {0}, b = {0};
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_F16, 4, &err), QS_OK);
    assert_int_equal(qsi_kv_reserve(kv, &a, 128, &err), QS_OK);
    memset(qsi_kv_page_data(kv, a.pages[0]), 1, qsi_kv_page_bytes(kv));
    memset(qsi_kv_page_data(kv, a.pages[1]), 2, qsi_kv_page_bytes(kv));
    assert_int_equal(qsi_kv_share(kv, &b, a.pages, 2, &err), QS_OK);
    assert_int_equal(qsi_kv_n_free(kv), 2);
    assert_int_equal(qsi_kv_holds(kv, a.pages[1]), 2);
    int32_t first = a.pages[0], second = a.pages[1];
    assert_int_equal(qsi_kv_own(kv, &b, 70, &err), QS_OK); /* the first page is not written to */
    assert_int_equal(b.pages[0], first);
    assert_true(b.pages[1] != second);
    assert_int_equal(qsi_kv_n_free(kv), 1);
    assert_int_equal(qsi_kv_holds(kv, second), 1);
    assert_memory_equal(qsi_kv_page_data(kv, b.pages[1]), qsi_kv_page_data(kv, second),
                        qsi_kv_page_bytes(kv));
    memset(qsi_kv_page_data(kv, b.pages[1]), 3, qsi_kv_page_bytes(kv));
    assert_int_equal(*(char *)qsi_kv_page_data(kv, second), 2);
    assert_int_equal(qsi_kv_own(kv, &a, 64, &err), QS_OK); /* nobody else has it: no copy */
    assert_int_equal(a.pages[1], second);
    int32_t mine = -1;
    assert_int_equal(qsi_kv_take(kv, &mine, &err), QS_OK);
    assert_int_equal(qsi_kv_own(kv, &a, 0, &err), QS_E_LIMIT); /* a copy needs a page */
    qsi_kv_hold(kv, mine);
    qsi_kv_drop(kv, mine);
    assert_int_equal(qsi_kv_n_free(kv), 0);
    qsi_kv_drop(kv, mine);
    assert_int_equal(qsi_kv_n_free(kv), 1);
    qsi_kv_table_release(kv, &a);
    assert_int_equal(qsi_kv_n_free(kv), 2); /* the first is b's too */
    qsi_kv_table_release(kv, &b);
    assert_int_equal(qsi_kv_n_free(kv), qsi_kv_n_pages(kv));
    qsi_kv_free(kv);
}

static void check_store(qsi_type type) {
    qsi_config c = config();
    qsi_kv *kv = NULL;
    qsi_kv_table t = {0};
    const qsi_kern *k = qsi_kern_get(QSI_ISA_REF);
    assert_int_equal(qsi_kv_create(&kv, &c, type, 3, NULL), QS_OK);
    assert_int_equal(qsi_kv_reserve(kv, &t, 130, NULL), QS_OK);
    /* a value that says where it belongs, exact in half precision; in bfloat16 in 8 bits */
    int of = type == QSI_BF16 ? 64 : 1;
    for (int l = 0; l < 2; l++)
        for (int p = 0; p < 130; p++) {
            float key[12], value[12];
            for (int i = 0; i < 12; i++) {
                key[i] = (float)((p * 8 + l * 4 + i % 4) / of * of);
                value[i] = -(float)((p + i / 4 * 256 + l) / of * of);
            }
            qsi_kv_store(kv, k, &t, l, p, 0, 2, key, value); /* by parts, as workers do */
            qsi_kv_store(kv, k, &t, l, p, 2, 3, key, value);
        }
    for (int l = 0; l < 2; l++) {
        qsi_kv_view v = qsi_kv_layer(kv, &t, l, false, false);
        assert_true(v.type == type && v.hd_k == 4 && v.hd_v == 4 && !v.v_in_k);
        for (int p = 0; p < 130; p++) {
            float key[12], value[12];
            qsi_kv_load(kv, k, &t, l, p, key, NULL);
            qsi_kv_load(kv, k, &t, l, p, NULL, value);
            for (int i = 0; i < 12; i++) {
                assert_true(key[i] == (float)((p * 8 + l * 4 + i % 4) / of * of));
                assert_true(value[i] == -(float)((p + i / 4 * 256 + l) / of * of));
            }
        }
    }
    qsi_kv_table_release(kv, &t);
    qsi_kv_free(kv);
}

static void test_store(void **s) {
    (void)s;
    check_store(QSI_F16);
    check_store(QSI_F32);
    check_store(QSI_BF16);
}

/* What comes back of Q4_0 is what its block format makes of the rotated head, turned back; and nobody
 * else's nibbles have changed. Heads of 64 and 96 elements are rotated, of 40 and 24 not. */
static void check_q4(int32_t hd, bool latent) {
    qsi_config c = {.n_layer = 1, .n_kv_head = 2, .head_dim = hd};
    if (latent) c = (qsi_config){.n_layer = 1, .n_head = 2, .head_dim = 96, .kv_rank = hd, .d_rope = 32};
    qsi_kv *kv = NULL;
    qsi_kv_table t = {0};
    const qsi_kern *k = qsi_kern_get(qsi_cpu_isa());
    int64_t heads = latent ? 1 : 2, width = latent ? hd + 32 : hd;
    float x[100][2 * 288], y[2 * 288], z[2 * 288];
    qsi_rng r;
    qsi_rng_init(&r, 5);
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_Q4_0, 2, NULL), QS_OK);
    assert_int_equal(qsi_kv_reserve(kv, &t, 100, NULL), QS_OK);
    for (int p = 99; p >= 0; p--) {
        for (int64_t i = 0; i < heads * width; i++) x[p][i] = (float)qsi_rng_normal(&r);
        qsi_kv_store(kv, k, &t, 0, p, 0, (int32_t)heads, x[p], x[p]);
    }
    for (int p = 0; p < 100; p++) {
        qsi_kv_load(kv, k, &t, 0, p, y, NULL);
        qsi_kv_load(kv, k, &t, 0, p, NULL, z);
        for (int64_t h = 0; h < heads; h++) {
            float want[320] = {0}, *head = x[p] + h * width;
            qsi_q4_0 b[10];
            memcpy(want, head, (size_t)width * sizeof *want);
            qsi_kv_rotate(kv, k, 0, false, want);
            qsi_type_get(QSI_Q4_0)->encode(want, b, (width + 31) / 32 * 32);
            qsi_type_get(QSI_Q4_0)->decode(b, want, (width + 31) / 32 * 32);
            qsi_kv_rotate(kv, k, 0, false, want);
            double off = 0, all = 0;
            for (int64_t i = 0; i < width; i++) {
                off += (double)((want[i] - head[i]) * (want[i] - head[i]));
                all += (double)(head[i] * head[i]);
            }
            /* a step is an eighth of the largest of 32, here at most 3.8 deviations, an error at most
             * half of it in the mean: 0.24^2 */
            assert_true(off < 0.058 * all);
            assert_memory_equal(want, y + h * width, (size_t)width * sizeof *want);
            assert_memory_equal(want, z + h * hd, (size_t)hd * sizeof *want);
        }
    }
    qsi_kv_table_release(kv, &t);
    qsi_kv_free(kv);
}

static void test_q4(void **s) {
    (void)s;
    static const int32_t heads[] = {64, 96, 40, 24, 128, 256};
    for (size_t i = 0; i < QSI_COUNT(heads); i++) check_q4(heads[i], false);
    check_q4(64, true);
    check_q4(256, true);
}

/* Rotated queries meet rotated keys in the scores of plain ones; twice rotated is as before. */
static void test_rotate(void **s) {
    (void)s;
    qsi_config c = {.n_layer = 1, .n_kv_head = 1, .head_dim = 192};
    qsi_kv *kv = NULL;
    float q[192], key[192], q0[192];
    double want = 0, got = 0;
    qsi_rng r;
    qsi_rng_init(&r, 6);
    assert_int_equal(qsi_kv_create(&kv, &c, QSI_Q4_0, 1, NULL), QS_OK);
    assert_true(qsi_kv_rotates(kv));
    for (int isa = 0; isa < 2; isa++) {
        const qsi_kern *k = qsi_kern_get(isa ? qsi_cpu_isa() : QSI_ISA_REF);
        want = got = 0;
        for (int i = 0; i < 192; i++) {
            q0[i] = q[i] = (float)qsi_rng_normal(&r);
            key[i] = i == 7 ? 100.0f : (float)qsi_rng_normal(&r);
            want += (double)q[i] * (double)key[i];
        }
        qsi_kv_rotate(kv, k, 0, false, q);
        qsi_kv_rotate(kv, k, 0, false, key);
        float top = 0;
        for (int i = 0; i < 192; i++) {
            got += (double)q[i] * (double)key[i];
            if (key[i] > top) top = key[i];
        }
        assert_true(got - want < 1e-4 && want - got < 1e-4);
        assert_true(top < 20.0f); /* one large element is spread over 64 */
        qsi_kv_rotate(kv, k, 0, false, q);
        for (int i = 0; i < 192; i++) assert_true(q[i] - q0[i] < 1e-6f && q0[i] - q[i] < 1e-6f);
    }
    qsi_kv_free(kv);
}

/* The n-th allocation fails, for every n: said, nothing leaks, tables stay as they were and go on
 * (hooks of QS_DEBUG builds; elsewhere the first try succeeds). */
static void test_memory(void **s) {
    (void)s;
    qsi_config c = config();
    int64_t n = 1;
    for (bool made = false; !made; n++) {
        qsi_kv *kv = NULL;
        qs_err err = {0};
        qsi_mem_fail_after(n);
        qs_status st = qsi_kv_create(&kv, &c, QSI_F16, 20, &err);
        qsi_mem_fail_after(-1);
        made = st == QS_OK;
        if (!made) {
            assert_int_equal(st, QS_E_NOMEM);
            assert_null(kv);
            assert_non_null(strstr(err.text, "memory"));
        }
        qsi_kv_free(kv);
    }
    n = 1;
    for (bool made = false; !made; n++) {
        qsi_kv *kv = NULL;
        qsi_kv_table t = {0};
        qs_err err = {0};
        assert_int_equal(qsi_kv_create(&kv, &c, QSI_F16, 20, &err), QS_OK);
        qsi_mem_fail_after(n);
        qs_status st = qsi_kv_reserve(kv, &t, 64 * 20, &err);
        qsi_mem_fail_after(-1);
        made = st == QS_OK;
        if (!made) {
            assert_int_equal(st, QS_E_NOMEM);
            assert_non_null(strstr(err.text, "memory"));
            assert_true(t.n_pages < 20); /* what was got before stays usable */
            assert_int_equal(qsi_kv_reserve(kv, &t, 64 * 20, &err), QS_OK);
        }
        assert_int_equal(t.n_pages, 20);
        qsi_kv_table_release(kv, &t);
        qsi_kv_free(kv);
    }
}

/* What a number of pages needs holds as many, in one slab and in several. */
static void test_need(void **s) {
    (void)s;
    static const qsi_config shapes[] = {{.n_layer = 2, .n_kv_head = 3, .head_dim = 4},
                                        {.n_layer = 28, .n_kv_head = 16, .head_dim = 128},
                                        {.n_layer = 95, .n_kv_head = 64, .head_dim = 128}};
    static const qsi_type types[] = {QSI_F32, QSI_F16, QSI_BF16, QSI_Q8_0, QSI_Q4_0};
    for (size_t i = 0; i < QSI_COUNT(shapes); i++)
        for (size_t j = 0; j < QSI_COUNT(types); j++) {
            qsi_kv *kv = NULL;
            assert_int_equal(qsi_kv_create(&kv, &shapes[i], types[j], 1, NULL), QS_OK);
            uint64_t page = qsi_kv_page_bytes(kv), last = 0;
            qsi_kv_free(kv);
            for (int64_t n = 1; n < 200; n += n / 8 + 1) {
                uint64_t bytes = 0, more = 0;
                int64_t fit = 0, less = 0;
                assert_int_equal(qsi_kv_need(&shapes[i], types[j], n, &bytes, NULL), QS_OK);
                assert_true(bytes >= last && bytes >= (uint64_t)n * page);
                last = bytes;
                assert_int_equal(qsi_kv_fit(&shapes[i], types[j], bytes, &fit, NULL), QS_OK);
                assert_int_equal(qsi_kv_fit(&shapes[i], types[j], bytes - 1, &less, NULL), QS_OK);
                assert_true(fit >= n && less < fit);
                assert_int_equal(qsi_kv_need(&shapes[i], types[j], fit, &more, NULL), QS_OK);
                assert_int_equal(more, bytes);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages), cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_q4),
        cmocka_unit_test(test_rotate),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
