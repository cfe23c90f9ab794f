/* Repacked copies, reading: what was written comes back; a copy for something else is told from a
 * damaged one; no byte of header and table can change unnoticed, no cut is accepted. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/packed.h"
#include "sys/file.h"
#include "../sys/tmpdir.h"

enum { N = 3 };
static const qsi_packed_id id = {.source = 11, .layout = 22, .isa = "ref"};
static const qsi_packed_weight weights[N] = {
    {.name = 1, .kind = QSI_MM_Q8_0, .n_out = 16, .n_in = 32, .bytes = 5000},
    {.name = 2, .kind = QSI_MM_F32, .n_out = 3, .n_in = 5, .bytes = 3 << 20},
    {.name = 3, .kind = QSI_MM_Q4_K, .n_out = 1, .n_in = 256, .bytes = 64},
};
static char path[512];
static uint8_t *content;

static void write_copy(void) {
    qs_err err = {0};
    qsi_packed_writer *w = NULL;
    snprintf(path, sizeof path, "%s", tmp_path("copy.qspacked"));
    if (qsi_packed_writer_open(&w, path, &id, 1 << 20, &err) != QS_OK) fail_msg("%s", err.text);
    for (int i = 0; i < N; i++)
        assert_int_equal(qsi_packed_put(w, &weights[i], content + i, &err), QS_OK);
    if (qsi_packed_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

static int setup(void **state) {
    qsi_rng r;
    if (tmp_setup(state) != 0) return -1;
    qsi_rng_init(&r, 3);
    content = qsi_alloc(4 << 20, 1);
    for (size_t i = 0; i < 4 << 20; i++) content[i] = (uint8_t)qsi_rng_u64(&r);
    write_copy();
    return 0;
}

static int teardown(void **state) {
    qsi_free(content);
    return tmp_teardown(state);
}

static int told;
static int on_progress(void *user, int64_t done, int64_t of) {
    int64_t *last = user;
    assert_true(done > *last && done <= of);
    *last = done;
    told++;
    return 0;
}

static void test_round_trip(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_packed *p = NULL;
    qsi_pool *pool = NULL;
    const void *data = NULL;
    int64_t last = 0;
    if (qsi_packed_open(&p, path, &id, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_packed_count(p), N);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(qsi_packed_take(p, i, &weights[i], &data, &err), QS_OK);
        assert_int_equal((uintptr_t)data % QSI_PACKED_ALIGN, 0);
        assert_memory_equal(data, content + i, weights[i].bytes);
        qsi_packed_weight other = weights[i];
        other.n_in++;
        assert_int_equal(qsi_packed_take(p, i, &other, &data, &err), QS_E_CORRUPT);
        other = weights[i];
        other.name++;
        assert_int_equal(qsi_packed_take(p, i, &other, &data, &err), QS_E_CORRUPT);
    }
    assert_int_equal(qsi_packed_take(p, N, &weights[0], &data, &err), QS_E_CORRUPT);
    assert_int_equal(qsi_pool_create(&pool, 2, &err), QS_OK);
    assert_int_equal(qsi_packed_load(p, pool, on_progress, &last, &err), QS_OK);
    assert_int_equal(last, qsi_packed_bytes(p));
    assert_int_equal(told, 1);
    qsi_pool_free(pool);
    last = 0;
    assert_int_equal(qsi_packed_verify(p, on_progress, &last, &err), QS_OK);
    assert_int_equal(last, qsi_packed_bytes(p));
    qsi_packed_close(&p);
}

static void test_for_something_else(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_packed *p = NULL;
    qsi_packed_id other = id;
    other.source++;
    assert_int_equal(qsi_packed_open(&p, path, &other, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "the model changed"));
    other = id;
    other.layout++;
    assert_int_equal(qsi_packed_open(&p, path, &other, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "packs weights otherwise"));
    memcpy(other.isa, "avx2", 5);
    assert_int_equal(qsi_packed_open(&p, path, &other, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "other kernels (ref; these are avx2)"));
    other = id;
    other.exact = true;
    assert_int_equal(qsi_packed_open(&p, path, &other, &err), QS_E_STATE);
    assert_int_equal(qsi_packed_open(&p, tmp_path("no_such.qspacked"), &id, &err), QS_E_NOTFOUND);
    assert_null(p);
}

/* The copy's bytes, to be damaged. */
static uint8_t *bytes_of(size_t *n) {
    qs_err err = {0};
    qsi_map m = {.fd = -1};
    assert_int_equal(qsi_map_open(&m, path, &err), QS_OK);
    uint8_t *b = qsi_alloc(m.size, 1);
    memcpy(b, m.data, m.size);
    *n = m.size;
    qsi_map_close(&m);
    return b;
}

static qs_status open_bytes(const uint8_t *b, size_t n) {
    qs_err err = {0};
    qsi_packed *p = NULL;
    qs_status st = qsi_packed_open_mem(&p, b, n, &id, &err);
    assert_int_equal(st == QS_OK, p != NULL);
    qsi_packed_close(&p);
    return st;
}

static void test_damage(void **state) {
    (void)state;
    size_t n;
    uint8_t *b = bytes_of(&n);
    assert_int_equal(open_bytes(b, n), QS_OK);
    for (size_t i = 0; i < QSI_PACKED_HEADER; i++) {
        b[i] ^= 0x10;
        assert_int_equal(open_bytes(b, n), i < 8 ? QS_E_FORMAT : QS_E_CORRUPT);
        b[i] ^= 0x10;
    }
    for (size_t i = n - N * QSI_PACKED_ENTRY; i < n; i++) {
        b[i] ^= 1;
        assert_int_equal(open_bytes(b, n), QS_E_CORRUPT);
        b[i] ^= 1;
    }
    static const size_t cuts[] = {0, 7, 127, 128, 4096, QSI_PACKED_DATA};
    for (size_t i = 0; i < QSI_COUNT(cuts); i++) assert_int_not_equal(open_bytes(b, cuts[i]), QS_OK);
    assert_int_equal(open_bytes(b, n - 1), QS_E_CORRUPT);
    assert_int_equal(open_bytes(b, n), QS_OK);
    qsi_free(b);
}

/* Right checksums over a wrong table: the bounds hold without them. */
static void test_bounds(void **state) {
    (void)state;
    size_t n;
    uint8_t *b = bytes_of(&n), *table = b + n - N * QSI_PACKED_ENTRY;
    static const struct {
        size_t at; /* in the second entry */
        uint64_t value;
    } wrong[] = {{0, QSI_MM_COUNT}, {8, UINT64_MAX}, {16, UINT64_MAX}, {24, 0}, {24, UINT64_MAX - 4095},
                 {24, QSI_PACKED_DATA}, {32, UINT64_MAX}, {32, 1 << 30}};
    for (size_t i = 0; i < QSI_COUNT(wrong); i++) {
        uint8_t kept[QSI_PACKED_ENTRY];
        uint8_t *e = table + QSI_PACKED_ENTRY;
        memcpy(kept, e, sizeof kept);
        memcpy(e + wrong[i].at, &wrong[i].value, 8);
        uint64_t h = qsi_hash(table, N * QSI_PACKED_ENTRY);
        memcpy(b + 56, &h, sizeof h);
        h = qsi_hash(b, QSI_PACKED_HEADER - 8);
        memcpy(b + QSI_PACKED_HEADER - 8, &h, sizeof h);
        assert_int_equal(open_bytes(b, n), QS_E_CORRUPT);
        memcpy(e, kept, sizeof kept);
    }
    qsi_free(b);
}

/* A weight's own bytes: opening does not read them, verifying does. */
static void test_verify(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_packed *p = NULL;
    size_t n;
    uint8_t *b = bytes_of(&n);
    b[QSI_PACKED_DATA + 8192 + 100] ^= 4;
    assert_int_equal(qsi_packed_open_mem(&p, b, n, &id, &err), QS_OK);
    assert_int_equal(qsi_packed_verify(p, NULL, NULL, &err), QS_E_CORRUPT);
    assert_non_null(strstr(err.text, "weight 1"));
    qsi_packed_close(&p);
    qsi_free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_for_something_else),
        cmocka_unit_test(test_damage),     cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_verify),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
